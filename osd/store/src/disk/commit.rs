//! From queued records to durable ones: group commit.
//!
//! Records are copied once, into the buffer that is written. While one group is on its way the next one gathers, and the
//! large writes of those that gather go to their fresh blocks meanwhile: a record waits for its blocks, never the other
//! way round. Records that came before a large write do not wait for its blocks: their group is closed when it comes.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::codec::Put;
use super::direct::AlignedBuf;
use super::journal::HEADER;
use super::{Engine, lock};
use crate::api::{BLOCK, Completion, Seq};
use crate::error::StoreError;

/// Records that will be made durable by one write.
pub(crate) struct Batch {
    buf: AlignedBuf,
    first: Seq,
    last: Seq,
    /// First blocks of its large writes.
    direct: Vec<u64>,
    direct_bytes: u64,
    /// Large writes, counted from the store's opening, that must be done before its record is written.
    after: u64,
    done: Vec<Completion>,
}

/// Direct bytes after which a group is closed: what waits is held in memory.
const DIRECT_BATCH: u64 = 32 << 20;
/// Direct bytes that are handed to the disk with one call.
const DIRECT_WRITE: usize = 16 << 20;

impl Batch {
    /// Tells all who wait for it that it will never be durable.
    pub(crate) fn fail(&mut self, error: &StoreError) {
        for done in self.done.drain(..) {
            done(Err(error.clone()));
        }
    }
}

/// Nobody is left waiting when a thread dies with a batch in its hands.
impl Drop for Batch {
    fn drop(&mut self) {
        self.fail(&StoreError::Poisoned { cause: "the thread that was to write it has died, see the log".into() });
    }
}

#[derive(Default)]
pub(crate) struct Queue {
    pub batches: VecDeque<Batch>,
    /// Large writes that nobody has begun, oldest first.
    direct: VecDeque<(u64, Bytes)>,
    /// Large writes queued, done, and known to be durable, since the store was opened.
    direct_queued: u64,
    direct_done: u64,
    direct_flushed: u64,
    /// So many large writes will be durable when the flush that is under way has ended; 0 if none is. There is one at a
    /// time: of two, only the first might be told of an error.
    flushing: u64,
    spare: Vec<AlignedBuf>,
    /// Records in all batches.
    count: usize,
    /// Records for which the committer, if it sleeps, is woken; 0 while it does not sleep.
    wanted: usize,
    /// Records that were on their way when the last group had become durable: its own and those that waited meanwhile.
    flying: usize,
    /// Everything up to here is durable.
    pub durable: Seq,
    pub stop: bool,
    /// The same for the thread of the large writes, which goes last.
    pub stop_writer: bool,
}

/// How long the committer waits for those whose transactions were just made durable to send the next ones; a flush for the
/// first of them alone would cost as much as for all. Nobody waits whose transaction is alone.
const LINGER: std::time::Duration = std::time::Duration::from_micros(100);

impl Put for AlignedBuf {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend(bytes);
    }
}

impl Queue {
    pub(crate) fn new(durable: Seq) -> Self {
        Queue { durable, ..Queue::default() }
    }

    /// Queues a record. True if the committer should be woken.
    pub(crate) fn push(
        &mut self,
        seq: Seq,
        record: &[u8],
        direct: Vec<(u64, Bytes)>,
        done: Completion,
        limit: u64,
    ) -> bool {
        let full = |batch: &Batch| {
            let waits_for_nothing = batch.direct.is_empty() && !direct.is_empty();
            (batch.buf.len() + record.len()) as u64 > limit || batch.direct_bytes > DIRECT_BATCH || waits_for_nothing
        };
        if self.batches.back().is_none_or(full) {
            let mut buf = self.spare.pop().unwrap_or_else(|| AlignedBuf::with_capacity(256 << 10));
            buf.clear();
            buf.extend(&[0; HEADER]);
            let batch =
                Batch { buf, first: seq, last: seq, direct: Vec::new(), direct_bytes: 0, after: 0, done: Vec::new() };
            self.batches.push_back(batch);
        }
        let Some(batch) = self.batches.back_mut() else { return true };
        batch.buf.u32(record.len() as u32 + 8);
        batch.buf.u64(seq);
        batch.buf.extend(record);
        batch.last = seq;
        batch.direct_bytes += direct.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        if !direct.is_empty() {
            batch.direct.extend(direct.iter().map(|(phys, _)| phys));
            self.direct_queued += direct.len() as u64;
            self.direct.extend(direct);
            batch.after = self.direct_queued;
        }
        batch.done.push(done);
        self.count += 1;
        let wake = self.wanted > 0 && (self.count >= self.wanted || self.batches.len() > 1);
        if wake {
            self.wanted = 0;
        }
        wake
    }

    /// Those who wait are told already: nothing of it will ever be written.
    pub(crate) fn give_up(&mut self) -> Vec<Batch> {
        self.direct.clear();
        self.count = 0;
        self.batches.drain(..).collect()
    }

    /// A flush of all large writes that are done begins: it makes so many durable.
    fn begin_flush(&mut self) -> u64 {
        self.flushing = self.direct_done;
        self.flushing
    }

    pub(crate) fn has_direct(&self) -> bool {
        !self.direct.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(crate) fn weight(&self) -> u64 {
        self.batches.iter().map(|batch| batch.buf.capacity() as u64).sum()
    }
}

impl Engine {
    /// Makes the oldest group durable and calls its completions. False if there was none.
    pub(crate) fn commit_group(&self) -> Result<bool, StoreError> {
        // The journal's lock first, so that two callers cannot swap groups.
        let mut journal = lock(&self.journal);
        let mut queue = lock(&self.queue);
        let Some(mut batch) = queue.batches.pop_front() else { return Ok(false) };
        queue.count -= batch.done.len();
        drop(queue);
        let result = match self.check_poison() {
            Ok(()) => self.write_batch(&mut journal, &mut batch),
            Err(error) => Err(error),
        };
        drop(journal);
        if let Err(error) = result {
            let error = self.poison(&error);
            batch.fail(&error);
            return Err(error);
        }
        self.counters.transactions.fetch_add(batch.done.len() as u64, Ordering::Relaxed);
        let mut queue = lock(&self.queue);
        queue.durable = batch.last;
        queue.flying = queue.count + batch.done.len();
        // One group is written while the next is gathered, in front of large writes and behind: these are enough, and fewer
        // would be made anew, zeros and all.
        if queue.spare.len() < 3 && batch.buf.capacity() as u64 <= 2 * self.bounds.group {
            queue.spare.push(std::mem::take(&mut batch.buf));
        }
        drop(queue);
        self.settled.notify_all();
        for done in batch.done.drain(..) {
            done(Ok(()));
        }
        Ok(true)
    }

    fn write_batch(&self, journal: &mut super::Journal, batch: &mut Batch) -> Result<(), StoreError> {
        if !batch.direct.is_empty() {
            // The record must never be found without its blocks, so they are made durable first.
            self.wait_flushed(batch.after)?;
            self.counters.block_bytes.fetch_add(batch.direct_bytes, Ordering::Relaxed);
            let mut state = self.state();
            for phys in batch.direct.drain(..) {
                state.inflight.remove(&phys);
            }
        }
        let len = journal.append(&mut batch.buf, batch.first, batch.last)?;
        self.counters.groups.fetch_add(1, Ordering::Relaxed);
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        self.counters.journal_bytes.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    /// Hands the oldest large writes to the disk. They are durable then only if no others wait: those are written first,
    /// and whoever needs them durable flushes them together. False if there were none.
    pub(crate) fn write_direct(&self) -> Result<bool, StoreError> {
        let mut queue = lock(&self.queue);
        let (mut part, mut bytes) = (Vec::new(), 0);
        while let Some((phys, data)) =
            queue.direct.pop_front_if(|(_, data)| bytes == 0 || bytes + data.len() <= DIRECT_WRITE)
        {
            bytes += data.len();
            part.push((phys, data));
        }
        drop(queue);
        if part.is_empty() {
            return Ok(false);
        }
        let writes: Vec<_> = part.iter().map(|(phys, data)| (phys * BLOCK, &data[..])).collect();
        let result = self.check_poison().and_then(|()| {
            self.blocks.write_many(&writes).map_err(|error| StoreError::io("cannot write object data", error))
        });
        if let Err(error) = result {
            return Err(self.poison(&error));
        }
        let mut queue = lock(&self.queue);
        queue.direct_done += part.len() as u64;
        let idle = self.threaded && queue.direct.is_empty() && queue.flushing == 0;
        let flush = idle.then(|| queue.begin_flush());
        drop(queue);
        self.settled.notify_all();
        // At once, while the committer is busy with the group before.
        flush.map_or(Ok(()), |count| self.flush_direct(count))?;
        Ok(true)
    }

    /// Makes the first so many large writes, which are done, durable. The caller has said in the queue that it does.
    fn flush_direct(&self, count: u64) -> Result<(), StoreError> {
        if let Err(error) = self.blocks.sync() {
            return Err(self.poison(&StoreError::io("cannot flush object data", error)));
        }
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        let mut queue = lock(&self.queue);
        queue.direct_flushed = count;
        queue.flushing = 0;
        drop(queue);
        self.settled.notify_all();
        Ok(())
    }

    /// Waits until so many large writes are durable, and flushes them if nobody does; without threads, writes them too.
    fn wait_flushed(&self, count: u64) -> Result<(), StoreError> {
        if !self.threaded {
            while self.write_direct()? {}
        }
        let mut queue = lock(&self.queue);
        loop {
            self.check_poison()?;
            if queue.direct_flushed >= count {
                return Ok(());
            }
            if queue.direct_done >= count && queue.flushing == 0 {
                break;
            }
            queue = self.settled.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        let count = queue.begin_flush();
        drop(queue);
        self.flush_direct(count)
    }

    /// The life of the thread that does the large writes.
    pub(crate) fn write_forever(&self) {
        loop {
            let mut queue = lock(&self.queue);
            while !queue.has_direct() && !queue.stop_writer {
                queue = self.direct.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            if !queue.has_direct() {
                return;
            }
            drop(queue);
            // An error has poisoned the store and told all who wait.
            let _ = self.write_direct();
        }
    }

    /// Waits until everything up to `seq` is durable; without threads, sees to it.
    pub(crate) fn wait_durable(&self, seq: Seq) -> Result<(), StoreError> {
        if !self.threaded {
            while self.commit_group()? {}
        }
        let mut queue = lock(&self.queue);
        while queue.durable < seq {
            self.check_poison()?;
            queue = self.settled.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        Ok(())
    }

    /// The committer's life.
    pub(crate) fn commit_forever(&self) {
        loop {
            let mut queue = lock(&self.queue);
            while queue.is_empty() && !queue.stop {
                queue.wanted = 1;
                queue = self.queued.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            if queue.is_empty() {
                return;
            }
            let near = queue.flying - queue.flying / 8;
            if queue.count < near && queue.batches.len() == 1 && !queue.stop {
                queue.wanted = near;
                let waited = self.queued.wait_timeout(queue, LINGER);
                queue = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
                queue.wanted = 0;
            }
            drop(queue);
            // An error has poisoned the store and told all who wait; later ones are told as they come.
            let _ = self.commit_group();
        }
    }
}
