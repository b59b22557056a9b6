//! Slots for recovery: how much an osd gives and takes at a time, over all its pgs, is its scheduler's to say.
//!
//! A primary asks its own osd for a local slot, and then each member that is to be given data for a remote one, of that
//! member's osd. What is most at risk asks with the highest priority. A slot that is taken back for something more urgent
//! stays asked for and is granted again later; what is under way then is finished, nothing new begins. What a client
//! waits for needs no slot.
//!
//! A slot is given back when its work is done and at the end of the interval, granted or not, by whoever asked its own
//! scheduler; so none is ever held for an interval that is over. Objects without any known copy are no work.
//!
//! Invariant: a remote slot is asked for only when the work it is for could begin with it, whatever other members grant. A
//! member is filled when nothing is lacking any more: were its slot held while another's is waited for, two pgs could hold
//! what the other waits for, for ever.

use std::collections::BTreeSet;

use nacre_proto::ids::{ObjectId, OsdId};

use super::{PlacementGroup, Primary, Role};
use crate::io::{Output, Request, SlotKind, Step};
use crate::log::Missing;
use crate::msg::Body;

impl Primary {
    /// Has this member something coming that could be given to it now.
    fn is_owed(&self, member: OsdId, own: &Missing) -> bool {
        let Some(q) = self.peers.get(&member) else { return false };
        let gets = |l: &Missing| l.keys().any(|o| !own.contains_key(o) || !self.recover.unfound.contains(o));
        if self.lacks_anything(own) { q.missing.as_ref().is_some_and(gets) } else { !q.info.backfilled.is_max() }
    }

    /// Are there objects that this osd or a member lacks. Until there are none nobody is filled.
    pub(crate) fn lacks_anything(&self, own: &Missing) -> bool {
        let lacks = |m: &OsdId| self.peers.get(m).and_then(|q| q.missing.as_ref()).is_some_and(|l| !l.is_empty());
        !own.is_empty() || self.members.iter().any(lacks)
    }

    /// May data be sent to this member in the background.
    pub(crate) fn may_fill(&self, member: OsdId) -> bool {
        self.remote.get(&member).copied().unwrap_or(false)
    }
}

impl PlacementGroup {
    /// May this primary begin something in the background.
    pub(crate) fn has_local_slot(&self) -> bool {
        self.slots.get(&(SlotKind::Local, self.me)).copied().unwrap_or(false)
    }

    /// How much is at risk: first what takes no operations, then by copies that are not whole, then what is only misplaced.
    fn risk(&self, p: &Primary) -> u8 {
        let acting = &self.view.acting;
        if acting.len() < self.view.pool.min_size as usize {
            return 250;
        }
        let whole = |o: &&OsdId| match p.peers.get(*o) {
            None => self.missing.is_empty(),
            Some(q) => q.info.backfilled.is_max() && q.missing.as_ref().is_none_or(Missing::is_empty),
        };
        let whole = acting.iter().filter(whole).count();
        let short = (self.view.pool.size as usize).saturating_sub(whole).min(10) as u8;
        if short == 0 { 100 } else { 140 + 10 * short }
    }

    /// Primary: asks for the slots its work needs, and gives back those it does not need any more.
    pub(crate) fn slots_settle(&mut self, cx: &mut Step<'_>) {
        let Role::Primary(p) = &self.role else { return };
        let owed: BTreeSet<OsdId> = p.members.iter().copied().filter(|m| p.is_owed(*m, &self.missing)).collect();
        let own = self.missing.keys().any(|o: &ObjectId| !p.recover.unfound.contains(o));
        let key = (SlotKind::Local, self.me);
        let priority = self.risk(p);
        if !own && owed.is_empty() {
            self.give_back(cx, key);
        } else if !self.slots.contains_key(&key) {
            self.ask_slot(cx, key, priority);
        }
        let local = self.has_local_slot();
        let Role::Primary(p) = &mut self.role else { return };
        for &to in owed.iter().filter(|_| local) {
            if let std::collections::btree_map::Entry::Vacant(e) = p.remote.entry(to) {
                e.insert(false);
                self.desk.send(cx, to, Body::Reserve { kind: SlotKind::Remote, priority });
            }
        }
        // Without the local slot the others lie idle, and who got it may wait for one of them.
        let done: Vec<OsdId> = p.remote.keys().copied().filter(|m| !local || !owed.contains(m)).collect();
        for to in done {
            p.remote.remove(&to);
            self.desk.send(cx, to, Body::Release { kind: SlotKind::Remote });
        }
    }

    pub(crate) fn ask_slot(&mut self, cx: &mut Step<'_>, (kind, holder): (SlotKind, OsdId), priority: u8) {
        self.slots.insert((kind, holder), false);
        cx.out.push(Output::Ask(Request::Slot { kind, holder, priority }));
    }

    pub(crate) fn give_back(&mut self, cx: &mut Step<'_>, (kind, holder): (SlotKind, OsdId)) {
        if self.slots.remove(&(kind, holder)).is_some() {
            cx.out.push(Output::Ask(Request::Release { kind, holder }));
        }
    }

    /// The interval is over, or this copy goes: nothing is held for it any more.
    pub(crate) fn drop_slots(&mut self, cx: &mut Step<'_>) {
        for key in self.slots.keys().copied().collect::<Vec<_>>() {
            self.give_back(cx, key);
        }
    }

    /// This osd's scheduler grants a slot, or takes one back for something more urgent.
    pub(crate) fn on_slot(&mut self, cx: &mut Step<'_>, kind: SlotKind, holder: OsdId, granted: bool) {
        let Some(slot) = self.slots.get_mut(&(kind, holder)) else { return };
        *slot = granted;
        if kind == SlotKind::Remote {
            let body = if granted { Body::Reserved { kind } } else { Body::Revoked { kind } };
            self.desk.send(cx, holder, body);
        }
    }

    /// Member: the primary asks for a slot here.
    pub(crate) fn on_reserve(&mut self, cx: &mut Step<'_>, from: OsdId, kind: SlotKind, priority: u8) {
        if !matches!(self.role, Role::Replica) || kind != SlotKind::Remote {
            return;
        }
        match self.slots.get(&(kind, from)) {
            None => self.ask_slot(cx, (kind, from), priority),
            // Asked twice, since the connection was lost.
            Some(true) => self.desk.send(cx, from, Body::Reserved { kind }),
            Some(false) => {}
        }
    }

    /// Primary: a member grants its slot, or takes it back.
    pub(crate) fn on_reserved(&mut self, from: OsdId, granted: bool) {
        if let Role::Primary(p) = &mut self.role
            && let Some(slot) = p.remote.get_mut(&from)
        {
            *slot = granted;
        }
    }

    /// Member: the primary needs the slot no more.
    pub(crate) fn on_release(&mut self, cx: &mut Step<'_>, from: OsdId, kind: SlotKind) {
        self.give_back(cx, (kind, from));
    }

    /// What was said about slots may be lost with the connection.
    pub(crate) fn resend_slots(&mut self, cx: &mut Step<'_>, osd: OsdId) {
        let Role::Primary(p) = &mut self.role else { return };
        if !p.is_started() || !p.members.contains(&osd) {
            return;
        }
        let kind = SlotKind::Remote;
        match p.remote.remove(&osd) {
            // To be asked for again at the end of this step, if it is still needed.
            Some(_) => {}
            None => self.desk.send(cx, osd, Body::Release { kind }),
        }
    }
}

#[cfg(test)]
#[path = "slots_test.rs"]
mod tests;
