//! Values of the metadata database: object headers, collections, extra references. Encoding only.

use std::collections::BTreeMap;

use bytes::Bytes;
use nacre_proto::ids::{Epoch, PgId, PoolId, Version};

use super::codec::{Malformed, Put, Take};
use super::leaf::{LEAF, Leaf};
use crate::api::{BLOCK, MAX_OBJECT};
use crate::ranges::HashRanges;

/// Leaves of the largest object there may be.
const MAX_LEAVES: u32 = (MAX_OBJECT / BLOCK / LEAF as u64) as u32;

/// What an object is apart from its bytes and omap entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub size: u64,
    /// Number of its omap; 0 as long as it has none.
    pub omap: u64,
    pub omap_header: Bytes,
    pub xattrs: BTreeMap<Bytes, Bytes>,
    /// Which leaves exist: sorted, disjoint `(first, past)`.
    pub leaves: Vec<(u32, u32)>,
}

impl Header {
    pub(crate) fn has_leaf(&self, index: u32) -> bool {
        self.leaves.iter().any(|(low, high)| (*low..*high).contains(&index))
    }

    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn leaf_count(&self) -> u64 {
        self.leaves.iter().map(|(low, high)| u64::from(high - low)).sum()
    }

    pub(crate) fn leaf_indexes(&self, low: u32, high: u32) -> Vec<u32> {
        self.leaves.iter().flat_map(|(from, to)| (*from).max(low)..(*to).min(high)).collect()
    }

    pub(crate) fn set_leaf(&mut self, index: u32, present: bool) {
        if self.has_leaf(index) == present {
            return;
        }
        if present {
            let at = self.leaves.partition_point(|(low, _)| *low < index);
            self.leaves.insert(at, (index, index + 1));
            let mut joined: Vec<(u32, u32)> = Vec::with_capacity(self.leaves.len());
            for range in self.leaves.drain(..) {
                match joined.last_mut() {
                    Some(last) if last.1 == range.0 => last.1 = range.1,
                    _ => joined.push(range),
                }
            }
            self.leaves = joined;
        } else if let Some(at) = self.leaves.iter().position(|(low, high)| (*low..*high).contains(&index)) {
            let (low, high) = self.leaves.remove(at);
            let parts = [(low, index), (index + 1, high)];
            let parts: Vec<_> = parts.into_iter().filter(|(low, high)| low < high).collect();
            self.leaves.splice(at..at, parts);
        }
    }

    pub(crate) fn weight(&self) -> usize {
        let xattrs: usize = self.xattrs.iter().map(|(name, value)| name.len() + value.len() + 96).sum();
        128 + xattrs + self.omap_header.len() + 8 * self.leaves.len()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.u8(1);
        out.var(self.size);
        out.var(self.omap);
        out.blob(&self.omap_header);
        out.var(self.xattrs.len() as u64);
        for (name, value) in &self.xattrs {
            out.blob(name);
            out.blob(value);
        }
        out.var(self.leaves.len() as u64);
        for (low, high) in &self.leaves {
            out.var((*low).into());
            out.var((*high).into());
        }
        out
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Header, Malformed> {
        let mut take = Take::new(bytes);
        if take.u8()? != 1 {
            return Err(Malformed);
        }
        let (size, omap) = (take.var()?, take.var()?);
        let omap_header = own(&take.blob()?);
        let count = take.count(2)?;
        let mut xattrs = BTreeMap::new();
        for _ in 0..count {
            xattrs.insert(own(&take.blob()?), own(&take.blob()?));
        }
        let count = take.count(2)?;
        let mut leaves: Vec<(u32, u32)> = Vec::with_capacity(count);
        for _ in 0..count {
            let (low, high) = (take.var32()?, take.var32()?);
            if low >= high || high > MAX_LEAVES || leaves.last().is_some_and(|last| last.1 >= low) {
                return Err(Malformed);
            }
            leaves.push((low, high));
        }
        take.end()?;
        Ok(Header { size, omap, omap_header, xattrs, leaves })
    }
}

/// A copy that does not keep the buffer alive which it was cut from.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// A collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Coll {
    pub id: u64,
    pub pg: PgId,
    /// Where its objects' keys are; shared with those it was split from or off.
    pub space: u64,
    /// The number under which its own values are kept among the omaps.
    pub meta: u64,
    pub ranges: HashRanges,
    /// Removed; its objects are being freed in the background.
    pub dead: bool,
}

impl Coll {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.u8(1);
        out.u8(u8::from(self.dead));
        out.var(self.id);
        out.var(self.pg.pool.0);
        out.var(self.pg.seed.into());
        out.var(self.space);
        out.var(self.meta);
        out.var(self.ranges.0.len() as u64);
        for (low, high) in &self.ranges.0 {
            out.u32(*low);
            out.u32(*high);
        }
        out
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Coll, Malformed> {
        let mut take = Take::new(bytes);
        if take.u8()? != 1 {
            return Err(Malformed);
        }
        let dead = take.u8()? != 0;
        let id = take.var()?;
        let pg = PgId { pool: PoolId(take.var()?), seed: take.var32()? };
        let (space, meta) = (take.var()?, take.var()?);
        let count = take.count(8)?;
        let ranges = (0..count).map(|_| Ok((take.u32()?, take.u32()?))).collect::<Result<_, Malformed>>()?;
        take.end()?;
        Ok(Coll { id, pg, space, meta, ranges: HashRanges(ranges), dead })
    }
}

/// References beyond the first on the 256 blocks of one group. A plain row: a clone shares whole groups, and each write to
/// one of their blocks changes one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refs(Box<[u32; REFS as usize]>);

impl Default for Refs {
    fn default() -> Self {
        Refs(Box::new([0; REFS as usize]))
    }
}

impl Refs {
    pub(crate) fn get(&self, block: u8) -> u32 {
        self.0.get(usize::from(block)).copied().unwrap_or(0)
    }

    pub(crate) fn set(&mut self, block: u8, extra: u32) {
        if let Some(count) = self.0.get_mut(usize::from(block)) {
            *count = extra;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|count| *count == 0)
    }

    /// Blocks with more than one reference, and how many more.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u8, u32)> {
        (0..=u8::MAX).zip(self.0.iter().copied()).filter(|(_, count)| *count > 0)
    }
}

pub(crate) const REFS: u64 = 256;

impl Refs {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.u8(1);
        // Runs of equal counts: a clone shares many blocks the same number of times.
        let mut runs: Vec<(u8, u16, u32)> = Vec::new();
        for (block, extra) in self.iter() {
            match runs.last_mut() {
                Some(last) if u16::from(last.0) + last.1 == u16::from(block) && last.2 == extra => last.1 += 1,
                _ => runs.push((block, 1, extra)),
            }
        }
        out.var(runs.len() as u64);
        for (block, len, extra) in runs {
            out.u8(block);
            out.var(len.into());
            out.var(extra.into());
        }
        out
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Refs, Malformed> {
        let mut take = Take::new(bytes);
        if take.u8()? != 1 {
            return Err(Malformed);
        }
        let mut refs = Refs::default();
        for _ in 0..take.count(3)? {
            let (block, len, count) = (take.u8()?, take.var16()?, take.var32()?);
            if len == 0 || len > 256 - u16::from(block) || count == 0 {
                return Err(Malformed);
            }
            for step in 0..len {
                refs.set((u16::from(block) + step) as u8, count);
            }
        }
        take.end()?;
        Ok(refs)
    }
}

/// Entries of a collection's log that became durable with one checkpoint.
pub(crate) fn encode_log(entries: &BTreeMap<Version, Bytes>) -> Vec<u8> {
    let mut out = Vec::new();
    out.u8(1);
    out.var(entries.len() as u64);
    for (version, entry) in entries {
        out.var(version.epoch.0);
        out.var(version.counter);
        out.blob(entry);
    }
    out
}

pub(crate) fn decode_log(bytes: Bytes) -> Result<BTreeMap<Version, Bytes>, Malformed> {
    let mut take = Take::new(bytes);
    if take.u8()? != 1 {
        return Err(Malformed);
    }
    let count = take.count(3)?;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let version = take_version(&mut take)?;
        entries.insert(version, take.blob()?);
    }
    take.end()?;
    Ok(entries)
}

pub(crate) fn take_version(take: &mut Take) -> Result<Version, Malformed> {
    Ok(Version { epoch: Epoch(take.var()?), counter: take.var()? })
}

/// Up to where the metadata database holds everything, and where the journal goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The last transaction in it.
    pub seq: u64,
    /// The first group of the journal that may hold a later one, and where it is or will be.
    pub group: u64,
    pub at: u64,
    /// The next number for a collection, space or omap.
    pub next_id: u64,
}

impl Applied {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.u8(1);
        [self.seq, self.group, self.at, self.next_id].into_iter().for_each(|number| out.u64(number));
        out
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Applied, Malformed> {
        let mut take = Take::new(bytes);
        if take.u8()? != 1 {
            return Err(Malformed);
        }
        let applied = Applied { seq: take.u64()?, group: take.u64()?, at: take.u64()?, next_id: take.u64()? };
        take.end()?;
        Ok(applied)
    }
}

/// A cached or changed value of the tables that are read by whole values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Header(std::sync::Arc<Header>),
    Leaf(std::sync::Arc<Leaf>),
    Refs(std::sync::Arc<Refs>),
    Coll(std::sync::Arc<Coll>),
}

impl Cell {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Cell::Header(header) => header.encode(),
            Cell::Leaf(leaf) => leaf.encode(),
            Cell::Refs(refs) => refs.encode(),
            Cell::Coll(coll) => coll.encode(),
        }
    }

    /// By the table in the key's first byte.
    pub(crate) fn decode(key: &[u8], bytes: Bytes) -> Result<Cell, Malformed> {
        Ok(match key.first() {
            Some(b'O') => Cell::Header(Header::decode(bytes)?.into()),
            Some(b'L') => Cell::Leaf(Leaf::decode(bytes)?.into()),
            Some(b'R') => Cell::Refs(Refs::decode(bytes)?.into()),
            Some(b'C') => Cell::Coll(Coll::decode(bytes)?.into()),
            _ => return Err(Malformed),
        })
    }

    /// Bytes of memory, near enough for the bound.
    pub(crate) fn weight(&self) -> usize {
        64 + match self {
            Cell::Header(header) => header.weight(),
            Cell::Leaf(leaf) => leaf.weight(),
            Cell::Refs(_) => 64 + 4 * REFS as usize,
            Cell::Coll(coll) => 128 + 8 * coll.ranges.0.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn leaves_of_a_header_are_a_set(steps in proptest::collection::vec((0..12u32, any::<bool>()), 0..40)) {
            let mut header = Header::default();
            let mut model = std::collections::BTreeSet::new();
            for (index, present) in steps {
                header.set_leaf(index, present);
                if present { model.insert(index); } else { model.remove(&index); }
                prop_assert_eq!(header.leaf_indexes(0, u32::MAX), model.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(Header::decode(header.encode().into()), Ok(header.clone()));
            }
        }

        #[test]
        fn references_survive(extra in proptest::collection::btree_map(any::<u8>(), 1..4u32, 0..256)) {
            let mut refs = Refs::default();
            extra.iter().for_each(|(block, count)| refs.set(*block, *count));
            prop_assert_eq!(refs.iter().collect::<BTreeMap<_, _>>(), extra);
            prop_assert_eq!(Refs::decode(refs.encode().into()), Ok(refs));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(table in prop::sample::select(b"OLRCX".to_vec()), mut bytes in proptest::collection::vec(any::<u8>(), 1..100)) {
            bytes[0] = 1;
            let _ = Cell::decode(&[table], bytes.clone().into());
            let _ = Applied::decode(bytes.clone().into());
            let _ = decode_log(bytes.into());
        }
    }
}
