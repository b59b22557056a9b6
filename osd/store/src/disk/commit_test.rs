//! What waits for what on the way to the journal: records for large writes before them, and for nothing else.

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use nacre_proto::ids::{OsdId, Uuid};
use nacre_proto::txn::{Transaction, TxnOp, WriteHint};

use super::kv::MemKv;
use super::superblock::{RESERVED, Superblock};
use super::*;
use crate::testkit::{ignore, oid, pg};
use crate::{DiskStore, ObjectStore, StoreConfig};

const BLOCKS: u64 = RESERVED + 4096;
const PATIENCE: Duration = Duration::from_secs(60);

/// A disk in memory that counts, and that can be told to let no write begin.
struct Disk {
    bytes: Mutex<Vec<u8>>,
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    writes: u64,
    flushes: u64,
    /// Writes wait, and so many do.
    held: bool,
    waiting: u64,
}

impl Disk {
    fn new(bytes: u64) -> Arc<Disk> {
        Arc::new(Disk { bytes: Mutex::new(vec![0; bytes as usize]), seen: Mutex::default(), changed: Condvar::new() })
    }

    fn see(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut lock(&self.seen));
        self.changed.notify_all();
    }

    /// Waits until something has happened to it, and says what did not.
    fn until(&self, what: &str, happened: impl Fn(&Seen) -> bool) {
        let waited = self.changed.wait_timeout_while(lock(&self.seen), PATIENCE, |seen| !happened(seen));
        assert!(!waited.unwrap().1.timed_out(), "{what}");
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
        self.see(|seen| seen.waiting += 1);
        // Not for ever: a test that fails is to end, too.
        drop(self.changed.wait_timeout_while(lock(&self.seen), 2 * PATIENCE, |seen| seen.held).unwrap());
        lock(&self.bytes)[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        self.see(|seen| (seen.writes, seen.waiting) = (seen.writes + 1, seen.waiting - 1));
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        self.see(|seen| seen.flushes += 1);
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) {}
}

fn engine(threaded: bool) -> (Engine, Arc<Disk>, Arc<Disk>, Superblock) {
    let superblock =
        Superblock { store: Uuid([7; 16]), cluster: Uuid([8; 16]), osd: OsdId(1), blocks: BLOCKS, tag: 99, created: 0 };
    let (journal, blocks, kv) = (Disk::new((4 << 20) + 4096), Disk::new(BLOCKS * BLOCK), MemKv::default());
    Engine::format_kv(&kv, &superblock).unwrap();
    let parts = Parts {
        journal: journal.clone(),
        journal_bytes: journal.size(),
        blocks: blocks.clone(),
        kv: Arc::new(kv),
        discard: false,
        durable_journal: false,
    };
    let config = StoreConfig { memory: 32 << 20, ..StoreConfig::default() };
    (Engine::open(parts, &superblock, &config, threaded, false).unwrap(), journal, blocks, superblock)
}

fn write(name: &str, bytes: usize) -> Transaction {
    let op = TxnOp::Write { oid: oid(name, 0), offset: 0, data: vec![1; bytes].into(), hint: WriteHint::default() };
    Transaction { pg: pg(0), ops: vec![op] }
}

#[test]
fn what_came_before_a_large_write_does_not_wait_for_its_blocks() {
    let (engine, _, blocks, _) = engine(false);
    engine.submit(&Transaction { pg: pg(0), ops: vec![TxnOp::CreateCollection] }, ignore()).unwrap();
    while engine.commit_group().unwrap() {}
    let (tell, told) = mpsc::channel();
    for (name, bytes) in [("first", 4096), ("large", 1 << 20), ("second", 4096), ("larger", 2 << 20), ("third", 4096)] {
        let tell = tell.clone();
        let done = move |result: Result<(), StoreError>| tell.send(result.map(|()| name)).unwrap();
        engine.submit(&write(name, bytes), Box::new(done)).unwrap();
    }
    let durable = || told.try_iter().collect::<Result<Vec<_>, _>>().unwrap();
    let before = lock(&blocks.seen).writes;
    assert!(engine.commit_group().unwrap());
    assert_eq!((durable(), lock(&blocks.seen).writes - before), (vec!["first"], 0));
    // The others keep their order: they may name what those before them placed.
    assert!(engine.commit_group().unwrap());
    assert_eq!(durable(), ["large", "second", "larger", "third"]);
    assert!(!engine.commit_group().unwrap());
}

#[test]
fn large_writes_are_flushed_while_the_journal_is_busy() {
    let (engine, journal, blocks, superblock) = engine(true);
    let store = DiskStore::start(engine.into(), &superblock, 0).unwrap();
    let submit = |txn| {
        let (tell, told) = mpsc::sync_channel(1);
        store.submit(txn, Box::new(move |done| drop(tell.send(done)))).unwrap();
        told
    };
    let made = submit(Transaction { pg: pg(0), ops: vec![TxnOp::CreateCollection] });
    made.recv_timeout(PATIENCE).unwrap().unwrap();
    let flushed = lock(&blocks.seen).flushes;
    journal.see(|seen| seen.held = true);
    let small = submit(write("small", 4096));
    journal.until("the small record does not come to the journal", |seen| seen.waiting == 1);
    let large = submit(write("large", 1 << 20));
    blocks.until("its blocks wait for a record before them", |seen| seen.flushes > flushed);
    assert!(small.try_recv().is_err() && large.try_recv().is_err(), "their records are not written");
    journal.see(|seen| seen.held = false);
    small.recv_timeout(PATIENCE).unwrap().unwrap();
    large.recv_timeout(PATIENCE).unwrap().unwrap();
    // One flush was enough, whoever made it.
    assert_eq!(lock(&blocks.seen).flushes, flushed + 1);
    store.close().unwrap();
}
