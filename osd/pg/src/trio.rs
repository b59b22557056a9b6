//! Three cores with stores in memory, for tests that say who is up: messages arrive at once and in order, everything is
//! durable at once, and time leaps on with every question.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, PoolId, SessionId, SnapId};
use nacre_proto::txn::TxnOp;

use crate::PlacementGroup;
use crate::io::{Input, Output, ReadFault, ReadId, ReadItem, ReadValue, Request, SlotKind, Step, Time, TimerId, Way};
use crate::log::ReqId;
use crate::msg::Body;
use crate::op::{ClientOp, Op, OpError, OpId, OpResult, Reply, SnapContext};
use crate::state::Config;
use crate::view::{OsdSight, PoolRules, View};

pub(crate) const PG: PgId = PgId { pool: PoolId(1), seed: 0 };

/// One object as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Thing {
    pub(crate) bytes: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Bytes, Bytes>,
    pub(crate) omap: BTreeMap<Bytes, Bytes>,
    pub(crate) header: Bytes,
}

pub(crate) type Disk = BTreeMap<ObjectId, Thing>;

/// Three osds; who is up is the test's to say.
pub(crate) struct Trio {
    pub(crate) cores: Vec<PlacementGroup>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) view: View,
    pub(crate) queue: VecDeque<(usize, Input)>,
    pub(crate) replies: BTreeMap<u64, Reply>,
    /// Pushed objects get lost on the way.
    pub(crate) no_push: bool,
    /// Each answer to a pull comes twice, as when a connection is lost after the question.
    pub(crate) twice: bool,
    /// Copies that cannot be read until they are replaced.
    pub(crate) rotten: BTreeSet<(usize, ObjectId)>,
    /// Slots that are asked for are not given.
    pub(crate) no_slots: bool,
    /// Bytes of objects sent in pieces, and those named instead.
    pub(crate) sent: u64,
    pub(crate) shared: u64,
    /// Pulls from who is up without serving get lost.
    pub(crate) no_pull: bool,
    /// Up without serving.
    pub(crate) spare: Option<u32>,
    /// Hears nothing.
    pub(crate) deaf: Option<usize>,
    /// Bytes of the largest piece of an object that was sent: of its data or of its omap.
    pub(crate) largest: usize,
    /// Messages between pgs so far, and which of them gets lost.
    pub(crate) carried: usize,
    pub(crate) lose: usize,
    /// Timers that ring when nothing else happens.
    pub(crate) later: Vec<(usize, TimerId)>,
    /// What happens right after so many messages between pgs.
    pub(crate) after_carried: Option<(usize, (usize, Input))>,
    /// What watchers were told: whose watch, which cookie, which notify.
    pub(crate) told: Vec<(SessionId, u64, u64)>,
    /// Timers of watches and notifies ring when the test says so; these were asked for.
    pub(crate) patient: bool,
    pub(crate) rings: Vec<(usize, Input)>,
    /// Members are not told what is bad there.
    pub(crate) no_repair: bool,
    /// So many questions of scrubs still arrive.
    pub(crate) scrubs: usize,
    /// Slots that were asked for, with their priority.
    pub(crate) asked: Vec<(usize, SlotKind, u8)>,
    /// What is read at osd 0 comes when the test says so: who asked, and what it was when it was asked for.
    pub(crate) late: Option<Vec<LateRead>>,
    pub(crate) next: u64,
}

/// A read whose answer has not come.
pub(crate) struct LateRead {
    id: ReadId,
    oid: Option<ObjectId>,
    items: Vec<ReadItem>,
    then: Result<Vec<ReadValue>, ReadFault>,
}

impl Trio {
    pub(crate) fn new() -> Trio {
        Trio::with(Config::default())
    }

    pub(crate) fn with(cfg: Config) -> Trio {
        let ids: Vec<OsdId> = (0..3).map(OsdId).collect();
        let sight = OsdSight { up: true, up_from: Epoch(1), up_thru: Epoch(1), ..OsdSight::default() };
        let view = View {
            epoch: Epoch(1),
            up: vec![],
            up_primary: None,
            acting: vec![],
            primary: None,
            pool: PoolRules { size: 2, min_size: 1, pg_num: 1, ..PoolRules::default() },
            osds: Arc::new(ids.iter().map(|o| (*o, sight)).collect()),
        };
        let cfg = Arc::new(Config { check: true, ..cfg });
        let cores =
            ids.iter().map(|o| PlacementGroup::create(PG, *o, Arc::clone(&cfg), Arc::new(view.clone()), Epoch(1)));
        let cores = cores.collect();
        let (queue, replies) = (VecDeque::new(), BTreeMap::new());
        Trio {
            cores,
            disks: vec![Disk::new(); 3],
            view,
            queue,
            replies,
            no_push: false,
            twice: false,
            rotten: BTreeSet::new(),
            no_slots: false,
            sent: 0,
            shared: 0,
            no_pull: false,
            spare: None,
            deaf: None,
            largest: 0,
            carried: 0,
            lose: 0,
            later: Vec::new(),
            after_carried: None,
            told: Vec::new(),
            patient: false,
            rings: Vec::new(),
            no_repair: false,
            scrubs: usize::MAX,
            asked: Vec::new(),
            late: None,
            next: 1,
        }
    }

    /// The next epoch: these serve, and these were given up by the operator.
    pub(crate) fn map(&mut self, acting: &[u32], lost: &[u32]) {
        self.view.epoch = self.view.epoch.next();
        let epoch = self.view.epoch;
        let acting: Vec<OsdId> = acting.iter().copied().map(OsdId).collect();
        let mut osds = BTreeMap::clone(&self.view.osds);
        for (o, s) in &mut osds {
            let up = acting.contains(o) || self.spare == Some(o.0);
            if up && !s.up && self.spare == Some(o.0) {
                s.up_from = epoch;
            }
            s.up = up;
            s.dead = !s.up;
            s.up_thru = epoch;
            if lost.contains(&o.0) {
                s.lost_at = epoch;
            }
        }
        self.view.osds = Arc::new(osds);
        self.view.up.clone_from(&acting);
        self.view.primary = acting.first().copied();
        self.view.up_primary = self.view.primary;
        self.view.acting = acting;
        // The primary last: members are there when it asks.
        for i in (0..3).rev() {
            self.queue.push_back((i, Input::Map(Arc::new(self.view.clone()))));
        }
        self.settle();
    }

    pub(crate) fn settle(&mut self) {
        self.run();
        // What was lost is asked for again once nothing else happens.
        for round in 0.. {
            assert!(round < 100, "asks for ever");
            let late = std::mem::take(&mut self.later);
            if late.is_empty() {
                return;
            }
            self.queue.extend(late.into_iter().map(|(i, id)| (i, Input::Timer(id))));
            self.run();
        }
    }

    fn run(&mut self) {
        while let Some((i, input)) = self.queue.pop_front() {
            let mut out = Vec::new();
            self.cores[i].step(&mut Step { now: Time(self.next * 2_000_000_000), wall_ms: 1, out: &mut out }, input);
            for o in out {
                self.output(i, o);
            }
        }
    }

    fn output(&mut self, i: usize, o: Output) {
        match o {
            Output::Send { msg, .. } if self.no_push && matches!(msg.body, Body::Push { .. } | Body::Pulled { .. }) => {
            }
            Output::Carry { to, msg } => {
                let to = match to {
                    Way::Object(_) => self.view.primary,
                    Way::Pg(_, osd) => Some(osd),
                };
                let from = OsdId(i as u32);
                self.carried += 1;
                if let Some((_, what)) = self.after_carried.take_if(|(n, _)| *n == self.carried) {
                    self.queue.push_back(what);
                }
                if let Some(to) = to.filter(|_| self.carried != self.lose) {
                    self.queue.push_back((to.0 as usize, Input::Peer { from, msg }));
                }
            }
            Output::Send { to, msg }
                if self.no_pull && self.spare == Some(to.0) && matches!(msg.body, Body::Pull { .. }) => {}
            Output::Send { to, .. } if self.deaf == Some(to.0 as usize) => {}
            Output::Send { msg, .. } if self.no_repair && matches!(msg.body, Body::Repair { .. }) => {}
            Output::Send { msg, .. } if self.scrubs == 0 && matches!(msg.body, Body::ScrubRange { .. }) => {}
            Output::Send { to, msg } if self.view.acting.contains(&to) || self.spare == Some(to.0) => {
                if let Body::Push { chunk, .. } | Body::Pulled { chunk: Some(chunk), .. } = &msg.body {
                    let omap = chunk.omap.iter().map(|(k, v)| k.len() + v.len()).sum();
                    self.largest = self.largest.max(chunk.data.len()).max(omap);
                    self.sent += chunk.data.len() as u64;
                    self.shared += chunk.shared.iter().flat_map(|s| &s.ranges).map(|(_, len)| len).sum::<u64>();
                }
                if matches!(msg.body, Body::ScrubRange { .. }) {
                    self.scrubs -= 1;
                }
                let again = (self.twice && matches!(msg.body, Body::Pulled { .. })).then(|| msg.clone());
                for msg in std::iter::once(msg).chain(again) {
                    self.queue.push_back((to.0 as usize, Input::Peer { from: OsdId(i as u32), msg }));
                }
            }
            Output::Submit { id, txn } => {
                for op in txn.ops {
                    if let TxnOp::Remove { oid } | TxnOp::Rename { to: oid, .. } = &op {
                        self.rotten.remove(&(i, oid.clone()));
                    }
                    apply(&mut self.disks[i], op);
                }
                self.queue.push_back((i, Input::Committed(id)));
            }
            Output::Read { id, oid, items, .. } => {
                let bad = |item: &ReadItem| {
                    matches!(item, ReadItem::Extent { .. })
                        && oid.as_ref().is_some_and(|o| self.rotten.contains(&(i, o.clone())))
                };
                let one = |item| if bad(item) { Err(ReadFault) } else { Ok(read(&self.disks[i], oid.as_ref(), item)) };
                let result = items.iter().map(one).collect();
                if i == 0
                    && let Some(late) = &mut self.late
                {
                    late.push(LateRead { id, oid, items, then: result });
                    return;
                }
                self.queue.push_back((i, Input::ReadDone { id, result }));
            }
            Output::Reply { op, reply } => drop(self.replies.insert(op.0, reply)),
            Output::Ask(Request::Slot { kind, holder, priority }) => {
                self.asked.push((i, kind, priority));
                if !self.no_slots {
                    self.queue.push_back((i, Input::Slot { kind, holder, granted: true }));
                }
            }
            Output::Notify { session, cookie, notify, .. } => self.told.push((session, cookie, notify)),
            Output::Arm { id: id @ (TimerId::Watch { .. } | TimerId::Notify { .. }), .. } if self.patient => {
                self.rings.push((i, Input::Timer(id)));
            }
            Output::Arm { id: id @ TimerId::Copy { .. }, .. } => self.later.push((i, id)),
            Output::Arm { id, .. } => {
                // Time leaps on with every question, so whatever was waited for is over.
                self.next += 1;
                self.queue.push_back((i, Input::Timer(id)));
            }
            _ => {}
        }
    }

    /// A late read is answered: with what is there now, or with what was there when it was asked for.
    pub(crate) fn read_comes(&mut self, at: usize, fresh: bool) {
        let LateRead { id, oid, items, then } = self.late.as_mut().unwrap().remove(at);
        let now = || items.iter().map(|item| read(&self.disks[0], oid.as_ref(), item)).collect();
        let result = if fresh { Ok(now()) } else { then };
        self.queue.push_back((0, Input::ReadDone { id, result }));
        self.settle();
    }

    pub(crate) fn ask(&mut self, to: usize, op: Op) -> Option<Reply> {
        self.next += 1;
        let request = self.request(oid(), self.next, vec![op]);
        self.send(to, request)
    }

    pub(crate) fn request(&self, oid: ObjectId, tid: u64, ops: Vec<Op>) -> ClientOp {
        ClientOp {
            id: OpId(tid),
            reqid: ReqId { session: SessionId(1), tid },
            acked_below: 0,
            epoch: self.view.epoch,
            oid,
            snapc: SnapContext::default(),
            ops,
        }
    }

    /// Sends a request as it is; its answer, if one comes.
    pub(crate) fn send(&mut self, to: usize, op: ClientOp) -> Option<Reply> {
        let id = op.id.0;
        self.queue.push_back((to, Input::Op(op)));
        self.settle();
        self.replies.remove(&id)
    }

    pub(crate) fn read(&mut self, from: usize) -> Option<Result<Bytes, OpError>> {
        match self.ask(from, Op::Read { offset: 0, len: 100 })? {
            Reply::Done { outcome, .. } => Some(outcome.map(|r| match &r[0] {
                OpResult::Data(d) => d.clone(),
                other => panic!("a read gave {other:?}"),
            })),
            Reply::Again { .. } => None,
        }
    }
}

pub(crate) fn oid() -> ObjectId {
    ObjectId { pool: PoolId(1), hash: 7, namespace: Bytes::new(), name: "thing".into(), snap: SnapId::HEAD }
}

fn apply(disk: &mut Disk, op: TxnOp) {
    match op {
        TxnOp::Touch { oid } => drop(disk.entry(oid).or_default()),
        TxnOp::Write { oid, offset, data, .. } => {
            let bytes = &mut disk.entry(oid).or_default().bytes;
            let end = offset as usize + data.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[offset as usize..end].copy_from_slice(&data);
        }
        TxnOp::Zero { oid, offset, len } => {
            let bytes = &mut disk.entry(oid).or_default().bytes;
            let end = (offset + len) as usize;
            bytes.resize(bytes.len().max(end), 0);
            bytes[offset as usize..end].fill(0);
        }
        TxnOp::Truncate { oid, size } => disk.entry(oid).or_default().bytes.resize(size as usize, 0),
        TxnOp::Remove { oid } => drop(disk.remove(&oid)),
        TxnOp::Clone { from, to } => {
            let thing = disk.get(&from).expect("a clone of what is not there").clone();
            disk.insert(to, thing);
        }
        TxnOp::CloneRange { from, to, from_offset, len, to_offset } => {
            let source = &disk.get(&from).expect("a copy of what is not there").bytes;
            let end = ((from_offset + len) as usize).min(source.len());
            let part = source[(from_offset as usize).min(end)..end].to_vec();
            let bytes = &mut disk.entry(to).or_default().bytes;
            let (at, end) = (to_offset as usize, to_offset as usize + part.len());
            bytes.resize(bytes.len().max(end), 0);
            bytes[at..end].copy_from_slice(&part);
        }
        TxnOp::Rename { from, to } => {
            let thing = disk.remove(&from).expect("what is renamed is there");
            disk.insert(to, thing);
        }
        TxnOp::SetXattr { oid, name, value } => {
            drop(disk.get_mut(&oid).expect("an xattr of what is not there").xattrs.insert(name, value));
        }
        TxnOp::RemoveXattr { oid, name } => drop(disk.entry(oid).or_default().xattrs.remove(&name)),
        TxnOp::OmapSet { oid, entries } => disk.entry(oid).or_default().omap.extend(entries),
        TxnOp::OmapSetHeader { oid, header } => disk.entry(oid).or_default().header = header,
        TxnOp::OmapClear { oid } => {
            let thing = disk.entry(oid).or_default();
            thing.omap.clear();
            thing.header = Bytes::new();
        }
        TxnOp::RemoveCollection => disk.clear(),
        TxnOp::LogAppend { .. }
        | TxnOp::LogTrim { .. }
        | TxnOp::LogRewind { .. }
        | TxnOp::SetMeta { .. }
        | TxnOp::CreateCollection => {}
        other => panic!("no test of three needs {other:?} yet"),
    }
}

fn read(disk: &Disk, oid: Option<&ObjectId>, item: &ReadItem) -> ReadValue {
    let none = Thing::default();
    let there = oid.and_then(|o| disk.get(o));
    let here = there.unwrap_or(&none);
    let pairs = |p: &BTreeMap<Bytes, Bytes>| p.iter().map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>();
    match item {
        ReadItem::Meta => ReadValue::Meta(there.map(|h| h.bytes.len() as u64)),
        ReadItem::Xattrs => ReadValue::Pairs(pairs(&here.xattrs), false),
        ReadItem::Extent { offset, len } => {
            let end = ((offset + len) as usize).min(here.bytes.len());
            ReadValue::Data(Bytes::copy_from_slice(&here.bytes[(*offset as usize).min(end)..end]))
        }
        ReadItem::OmapHeader => ReadValue::Data(here.header.clone()),
        ReadItem::OmapKeys(keys) => {
            let mut found = pairs(&here.omap);
            found.retain(|(k, _)| keys.contains(k));
            ReadValue::Pairs(found, false)
        }
        ReadItem::OmapRange { after, max } => {
            let mut found = pairs(&here.omap);
            found.retain(|(k, _)| after.as_ref().is_none_or(|a| k > a));
            let more = found.len() > *max as usize;
            found.truncate(*max as usize);
            ReadValue::Pairs(found, more)
        }
        ReadItem::List { after, max } => {
            let record = |t: &Thing| t.xattrs.get(crate::object::INFO_XATTR).cloned().unwrap_or_default();
            let list = disk.iter().filter(|(o, _)| after.as_ref().is_none_or(|a| *o > a));
            let mut list: Vec<_> = list.map(|(o, t)| (o.clone(), record(t))).collect();
            let more = list.len() > *max as usize;
            list.truncate(*max as usize);
            ReadValue::List(list, more)
        }
    }
}
