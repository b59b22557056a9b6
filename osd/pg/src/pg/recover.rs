//! Brings objects to where the log says they are: the primary pulls what it lacks, then pushes what members lack.
//!
//! What a client waits for goes first. An object travels in bounded pieces, each asked for when the one before is
//! durable, gathered under a name of its own and put in place by the last. While it travels, writes to it are held back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, OsdId, Version};
use nacre_proto::txn::{TxnOp, WriteHint};

use super::operate::info_of;
use super::peering::Primary;
use super::{Fault, OnCommit, OnRead, PlacementGroup, Role};
use crate::io::{Output, ReadFault, ReadItem, ReadValue, Request, Step};
use crate::log::Missing;
use crate::msg::{Body, Chunk, CopyCursor, cut_pairs};
use crate::object::{head_of, temp_of};

/// What is travelling.
#[derive(Debug, Default)]
pub(crate) struct Recover {
    pub(crate) active: BTreeMap<ObjectId, Job>,
    /// A client waits for these.
    urgent: BTreeSet<ObjectId>,
    /// Sources that turned out not to have an object.
    failed: BTreeSet<(ObjectId, OsdId)>,
    /// No source is known for these.
    pub(crate) unfound: BTreeSet<ObjectId>,
}

/// One object on its way.
#[derive(Debug)]
pub(crate) enum Job {
    Pull {
        from: OsdId,
        need: Version,
        at: CopyCursor,
        /// Known while the piece at `at` is being written: none inside is the last piece.
        next: Option<Option<CopyCursor>>,
    },
    /// Per member: the piece that is on its way, and where the next begins.
    Push { version: Version, to: BTreeMap<OsdId, (CopyCursor, Option<CopyCursor>)> },
}

impl Primary {
    /// Who is asked for a piece and is gone does not answer: another is asked, from the beginning.
    pub(crate) fn forget_pulls(&mut self) {
        let peers = &self.peers;
        self.recover.active.retain(|_, job| !matches!(job, Job::Pull { from, .. } if !peers.contains_key(from)));
    }

    /// Does a member lack it.
    fn lacking<'a>(&'a self, oid: &'a ObjectId) -> impl Iterator<Item = OsdId> + 'a {
        self.members.iter().copied().filter(move |m| {
            self.peers.get(m).and_then(|q| q.missing.as_ref()).is_some_and(|missing| missing.contains_key(oid))
        })
    }
}

/// What to read for the piece at a cursor.
fn piece_items(at: &CopyCursor, bytes: u64, keys: u32) -> Vec<ReadItem> {
    vec![
        ReadItem::Meta,
        ReadItem::Xattrs,
        ReadItem::OmapHeader,
        ReadItem::Extent { offset: at.offset, len: bytes },
        ReadItem::OmapRange { after: at.omap_after.clone(), max: keys },
    ]
}

/// The piece, with the version of the object it is of.
fn piece(at: &CopyCursor, values: &[ReadValue], bytes: u64) -> Option<(Version, Chunk)> {
    let [
        ReadValue::Meta(Some(_)),
        ReadValue::Pairs(xattrs, _),
        ReadValue::Data(header),
        ReadValue::Data(data),
        ReadValue::Pairs(omap, more),
    ] = values
    else {
        return None;
    };
    let info = info_of(xattrs).ok().flatten()?;
    let first = *at == CopyCursor::default();
    let offset = at.offset + data.len() as u64;
    let data_done = offset >= info.size || data.is_empty();
    let (omap, more) = if data_done { cut_pairs(omap, *more, bytes) } else { (Vec::new(), true) };
    let omap_after = omap.last().map(|(k, _)| k.clone()).or_else(|| at.omap_after.clone());
    let chunk = Chunk {
        at: at.clone(),
        next: more.then_some(CopyCursor { offset, omap_after }),
        xattrs: if first { xattrs.clone() } else { Vec::new() },
        header: if first { header.clone() } else { Bytes::new() },
        size: info.size,
        data: data.clone(),
        omap,
    };
    Some((info.version, chunk))
}

impl PlacementGroup {
    /// An object cannot be worked on yet: it is not here, or (for a write) not on all members.
    pub(crate) fn is_held_back(&self, oid: &ObjectId, writes: bool) -> bool {
        if self.missing.contains_key(oid) {
            return true;
        }
        let Role::Primary(p) = &self.role else { return true };
        if !writes {
            return false;
        }
        (p.lacking(oid).next().is_some() && !self.cfg.is(Fault::WriteDegraded))
            || p.scrub.as_ref().is_some_and(|s| s.holds(oid))
            || (p.backfill.as_ref().is_some_and(|b| b.holds(oid)) && !self.cfg.is(Fault::BackfillRaces))
            || p.recount.as_ref().is_some_and(|r| r.holds(oid))
    }

    /// A client waits for this object.
    pub(crate) fn want_soon(&mut self, _cx: &mut Step<'_>, oid: &ObjectId) {
        if let Role::Primary(p) = &mut self.role {
            p.recover.urgent.insert(oid.clone());
        }
    }

    /// Starts what can be started; says when the pg is clean.
    pub(crate) fn recover_settle(&mut self, cx: &mut Step<'_>) {
        let Role::Primary(p) = &self.role else { return };
        if !p.is_started() {
            return;
        }
        if p.clean {
            self.trim_settle(cx);
            return;
        }
        self.slots_settle(cx);
        while self.start_one(cx) {}
        let Role::Primary(p) = &self.role else { return };
        let lacking = !self.missing.is_empty()
            || p.members.iter().any(|m| p.peers.get(m).and_then(|q| q.missing.as_ref()).is_some_and(|l| !l.is_empty()));
        if lacking {
            self.drop_recount(cx);
            return;
        }
        if !self.recount_settle(cx) {
            return;
        }
        let Role::Primary(p) = &self.role else { return };
        if p.members.iter().any(|m| p.peers.get(m).is_some_and(|q| !q.info.backfilled.is_max())) {
            self.backfill_settle(cx);
            return;
        }
        if self.view.acting != self.view.up {
            if !p.asked_temp && !self.view.up.is_empty() {
                cx.out.push(Output::Ask(Request::PgTemp(Vec::new())));
                if let Role::Primary(p) = &mut self.role {
                    p.asked_temp = true;
                }
            }
            return;
        }
        if self.view.acting.len() < self.view.pool.size as usize {
            return;
        }
        self.became_clean(cx);
    }

    fn became_clean(&mut self, cx: &mut Step<'_>) {
        self.info.history.clean = self.info.interval;
        self.past.forget_before(self.info.interval);
        let mut ops = vec![self.keep_info(), self.keep_past()];
        let trim_to = self.trim_point();
        self.trim_log(trim_to, &mut ops);
        self.desk.submit(cx, ops, OnCommit::Nothing);
        let history = self.info.history;
        let Role::Primary(p) = &mut self.role else { return };
        p.clean = true;
        for &to in &p.members {
            self.desk.send(cx, to, Body::Clean { history, trim_to });
        }
        for &to in p.strays.iter().chain(p.peers.keys()).filter(|o| !p.members.contains(o)) {
            self.desk.send(cx, to, Body::Remove);
        }
        // They hold nothing any more: a copy that is found bad later is not to be asked of them.
        p.strays.clear();
        p.peers.retain(|o, _| p.members.contains(o));
        cx.out.push(Output::Report(Box::new(self.report())));
    }

    /// Picks the next object; false if there is none to start or enough travel.
    fn start_one(&mut self, cx: &mut Step<'_>) -> bool {
        let local = self.has_local_slot();
        let Role::Primary(p) = &mut self.role else { return false };
        let r = &p.recover;
        if r.active.len() >= self.cfg.recover_active {
            return false;
        }
        let free = |oid: &&ObjectId| !r.active.contains_key(*oid) && !r.unfound.contains(*oid);
        let is_lacked = |oid: &&ObjectId| self.missing.contains_key(*oid) || p.lacking(oid).next().is_some();
        let urgent = r.urgent.iter().find(|o| free(o) && is_lacked(o)).cloned();
        let soon = urgent.is_some();
        let next = urgent.or_else(|| self.missing.keys().find(|o| local && free(o)).cloned()).or_else(|| {
            let filled = p.members.iter().filter(|m| local && p.may_fill(**m));
            let lacks = filled.filter_map(|m| p.peers.get(m)).filter_map(|q| q.missing.as_ref());
            lacks.flat_map(|l| l.keys()).find(free).cloned()
        });
        let Some(oid) = next else {
            let stale = |o: &ObjectId| !self.missing.contains_key(o) && p.lacking(o).next().is_none();
            let stale: Vec<ObjectId> = r.urgent.iter().filter(|o| stale(o)).cloned().collect();
            p.recover.urgent.retain(|o| !stale.contains(o));
            return false;
        };
        match self.missing.get(&oid) {
            Some(item) => {
                let need = item.need;
                self.start_pull(cx, oid, need);
            }
            None => self.start_push(cx, oid, soon),
        }
        true
    }

    fn start_pull(&mut self, cx: &mut Step<'_>, oid: ObjectId, need: Version) {
        let Role::Primary(p) = &mut self.role else { return };
        let untried = |o: &OsdId| !p.recover.failed.contains(&(oid.clone(), *o));
        let known = p
            .peers
            .iter()
            .find(|(o, q)| {
                untried(o)
                    && q.info.backfilled.covers(&head_of(&oid))
                    // A member has followed us since it told its info.
                    && (q.info.last_update >= need || p.members.contains(o))
                    && q.missing.as_ref().is_some_and(|m| !m.contains_key(&oid))
            })
            .map(|(o, _)| *o);
        // By what is known nobody has it; but one whose log was too old to join, or who has not said yet, may still hold
        // just that version in its store. A version is made once, so a copy of the version is the object.
        let asks_all = !self.cfg.is(Fault::AskHoldersOnly);
        let source = known.or_else(|| p.peers.keys().copied().find(untried).filter(|_| asks_all));
        if let Some(from) = source {
            let at = CopyCursor::default();
            self.desk.send(cx, from, Body::Pull { oid: oid.clone(), need, at: at.clone() });
            p.recover.active.insert(oid, Job::Pull { from, need, at, next: None });
            return;
        }
        p.recover.unfound.insert(oid);
    }

    fn start_push(&mut self, cx: &mut Step<'_>, oid: ObjectId, soon: bool) {
        let Role::Primary(p) = &mut self.role else { return };
        let to: BTreeMap<OsdId, (CopyCursor, Option<CopyCursor>)> =
            p.lacking(&oid).filter(|m| soon || p.may_fill(*m)).map(|m| (m, (CopyCursor::default(), None))).collect();
        let need =
            to.keys().find_map(|m| p.peers.get(m)?.missing.as_ref()?.get(&oid).map(|i| i.need)).unwrap_or_default();
        for &m in to.keys() {
            let at = CopyCursor::default();
            let items = piece_items(&at, self.cfg.chunk_bytes, self.cfg.chunk_keys);
            let then = OnRead::Push { oid: oid.clone(), to: m, version: need, at };
            self.desk.read(cx, Some(oid.clone()), items, then);
        }
        p.recover.active.insert(oid, Job::Push { version: need, to });
    }

    /// Reads the piece at `at` for a member.
    pub(crate) fn read_piece(&mut self, cx: &mut Step<'_>, oid: ObjectId, to: OsdId, version: Version, at: CopyCursor) {
        let items = piece_items(&at, self.cfg.chunk_bytes, self.cfg.chunk_keys);
        self.desk.read(cx, Some(oid.clone()), items, OnRead::Push { oid, to, version, at });
    }

    pub(crate) fn push_read(
        &mut self,
        cx: &mut Step<'_>,
        oid: ObjectId,
        to: OsdId,
        version: Version,
        at: CopyCursor,
        result: Result<Vec<ReadValue>, ReadFault>,
    ) {
        let found = result.ok().and_then(|values| piece(&at, &values, self.cfg.chunk_bytes));
        match found {
            Some((_, chunk)) => {
                if !self.backfill_next(&oid, to, chunk.next.as_ref())
                    && let Role::Primary(p) = &mut self.role
                    && let Some(Job::Push { to: members, .. }) = p.recover.active.get_mut(&oid)
                    && let Some((_, next)) = members.get_mut(&to)
                {
                    next.clone_from(&chunk.next);
                }
                self.desk.send(cx, to, Body::Push { oid, version, chunk });
            }
            // What the log says is here cannot be read: it is lacking here too, and is fetched from another.
            None => self.lost_here(cx, oid, version),
        }
    }

    /// This osd's copy is bad or gone: count it as missing, so that a good one is fetched.
    pub(crate) fn lost_here(&mut self, cx: &mut Step<'_>, oid: ObjectId, need: Version) {
        let mut ops = Vec::new();
        self.set_missing(oid.clone(), Some(crate::log::MissingItem { need, have: None }), &mut ops);
        self.desk.submit(cx, ops, OnCommit::Nothing);
        if !self.cfg.is(Fault::LeaveDamaged) {
            self.backfill_again(&oid, need);
        }
        if let Role::Primary(p) = &mut self.role {
            p.recover.active.remove(&oid);
            p.recover.unfound.remove(&oid);
            p.recover.failed.retain(|(o, _)| *o != oid);
            p.clean = false;
        }
    }

    /// Source: a piece is asked for.
    pub(crate) fn on_pull(&mut self, cx: &mut Step<'_>, from: OsdId, oid: ObjectId, need: Version, at: CopyCursor) {
        if self.missing.contains_key(&oid) {
            self.desk.send(cx, from, Body::Pulled { oid, need, chunk: None });
            return;
        }
        let items = piece_items(&at, self.cfg.chunk_bytes, self.cfg.chunk_keys);
        self.desk.read(cx, Some(oid.clone()), items, OnRead::Serve { oid, to: from, need, at });
    }

    pub(crate) fn serve_read(
        &mut self,
        cx: &mut Step<'_>,
        oid: ObjectId,
        to: OsdId,
        need: Version,
        at: CopyCursor,
        result: Result<Vec<ReadValue>, ReadFault>,
    ) {
        let found = result.ok().and_then(|values| piece(&at, &values, self.cfg.chunk_bytes));
        let chunk = found.filter(|(version, _)| *version == need).map(|(_, chunk)| chunk);
        self.desk.send(cx, to, Body::Pulled { oid, need, chunk });
    }

    /// Primary: a piece has come.
    pub(crate) fn on_pulled(
        &mut self,
        cx: &mut Step<'_>,
        from: OsdId,
        oid: ObjectId,
        need: Version,
        chunk: Option<Chunk>,
    ) {
        let twice = self.cfg.is(Fault::PullTwice);
        let Role::Primary(p) = &mut self.role else { return };
        let Some(Job::Pull { from: asked, need: wanted, at, next }) = p.recover.active.get_mut(&oid) else { return };
        if *asked != from || *wanted != need {
            return;
        }
        let Some(chunk) = chunk else {
            p.recover.failed.insert((oid.clone(), from));
            p.recover.active.remove(&oid);
            return;
        };
        // Sent twice after a lost connection: the first is being written.
        if chunk.at != *at || (next.is_some() && !twice) {
            return;
        }
        *next = Some(chunk.next.clone());
        let last = chunk.next.is_none();
        let mut ops = Vec::new();
        self.place(&oid, chunk, &mut ops);
        self.desk.submit(cx, ops, OnCommit::Pulled { oid, last });
    }

    pub(crate) fn piece_durable(&mut self, cx: &mut Step<'_>, oid: &ObjectId, last: bool) {
        let Role::Primary(p) = &mut self.role else { return };
        if last {
            p.recover.active.remove(oid);
            p.recover.urgent.remove(oid);
            self.object_ready(cx, oid);
            return;
        }
        if let Some(Job::Pull { from, need, at, next }) = p.recover.active.get_mut(oid)
            && let Some(Some(n)) = next.take()
        {
            *at = n.clone();
            self.desk.send(cx, *from, Body::Pull { oid: oid.clone(), need: *need, at: n });
        }
    }

    /// What waited for an object may go on.
    pub(crate) fn object_ready(&mut self, cx: &mut Step<'_>, oid: &ObjectId) {
        self.pump(cx, &head_of(oid));
    }

    /// Puts a piece into the store: gathered aside, or at once if it is all.
    fn place(&mut self, oid: &ObjectId, chunk: Chunk, ops: &mut Vec<TxnOp>) {
        let first = chunk.at == CopyCursor::default();
        let last = chunk.next.is_none();
        let to = if first && last { oid.clone() } else { temp_of(oid) };
        if first {
            ops.push(TxnOp::Remove { oid: to.clone() });
            ops.push(TxnOp::Touch { oid: to.clone() });
            for (name, value) in chunk.xattrs {
                ops.push(TxnOp::SetXattr { oid: to.clone(), name, value });
            }
            if !chunk.header.is_empty() {
                ops.push(TxnOp::OmapSetHeader { oid: to.clone(), header: chunk.header });
            }
            if !last {
                self.set_temp(oid, true, ops);
            }
        }
        if !chunk.data.is_empty() {
            let (offset, data) = (chunk.at.offset, chunk.data);
            ops.push(TxnOp::Write { oid: to.clone(), offset, data, hint: WriteHint::default() });
        }
        if !chunk.omap.is_empty() {
            ops.push(TxnOp::OmapSet { oid: to.clone(), entries: chunk.omap });
        }
        if last {
            ops.push(TxnOp::Truncate { oid: to.clone(), size: chunk.size });
            if !first {
                ops.push(TxnOp::Rename { from: to, to: oid.clone() });
                self.set_temp(oid, false, ops);
            }
            self.set_missing(oid.clone(), None, ops);
        }
    }

    /// Member: a piece for us.
    pub(crate) fn on_push(&mut self, cx: &mut Step<'_>, from: OsdId, oid: ObjectId, version: Version, chunk: Chunk) {
        if !matches!(self.role, Role::Replica) {
            return;
        }
        let at = chunk.at.clone();
        let mut ops = Vec::new();
        // The rest of something that is in place already: sent again after a lost connection.
        if at == CopyCursor::default() || self.temps.contains(&oid) {
            self.place(&oid, chunk, &mut ops);
        }
        self.desk.submit(cx, ops, OnCommit::Piece { to: from, oid, version, at });
    }

    /// Primary: a member has a piece on stable storage.
    pub(crate) fn on_pushed(
        &mut self,
        cx: &mut Step<'_>,
        from: OsdId,
        oid: ObjectId,
        version: Version,
        at: &CopyCursor,
    ) {
        if self.backfill_pushed(cx, from, &oid, version, at) {
            return;
        }
        let Role::Primary(p) = &mut self.role else { return };
        let Some(Job::Push { version: v, to }) = p.recover.active.get_mut(&oid) else { return };
        if *v != version {
            return;
        }
        let Some((sent, next)) = to.get_mut(&from) else { return };
        if sent != at {
            return;
        }
        if let Some(n) = next.take() {
            *sent = n.clone();
            self.read_piece(cx, oid, from, version, n);
            return;
        }
        to.remove(&from);
        let done = to.is_empty();
        if let Some(missing) = p.peers.get_mut(&from).and_then(|q| q.missing.as_mut()) {
            missing.remove(&oid);
        }
        if done {
            p.recover.active.remove(&oid);
            p.recover.urgent.remove(&oid);
            self.object_ready(cx, &oid);
        }
    }

    /// Someone came forward who may hold what was not found.
    pub(crate) fn search_again(&mut self, osd: OsdId) {
        if let Role::Primary(p) = &mut self.role {
            p.recover.failed.retain(|(_, o)| *o != osd);
            p.recover.unfound.clear();
        }
    }

    /// Says again what a lost connection may have swallowed.
    pub(crate) fn resend_recovery(&mut self, cx: &mut Step<'_>, osd: OsdId) {
        let Role::Primary(p) = &mut self.role else { return };
        let mut again = Vec::new();
        for (oid, job) in &mut p.recover.active {
            match job {
                Job::Pull { from, need, at, next } if *from == osd && next.is_none() => {
                    self.desk.send(cx, osd, Body::Pull { oid: oid.clone(), need: *need, at: at.clone() });
                }
                Job::Push { version, to } => {
                    if let Some((at, _)) = to.get(&osd) {
                        again.push((oid.clone(), *version, at.clone()));
                    }
                }
                Job::Pull { .. } => {}
            }
        }
        for (oid, version, at) in again {
            self.read_piece(cx, oid, osd, version, at);
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

    pub(crate) fn explain_active(&self, p: &Primary) -> String {
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
