//! The in-memory twin: the same semantics on plain maps, single-threaded if its caller is, and crashes on demand.
//!
//! It knows no time and starts no thread: what is submitted becomes durable when [`MemoryStore::commit`] says so, and
//! [`MemoryStore::crash`] gives the store that would be found after a power loss. Nothing here shares code with the
//! real engine's object state, so that each can judge the other.
//!
//! Invariants
//! 1. `live` is `durable` plus `pending` in order.
//! 2. A failed transaction leaves `live` as it was (each change notes how to undo it).
//! 3. Bytes of a page beyond the object's size are zero.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, PgId, Version};
use nacre_proto::txn::{Transaction, TxnOp};

use crate::api::{BLOCK, Completion, DataExtent, ObjectStat, ObjectStore, Seq, Usage};
use crate::error::StoreError;
use crate::limits;
use crate::ranges::{HashRanges, seed_range};

/// An in-memory store.
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

struct Inner {
    durable: State,
    live: State,
    pending: VecDeque<Pending>,
    seq: Seq,
    capacity: u64,
    poison: Option<Arc<str>>,
    fail_commits: Option<Arc<str>>,
    flipped: BTreeSet<(PgId, ObjectId, u64)>,
}

struct Pending {
    txn: Transaction,
    done: Completion,
}

#[derive(Clone, Default)]
struct State {
    collections: BTreeMap<PgId, Collection>,
    pages: u64,
}

#[derive(Clone)]
struct Collection {
    ranges: HashRanges,
    objects: BTreeMap<ObjectId, Arc<Object>>,
    log: BTreeMap<Version, Bytes>,
    meta: BTreeMap<Bytes, Bytes>,
}

#[derive(Clone, Default)]
struct Object {
    size: u64,
    pages: BTreeMap<u64, Bytes>,
    xattrs: BTreeMap<Bytes, Bytes>,
    omap: BTreeMap<Bytes, Bytes>,
    header: Bytes,
}

enum Undo {
    Object(PgId, ObjectId, Option<Arc<Object>>),
    Log(PgId, Version, Option<Bytes>),
    Meta(PgId, Bytes, Option<Bytes>),
    Collection(PgId, Option<Box<Collection>>),
    Pages(u64),
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new(u64::MAX)
    }
}

impl MemoryStore {
    /// An empty store with so many bytes for object data. Blocks of clones count once for each object here.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        MemoryStore::from_state(State::default(), capacity, 0)
    }

    fn from_state(state: State, capacity: u64, seq: Seq) -> Self {
        let inner = Inner {
            durable: state.clone(),
            live: state,
            pending: VecDeque::new(),
            seq,
            capacity,
            poison: None,
            fail_commits: None,
            flipped: BTreeSet::new(),
        };
        MemoryStore { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many transactions wait to become durable.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.lock().pending.len()
    }

    /// How many bytes of journal the waiting transactions would fill: the range of [`crash`](Self::crash)'s argument.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.lock().pending.iter().map(|pending| journal_len(&pending.txn)).sum()
    }

    /// Makes the oldest `count` waiting transactions durable, then calls their completions in order, outside any lock.
    /// Returns how many there were.
    pub fn commit(&self, count: usize) -> usize {
        let mut inner = self.lock();
        if let Some(cause) = inner.fail_commits.take() {
            inner.poison = Some(cause);
        }
        if let Some(cause) = inner.poison.clone() {
            let failed: Vec<_> = inner.pending.drain(..).collect();
            drop(inner);
            for pending in failed {
                (pending.done)(Err(StoreError::Poisoned { cause: cause.clone() }));
            }
            return 0;
        }
        let mut done = Vec::new();
        while done.len() < count {
            let Some(pending) = inner.pending.pop_front() else { break };
            inner.durable.must_apply(&pending.txn);
            done.push(pending.done);
        }
        drop(inner);
        let count = done.len();
        for done in done {
            done(Ok(()));
        }
        count
    }

    /// The store as a power loss would leave it, when `bytes` of the waiting transactions' journal had reached the
    /// disk: whole transactions are kept, the one cut in the middle is torn, recognised and dropped with all after it.
    /// 0 loses all that was not committed. Completions of the lost are never called. Flipped bits stay.
    #[must_use]
    pub fn crash(&self, bytes: u64) -> MemoryStore {
        let mut inner = self.lock();
        let mut state = inner.durable.clone();
        let mut left = bytes;
        let mut kept = 0;
        for pending in &inner.pending {
            let Some(rest) = left.checked_sub(journal_len(&pending.txn)) else { break };
            left = rest;
            kept += 1;
            state.must_apply(&pending.txn);
        }
        let seq = inner.seq - (inner.pending.len() - kept) as u64;
        let after = MemoryStore::from_state(state, inner.capacity, seq);
        after.lock().flipped = inner.flipped.clone();
        inner.pending.clear();
        inner.poison = Some("the machine lost power".into());
        after
    }

    /// Lets the next commit fail and poisons the store with it.
    pub fn fail_next_commit(&self, cause: &str) {
        self.lock().fail_commits = Some(cause.into());
    }

    /// Flips a bit in the stored block at `offset`; reads of it report corruption until it is overwritten whole.
    pub fn flip_bit(&self, pg: PgId, oid: &ObjectId, offset: u64) {
        self.lock().flipped.insert((pg, oid.clone(), offset / BLOCK));
    }
}

/// What a transaction takes in the journal, near enough for tearing.
fn journal_len(txn: &Transaction) -> u64 {
    let payload: usize = txn
        .ops
        .iter()
        .map(|op| match op {
            TxnOp::Write { data, .. } => data.len(),
            TxnOp::SetXattr { name, value, .. } => name.len() + value.len(),
            TxnOp::OmapSet { entries, .. } => entries.iter().map(|(key, value)| key.len() + value.len()).sum(),
            TxnOp::LogAppend { entry, .. } => entry.len(),
            TxnOp::SetMeta { value, .. } => value.as_ref().map_or(0, Bytes::len),
            _ => 0,
        })
        .sum();
    (32 + 64 * txn.ops.len() + payload) as u64
}

impl Object {
    fn bytes(&self, offset: u64, len: u64) -> Vec<u8> {
        let mut out = vec![0; len as usize];
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let within = at % BLOCK;
            let step = (BLOCK - within).min(len - done);
            if let Some(page) = self.pages.get(&(at / BLOCK)) {
                out[done as usize..(done + step) as usize]
                    .copy_from_slice(&page[within as usize..(within + step) as usize]);
            }
            done += step;
        }
        out
    }

    fn write(&mut self, offset: u64, data: &Bytes) {
        let len = data.len() as u64;
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let within = at % BLOCK;
            let step = (BLOCK - within).min(len - done);
            let piece = data.slice(done as usize..(done + step) as usize);
            if step == BLOCK {
                self.pages.insert(at / BLOCK, piece);
            } else {
                let mut page = self.pages.get(&(at / BLOCK)).map_or_else(|| vec![0; BLOCK as usize], |p| p.to_vec());
                page[within as usize..(within + step) as usize].copy_from_slice(&piece);
                self.pages.insert(at / BLOCK, page.into());
            }
            done += step;
        }
        if len > 0 {
            self.size = self.size.max(offset + len);
        }
    }

    /// Zeros within pages that exist; pages covered whole go.
    fn clear(&mut self, offset: u64, end: u64) {
        let touched: Vec<u64> = if end > offset {
            self.pages.range(offset / BLOCK..end.div_ceil(BLOCK)).map(|(page, _)| *page).collect()
        } else {
            Vec::new()
        };
        for index in touched {
            let (low, high) = (offset.max(index * BLOCK), end.min((index + 1) * BLOCK));
            if high - low == BLOCK {
                self.pages.remove(&index);
            } else if let Some(page) = self.pages.get_mut(&index) {
                let mut bytes = page.to_vec();
                bytes[(low - index * BLOCK) as usize..(high - index * BLOCK) as usize].fill(0);
                *page = bytes.into();
            }
        }
    }

    fn truncate(&mut self, size: u64) {
        if size < self.size {
            self.clear(size, self.size.next_multiple_of(BLOCK));
        }
        self.size = size;
    }

    fn clone_range(&mut self, from: &Object, from_offset: u64, len: u64, to_offset: u64) {
        let len = len.min(from.size.saturating_sub(from_offset));
        if len == 0 {
            return;
        }
        let end = to_offset + len;
        let (first, last) = (to_offset.next_multiple_of(BLOCK), end / BLOCK * BLOCK);
        if from_offset % BLOCK != to_offset % BLOCK || first >= last {
            self.write(to_offset, &from.bytes(from_offset, len).into());
            return;
        }
        let source = |at: u64| at - to_offset + from_offset;
        if first > to_offset {
            self.write(to_offset, &from.bytes(from_offset, first - to_offset).into());
        }
        self.clear(first, last);
        for (page, bytes) in from.pages.range(source(first) / BLOCK..source(last) / BLOCK) {
            self.pages.insert((page * BLOCK - from_offset + to_offset) / BLOCK, bytes.clone());
        }
        if last < end {
            self.write(last, &from.bytes(source(last), end - last).into());
        }
        self.size = self.size.max(end);
    }
}

impl State {
    fn coll(&mut self, pg: PgId) -> Result<&mut Collection, StoreError> {
        self.collections.get_mut(&pg).ok_or(StoreError::NoCollection { pg })
    }

    fn get(&self, pg: PgId, oid: &ObjectId) -> Result<Option<&Arc<Object>>, StoreError> {
        let coll = self.collections.get(&pg).ok_or(StoreError::NoCollection { pg })?;
        if oid.pool != pg.pool || !coll.ranges.contains(oid.sort_hash()) {
            return Err(StoreError::WrongCollection { pg, oid: oid.clone() });
        }
        Ok(coll.objects.get(oid))
    }

    fn need(&self, pg: PgId, oid: &ObjectId) -> Result<Arc<Object>, StoreError> {
        self.get(pg, oid)?.cloned().ok_or_else(|| StoreError::NoObject { pg, oid: oid.clone() })
    }

    fn set(
        &mut self,
        pg: PgId,
        oid: &ObjectId,
        new: Option<Arc<Object>>,
        undo: &mut Vec<Undo>,
    ) -> Result<(), StoreError> {
        self.get(pg, oid)?;
        undo.push(Undo::Pages(self.pages));
        self.pages += new.as_ref().map_or(0, |object| object.pages.len() as u64);
        let coll = self.coll(pg)?;
        let old = match new {
            Some(object) => coll.objects.insert(oid.clone(), object),
            None => coll.objects.remove(oid),
        };
        self.pages -= old.as_ref().map_or(0, |object| object.pages.len() as u64);
        undo.push(Undo::Object(pg, oid.clone(), old));
        Ok(())
    }

    /// Changes an object, made if absent.
    fn edit(
        &mut self,
        pg: PgId,
        oid: &ObjectId,
        undo: &mut Vec<Undo>,
        change: impl FnOnce(&mut Object),
    ) -> Result<(), StoreError> {
        let mut object = self.get(pg, oid)?.map(|object| Object::clone(object)).unwrap_or_default();
        change(&mut object);
        self.set(pg, oid, Some(Arc::new(object)), undo)
    }

    /// Changes an object if it is there.
    fn edit_present(
        &mut self,
        pg: PgId,
        oid: &ObjectId,
        undo: &mut Vec<Undo>,
        change: impl FnOnce(&mut Object),
    ) -> Result<(), StoreError> {
        if self.get(pg, oid)?.is_some() { self.edit(pg, oid, undo, change) } else { Ok(()) }
    }

    fn set_log(
        &mut self,
        pg: PgId,
        version: Version,
        entry: Option<Bytes>,
        undo: &mut Vec<Undo>,
    ) -> Result<(), StoreError> {
        let log = &mut self.coll(pg)?.log;
        let old = match entry {
            Some(entry) => log.insert(version, entry),
            None => log.remove(&version),
        };
        undo.push(Undo::Log(pg, version, old));
        Ok(())
    }

    /// Applies what was applied before to the same state, so it cannot fail.
    fn must_apply(&mut self, txn: &Transaction) {
        let applied = self.apply(txn, u64::MAX);
        assert!(applied.is_ok(), "a transaction that was taken failed when applied again: {applied:?}");
    }

    fn apply(&mut self, txn: &Transaction, capacity: u64) -> Result<(), StoreError> {
        let mut undo = Vec::new();
        let before = self.pages;
        let mut result = txn.ops.iter().try_for_each(|op| self.apply_op(txn.pg, op, &mut undo));
        // A transaction that frees, or changes nothing, is always taken.
        if result.is_ok() && self.pages > before && self.pages.saturating_mul(BLOCK) > capacity {
            let needed = (self.pages - before) * BLOCK;
            result = Err(StoreError::Full { needed, available: capacity.saturating_sub(before * BLOCK) });
        }
        if result.is_err() {
            while let Some(step) = undo.pop() {
                self.undo(step);
            }
        }
        result
    }

    fn undo(&mut self, step: Undo) {
        match step {
            Undo::Pages(pages) => self.pages = pages,
            Undo::Collection(pg, Some(coll)) => drop(self.collections.insert(pg, *coll)),
            Undo::Collection(pg, None) => drop(self.collections.remove(&pg)),
            Undo::Object(pg, oid, old) => {
                if let Some(coll) = self.collections.get_mut(&pg) {
                    match old {
                        Some(object) => coll.objects.insert(oid, object),
                        None => coll.objects.remove(&oid),
                    };
                }
            }
            Undo::Log(pg, version, old) => {
                if let Some(coll) = self.collections.get_mut(&pg) {
                    match old {
                        Some(entry) => coll.log.insert(version, entry),
                        None => coll.log.remove(&version),
                    };
                }
            }
            Undo::Meta(pg, key, old) => {
                if let Some(coll) = self.collections.get_mut(&pg) {
                    match old {
                        Some(value) => coll.meta.insert(key, value),
                        None => coll.meta.remove(&key),
                    };
                }
            }
        }
    }

    fn apply_op(&mut self, pg: PgId, op: &TxnOp, undo: &mut Vec<Undo>) -> Result<(), StoreError> {
        match op {
            TxnOp::Touch { oid } => self.edit(pg, oid, undo, |_| ()),
            TxnOp::Write { oid, offset, data, .. } => self.edit(pg, oid, undo, |object| object.write(*offset, data)),
            TxnOp::Zero { oid, offset, len } => self.edit(pg, oid, undo, |object| {
                object.clear(*offset, offset + len);
                object.size = object.size.max(if *len == 0 { 0 } else { offset + len });
            }),
            TxnOp::Truncate { oid, size } => self.edit(pg, oid, undo, |object| object.truncate(*size)),
            TxnOp::Remove { oid } => match self.get(pg, oid)? {
                Some(_) => self.set(pg, oid, None, undo),
                None => Ok(()),
            },
            TxnOp::Clone { from, to } => {
                let object = self.need(pg, from)?;
                self.set(pg, to, Some(object), undo)
            }
            TxnOp::CloneRange { from, to, from_offset, len, to_offset } => {
                let source = self.need(pg, from)?;
                self.edit(pg, to, undo, |object| object.clone_range(&source, *from_offset, *len, *to_offset))
            }
            TxnOp::Rename { from, to } => {
                let object = self.need(pg, from)?;
                self.set(pg, from, None, undo)?;
                self.set(pg, to, Some(object), undo)
            }
            TxnOp::SetXattr { oid, name, value } => {
                self.edit(pg, oid, undo, |object| drop(object.xattrs.insert(name.clone(), value.clone())))
            }
            TxnOp::RemoveXattr { oid, name } => {
                self.edit_present(pg, oid, undo, |object| drop(object.xattrs.remove(name)))
            }
            TxnOp::OmapSet { oid, entries } => {
                self.edit(pg, oid, undo, |object| object.omap.extend(entries.iter().cloned()))
            }
            TxnOp::OmapRemove { oid, keys } => {
                self.edit_present(pg, oid, undo, |object| object.omap.retain(|key, _| !keys.contains(key)))
            }
            TxnOp::OmapRemoveRange { oid, from, to } => self.edit_present(pg, oid, undo, |object| {
                object.omap.retain(|key, _| key < from || to.as_ref().is_some_and(|to| key >= to));
            }),
            TxnOp::OmapClear { oid } => self.edit_present(pg, oid, undo, |object| {
                object.omap.clear();
                object.header = Bytes::new();
            }),
            TxnOp::OmapSetHeader { oid, header } => self.edit(pg, oid, undo, |object| object.header = header.clone()),
            TxnOp::LogAppend { version, entry } => self.set_log(pg, *version, Some(entry.clone()), undo),
            TxnOp::LogTrim { to } => {
                let gone: Vec<_> = self.coll(pg)?.log.range(..=*to).map(|(version, _)| *version).collect();
                gone.into_iter().try_for_each(|version| self.set_log(pg, version, None, undo))
            }
            TxnOp::LogRewind { after } => {
                let log = &self.coll(pg)?.log;
                let gone: Vec<_> = log.keys().rev().take_while(|version| *version > after).copied().collect();
                gone.into_iter().try_for_each(|version| self.set_log(pg, version, None, undo))
            }
            TxnOp::SetMeta { key, value } => {
                let meta = &mut self.coll(pg)?.meta;
                let old = match value {
                    Some(value) => meta.insert(key.clone(), value.clone()),
                    None => meta.remove(key),
                };
                undo.push(Undo::Meta(pg, key.clone(), old));
                Ok(())
            }
            TxnOp::CreateCollection => self.create(pg, undo),
            TxnOp::SplitCollection { child, pg_num, meta, log } => {
                self.split(pg, *child, *pg_num, undo)?;
                let born = self.coll(*child)?;
                born.meta.extend(meta.iter().cloned());
                born.log.extend(log.iter().cloned());
                Ok(())
            }
            TxnOp::RemoveCollection => {
                let coll = self.collections.remove(&pg).ok_or(StoreError::NoCollection { pg })?;
                undo.push(Undo::Pages(self.pages));
                self.pages -= coll.objects.values().map(|object| object.pages.len() as u64).sum::<u64>();
                undo.push(Undo::Collection(pg, Some(Box::new(coll))));
                Ok(())
            }
        }
    }

    fn create(&mut self, pg: PgId, undo: &mut Vec<Undo>) -> Result<(), StoreError> {
        if self.collections.contains_key(&pg) {
            return Err(StoreError::CollectionExists { pg });
        }
        let coll = Collection {
            ranges: HashRanges::all(),
            objects: BTreeMap::new(),
            log: BTreeMap::new(),
            meta: BTreeMap::new(),
        };
        self.collections.insert(pg, coll);
        undo.push(Undo::Collection(pg, None));
        Ok(())
    }

    fn split(&mut self, pg: PgId, child: PgId, pg_num: u32, undo: &mut Vec<Undo>) -> Result<(), StoreError> {
        let cut = seed_range(child.seed, pg_num).ok_or(StoreError::BadSplit { pg: child, pg_num })?;
        if self.collections.contains_key(&child) {
            return Err(StoreError::CollectionExists { pg: child });
        }
        let parent = self.coll(pg)?;
        undo.push(Undo::Collection(pg, Some(Box::new(parent.clone()))));
        let ranges = parent.ranges.split_off(cut);
        let mut objects = BTreeMap::new();
        parent.objects.retain(|oid, object| {
            let goes = ranges.contains(oid.sort_hash());
            if goes {
                objects.insert(oid.clone(), object.clone());
            }
            !goes
        });
        self.collections.insert(child, Collection { ranges, objects, log: BTreeMap::new(), meta: BTreeMap::new() });
        undo.push(Undo::Collection(child, None));
        Ok(())
    }
}

/// The blocks an op replaces whole, so that a flipped bit in them is gone.
fn heals(op: &TxnOp) -> Option<(&ObjectId, std::ops::Range<u64>)> {
    match op {
        TxnOp::Write { oid, offset, data, .. } => {
            Some((oid, offset.div_ceil(BLOCK)..(offset + data.len() as u64) / BLOCK))
        }
        TxnOp::Zero { oid, offset, len } => Some((oid, offset.div_ceil(BLOCK)..(offset + len) / BLOCK)),
        TxnOp::Truncate { oid, size } => Some((oid, size.div_ceil(BLOCK)..u64::MAX)),
        TxnOp::Remove { oid } | TxnOp::Clone { to: oid, .. } | TxnOp::Rename { to: oid, .. } => {
            Some((oid, 0..u64::MAX))
        }
        _ => None,
    }
}

impl ObjectStore for MemoryStore {
    fn submit(&self, txn: Transaction, done: Completion) -> Result<Seq, StoreError> {
        let mut inner = self.lock();
        if let Some(cause) = &inner.poison {
            return Err(StoreError::Poisoned { cause: cause.clone() });
        }
        limits::check(&txn)?;
        let capacity = inner.capacity;
        inner.live.apply(&txn, capacity)?;
        for (oid, blocks) in txn.ops.iter().filter_map(heals) {
            inner.flipped.retain(|(pg, other, block)| *pg != txn.pg || other != oid || !blocks.contains(block));
        }
        inner.seq += 1;
        inner.pending.push_back(Pending { txn, done });
        Ok(inner.seq)
    }

    fn stat(&self, pg: PgId, oid: &ObjectId) -> Result<Option<ObjectStat>, StoreError> {
        Ok(self.lock().live.get(pg, oid)?.map(|object| ObjectStat { size: object.size }))
    }

    fn read(&self, pg: PgId, oid: &ObjectId, offset: u64, len: u64) -> Result<Vec<DataExtent>, StoreError> {
        let inner = self.lock();
        let object = inner.live.need(pg, oid)?;
        let mut extents = Vec::new();
        for (low, high) in data_ranges(&object, offset, len) {
            let blocks = low / BLOCK..high.div_ceil(BLOCK);
            if let Some((_, _, block)) =
                inner.flipped.iter().find(|(p, o, block)| *p == pg && o == oid && blocks.contains(block))
            {
                return Err(StoreError::Corrupt { pg, oid: oid.clone(), offset: block * BLOCK });
            }
            let data = Bytes::from(object.bytes(low, high - low));
            let crc = Some(crc32fast::hash(&data));
            extents.push(DataExtent { offset: low, data, crc });
        }
        Ok(extents)
    }

    fn sparse_map(&self, pg: PgId, oid: &ObjectId, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, StoreError> {
        let object = self.lock().live.need(pg, oid)?;
        Ok(data_ranges(&object, offset, len).into_iter().map(|(low, high)| (low, high - low)).collect())
    }

    fn xattr(&self, pg: PgId, oid: &ObjectId, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.lock().live.need(pg, oid)?.xattrs.get(name).cloned())
    }

    fn xattrs(&self, pg: PgId, oid: &ObjectId) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        Ok(pairs(&self.lock().live.need(pg, oid)?.xattrs))
    }

    fn omap_header(&self, pg: PgId, oid: &ObjectId) -> Result<Bytes, StoreError> {
        Ok(self.lock().live.need(pg, oid)?.header.clone())
    }

    fn omap_get(&self, pg: PgId, oid: &ObjectId, keys: &[Bytes]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let object = self.lock().live.need(pg, oid)?;
        Ok(keys.iter().filter_map(|key| object.omap.get_key_value(key)).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn omap_list(&self, pg: PgId, oid: &ObjectId, from: &[u8], max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let object = self.lock().live.need(pg, oid)?;
        let range = object.omap.range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Unbounded));
        Ok(range.take(max).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn list(&self, pg: PgId, after: Option<&ObjectId>, max: usize) -> Result<Vec<ObjectId>, StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut inner = self.lock();
        let from = after.map_or(Unbounded, Excluded);
        Ok(inner.live.coll(pg)?.objects.range((from, Unbounded)).take(max).map(|(oid, _)| oid.clone()).collect())
    }

    fn log(&self, pg: PgId, after: Version, max: usize) -> Result<Vec<(Version, Bytes)>, StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut inner = self.lock();
        let range = inner.live.coll(pg)?.log.range((Excluded(after), Unbounded));
        Ok(range.take(max).map(|(version, entry)| (*version, entry.clone())).collect())
    }

    fn meta(&self, pg: PgId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.lock().live.coll(pg)?.meta.get(key).cloned())
    }

    fn meta_list(&self, pg: PgId) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        Ok(pairs(&self.lock().live.coll(pg)?.meta))
    }

    fn collections(&self) -> Result<Vec<PgId>, StoreError> {
        Ok(self.lock().live.collections.keys().copied().collect())
    }

    fn usage(&self) -> Usage {
        let inner = self.lock();
        let used = inner.live.pages * BLOCK;
        Usage { total: inner.capacity, used, pending: 0, available: inner.capacity.saturating_sub(used) }
    }
}

fn pairs(map: &BTreeMap<Bytes, Bytes>) -> Vec<(Bytes, Bytes)> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Where an object has data within a range, as `(low, high)`, merged and cut at its size.
fn data_ranges(object: &Object, offset: u64, len: u64) -> Vec<(u64, u64)> {
    let end = offset.saturating_add(len).min(object.size);
    let mut merged: Vec<(u64, u64)> = Vec::new();
    if offset >= end {
        return merged;
    }
    for page in object.pages.range(offset / BLOCK..end.div_ceil(BLOCK)).map(|(page, _)| *page) {
        let (low, high) = (offset.max(page * BLOCK), end.min((page + 1) * BLOCK));
        match merged.last_mut() {
            Some(last) if last.1 == low => last.1 = high,
            _ => merged.push((low, high)),
        }
    }
    merged
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod tests;
