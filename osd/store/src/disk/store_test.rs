//! The real store on real files: killed, flipped, filled, locked, poisoned, and what is on its commit path.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use bytes::Bytes;
use nacre_proto::ids::{OsdId, Uuid};
use nacre_proto::txn::{Transaction, TxnOp, WriteHint};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::check::Problem;
use super::*;
use crate::suite::{IDENTITY, options};
use crate::testkit::{dump, ignore, oid, pg};
use crate::{DiskStore, Identity, ObjectStore, StoreConfig};

fn write(name: &str, offset: u64, data: Vec<u8>) -> Transaction {
    let op = TxnOp::Write { oid: oid(name, 0), offset, data: data.into(), hint: WriteHint::default() };
    Transaction { pg: pg(0), ops: vec![op] }
}

fn wait(store: &DiskStore, txn: Transaction) -> Result<(), StoreError> {
    let (tell, told) = mpsc::sync_channel(1);
    store.submit(txn, Box::new(move |done| drop(tell.send(done))))?;
    told.recv().unwrap()
}

fn fresh(path: &Path, size: u64, journal: u64) -> DiskStore {
    DiskStore::format(path, IDENTITY, &options(size, journal)).unwrap();
    let store = DiskStore::open(path, Some(IDENTITY), &StoreConfig::default()).unwrap();
    wait(&store, Transaction { pg: pg(0), ops: vec![TxnOp::CreateCollection] }).unwrap();
    store
}

#[test]
fn a_store_opens_once_and_only_for_its_osd() {
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(folder.path(), 8 << 20, 1 << 20);
    let config = StoreConfig::default();
    let open = |identity| DiskStore::open(folder.path(), identity, &config).map(drop).unwrap_err();
    assert!(matches!(open(None), StoreError::Locked { .. }));
    assert!(matches!(
        DiskStore::format(folder.path(), IDENTITY, &options(8 << 20, 1 << 20)),
        Err(StoreError::Format { .. })
    ));
    // Another folder whose block space is a link to the same one.
    let other = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(folder.path().join("block"), other.path().join("block")).unwrap();
    assert!(matches!(DiskStore::open(other.path(), None, &config).map(drop), Err(StoreError::Locked { .. })));
    drop(store);
    let wrong = Identity { osd: OsdId(5), ..IDENTITY };
    assert!(matches!(open(Some(wrong)), StoreError::WrongIdentity { .. }));
    let wrong = Identity { cluster: Uuid([3; 16]), ..IDENTITY };
    assert!(matches!(open(Some(wrong)), StoreError::WrongIdentity { .. }));
    DiskStore::open(folder.path(), Some(IDENTITY), &config).unwrap();
}

#[test]
fn rocksdb_is_not_on_the_commit_path_of_a_data_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(folder.path(), 64 << 20, 64 << 20);
    wait(&store, write("a", 0, vec![1; 4 << 20])).unwrap();
    store.checkpoint().unwrap();
    let before = store.counters().checkpoints.load(Ordering::Relaxed);
    let (reads, writes) = store.database_calls();
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..1000 {
        wait(&store, write("a", rng.random_range(0..1024) * 4096, vec![2; 4096])).unwrap();
    }
    assert_eq!(store.counters().checkpoints.load(Ordering::Relaxed), before);
    assert_eq!(store.database_calls(), (reads, writes));
}

/// The child of the kill test: writes numbered objects and says which are durable until it is killed.
#[test]
fn child_that_writes_until_killed() {
    let Ok(path) = std::env::var("NACRE_STORE_CHILD") else { return };
    let store = DiskStore::open(Path::new(&path), Some(IDENTITY), &StoreConfig::default()).unwrap();
    let mut rng = StdRng::seed_from_u64(store.info().created);
    let first: u64 = std::env::var("NACRE_STORE_FIRST").unwrap().parse().unwrap();
    for number in first.. {
        let name = format!("o{}", number % 50);
        let stamp = number.to_le_bytes();
        let len = if number % 10 == 0 { 100_000 } else { rng.random_range(8..9000) };
        let mut txn = write(&name, 0, stamp.iter().copied().cycle().take(len / 8 * 8).collect());
        txn.ops.push(TxnOp::SetXattr { oid: oid(&name, 0), name: "n".into(), value: Bytes::copy_from_slice(&stamp) });
        txn.ops.push(TxnOp::SetMeta { key: "last".into(), value: Some(Bytes::copy_from_slice(&stamp)) });
        store
            .submit(
                txn,
                Box::new(move |done| {
                    done.unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "\ndurable {number}").unwrap();
                    out.flush().unwrap();
                }),
            )
            .unwrap();
    }
}

#[test]
fn killed_under_load_a_hundred_times_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    drop(fresh(folder.path(), 64 << 20, 4 << 20));
    let mut rng = StdRng::seed_from_u64(3);
    let mut next = 1u64;
    for round in 0..100 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "disk::store_tests::child_that_writes_until_killed", "--nocapture"])
            .env("NACRE_STORE_CHILD", folder.path())
            .env("NACRE_STORE_FIRST", next.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let (mut acked, mut left) = (0, rng.random_range(1..300));
        for line in lines {
            if let Some(number) = line.strip_prefix("durable ") {
                acked = number.parse().unwrap();
                left -= 1;
                if left == 0 {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(acked >= next, "round {round}: the child wrote nothing");
        let store = DiskStore::open(folder.path(), Some(IDENTITY), &StoreConfig::default()).unwrap();
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let last = number(&store.meta(pg(0), b"last").unwrap().unwrap());
        assert!(last >= acked, "round {round}: {acked} was acknowledged, {last} is there");
        for oid in store.list(pg(0), None, 100).unwrap() {
            let stamp = number(&store.xattr(pg(0), &oid, b"n").unwrap().unwrap());
            let data = store.read_flat(pg(0), &oid, 0, 8).unwrap();
            assert_eq!(number(&data), stamp, "round {round}");
            let slot = stamp % 50;
            assert!(stamp <= last && stamp + 50 > last, "round {round}: slot {slot} holds {stamp} of {last}");
        }
        if round % 10 == 9 {
            assert_eq!(store.check(true).unwrap().problems, vec![], "round {round}");
        }
        next = last + 1;
    }
}

#[test]
fn a_full_journal_is_replayed_and_stands() {
    let folder = tempfile::tempdir().unwrap();
    DiskStore::format(folder.path(), IDENTITY, &options(256 << 20, 128 << 20)).unwrap();
    // A bound so wide that no checkpoint comes before the journal's end.
    let config = StoreConfig { memory: 1 << 30, ..StoreConfig::default() };
    let store = DiskStore::open(folder.path(), None, &config).unwrap();
    wait(&store, Transaction { pg: pg(0), ops: vec![TxnOp::CreateCollection] }).unwrap();
    let mut number = 0u64;
    // Nor after it: the checkpoint that is asked for then cannot begin, so the journal becomes as full as it can be.
    let held = lock(&store.engine().checkpointer);
    let granted = || store.engine().state().granted[0] + (64 << 10) + store.engine().bounds.record;
    while granted() < store.engine().bounds.granted {
        let data = number.to_le_bytes().repeat(512);
        store.submit(write(&format!("o{}", number % 16), number / 16 % 1024 * 4096, data), ignore()).unwrap();
        number += 1;
    }
    store.sync().unwrap();
    assert_eq!(store.counters().checkpoints.load(Ordering::Relaxed), 0);
    let before = dump(&store).unwrap();
    // As a crash would leave it.
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("kv")).unwrap();
    for name in ["block", "journal"] {
        std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    for file in files(&folder.path().join("kv")) {
        std::fs::copy(&file, copy.path().join("kv").join(file.file_name().unwrap())).unwrap();
    }
    drop(held);
    drop(store);
    let begin = std::time::Instant::now();
    let store = DiskStore::open(copy.path(), None, &config).unwrap();
    println!("opened after {number} writes of 4 KiB in a full journal of 128 MiB: {:?}", begin.elapsed());
    assert!(number > 15_000);
    assert_eq!(dump(&store).unwrap(), before);
    assert_eq!(store.check(true).unwrap().problems, vec![]);
}

/// Where on the disk each block of the objects lies.
fn live_blocks(store: &DiskStore) -> BTreeMap<u64, (String, u64)> {
    let mut blocks = BTreeMap::new();
    let mut state = store.engine().state();
    for name in ["raw", "packed"] {
        let key = state.key(pg(0), &oid(name, 0)).unwrap();
        let header = state.header(&key, &*store.engine().kv).unwrap().unwrap();
        for index in header.leaf_indexes(0, u32::MAX) {
            let leaf = state.leaf(&key, index, &*store.engine().kv).unwrap().unwrap();
            for extent in &leaf.extents {
                for step in 0..extent.stored() {
                    let within = if extent.packed.is_some() { 0 } else { step };
                    let offset = (u64::from(index) * 256 + u64::from(extent.at) + within) * BLOCK;
                    blocks.insert(extent.phys + step, (name.to_owned(), offset));
                }
            }
        }
    }
    blocks
}

#[test]
fn every_flip_in_live_data_is_noticed_and_named() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(folder.path(), 64 << 20, 4 << 20);
    let mut rng = StdRng::seed_from_u64(2);
    let mut data = vec![0; 4 << 20];
    rng.fill_bytes(&mut data);
    wait(&store, write("raw", 0, data)).unwrap();
    let text: Vec<u8> = (0..400_000u32).flat_map(|i| format!("{i} ").into_bytes()).take(2 << 20).collect();
    let hint = WriteHint { compressible: Some(nacre_proto::txn::Compression::Zstd), cold: false };
    let op = TxnOp::Write { oid: oid("packed", 0), offset: 0, data: text.into(), hint };
    wait(&store, Transaction { pg: pg(0), ops: vec![op] }).unwrap();
    store.checkpoint().unwrap();
    let blocks: Vec<_> = live_blocks(&store).into_iter().collect();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(folder.path().join("block")).unwrap();
    for _ in 0..10_000 {
        let (phys, (name, offset)) = &blocks[rng.random_range(0..blocks.len())];
        let at = phys * BLOCK + rng.random_range(0..BLOCK);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        let bit = 1 << rng.random_range(0..8);
        file.write_all_at(&[byte[0] ^ bit], at).unwrap();
        let name = name.as_str();
        let error = store.read(pg(0), &oid(name, 0), *offset, BLOCK).unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt { oid: o, .. } if *o == oid(name, 0)), "{error}");
        assert!(error.to_string().contains(name), "{error}");
        file.write_all_at(&byte, at).unwrap();
    }
    assert_eq!(store.check(true).unwrap().problems, vec![]);
    let (phys, (name, offset)) = &blocks[7];
    file.write_all_at(b"some other bytes", phys * BLOCK).unwrap();
    let problems = store.check(true).unwrap().problems;
    assert_eq!(problems, vec![Problem::Data { pg: pg(0), oid: oid(name, 0), offset: *offset }]);
}

#[test]
fn a_flip_inside_the_journal_is_damage_and_at_its_end_a_torn_write() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(folder.path(), 16 << 20, 1 << 20);
    let config = StoreConfig::default();
    for number in 0..20 {
        wait(&store, write("a", number * 4096, vec![number as u8 + 1; 4096])).unwrap();
    }
    drop(store);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(folder.path().join("journal")).unwrap();
    let mut ring = vec![0; 1 << 20];
    file.read_exact_at(&mut ring, 0).unwrap();
    let groups: Vec<usize> =
        (8..2048).map(|sector| sector * 512).filter(|at| ring[*at..].starts_with(b"NacreGrp")).collect();
    assert_eq!(groups.len(), 21);
    let flip = |at: usize| file.write_all_at(&[ring[at] ^ 1], at as u64).unwrap();
    let restore = || file.write_all_at(&ring, 0).unwrap();
    for group in &groups[1..20] {
        for at in [*group + 9, *group + 30, *group + 200] {
            flip(at);
            let error = DiskStore::open(folder.path(), None, &config).map(drop).unwrap_err();
            assert!(matches!(error, StoreError::JournalDamaged { .. }), "{error}");
            restore();
        }
    }
    // The same at the very end cannot be told from a write that was torn.
    flip(groups[20] + 200);
    let store = DiskStore::open(folder.path(), None, &config).unwrap();
    assert_eq!(store.stat(pg(0), &oid("a", 0)).unwrap().unwrap().size, 19 * 4096);
    drop(store);
    // Damage is given up on demand, and stays given up.
    restore();
    flip(groups[10] + 200);
    let store = DiskStore::open_cutting_journal(folder.path(), &config).unwrap();
    assert_eq!(store.stat(pg(0), &oid("a", 0)).unwrap().unwrap().size, 9 * 4096);
    wait(&store, write("b", 0, vec![1; 4096])).unwrap();
    drop(store);
    let store = DiskStore::open(folder.path(), None, &config).unwrap();
    assert_eq!(store.list(pg(0), None, 9).unwrap().len(), 2);
    assert_eq!(store.check(true).unwrap().problems, vec![]);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

#[test]
fn a_flip_in_rocksdb_is_an_error_and_never_another_answer() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(folder.path(), 64 << 20, 4 << 20);
    for number in 0..200 {
        let name = format!("object-{number}");
        let mut txn = write(&name, 0, vec![number as u8; 5000]);
        let value = Bytes::from(vec![number as u8; 300]);
        txn.ops.push(TxnOp::OmapSet { oid: oid(&name, 0), entries: vec![("key".into(), value)] });
        wait(&store, txn).unwrap();
    }
    let want = dump(&store).unwrap();
    store.close().unwrap();
    // RocksDB may compact and drop a table at any open, so each round starts from the files as they were closed.
    let kv = folder.path().join("kv");
    let whole: Vec<(PathBuf, Vec<u8>)> =
        files(&kv).into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    let tables: Vec<_> = whole.iter().filter(|(path, _)| path.extension().is_some_and(|ext| ext == "sst")).collect();
    let mut rng = StdRng::seed_from_u64(4);
    let mut noticed = 0;
    for _ in 0..60 {
        for path in files(&kv) {
            std::fs::remove_file(path).unwrap();
        }
        for (path, bytes) in &whole {
            std::fs::write(path, bytes).unwrap();
        }
        let (table, bytes) = tables[rng.random_range(0..tables.len())];
        let at = rng.random_range(0..bytes.len());
        let file = std::fs::OpenOptions::new().write(true).open(table).unwrap();
        file.write_all_at(&[bytes[at] ^ (1 << rng.random_range(0..8))], at as u64).unwrap();
        match DiskStore::open(folder.path(), None, &StoreConfig::default()) {
            Err(_) => noticed += 1,
            Ok(store) => match dump(&store) {
                Err(_) => noticed += 1,
                // Some bytes of a table are not read by anyone (statistics): nothing may differ then.
                Ok(got) => assert!(got == want, "a flip at {at} of {} changed what is read", table.display()),
            },
        }
    }
    assert!(noticed > 30, "{noticed} of 60 flips were noticed");
}

#[test]
fn a_store_fills_refuses_deletes_and_takes_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(folder.path(), 32 << 20, 4 << 20);
    for round in 0..3 {
        let mut count = 0;
        let error = loop {
            match wait(&store, write(&format!("f{count}"), 0, vec![count as u8; 300_000])) {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        // Small ones until nothing fits either.
        let mut small = 0;
        while wait(&store, write(&format!("s{small}"), 0, vec![7; 4096])).is_ok() {
            small += 1;
        }
        let usage = store.usage();
        assert!(usage.available < 4096 && usage.ratio() > 0.95, "round {round}: {usage:?}");
        assert_eq!(usage.fullness(&crate::FullRatios::default()), crate::Fullness::Full);
        for number in 0..count {
            let data = store.read_flat(pg(0), &oid(&format!("f{number}"), 0), 0, u64::MAX).unwrap();
            assert!(data.len() == 300_000 && data.iter().all(|byte| *byte == number as u8));
        }
        // Overwriting what is there needs no space.
        wait(&store, write("f0", 0, vec![0; 4096])).unwrap();
        // A snapshot and a cut that must copy a block: the reserve is for this.
        let snap = nacre_proto::ids::ObjectId { snap: nacre_proto::ids::SnapId(1), ..oid("f1", 0) };
        wait(&store, Transaction { pg: pg(0), ops: vec![TxnOp::Clone { from: oid("f1", 0), to: snap.clone() }] })
            .unwrap();
        let remove = |oid| Transaction { pg: pg(0), ops: vec![TxnOp::Remove { oid }] };
        for oid in store.list(pg(0), None, 100_000).unwrap() {
            wait(&store, remove(oid)).unwrap();
        }
        assert_eq!(store.usage().used, 0);
        assert_eq!(store.check(true).unwrap().problems, vec![]);
        assert_eq!(store.usage().pending, 0);
    }
}

#[test]
fn a_removed_collection_gives_its_space_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(folder.path(), 32 << 20, 4 << 20);
    for number in 0..500 {
        wait(&store, write(&format!("o{number}"), 0, vec![1; 8192])).unwrap();
    }
    wait(&store, Transaction { pg: pg(0), ops: vec![TxnOp::RemoveCollection] }).unwrap();
    wait(&store, Transaction { pg: pg(0), ops: vec![TxnOp::CreateCollection] }).unwrap();
    assert_eq!(store.list(pg(0), None, 9).unwrap(), vec![]);
    let mut rounds = 0;
    while store.usage().used > 0 {
        store.checkpoint().unwrap();
        rounds += 1;
        assert!(rounds < 20);
    }
    assert_eq!(store.check(true).unwrap().problems, vec![]);
}

#[test]
fn repair_restores_what_can_be_proved() {
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(folder.path(), 32 << 20, 4 << 20);
    wait(&store, write("a", 0, vec![1; 200_000])).unwrap();
    let snap = nacre_proto::ids::ObjectId { snap: nacre_proto::ids::SnapId(1), ..oid("a", 0) };
    wait(&store, Transaction { pg: pg(0), ops: vec![TxnOp::Clone { from: oid("a", 0), to: snap }] }).unwrap();
    store.checkpoint().unwrap();
    let want = dump(&store).unwrap();
    // A piece of the bitmap lost, a count lost, an omap and a leaf of nobody.
    let refs = keys::refs(live_first(&store) / 256);
    store
        .engine()
        .kv
        .commit(
            &mut [
                kv::KvOp::Delete(keys::bitmap(live_first(&store) / 4096)),
                kv::KvOp::Delete(refs),
                kv::KvOp::Put(keys::omap(999, b"x"), b"y".to_vec()),
                kv::KvOp::Put(keys::leaf(&keys::object(77, &oid("ghost", 0)), 0), leaf::Leaf::default().encode()),
            ]
            .into_iter(),
        )
        .unwrap();
    let problems = store.check(true).unwrap().problems;
    assert!(problems.iter().any(|problem| matches!(problem, Problem::Unallocated { .. })), "{problems:?}");
    assert!(problems.iter().any(|problem| matches!(problem, Problem::References { .. })), "{problems:?}");
    assert_eq!(problems.iter().filter(|problem| matches!(problem, Problem::Orphan { .. })).count(), 2, "{problems:?}");
    assert!(problems.iter().all(Problem::repairable));
    store.repair().unwrap();
    let store = DiskStore::open(folder.path(), None, &StoreConfig::default()).unwrap();
    assert_eq!(store.check(true).unwrap().problems, vec![]);
    assert_eq!(dump(&store).unwrap(), want);
}

fn live_first(store: &DiskStore) -> u64 {
    let mut state = store.engine().state();
    let key = state.key(pg(0), &oid("a", 0)).unwrap();
    let leaf = state.leaf(&key, 0, &*store.engine().kv).unwrap().unwrap();
    leaf.extents[0].phys
}

#[test]
fn a_key_that_is_no_stores_is_reported_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    DiskStore::format(folder.path(), IDENTITY, &options(16 << 20, 4 << 20)).unwrap();
    let store = DiskStore::open(folder.path(), None, &StoreConfig::default()).unwrap();
    store.engine().kv.commit(&mut std::iter::once(kv::KvOp::Put("Zebra".into(), vec![1]))).unwrap();
    let problems = store.check(true).unwrap().problems;
    assert_eq!(problems, [Problem::Metadata { what: "key Zebra is of no table".into() }]);
    assert!(!problems[0].repairable());
}

#[test]
fn what_the_store_holds_stays_within_its_bound() {
    let folder = tempfile::tempdir().unwrap();
    DiskStore::format(folder.path(), IDENTITY, &options(256 << 20, 32 << 20)).unwrap();
    let config = StoreConfig { memory: 32 << 20, ..StoreConfig::default() };
    let store = DiskStore::open(folder.path(), None, &config).unwrap();
    wait(&store, Transaction { pg: pg(0), ops: vec![TxnOp::CreateCollection] }).unwrap();
    let mut rng = StdRng::seed_from_u64(8);
    for number in 0..20_000u64 {
        let name = format!("o{}", rng.random_range(0..2000));
        let mut txn = write(&name, rng.random_range(0..20) * 4096, vec![number as u8; 4096]);
        if number % 5 == 0 {
            let entries = vec![(Bytes::from(number.to_string()), Bytes::from(vec![1; 500]))];
            txn.ops.push(TxnOp::OmapSet { oid: oid(&name, 0), entries });
        }
        store.submit(txn, ignore()).unwrap();
        if number % 7 == 0 {
            let _ = store.read(pg(0), &oid(&name, 0), 0, 65536).unwrap();
        }
        if number % 100 == 0 {
            let (held, bound) = store.memory();
            assert!(held <= bound, "{held} of {bound}");
        }
    }
}
