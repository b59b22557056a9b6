//! Executes a vector of operations on one object, as a function of the object's metadata and of what was read of it.
//!
//! Reads are answered from [`Fetched`]; what is not there yet is asked for and the vector is run again from its start
//! when it has come. So execution needs no suspension, and a class method is plain code. Nothing else can change the
//! object meanwhile: the caller holds it. Later operations see what earlier ones wrote. This file is the object as the
//! vector has made it so far; `exec/vector.rs` is what each operation does to it; [`crate::class`] runs on it too.
//!
//! It does not know versions, logs or replicas.

mod vector;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use nacre_proto::ids::{ObjectId, SessionId};
use nacre_proto::txn::{TxnOp, WriteHint};

use crate::io::{ReadItem, ReadValue};
use crate::msg::{Chunk, CopyCursor, cut_pairs};
use crate::object::{INFO_XATTR, ObjectInfo, user_xattr};
use crate::op::{Op, OpError, OpResult};

/// What has been read of the object so far.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    items: BTreeMap<ReadItem, ReadValue>,
    /// What is to be copied, or why it could not be had.
    pub(crate) copy: Option<Result<Copied, OpError>>,
}

/// All of another object, gathered from pieces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copied {
    size: u64,
    data: Vec<Bytes>,
    xattrs: Vec<(Bytes, Bytes)>,
    header: Bytes,
    omap: Vec<(Bytes, Bytes)>,
    bytes: u64,
}

impl Copied {
    /// The next piece. How large it is now.
    pub(crate) fn add(&mut self, piece: Chunk) -> u64 {
        let omap: usize = piece.omap.iter().map(|(k, v)| k.len() + v.len()).sum();
        self.bytes += (piece.data.len() + omap) as u64;
        self.size = piece.size;
        if piece.at == CopyCursor::default() {
            self.xattrs = piece.xattrs;
            self.header = piece.header;
        }
        if !piece.data.is_empty() {
            self.data.push(piece.data);
        }
        self.omap.extend(piece.omap);
        self.bytes
    }
}

impl Fetched {
    /// What was read of the object itself no longer holds.
    pub(crate) fn forget(&mut self) {
        self.items.clear();
    }

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
    /// It changed who watches.
    pub watched: bool,
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
    /// The primary's wall clock when it ordered the vector, in milliseconds since 1970.
    pub wall_ms: u64,
}

/// Runs a vector.
pub fn run(target: &Target<'_>, fetched: &Fetched, ops: &[Op]) -> Result<Executed, Stop> {
    let mut ws = Workspace::new(target, fetched);
    let mut results = Vec::with_capacity(ops.len());
    for (i, op) in ops.iter().enumerate() {
        // Bytes written by the last are read by none, unless it is a class's method.
        ws.is_last = i + 1 == ops.len() && !matches!(op, Op::Call { .. });
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
    watched: bool,
    exists: bool,
    info: ObjectInfo,
    /// Bytes of the stored object beyond this are gone or never were.
    base_len: u64,
    /// Nothing of the stored object is left (removed, and perhaps made anew).
    base_gone: bool,
    /// The stored object was replaced by a clone: its bytes are not readable within this vector.
    rolled: bool,
    patches: Vec<(u64, Bytes)>,
    /// Nothing is read after this.
    is_last: bool,
    /// What the client said about the bytes that follow.
    hint: WriteHint,
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
            // The change itself and the record beside it.
            ops: Vec::with_capacity(2),
            modified: false,
            watched: false,
            patches: Vec::new(),
            is_last: false,
            hint: WriteHint::default(),
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
            watched: self.watched,
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

    /// A bounded piece of the object.
    fn piece(&self, at: &CopyCursor, bytes: u64, keys: u32) -> Result<Chunk, Stop> {
        let bytes = bytes.clamp(1, 8 << 20);
        let data = self.read(at.offset, bytes)?;
        let offset = at.offset.saturating_add(data.len() as u64);
        let (omap, more) = if offset < self.info.size {
            (Vec::new(), true)
        } else {
            let (omap, more) = self.omap_range(at.omap_after.as_ref(), b"", keys)?;
            cut_pairs(&omap, more, bytes)
        };
        let first = *at == CopyCursor::default();
        let mut xattrs = if first { self.xattrs_under(b"")? } else { Vec::new() };
        xattrs.retain(|(k, _)| k != INFO_XATTR);
        let header = if first { self.omap_header()? } else { Bytes::new() };
        let omap_after = omap.last().map(|(k, _)| k.clone()).or_else(|| at.omap_after.clone());
        let next = more.then_some(CopyCursor { offset, omap_after });
        Ok(Chunk { at: at.clone(), next, xattrs, header, size: self.info.size, data, omap, shared: None })
    }

    /// Takes over another object's content. Who watches stays, and so do snapshots.
    fn copy_from(&mut self) -> Result<(), Stop> {
        let copied = match &self.fetched.copy {
            Some(Ok(copied)) => copied,
            Some(Err(e)) => return Err(e.clone().into()),
            None => return Err(INVALID.into()),
        };
        if copied.size > self.target.max_object {
            return Err(OpError::TooBig { at: 0 }.into());
        }
        let watchers = self.info.watchers.clone();
        if self.exists {
            self.remove();
        }
        self.touch();
        self.info.watchers = watchers;
        let (mut at, mut digest) = (0, crc32fast::Hasher::new());
        for data in &copied.data {
            digest.update(data);
            self.write(at, data.clone())?;
            at += data.len() as u64;
        }
        if at == copied.size {
            self.info.digest = Some(digest.finalize());
        } else {
            self.truncate(copied.size)?;
        }
        for (name, value) in &copied.xattrs {
            self.set_stored_xattr(name.clone(), Some(value.clone()));
        }
        if !copied.header.is_empty() {
            self.set_header(copied.header.clone());
        }
        if !copied.omap.is_empty() {
            self.omap_set(copied.omap.clone());
        }
        Ok(())
    }

    fn set_header(&mut self, header: Bytes) {
        self.touch();
        self.header = Some(header.clone());
        self.ops.push(TxnOp::OmapSetHeader { oid: self.oid(), header });
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

    /// The primary's wall clock when it ordered the vector.
    pub fn wall_ms(&self) -> u64 {
        self.target.wall_ms
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
        if !self.is_last {
            self.patches.push((offset, data.clone()));
        }
        self.ops.push(TxnOp::Write { oid: self.oid(), offset, data, hint: self.hint });
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

    /// Removes the object.
    pub fn remove(&mut self) {
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

    /// A user's xattr.
    pub fn xattr(&self, name: &[u8]) -> Result<Option<Bytes>, Stop> {
        self.stored_xattr(&user_xattr(name))
    }

    /// An xattr by its name in the store.
    pub(crate) fn stored_xattr(&self, name: &[u8]) -> Result<Option<Bytes>, Stop> {
        if let Some(v) = self.xattrs.get(name) {
            return Ok(v.clone());
        }
        Ok(self.base_xattrs()?.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
    }

    fn base_xattrs(&self) -> Result<&'a [(Bytes, Bytes)], Stop> {
        if self.base_gone {
            return Ok(&[]);
        }
        if self.rolled {
            return Err(INVALID.into());
        }
        match self.fetch(ReadItem::Xattrs)? {
            ReadValue::Pairs(p, _) => Ok(p),
            _ => Err(INVALID.into()),
        }
    }

    /// All xattrs whose stored name begins with `prefix`, without it.
    pub(crate) fn xattrs_under(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, Stop> {
        let base = self.base_xattrs()?.iter().filter(|(k, _)| k.starts_with(prefix));
        let mut all: BTreeMap<Bytes, Bytes> = base.map(|(k, v)| (k.slice(prefix.len()..), v.clone())).collect();
        for (k, v) in self.xattrs.iter().filter(|(k, _)| k.starts_with(prefix)) {
            let k = k.slice(prefix.len()..);
            match v {
                Some(v) => drop(all.insert(k, v.clone())),
                None => drop(all.remove(&k)),
            }
        }
        Ok(all.into_iter().collect())
    }

    /// Sets an xattr, or removes it, by its name in the store.
    pub(crate) fn set_stored_xattr(&mut self, name: Bytes, value: Option<Bytes>) {
        match &value {
            Some(v) => {
                self.touch();
                self.ops.push(TxnOp::SetXattr { oid: self.oid(), name: name.clone(), value: v.clone() });
            }
            None => {
                self.modified = true;
                self.ops.push(TxnOp::RemoveXattr { oid: self.oid(), name: name.clone() });
            }
        }
        self.xattrs.insert(name, value);
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

    /// Removes omap entries in `[from, to)`; no `to`: to the end.
    pub fn omap_remove_range(&mut self, from: Bytes, to: Option<Bytes>) {
        self.modified = true;
        self.omap.retain(|k, _| *k < from || to.as_ref().is_some_and(|t| k >= t));
        self.ranges_gone.push((from.clone(), to.clone()));
        self.ops.push(TxnOp::OmapRemoveRange { oid: self.oid(), from, to });
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

#[cfg(test)]
#[path = "exec_test.rs"]
mod tests;
