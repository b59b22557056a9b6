//! Disks that fail, threads that die, memory that holds yesterday's bytes: nobody waits for ever, nothing is pretended.

use std::io;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use nacre_proto::ids::{OsdId, Uuid};
use nacre_proto::txn::{Transaction, TxnOp, WriteHint};

use super::kv::MemKv;
use super::superblock::{RESERVED, Superblock};
use super::*;
use crate::testkit::{ignore, oid, pg};
use crate::{DiskStore, ObjectStore, StoreConfig};

const BLOCKS: u64 = RESERVED + 4096;

fn superblock() -> Superblock {
    Superblock { store: Uuid([7; 16]), cluster: Uuid([8; 16]), osd: OsdId(1), blocks: BLOCKS, tag: 99, created: 0 }
}

/// A disk in memory that works until it is told not to.
struct Disk {
    bytes: Mutex<Vec<u8>>,
    mood: AtomicU32,
}

const WELL: u32 = 0;
const FAILS_WRITES: u32 = 1;
const FAILS_FLUSHES: u32 = 2;
const PANICS: u32 = 3;

impl Disk {
    fn new(bytes: u64) -> Arc<Disk> {
        Arc::new(Disk { bytes: Mutex::new(vec![0; bytes as usize]), mood: AtomicU32::new(WELL) })
    }

    fn become_(&self, mood: u32) {
        self.mood.store(mood, Ordering::SeqCst);
    }
}

impl Device for Disk {
    fn size(&self) -> u64 {
        lock(&self.bytes).len() as u64
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.copy_from_slice(&lock(&self.bytes)[offset as usize..offset as usize + buf.len()]);
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match self.mood.load(Ordering::SeqCst) {
            FAILS_WRITES => return Err(io::Error::other("the disk is on fire")),
            PANICS => panic!("a bug, as the test wants it"),
            _ => {}
        }
        lock(&self.bytes)[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        match self.mood.load(Ordering::SeqCst) {
            FAILS_FLUSHES => Err(io::Error::other("the disk is on fire")),
            _ => Ok(()),
        }
    }
    fn discard(&self, _: u64, _: u64) {}
}

struct Bench {
    journal: Arc<Disk>,
    blocks: Arc<Disk>,
    kv: MemKv,
}

impl Bench {
    fn new() -> Bench {
        let kv = MemKv::default();
        Engine::format_kv(&kv, &superblock()).unwrap();
        Bench { journal: Disk::new((4 << 20) + 4096), blocks: Disk::new(BLOCKS * BLOCK), kv }
    }

    fn engine(&self, threaded: bool) -> Engine {
        let parts = Parts {
            journal: self.journal.clone(),
            journal_bytes: self.journal.size(),
            blocks: self.blocks.clone(),
            kv: Arc::new(self.kv.clone()),
            discard: false,
            durable_journal: false,
        };
        let config = StoreConfig { memory: 32 << 20, ..StoreConfig::default() };
        Engine::open(parts, &superblock(), &config, threaded, false).unwrap()
    }

    /// A store with its threads, and one collection.
    fn store(&self) -> DiskStore {
        let store = DiskStore::start(self.engine(true).into(), &superblock(), 0).unwrap();
        wait(&store, vec![TxnOp::CreateCollection]).unwrap();
        store
    }
}

fn write(name: &str, offset: u64, data: Vec<u8>) -> TxnOp {
    TxnOp::Write { oid: oid(name, 0), offset, data: data.into(), hint: WriteHint::default() }
}

fn wait(store: &dyn ObjectStore, ops: Vec<TxnOp>) -> Result<(), StoreError> {
    let (tell, told) = mpsc::sync_channel(1);
    store.submit(Transaction { pg: pg(0), ops }, Box::new(move |done| drop(tell.send(done))))?;
    told.recv().expect("a completion is always called")
}

/// Runs something that must end, and says what hangs if it does not.
fn ends<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(run()));
    told.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|error| panic!("{what}: {error}"))
}

#[test]
fn whoever_waits_is_told_when_a_disk_fails() {
    for round in 0..60 {
        let bench = Bench::new();
        let store = Arc::new(bench.store());
        wait(&*store, vec![write("old", 0, vec![1; 100_000])]).unwrap();
        let (journal, blocks) = (bench.journal.clone(), bench.blocks.clone());
        let outcomes: Vec<_> = (0..3)
            .map(|kind| {
                let store = store.clone();
                let (tell, told) = mpsc::channel();
                let waiter = std::thread::spawn(move || {
                    let outcome = loop {
                        let result = match kind {
                            0 => store.sync(),
                            1 => store.checkpoint(),
                            _ => wait(
                                &*store,
                                vec![write("new", 0, vec![2; if round % 2 == 0 { 4096 } else { 100_000 }])],
                            ),
                        };
                        if let Err(error) = result {
                            break error;
                        }
                    };
                    drop(store);
                    tell.send(outcome).unwrap();
                });
                (told, waiter)
            })
            .collect();
        match round % 4 {
            0 => journal.become_(FAILS_WRITES),
            1 => journal.become_(FAILS_FLUSHES),
            2 => blocks.become_(FAILS_WRITES),
            _ => blocks.become_(FAILS_FLUSHES),
        }
        for (kind, (told, waiter)) in outcomes.into_iter().enumerate() {
            let error = told.recv_timeout(Duration::from_secs(60));
            let error = error.unwrap_or_else(|_| panic!("round {round}: waiter {kind} hangs"));
            assert!(matches!(error, StoreError::Poisoned { .. }), "round {round}: {error}");
            assert!(error.to_string().contains("on fire"), "{error}");
            waiter.join().unwrap();
        }
        // A disk that works again changes nothing: what it holds is unknown.
        journal.become_(WELL);
        blocks.become_(WELL);
        let poisoned = |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::Poisoned { .. })));
        poisoned(wait(&*store, vec![write("later", 0, vec![1])]));
        poisoned(store.sync());
        poisoned(store.checkpoint());
        poisoned(store.read(pg(0), &oid("old", 0), 0, 4096).map(drop));
        poisoned(store.stat(pg(0), &oid("old", 0)).map(drop));
        poisoned(store.list(pg(0), None, 1).map(drop));
        poisoned(store.meta(pg(0), b"key").map(drop));
        poisoned(store.collections().map(drop));
        assert!(store.poisoned().is_some());
        let store = Arc::into_inner(store).unwrap();
        assert!(matches!(ends("closing", move || store.close()), Err(StoreError::Poisoned { .. })));
        // Opened again it has what was acknowledged.
        let store = DiskStore::start(bench.engine(true).into(), &superblock(), 0).unwrap();
        assert_eq!(store.read_flat(pg(0), &oid("old", 0), 0, u64::MAX).unwrap(), vec![1; 100_000]);
        assert_eq!(store.check(true).unwrap().problems, vec![]);
    }
}

#[test]
fn a_thread_that_dies_takes_nobody_along() {
    for journal in [true, false] {
        let bench = Bench::new();
        let store = bench.store();
        let disk = if journal { &bench.journal } else { &bench.blocks };
        disk.become_(PANICS);
        // The block space is first written by a checkpoint here, the journal by the committer.
        ends("closing", move || {
            let outcome = wait(&store, vec![write("a", 0, vec![1; 4096])]);
            assert_eq!(outcome.is_err(), journal, "{outcome:?}");
            assert!(matches!(store.checkpoint(), Err(StoreError::Poisoned { .. })));
            assert!(matches!(store.sync(), Err(StoreError::Poisoned { .. })));
            assert!(matches!(wait(&store, vec![write("a", 0, vec![1; 4096])]), Err(StoreError::Poisoned { .. })));
            drop(store);
        });
    }
}

#[test]
fn a_store_closes_in_the_middle_of_freeing_a_removed_collection() {
    for round in 0..20 {
        let bench = Bench::new();
        let store = bench.store();
        for number in 0..400 {
            let ops = vec![write(&format!("o{number}"), 0, vec![1; 4096])];
            store.submit(Transaction { pg: pg(0), ops }, ignore()).unwrap();
        }
        wait(&store, vec![TxnOp::RemoveCollection]).unwrap();
        store.engine().request_checkpoint();
        if round % 2 == 0 {
            std::thread::yield_now();
        }
        ends("dropping", move || drop(store));
        let store = DiskStore::start(bench.engine(true).into(), &superblock(), 0).unwrap();
        assert_eq!(store.check(true).unwrap().problems, vec![], "round {round}");
    }
}

#[test]
fn an_outdated_block_in_the_cache_is_not_taken_for_damage() {
    let bench = Bench::new();
    let engine = bench.engine(false);
    let submit = |ops| engine.submit(&Transaction { pg: pg(0), ops }, ignore());
    submit(vec![TxnOp::CreateCollection]).unwrap();
    submit(vec![write("a", 0, vec![1; 4096])]).unwrap();
    engine.checkpoint().unwrap();
    {
        let mut state = engine.state();
        let key = state.key(pg(0), &oid("a", 0)).unwrap();
        let phys = state.leaf(&key, 0, &*engine.kv).unwrap().unwrap().extents[0].phys;
        // As a read leaves it that was overtaken by a write and a checkpoint.
        state.cache_block(phys, vec![9; 4096].into());
    }
    // when a part of the block is written
    submit(vec![write("a", 5, vec![2; 2])]).unwrap();
    let want = [&[1; 5][..], &[2; 2], &[1; 4089]].concat();
    assert_eq!(engine.read(pg(0), &oid("a", 0), 0, 4096).unwrap()[0].data, want);
}

#[test]
fn a_small_write_over_a_large_one_is_seen_while_the_large_one_is_under_way() {
    let bench = Bench::new();
    let engine = bench.engine(false);
    let submit = |ops| engine.submit(&Transaction { pg: pg(0), ops }, ignore()).unwrap();
    submit(vec![TxnOp::CreateCollection]);
    submit(vec![write("a", 0, vec![1; 100_000])]);
    submit(vec![write("a", 4096, vec![2; 4096])]);
    let read = || engine.read(pg(0), &oid("a", 0), 4096, 4096).unwrap().remove(0).data;
    assert_eq!(read(), vec![2; 4096]);
    // when a checkpoint begins before the disk has the large one
    engine.freeze();
    assert_eq!(read(), vec![2; 4096]);
    submit(vec![write("a", 4097, vec![3; 1])]);
    assert_eq!(read()[..3], [2, 3, 2]);
    engine.checkpoint().unwrap();
    assert_eq!(read()[..3], [2, 3, 2]);
}

#[test]
fn room_made_beside_the_database_is_noticed_without_a_checkpoint() {
    let bench = Bench::new();
    let engine = bench.engine(false);
    engine.submit(&Transaction { pg: pg(0), ops: vec![TxnOp::CreateCollection] }, ignore()).unwrap();
    engine.state().kv_full = true;
    engine.submit(&Transaction { pg: pg(0), ops: vec![write("a", 0, vec![1; 4096])] }, ignore()).unwrap();
    assert!(!engine.state().kv_full);
}

#[test]
fn a_cache_does_not_grow_by_what_is_replaced_in_it() {
    let mut cache: state::Cache<u64, Bytes> = state::Cache::new();
    for round in 0..10_000u64 {
        let key = round % 10;
        cache.remove(&key);
        cache.insert(key, Bytes::new(), 10);
    }
    assert_eq!(cache.weight, 100);
    assert!(cache.order_len() < 100, "{} places for 10 entries", cache.order_len());
}

#[test]
fn a_device_larger_than_the_store_is_no_problem() {
    let bench = Bench::new();
    let bigger = Bench { blocks: Disk::new((BLOCKS + 10_000) * BLOCK), ..bench };
    let store = bigger.store();
    wait(&store, vec![write("a", 0, vec![1; 100_000])]).unwrap();
    assert_eq!(store.check(true).unwrap().problems, vec![]);
    assert_eq!(store.usage().total, (BLOCKS - RESERVED) * BLOCK);
}
