//! Simulated clients: what they ask, how they retry, and what they record.
//!
//! A client keeps a request's identity over all its retries, sends it again when its own map shows a new interval, when
//! told to, or when no answer comes (over a new connection), and sometimes for no reason at all.

pub(crate) mod calls;
pub(crate) mod copies;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use nacre_pg::log::ReqId;
use nacre_pg::op::{ClientOp, Compare, Op, OpId, Reply, SnapContext};
use nacre_pg::view::pg_of_hash;
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, SessionId, SnapId};

use crate::history::Call;
use crate::map::{Map, POOL};
use crate::rng::Rng;
use crate::world::{End, Event, MS, World};

/// A request on its way.
#[derive(Clone, Debug)]
struct Pending {
    name: Bytes,
    place: usize,
    ops: Vec<Op>,
    snap: SnapId,
    snapc: SnapContext,
    /// To whom it went last, by which map, when.
    sent: Option<(OsdId, Epoch, u64)>,
    /// Not to be sent before this map.
    not_before: Epoch,
    /// The last sending; answers to older ones say nothing about it.
    latest: u64,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    /// Its number.
    pub id: u32,
    /// The map it has.
    pub epoch: Epoch,
    /// It lives.
    pub alive: bool,
    next_tid: u64,
    pending: BTreeMap<u64, Pending>,
    serial: u64,
    /// Chance of its own, for what not every seed does.
    extra: Rng,
}

impl Client {
    /// New.
    pub fn new(id: u32, seed: u64) -> Client {
        let extra = Rng::new(seed ^ 0x6361_6c6c ^ u64::from(id) << 40);
        Client { id, epoch: Epoch(0), alive: true, next_tid: 1, pending: BTreeMap::new(), serial: 0, extra }
    }

    /// Requests without an answer.
    pub fn waiting(&self) -> usize {
        // Watches are renewed for ever: `oracle/notify.rs` sees to their answers.
        self.pending.values().filter(|p| !matches!(p.ops[..], [Op::Watch { .. }])).count()
    }

    /// What they are, for the report of a stuck run.
    pub fn stuck(&self) -> Vec<String> {
        self.pending
            .iter()
            .map(|(tid, p)| format!("client {} tid {tid} {} sent {:?}: {:?}", self.id, show(&p.name), p.sent, p.ops))
            .collect()
    }
}

fn show(name: &Bytes) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// The object of a name: its hash is any fixed function of it.
pub fn object(name: &Bytes, snap: SnapId) -> ObjectId {
    let hash = crc32fast::hash(name);
    ObjectId { pool: POOL, hash, namespace: Bytes::new(), name: name.clone(), snap }
}

/// Where an object belongs by a map.
pub fn pg_of(map: &Map, name: &Bytes) -> PgId {
    PgId { pool: POOL, seed: pg_of_hash(crc32fast::hash(name), map.pool.pg_num) }
}

impl World {
    pub(crate) fn client_work(&mut self, client: u32) {
        let c = client as usize;
        if !self.faulty || !self.clients[c].alive {
            return;
        }
        // Who reads by old maps reads often, and all objects at a time: an answer that is too old lives for a short time
        // only, and not of an object with a write on its way, whose read hangs.
        let hurry = self.scenario.is_lagging() && client % 2 == 1;
        let most = if hurry { self.scenario.objects } else { self.scenario.in_flight };
        if (self.clients[c].pending.len() as u64) < most && self.clients[c].epoch > Epoch(0) {
            self.ask_something(client);
        }
        let pause = self.scenario.pause / if hurry { 5 } else { 1 };
        let delay = self.rng.range(pause / 4 + 1, pause);
        self.after(delay, Event::Work { client });
    }

    fn ask_something(&mut self, client: u32) {
        let c = client as usize;
        let name = Bytes::from(format!("object-{}", self.rng.below(self.scenario.objects)));
        // One request of a client per object at a time: between two, the client has no order to claim.
        if self.clients[c].pending.values().any(|p| p.name == name) {
            return;
        }
        self.clients[c].serial += 1;
        let serial = self.clients[c].serial;
        let value = Bytes::from(format!("{client}.{serial};"));
        let kept = value.clone();
        let big = Bytes::from(value.repeat(self.rng.range(1, 30) as usize));
        let map = self.maps.get(self.clients[c].epoch).map(Arc::clone);
        let mut snap = SnapId::HEAD;
        let lock = Bytes::from_static(b"owner");
        let key = Bytes::from(format!("key-{}", self.rng.below(6)));
        let only_reads = self.scenario.is_lagging() && client % 2 == 1 && !self.scenario.laggards_write;
        let ops = match self.rng.below(20) {
            _ if only_reads => vec![Op::Read { offset: 0, len: 1 << 20 }],
            0..4 => vec![Op::Append { data: value }],
            4..6 => vec![Op::WriteFull { data: big }],
            6 => vec![Op::Write { offset: self.rng.below(60), data: value }],
            7 => vec![Op::Remove],
            8 => vec![Op::Create { exclusive: true }, Op::SetXattr { name: lock, value }],
            9 => vec![
                Op::CompareXattr { name: lock.clone(), how: Compare::Eq, value: Bytes::new() },
                Op::SetXattr { name: lock, value },
            ],
            10 => vec![
                Op::CompareXattr { name: lock.clone(), how: Compare::Ne, value: Bytes::new() },
                Op::SetXattr { name: lock, value: Bytes::new() },
            ],
            11 => vec![Op::OmapSet { entries: vec![(key, value.clone())] }, Op::Append { data: value }],
            12 => vec![Op::OmapRemove { keys: vec![key] }],
            13 => vec![Op::Truncate { size: self.rng.below(80) }],
            14 if self.scenario.snapshots => {
                let snaps: Vec<SnapId> = map.iter().flat_map(|m| m.snaps.iter().copied()).collect();
                match self.rng.pick(&snaps) {
                    // Odd ones may be removed at any time, and what a rollback to a removed one does depends on that.
                    Some(s) if s.0 % 2 == 0 && self.rng.chance(1, 3) => vec![Op::Rollback { snap: *s }],
                    Some(s) => {
                        snap = *s;
                        vec![Op::Read { offset: 0, len: 1 << 20 }]
                    }
                    None => vec![Op::Append { data: value }],
                }
            }
            15 => vec![Op::OmapRange { after: None, prefix: Bytes::from_static(b"key"), max: 100 }],
            16 => vec![Op::GetXattr { name: lock }],
            _ => vec![Op::Read { offset: 0, len: 1 << 20 }],
        };
        if !only_reads && self.watch_work(client, &name, &kept) {
            return;
        }
        let me = &mut self.clients[c];
        if self.scenario.copies() && !only_reads && me.extra.chance(1, 6) {
            let (onto, ops) = copies::draw(&mut me.extra, &name);
            if !self.clients[c].pending.values().any(|p| p.name == onto) {
                self.ask_op(client, &onto, ops, SnapId::HEAD);
            }
            return;
        }
        if self.scenario.classes && !only_reads && me.extra.chance(1, 3) {
            let ops = calls::draw(&mut me.extra, client, u64::from(self.scenario.clients), &kept);
            self.ask_op(client, &name, ops, SnapId::HEAD);
            return;
        }
        self.ask_op(client, &name, ops, snap);
    }

    /// A client asks.
    pub fn ask_op(&mut self, client: u32, name: &Bytes, ops: Vec<Op>, snap: SnapId) {
        let c = client as usize;
        let tid = self.clients[c].next_tid;
        self.clients[c].next_tid += 1;
        let map = self.maps.get(self.clients[c].epoch).map(Arc::clone);
        let snapc = map.map_or_else(SnapContext::default, |m| SnapContext {
            seq: m.snap_seq,
            snaps: m.snaps.iter().rev().copied().collect(),
        });
        let call = Call {
            client: u64::from(client),
            tid,
            ops: ops.clone(),
            snap,
            snapc: snapc.clone(),
            asked: self.now,
            answer: None,
        };
        let place = self.history.ask(name, call);
        let p = Pending { name: name.clone(), place, ops, snap, snapc, sent: None, not_before: Epoch(0), latest: 0 };
        self.clients[c].pending.insert(tid, p);
        self.client_send(client, tid);
    }

    fn client_send(&mut self, client: u32, tid: u64) {
        let c = client as usize;
        let epoch = self.clients[c].epoch;
        let Some(map) = self.maps.get(epoch).cloned() else { return };
        let acked_below = self.clients[c].pending.keys().next().copied().unwrap_or(tid);
        let Some(p) = self.clients[c].pending.get_mut(&tid) else { return };
        if p.not_before > epoch {
            return;
        }
        let pg = pg_of(&map, &p.name);
        let Some(primary) = map.view(pg).primary else {
            p.sent = None;
            return;
        };
        p.sent = Some((primary, epoch, self.now));
        let op = ClientOp {
            id: OpId(0),
            reqid: ReqId { session: SessionId(u64::from(client) + 1), tid },
            acked_below,
            epoch,
            oid: object(&p.name, p.snap),
            snapc: p.snapc.clone(),
            ops: p.ops.clone(),
        };
        self.note(|| format!("client {client} tid {tid} to {primary} {pg} {:?} {:?}", op.oid.name, op.ops));
        let latest = self.send_op(client, primary, pg, op.clone());
        if let Some(p) = self.clients[c].pending.get_mut(&tid) {
            p.latest = latest;
        }
        if self.rng.chance(1, 30) {
            // A retry for no reason.
            self.seen("request sent twice");
            self.send_op(client, primary, pg, op);
        }
    }

    pub(crate) fn client_map(&mut self, client: u32, epoch: Epoch) {
        let c = client as usize;
        if epoch <= self.clients[c].epoch {
            return;
        }
        self.clients[c].epoch = epoch;
        let Some(new) = self.maps.get(epoch).cloned() else { return };
        let tids: Vec<u64> = self.clients[c].pending.keys().copied().collect();
        for tid in tids {
            let Some(p) = self.clients[c].pending.get(&tid) else { continue };
            let again = match p.sent {
                None => true,
                Some((_, sent, _)) => self.maps.get(sent).is_none_or(|old| {
                    let (a, b) = (pg_of(old, &p.name), pg_of(&new, &p.name));
                    a != b || !old.view(a).same_interval(&new.view(b))
                }),
            };
            if again {
                self.client_send(client, tid);
            }
        }
    }

    /// When a request was asked that is still without an answer.
    pub(crate) fn asked_at(&self, client: u32, tid: u64) -> Option<u64> {
        let p = self.clients.get(client as usize)?.pending.get(&tid)?;
        self.history.objects.get(&p.name)?.get(p.place).map(|c| c.asked)
    }

    /// It was told to try again some time ago.
    pub(crate) fn client_retry(&mut self, client: u32, tid: u64) {
        if self.clients[client as usize].pending.get(&tid).is_some_and(|p| p.sent.is_none()) {
            self.client_send(client, tid);
        }
    }

    pub(crate) fn client_reply(&mut self, client: u32, tid: u64, sending: u64, reply: Reply) {
        let c = client as usize;
        if !self.clients[c].alive {
            return;
        }
        let now = self.now;
        match reply {
            Reply::Done { outcome, .. } => {
                if let Some(p) = self.clients[c].pending.remove(&tid) {
                    self.note(|| format!("client {client} tid {tid} answered {outcome:?}"));
                    let asked = self.history.objects.get(&p.name).map_or(0, |l| l[p.place].asked);
                    self.watch_answered(client, &p.name, &p.ops, asked, &outcome);
                    self.history.answer(&p.name, p.place, now, outcome);
                }
            }
            Reply::Again { epoch } => {
                let Some(p) = self.clients[c].pending.get_mut(&tid) else { return };
                if p.latest != sending {
                    return;
                }
                p.not_before = p.not_before.max(epoch);
                p.sent = None;
                let delay = self.rng.range(1, 40) * MS;
                self.after(delay, Event::Retry { client, tid });
            }
        }
    }

    pub(crate) fn client_overdue(&mut self, client: u32) {
        let c = client as usize;
        if self.clients[c].alive {
            let patience = self.scenario.patience;
            let late: Vec<(u64, Option<OsdId>)> = self.clients[c]
                .pending
                .iter()
                .filter(|(_, p)| p.sent.is_some_and(|(_, _, at)| self.now - at > patience))
                .map(|(t, p)| (*t, p.sent.map(|(o, _, _)| o)))
                .collect();
            let mut fresh = BTreeSet::new();
            for (tid, osd) in late {
                // A new connection: what is on the old one never arrives. Among faults each takes what was asked just before
                // along with it; once all is healed there is one for all, or of many late ones the first would wait for ever.
                if let Some(osd) = osd.filter(|osd| fresh.insert(*osd) || self.now < self.healed) {
                    self.reset(End::Client(client), End::Osd(osd.0));
                }
                self.client_send(client, tid);
            }
            self.after(300 * MS, Event::Overdue { client });
        }
    }

    /// A client dies: what it asked stays open.
    pub(crate) fn client_dies(&mut self, client: u32) {
        let c = client as usize;
        self.clients[c].alive = false;
        self.clients[c].pending.clear();
        self.note(|| format!("client {client} dies"));
    }
}
