//! When a process renews its own certificate. A value that is told the time; asking the monitors and storing the answer
//! is the shell's work.
//!
//! The rule: at two thirds of the lifetime, spread by up to a tenth of it per name so that a cluster that was started at
//! once does not renew at once; after a failure again in a sixtieth of the lifetime, doubled up to a tenth. A third of
//! the lifetime is thus the time the monitors may be away before anyone is locked out.

use std::time::Duration;

use super::{Identity, UnixTime};

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing until then.
    Wait(UnixTime),
    /// Send a signing request.
    Renew,
    /// Too late: peers no longer believe the certificate. Only joining anew helps.
    Expired,
}

/// The renewal of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    due: UnixTime,
    not_after: UnixTime,
    lifetime: Duration,
    failures: u32,
}

impl Renewal {
    /// The plan for this certificate.
    #[must_use]
    pub fn of(who: &Identity) -> Renewal {
        let lifetime = who.not_after.since(who.not_before);
        let spread = lifetime / 10;
        // By name and serial, not by chance: the same certificate has the same plan after a restart.
        let hash = blake3::hash(format!("{} {}", who.name, who.serial).as_bytes());
        let part = u64::from(u32::from_le_bytes([
            hash.as_bytes()[0],
            hash.as_bytes()[1],
            hash.as_bytes()[2],
            hash.as_bytes()[3],
        ]));
        let early = Duration::from_secs(spread.as_secs().saturating_mul(part) / u64::from(u32::MAX));
        let due = who.not_before.after(lifetime / 3 * 2).before(early);
        Renewal { due, not_after: who.not_after, lifetime, failures: 0 }
    }

    /// What to do at `now`.
    #[must_use]
    pub fn due(&self, now: UnixTime) -> Due {
        if now >= self.not_after {
            Due::Expired
        } else if now >= self.due {
            Due::Renew
        } else {
            Due::Wait(self.due.min(self.not_after))
        }
    }

    /// The request came to nothing: try again a little later.
    pub fn failed(&mut self, now: UnixTime) {
        let first = (self.lifetime / 60).max(Duration::from_secs(1));
        let pause = first.saturating_mul(1 << self.failures.min(8)).min((self.lifetime / 10).max(first));
        self.failures = self.failures.saturating_add(1);
        self.due = now.after(pause);
    }

    /// How often it failed in a row: for the metric and for a warning.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificate::Serial;
    use super::super::{Caps, ClusterId};
    use super::*;

    fn who(serial: u8) -> Identity {
        Identity {
            cluster: ClusterId([0; 16]),
            name: "osd.1".parse().unwrap(),
            caps: Caps::default(),
            generation: 0,
            serial: Serial(Box::new([serial])),
            not_before: UnixTime(1_000_000),
            not_after: UnixTime(1_086_400),
            signer: None,
        }
    }

    #[test]
    fn renews_between_half_and_two_thirds() {
        let mut dues = Vec::new();
        for serial in 0..50 {
            let Due::Wait(at) = Renewal::of(&who(serial)).due(UnixTime(1_000_001)) else { panic!("not yet due") };
            assert!((1_000_000 + 86_400 / 2..=1_000_000 + 86_400 / 3 * 2).contains(&at.0), "{at:?}");
            assert_eq!(Renewal::of(&who(serial)).due(at), Due::Renew);
            dues.push(at);
        }
        dues.sort();
        dues.dedup();
        assert!(dues.len() > 30, "spread: {}", dues.len());
    }

    #[test]
    fn failures_wait_longer_and_longer_but_not_too_long() {
        let mut plan = Renewal::of(&who(1));
        let mut now = UnixTime(1_060_000);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert_eq!(plan.due(now), Due::Renew);
            plan.failed(now);
            let Due::Wait(next) = plan.due(now) else { panic!("must wait") };
            pauses.push(next.since(now).as_secs());
            now = UnixTime(1_060_000); // the clock stands still: only the pauses are of interest
            plan.due = now;
        }
        assert_eq!(pauses, [1440, 2880, 5760, 8640, 8640, 8640]);
        assert_eq!(plan.due(UnixTime(1_086_400)), Due::Expired);
    }
}
