//! What users of an image may do in a second: its notes `limit.iops` and `limit.bytes` (and `.read`, `.write` of each).
//!
//! One place deals it out to all who have the image open, wherever they are: its header (class `image`, method `spend`).
//! Each handle fetches a tenth of a second's worth at a time, waits until that is due, and uses it up; what it did not use
//! within a second is gone. So handles that do nothing cost nothing and take nothing from the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use nacre_client::class::image::LIMITS;
use nacre_client::class::image::Spent;
use tokio::time::Instant;

use crate::error::Error;
use crate::header::Header;

/// Handfuls that a second's worth is fetched in.
const HANDFULS: u64 = 10;
/// What was fetched and not used by then is gone.
const KEPT: Duration = Duration::from_secs(1);

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

/// So much of each limit.
type Amounts = [u64; LIMITS.len()];

fn amounts(bytes: u64, reads: bool) -> Amounts {
    match reads {
        true => [1, 1, 0, bytes, bytes, 0],
        false => [1, 0, 1, bytes, 0, bytes],
    }
}

/// What this handle may still use of what it fetched.
#[derive(Debug, Default)]
struct Purse {
    /// For each second; 0: no limit.
    rates: Amounts,
    left: Amounts,
    /// Since when.
    since: Option<Instant>,
}

impl Purse {
    /// Takes all of it, or nothing.
    fn take(&mut self, need: &Amounts, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) > KEPT) {
            self.left = Amounts::default();
        }
        let enough = self.left.iter().zip(need).zip(&self.rates).all(|((left, need), rate)| *rate == 0 || left >= need);
        if enough {
            for (left, need) in self.left.iter_mut().zip(need) {
                *left = left.saturating_sub(*need);
            }
        }
        enough
    }

    /// What to fetch for one who needs so much.
    fn handful(&self, need: &Amounts) -> Amounts {
        let mut more = *need;
        for ((more, rate), left) in more.iter_mut().zip(&self.rates).zip(&self.left) {
            if *more > 0 && *rate > 0 {
                *more = more.saturating_sub(*left).max(rate / HANDFULS);
            }
        }
        more
    }

    fn put(&mut self, more: &Amounts, spent: &Spent, now: Instant) {
        self.rates = of(&spent.rates);
        self.since = Some(now);
        for (left, more) in self.left.iter_mut().zip(more) {
            *left = left.saturating_add(*more);
        }
    }
}

fn of(list: &[u64]) -> Amounts {
    let mut amounts = Amounts::default();
    amounts.iter_mut().zip(list).for_each(|(amount, value)| *amount = *value);
    amounts
}

/// All limits of an image, as one handle keeps them.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    any: AtomicBool,
    purse: Mutex<Purse>,
    /// Held by who fetches; others wait in the order they came.
    turn: tokio::sync::Mutex<()>,
}

impl Limiter {
    fn purse(&self) -> MutexGuard<'_, Purse> {
        self.purse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the limits out of notes.
    pub(crate) fn set<'a>(&self, notes: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut rates = Amounts::default();
        for (key, value) in notes {
            if let Some(at) = LIMITS.iter().position(|limit| *limit == key)
                && let Some(rate) = rates.get_mut(at)
            {
                *rate = value.parse().unwrap_or(0);
            }
        }
        let mut purse = self.purse();
        if purse.rates != rates {
            *purse = Purse { rates, ..Purse::default() };
        }
        self.any.store(rates.iter().any(|rate| *rate > 0), Ordering::Release);
    }

    async fn pass(&self, header: &Header, need: Amounts) {
        if !self.any.load(Ordering::Acquire) || self.purse().take(&need, Instant::now()) {
            return;
        }
        let _turn = self.turn.lock().await;
        // Whoever had the turn before may have left something.
        if self.purse().take(&need, Instant::now()) {
            return;
        }
        let more = self.purse().handful(&need);
        match header.spend(&more).await {
            Ok(spent) => {
                tokio::time::sleep(Duration::from_micros(spent.wait_us)).await;
                let mut purse = self.purse();
                purse.put(&more, &spent, Instant::now());
                purse.take(&need, Instant::now());
            }
            // What it waits to do meets the same trouble, and tells of it.
            Err(error) => tracing::debug!(%error, "the limits of an image could not be asked for"),
        }
    }

    pub(crate) async fn read(&self, header: &Header, bytes: u64) {
        self.pass(header, amounts(bytes, true)).await;
    }

    pub(crate) async fn write(&self, header: &Header, bytes: u64) {
        self.pass(header, amounts(bytes, false)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealt(rates: Amounts) -> Spent {
        Spent { wait_us: 0, rates: rates.to_vec(), dealt: Vec::new() }
    }

    #[test]
    fn a_purse_gives_what_is_in_it_and_is_empty_after_a_second() {
        let rates = [100, 0, 5, 0, 0, 0];
        let mut purse = Purse { rates, ..Purse::default() };
        let start = Instant::now();
        let (read, write) = (amounts(4096, true), amounts(4096, false));
        assert!(!purse.take(&read, start));
        // A tenth of a second's worth, but never less than what is needed, and nothing of what is not needed.
        assert_eq!(purse.handful(&read)[..3], [10, 1, 0]);
        assert_eq!(purse.handful(&write)[..3], [10, 0, 1]);
        purse.put(&[10, 0, 0, 0, 0, 0], &dealt(rates), start);
        assert!((0..9).all(|_| purse.take(&read, start)));
        assert!(!purse.take(&write, start), "there is nothing for writes");
        purse.put(&[0, 0, 1, 0, 0, 0], &dealt(rates), start);
        assert!(purse.take(&write, start));
        assert!(!purse.take(&read, start));
        purse.put(&[10, 0, 0, 0, 0, 0], &dealt(rates), start);
        assert!(!purse.take(&read, start + KEPT + Duration::from_millis(1)));
        // A limit that is gone is none.
        purse.put(&[0; 6], &dealt([0; 6]), start);
        assert!(purse.take(&amounts(1 << 40, true), start));
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
    fn what_was_fetched_under_other_limits_is_gone_when_they_change() {
        let limiter = Limiter::default();
        limiter.set([("limit.iops.write", "10"), ("other", "x")].into_iter());
        assert!(limiter.any.load(Ordering::Acquire));
        limiter.purse().put(&[0, 0, 9, 0, 0, 0], &dealt([0, 0, 10, 0, 0, 0]), Instant::now());
        limiter.set([("limit.iops.write", "10")].into_iter());
        assert_eq!(limiter.purse().left[2], 9);
        limiter.set([("limit.iops.write", "20")].into_iter());
        assert_eq!(limiter.purse().left[2], 0);
        limiter.set(std::iter::empty());
        assert!(!limiter.any.load(Ordering::Acquire));
    }
}
