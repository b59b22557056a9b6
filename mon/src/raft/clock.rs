//! The clock of consensus, which stands still while nothing depends on it.
//!
//! openraft looks at its clocks at each tick, and ticks five times in a heartbeat, on every monitor. A follower that has
//! heard its leader within the lease has nothing to look for: it may not stand before the lease and its own share of the
//! election timeout are over. So its ticks are parked until the leader has been silent for [`LEASE`]. A leader needs ticks
//! for its heartbeats alone; those it is given here, at their own pace.
//!
//! Invariant: ticks are parked only on a monitor that leads, whose heartbeats this task sends, or that was led within the
//! last [`LEASE`]; when this task ends, for whatever reason, they go on.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nacre_net::alarm::Alarm;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::Notify;

use super::Product;
use crate::state::machine::Machine;

/// Between two heartbeats of a leader.
pub const HEARTBEAT: Duration = Duration::from_millis(300);
/// For so long after a word of its leader a follower neither stands nor votes for another.
pub const LEASE: Duration = Duration::from_millis(600);

type Raft = openraft::Raft<Product, Machine>;

/// See the module.
#[derive(Debug)]
pub struct Clock {
    began: Instant,
    /// When the leader was heard last, in milliseconds since it began; 0: not yet.
    heard_ms: AtomicU64,
    /// Nobody leads, as far as is known here.
    ticks: AtomicBool,
    heard: Notify,
    /// When to look again, once somebody keeps this clock. Each word of a leader puts it off.
    alarm: OnceLock<Alarm>,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Send a heartbeat, then look again after so long.
    Beat(Duration),
    /// Nothing: the leader was heard. Look again after so long.
    Park(Duration),
    /// Tick, until a leader is heard.
    Tick,
}

/// Has the ticks go on when the task ends.
struct GoOn<'a>(&'a Raft);

impl Drop for GoOn<'_> {
    fn drop(&mut self) {
        self.0.runtime_config().tick(true);
    }
}

impl Clock {
    /// One that has heard nobody.
    pub fn new() -> Clock {
        Clock {
            began: Instant::now(),
            heard_ms: AtomicU64::new(0),
            ticks: AtomicBool::new(true),
            heard: Notify::new(),
            alarm: OnceLock::new(),
        }
    }

    /// A leader spoke, and consensus took its word.
    pub fn hear(&self) {
        self.hear_at(self.began.elapsed());
        if self.ticks.load(Ordering::Relaxed) {
            self.heard.notify_one();
        } else if let Some(alarm) = self.alarm.get() {
            alarm.set(LEASE);
        }
    }

    fn hear_at(&self, now: Duration) {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(now.max(1), Ordering::Relaxed);
    }

    fn turn(&self, leads: bool, now: Duration) -> Turn {
        if leads {
            return Turn::Beat(HEARTBEAT);
        }
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        match (heard + LEASE).checked_sub(now) {
            Some(left) if !left.is_zero() && !heard.is_zero() => Turn::Park(left),
            _ => Turn::Tick,
        }
    }

    /// Keeps it, until consensus ends.
    pub async fn keep(&self, raft: &Raft) {
        let _on = GoOn(raft);
        let mut news = raft.server_metrics();
        let alarm = self.alarm.get_or_init(Alarm::new);
        loop {
            let leads = news.borrow_watched().state == ServerState::Leader;
            let turn = self.turn(leads, self.began.elapsed());
            let ticks = turn == Turn::Tick;
            self.ticks.store(ticks, Ordering::Relaxed);
            raft.runtime_config().tick(ticks);
            match turn {
                Turn::Beat(pause) => {
                    if raft.trigger().heartbeat().await.is_err() {
                        return;
                    }
                    alarm.set(pause);
                }
                Turn::Park(pause) => alarm.set(pause),
                Turn::Tick => {}
            }
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                () = self.heard.notified(), if ticks => {}
                () = alarm.rang(), if !ticks => {}
            }
        }
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_go_on_when_the_leader_has_been_silent_for_the_lease() {
        let (clock, ms) = (Clock::new(), Duration::from_millis);
        assert_eq!(clock.turn(false, ms(10)), Turn::Tick, "nobody was heard yet");
        clock.hear_at(ms(7000));
        assert_eq!(clock.turn(false, ms(7000)), Turn::Park(LEASE));
        assert_eq!(clock.turn(false, ms(7250)), Turn::Park(LEASE - ms(250)));
        assert_eq!(clock.turn(false, ms(7600)), Turn::Tick);
        assert_eq!(clock.turn(false, ms(9600)), Turn::Tick);
        assert_eq!(clock.turn(true, ms(9600)), Turn::Beat(HEARTBEAT));
        assert!(HEARTBEAT * 2 <= LEASE, "one lost heartbeat ends no lease");
    }
}
