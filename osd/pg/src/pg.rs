//! The placement group as a value: its parts, the dispatch of inputs, its named states.
//!
//! Parts: `interval` (maps, roles), `peering` (a new interval to active), `replicate` (writes, acknowledgements,
//! leases), `operate` (client operations on one object), `recover` (pull and push), `piece` (what travels then),
//! `backfill`, `keep` (what the store holds of the pg itself), `split` (one pg becomes several), `recount` (exact counts
//! after that), `explain` (one line of cause).
//!
//! Invariants, checked after each step when `Config::check` is set:
//! - `info.last_update` is the log's head, `info.log_tail` its tail;
//! - what is missing is needed at a version the log (or what was trimmed of it) gave it, and lies inside `backfilled`;
//! - only a primary has peers, writes in flight, or operations past admission;
//! - an operation is answered once.

mod backfill;
mod context;
mod copy;
mod explain;
mod interval;
mod keep;
mod lacking;
mod operate;
mod peering;
mod piece;
mod promise;
mod recount;
mod recover;
mod replicate;
mod scrub;
mod slots;
mod split;
mod trim;
mod unfound;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, SnapId, Version};
use nacre_proto::txn::{Transaction, TxnOp};

use crate::io::{
    Class, Duration, Input, Order, Output, ReadFault, ReadId, ReadItem, ReadValue, Report, Step, Time, TimerId, TxnId,
};
use crate::log::{Log, Missing, ReqId};
use crate::msg::{Body, CopyCursor, PeerMsg};
use crate::op::{ClientOp, OpId, Reply};
use crate::state::{Config, Info};
use crate::view::{PastIntervals, View};

pub(crate) use context::{Context, Running};
pub use keep::Stored;
pub use lacking::Lacking;
pub(crate) use peering::Primary;
use piece::Piece;
pub use scrub::{Damage, Findings};

/// The states and how one is left for another: `(from, to, by)`. A move that is not listed is a bug and stops the osd
/// when checks are on. The table in `docs/internals/pg-states.md` is written from this one by a test.
pub const TRANSITIONS: &[(&str, &str, &str)] = &[
    ("dormant", "stray", "a map shows this osd up, the pg elsewhere"),
    ("dormant", "member", "a map shows this osd up, as a member"),
    ("dormant", "get_info", "a map shows this osd up, as the primary"),
    ("dormant", "dormant", "a map from before this run of the osd"),
    ("*", "dormant", "a new interval in which this osd is down"),
    ("*", "stray", "a new interval, served elsewhere"),
    ("*", "member", "a new interval, this osd a member"),
    ("*", "get_info", "a new interval, this osd the primary"),
    ("member", "replica", "activation is durable"),
    ("stray", "gone", "the primary needs this copy no more"),
    ("get_info", "get_info", "someone asked went down, or told of an older past"),
    ("get_info", "down", "an interval that may hold acknowledged writes has no survivor"),
    ("get_info", "incomplete", "nobody heard holds the log of the last start"),
    ("get_info", "wait_acting", "others should serve while members are filled"),
    ("get_info", "get_log", "another holds the authoritative log"),
    ("get_info", "wait_up_thru", "the log is chosen"),
    ("get_info", "wait_lease", "the log is chosen, the map knows of our life; an older primary may still answer reads"),
    ("get_info", "activating", "the log is chosen and the map knows of our life"),
    ("down", "get_info", "the map changed"),
    ("incomplete", "get_info", "the map changed, or a holder came forward"),
    ("wait_acting", "get_info", "the map changed"),
    ("get_log", "get_info", "someone asked went down"),
    ("get_log", "wait_up_thru", "the log has come"),
    ("get_log", "wait_lease", "the log has come, the map knows of our life; an older primary may still answer reads"),
    ("get_log", "activating", "the log has come and the map knows of our life"),
    ("wait_up_thru", "get_info", "someone asked went down"),
    ("wait_up_thru", "wait_lease", "the map knows of our life; an older primary may still answer reads"),
    ("wait_up_thru", "activating", "the map knows of our life"),
    ("wait_lease", "get_info", "someone asked went down"),
    ("wait_lease", "activating", "the old primary's lease is over"),
    ("activating", "get_info", "a member could not take the log"),
    ("activating", "active", "durable everywhere"),
    ("activating", "peered", "durable everywhere, but fewer than min_size"),
];

/// What waits for stable storage.
#[derive(Clone, Debug)]
pub(crate) enum OnCommit {
    Nothing,
    /// Primary: a write up to here.
    Write(Version),
    /// Replica: acknowledge up to here.
    Ack {
        to: OsdId,
        version: Version,
    },
    /// Member: the activation.
    Activated {
        to: OsdId,
    },
    /// Primary: its own activation.
    Activation,
    /// A piece of an object pushed to us.
    Piece {
        to: OsdId,
        oid: ObjectId,
        version: Version,
        at: CopyCursor,
    },
    /// Primary: a piece it pulled; the last one.
    Pulled {
        oid: ObjectId,
        last: bool,
    },
    /// Member: what a scrub found bad is noted as missing.
    Repairing {
        to: OsdId,
    },
    /// Backfill target.
    Progress {
        to: OsdId,
        cursor: crate::msg::Cursor,
    },
}

/// What waits for a read.
#[derive(Clone, Debug)]
pub(crate) enum OnRead {
    /// The metadata of an object, for its context.
    Load {
        oid: ObjectId,
    },
    /// More of an object, for an operation.
    Exec(Box<Running>),
    /// What a piece of an object for another is made of.
    Piece(Box<Piece>),
    /// Primary: is the clone here that a piece which came wants to take ranges from.
    Kin {
        oid: ObjectId,
        with: SnapId,
    },
    /// Backfill: listing our own window.
    Window,
    /// Scrub: listing our own window.
    ScrubWindow,
    /// Scrub: looking at what is in it.
    Survey(Box<scrub::Survey>),
    /// Listing for another's scan, or our own.
    List(Box<backfill::Listing>),
    /// Counting anew.
    Recount,
    /// A decision about an unfound object: what this osd holds of it.
    Revert {
        oid: ObjectId,
    },
    Forget {
        oid: ObjectId,
    },
    /// Trimming snapshots: the listing, the head's record, the clone's.
    TrimList,
    TrimHead {
        clone: ObjectId,
    },
    Trim {
        clone: ObjectId,
    },
}

impl OnRead {
    fn class(&self) -> Class {
        match self {
            OnRead::Load { .. } | OnRead::Exec(_) | OnRead::Revert { .. } | OnRead::Forget { .. } => Class::Client,
            OnRead::Piece(_) | OnRead::Kin { .. } | OnRead::Window | OnRead::List(_) => Class::Recovery,
            OnRead::TrimList | OnRead::TrimHead { .. } | OnRead::Trim { .. } => Class::Trim,
            OnRead::ScrubWindow | OnRead::Survey(_) => Class::Scrub,
            OnRead::Recount => Class::BestEffort,
        }
    }
}

/// The shell's numbers of one request. Nearly always one: only a retry adds another.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpIds {
    first: Option<OpId>,
    more: Vec<OpId>,
}

impl OpIds {
    pub(crate) fn one(id: OpId) -> OpIds {
        OpIds { first: Some(id), more: Vec::new() }
    }

    pub(crate) fn push(&mut self, id: OpId) {
        if self.first.is_none() {
            self.first = Some(id);
        } else {
            self.more.push(id);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = OpId> {
        self.first.iter().chain(&self.more).copied()
    }
}

/// Numbers and sends what goes out. Apart from the rest so that it can be used while parts are borrowed.
#[derive(Debug)]
pub(crate) struct Desk {
    pg: PgId,
    epoch: Epoch,
    interval: Epoch,
    next_txn: u64,
    next_read: u64,
    /// In the order submitted, which is the order in which they become durable.
    commits: VecDeque<(TxnId, Epoch, OnCommit)>,
    /// Records are written here before they are copied to where they go.
    pen: crate::format::Pen,
    reads: BTreeMap<ReadId, (Epoch, Vec<ReadItem>, OnRead)>,
    on_disk: bool,
}

impl Desk {
    pub(crate) fn send(&self, cx: &mut Step<'_>, to: OsdId, body: Body) {
        cx.out.push(Output::Send { to, msg: PeerMsg { epoch: self.epoch, interval: self.interval, body } });
    }

    pub(crate) fn submit(&mut self, cx: &mut Step<'_>, mut ops: Vec<TxnOp>, then: OnCommit) -> TxnId {
        if !self.on_disk {
            self.on_disk = true;
            ops.insert(0, TxnOp::CreateCollection);
        }
        let id = TxnId(self.next_txn);
        self.next_txn += 1;
        self.commits.push_back((id, self.interval, then));
        cx.out.push(Output::Submit { id, txn: Transaction { pg: self.pg, ops } });
        id
    }

    /// The interval is over: nothing that is being read is of use. Whose reads these were.
    pub(crate) fn drop_reads(&mut self) -> Vec<OpIds> {
        let reads = std::mem::take(&mut self.reads);
        let asked = reads.into_values().filter_map(|(_, _, then)| match then {
            OnRead::Exec(running) => running.read_by(),
            _ => None,
        });
        asked.collect()
    }

    pub(crate) fn read(&mut self, cx: &mut Step<'_>, oid: Option<ObjectId>, items: Vec<ReadItem>, then: OnRead) {
        let id = ReadId(self.next_read);
        self.next_read += 1;
        let class = then.class();
        self.reads.insert(id, (self.interval, items.clone(), then));
        cx.out.push(Output::Read { id, oid, items, class });
    }
}

/// What this osd is to the pg in the present interval.
#[derive(Debug)]
pub(crate) enum Role {
    /// No map of this osd's present run has come yet, or it shows this osd as down.
    Dormant,
    /// Holds a copy, serves nothing.
    Stray,
    /// A member, not yet told the log.
    Member,
    /// A member whose activation is durable.
    Replica,
    /// Orders everything.
    Primary(Box<Primary>),
}

/// A promise not to let a new primary begin before the old one has stopped answering reads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Promise {
    pub(crate) until: Time,
    /// To whom, in which interval; none: unknown, this osd restarted.
    pub(crate) holder: Option<(OsdId, Epoch)>,
}

/// A placement group on one OSD.
#[derive(Debug)]
pub struct PlacementGroup {
    pub(crate) id: PgId,
    pub(crate) me: OsdId,
    pub(crate) cfg: Arc<Config>,
    pub(crate) info: Info,
    pub(crate) past: PastIntervals,
    pub(crate) log: Log,
    pub(crate) missing: Missing,
    pub(crate) view: Arc<View>,
    /// Maps in which this osd's run began at or before this are of a former life.
    pub(crate) floor: Epoch,
    pub(crate) desk: Desk,
    pub(crate) role: Role,
    pub(crate) promise: Promise,
    /// Questions from a primary that wait until all that was submitted is durable.
    pub(crate) held: Vec<(OsdId, Body)>,
    /// Whom to tell unasked what is held here, once all of it is durable.
    pub(crate) come_forward: Option<OsdId>,
    /// Unfinished copies in the store.
    pub(crate) temps: BTreeSet<ObjectId>,
    pub(crate) contexts: BTreeMap<ObjectId, Context>,
    pub(crate) watches: watch::Watches,
    /// Objects that scrubs found to differ and could not repair.
    pub(crate) inconsistent: BTreeMap<ObjectId, Vec<(OsdId, Damage)>>,
    pub(crate) findings: Findings,
    /// Counts comparisons of scrubs.
    pub(crate) next_round: u64,
    /// Operations that came before the pg is active.
    pub(crate) waiting: VecDeque<ClientOp>,
    /// Requests past admission that are not yet in the log.
    pub(crate) queued: BTreeMap<ReqId, OpIds>,
    /// Requests whose content is being fetched from another object.
    pub(crate) copies: BTreeMap<ReqId, Box<copy::Copying>>,
    /// The request that was logged last.
    pub(crate) logged: Option<ReqId>,
    /// Operations by object that wait for a read lease.
    pub(crate) lease_waits: BTreeSet<ObjectId>,
    /// Member: the primary has told the log in this interval; its durability is on the way.
    pub(crate) told: bool,
    /// Slots asked of this osd's scheduler, and on whose behalf; true: granted.
    pub(crate) slots: BTreeMap<(crate::io::SlotKind, OsdId), bool>,
    /// Its removal was submitted.
    pub(crate) gone: bool,
    /// Born of a split: the map of its birth is still to come.
    pub(crate) newborn: bool,
}

impl PartialEq for PlacementGroup {
    /// Outputs are compared; a newborn child is told apart by its identity and log.
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.me == other.me && self.info == other.info && self.missing == other.missing
    }
}
impl Eq for PlacementGroup {}

impl Clone for PlacementGroup {
    /// Only a newborn child, which has asked nothing yet, is ever cloned (with the outputs it is in).
    fn clone(&self) -> Self {
        let mut out =
            PlacementGroup::create(self.id, self.me, Arc::clone(&self.cfg), Arc::clone(&self.view), self.info.interval);
        out.info = self.info.clone();
        out.past = self.past.clone();
        out.log = self.log.clone();
        out.missing = self.missing.clone();
        out.floor = self.floor;
        out.promise = self.promise;
        out.desk.on_disk = self.desk.on_disk;
        out.newborn = self.newborn;
        out
    }
}

impl PlacementGroup {
    /// The one way in.
    pub fn step(&mut self, cx: &mut Step<'_>, input: Input) {
        match input {
            Input::Map(view) => self.on_map(cx, view),
            Input::Peer { from, msg } => self.on_peer(cx, from, msg),
            Input::PeerReset { osd } => self.on_reset(cx, osd),
            Input::Op(op) => self.on_op(cx, op),
            Input::Committed(id) => self.on_committed(cx, id),
            Input::ReadDone { id, result } => self.on_read(cx, id, result),
            Input::Slot { kind, holder, granted } => self.on_slot(cx, kind, holder, granted),
            Input::Timer(id) => self.on_timer(cx, id),
            Input::Order(order) => self.on_order(cx, order),
        }
        self.settle(cx);
    }

    /// Upkeep that ends every step, in a fixed order.
    fn settle(&mut self, cx: &mut Step<'_>) {
        self.answer_held(cx);
        self.peering_settle(cx);
        self.recover_settle(cx);
        self.scrub_settle(cx);
        self.trim_contexts();
        if self.cfg.check {
            self.check();
        }
    }

    /// The epoch its intervals were followed to.
    pub fn epoch(&self) -> Epoch {
        self.view.epoch
    }

    /// Which pg.
    pub fn id(&self) -> PgId {
        self.id
    }

    /// What it knows of itself.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What it lacks.
    pub fn missing(&self) -> &Missing {
        &self.missing
    }

    /// Past intervals it remembers.
    pub fn past(&self) -> &PastIntervals {
        &self.past
    }

    /// Every copy is where it should be, and equal.
    pub fn is_clean(&self) -> bool {
        matches!(&self.role, Role::Primary(p) if p.clean && p.is_active())
    }

    /// The name of the state, as in [`TRANSITIONS`].
    pub fn state(&self) -> &'static str {
        match &self.role {
            _ if self.gone => "gone",
            Role::Dormant => "dormant",
            Role::Stray => "stray",
            Role::Member => "member",
            Role::Replica => "replica",
            Role::Primary(p) => p.stage.name(),
        }
    }

    pub(crate) fn moved(&self, cx: &mut Step<'_>, from: &'static str, by: &'static str) {
        let to = self.state();
        if self.cfg.check {
            let known = TRANSITIONS.iter().any(|(f, t, _)| (*f == from || *f == "*") && *t == to);
            assert!(known, "pg {} moved from {from} to {to} ({by}): not in the table", self.id);
        }
        cx.out.push(Output::Moved { from, to, by });
        cx.out.push(Output::Report(Box::new(self.report())));
    }

    /// How it is.
    pub fn report(&self) -> Report {
        Report {
            pg: self.id,
            state: self.state(),
            findings: self.findings(),
            clean: self.is_clean(),
            unfound: self.unfound().len() as u64,
            why: self.explain(),
            info: self.info.clone(),
            stats: self.info.stats,
            epoch: self.view.epoch,
            lacking: self.still_lacking(),
        }
    }

    /// A message of a replica. Stale ones end here and nowhere else.
    fn on_peer(&mut self, cx: &mut Step<'_>, from: OsdId, msg: PeerMsg) {
        if self.gone || matches!(self.role, Role::Dormant) {
            return;
        }
        // Copies go between pgs, whose intervals are not the same: those carry the map of whoever speaks instead.
        let between = matches!(msg.body, Body::CopyAsk(_) | Body::CopyIs(_)) && msg.interval >= self.info.interval;
        if msg.interval != self.info.interval && !between && !self.cfg.takes_stale() {
            return;
        }
        match msg.body {
            Body::Query { history, past } => {
                self.learn(&history, &past);
                self.hold(from, Body::Query { history, past });
            }
            Body::QueryLog { .. } => self.hold(from, msg.body),
            Body::Info { info, past, lease, holder, asked } => {
                self.on_info(cx, from, *info, &past, lease, holder, asked)
            }
            Body::Log { part, dups, stats } => self.on_log(cx, from, &part, &dups, stats),
            Body::Activate { info, past, part, dups, reset } => {
                self.on_activate(cx, from, &info, &past, &part, &dups, reset)
            }
            Body::Activated { info, missing } => self.on_activated(cx, from, *info, missing),
            Body::Rep(rep) => self.on_rep(cx, from, rep),
            Body::RepAck { durable } => self.on_rep_ack(cx, from, durable),
            Body::Lease { sent, last } => self.on_lease(cx, from, sent, last),
            Body::LeaseAck { sent } => self.on_lease_ack(cx, from, sent),
            Body::Pull { oid, need, at, kin } => self.on_pull(cx, from, oid, need, at, kin),
            Body::Pulled { oid, need, chunk } => self.on_pulled(cx, from, oid, need, chunk),
            Body::Push { oid, version, chunk } => self.on_push(cx, from, oid, version, chunk),
            Body::Pushed { oid, version, at } => self.on_pushed(cx, from, oid, version, &at),
            Body::Scan { from: begin, to } => self.on_scan(cx, from, begin, to),
            Body::Scanned { from: begin, list } => self.on_scanned(cx, from, begin, list),
            Body::Progress { to, remove } => self.on_progress(cx, from, to, remove),
            Body::ProgressAck { to } => self.on_progress_ack(cx, from, to),
            Body::Reserve { kind, priority } => self.on_reserve(cx, from, kind, priority),
            Body::Reserved { .. } => self.on_reserved(from, true),
            Body::Revoked { .. } => self.on_reserved(from, false),
            Body::Release { kind } => self.on_release(cx, from, kind),
            Body::Counts { stats, at } => self.on_counts(cx, stats, at),
            Body::Clean { history, trim_to } => self.on_clean(cx, &history, trim_to),
            Body::Remove => self.on_remove(cx),
            Body::ScrubRange { round, from: begin, to, deep } => self.on_scrub_range(cx, from, round, begin, to, deep),
            Body::ScrubIs { round, lines } => self.on_scrub_is(from, round, lines),
            Body::Repair { items } => self.on_repair(cx, from, items),
            Body::Repairing { missing } => self.on_repairing(from, missing),
            Body::CopyAsk(ask) => self.on_copy_ask(cx, from, *ask),
            Body::CopyIs(is) => self.on_copy_is(cx, *is),
        }
    }

    fn on_committed(&mut self, cx: &mut Step<'_>, id: TxnId) {
        let Some(at) = self.desk.commits.iter().position(|c| c.0 == id) else { return };
        let Some((_, interval, then)) = self.desk.commits.remove(at) else { return };
        if interval != self.info.interval {
            return;
        }
        match then {
            OnCommit::Nothing => {}
            OnCommit::Write(version) => {
                let me = self.me;
                self.on_rep_ack(cx, me, version);
            }
            OnCommit::Ack { to, version } => self.desk.send(cx, to, Body::RepAck { durable: version }),
            OnCommit::Activated { to } => self.activation_durable(cx, to),
            OnCommit::Activation => self.own_activation_durable(cx),
            OnCommit::Piece { to, oid, version, at } => self.desk.send(cx, to, Body::Pushed { oid, version, at }),
            OnCommit::Pulled { oid, last } => self.piece_durable(cx, &oid, last),
            OnCommit::Repairing { to } => {
                let missing = self.missing.clone();
                self.desk.send(cx, to, Body::Repairing { missing });
            }
            OnCommit::Progress { to, cursor } => self.desk.send(cx, to, Body::ProgressAck { to: cursor }),
        }
    }

    fn on_read(&mut self, cx: &mut Step<'_>, id: ReadId, result: Result<Vec<ReadValue>, ReadFault>) {
        let Some((interval, items, then)) = self.desk.reads.remove(&id) else { return };
        if interval != self.info.interval {
            return;
        }
        match then {
            OnRead::Load { oid } => self.on_loaded(cx, oid, result),
            OnRead::Exec(running) => self.on_fetched(cx, running, items, result),
            OnRead::Piece(piece) => self.piece_read(cx, piece, result),
            OnRead::Kin { oid, with } => self.kin_read(cx, &oid, with, result),
            OnRead::Window => self.window_listed(result),
            OnRead::ScrubWindow => self.scrub_window(result),
            OnRead::Survey(v) => self.survey_read(cx, v, result),
            OnRead::List(l) => self.listed(cx, l, result),
            OnRead::Recount => self.recount_listed(cx, result),
            OnRead::Revert { oid } => self.revert(cx, oid, result),
            OnRead::Forget { oid } => self.forget(cx, oid, result),
            OnRead::TrimList => self.trim_listed(cx, result),
            OnRead::TrimHead { clone } => self.trim_head(cx, clone, result),
            OnRead::Trim { clone } => self.trim_read(cx, clone, result),
        }
    }

    fn on_timer(&mut self, cx: &mut Step<'_>, id: TimerId) {
        match id {
            TimerId::OldLease { interval } if interval == self.info.interval.0 => self.old_lease_over(cx),
            TimerId::Notify { notify } => self.notify_over(cx, notify),
            TimerId::Watch { watch } => self.watch_timer(cx, watch),
            TimerId::Copy { reqid } => self.copy_late(cx, reqid),
            _ => {}
        }
    }

    fn on_order(&mut self, cx: &mut Step<'_>, order: Order) {
        match order {
            Order::SessionGone(session) => self.session_gone(cx, session),
            Order::Unfound { revert } => self.decide_unfound(cx, revert),
            Order::Scrub { deep } => self.want_scrub(deep, true),
            Order::ScrubDue { deep } => self.want_scrub(deep, false),
        }
    }

    pub(crate) fn reply(cx: &mut Step<'_>, ids: impl IntoIterator<Item = OpId>, reply: &Reply) {
        for op in ids {
            cx.out.push(Output::Reply { op, reply: reply.clone() });
        }
    }

    fn check(&self) {
        assert_eq!(self.info.last_update, self.log.head(), "pg {}: last_update is not the log's head", self.id);
        assert_eq!(self.info.log_tail, self.log.tail(), "pg {}: log_tail is not the log's tail", self.id);
        for (oid, item) in &self.missing {
            assert!(self.info.backfilled.covers(oid), "pg {}: missing {oid:?} lies beyond the backfill", self.id);
            assert!(item.have != Some(item.need), "pg {}: {oid:?} is missing what it has", self.id);
            assert!(item.need <= self.info.last_update, "pg {}: {oid:?} needs what the log does not know", self.id);
        }
        if let Role::Primary(p) = &self.role {
            p.check(self);
        } else {
            assert!(self.contexts.is_empty() && self.waiting.is_empty(), "pg {}: holds operations", self.id);
        }
    }
}

impl Config {
    pub(crate) fn takes_stale(&self) -> bool {
        self.is(Fault::TakeStale)
    }

    /// Is the core deliberately wrong in this way. Always false in the product.
    #[cfg(feature = "mutants")]
    pub(crate) fn is(&self, fault: Fault) -> bool {
        self.mutant == Some(fault)
    }

    /// Is the core deliberately wrong in this way. Always false in the product.
    #[cfg(not(feature = "mutants"))]
    #[expect(clippy::unused_self, reason = "the same call in both builds")]
    pub(crate) const fn is(&self, _fault: Fault) -> bool {
        false
    }
}

pub(crate) use crate::mutant::Mutant as Fault;

/// A span shortened (or, for a promise, lengthened) by what clocks may differ in rate.
pub(crate) fn drifted(d: Duration, cfg: &Config, longer: bool) -> Duration {
    let slack = 2 * d.0 / cfg.drift.max(1);
    Duration(if longer { d.0 + slack } else { d.0 - slack })
}
