//! The invariants of a store at rest: what `nacre store check` verifies and `repair` restores where it can be proved.
//!
//! Works on an open store with an empty journal, so that the metadata database is the whole truth. Loads nothing but
//! one bit and, where blocks are shared, one number a block.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, PgId};

use super::alloc::Allocator;
use super::direct::AlignedBuf;
use super::keys;
use super::kv::KvOp;
use super::leaf::{Extent, LEAF, Leaf};
use super::meta::{Coll, Header, REFS, Refs, decode_log};
use super::superblock::RESERVED;
use super::{DiskStore, Engine};
use crate::api::BLOCK;
use crate::error::{StoreError, name};

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Data that fails its checksum, or cannot be read.
    Data { pg: PgId, oid: ObjectId, offset: u64 },
    /// Metadata of an object that contradicts itself.
    Object { pg: PgId, oid: ObjectId, what: String },
    /// Blocks in use that nothing names.
    Leaked { block: u64, blocks: u64 },
    /// Blocks that are named but count as free.
    Unallocated { block: u64, blocks: u64 },
    /// A block whose count of references is wrong.
    References { block: u64, named: u32, counted: u32 },
    /// Omap entries, leaves or log entries of nothing.
    Orphan { what: String },
    /// Metadata that cannot be read.
    Metadata { what: String },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Data { pg, oid, offset } => {
                write!(f, "object {} in pg {pg}: data at byte {offset} fails its checksum", name(oid))
            }
            Problem::Object { pg, oid, what } => write!(f, "object {} in pg {pg}: {what}", name(oid)),
            Problem::Leaked { block, blocks } => write!(f, "{blocks} blocks from {block} on are in use by nothing"),
            Problem::Unallocated { block, blocks } => {
                write!(f, "{blocks} blocks from {block} on hold data but count as free")
            }
            Problem::References { block, named, counted } => {
                write!(f, "block {block} is named {named} times but counted {counted} times")
            }
            Problem::Orphan { what } => write!(f, "{what}"),
            Problem::Metadata { what } => write!(f, "metadata: {what}"),
        }
    }
}

impl Problem {
    /// Whether repair can put it right out of what the store holds.
    #[must_use]
    pub fn repairable(&self) -> bool {
        matches!(
            self,
            Problem::Leaked { .. } | Problem::Unallocated { .. } | Problem::References { .. } | Problem::Orphan { .. }
        )
    }
}

/// What a check saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Collections.
    pub collections: u64,
    /// Objects.
    pub objects: u64,
    /// Blocks of data read and verified.
    pub blocks: u64,
    /// All problems found, the first thousand.
    pub problems: Vec<Problem>,
}

const MOST: usize = 1000;

#[derive(Default)]
struct Walk {
    report: Report,
    named: Named,
    omaps: BTreeSet<u64>,
    /// What repair does.
    fixes: Vec<KvOp>,
}

/// How often each block is named: one bit for each, and a number where that does not do.
#[derive(Default)]
struct Named {
    once: Vec<u64>,
    more: HashMap<u64, u32>,
}

impl Named {
    fn add(&mut self, block: u64) {
        let (word, mask) = ((block / 64) as usize, 1 << (block % 64));
        if word >= self.once.len() {
            self.once.resize(word + 1, 0);
        }
        if self.once[word] & mask != 0 {
            *self.more.entry(block).or_default() += 1;
        }
        self.once[word] |= mask;
    }

    fn times(&self, block: u64) -> u32 {
        let word = self.once.get((block / 64) as usize).copied().unwrap_or(0);
        match word >> (block % 64) & 1 {
            0 => 0,
            _ => 1 + self.more.get(&block).copied().unwrap_or(0),
        }
    }
}

/// The database's keys as they come: each above the one before it, all of tables we know. Listings and splits stand on
/// that order.
#[derive(Default)]
struct Order {
    last: Vec<u8>,
    problems: Vec<String>,
}

impl Order {
    fn see(&mut self, key: &[u8]) {
        if self.problems.len() >= MOST {
            return;
        }
        if !self.last.is_empty() && *key <= self.last[..] {
            let (key, last) = (key.escape_ascii(), self.last.escape_ascii());
            self.problems.push(format!("key {key} stands behind {last}"));
        }
        if !key.first().is_some_and(|table| keys::TABLES.contains(table)) {
            self.problems.push(format!("key {} is of no table", key.escape_ascii()));
        }
        self.last.clear();
        self.last.extend_from_slice(key);
    }
}

impl Walk {
    fn problem(&mut self, problem: Problem) {
        if self.report.problems.len() < MOST {
            self.report.problems.push(problem);
        }
    }
}

impl DiskStore {
    /// Verifies everything; `data` reads and checks all object data too.
    pub fn check(&self, data: bool) -> Result<Report, StoreError> {
        self.checkpoint()?;
        Ok(self.engine().walk(data)?.report)
    }

    /// Verifies metadata and puts right what can be proved: the allocator's bitmap, counts of references, leftovers. The
    /// store must be opened again afterwards. Returns what it found.
    pub fn repair(self) -> Result<Report, StoreError> {
        self.checkpoint()?;
        let walk = self.engine().walk(false)?;
        self.engine().kv.commit(&mut walk.fixes.into_iter())?;
        Ok(walk.report)
    }
}

impl Engine {
    /// Every key and value of one table, copied.
    fn table(&self, table: u8, each: &mut dyn FnMut(Bytes, Bytes)) -> Result<(), StoreError> {
        self.kv.scan(&[table], &[table + 1], &mut |key, value| {
            each(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            true
        })
    }

    fn walk(&self, data: bool) -> Result<Walk, StoreError> {
        let mut walk = Walk::default();
        let mut order = Order::default();
        if let Err(error) = self.kv.verify(&mut |key| order.see(key)) {
            walk.problem(Problem::Metadata { what: error.to_string() });
        }
        order.problems.into_iter().for_each(|what| walk.problem(Problem::Metadata { what }));
        let mut colls: BTreeMap<u64, Coll> = BTreeMap::new();
        self.table(b'C', &mut |key, value| match Coll::decode(value) {
            Ok(coll) => drop(colls.insert(coll.id, coll)),
            Err(_) => walk.problem(Problem::Metadata { what: format!("collection record {}", key.escape_ascii()) }),
        })?;
        walk.report.collections = colls.values().filter(|coll| !coll.dead).count() as u64;
        walk.omaps.extend(colls.values().filter(|coll| !coll.dead).map(|coll| coll.meta));
        self.walk_objects(&colls, data, &mut walk)?;
        self.walk_space(&mut walk)?;
        let mut orphans: BTreeMap<(u8, u64), u64> = BTreeMap::new();
        self.table(b'M', &mut |key, _| {
            if let Ok(id) = keys::number(&key)
                && !walk.omaps.contains(&id)
            {
                *orphans.entry((b'M', id)).or_default() += 1;
            }
        })?;
        self.table(b'G', &mut |key, value| {
            let id = keys::number(&key).unwrap_or(0);
            if colls.get(&id).is_none_or(|coll| coll.dead) {
                *orphans.entry((b'G', id)).or_default() += 1;
            } else if decode_log(value).is_err() {
                walk.problem(Problem::Metadata { what: format!("a log chunk of collection {id}") });
            }
        })?;
        for ((table, id), count) in orphans {
            let what = if table == b'M' { "omap entries" } else { "log chunks" };
            walk.problem(Problem::Orphan { what: format!("{count} {what} under number {id} belong to nothing") });
            walk.fixes.push(KvOp::DeleteRange(keys::first(table, id), keys::past(table, id)));
        }
        Ok(walk)
    }

    fn walk_objects(&self, colls: &BTreeMap<u64, Coll>, data: bool, walk: &mut Walk) -> Result<(), StoreError> {
        let owner = |key: &[u8]| -> Option<(PgId, ObjectId)> {
            let (space, oid) = keys::parse_object(key, nacre_proto::ids::PoolId(0)).ok()?;
            let coll = colls.values().find(|coll| coll.space == space && coll.ranges.contains(oid.sort_hash()))?;
            Some((coll.pg, ObjectId { pool: coll.pg.pool, ..oid }))
        };
        let mut headers: Vec<(Bytes, Bytes)> = Vec::new();
        let mut from = Bytes::from_static(b"O");
        loop {
            // A page at a time: reading data in the middle of a scan would pin the database's files.
            headers.clear();
            self.kv.scan(&from, b"P", &mut |key, value| {
                headers.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                headers.len() < 1024
            })?;
            let Some((last, _)) = headers.last() else { break };
            from = [last.as_ref(), &[0]].concat().into();
            for (key, value) in &headers {
                let Some((pg, oid)) = owner(key) else {
                    let what = format!("object key {} belongs to no collection", key.escape_ascii());
                    walk.problem(Problem::Metadata { what });
                    continue;
                };
                walk.report.objects += 1;
                self.walk_object(key, value, pg, &oid, data, walk)?;
            }
        }
        let mut lost = Vec::new();
        let mut last: Option<(Bytes, Option<Header>)> = None;
        let mut failed = None;
        self.table(b'L', &mut |key, _| {
            let Ok((object, index)) = keys::parse_leaf(&key) else { return lost.push(key) };
            if last.as_ref().is_none_or(|(known, _)| *known != object) {
                match self.kv.get(&object) {
                    Ok(value) => last = Some((object, value.and_then(|value| Header::decode(value).ok()))),
                    Err(error) => failed = Some(error),
                }
            }
            if last.as_ref().is_none_or(|(_, header)| header.as_ref().is_none_or(|header| !header.has_leaf(index))) {
                lost.push(key);
            }
        })?;
        failed.map_or(Ok(()), Err)?;
        for key in lost {
            walk.problem(Problem::Orphan { what: format!("leaf {} belongs to nothing", key.escape_ascii()) });
            walk.fixes.push(KvOp::Delete(key));
        }
        Ok(())
    }

    fn walk_object(
        &self,
        key: &Bytes,
        value: &Bytes,
        pg: PgId,
        oid: &ObjectId,
        data: bool,
        walk: &mut Walk,
    ) -> Result<(), StoreError> {
        let wrong = |what: String| Problem::Object { pg, oid: oid.clone(), what };
        let Ok(header) = Header::decode(value.clone()) else {
            walk.problem(wrong("its header is malformed".into()));
            return Ok(());
        };
        if keys::object(keys::number(key).unwrap_or(0), oid) != *key {
            walk.problem(wrong("its key is not the one its name gives".into()));
        }
        if header.omap != 0 && !walk.omaps.insert(header.omap) {
            walk.problem(wrong(format!("its omap {} belongs to another object too", header.omap)));
        }
        for index in header.leaf_indexes(0, u32::MAX) {
            let leaf = match self.kv.get(&keys::leaf(key, index)) {
                Ok(Some(value)) => Leaf::decode(value),
                Ok(None) => {
                    walk.problem(wrong(format!("its mapping of MiB {index} is missing")));
                    continue;
                }
                Err(error) => {
                    walk.problem(wrong(format!("its mapping of MiB {index}: {error}")));
                    continue;
                }
            };
            let Ok(leaf) = leaf else {
                walk.problem(wrong(format!("its mapping of MiB {index} is malformed")));
                continue;
            };
            let base = u64::from(index) * u64::from(LEAF);
            for extent in &leaf.extents {
                let past = (base + u64::from(extent.end())) * BLOCK;
                if past > header.size.next_multiple_of(BLOCK) {
                    walk.problem(wrong(format!("it maps bytes up to {past} but ends at {}", header.size)));
                }
                if extent.phys < RESERVED || extent.phys.saturating_add(extent.stored()) > self.space {
                    walk.problem(wrong(format!(
                        "it names blocks {}+{} outside the space",
                        extent.phys,
                        extent.stored()
                    )));
                    continue;
                }
                for block in extent.phys..extent.phys + extent.stored() {
                    walk.named.add(block);
                }
                if data {
                    self.walk_data(pg, oid, base, extent, walk);
                }
            }
        }
        Ok(())
    }

    fn walk_data(&self, pg: PgId, oid: &ObjectId, base: u64, extent: &Extent, walk: &mut Walk) {
        let mut buf = AlignedBuf::zeroed(extent.crcs.len() * BLOCK as usize);
        let read = self.blocks.read(extent.phys * BLOCK, &mut buf);
        for (step, (bytes, crc)) in buf.chunks(BLOCK as usize).zip(extent.crcs.iter()).enumerate() {
            walk.report.blocks += 1;
            if read.is_err() || crc32fast::hash(bytes) != *crc {
                let within = if extent.packed.is_some() { 0 } else { step as u64 };
                let offset = (base + u64::from(extent.at) + within) * BLOCK;
                walk.problem(Problem::Data { pg, oid: oid.clone(), offset });
            }
        }
    }

    /// The bitmap and the counts against what objects name.
    fn walk_space(&self, walk: &mut Walk) -> Result<(), StoreError> {
        let blocks = self.space;
        let mut alloc = Allocator::new(blocks, RESERVED);
        super::open::load_bitmaps(&*self.kv, &mut alloc)?;
        let mut counted: HashMap<u64, u32> = HashMap::new();
        let mut bad = Vec::new();
        self.table(b'R', &mut |key, value| match (keys::number(&key), Refs::decode(value)) {
            (Ok(group), Ok(refs)) => {
                counted.extend(refs.iter().map(|(block, extra)| (group * REFS + u64::from(block), extra)));
            }
            _ => bad.push(key),
        })?;
        for key in bad {
            walk.problem(Problem::Metadata { what: format!("references {}", key.escape_ascii()) });
        }
        let named = std::mem::take(&mut walk.named);
        let (mut leaked, mut unallocated) = (Vec::new(), Vec::new());
        let mut groups = BTreeSet::new();
        for block in RESERVED..blocks {
            let times = named.times(block);
            let extra = counted.get(&block).copied().unwrap_or(0);
            match (alloc.is_used(block), times) {
                (true, 0) => leaked.push(block),
                (false, 1..) => unallocated.push(block),
                _ => {}
            }
            if extra != times.saturating_sub(1) {
                walk.problem(Problem::References { block, named: times, counted: extra + 1 });
                groups.insert(block / REFS);
            }
        }
        for group in groups {
            let mut refs = Refs::default();
            for block in group * REFS..(group + 1) * REFS {
                let extra = named.times(block).saturating_sub(1);
                if extra > 0 {
                    refs.set((block % REFS) as u8, extra);
                }
            }
            walk.fixes.push(match refs.is_empty() {
                true => KvOp::Delete(keys::refs(group)),
                false => KvOp::Put(keys::refs(group), refs.encode()),
            });
        }
        if !leaked.is_empty() || !unallocated.is_empty() {
            let mut right = Allocator::new(blocks, RESERVED);
            for block in (RESERVED..blocks).filter(|block| named.times(*block) > 0) {
                right.take_exact((block, 1));
            }
            walk.fixes.push(KvOp::DeleteRange(Bytes::from_static(b"A"), Bytes::from_static(b"B")));
            walk.fixes
                .extend(right.freeze().iter().map(|(chunk, words)| super::checkpoint::bitmap_value(*chunk, words)));
        }
        runs(&leaked).into_iter().for_each(|(block, blocks)| walk.problem(Problem::Leaked { block, blocks }));
        runs(&unallocated).into_iter().for_each(|(block, blocks)| walk.problem(Problem::Unallocated { block, blocks }));
        Ok(())
    }

    /// For tests: the problems of a store that has just made a checkpoint.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn audit(&self) -> Vec<Problem> {
        self.walk(true)
            .map_or_else(|error| vec![Problem::Metadata { what: error.to_string() }], |walk| walk.report.problems)
    }
}

fn runs(blocks: &[u64]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for block in blocks {
        match runs.last_mut() {
            Some(last) if last.0 + last.1 == *block => last.1 += 1,
            _ => runs.push((*block, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_out_of_order_twice_or_of_no_table_are_noticed() {
        let seen = |keys: &[&str]| {
            let mut order = Order::default();
            keys.iter().for_each(|key| order.see(key.as_bytes()));
            order.problems
        };
        assert_eq!(seen(&["A1", "A2", "C", "Sidentity"]), Vec::<String>::new());
        assert_eq!(seen(&["A2", "A1"]), ["key A1 stands behind A2"]);
        assert_eq!(seen(&["A1", "A1"]), ["key A1 stands behind A1"]);
        assert_eq!(seen(&["A1", "B", "C"]), ["key B is of no table"]);
    }
}
