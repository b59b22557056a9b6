//! Counts a pg anew, window by window of the hash range, while clients go on: after a split, or after objects were
//! given up.
//!
//! The primary lists its own store, once it lacks nothing. A window's writes are held back while it is listed; writes
//! before the window are added to what was counted, writes beyond it are still to be listed. When the end is reached the
//! counts are exact as of the last entry of the log, and the members are told.

use nacre_proto::ids::{ObjectId, SnapId, Version};

use super::operate::info_of;
use super::{OnCommit, OnRead, PlacementGroup, Role};
use crate::io::{ReadFault, ReadItem, ReadValue, Step};
use crate::log::LogEntry;
use crate::msg::{Body, Cursor};
use crate::object::{INFO_XATTR, head_of, is_temp};
use crate::state::Stats;

/// A count on its way.
#[derive(Debug, Default)]
pub(crate) struct Recount {
    /// Everything up to here is in `counted`.
    begin: Cursor,
    /// Where the window ends, once that is known.
    end: Option<Cursor>,
    /// A listing is on its way.
    asked: bool,
    /// Given up; to be begun again once the listing on its way has come.
    over: bool,
    /// The last object of the window that was listed.
    after: Option<ObjectId>,
    window: Stats,
    counted: Stats,
}

impl Recount {
    /// Is this object inside the window.
    pub(crate) fn holds(&self, oid: &ObjectId) -> bool {
        let oid = head_of(oid);
        self.end.as_ref().is_some_and(|end| end.covers(&oid)) && !self.begin.covers(&oid)
    }

    /// A change was ordered.
    pub(crate) fn note(&mut self, e: &LogEntry) {
        if self.begin.covers(&head_of(&e.oid)) {
            self.counted.add(&e.delta);
        }
    }
}

impl PlacementGroup {
    /// Moves the count on; true once there is nothing to count.
    pub(crate) fn recount_settle(&mut self, cx: &mut Step<'_>) -> bool {
        if !self.info.recount {
            return true;
        }
        let window = self.cfg.window.max(2);
        let Role::Primary(p) = &mut self.role else { return false };
        let r = p.recount.get_or_insert_default();
        // A write that is being executed was let in before the window was fixed.
        if r.asked || self.contexts.iter().any(|(o, c)| r.holds(o) && c.is_writing()) {
            return false;
        }
        r.asked = true;
        let after = r.after.clone().or_else(|| if let Cursor::At(o) = &r.begin { Some(o.clone()) } else { None });
        self.desk.read(cx, None, vec![ReadItem::List { after, max: window }], OnRead::Recount);
        false
    }

    pub(crate) fn recount_listed(&mut self, cx: &mut Step<'_>, result: Result<Vec<ReadValue>, ReadFault>) {
        let Role::Primary(p) = &mut self.role else { return };
        let Some(r) = &mut p.recount else { return };
        r.asked = false;
        let Ok([ReadValue::List(list, more)]) = result.as_deref() else {
            // The store's index cannot be read now: begin again.
            self.drop_recount(cx);
            return;
        };
        if r.over {
            p.recount = None;
            return;
        }
        let Some(end) = r.end.clone() else {
            r.end = Some(list.last().filter(|_| *more).map_or(Cursor::Max, |(o, _)| Cursor::At(head_of(o))));
            return;
        };
        let mut done = !*more;
        for (oid, raw) in list {
            if !end.covers(&head_of(oid)) {
                done = true;
                break;
            }
            r.after = Some(oid.clone());
            let info = info_of(&[(bytes::Bytes::from_static(INFO_XATTR), raw.clone())]).ok().flatten();
            let Some(info) = info.filter(|_| !is_temp(oid)) else { continue };
            if oid.snap != SnapId::HEAD {
                r.window.clones += 1;
                r.window.bytes += info.size;
            } else if !info.whiteout {
                r.window.objects += 1;
                r.window.bytes += info.size;
            }
        }
        if !done {
            return;
        }
        let Stats { objects, clones, bytes } = std::mem::take(&mut r.window);
        r.counted.objects += objects;
        r.counted.clones += clones;
        r.counted.bytes += bytes;
        let held: Vec<ObjectId> = self.contexts.keys().filter(|o| r.holds(o)).cloned().collect();
        r.begin = end;
        r.end = None;
        r.after = None;
        if r.begin.is_max() {
            self.info.stats = r.counted;
            self.info.recount = false;
            p.recount = None;
            let ops = vec![self.keep_info()];
            self.desk.submit(cx, ops, OnCommit::Nothing);
            self.tell_counts(cx, None);
        }
        for oid in held {
            self.pump(cx, &oid);
        }
    }

    /// Stops counting: what was counted may no longer be true.
    pub(crate) fn drop_recount(&mut self, cx: &mut Step<'_>) {
        let Role::Primary(p) = &mut self.role else { return };
        let Some(r) = &mut p.recount else { return };
        let held: Vec<ObjectId> = self.contexts.keys().filter(|o| r.holds(o)).cloned().collect();
        r.over = true;
        r.end = None;
        if !r.asked {
            p.recount = None;
        }
        for oid in held {
            self.pump(cx, &oid);
        }
    }

    /// Tells one member, or all, what is exact as of the last entry.
    pub(crate) fn tell_counts(&mut self, cx: &mut Step<'_>, one: Option<nacre_proto::ids::OsdId>) {
        let Role::Primary(p) = &self.role else { return };
        if self.info.recount {
            return;
        }
        let (stats, at) = (self.info.stats, self.info.last_update);
        for &to in p.members.iter().filter(|m| one.is_none_or(|o| **m == o)) {
            self.desk.send(cx, to, Body::Counts { stats, at });
        }
    }

    /// Member: exact counts, if this is the entry they are of.
    pub(crate) fn on_counts(&mut self, cx: &mut Step<'_>, stats: Stats, at: Version) {
        if !matches!(self.role, Role::Replica) || self.info.last_update != at {
            return;
        }
        self.info.stats = stats;
        self.info.recount = false;
        let ops = vec![self.keep_info()];
        self.desk.submit(cx, ops, OnCommit::Nothing);
    }
}
