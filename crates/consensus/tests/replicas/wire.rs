//! A network inside the process: messages are calls, and members can be cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, future};
use tally_consensus::{Answers, LinkError, Member, PeerLink, Presence, Replica, Transport};
use tally_model::MemberId;
use tally_proto::peer;
use tokio::sync::watch;
use tokio::time::sleep;

/// See the module. Clones are handles to the same network.
#[derive(Clone)]
pub(crate) struct Wire {
    replicas: Arc<Mutex<BTreeMap<MemberId, Replica>>>,
    cut: Arc<watch::Sender<BTreeSet<MemberId>>>,
    /// Pairs between which connections are refused, in both directions.
    rejected: Arc<watch::Sender<BTreeSet<(MemberId, MemberId)>>>,
    liars: Arc<Mutex<BTreeSet<MemberId>>>,
    /// Whose messages, and those to it, are held.
    held: Arc<watch::Sender<Option<MemberId>>>,
    /// Who gets no answers to replication.
    answers_held: Arc<watch::Sender<Option<MemberId>>>,
    /// How long a question about votes is on its way, and so its answer.
    votes_take: Arc<Mutex<Duration>>,
    /// Whose questions about votes, and those to it, are never answered.
    silent: Arc<Mutex<BTreeSet<MemberId>>>,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self {
            replicas: Arc::default(),
            cut: Arc::new(watch::Sender::new(BTreeSet::new())),
            rejected: Arc::new(watch::Sender::new(BTreeSet::new())),
            liars: Arc::default(),
            held: Arc::new(watch::Sender::new(None)),
            answers_held: Arc::new(watch::Sender::new(None)),
            votes_take: Arc::default(),
            silent: Arc::default(),
        }
    }

    pub(crate) fn connect(&self, id: MemberId, replica: Replica) {
        self.replicas.lock().unwrap().insert(id, replica);
    }

    pub(crate) fn disconnect(&self, id: MemberId) {
        self.replicas.lock().unwrap().remove(&id);
    }

    /// Nothing passes to or from this member any more.
    pub(crate) fn cut_from(&self, id: MemberId) {
        self.cut.send_modify(|cut| {
            cut.insert(id);
        });
    }

    /// Connections between these two break, and new ones are refused.
    pub(crate) fn reject(&self, one: MemberId, other: MemberId) {
        self.rejected.send_modify(|pairs| {
            pairs.extend([(one, other), (other, one)]);
        });
    }

    /// This member's process is gone: its connections break and new ones are refused.
    pub(crate) fn kill(&self, id: MemberId) {
        self.disconnect(id);
        self.cut_from(id);
    }

    pub(crate) fn heal(&self) {
        self.cut.send_modify(BTreeSet::clear);
        self.rejected.send_modify(BTreeSet::clear);
    }

    /// From now on this member's state hashes arrive changed.
    pub(crate) fn lie_about_hashes_of(&self, id: MemberId) {
        self.liars.lock().unwrap().insert(id);
    }

    /// Nothing passes to or from this member, as if it were paused: what is on its way stays so.
    pub(crate) fn hold(&self, id: MemberId) {
        self.held.send_replace(Some(id));
    }

    /// Answers to this member's replication stay on their way.
    pub(crate) fn hold_answers(&self, id: MemberId) {
        self.answers_held.send_replace(Some(id));
    }

    /// Everything passes again, what was held first.
    pub(crate) fn let_pass(&self) {
        self.held.send_replace(None);
        self.answers_held.send_replace(None);
    }

    /// It gets the answers to replication that were on their way, and nothing else yet.
    pub(crate) fn deliver_answers(&self) {
        self.answers_held.send_replace(None);
    }

    /// Questions about votes take so long from now on, and their answers as well.
    pub(crate) fn slow_votes(&self, way: Duration) {
        *self.votes_take.lock().unwrap() = way;
    }

    /// From now on this member answers no question about votes, and its own reach nobody.
    pub(crate) fn silence(&self, id: MemberId) {
        self.silent.lock().unwrap().insert(id);
    }

    /// What one member's links are made of.
    pub(crate) fn end(&self, from: MemberId) -> WireEnd {
        WireEnd {
            wire: self.clone(),
            from,
        }
    }
}

/// One member's connection to the network.
pub(crate) struct WireEnd {
    wire: Wire,
    from: MemberId,
}

impl Transport for WireEnd {
    fn link(&self, to: &Member) -> Arc<dyn PeerLink> {
        Arc::new(WireLink {
            wire: self.wire.clone(),
            from: self.from,
            to: to.id,
        })
    }
}

#[derive(Clone)]
struct WireLink {
    wire: Wire,
    from: MemberId,
    to: MemberId,
}

impl WireLink {
    fn is_cut(&self) -> bool {
        let cut = self.wire.cut.borrow();
        cut.contains(&self.from) || cut.contains(&self.to) || self.is_rejected()
    }

    fn is_rejected(&self) -> bool {
        self.wire.rejected.borrow().contains(&(self.from, self.to))
    }

    fn target(&self) -> Result<Replica, LinkError> {
        if self.is_cut() {
            return Err(LinkError::Unreachable("cut".to_owned()));
        }
        let replicas = self.wire.replicas.lock().unwrap();
        let target = replicas.get(&self.to).cloned();
        target.ok_or_else(|| LinkError::Unreachable("not there".to_owned()))
    }

    async fn until_not_held(self) {
        let mut held = self.wire.held.subscribe();
        let (from, to) = (self.from, self.to);
        let passes = |held: &Option<MemberId>| *held != Some(from) && *held != Some(to);
        let _ = held.wait_for(passes).await;
    }

    async fn until_answers_pass(self) {
        let mut held = self.wire.answers_held.subscribe();
        let from = self.from;
        let _ = held.wait_for(|held| *held != Some(from)).await;
    }

    async fn until_cut(self) {
        let mut cut = self.wire.cut.subscribe();
        let mut rejected = self.wire.rejected.subscribe();
        let (from, to) = (self.from, self.to);
        // The network outlives its links.
        tokio::select! {
            _ = cut.wait_for(|cut| cut.contains(&from) || cut.contains(&to)) => {}
            _ = rejected.wait_for(|pairs| pairs.contains(&(from, to))) => {}
        }
    }

    /// A question whose answer is lost when the link is cut meanwhile.
    fn ask<T: Send + 'static, F>(
        &self,
        call: impl FnOnce(Replica) -> F + Send + 'static,
    ) -> BoxFuture<'_, Result<T, LinkError>>
    where
        F: Future<Output = Result<T, LinkError>> + Send,
    {
        async move {
            let answer = call(self.target()?).await;
            if self.is_cut() {
                return Err(LinkError::Broken("cut".to_owned()));
            }
            answer
        }
        .boxed()
    }

    fn ask_for_vote<T: Send + 'static, F>(
        &self,
        call: impl FnOnce(Replica) -> F + Send + 'static,
    ) -> BoxFuture<'_, Result<T, LinkError>>
    where
        F: Future<Output = Result<T, LinkError>> + Send,
    {
        let way = *self.wire.votes_take.lock().unwrap();
        let silent = self.wire.silent.lock().unwrap();
        let silent = silent.contains(&self.to) || silent.contains(&self.from);
        let not_held = self.clone().until_not_held();
        async move {
            if silent {
                future::pending::<()>().await;
            }
            not_held.await;
            sleep(way).await;
            let answer = self.ask(call).await;
            sleep(way).await;
            answer
        }
        .boxed()
    }

    /// Answers of `target`, until the link is cut or the target has stopped, as a process does that
    /// ends.
    fn stream<T: Send + 'static>(
        &self,
        target: Replica,
        answers: BoxStream<'static, Result<T, LinkError>>,
    ) -> Answers<T> {
        let broken = Err(LinkError::Broken("cut".to_owned()));
        let cut = self.clone().until_cut().boxed();
        let stopped = async move { target.halted().await }.boxed();
        answers
            .take_until(future::select(cut, stopped))
            .chain(futures::stream::once(future::ready(broken)))
            .boxed()
    }
}

impl PeerLink for WireLink {
    fn presence(&self) -> BoxFuture<'_, Presence> {
        let gone = !self.wire.replicas.lock().unwrap().contains_key(&self.to);
        let presence = match (gone || self.is_rejected(), self.is_cut()) {
            (true, _) => Presence::Refused,
            (false, true) => Presence::Unknown,
            (false, false) => Presence::Listening,
        };
        future::ready(presence).boxed()
    }

    fn append(
        &self,
        requests: BoxStream<'static, peer::AppendRequest>,
    ) -> BoxFuture<'_, Result<Answers<peer::AppendResponse>, LinkError>> {
        let link = self.clone();
        let requests = requests
            .then(move |request| {
                let not_held = link.clone().until_not_held();
                async move {
                    not_held.await;
                    request
                }
            })
            .take_until(self.clone().until_cut());
        async move {
            let target = self.target()?;
            let link = self.clone();
            let answers = target.on_append(requests.boxed()).then(move |answer| {
                let pass = link.clone().until_answers_pass();
                async move {
                    pass.await;
                    answer
                }
            });
            Ok(self.stream(target, answers.boxed()))
        }
        .boxed()
    }

    fn vote(
        &self,
        request: peer::VoteRequest,
    ) -> BoxFuture<'_, Result<peer::VoteResponse, LinkError>> {
        self.ask_for_vote(async move |target: Replica| target.on_vote(request).await)
    }

    fn pre_vote(
        &self,
        request: peer::VoteRequest,
    ) -> BoxFuture<'_, Result<peer::VoteResponse, LinkError>> {
        self.ask_for_vote(async move |target: Replica| target.on_pre_vote(request).await)
    }

    fn transfer_leader(
        &self,
        request: peer::TransferLeaderRequest,
    ) -> BoxFuture<'_, Result<peer::TransferLeaderResponse, LinkError>> {
        self.ask(async move |target: Replica| target.on_transfer_leader(request).await)
    }

    fn install_snapshot(
        &self,
        frames: BoxStream<'static, peer::SnapshotFrame>,
    ) -> BoxFuture<'_, Result<peer::InstallSnapshotResponse, LinkError>> {
        self.ask(async move |target: Replica| target.on_install_snapshot(frames.map(Ok)).await)
    }

    fn forward(
        &self,
        requests: BoxStream<'static, peer::ForwardRequest>,
    ) -> BoxFuture<'_, Result<Answers<peer::ForwardResponse>, LinkError>> {
        let requests = requests.take_until(self.clone().until_cut());
        async move {
            let target = self.target()?;
            let answers = target.on_forward(requests);
            Ok(self.stream(target, answers.map(Ok).boxed()))
        }
        .boxed()
    }

    fn read_index(&self) -> BoxFuture<'_, Result<peer::ReadIndexResponse, LinkError>> {
        self.ask(async |target: Replica| {
            let read = target.on_read_index().await;
            let read = read.map_err(|error| LinkError::Refused(error.to_string()))?;
            Ok(peer::ReadIndexResponse { read: Some(read) })
        })
    }

    fn state_hashes(&self) -> BoxFuture<'_, Result<peer::StateHashesResponse, LinkError>> {
        let lies = self.wire.liars.lock().unwrap().contains(&self.to);
        self.ask(async move |target: Replica| {
            let mut response = target.on_state_hashes();
            if lies {
                for hash in &mut response.hashes {
                    hash.hash[0] ^= 1;
                }
            }
            Ok(response)
        })
    }
}
