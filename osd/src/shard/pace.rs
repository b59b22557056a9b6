//! When background work is done: recovery, trimming, scrubs and counting begin with reads of the store, and those wait here
//! while they would make clients wait.
//!
//! How much may be read is learnt from what it does to clients, not from a measurement of the device when it was new. For
//! each kind of operation the time it takes while nothing else goes on is kept. While there is background work, a look
//! every tenth of a second compares: are operations slowed down by more than the setting says, the rate falls, else it
//! rises. With no client in sight nothing waits.
//!
//! Among the classes time is shared by weight: who has had less for its weight goes first.
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
/// Largest sizes of the kinds of operations that are told apart.
const SIZES: [u64; 3] = [16 << 10, 256 << 10, 2 << 20];
/// What an operation takes before any was seen in quiet, in microseconds: reads, writes, by size.
const GUESS: [[f64; 4]; 2] = [[700.0, 1_500.0, 5_000.0, 15_000.0], [3_000.0, 6_000.0, 15_000.0, 60_000.0]];

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
    fn cost(&self) -> u64 {
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
        let took = micros as f64;
        let alone = self.last_read.is_none_or(|at| now.0.saturating_sub(at) > GONE);
        if alone {
            // Slowly: single operations differ by far more than what is looked for.
            *quiet += (took - *quiet) * 0.02;
        } else if took < *quiet {
            *quiet += (took - *quiet) * 0.01;
        }
        self.answers += 1;
        // One that waited for a dead peer is not our doing.
        self.slowed += (took / quiet.max(QUICK)).min(20.0);
        self.last_answer = Some(now.0);
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
            if slowed > self.most {
                // From what was really read: a rate nobody used says nothing.
                let used = self.read as f64 * 1e9 / since as f64;
                self.rate = (self.rate.min(used * 1.2) * 0.7).max(FLOOR);
            } else {
                self.rate = (self.rate * 1.25).min(CEILING);
            }
        }
        (self.looked, self.answers, self.slowed, self.read) = (now.0, 0, 0.0, 0);
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
