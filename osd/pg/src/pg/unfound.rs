//! Objects of whose needed version no copy is found, and the operator's decision about them: revert or forget.
//!
//! Nothing is decided here by itself: an unfound object waits, named, until a holder comes back or the operator orders.
//! *Revert* takes the older version this osd holds for the present one, under a new version, and gives it to all; where
//! it holds none, and for *forget*, the object is removed with its clones, which nothing would name any more. Either is
//! one more entry of the log, so it is decided once and for all replicas, whoever comes back later.
//!
//! How many objects and bytes were lost with it is not known: they are counted anew.

use nacre_proto::ids::{ObjectId, SnapId};
use nacre_proto::txn::TxnOp;

use super::operate::{info_of, set_info};
use super::replicate::Ordered;
use super::{OnRead, OpIds, PlacementGroup, Primary, Role};
use crate::io::{ReadFault, ReadItem, ReadValue, Step};
use crate::log::{Change, Delta, LogEntry, MissingItem};
use crate::object::head_of;

impl PlacementGroup {
    /// The objects of which no copy of the needed version is known, at the primary.
    pub fn unfound(&self) -> Vec<ObjectId> {
        match &self.role {
            Role::Primary(p) => p.recover.unfound.iter().filter(|o| self.missing.contains_key(*o)).cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// The operator decides about all that is unfound now.
    pub(crate) fn decide_unfound(&mut self, cx: &mut Step<'_>, revert: bool) {
        let Role::Primary(p) = &self.role else { return };
        if !p.is_active() {
            return;
        }
        for oid in self.unfound() {
            let free = self.contexts.entry(head_of(&oid)).or_default().lock();
            if !free {
                continue;
            }
            let has = self.missing.get(&oid).is_some_and(|m| m.have.is_some());
            if revert && has {
                self.desk.read(cx, Some(oid.clone()), vec![ReadItem::Xattrs], OnRead::Revert { oid });
            } else {
                let first = ObjectId { snap: SnapId(0), ..oid.clone() };
                let items = vec![ReadItem::List { after: Some(first), max: 10_000 }];
                self.desk.read(cx, None, items, OnRead::Forget { oid });
            }
        }
    }

    /// What this osd still holds of an object that is to be reverted.
    pub(crate) fn revert(&mut self, cx: &mut Step<'_>, oid: ObjectId, result: Result<Vec<ReadValue>, ReadFault>) {
        let info = match result.as_deref() {
            Ok([ReadValue::Pairs(pairs, _)]) => info_of(pairs).ok().flatten(),
            _ => None,
        };
        let held = self.missing.get(&oid).and_then(|m| m.have);
        let Some(mut info) = info.filter(|i| Some(i.version) == held) else {
            // Not even that can be read: it is as lost as the rest.
            let mut ops = Vec::new();
            if let Some(item) = self.missing.get(&oid).copied() {
                self.set_missing(oid.clone(), Some(MissingItem { have: None, ..item }), &mut ops);
            }
            self.desk.submit(cx, ops, super::OnCommit::Nothing);
            self.let_go(cx, &oid);
            return;
        };
        let entry = self.decision(&oid, 0, Change::Modify);
        info.version = entry.version;
        let local = vec![set_info(&oid, &info)];
        self.order_decision(cx, &oid, vec![entry], Vec::new(), local);
    }

    /// What there is of an object that is to be forgotten, in the order of the collection: its clones, then its head.
    pub(crate) fn forget(&mut self, cx: &mut Step<'_>, oid: ObjectId, result: Result<Vec<ReadValue>, ReadFault>) {
        let Ok([ReadValue::List(list, _)]) = result.as_deref() else {
            self.let_go(cx, &oid);
            return;
        };
        let mut all = vec![oid.clone()];
        if oid.snap == SnapId::HEAD {
            let of_it = |o: &&ObjectId| o.snap != SnapId::HEAD && head_of(o) == oid;
            all = list.iter().map(|(o, _)| o).filter(of_it).cloned().collect();
            all.extend(self.missing.keys().filter(of_it).filter(|o| !list.iter().any(|(l, _)| l == *o)).cloned());
            all.push(oid.clone());
        }
        let entries = (0..).zip(&all).map(|(i, o)| self.decision(o, i, Change::Delete)).collect();
        let ops = all.into_iter().map(|oid| TxnOp::Remove { oid }).collect();
        self.order_decision(cx, &oid, entries, ops, Vec::new());
    }

    fn decision(&self, oid: &ObjectId, ahead: u64, change: Change) -> LogEntry {
        LogEntry {
            version: self.next_version(ahead),
            oid: oid.clone(),
            prior: self.missing.get(oid).map(|m| m.need),
            change,
            reqid: None,
            acked_below: 0,
            outcome: None,
            replied: None,
            delta: Delta::default(),
        }
    }

    fn order_decision(
        &mut self,
        cx: &mut Step<'_>,
        oid: &ObjectId,
        entries: Vec<LogEntry>,
        ops: Vec<TxnOp>,
        local: Vec<TxnOp>,
    ) {
        let head = head_of(oid);
        if let Role::Primary(p) = &mut self.role {
            for e in &entries {
                p.recover.unfound.remove(&e.oid);
            }
        }
        let version = entries.last().map(|e| e.version).unwrap_or_default();
        if let Some(ctx) = self.contexts.get_mut(&head) {
            ctx.decided();
        }
        let ids = OpIds::default();
        let w = Ordered { oid: head, entries, ops, local: Some(local), reqid: None, ids, reply_version: version };
        self.spread(cx, w);
        self.object_ready(cx, oid);
    }

    fn let_go(&mut self, cx: &mut Step<'_>, oid: &ObjectId) {
        if let Some(ctx) = self.contexts.get_mut(&head_of(oid)) {
            ctx.unlock();
        }
        self.object_ready(cx, oid);
    }

    /// Primary: what is held after a decision is the object.
    pub(crate) fn settle_here(&mut self, e: &LogEntry, ops: &mut Vec<TxnOp>) {
        if e.change != Change::Error && self.missing.contains_key(&e.oid) {
            self.set_missing(e.oid.clone(), None, ops);
            self.info.recount = true;
        }
    }

    /// Member: an entry about an object that is missing here can only be a decision, since other writes wait until nobody
    /// lacks it. A change that comes without its data (`bare`) is a revert: the object follows whole.
    pub(crate) fn settle_member(&mut self, e: &LogEntry, bare: bool, ops: &mut Vec<TxnOp>) {
        let missing = self.missing.get(&e.oid).copied();
        match e.change {
            Change::Delete if missing.is_some() => self.set_missing(e.oid.clone(), None, ops),
            Change::Modify if bare && self.info.backfilled.covers(&head_of(&e.oid)) => {
                let have = missing.map_or(e.prior, |m| m.have);
                self.set_missing(e.oid.clone(), Some(MissingItem { need: e.version, have }), ops);
            }
            _ => return,
        }
        self.info.recount = true;
    }
}

impl Primary {
    /// What members lack after an entry, as each of them will find by itself.
    pub(crate) fn settle_peers(&mut self, e: &LogEntry, bare: bool) {
        if e.change == Change::Error || !(bare || e.change == Change::Delete) {
            return;
        }
        for q in self.peers.values_mut() {
            let covered = q.info.backfilled.covers(&head_of(&e.oid));
            let Some(missing) = &mut q.missing else { continue };
            if e.change == Change::Delete {
                missing.remove(&e.oid);
            } else if covered {
                missing.insert(e.oid.clone(), MissingItem { need: e.version, have: None });
            }
        }
    }
}

#[cfg(test)]
#[path = "unfound_test.rs"]
mod tests;
