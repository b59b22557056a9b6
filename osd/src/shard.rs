//! A shard: one task that owns placement groups outright. Events come in through one queue; what the groups ask for
//! goes to the store, to the peers' couriers, to the monitors' desk, or back to the client that waits.
//!
//! The first runs on the thread of the connections: what a socket brings, the group's step and what goes out again are
//! one wake-up. Each further one has a thread of its own, which costs two more for each message (a third of a small
//! write); it is worth that where one core is not enough. Which group is where: [`crate::shards`].
//!
//! Invariants:
//! - a group is stepped by this task alone, its outputs are carried out in order before its next step;
//! - maps reach every group in order and without gaps;
//! - a message or request made under a newer map waits until that map has come;
//! - an answer of an older core (a group that was removed and made again) is recognised by its number and dropped;
//! - a group that a split makes begins with the map of that split; until its parent has made it, or is known not to,
//!   nothing that comes for it is looked at ([`follow`]).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use nacre_maps::ClusterMap;
use nacre_net::conn::Responder;
use nacre_pg::PlacementGroup;
use nacre_pg::io::{
    Class, Input, Order, Output, ReadFault, ReadItem, ReadValue, Report, Request, Step, Time, TimerId, TxnId, Way,
};
use nacre_pg::msg::PeerMsg;
use nacre_pg::object::{ObjectInfo, is_temp};
use nacre_pg::op::{OpId, Reply};
use nacre_pg::state::Config;
use nacre_pg::view::{View, pg_of_hash};
use nacre_pg::wire::{self, Ask, List, Listed, Look, Parcel, PgLine, Said, Told};
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, SessionId, SnapId, Uuid};
use nacre_proto::status::{Code, Status};
use nacre_proto::txn::Transaction;
use nacre_store::{Fullness, ObjectStore, StoreError};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

mod follow;
mod ops;
mod pace;
mod room;

pub use follow::oldest_epoch;
use ops::Ops;
pub use ops::together;
use pace::{Job, Pace};
use room::{RETRY, Scrubbed, Stuck};

use crate::load::{Load, Meter};
use crate::reads;
use crate::service::answer;
use crate::shards::Shards;
use crate::sight::{History, Sight};
use crate::slots::Slot;
use crate::tuning::Tuning;

/// So many events are taken before connections get their turn again.
const BATCH: usize = 256;
/// So many reads of background work, of so many bytes, are done before events get their turn.
const TURN: usize = 16;
const TURN_BYTES: u64 = 256 << 10;

/// What can happen to a shard.
#[derive(Debug)]
pub enum Event {
    /// The next map.
    Sight(Arc<Sight>),
    /// A replica speaks.
    Said(OsdId, Said),
    /// Messages from or to a replica may have been lost. With the number of the new connection to it, if there is one:
    /// what is said from now on goes over that.
    Reset(OsdId, Option<u64>),
    /// A client asks.
    Ask(Ask, Responder, Instant),
    /// A client lists.
    List(List, Responder),
    /// A transaction is durable, or can never be.
    Committed(PgId, u64, TxnId, Result<(), StoreError>),
    /// An operator orders.
    Order(PgId, Order),
    /// An operator looks at the groups that are here.
    Look(Look, UnboundedSender<Vec<PgLine>>),
    /// Somebody wants to see the operations.
    Ops(UnboundedSender<Value>),
    /// What a split in this epoch made of a group's parent, which may be in another shard; none if it was not there.
    Adopt(PgId, Epoch, Option<Box<PlacementGroup>>),
    /// A core has a slot now, or has it no longer.
    Slot(Slot),
    /// How the groups are is wanted: see [`Reports`].
    Report,
    /// The daemon ends.
    Stop,
}

impl Event {
    /// The group it is for, where that may be one that is still to be made.
    fn goes_to(&self) -> Option<PgId> {
        match self {
            Event::Said(_, said) => Some(said.pg),
            Event::Ask(ask, ..) => Some(ask.pg),
            Event::List(list, _) => Some(list.pg),
            Event::Order(pg, _) => Some(*pg),
            _ => None,
        }
    }
}

/// What groups want from beyond their store and their clients. The daemon's side of a shard.
pub trait Outside: Send {
    /// Say this to another OSD.
    fn say(&self, to: OsdId, said: Parcel);
    /// Groups are being told that messages were lost: what is said from now on goes over this connection.
    fn mark(&self, to: OsdId, connection: u64);
    /// Ask the monitors, on behalf of a group in the interval that began at this epoch.
    fn ask(&self, pg: PgId, interval: Epoch, what: Request);
    /// Tell a client that watches. Whether it hears it is for its answer to show.
    fn tell(&self, session: SessionId, told: &Told);
    /// The store's fullness has changed.
    fn crowded(&self, now: Fullness);
    /// The store failed: nothing can be promised any more.
    fn broken(&self, why: String);
}

/// How the groups are, for beacons and for operators. Filled by shards, read by anyone.
pub type Reports = Arc<Mutex<BTreeMap<PgId, Report>>>;

/// How many operations are open for too long, and what the oldest waits for.
pub type Late = Arc<Mutex<(usize, String)>>;

/// What the shards of an OSD share.
#[derive(Clone)]
pub struct Ground {
    /// Whose.
    pub me: OsdId,
    /// All of them.
    pub shards: Shards,
    /// Where bytes are kept.
    pub store: Arc<dyn ObjectStore>,
    /// Filled by each with its groups.
    pub reports: Reports,
    /// What clients make them do.
    pub load: Arc<Load>,
    /// The beginning of time for all groups: one that is handed over knows moments.
    pub started: Instant,
}

impl Ground {
    /// Of shards that begin now.
    pub fn new(me: OsdId, shards: Shards, store: Arc<dyn ObjectStore>) -> Ground {
        Ground { me, shards, store, reports: Reports::default(), load: Arc::default(), started: Instant::now() }
    }
}

/// See the module.
pub struct Shard<O> {
    /// Which of the OSD's.
    index: usize,
    me: OsdId,
    cfg: Arc<Config>,
    store: Arc<dyn ObjectStore>,
    outside: O,
    shards: Shards,
    reports: Reports,
    maps: History,
    groups: BTreeMap<PgId, (u64, PlacementGroup)>,
    next_core: u64,
    /// The newest map when this run of the OSD began, and the moment: what was before is of a former life.
    floor: Epoch,
    began: Time,
    /// Removed here, but not durably yet: the core and the transaction that end it.
    leaving: BTreeMap<PgId, (u64, TxnId)>,
    /// The last transaction of each group.
    submitted: BTreeMap<PgId, TxnId>,
    early: VecDeque<(Epoch, Event)>,
    /// Groups that a split is to make here, with what has come for them.
    expected: BTreeMap<PgId, Vec<Event>>,
    /// Groups that a split is to make of groups here, and of which.
    owed: BTreeMap<PgId, PgId>,
    waiting: BTreeMap<OpId, (Responder, Meter)>,
    load: Arc<Load>,
    ops: Ops,
    late: Late,
    /// When the step that is being carried out began.
    stepped: Time,
    next_op: u64,
    timers: BinaryHeap<Reverse<(Time, PgId, u64, u64)>>,
    /// What the timers in the heap are for, by their number.
    armed: HashMap<u64, TimerId>,
    next_timer: u64,
    work: VecDeque<(PgId, u64, Input)>,
    pace: Pace,
    /// Whether background work is now tuned for having clients beside it.
    beside_clients: bool,
    tuning: Tuning,
    /// Groups whose last transaction found no room. What they ask for from then on waits behind it, and so does what
    /// comes in for them, until room is there.
    stuck: BTreeMap<PgId, Stuck>,
    retrying: bool,
    fullness: Fullness,
    /// When space was last looked at.
    looked: Instant,
    scrubbed: BTreeMap<PgId, Scrubbed>,
    started: Instant,
}

impl<O: Outside> Shard<O> {
    /// With those of these groups that are its own, brought up to the newest map. Maps in which this OSD's run had not
    /// begun give them no role. To be called for all shards before any of them runs: what splits of long ago make of one
    /// shard's groups for another is handed over then, ahead of everything else.
    pub fn load(
        index: usize,
        ground: &Ground,
        cfg: Config,
        maps: History,
        outside: O,
        groups: &[PgId],
    ) -> Result<Shard<O>, String> {
        let Ground { me, shards, store, reports, load, started } = ground.clone();
        let tuning = Tuning::of(maps.last().map_or(&ClusterMap::empty(Uuid([0; 16])), |sight| &sight.map), me);
        let mut shard = Shard {
            index,
            me,
            cfg: Arc::new(cfg),
            store,
            outside,
            shards,
            reports,
            maps,
            groups: BTreeMap::new(),
            next_core: 0,
            floor: Epoch(0),
            began: Time(0),
            leaving: BTreeMap::new(),
            submitted: BTreeMap::new(),
            early: VecDeque::new(),
            expected: BTreeMap::new(),
            owed: BTreeMap::new(),
            waiting: BTreeMap::new(),
            ops: Ops::default(),
            late: Late::default(),
            stepped: Time(0),
            load,
            next_op: 0,
            timers: BinaryHeap::new(),
            armed: HashMap::new(),
            next_timer: 0,
            work: VecDeque::new(),
            pace: Pace::new(tuning.slowdown),
            beside_clients: false,
            tuning,
            stuck: BTreeMap::new(),
            retrying: false,
            fullness: Fullness::Ok,
            looked: Instant::now(),
            scrubbed: BTreeMap::new(),
            started,
        };
        shard.tune();
        shard.load_groups(groups)?;
        Ok(shard)
    }

    /// Where to read which operations are late; as new as the last [`Event::Report`].
    pub fn late(&self) -> Late {
        Arc::clone(&self.late)
    }

    /// Runs until told to stop.
    pub async fn run(mut self, mut events: UnboundedReceiver<Event>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            let retry = (!self.stuck.is_empty()).then_some(RETRY);
            let timer = self.next_timer().map(|at| Duration::from_nanos(at.0.saturating_sub(self.now().0)));
            let paced = self.pace.wait(self.now());
            let wait = timer.into_iter().chain(retry).chain(paced).min();
            if let Some(wait) = wait {
                let at = tokio::time::Instant::now() + wait;
                // One that rings too early does no harm, and timers are put off far more often than they ring.
                if alarm.is_elapsed() || at < alarm.deadline() {
                    alarm.as_mut().reset(at);
                }
            }
            let ringing = wait.is_some();
            tokio::select! {
                biased;
                count = events.recv_many(&mut batch, BATCH) => if count == 0 { return },
                () = tokio::task::yield_now(), if paced.is_some_and(|wait| wait.is_zero()) => {}
                () = alarm.as_mut(), if ringing => {}
            }
            self.ring();
            self.drain();
            for event in batch.drain(..) {
                if matches!(event, Event::Stop) {
                    return;
                }
                self.take(event);
                self.drain();
            }
            self.look_at_space();
            self.heed_clients();
            self.read_in_turn();
        }
    }

    /// Does reads that no client waits for, as many as may be done now, but not so many that new events wait for long.
    fn read_in_turn(&mut self) {
        let mut bytes = 0;
        for _ in 0..TURN {
            if bytes >= TURN_BYTES {
                return;
            }
            let Some(job) = self.pace.take(self.now()) else { return };
            bytes += job.cost();
            let Job { pg, core, id, oid, items } = job;
            if self.groups.get(&pg).is_some_and(|(number, _)| *number == core) {
                let result = self.read(pg, oid.as_ref(), &items);
                self.work.push_back((pg, core, Input::ReadDone { id, result }));
                self.drain();
            }
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn next_timer(&self) -> Option<Time> {
        self.timers.peek().map(|Reverse((at, ..))| *at)
    }

    fn ring(&mut self) {
        let now = self.now();
        while self.next_timer().is_some_and(|at| at <= now) {
            let Some(Reverse((_, pg, core, number))) = self.timers.pop() else { return };
            if let Some(id) = self.armed.remove(&number) {
                self.work.push_back((pg, core, Input::Timer(id)));
            }
        }
    }

    fn take(&mut self, event: Event) {
        if let Some(held) = event.goes_to().and_then(|pg| self.expected.get_mut(&pg)) {
            held.push(event);
            return;
        }
        match event {
            Event::Sight(sight) => self.on_sight(sight),
            Event::Said(from, said) => self.on_said(from, said),
            Event::Reset(osd, connection) => {
                if let Some(connection) = connection {
                    self.outside.mark(osd, connection);
                }
                let groups: Vec<(PgId, u64)> = self.groups.iter().map(|(pg, (core, _))| (*pg, *core)).collect();
                for (pg, core) in groups {
                    self.work.push_back((pg, core, Input::PeerReset { osd }));
                }
            }
            Event::Ask(ask, responder, at) => self.on_ask(ask, responder, at),
            Event::List(list, responder) => self.on_list(list, responder),
            Event::Committed(pg, core, txn, Ok(())) => {
                if self.leaving.get(&pg) == Some(&(core, txn)) {
                    self.leaving.remove(&pg);
                    self.submitted.remove(&pg);
                    self.make_groups();
                    self.take_early();
                } else {
                    let now = self.now();
                    self.ops.durable(pg, txn, now);
                    self.work.push_back((pg, core, Input::Committed(txn)));
                }
            }
            Event::Committed(_, _, _, Err(error)) => self.outside.broken(error.to_string()),
            Event::Order(pg, order) => {
                if let Some((core, _)) = self.groups.get(&pg) {
                    self.work.push_back((pg, *core, Input::Order(order)));
                }
            }
            Event::Look(look, to) => {
                let wanted = self.groups.iter().filter(|(pg, _)| look.only.is_none_or(|only| only == **pg));
                let mut lines: Vec<PgLine> = wanted.map(|(_, (_, group))| line(group)).collect();
                for line in &mut lines {
                    if self.stuck.contains_key(&line.pg) {
                        line.why = format!("waits for room on {}, whose device is full", self.me);
                    }
                }
                // Whoever asked may have gone.
                let _ = to.send(lines);
            }
            Event::Ops(to) => {
                let mut shown = self.ops.show(self.now(), |pg| self.cause(pg));
                shown["background"] = self.pace.show();
                let _ = to.send(shown);
            }
            Event::Report => {
                {
                    let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
                    reports.retain(|pg, _| self.shards.of(*pg) != self.index);
                    reports.extend(self.groups.iter().map(|(pg, (_, group))| (*pg, group.report())));
                }
                let (count, oldest) = self.ops.late(self.now(), self.tuning.slow_after);
                let why = oldest.map(|pg| format!("the oldest in pg {pg}: {}", self.cause(pg)));
                *self.late.lock().unwrap_or_else(PoisonError::into_inner) = (count, why.unwrap_or_default());
                self.begin_scrubs();
            }
            Event::Adopt(pg, epoch, child) => {
                self.adopt(pg, epoch, child);
                // If it was not there, and this OSD leads it.
                self.make_groups();
            }
            Event::Slot(slot) => self.told_slot(slot),
            Event::Stop => {}
        }
    }

    /// Steps groups until nobody has anything to do.
    fn drain(&mut self) {
        let mut out = Vec::new();
        while let Some((pg, core, input)) = self.work.pop_front() {
            let now = self.now();
            self.stepped = now;
            let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
            if let Some(stuck) = self.stuck.get_mut(&pg).filter(|stuck| stuck.core == core) {
                stuck.inputs.push_back(input);
                continue;
            }
            let Some((_, group)) = self.groups.get_mut(&pg).filter(|(number, _)| *number == core) else { continue };
            group.step(&mut Step { now, wall_ms, out: &mut out }, input);
            let interval = group.info().interval;
            for output in out.drain(..) {
                self.carry_out(pg, core, interval, output);
            }
        }
    }

    fn carry_out(&mut self, pg: PgId, core: u64, interval: Epoch, output: Output) {
        if let Some(stuck) = self.stuck.get_mut(&pg).filter(|stuck| stuck.core == core) {
            stuck.outputs.push_back(output);
            return;
        }
        match output {
            Output::Send { to, msg } => self.outside.say(to, wire::encode(&Said { pg, msg })),
            Output::Carry { to, msg } => self.carry(to, msg),
            Output::Submit { id, txn } => self.submit(pg, core, id, txn),
            Output::Ordered { op, txn } => self.ops.ordered(op, pg, txn, self.stepped),
            Output::Read { id, oid, items, class } if class != Class::Client => {
                self.pace.put(class, Job { pg, core, id, oid, items });
            }
            Output::Read { id, oid, items, .. } => {
                let result = self.read(pg, oid.as_ref(), &items);
                self.work.push_back((pg, core, Input::ReadDone { id, result }));
            }
            Output::Reply { op, reply } => self.answer(op, &reply),
            Output::Ask(Request::Slot { kind, holder, priority }) => {
                self.work_slots(|slots| slots.ask(pg, core, kind, holder, priority));
            }
            Output::Ask(Request::Release { kind, holder }) => {
                self.work_slots(|slots| slots.release(pg, core, kind, holder));
            }
            Output::Ask(what) => self.outside.ask(pg, interval, what),
            Output::Arm { id, at } => {
                let number = self.next_timer;
                self.next_timer += 1;
                self.armed.insert(number, id);
                self.timers.push(Reverse((at, pg, core, number)));
            }
            Output::Report(report) => {
                self.reports.lock().unwrap_or_else(PoisonError::into_inner).insert(pg, *report);
            }
            Output::Born(child) => {
                self.owed.remove(&child.id());
                self.hand_over(child.id(), child.epoch(), Some(child));
            }
            Output::Gone => {
                let last = self.submitted.get(&pg).copied().unwrap_or(TxnId(0));
                self.leaving.insert(pg, (core, last));
                self.gone(pg, core);
            }
            Output::Moved { from, to, by } => tracing::debug!(%pg, from, to, by, "moved"),
            Output::Notify { session, cookie, notify, oid, payload } => {
                self.outside.tell(session, &Told { oid, cookie, notify, payload });
            }
        }
    }

    /// Says something to another pg, here or elsewhere. Where nobody serves it, it is lost, and asked again.
    fn carry(&mut self, to: Way, msg: PeerMsg) {
        let to = match to {
            Way::Pg(pg, osd) => Some((pg, osd)),
            Way::Object(oid) => self.maps.last().and_then(|sight| {
                let seed = pg_of_hash(oid.hash, sight.map.pools.get(&oid.pool)?.pg_num);
                let pg = PgId { pool: oid.pool, seed };
                Some((pg, sight.view(pg)?.primary?))
            }),
        };
        match to {
            Some((pg, osd)) if osd == self.me && self.shards.of(pg) == self.index => {
                self.take(Event::Said(osd, Said { pg, msg }));
            }
            Some((pg, osd)) if osd == self.me => self.shards.send(pg, Event::Said(osd, Said { pg, msg })),
            Some((pg, osd)) => self.outside.say(osd, wire::encode(&Said { pg, msg })),
            None => {}
        }
    }

    /// Reads for a group. What is damaged here, the group has from others; the disk is what an operator hears of.
    fn read(&self, pg: PgId, oid: Option<&ObjectId>, items: &[ReadItem]) -> Result<Vec<ReadValue>, ReadFault> {
        reads::read(&*self.store, pg, oid, items).inspect_err(|ReadFault| self.load.fault(Instant::now()))
    }

    fn submit(&mut self, pg: PgId, core: u64, id: TxnId, txn: Transaction) {
        self.submitted.insert(pg, id);
        let shards = self.shards.clone();
        let done = Box::new(move |result| shards.send(pg, Event::Committed(pg, core, id, result)));
        // Kept for another try where room is short; its payloads are shared.
        let again = (self.fullness > Fullness::Ok).then(|| txn.clone());
        match (self.store.submit(txn, done), again) {
            (Ok(_), _) => {}
            (Err(error @ StoreError::Full { .. }), Some(txn)) => {
                if !self.retrying {
                    tracing::error!(%pg, %error, "this group waits for room");
                }
                let outputs = VecDeque::from([Output::Submit { id, txn }]);
                self.stuck.insert(pg, Stuck { core, outputs, inputs: VecDeque::new() });
            }
            (Err(error), _) => self.outside.broken(format!("pg {pg}: {error}")),
        }
    }

    fn number(&mut self) -> u64 {
        self.next_core += 1;
        self.next_core
    }

    fn gone(&mut self, pg: PgId, core: u64) {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).remove(&pg);
        self.groups.remove(&pg);
        self.stuck.remove(&pg);
        self.scrubbed.remove(&pg);
        self.ops.forget(pg);
        self.barren(pg);
        self.work_slots(|slots| slots.dropped(pg, core));
    }

    fn answer(&mut self, op: OpId, reply: &Reply) {
        self.ops.end(op, self.stepped);
        if let Some((responder, meter)) = self.waiting.remove(&op) {
            if let Some((writes, bytes, micros)) = self.load.end(&meter, reply) {
                self.pace.answered(self.stepped, writes, bytes, micros);
            }
            answer(responder, reply);
        }
    }

    fn epoch(&self) -> Epoch {
        self.maps.last().map(|sight| sight.epoch()).unwrap_or_default()
    }

    /// What a pg's operations wait for, if they do.
    fn cause(&self, pg: PgId) -> String {
        if self.stuck.contains_key(&pg) {
            return format!("waits for room on {}, whose device is full", self.me);
        }
        self.groups.get(&pg).map_or_else(String::new, |(_, group)| group.explain())
    }

    fn on_ask(&mut self, ask: Ask, responder: Responder, at: Instant) {
        if ask.epoch > self.epoch() {
            self.early.push_back((ask.epoch, Event::Ask(ask, responder, at)));
            return;
        }
        let id = OpId(self.next_op);
        self.next_op += 1;
        let meter = self.load.begin(&ask.ops);
        let (pg, op) = ask.into_op(id);
        match self.groups.get(&pg) {
            Some((core, _)) => {
                let (now, queued) = (self.now(), at.elapsed());
                let asked = Time(now.0.saturating_sub(u64::try_from(queued.as_nanos()).unwrap_or(0)));
                self.ops.begin(pg, &op, asked, now);
                self.waiting.insert(id, (responder, meter));
                self.work.push_back((pg, *core, Input::Op(op)));
            }
            None => {
                let again = Reply::Again { epoch: self.epoch() };
                self.load.end(&meter, &again);
                answer(responder, &again);
            }
        }
    }

    fn on_list(&mut self, list: List, responder: Responder) {
        if list.epoch > self.epoch() {
            self.early.push_back((list.epoch, Event::List(list, responder)));
            return;
        }
        let serves = self.groups.get(&list.pg).filter(|(_, group)| group.state() == "active");
        let Some((_, group)) = serves else {
            return answer(responder, &Listed::Again { epoch: self.epoch() });
        };
        match listed(&*self.store, group, &list) {
            Ok(listed) => answer(responder, &listed),
            Err(error) => responder.fail(&Status::new(Code::Corrupt, format!("pg {}: {error}", list.pg))),
        }
    }

    fn on_said(&mut self, from: OsdId, said: Said) {
        let (pg, epoch) = (said.pg, said.msg.epoch);
        if epoch > self.epoch() {
            self.early.push_back((epoch, Event::Said(from, said)));
            return;
        }
        if let Some((core, _)) = self.groups.get(&pg) {
            self.work.push_back((pg, *core, Input::Peer { from, msg: said.msg }));
            return;
        }
        if self.leaving.contains_key(&pg) {
            // The old copy's removal is not durable yet. Whoever needs us asks again: its connection tells it to.
            self.early.push_back((epoch, Event::Said(from, said)));
            return;
        }
        let Some((history, past)) = said.msg.body.creates() else { return };
        let Some(view) = self.unbroken(pg, said.msg.interval) else { return };
        let number = self.number();
        let group = PlacementGroup::create(pg, self.me, Arc::clone(&self.cfg), Arc::clone(&view), said.msg.interval);
        let group = group.with_history(history, past).of_run(self.floor, self.began);
        self.groups.insert(pg, (number, group));
        self.work.push_back((pg, number, Input::Map(view)));
        self.work.push_back((pg, number, Input::Peer { from, msg: said.msg }));
    }

    /// The present view, if the interval that began at `interval` still stands.
    fn unbroken(&self, pg: PgId, interval: Epoch) -> Option<Arc<View>> {
        let now = self.maps.last()?.view(pg)?;
        if interval > now.epoch {
            return None;
        }
        let mut before: Option<Arc<View>> = None;
        for epoch in interval.0..=now.epoch.0 {
            let view = self.maps.get(Epoch(epoch))?.view(pg)?;
            if before.is_some_and(|before| !before.same_interval(&view)) {
                return None;
            }
            before = Some(view);
        }
        Some(now)
    }

    /// Takes what waited for a map that is here now.
    fn take_early(&mut self) {
        let epoch = self.epoch();
        let (ready, rest): (VecDeque<_>, _) =
            std::mem::take(&mut self.early).into_iter().partition(|(wants, _)| *wants <= epoch);
        self.early = rest;
        for (_, event) in ready {
            self.take(event);
        }
    }
}

/// How a group is, for an operator.
fn line(group: &PlacementGroup) -> PgLine {
    let (info, log) = (group.info(), group.log());
    let inconsistent = group.inconsistent().iter().map(|(oid, bad)| {
        (oid.clone(), bad.iter().map(|(osd, damage)| (*osd, format!("{damage:?}").to_lowercase())).collect())
    });
    PgLine {
        pg: group.id(),
        state: group.state().to_owned(),
        clean: group.is_clean(),
        scrubbing: group.is_scrubbing(),
        why: group.explain(),
        epoch: group.epoch(),
        interval: info.interval,
        last: log.head(),
        tail: log.tail(),
        objects: info.stats.objects,
        clones: info.stats.clones,
        bytes: info.stats.bytes,
        missing: group.missing().len() as u64,
        unfound: group.unfound(),
        inconsistent: inconsistent.collect(),
    }
}

/// A page of a group's objects: what the store lists, and what is known to be missing there.
fn listed(store: &dyn ObjectStore, group: &PlacementGroup, list: &List) -> Result<Listed, StoreError> {
    let max = list.max.clamp(1, 1000);
    let items = [ReadItem::List { after: list.after.clone(), max }];
    let Ok(values) = reads::read(store, list.pg, None, &items) else {
        return Ok(Listed::Again { epoch: group.epoch() });
    };
    let Some(ReadValue::List(page, more)) = values.into_iter().next() else {
        return Ok(Listed::Again { epoch: group.epoch() });
    };
    let next = more.then(|| page.last().map(|(oid, _)| oid.clone())).flatten();
    let is_head = |oid: &ObjectId| oid.snap == SnapId::HEAD && !is_temp(oid);
    let exists = |info: &Bytes| {
        nacre_pg::format::open::<ObjectInfo>(nacre_pg::format::Kind::Object, info).is_ok_and(|info| !info.whiteout)
    };
    let mut found: Vec<ObjectId> =
        page.iter().filter(|(oid, info)| is_head(oid) && exists(info)).map(|(oid, _)| oid.clone()).collect();
    let within = |oid: &ObjectId| {
        list.after.as_ref().is_none_or(|after| oid > after) && next.as_ref().is_none_or(|next| oid <= next)
    };
    found.extend(group.missing().keys().filter(|oid| is_head(oid) && within(oid)).cloned());
    found.sort();
    found.dedup();
    Ok(Listed::Objects { list: found, next })
}
