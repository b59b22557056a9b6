//! When background work is done: recovery, trimming, scrubs and counting begin with reads of the store, and those wait here
//! while they would make clients wait.
//!
//! How much may be read is learnt from what it does to clients, not from a measurement of the device when it was new. For
//! each kind of operation the time it takes while nothing else goes on is kept. While there is background work, a look
//! every tenth of a second compares: are operations slowed down by more than the setting says, the rate falls, else it
//! rises. With no client in sight nothing waits.
//!
//! What clients bear is told by two measures: how much slower they are on average, and how many of them are late, which is
//! what the setting says beyond all but one of a hundred in quiet. The average alone hides that some wait long.
//!
//! Among the classes time is shared by weight: who has had less for its weight goes first.
//!
//! What recovery has read is under way to others until it is durable there, and clients' writes stand behind it in the same
//! queues: so it goes in small pieces, and beside clients few at a time ([`Portion`]).
//!
//! Invariants: what waits is done in the order it came, within its class; the rate never falls below [`FLOOR`], so
//! background work ends whatever clients do, and what a client waits for in it (an object that has to be fetched first)
//! comes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use nacre_pg::io::{Class, ReadId, ReadItem, Time};
use nacre_proto::ids::{ObjectId, PgId};
use serde_json::{Value, json};

/// The least rate, in bytes of a second.
const FLOOR: f64 = 16e6;
/// The highest. More than any device gives is as good as no limit.
const CEILING: f64 = 16e9;
/// Where it begins.
const START: f64 = 200e6;
/// What a read costs besides its bytes.
const READ: u64 = 16 << 10;
/// Between two looks.
const LOOK: u64 = 100_000_000;
/// Clients count as gone when nothing was answered for this long.
const GONE: u64 = 300_000_000;
/// What was slower before than this is quick: below it, the machine's own noise is larger than what we could cause.
const QUICK: f64 = 500.0;
/// Fewer answers than this say nothing.
const FEW: u32 = 4;
/// How many may be late, and over how many that is counted, as a decaying share.
const LATE: f64 = 0.01;
const COUNTED: f64 = 300.0;
/// Up by so much, or down by a hundredth of that with each that was quicker: one of a hundred is above it in the end.
const TAIL: f64 = 0.1;
/// Bytes that an OSD's recovery of others has under way beside clients, over all groups.
const BESIDE: u64 = 1 << 20;
/// Bytes of a piece, at most and at least. Larger ones are no quicker: each is a read, a message and a record of its own, and
/// several are on their way.
const PIECES: (u64, u64) = (256 << 10, 64 << 10);
/// Whoever came so lately may come again, and is not to find more under way than is good for them.
const AWAY: u64 = 5_000_000_000;
/// Bytes of a window of a backfill beside clients, whose writes to it wait, and without them.
const WINDOWS: (u64, u64) = (8 << 20, 32 << 20);
/// Largest sizes of the kinds of operations that are told apart.
const SIZES: [u64; 3] = [16 << 10, 256 << 10, 2 << 20];
/// What an operation takes before any was seen in quiet, in microseconds: reads, writes, by size.
const GUESS: [[f64; 4]; 2] = [[700.0, 1_500.0, 5_000.0, 15_000.0], [3_000.0, 6_000.0, 15_000.0, 60_000.0]];

/// How much recovery has under way at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Portion {
    /// Objects of each group.
    pub(super) objects: usize,
    /// Bytes of a piece of each of them.
    pub(super) piece: u64,
    /// Bytes of a window of a backfill.
    pub(super) window: u64,
}

impl Portion {
    /// Where so many objects may be recovered at a time, in so many groups.
    pub(super) fn of(beside_clients: bool, objects: usize, groups: usize) -> Portion {
        let groups = groups.max(1);
        let each = (objects / groups).max(1);
        let (most, least) = PIECES;
        if !beside_clients {
            return Portion { objects: each, piece: most, window: WINDOWS.1 };
        }
        let bytes = BESIDE / groups as u64;
        let objects = each.min(usize::try_from(bytes / most).unwrap_or(each).max(1));
        let piece = (bytes / objects as u64).clamp(least, most);
        Portion { objects, piece, window: WINDOWS.0 }
    }
}

/// A read that waits.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) pg: PgId,
    pub(super) core: u64,
    pub(super) id: ReadId,
    pub(super) oid: Option<ObjectId>,
    pub(super) items: Vec<ReadItem>,
}

impl Job {
    pub(super) fn cost(&self) -> u64 {
        let bytes = |item: &ReadItem| if let ReadItem::Extent { len, .. } = item { *len } else { 0 };
        READ + self.items.iter().map(bytes).fold(0, u64::saturating_add).min(64 << 20)
    }
}

/// The classes that wait, and their weights.
const CLASSES: [(Class, f64); 4] =
    [(Class::Recovery, 8.0), (Class::Trim, 2.0), (Class::Scrub, 2.0), (Class::BestEffort, 1.0)];

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// What it has had, by its weight.
    had: f64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    queues: [Queue; 4],
    /// By how much clients may be slowed down.
    most: f64,
    /// How long operations take in quiet, in microseconds.
    quiet: [[f64; 4]; 2],
    /// And all but one of a hundred of them.
    tail: [[f64; 4]; 2],
    /// Which share of the last answers was late.
    late: f64,
    /// Since the last look: how many were.
    lately: u32,
    rate: f64,
    /// Bytes that may be read now; below zero: that were read too early.
    credit: f64,
    credited: u64,
    /// Since the last look: answers, and the sum of their times over those in quiet.
    answers: u32,
    slowed: f64,
    read: u64,
    looked: u64,
    last_answer: Option<u64>,
    /// When something of ours was last read.
    last_read: Option<u64>,
}

impl Pace {
    pub(super) fn new(most: f64) -> Pace {
        Pace {
            queues: Default::default(),
            most,
            quiet: GUESS,
            tail: GUESS.map(|sizes| sizes.map(|guess| 3.0 * guess)),
            late: 0.0,
            lately: 0,
            rate: START,
            credit: 0.0,
            credited: 0,
            answers: 0,
            slowed: 0.0,
            read: 0,
            looked: 0,
            last_answer: None,
            last_read: None,
        }
    }

    /// Another setting.
    pub(super) fn allow(&mut self, most: f64) {
        self.most = most;
    }

    /// One more waits.
    pub(super) fn put(&mut self, class: Class, job: Job) {
        let Some(at) = CLASSES.iter().position(|(of, _)| *of == class) else { return };
        // Who comes back after a while has no claim to all it did not ask for.
        let busiest = self.queues.iter().filter(|queue| !queue.jobs.is_empty()).map(|queue| queue.had);
        let least = busiest.fold(f64::INFINITY, f64::min);
        let queue = &mut self.queues[at];
        if queue.jobs.is_empty() && least.is_finite() {
            queue.had = queue.had.max(least);
        }
        queue.jobs.push_back(job);
    }

    /// How many wait, by class.
    fn waiting(&self) -> [(Class, usize); 4] {
        std::array::from_fn(|at| (CLASSES[at].0, self.queues[at].jobs.len()))
    }

    /// For an operator: what waits, and how much may be read beside clients.
    pub(super) fn show(&self) -> Value {
        let waiting = self.waiting().map(|(class, count)| (format!("{class:?}").to_lowercase(), count));
        json!({ "waiting": BTreeMap::from(waiting), "mib_s": (self.rate / 1048576.0).round() })
    }

    /// A client was answered.
    pub(super) fn answered(&mut self, now: Time, writes: bool, bytes: u64, micros: u64) {
        let size = SIZES.iter().position(|most| bytes <= *most).unwrap_or(SIZES.len());
        let quiet = &mut self.quiet[usize::from(writes)][size];
        let tail = &mut self.tail[usize::from(writes)][size];
        let took = micros as f64;
        let alone = self.last_read.is_none_or(|at| now.0.saturating_sub(at) > GONE);
        if alone {
            // Slowly: single operations differ by far more than what is looked for.
            *quiet += (took - *quiet) * 0.02;
            *tail *= 1.0 + if took > *tail { TAIL } else { -TAIL / 100.0 };
        } else if took < *quiet {
            *quiet += (took - *quiet) * 0.01;
        }
        self.answers += 1;
        // One that waited for a dead peer is not our doing.
        self.slowed += (took / quiet.max(QUICK)).min(20.0);
        let late = took > tail.max(QUICK) * self.most;
        self.lately += u32::from(late);
        self.late += (f64::from(u8::from(late)) - self.late) / COUNTED;
        self.last_answer = Some(now.0);
    }

    /// Was one answered not long ago, even if none is in sight now.
    pub(super) fn had_clients(&self, now: Time) -> bool {
        self.last_answer.is_some_and(|at| now.0.saturating_sub(at) < AWAY)
    }

    fn has_clients(&self, now: Time) -> bool {
        self.last_answer.is_some_and(|at| now.0.saturating_sub(at) < GONE)
    }

    fn look(&mut self, now: Time) {
        let since = now.0.saturating_sub(self.looked);
        if since < LOOK {
            return;
        }
        if self.answers >= FEW && self.read > 0 {
            let slowed = self.slowed / f64::from(self.answers);
            // Those that were late long ago have been heeded.
            let many_late = self.late > LATE && self.lately > 0;
            if slowed > self.most || many_late {
                // From what was really read: a rate nobody used says nothing.
                let used = self.read as f64 * 1e9 / since as f64;
                self.rate = (self.rate.min(used * 1.2) * 0.7).max(FLOOR);
            } else {
                self.rate = (self.rate * 1.1).min(CEILING);
            }
        }
        (self.looked, self.answers, self.slowed, self.lately, self.read) = (now.0, 0, 0.0, 0, 0);
    }

    /// The next to be read now, if any.
    pub(super) fn take(&mut self, now: Time) -> Option<Job> {
        self.look(now);
        let fullest = |(_, queue): &(usize, &Queue)| !queue.jobs.is_empty();
        let next = self.queues.iter().enumerate().filter(fullest).min_by(|(_, a), (_, b)| a.had.total_cmp(&b.had));
        let (at, _) = next?;
        let clients = self.has_clients(now);
        self.earn(now);
        if clients && self.credit < 0.0 {
            return None;
        }
        let queue = &mut self.queues[at];
        let job = queue.jobs.pop_front()?;
        let cost = job.cost();
        queue.had += cost as f64 / CLASSES[at].1;
        if clients {
            self.credit -= cost as f64;
        }
        self.read += cost;
        self.last_read = Some(now.0);
        Some(job)
    }

    fn earn(&mut self, now: Time) {
        let since = now.0.saturating_sub(self.credited) as f64 / 1e9;
        self.credited = now.0;
        // What was not used within two hundredths of a second is gone: no bursts after a pause.
        self.credit = (self.credit + since * self.rate).min(self.rate * 0.02);
    }

    /// When to come again, if something waits.
    pub(super) fn wait(&self, now: Time) -> Option<Duration> {
        self.queues.iter().any(|queue| !queue.jobs.is_empty()).then(|| {
            if self.credit >= 0.0 || !self.has_clients(now) {
                return Duration::ZERO;
            }
            let until_paid = Duration::from_secs_f64(-self.credit / self.rate);
            let until_gone = Duration::from_nanos(GONE);
            until_paid.min(until_gone)
        })
    }
}

#[cfg(test)]
#[path = "pace_test.rs"]
mod tests;
