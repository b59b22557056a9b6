//! Scrub: the copies of a clean pg are compared, a few objects at a time; what one copy provably has wrong is repaired
//! from another, the rest is listed.
//!
//! How many pgs of an osd are scrubbed at a time since their time has come is its scheduler's to say: each asks for a slot.
//! If that is taken back, the window under way is finished and the next waits. What an operator orders needs none.
//!
//! A window is fixed, writes to it are held back until those under way are safe, every member says what it holds of it,
//! and the lines are compared. Clients' writes wait for one window at most, their reads for nothing. Metadata is
//! compared each time; a deep scrub also reads all bytes and omap entries, in pieces.
//!
//! A copy is provably bad if its store cannot read it, if its record cannot be read or denies what is stored (size,
//! digest), or if the log gives the object another version. It then counts as missing, and recovery brings a good one;
//! never from a copy that differs from another good one: such objects are only listed.
//!
//! A scrub that was asked for or is under way outlives its interval as long as this osd stays the primary: it begins anew
//! when the pg is clean. What it had found and a member could not note any more is found again.
//!
//! Invariants: a window is compared only while the pg is clean; a change inside it, by whomever, starts it again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, OsdId, SnapId, Version};

use super::operate::info_of;
use super::peering::Primary;
use super::{OnCommit, OnRead, PlacementGroup, Role};
use crate::io::{Output, ReadFault, ReadItem, ReadValue, SlotKind, Step};
use crate::log::{Change, MissingItem};
use crate::msg::{Body, CopyCursor, Cursor, ScrubLine};
use crate::object::{INFO_XATTR, ObjectInfo, head_of, is_temp};

/// What is wrong with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// The store cannot read it.
    Unreadable,
    /// It has no record, or one that cannot be read.
    Record,
    /// Its size is not what its record says.
    Size,
    /// Its bytes are not those its record was made for.
    Digest,
    /// It is of another version than the log says.
    Version,
    /// It is not there.
    Absent,
    /// It is there, although the log says it was removed.
    Extra,
    /// It is well in itself, and differs from another that is so too.
    Differs,
    /// A clone its record names is not there, or not of the size named.
    Clone,
}

/// What scrubs found, since this osd began to be the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Scrubs carried through.
    pub passes: u64,
    /// Of those, deep ones.
    pub deep: u64,
    /// Bad copies found.
    pub found: u64,
    /// Of those, how many were given for repair.
    pub repaired: u64,
    /// Objects listed as inconsistent now.
    pub inconsistent: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waiting for the pg to be clean, to fix the next window.
    Between,
    /// Finding where the window ends.
    Fixing,
    /// Waiting for writes inside it to be safe.
    Draining,
    /// Members say what they hold.
    Comparing,
    /// Members note what is bad there.
    Repairing,
}

/// A scrub that is to come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    deep: bool,
    /// It waits for no slot.
    at_once: bool,
}

impl Wanted {
    /// One that does for both.
    fn and(self, other: Wanted) -> Wanted {
        Wanted { deep: self.deep || other.deep, at_once: self.at_once || other.at_once }
    }
}

/// A scrub under way.
#[derive(Debug)]
pub(crate) struct Scrub {
    deep: bool,
    at_once: bool,
    round: u64,
    begin: Cursor,
    end: Option<Cursor>,
    phase: Phase,
    own: Option<Vec<ScrubLine>>,
    theirs: BTreeMap<OsdId, Vec<ScrubLine>>,
    dirty: bool,
    repairing: BTreeMap<OsdId, Vec<(ObjectId, Version)>>,
}

impl Scrub {
    /// Is this object inside the window: writes to it wait.
    pub(crate) fn holds(&self, oid: &ObjectId) -> bool {
        let oid = head_of(oid);
        self.end.as_ref().is_some_and(|end| end.covers(&oid)) && !self.begin.covers(&oid)
    }

    /// Something inside was changed.
    pub(crate) fn changed(&mut self, oid: &ObjectId) {
        self.dirty |= self.holds(oid);
    }

    fn release(&mut self) {
        self.end = None;
        self.phase = Phase::Between;
        self.own = None;
        self.theirs.clear();
        self.dirty = false;
    }
}

/// One holder's look at a window: objects listed, then read one after another, in pieces.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    /// For another, or for ourselves.
    to: Option<OsdId>,
    round: u64,
    deep: bool,
    from: Cursor,
    until: Cursor,
    listed: bool,
    after: Option<ObjectId>,
    todo: VecDeque<ObjectId>,
    lines: Vec<ScrubLine>,
    /// Of the object at the front of `todo`.
    at: CopyCursor,
    data: crc32fast::Hasher,
    omap: crc32fast::Hasher,
    damaged: bool,
}

/// A hash over pairs, such that no two lists of pairs look alike.
fn hash_pairs(hasher: &mut crc32fast::Hasher, pairs: &[(Bytes, Bytes)]) {
    for (k, v) in pairs {
        hasher.update(&(k.len() as u64).to_le_bytes());
        hasher.update(k);
        hasher.update(&(v.len() as u64).to_le_bytes());
        hasher.update(v);
    }
}

/// Where a window that begins with this listing ends: with the object (and all its clones) before the one that would
/// make it larger than `most` bytes.
pub(crate) fn window_end(list: &[(ObjectId, Bytes)], more: bool, most: u64) -> Cursor {
    let mut bytes = 0_u64;
    let mut last: Option<ObjectId> = None;
    for (oid, raw) in list {
        let head = head_of(oid);
        let info = info_of(&[(Bytes::from_static(INFO_XATTR), raw.clone())]).ok().flatten();
        bytes = bytes.saturating_add(info.map_or(0, |i| i.size));
        if let Some(last) = last.take_if(|l| bytes > most && *l != head) {
            return Cursor::At(last);
        }
        last = Some(head);
    }
    last.filter(|_| more).map_or(Cursor::Max, Cursor::At)
}

impl Primary {
    /// What this primary still has to scrub, for the next time it becomes active.
    pub(crate) fn scrub_left(&self) -> Option<Wanted> {
        let begun = self.scrub.as_ref().map(|s| Wanted { deep: s.deep, at_once: s.at_once });
        begun.into_iter().chain(self.scrub_wanted).reduce(Wanted::and)
    }
}

impl PlacementGroup {
    /// A scrub is asked for: it begins when the pg is clean.
    pub(crate) fn want_scrub(&mut self, deep: bool, at_once: bool) {
        if let Role::Primary(p) = &mut self.role {
            p.scrub_wanted = Some(p.scrub_wanted.unwrap_or_default().and(Wanted { deep, at_once }));
            if let Some(s) = &mut p.scrub {
                s.at_once |= at_once;
            }
        }
    }

    /// Objects whose copies differ and that were not repaired, with what is wrong on whom.
    pub fn inconsistent(&self) -> &BTreeMap<ObjectId, Vec<(OsdId, Damage)>> {
        &self.inconsistent
    }

    /// What scrubs found.
    pub fn findings(&self) -> Findings {
        Findings { inconsistent: self.inconsistent.len() as u64, ..self.findings }
    }

    /// Is a scrub under way or waiting.
    pub fn is_scrubbing(&self) -> bool {
        matches!(&self.role, Role::Primary(p) if p.scrub.is_some() || p.scrub_wanted.is_some())
    }

    /// Moves a scrub on: called at the end of every step.
    pub(crate) fn scrub_settle(&mut self, cx: &mut Step<'_>) {
        let slot = (SlotKind::Scrub, self.me);
        let Role::Primary(p) = &self.role else { return };
        let (clean, active) = (p.clean, p.is_active());
        // By the clock, and how urgent: one that also reads the bytes has waited longer.
        let due = match (&p.scrub, p.scrub_wanted) {
            (Some(s), _) => (!s.at_once).then_some(s.deep),
            (None, Some(w)) => (!w.at_once).then_some(w.deep),
            (None, None) => None,
        };
        let idle = p.scrub.is_none() && p.scrub_wanted.is_none();
        match due.filter(|_| clean && active) {
            None => self.give_back(cx, slot),
            Some(_) if self.slots.contains_key(&slot) => {}
            Some(deep) => self.ask_slot(cx, slot, if deep { 20 } else { 10 }),
        }
        if idle || !active {
            return;
        }
        let may = clean && (due.is_none() || self.slots.get(&slot).copied().unwrap_or(false));
        let Role::Primary(p) = &mut self.role else { return };
        let Some(s) = &mut p.scrub else {
            if let Some(Wanted { deep, at_once }) = p.scrub_wanted.take_if(|_| may) {
                p.scrub = Some(Scrub {
                    deep,
                    at_once,
                    round: 0,
                    begin: Cursor::Min,
                    end: None,
                    phase: Phase::Between,
                    own: None,
                    theirs: BTreeMap::new(),
                    dirty: false,
                    repairing: BTreeMap::new(),
                });
                self.scrub_settle(cx);
            }
            return;
        };
        match s.phase {
            Phase::Between if may => {
                s.phase = Phase::Fixing;
                let after = if let Cursor::At(oid) = &s.begin { Some(oid.clone()) } else { None };
                let items = vec![ReadItem::List { after, max: self.cfg.scrub_objects }];
                self.desk.read(cx, None, items, OnRead::ScrubWindow);
            }
            // Recovery goes first, and its writes are not to wait for us.
            Phase::Draining | Phase::Comparing if !clean => self.scrub_release(cx),
            Phase::Draining => {
                if self.contexts.iter().any(|(o, c)| s.holds(o) && c.is_writing()) {
                    return;
                }
                self.next_round += 1;
                s.round = self.next_round;
                s.phase = Phase::Comparing;
                s.dirty = false;
                s.own = None;
                s.theirs.clear();
                let (from, to) = (s.begin.clone(), s.end.clone().unwrap_or_default());
                let (deep, round) = (s.deep, s.round);
                for &m in &p.members {
                    let body = Body::ScrubRange { round, from: from.clone(), to: to.clone(), deep };
                    self.desk.send(cx, m, body);
                }
                self.survey(cx, None, round, from, to, deep);
            }
            Phase::Comparing if s.own.is_some() && p.members.iter().all(|m| s.theirs.contains_key(m)) => {
                if s.dirty {
                    s.phase = Phase::Draining;
                    self.scrub_settle(cx);
                } else {
                    self.compare(cx);
                }
            }
            Phase::Repairing if s.repairing.is_empty() => {
                let end = s.end.clone().unwrap_or_default();
                let over = end.is_max();
                s.begin = end;
                self.scrub_release(cx);
                if over {
                    self.scrub_over(cx);
                }
                // The next window, or the scrub that was asked for meanwhile.
                self.scrub_settle(cx);
            }
            _ => {}
        }
    }

    /// Writes to the window may go on.
    fn scrub_release(&mut self, cx: &mut Step<'_>) {
        let Role::Primary(p) = &mut self.role else { return };
        let Some(s) = &mut p.scrub else { return };
        s.release();
        // Those that waited are among the objects with contexts; others have nothing to do.
        let waiting: Vec<ObjectId> = self.contexts.keys().cloned().collect();
        for oid in waiting {
            self.pump(cx, &oid);
        }
    }

    fn scrub_over(&mut self, cx: &mut Step<'_>) {
        let Role::Primary(p) = &mut self.role else { return };
        let Some(s) = p.scrub.take() else { return };
        self.findings.passes += 1;
        self.findings.deep += u64::from(s.deep);
        cx.out.push(Output::Report(Box::new(self.report())));
    }

    pub(crate) fn scrub_window(&mut self, result: Result<Vec<ReadValue>, ReadFault>) {
        let Role::Primary(p) = &mut self.role else { return };
        let Some(s) = p.scrub.as_mut().filter(|s| s.phase == Phase::Fixing) else { return };
        let Ok([ReadValue::List(list, more)]) = result.as_deref() else {
            // Our own index cannot be read: nothing can be said of this pg.
            p.scrub = None;
            return;
        };
        let most = if s.deep { self.cfg.scrub_bytes } else { u64::MAX };
        s.end = Some(window_end(list, *more, most));
        s.phase = Phase::Draining;
    }

    /// Member: what do we hold there.
    pub(crate) fn on_scrub_range(
        &mut self,
        cx: &mut Step<'_>,
        from: OsdId,
        round: u64,
        begin: Cursor,
        until: Cursor,
        deep: bool,
    ) {
        if matches!(self.role, Role::Replica) {
            self.survey(cx, Some(from), round, begin, until, deep);
        }
    }

    fn survey(&mut self, cx: &mut Step<'_>, to: Option<OsdId>, round: u64, from: Cursor, until: Cursor, deep: bool) {
        let after = if let Cursor::At(oid) = &from { Some(oid.clone()) } else { None };
        let v = Survey {
            to,
            round,
            deep,
            from,
            until,
            listed: false,
            after,
            todo: VecDeque::new(),
            lines: Vec::new(),
            at: CopyCursor::default(),
            data: crc32fast::Hasher::new(),
            omap: crc32fast::Hasher::new(),
            damaged: false,
        };
        self.survey_on(cx, Box::new(v));
    }

    /// Asks for what comes next of a survey, or hands it in.
    fn survey_on(&mut self, cx: &mut Step<'_>, v: Box<Survey>) {
        if !v.listed {
            let items = vec![ReadItem::List { after: v.after.clone(), max: self.cfg.scrub_objects.max(8) * 2 }];
            self.desk.read(cx, None, items, OnRead::Survey(v));
            return;
        }
        let Some(oid) = v.todo.front().cloned() else {
            self.survey_done(cx, *v);
            return;
        };
        let mut items = vec![ReadItem::Meta, ReadItem::Xattrs];
        if v.deep && !v.damaged {
            items.push(ReadItem::OmapHeader);
            items.push(ReadItem::Extent { offset: v.at.offset, len: self.cfg.chunk_bytes });
            items.push(ReadItem::OmapRange { after: v.at.omap_after.clone(), max: self.cfg.chunk_keys });
        }
        self.desk.read(cx, Some(oid), items, OnRead::Survey(v));
    }

    fn survey_done(&mut self, cx: &mut Step<'_>, v: Survey) {
        if let Some(to) = v.to {
            self.desk.send(cx, to, Body::ScrubIs { round: v.round, lines: Some(v.lines) });
        } else if let Role::Primary(p) = &mut self.role
            && let Some(s) = p.scrub.as_mut().filter(|s| s.round == v.round && s.phase == Phase::Comparing)
        {
            s.own = Some(v.lines);
        }
    }

    pub(crate) fn survey_read(
        &mut self,
        cx: &mut Step<'_>,
        mut v: Box<Survey>,
        result: Result<Vec<ReadValue>, ReadFault>,
    ) {
        if !v.listed {
            let Ok([ReadValue::List(list, more)]) = result.as_deref() else {
                match v.to {
                    Some(to) => self.desk.send(cx, to, Body::ScrubIs { round: v.round, lines: None }),
                    None => {
                        if let Role::Primary(p) = &mut self.role {
                            p.scrub = None;
                        }
                    }
                }
                return;
            };
            v.listed = !*more;
            for (oid, _) in list {
                if !v.until.covers(&head_of(oid)) {
                    v.listed = true;
                    break;
                }
                // Clones of the last object of the window before this one come again.
                if !v.from.covers(&head_of(oid)) && !is_temp(oid) {
                    v.todo.push_back(oid.clone());
                }
            }
            v.after = list.last().map(|(o, _)| o.clone());
            self.survey_on(cx, v);
            return;
        }
        let Some(oid) = v.todo.front().cloned() else { return };
        let read = result.as_deref().unwrap_or_default();
        let [ReadValue::Meta(size), ReadValue::Pairs(xattrs, _), rest @ ..] = read else {
            if v.damaged || !v.deep {
                // Not even its metadata.
                v.damaged = true;
                let line = ScrubLine { oid, info: None, size: 0, xattrs: 0, data: None, omap: None, damaged: true };
                self.next_line(cx, v, line);
            } else {
                v.damaged = true;
                self.survey_on(cx, v);
            }
            return;
        };
        if let [ReadValue::Data(header), ReadValue::Data(data), ReadValue::Pairs(omap, more)] = rest {
            if v.at == CopyCursor::default() {
                v.omap.update(&(header.len() as u64).to_le_bytes());
                v.omap.update(header);
            }
            v.data.update(data);
            let offset = v.at.offset + data.len() as u64;
            if offset < size.unwrap_or(0) && !data.is_empty() {
                v.at.offset = offset;
                self.survey_on(cx, v);
                return;
            }
            v.at.offset = offset;
            hash_pairs(&mut v.omap, omap);
            if *more && let Some((last, _)) = omap.last() {
                v.at.omap_after = Some(last.clone());
                self.survey_on(cx, v);
                return;
            }
        }
        let info = xattrs.iter().find(|(k, _)| k == INFO_XATTR).map(|(_, raw)| raw.clone());
        let mut rest = xattrs.clone();
        rest.retain(|(k, _)| k != INFO_XATTR);
        let mut hasher = crc32fast::Hasher::new();
        hash_pairs(&mut hasher, &rest);
        let whole = v.deep && !v.damaged;
        let line = ScrubLine {
            oid,
            info,
            size: size.unwrap_or(0),
            xattrs: hasher.finalize(),
            data: whole.then(|| v.data.clone().finalize()),
            omap: whole.then(|| v.omap.clone().finalize()),
            damaged: v.damaged,
        };
        self.next_line(cx, v, line);
    }

    fn next_line(&mut self, cx: &mut Step<'_>, mut v: Box<Survey>, line: ScrubLine) {
        v.lines.push(line);
        v.todo.pop_front();
        v.at = CopyCursor::default();
        v.data = crc32fast::Hasher::new();
        v.omap = crc32fast::Hasher::new();
        v.damaged = false;
        self.survey_on(cx, v);
    }

    /// Primary: what a member holds.
    pub(crate) fn on_scrub_is(&mut self, from: OsdId, round: u64, lines: Option<Vec<ScrubLine>>) {
        let Role::Primary(p) = &mut self.role else { return };
        let Some(s) = p.scrub.as_mut().filter(|s| s.round == round && s.phase == Phase::Comparing) else { return };
        match lines {
            Some(lines) => drop(s.theirs.insert(from, lines)),
            // It cannot list what it holds: no comparison is possible, and the next scrub will say so again.
            None => p.scrub = None,
        }
    }

    /// All have spoken.
    fn compare(&mut self, cx: &mut Step<'_>) {
        let me = self.me;
        let Role::Primary(p) = &mut self.role else { return };
        let Some(s) = &mut p.scrub else { return };
        let mut holders: BTreeMap<OsdId, BTreeMap<ObjectId, ScrubLine>> = BTreeMap::new();
        let may_repair = s.at_once || self.cfg.repair;
        let own = s.own.take().unwrap_or_default();
        for (osd, lines) in std::iter::once((me, own)).chain(std::mem::take(&mut s.theirs)) {
            holders.insert(osd, lines.into_iter().map(|l| (l.oid.clone(), l)).collect());
        }
        let mut says: BTreeMap<&ObjectId, Option<Version>> = BTreeMap::new();
        for e in self.log.iter().filter(|e| e.change != Change::Error && s.holds(&e.oid)) {
            says.insert(&e.oid, e.after());
        }
        let all: BTreeSet<ObjectId> = holders.values().flat_map(|l| l.keys().cloned()).collect();
        let mut listed = BTreeMap::new();
        let mut bad = Vec::new();
        for oid in all.iter().chain(says.iter().filter(|(o, v)| v.is_some() && !all.contains(*o)).map(|(o, _)| *o)) {
            let copies: Vec<(OsdId, Option<&ScrubLine>)> = holders.iter().map(|(o, l)| (*o, l.get(oid))).collect();
            let verdict = judge(&copies, says.get(oid).copied());
            self.findings.found += verdict.wrong.len() as u64;
            match verdict.good {
                Some(version) if !verdict.wrong.is_empty() && may_repair => {
                    self.findings.repaired += verdict.wrong.len() as u64;
                    bad.extend(verdict.wrong.iter().map(|(osd, _)| (*osd, oid.clone(), version)));
                }
                _ if !verdict.wrong.is_empty() => drop(listed.insert(oid.clone(), verdict.wrong)),
                _ => {}
            }
        }
        for (&osd, lines) in &holders {
            for (oid, damage) in clones_wrong(lines) {
                if !bad.iter().any(|(o, b, _)| *o == osd && head_of(b) == oid) && !listed.contains_key(&oid) {
                    self.findings.found += 1;
                    listed.insert(oid, vec![(osd, damage)]);
                }
            }
        }
        self.inconsistent.retain(|oid, _| !s.holds(oid));
        self.inconsistent.extend(listed);
        s.phase = Phase::Repairing;
        let mut mine = Vec::new();
        for (osd, oid, version) in bad {
            if osd == me {
                mine.push((oid, version));
            } else {
                s.repairing.entry(osd).or_default().push((oid, version));
            }
        }
        for (&osd, items) in &s.repairing {
            self.desk.send(cx, osd, Body::Repair { items: items.clone() });
        }
        for (oid, version) in mine {
            self.lost_here(cx, oid, version);
        }
        self.scrub_settle(cx);
    }

    /// Member: these copies are bad; they count as missing from now on.
    pub(crate) fn on_repair(&mut self, cx: &mut Step<'_>, from: OsdId, items: Vec<(ObjectId, Version)>) {
        if !matches!(self.role, Role::Replica) {
            return;
        }
        let mut ops = Vec::new();
        for (oid, need) in items {
            if need <= self.info.last_update && self.info.backfilled.covers(&head_of(&oid)) {
                self.set_missing(oid, Some(MissingItem { need, have: None }), &mut ops);
            }
        }
        self.desk.submit(cx, ops, OnCommit::Repairing { to: from });
    }

    /// Primary: a member has noted what it lacks.
    pub(crate) fn on_repairing(&mut self, from: OsdId, missing: crate::log::Missing) {
        let Role::Primary(p) = &mut self.role else { return };
        let Some(s) = &mut p.scrub else { return };
        if s.repairing.remove(&from).is_none() {
            return;
        }
        if let Some(q) = p.peers.get_mut(&from) {
            p.recover.come_whole(missing.keys().cloned());
            q.missing = Some(missing);
            p.clean = false;
        }
    }

    /// Says again what a lost connection may have swallowed.
    pub(crate) fn resend_scrub(&mut self, cx: &mut Step<'_>, osd: OsdId) {
        let Role::Primary(p) = &self.role else { return };
        let Some(s) = p.scrub.as_ref().filter(|_| p.members.contains(&osd)) else { return };
        match s.phase {
            Phase::Comparing if !s.theirs.contains_key(&osd) => {
                let (from, to) = (s.begin.clone(), s.end.clone().unwrap_or_default());
                self.desk.send(cx, osd, Body::ScrubRange { round: s.round, from, to, deep: s.deep });
            }
            Phase::Repairing => {
                if let Some(items) = s.repairing.get(&osd) {
                    self.desk.send(cx, osd, Body::Repair { items: items.clone() });
                }
            }
            _ => {}
        }
    }
}

/// The verdict over one object's copies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What is wrong on whom.
    pub(crate) wrong: Vec<(OsdId, Damage)>,
    /// The version of a copy to repair the rest from, if all that is wrong is provably so.
    pub(crate) good: Option<Version>,
}

/// Compares the copies of one object; `says` is what the log leaves it at, if it speaks of it.
pub(crate) fn judge(copies: &[(OsdId, Option<&ScrubLine>)], says: Option<Option<Version>>) -> Verdict {
    let mut wrong = Vec::new();
    let mut good: Vec<(OsdId, &ScrubLine, Version)> = Vec::new();
    let mut absent = Vec::new();
    let mut provable = true;
    for &(osd, line) in copies {
        let Some(line) = line else {
            absent.push(osd);
            continue;
        };
        match itself(line) {
            Err(d) => wrong.push((osd, d)),
            Ok(_) if says == Some(None) => {
                // To remove what someone may still want is not for a machine to decide.
                provable = false;
                wrong.push((osd, Damage::Extra));
            }
            Ok(version) if says.is_some_and(|v| v != Some(version)) => wrong.push((osd, Damage::Version)),
            Ok(version) => good.push((osd, line, version)),
        }
    }
    if says != Some(None) && (says.is_some() || !good.is_empty() || !wrong.is_empty()) {
        // Without the log's word it may as well be that the others should be gone.
        provable &= absent.is_empty() || says.is_some();
        wrong.extend(absent.into_iter().map(|o| (o, Damage::Absent)));
    }
    if let Some((_, first, _)) = good.first()
        && good.iter().any(|(_, l, _)| *l != *first)
    {
        provable = false;
        wrong.extend(good.iter().map(|(o, _, _)| (*o, Damage::Differs)));
    }
    Verdict { wrong, good: good.first().filter(|_| provable).map(|(_, _, v)| *v) }
}

/// Is a copy well in itself; its version.
fn itself(line: &ScrubLine) -> Result<Version, Damage> {
    if line.damaged {
        return Err(Damage::Unreadable);
    }
    let info = record(line).ok_or(Damage::Record)?;
    if info.size != line.size {
        return Err(Damage::Size);
    }
    if let (Some(made), Some(found)) = (info.digest, line.data)
        && made != found
    {
        return Err(Damage::Digest);
    }
    Ok(info.version)
}

fn record(line: &ScrubLine) -> Option<ObjectInfo> {
    let raw = line.info.clone()?;
    info_of(&[(Bytes::from_static(INFO_XATTR), raw)]).ok().flatten()
}

/// Heads of one holder whose record names clones that are not there as named.
fn clones_wrong(lines: &BTreeMap<ObjectId, ScrubLine>) -> Vec<(ObjectId, Damage)> {
    let mut out = Vec::new();
    for (oid, line) in lines.iter().filter(|(o, _)| o.snap == SnapId::HEAD) {
        let Some(info) = record(line) else { continue };
        let fits = info.snaps.clones.iter().all(|c| {
            let there = lines.get(&ObjectId { snap: c.id, ..oid.clone() });
            there.is_some_and(|l| l.damaged || l.size == c.size)
        });
        if !fits {
            out.push((oid.clone(), Damage::Clone));
        }
    }
    out
}

#[cfg(test)]
#[path = "scrub_test.rs"]
mod tests;
