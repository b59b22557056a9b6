//! Watches and notifies at the primary.
//!
//! Who watches is stored with the object and outlives a primary; what is here is what only the present primary knows:
//! until when each watch lasts, and the notifies under way. A new primary gives every watch it finds its whole time
//! anew. A client renews its watch by asking for it again, at once when it sees a new interval or connection; what it had
//! not answered is then told again. So a notify reaches a watcher at least once while its watch lasts.
//!
//! A notify is over when every watcher it was for has answered, has gone, or its time is up; it says who answered what
//! and who did not. It is not logged: an interval's end sends the client to the new primary, to begin it again.
//!
//! Invariants: a notify waits only for those the object's record names; timers of a former interval find nothing.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, SessionId, Version};

use super::{OpIds, PlacementGroup, Role};
use crate::exec::Effect;
use crate::io::{Duration, Output, Step, Time, TimerId};
use crate::log::ReqId;
use crate::op::{ClientOp, Op, OpId, OpResult, Reply};

/// What is meant by no time given.
const DEFAULT_MS: u64 = 30_000;
/// The longest time that can be asked for.
const LONGEST_MS: u64 = 600_000;

fn span(ms: u64) -> Duration {
    Duration::ms(if ms == 0 { DEFAULT_MS } else { ms.min(LONGEST_MS) })
}

/// One watch: whose, under which cookie.
type Watcher = (SessionId, u64);

#[derive(Debug)]
struct Live {
    id: u64,
    until: Time,
    /// A timer is set. None is while its end, which may be held back with the object, is under way.
    armed: bool,
}

#[derive(Debug)]
struct Notify {
    oid: ObjectId,
    reqid: ReqId,
    ids: OpIds,
    version: Version,
    payload: Bytes,
    /// What the vector answers, and where in it the notify's own answer goes.
    results: Vec<OpResult>,
    at: usize,
    waiting: BTreeSet<Watcher>,
    acks: Vec<(Watcher, Bytes)>,
    missed: Vec<Watcher>,
}

/// What the primary knows of watches.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    live: BTreeMap<(ObjectId, Watcher), Live>,
    by_id: BTreeMap<u64, (ObjectId, Watcher)>,
    notifies: BTreeMap<u64, Notify>,
    /// Of this run of the osd; never starts again.
    next: u64,
}

impl Watches {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Has this watch outlasted its time (or its session).
    pub(crate) fn is_over(&self, oid: &ObjectId, session: SessionId, cookie: u64, now: Time) -> bool {
        self.live.get(&(oid.clone(), (session, cookie))).is_none_or(|l| l.until <= now)
    }

    fn end(&mut self, oid: &ObjectId, who: Watcher) {
        if let Some(l) = self.live.remove(&(oid.clone(), who)) {
            self.by_id.remove(&l.id);
        }
    }

    /// The interval is over: whoever waits for a notify's end.
    pub(crate) fn clear(&mut self) -> Vec<OpId> {
        self.live.clear();
        self.by_id.clear();
        std::mem::take(&mut self.notifies).into_values().flat_map(|n| n.ids.iter().collect::<Vec<_>>()).collect()
    }
}

impl PlacementGroup {
    fn keep_watch(&mut self, cx: &mut Step<'_>, oid: &ObjectId, who: Watcher, last: Duration, renew: bool) {
        let until = cx.now + last;
        if let Some(l) = self.watches.live.get_mut(&(oid.clone(), who)) {
            if renew {
                l.until = until;
                if !std::mem::replace(&mut l.armed, true) {
                    cx.out.push(Output::Arm { id: TimerId::Watch { watch: l.id }, at: until });
                }
            }
            return;
        }
        let id = self.watches.number();
        self.watches.live.insert((oid.clone(), who), Live { id, until, armed: true });
        self.watches.by_id.insert(id, (oid.clone(), who));
        cx.out.push(Output::Arm { id: TimerId::Watch { watch: id }, at: until });
    }

    /// An object's record was read: whoever it names is given time to come forward.
    pub(crate) fn found_watchers(&mut self, cx: &mut Step<'_>, oid: &ObjectId) {
        let Some(info) = self.contexts.get(oid).and_then(|c| c.info()) else { return };
        let found: Vec<(Watcher, u64)> = info.watchers.iter().map(|(w, ms)| (*w, *ms)).collect();
        for (who, ms) in found {
            self.keep_watch(cx, oid, who, span(ms), false);
        }
    }

    /// What a vector did to watches, once it is ordered.
    pub(crate) fn watch_effects(&mut self, cx: &mut Step<'_>, oid: &ObjectId, effects: &[Effect]) {
        for e in effects {
            match e {
                Effect::Watch { session, cookie, timeout_ms } => {
                    let who = (*session, *cookie);
                    self.keep_watch(cx, oid, who, span(*timeout_ms), true);
                    // It may not have heard what is under way.
                    for (&notify, n) in &self.watches.notifies {
                        if n.oid == *oid && n.waiting.contains(&who) {
                            tell(cx, notify, n, who);
                        }
                    }
                }
                Effect::Unwatch { session, cookie } => self.watches.end(oid, (*session, *cookie)),
                Effect::Notify { .. } => {}
            }
        }
    }

    /// The object's record may name fewer than before: nobody waits for those.
    pub(crate) fn watchers_changed(&mut self, cx: &mut Step<'_>, oid: &ObjectId) {
        if self.watches.live.is_empty() && self.watches.notifies.is_empty() {
            return;
        }
        let info = self.contexts.get(oid).and_then(|c| c.info());
        let left: BTreeSet<Watcher> = info.map(|i| i.watchers.keys().copied().collect()).unwrap_or_default();
        let gone: Vec<Watcher> = self
            .watches
            .live
            .range((oid.clone(), (SessionId(0), 0))..)
            .take_while(|((o, _), _)| o == oid)
            .map(|((_, w), _)| *w)
            .filter(|w| !left.contains(w))
            .collect();
        for who in gone {
            self.watches.end(oid, who);
        }
        let mut over = Vec::new();
        for (&id, n) in self.watches.notifies.iter_mut().filter(|(_, n)| n.oid == *oid) {
            let missed: Vec<Watcher> = n.waiting.difference(&left).copied().collect();
            for who in missed {
                n.waiting.remove(&who);
                n.missed.push(who);
            }
            if n.waiting.is_empty() {
                over.push(id);
            }
        }
        for id in over {
            self.notify_over(cx, id);
        }
    }

    /// A retry of a notify that is under way.
    pub(crate) fn joins_notify(&mut self, reqid: ReqId, id: OpId) -> bool {
        let n = self.watches.notifies.values_mut().find(|n| n.reqid == reqid);
        n.map(|n| n.ids.push(id)).is_some()
    }

    /// Tells everyone who watches, and waits.
    pub(crate) fn notify(
        &mut self,
        cx: &mut Step<'_>,
        op: &ClientOp,
        ids: OpIds,
        version: Version,
        results: Vec<OpResult>,
    ) {
        let found = op.ops.iter().enumerate().find_map(|(i, o)| match o {
            Op::Notify { payload, timeout_ms } => Some((i, payload.clone(), *timeout_ms)),
            _ => None,
        });
        let Some((at, payload, timeout_ms)) = found else { return };
        let oid = crate::object::head_of(&op.oid);
        let info = self.contexts.get(&oid).and_then(|c| c.info());
        let waiting: BTreeSet<Watcher> = info.map(|i| i.watchers.keys().copied().collect()).unwrap_or_default();
        // Told apart from the notifies of every other interval of the pg.
        let id = self.info.interval.0 << 32 | (self.watches.number() & u64::from(u32::MAX));
        let (acks, missed) = (Vec::new(), Vec::new());
        let n = Notify { oid, reqid: op.reqid, ids, version, payload, results, at, waiting, acks, missed };
        for &who in &n.waiting {
            tell(cx, id, &n, who);
        }
        let nobody = n.waiting.is_empty();
        self.watches.notifies.insert(id, n);
        if nobody {
            self.notify_over(cx, id);
        } else {
            cx.out.push(Output::Arm { id: TimerId::Notify { notify: id }, at: cx.now + span(timeout_ms) });
        }
    }

    /// A watcher answers. An answer to what is over, or was never asked of it, is nothing.
    pub(crate) fn notify_ack(
        &mut self,
        cx: &mut Step<'_>,
        session: SessionId,
        notify: u64,
        cookie: u64,
        payload: Bytes,
    ) {
        let Some(n) = self.watches.notifies.get_mut(&notify) else { return };
        if !n.waiting.remove(&(session, cookie)) {
            return;
        }
        n.acks.push(((session, cookie), payload));
        if n.waiting.is_empty() {
            self.notify_over(cx, notify);
        }
    }

    /// All have answered, or its time is up.
    pub(crate) fn notify_over(&mut self, cx: &mut Step<'_>, id: u64) {
        let Some(mut n) = self.watches.notifies.remove(&id) else { return };
        n.missed.extend(n.waiting);
        if let Some(r) = n.results.get_mut(n.at) {
            *r = OpResult::Notified { notify: id, acks: n.acks, missed: n.missed };
        }
        Self::reply(cx, n.ids.iter(), &Reply::Done { outcome: Ok(n.results), version: n.version });
    }

    /// A watch's time may be up.
    pub(crate) fn watch_timer(&mut self, cx: &mut Step<'_>, id: u64) {
        let Some((oid, who)) = self.watches.by_id.get(&id).cloned() else { return };
        let Some(l) = self.watches.live.get_mut(&(oid.clone(), who)) else { return };
        if l.until > cx.now {
            cx.out.push(Output::Arm { id: TimerId::Watch { watch: id }, at: l.until });
            return;
        }
        l.armed = false;
        self.expire_watch(cx, &oid, who);
    }

    /// A session is over, by the map: its watches have no time left.
    pub(crate) fn session_gone(&mut self, cx: &mut Step<'_>, session: SessionId) {
        if !matches!(self.role, Role::Primary(_)) {
            return;
        }
        let gone: Vec<(ObjectId, Watcher)> =
            self.watches.live.keys().filter(|(_, (s, _))| *s == session).cloned().collect();
        for (oid, who) in gone {
            if let Some(l) = self.watches.live.get_mut(&(oid.clone(), who)) {
                l.until = Time(0);
            }
            self.expire_watch(cx, &oid, who);
        }
    }
}

fn tell(cx: &mut Step<'_>, notify: u64, n: &Notify, (session, cookie): Watcher) {
    let (oid, payload) = (n.oid.clone(), n.payload.clone());
    cx.out.push(Output::Notify { session, cookie, notify, oid, payload });
}

#[cfg(test)]
#[path = "watch_test.rs"]
mod tests;
