//! Reads: what is mapped is looked up under the lock, the disk is read without it, every block is checked.
//!
//! While the disk is read the mapping may change: a block can be freed, given to another object, laid down anew. Then
//! its checksum does not match and the range is looked up again. What fails twice with the same place and the same
//! checksum is damage.

use std::cell::Cell;

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, PgId, Version};

use super::direct::AlignedBuf;
use super::kv::Kv;
use super::leaf::{Extent, LEAF};
use super::meta::Header;
use super::pack::unpack;
use super::state::State;
use super::{Engine, keys};
use crate::api::{BLOCK, DataExtent, ObjectStat};
use crate::error::StoreError;

const B: usize = BLOCK as usize;

/// Reads up to this many bytes leave what they read in the cache; larger ones would wash it out.
const CACHED: u64 = 64 << 10;

/// Extents of up to this many blocks are read into memory that is used again. Aligned memory for each of them would leave
/// holes between what stays.
const SMALL: u64 = 16;

thread_local! {
    static SCRATCH: Cell<AlignedBuf> = Cell::default();
}

/// Blocks of one object in a row, and where their bytes are.
struct Segment {
    /// First block of the object.
    block: u64,
    len: u64,
    /// The blocks' first in the block space; for a packed segment, of the packed form.
    phys: u64,
    /// Of the stored blocks.
    crcs: Vec<u32>,
    /// Bytes of stored blocks that memory has.
    memory: Vec<Option<Bytes>>,
    /// Packing, bytes of the packed form, blocks it unpacks to, blocks to skip of those.
    packed: Option<super::leaf::Packed>,
}

/// A stored block whose bytes do not match: where in the object, where on disk, and the checksum wanted.
#[derive(Clone, Copy, PartialEq)]
struct Mismatch {
    block: u64,
    phys: u64,
    crc: u32,
}

enum Failure {
    Mismatch(Mismatch),
    Store(StoreError),
}

impl State {
    /// The mapped blocks of `low..high`.
    fn segments(
        &mut self,
        key: &Bytes,
        header: &Header,
        (low, high): (u64, u64),
        kv: &dyn Kv,
    ) -> Result<Vec<Segment>, StoreError> {
        let mut segments: Vec<Segment> = Vec::new();
        let size = u64::from(LEAF);
        for index in header.leaf_indexes((low / size) as u32, high.div_ceil(size) as u32) {
            let Some(leaf) = self.leaf(key, index, kv)? else { continue };
            let base = u64::from(index) * size;
            let (from, to) = (low.saturating_sub(base) as u16, (high - base).min(size) as u16);
            for extent in leaf.overlapping(from, to) {
                let (from, to) = (from.max(extent.at), to.min(extent.end()));
                let segment = self.segment(base, extent, from, to);
                match segments.last_mut() {
                    Some(last)
                        if last.packed.is_none()
                            && segment.packed.is_none()
                            && last.block + last.len == segment.block
                            && last.phys + last.len == segment.phys =>
                    {
                        last.len += segment.len;
                        last.crcs.extend(segment.crcs);
                        last.memory.extend(segment.memory);
                    }
                    _ => segments.push(segment),
                }
            }
        }
        Ok(segments)
    }

    fn segment(&mut self, base: u64, extent: &Extent, from: u16, to: u16) -> Segment {
        let block = base + u64::from(from);
        let len = u64::from(to - from);
        let within = from - extent.at;
        match extent.packed {
            None => {
                let phys = extent.phys + u64::from(within);
                let crcs = extent.crcs.get(usize::from(within)..usize::from(within + (to - from))).unwrap_or_default();
                let memory = (phys..phys + len).map(|phys| self.block(phys)).collect();
                Segment { block, len, phys, crcs: crcs.to_vec(), memory, packed: None }
            }
            Some(packed) => {
                let memory = (extent.phys..extent.phys + extent.stored()).map(|phys| self.block(phys)).collect();
                let packed = super::leaf::Packed { skip: packed.skip + within, ..packed };
                Segment { block, len, phys: extent.phys, crcs: extent.crcs.to_vec(), memory, packed: Some(packed) }
            }
        }
    }
}

impl Engine {
    pub(crate) fn read(&self, pg: PgId, oid: &ObjectId, offset: u64, len: u64) -> Result<Vec<DataExtent>, StoreError> {
        let mut before: Option<Mismatch> = None;
        loop {
            let mut state = self.state();
            let key = state.key(pg, oid)?;
            let Some(header) = state.header(&key, &*self.kv).map_err(|error| of_object(oid, error))? else {
                return Err(StoreError::NoObject { pg, oid: oid.clone() });
            };
            let end = offset.saturating_add(len).min(header.size);
            if offset >= end {
                return Ok(Vec::new());
            }
            let range = (offset / BLOCK, end.div_ceil(BLOCK));
            let segments = state.segments(&key, &header, range, &*self.kv).map_err(|error| of_object(oid, error))?;
            state.shrink();
            drop(state);
            let cache = end - offset <= CACHED;
            match self.fetch(&segments, offset, end, cache) {
                Ok(extents) => return Ok(extents),
                Err(Failure::Store(error)) => return Err(error),
                Err(Failure::Mismatch(mismatch)) if before == Some(mismatch) => {
                    return Err(StoreError::Corrupt { pg, oid: oid.clone(), offset: mismatch.block * BLOCK });
                }
                Err(Failure::Mismatch(mismatch)) => {
                    // A stale cache entry looks like this too; the next round must come from the disk.
                    self.state().blocks.remove(&mismatch.phys);
                    before = Some(mismatch);
                }
            }
        }
    }

    fn fetch(&self, segments: &[Segment], offset: u64, end: u64, cache: bool) -> Result<Vec<DataExtent>, Failure> {
        // One block out of memory is the common case and needs no buffer.
        if let [segment] = segments
            && let ([Some(bytes)], [crc], None) = (&segment.memory[..], &segment.crcs[..], segment.packed)
        {
            check(bytes, *crc, segment.block, segment.phys)?;
            return Ok(vec![cut(bytes.clone(), segment.block * BLOCK, offset, end, Some(*crc))]);
        }
        let mut extents = Vec::new();
        let mut at = 0;
        while at < segments.len() {
            // Segments that follow one another in the object make one extent.
            let mut past = at + 1;
            while past < segments.len() && segments[past - 1].block + segments[past - 1].len == segments[past].block {
                past += 1;
            }
            let row = &segments[at..past];
            let blocks: u64 = row.iter().map(|segment| segment.len).sum();
            let (small, len) = (blocks <= SMALL, blocks as usize * B);
            let (mut scratch, mut lent) = (AlignedBuf::default(), None);
            let mut rest = if small {
                scratch = SCRATCH.take();
                scratch.resize(len);
                &mut scratch[..]
            } else {
                &mut lent.insert(self.pool.lend(len))[..]
            };
            for segment in row {
                let (part, tail) = rest.split_at_mut(segment.len as usize * B);
                match segment.packed {
                    None => self.fill(segment, part, cache)?,
                    Some(packed) => {
                        let mut stored = AlignedBuf::zeroed(segment.crcs.len() * B);
                        self.fill(segment, &mut stored, cache)?;
                        let malformed = || Mismatch { block: segment.block, phys: segment.phys, crc: 0 };
                        let bytes = stored.get(..packed.bytes as usize).ok_or(Failure::Mismatch(malformed()))?;
                        let raw =
                            unpack(packed.packing, bytes, packed.raw).map_err(|_| Failure::Mismatch(malformed()))?;
                        let from = usize::from(packed.skip) * B;
                        let raw = raw.get(from..from + part.len()).ok_or(Failure::Mismatch(malformed()))?;
                        part.copy_from_slice(raw);
                    }
                }
                rest = tail;
            }
            let crc = match row {
                [one] if one.len == 1 && one.packed.is_none() => one.crcs.first().copied(),
                _ => None,
            };
            let bytes = match lent {
                Some(lent) => Bytes::from_owner(lent),
                None => {
                    let bytes = Bytes::copy_from_slice(&scratch);
                    SCRATCH.set(scratch);
                    bytes
                }
            };
            extents.push(cut(bytes, row[0].block * BLOCK, offset, end, crc));
            at = past;
        }
        Ok(extents)
    }

    /// Fills a buffer with a segment's stored blocks, from memory where it has them, and checks each.
    fn fill(&self, segment: &Segment, buf: &mut [u8], cache: bool) -> Result<(), Failure> {
        let mut at = 0;
        while at < segment.memory.len() {
            if let Some(bytes) = &segment.memory[at] {
                buf[at * B..(at + 1) * B].copy_from_slice(bytes);
                at += 1;
                continue;
            }
            let past = segment.memory[at..].iter().position(Option::is_some).map_or(segment.memory.len(), |n| at + n);
            self.blocks
                .read((segment.phys + at as u64) * BLOCK, &mut buf[at * B..past * B])
                .map_err(|error| Failure::Store(StoreError::io("cannot read object data", error)))?;
            at = past;
        }
        for (step, crc) in segment.crcs.iter().enumerate() {
            let block = if segment.packed.is_some() { segment.block } else { segment.block + step as u64 };
            check(&buf[step * B..(step + 1) * B], *crc, block, segment.phys + step as u64)?;
        }
        if cache && segment.memory.iter().any(Option::is_none) {
            let mut state = self.state();
            for (step, memory) in segment.memory.iter().enumerate() {
                if memory.is_none() {
                    let bytes = Bytes::copy_from_slice(&buf[step * B..(step + 1) * B]);
                    state.cache_block(segment.phys + step as u64, bytes);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn stat(&self, pg: PgId, oid: &ObjectId) -> Result<Option<ObjectStat>, StoreError> {
        let mut state = self.state();
        let key = state.key(pg, oid)?;
        let header = state.header(&key, &*self.kv).map_err(|error| of_object(oid, error))?;
        Ok(header.map(|header| ObjectStat { size: header.size }))
    }

    pub(crate) fn header(&self, pg: PgId, oid: &ObjectId) -> Result<std::sync::Arc<Header>, StoreError> {
        let mut state = self.state();
        let key = state.key(pg, oid)?;
        let header = state.header(&key, &*self.kv).map_err(|error| of_object(oid, error))?;
        header.ok_or_else(|| StoreError::NoObject { pg, oid: oid.clone() })
    }

    pub(crate) fn sparse_map(
        &self,
        pg: PgId,
        oid: &ObjectId,
        offset: u64,
        len: u64,
    ) -> Result<Vec<(u64, u64)>, StoreError> {
        let header = self.header(pg, oid)?;
        let end = offset.saturating_add(len).min(header.size);
        let mut map: Vec<(u64, u64)> = Vec::new();
        if offset >= end {
            return Ok(map);
        }
        let mut state = self.state();
        let key = state.key(pg, oid)?;
        let size = u64::from(LEAF) * BLOCK;
        for index in header.leaf_indexes((offset / size) as u32, end.div_ceil(size) as u32) {
            let Some(leaf) = state.leaf(&key, index, &*self.kv).map_err(|error| of_object(oid, error))? else {
                continue;
            };
            let base = u64::from(index) * size;
            for extent in &leaf.extents {
                let low = (base + u64::from(extent.at) * BLOCK).max(offset);
                let high = (base + u64::from(extent.end()) * BLOCK).min(end);
                match map.last_mut() {
                    _ if low >= high => {}
                    Some(last) if last.0 + last.1 == low => last.1 += high - low,
                    _ => map.push((low, high - low)),
                }
            }
        }
        Ok(map)
    }

    pub(crate) fn omap_get(&self, pg: PgId, oid: &ObjectId, keys: &[Bytes]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let header = self.header(pg, oid)?;
        let state = self.state();
        let mut found = Vec::new();
        for key in keys.iter().filter(|_| header.omap != 0) {
            if let Some(value) = state.omap_get(header.omap, key, &*self.kv).map_err(|error| of_object(oid, error))? {
                found.push((key.clone(), value));
            }
        }
        Ok(found)
    }

    pub(crate) fn omap_list(
        &self,
        pg: PgId,
        oid: &ObjectId,
        from: &[u8],
        max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let header = self.header(pg, oid)?;
        if header.omap == 0 {
            return Ok(Vec::new());
        }
        self.pairs(header.omap, from, max).map_err(|error| of_object(oid, error))
    }

    fn pairs(&self, id: u64, from: &[u8], max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut pairs = Vec::new();
        if max == 0 {
            return Ok(pairs);
        }
        self.state().omap_scan(id, (from, None), &Default::default(), &*self.kv, &mut |key, value| {
            pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            pairs.len() < max
        })?;
        Ok(pairs)
    }

    pub(crate) fn list(&self, pg: PgId, after: Option<&ObjectId>, max: usize) -> Result<Vec<ObjectId>, StoreError> {
        let state = self.state();
        let coll = state.coll(pg)?.clone();
        let after = after.map(|oid| keys::object(coll.space, oid));
        let mut found = Vec::new();
        let mut bad = None;
        if max > 0 {
            state.objects(&coll, after.as_ref(), &*self.kv, &mut |key| {
                match keys::parse_object(key, pg.pool) {
                    Ok((_, oid)) => found.push(oid),
                    Err(malformed) => bad = Some(malformed.of(format!("object key {} in pg {pg}", key.escape_ascii()))),
                }
                bad.is_none() && found.len() < max
            })?;
        }
        bad.map_or(Ok(found), Err)
    }

    pub(crate) fn log(&self, pg: PgId, after: Version, max: usize) -> Result<Vec<(Version, Bytes)>, StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let state = self.state();
        let log = state.log(state.coll(pg)?.id, &*self.kv)?;
        Ok(log
            .range((Excluded(after), Unbounded))
            .take(max)
            .map(|(version, entry)| (*version, entry.clone()))
            .collect())
    }

    pub(crate) fn meta(&self, pg: PgId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let state = self.state();
        state.omap_get(state.coll(pg)?.meta, key, &*self.kv)
    }

    pub(crate) fn meta_list(&self, pg: PgId) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let id = self.state().coll(pg)?.meta;
        self.pairs(id, &[], usize::MAX)
    }
}

fn check(bytes: &[u8], crc: u32, block: u64, phys: u64) -> Result<(), Failure> {
    if crc32fast::hash(bytes) == crc { Ok(()) } else { Err(Failure::Mismatch(Mismatch { block, phys, crc })) }
}

/// The part of an extent's bytes, which begin at `base`, that lies in `offset..end`.
fn cut(bytes: Bytes, base: u64, offset: u64, end: u64, crc: Option<u32>) -> DataExtent {
    let low = offset.max(base);
    let high = end.min(base + bytes.len() as u64);
    let data = bytes.slice((low - base) as usize..(high - base) as usize);
    // Cutting invalidates the stored checksum; whole blocks keep it.
    let crc = crc.filter(|_| data.len() == bytes.len());
    DataExtent { offset: low, data, crc }
}

fn of_object(oid: &ObjectId, error: StoreError) -> StoreError {
    let name = crate::error::name(oid);
    match error {
        StoreError::CorruptMetadata { what } => StoreError::CorruptMetadata { what: format!("object {name}: {what}") },
        StoreError::Kv { what } => StoreError::Kv { what: format!("object {name}: {what}") },
        other => other,
    }
}
