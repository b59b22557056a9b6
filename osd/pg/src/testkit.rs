//! One object in memory for tests of operations: runs vectors on it the way a primary does, reads on demand and all.

use std::collections::BTreeMap;

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, PoolId, SessionId, SnapId, Version};
use nacre_proto::txn::TxnOp;

use crate::exec::{Executed, Fetched, Stop, Target, run};
use crate::io::{ReadItem, ReadValue};
use crate::object::ObjectInfo;
use crate::op::{Op, OpError, OpResult};

/// What is stored of one state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    pub(crate) data: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Bytes, Bytes>,
    pub(crate) omap: BTreeMap<Bytes, Bytes>,
    pub(crate) header: Bytes,
}

/// One object with its clones.
pub(crate) struct Bench {
    pub(crate) info: Option<ObjectInfo>,
    pub(crate) states: BTreeMap<SnapId, Stored>,
    pub(crate) session: u64,
    pub(crate) wall_ms: u64,
    /// Reads that were asked for by the last vector.
    pub(crate) asked: usize,
    pub(crate) last: Option<Executed>,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench { info: None, states: BTreeMap::new(), session: 1, wall_ms: 1000, asked: 0, last: None }
    }

    pub(crate) fn oid() -> ObjectId {
        ObjectId {
            pool: PoolId(1),
            hash: 7,
            namespace: Bytes::new(),
            name: Bytes::from_static(b"o"),
            snap: SnapId::HEAD,
        }
    }

    pub(crate) fn head(&self) -> &Stored {
        &self.states[&SnapId::HEAD]
    }

    fn read(&self, snap: SnapId, item: &ReadItem) -> ReadValue {
        let none = Stored::default();
        let s = self.states.get(&snap).unwrap_or(&none);
        match item {
            ReadItem::Meta => ReadValue::Meta(self.states.get(&snap).map(|s| s.data.len() as u64)),
            ReadItem::Xattrs => ReadValue::Pairs(s.xattrs.clone().into_iter().collect(), false),
            ReadItem::Extent { offset, len } => {
                let from = (*offset as usize).min(s.data.len());
                let to = (offset.saturating_add(*len) as usize).min(s.data.len());
                ReadValue::Data(Bytes::copy_from_slice(&s.data[from..to]))
            }
            ReadItem::OmapHeader => ReadValue::Data(s.header.clone()),
            ReadItem::OmapKeys(keys) => {
                let found = keys.iter().filter_map(|k| s.omap.get(k).map(|v| (k.clone(), v.clone())));
                ReadValue::Pairs(found.collect(), false)
            }
            ReadItem::OmapRange { after, max } => {
                let all = s.omap.iter().filter(|(k, _)| after.as_ref().is_none_or(|a| *k > a));
                let list: Vec<_> = all.take(*max as usize).map(|(k, v)| (k.clone(), v.clone())).collect();
                let more = list.len() == *max as usize;
                ReadValue::Pairs(list, more)
            }
            ReadItem::List { .. } => ReadValue::List(Vec::new(), false),
        }
    }

    /// Runs a vector and, if it is not refused, stores what it did.
    pub(crate) fn run(&mut self, ops: &[Op]) -> Result<Vec<OpResult>, OpError> {
        self.run_at(SnapId::HEAD, ops)
    }

    pub(crate) fn run_at(&mut self, snap: SnapId, ops: &[Op]) -> Result<Vec<OpResult>, OpError> {
        let oid = ObjectId { snap, ..Bench::oid() };
        let mut fetched = Fetched::default();
        self.asked = 0;
        let done = loop {
            let info = self.info.clone().filter(|i| !i.whiteout);
            let target = Target {
                oid: &oid,
                info: info.as_ref(),
                head: self.info.as_ref(),
                session: SessionId(self.session),
                max_object: 1 << 20,
                wall_ms: self.wall_ms,
            };
            match run(&target, &fetched, ops) {
                Ok(done) => break done,
                Err(Stop::Refuse(e)) => return Err(e),
                Err(Stop::Need(items)) => {
                    self.asked += items.len();
                    assert!(self.asked < 20_000, "asks for ever");
                    let values = items.iter().map(|i| self.read(snap, i)).collect();
                    fetched.learn(items, values);
                }
            }
        };
        if done.modified {
            for op in done.writes.clone() {
                self.apply(op);
            }
            let version =
                Version { counter: self.info.as_ref().map_or(1, |i| i.version.counter + 1), ..Version::default() };
            self.info = done.exists.then(|| ObjectInfo { version, changed: version, ..done.info.clone() });
            assert_eq!(self.info.is_some(), self.states.contains_key(&SnapId::HEAD), "store and record disagree");
            if let Some(info) = &self.info {
                assert_eq!(info.size, self.head().data.len() as u64, "size of the record and of the store");
            }
        } else if done.watched {
            self.info = Some(done.info.clone());
        } else {
            assert!(done.writes.is_empty(), "writes, and says it did not");
        }
        let results = done.results.clone();
        self.last = Some(done);
        Ok(results)
    }

    fn apply(&mut self, op: TxnOp) {
        macro_rules! at {
            ($oid:expr) => {
                self.states.entry($oid.snap).or_default()
            };
        }
        match op {
            TxnOp::Touch { oid } => drop(at!(oid)),
            TxnOp::Write { oid, offset, data, .. } => {
                let s = at!(oid);
                let end = offset as usize + data.len();
                s.data.resize(s.data.len().max(end), 0);
                s.data[offset as usize..end].copy_from_slice(&data);
            }
            TxnOp::Zero { oid, offset, len } => at!(oid).data[offset as usize..(offset + len) as usize].fill(0),
            TxnOp::Truncate { oid, size } => at!(oid).data.resize(size as usize, 0),
            TxnOp::Remove { oid } => drop(self.states.remove(&oid.snap)),
            TxnOp::Clone { from, to } => {
                let s = self.states[&from.snap].clone();
                self.states.insert(to.snap, s);
            }
            TxnOp::SetXattr { oid, name, value } => drop(at!(oid).xattrs.insert(name, value)),
            TxnOp::RemoveXattr { oid, name } => drop(at!(oid).xattrs.remove(&name)),
            TxnOp::OmapSet { oid, entries } => at!(oid).omap.extend(entries),
            TxnOp::OmapRemove { oid, keys } => keys.iter().for_each(|k| drop(at!(oid.clone()).omap.remove(k))),
            TxnOp::OmapRemoveRange { oid, from, to } => {
                at!(oid).omap.retain(|k, _| *k < from || to.as_ref().is_some_and(|t| k >= t));
            }
            TxnOp::OmapClear { oid } => {
                let s = at!(oid);
                s.omap.clear();
                s.header = Bytes::new();
            }
            TxnOp::OmapSetHeader { oid, header } => at!(oid).header = header,
            other => panic!("a vector does not do {other:?}"),
        }
    }

    /// Calls a class; its output.
    pub(crate) fn call<I: crate::format::Codec>(
        &mut self,
        class: &str,
        method: &str,
        input: &I,
    ) -> Result<Bytes, OpError> {
        let input = crate::class::encode(input);
        let op = Op::Call { class: class.to_owned(), method: method.to_owned(), input };
        match self.run(&[op])?.remove(0) {
            OpResult::Data(d) => Ok(d),
            other => panic!("a call answers {other:?}"),
        }
    }
}
