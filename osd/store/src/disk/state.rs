//! What the engine holds in memory: changes since the last checkpoint, caches, the allocator.
//!
//! A value is looked up in this order: the transaction being applied ([`super::stage`]), `active` (changed since the
//! last freeze), `frozen` (being written by a checkpoint), the clean cache, the metadata database. Blocks likewise:
//! `active`, `frozen`, `inflight` (large writes not yet handed to the disk), the block cache, the disk.
//!
//! Invariants
//! 1. `active` over `frozen` over the database is the submitted state.
//! 2. A block in `active` or `frozen` has in the leaf that names it the checksum of its topmost bytes.
//! 3. Dirty and cached bytes together stay within the bound; what is dirty is limited before it is taken, what is
//!    cached gives way.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, PgId, Version};

use super::alloc::{Allocator, Words};
use super::codec::Malformed;
use super::kv::{Kv, merged_scan};
use super::meta::{Applied, Cell, Coll, decode_log};
use super::{keys, leaf::Leaf, meta::Header};
use crate::error::StoreError;

/// Spreads block numbers; they are ours, so nobody can choose them to collide.
#[derive(Default)]
pub(crate) struct BlockHasher(u64);

impl Hasher for BlockHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// Cells by key. Names come from clients, so the hash is seeded; it is looked up several times for each verb, so it is fast.
pub(crate) type CellMap = HashMap<Bytes, Option<Cell>, foldhash::fast::RandomState>;
pub(crate) type BlockMap<V> = HashMap<u64, V, BuildHasherDefault<BlockHasher>>;
pub(crate) type BlockSet = HashSet<u64, BuildHasherDefault<BlockHasher>>;

/// Changes of a collection's log.
#[derive(Clone, Default)]
pub(crate) struct LogDelta {
    /// Older entries up to here are gone.
    pub trim: Option<Version>,
    /// Older entries after here are gone.
    pub rewind: Option<Version>,
    pub entries: BTreeMap<Version, Bytes>,
}

impl LogDelta {
    pub(crate) fn hides(&self, version: Version) -> bool {
        self.trim.is_some_and(|to| version <= to) || self.rewind.is_some_and(|after| version > after)
    }
}

/// Changes between two freezes.
#[derive(Default)]
pub(crate) struct Layer {
    pub cells: CellMap,
    /// Objects that came (an empty value) or went (none), in order, for listings.
    pub names: BTreeMap<Bytes, Option<Bytes>>,
    pub omap: BTreeMap<Bytes, Option<Bytes>>,
    pub dropped_omaps: Vec<u64>,
    pub logs: BTreeMap<u64, LogDelta>,
    pub dropped_logs: Vec<u64>,
    pub blocks: BlockMap<Bytes>,
    /// Those of `blocks` that were in the cache when they were written, and go back there. What is only ever written stays
    /// out: to copy it all would cost much, and push out what is read.
    pub warm: BlockSet,
    /// Set when frozen.
    pub bitmaps: Vec<(u64, Box<Words>)>,
    pub applied: Applied,
    /// Bytes of memory.
    pub weight: usize,
}

/// A cache of whole values that gives way: entries leave in the order they came, used ones after a second round.
pub(crate) struct Cache<K, V, S = std::hash::RandomState> {
    map: HashMap<K, Cached<V>, S>,
    order: VecDeque<K>,
    pub weight: usize,
}

struct Cached<V> {
    value: V,
    weight: usize,
    used: bool,
}

impl<K: Clone + Eq + std::hash::Hash, V: Clone, S: std::hash::BuildHasher + Default> Cache<K, V, S> {
    pub(crate) fn new() -> Self {
        Cache { map: HashMap::with_hasher(S::default()), order: VecDeque::new(), weight: 0 }
    }

    pub(crate) fn get<Q: std::hash::Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let entry = self.map.get_mut(key)?;
        entry.used = true;
        Some(entry.value.clone())
    }

    pub(crate) fn insert(&mut self, key: K, value: V, weight: usize) {
        self.weight += weight;
        let fresh = Cached { value, weight, used: false };
        match self.map.insert(key.clone(), fresh) {
            Some(old) => self.weight -= old.weight,
            None => self.order.push_back(key),
        }
        self.tidy();
    }

    /// Forgets the places of entries that were removed or came twice.
    fn tidy(&mut self) {
        if self.order.len() > 2 * self.map.len() + 64 {
            let mut seen = HashSet::new();
            let map = &self.map;
            self.order.retain(|key| map.contains_key(key) && seen.insert(key.clone()));
        }
    }

    /// Whether it was there.
    pub(crate) fn remove<Q: std::hash::Hash + Eq + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: std::borrow::Borrow<Q>,
    {
        // Its place in the order stays and is skipped when it comes up.
        let old = self.map.remove(key);
        self.weight -= old.as_ref().map_or(0, |old| old.weight);
        old.is_some()
    }

    #[cfg(test)]
    pub(crate) fn order_len(&self) -> usize {
        self.order.len()
    }

    /// Drops entries until the weight is at most `bound`.
    pub(crate) fn shrink(&mut self, bound: usize) {
        while self.weight > bound {
            let Some(key) = self.order.pop_front() else { break };
            match self.map.get_mut(&key) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    self.order.push_back(key);
                }
                Some(_) => drop(self.remove(&key)),
                None => {}
            }
        }
        self.tidy();
    }
}

pub(crate) struct State {
    pub seq: u64,
    pub next_id: u64,
    pub active: Layer,
    pub frozen: Option<Arc<Layer>>,
    pub alloc: Allocator,
    /// Large writes by first block, until the disk has them.
    pub inflight: BTreeMap<u64, Bytes>,
    pub cells: Cache<Bytes, Option<Cell>, foldhash::fast::RandomState>,
    pub blocks: Cache<u64, Bytes, BuildHasherDefault<BlockHasher>>,
    pub colls: BTreeMap<PgId, Arc<Coll>>,
    /// Removed collections whose objects still hold space.
    pub dead: BTreeMap<u64, Arc<Coll>>,
    /// Journal bytes granted since the last freeze, and before it.
    pub granted: [u64; 2],
    /// Blocks kept back so that what frees space always finds the little it needs.
    pub reserve: u64,
    /// The metadata database's file system is nearly full.
    pub kv_full: bool,
    /// Bytes for dirty and cached things together.
    pub bound: usize,
}

/// What a cached or changed block weighs beyond its bytes.
const BLOCK_WEIGHT: usize = 4096 + 96;

impl State {
    pub(crate) fn coll(&self, pg: PgId) -> Result<&Arc<Coll>, StoreError> {
        self.colls.get(&pg).ok_or(StoreError::NoCollection { pg })
    }

    /// The key of an object, which must belong to the collection.
    pub(crate) fn key(&self, pg: PgId, oid: &ObjectId) -> Result<Bytes, StoreError> {
        let coll = self.coll(pg)?;
        if oid.pool != pg.pool || !coll.ranges.contains(oid.sort_hash()) {
            return Err(StoreError::WrongCollection { pg, oid: oid.clone() });
        }
        Ok(keys::object(coll.space, oid))
    }

    pub(crate) fn cell(&mut self, key: &Bytes, kv: &dyn Kv) -> Result<Option<Cell>, StoreError> {
        if let Some(cell) = self.active.cells.get(key) {
            return Ok(cell.clone());
        }
        if let Some(cell) = self.frozen.as_ref().and_then(|frozen| frozen.cells.get(key)) {
            return Ok(cell.clone());
        }
        if let Some(cell) = self.cells.get(key) {
            return Ok(cell);
        }
        let cell = match kv.get(key)? {
            None => None,
            Some(bytes) => Some(
                Cell::decode(key, bytes)
                    .map_err(|e| e.of(format!("the value of key {} is malformed", key.escape_ascii())))?,
            ),
        };
        self.cache_cell(key, cell.clone());
        Ok(cell)
    }

    fn cache_cell(&mut self, key: &Bytes, cell: Option<Cell>) {
        // The key may be a part of a larger buffer.
        let key = Bytes::copy_from_slice(key);
        let weight = 2 * key.len() + 128 + cell.as_ref().map_or(0, Cell::weight);
        self.cells.insert(key, cell, weight);
    }

    pub(crate) fn header(&mut self, key: &Bytes, kv: &dyn Kv) -> Result<Option<Arc<Header>>, StoreError> {
        match self.cell(key, kv)? {
            None => Ok(None),
            Some(Cell::Header(header)) => Ok(Some(header)),
            Some(_) => Err(Malformed.of("a header's key holds something else")),
        }
    }

    pub(crate) fn leaf(&mut self, object: &Bytes, index: u32, kv: &dyn Kv) -> Result<Option<Arc<Leaf>>, StoreError> {
        match self.cell(&keys::leaf(object, index), kv)? {
            None => Ok(None),
            Some(Cell::Leaf(leaf)) => Ok(Some(leaf)),
            Some(_) => Err(Malformed.of("a leaf's key holds something else")),
        }
    }

    /// A block's bytes if memory has them; unverified.
    pub(crate) fn block(&mut self, phys: u64) -> Option<Bytes> {
        if let Some(bytes) = self.active.blocks.get(&phys) {
            return Some(bytes.clone());
        }
        // A large write under way is older than what a frozen layer has of its blocks: it was in flight before the small
        // write came, and its blocks cannot have been freed and given out again since.
        if let Some(bytes) = self.frozen.as_ref().and_then(|frozen| frozen.blocks.get(&phys)) {
            return Some(bytes.clone());
        }
        if let Some((first, bytes)) = self.inflight.range(..=phys).next_back() {
            let from = (phys - first) as usize * 4096;
            if from < bytes.len() {
                return Some(bytes.slice(from..from + 4096));
            }
        }
        self.blocks.get(&phys)
    }

    pub(crate) fn cache_block(&mut self, phys: u64, bytes: Bytes) {
        self.blocks.insert(phys, bytes, BLOCK_WEIGHT);
    }

    /// The layers of changed omap entries, topmost first.
    pub(crate) fn omap_get(&self, id: u64, key: &[u8], kv: &dyn Kv) -> Result<Option<Bytes>, StoreError> {
        let key = keys::omap(id, key);
        if let Some(value) = self.active.omap.get(&key) {
            return Ok(value.clone());
        }
        if let Some(value) = self.frozen.as_ref().and_then(|frozen| frozen.omap.get(&key)) {
            return Ok(value.clone());
        }
        kv.get(&key)
    }

    /// Visits entries of an omap from a key on (before another, if given); keys without their prefix.
    pub(crate) fn omap_scan(
        &self,
        id: u64,
        (from, to): (&[u8], Option<&[u8]>),
        above: &BTreeMap<Bytes, Option<Bytes>>,
        kv: &dyn Kv,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let first = keys::omap(id, from);
        let past = to.map_or_else(|| keys::past(b'M', id), |to| keys::omap(id, to));
        let mut layers = vec![above, &self.active.omap];
        layers.extend(self.frozen.as_ref().map(|frozen| &frozen.omap));
        merged_scan(&layers, kv, &first, &past, &mut |key, value| visit(key.get(9..).unwrap_or_default(), value))
    }

    /// Visits the keys of a collection's objects from a key on.
    pub(crate) fn objects(
        &self,
        coll: &Coll,
        after: Option<&Bytes>,
        kv: &dyn Kv,
        visit: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let mut layers = vec![&self.active.names];
        layers.extend(self.frozen.as_ref().map(|frozen| &frozen.names));
        let mut stopped = false;
        for &(low, high) in &coll.ranges.0 {
            let mut from = keys::object_from(coll.space, low);
            let past = match high.checked_add(1) {
                Some(next) => keys::object_from(coll.space, next),
                None => keys::past(b'O', coll.space),
            };
            if let Some(after) = after
                && *after >= from
            {
                from = [after.as_ref(), &[0]].concat().into();
            }
            merged_scan(&layers, kv, &from, &past, &mut |key, _| {
                stopped = !visit(key);
                !stopped
            })?;
            if stopped {
                break;
            }
        }
        Ok(())
    }

    /// The whole log of a collection.
    pub(crate) fn log(&self, coll: u64, kv: &dyn Kv) -> Result<BTreeMap<Version, Bytes>, StoreError> {
        let mut log = BTreeMap::new();
        let mut failed = None;
        kv.scan(&keys::first(b'G', coll), &keys::past(b'G', coll), &mut |_, value| {
            match decode_log(Bytes::copy_from_slice(value)) {
                Ok(entries) => log.extend(entries),
                Err(malformed) => failed = Some(malformed.of(format!("a log chunk of collection {coll} is malformed"))),
            }
            failed.is_none()
        })?;
        failed.map_or(Ok(()), Err)?;
        for delta in [self.frozen.as_ref().and_then(|frozen| frozen.logs.get(&coll)), self.active.logs.get(&coll)]
            .into_iter()
            .flatten()
        {
            log.retain(|version, _| !delta.hides(*version));
            log.extend(delta.entries.iter().map(|(version, entry)| (*version, entry.clone())));
        }
        Ok(log)
    }

    /// Bytes of everything that memory holds for changes and caches.
    pub(crate) fn weight(&self) -> usize {
        self.dirty_weight() + self.cells.weight + self.blocks.weight + self.alloc.weight()
    }

    pub(crate) fn dirty_weight(&self) -> usize {
        let inflight: usize = self.inflight.values().map(Bytes::len).sum();
        self.active.weight + self.frozen.as_ref().map_or(0, |frozen| frozen.weight) + inflight
    }

    /// Lets caches give way until the bound holds.
    pub(crate) fn shrink(&mut self) {
        let total = self.weight();
        if total <= self.bound {
            return;
        }
        let mut over = total - self.bound;
        // Data goes first: metadata saves a lookup in the database and a read besides.
        let data = over.min(self.blocks.weight);
        let keep = self.blocks.weight - data;
        self.blocks.shrink(keep);
        over -= data;
        if over > 0 {
            let keep = self.cells.weight.saturating_sub(over);
            self.cells.shrink(keep);
        }
    }

    /// Turns what changed so far into the layer a checkpoint writes.
    pub(crate) fn freeze(&mut self) -> Arc<Layer> {
        let mut layer = std::mem::take(&mut self.active);
        layer.bitmaps = self.alloc.freeze();
        layer.applied.seq = self.seq;
        layer.applied.next_id = self.next_id;
        let layer = Arc::new(layer);
        self.frozen = Some(layer.clone());
        self.granted = [0, self.granted[0]];
        layer
    }

    /// The checkpoint of the frozen layer is on disk.
    pub(crate) fn thaw(&mut self) {
        let Some(layer) = self.frozen.take() else { return };
        self.alloc.thaw();
        self.granted[1] = 0;
        for (key, cell) in &layer.cells {
            if key.first() != Some(&b'C') {
                self.cache_cell(key, cell.clone());
            }
        }
        let mut room = self.bound.saturating_sub(self.weight());
        for phys in &layer.warm {
            // One that was written again is warm in the layer above.
            let Some(bytes) = layer.blocks.get(phys).filter(|_| !self.active.blocks.contains_key(phys)) else {
                continue;
            };
            let Some(less) = room.checked_sub(BLOCK_WEIGHT) else { break };
            room = less;
            // A block that is part of something larger would keep all of that in memory.
            self.cache_block(*phys, Bytes::copy_from_slice(bytes));
        }
        self.shrink();
    }
}
