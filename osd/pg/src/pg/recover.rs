//! Brings objects to where the log says they are: the primary pulls what it lacks, then pushes what members lack.
//!
//! What a client waits for goes first. An object travels in bounded pieces, each asked for when the one before is
//! durable, gathered under a name of its own and put in place by the last. While it travels, writes to it are held back.
//!
//! Of one object the older clones go first, then the newer, then the head: each may share space with the one before it
//! (`piece.rs`).

use std::collections::{BTreeMap, BTreeSet};

use nacre_proto::ids::{ObjectId, OsdId, SnapId, Version};

use super::peering::Primary;
use super::piece::older;
use super::{Fault, OnCommit, OnRead, PlacementGroup, Role};
use crate::io::{Output, ReadFault, ReadItem, ReadValue, Request, Step};
use crate::log::Missing;
use crate::msg::{Body, Chunk, CopyCursor};
use crate::object::head_of;

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
    /// A copy of these was bad: they come whole, sharing nothing.
    whole: BTreeSet<ObjectId>,
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
        /// A piece that is put in place once the clone it shares with was seen here.
        held: Option<Box<Chunk>>,
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

    /// Does it wait until other states of its object are at a member that lacks it: older ones, or here the head's record,
    /// which says what they share.
    fn waits_for_kin(&self, own: &Missing, theirs: &Missing, oid: &ObjectId) -> bool {
        let head = head_of(oid);
        self.recover.first_of(theirs, oid).is_some()
            || (*oid != head && own.contains_key(&head) && !self.recover.unfound.contains(&head))
    }

    /// With what to begin so that this object comes soon; none if that is on its way.
    fn first_for(&self, own: &Missing, oid: &ObjectId) -> Option<ObjectId> {
        let r = &self.recover;
        let mut at = oid.clone();
        // What is lacked here leads to older ones lacked here, so this ends by itself; the bound says so.
        for _ in 0..4 {
            let first = if own.contains_key(&at) {
                r.first_of(own, &at)
            } else {
                let head = head_of(&at);
                let record = at != head && own.contains_key(&head) && !r.unfound.contains(&head);
                let theirs = || {
                    let lists = self.lacking(&at).filter_map(|m| self.peers.get(&m)?.missing.as_ref());
                    lists.filter_map(|l| r.first_of(l, &at)).min()
                };
                if record { Some(head) } else { theirs() }
            };
            match first {
                None => return r.is_free(&at).then_some(at),
                Some(first) => at = first,
            }
        }
        None
    }

    /// Does a member lack it.
    fn lacking<'a>(&'a self, oid: &'a ObjectId) -> impl Iterator<Item = OsdId> + 'a {
        self.members.iter().copied().filter(move |m| {
            self.peers.get(m).and_then(|q| q.missing.as_ref()).is_some_and(|missing| missing.contains_key(oid))
        })
    }
}

impl Recover {
    /// Does it come whole, since a copy of it was bad.
    pub(crate) fn is_whole(&self, oid: &ObjectId) -> bool {
        self.whole.contains(oid)
    }

    /// Copies of these are bad.
    pub(crate) fn come_whole(&mut self, oids: impl IntoIterator<Item = ObjectId>) {
        self.whole.extend(oids);
    }

    /// Could be begun.
    fn is_free(&self, oid: &ObjectId) -> bool {
        !self.active.contains_key(oid) && !self.unfound.contains(oid)
    }

    /// The oldest clone that is lacked too and will come.
    fn first_of(&self, missing: &Missing, oid: &ObjectId) -> Option<ObjectId> {
        older(missing, oid).find(|o| !self.unfound.contains(*o)).cloned()
    }

    fn done(&mut self, oid: &ObjectId) {
        self.active.remove(oid);
        self.urgent.remove(oid);
        self.whole.remove(oid);
    }
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
        if p.lacks_anything(&self.missing) {
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
        // What a clean pg does begins now, and not with whatever comes next.
        self.trim_settle(cx);
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
        let is_lacked = |oid: &&ObjectId| self.missing.contains_key(*oid) || p.lacking(oid).next().is_some();
        let urgent = r.urgent.iter().filter(is_lacked).find_map(|o| p.first_for(&self.missing, o));
        let soon = urgent.is_some();
        let own =
            || self.missing.keys().find(|o| local && r.is_free(o) && r.first_of(&self.missing, o).is_none()).cloned();
        let next = urgent.or_else(own).or_else(|| {
            let filled = p.members.iter().filter(|m| local && p.may_fill(**m));
            let lacks = filled.filter_map(|m| p.peers.get(m)).filter_map(|q| q.missing.as_ref());
            let ready = |l: &Missing, o: &ObjectId| r.is_free(o) && !p.waits_for_kin(&self.missing, l, o);
            lacks.flat_map(|l| l.keys().find(|o| ready(l, o))).next().cloned()
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
            p.recover.active.insert(oid.clone(), Job::Pull { from, need, at: at.clone(), next: None, held: None });
            self.ask_piece_of(cx, from, oid, need, at);
            return;
        }
        p.recover.unfound.insert(oid);
    }

    fn start_push(&mut self, cx: &mut Step<'_>, oid: ObjectId, soon: bool) {
        let Role::Primary(p) = &mut self.role else { return };
        let ready = |m: &OsdId| {
            let theirs = p.peers.get(m).and_then(|q| q.missing.as_ref());
            (soon || p.may_fill(*m)) && theirs.is_some_and(|l| !p.waits_for_kin(&self.missing, l, &oid))
        };
        let to: BTreeMap<OsdId, (CopyCursor, Option<CopyCursor>)> =
            p.lacking(&oid).filter(ready).map(|m| (m, (CopyCursor::default(), None))).collect();
        let need =
            to.keys().find_map(|m| p.peers.get(m)?.missing.as_ref()?.get(&oid).map(|i| i.need)).unwrap_or_default();
        let members: Vec<OsdId> = to.keys().copied().collect();
        p.recover.active.insert(oid.clone(), Job::Push { version: need, to });
        for m in members {
            self.read_piece(cx, oid.clone(), m, need, CopyCursor::default());
        }
    }

    /// Primary: is it this piece that a member is to be sent next.
    pub(crate) fn is_due(&self, oid: &ObjectId, to: OsdId, version: Version, at: &CopyCursor) -> bool {
        let Role::Primary(p) = &self.role else { return false };
        let recovers = matches!(p.recover.active.get(oid), Some(Job::Push { version: v, to: members })
            if *v == version && members.get(&to).is_some_and(|(sent, _)| sent == at));
        recovers || p.backfill.as_ref().is_some_and(|b| b.is_due(oid, to, version, at))
    }

    /// Primary: the piece for a member was read.
    pub(crate) fn push_piece(
        &mut self,
        cx: &mut Step<'_>,
        oid: ObjectId,
        to: OsdId,
        version: Version,
        chunk: Option<Chunk>,
    ) {
        match chunk {
            Some(chunk) => {
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
            p.recover.come_whole([oid]);
            p.clean = false;
        }
    }

    /// Source: a piece is asked for.
    pub(crate) fn on_pull(
        &mut self,
        cx: &mut Step<'_>,
        from: OsdId,
        oid: ObjectId,
        need: Version,
        at: CopyCursor,
        kin: Option<Version>,
    ) {
        if self.missing.contains_key(&oid) {
            self.desk.send(cx, from, Body::Pulled { oid, need, chunk: None });
            return;
        }
        self.serve_piece(cx, oid, from, need, at, kin);
    }

    /// Primary: asks a source for a piece.
    fn ask_piece_of(&self, cx: &mut Step<'_>, from: OsdId, oid: ObjectId, need: Version, at: CopyCursor) {
        let kin = self.kin(&oid);
        self.desk.send(cx, from, Body::Pull { oid, need, at, kin });
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
        let Some(Job::Pull { from: asked, need: wanted, at, next, held }) = p.recover.active.get_mut(&oid) else {
            return;
        };
        if *asked != from || *wanted != need {
            return;
        }
        let Some(chunk) = chunk else {
            p.recover.failed.insert((oid.clone(), from));
            p.recover.active.remove(&oid);
            return;
        };
        // Sent twice after a lost connection: the first is being written.
        if chunk.at != *at || (next.is_some() && !twice) || !chunk.is_sound() {
            return;
        }
        *next = Some(chunk.next.clone());
        let Some(with) = chunk.shared.as_ref().map(|s| s.with) else { return self.place_pulled(cx, oid, chunk) };
        *held = Some(Box::new(chunk));
        let clone = ObjectId { snap: with, ..oid.clone() };
        self.desk.read(cx, Some(clone), vec![ReadItem::Meta], OnRead::Kin { oid, with });
    }

    /// Primary: the clone a piece shares with was looked for here.
    pub(crate) fn kin_read(
        &mut self,
        cx: &mut Step<'_>,
        oid: &ObjectId,
        with: SnapId,
        result: Result<Vec<ReadValue>, ReadFault>,
    ) {
        let Role::Primary(p) = &mut self.role else { return };
        let Some(Job::Pull { held, .. }) = p.recover.active.get_mut(oid) else { return };
        let Some(chunk) = held.take_if(|c| c.shared.as_ref().is_some_and(|s| s.with == with)) else { return };
        let clone = ObjectId { snap: with, ..oid.clone() };
        let here = matches!(result.as_deref(), Ok([ReadValue::Meta(Some(_))])) && !self.missing.contains_key(&clone);
        if here {
            self.place_pulled(cx, oid.clone(), *chunk);
        } else {
            // By our own log it should be: fetch this one whole, from the beginning.
            p.recover.active.remove(oid);
            p.recover.come_whole([oid.clone()]);
        }
    }

    fn place_pulled(&mut self, cx: &mut Step<'_>, oid: ObjectId, chunk: Chunk) {
        let last = chunk.next.is_none();
        let mut ops = Vec::new();
        self.place(&oid, chunk, &mut ops);
        self.desk.submit(cx, ops, OnCommit::Pulled { oid, last });
    }

    pub(crate) fn piece_durable(&mut self, cx: &mut Step<'_>, oid: &ObjectId, last: bool) {
        let Role::Primary(p) = &mut self.role else { return };
        if last {
            p.recover.done(oid);
            self.object_ready(cx, oid);
            return;
        }
        if let Some(Job::Pull { from, need, at, next, .. }) = p.recover.active.get_mut(oid)
            && let Some(Some(n)) = next.take()
        {
            *at = n.clone();
            let (from, need) = (*from, *need);
            self.ask_piece_of(cx, from, oid.clone(), need, n);
        }
    }

    /// What waited for an object may go on.
    pub(crate) fn object_ready(&mut self, cx: &mut Step<'_>, oid: &ObjectId) {
        self.pump(cx, &head_of(oid));
    }

    /// Member: a piece for us.
    pub(crate) fn on_push(&mut self, cx: &mut Step<'_>, from: OsdId, oid: ObjectId, version: Version, chunk: Chunk) {
        if !matches!(self.role, Role::Replica) || !chunk.is_sound() {
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
            p.recover.done(&oid);
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
        let (mut again, mut pulls) = (Vec::new(), Vec::new());
        for (oid, job) in &p.recover.active {
            match job {
                Job::Pull { from, need, at, next, .. } if *from == osd && next.is_none() => {
                    pulls.push((oid.clone(), *need, at.clone()));
                }
                Job::Push { version, to } => {
                    if let Some((at, _)) = to.get(&osd) {
                        again.push((oid.clone(), *version, at.clone()));
                    }
                }
                Job::Pull { .. } => {}
            }
        }
        for (oid, need, at) in pulls {
            self.ask_piece_of(cx, osd, oid, need, at);
        }
        for (oid, version, at) in again {
            self.read_piece(cx, oid, osd, version, at);
        }
    }
}
