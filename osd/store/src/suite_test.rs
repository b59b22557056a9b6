//! One suite for every implementation of the store: each story runs on the twin and on the real store.

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, OsdId, PgId, SnapId, Uuid, Version};
use nacre_proto::txn::{Compression, Transaction, TxnOp, WriteHint};
use rand::{SeedableRng, rngs::StdRng};

use crate::testkit::{dump, ignore, kind, oid, pg, random_txn};
use crate::{DiskStore, FormatOptions, Identity, MemoryStore, ObjectStore, StoreConfig, StoreError, transfer};

pub(crate) const IDENTITY: Identity = Identity { cluster: Uuid([1; 16]), osd: OsdId(4) };

pub(crate) fn options(size: u64, journal: u64) -> FormatOptions {
    FormatOptions { size, journal, prewrite: false, store: Uuid([9; 16]), tag: 0x1234_5678 }
}

/// Runs a story on both stores.
fn on_both(story: impl Fn(&dyn ObjectStore)) {
    story(&MemoryStore::new(64 << 20));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    DiskStore::format(&path, IDENTITY, &options(64 << 20, 4 << 20)).unwrap();
    let store = DiskStore::open(&path, Some(IDENTITY), &StoreConfig::default()).unwrap();
    story(&store);
    let before = dump(&store).unwrap();
    assert_eq!(store.check(true).unwrap().problems, vec![]);
    drop(store);
    // What was submitted and not even waited for is there again: dropping commits what is queued.
    let store = DiskStore::open(&path, Some(IDENTITY), &StoreConfig::default()).unwrap();
    assert_eq!(dump(&store).unwrap(), before);
}

fn submit(store: &dyn ObjectStore, pg: PgId, ops: Vec<TxnOp>) -> Result<u64, StoreError> {
    store.submit(Transaction { pg, ops }, ignore())
}

fn write(oid: &ObjectId, offset: u64, data: &[u8]) -> TxnOp {
    TxnOp::Write { oid: oid.clone(), offset, data: Bytes::copy_from_slice(data), hint: WriteHint::default() }
}

fn flat(store: &dyn ObjectStore, oid: &ObjectId) -> Bytes {
    store.read_flat(pg(0), oid, 0, u64::MAX).unwrap()
}

#[test]
fn random_transactions_leave_both_stores_the_same() {
    for seed in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        DiskStore::format(folder.path(), IDENTITY, &options(64 << 20, 2 << 20)).unwrap();
        let disk = DiskStore::open(folder.path(), None, &StoreConfig::default()).unwrap();
        let memory = MemoryStore::default();
        let mut rng = StdRng::seed_from_u64(seed);
        for step in 0..150 {
            let txn = random_txn(&mut rng, &memory);
            let outcome = disk.submit(txn.clone(), ignore());
            if matches!(outcome, Err(StoreError::Full { .. } | StoreError::TooLarge { .. })) {
                continue;
            }
            let expected = memory.submit(txn.clone(), ignore());
            assert_eq!(kind(&outcome), kind(&expected), "seed {seed}, step {step}: {txn:?}");
            memory.commit(1);
        }
        assert_eq!(dump(&disk).unwrap(), dump(&memory).unwrap(), "seed {seed}");
        assert_eq!(disk.check(true).unwrap().problems, vec![], "seed {seed}");
        assert_eq!(dump(&disk).unwrap(), dump(&memory).unwrap(), "seed {seed}, after a checkpoint");
    }
}

#[test]
fn a_failed_transaction_leaves_no_trace() {
    on_both(|store| {
        submit(store, pg(0), vec![TxnOp::CreateCollection]).unwrap();
        let a = oid("a", 0);
        submit(store, pg(0), vec![write(&a, 0, b"kept")]).unwrap();
        let before = dump(store).unwrap();
        let absent = oid("absent", 0);
        let ops = vec![
            write(&a, 0, b"gone"),
            TxnOp::SetXattr { oid: a.clone(), name: "x".into(), value: "y".into() },
            TxnOp::SetMeta { key: "k".into(), value: Some("v".into()) },
            TxnOp::Clone { from: absent, to: oid("b", 0) },
        ];
        let error = submit(store, pg(0), ops).unwrap_err();
        assert!(matches!(error, StoreError::NoObject { .. }), "{error}");
        assert!(error.to_string().contains("absent"), "{error}");
        assert_eq!(dump(store).unwrap(), before);
        let mut foreign = a.clone();
        foreign.pool = nacre_proto::ids::PoolId(77);
        let error = submit(store, pg(0), vec![TxnOp::Touch { oid: foreign }]).unwrap_err();
        assert!(matches!(error, StoreError::WrongCollection { .. }), "{error}");
    });
}

#[test]
fn holes_read_as_zeros_and_the_sparse_map_tells_them() {
    on_both(|store| {
        submit(store, pg(0), vec![TxnOp::CreateCollection]).unwrap();
        let a = oid("a", 0);
        submit(store, pg(0), vec![write(&a, 3 << 20, &[7; 10_000])]).unwrap();
        assert_eq!(store.sparse_map(pg(0), &a, 0, u64::MAX).unwrap(), vec![(3 << 20, 10_000)]);
        submit(store, pg(0), vec![TxnOp::Zero { oid: a.clone(), offset: (3 << 20) + 100, len: 8192 }]).unwrap();
        // Whole blocks became a hole, the edges are data that is zero.
        assert_eq!(store.sparse_map(pg(0), &a, 0, u64::MAX).unwrap(), vec![(3 << 20, 4096), ((3 << 20) + 8192, 1808)]);
        let bytes = flat(store, &a);
        assert_eq!(bytes.len(), (3 << 20) + 10_000);
        assert!(bytes[..3 << 20].iter().all(|byte| *byte == 0));
        assert_eq!(&bytes[(3 << 20) + 99..(3 << 20) + 102], &[7, 0, 0]);
        assert_eq!(bytes[(3 << 20) + 8292], 7);
        // What a cut removed does not come back with growth.
        submit(store, pg(0), vec![TxnOp::Truncate { oid: a.clone(), size: 10 }]).unwrap();
        submit(store, pg(0), vec![TxnOp::Truncate { oid: a.clone(), size: 5 << 20 }]).unwrap();
        assert!(flat(store, &a).iter().all(|byte| *byte == 0));
    });
}

#[test]
fn a_snapshot_keeps_its_bytes_and_shares_its_blocks() {
    on_both(|store| {
        submit(store, pg(0), vec![TxnOp::CreateCollection]).unwrap();
        let head = oid("a", 0);
        let snap = ObjectId { snap: SnapId(1), ..head.clone() };
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i / 4096) as u8).collect();
        let set = TxnOp::OmapSet { oid: head.clone(), entries: vec![("k".into(), "v".into())] };
        submit(store, pg(0), vec![write(&head, 0, &data), set]).unwrap();
        submit(store, pg(0), vec![TxnOp::Clone { from: head.clone(), to: snap.clone() }]).unwrap();
        assert_eq!(store.digest(pg(0), &head).unwrap(), store.digest(pg(0), &snap).unwrap());
        submit(store, pg(0), vec![write(&head, 5000, &[9; 100]), write(&head, 1 << 20, &[8; 200_000])]).unwrap();
        assert_eq!(flat(store, &snap), data);
        let mut changed = data.clone();
        changed[5000..5100].fill(9);
        changed[1 << 20..(1 << 20) + 200_000].fill(8);
        assert_eq!(flat(store, &head), changed);
        submit(store, pg(0), vec![TxnOp::Remove { oid: head }]).unwrap();
        assert_eq!(flat(store, &snap), data);
        assert_eq!(store.omap_list(pg(0), &snap, b"", 9).unwrap(), vec![(Bytes::from("k"), Bytes::from("v"))]);
        submit(store, pg(0), vec![TxnOp::Remove { oid: snap }]).unwrap();
        assert_eq!(store.usage().used, 0);
    });
}

#[test]
fn blocks_of_one_object_that_share_their_place_are_written_together() {
    on_both(|store| {
        submit(store, pg(0), vec![TxnOp::CreateCollection]).unwrap();
        let a = oid("a", 0);
        // Three neighbours and one in the next leaf, all of them one block of the disk.
        let at = [253u64, 254, 255, 256].map(|block| block * 4096);
        submit(store, pg(0), vec![write(&a, at[0], &[1; 4096])]).unwrap();
        let same = |to: u64| TxnOp::CloneRange {
            from: a.clone(),
            to: a.clone(),
            from_offset: at[0],
            len: 4096,
            to_offset: to,
        };
        submit(store, pg(0), at[1..].iter().map(|to| same(*to)).collect()).unwrap();
        // With all but the last written elsewhere, that one would be alone on the shared block.
        submit(store, pg(0), vec![write(&a, at[0], &[2; 4 * 4096])]).unwrap();
        assert_eq!(flat(store, &a)[at[0] as usize..], [2; 4 * 4096]);
        submit(store, pg(0), vec![write(&a, at[1], &[3; 3 * 4096])]).unwrap();
        assert_eq!(flat(store, &a)[at[1] as usize..], [3; 3 * 4096]);
    });
}

#[test]
fn clones_cost_metadata_in_the_real_store() {
    let folder = tempfile::tempdir().unwrap();
    DiskStore::format(folder.path(), IDENTITY, &options(64 << 20, 4 << 20)).unwrap();
    let store = DiskStore::open(folder.path(), None, &StoreConfig::default()).unwrap();
    submit(&store, pg(0), vec![TxnOp::CreateCollection]).unwrap();
    submit(&store, pg(0), vec![write(&oid("a", 0), 0, &vec![1; 4 << 20])]).unwrap();
    let used = store.usage().used;
    for snap in 1..100 {
        let to = ObjectId { snap: SnapId(snap), ..oid("a", 0) };
        submit(&store, pg(0), vec![TxnOp::Clone { from: oid("a", 0), to }]).unwrap();
    }
    assert_eq!(store.usage().used, used);
    submit(&store, pg(0), vec![write(&oid("a", 0), 0, &[2; 4096])]).unwrap();
    assert_eq!(store.usage().used, used + 4096);
}

#[test]
fn a_split_moves_exactly_the_objects_of_the_child() {
    on_both(|store| {
        submit(store, pg(0), vec![TxnOp::CreateCollection]).unwrap();
        for hash in 0..64u32 {
            submit(store, pg(0), vec![write(&oid(&format!("o{hash}"), hash.wrapping_mul(0x9e37_79b9)), 0, b"x")])
                .unwrap();
        }
        let all = store.list(pg(0), None, 1000).unwrap();
        assert!(all.is_sorted());
        for child in 1..4 {
            let meta = vec![("who".into(), Bytes::from(format!("child {child}")))];
            let log = vec![(Version { epoch: nacre_proto::ids::Epoch(1), counter: 7 }, "seven".into())];
            submit(
                store,
                pg(0),
                vec![TxnOp::SplitCollection { child: pg(child), pg_num: 4, meta: meta.clone(), log: log.clone() }],
            )
            .unwrap();
            assert_eq!(store.meta_list(pg(child)).unwrap(), meta);
            assert_eq!(store.log(pg(child), Version::default(), 9).unwrap(), log);
        }
        let mut found = Vec::new();
        for seed in 0..4 {
            let part = store.list(pg(seed), None, 1000).unwrap();
            assert!(part.iter().all(|oid| oid.hash % 4 == seed));
            found.extend(part);
        }
        found.sort();
        assert_eq!(found, all);
        let error = submit(store, pg(0), vec![TxnOp::Touch { oid: oid("x", 1) }]).unwrap_err();
        assert!(matches!(error, StoreError::WrongCollection { .. }), "{error}");
    });
}

#[test]
fn logs_are_ordered_trimmed_and_rewound() {
    on_both(|store| {
        let at = |counter| Version { epoch: nacre_proto::ids::Epoch(1), counter };
        submit(store, pg(0), vec![TxnOp::CreateCollection]).unwrap();
        for counter in 1..=20 {
            let entry = Bytes::from(format!("entry {counter}"));
            submit(store, pg(0), vec![TxnOp::LogAppend { version: at(counter), entry }]).unwrap();
        }
        submit(store, pg(0), vec![TxnOp::LogTrim { to: at(5) }, TxnOp::LogRewind { after: at(15) }]).unwrap();
        submit(store, pg(0), vec![TxnOp::LogAppend { version: at(16), entry: "anew".into() }]).unwrap();
        let log = store.log(pg(0), Version::default(), 100).unwrap();
        assert_eq!(log.iter().map(|(version, _)| version.counter).collect::<Vec<_>>(), (6..=16).collect::<Vec<_>>());
        assert_eq!(log.last().unwrap().1, "anew");
        assert_eq!(store.log(pg(0), at(10), 2).unwrap().len(), 2);
    });
}

#[test]
fn data_that_compresses_takes_less_space_and_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    DiskStore::format(folder.path(), IDENTITY, &options(64 << 20, 4 << 20)).unwrap();
    let store = DiskStore::open(folder.path(), None, &StoreConfig::default()).unwrap();
    submit(&store, pg(0), vec![TxnOp::CreateCollection]).unwrap();
    let text: Vec<u8> = (0..200_000u32).flat_map(|i| format!("{i} ").into_bytes()).take(1 << 20).collect();
    for (name, compressible) in [("lz4", Some(Compression::Lz4)), ("zstd", Some(Compression::Zstd)), ("raw", None)] {
        let before = store.usage().used;
        let hint = WriteHint { compressible, cold: false };
        let data = Bytes::from(text.clone());
        submit(&store, pg(0), vec![TxnOp::Write { oid: oid(name, 0), offset: 0, data, hint }]).unwrap();
        let took = store.usage().used - before;
        assert_eq!(took < (7 << 20) / 8, compressible.is_some(), "{name} took {took}");
        submit(&store, pg(0), vec![write(&oid(name, 0), 200_001, b"in the middle")]).unwrap();
        let mut want = text.clone();
        want[200_001..200_014].copy_from_slice(b"in the middle");
        assert_eq!(flat(&store, &oid(name, 0)), want);
        store.checkpoint().unwrap();
        assert_eq!(flat(&store, &oid(name, 0)), want);
    }
    assert_eq!(store.check(true).unwrap().problems, vec![]);
}

#[test]
fn an_export_imports_the_same_and_damage_is_refused_whole() {
    let make = |folder: &std::path::Path| {
        DiskStore::format(folder, IDENTITY, &options(64 << 20, 4 << 20)).unwrap();
        DiskStore::open(folder, None, &StoreConfig::default()).unwrap()
    };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (source, target) = (make(one.path()), make(two.path()));
    submit(&source, pg(0), vec![TxnOp::CreateCollection]).unwrap();
    let mut rng = StdRng::seed_from_u64(5);
    for _ in 0..80 {
        let txn = random_txn(&mut rng, &source);
        if txn.pg == pg(0)
            && !txn.ops.iter().any(|op| matches!(op, TxnOp::SplitCollection { .. } | TxnOp::RemoveCollection))
        {
            let _ = source.submit(txn, ignore());
        }
    }
    let mut stream = Vec::new();
    let moved = transfer::export(&source, pg(0), &mut stream).unwrap();
    assert!(moved.objects > 0 && moved.bytes > 0);
    assert_eq!(transfer::import(&target, &mut stream.as_slice()).unwrap(), (pg(0), moved));
    assert_eq!(dump(&target).unwrap(), dump(&source).unwrap());
    submit(&target, pg(0), vec![TxnOp::RemoveCollection]).unwrap();
    for at in (0..stream.len()).step_by(stream.len() / 50) {
        let mut damaged = stream.clone();
        damaged[at] ^= 4;
        assert!(transfer::import(&target, &mut damaged.as_slice()).is_err(), "flip at {at}");
        assert!(transfer::import(&target, &mut &stream[..at]).is_err(), "cut at {at}");
        assert_eq!(target.collections().unwrap(), vec![]);
    }
}
