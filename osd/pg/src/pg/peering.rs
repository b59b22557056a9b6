//! From a new interval to active: whom to hear, whose log is right, who is to serve, and making that durable.
//!
//! `get_info` asks everyone of the prior set; `get_log` takes over the authoritative log if another holds it;
//! `wait_up_thru` lets the map record that this primary lives in this interval, so that a later one knows it may have
//! taken writes; `wait_lease` lets the old primary's read lease run out; `activating` makes the log durable on every member,
//! each of which answers with what it lacks. In this order, since a durable activation stands for what was before it: also
//! for promises to older primaries, of which nobody asks any more. Reasons: docs/internals/last-activation.md.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use nacre_proto::ids::{Epoch, ObjectId, OsdId, Version};
use nacre_proto::txn::TxnOp;

use super::backfill::Backfill;
use super::recount::Recount;
use super::recover::Recover;
use super::replicate::Write;
use super::scrub::{Scrub, Wanted};
use super::trim::Trim;
use super::{Fault, OnCommit, PlacementGroup, Role, drifted};
use crate::io::{Duration, Output, Request, Step, Time, TimerId};
use crate::log::{Dups, LogPart, Missing};
use crate::msg::{Body, Cursor};
use crate::state::{Info, Stats};
use crate::view::{PastIntervals, PriorSet};

/// What a primary knows of another holder.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) info: Info,
    /// Known once it has activated (a member) or was asked (a stray).
    pub(crate) missing: Option<Missing>,
}

/// Where the primary stands on the way to active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    GetInfo { waiting: BTreeSet<OsdId> },
    Down,
    Incomplete,
    WaitActing { want: Vec<OsdId> },
    GetLog { from: OsdId },
    WaitUpThru,
    WaitLease,
    Activating { waiting: BTreeSet<OsdId> },
    Active,
    Peered,
}

impl Stage {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Stage::GetInfo { .. } => "get_info",
            Stage::Down => "down",
            Stage::Incomplete => "incomplete",
            Stage::WaitActing { .. } => "wait_acting",
            Stage::GetLog { .. } => "get_log",
            Stage::WaitUpThru => "wait_up_thru",
            Stage::WaitLease => "wait_lease",
            Stage::Activating { .. } => "activating",
            Stage::Active => "active",
            Stage::Peered => "peered",
        }
    }
}

/// What only a primary has. Dropped whole at the end of its interval, but for the scrub it was to do.
#[derive(Debug)]
pub(crate) struct Primary {
    pub(crate) stage: Stage,
    pub(crate) prior: PriorSet,
    pub(crate) peers: BTreeMap<OsdId, Peer>,
    /// Members besides this osd: acting, and those of up that are being filled.
    pub(crate) members: BTreeSet<OsdId>,
    /// No activation before this: an older primary may still answer reads.
    pub(crate) old_lease: Time,
    /// What was promised to older primaries: by whom, to whom (none: it forgot), until when at the latest.
    pub(crate) promises: Vec<(OsdId, Option<OsdId>, Time)>,
    /// Up to where each member (this osd too) has made writes durable.
    pub(crate) durable: BTreeMap<OsdId, Version>,
    pub(crate) inflight: VecDeque<Write>,
    /// Everything up to here is durable on all.
    pub(crate) committed: Version,
    /// When each acting member's promise ends.
    pub(crate) leases: BTreeMap<OsdId, Time>,
    pub(crate) lease_asked: Option<Time>,
    pub(crate) recover: Recover,
    pub(crate) backfill: Option<Backfill>,
    pub(crate) scrub: Option<Scrub>,
    /// A scrub is to begin when the pg is clean: a deep one.
    pub(crate) scrub_wanted: Option<Wanted>,
    pub(crate) recount: Option<Recount>,
    pub(crate) trim: Option<Trim>,
    /// Slots asked of members; true: granted.
    pub(crate) remote: BTreeMap<OsdId, bool>,
    /// Who came forward with a copy and is no member: to be told when it is no longer needed.
    pub(crate) strays: BTreeSet<OsdId>,
    pub(crate) clean: bool,
    pub(crate) asked_temp: bool,
}

impl Primary {
    pub(crate) fn new() -> Primary {
        Primary {
            stage: Stage::GetInfo { waiting: BTreeSet::new() },
            prior: PriorSet::default(),
            peers: BTreeMap::new(),
            members: BTreeSet::new(),
            old_lease: Time(0),
            promises: Vec::new(),
            durable: BTreeMap::new(),
            inflight: VecDeque::new(),
            committed: Version::default(),
            leases: BTreeMap::new(),
            lease_asked: None,
            recover: Recover::default(),
            backfill: None,
            scrub: None,
            scrub_wanted: None,
            recount: None,
            trim: None,
            remote: BTreeMap::new(),
            strays: BTreeSet::new(),
            clean: false,
            asked_temp: false,
        }
    }

    /// Activated and durable: recovery runs; operations if not below min_size.
    pub(crate) fn is_started(&self) -> bool {
        matches!(self.stage, Stage::Active | Stage::Peered)
    }

    pub(crate) fn is_active(&self) -> bool {
        self.stage == Stage::Active
    }

    pub(crate) fn check(&self, pg: &PlacementGroup) {
        assert!(
            self.inflight.is_empty() || self.is_active(),
            "pg {}: writes in flight while {}",
            pg.id,
            self.stage.name()
        );
        assert!(self.committed <= pg.info.last_update, "pg {}: committed past the log", pg.id);
        if self.clean {
            assert!(pg.missing.is_empty(), "pg {}: clean, but objects are missing", pg.id);
        }
    }
}

impl PlacementGroup {
    fn stage(&mut self, cx: &mut Step<'_>, to: Stage, by: &'static str) {
        let from = self.state();
        if let Role::Primary(p) = &mut self.role {
            p.stage = to;
        }
        self.moved(cx, from, by);
    }

    fn prior_set(&self) -> PriorSet {
        self.prior_set_since(self.info.history.started)
    }

    fn prior_set_since(&self, started: Epoch) -> PriorSet {
        let none = PastIntervals::default();
        let past = if self.cfg.is(Fault::IgnorePast) { &none } else { &self.past };
        PriorSet::build(&self.view, past, started)
    }

    /// Without whom nothing may be chosen, now that all who are up were heard.
    ///
    /// A start that not all made durable says as much of the past as one that all did: the log it chose has what was
    /// acknowledged before it, and a complete copy that made it durable has that log, or a later choice. Such a copy
    /// stands for the intervals that ended before; what the started interval itself took may be on others alone.
    fn blocked_by(&self, p: &Primary) -> BTreeSet<OsdId> {
        let others = p.peers.iter().filter(|(o, _)| self.view.osd(**o).up).map(|(_, q)| &q.info);
        let stands = others.chain(std::iter::once(&self.info)).filter(|i| i.is_complete()).map(|i| i.started).max();
        self.prior_set_since(self.info.history.started.max(stands.unwrap_or_default())).blocked_by
    }

    /// Asks everyone of the prior set who has not answered yet.
    pub(crate) fn ask_infos(&mut self, cx: &mut Step<'_>) {
        let prior = self.prior_set();
        let (me, history, past) = (self.me, self.info.history, self.past.clone());
        if self.promise_bound() {
            let own = (me, self.promise.holder.map(|(osd, _)| osd), self.promise.until);
            if let Role::Primary(p) = &mut self.role {
                p.promises.retain(|(by, ..)| *by != me);
                p.promises.push(own);
            }
        }
        let Role::Primary(p) = &mut self.role else { return };
        let waiting: BTreeSet<OsdId> =
            prior.probe.iter().copied().filter(|o| *o != me && !p.peers.contains_key(o)).collect();
        for &to in &waiting {
            self.desk.send(cx, to, Body::Query { history, past: past.clone() });
        }
        p.prior = prior;
        p.stage = Stage::GetInfo { waiting };
    }

    fn promise_bound(&self) -> bool {
        !self.promise_waived() && self.promise.until > Time(0)
    }

    /// Starts again from the question, in the same interval: what was heard may no longer hold.
    fn restart(&mut self, cx: &mut Step<'_>, by: &'static str) {
        let from = self.state();
        if let Role::Primary(p) = &mut self.role {
            let (old_lease, promises) = (p.old_lease, std::mem::take(&mut p.promises));
            let strays = std::mem::take(&mut p.strays);
            let strays = if self.cfg.is(Fault::ForgetStrays) { BTreeSet::new() } else { strays };
            let scrub_wanted = p.scrub_left();
            **p = Primary { old_lease, promises, strays, scrub_wanted, ..Primary::new() };
        }
        self.ask_infos(cx);
        self.moved(cx, from, by);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn on_info(
        &mut self,
        cx: &mut Step<'_>,
        from: OsdId,
        info: Info,
        past: &PastIntervals,
        lease: Duration,
        holder: Option<OsdId>,
        asked: bool,
    ) {
        if !matches!(self.role, Role::Primary(_)) {
            return;
        }
        let before = self.info.history;
        self.learn(&info.history, past);
        let me = self.me;
        let until = cx.now + lease;
        let learned = self.info.history != before;
        let Role::Primary(p) = &mut self.role else { return };
        if lease.0 > 0 && !p.is_started() {
            p.promises.retain(|(by, ..)| *by != from);
            p.promises.push((from, holder, until));
        }
        let started = p.is_started() || matches!(p.stage, Stage::Activating { .. });
        if started && p.members.contains(&from) {
            return;
        }
        if p.is_started() && p.clean {
            // A spare copy came back; all its data is on the members.
            self.desk.send(cx, from, Body::Remove);
            return;
        }
        if !asked {
            p.strays.insert(from);
        }
        p.peers.insert(from, Peer { info, missing: None });
        if let Stage::GetInfo { waiting } = &mut p.stage {
            waiting.remove(&from);
            // What it told may widen or narrow whom to hear.
            if learned {
                let prior = self.prior_set();
                let (history, past) = (self.info.history, self.past.clone());
                let Role::Primary(p) = &mut self.role else { return };
                let Stage::GetInfo { waiting } = &mut p.stage else { return };
                for &to in prior.probe.difference(&p.prior.probe) {
                    if to != me && !p.peers.contains_key(&to) {
                        waiting.insert(to);
                        self.desk.send(cx, to, Body::Query { history, past: past.clone() });
                    }
                }
                waiting.retain(|o| prior.probe.contains(o));
                p.prior = prior;
            }
        } else if p.is_started() {
            self.search_again(from);
            // It may have been away while it was asked for a piece.
            if !self.cfg.is(Fault::LosePulls) {
                self.resend_recovery(cx, from);
            }
        } else if matches!(p.stage, Stage::Incomplete | Stage::Down) {
            self.restart(cx, "info");
        }
    }

    /// The next epoch of the interval.
    pub(crate) fn peering_map(&mut self, cx: &mut Step<'_>) {
        let prior = self.prior_set();
        let view = std::sync::Arc::clone(&self.view);
        let Role::Primary(p) = &mut self.role else { return };
        match p.stage {
            Stage::Active | Stage::Peered | Stage::Activating { .. } => {
                // Strays that went down can help no more.
                let members = p.members.clone();
                p.peers.retain(|o, _| members.contains(o) || view.osd(*o).up);
                if !self.cfg.is(Fault::LosePulls) {
                    p.forget_pulls();
                }
            }
            Stage::WaitActing { .. } | Stage::Down | Stage::Incomplete => self.restart(cx, "map"),
            _ if prior != p.prior => self.restart(cx, "map"),
            _ => {}
        }
    }

    /// Moves peering on as far as it can go: called at the end of every step.
    pub(crate) fn peering_settle(&mut self, cx: &mut Step<'_>) {
        let Role::Primary(p) = &self.role else { return };
        match &p.stage {
            // Own writes on their way to the disk could still be lost: the choice waits for them too.
            Stage::GetInfo { waiting } if waiting.is_empty() && self.desk.commits.is_empty() => self.choose(cx),
            Stage::WaitUpThru if self.is_recorded() => self.activate_after_lease(cx, "map"),
            _ => {}
        }
    }

    fn is_recorded(&self) -> bool {
        self.cfg.is(Fault::SkipUpThru) || self.view.osd(self.me).up_thru >= self.info.interval
    }

    /// All were heard: whose log is right, and who is to serve?
    fn choose(&mut self, cx: &mut Step<'_>) {
        let Role::Primary(p) = &self.role else { return };
        let blocked_by = self.blocked_by(p);
        if !blocked_by.is_empty() {
            // Only here: elsewhere the set is compared with that of the next map.
            if let Role::Primary(p) = &mut self.role {
                p.prior.blocked_by = blocked_by;
            }
            self.stage(cx, Stage::Down, "infos");
            return;
        }
        if !p.prior.blocked_by.is_empty() {
            // Who could have told what it promised in those intervals is not here: no promise outlasts a whole lease.
            let until = cx.now + drifted(self.cfg.lease, &self.cfg, true);
            if let Role::Primary(p) = &mut self.role {
                p.old_lease = p.old_lease.max(until);
            }
        }
        let Role::Primary(p) = &self.role else { return };
        let mut infos: BTreeMap<OsdId, &Info> = p.peers.iter().map(|(o, q)| (*o, &q.info)).collect();
        infos.insert(self.me, &self.info);
        let started = infos
            .values()
            .map(|i| if i.is_complete() { i.started.max(i.history.started) } else { i.history.started })
            .max()
            .unwrap_or_default();
        let longest = self.cfg.is(Fault::LongestLog);
        let shortest = self.cfg.is(Fault::ShortestLog);
        let best = infos
            .iter()
            .filter(|(_, i)| i.is_complete() && (longest || shortest || i.started >= started))
            .max_by_key(|(o, i)| {
                let update =
                    if longest { Version { epoch: Epoch(0), counter: i.last_update.counter } } else { i.last_update };
                let update =
                    if shortest { Version { epoch: Epoch(0), counter: u64::MAX - update.counter } } else { update };
                (update, std::cmp::Reverse(i.log_tail), **o == self.me, std::cmp::Reverse(**o))
            })
            .map(|(o, i)| (*o, (*i).clone()));
        let Some((best, auth)) = best else {
            self.stage(cx, Stage::Incomplete, "infos");
            return;
        };
        let usable = |o: OsdId| {
            infos.get(&o).is_some_and(|i| i.is_complete() && i.last_update >= auth.log_tail) && self.view.osd(o).up
        };
        let want = self.wanted(&usable, &infos);
        let ask_temp = want != self.view.acting;
        let auth_is_mine = best == self.me;
        if ask_temp {
            let temp = if want == self.view.up { Vec::new() } else { want.clone() };
            cx.out.push(Output::Ask(Request::PgTemp(temp)));
            self.stage(cx, Stage::WaitActing { want }, "infos");
        } else if auth_is_mine {
            self.log_is_right(cx, "infos");
        } else {
            self.desk.send(cx, best, Body::QueryLog { since: self.info.last_update });
            self.stage(cx, Stage::GetLog { from: best }, "infos");
        }
    }

    /// Who should serve: `up` if all of it can, else those who hold the data while the rest is filled.
    fn wanted(&self, usable: &dyn Fn(OsdId) -> bool, infos: &BTreeMap<OsdId, &Info>) -> Vec<OsdId> {
        let view = &self.view;
        if view.up.iter().all(|o| usable(*o)) && !view.up.is_empty() {
            return view.up.clone();
        }
        let mut want: Vec<OsdId> = view.up.iter().copied().filter(|o| usable(*o)).collect();
        let rest: BTreeSet<OsdId> = infos.keys().copied().collect();
        for o in view.acting.iter().chain(&rest) {
            if want.len() < view.pool.size as usize && usable(*o) && !want.contains(o) {
                want.push(*o);
            }
        }
        // As good as what stands: leave it.
        if view.acting.len() == want.len() && view.acting.iter().all(|o| usable(*o)) {
            return view.acting.clone();
        }
        want
    }

    /// The authoritative log has come.
    pub(crate) fn on_log(&mut self, cx: &mut Step<'_>, from: OsdId, part: &LogPart, dups: &Dups, stats: Stats) {
        let Role::Primary(p) = &self.role else { return };
        if p.stage != (Stage::GetLog { from }) || !part.is_sound() {
            return;
        }
        let recount = p.peers.get(&from).is_some_and(|q| q.info.recount);
        let mut ops = Vec::new();
        if !self.take_log(part, dups, &mut ops) {
            // It ends before the other begins, which the infos deny: ask anew.
            self.restart(cx, "gap");
            return;
        }
        self.info.stats = stats;
        self.info.recount = recount;
        ops.push(self.keep_info());
        self.desk.submit(cx, ops, OnCommit::Nothing);
        self.log_is_right(cx, "log");
    }

    /// Merges the authoritative log into this replica's; false if they have nothing in common.
    fn take_log(&mut self, part: &LogPart, dups: &Dups, ops: &mut Vec<TxnOp>) -> bool {
        let backfilled = self.info.backfilled.clone();
        let Some(mut merge) =
            self.log.merge(part, dups, &self.missing, |oid| backfilled.covers(&crate::object::head_of(oid)))
        else {
            return false;
        };
        if merge.rewound > 0 && self.cfg.is(Fault::KeepDivergent) {
            let appended: BTreeSet<&ObjectId> = merge.appended.iter().map(|e| &e.oid).collect();
            merge.missing.retain(|(o, _)| appended.contains(o));
            merge.remove.clear();
        }
        if merge.rewound > 0 {
            ops.push(TxnOp::LogRewind { after: merge.common });
        }
        ops.extend(merge.appended.iter().map(|e| Self::keep_entry(e)));
        ops.extend(merge.remove.into_iter().map(|oid| TxnOp::Remove { oid }));
        for (oid, item) in merge.missing {
            self.set_missing(oid, item, ops);
        }
        self.keep_dups(ops);
        self.info.last_update = self.log.head();
        self.info.log_tail = self.log.tail();
        true
    }

    fn log_is_right(&mut self, cx: &mut Step<'_>, by: &'static str) {
        if self.is_recorded() {
            self.activate_after_lease(cx, by);
        } else {
            cx.out.push(Output::Ask(Request::UpThru));
            self.stage(cx, Stage::WaitUpThru, by);
        }
    }

    /// Activates once no older primary may answer reads.
    fn activate_after_lease(&mut self, cx: &mut Step<'_>, by: &'static str) {
        let until = self.old_lease_until();
        if until > cx.now && !self.cfg.is(Fault::IgnoreOldLease) {
            cx.out.push(Output::Arm { id: TimerId::OldLease { interval: self.info.interval.0 }, at: until });
            self.stage(cx, Stage::WaitLease, by);
        } else {
            self.activate(cx, by);
        }
    }

    /// Makes the chosen log durable here and on every member.
    pub(super) fn activate(&mut self, cx: &mut Step<'_>, by: &'static str) {
        // Below min_size nothing is decided: past intervals do not count such a one, so nobody must ask for its log.
        if self.is_enough() || self.cfg.is(Fault::StartBelowMin) {
            self.info.started = self.info.interval;
        }
        let mut ops = vec![self.keep_info(), self.keep_past()];
        self.keep_dups(&mut ops);
        self.desk.submit(cx, ops, OnCommit::Activation);
        let members: BTreeSet<OsdId> =
            self.view.up.iter().chain(&self.view.acting).copied().filter(|o| *o != self.me).collect();
        let mut waiting = members.clone();
        waiting.insert(self.me);
        if let Role::Primary(p) = &mut self.role {
            p.members.clone_from(&members);
        }
        for &to in &members {
            self.send_activate(cx, to);
        }
        self.stage(cx, Stage::Activating { waiting }, by);
        if self.cfg.is(Fault::ActivateEarly) {
            self.all_activated(cx);
        }
    }

    fn send_activate(&mut self, cx: &mut Step<'_>, to: OsdId) {
        let Role::Primary(p) = &self.role else { return };
        let theirs = p.peers.get(&to).map(|q| &q.info);
        let since = theirs.map_or(Version::default(), |i| i.last_update);
        // A log that ends before ours begins cannot be joined: that member starts anew and is backfilled.
        let reset = since < self.log.tail();
        let part = self.log.part(self.log.floor(since));
        let (info, past, dups) = (Box::new(self.info.clone()), self.past.clone(), self.log.dups().clone());
        self.desk.send(cx, to, Body::Activate { info, past, part, dups, reset });
    }

    /// Member: the primary tells the log.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn on_activate(
        &mut self,
        cx: &mut Step<'_>,
        from: OsdId,
        info: &Info,
        past: &PastIntervals,
        part: &LogPart,
        dups: &Dups,
        reset: bool,
    ) {
        match self.role {
            Role::Member => {}
            // Told twice, since the connection was lost: answer once more.
            Role::Replica => {
                self.activation_durable(cx, from);
                return;
            }
            _ => return,
        }
        if !part.is_sound() || std::mem::replace(&mut self.told, true) {
            return;
        }
        let mut ops = Vec::new();
        if reset || !self.take_log(part, dups, &mut ops) {
            for oid in self.missing.keys().cloned().collect::<Vec<_>>() {
                self.set_missing(oid, None, &mut ops);
            }
            ops.push(TxnOp::LogRewind { after: Version::default() });
            self.log.replace(part, dups.clone());
            ops.push(TxnOp::LogTrim { to: self.log.tail() });
            ops.extend(part.entries.iter().map(|e| Self::keep_entry(e)));
            ops.push(self.keep_tail());
            self.keep_dups(&mut ops);
            self.info.backfilled = Cursor::Min;
            self.info.last_update = self.log.head();
            self.info.log_tail = self.log.tail();
        }
        self.learn(&info.history, past);
        self.info.stats = info.stats;
        self.info.recount = info.recount;
        self.info.purged.clone_from(&info.purged);
        if info.started == self.info.interval {
            self.info.started = self.info.interval;
        }
        ops.push(self.keep_info());
        ops.push(self.keep_past());
        self.desk.submit(cx, ops, OnCommit::Activated { to: from });
    }

    /// Member: the log is durable.
    pub(crate) fn activation_durable(&mut self, cx: &mut Step<'_>, to: OsdId) {
        if matches!(self.role, Role::Member) {
            let from = self.state();
            self.role = Role::Replica;
            self.moved(cx, from, "durable");
        }
        let (info, missing) = (Box::new(self.info.clone()), self.missing.clone());
        self.desk.send(cx, to, Body::Activated { info, missing });
    }

    /// Primary: a member has it.
    pub(crate) fn on_activated(&mut self, cx: &mut Step<'_>, from: OsdId, info: Info, missing: Missing) {
        let acting = self.view.acting.contains(&from);
        let Role::Primary(p) = &mut self.role else { return };
        let Stage::Activating { waiting } = &mut p.stage else { return };
        if !waiting.remove(&from) {
            return;
        }
        let complete = info.is_complete();
        p.durable.insert(from, info.last_update);
        p.peers.insert(from, Peer { info, missing: Some(missing) });
        if acting && !complete {
            // It had to start anew although its info promised a joint: choose again who serves.
            self.restart(cx, "reset");
            return;
        }
        self.maybe_activated(cx);
    }

    pub(crate) fn own_activation_durable(&mut self, cx: &mut Step<'_>) {
        let (me, head) = (self.me, self.info.last_update);
        let Role::Primary(p) = &mut self.role else { return };
        let Stage::Activating { waiting } = &mut p.stage else { return };
        waiting.remove(&me);
        p.durable.insert(me, head);
        self.maybe_activated(cx);
    }

    fn maybe_activated(&mut self, cx: &mut Step<'_>) {
        let Role::Primary(p) = &self.role else { return };
        if matches!(&p.stage, Stage::Activating { waiting } if waiting.is_empty()) {
            self.all_activated(cx);
        }
    }

    fn all_activated(&mut self, cx: &mut Step<'_>) {
        let head = self.info.last_update;
        if self.is_enough() || self.cfg.is(Fault::StartBelowMin) {
            self.info.history.started = self.info.interval;
        }
        let Role::Primary(p) = &mut self.role else { return };
        p.committed = head;
        for &o in p.members.iter().chain(std::iter::once(&self.me)) {
            p.durable.entry(o).or_insert(head);
        }
        self.start(cx, "activated");
    }

    fn is_enough(&self) -> bool {
        self.view.acting.len() >= self.view.pool.min_size as usize || self.cfg.is(Fault::IgnoreMinSize)
    }

    /// Serve.
    fn start(&mut self, cx: &mut Step<'_>, by: &'static str) {
        let enough = self.is_enough();
        self.stage(cx, if enough { Stage::Active } else { Stage::Peered }, by);
        if enough {
            for op in std::mem::take(&mut self.waiting) {
                self.on_op(cx, op);
            }
        }
    }

    /// Messages to or from a replica were lost with the connection: say again what is not answered.
    pub(crate) fn on_reset(&mut self, cx: &mut Step<'_>, osd: OsdId) {
        if matches!(self.role, Role::Stray | Role::Member) && self.view.primary == Some(osd) && !self.told {
            self.come_forward = Some(osd);
            return;
        }
        let (history, past) = (self.info.history, self.past.clone());
        let Role::Primary(p) = &self.role else { return };
        match &p.stage {
            Stage::GetInfo { waiting } if waiting.contains(&osd) => {
                self.desk.send(cx, osd, Body::Query { history, past })
            }
            Stage::GetLog { from } if *from == osd => {
                self.desk.send(cx, osd, Body::QueryLog { since: self.info.last_update })
            }
            Stage::Activating { waiting } if waiting.contains(&osd) => self.send_activate(cx, osd),
            Stage::Active | Stage::Peered => {
                if p.clean && p.members.contains(&osd) {
                    self.desk.send(cx, osd, Body::Clean { history, trim_to: self.log.tail() });
                }
                self.resend_writes(cx, osd);
                // After the writes: counts hold as of the last.
                self.tell_counts(cx, Some(osd));
                self.resend_slots(cx, osd);
                self.resend_recovery(cx, osd);
                self.resend_backfill(cx, osd);
                self.resend_scrub(cx, osd);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "peering_test.rs"]
mod tests;
