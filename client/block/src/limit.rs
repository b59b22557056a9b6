//! What users of an image may do in a second: its notes `limit.iops` and `limit.bytes` (and `.read`, `.write` of each),
//! kept in one place, the open image, whatever it is served through.
//!
//! A bucket for each limit fills steadily up to one second's worth; who finds it empty waits for its turn.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// The notes that are limits.
pub const LIMITS: [&str; 6] =
    ["limit.iops", "limit.iops.read", "limit.iops.write", "limit.bytes", "limit.bytes.read", "limit.bytes.write"];

/// Is it a limit.
pub fn is_limit(key: &str) -> bool {
    key.starts_with("limit.")
}

pub(crate) fn check(key: &str, value: &str) -> Result<(), Error> {
    let wrong = |why: String| Err(Error::Size { what: format!("{key}={value}"), why });
    if !LIMITS.contains(&key) {
        return wrong(format!("there is no such limit; there are {}", LIMITS.join(", ")));
    }
    match value.parse::<u64>() {
        Ok(_) => Ok(()),
        Err(_) if value.is_empty() => Ok(()),
        Err(_) => wrong("a limit is a whole number for each second".into()),
    }
}

#[derive(Debug, Default)]
struct Bucket {
    /// For each second; 0: no limit.
    rate: u64,
    /// When it will be empty of debts.
    free_at: Option<Instant>,
}

impl Bucket {
    /// Takes so much; how long to wait for it.
    fn take(&mut self, amount: u64, now: Instant) -> Duration {
        if self.rate == 0 || amount == 0 {
            return Duration::ZERO;
        }
        // A bucket that was not used for a second is full.
        let full = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        let start = self.free_at.unwrap_or(full).max(full);
        let cost = Duration::from_secs_f64(amount as f64 / self.rate as f64);
        let end = start + cost;
        self.free_at = Some(end);
        end.saturating_duration_since(now)
    }
}

/// All limits of an image.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    any: AtomicBool,
    buckets: Mutex<[Bucket; 6]>,
}

impl Limiter {
    /// Takes the limits out of notes.
    pub(crate) fn set<'a>(&self, notes: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut rates = [0; 6];
        for (key, value) in notes {
            if let Some(at) = LIMITS.iter().position(|limit| *limit == key)
                && let Some(rate) = rates.get_mut(at)
            {
                *rate = value.parse().unwrap_or(0);
            }
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        for (bucket, rate) in buckets.iter_mut().zip(rates) {
            bucket.rate = rate;
        }
        self.any.store(rates.iter().any(|rate| *rate > 0), Ordering::Release);
    }

    fn wait(&self, bytes: u64, reads: bool) -> Duration {
        let now = Instant::now();
        let amounts = match reads {
            true => [1, 1, 0, bytes, bytes, 0],
            false => [1, 0, 1, bytes, 0, bytes],
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = buckets.iter_mut().zip(amounts).map(|(bucket, amount)| bucket.take(amount, now));
        waits.max().unwrap_or_default()
    }

    async fn pass(&self, bytes: u64, reads: bool) {
        if self.any.load(Ordering::Acquire) {
            tokio::time::sleep(self.wait(bytes, reads)).await;
        }
    }

    pub(crate) async fn read(&self, bytes: u64) {
        self.pass(bytes, true).await;
    }

    pub(crate) async fn write(&self, bytes: u64) {
        self.pass(bytes, false).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_a_second_s_worth_pass_and_then_so_much_each_second() {
        let mut bucket = Bucket { rate: 10, free_at: None };
        let start = Instant::now() + Duration::from_secs(100);
        let waits: Vec<_> = (0..12).map(|_| bucket.take(1, start)).collect();
        assert!(waits[..10].iter().all(Duration::is_zero), "{waits:?}");
        assert_eq!(waits[11].as_millis(), 200);
        assert_eq!(bucket.take(20, start + Duration::from_secs(10)).as_millis(), 1000);
        assert_eq!(Bucket::default().take(1 << 40, start), Duration::ZERO);
    }

    #[test]
    fn only_what_is_a_limit_may_be_set_as_one() {
        for (key, value) in [("limit.iops", "7"), ("limit.bytes.read", "0"), ("limit.iops", "")] {
            check(key, value).unwrap();
        }
        assert!(check("limit.iops", "many").unwrap_err().to_string().contains("whole number"));
        assert!(check("limit.speed", "1").unwrap_err().to_string().contains("limit.bytes.write"));
    }

    #[test]
    fn reads_do_not_pay_for_writes() {
        let limiter = Limiter::default();
        limiter.set([("limit.iops.write", "1"), ("other", "x")].into_iter());
        limiter.wait(1, false);
        assert!(limiter.wait(1, true).is_zero());
        assert!(!limiter.wait(1, false).is_zero());
        limiter.set(std::iter::empty());
        assert!(limiter.wait(1, false).is_zero());
    }
}
