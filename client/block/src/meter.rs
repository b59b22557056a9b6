//! What was done with an image through one handle: counts, bytes and time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Counts of one kind of request.
#[derive(Debug, Default)]
pub struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
    micros: AtomicU64,
}

/// Counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests that succeeded.
    pub done: u64,
    /// That failed.
    pub failed: u64,
    /// Bytes of those that succeeded.
    pub bytes: u64,
    /// Microseconds from their beginning to their end, summed.
    pub micros: u64,
}

impl Counts {
    fn begin(&self, bytes: u64) -> Timed<'_> {
        Timed { counts: self, bytes, began: Instant::now() }
    }

    /// What was counted so far.
    pub fn seen(&self) -> Seen {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Seen { done: get(&self.done), failed: get(&self.failed), bytes: get(&self.bytes), micros: get(&self.micros) }
    }
}

/// A request under way.
pub(crate) struct Timed<'a> {
    counts: &'a Counts,
    bytes: u64,
    began: Instant,
}

impl Timed<'_> {
    pub(crate) fn end(self, good: bool) {
        let add = |n: &AtomicU64, by: u64| n.fetch_add(by, Ordering::Relaxed);
        if good {
            add(&self.counts.done, 1);
            add(&self.counts.bytes, self.bytes);
        } else {
            add(&self.counts.failed, 1);
        }
        add(&self.counts.micros, u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
}

/// All counts of a handle.
#[derive(Debug, Default)]
pub struct Meter {
    /// Reads.
    pub reads: Counts,
    /// Writes.
    pub writes: Counts,
    /// Discards and zeros.
    pub zeros: Counts,
    /// Flushes.
    pub flushes: Counts,
}

impl Meter {
    pub(crate) fn read(&self, bytes: u64) -> Timed<'_> {
        self.reads.begin(bytes)
    }

    pub(crate) fn write(&self, bytes: u64) -> Timed<'_> {
        self.writes.begin(bytes)
    }

    pub(crate) fn zero(&self, bytes: u64) -> Timed<'_> {
        self.zeros.begin(bytes)
    }

    pub(crate) fn flush(&self) -> Timed<'_> {
        self.flushes.begin(0)
    }

    /// Kinds with what was counted, for those who show them.
    pub fn all(&self) -> [(&'static str, Seen); 4] {
        [
            ("read", self.reads.seen()),
            ("write", self.writes.seen()),
            ("zero", self.zeros.seen()),
            ("flush", self.flushes.seen()),
        ]
    }
}
