//! The real store: a journal with group commit, a block space, and RocksDB fed at checkpoints.
//!
//! A transaction is planned and applied in memory under one lock ([`plan`], [`stage`], [`state`]), its record is queued,
//! and the committer makes a group of records durable with one write and one flush ([`commit`]). Now and then a
//! checkpoint lays down what the journal deferred and hands the changed metadata to RocksDB ([`checkpoint`]); then the
//! journal's old groups may be overwritten. Opening loads the checkpoint and replays the rest ([`open`]).
//!
//! Invariants
//! 1. Completion is called with success only after the record, and the blocks it places, are on stable storage.
//! 2. RocksDB is never written on the way from submission to completion.
//! 3. The order of records in the journal is the order of submission: the queue is filled under the state's lock.
//! 4. After any failed write or flush nothing is accepted or acknowledged any more.
//!
//! Locks are taken in this order: checkpointer, laying, journal, state, queue.

mod alloc;
pub mod check;
mod checkpoint;
mod codec;
mod commit;
mod device;
mod direct;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod journal;
mod keys;
mod kv;
mod leaf;
mod meta;
mod open;
mod pack;
mod plan;
mod read;
mod record;
mod rocks;
mod stage;
mod state;
mod superblock;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use nacre_proto::txn::Transaction;

use self::checkpoint::LogIndex;
use self::commit::Queue;
use self::device::Device;
use self::direct::{AlignedBuf, Pool};
use self::journal::Journal;
use self::kv::Kv;
use self::plan::Plan;
use self::state::State;
use crate::api::{BLOCK, Completion, Seq, Usage};
use crate::error::StoreError;
use crate::limits;

pub use self::open::{DiskStore, FormatOptions, Identity, StoreInfo};

/// How a store is run; nothing of it is on disk.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Bytes for caches, dirty state, buffers and RocksDB together.
    pub memory: u64,
    /// Bytes of journal after which a checkpoint starts; by default what memory and journal allow.
    pub checkpoint_bytes: Option<u64>,
    /// Tell the disk about freed space: by default for block devices, whose space is not reserved by it.
    pub discard: Option<bool>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig { memory: 256 << 20, checkpoint_bytes: None, discard: None }
    }
}

/// What the store has done since it was opened.
#[derive(Debug, Default)]
pub struct Counters {
    /// Transactions made durable.
    pub transactions: AtomicU64,
    /// Journal groups written: each one write and one flush.
    pub groups: AtomicU64,
    /// Flushes of any device, those of RocksDB not among them.
    pub flushes: AtomicU64,
    /// Bytes written to the journal.
    pub journal_bytes: AtomicU64,
    /// Bytes written to the block space.
    pub block_bytes: AtomicU64,
    /// Checkpoints finished: the only moments at which RocksDB is written.
    pub checkpoints: AtomicU64,
    /// Times a submission had to wait for a checkpoint.
    pub stalls: AtomicU64,
}

/// The devices and the database a store is made of.
pub(crate) struct Parts {
    pub blocks: Arc<dyn Device>,
    pub journal: Arc<dyn Device>,
    /// Bytes of the journal, as it says of itself.
    pub journal_bytes: u64,
    pub kv: Arc<dyn Kv>,
    pub discard: bool,
    /// The journal device's writes are durable by themselves.
    pub durable_journal: bool,
}

/// Journal bytes that a group is kept near, and the most one record may have.
#[derive(Clone, Copy)]
struct Bounds {
    group: u64,
    record: u64,
    /// Bytes granted to transactions that the journal must still hold.
    granted: u64,
    checkpoint: u64,
    dirty: usize,
}

pub(crate) struct Engine {
    blocks: Arc<dyn Device>,
    /// Blocks of the block space, as the superblock says; the device may be larger.
    space: u64,
    kv: Arc<dyn Kv>,
    discard: bool,
    bounds: Bounds,
    memory: u64,
    state: Mutex<State>,
    queue: Mutex<Queue>,
    /// Work for the committer, or a stop.
    queued: Condvar,
    /// Large writes, or a stop, for the thread that does them. Waits with `queue`.
    direct: Condvar,
    /// A group is durable, large writes are done, or the store is poisoned. Waits with `queue`.
    settled: Condvar,
    journal: Mutex<Journal>,
    checkpointer: Mutex<LogIndex>,
    /// Blocks on their way down; kept, because memory that is new to the process costs as much as the copy into it.
    laying: Mutex<AlignedBuf>,
    /// What large reads read into.
    pool: Arc<Pool>,
    /// Wanted and finished checkpoints. Waits with `turns`.
    turns: Mutex<Turns>,
    turned: Condvar,
    poisoned: AtomicBool,
    poison: Mutex<Option<Arc<str>>>,
    /// Whether threads commit and checkpoint; without them submission does when it must.
    threaded: bool,
    pub counters: Counters,
}

#[derive(Default)]
struct Turns {
    wanted: u64,
    started: u64,
    done: u64,
    stop: bool,
}

/// Locks; a thread that panicked while holding one has poisoned nothing that its own message does not say.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Free space the metadata database's file system must keep, for compaction and the deletes that make room.
const KV_RESERVE: u64 = 128 << 20;

/// What a record takes of the journal at most, beyond its bytes: a group's header and the rest of a sector.
const RECORD_OVERHEAD: u64 = 640;

impl Engine {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn check_poison(&self) -> Result<(), StoreError> {
        if self.poisoned.load(Ordering::Acquire) { Err(self.poison_error()) } else { Ok(()) }
    }

    fn poison_error(&self) -> StoreError {
        let cause = lock(&self.poison).clone().unwrap_or_else(|| "an earlier write failed".into());
        StoreError::Poisoned { cause }
    }

    /// From here on nothing is accepted or acknowledged. Returns what to tell those who wait.
    fn poison(&self, error: &StoreError) -> StoreError {
        lock(&self.poison).get_or_insert_with(|| error.to_string().into());
        self.poisoned.store(true, Ordering::Release);
        // Under the lock each of them waits with: else one who has just looked and not yet begun to wait would miss it.
        self.fail_queued();
        drop(lock(&self.turns));
        self.turned.notify_all();
        self.poison_error()
    }

    /// Of a poisoned store: tells those whose records will never be written.
    fn fail_queued(&self) {
        let waiting = lock(&self.queue).give_up();
        self.settled.notify_all();
        let error = self.poison_error();
        waiting.into_iter().for_each(|mut batch| batch.fail(&error));
    }

    /// Runs a thread's life. If that ends in a panic, the store is poisoned: those who wait for the thread are told.
    fn guarded(&self, life: impl FnOnce(&Engine)) {
        struct Alarm<'a>(&'a Engine);
        impl Drop for Alarm<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    let name = std::thread::current().name().unwrap_or("a thread").to_owned();
                    self.0.poison(&StoreError::Io {
                        what: format!("the thread {name} has died of a bug, see the log"),
                        source: Arc::new(std::io::ErrorKind::Other.into()),
                    });
                }
            }
        }
        let alarm = Alarm(self);
        life(alarm.0);
    }

    pub(crate) fn submit(&self, txn: &Transaction, done: Completion) -> Result<Seq, StoreError> {
        limits::check(txn)?;
        let mut tries = 0;
        loop {
            self.check_poison()?;
            let mut state = self.state();
            if !self.has_room(&state) {
                drop(state);
                self.counters.stalls.fetch_add(1, Ordering::Relaxed);
                self.checkpoint_and_wait()?;
                continue;
            }
            // What was freed, or belongs to removed collections, comes back with checkpoints.
            let kv_full = state.kv_full;
            let comes_back = (state.alloc.waiting() > 0 || !state.dead.is_empty()) && !state.kv_full;
            match Plan::new(&mut state, &*self.kv, &*self.blocks, txn.pg).run(txn) {
                Ok(plan) => {
                    let seq = self.accept(plan, done)?;
                    let wants = self.wants_checkpoint(&state);
                    state.shrink();
                    drop(state);
                    if wants {
                        self.request_checkpoint();
                    }
                    if self.poisoned.load(Ordering::Acquire) {
                        // Poisoned since we looked, and perhaps after those who wait were told.
                        self.fail_queued();
                    }
                    return Ok(seq);
                }
                Err(StoreError::Full { .. }) if tries < 8 && comes_back => {
                    tries += 1;
                    drop(state);
                    self.checkpoint_and_wait()?;
                }
                // Someone may have made room on the database's file system meanwhile.
                Err(StoreError::Full { .. }) if kv_full && !self.kv_is_full() => state.kv_full = false,
                Err(error) => return Err(error),
            }
        }
    }

    /// Publishes a plan and queues its record. The state's lock is held by the plan.
    fn accept(&self, plan: Plan<'_>, done: Completion) -> Result<Seq, StoreError> {
        let Plan { stage, record, .. } = plan;
        let len = record.len() as u64 + 12;
        if len > self.bounds.record {
            stage.abort();
            return Err(StoreError::TooLarge { what: "the transaction", size: len, limit: self.bounds.record });
        }
        if let Err(error) = stage.check_freed() {
            stage.abort();
            return Err(error);
        }
        stage.state.seq += 1;
        let seq = stage.state.seq;
        stage.state.granted[0] += len + RECORD_OVERHEAD;
        let direct = stage.publish();
        let large = !direct.is_empty();
        if lock(&self.queue).push(seq, &record, direct, done, self.bounds.group) {
            self.queued.notify_one();
        }
        if large {
            self.direct.notify_one();
        }
        Ok(seq)
    }

    /// Whether the database's file system is too full for anything that grows.
    fn kv_is_full(&self) -> bool {
        self.kv.room().is_some_and(|room| room < KV_RESERVE)
    }

    fn has_room(&self, state: &State) -> bool {
        let granted = state.granted[0] + state.granted[1] + self.bounds.record + RECORD_OVERHEAD;
        granted <= self.bounds.granted && state.dirty_weight() < self.bounds.dirty
    }

    fn wants_checkpoint(&self, state: &State) -> bool {
        state.granted[0] >= self.bounds.checkpoint
            || state.active.weight >= self.bounds.dirty / 2
            || state.alloc.waiting() * 8 > state.alloc.free() + 8192
    }

    /// Waits until everything submitted so far is durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.check_poison()?;
        let seq = self.state().seq;
        self.wait_durable(seq)
    }

    pub(crate) fn usage(&self) -> Usage {
        let state = self.state();
        let free = state.alloc.free();
        let (used, waiting) = (state.alloc.used(), state.alloc.waiting());
        Usage {
            total: (used + waiting + free) * BLOCK,
            used: used * BLOCK,
            pending: waiting * BLOCK,
            available: if state.kv_full { 0 } else { free.saturating_sub(state.reserve) * BLOCK },
        }
    }

    /// Bytes of memory that the store knows it holds.
    pub(crate) fn memory_used(&self) -> u64 {
        let state = self.state().weight() as u64;
        state + lock(&self.queue).weight() + self.kv.memory()
    }
}

#[cfg(test)]
#[path = "bounds_test.rs"]
mod bounds_tests;
#[cfg(test)]
#[path = "commit_test.rs"]
mod commit_tests;
#[cfg(test)]
#[path = "crash_test.rs"]
mod crash_tests;
#[cfg(test)]
#[path = "fault_test.rs"]
mod fault_tests;
#[cfg(test)]
#[path = "store_test.rs"]
mod store_tests;
