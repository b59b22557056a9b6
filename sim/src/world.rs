//! The cluster of one seed: a queue of events ordered by time, the network between its ends, and what each event does.
//!
//! Contract kept with the cores (see `nacre_pg::io`, `nacre_pg::msg`): messages between two osds keep their order on a
//! connection; when a connection is lost, both ends are told before either can send on the next one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::{Arc, PoisonError};

use nacre_pg::PlacementGroup;
use nacre_pg::io::{Input, Output, ReadId, ReadItem, Report, Request, Step, TimerId};
use nacre_pg::msg::PeerMsg;
use nacre_pg::op::{ClientOp, OpId, Reply};
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId};
use nacre_store::ObjectStore;

use crate::client::Client;
use crate::history::History;
use crate::map::Maps;
use crate::node::{Early, Node};
use crate::rng::Rng;
use crate::scenario::Scenario;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The map service.
    Mon,
    /// An osd.
    Osd(u32),
    /// A client.
    Client(u32),
}

/// What will happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message of a peer arrives.
    Peer { to: OsdId, from: OsdId, link: u64, pg: PgId, msg: Box<PeerMsg> },
    /// An operation arrives.
    Op { to: OsdId, client: u32, link: u64, pg: PgId, op: Box<ClientOp> },
    /// An answer arrives.
    Reply { client: u32, from: OsdId, link: u64, tid: u64, sending: u64, reply: Box<Reply> },
    /// The disk makes some of what waits durable.
    Commit { osd: OsdId, run: u64 },
    /// A read is done.
    Read { osd: OsdId, run: u64, pg: PgId, core: u64, id: ReadId, oid: Option<ObjectId>, items: Vec<ReadItem> },
    /// A timer rings.
    Timer { osd: OsdId, run: u64, pg: PgId, core: u64, id: TimerId },
    /// Maps up to here reach an end.
    Map { to: End, epoch: Epoch },
    /// A request reaches the map service.
    Ask { from: OsdId, run: u64, pg: PgId, interval: Epoch, what: Request },
    /// The map service looks who is silent.
    Watch,
    /// An osd asks to be up.
    Boot { osd: OsdId, run: u64 },
    /// An osd's process starts again.
    Restart { osd: OsdId },
    /// A cut ends.
    Heal { a: End, b: End },
    /// Something goes wrong.
    Fault,
    /// A client asks something new.
    Work { client: u32 },
    /// A client tries again what it was told to.
    Retry { client: u32, tid: u64 },
    /// A client looks for answers that are overdue.
    Overdue { client: u32 },
    /// Invariants are looked at in passing.
    Sample,
}

#[derive(Debug, Default)]
struct Link {
    generation: u64,
    last: u64,
}

/// The cluster.
pub struct World {
    /// True time, in nanoseconds.
    pub now: u64,
    /// Chance.
    pub rng: Rng,
    /// The shape of this run.
    pub scenario: Scenario,
    /// The map service.
    pub maps: Maps,
    /// The osds.
    pub nodes: Vec<Node>,
    /// The clients.
    pub clients: Vec<Client>,
    /// What clients saw.
    pub history: History,
    /// Faults still happen.
    pub faulty: bool,
    /// How each pg is, by the reports of its osds.
    pub reports: BTreeMap<(OsdId, PgId), Report>,
    /// How often each move of state was seen.
    pub moves: BTreeMap<(&'static str, &'static str), u64>,
    /// What went wrong; the first is what counts.
    pub violations: Vec<String>,
    /// Kept lines of the trace, if wanted.
    pub trace: Option<Vec<String>>,
    /// A hash over every event.
    pub hash: u64,
    /// Events done.
    pub events: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    pending: BTreeMap<u64, Event>,
    next_event: u64,
    links: BTreeMap<(End, End), Link>,
    directions: BTreeMap<(End, End), u64>,
    /// One-way cuts.
    pub cuts: BTreeSet<(End, End)>,
    /// Where replies go.
    ops: BTreeMap<u64, (u32, u64)>,
    next_op: u64,
    /// Since when an osd is silent, as the map service sees it.
    pub silent: BTreeMap<OsdId, u64>,
    /// Objects whose history was too hard to judge.
    pub too_hard: u64,
    /// Disks that are slow for now: until when.
    pub slow: BTreeMap<OsdId, u64>,
}

/// A millisecond.
pub const MS: u64 = 1_000_000;

fn pair(a: End, b: End) -> (End, End) {
    if a < b { (a, b) } else { (b, a) }
}

impl World {
    /// An empty queue around a first map.
    pub fn new(seed: u64, scenario: Scenario, maps: Maps, nodes: Vec<Node>, clients: Vec<Client>) -> World {
        World {
            now: 0,
            rng: Rng::new(seed),
            scenario,
            maps,
            nodes,
            clients,
            history: History::default(),
            faulty: true,
            reports: BTreeMap::new(),
            moves: BTreeMap::new(),
            violations: Vec::new(),
            trace: None,
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            queue: BinaryHeap::new(),
            pending: BTreeMap::new(),
            next_event: 0,
            links: BTreeMap::new(),
            directions: BTreeMap::new(),
            cuts: BTreeSet::new(),
            ops: BTreeMap::new(),
            next_op: 0,
            silent: BTreeMap::new(),
            slow: BTreeMap::new(),
            too_hard: 0,
        }
    }

    /// Notes something for the trace.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(t) = &mut self.trace {
            t.push(format!("{:>12.6} {}", self.now as f64 / 1e9, line()));
        }
    }

    fn mix(&mut self, n: u64) {
        self.hash = (self.hash ^ n).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
    }

    /// Schedules.
    pub fn after(&mut self, delay: u64, event: Event) {
        let id = self.next_event;
        self.next_event += 1;
        self.queue.push(Reverse((self.now + delay, id)));
        self.pending.insert(id, event);
    }

    /// Does the next event; false if there is none before `until`.
    pub fn step(&mut self, until: u64) -> bool {
        let Some(&Reverse((at, id))) = self.queue.peek() else { return false };
        if at > until || !self.violations.is_empty() {
            return false;
        }
        self.queue.pop();
        let Some(event) = self.pending.remove(&id) else { return true };
        self.now = at;
        self.events += 1;
        self.mix(at);
        self.mix(id);
        self.dispatch(event);
        true
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Peer { to, from, link, pg, msg } => {
                if self.arrives(End::Osd(from.0), End::Osd(to.0), link) {
                    self.peer(to, from, pg, *msg);
                }
            }
            Event::Op { to, client, link, pg, op } => {
                if self.arrives(End::Client(client), End::Osd(to.0), link) {
                    self.op(to, pg, *op);
                }
            }
            Event::Reply { client, from, link, tid, sending, reply } => {
                if self.arrives(End::Osd(from.0), End::Client(client), link) {
                    self.client_reply(client, tid, sending, *reply);
                }
            }
            Event::Commit { osd, run } => self.commit(osd, run),
            Event::Read { osd, run, pg, core, id, oid, items } => {
                let node = &self.nodes[osd.0 as usize];
                if node.run == run && node.pgs.get(&pg).is_some_and(|(c, _)| *c == core) {
                    let result = node.read(pg, oid.as_ref(), &items);
                    self.input(osd, pg, Input::ReadDone { id, result });
                }
            }
            Event::Timer { osd, run, pg, core, id } => {
                let node = &self.nodes[osd.0 as usize];
                if node.run == run && node.pgs.get(&pg).is_some_and(|(c, _)| *c == core) {
                    self.input(osd, pg, Input::Timer(id));
                }
            }
            Event::Map { to, epoch } => {
                if !self.is_cut(End::Mon, to) {
                    self.map_arrives(to, epoch);
                }
            }
            Event::Ask { from, run, pg, interval, what } => self.ask(from, run, pg, interval, what),
            Event::Watch => self.watch(),
            Event::Boot { osd, run } => self.boot(osd, run),
            Event::Restart { osd } => self.restart(osd),
            Event::Heal { a, b } => self.heal(a, b),
            Event::Fault => self.fault(),
            Event::Work { client } => self.client_work(client),
            Event::Retry { client, tid } => self.client_retry(client, tid),
            Event::Overdue { client } => self.client_overdue(client),
            Event::Sample => {
                crate::oracle::sample(self);
                if self.faulty {
                    self.after(500 * MS, Event::Sample);
                }
            }
        }
    }

    // The network.

    /// Is the way from one end to the other cut.
    pub fn is_cut(&self, from: End, to: End) -> bool {
        self.cuts.contains(&(from, to))
    }

    fn arrives(&self, from: End, to: End, link: u64) -> bool {
        !self.is_cut(from, to) && self.links.get(&pair(from, to)).map_or(0, |l| l.generation) == link
    }

    /// When a message sent now arrives, and over which connection.
    fn route(&mut self, from: End, to: End) -> (u64, u64) {
        let slow = self.scenario.delay;
        let mut delay = self.rng.range(slow / 4 + 1, slow);
        if self.rng.chance(1, 50) {
            delay *= 10;
        }
        let link = self.links.entry(pair(from, to)).or_default();
        let last = self.directions.entry((from, to)).or_default();
        let at = (self.now + delay).max(*last + 1);
        *last = at;
        link.last = at;
        (at - self.now, link.generation)
    }

    /// The connection between two ends is lost with all that is on it.
    pub fn reset(&mut self, a: End, b: End) {
        self.note(|| format!("connection {a:?} {b:?} lost"));
        self.links.entry(pair(a, b)).or_default().generation += 1;
        if let (End::Osd(a), End::Osd(b)) = (a, b) {
            for (me, other) in [(OsdId(a), OsdId(b)), (OsdId(b), OsdId(a))] {
                let pgs: Vec<PgId> = self.nodes[me.0 as usize].pgs.keys().copied().collect();
                for pg in pgs {
                    self.input(me, pg, Input::PeerReset { osd: other });
                }
            }
        }
    }

    fn heal(&mut self, a: End, b: End) {
        let was = self.cuts.remove(&(a, b)) | self.cuts.remove(&(b, a));
        if !was {
            return;
        }
        self.reset(a, b);
        if a == End::Mon || b == End::Mon {
            let other = if a == End::Mon { b } else { a };
            let epoch = self.maps.last().epoch;
            self.after(MS, Event::Map { to: other, epoch });
        }
    }

    /// Everything works again.
    pub fn heal_all(&mut self) {
        for (a, b) in self.cuts.clone() {
            self.heal(a, b);
        }
        self.slow.clear();
    }

    // Maps.

    /// Changes the map and spreads it.
    pub fn change(&mut self, f: impl FnOnce(&mut crate::map::Map)) {
        self.maps.change(f);
        self.publish();
    }

    pub(crate) fn publish(&mut self) {
        let epoch = self.maps.last().epoch;
        self.note(|| format!("map {epoch}"));
        for i in 0..self.nodes.len() as u32 {
            let d = self.rng.range(1, 20) * MS / 2;
            self.after(d, Event::Map { to: End::Osd(i), epoch });
        }
        for i in 0..self.clients.len() as u32 {
            let lag = if i % 2 == 1 { self.scenario.lag } else { 60 };
            let d = self.rng.range(lag / 60, lag) * MS;
            self.after(d, Event::Map { to: End::Client(i), epoch });
        }
    }

    fn map_arrives(&mut self, to: End, epoch: Epoch) {
        match to {
            End::Osd(i) => self.node_maps(OsdId(i), epoch),
            End::Client(i) => self.client_map(i, epoch),
            End::Mon => {}
        }
    }

    /// An osd takes maps in order up to one.
    fn node_maps(&mut self, osd: OsdId, epoch: Epoch) {
        let i = osd.0 as usize;
        if !self.nodes[i].running {
            return;
        }
        while self.nodes[i].epoch < epoch {
            let next = self.nodes[i].epoch.next();
            let Some(map) = self.maps.get(next).cloned() else { return };
            self.nodes[i].epoch = next;
            let known: Vec<PgId> = self.nodes[i].pgs.keys().copied().collect();
            for pg in known {
                let view = Arc::new(map.view(pg));
                self.input(osd, pg, Input::Map(view));
            }
            if next == Epoch(1) {
                for pg in map.pgs() {
                    let view = Arc::new(map.view(pg));
                    if view.has(osd) {
                        let cfg = Arc::clone(&self.nodes[i].cfg);
                        self.nodes[i].add(PlacementGroup::create(pg, osd, cfg, Arc::clone(&view), next));
                        self.input(osd, pg, Input::Map(view));
                    }
                }
            }
            let sight = map.osds.get(&osd).copied().unwrap_or_default();
            let current = self.maps.last().osds.get(&osd).copied().unwrap_or_default();
            if !sight.up && !current.up {
                let run = self.nodes[i].run;
                let delay = self.rng.range(10, 400) * MS;
                self.after(delay, Event::Boot { osd, run });
            }
        }
        let ready: Vec<Early> = {
            let node = &mut self.nodes[i];
            let epoch = node.epoch;
            let (ready, rest) = std::mem::take(&mut node.early).into_iter().partition(|(e, _)| *e <= epoch);
            node.early = rest;
            ready.into_iter().map(|(_, e): (Epoch, Early)| e).collect()
        };
        for e in ready {
            match e {
                Early::Peer(from, pg, msg) => self.peer(osd, from, pg, msg),
                Early::Op(pg, op) => self.op(osd, pg, op),
            }
        }
    }

    fn ask(&mut self, from: OsdId, run: u64, pg: PgId, interval: Epoch, what: Request) {
        let node = &self.nodes[from.0 as usize];
        if node.run != run || !node.running {
            return;
        }
        if self.is_cut(End::Osd(from.0), End::Mon) {
            self.after(200 * MS, Event::Ask { from, run, pg, interval, what });
            return;
        }
        let last = Arc::clone(self.maps.last());
        let still = (interval.0..=last.epoch.0).map(Epoch).filter_map(|e| self.maps.get(e)).map(|m| m.view(pg));
        let mut same = true;
        let mut prev: Option<nacre_pg::view::View> = None;
        for v in still {
            if prev.as_ref().is_some_and(|p| !p.same_interval(&v)) {
                same = false;
                break;
            }
            prev = Some(v);
        }
        match what {
            Request::UpThru => {
                let sight = last.osds.get(&from).copied().unwrap_or_default();
                if same && sight.up && sight.up_from <= interval && sight.up_thru < interval {
                    self.maps.change_osd(from, |s, _| s.up_thru = interval);
                    self.publish();
                }
            }
            Request::PgTemp(list) if same && list.iter().all(|o| last.osds.get(o).is_some_and(|s| s.up)) => {
                self.change(|m| {
                    if list.is_empty() {
                        m.temp.remove(&pg);
                    } else {
                        m.temp.insert(pg, list);
                    }
                });
            }
            _ => {}
        }
    }

    /// Failure detection: an osd that is silent for its grace is marked down.
    fn watch(&mut self) {
        let grace = self.scenario.grace;
        let mut gone = Vec::new();
        for i in 0..self.nodes.len() {
            let osd = OsdId(i as u32);
            let others = (0..self.nodes.len() as u32).filter(|o| *o != osd.0);
            let cut = others.filter(|o| self.is_cut(End::Osd(osd.0), End::Osd(*o))).count();
            let silent = !self.nodes[i].running || self.is_cut(End::Osd(osd.0), End::Mon) || cut >= 2;
            let up = self.maps.last().osds.get(&osd).is_some_and(|s| s.up);
            if !silent || !up {
                self.silent.remove(&osd);
                continue;
            }
            let since = *self.silent.entry(osd).or_insert(self.now);
            // A connection refused says at once that the process is gone.
            let refused = !self.nodes[i].running && self.scenario.refuses;
            if refused || self.now - since >= grace {
                gone.push((osd, !self.nodes[i].running && self.scenario.refuses));
            }
        }
        for (osd, dead) in gone {
            self.note(|| format!("{osd} marked down, dead {dead}"));
            self.maps.change_osd(osd, |s, _| {
                s.up = false;
                s.dead = dead;
            });
            self.publish();
        }
        self.after(50 * MS, Event::Watch);
    }

    fn boot(&mut self, osd: OsdId, run: u64) {
        let node = &self.nodes[osd.0 as usize];
        if !node.running || node.run != run {
            return;
        }
        if self.is_cut(End::Osd(osd.0), End::Mon) || self.is_cut(End::Mon, End::Osd(osd.0)) {
            self.after(100 * MS, Event::Boot { osd, run });
            return;
        }
        // Caught up first: it takes part only from the map that shows this run.
        let epoch = self.maps.last().epoch;
        self.node_maps(osd, epoch);
        let sight = self.maps.last().osds.get(&osd).copied().unwrap_or_default();
        if sight.up && sight.up_from > self.started_at(osd) {
            return;
        }
        if sight.up {
            // Quicker than the failure detection: the old run ends in the map first.
            self.maps.change_osd(osd, |s, _| {
                s.up = false;
                s.dead = true;
            });
            self.publish();
        }
        self.maps.change_osd(osd, |s, epoch| {
            s.up = true;
            s.up_from = epoch;
            s.dead = false;
        });
        self.note(|| format!("{osd} up"));
        self.publish();
        self.silent.remove(&osd);
    }

    fn started_at(&self, osd: OsdId) -> Epoch {
        self.scenario.floors.get(&osd).copied().unwrap_or_default()
    }

    // Osds.

    /// Power is lost at an osd.
    pub fn crash(&mut self, osd: OsdId) {
        let i = osd.0 as usize;
        if !self.nodes[i].running {
            return;
        }
        let pending = self.nodes[i].store.pending_bytes();
        let bytes = self.rng.below(pending + 1);
        self.note(|| format!("{osd} crashes, {bytes} of {pending} unsynced bytes survive"));
        self.nodes[i].crash(bytes);
        self.reports.retain(|(o, _), _| *o != osd);
        self.reset_all(osd);
    }

    fn reset_all(&mut self, osd: OsdId) {
        for o in 0..self.nodes.len() as u32 {
            if o != osd.0 {
                self.reset(End::Osd(osd.0), End::Osd(o));
            }
        }
        for c in 0..self.clients.len() as u32 {
            self.reset(End::Osd(osd.0), End::Client(c));
        }
    }

    fn restart(&mut self, osd: OsdId) {
        let i = osd.0 as usize;
        if self.nodes[i].running {
            return;
        }
        if self.is_cut(End::Mon, End::Osd(osd.0)) {
            self.after(100 * MS, Event::Restart { osd });
            return;
        }
        self.note(|| format!("{osd} starts"));
        let floor = self.maps.last().epoch;
        self.scenario.floors.insert(osd, floor);
        if let Err(e) = self.nodes[i].restart(&self.maps, self.now, floor) {
            self.violations.push(format!("restart: {e}"));
            return;
        }
        let loaded: Vec<PgId> = self.nodes[i].pgs.keys().copied().collect();
        for pg in loaded {
            let Some((_, core)) = self.nodes[i].pgs.get(&pg) else { continue };
            for e in core.epoch().0 + 1..=floor.0 {
                if let Some(m) = self.maps.get(Epoch(e)) {
                    let view = Arc::new(m.view(pg));
                    self.input(osd, pg, Input::Map(view));
                }
            }
        }
        self.reset_all(osd);
        let run = self.nodes[i].run;
        let d = self.rng.range(1, 50) * MS;
        self.after(d, Event::Boot { osd, run });
    }

    fn peer(&mut self, to: OsdId, from: OsdId, pg: PgId, msg: PeerMsg) {
        let i = to.0 as usize;
        if !self.nodes[i].running {
            return;
        }
        if msg.epoch > self.nodes[i].epoch {
            let epoch = msg.epoch;
            self.nodes[i].early.push_back((epoch, Early::Peer(from, pg, msg)));
            if self.scenario.gossip {
                // Peers bring each other up to date.
                self.node_maps(to, epoch);
            }
            return;
        }
        if self.nodes[i].leaving.contains_key(&pg) {
            // The old copy's removal is not durable yet.
            self.nodes[i].store.commit(usize::MAX);
            self.told_durable(to);
            self.nodes[i].leaving.remove(&pg);
        }
        if !self.nodes[i].pgs.contains_key(&pg) {
            let Some((history, past)) = msg.body.creates() else { return };
            let Some(map) = self.maps.get(self.nodes[i].epoch) else { return };
            let view = Arc::new(map.view(pg));
            // Only if the interval it speaks of still stands here.
            let mut stands = msg.interval <= view.epoch;
            let mut prev: Option<nacre_pg::view::View> = None;
            for e in msg.interval.0..=view.epoch.0 {
                let Some(v) = self.maps.get(Epoch(e)).map(|m| m.view(pg)) else { continue };
                if prev.as_ref().is_some_and(|p| !p.same_interval(&v)) {
                    stands = false;
                }
                prev = Some(v);
            }
            if !stands {
                return;
            }
            let node = &mut self.nodes[i];
            let core = PlacementGroup::create(pg, to, Arc::clone(&node.cfg), Arc::clone(&view), msg.interval);
            node.add(core.with_history(history, past));
            self.input(to, pg, Input::Map(view));
        }
        self.mix(u64::from(from.0) << 32 | u64::from(to.0));
        let name = msg.body.name();
        self.note(|| {
            let mut what = format!("{:?}", msg.body);
            what.truncate(what.char_indices().nth(400).map_or(what.len(), |(i, _)| i));
            format!("{from} -> {to} {pg} {name} @{} {what}", msg.interval)
        });
        self.input(to, pg, Input::Peer { from, msg });
    }

    fn op(&mut self, to: OsdId, pg: PgId, op: ClientOp) {
        let i = to.0 as usize;
        if !self.nodes[i].running {
            return;
        }
        if op.epoch > self.nodes[i].epoch {
            self.nodes[i].early.push_back((op.epoch, Early::Op(pg, op)));
            return;
        }
        if self.nodes[i].pgs.contains_key(&pg) {
            self.input(to, pg, Input::Op(op));
        } else {
            let epoch = self.nodes[i].epoch;
            self.reply(to, op.id, Reply::Again { epoch });
        }
    }

    /// One step of one core, and what it asks for.
    pub fn input(&mut self, osd: OsdId, pg: PgId, input: Input) {
        let i = osd.0 as usize;
        if !self.nodes[i].running {
            return;
        }
        let now = self.nodes[i].now(self.now);
        let mut out = Vec::new();
        let Some((core, group)) = self.nodes[i].pgs.get_mut(&pg) else { return };
        let core = *core;
        group.step(&mut Step { now, out: &mut out }, input);
        self.mix(out.len() as u64);
        for o in out {
            self.output(osd, pg, core, o);
        }
    }

    fn output(&mut self, osd: OsdId, pg: PgId, core: u64, output: Output) {
        let i = osd.0 as usize;
        let run = self.nodes[i].run;
        match output {
            Output::Send { to, msg } => {
                let (delay, link) = self.route(End::Osd(osd.0), End::Osd(to.0));
                self.after(delay, Event::Peer { to, from: osd, link, pg, msg: Box::new(msg) });
            }
            Output::Submit { id, txn } => {
                let durable = Arc::clone(&self.nodes[i].durable);
                let done = Box::new(move |r: Result<(), nacre_store::StoreError>| {
                    if r.is_ok() {
                        durable.lock().unwrap_or_else(PoisonError::into_inner).push((pg, core, id));
                    }
                });
                if let Err(e) = self.nodes[i].store.submit(txn, done) {
                    self.violations.push(format!("{osd} pg {pg}: the store refused a transaction: {e}"));
                    return;
                }
                if !self.nodes[i].committing {
                    self.nodes[i].committing = true;
                    let slow = self.slow.get(&osd).is_some_and(|t| *t > self.now);
                    let most = if slow { 400 * MS } else { self.scenario.sync };
                    let delay = self.rng.range(most / 10 + 1, most);
                    self.after(delay, Event::Commit { osd, run });
                }
            }
            Output::Read { id, oid, items } => {
                let delay = if self.rng.chance(1, 2) { 0 } else { self.rng.below(MS) };
                self.after(delay, Event::Read { osd, run, pg, core, id, oid, items });
            }
            Output::Reply { op, reply } => self.reply(osd, op, reply),
            Output::Ask(what) => {
                let interval = self.nodes[i].pgs.get(&pg).map(|(_, g)| g.info().interval).unwrap_or_default();
                let delay = self.rng.range(1, 10) * MS;
                self.after(delay, Event::Ask { from: osd, run, pg, interval, what });
            }
            Output::Arm { id, at } => {
                let when = self.nodes[i].when(at);
                let delay = when.saturating_sub(self.now);
                self.after(delay, Event::Timer { osd, run, pg, core, id });
            }
            Output::Report(report) => drop(self.reports.insert((osd, pg), *report)),
            Output::Born(child) => {
                let id = child.id();
                self.nodes[i].add(*child);
                let epoch = self.nodes[i].epoch;
                if let Some(m) = self.maps.get(epoch) {
                    let view = Arc::new(m.view(id));
                    self.input(osd, id, Input::Map(view));
                }
            }
            Output::Gone => {
                self.nodes[i].pgs.remove(&pg);
                self.nodes[i].leaving.insert(pg, nacre_pg::io::TxnId(0));
                self.reports.remove(&(osd, pg));
            }
            Output::Moved { from, to, by } => {
                *self.moves.entry((from, to)).or_default() += 1;
                self.note(|| format!("{osd} {pg} {from} -> {to} by {by}"));
            }
            Output::Notify { .. } => {}
        }
    }

    fn commit(&mut self, osd: OsdId, run: u64) {
        let i = osd.0 as usize;
        if self.nodes[i].run != run || !self.nodes[i].running {
            return;
        }
        let pending = self.nodes[i].store.pending() as u64;
        let count = self.rng.range(1, pending.max(1)) as usize;
        self.nodes[i].store.commit(count);
        self.nodes[i].committing = false;
        if self.nodes[i].store.pending() > 0 {
            self.nodes[i].committing = true;
            let delay = self.rng.range(1, self.scenario.sync);
            self.after(delay, Event::Commit { osd, run });
        } else {
            self.nodes[i].leaving.clear();
        }
        self.told_durable(osd);
    }

    fn told_durable(&mut self, osd: OsdId) {
        let list = {
            let durable = &self.nodes[osd.0 as usize].durable;
            std::mem::take(&mut *durable.lock().unwrap_or_else(PoisonError::into_inner))
        };
        for (pg, core, id) in list {
            if self.nodes[osd.0 as usize].pgs.get(&pg).is_some_and(|(c, _)| *c == core) {
                self.input(osd, pg, Input::Committed(id));
            }
        }
    }

    // Clients.

    /// Sends an operation of a client to an osd.
    pub fn send_op(&mut self, client: u32, to: OsdId, pg: PgId, mut op: ClientOp) -> u64 {
        self.next_op += 1;
        self.ops.insert(self.next_op, (client, op.reqid.tid));
        op.id = OpId(self.next_op);
        let (delay, link) = self.route(End::Client(client), End::Osd(to.0));
        self.after(delay, Event::Op { to, client, link, pg, op: Box::new(op) });
        self.next_op
    }

    fn reply(&mut self, from: OsdId, op: OpId, reply: Reply) {
        let Some((client, tid)) = self.ops.remove(&op.0) else {
            self.violations.push(format!("{from} answered an operation twice"));
            return;
        };
        let (delay, link) = self.route(End::Osd(from.0), End::Client(client));
        self.after(delay, Event::Reply { client, from, link, tid, sending: op.0, reply: Box::new(reply) });
    }
}
