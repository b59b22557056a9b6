//! A copy that is lost for good: what is unfound is named, and goes by the operator's decision alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, PoolId, SessionId, SnapId};
use nacre_proto::txn::TxnOp;

use crate::PlacementGroup;
use crate::io::{Input, Order, Output, ReadItem, ReadValue, Request, Step, Time};
use crate::log::ReqId;
use crate::msg::Body;
use crate::op::{ClientOp, Op, OpError, OpId, OpResult, Reply, SnapContext};
use crate::state::Config;
use crate::view::{OsdSight, PoolRules, View};

const PG: PgId = PgId { pool: PoolId(1), seed: 0 };

/// A store of bytes and xattrs that is durable at once.
type Disk = BTreeMap<ObjectId, (Vec<u8>, BTreeMap<Bytes, Bytes>)>;

/// Three osds; who is up is the test's to say.
struct Trio {
    cores: Vec<PlacementGroup>,
    disks: Vec<Disk>,
    view: View,
    queue: VecDeque<(usize, Input)>,
    replies: BTreeMap<u64, Reply>,
    /// Pushed objects get lost on the way.
    no_push: bool,
    next: u64,
}

impl Trio {
    fn new() -> Trio {
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
        let cfg = Arc::new(Config { check: true, ..Config::default() });
        let cores =
            ids.iter().map(|o| PlacementGroup::create(PG, *o, Arc::clone(&cfg), Arc::new(view.clone()), Epoch(1)));
        let cores = cores.collect();
        let (queue, replies) = (VecDeque::new(), BTreeMap::new());
        Trio { cores, disks: vec![Disk::new(); 3], view, queue, replies, no_push: false, next: 1 }
    }

    /// The next epoch: these serve, and these were given up by the operator.
    fn map(&mut self, acting: &[u32], lost: &[u32]) {
        self.view.epoch = self.view.epoch.next();
        let epoch = self.view.epoch;
        let acting: Vec<OsdId> = acting.iter().copied().map(OsdId).collect();
        let mut osds = BTreeMap::clone(&self.view.osds);
        for (o, s) in &mut osds {
            s.up = acting.contains(o);
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

    fn settle(&mut self) {
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
            Output::Send { to, msg } if self.view.acting.contains(&to) => {
                self.queue.push_back((to.0 as usize, Input::Peer { from: OsdId(i as u32), msg }));
            }
            Output::Submit { id, txn } => {
                txn.ops.into_iter().for_each(|op| apply(&mut self.disks[i], op));
                self.queue.push_back((i, Input::Committed(id)));
            }
            Output::Read { id, oid, items } => {
                let values = items.iter().map(|item| read(&self.disks[i], oid.as_ref(), item)).collect();
                self.queue.push_back((i, Input::ReadDone { id, result: Ok(values) }));
            }
            Output::Reply { op, reply } => drop(self.replies.insert(op.0, reply)),
            Output::Ask(Request::Slot { kind, holder, .. }) => {
                self.queue.push_back((i, Input::Slot { kind, holder, granted: true }));
            }
            Output::Arm { id, .. } => {
                // Time leaps on with every question, so whatever was waited for is over.
                self.next += 1;
                self.queue.push_back((i, Input::Timer(id)));
            }
            _ => {}
        }
    }

    fn ask(&mut self, to: usize, op: Op) -> Option<Reply> {
        self.next += 1;
        let tid = self.next;
        let op = ClientOp {
            id: OpId(tid),
            reqid: ReqId { session: SessionId(1), tid },
            acked_below: 0,
            epoch: self.view.epoch,
            oid: oid(),
            snapc: SnapContext::default(),
            ops: vec![op],
        };
        self.queue.push_back((to, Input::Op(op)));
        self.settle();
        self.replies.remove(&tid)
    }

    fn read(&mut self, from: usize) -> Option<Result<Bytes, OpError>> {
        match self.ask(from, Op::Read { offset: 0, len: 100 })? {
            Reply::Done { outcome, .. } => Some(outcome.map(|r| match &r[0] {
                OpResult::Data(d) => d.clone(),
                other => panic!("a read gave {other:?}"),
            })),
            Reply::Again { .. } => None,
        }
    }

    /// Osd 1 is left alone with a log that names a version which only the lost osd 0 held.
    fn with_a_loss() -> Trio {
        let mut t = Trio::new();
        t.map(&[0, 1], &[]);
        assert!(t.ask(0, Op::WriteFull { data: "old".into() }).is_some());
        t.map(&[0], &[]);
        assert!(t.ask(0, Op::WriteFull { data: "newer".into() }).is_some());
        t.no_push = true;
        t.map(&[0, 1], &[]);
        assert_eq!(t.cores[1].missing().len(), 1);
        t.no_push = false;
        t.map(&[1, 2], &[0]);
        assert_eq!(t.cores[1].state(), "active");
        t
    }
}

fn oid() -> ObjectId {
    ObjectId { pool: PoolId(1), hash: 7, namespace: Bytes::new(), name: "thing".into(), snap: SnapId::HEAD }
}

fn apply(disk: &mut Disk, op: TxnOp) {
    match op {
        TxnOp::Touch { oid } => drop(disk.entry(oid).or_default()),
        TxnOp::Write { oid, offset, data, .. } => {
            let bytes = &mut disk.entry(oid).or_default().0;
            let end = offset as usize + data.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[offset as usize..end].copy_from_slice(&data);
        }
        TxnOp::Truncate { oid, size } => disk.entry(oid).or_default().0.resize(size as usize, 0),
        TxnOp::Remove { oid } => drop(disk.remove(&oid)),
        TxnOp::SetXattr { oid, name, value } => {
            drop(disk.get_mut(&oid).expect("an xattr of what is not there").1.insert(name, value));
        }
        _ => {}
    }
}

fn read(disk: &Disk, oid: Option<&ObjectId>, item: &ReadItem) -> ReadValue {
    let here = oid.and_then(|o| disk.get(o));
    match item {
        ReadItem::Meta => ReadValue::Meta(here.map(|h| h.0.len() as u64)),
        ReadItem::Xattrs => {
            let pairs = here.map(|h| h.1.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
            ReadValue::Pairs(pairs.unwrap_or_default(), false)
        }
        ReadItem::Extent { offset, len } => {
            let bytes = here.map_or(&[][..], |h| &h.0);
            let end = ((offset + len) as usize).min(bytes.len());
            ReadValue::Data(Bytes::copy_from_slice(&bytes[(*offset as usize).min(end)..end]))
        }
        ReadItem::OmapHeader => ReadValue::Data(Bytes::new()),
        ReadItem::OmapKeys(_) | ReadItem::OmapRange { .. } => ReadValue::Pairs(Vec::new(), false),
        ReadItem::List { after, .. } => {
            let list = disk.iter().filter(|(o, _)| after.as_ref().is_none_or(|a| *o > a));
            let record = |x: &BTreeMap<Bytes, Bytes>| x.get(crate::object::INFO_XATTR).cloned().unwrap_or_default();
            ReadValue::List(list.map(|(o, (_, x))| (o.clone(), record(x))).collect(), false)
        }
    }
}

#[test]
fn an_unfound_object_is_named_and_waited_for() {
    let mut t = Trio::with_a_loss();
    assert_eq!(t.cores[1].unfound(), vec![oid()]);
    let why = t.cores[1].explain();
    assert!(why.contains("thing") && why.contains("no known copy"), "{why}");
    assert_eq!(t.read(1), None, "answered, though nobody has it");
    assert!(!t.cores[1].is_clean());
}

#[test]
fn a_revert_takes_what_there_is_for_the_object_everywhere() {
    let mut t = Trio::with_a_loss();
    t.queue.push_back((1, Input::Order(Order::Unfound { revert: true })));
    t.settle();
    assert_eq!(t.read(1), Some(Ok("old".into())));
    assert!(t.cores[1].unfound().is_empty());
    assert!(t.cores[1].is_clean(), "{}", t.cores[1].explain());
    assert_eq!(t.disks[1], t.disks[2]);
    let stats = t.cores[1].info().stats;
    assert_eq!((stats.objects, stats.bytes), (1, 3), "counted as the lost version was");
    assert_eq!(t.cores[2].info().stats, stats);
}

#[test]
fn what_is_forgotten_is_gone_everywhere_and_can_be_made_anew() {
    let mut t = Trio::with_a_loss();
    t.queue.push_back((1, Input::Order(Order::Unfound { revert: false })));
    t.settle();
    assert_eq!(t.read(1), Some(Err(OpError::NotFound { at: 0 })));
    assert!(t.cores[1].is_clean(), "{}", t.cores[1].explain());
    assert_eq!((t.disks[1].len(), t.disks[2].len()), (0, 0));
    assert_eq!(t.cores[1].info().stats, crate::state::Stats::default());
    assert!(t.ask(1, Op::WriteFull { data: "anew".into() }).is_some());
    assert_eq!(t.read(1), Some(Ok("anew".into())));
}

#[test]
fn whoever_comes_back_with_the_lost_version_follows_the_decision() {
    let mut t = Trio::with_a_loss();
    t.queue.push_back((1, Input::Order(Order::Unfound { revert: true })));
    t.settle();
    t.map(&[1, 0], &[]);
    assert!(t.cores[1].is_clean(), "{}", t.cores[1].explain());
    assert_eq!(t.disks[0], t.disks[1]);
    let held: BTreeSet<_> = t.disks[0].keys().collect();
    assert_eq!(held.len(), 1);
}
