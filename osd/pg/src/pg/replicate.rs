//! The replicated strategy: the primary orders a write, sends it to every member, and answers when it is durable on all.
//!
//! This is the seam for other strategies: `operate` hands over a finished change of one object (`ordered`), and gets
//! back `finish_write`; how the change is spread over members and when it counts as safe is decided only here. An
//! erasure-coded pool will differ in this file and in what `recover` reads.
//!
//! Acknowledgements are cumulative ("durable up to"), so saying one twice is harmless and a lost connection is healed by
//! sending again what is not acknowledged.

use std::sync::Arc;

use nacre_proto::ids::{ObjectId, OsdId, Version};
use nacre_proto::txn::TxnOp;

use super::{Fault, OnCommit, OpIds, PlacementGroup, Primary, Role, drifted};
use crate::io::{Duration, Output, Step, Time};
use crate::log::{LogEntry, Outcome, ReqId, is_rising};
use crate::msg::{Body, Cursor, Rep};
use crate::object::head_of;
use crate::op::Reply;

/// A write on its way to being safe.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) version: Version,
    pub(crate) oid: ObjectId,
    pub(crate) reqid: Option<ReqId>,
    pub(crate) ids: OpIds,
    pub(crate) reply_version: Version,
    /// What was sent, to send it again.
    rep: Arc<Rep>,
}

impl Write {
    /// What the request that led to it is answered.
    fn outcome(&self) -> Outcome {
        self.rep.entries.last().and_then(|e| e.outcome.clone()).unwrap_or(Ok(Vec::new()))
    }
}

/// A change of one object, ready to be replicated.
pub(crate) struct Ordered {
    pub(crate) oid: ObjectId,
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) ops: Vec<TxnOp>,
    /// Besides `ops`, here alone: what the members are then given whole. Set, if empty: the object was unfound, and this
    /// is the operator's decision about it.
    pub(crate) local: Option<Vec<TxnOp>>,
    pub(crate) reqid: Option<ReqId>,
    pub(crate) ids: OpIds,
    pub(crate) reply_version: Version,
}

impl Primary {
    /// A write as it goes to one member. One that is being filled gets the log of what lies beyond its cursor, and the
    /// data later.
    fn rep_for(&self, to: OsdId, oid: &ObjectId, rep: &Arc<Rep>) -> Arc<Rep> {
        let filled = |c: &Cursor| c.is_max() || c.covers(&head_of(oid));
        if self.peers.get(&to).is_none_or(|q| filled(&q.info.backfilled)) {
            return Arc::clone(rep);
        }
        Arc::new(Rep { ops: Vec::new(), entries: rep.entries.clone(), ..**rep })
    }
}

impl PlacementGroup {
    /// The version the next entry gets, `ahead` entries from now.
    pub(crate) fn next_version(&self, ahead: u64) -> Version {
        Version { epoch: self.info.interval, counter: self.info.last_update.counter + 1 + ahead }
    }

    /// Primary: log, apply and spread a change.
    pub(crate) fn spread(&mut self, cx: &mut Step<'_>, w: Ordered) {
        let Some(version) = w.entries.last().map(|e| e.version) else { return };
        let prev = self.info.last_update;
        let mut local = Vec::with_capacity(w.ops.len() + w.entries.len());
        local.extend(w.ops.iter().cloned());
        let decided = w.local.is_some();
        local.extend(w.local.unwrap_or_default());
        let entries: Vec<Arc<LogEntry>> = w.entries.into_iter().map(Arc::new).collect();
        for e in &entries {
            if decided {
                self.settle_here(e, &mut local);
            }
            local.push(self.append_entry(e));
            self.info.stats.add(&e.delta);
            self.log.push(Arc::clone(e));
        }
        self.info.last_update = version;
        let trim_to = self.trim_point();
        self.trim_log(trim_to, &mut local);
        let rep = Arc::new(Rep { prev, entries, ops: w.ops, trim_to });
        let Role::Primary(p) = &mut self.role else { return };
        for e in &rep.entries {
            p.settle_peers(e, rep.ops.is_empty());
        }
        if let Some(s) = &mut p.scrub {
            rep.entries.iter().for_each(|e| s.changed(&e.oid));
        }
        if let Some(r) = &mut p.recount {
            rep.entries.iter().for_each(|e| r.note(e));
        }
        for &to in &p.members {
            let rep = p.rep_for(to, &w.oid, &rep);
            self.desk.send(cx, to, Body::Rep(rep));
        }
        let Ordered { oid, reqid, ids, reply_version, .. } = w;
        let txn = self.desk.submit(cx, local, OnCommit::Write(version));
        cx.out.extend(ids.iter().map(|op| Output::Ordered { op, txn }));
        p.inflight.push_back(Write { version, oid, reqid, ids, reply_version, rep });
    }

    /// Up to where the log may be cut: what is safe on all, and beyond what is to be kept.
    pub(crate) fn trim_point(&self) -> Version {
        let Role::Primary(p) = &self.role else { return self.log.tail() };
        let over = self.log.len().saturating_sub(self.cfg.log_keep);
        if over <= self.cfg.log_slack {
            return self.log.tail();
        }
        self.log
            .iter()
            .take(over)
            .map(|e| e.version)
            .take_while(|v| *v <= p.committed)
            .last()
            .unwrap_or(self.log.tail())
    }

    /// Member: a write in the primary's order.
    pub(crate) fn on_rep(&mut self, cx: &mut Step<'_>, from: OsdId, rep: Arc<Rep>) {
        if !matches!(self.role, Role::Replica) {
            return;
        }
        let Some(version) = rep.entries.last().map(|e| e.version) else { return };
        if version <= self.info.last_update {
            // Sent again after a lost connection: it is here; acknowledge once all before it is durable.
            self.desk.submit(cx, Vec::new(), OnCommit::Ack { to: from, version });
            return;
        }
        if rep.prev != self.info.last_update && !self.cfg.takes_stale() {
            // One before it was lost with a connection and will be sent again, and this one after it.
            return;
        }
        let Rep { entries, mut ops, trim_to, .. } = Arc::unwrap_or_clone(rep);
        if !is_rising(self.info.last_update, &entries) {
            // No primary says that.
            return;
        }
        let bare = ops.is_empty();
        for e in entries {
            self.settle_member(&e, bare, &mut ops);
            ops.push(self.append_entry(&e));
            self.info.stats.add(&e.delta);
            self.log.push(e);
        }
        self.info.last_update = version;
        self.trim_log(trim_to, &mut ops);
        self.desk.submit(cx, ops, OnCommit::Ack { to: from, version });
        if self.cfg.is(Fault::AckBeforeDurable) {
            self.desk.send(cx, from, Body::RepAck { durable: version });
        }
    }

    /// Primary: a member (or this osd) has everything up to here on stable storage.
    pub(crate) fn on_rep_ack(&mut self, cx: &mut Step<'_>, from: OsdId, durable: Version) {
        let me = self.me;
        let early = self.cfg.is(Fault::AckBeforeReplicas);
        let Role::Primary(p) = &mut self.role else { return };
        if !p.is_started() {
            return;
        }
        let d = p.durable.entry(from).or_default();
        *d = (*d).max(durable);
        let least = |who: &mut dyn Iterator<Item = OsdId>| {
            who.filter_map(|o| p.durable.get(&o)).min().copied().unwrap_or_default()
        };
        let safe = if early {
            least(&mut std::iter::once(me))
        } else {
            least(&mut p.members.iter().copied().chain(std::iter::once(me)))
        };
        while let Role::Primary(p) = &mut self.role
            && let Some(w) = p.inflight.pop_front_if(|w| w.version <= safe)
        {
            p.committed = p.committed.max(w.version);
            for op in w.ids.iter() {
                cx.out
                    .push(Output::Reply { op, reply: Reply::Done { outcome: w.outcome(), version: w.reply_version } });
            }
            self.write_done(cx, &w.oid);
        }
    }

    /// Sends again what a member has not acknowledged.
    pub(crate) fn resend_writes(&mut self, cx: &mut Step<'_>, to: OsdId) {
        let Role::Primary(p) = &mut self.role else { return };
        if !p.members.contains(&to) {
            return;
        }
        let has = p.durable.get(&to).copied().unwrap_or_default();
        for w in p.inflight.iter().filter(|w| w.version > has) {
            self.desk.send(cx, to, Body::Rep(p.rep_for(to, &w.oid, &w.rep)));
        }
        if !self.lease_waits.is_empty() {
            p.lease_asked = None;
            self.ask_lease(cx);
        }
    }

    /// Until when this primary may answer reads, by the promises of its acting replicas.
    fn readable_until(&self) -> Time {
        let Role::Primary(p) = &self.role else { return Time(0) };
        let others = self.view.acting.iter().filter(|o| **o != self.me);
        others.map(|o| p.leases.get(o).copied().unwrap_or_default()).min().unwrap_or(Time(u64::MAX))
    }

    /// May a read be answered now. Renews the lease before it ends; with no reads, nothing is sent.
    pub(crate) fn lease_holds(&mut self, cx: &mut Step<'_>) -> bool {
        if self.cfg.is(Fault::IgnoreLease) {
            return true;
        }
        let until = self.readable_until();
        if until.since(cx.now) < Duration(self.cfg.lease.0 / 2) {
            self.ask_lease(cx);
        }
        cx.now < until
    }

    fn ask_lease(&mut self, cx: &mut Step<'_>) {
        let last = self.cfg.lease;
        let Role::Primary(p) = &mut self.role else { return };
        if p.lease_asked.is_some_and(|at| cx.now.since(at) < Duration(last.0 / 2)) {
            return;
        }
        p.lease_asked = Some(cx.now);
        for &to in self.view.acting.iter().filter(|o| **o != self.me) {
            self.desk.send(cx, to, Body::Lease { sent: cx.now, last });
        }
    }

    /// Member: promise to tell a successor.
    pub(crate) fn on_lease(&mut self, cx: &mut Step<'_>, from: OsdId, sent: Time, last: Duration) {
        if !matches!(self.role, Role::Replica) {
            return;
        }
        self.promise.until = self.promise.until.max(cx.now + drifted(last, &self.cfg, true));
        self.promise.holder = Some((from, self.info.interval));
        self.desk.send(cx, from, Body::LeaseAck { sent });
    }

    /// Primary: a promise.
    pub(crate) fn on_lease_ack(&mut self, cx: &mut Step<'_>, from: OsdId, sent: Time) {
        let until = sent + drifted(self.cfg.lease, &self.cfg, false);
        let Role::Primary(p) = &mut self.role else { return };
        let lease = p.leases.entry(from).or_default();
        *lease = (*lease).max(until);
        if cx.now >= self.readable_until() {
            // The answer came too late to be of use, or others are still owed.
            let Role::Primary(p) = &self.role else { return };
            let all_answered = p.lease_asked == Some(sent)
                && self
                    .view
                    .acting
                    .iter()
                    .filter(|o| **o != self.me)
                    .all(|o| p.leases.get(o).is_some_and(|t| *t >= until));
            if all_answered && !self.lease_waits.is_empty() {
                if let Role::Primary(p) = &mut self.role {
                    p.lease_asked = None;
                }
                self.ask_lease(cx);
            }
            return;
        }
        for oid in std::mem::take(&mut self.lease_waits) {
            self.pump(cx, &oid);
        }
    }
}
