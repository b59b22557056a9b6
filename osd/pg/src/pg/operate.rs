//! Client operations at the primary: admission, the queue of each object, execution, and the change it leads to.
//!
//! An object's operations run in the order they came. Writes follow one another without waiting for replicas; a read
//! waits until no write of the object is on its way (what it sees must not be lost later), and a write waits for the
//! reads before it. So what a client sees is what survives.

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, SessionId, SnapId, Version};
use nacre_proto::txn::TxnOp;

use super::context::{Context, Known, Running};
use super::copy::source_of;
use super::replicate::Ordered;
use super::{Fault, OnRead, OpIds, PlacementGroup, Role};
use crate::exec::{Effect, Executed, Fetched, Stop, Target, run};
use crate::format::{Kind, open, seal, seal_with};
use crate::io::{ReadFault, ReadItem, ReadValue, Step};
use crate::log::{Change, Delta, LogEntry, Outcome, ReqId};
use crate::object::{CloneInfo, INFO_XATTR, ObjectInfo, TEMP_PREFIX, head_of};
use crate::op::{ClientOp, Op, OpError, OpId, OpResult, Reply, SnapContext};
use crate::view::pg_of_hash;

/// Reads the metadata record out of an object's stored xattrs.
pub(crate) fn info_of(xattrs: &[(Bytes, Bytes)]) -> Result<Option<ObjectInfo>, ReadFault> {
    match xattrs.iter().find(|(k, _)| k == INFO_XATTR) {
        None => Ok(None),
        Some((_, raw)) => open(Kind::Object, raw).map(Some).map_err(|_| ReadFault),
    }
}

pub(super) fn exists(info: Option<&ObjectInfo>) -> Option<&ObjectInfo> {
    info.filter(|i| !i.whiteout)
}

impl PlacementGroup {
    /// Puts an operation into its object's queue.
    pub(crate) fn enqueue(&mut self, cx: &mut Step<'_>, running: Box<Running>) {
        let oid = running.target();
        self.contexts.entry(oid.clone()).or_default().queue.push_back(running);
        self.pump(cx, &oid);
    }

    /// A client asks.
    pub(crate) fn on_op(&mut self, cx: &mut Step<'_>, op: ClientOp) {
        let again = Reply::Again { epoch: self.view.epoch };
        let stale = op.epoch < self.info.interval || pg_of_hash(op.oid.hash, self.view.pool.pg_num) != self.id.seed;
        let Role::Primary(p) = &self.role else {
            Self::reply(cx, [op.id], &again);
            return;
        };
        if stale {
            Self::reply(cx, [op.id], &again);
            return;
        }
        let writes = op.ops.iter().any(Op::writes);
        if op.oid.namespace.starts_with(TEMP_PREFIX)
            || (writes && op.ops.iter().any(|o| matches!(o, Op::Notify { .. })))
            || op.ops.iter().filter(|o| matches!(o, Op::CopyFrom { .. })).count() > 1
            || op.oid.name.is_empty()
            || op.ops.is_empty()
            || !op.snapc.is_valid()
        {
            let outcome = Err(OpError::Invalid { at: 0 });
            Self::reply(cx, [op.id], &Reply::Done { outcome, version: Version::default() });
            return;
        }
        if !p.is_active() {
            self.waiting.push_back(op);
            return;
        }
        if op.ops.iter().all(|o| matches!(o, Op::NotifyAck { .. })) {
            // Answers to notifies wait for nothing.
            let (session, n) = (op.reqid.session, op.ops.len());
            for o in op.ops {
                if let Op::NotifyAck { notify, cookie, payload } = o {
                    self.notify_ack(cx, session, notify, cookie, payload);
                }
            }
            let outcome = Ok(vec![OpResult::Done; n]);
            Self::reply(cx, [op.id], &Reply::Done { outcome, version: Version::default() });
            return;
        }
        if !writes && self.joins_notify(op.reqid, op.id) {
            return;
        }
        if writes && !self.cfg.is(Fault::DropRequestId) {
            if let Some(ids) = self.queued.get_mut(&op.reqid) {
                ids.push(op.id);
                return;
            }
            if let Some(dup) = self.log.reply_to(op.reqid) {
                let Role::Primary(p) = &mut self.role else { return };
                match p.inflight.iter_mut().find(|w| w.reqid == Some(op.reqid)) {
                    Some(w) => w.ids.push(op.id),
                    None => {
                        Self::reply(cx, [op.id], &Reply::Done { outcome: dup.outcome, version: dup.replied });
                    }
                }
                return;
            }
            if self.log.is_answered(op.reqid) {
                // A copy that was held up on the way. Nobody waits for it, and what it did may be long overwritten.
                let (outcome, version) = (Err(OpError::Invalid { at: 0 }), Version::default());
                Self::reply(cx, [op.id], &Reply::Done { outcome, version });
                return;
            }
        }
        if self.view.is_full()
            && let Some(at) = op.ops.iter().position(Op::grows)
        {
            let outcome = Err(OpError::Full { at: at as u32 });
            Self::reply(cx, [op.id], &Reply::Done { outcome, version: Version::default() });
            return;
        }
        let (reqid, id) = (op.reqid, op.id);
        if writes && let Some((from, version)) = source_of(&op.ops) {
            self.queued.insert(reqid, OpIds::one(id));
            self.begin_copy(cx, reqid, Running::new(op, OpIds::one(id), None), from, version);
            return;
        }
        let oid = head_of(&op.oid);
        let ids = OpIds::one(id);
        self.logged = None;
        let ctx = self.contexts.entry(oid.clone()).or_default();
        ctx.queue.push_back(Running::new(op, ids, None));
        self.pump(cx, &oid);
        // Most writes are logged at once.
        if writes && self.logged != Some(reqid) {
            self.queued.insert(reqid, OpIds::one(id));
        }
    }

    /// Runs what can run of an object's queue.
    pub(crate) fn pump(&mut self, cx: &mut Step<'_>, oid: &ObjectId) {
        let mut more = true;
        while more {
            let Some(ctx) = self.contexts.get(oid) else { return };
            let Some(front) = ctx.queue.front() else { return };
            let read_too_early = ctx.writes > 0 && !self.cfg.is(Fault::ReadUncommitted);
            if ctx.executing || (front.writes && ctx.readers > 0) || (!front.writes && read_too_early) {
                return;
            }
            let writes = front.writes;
            if self.is_held_back(oid, writes) {
                self.want_soon(cx, oid);
                return;
            }
            let head = match &ctx.known {
                Known::No => {
                    self.desk.read(cx, Some(oid.clone()), vec![ReadItem::Xattrs], OnRead::Load { oid: oid.clone() });
                    if let Some(ctx) = self.contexts.get_mut(oid) {
                        ctx.known = Known::Asked;
                    }
                    return;
                }
                Known::Asked => return,
                Known::Yes(info) => Some(info.clone()),
                Known::Damaged => None,
            };
            // A clone that is read, or rolled back to, must be here (and for writes: everywhere).
            let needed = ctx.clone_needed(oid);
            if !writes && !self.lease_holds(cx) {
                self.lease_waits.insert(oid.clone());
                return;
            }
            if let Some(clone) = needed
                && self.is_held_back(&clone, writes)
            {
                self.want_soon(cx, &clone);
                return;
            }
            let Some(ctx) = self.contexts.get_mut(oid) else { return };
            let Some(running) = ctx.queue.pop_front() else { return };
            more = !ctx.queue.is_empty();
            if let (true, [Op::Unwatch { cookie }]) = (running.internal, &*running.op.ops)
                && !self.watches.is_over(oid, running.op.reqid.session, *cookie, cx.now)
            {
                // Renewed meanwhile.
                continue;
            }
            match head {
                Some(head) => self.execute_on(cx, oid, running, head),
                None => self.refuse(cx, oid, &running, OpError::Damaged { at: 0 }),
            }
        }
    }

    /// A watch is over: its end is one more operation on the object.
    pub(crate) fn expire_watch(&mut self, cx: &mut Step<'_>, oid: &ObjectId, (session, cookie): (SessionId, u64)) {
        let op = ClientOp {
            id: OpId(0),
            reqid: ReqId { session, tid: 0 },
            acked_below: 0,
            epoch: self.view.epoch,
            oid: oid.clone(),
            snapc: SnapContext::default(),
            ops: vec![Op::Unwatch { cookie }],
        };
        let running = Running {
            op,
            ids: OpIds::default(),
            fetched: Fetched::default(),
            reading: None,
            writes: true,
            internal: true,
            copy: None,
        };
        self.contexts.entry(oid.clone()).or_default().queue.push_back(Box::new(running));
        self.pump(cx, oid);
    }

    pub(crate) fn on_loaded(&mut self, cx: &mut Step<'_>, oid: ObjectId, result: Result<Vec<ReadValue>, ReadFault>) {
        let Some(ctx) = self.contexts.get_mut(&oid) else { return };
        if !matches!(ctx.known, Known::Asked) {
            return;
        }
        let info = match result.as_deref() {
            Ok([ReadValue::Pairs(pairs, _)]) => info_of(pairs),
            _ => Err(ReadFault),
        };
        if let Err(ReadFault) = info
            && self.repair_here(cx, &oid, None)
        {
            self.pump(cx, &oid);
            return;
        }
        let Some(ctx) = self.contexts.get_mut(&oid) else { return };
        ctx.known = info.map_or(Known::Damaged, Known::Yes);
        self.found_watchers(cx, &oid);
        self.pump(cx, &oid);
    }

    pub(crate) fn on_fetched(
        &mut self,
        cx: &mut Step<'_>,
        mut running: Box<Running>,
        items: Vec<ReadItem>,
        result: Result<Vec<ReadValue>, ReadFault>,
    ) {
        let oid = head_of(&running.op.oid);
        let Some(ctx) = self.contexts.get_mut(&oid) else { return };
        if running.writes {
            ctx.executing = false;
        } else {
            ctx.readers -= 1;
        }
        match result {
            Ok(values) => {
                running.fetched.learn(items, values);
                self.execute(cx, &oid, running);
            }
            Err(ReadFault) => self.read_repair(cx, &oid, running),
        }
        self.pump(cx, &oid);
    }

    /// This osd's copy of a state cannot be read: it counts as missing, and another's takes its place. False if there is
    /// no other, or no telling which version is wanted: then a scrub is to look.
    fn repair_here(&mut self, cx: &mut Step<'_>, bad: &ObjectId, version: Option<Version>) -> bool {
        if self.missing.contains_key(bad) {
            return true;
        }
        let logged = || self.log.iter().rev().find(|e| e.oid == *bad && e.change != Change::Error)?.after();
        match version.or_else(logged) {
            Some(version) if self.view.pool.size > 1 => {
                self.lost_here(cx, bad.clone(), version);
                true
            }
            _ => {
                self.want_scrub(true, false);
                false
            }
        }
    }

    /// An operation met a damaged copy: it waits until a good one has come from another.
    fn read_repair(&mut self, cx: &mut Step<'_>, oid: &ObjectId, mut running: Box<Running>) {
        let bad = running.reading.take().unwrap_or_else(|| oid.clone());
        if !self.contexts.get(oid).is_some_and(|c| matches!(c.known, Known::Yes(_))) {
            // Another met it before, and the copy is being replaced.
            return self.begin_again(oid, running);
        }
        let version = if bad == *oid {
            self.contexts.get(oid).and_then(|c| if let Known::Yes(Some(i)) = &c.known { Some(i.version) } else { None })
        } else {
            running.fetched.xattrs().and_then(|x| info_of(x).ok().flatten()).map(|i| i.version)
        };
        if !self.repair_here(cx, &bad, version) {
            self.refuse(cx, oid, &running, OpError::Damaged { at: 0 });
            return;
        }
        self.begin_again(oid, running);
    }

    /// Puts an operation back to where it waited.
    fn begin_again(&mut self, oid: &ObjectId, mut running: Box<Running>) {
        running.fetched.forget();
        if let Some(ctx) = self.contexts.get_mut(oid) {
            ctx.queue.push_front(running);
        }
    }

    /// Goes on with an operation once what it needed was read.
    fn execute(&mut self, cx: &mut Step<'_>, oid: &ObjectId, running: Box<Running>) {
        let Some(Context { known, .. }) = self.contexts.get(oid) else { return };
        match known {
            Known::Yes(info) => self.execute_on(cx, oid, running, info.clone()),
            // What is stored was replaced while this one read it: begin again.
            Known::No | Known::Asked => self.begin_again(oid, running),
            Known::Damaged => self.refuse(cx, oid, &running, OpError::Damaged { at: 0 }),
        }
    }

    /// Runs one operation; what it still needs is read, and it is run again then.
    fn execute_on(&mut self, cx: &mut Step<'_>, oid: &ObjectId, running: Box<Running>, head: Option<ObjectInfo>) {
        let mut read_from = oid.clone();
        let mut state = exists(head.as_ref()).cloned();
        if running.op.oid.snap != SnapId::HEAD {
            match head.as_ref().and_then(|h| h.snaps.resolve(running.op.oid.snap)) {
                Some(SnapId::HEAD) => {}
                Some(id) => {
                    read_from.snap = id;
                    match running.fetched.xattrs() {
                        Some(pairs) => state = info_of(pairs).ok().flatten(),
                        None => return self.fetch(cx, oid, read_from, vec![ReadItem::Xattrs], running),
                    }
                }
                None => state = None,
            }
            // Writes to a snapshot are refused by the vector itself; keep the name the client used for that.
            if running.writes {
                read_from.snap = running.op.oid.snap;
            }
        }
        let target = Target {
            oid: &read_from,
            info: state.as_ref(),
            head: head.as_ref(),
            session: running.op.reqid.session,
            max_object: self.cfg.max_object,
            wall_ms: cx.wall_ms,
        };
        match run(&target, &running.fetched, &running.op.ops) {
            Err(Stop::Need(items)) => self.fetch(cx, oid, read_from, items, running),
            Err(Stop::Refuse(e)) => self.refuse(cx, oid, &running, e),
            Ok(done) if !running.writes => {
                let version = state.map_or(Version::default(), |i| i.changed);
                if done.effects.iter().any(|e| matches!(e, Effect::Notify { .. })) {
                    self.notify(cx, &running.op, running.ids.clone(), version, done.results);
                    return;
                }
                if let Some(asker) = &running.copy {
                    self.copy_read(cx, asker, version, Ok(done.results));
                    return;
                }
                Self::reply(cx, running.ids.iter(), &Reply::Done { outcome: Ok(done.results), version });
            }
            Ok(done) => {
                self.watch_effects(cx, oid, &done.effects);
                self.order_write(cx, oid, head, running, done);
                self.watchers_changed(cx, oid);
            }
        }
    }

    fn fetch(
        &mut self,
        cx: &mut Step<'_>,
        oid: &ObjectId,
        from: ObjectId,
        items: Vec<ReadItem>,
        mut running: Box<Running>,
    ) {
        if let Some(ctx) = self.contexts.get_mut(oid) {
            if running.writes {
                ctx.executing = true;
            } else {
                ctx.readers += 1;
            }
        }
        running.reading = Some(from.clone());
        self.desk.read(cx, Some(from), items, OnRead::Exec(running));
    }

    /// A refusal of a write is remembered like a write: its retry must be refused too.
    fn refuse(&mut self, cx: &mut Step<'_>, oid: &ObjectId, running: &Running, e: OpError) {
        if running.internal {
            return;
        }
        let known = match self.contexts.get(oid).map(|c| &c.known) {
            Some(Known::Yes(info)) => info.as_ref(),
            _ => None,
        };
        let prior = known.map(|i| i.version);
        let seen = exists(known).map(|i| i.changed).unwrap_or_default();
        if let Some(asker) = &running.copy {
            self.copy_read(cx, asker, seen, Err(e));
            return;
        }
        if !running.writes || self.cfg.is(Fault::ForgetErrors) {
            let ids = self.queued.remove(&running.op.reqid).unwrap_or_else(|| running.ids.clone());
            self.logged = Some(running.op.reqid);
            Self::reply(cx, ids.iter(), &Reply::Done { outcome: Err(e), version: seen });
            return;
        }
        self.order_nothing(cx, oid, running, prior, seen, Err(e));
    }

    fn order_nothing(
        &mut self,
        cx: &mut Step<'_>,
        oid: &ObjectId,
        running: &Running,
        prior: Option<Version>,
        seen: Version,
        outcome: Outcome,
    ) {
        let entry = LogEntry {
            version: self.next_version(0),
            oid: oid.clone(),
            prior,
            change: Change::Error,
            reqid: Some(running.op.reqid),
            acked_below: running.op.acked_below,
            outcome: Some(outcome),
            replied: Some(seen),
            delta: Delta::default(),
        };
        self.order(cx, oid, vec![entry], Vec::new(), running, seen, None);
    }

    /// Turns an executed vector into log entries and a transaction.
    fn order_write(
        &mut self,
        cx: &mut Step<'_>,
        oid: &ObjectId,
        head: Option<ObjectInfo>,
        running: Box<Running>,
        done: Executed,
    ) {
        let prior = head.as_ref().map(|h| h.version);
        if !done.modified && !done.watched {
            if running.internal {
                return;
            }
            let seen = exists(head.as_ref()).map(|h| h.changed).unwrap_or_default();
            self.order_nothing(cx, oid, &running, prior, seen, Ok(done.results));
            return;
        }
        let before = exists(head.as_ref());
        let mut ops = done.writes;
        let mut entries = Vec::with_capacity(1);
        let mut info = done.info;
        let snapc = &running.op.snapc;
        let removed = &self.view.pool.removed_snaps;
        // Who watches is not what a snapshot freezes.
        if done.modified && snapc.seq > info.snaps.seq {
            let mut fresh: Vec<SnapId> =
                snapc.snaps.iter().copied().filter(|s| *s > info.snaps.seq && !removed.contains(s)).collect();
            fresh.sort();
            if let (Some(was), Some(&id)) = (before, fresh.last())
                && !self.cfg.is(Fault::SkipClone)
            {
                let to = ObjectId { snap: id, ..oid.clone() };
                let version = self.next_version(0);
                let frozen = ObjectInfo {
                    version,
                    changed: was.changed,
                    size: was.size,
                    digest: was.digest,
                    clone_of: fresh.clone(),
                    ..ObjectInfo::default()
                };
                // Before anything changes.
                ops.insert(0, TxnOp::Clone { from: oid.clone(), to: to.clone() });
                ops.insert(1, set_info(&to, &frozen));
                info.snaps.clones.push(CloneInfo { id, snaps: fresh, size: was.size, overlap: vec![(0, was.size)] });
                entries.push(LogEntry {
                    version,
                    oid: to,
                    prior: None,
                    change: Change::Modify,
                    reqid: None,
                    acked_below: 0,
                    outcome: None,
                    replied: None,
                    delta: Delta { objects: 0, clones: 1, bytes: was.size as i64 },
                });
            }
            info.snaps.seq = snapc.seq;
        }
        for &(from, to) in &done.dirty {
            info.snaps.unshare(from, to);
        }
        let version = self.next_version(entries.len() as u64);
        info.version = version;
        if done.modified {
            info.changed = version;
        }
        let changed = info.changed;
        let mut after = Some(info);
        let mut change = Change::Modify;
        if !done.exists {
            if after.as_ref().is_some_and(|i| i.snaps.clones.is_empty()) {
                after = None;
                change = Change::Delete;
            } else if let Some(i) = &mut after {
                i.whiteout = true;
                ops.push(TxnOp::Touch { oid: oid.clone() });
            }
        }
        if let Some(i) = &after {
            let value = seal_with(&mut self.desk.pen, Kind::Object, i);
            ops.push(TxnOp::SetXattr { oid: oid.clone(), name: Bytes::from_static(INFO_XATTR), value });
        }
        let (was, is) = (before, exists(after.as_ref()));
        let delta = Delta {
            objects: i64::from(is.is_some()) - i64::from(was.is_some()),
            clones: 0,
            bytes: is.map_or(0, |i| i.size) as i64 - was.map_or(0, |i| i.size) as i64,
        };
        entries.push(LogEntry {
            version,
            oid: oid.clone(),
            prior,
            change,
            reqid: running.reqid(),
            acked_below: running.op.acked_below,
            outcome: running.reqid().map(|_| Ok(done.results)),
            replied: (changed != version).then_some(changed),
            delta,
        });
        self.order(cx, oid, entries, ops, &running, changed, Some(after));
    }

    /// `after`: how it leaves the head, if it changes it.
    #[expect(clippy::too_many_arguments, reason = "the parts of one write, gathered once")]
    fn order(
        &mut self,
        cx: &mut Step<'_>,
        oid: &ObjectId,
        entries: Vec<LogEntry>,
        ops: Vec<TxnOp>,
        running: &Running,
        reply_version: Version,
        after: Option<Option<ObjectInfo>>,
    ) {
        let reqid = running.reqid();
        let ids = match reqid {
            Some(r) => self.queued.remove(&r).unwrap_or_else(|| running.ids.clone()),
            None => OpIds::default(),
        };
        self.logged = reqid;
        if let Some(ctx) = self.contexts.get_mut(oid) {
            ctx.writes += 1;
            if let Some(after) = after {
                ctx.known = Known::Yes(after);
            }
        }
        self.spread(cx, Ordered { oid: oid.clone(), entries, ops, local: None, reqid, ids, reply_version });
    }

    /// A write is safe on all members.
    pub(crate) fn write_done(&mut self, cx: &mut Step<'_>, oid: &ObjectId) {
        let Some(ctx) = self.contexts.get_mut(oid) else { return };
        ctx.writes = ctx.writes.saturating_sub(1);
        if !ctx.queue.is_empty() {
            self.pump(cx, oid);
        }
    }

    /// Idle contexts beyond the number kept are forgotten.
    pub(crate) fn trim_contexts(&mut self) {
        if self.contexts.len() > self.cfg.contexts {
            self.contexts.retain(|_, c| !c.is_idle());
        }
    }
}

pub(crate) fn set_info(oid: &ObjectId, info: &ObjectInfo) -> TxnOp {
    TxnOp::SetXattr { oid: oid.clone(), name: Bytes::from_static(INFO_XATTR), value: seal(Kind::Object, info) }
}

#[cfg(test)]
#[path = "operate_test.rs"]
mod tests;

#[cfg(test)]
#[path = "full_test.rs"]
mod full_tests;
