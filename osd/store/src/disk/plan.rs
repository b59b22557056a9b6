//! From verbs to effects: decides what a transaction does to blocks, allocates, merges partial blocks, and encodes the
//! record while the stage applies it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, PgId};
use nacre_proto::txn::{Compression, Transaction, TxnOp, WriteHint};

use super::device::Device;
use super::direct::AlignedBuf;
use super::keys;
use super::kv::Kv;
use super::leaf::{LEAF, Leaf};
use super::meta::{Coll, Header};
use super::pack::{UNIT, pack, unpack};
use super::record::{Effect, Piece};
use super::stage::{Stage, place};
use super::state::State;
use crate::api::BLOCK;
use crate::error::StoreError;
use crate::ranges::{HashRanges, seed_range};

/// Writes of more bytes than this go to fresh blocks at once instead of through the journal.
pub(crate) const DIRECT: u64 = 64 << 10;

/// Objects of a removed collection that one internal transaction frees.
const REAP: usize = 64;

pub(crate) struct Plan<'a> {
    pub stage: Stage<'a>,
    device: &'a dyn Device,
    pub record: Vec<u8>,
    /// Collections changed by this very transaction.
    colls: BTreeMap<PgId, Option<Arc<Coll>>>,
    pg: PgId,
}

/// What an object's unreadable metadata is called.
fn of_object(oid: &ObjectId, error: StoreError) -> StoreError {
    match error {
        StoreError::CorruptMetadata { what } => {
            StoreError::CorruptMetadata { what: format!("object {}: {what}", crate::error::name(oid)) }
        }
        StoreError::Kv { what } => StoreError::Kv { what: format!("object {}: {what}", crate::error::name(oid)) },
        other => other,
    }
}

impl<'a> Plan<'a> {
    pub(crate) fn new(state: &'a mut State, kv: &'a dyn Kv, device: &'a dyn Device, pg: PgId) -> Self {
        let stage = Stage::new(state, kv, false);
        Plan { stage, device, record: Vec::new(), colls: BTreeMap::new(), pg }
    }

    /// Applies all verbs; on an error nothing remains.
    pub(crate) fn run(mut self, txn: &Transaction) -> Result<Self, StoreError> {
        let mut result = txn.ops.iter().try_for_each(|op| self.op(op));
        if result.is_ok() {
            result = self.check_space(txn);
        }
        match result {
            Ok(()) => Ok(self),
            Err(error) => {
                self.stage.abort();
                Err(error)
            }
        }
    }

    /// Frees some objects of a removed collection, and the collection after the last.
    pub(crate) fn reap(mut self, coll: &Coll) -> Result<Self, StoreError> {
        let mut found: Vec<Bytes> = Vec::new();
        self.stage.state.objects(coll, None, self.stage.kv, &mut |key| {
            found.push(Bytes::copy_from_slice(key));
            found.len() < REAP
        })?;
        let mut result = Ok(());
        for key in &found {
            result = result.and_then(|()| self.remove(key));
        }
        if found.len() < REAP {
            result = result.and_then(|()| self.emit(Effect::Coll { id: coll.id, coll: None }));
        }
        match result {
            Ok(()) => Ok(self),
            Err(error) => {
                self.stage.abort();
                Err(error)
            }
        }
    }

    fn check_space(&mut self, txn: &Transaction) -> Result<(), StoreError> {
        let blocks = |runs: &[(u64, u64)]| runs.iter().map(|run| run.1).sum::<u64>();
        let (taken, freed) = (blocks(&self.stage.allocated), blocks(&self.stage.freed));
        let state = &self.stage.state;
        if taken > freed && state.alloc.free() < state.reserve {
            return Err(full(taken, state.alloc.free() + taken, state.reserve));
        }
        if state.kv_full && txn.ops.iter().any(grows) {
            return Err(StoreError::Full { needed: BLOCK, available: 0 });
        }
        Ok(())
    }

    fn emit(&mut self, effect: Effect) -> Result<(), StoreError> {
        if let Effect::Put { data, .. } = &effect {
            self.record.reserve(data.len() + 128);
        }
        effect.encode(&mut self.record);
        self.stage.apply(effect)
    }

    fn coll(&self, pg: PgId) -> Result<Arc<Coll>, StoreError> {
        match self.colls.get(&pg) {
            Some(coll) => coll.clone().ok_or(StoreError::NoCollection { pg }),
            None => self.stage.state.coll(pg).cloned(),
        }
    }

    fn set_coll(&mut self, coll: Coll) -> Result<(), StoreError> {
        self.emit(Effect::Coll { id: coll.id, coll: Some(coll.encode().into()) })?;
        let pg = coll.pg;
        let live = (!coll.dead).then(|| Arc::new(coll));
        self.colls.insert(pg, live);
        Ok(())
    }

    fn new_ids(&mut self, count: u64) -> Result<u64, StoreError> {
        let first = self.stage.next_id;
        self.emit(Effect::NextId(first + count))?;
        Ok(first)
    }

    fn key(&self, oid: &ObjectId) -> Result<Bytes, StoreError> {
        let coll = self.coll(self.pg)?;
        if oid.pool != self.pg.pool || !coll.ranges.contains(oid.sort_hash()) {
            return Err(StoreError::WrongCollection { pg: self.pg, oid: oid.clone() });
        }
        Ok(keys::object(coll.space, oid))
    }

    fn need(&mut self, oid: &ObjectId) -> Result<(Bytes, Arc<Header>), StoreError> {
        let key = self.key(oid)?;
        let header = self.stage.header(&key)?;
        header.map(|header| (key, header)).ok_or_else(|| StoreError::NoObject { pg: self.pg, oid: oid.clone() })
    }

    fn set_header(&mut self, key: &Bytes, header: &Header) -> Result<(), StoreError> {
        self.emit(Effect::Header { key: key.clone(), header: Some(header.encode().into()) })
    }

    /// Changes an object's header, made if absent.
    fn edit(&mut self, key: &Bytes, change: impl FnOnce(&mut Header)) -> Result<(), StoreError> {
        let mut header = self.stage.header(key)?.map(Arc::unwrap_or_clone).unwrap_or_default();
        change(&mut header);
        self.set_header(key, &header)
    }

    /// Lets the object be at least so long, and be there.
    fn grow(&mut self, key: &Bytes, existed: bool, size: u64) -> Result<(), StoreError> {
        let now = self.stage.header(key)?.map_or(0, |header| header.size);
        if existed && now >= size { Ok(()) } else { self.edit(key, |header| header.size = header.size.max(size)) }
    }

    fn op(&mut self, op: &TxnOp) -> Result<(), StoreError> {
        let oid = match op {
            TxnOp::Touch { oid }
            | TxnOp::Write { oid, .. }
            | TxnOp::Zero { oid, .. }
            | TxnOp::Truncate { oid, .. }
            | TxnOp::Remove { oid }
            | TxnOp::SetXattr { oid, .. }
            | TxnOp::RemoveXattr { oid, .. }
            | TxnOp::OmapSet { oid, .. }
            | TxnOp::OmapRemove { oid, .. }
            | TxnOp::OmapRemoveRange { oid, .. }
            | TxnOp::OmapClear { oid }
            | TxnOp::OmapSetHeader { oid, .. } => oid,
            TxnOp::Clone { from, .. } | TxnOp::CloneRange { from, .. } | TxnOp::Rename { from, .. } => from,
            _ => return self.coll_op(op),
        };
        self.object_op(op, oid).map_err(|error| of_object(oid, error))
    }

    fn object_op(&mut self, op: &TxnOp, oid: &ObjectId) -> Result<(), StoreError> {
        let key = self.key(oid)?;
        match op {
            TxnOp::Touch { .. } => match self.stage.header(&key)? {
                Some(_) => Ok(()),
                None => self.edit(&key, |_| ()),
            },
            TxnOp::Write { offset, data, hint, .. } => self.write(oid, &key, *offset, data, *hint),
            TxnOp::Zero { offset, len, .. } => self.zero(oid, &key, *offset, *len),
            TxnOp::Truncate { size, .. } => self.truncate(oid, &key, *size),
            TxnOp::Remove { .. } => self.remove(&key),
            TxnOp::Clone { to, .. } => self.clone_object(oid, to),
            TxnOp::CloneRange { to, from_offset, len, to_offset, .. } => {
                self.clone_range(oid, to, *from_offset, *len, *to_offset)
            }
            TxnOp::Rename { to, .. } => {
                let (from, _) = self.need(oid)?;
                let to = self.key(to)?;
                if from == to {
                    return Ok(());
                }
                self.remove(&to)?;
                self.emit(Effect::Move { from, to })
            }
            TxnOp::SetXattr { name, value, .. } => {
                self.edit(&key, |header| drop(header.xattrs.insert(name.clone(), value.clone())))
            }
            TxnOp::RemoveXattr { name, .. } => match self.stage.header(&key)? {
                Some(header) if header.xattrs.contains_key(name) => {
                    self.edit(&key, |header| drop(header.xattrs.remove(name)))
                }
                _ => Ok(()),
            },
            TxnOp::OmapSet { entries, .. } => {
                let header = self.stage.header(&key)?;
                let id = match header.as_ref().map_or(0, |header| header.omap) {
                    0 if entries.is_empty() => return self.grow(&key, header.is_some(), 0),
                    0 => {
                        let id = self.new_ids(1)?;
                        self.edit(&key, |header| header.omap = id)?;
                        id
                    }
                    id => id,
                };
                let entries = entries.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
                self.emit(Effect::Omap { id, entries })
            }
            TxnOp::OmapRemove { keys, .. } => match self.stage.header(&key)? {
                Some(header) if header.omap != 0 && !keys.is_empty() => {
                    let entries = keys.iter().map(|key| (key.clone(), None)).collect();
                    self.emit(Effect::Omap { id: header.omap, entries })
                }
                _ => Ok(()),
            },
            TxnOp::OmapRemoveRange { from, to, .. } => match self.stage.header(&key)? {
                Some(header) if header.omap != 0 => self.omap_remove_range(header.omap, from, to.as_deref()),
                _ => Ok(()),
            },
            TxnOp::OmapClear { .. } => match self.stage.header(&key)? {
                Some(header) => {
                    if header.omap != 0 {
                        self.emit(Effect::OmapDrop { id: header.omap })?;
                    }
                    self.edit(&key, |header| {
                        header.omap = 0;
                        header.omap_header = Bytes::new();
                    })
                }
                None => Ok(()),
            },
            TxnOp::OmapSetHeader { header: value, .. } => self.edit(&key, |header| header.omap_header = value.clone()),
            _ => Ok(()),
        }
    }

    fn coll_op(&mut self, op: &TxnOp) -> Result<(), StoreError> {
        let pg = self.pg;
        match op {
            TxnOp::LogAppend { version, entry } => {
                let coll = self.coll(pg)?.id;
                self.emit(Effect::LogAppend { coll, version: *version, entry: entry.clone() })
            }
            TxnOp::LogTrim { to } => {
                let coll = self.coll(pg)?.id;
                self.emit(Effect::LogTrim { coll, to: *to })
            }
            TxnOp::LogRewind { after } => {
                let coll = self.coll(pg)?.id;
                self.emit(Effect::LogRewind { coll, after: *after })
            }
            TxnOp::SetMeta { key, value } => {
                let id = self.coll(pg)?.meta;
                self.emit(Effect::Omap { id, entries: vec![(key.clone(), value.clone())] })
            }
            TxnOp::CreateCollection => {
                if self.coll(pg).is_ok() {
                    return Err(StoreError::CollectionExists { pg });
                }
                let id = self.new_ids(3)?;
                let ranges = HashRanges::all();
                self.set_coll(Coll { id, pg, space: id + 1, meta: id + 2, ranges, dead: false })
            }
            TxnOp::SplitCollection { child, pg_num, meta, log } => {
                let bad = StoreError::BadSplit { pg: *child, pg_num: *pg_num };
                let cut = seed_range(child.seed, *pg_num).ok_or(bad)?;
                if self.coll(*child).is_ok() {
                    return Err(StoreError::CollectionExists { pg: *child });
                }
                let mut parent = Coll::clone(&*self.coll(pg)?);
                let ranges = parent.ranges.split_off(cut);
                let space = parent.space;
                self.set_coll(parent)?;
                let id = self.new_ids(2)?;
                self.set_coll(Coll { id, pg: *child, space, meta: id + 1, ranges, dead: false })?;
                if !meta.is_empty() {
                    let entries = meta.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
                    self.emit(Effect::Omap { id: id + 1, entries })?;
                }
                for (version, entry) in log {
                    self.emit(Effect::LogAppend { coll: id, version: *version, entry: entry.clone() })?;
                }
                Ok(())
            }
            TxnOp::RemoveCollection => {
                let coll = Coll::clone(&*self.coll(pg)?);
                self.emit(Effect::OmapDrop { id: coll.meta })?;
                self.emit(Effect::LogDrop { coll: coll.id })?;
                self.set_coll(Coll { dead: true, ..coll })
            }
            _ => Ok(()),
        }
    }

    fn omap_remove_range(&mut self, id: u64, from: &[u8], to: Option<&[u8]>) -> Result<(), StoreError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let mut entries = Vec::new();
        self.stage.state.omap_scan(id, (from, to), &self.stage.omap, self.stage.kv, &mut |key, _| {
            entries.push((Bytes::copy_from_slice(key), None));
            true
        })?;
        if entries.is_empty() { Ok(()) } else { self.emit(Effect::Omap { id, entries }) }
    }

    // ---- bytes ----

    fn write(
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

    fn zero(&mut self, oid: &ObjectId, key: &Bytes, offset: u64, len: u64) -> Result<(), StoreError> {
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

    fn truncate(&mut self, oid: &ObjectId, key: &Bytes, size: u64) -> Result<(), StoreError> {
        let old = self.stage.header(key)?.map(|header| header.size);
        if old.is_some_and(|old| size < old) {
            self.clear(oid, key, size, old.unwrap_or(0).next_multiple_of(BLOCK))?;
        }
        if old == Some(size) { Ok(()) } else { self.edit(key, |header| header.size = size) }
    }

    fn remove(&mut self, key: &Bytes) -> Result<(), StoreError> {
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

    fn clone_object(&mut self, from: &ObjectId, to: &ObjectId) -> Result<(), StoreError> {
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

    fn clone_range(
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

fn full(needed: u64, free: u64, reserve: u64) -> StoreError {
    StoreError::Full { needed: needed * BLOCK, available: free.saturating_sub(reserve) * BLOCK }
}

/// Whether a verb makes metadata larger for good.
fn grows(op: &TxnOp) -> bool {
    matches!(
        op,
        TxnOp::Touch { .. }
            | TxnOp::Write { .. }
            | TxnOp::Clone { .. }
            | TxnOp::CloneRange { .. }
            | TxnOp::SetXattr { .. }
            | TxnOp::OmapSet { .. }
            | TxnOp::OmapSetHeader { .. }
    )
}
