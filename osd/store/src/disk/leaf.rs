//! How 1 MiB of an object maps to blocks of the store: extents with a checksum for each block. No I/O.
//!
//! Invariants
//! 1. Extents are sorted by `at`, disjoint, within `0..LEAF`.
//! 2. A raw extent has one block and one checksum for each block it maps; a packed one has a checksum for each stored
//!    block and maps `len` blocks of the `raw` it unpacks to, from `skip` on.
//! 3. An extent holds one reference on each block it names. `shared` is set if another may hold one too; the count is
//!    in the table of references. A packed extent cut in two makes two references.

use std::ops::{Deref, DerefMut};

use bytes::Bytes;

use super::codec::{Malformed, Put, Take};
use super::superblock::RESERVED;
use crate::api::BLOCK;

/// Blocks in a leaf.
pub(crate) const LEAF: u16 = 256;

/// How a packed extent was packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Lz4 = 1,
    Zstd = 2,
}

/// A packed extent's further words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    pub packing: Packing,
    /// Bytes of the packed form; the rest of the last block is zeros.
    pub bytes: u32,
    /// Blocks it unpacks to.
    pub raw: u16,
    /// Blocks of those before the first that the extent maps.
    pub skip: u16,
}

/// Checksums of an extent's stored blocks. A scattered leaf has hundreds of extents of one block, and is copied with every
/// change: theirs need no memory of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Crcs {
    One(u32),
    Many(Box<[u32]>),
}

impl From<Vec<u32>> for Crcs {
    fn from(crcs: Vec<u32>) -> Crcs {
        match crcs[..] {
            [one] => Crcs::One(one),
            _ => Crcs::Many(crcs.into()),
        }
    }
}

impl From<&[u32]> for Crcs {
    fn from(crcs: &[u32]) -> Crcs {
        match crcs {
            [one] => Crcs::One(*one),
            _ => Crcs::Many(crcs.into()),
        }
    }
}

impl Deref for Crcs {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match self {
            Crcs::One(crc) => std::slice::from_ref(crc),
            Crcs::Many(crcs) => crcs,
        }
    }
}

impl DerefMut for Crcs {
    fn deref_mut(&mut self) -> &mut [u32] {
        match self {
            Crcs::One(crc) => std::slice::from_mut(crc),
            Crcs::Many(crcs) => crcs,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// First block within the leaf.
    pub at: u16,
    /// Blocks mapped.
    pub len: u16,
    /// First block in the block space.
    pub phys: u64,
    pub shared: bool,
    pub packed: Option<Packed>,
    /// One for each stored block.
    pub crcs: Crcs,
}

impl Extent {
    pub(crate) fn end(&self) -> u16 {
        self.at + self.len
    }

    /// Blocks it holds in the block space.
    pub(crate) fn stored(&self) -> u64 {
        self.crcs.len() as u64
    }

    /// The part that maps `low..high`, which lies within.
    fn part(&self, low: u16, high: u16) -> Extent {
        let (from, to) = (low - self.at, high - self.at);
        match self.packed {
            None => Extent {
                at: low,
                len: high - low,
                phys: self.phys + u64::from(from),
                shared: self.shared,
                packed: None,
                crcs: self.crcs[usize::from(from)..usize::from(to)].into(),
            },
            Some(packed) => Extent {
                at: low,
                len: high - low,
                packed: Some(Packed { skip: packed.skip + from, ..packed }),
                ..self.clone()
            },
        }
    }
}

/// What a cut did to the references.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Extents (or parts) that hold their blocks no more.
    pub dropped: Vec<Extent>,
    /// Packed extents that became two: one more reference on each of these runs.
    pub doubled: Vec<(u64, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub extents: Vec<Extent>,
}

impl Leaf {
    /// The extent that maps a block.
    pub(crate) fn find(&self, block: u16) -> Option<&Extent> {
        let index = self.extents.partition_point(|extent| extent.end() <= block);
        self.extents.get(index).filter(|extent| extent.at <= block)
    }

    pub(crate) fn find_mut(&mut self, block: u16) -> Option<&mut Extent> {
        let index = self.extents.partition_point(|extent| extent.end() <= block);
        self.extents.get_mut(index).filter(|extent| extent.at <= block)
    }

    /// The extents that map any of `low..high`.
    pub(crate) fn overlapping(&self, low: u16, high: u16) -> &[Extent] {
        let from = self.extents.partition_point(|extent| extent.end() <= low);
        let to = self.extents.partition_point(|extent| extent.at < high);
        self.extents.get(from..to.max(from)).unwrap_or_default()
    }

    /// Makes `low..high` a hole.
    pub(crate) fn cut(&mut self, low: u16, high: u16) -> Cut {
        let mut cut = Cut::default();
        let from = self.extents.partition_point(|extent| extent.end() <= low);
        let to = self.extents.partition_point(|extent| extent.at < high).max(from);
        if from == to || low >= high {
            return cut;
        }
        let mut kept = Vec::new();
        for extent in &self.extents[from..to] {
            let before = (extent.at < low).then(|| extent.part(extent.at, low));
            let after = (extent.end() > high).then(|| extent.part(high, extent.end()));
            match (extent.packed, before, after) {
                (None, before, after) => {
                    cut.dropped.push(extent.part(extent.at.max(low), extent.end().min(high)));
                    kept.extend(before);
                    kept.extend(after);
                }
                (Some(_), None, None) => cut.dropped.push(extent.clone()),
                (Some(_), Some(mut before), Some(mut after)) => {
                    cut.doubled.push((extent.phys, extent.stored()));
                    before.shared = true;
                    after.shared = true;
                    kept.extend([before, after]);
                }
                (Some(_), one, other) => kept.extend(one.or(other)),
            }
        }
        self.extents.splice(from..to, kept);
        cut
    }

    /// Maps what is a hole; joins what continues its neighbour.
    pub(crate) fn insert(&mut self, extent: Extent) {
        let index = self.extents.partition_point(|other| other.at < extent.at);
        let joins = |a: &Extent, b: &Extent| {
            a.packed.is_none()
                && b.packed.is_none()
                && a.shared == b.shared
                && a.end() == b.at
                && a.phys + u64::from(a.len) == b.phys
        };
        self.extents.insert(index, extent);
        for left in [index, index.wrapping_sub(1)] {
            if let (Some(a), Some(b)) = (self.extents.get(left), self.extents.get(left.wrapping_add(1)))
                && joins(a, b)
            {
                let right = self.extents.remove(left + 1);
                let extent = &mut self.extents[left];
                extent.len += right.len;
                extent.crcs = [&extent.crcs[..], &right.crcs[..]].concat().into();
            }
        }
    }

    /// Bytes of memory, near enough for the bound.
    pub(crate) fn weight(&self) -> usize {
        let rows = self.extents.iter().map(|extent| match &extent.crcs {
            Crcs::One(_) => 0,
            Crcs::Many(crcs) => 16 + 4 * crcs.len(),
        });
        64 + self.extents.capacity() * size_of::<Extent>() + rows.sum::<usize>()
    }

    /// Gives back what it grew beyond its need: most leaves are kept long after their last change.
    pub(crate) fn trim(&mut self) {
        if self.extents.capacity() > self.extents.len() + 1 {
            self.extents.shrink_to_fit();
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        // All leaves of a checkpoint wait in memory for the last one, so each takes no more than it needs.
        let mut out =
            Vec::with_capacity(3 + self.extents.iter().map(|extent| 14 + 4 * extent.crcs.len()).sum::<usize>());
        out.u8(1);
        out.var(self.extents.len() as u64);
        for extent in &self.extents {
            out.u8(u8::from(extent.shared) | extent.packed.map_or(0, |packed| (packed.packing as u8) << 1));
            out.var(extent.at.into());
            out.var(extent.len.into());
            out.var(extent.phys);
            if let Some(packed) = extent.packed {
                out.var(packed.bytes.into());
                out.var(packed.raw.into());
                out.var(packed.skip.into());
                out.var(extent.stored());
            }
            for crc in extent.crcs.iter() {
                out.u32(*crc);
            }
        }
        out
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Leaf, Malformed> {
        let mut take = Take::new(bytes);
        if take.u8()? != 1 {
            return Err(Malformed);
        }
        let count = take.count(8)?;
        let mut extents = Vec::with_capacity(count);
        let mut end = 0;
        for _ in 0..count {
            let flags = take.u8()?;
            let (at, len, phys) = (take.var16()?, take.var16()?, take.var()?);
            if at < end || len == 0 || len > LEAF || at > LEAF - len {
                return Err(Malformed);
            }
            end = at + len;
            let packing = match flags >> 1 {
                0 => None,
                1 => Some(Packing::Lz4),
                2 => Some(Packing::Zstd),
                _ => return Err(Malformed),
            };
            let (packed, stored) = match packing {
                None => (None, len),
                Some(packing) => {
                    let packed = Packed { packing, bytes: take.var32()?, raw: take.var16()?, skip: take.var16()? };
                    let stored = take.var16()?;
                    let fits = packed.raw <= LEAF && packed.skip.checked_add(len).is_some_and(|end| end <= packed.raw);
                    if !fits || stored == 0 || packed.bytes.div_ceil(4096) != u32::from(stored) {
                        return Err(Malformed);
                    }
                    (Some(packed), stored)
                }
            };
            // The front of the space is the store's own: nothing may be laid down there, whatever metadata says.
            // Behind its end there may be anything, as long as a place in bytes can be told of it.
            if phys < RESERVED || phys > u64::MAX / BLOCK - u64::from(stored) {
                return Err(Malformed);
            }
            let crcs = (0..stored).map(|_| take.u32()).collect::<Result<Vec<_>, _>>()?.into();
            extents.push(Extent { at, len, phys, shared: flags & 1 == 1, packed, crcs });
        }
        take.end()?;
        Ok(Leaf { extents })
    }
}

#[cfg(test)]
#[path = "leaf_test.rs"]
mod tests;
