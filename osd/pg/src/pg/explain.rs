//! One line of cause: why a pg is not clean, or what its operations wait for. Says, changes nothing.

use std::collections::BTreeSet;

use nacre_proto::ids::OsdId;

use super::peering::Stage;
use super::{PlacementGroup, Primary, Role};
use crate::log::Missing;

impl PlacementGroup {
    /// One line of cause: why it is not clean, or what operations wait for.
    pub fn explain(&self) -> String {
        match &self.role {
            Role::Dormant => "waits for a map that shows this osd up".to_owned(),
            Role::Stray => "a spare copy: kept until the primary says that it is no longer needed".to_owned(),
            Role::Member => match self.view.primary {
                Some(p) => format!("waits for {p} to tell the log"),
                None => "no member is up to be primary".to_owned(),
            },
            Role::Replica => "follows its primary".to_owned(),
            Role::Primary(p) => self.explain_primary(p),
        }
    }

    fn explain_primary(&self, p: &Primary) -> String {
        let names = |set: &BTreeSet<OsdId>| set.iter().map(OsdId::to_string).collect::<Vec<_>>().join(", ");
        match &p.stage {
            Stage::GetInfo { waiting } if waiting.is_empty() => {
                "waits for its own disk before it chooses a log".to_owned()
            }
            Stage::GetInfo { waiting } => format!("waits to hear what {} hold", names(waiting)),
            Stage::Down => format!(
                "acknowledged writes may be only on {}, which are down: start one of them, or declare them lost",
                names(&p.prior.blocked_by)
            ),
            Stage::Incomplete => "no osd that is up holds the complete log of the last time the pg served: \
                                  start the osds that held it"
                .to_owned(),
            Stage::WaitActing { want } => {
                format!(
                    "asked the monitors to let {} serve while others are filled",
                    names(&want.iter().copied().collect())
                )
            }
            Stage::GetLog { from } => format!("waits for the log of {from}"),
            Stage::WaitUpThru => "waits for the monitors to record that this primary is alive".to_owned(),
            Stage::Activating { waiting } => format!("waits for {} to make the log durable", names(waiting)),
            Stage::WaitLease => "waits until an older primary can answer no more reads".to_owned(),
            Stage::Peered => format!(
                "{} copies are up, min_size is {}: takes no operations until more are",
                self.view.acting.len(),
                self.view.pool.min_size
            ),
            Stage::Active => self.explain_active(p),
        }
    }
    /// What operations wait for while all copies are whole.
    fn explain_waiting(&self, p: &Primary) -> Option<String> {
        if let Some(oid) = self.lease_waits.first() {
            let late = self.view.acting.iter().filter(|o| **o != self.me).min_by_key(|o| p.leases.get(*o));
            return Some(format!(
                "a read of {} waits until {} promises to tell a new primary of it",
                String::from_utf8_lossy(&oid.name),
                late.map(OsdId::to_string).unwrap_or_default()
            ));
        }
        if let Some(w) = p.inflight.front() {
            let all = p.members.iter().chain(std::iter::once(&self.me));
            let late = all.min_by_key(|o| p.durable.get(*o))?;
            return Some(format!(
                "{} writes are not safe yet, the first of {}: {late} has not said that it is on its disk",
                p.inflight.len(),
                String::from_utf8_lossy(&w.oid.name)
            ));
        }
        if p.scrub.as_ref().is_some_and(|s| self.contexts.iter().any(|(o, c)| s.holds(o) && c.has_queue())) {
            return Some("writes wait until a scrub has compared their objects".to_owned());
        }
        None
    }

    fn explain_active(&self, p: &Primary) -> String {
        if !p.recover.unfound.is_empty() {
            let one = p.recover.unfound.iter().next().map(|o| String::from_utf8_lossy(&o.name).into_owned());
            return format!(
                "{} objects have no known copy of the needed version ({} first): start the osds that held them, or give them up",
                p.recover.unfound.len(),
                one.unwrap_or_default()
            );
        }
        if !self.missing.is_empty() {
            return format!("the primary lacks {} objects and fetches them", self.missing.len());
        }
        for m in &p.members {
            let Some(q) = p.peers.get(m) else { continue };
            if let Some(n) = q.missing.as_ref().map(Missing::len).filter(|n| *n > 0) {
                return format!("{m} lacks {n} objects and is being given them");
            }
            if !q.info.backfilled.is_max() {
                return format!("{m} is being filled from the beginning: its log was too old to join");
            }
        }
        if self.info.recount {
            return "counts its objects anew after a split".to_owned();
        }
        if self.view.acting != self.view.up {
            return "asked the monitors to end the temporary mapping".to_owned();
        }
        if self.view.acting.len() < self.view.pool.size as usize {
            return format!(
                "{} of {} copies: no osd is free for the rest",
                self.view.acting.len(),
                self.view.pool.size
            );
        }
        if let Some(oid) = self.inconsistent.keys().next() {
            return format!(
                "clean, but the copies of {} objects differ ({} first) and none is provably the bad one: compare them and \
                 choose",
                self.inconsistent.len(),
                String::from_utf8_lossy(&oid.name)
            );
        }
        if p.trim.as_ref().is_some_and(super::trim::Trim::is_stuck) {
            return "clean, but a removed snapshot's clone cannot be read: a scrub of the pg will name it".to_owned();
        }
        if let Some(why) = self.explain_waiting(p) {
            return why;
        }
        if !self.is_trimmed() {
            return format!("clean; takes {} removed snapshots out of its objects", self.untrimmed().len());
        }
        "clean".to_owned()
    }
}
