//! A clock that wakes a process once. The runtime's own timer wakes it a second and a third time on the way to a moment
//! that is more than 64 ms away, which is most of what an idle daemon does.
//!
//! It also says when rounds are due that everyone on a host is to have at the same moment.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// One alarm. It rings once for the moment it was set to last; where the kernel gives none, the runtime's timer does.
#[derive(Debug)]
pub struct Alarm {
    kernel: Option<AsyncFd<OwnedFd>>,
    /// When it rings, if the runtime has to do it.
    due: Mutex<Option<Instant>>,
}

impl Alarm {
    /// One that is not set. To be called within the runtime in which it is waited for.
    #[must_use]
    pub fn new() -> Alarm {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC);
        #[expect(deprecated, reason = "what it may be wrong with is a type that lies about its descriptor")]
        let kernel = timer.map_err(std::io::Error::from).and_then(AsyncFd::new);
        if let Err(error) = &kernel {
            tracing::debug!(%error, "the kernel gives no timer");
        }
        Alarm { kernel: kernel.ok(), due: Mutex::new(None) }
    }

    /// Has it ring after so long, and not when it was to before.
    pub fn set(&self, after: Duration) {
        let due = Instant::now() + after;
        if let Some(kernel) = &self.kernel {
            // Zero would turn it off.
            let value = Timespec::try_from(after.max(Duration::from_nanos(1)));
            let value = value.unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
            let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            if timerfd_settime(kernel, TimerfdTimerFlags::empty(), &spec).is_ok() {
                return;
            }
        }
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) = Some(due);
    }

    /// Until it rings. Dropping this changes nothing: who waits next hears it. It never rings while it is not set.
    pub async fn rang(&self) {
        loop {
            let due = *self.due.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(due) = due {
                tokio::time::sleep_until(due.into()).await;
                let mut now = self.due.lock().unwrap_or_else(PoisonError::into_inner);
                // Set anew meanwhile: for a later moment.
                if *now == Some(due) {
                    *now = None;
                    return;
                }
                continue;
            }
            let Some(kernel) = &self.kernel else { return std::future::pending().await };
            let Ok(mut ready) = kernel.readable().await else { return std::future::pending().await };
            // Set anew since: there is nothing to read, and it will ring later.
            if let Ok(Ok(_)) = ready.try_io(|kernel| Ok(rustix::io::read(kernel.get_ref(), &mut [0_u8; 8])?)) {
                return;
            }
        }
    }
}

impl Default for Alarm {
    fn default() -> Alarm {
        Alarm::new()
    }
}

/// How long it is until the next round. Rounds are at multiples of `every` since the host was started, so that all
/// processes of a host have them together, and those of different hosts do not.
#[must_use]
pub fn until_round(every: Duration) -> Duration {
    let since = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
    let every = every.max(Duration::from_millis(1));
    let over = since.as_nanos() % every.as_nanos();
    every - Duration::from_nanos(u64::try_from(over).unwrap_or(0))
}

/// A moment in half of `every` to one and a half. Whoever in this process asks for it with the same `every` gets the same
/// moments, so that what is done now and then without haste wakes it once for all.
#[must_use]
pub fn in_step(every: Duration) -> tokio::time::Instant {
    static FIRST: OnceLock<tokio::time::Instant> = OnceLock::new();
    let now = tokio::time::Instant::now();
    let every = every.max(Duration::from_millis(1));
    let since = now.saturating_duration_since(*FIRST.get_or_init(|| now)) + every / 2;
    let over = Duration::from_nanos(u64::try_from(since.as_nanos() % every.as_nanos()).unwrap_or(0));
    now + every + every / 2 - over
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    async fn rings_once(alarm: Alarm) {
        let began = Instant::now();
        alarm.set(Duration::from_secs(3600));
        alarm.set(ms(20));
        alarm.rang().await;
        assert!(began.elapsed() >= ms(20), "{:?}", began.elapsed());
        tokio::time::timeout(ms(20), alarm.rang()).await.unwrap_err();
        // What rings while nobody waits is heard by who waits next, unless it was set anew.
        alarm.set(Duration::ZERO);
        tokio::time::sleep(ms(10)).await;
        alarm.rang().await;
        alarm.set(Duration::ZERO);
        tokio::time::sleep(ms(10)).await;
        alarm.set(Duration::from_secs(3600));
        tokio::time::timeout(ms(20), alarm.rang()).await.unwrap_err();
        // It may be set from elsewhere while it is waited for.
        let (waited, ()) = tokio::join!(alarm.rang(), async {
            tokio::task::yield_now().await;
            alarm.set(ms(1));
        });
        waited
    }

    #[tokio::test]
    async fn it_rings_once_for_the_moment_it_was_set_to_last() {
        rings_once(Alarm::new()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_in_step_is_done_at_the_same_moments() {
        let every = ms(5000);
        let first = in_step(every);
        for pause in [0, 1, 700, 1300, 499, 2501, 4999, 5000, 12_345] {
            tokio::time::advance(ms(pause)).await;
            let (now, next) = (tokio::time::Instant::now(), in_step(every));
            assert!(next > now + every / 2 - ms(1) && next <= now + every * 3 / 2, "{:?}", next - now);
            assert_eq!((next - first).as_millis() % every.as_millis(), 0, "{:?}", next - first);
        }
    }

    #[test]
    fn rounds_are_at_the_same_moments_for_all() {
        let every = ms(300);
        let now = || Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap();
        for _ in 0..100 {
            let (before, until, after) = (now(), until_round(every), now());
            assert!(!until.is_zero() && until <= every, "{until:?}");
            let (first, last) = ((before + until).as_nanos(), (after + until).as_nanos());
            assert!(first.is_multiple_of(300_000_000) || first / 300_000_000 != last / 300_000_000, "{first} {last}");
        }
    }
}
