//! Maps and the roles they give: where an interval ends, everything asked in it ends too.

use std::sync::Arc;

use nacre_proto::ids::{Epoch, OsdId, Version};

use super::peering::Primary;
use super::{PlacementGroup, Role};
use crate::io::{Duration, Output, Step};
use crate::msg::Body;
use crate::op::Reply;
use crate::state::History;
use crate::view::{PastIntervals, View};

impl PlacementGroup {
    pub(crate) fn on_map(&mut self, cx: &mut Step<'_>, view: Arc<View>) {
        if self.gone {
            return;
        }
        let unborn = !self.desk.on_disk || std::mem::take(&mut self.newborn);
        let first = matches!(self.role, Role::Dormant) && unborn && view.epoch == self.view.epoch;
        if view.epoch <= self.view.epoch && !first {
            return;
        }
        assert!(
            first || view.epoch == self.view.epoch.next(),
            "pg {}: map {} after {}",
            self.id,
            view.epoch,
            self.view.epoch
        );
        if first {
            self.view = view;
            self.begin(cx);
            return;
        }
        if self.view.same_interval(&view) {
            let wakes = matches!(self.role, Role::Dormant) && self.is_alive(&view);
            // While the map showed it down the primary forgot its spare copy, and no connection need have been lost.
            let returned = view.osd(self.me).up_from != self.view.osd(self.me).up_from;
            if returned && matches!(self.role, Role::Stray) && !self.cfg.is(super::Fault::ReturnSilent) {
                self.come_forward = view.primary;
            }
            self.view = view;
            if wakes {
                // Not a member, or the interval had changed with its return: the interval goes on.
                self.begin(cx);
                return;
            }
            self.desk.epoch = self.view.epoch;
            self.map_in_interval(cx);
            return;
        }
        let last = Arc::clone(&self.view);
        self.past.close(self.info.interval, &last);
        self.info.interval = view.epoch;
        self.view = view;
        self.desk.epoch = self.view.epoch;
        self.desk.interval = self.info.interval;
        self.split(cx);
        self.begin(cx);
    }

    /// Is this osd up by this map, in its present run.
    fn is_alive(&self, view: &View) -> bool {
        let sight = view.osd(self.me);
        sight.up && (self.floor == Epoch(0) || sight.up_from > self.floor)
    }

    /// A new interval: take the role the map gives.
    fn begin(&mut self, cx: &mut Step<'_>) {
        let from = self.state();
        self.come_forward = None;
        self.desk.epoch = self.view.epoch;
        self.desk.interval = self.info.interval;
        self.drop_operations(cx);
        self.drop_slots(cx);
        self.held.clear();
        self.told = false;
        // A promise to an old primary whose run is over binds nobody.
        let mut ops = Vec::new();
        self.drop_temps(&mut ops);
        ops.push(self.keep_info());
        ops.push(self.keep_past());
        self.desk.submit(cx, ops, super::OnCommit::Nothing);
        let view = Arc::clone(&self.view);
        if !self.is_alive(&view) {
            self.role = Role::Dormant;
            self.moved(cx, from, "map");
        } else if view.primary == Some(self.me) {
            let scrub_wanted = match &self.role {
                Role::Primary(p) if !self.cfg.is(super::Fault::ForgetScrubs) => p.scrub_left(),
                _ => None,
            };
            self.role = Role::Primary(Box::new(Primary { scrub_wanted, ..Primary::new() }));
            self.moved(cx, from, "map");
            self.ask_infos(cx);
        } else if view.has(self.me) {
            self.role = Role::Member;
            // The primary may not even hold the pg (it was no member, its disk is new, what it was told was lost with an
            // interval), and then would ask nobody.
            self.come_forward = view.primary.filter(|_| !self.cfg.is(super::Fault::StaySilent));
            self.moved(cx, from, "map");
        } else {
            self.role = Role::Stray;
            self.come_forward = view.primary;
            self.moved(cx, from, "map");
        }
    }

    /// The next epoch of the same interval.
    fn map_in_interval(&mut self, cx: &mut Step<'_>) {
        if let Role::Primary(_) = self.role {
            self.peering_map(cx);
        }
    }

    /// Operations of the interval that ended go back to their clients, to be sent again under the same identity.
    fn drop_operations(&mut self, cx: &mut Step<'_>) {
        let again = Reply::Again { epoch: self.view.epoch };
        for op in std::mem::take(&mut self.waiting) {
            cx.out.push(Output::Reply { op: op.id, reply: again.clone() });
        }
        // Those who wait for a copy are among the queued.
        self.copies.clear();
        for (_, ids) in std::mem::take(&mut self.queued) {
            Self::reply(cx, ids.iter(), &again);
        }
        if let Role::Primary(p) = &mut self.role {
            for w in std::mem::take(&mut p.inflight) {
                Self::reply(cx, w.ids.iter(), &again);
            }
        }
        let waiting = self.watches.clear();
        Self::reply(cx, waiting, &again);
        for ctx in std::mem::take(&mut self.contexts).values() {
            ctx.reads().for_each(|ids| Self::reply(cx, ids.iter(), &again));
        }
        self.desk.drop_reads().iter().for_each(|ids| Self::reply(cx, ids.iter(), &again));
        // A new interval's scrub will say what it finds; the objects may be another pg's by now.
        self.inconsistent.clear();
        self.lease_waits.clear();
    }

    pub(crate) fn learn(&mut self, history: &History, past: &PastIntervals) {
        // One who was made by a message in this interval knows no past of its own.
        if self.past.is_empty() && !past.is_empty() {
            self.past = past.clone();
        }
        self.info.history.learn(history);
        self.past.forget_before(self.info.history.clean);
    }

    pub(crate) fn hold(&mut self, from: OsdId, body: Body) {
        self.held.push((from, body));
    }

    /// Answers a primary's questions once nothing is on its way to the disk: what is told is what would survive.
    pub(crate) fn answer_held(&mut self, cx: &mut Step<'_>) {
        if (self.held.is_empty() && self.come_forward.is_none()) || !self.desk.commits.is_empty() {
            return;
        }
        if let Some(to) = self.come_forward.take() {
            self.tell_info(cx, to, false);
        }
        for (to, body) in std::mem::take(&mut self.held) {
            match body {
                Body::Query { .. } => self.tell_info(cx, to, !matches!(self.role, Role::Stray)),
                Body::QueryLog { since } => {
                    let (part, dups) = (self.log.part(self.log.floor(since)), self.log.dups().clone());
                    self.desk.send(cx, to, Body::Log { part, dups, stats: self.info.stats });
                }
                _ => {}
            }
        }
    }

    fn tell_info(&self, cx: &mut Step<'_>, to: OsdId, asked: bool) {
        let waived = self.promise_waived();
        let lease = if waived { Duration(0) } else { self.promise.until.since(cx.now) };
        let holder = self.promise.holder.map(|(o, _)| o);
        let (info, past) = (Box::new(self.info.clone()), self.past.clone());
        self.desk.send(cx, to, Body::Info { info, past, lease, holder, asked });
    }

    /// The promise binds nobody any more: its holder's run is over by the map.
    pub(crate) fn promise_waived(&self) -> bool {
        match self.promise.holder {
            Some((holder, given)) => {
                let sight = self.view.osd(holder);
                self.view.primary == Some(holder) || sight.dead || sight.up_from > given
            }
            None => false,
        }
    }

    /// The primary says that the pg is clean.
    pub(crate) fn on_clean(&mut self, cx: &mut Step<'_>, history: &History, trim_to: Version) {
        if !matches!(self.role, Role::Replica) {
            return;
        }
        self.info.history.learn(history);
        self.past.forget_before(self.info.history.clean);
        let mut ops = vec![self.keep_info(), self.keep_past()];
        self.trim_log(trim_to, &mut ops);
        self.desk.submit(cx, ops, super::OnCommit::Nothing);
    }

    /// The primary needs this copy no more.
    pub(crate) fn on_remove(&mut self, cx: &mut Step<'_>) {
        if matches!(self.role, Role::Stray) {
            let from = self.state();
            self.desk.submit(cx, vec![nacre_proto::txn::TxnOp::RemoveCollection], super::OnCommit::Nothing);
            self.gone = true;
            self.drop_slots(cx);
            self.moved(cx, from, "remove");
            cx.out.push(Output::Gone);
        }
    }
}

#[cfg(test)]
#[path = "interval_test.rs"]
mod tests;
