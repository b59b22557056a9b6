//! A backup is the encoded state in one record. Restoring makes a store whose snapshot is that state, with one member:
//! a new incarnation of one monitor, so that nothing any old store still says can meet it in one quorum.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;

use crate::node::now_ms;
use crate::raft::{LeaderId, LogId, Member, Membership, SnapshotMeta, StoredMembership};
use crate::state::{State, StateError};
use crate::store::record::{self, Kind, RecordError};
use crate::store::{Identity, Store, StoreError, committer_inline};

const KEY: &[u8] = b"backup";

/// Why a backup is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Damaged or none.
    #[error("backup: {0}")]
    Record(#[from] RecordError),
    /// What is in it.
    #[error("backup: {0}")]
    State(#[from] StateError),
    /// The new store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Of another cluster.
    #[error("the backup is of cluster {found}, this is {wanted}")]
    Foreign {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// The new quorum.
    #[error("backup: {0}")]
    Membership(String),
}

/// What is in a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The map's epoch.
    pub epoch: u64,
    /// Commands done.
    pub commands: u64,
}

/// Checks an encoded state and puts it into a record.
pub fn pack(state: &[u8]) -> Result<(Vec<u8>, Summary), BackupError> {
    let read = State::decode(Bytes::copy_from_slice(state))?;
    let summary = Summary { epoch: read.map.epoch.0, commands: read.commands };
    Ok((record::encode(Kind::Backup, KEY, state), summary))
}

/// Takes the state out of a record.
pub fn unpack(bytes: &[u8]) -> Result<State, BackupError> {
    Ok(State::decode(record::decode(Kind::Backup, KEY, bytes)?)?)
}

/// Makes the store of monitor `mon`, the only member of a new quorum.
pub fn restore(mut state: State, fsid: &str, mon: u64, address: SocketAddr, path: &Path) -> Result<(), BackupError> {
    let found = state.map.fsid.to_string();
    if found != fsid {
        return Err(BackupError::Foreign { found, wanted: fsid.to_owned() });
    }
    let newest = state.membership.nodes().map(|(node, _)| node >> 16).max().unwrap_or(0);
    let node = ((newest + 1).max(now_ms()) << 16) | mon;
    let members = BTreeMap::from([(node, Member { mon, address: address.to_string() })]);
    let membership = Membership::new(vec![BTreeSet::from([node])], members)
        .map_err(|error| BackupError::Membership(error.to_string()))?;
    // Beyond every entry an old member may still have.
    let last = state.applied.map_or(LogId { leader_id: LeaderId { term: 0, node_id: node }, index: 0 }, |id| LogId {
        leader_id: LeaderId { term: id.leader_id.term.saturating_add(1000), node_id: node },
        index: id.index.saturating_add(100_000),
    });
    state.applied = Some(last);
    state.membership = StoredMembership::new(Some(last), membership);
    let identity = Identity { fsid: fsid.to_owned(), mon, node };
    let store = Store::open(path, &identity, true, committer_inline())?;
    let meta = SnapshotMeta { last_log_id: state.applied, last_membership: state.membership.clone() };
    store.put_snapshot(&meta, &state.encode())?;
    store.begin_after(&last)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nacre_maps::ClusterMap;
    use nacre_proto::ids::Uuid;
    use openraft::RaftLogReader;
    use openraft::storage::RaftLogStorage;

    use super::*;
    use crate::raft::Product;

    #[test]
    fn the_log_of_a_restored_store_begins_behind_its_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let (fsid, path) = (Uuid([7; 16]), folder.path().join("store"));
        let state = State {
            applied: Some(LogId { leader_id: LeaderId { term: 3, node_id: 9 }, index: 40 }),
            map: Arc::new(ClusterMap::empty(fsid)),
            ..State::default()
        };
        let (packed, _) = pack(&state.encode()).unwrap();
        restore(unpack(&packed).unwrap(), &fsid.to_string(), 2, ([127, 0, 0, 1], 1).into(), &path).unwrap();

        let mut store = Store::open_any(&path, true, committer_inline()).unwrap();
        let applied = store.snapshot().unwrap().unwrap().meta.last_log_id;
        assert!(applied.is_some_and(|id| id.index > 40 && id.leader_id.term > 3));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let log = runtime.block_on(RaftLogStorage::<Product>::get_log_state(&mut store)).unwrap();
        assert_eq!((log.last_purged_log_id, log.last_log_id), (applied, applied));
        store.verify().unwrap();
        let ballot = runtime.block_on(RaftLogReader::<Product>::read_vote(&mut store)).unwrap().unwrap();
        assert_eq!(
            Some(ballot.leader_id),
            applied.map(|id| id.leader_id),
            "the next term is above that of the snapshot"
        );
    }
}
