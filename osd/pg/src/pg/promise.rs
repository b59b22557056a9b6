//! Old promises: until when a primary of an earlier interval may still answer reads, and when nobody can make use of what
//! was promised. Reasons: docs/internals/last-activation.md.

use nacre_proto::ids::{Epoch, OsdId};

use super::peering::Stage;
use super::{PlacementGroup, Primary, Role};
use crate::io::{Output, Step, Time, TimerId};

impl PlacementGroup {
    pub(crate) fn old_lease_over(&mut self, cx: &mut Step<'_>) {
        let Role::Primary(p) = &self.role else { return };
        if p.stage != Stage::WaitLease {
            return;
        }
        let until = self.old_lease_until();
        if until <= cx.now {
            self.activate(cx, "timer");
        } else {
            cx.out.push(Output::Arm { id: TimerId::OldLease { interval: self.info.interval.0 }, at: until });
        }
    }

    /// Until when an older primary may still answer reads.
    pub(super) fn old_lease_until(&self) -> Time {
        let Role::Primary(p) = &self.role else { return Time(0) };
        let bound = p.promises.iter().filter(|(by, holder, _)| !self.is_void(p, *by, *holder));
        bound.map(|(.., until)| *until).chain(std::iter::once(p.old_lease)).max().unwrap_or_default()
    }

    /// Whoever has spoken in this interval answers no read of an older one; a process that is gone answers none at all.
    fn is_past_reading(&self, p: &Primary, osd: OsdId, given: Option<Epoch>) -> bool {
        let sight = self.view.osd(osd);
        osd == self.me || p.peers.contains_key(&osd) || sight.dead || given.is_some_and(|given| sight.up_from > given)
    }

    /// A promise nobody can make use of. Of a forgotten one it is known only that it was given in an interval whoever
    /// gave it had a part in; what ended before the pg was last clean is long over, later ones are listed.
    fn is_void(&self, p: &Primary, by: OsdId, holder: Option<OsdId>) -> bool {
        match holder {
            Some(holder) => self.is_past_reading(p, holder, None),
            None => {
                let mut with = self.past.iter().filter(|past| past.acting.contains(&by));
                with.all(|past| {
                    past.acting.iter().all(|osd| *osd == by || self.is_past_reading(p, *osd, Some(past.last)))
                })
            }
        }
    }
}
