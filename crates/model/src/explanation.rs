//! The handbook: every stable code, what it means and what to do. Shown by `tally explain`.

/// Codes of failures that are not outcomes: the request got no answer from the state machine, or a
/// member could not start. Refusals carry their own codes, T-101 and up.
pub mod codes {
    pub const NO_LEADER: &str = "T-001";
    pub const OUTCOME_UNKNOWN: &str = "T-002";
    pub const OVERLOADED: &str = "T-003";
    pub const INVALID_ARGUMENT: &str = "T-004";
    pub const WRONG_CLUSTER: &str = "T-005";
    pub const NOT_READY: &str = "T-006";
    pub const TOO_LARGE: &str = "T-007";
    pub const HALTED: &str = "T-008";
    pub const WRONG_PEER: &str = "T-009";
    pub const TRANSFER_FAILED: &str = "T-010";
    pub const EMPTY_DIRECTORY: &str = "T-011";
    pub const FOREIGN_DIRECTORY: &str = "T-012";
    pub const DIRECTORY_LOCKED: &str = "T-013";
    pub const ADDRESS_IN_USE: &str = "T-014";
    pub const INVALID_CONFIG: &str = "T-015";
    pub const UNSAFE_NOT_ACKNOWLEDGED: &str = "T-016";
    pub const READ_TIMED_OUT: &str = "T-017";
    pub const DAMAGED: &str = "T-018";
    pub const NOT_FOUND: &str = "T-019";
    pub const NOT_PERMITTED: &str = "T-020";
    pub const REMOVED: &str = "T-021";
    pub const ENDED_LATE: &str = "T-022";
    pub const NOT_SERVED_HERE: &str = "T-023";
}

/// One code's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub code: &'static str,
    pub title: &'static str,
    /// What it means and what to do, a few sentences.
    pub text: &'static str,
}

/// The entry of a code, in any case: `T-310`, `t-310`.
pub fn explain(code: &str) -> Option<&'static Explanation> {
    EXPLANATIONS
        .iter()
        .find(|entry| entry.code.eq_ignore_ascii_case(code))
}

const fn entry(code: &'static str, title: &'static str, text: &'static str) -> Explanation {
    Explanation { code, title, text }
}

/// Every code, ascending.
pub const EXPLANATIONS: &[Explanation] = &[
    entry(
        codes::NO_LEADER,
        "no leader",
        "No member leads, or none could be reached, and the request was not appended anywhere. It is safe to send it again. Look at `tally cluster status`: a majority of the members must be up and reach one another.",
    ),
    entry(
        codes::OUTCOME_UNKNOWN,
        "outcome unknown",
        "The deadline passed, or the member that was asked ended, while the request may have been committed. Only the same tag may be sent again. `tally resume TOKEN` tells what became of it, and makes sure that nothing more does.",
    ),
    entry(
        codes::OVERLOADED,
        "too much in flight",
        "A member refuses more than it can hold: proposals, reads or watches. Nothing was appended. Wait for the time that the error names and send the request again.",
    ),
    entry(
        codes::INVALID_ARGUMENT,
        "invalid argument",
        "A field of the request is missing, out of bounds or not of its form. The message names the field, what was found and what is allowed. Nothing was appended.",
    ),
    entry(
        codes::WRONG_CLUSTER,
        "wrong cluster",
        "The request names another cluster id than the member's. Compare the endpoints with `tally cluster status`.",
    ),
    entry(
        codes::NOT_READY,
        "member not ready",
        "The member is starting, catching up or ending, or is not part of a cluster yet. `/readyz` on its HTTP port tells which. Send the request to another member.",
    ),
    entry(
        codes::TOO_LARGE,
        "message too large",
        "The message is over the member's limit (`message-bytes-max`). Nothing was appended.",
    ),
    entry(
        codes::HALTED,
        "member halted",
        "The process could not write to its disk, or found data that it cannot trust, and stopped serving. Its log names the file. The other members go on. Mend the disk and start it again. A member of the cluster can also be replaced: `tally member replace NAME`. A log server whose data is lost is reported with `tally node set-state NAME data-loss`.",
    ),
    entry(
        codes::WRONG_PEER,
        "wrong peer",
        "A call between members named another cluster or another member than the one that received it. An address in the configuration points to the wrong process, or a member's data directory was exchanged.",
    ),
    entry(
        codes::TRANSFER_FAILED,
        "the cluster was not changed",
        "Leadership did not move, no snapshot was taken, no member was replaced, killed or started: the target is unknown, does not vote, lags behind, or did not answer in time. `tally cluster status` shows how far each member is.",
    ),
    entry(
        codes::EMPTY_DIRECTORY,
        "empty directory under a known name",
        "The member started with an empty data directory, but the cluster knows its name under another identity. Its old votes and entries are lost, so it must not vote under that name. Bring the old directory back, or run `tally member replace NAME` against the running members: it removes the old identity and admits the new one.",
    ),
    entry(
        codes::FOREIGN_DIRECTORY,
        "foreign data directory",
        "The data directory belongs to another member, another log server or another cluster, or was written by a newer Tally. Nothing was changed. Start the process with its own directory, or a newer version.",
    ),
    entry(
        codes::DIRECTORY_LOCKED,
        "data directory in use",
        "Another process has the data directory open. Two processes on one directory would destroy it. Stop the other one first.",
    ),
    entry(
        codes::ADDRESS_IN_USE,
        "address in use",
        "The address cannot be listened on: the port is taken, or the address is not of this machine. Choose another one, or stop the process that has it.",
    ),
    entry(
        codes::INVALID_CONFIG,
        "invalid configuration",
        "A key or a value in the flags, the environment or the configuration file is wrong, or names a directory that cannot be used. The message names the place, what was found and what is allowed.",
    ),
    entry(
        codes::UNSAFE_NOT_ACKNOWLEDGED,
        "unsafe setting not acknowledged",
        "`retry-check = \"relaxed\"` lets two processes with one node id both succeed and lets a retry take an operator's change for its own success. It is for test clusters and needs `--i-know-this-is-unsafe`.",
    ),
    entry(
        codes::READ_TIMED_OUT,
        "read timed out",
        "The member that was asked has not applied in time what the read must see. Nothing changed. Ask another member, or for a stale read by name if an old answer will do.",
    ),
    entry(
        codes::DAMAGED,
        "damaged data",
        "A file on disk does not hold what was written, so the process does not start: a member must not vote on damaged data, and a log server must not serve it. The message names the file and the reason. Restore the disk. A member of the cluster can also start on an empty directory and be admitted anew: `tally member replace NAME`. A log server's directory must never be emptied for this: its operator runs `tally node set-state NAME data-loss`.",
    ),
    entry(
        codes::NOT_FOUND,
        "not found",
        "There is no node or member of this name or id. `tally node list` and `tally cluster status` show which there are.",
    ),
    entry(
        codes::NOT_PERMITTED,
        "not permitted in this storage state",
        "A log server refuses what its storage state does not permit: it takes appends in read-write only and while its disk has room, and gives out records unless its data is lost or gone. `tally node show NAME` tells the state, `tally node history NAME` who changed it and why.",
    ),
    entry(
        codes::REMOVED,
        "member removed",
        "The cluster replaced this member while it was away, and a majority says so. Its data directory is of no further use to the cluster. To bring the name back, start it on an empty data directory and run `tally member replace NAME`.",
    ),
    entry(
        codes::ENDED_LATE,
        "ended late",
        "The process was asked to end and had not closed its files within `shutdown-ms-max`, or was asked again. It ended all the same. Nothing that was answered is lost: it is on the disks of a majority, and the next start reads it from the log. A disk that hangs is the usual reason; look at it before the member is started again.",
    ),
    entry(
        codes::NOT_SERVED_HERE,
        "not served on this port",
        "The call reached a port that does not have what it asked for, and nothing was done. A member has three: `listen-client` for clients (gRPC), `listen-peer` for other members (gRPC) and `listen-http` for operators (HTTP); a log server has one (gRPC). The message names the port that was reached and, where there is one, the port to call instead. If the port is right, the caller is of a newer version than what it called.",
    ),
    entry(
        "T-101",
        "already founded",
        "The cluster has its identity and its settings; they are given once.",
    ),
    entry(
        "T-102",
        "not founded",
        "The cluster's first entry is not applied yet. Wait until the members have formed the cluster.",
    ),
    entry(
        "T-103",
        "tag expected",
        "Every command but the opening of a session needs a tag, so that a repeat can be recognised. A client library does this by itself.",
    ),
    entry(
        "T-201",
        "session expired",
        "The session is unknown: it was closed, idle for too long, or made room for others. Nothing was applied now; whether an earlier attempt was, nobody can tell any more. A request that was never sent before may be sent under a new session; for one that was, look at the node's history first.",
    ),
    entry(
        "T-202",
        "request reused",
        "The tag was used for another request. Nothing was applied. This is a fault in the client: each request needs a sequence of its own.",
    ),
    entry(
        "T-203",
        "already acknowledged",
        "The client had said that every request below this sequence is answered, so its outcome is forgotten. Nothing was applied now; the earlier attempt may have been. `tally node history NAME` shows what happened.",
    ),
    entry(
        "T-204",
        "too many unacknowledged requests",
        "The session holds as many outcomes as it may. Nothing was applied. Acknowledge answered requests, and send this one again under the same tag.",
    ),
    entry(
        "T-205",
        "session of another marker",
        "The session was opened under another marker. Nothing was applied.",
    ),
    entry(
        "T-206",
        "request abandoned",
        "The request was settled before it took effect: it was never applied and never will be. It may be asked for anew, under a new tag.",
    ),
    entry(
        "T-301",
        "unknown node",
        "No node has this id. `tally node list` shows which there are.",
    ),
    entry(
        "T-310",
        "marker mismatch",
        "The node belongs to another marker: another process, or another data directory, was there first. Nothing changed; the attempt is recorded as a claim. `tally node claims NAME` shows it. Two log servers were probably started under one name.",
    ),
    entry(
        "T-311",
        "data lost",
        "The node is bound to a marker and the log server shows none: its data directory was wiped or replaced. Nothing changed; the attempt is recorded as a claim, unless the log server noticed by itself that it has records and no marker, and did not ask. If the data is gone, say so: `tally node set-state NAME data-loss`. If the directory was merely not mounted, mount it and start the log server again.",
    ),
    entry(
        "T-312",
        "no marker bound",
        "The node was never activated, so it cannot prove that it is itself. Activate it first.",
    ),
    entry(
        "T-320",
        "stale incarnation",
        "The log server has registered again since, under the same name. The older process is fenced and must stop.",
    ),
    entry(
        "T-330",
        "not provisioning",
        "Only a node in `provisioning` can be activated for the first time, and this one was moved elsewhere before. `tally node history NAME` tells by whom.",
    ),
    entry(
        "T-331",
        "name removed",
        "The name belongs to a removed node and stays reserved. Choose another name.",
    ),
    entry(
        "T-410",
        "transition not allowed",
        "There is no such transition for this actor. The message lists the ones there are. An operator may override the table with `--force`, the node's name typed again and a reason.",
    ),
    entry(
        "T-411",
        "node changed meanwhile",
        "The node is not as it was when the operator looked at it. Nothing changed. Look again with `tally node show NAME`.",
    ),
    entry(
        "T-412",
        "set by an operator",
        "A log server may only undo what it did itself. An operator made it read-only, and only an operator can undo that: `tally node set-state NAME read-write`.",
    ),
    entry(
        "T-413",
        "force not confirmed",
        "A forced transition needs the node's name typed again and a reason, so that it cannot happen by accident: `--force --confirm NAME --reason TEXT`.",
    ),
    entry(
        "T-420",
        "replication would be unsatisfied",
        "Fewer places would stay writable than the cluster's replication needs. Bring another node to read-write first.",
    ),
    entry(
        "T-501",
        "key not found",
        "A put was told to keep the value or the lease that its key has, and there is no such key. Nothing was changed.",
    ),
    entry(
        "T-502",
        "lease not found",
        "No lease has this id: it was never granted, was revoked, or has expired. Nothing was changed.",
    ),
    entry(
        "T-503",
        "revision compacted",
        "What keys were at this revision was given up by a compaction. Read as of the revision that the message names, or a later one.",
    ),
    entry(
        "T-504",
        "revision in the future",
        "The store has not come to this revision yet. Revisions are counted by each cluster for itself: look whether the revision is one of another cluster.",
    ),
    entry(
        "T-505",
        "key reserved",
        "Keys below `\\x00tally/` are written by the cluster itself, for every client to read. A request must not put or delete them. A deletion of a larger range leaves them out.",
    ),
    entry(
        "T-506",
        "lease exists",
        "The lease that was asked for by its id is held already. Choose another id, or leave it to the cluster: 0.",
    ),
    entry(
        "T-507",
        "time for leases has moved on",
        "A member that had led counted time for leases that another leader has counted already. Nothing was changed; members see it among themselves, clients never do.",
    ),
    entry(
        "T-508",
        "too many leases",
        "The cluster holds as many leases as it can. Revoke some, or use one lease for several keys.",
    ),
    entry(
        "T-509",
        "too much at once",
        "A write, with what it compares and reads, would look at more keys, delete more or longer names, or answer with or keep more bytes of values, than go into one entry of the log: every member has to do it while all others wait. Nothing was changed. Write in parts, or ask for less: without the previous values, or with a limit. Of a read, when it sorts or is a transaction, it would have to be held in memory as a whole. Ask with a limit, or for the keys alone; a range in the order of its keys may be as large as a message.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_none_is_used_twice() {
        for pair in EXPLANATIONS.windows(2) {
            assert!(
                pair[0].code < pair[1].code,
                "{} before {}",
                pair[0].code,
                pair[1].code
            );
        }
    }

    #[test]
    fn a_code_is_found_in_any_case() {
        assert_eq!(
            explain("t-310").map(|entry| entry.title),
            Some("marker mismatch")
        );
        assert_eq!(explain("T-999"), None);
    }
}
