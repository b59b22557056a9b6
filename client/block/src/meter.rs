//! What was done with an image through one handle: counts, bytes and time; and how a handle tells others of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Kinds of requests, in the order they are told.
pub const KINDS: [&str; 4] = ["read", "write", "zero", "flush"];

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
        let [read, write, zero, flush] = KINDS;
        [
            (read, self.reads.seen()),
            (write, self.writes.seen()),
            (zero, self.zeros.seen()),
            (flush, self.flushes.seen()),
        ]
    }
}

/// Of the form of [`Told`].
const FORM: u8 = 1;
const NUMBERS: usize = 2 + 4 * KINDS.len();

/// What a handle says of itself to one who asks all that have an image open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Bytes that were answered and are not durable yet.
    pub dirty: u64,
    /// Another has taken the image: nothing is written by this one any more.
    pub lost: bool,
    /// What it did, in the order of [`KINDS`].
    pub counts: [Seen; 4],
    /// Its host and process.
    pub who: String,
}

impl Told {
    /// A byte for the form, numbers of 64 bits with the lowest byte first, and the rest is who it is.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let counts = self.counts.iter().flat_map(|seen| [seen.done, seen.failed, seen.bytes, seen.micros]);
        let mut out = vec![FORM];
        out.extend([self.dirty, u64::from(self.lost)].into_iter().chain(counts).flat_map(u64::to_le_bytes));
        out.extend(self.who.as_bytes());
        out
    }

    /// None: it is of a form that this release does not know, or of one who does not know the question.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Told> {
        let (form, rest) = bytes.split_first()?;
        let (numbers, who) = rest.split_at_checked(8 * NUMBERS).filter(|_| *form == FORM)?;
        let mut numbers = numbers.chunks_exact(8).filter_map(|raw| raw.try_into().ok()).map(u64::from_le_bytes);
        let mut next = || numbers.next();
        let (dirty, lost) = (next()?, next()? != 0);
        let mut counts = [Seen::default(); 4];
        for seen in &mut counts {
            *seen = Seen { done: next()?, failed: next()?, bytes: next()?, micros: next()? };
        }
        Some(Told { dirty, lost, counts, who: std::str::from_utf8(who).ok()?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_handle_tells_is_read_by_all_releases_of_this_form() {
        let seen = |n: u64| Seen { done: n, failed: n + 1, bytes: n + 2, micros: n + 3 };
        let told = Told { dirty: 7, lost: true, counts: [10, 20, 30, 1 << 40].map(seen), who: "h1, process 5".into() };
        let mut bytes = vec![1];
        for number in [7, 1, 10, 11, 12, 13, 20, 21, 22, 23, 30, 31, 32, 33] {
            bytes.extend([number, 0, 0, 0, 0, 0, 0, 0]);
        }
        for low in 0..4 {
            bytes.extend([low, 0, 0, 0, 0, 1, 0, 0]);
        }
        bytes.extend(b"h1, process 5");
        assert_eq!(told.encode(), bytes);
        assert_eq!(Told::decode(&bytes), Some(told));
        // One who does not know the question, another form, cut short, no text.
        assert_eq!(Told::decode(b""), None);
        assert_eq!(Told::decode(&[&[2], &bytes[1..]].concat()), None);
        assert_eq!(Told::decode(&bytes[..1 + 8 * NUMBERS - 1]), None);
        assert_eq!(Told::decode(&[&bytes[..], &[0xff]].concat()), None);
    }
}
