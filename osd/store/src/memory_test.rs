//! What only the twin can do: crash at a byte, fail a commit, flip a bit.

use std::sync::atomic::{AtomicUsize, Ordering};

use nacre_proto::ids::{PoolId, SnapId};
use nacre_proto::txn::WriteHint;

use super::*;

const PG: PgId = PgId { pool: PoolId(1), seed: 0 };

fn oid(name: &str) -> ObjectId {
    let name = Bytes::copy_from_slice(name.as_bytes());
    ObjectId { pool: PoolId(1), hash: 7, namespace: Bytes::new(), name, snap: SnapId::HEAD }
}

fn write(name: &str, data: &'static [u8]) -> Transaction {
    let op = TxnOp::Write { oid: oid(name), offset: 0, data: Bytes::from_static(data), hint: WriteHint::default() };
    Transaction { pg: PG, ops: vec![op] }
}

fn store() -> MemoryStore {
    let store = MemoryStore::default();
    store.submit(Transaction { pg: PG, ops: vec![TxnOp::CreateCollection] }, Box::new(|_| ())).unwrap();
    assert_eq!(store.commit(1), 1);
    store
}

#[test]
fn a_crash_keeps_whole_transactions_up_to_the_tear() {
    let first = journal_len(&write("a", b"one"));
    for (bytes, kept) in [(0, 0), (first - 1, 0), (first, 1), (2 * first - 1, 1), (2 * first, 2)] {
        let store = store();
        for name in ["a", "b"] {
            store.submit(write(name, b"one"), Box::new(|_| ())).unwrap();
        }
        assert_eq!(store.pending_bytes(), 2 * first);
        let after = store.crash(bytes);
        assert_eq!(after.list(PG, None, 9).unwrap().len(), kept, "{bytes}");
        assert!(matches!(store.submit(write("c", b"x"), Box::new(|_| ())), Err(StoreError::Poisoned { .. })));
        after.submit(write("c", b"x"), Box::new(|_| ())).unwrap();
    }
}

#[test]
fn completion_comes_with_commit_and_not_before() {
    let store = store();
    let done = Arc::new(AtomicUsize::new(0));
    for name in ["a", "b", "c"] {
        let done = done.clone();
        store
            .submit(
                write(name, b"x"),
                Box::new(move |result| {
                    result.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }),
            )
            .unwrap();
    }
    assert_eq!(done.load(Ordering::Relaxed), 0);
    assert_eq!(store.commit(2), 2);
    assert_eq!(done.load(Ordering::Relaxed), 2);
    assert_eq!(store.commit(9), 1);
}

#[test]
fn a_failed_commit_poisons() {
    let store = store();
    let failed = Arc::new(AtomicUsize::new(0));
    let seen = failed.clone();
    store
        .submit(
            write("a", b"x"),
            Box::new(move |result| {
                assert!(matches!(result, Err(StoreError::Poisoned { .. })));
                seen.fetch_add(1, Ordering::Relaxed);
            }),
        )
        .unwrap();
    store.fail_next_commit("disk gone");
    assert_eq!(store.commit(1), 0);
    assert_eq!(failed.load(Ordering::Relaxed), 1);
    assert!(matches!(store.submit(write("b", b"x"), Box::new(|_| ())), Err(StoreError::Poisoned { .. })));
}

#[test]
fn a_flipped_bit_is_reported_until_overwritten() {
    let store = store();
    store.submit(write("a", &[1; 8192]), Box::new(|_| ())).unwrap();
    store.flip_bit(PG, &oid("a"), 5000);
    assert!(store.read(PG, &oid("a"), 0, 4096).is_ok());
    let error = store.read(PG, &oid("a"), 0, 8192).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { offset: 4096, .. }), "{error}");
    store.submit(write("a", &[2; 8192]), Box::new(|_| ())).unwrap();
    assert!(store.read(PG, &oid("a"), 0, 8192).is_ok());
}
