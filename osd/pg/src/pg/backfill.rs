//! Fills a member whose log cannot be joined: windows of the hash range are compared and made equal, one after another.
//!
//! A window is the objects after the member's cursor, a bounded number of them and of their bytes. Its writes are held back from when it is fixed
//! until the member's cursor has durably passed it; writes before the cursor go to the member as to any other, writes
//! beyond it go there as log only. So an object is at every moment either equal there, or still to come.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, OsdId, Version};
use nacre_proto::txn::TxnOp;

use super::operate::info_of;
use super::scrub::window_end;
use super::{OnCommit, OnRead, PlacementGroup, Role};
use crate::io::{ReadFault, ReadItem, ReadValue, Step};
use crate::msg::{Body, CopyCursor, Cursor};
use crate::object::{INFO_XATTR, head_of, is_temp};

/// One window on its way.
#[derive(Debug)]
pub(crate) struct Backfill {
    target: OsdId,
    begin: Cursor,
    /// None until the window is fixed.
    end: Option<Cursor>,
    phase: Phase,
    own: Option<Vec<(ObjectId, Version)>>,
    theirs: Option<Vec<(ObjectId, Version)>>,
    todo: VecDeque<(ObjectId, Version)>,
    pushing: BTreeMap<ObjectId, (Version, CopyCursor, Option<CopyCursor>)>,
    remove: Vec<ObjectId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Finding where the window ends.
    Fixing,
    /// Waiting for writes inside it to be safe.
    Draining,
    /// Listing both sides.
    Comparing,
    /// Sending what differs.
    Pushing,
    /// Waiting for the cursor to be durable.
    Passing,
}

/// A listing of a range with versions.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    /// For another, or for ourselves.
    to: Option<OsdId>,
    from: Cursor,
    until: Cursor,
    found: Vec<(ObjectId, Version)>,
}

impl Backfill {
    fn new(target: OsdId, begin: Cursor) -> Backfill {
        Backfill {
            target,
            begin,
            end: None,
            phase: Phase::Fixing,
            own: None,
            theirs: None,
            todo: VecDeque::new(),
            pushing: BTreeMap::new(),
            remove: Vec::new(),
        }
    }

    /// Is this object inside the window.
    pub(crate) fn holds(&self, oid: &ObjectId) -> bool {
        let oid = head_of(oid);
        self.end.as_ref().is_some_and(|end| end.covers(&oid)) && !self.begin.covers(&oid)
    }

    /// Is an older clone of the object still to come to this member.
    pub(crate) fn owes_older(&self, oid: &ObjectId, to: OsdId) -> bool {
        let is_older = |o: &ObjectId| o < oid && head_of(o) == head_of(oid);
        to == self.target && self.todo.iter().map(|(o, _)| o).chain(self.pushing.keys()).any(is_older)
    }

    /// Is it this piece that is to be sent next.
    pub(crate) fn is_due(&self, oid: &ObjectId, to: OsdId, version: Version, at: &CopyCursor) -> bool {
        self.target == to && self.pushing.get(oid).is_some_and(|(v, sent, _)| *v == version && sent == at)
    }

    /// Fixes where the window ends: it is that of the objects listed, up to so many bytes. Writes to all of them wait until
    /// the last of them is at the member.
    fn fix(&mut self, list: &[(ObjectId, Bytes)], more: bool, most: u64) {
        self.end = Some(window_end(list, more, most));
        self.phase = Phase::Draining;
    }

    /// The next to send, unless it is to wait for an older clone that is on its way.
    fn next(&mut self) -> Option<(ObjectId, Version)> {
        let head = head_of(&self.todo.front()?.0);
        if self.pushing.keys().any(|o| head_of(o) == head) {
            return None;
        }
        self.todo.pop_front()
    }
}

fn after(cursor: &Cursor) -> Option<ObjectId> {
    if let Cursor::At(oid) = cursor { Some(oid.clone()) } else { None }
}

impl PlacementGroup {
    /// Moves the backfill on.
    pub(crate) fn backfill_settle(&mut self, cx: &mut Step<'_>) {
        let window = self.cfg.window;
        let local = self.has_local_slot();
        let Role::Primary(p) = &mut self.role else { return };
        if p.backfill.is_none() && !local {
            return;
        }
        let Some(b) = &mut p.backfill else {
            let next = p.members.iter().find_map(|m| {
                let q = p.peers.get(m)?;
                (!q.info.backfilled.is_max() && p.may_fill(*m)).then(|| (*m, q.info.backfilled.clone()))
            });
            let Some((target, begin)) = next else { return };
            let items = vec![ReadItem::List { after: after(&begin), max: window }];
            p.backfill = Some(Backfill::new(target, begin));
            self.desk.read(cx, None, items, OnRead::Window);
            return;
        };
        match b.phase {
            Phase::Draining => {
                if self.contexts.iter().any(|(o, c)| b.holds(o) && c.is_writing()) {
                    return;
                }
                b.phase = Phase::Comparing;
                let (from, until) = (b.begin.clone(), b.end.clone().unwrap_or_default());
                self.desk.send(cx, b.target, Body::Scan { from: from.clone(), to: until.clone() });
                self.list(cx, Listing { to: None, from, until, found: Vec::new() });
            }
            Phase::Comparing => {
                let (Some(own), Some(theirs)) = (&b.own, &b.theirs) else { return };
                let theirs: BTreeMap<_, _> = theirs.iter().cloned().collect();
                let mine: BTreeMap<_, _> = own.iter().cloned().collect();
                b.todo = own.iter().filter(|(o, v)| theirs.get(o) != Some(v)).cloned().collect();
                b.remove = theirs.into_keys().filter(|o| !mine.contains_key(o)).collect();
                b.phase = Phase::Pushing;
                self.backfill_settle(cx);
            }
            Phase::Pushing => {
                let mut start = Vec::new();
                while b.pushing.len() < self.cfg.recover_active {
                    let Some((oid, version)) = b.next() else { break };
                    b.pushing.insert(oid.clone(), (version, CopyCursor::default(), None));
                    start.push((oid, version));
                }
                let target = b.target;
                if b.pushing.is_empty() {
                    b.phase = Phase::Passing;
                    let (to, remove) = (b.end.clone().unwrap_or_default(), b.remove.clone());
                    self.desk.send(cx, target, Body::Progress { to, remove });
                }
                for (oid, version) in start {
                    self.read_piece(cx, oid, target, version, CopyCursor::default());
                }
            }
            Phase::Fixing | Phase::Passing => {}
        }
    }

    pub(crate) fn window_listed(&mut self, result: Result<Vec<ReadValue>, ReadFault>) {
        let Role::Primary(p) = &mut self.role else { return };
        let Some(b) = &mut p.backfill else { return };
        let Ok([ReadValue::List(list, more)]) = result.as_deref() else {
            // The index of the store cannot be read: nothing can be done with this copy. Try again at the next step.
            p.backfill = None;
            return;
        };
        b.fix(list, *more, self.cfg.backfill_bytes);
    }

    fn list(&mut self, cx: &mut Step<'_>, l: Listing) {
        let at = l.found.last().map(|(o, _)| o.clone()).or_else(|| after(&l.from));
        let items = vec![ReadItem::List { after: at, max: self.cfg.window.max(8) * 2 }];
        self.desk.read(cx, None, items, OnRead::List(Box::new(l)));
    }

    pub(crate) fn listed(&mut self, cx: &mut Step<'_>, mut l: Box<Listing>, result: Result<Vec<ReadValue>, ReadFault>) {
        let Ok([ReadValue::List(list, more)]) = result.as_deref() else { return };
        let mut past = !*more;
        for (oid, raw) in list {
            if !l.until.covers(&head_of(oid)) {
                past = true;
                break;
            }
            let version = info_of(&[(Bytes::from_static(INFO_XATTR), raw.clone())]);
            let version = version.ok().flatten().map_or(Version::default(), |i| i.version);
            l.found.push((oid.clone(), version));
        }
        if !past {
            self.list(cx, *l);
            return;
        }
        l.found.retain(|(o, _)| !is_temp(o));
        if let Some(to) = l.to {
            self.desk.send(cx, to, Body::Scanned { from: l.from, list: l.found });
        } else if let Role::Primary(p) = &mut self.role
            && let Some(b) = &mut p.backfill
            && b.begin == l.from
        {
            b.own = Some(l.found);
        }
    }

    /// Target: what do we hold there.
    pub(crate) fn on_scan(&mut self, cx: &mut Step<'_>, from: OsdId, begin: Cursor, until: Cursor) {
        self.list(cx, Listing { to: Some(from), from: begin, until, found: Vec::new() });
    }

    pub(crate) fn on_scanned(
        &mut self,
        _cx: &mut Step<'_>,
        from: OsdId,
        begin: Cursor,
        list: Vec<(ObjectId, Version)>,
    ) {
        let Role::Primary(p) = &mut self.role else { return };
        if let Some(b) = &mut p.backfill
            && b.target == from
            && b.begin == begin
            && b.phase == Phase::Comparing
        {
            b.theirs = Some(list);
        }
    }

    /// A piece of the window is durable at the target. False if it was not of the backfill.
    pub(crate) fn backfill_pushed(
        &mut self,
        cx: &mut Step<'_>,
        from: OsdId,
        oid: &ObjectId,
        version: Version,
        at: &CopyCursor,
    ) -> bool {
        let Role::Primary(p) = &mut self.role else { return false };
        let Some(b) = p.backfill.as_mut().filter(|b| b.target == from) else { return false };
        let Some((v, sent, next)) = b.pushing.get_mut(oid) else { return false };
        if *v != version || sent != at {
            return true;
        }
        match next.take() {
            Some(n) => {
                *sent = n.clone();
                self.read_piece(cx, oid.clone(), from, version, n);
            }
            None => drop(b.pushing.remove(oid)),
        }
        true
    }

    /// Notes where the next piece of a pushed object begins.
    pub(crate) fn backfill_next(&mut self, oid: &ObjectId, to: OsdId, next: Option<&CopyCursor>) -> bool {
        let Role::Primary(p) = &mut self.role else { return false };
        let Some(b) = p.backfill.as_mut().filter(|b| b.target == to) else { return false };
        let Some((_, _, n)) = b.pushing.get_mut(oid) else { return false };
        *n = next.cloned();
        true
    }

    /// An object of the window could not be read here: it is given to the member once a good copy has come.
    pub(crate) fn backfill_again(&mut self, oid: &ObjectId, version: Version) {
        if let Role::Primary(p) = &mut self.role
            && let Some(b) = &mut p.backfill
            && b.pushing.remove(oid).is_some()
        {
            b.todo.push_back((oid.clone(), version));
        }
    }

    /// Target: equal up to here.
    pub(crate) fn on_progress(&mut self, cx: &mut Step<'_>, from: OsdId, to: Cursor, remove: Vec<ObjectId>) {
        if !matches!(self.role, Role::Replica) {
            return;
        }
        let mut ops: Vec<TxnOp> = Vec::new();
        if to > self.info.backfilled {
            ops.extend(remove.into_iter().map(|oid| TxnOp::Remove { oid }));
            self.info.backfilled = to.clone();
            ops.push(self.keep_info());
        }
        self.desk.submit(cx, ops, OnCommit::Progress { to: from, cursor: to });
    }

    pub(crate) fn on_progress_ack(&mut self, cx: &mut Step<'_>, from: OsdId, to: Cursor) {
        let Role::Primary(p) = &mut self.role else { return };
        let Some(b) = &p.backfill else { return };
        if b.target != from || b.phase != Phase::Passing || b.end.as_ref() != Some(&to) {
            return;
        }
        let Some(b) = p.backfill.take() else { return };
        if let Some(q) = p.peers.get_mut(&from) {
            q.info.backfilled = to;
        }
        let waiting: Vec<ObjectId> = self.contexts.keys().filter(|o| b.holds(o)).cloned().collect();
        for oid in waiting {
            self.pump(cx, &oid);
        }
    }

    pub(crate) fn resend_backfill(&mut self, cx: &mut Step<'_>, osd: OsdId) {
        let Role::Primary(p) = &mut self.role else { return };
        let Some(b) = p.backfill.as_mut().filter(|b| b.target == osd) else { return };
        let (from, to) = (b.begin.clone(), b.end.clone().unwrap_or_default());
        match b.phase {
            Phase::Comparing if b.theirs.is_none() => self.desk.send(cx, osd, Body::Scan { from, to }),
            Phase::Pushing => {
                let again: Vec<_> = b.pushing.iter().map(|(o, (v, at, _))| (o.clone(), *v, at.clone())).collect();
                for (oid, version, at) in again {
                    self.read_piece(cx, oid, osd, version, at);
                }
            }
            Phase::Passing => {
                let remove = b.remove.clone();
                self.desk.send(cx, osd, Body::Progress { to, remove });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use nacre_proto::ids::{PoolId, SnapId};

    use super::*;
    use crate::format::{Kind, seal};
    use crate::object::ObjectInfo;
    use crate::state::Config;

    #[test]
    fn a_window_of_large_objects_holds_back_few_of_them() {
        let object = |n: u8| ObjectId {
            pool: PoolId(1),
            // Objects are in the order of their hashes, the last bit first.
            hash: u32::from(n).reverse_bits(),
            namespace: Bytes::new(),
            name: Bytes::from(vec![n]),
            snap: SnapId::HEAD,
        };
        let list = |size: u64| -> Vec<(ObjectId, Bytes)> {
            let info = ObjectInfo { size, ..ObjectInfo::default() };
            (0..64).map(|n| (object(n), seal(Kind::Object, &info))).collect()
        };
        let most = Config::default().backfill_bytes;
        let held = |size: u64, begin: Cursor| -> Vec<u8> {
            let mut b = Backfill::new(OsdId(1), begin);
            assert!((0..64).all(|n| !b.holds(&object(n))), "nothing waits before the window is fixed");
            let listed: Vec<_> = list(size).into_iter().filter(|(oid, _)| !b.begin.covers(oid)).collect();
            b.fix(&listed, true, most);
            (0..64).filter(|n| b.holds(&object(*n))).collect()
        };
        assert_eq!(held(4 << 20, Cursor::Min), [0, 1], "writes to the others go on");
        assert_eq!(held(4 << 20, Cursor::At(object(1))), [2, 3], "and so on from there");
        assert_eq!(held(1 << 30, Cursor::At(object(6))), [7], "one object is a window, however large");
        assert_eq!(held(4 << 10, Cursor::Min).len(), 64, "small ones go together");
    }
}
