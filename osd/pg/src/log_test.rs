//! What becomes of objects when logs are merged.

use bytes::Bytes;
use nacre_proto::ids::{Epoch, PoolId, SnapId};

use super::*;

fn oid() -> ObjectId {
    ObjectId { pool: PoolId(1), hash: 7, namespace: Bytes::new(), name: "a".into(), snap: SnapId::HEAD }
}

fn version(counter: u64) -> Version {
    Version { epoch: Epoch(1), counter }
}

fn entry(counter: u64, prior: Option<u64>, change: Change) -> LogEntry {
    LogEntry {
        version: version(counter),
        oid: oid(),
        prior: prior.map(version),
        change,
        reqid: None,
        acked_below: 0,
        outcome: None,
        replied: None,
        delta: Delta::default(),
    }
}

/// What is to be done where a log ends with the object's making, and the authoritative one with its removal.
fn removed(missing: &Missing) -> Merge {
    let made = entry(1, None, Change::Modify);
    let gone = Arc::new(entry(2, Some(1), Change::Delete));
    let mut log = Log::load(Version::default(), [made], Dups::default());
    let part = LogPart { tail: version(1), head: version(2), entries: vec![gone] };
    log.merge(&part, &Dups::default(), missing, |_| true).unwrap()
}

#[test]
fn what_others_removed_is_removed() {
    let merge = removed(&Missing::new());
    assert_eq!((merge.remove, merge.missing), (vec![oid()], Vec::new()));
}

#[test]
fn what_others_removed_is_removed_also_where_it_is_damaged() {
    let damaged = MissingItem { need: version(1), have: None };
    let merge = removed(&Missing::from([(oid(), damaged)]));
    assert_eq!((merge.remove, merge.missing), (vec![oid()], vec![(oid(), None)]));
}
