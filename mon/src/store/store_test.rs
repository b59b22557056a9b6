//! Tests of the store: openraft's own suite, and what it says of damage.

use std::fs;
use std::path::{Path, PathBuf};

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftLogReader, StorageError};
use tempfile::TempDir;

use super::*;
use crate::raft::{Ballot, Entry, LeaderId, LogId, Product, Request};
use crate::state::State;
use crate::state::machine::Machine;

fn identity() -> Identity {
    Identity { fsid: "5f1d".into(), mon: 1, node: 1 }
}

struct Build;

impl StoreBuilder<Product, Store, Machine, TempDir> for Build {
    async fn build(&self) -> Result<(TempDir, Store, Machine), StorageError<Product>> {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &identity(), true, committer_thread()).unwrap();
        let machine = Machine::open(store.clone(), State::default(), Arc::new(|_, _| {})).unwrap();
        Ok((dir, store, machine))
    }
}

#[test]
fn openrafts_own_suite_passes() {
    Product::run(async { Suite::<Product, Store, Machine, Build, TempDir>::test_all(Build).await.unwrap() });
}

fn entry(index: u64) -> Entry {
    let request = Request { session: 9, sequence: index, command: vec![7; 100].into(), ..Request::default() };
    Entry { log_id: id(index), payload: EntryPayload::Normal(request) }
}

fn id(index: u64) -> LogId {
    LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index }
}

/// A store with a ballot and `count` durable entries, closed.
fn written(dir: &Path, count: u64) {
    Product::run(async {
        let mut store = Store::open(dir, &identity(), true, committer_inline()).unwrap();
        let ballot = Ballot { leader_id: LeaderId { term: 1, node_id: 1 }, committed: true };
        RaftLogStorage::<Product>::save_vote(&mut store, &ballot).await.unwrap();
        for index in 0..count {
            RaftLogStorageExt::<Product>::blocking_append(&mut store, [entry(index)]).await.unwrap();
        }
    });
}

fn indexes(store: &Store) -> Vec<u64> {
    let mut store = store.clone();
    let read = RaftLogReader::<Product>::try_get_log_entries(&mut store, ..);
    Product::run(async { read.await.unwrap() }).iter().map(|entry| entry.log_id.index).collect()
}

/// The newest journal of RocksDB.
fn journal(dir: &Path) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir(dir.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    found.sort();
    found.pop().unwrap()
}

#[test]
fn what_was_durable_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 20);
    let store = Store::open(dir.path(), &identity(), true, committer_inline()).unwrap();
    store.verify().unwrap();
    assert_eq!(indexes(&store), (0..20).collect::<Vec<_>>());
    let mut reader = store.clone();
    let ballot = Product::run(async { RaftLogReader::<Product>::read_vote(&mut reader).await.unwrap().unwrap() });
    assert_eq!(ballot.leader_id, LeaderId { term: 1, node_id: 1 });
}

#[test]
fn a_cut_tail_of_synced_records_is_reported_at_every_length() {
    let whole = tempfile::tempdir().unwrap();
    written(whole.path(), 6);
    let length = fs::metadata(journal(whole.path())).unwrap().len();
    for cut in (1..length).step_by(37) {
        let dir = tempfile::tempdir().unwrap();
        copy(whole.path(), dir.path());
        let file = fs::OpenOptions::new().write(true).open(journal(dir.path())).unwrap();
        file.set_len(length - cut).unwrap();
        let error = Store::open(dir.path(), &identity(), true, committer_inline()).err();
        let error = error.unwrap_or_else(|| panic!("{cut} bytes less went unnoticed"));
        assert!(error.is_damage(), "{error}");
    }
}

#[test]
fn a_flipped_bit_in_a_synced_record_is_reported() {
    let whole = tempfile::tempdir().unwrap();
    written(whole.path(), 6);
    let length = fs::metadata(journal(whole.path())).unwrap().len();
    for at in (0..length).step_by(41) {
        let dir = tempfile::tempdir().unwrap();
        copy(whole.path(), dir.path());
        let mut bytes = fs::read(journal(dir.path())).unwrap();
        bytes[usize::try_from(at).unwrap()] ^= 0x10;
        fs::write(journal(dir.path()), bytes).unwrap();
        let opened = Store::open(dir.path(), &identity(), true, committer_inline());
        let error = opened.and_then(|store| store.verify()).err();
        let error = error.unwrap_or_else(|| panic!("a flipped bit at {at} of {length} went unnoticed"));
        assert!(error.is_damage(), "{error}");
    }
}

#[test]
fn unsynced_bytes_may_be_lost_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 6);
    let crashed = tempfile::tempdir().unwrap();
    {
        let store = Store::open(dir.path(), &identity(), true, committer_inline()).unwrap();
        // Written, never synced: what a crash leaves are the files as they are now.
        store.append_batch([entry(6)]).unwrap();
        assert_eq!(indexes(&store), (0..7).collect::<Vec<_>>());
        copy(dir.path(), crashed.path());
    }
    let store = Store::open(crashed.path(), &identity(), true, committer_inline()).unwrap();
    store.verify().unwrap();
    assert_eq!(indexes(&store), (0..6).collect::<Vec<_>>());
}

#[test]
fn a_store_of_another_monitor_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 1);
    let other = Identity { mon: 2, ..identity() };
    let error = Store::open(dir.path(), &other, true, committer_inline()).err().unwrap();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    assert!(!error.is_damage());
}

#[test]
fn many_appends_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    Product::run(async {
        let mut store = Store::open(dir.path(), &identity(), true, committer_thread()).unwrap();
        let before = store.syncs();
        let mut waits = Vec::new();
        for index in 0..200 {
            let (sender, done) = Product::oneshot();
            let flushed = openraft::storage::IOFlushed::<Product>::signal(sender);
            RaftLogStorage::<Product>::append(&mut store, [entry(index)], flushed).await.unwrap();
            waits.push(done);
        }
        for done in waits {
            done.await.unwrap().unwrap();
        }
        let syncs = store.syncs() - before;
        assert!((1..200).contains(&syncs), "{syncs} syncs for 200 appends");
    });
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
