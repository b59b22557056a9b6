//! The verbs on an object's bytes: what is allocated, merged, packed, shared and given back. Part of [`Plan`]; decides
//! nothing about collections, omaps and logs.

use std::sync::Arc;

use bytes::Bytes;
use nacre_proto::ids::ObjectId;
use nacre_proto::txn::{Compression, WriteHint};

use super::{Plan, full};
use crate::api::BLOCK;
use crate::disk::direct::AlignedBuf;
use crate::disk::leaf::{LEAF, Leaf};
use crate::disk::pack::{UNIT, pack, unpack};
use crate::disk::record::{Effect, Piece};
use crate::disk::stage::place;
use crate::error::StoreError;

/// Writes of more bytes than this go to fresh blocks at once instead of through the journal.
const DIRECT: u64 = 64 << 10;

impl Plan<'_> {
    pub(super) fn write(
        &mut self,
        oid: &ObjectId,
        key: &Bytes,
        offset: u64,
        data: &Bytes,
        hint: WriteHint,
    ) -> Result<(), StoreError> {
        let existed = self.stage.header(key)?.is_some();
        let len = data.len() as u64;
        if len == 0 {
            return self.grow(key, existed, 0);
        }
        let end = offset + len;
        let (first, last) = (offset.next_multiple_of(BLOCK), end / BLOCK * BLOCK);
        if len > DIRECT && last > first {
            let piece = |low: u64, high: u64| data.slice((low - offset) as usize..(high - offset) as usize);
            if first > offset {
                self.small(oid, key, offset, &piece(offset, first))?;
            }
            self.large(key, first / BLOCK, &piece(first, last), hint.compressible)?;
            if end > last {
                self.small(oid, key, last, &piece(last, end))?;
            }
        } else {
            self.small(oid, key, offset, data)?;
        }
        self.grow(key, existed, end)
    }

    fn leaf_at(&mut self, key: &Bytes, block: u64) -> Result<(Arc<Leaf>, u16), StoreError> {
        let (index, at) = place(block)?;
        Ok((self.stage.leaf(key, index)?.unwrap_or_default(), at))
    }

    /// The block right behind the one that maps `block - 1`, so that what grows stays in one run.
    fn hint(&mut self, key: &Bytes, block: u64) -> Result<Option<u64>, StoreError> {
        let Some(before) = block.checked_sub(1) else { return Ok(None) };
        let (leaf, at) = self.leaf_at(key, before)?;
        Ok(leaf.find(at).map(|extent| match extent.packed {
            None => extent.phys + u64::from(at - extent.at) + 1,
            Some(_) => extent.phys + extent.stored(),
        }))
    }

    fn allocate(&mut self, want: u64, hint: Option<u64>) -> Result<Vec<(u64, u64)>, StoreError> {
        if want == 0 {
            return Ok(Vec::new());
        }
        let state = &mut self.stage.state;
        let runs = state.alloc.allocate(want, hint);
        let runs = runs.ok_or_else(|| full(want, state.alloc.free(), state.reserve))?;
        self.stage.allocated.extend(&runs);
        Ok(runs)
    }

    /// A write that rides in the journal: as whole blocks, merged with what they hold.
    fn small(&mut self, oid: &ObjectId, key: &Bytes, offset: u64, data: &Bytes) -> Result<(), StoreError> {
        let end = offset + data.len() as u64;
        let (first, past) = (offset / BLOCK, end.div_ceil(BLOCK));
        let whole = offset.is_multiple_of(BLOCK) && end.is_multiple_of(BLOCK);
        let data = if whole {
            data.clone()
        } else {
            let mut merged = vec![0; ((past - first) * BLOCK) as usize];
            let edges = [first, past - 1];
            for block in edges.into_iter().take(if past - first > 1 { 2 } else { 1 }) {
                if block * BLOCK >= offset && (block + 1) * BLOCK <= end {
                    continue;
                }
                if let Some(old) = self.block(oid, key, block)? {
                    let at = ((block - first) * BLOCK) as usize;
                    merged[at..at + BLOCK as usize].copy_from_slice(&old);
                }
            }
            let at = (offset - first * BLOCK) as usize;
            merged[at..at + data.len()].copy_from_slice(data);
            merged.into()
        };
        let mut fresh = 0;
        let mut hint = None;
        let mut block = first;
        while block < past {
            let (leaf, at) = self.leaf_at(key, block)?;
            let stop = past.min(block + u64::from(LEAF - at));
            for step in 0..(stop - block) as u16 {
                if !self.stage.in_place(&leaf, at + step)? {
                    if fresh == 0 {
                        hint = self.hint(key, block + u64::from(step))?;
                    }
                    fresh += 1;
                }
            }
            block = stop;
        }
        let runs = self.allocate(fresh, hint)?;
        self.emit(Effect::Put { key: key.clone(), block: first, runs, data })
    }

    /// A write of whole blocks to fresh space, before its record is written.
    fn large(
        &mut self,
        key: &Bytes,
        first: u64,
        data: &Bytes,
        compress: Option<Compression>,
    ) -> Result<(), StoreError> {
        let count = data.len() as u64 / BLOCK;
        let mut pieces = Vec::new();
        match compress {
            None => self.raw_pieces(key, first, data, &mut pieces)?,
            Some(hint) => {
                let mut done = 0;
                while done < count {
                    let unit = (UNIT - (first + done) % UNIT).min(count - done);
                    let raw = data.slice((done * BLOCK) as usize..((done + unit) * BLOCK) as usize);
                    self.packed_or_raw(key, first + done, &raw, hint, &mut pieces)?;
                    done += unit;
                }
            }
        }
        self.emit(Effect::Place { key: key.clone(), block: first, pieces })
    }

    fn raw_pieces(&mut self, key: &Bytes, first: u64, data: &Bytes, pieces: &mut Vec<Piece>) -> Result<(), StoreError> {
        let count = data.len() as u64 / BLOCK;
        let hint = self.hint(key, first)?;
        let mut done = 0;
        for (phys, len) in self.allocate(count, hint)? {
            let slice = |low: u64, high: u64| data.slice((low * BLOCK) as usize..(high * BLOCK) as usize);
            self.stage.direct.push((phys, slice(done, done + len)));
            let mut within = 0;
            while within < len {
                let (_, at) = place(first + done + within)?;
                let step = (len - within).min(u64::from(LEAF - at));
                let from = done + within;
                let crcs = slice(from, from + step).chunks(BLOCK as usize).map(crc32fast::hash).collect();
                pieces.push(Piece { len: step as u16, phys: phys + within, packed: None, crcs });
                within += step;
            }
            done += len;
        }
        Ok(())
    }

    fn packed_or_raw(
        &mut self,
        key: &Bytes,
        first: u64,
        data: &Bytes,
        hint: Compression,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), StoreError> {
        let Some((packing, bytes)) = pack(hint, data) else { return self.raw_pieces(key, first, data, pieces) };
        let stored = (bytes.len() as u64).div_ceil(BLOCK);
        let near = pieces.last().map(|piece: &Piece| piece.phys + piece.crcs.len() as u64);
        let runs = self.allocate(stored, near)?;
        let [(phys, _)] = runs[..] else {
            // Space too scattered for one run: the packed form needs one, the raw form does not.
            for run in runs {
                self.stage.allocated.retain(|other| *other != run);
                self.stage.state.alloc.untake(run);
            }
            return self.raw_pieces(key, first, data, pieces);
        };
        let mut padded = AlignedBuf::with_capacity(bytes.len());
        padded.extend(&bytes);
        padded.pad(BLOCK as usize);
        let crcs = padded.chunks(BLOCK as usize).map(crc32fast::hash).collect();
        let len = (data.len() as u64 / BLOCK) as u16;
        pieces.push(Piece { len, phys, packed: Some((packing, bytes.len() as u32)), crcs });
        self.stage.direct.push((phys, Bytes::from_owner(padded)));
        Ok(())
    }

    /// What a block of an object holds; `None` for a hole.
    fn block(&mut self, oid: &ObjectId, key: &Bytes, block: u64) -> Result<Option<Bytes>, StoreError> {
        let (leaf, at) = self.leaf_at(key, block)?;
        let Some(extent) = leaf.find(at) else { return Ok(None) };
        let pg = self.pg;
        let corrupt = || StoreError::Corrupt { pg, oid: oid.clone(), offset: block * BLOCK };
        let Some(packed) = extent.packed else {
            let within = at - extent.at;
            let crc = extent.crcs.get(usize::from(within)).copied().ok_or_else(corrupt)?;
            return match self.stored(extent.phys + u64::from(within), crc)? {
                Some(bytes) => Ok(Some(bytes)),
                None => Err(corrupt()),
            };
        };
        let mut stored = Vec::with_capacity(extent.crcs.len() * BLOCK as usize);
        for (step, crc) in extent.crcs.iter().enumerate() {
            stored.extend_from_slice(&self.stored(extent.phys + step as u64, *crc)?.ok_or_else(corrupt)?);
        }
        let bytes = stored.get(..packed.bytes as usize).ok_or_else(corrupt)?;
        let raw = Bytes::from(unpack(packed.packing, bytes, packed.raw).map_err(|_| corrupt())?);
        let from = usize::from(packed.skip + at - extent.at) * BLOCK as usize;
        Ok(Some(raw.slice(from..from + BLOCK as usize)))
    }

    /// A block of the block space, from memory or disk; `None` if it is not what the checksum says.
    fn stored(&mut self, phys: u64, crc: u32) -> Result<Option<Bytes>, StoreError> {
        let right = |bytes: &Bytes| crc32fast::hash(bytes) == crc;
        if let Some(bytes) = self.stage.blocks.get(&phys) {
            return Ok(Some(bytes.clone()).filter(right));
        }
        let direct = self.stage.direct.iter().find_map(|(first, bytes)| {
            let from = usize::try_from(phys.checked_sub(*first)? * BLOCK).ok()?;
            (from < bytes.len()).then(|| bytes.slice(from..from + BLOCK as usize))
        });
        if let Some(bytes) = direct {
            return Ok(Some(bytes).filter(right));
        }
        // What the cache holds may be older than what the disk does: a read that was overtaken by a write put it there.
        if let Some(bytes) = self.stage.state.block(phys) {
            if right(&bytes) {
                return Ok(Some(bytes));
            }
            self.stage.state.blocks.remove(&phys);
        }
        let mut buf = AlignedBuf::zeroed(BLOCK as usize);
        self.device.read(phys * BLOCK, &mut buf).map_err(|error| StoreError::io("cannot read a block", error))?;
        let bytes = Bytes::copy_from_slice(&buf);
        if !right(&bytes) {
            return Ok(None);
        }
        // Parts of a block are often written one after the other; the next one finds it.
        self.stage.state.cache_block(phys, bytes.clone());
        Ok(Some(bytes))
    }

    pub(super) fn zero(&mut self, oid: &ObjectId, key: &Bytes, offset: u64, len: u64) -> Result<(), StoreError> {
        let existed = self.stage.header(key)?.is_some();
        if len == 0 {
            return self.grow(key, existed, 0);
        }
        self.clear(oid, key, offset, offset + len)?;
        self.grow(key, existed, offset + len)
    }

    /// Makes whole blocks holes and zeros the mapped edges.
    fn clear(&mut self, oid: &ObjectId, key: &Bytes, offset: u64, end: u64) -> Result<(), StoreError> {
        let (first, last) = (offset.next_multiple_of(BLOCK), end / BLOCK * BLOCK);
        let mut edges = Vec::new();
        if first > last {
            edges.push((offset, end));
        } else {
            edges.extend([(offset, first), (last, end)]);
            if last > first {
                self.emit(Effect::Cut { key: key.clone(), low: first / BLOCK, high: last / BLOCK })?;
            }
        }
        for (low, high) in edges.into_iter().filter(|(low, high)| low < high) {
            let (leaf, at) = self.leaf_at(key, low / BLOCK)?;
            if leaf.find(at).is_some() {
                self.small(oid, key, low, &vec![0; (high - low) as usize].into())?;
            }
        }
        Ok(())
    }

    pub(super) fn truncate(&mut self, oid: &ObjectId, key: &Bytes, size: u64) -> Result<(), StoreError> {
        let old = self.stage.header(key)?.map(|header| header.size);
        if old.is_some_and(|old| size < old) {
            self.clear(oid, key, size, old.unwrap_or(0).next_multiple_of(BLOCK))?;
        }
        if old == Some(size) { Ok(()) } else { self.edit(key, |header| header.size = size) }
    }

    pub(super) fn remove(&mut self, key: &Bytes) -> Result<(), StoreError> {
        let Some(header) = self.stage.header(key)? else { return Ok(()) };
        if let Some((_, past)) = header.leaves.last() {
            let high = u64::from(*past) * u64::from(LEAF);
            self.emit(Effect::Cut { key: key.clone(), low: 0, high })?;
        }
        if header.omap != 0 {
            self.emit(Effect::OmapDrop { id: header.omap })?;
        }
        self.emit(Effect::Header { key: key.clone(), header: None })
    }

    pub(super) fn clone_object(&mut self, from: &ObjectId, to: &ObjectId) -> Result<(), StoreError> {
        let (from_key, source) = self.need(from)?;
        let to_key = self.key(to)?;
        if from_key == to_key {
            return Ok(());
        }
        self.remove(&to_key)?;
        if let Some((_, past)) = source.leaves.last() {
            let len = u64::from(*past) * u64::from(LEAF);
            let (from, to) = (from_key, to_key.clone());
            self.emit(Effect::Share { from, block: 0, to, to_block: 0, len })?;
        }
        let mut omap = 0;
        if source.omap != 0 {
            omap = self.new_ids(1)?;
            self.emit(Effect::OmapCopy { from: source.omap, to: omap })?;
        }
        self.edit(&to_key, |header| {
            header.size = source.size;
            header.xattrs = source.xattrs.clone();
            header.omap_header = source.omap_header.clone();
            header.omap = omap;
        })
    }

    pub(super) fn clone_range(
        &mut self,
        from: &ObjectId,
        to: &ObjectId,
        from_offset: u64,
        len: u64,
        to_offset: u64,
    ) -> Result<(), StoreError> {
        let (from_key, source) = self.need(from)?;
        let to_key = self.key(to)?;
        let existed = self.stage.header(&to_key)?.is_some();
        let len = len.min(source.size.saturating_sub(from_offset));
        if len == 0 {
            return self.grow(&to_key, existed, 0);
        }
        let end = to_offset + len;
        let (first, last) = (to_offset.next_multiple_of(BLOCK), end / BLOCK * BLOCK);
        let origin = |at: u64| at - to_offset + from_offset;
        if from_offset % BLOCK != to_offset % BLOCK || first >= last {
            let bytes = self.bytes(from, &from_key, from_offset, len)?;
            return self.write(to, &to_key, to_offset, &bytes, WriteHint::default());
        }
        // All reading before any writing: the two may be one object.
        let head = self.bytes(from, &from_key, from_offset, first - to_offset)?;
        let tail = self.bytes(from, &from_key, origin(last), end - last)?;
        let (block, to_block) = (origin(first) / BLOCK, first / BLOCK);
        let share = Effect::Share { from: from_key, block, to: to_key.clone(), to_block, len: (last - first) / BLOCK };
        self.emit(share)?;
        if !head.is_empty() {
            self.small(to, &to_key, to_offset, &head)?;
        }
        if !tail.is_empty() {
            self.small(to, &to_key, last, &tail)?;
        }
        self.grow(&to_key, existed, end)
    }

    /// Bytes of an object, holes as zeros.
    fn bytes(&mut self, oid: &ObjectId, key: &Bytes, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let mut out = vec![0; len as usize];
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let within = at % BLOCK;
            let step = (BLOCK - within).min(len - done);
            if let Some(block) = self.block(oid, key, at / BLOCK)? {
                out[done as usize..(done + step) as usize]
                    .copy_from_slice(&block[within as usize..(within + step) as usize]);
            }
            done += step;
        }
        Ok(out.into())
    }
}
