//! Executes a vector of operations on one object, as a function of the object's metadata and of what was read of it.
//!
//! Reads are answered from [`Fetched`]; what is not there yet is asked for and the vector is run again from its start
//! when it has come. So execution needs no suspension, and a class method is plain code. Nothing else can change the
//! object meanwhile: the caller holds it. Later operations see what earlier ones wrote.
//!
//! It does not know versions, logs or replicas.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use nacre_proto::ids::{ObjectId, SessionId, SnapId};
use nacre_proto::txn::{TxnOp, WriteHint};

use crate::io::{ReadItem, ReadValue};
use crate::object::{ObjectInfo, USER, user_xattr};
use crate::op::{CloneLine, Op, OpError, OpResult};

/// What has been read of the object so far.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    items: BTreeMap<ReadItem, ReadValue>,
}

impl Fetched {
    /// Takes the answers to what was asked.
    pub fn learn(&mut self, items: Vec<ReadItem>, values: Vec<ReadValue>) {
        self.items.extend(items.into_iter().zip(values));
    }

    /// The stored xattrs, if they were read.
    pub fn xattrs(&self) -> Option<&[(Bytes, Bytes)]> {
        match self.items.get(&ReadItem::Xattrs) {
            Some(ReadValue::Pairs(p, _)) => Some(p),
            _ => None,
        }
    }
}

/// Why execution stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// These must be read first.
    Need(Vec<ReadItem>),
    /// Refused.
    Refuse(OpError),
}

impl From<OpError> for Stop {
    fn from(e: OpError) -> Stop {
        Stop::Refuse(e)
    }
}

/// What the vector did.
#[derive(Clone, Debug)]
pub struct Executed {
    /// Per operation.
    pub results: Vec<OpResult>,
    /// The change of the head, without its metadata record.
    pub writes: Vec<TxnOp>,
    /// It changed something.
    pub modified: bool,
    /// The object exists afterwards.
    pub exists: bool,
    /// Its metadata afterwards; version and clones are the caller's to set.
    pub info: ObjectInfo,
    /// Byte ranges that changed.
    pub dirty: Vec<(u64, u64)>,
    /// What concerns watchers.
    pub effects: Vec<Effect>,
}

/// What a vector does beyond the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A watch began or was renewed.
    Watch { session: SessionId, cookie: u64, timeout_ms: u64 },
    /// A watch ended.
    Unwatch { session: SessionId, cookie: u64 },
    /// Tell the watchers.
    Notify { payload: Bytes, timeout_ms: u64 },
    /// A watcher answered.
    NotifyAck { session: SessionId, notify: u64, cookie: u64, payload: Bytes },
}

/// What is executed on.
pub struct Target<'a> {
    /// The state read (a clone for reads of a snapshot).
    pub oid: &'a ObjectId,
    /// Its metadata; none if it does not exist.
    pub info: Option<&'a ObjectInfo>,
    /// The head's metadata, whatever is read, also of a whiteout.
    pub head: Option<&'a ObjectInfo>,
    /// Who asks.
    pub session: SessionId,
    /// The largest object.
    pub max_object: u64,
    /// The time, in milliseconds of no particular beginning, as the primary ordered it.
    pub now_ms: u64,
}

/// Runs a vector.
pub fn run(target: &Target<'_>, fetched: &Fetched, ops: &[Op]) -> Result<Executed, Stop> {
    let mut ws = Workspace::new(target, fetched);
    let mut results = Vec::with_capacity(ops.len());
    for (i, op) in ops.iter().enumerate() {
        match ws.one(op) {
            Ok(r) => results.push(r),
            Err(Stop::Refuse(e)) => return Err(Stop::Refuse(e.at(u32::try_from(i).unwrap_or(u32::MAX)))),
            Err(need) => return Err(need),
        }
    }
    Ok(ws.finish(results))
}

/// The object as the vector has made it so far.
pub struct Workspace<'a> {
    target: &'a Target<'a>,
    fetched: &'a Fetched,
    ops: Vec<TxnOp>,
    modified: bool,
    exists: bool,
    info: ObjectInfo,
    /// Bytes of the stored object beyond this are gone or never were.
    base_len: u64,
    /// Nothing of the stored object is left (removed, and perhaps made anew).
    base_gone: bool,
    /// The stored object was replaced by a clone: its bytes are not readable within this vector.
    rolled: bool,
    patches: Vec<(u64, Bytes)>,
    xattrs: BTreeMap<Bytes, Option<Bytes>>,
    omap: BTreeMap<Bytes, Option<Bytes>>,
    ranges_gone: Vec<(Bytes, Option<Bytes>)>,
    omap_gone: bool,
    header: Option<Bytes>,
    dirty: Vec<(u64, u64)>,
    effects: Vec<Effect>,
}

const INVALID: OpError = OpError::Invalid { at: 0 };

impl<'a> Workspace<'a> {
    fn new(target: &'a Target<'a>, fetched: &'a Fetched) -> Workspace<'a> {
        let info = target.info.cloned().unwrap_or_else(|| {
            // A new head takes over the clones' list of the one that was removed.
            let snaps = target.head.map(|h| h.snaps.clone()).unwrap_or_default();
            ObjectInfo { snaps, ..ObjectInfo::default() }
        });
        Workspace {
            exists: target.info.is_some(),
            base_len: info.size,
            base_gone: target.info.is_none(),
            rolled: false,
            info,
            target,
            fetched,
            ops: Vec::new(),
            modified: false,
            patches: Vec::new(),
            xattrs: BTreeMap::new(),
            omap: BTreeMap::new(),
            ranges_gone: Vec::new(),
            omap_gone: false,
            header: None,
            dirty: Vec::new(),
            effects: Vec::new(),
        }
    }

    fn finish(self, results: Vec<OpResult>) -> Executed {
        Executed {
            results,
            writes: self.ops,
            modified: self.modified,
            exists: self.exists,
            info: self.info,
            dirty: self.dirty,
            effects: self.effects,
        }
    }

    fn fetch(&self, item: ReadItem) -> Result<&'a ReadValue, Stop> {
        match self.fetched.items.get(&item) {
            Some(v) => Ok(v),
            None => Err(Stop::Need(vec![item])),
        }
    }

    fn must_exist(&self) -> Result<(), Stop> {
        if self.exists { Ok(()) } else { Err(OpError::NotFound { at: 0 }.into()) }
    }

    /// The object exists now.
    pub fn exists(&self) -> bool {
        self.exists
    }

    /// Its size now.
    pub fn size(&self) -> u64 {
        self.info.size
    }

    /// Who asks.
    pub fn session(&self) -> SessionId {
        self.target.session
    }

    /// The primary's clock when it ordered the operation.
    pub fn now_ms(&self) -> u64 {
        self.target.now_ms
    }

    /// Bytes, as far as the object reaches.
    pub fn read(&self, offset: u64, len: u64) -> Result<Bytes, Stop> {
        let end = offset.saturating_add(len).min(self.info.size);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let want = end - offset;
        let base_end = end.min(self.base_len);
        let mut base = Bytes::new();
        if !self.base_gone && offset < base_end {
            if self.rolled {
                return Err(INVALID.into());
            }
            match self.fetch(ReadItem::Extent { offset, len: base_end - offset })? {
                ReadValue::Data(d) => base = d.clone(),
                _ => return Err(INVALID.into()),
            }
        }
        if self.patches.is_empty() && base.len() as u64 == want {
            return Ok(base);
        }
        let mut out = BytesMut::with_capacity(want as usize);
        out.extend_from_slice(&base);
        out.resize(want as usize, 0);
        for (at, data) in &self.patches {
            let from = (*at).max(offset);
            let to = (at + data.len() as u64).min(end);
            if from < to {
                out[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&data[(from - at) as usize..(to - at) as usize]);
            }
        }
        Ok(out.freeze())
    }

    fn oid(&self) -> ObjectId {
        self.target.oid.clone()
    }

    fn touch(&mut self) {
        self.modified = true;
        if !self.exists {
            self.exists = true;
            self.info.whiteout = false;
            self.info.size = 0;
            self.ops.push(TxnOp::Touch { oid: self.oid() });
        }
    }

    /// Makes the object exist.
    pub fn create(&mut self) {
        self.touch();
    }

    /// Writes bytes.
    pub fn write(&mut self, offset: u64, data: Bytes) -> Result<(), Stop> {
        let end = offset.checked_add(data.len() as u64).ok_or(INVALID)?;
        if end > self.target.max_object {
            return Err(OpError::TooBig { at: 0 }.into());
        }
        self.touch();
        self.info.digest = None;
        if data.is_empty() {
            return Ok(());
        }
        self.info.size = self.info.size.max(end);
        self.dirty.push((offset, end));
        self.patches.push((offset, data.clone()));
        self.ops.push(TxnOp::Write { oid: self.oid(), offset, data, hint: WriteHint::default() });
        Ok(())
    }

    /// Replaces all bytes.
    pub fn write_full(&mut self, data: Bytes) -> Result<(), Stop> {
        if data.len() as u64 > self.target.max_object {
            return Err(OpError::TooBig { at: 0 }.into());
        }
        let len = data.len() as u64;
        let digest = crc32fast::hash(&data);
        if self.exists && self.info.size > len {
            self.truncate(len)?;
        }
        self.write(0, data)?;
        self.info.digest = Some(digest);
        Ok(())
    }

    fn truncate(&mut self, size: u64) -> Result<(), Stop> {
        if size > self.target.max_object {
            return Err(OpError::TooBig { at: 0 }.into());
        }
        self.modified = true;
        let old = self.info.size;
        self.dirty.push((old.min(size), old.max(size)));
        self.info.digest = None;
        self.info.size = size;
        self.base_len = self.base_len.min(size);
        self.patches.retain_mut(|(at, data)| {
            if *at >= size {
                return false;
            }
            let keep = usize::try_from(size - *at).unwrap_or(usize::MAX);
            if data.len() > keep {
                *data = data.slice(..keep);
            }
            true
        });
        self.ops.push(TxnOp::Truncate { oid: self.oid(), size });
        Ok(())
    }

    fn zero(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.info.size);
        if offset >= end {
            return;
        }
        self.modified = true;
        self.info.digest = None;
        self.dirty.push((offset, end));
        self.patches.push((offset, Bytes::from(vec![0; (end - offset) as usize])));
        self.ops.push(TxnOp::Zero { oid: self.oid(), offset, len: end - offset });
    }

    fn remove(&mut self) {
        self.modified = true;
        self.dirty.push((0, self.info.size));
        self.ops.clear();
        self.ops.push(TxnOp::Remove { oid: self.oid() });
        self.exists = false;
        let snaps = std::mem::take(&mut self.info.snaps);
        self.info = ObjectInfo { snaps, ..ObjectInfo::default() };
        self.base_len = 0;
        self.base_gone = true;
        self.rolled = false;
        self.patches.clear();
        self.xattrs.clear();
        self.omap.clear();
        self.ranges_gone.clear();
        self.omap_gone = true;
        self.header = None;
    }

    /// An xattr.
    pub fn xattr(&self, name: &[u8]) -> Result<Option<Bytes>, Stop> {
        if let Some(v) = self.xattrs.get(name) {
            return Ok(v.clone());
        }
        Ok(self.base_xattrs()?.iter().find(|(k, _)| k[1..] == *name).map(|(_, v)| v.clone()))
    }

    fn base_xattrs(&self) -> Result<Vec<(Bytes, Bytes)>, Stop> {
        if self.base_gone {
            return Ok(Vec::new());
        }
        if self.rolled {
            return Err(INVALID.into());
        }
        match self.fetch(ReadItem::Xattrs)? {
            ReadValue::Pairs(p, _) => Ok(p.iter().filter(|(k, _)| k.first() == Some(&USER)).cloned().collect()),
            _ => Err(INVALID.into()),
        }
    }

    /// Sets an xattr.
    pub fn set_xattr(&mut self, name: Bytes, value: Bytes) {
        self.touch();
        self.ops.push(TxnOp::SetXattr { oid: self.oid(), name: user_xattr(&name), value: value.clone() });
        self.xattrs.insert(name, Some(value));
    }

    /// Removes an xattr.
    pub fn remove_xattr(&mut self, name: Bytes) {
        self.modified = true;
        self.ops.push(TxnOp::RemoveXattr { oid: self.oid(), name: user_xattr(&name) });
        self.xattrs.insert(name, None);
    }

    fn is_range_gone(&self, key: &Bytes) -> bool {
        self.ranges_gone.iter().any(|(from, to)| key >= from && to.as_ref().is_none_or(|t| key < t))
    }

    /// One omap value.
    pub fn omap_get(&self, key: &Bytes) -> Result<Option<Bytes>, Stop> {
        if let Some(v) = self.omap.get(key) {
            return Ok(v.clone());
        }
        if self.base_gone || self.omap_gone || self.is_range_gone(key) {
            return Ok(None);
        }
        if self.rolled {
            return Err(INVALID.into());
        }
        match self.fetch(ReadItem::OmapKeys(vec![key.clone()]))? {
            ReadValue::Pairs(p, _) => Ok(p.first().map(|(_, v)| v.clone())),
            _ => Err(INVALID.into()),
        }
    }

    /// Omap entries after a key under a prefix, and whether more follow.
    pub fn omap_range(
        &self,
        after: Option<&Bytes>,
        prefix: &[u8],
        max: u32,
    ) -> Result<(Vec<(Bytes, Bytes)>, bool), Stop> {
        let max = max.clamp(1, 10_000) as usize;
        // Keys under the prefix begin at the prefix itself.
        let mut from: Option<Bytes> = after.cloned();
        if from.as_deref().is_none_or(|a| a < prefix) {
            from = before(prefix);
        }
        let mut out: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        let mut more = false;
        if !(self.base_gone || self.omap_gone) {
            if self.rolled {
                return Err(INVALID.into());
            }
            // What was removed in this vector may hide some of what is stored: ask for as many more.
            let hidden = if self.ranges_gone.is_empty() { self.omap.len() } else { 10_000 };
            let n = u32::try_from(max + hidden + 1).unwrap_or(u32::MAX);
            match self.fetch(ReadItem::OmapRange { after: from.clone(), max: n })? {
                ReadValue::Pairs(p, rest) => {
                    more = *rest && p.last().is_some_and(|(k, _)| k.starts_with(prefix));
                    for (k, v) in p.iter().filter(|(k, _)| k.starts_with(prefix)) {
                        if !self.is_range_gone(k) {
                            out.insert(k.clone(), v.clone());
                        }
                    }
                }
                _ => return Err(INVALID.into()),
            }
        }
        for (k, v) in &self.omap {
            let inside = k.starts_with(prefix) && from.as_ref().is_none_or(|f| k > f);
            match v {
                Some(v) if inside => drop(out.insert(k.clone(), v.clone())),
                _ => drop(out.remove(k)),
            }
        }
        let mut list: Vec<(Bytes, Bytes)> = out.into_iter().collect();
        if list.len() > max {
            list.truncate(max);
            more = true;
        }
        Ok((list, more))
    }

    /// Sets omap entries.
    pub fn omap_set(&mut self, entries: Vec<(Bytes, Bytes)>) {
        self.touch();
        for (k, v) in &entries {
            self.omap.insert(k.clone(), Some(v.clone()));
        }
        self.ops.push(TxnOp::OmapSet { oid: self.oid(), entries });
    }

    /// Removes omap entries.
    pub fn omap_remove(&mut self, keys: Vec<Bytes>) {
        self.modified = true;
        for k in &keys {
            self.omap.insert(k.clone(), None);
        }
        self.ops.push(TxnOp::OmapRemove { oid: self.oid(), keys });
    }

    /// The omap's header.
    pub fn omap_header(&self) -> Result<Bytes, Stop> {
        if let Some(h) = &self.header {
            return Ok(h.clone());
        }
        if self.base_gone || self.omap_gone {
            return Ok(Bytes::new());
        }
        if self.rolled {
            return Err(INVALID.into());
        }
        match self.fetch(ReadItem::OmapHeader)? {
            ReadValue::Data(d) => Ok(d.clone()),
            _ => Err(INVALID.into()),
        }
    }

    fn guard(holds: bool) -> Result<OpResult, Stop> {
        if holds { Ok(OpResult::Done) } else { Err(OpError::Guard { at: 0 }.into()) }
    }

    fn one(&mut self, op: &Op) -> Result<OpResult, Stop> {
        if op.writes() && self.target.oid.snap != SnapId::HEAD {
            return Err(INVALID.into());
        }
        match op {
            Op::Stat => {
                self.must_exist()?;
                Ok(OpResult::Stat { size: self.info.size, version: self.info.version })
            }
            Op::Read { offset, len } => {
                self.must_exist()?;
                Ok(OpResult::Data(self.read(*offset, *len)?))
            }
            Op::SparseRead { offset, len } => {
                self.must_exist()?;
                Ok(OpResult::Extents(sparse(*offset, &self.read(*offset, *len)?)))
            }
            Op::Checksum { offset, len, chunk } => {
                self.must_exist()?;
                let chunk = usize::try_from(*chunk).ok().filter(|c| *c > 0).ok_or(INVALID)?;
                let data = self.read(*offset, *len)?;
                Ok(OpResult::Sums(data.chunks(chunk).map(crc32fast::hash).collect()))
            }
            Op::GetXattr { name } => {
                self.must_exist()?;
                Ok(OpResult::Data(self.xattr(name)?.ok_or(OpError::NoAttr { at: 0 })?))
            }
            Op::ListXattrs => {
                self.must_exist()?;
                let mut all: BTreeMap<Bytes, Bytes> =
                    self.base_xattrs()?.into_iter().map(|(k, v)| (k.slice(1..), v)).collect();
                for (k, v) in &self.xattrs {
                    match v {
                        Some(v) => drop(all.insert(k.clone(), v.clone())),
                        None => drop(all.remove(k)),
                    }
                }
                Ok(OpResult::Pairs { pairs: all.into_iter().collect(), more: false })
            }
            Op::OmapRange { after, prefix, max } => {
                self.must_exist()?;
                let (pairs, more) = self.omap_range(after.as_ref(), prefix, *max)?;
                Ok(OpResult::Pairs { pairs, more })
            }
            Op::OmapKeys { keys } => {
                self.must_exist()?;
                let mut pairs = Vec::with_capacity(keys.len());
                for k in keys {
                    if let Some(v) = self.omap_get(k)? {
                        pairs.push((k.clone(), v));
                    }
                }
                Ok(OpResult::Pairs { pairs, more: false })
            }
            Op::OmapHeader => {
                self.must_exist()?;
                Ok(OpResult::Data(self.omap_header()?))
            }
            Op::ListSnaps => {
                let clones = self.info.snaps.clones.iter();
                let clones = clones.map(|c| CloneLine { id: c.id, snaps: c.snaps.clone(), size: c.size }).collect();
                Ok(OpResult::Snaps { clones, head: self.exists })
            }
            Op::ListWatchers => {
                self.must_exist()?;
                Ok(OpResult::Watchers(self.info.watchers.keys().copied().collect()))
            }
            Op::AssertVersion { version } => {
                self.must_exist()?;
                Self::guard(self.target.info.is_some_and(|i| i.version == *version))
            }
            Op::AssertExists => {
                self.must_exist()?;
                Ok(OpResult::Done)
            }
            Op::AssertAbsent => {
                if self.exists {
                    return Err(OpError::Exists { at: 0 }.into());
                }
                Ok(OpResult::Done)
            }
            Op::CompareXattr { name, how, value } => {
                self.must_exist()?;
                Self::guard(how.holds(&self.xattr(name)?.unwrap_or_default(), value))
            }
            Op::CompareOmap { key, how, value } => {
                self.must_exist()?;
                Self::guard(how.holds(&self.omap_get(key)?.unwrap_or_default(), value))
            }
            Op::CompareExtent { offset, data } => {
                let stored = self.read(*offset, data.len() as u64)?;
                let (head, rest) = data.split_at(stored.len());
                Self::guard(stored == head && rest.iter().all(|b| *b == 0))
            }
            Op::Create { exclusive } => {
                if *exclusive && self.exists {
                    return Err(OpError::Exists { at: 0 }.into());
                }
                self.touch();
                Ok(OpResult::Done)
            }
            Op::Write { offset, data } => self.write(*offset, data.clone()).map(|()| OpResult::Done),
            Op::WriteFull { data } => self.write_full(data.clone()).map(|()| OpResult::Done),
            Op::Append { data } => self.write(self.info.size, data.clone()).map(|()| OpResult::Done),
            Op::Zero { offset, len } => {
                self.must_exist()?;
                self.zero(*offset, *len);
                Ok(OpResult::Done)
            }
            Op::Truncate { size } => {
                self.must_exist()?;
                self.truncate(*size)?;
                Ok(OpResult::Done)
            }
            Op::Remove => {
                self.must_exist()?;
                self.remove();
                Ok(OpResult::Done)
            }
            Op::WriteSame { offset, len, data } => {
                if data.is_empty() || len % data.len() as u64 != 0 || *len > self.target.max_object {
                    return Err(INVALID.into());
                }
                let times = usize::try_from(len / data.len() as u64).map_err(|_| INVALID)?;
                self.write(*offset, Bytes::from(data.repeat(times)))?;
                Ok(OpResult::Done)
            }
            Op::SetXattr { name, value } => {
                if name.is_empty() || name.len() > 255 || value.len() > 1 << 16 {
                    return Err(INVALID.into());
                }
                self.set_xattr(name.clone(), value.clone());
                Ok(OpResult::Done)
            }
            Op::RemoveXattr { name } => {
                self.must_exist()?;
                self.remove_xattr(name.clone());
                Ok(OpResult::Done)
            }
            Op::OmapSet { entries } => {
                self.omap_set(entries.clone());
                Ok(OpResult::Done)
            }
            Op::OmapRemove { keys } => {
                self.must_exist()?;
                self.omap_remove(keys.clone());
                Ok(OpResult::Done)
            }
            Op::OmapRemoveRange { from, to } => {
                self.must_exist()?;
                self.modified = true;
                self.omap.retain(|k, _| k < from || to.as_ref().is_some_and(|t| k >= t));
                self.ranges_gone.push((from.clone(), to.clone()));
                self.ops.push(TxnOp::OmapRemoveRange { oid: self.oid(), from: from.clone(), to: to.clone() });
                Ok(OpResult::Done)
            }
            Op::OmapClear => {
                self.must_exist()?;
                self.modified = true;
                self.omap.clear();
                self.omap_gone = true;
                self.header = None;
                self.ops.push(TxnOp::OmapClear { oid: self.oid() });
                Ok(OpResult::Done)
            }
            Op::OmapSetHeader { header } => {
                self.touch();
                self.header = Some(header.clone());
                self.ops.push(TxnOp::OmapSetHeader { oid: self.oid(), header: header.clone() });
                Ok(OpResult::Done)
            }
            Op::Rollback { snap } => self.rollback(*snap),
            Op::Call { .. } => Err(OpError::NoClass { at: 0 }.into()),
            Op::Watch { cookie, timeout_ms } => {
                self.must_exist()?;
                self.modified = true;
                let session = self.target.session;
                self.info.watchers.insert((session, *cookie), *timeout_ms);
                self.effects.push(Effect::Watch { session, cookie: *cookie, timeout_ms: *timeout_ms });
                Ok(OpResult::Done)
            }
            Op::Unwatch { cookie } => {
                let session = self.target.session;
                if self.info.watchers.remove(&(session, *cookie)).is_some() {
                    self.modified = true;
                    self.effects.push(Effect::Unwatch { session, cookie: *cookie });
                }
                Ok(OpResult::Done)
            }
            Op::Notify { payload, timeout_ms } => {
                self.must_exist()?;
                self.effects.push(Effect::Notify { payload: payload.clone(), timeout_ms: *timeout_ms });
                Ok(OpResult::Done)
            }
            Op::NotifyAck { notify, cookie, payload } => {
                let session = self.target.session;
                let (notify, cookie, payload) = (*notify, *cookie, payload.clone());
                self.effects.push(Effect::NotifyAck { session, notify, cookie, payload });
                Ok(OpResult::Done)
            }
            Op::Hint { .. } => Ok(OpResult::Done),
        }
    }

    fn rollback(&mut self, snap: SnapId) -> Result<OpResult, Stop> {
        let state = self.info.snaps.resolve(snap);
        match state {
            Some(SnapId::HEAD) => {
                self.must_exist()?;
                Ok(OpResult::Done)
            }
            None => {
                // It did not exist then.
                if self.exists {
                    self.remove();
                }
                Ok(OpResult::Done)
            }
            Some(id) => {
                let size = self.info.snaps.clones.iter().find(|c| c.id == id).map_or(0, |c| c.size);
                let from = ObjectId { snap: id, ..self.oid() };
                let snaps = self.info.snaps.clone();
                let watchers = self.info.watchers.clone();
                let dirty = self.info.size.max(size);
                self.remove();
                self.dirty.push((0, dirty));
                self.exists = true;
                self.base_gone = false;
                self.omap_gone = false;
                self.rolled = true;
                self.base_len = size;
                self.info = ObjectInfo { snaps, watchers, size, ..ObjectInfo::default() };
                self.ops.clear();
                self.ops.push(TxnOp::Clone { from, to: self.oid() });
                Ok(OpResult::Done)
            }
        }
    }
}

/// The greatest key below all that carry the prefix, as an exclusive lower bound; none if there is no lower bound.
fn before(prefix: &[u8]) -> Option<Bytes> {
    let (last, head) = prefix.split_last()?;
    let mut out = head.to_vec();
    if *last > 0 {
        // `head ++ (last-1) ++ ff..` sorts below the prefix; keys between them are filtered by the prefix anyway.
        out.push(last - 1);
        out.extend_from_slice(&[0xff; 8]);
    }
    if out.is_empty() { None } else { Some(Bytes::from(out)) }
}

/// Runs of bytes that are not zero, in pieces of 512.
fn sparse(offset: u64, data: &Bytes) -> Vec<(u64, Bytes)> {
    const PIECE: usize = 512;
    let mut out: Vec<(usize, usize)> = Vec::new();
    for start in (0..data.len()).step_by(PIECE) {
        let end = (start + PIECE).min(data.len());
        if data[start..end].iter().all(|b| *b == 0) {
            continue;
        }
        match out.last_mut() {
            Some((_, to)) if *to == start => *to = end,
            _ => out.push((start, end)),
        }
    }
    out.into_iter().map(|(a, b)| (offset + a as u64, data.slice(a..b))).collect()
}
