//! The cluster of one seed: a queue of events ordered by time, the network between its ends, and what each event does.
//!
//! Contract kept with the cores (see `nacre_pg::io`, `nacre_pg::msg`): messages between two osds keep their order on a
//! connection; when a connection is lost, both ends are told before either can send on the next one.

mod life;
mod net;
mod service;
mod shell;

use bytes::Bytes;
use nacre_pg::io::{Input, ReadId, ReadItem, Report, Request, SlotKind, TimerId};
use nacre_pg::msg::PeerMsg;
use nacre_pg::op::{ClientOp, Reply};
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use crate::client::Client;
use crate::client::watch::Watches;
use crate::fault::hunt::{Blow, Plot};
use crate::history::History;
use crate::map::Maps;
use crate::node::Node;
use crate::oracle::ledger::{Asked, Ledger};
use crate::rng::Rng;
use crate::rot::Rot;
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
    /// A pg is led on to where a spare copy holds the newest alone.
    Plot,
    /// Something goes wrong with who is asked for a piece of an object.
    Strike { by: OsdId, of: OsdId, blow: Blow },
    /// A scheduler says how a slot stands.
    Slot { osd: OsdId, run: u64, pg: PgId, core: u64, kind: SlotKind, holder: OsdId },
    /// A snapshot is removed.
    Unsnap,
    /// The pool's pgs become more.
    Grow,
    /// A client asks something new.
    Work { client: u32 },
    /// A client tries again what it was told to.
    Retry { client: u32, tid: u64 },
    /// A client looks for answers that are overdue.
    Overdue { client: u32 },
    /// A client renews its watches.
    Keep { client: u32 },
    /// A notify reaches a watcher.
    Notified { client: u32, from: OsdId, link: u64, name: Bytes, cookie: u64, notify: u64, payload: Bytes },
    /// A scrub is ordered.
    Scrub,
    /// Invariants are looked at in passing.
    Sample,
}

#[derive(Debug, Default)]
struct Link {
    generation: u64,
}

/// The cluster.
pub struct World {
    /// True time, in nanoseconds.
    pub now: u64,
    /// Chance.
    pub rng: Rng,
    /// Chance in runs whose OSDs put background reads off, as they do where clients would suffer.
    pub paced: Option<Rng>,
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
    /// What was promised so far, for the oracle.
    pub ledger: Ledger,
    /// Watches, and answers to notifies.
    pub watches: Watches,
    /// Bits that rot.
    pub rot: Rot,
    /// How far a pg was led, in runs that hunt.
    pub plot: Plot,
    /// When everything was healed; far off until then.
    pub healed: u64,
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
    ops: BTreeMap<u64, Asked>,
    next_op: u64,
    /// Since when an osd is silent, as the map service sees it.
    pub silent: BTreeMap<OsdId, u64>,
    /// Objects whose history was too hard to judge.
    pub too_hard: u64,
    /// Blocks that changed by themselves.
    pub rotten: BTreeSet<(OsdId, PgId, ObjectId)>,
    /// How often each fault was done, and each thing that faults lead to was seen.
    pub sights: BTreeMap<&'static str, u64>,
    /// An object was lost in a way that only an operator can decide about: the end of the run is not judged.
    pub given_up: bool,
    /// The last message on its way to each end.
    latest: BTreeMap<End, u64>,
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
            ledger: Ledger::default(),
            watches: Watches::default(),
            paced: (seed % 3 == 1).then(|| Rng::new(seed ^ 0x7061_6365)),
            rot: Rot::new(seed),
            plot: Plot::default(),
            healed: u64::MAX,
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
            rotten: BTreeSet::new(),
            sights: BTreeMap::new(),
            given_up: false,
            latest: BTreeMap::new(),
        }
    }

    /// Notes something for the trace.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(t) = &mut self.trace {
            t.push(format!("{:>12.6} {}", self.now as f64 / 1e9, line()));
        }
    }

    /// Counts something that was to be seen.
    pub fn seen(&mut self, what: &'static str) {
        *self.sights.entry(what).or_default() += 1;
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
                    if result.is_err() {
                        self.seen("damaged read");
                    }
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
            Event::Plot => self.plot_on(),
            Event::Strike { by, of, blow } => self.struck(by, of, blow),
            Event::Grow => self.grow(),
            Event::Slot { osd, run, pg, core, kind, holder } => self.slot_told(osd, run, pg, core, kind, holder),
            Event::Unsnap => self.unsnap(),
            Event::Work { client } => self.client_work(client),
            Event::Retry { client, tid } => self.client_retry(client, tid),
            Event::Overdue { client } => self.client_overdue(client),
            Event::Keep { client } => self.client_keeps(client),
            Event::Notified { client, from, link, name, cookie, notify, payload } => {
                if self.arrives(End::Osd(from.0), End::Client(client), link) {
                    self.notified(client, from, name, cookie, notify, payload);
                }
            }
            Event::Scrub => self.scrub_work(),
            Event::Sample => {
                crate::oracle::sample(self);
                if self.faulty {
                    self.after(500 * MS, Event::Sample);
                }
            }
        }
    }
}
