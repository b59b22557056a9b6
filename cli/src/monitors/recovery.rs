//! How much is still to be copied, and how long that takes at the pace so far.

use std::time::{Duration, Instant};

use super::seen::Seen;
use crate::output::{Bytes, Span, count};

/// What is still to be done, over all pgs that are not as they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) pgs: u64,
    pub(super) copies: u64,
    pub(super) bytes: u64,
}

impl Left {
    /// Copies to be made in pgs that are not clean, with bytes by the average object of the pg.
    pub(super) fn of(seen: &Seen) -> Left {
        let mut left = Left::default();
        for report in seen.reports.pgs.values().filter(|report| !report.is_clean()) {
            let copies = report.degraded.saturating_add(report.misplaced);
            left.pgs += 1;
            left.copies = left.copies.saturating_add(copies);
            let bytes = u128::from(report.bytes) * u128::from(copies) / u128::from(report.objects.max(1));
            left.bytes = left.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
        left
    }
}

/// Follows what is left as it shrinks.
#[derive(Debug)]
pub(super) struct Pace {
    most: Left,
    now: Left,
    began: Instant,
    seen: Instant,
}

impl Pace {
    pub(super) fn new() -> Pace {
        let now = Instant::now();
        Pace { most: Left::default(), now: Left::default(), began: now, seen: now }
    }

    /// So much is left at this moment.
    pub(super) fn note(&mut self, left: Left, at: Instant) {
        if left.copies > self.now.copies || self.now.copies == 0 {
            // More came up, as when the map has just changed: the pace is taken from here.
            (self.most, self.began) = (left, at);
        }
        (self.now, self.seen) = (left, at);
    }

    /// Copies made since the pace is taken, and all there were.
    pub(super) fn done(&self) -> (u64, u64) {
        (self.most.copies.saturating_sub(self.now.copies), self.most.copies)
    }

    /// Bytes per second.
    pub(super) fn bytes_s(&self) -> f64 {
        let took = self.seen.duration_since(self.began).as_secs_f64();
        if took < 0.5 { 0.0 } else { self.most.bytes.saturating_sub(self.now.bytes) as f64 / took }
    }

    /// How long the rest takes, once there is a pace.
    pub(super) fn eta(&self) -> Option<Duration> {
        let (done, _) = self.done();
        let took = self.seen.duration_since(self.began);
        if done == 0 || took < Duration::from_secs(1) {
            return None;
        }
        Some(took.mul_f64(self.now.copies as f64 / done as f64))
    }

    /// All of it in a line.
    pub(super) fn text(&self) -> String {
        let eta = self.eta().map_or_else(String::new, |eta| format!(", about {}", Span(eta)));
        let speed = match self.bytes_s() {
            pace if pace >= 1.0 => format!(" at {}/s", Bytes(pace as u64)),
            _ => String::new(),
        };
        let (copies, pgs) = (self.now.copies as usize, self.now.pgs as usize);
        let copies = if copies == 1 { "1 copy".to_owned() } else { format!("{copies} copies") };
        format!("{copies}, {} left in {}{speed}{eta}", Bytes(self.now.bytes), count(pgs, "pg"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_what_is_done_did() {
        let (mut pace, start) = (Pace::new(), Instant::now());
        let left = |copies: u64| Left { pgs: 2, copies, bytes: copies << 20 };
        let at = |seconds| start + Duration::from_secs(seconds);
        pace.note(left(100), at(0));
        assert_eq!(pace.eta(), None);
        pace.note(left(50), at(5));
        assert_eq!(pace.eta(), Some(Duration::from_secs(5)));
        assert_eq!(pace.text(), "50 copies, 50.0 MiB left in 2 pgs at 10.0 MiB/s, about 5 s");
        // Another OSD goes: what was done before says nothing of the pace from now on.
        pace.note(left(300), at(6));
        assert_eq!((pace.eta(), pace.done()), (None, (0, 300)));
        pace.note(left(200), at(8));
        assert_eq!(pace.eta(), Some(Duration::from_secs(4)));
        pace.note(Left::default(), at(9));
        assert_eq!(pace.eta(), Some(Duration::ZERO));
    }
}
