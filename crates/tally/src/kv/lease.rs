//! `tally kv lease`.

use std::time::Duration;

use clap::Subcommand;
use tally_client::Client;
use tally_client::keys::{Keys, LeaseId};
use tally_model::explanation::codes;

use super::document::{LeaseDocument, LeasesDocument, WrittenDocument, shown};
use super::lease_id;
use crate::exit::Failure;
use crate::output::{Output, fields, table};
use crate::signals::Signals;

#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// Grants a lease.
    Grant {
        /// How long it lives from each sign of life on; at least 2.
        #[arg(value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
        ttl_s: u64,
    },
    /// Ends a lease and deletes its keys.
    Revoke {
        #[arg(value_name = "ID", value_parser = lease_id)]
        lease: LeaseId,
    },
    /// Shows signs of life until it is interrupted.
    KeepAlive {
        #[arg(value_name = "ID", value_parser = lease_id)]
        lease: LeaseId,
        /// Only one.
        #[arg(long)]
        once: bool,
    },
    /// How long a lease still lives, and its keys.
    Show {
        #[arg(value_name = "ID", value_parser = lease_id)]
        lease: LeaseId,
    },
    /// Every lease.
    List,
}

pub(super) async fn run(
    client: &Client,
    command: LeaseCommand,
    output: Output,
) -> Result<(), Failure> {
    let keys = client.keys();
    match command {
        LeaseCommand::Grant { ttl_s } => grant(&keys, ttl_s, output).await,
        LeaseCommand::Revoke { lease } => {
            let asked = format!("revoke lease {lease}");
            let revoked = keys.revoke_lease(lease).await;
            let revoked = revoked.map_err(|error| Failure::from(error).asked(&asked))?;
            let document = WrittenDocument::from(&revoked);
            output.print(&document, || document.text(&asked))
        }
        LeaseCommand::KeepAlive { lease, once } => keep_alive(&keys, lease, once, output).await,
        LeaseCommand::Show { lease } => show(&keys, lease, output).await,
        LeaseCommand::List => {
            let leases = keys.leases().await?;
            let leases = Vec::from_iter(leases.iter().map(LeaseId::to_string));
            let document = LeasesDocument {
                leases: leases.clone(),
            };
            output.print(&document, || {
                table(["LEASE"], leases.into_iter().map(|id| [id]))
            })
        }
    }
}

async fn grant(keys: &Keys, ttl_s: u64, output: Output) -> Result<(), Failure> {
    let asked = format!("grant a lease for {ttl_s} s");
    let granted = keys.grant_lease(ttl_s).await;
    let granted = granted.map_err(|error| Failure::from(error).asked(&asked))?;
    let (lease, written) = (granted.answer, WrittenDocument::from(&granted));
    let document = LeaseDocument {
        lease: lease.id.to_string(),
        ttl_s: lease.ttl_s,
        outcome: Some(written.outcome),
        left_s: None,
        keys: None,
    };
    output.print(&document, || {
        written.text(&format!("lease {} for {} s", lease.id, lease.ttl_s))
    })
}

/// Signs of life that come three times in each life, so that two may be lost.
async fn keep_alive(
    keys: &Keys,
    lease: LeaseId,
    once: bool,
    output: Output,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    loop {
        let renewed = tokio::select! {
            renewed = keys.keep_lease_alive(lease) => renewed,
            () = signals.asked_to_end() => return Ok(()),
        };
        let asked = format!("keep lease {lease} alive");
        let ttl_s = renewed.map_err(|error| Failure::from(error).asked(asked))?;
        let document = LeaseDocument {
            lease: lease.to_string(),
            ttl_s,
            outcome: None,
            left_s: Some(ttl_s),
            keys: None,
        };
        output.print_line(&document, || format!("lease {lease} lives for {ttl_s} s"))?;
        if once {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(ttl_s) / 3) => {}
            () = signals.asked_to_end() => return Ok(()),
        }
    }
}

async fn show(keys: &Keys, lease: LeaseId, output: Output) -> Result<(), Failure> {
    let found = keys.lease(lease).await?;
    let found = found.ok_or_else(|| {
        Failure::fault(codes::NOT_FOUND, format!("there is no lease {lease}"))
            .expected("a lease that was granted and has not ended")
            .next("tally kv lease list")
    })?;
    let document = LeaseDocument {
        lease: lease.to_string(),
        ttl_s: found.lease.ttl_s,
        outcome: None,
        left_s: Some(found.left_s),
        keys: Some(found.keys.iter().map(|key| key.as_ref().into()).collect()),
    };
    output.print(&document, || {
        let keys = found.keys.iter().map(|key| shown(key));
        fields(&[
            ("lease", lease.to_string()),
            (
                "left",
                format!("{} s of {} s", found.left_s, found.lease.ttl_s),
            ),
            ("keys", Vec::from_iter(keys).join("\n      ")),
        ])
    })
}
