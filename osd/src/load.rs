//! What clients make this OSD do: counts that only grow, for whoever asks twice and takes the difference. Counting is a few
//! plain additions; nothing is kept of a single operation. And how often its store failed to give what it holds.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nacre_pg::op::{Op, OpResult, Reply};
use nacre_proto::v1::{OpLoad, OsdLoad};

/// Latencies are told apart by powers of two microseconds, up to half an hour.
const BUCKETS: usize = 32;
/// For so long a read that failed counts against the disk.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// No more of them are told apart.
const FAULTS: usize = 1000;

/// See the module.
#[derive(Debug)]
pub struct Load {
    started: Instant,
    reads: Counts,
    writes: Counts,
    in_flight: AtomicU64,
    /// When reads failed, oldest first.
    faults: Mutex<VecDeque<Instant>>,
}

#[derive(Debug, Default)]
struct Counts {
    ops: AtomicU64,
    bytes: AtomicU64,
    latency: [AtomicU64; BUCKETS],
}

/// An operation that is not answered yet.
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    writes: bool,
    counts: bool,
    bytes: u64,
}

impl Default for Load {
    fn default() -> Load {
        let (reads, writes) = (Counts::default(), Counts::default());
        Load { started: Instant::now(), reads, writes, in_flight: AtomicU64::new(0), faults: Mutex::default() }
    }
}

/// Up to 1, 2, 4, ... microseconds: the index of the first bound that is not exceeded.
fn bucket(micros: u64) -> usize {
    let index = u64::BITS - micros.saturating_sub(1).leading_zeros();
    (index as usize).min(BUCKETS - 1)
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn written(op: &Op) -> u64 {
    match op {
        Op::Write { data, .. } | Op::WriteFull { data } | Op::Append { data } => data.len() as u64,
        Op::WriteSame { len, .. } => *len,
        Op::OmapSet { entries } => entries.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum(),
        Op::SetXattr { value, .. } => value.len() as u64,
        _ => 0,
    }
}

fn read(result: &OpResult) -> u64 {
    match result {
        OpResult::Data(data) => data.len() as u64,
        OpResult::Extents(extents) => extents.iter().map(|(_, data)| data.len() as u64).sum(),
        OpResult::Pairs { pairs, .. } => pairs.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum(),
        _ => 0,
    }
}

impl Load {
    /// A client asks.
    pub fn begin(&self, ops: &[Op]) -> Meter {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Meter {
            began: Instant::now(),
            writes: ops.iter().any(Op::writes),
            // It takes as long as those who are notified like.
            counts: !ops.iter().any(|op| matches!(op, Op::Notify { .. })),
            bytes: ops.iter().map(written).sum(),
        }
    }

    /// It is answered. Gives whether it wrote, how many bytes it moved and for how long it was here, if that says
    /// anything.
    pub fn end(&self, meter: &Meter, reply: &Reply) -> Option<(bool, u64, u64)> {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let read: u64 = match reply {
            Reply::Done { outcome: Ok(results), .. } => results.iter().map(read).sum(),
            // It is asked anew, here or elsewhere.
            Reply::Again { .. } => return None,
            _ => 0,
        };
        let counts = if meter.writes { &self.writes } else { &self.reads };
        if !meter.counts {
            return None;
        }
        let (bytes, took) = (if meter.writes { meter.bytes } else { read }, micros(meter.began));
        counts.ops.fetch_add(1, Ordering::Relaxed);
        counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(bucket) = counts.latency.get(bucket(took)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        Some((meter.writes, bytes, took))
    }

    /// A read of the store failed: a checksum did not hold, or the device gave an error.
    pub fn fault(&self, now: Instant) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() == FAULTS {
            faults.pop_front();
        }
        faults.push_back(now);
    }

    /// How many did in the last day.
    pub fn faults(&self, now: Instant) -> u64 {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        while faults.front().is_some_and(|oldest| now.saturating_duration_since(*oldest) > DAY) {
            faults.pop_front();
        }
        faults.len() as u64
    }

    /// As the monitors hear of it.
    pub fn message(&self) -> OsdLoad {
        let counts = |counts: &Counts| {
            let mut latency: Vec<u64> = counts.latency.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            while latency.last() == Some(&0) {
                latency.pop();
            }
            let (ops, bytes) = (counts.ops.load(Ordering::Relaxed), counts.bytes.load(Ordering::Relaxed));
            OpLoad { ops, bytes, latency }
        };
        OsdLoad {
            up_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            reads: Some(counts(&self.reads)),
            writes: Some(counts(&self.writes)),
            in_flight: self.in_flight.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nacre_proto::ids::{Epoch, Version};

    #[test]
    fn latencies_fall_between_powers_of_two() {
        let found: Vec<usize> = [0, 1, 2, 3, 4, 5, 1 << 20, u64::MAX].map(bucket).to_vec();
        assert_eq!(found, [0, 0, 1, 2, 2, 3, 20, 31]);
    }

    #[test]
    fn reads_that_failed_count_for_a_day() {
        let (load, began) = (Load::default(), Instant::now());
        load.fault(began);
        load.fault(began + DAY / 2);
        assert_eq!(load.faults(began + DAY / 2), 2);
        assert_eq!(load.faults(began + DAY + Duration::from_secs(1)), 1);
        (0..2 * FAULTS).for_each(|_| load.fault(began + DAY));
        assert_eq!(load.faults(began + DAY), FAULTS as u64);
        assert_eq!(load.faults(began + 3 * DAY), 0);
    }

    #[test]
    fn what_is_answered_is_counted_once_and_on_its_side() {
        let load = Load::default();
        let write = load.begin(&[Op::Append { data: "hello".into() }]);
        let read = load.begin(&[Op::Stat, Op::Read { offset: 0, len: 100 }]);
        let lost = load.begin(&[Op::Stat]);
        assert_eq!(load.message().in_flight, 3);
        let done = |results| Reply::Done { outcome: Ok(results), version: Version::default() };
        load.end(&write, &done(vec![OpResult::Done]));
        load.end(&read, &done(vec![OpResult::Done, OpResult::Data("hello, you".into())]));
        load.end(&lost, &Reply::Again { epoch: Epoch(3) });
        let said = load.message();
        let (reads, writes) = (said.reads.unwrap(), said.writes.unwrap());
        assert_eq!((said.in_flight, reads.ops, reads.bytes, writes.ops, writes.bytes), (0, 1, 10, 1, 5));
        assert_eq!(reads.latency.iter().sum::<u64>(), 1);
    }
}
