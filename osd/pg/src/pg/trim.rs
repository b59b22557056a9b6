//! Takes removed snapshots out of the objects, in the background, once the pg is clean.
//!
//! One listing of the whole pg serves all snapshots that were removed when it began; no index by snapshot is kept. Each
//! clone that stands for one of them becomes one logged change, ordered like a client's write and replicated like one:
//! the clone stands for fewer snapshots, or is removed with its line in the head's list. So work that is done stays
//! done; after a new interval the listing begins again and finds less. When the end is reached and every change is safe,
//! the snapshots are recorded as purged.
//!
//! Writes of clients leave out removed snapshots (`operate.rs`), so what the listing has passed gets no new clone.

use std::collections::{BTreeSet, VecDeque};

use nacre_proto::ids::{ObjectId, SnapId, Version};
use nacre_proto::txn::TxnOp;

use super::operate::{info_of, set_info};
use super::replicate::Ordered;
use super::{Fault, OnCommit, OnRead, OpIds, PlacementGroup, Role};
use crate::format::{Kind, open};
use crate::io::{Output, ReadFault, ReadItem, ReadValue, Request, Step};
use crate::log::{Change, Delta, LogEntry};
use crate::object::{ObjectInfo, head_of, is_temp};

/// One pass on its way.
#[derive(Debug, Default)]
pub(crate) struct Trim {
    /// What this pass takes out.
    todo: BTreeSet<SnapId>,
    /// The last object listed.
    after: Option<ObjectId>,
    /// The listing has reached the end.
    listed: bool,
    /// Something is being read.
    asked: bool,
    /// Clones to look at.
    found: VecDeque<ObjectId>,
    /// The last change ordered.
    last: Version,
    /// Something could not be read: the pass does not count, and the next interval tries again.
    failed: bool,
}

impl Trim {
    /// Cannot be completed now.
    pub(crate) fn is_stuck(&self) -> bool {
        self.failed
    }
}

impl PlacementGroup {
    /// Snapshots that were removed and may still have clones here.
    pub(crate) fn untrimmed(&self) -> BTreeSet<SnapId> {
        self.view.pool.removed_snaps.difference(&self.info.purged).copied().collect()
    }

    /// Nothing of a removed snapshot is left, as far as the map of this pg tells.
    pub fn is_trimmed(&self) -> bool {
        self.view.pool.removed_snaps.is_subset(&self.info.purged)
    }

    /// Moves trimming on. Called while the pg is clean.
    pub(crate) fn trim_settle(&mut self, cx: &mut Step<'_>) {
        if self.view.pool.removed_snaps.is_empty() {
            return;
        }
        let trimmed = self.is_trimmed();
        let todo = || self.untrimmed();
        let Role::Primary(p) = &self.role else { return };
        if p.trim.is_none() {
            if trimmed || !p.is_active() {
                return;
            }
            let trim = Trim { todo: todo(), ..Trim::default() };
            if let Role::Primary(p) = &mut self.role {
                p.trim = Some(trim);
            }
        }
        while self.trim_one(cx) {}
    }

    /// One step of the pass; false if it has to wait.
    fn trim_one(&mut self, cx: &mut Step<'_>) -> bool {
        let window = self.cfg.window.max(2);
        let Role::Primary(p) = &mut self.role else { return false };
        let committed = p.committed;
        let Some(t) = &mut p.trim else { return false };
        // One change at a time: clients go first.
        if self.cfg.is(Fault::PurgeEarly) {
            self.trim_done(cx);
            return false;
        }
        if t.asked || t.failed || committed < t.last {
            return false;
        }
        let Some(clone) = t.found.front().cloned() else {
            if t.listed {
                self.trim_done(cx);
                return false;
            }
            t.asked = true;
            let items = vec![ReadItem::List { after: t.after.clone(), max: window }];
            self.desk.read(cx, None, items, OnRead::TrimList);
            return false;
        };
        let head = head_of(&clone);
        if self.is_held_back(&head, true) || self.is_held_back(&clone, true) {
            return false;
        }
        let ctx = self.contexts.entry(head.clone()).or_default();
        if !ctx.lock() {
            return false;
        }
        let Role::Primary(p) = &mut self.role else { return false };
        let Some(t) = &mut p.trim else { return false };
        t.asked = true;
        let (oid, then) = if ctx.record().is_none() {
            (head, OnRead::TrimHead { clone })
        } else {
            (clone.clone(), OnRead::Trim { clone })
        };
        self.desk.read(cx, Some(oid), vec![ReadItem::Xattrs], then);
        false
    }

    pub(crate) fn trim_listed(&mut self, _cx: &mut Step<'_>, result: Result<Vec<ReadValue>, ReadFault>) {
        let Role::Primary(p) = &mut self.role else { return };
        let Some(t) = &mut p.trim else { return };
        t.asked = false;
        let Ok([ReadValue::List(list, more)]) = result.as_deref() else {
            t.failed = true;
            return;
        };
        t.listed = !*more;
        for (oid, raw) in list {
            t.after = Some(oid.clone());
            if oid.snap == SnapId::HEAD || is_temp(oid) {
                continue;
            }
            // A record that cannot be read is looked at again with its object, and fails there.
            let info = open::<ObjectInfo>(Kind::Object, raw).ok();
            if info.is_none_or(|i| i.clone_of.iter().any(|s| t.todo.contains(s))) {
                t.found.push_back(oid.clone());
            }
        }
    }

    /// The head's record has come: now the clone's.
    pub(crate) fn trim_head(&mut self, cx: &mut Step<'_>, clone: ObjectId, result: Result<Vec<ReadValue>, ReadFault>) {
        let head = head_of(&clone);
        let info = match result.as_deref() {
            Ok([ReadValue::Pairs(pairs, _)]) => info_of(pairs),
            _ => Err(ReadFault),
        };
        let Some(ctx) = self.contexts.get_mut(&head) else { return };
        match info {
            Ok(info) => {
                ctx.learn(info);
                self.found_watchers(cx, &head);
                self.desk.read(cx, Some(clone.clone()), vec![ReadItem::Xattrs], OnRead::Trim { clone });
            }
            Err(ReadFault) => self.trim_failed(cx, &head),
        }
    }

    fn trim_failed(&mut self, cx: &mut Step<'_>, head: &ObjectId) {
        if let Role::Primary(p) = &mut self.role
            && let Some(t) = &mut p.trim
        {
            t.asked = false;
            t.failed = true;
        }
        self.unlock(cx, head);
    }

    fn unlock(&mut self, cx: &mut Step<'_>, head: &ObjectId) {
        if let Some(ctx) = self.contexts.get_mut(head) {
            ctx.unlock();
        }
        self.pump(cx, head);
    }

    /// Both records are known, and the object is ours: order the change.
    pub(crate) fn trim_read(&mut self, cx: &mut Step<'_>, clone: ObjectId, result: Result<Vec<ReadValue>, ReadFault>) {
        let head = head_of(&clone);
        let record = match result.as_deref() {
            Ok([ReadValue::Pairs(pairs, _)]) => info_of(pairs),
            _ => Err(ReadFault),
        };
        let info = self.contexts.get(&head).and_then(|c| c.record().cloned());
        let Ok(record) = record else { return self.trim_failed(cx, &head) };
        let Role::Primary(p) = &mut self.role else { return };
        let Some(t) = &mut p.trim else { return };
        t.asked = false;
        t.found.pop_front();
        let todo = t.todo.clone();
        // Forgotten or lacking: it turned out damaged meanwhile. Once it is whole again, the pass begins anew.
        let held = info.is_none() || self.is_held_back(&head, true) || self.is_held_back(&clone, true);
        let change = record.zip(info.flatten()).and_then(|(record, info)| self.without(&todo, &clone, record, info));
        let Some(change) = change.filter(|_| !held) else {
            if held && let Role::Primary(p) = &mut self.role {
                p.trim = None;
            }
            self.unlock(cx, &head);
            return;
        };
        let version = change.entries.last().map(|e| e.version).unwrap_or_default();
        if let Role::Primary(p) = &mut self.role
            && let Some(t) = &mut p.trim
        {
            t.last = version;
        }
        if let Some(ctx) = self.contexts.get_mut(&head) {
            ctx.unlock();
            ctx.ordered(change.after.clone());
        }
        let Trimmed { entries, ops, .. } = change;
        let w = Ordered {
            oid: head.clone(),
            entries,
            ops,
            local: None,
            reqid: None,
            ids: OpIds::default(),
            reply_version: version,
        };
        self.spread(cx, w);
        self.pump(cx, &head);
    }

    /// The object with the snapshots `todo` taken out of one of its clones; none if it stands for none of them.
    fn without(
        &self,
        todo: &BTreeSet<SnapId>,
        clone: &ObjectId,
        mut record: ObjectInfo,
        mut info: ObjectInfo,
    ) -> Option<Trimmed> {
        let at = info.snaps.clones.iter().position(|c| c.id == clone.snap)?;
        let line = info.snaps.clones.get_mut(at)?;
        if !line.snaps.iter().any(|s| todo.contains(s)) {
            return None;
        }
        line.snaps.retain(|s| !todo.contains(s));
        let gone = line.snaps.is_empty() || self.cfg.is(Fault::TrimTooMuch);
        let (head, prior_head, prior) = (head_of(clone), info.version, record.version);
        let version = self.next_version(0);
        let mut entry = LogEntry {
            version,
            oid: clone.clone(),
            prior: Some(prior),
            change: Change::Modify,
            reqid: None,
            acked_below: 0,
            outcome: None,
            replied: None,
            delta: Delta::default(),
        };
        let mut ops = Vec::new();
        if gone {
            entry.change = Change::Delete;
            entry.delta = Delta { objects: 0, clones: -1, bytes: -(record.size as i64) };
            ops.push(TxnOp::Remove { oid: clone.clone() });
            info.snaps.drop_clone(at);
        } else {
            record.clone_of.clone_from(&line.snaps);
            record.version = version;
            ops.push(set_info(clone, &record));
        }
        let version = self.next_version(1);
        info.version = version;
        // A whiteout is kept for its clones alone.
        let after = (!info.whiteout || !info.snaps.clones.is_empty()).then_some(info);
        ops.push(match &after {
            Some(i) => set_info(&head, i),
            None => TxnOp::Remove { oid: head.clone() },
        });
        let change = if after.is_some() { Change::Modify } else { Change::Delete };
        let delta = Delta::default();
        let of_head = LogEntry { version, oid: head, prior: Some(prior_head), change, delta, ..entry.clone() };
        Some(Trimmed { entries: vec![entry, of_head], ops, after })
    }

    /// The end of the listing, and all is safe.
    fn trim_done(&mut self, cx: &mut Step<'_>) {
        let Role::Primary(p) = &mut self.role else { return };
        let Some(t) = p.trim.take() else { return };
        let removed = &self.view.pool.removed_snaps;
        // What the map has forgotten need not be remembered here either.
        self.info.purged = self.info.purged.union(&t.todo).copied().filter(|s| removed.contains(s)).collect();
        let ops = vec![self.keep_info()];
        self.desk.submit(cx, ops, OnCommit::Nothing);
        cx.out.push(Output::Ask(Request::Purged(t.todo.into_iter().collect())));
        cx.out.push(Output::Report(Box::new(self.report())));
    }
}

/// A change to an object and what it leaves of the head.
struct Trimmed {
    entries: Vec<LogEntry>,
    ops: Vec<TxnOp>,
    after: Option<ObjectInfo>,
}
