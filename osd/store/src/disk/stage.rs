//! One transaction being applied: its effects laid over the state, published whole or dropped without a trace.
//!
//! Live submission and replay run the same [`Stage::apply`]; they differ in one thing: live, the blocks an effect names
//! were allocated a moment ago, in replay they are taken from the bitmap here.
//!
//! Invariant: applying an effect reads only metadata, and the metadata it reads is that of all earlier effects; so replay
//! from any checkpoint repeats it exactly.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::alloc::Run;
use super::codec::Malformed;
use super::keys;
use super::kv::Kv;
use super::leaf::{Crcs, Cut, Extent, LEAF, Leaf, Packed};
use super::meta::{Cell, Coll, Header, REFS, Refs};
use super::record::{Effect, Piece};
use super::state::{BlockMap, CellMap, State};
use crate::error::StoreError;

pub(crate) struct Stage<'a> {
    pub state: &'a mut State,
    pub kv: &'a dyn Kv,
    pub cells: CellMap,
    pub names: Vec<(Bytes, bool)>,
    pub omap: BTreeMap<Bytes, Option<Bytes>>,
    pub dropped_omaps: Vec<u64>,
    pub logs: Vec<Effect>,
    pub blocks: BlockMap<Bytes>,
    /// Large writes: where, and the bytes, whole blocks.
    pub direct: Vec<(u64, Bytes)>,
    pub allocated: Vec<Run>,
    pub freed: Vec<Run>,
    pub next_id: u64,
    replaying: bool,
}

/// Memory of a block's place among the warm ones.
const WARM: usize = 16;

fn corrupt(what: impl Into<String>) -> StoreError {
    Malformed.of(what)
}

/// Leaf and block within it.
pub(crate) fn place(block: u64) -> Result<(u32, u16), StoreError> {
    let leaf = u32::try_from(block / u64::from(LEAF)).map_err(|_| corrupt("a block beyond the largest object"))?;
    Ok((leaf, (block % u64::from(LEAF)) as u16))
}

impl<'a> Stage<'a> {
    pub(crate) fn new(state: &'a mut State, kv: &'a dyn Kv, replaying: bool) -> Self {
        let next_id = state.next_id;
        Stage {
            state,
            kv,
            cells: CellMap::default(),
            names: Vec::new(),
            omap: BTreeMap::new(),
            dropped_omaps: Vec::new(),
            logs: Vec::new(),
            blocks: BlockMap::default(),
            direct: Vec::new(),
            allocated: Vec::new(),
            freed: Vec::new(),
            next_id,
            replaying,
        }
    }

    fn cell(&mut self, key: &Bytes) -> Result<Option<Cell>, StoreError> {
        match self.cells.get(key) {
            Some(cell) => Ok(cell.clone()),
            None => self.state.cell(key, self.kv),
        }
    }

    pub(crate) fn header(&mut self, key: &Bytes) -> Result<Option<Arc<Header>>, StoreError> {
        match self.cell(key)? {
            None => Ok(None),
            Some(Cell::Header(header)) => Ok(Some(header)),
            Some(_) => Err(corrupt("a header's key holds something else")),
        }
    }

    pub(crate) fn leaf(&mut self, object: &Bytes, index: u32) -> Result<Option<Arc<Leaf>>, StoreError> {
        match self.cell(&keys::leaf(object, index))? {
            None => Ok(None),
            Some(Cell::Leaf(leaf)) => Ok(Some(leaf)),
            Some(_) => Err(corrupt("a leaf's key holds something else")),
        }
    }

    /// A cell to be changed and put back. Out of the stage if it has it, so that a verb which changes one cell many times
    /// copies it once.
    fn take_cell(&mut self, key: &Bytes) -> Result<Option<Cell>, StoreError> {
        match self.cells.remove(key) {
            Some(cell) => Ok(cell),
            None => self.state.cell(key, self.kv),
        }
    }

    /// The same of a leaf; an empty one where there is none. Goes back with `set_leaf`.
    fn take_leaf(&mut self, object: &Bytes, index: u32) -> Result<Leaf, StoreError> {
        match self.take_cell(&keys::leaf(object, index))? {
            None => Ok(Leaf::default()),
            Some(Cell::Leaf(leaf)) => Ok(Arc::unwrap_or_clone(leaf)),
            Some(_) => Err(corrupt("a leaf's key holds something else")),
        }
    }

    fn set_header(&mut self, key: &Bytes, header: Option<Header>) -> Result<(), StoreError> {
        let existed = self.cell(key)?.is_some();
        if existed != header.is_some() {
            self.names.push((key.clone(), header.is_some()));
        }
        self.cells.insert(key.clone(), header.map(|header| Cell::Header(header.into())));
        Ok(())
    }

    /// Stores a leaf, or removes it if it maps nothing, and keeps the header's list of leaves.
    fn set_leaf(&mut self, object: &Bytes, index: u32, leaf: Leaf) -> Result<(), StoreError> {
        let present = !leaf.extents.is_empty();
        let header = self.header(object)?.unwrap_or_default();
        if header.has_leaf(index) != present {
            let mut header = Arc::unwrap_or_clone(header);
            header.set_leaf(index, present);
            self.set_header(object, Some(header))?;
        }
        self.cells.insert(keys::leaf(object, index), present.then(|| Cell::Leaf(leaf.into())));
        Ok(())
    }

    /// References beyond the first on a block.
    fn extra(&mut self, phys: u64) -> Result<u32, StoreError> {
        let refs = match self.cell(&keys::refs(phys / REFS))? {
            None => return Ok(0),
            Some(Cell::Refs(refs)) => refs,
            Some(_) => return Err(corrupt("a key of references holds something else")),
        };
        Ok(refs.get((phys % REFS) as u8))
    }

    /// Changes the extra references of each block of a run.
    fn edit_refs(&mut self, run: Run, mut edit: impl FnMut(u64, &mut u32)) -> Result<(), StoreError> {
        let mut at = run.0;
        let end = run.0 + run.1;
        while at < end {
            let group = at / REFS;
            let key = keys::refs(group);
            let mut refs = match self.take_cell(&key)? {
                None => Refs::default(),
                Some(Cell::Refs(refs)) => Arc::unwrap_or_clone(refs),
                Some(_) => return Err(corrupt("a key of references holds something else")),
            };
            let stop = end.min((group + 1) * REFS);
            for block in at..stop {
                let within = (block % REFS) as u8;
                let mut extra = refs.get(within);
                edit(block, &mut extra);
                refs.set(within, extra);
            }
            let cell = (!refs.is_empty()).then(|| Cell::Refs(refs.into()));
            self.cells.insert(key, cell);
            at = stop;
        }
        Ok(())
    }

    fn add_refs(&mut self, run: Run) -> Result<(), StoreError> {
        self.edit_refs(run, |_, extra| *extra = extra.saturating_add(1))
    }

    /// An extent lets go of its blocks.
    fn drop_extent(&mut self, extent: &Extent) -> Result<(), StoreError> {
        let run = (extent.phys, extent.stored());
        if !extent.shared {
            self.free(run);
            return Ok(());
        }
        let mut free = Vec::new();
        self.edit_refs(run, |block, extra| match extra.checked_sub(1) {
            Some(less) => *extra = less,
            None => free.push(block),
        })?;
        free.into_iter().for_each(|block| self.free((block, 1)));
        Ok(())
    }

    fn free(&mut self, run: Run) {
        match self.freed.last_mut() {
            Some(last) if last.0 + last.1 == run.0 => last.1 += run.1,
            _ => self.freed.push(run),
        }
    }

    fn settle_cut(&mut self, cut: &Cut) -> Result<(), StoreError> {
        cut.dropped.iter().try_for_each(|extent| self.drop_extent(extent))?;
        cut.doubled.iter().try_for_each(|run| self.add_refs(*run))
    }

    /// Whether a small write to a block can lie down where the block is: raw, and nobody else's.
    pub(crate) fn in_place(&mut self, leaf: &Leaf, block: u16) -> Result<bool, StoreError> {
        let Some(extent) = leaf.find(block) else { return Ok(false) };
        if extent.packed.is_some() {
            return Ok(false);
        }
        Ok(!extent.shared || self.extra(extent.phys + u64::from(block - extent.at))? == 0)
    }

    /// Takes runs that replay names; live they are taken already.
    fn take(&mut self, run: Run) -> Result<(), StoreError> {
        if self.replaying {
            if !self.state.alloc.take_exact(run) {
                return Err(corrupt(format!(
                    "the journal places data at blocks {}+{}, which are in use",
                    run.0, run.1
                )));
            }
            self.allocated.push(run);
        }
        Ok(())
    }

    pub(crate) fn apply(&mut self, effect: Effect) -> Result<(), StoreError> {
        match effect {
            Effect::Header { key, header } => {
                let header = header.map(Header::decode).transpose().map_err(|e| e.of("a header in the journal"))?;
                self.set_header(&key, header)
            }
            Effect::Put { key, block, runs, data } => self.put(&key, block, &runs, &data),
            Effect::Place { key, block, pieces } => self.place_pieces(&key, block, pieces),
            Effect::Cut { key, low, high } => self.cut(&key, low, high),
            Effect::Share { from, block, to, to_block, len } => self.share(&from, block, &to, to_block, len),
            Effect::Move { from, to } => self.move_object(&from, &to),
            Effect::Omap { id, entries } => {
                self.omap.extend(entries.into_iter().map(|(key, value)| (keys::omap(id, &key), value)));
                Ok(())
            }
            Effect::OmapDrop { id } => {
                self.dropped_omaps.push(id);
                Ok(())
            }
            Effect::OmapCopy { from, to } => {
                let mut copied = Vec::new();
                self.state.omap_scan(from, (&[], None), &self.omap, self.kv, &mut |key, value| {
                    copied.push((keys::omap(to, key), Some(Bytes::copy_from_slice(value))));
                    true
                })?;
                self.omap.extend(copied);
                Ok(())
            }
            Effect::LogAppend { .. } | Effect::LogTrim { .. } | Effect::LogRewind { .. } | Effect::LogDrop { .. } => {
                self.logs.push(effect);
                Ok(())
            }
            Effect::Coll { id, coll } => {
                let coll = coll.map(Coll::decode).transpose().map_err(|e| e.of("a collection in the journal"))?;
                self.cells.insert(keys::collection(id), coll.map(|coll| Cell::Coll(coll.into())));
                Ok(())
            }
            Effect::NextId(next) => {
                self.next_id = self.next_id.max(next);
                Ok(())
            }
        }
    }

    fn put(&mut self, key: &Bytes, first: u64, runs: &[Run], data: &Bytes) -> Result<(), StoreError> {
        for run in runs {
            self.take(*run)?;
        }
        let mut fresh = runs.iter().flat_map(|run| run.0..run.0.saturating_add(run.1));
        let count = data.len() as u64 / 4096;
        let mut in_place = self.in_place_before(key, first, count)?.into_iter();
        let mut done = 0;
        while done < count {
            let (index, at) = place(first + done)?;
            let here = u64::from(LEAF - at).min(count - done) as u16;
            let mut leaf = self.take_leaf(key, index)?;
            for block in at..at + here {
                let from = (done + u64::from(block - at)) as usize * 4096;
                let bytes = data.slice(from..from + 4096);
                let crc = crc32fast::hash(&bytes);
                if in_place.next().unwrap_or(false) {
                    let extent = leaf.find_mut(block).ok_or_else(|| corrupt("a mapped block without extent"))?;
                    let within = block - extent.at;
                    let phys = extent.phys + u64::from(within);
                    if let Some(old) = extent.crcs.get_mut(usize::from(within)) {
                        *old = crc;
                    }
                    self.blocks.insert(phys, bytes);
                } else {
                    let phys = fresh.next().ok_or_else(|| corrupt("a write in the journal names too few blocks"))?;
                    let cut = leaf.cut(block, block + 1);
                    self.settle_cut(&cut)?;
                    leaf.insert(Extent { at: block, len: 1, phys, shared: false, packed: None, crcs: Crcs::One(crc) });
                    self.blocks.insert(phys, bytes);
                }
            }
            self.set_leaf(key, index, leaf)?;
            done += u64::from(here);
        }
        if fresh.next().is_some() {
            return Err(corrupt("a write in the journal names too many blocks"));
        }
        Ok(())
    }

    /// Which blocks of a write stay where they are, as it was planned: judged before the first of them changes. Two of them
    /// may share one place on the disk, and with the first written elsewhere the second would seem to be alone there.
    fn in_place_before(&mut self, key: &Bytes, first: u64, count: u64) -> Result<Vec<bool>, StoreError> {
        let mut found = Vec::with_capacity(count as usize);
        let mut done = 0;
        while done < count {
            let (index, at) = place(first + done)?;
            let here = u64::from(LEAF - at).min(count - done) as u16;
            let leaf = self.leaf(key, index)?.unwrap_or_default();
            for block in at..at + here {
                found.push(self.in_place(&leaf, block)?);
            }
            done += u64::from(here);
        }
        Ok(found)
    }

    fn place_pieces(&mut self, key: &Bytes, first: u64, pieces: Vec<Piece>) -> Result<(), StoreError> {
        let mut at = first;
        for piece in pieces {
            self.take((piece.phys, piece.crcs.len() as u64))?;
            let (index, within) = place(at)?;
            let end = within.checked_add(piece.len).filter(|end| *end <= LEAF);
            let end = end.ok_or_else(|| corrupt("a large write in the journal crosses a leaf"))?;
            let mut leaf = self.take_leaf(key, index)?;
            let cut = leaf.cut(within, end);
            self.settle_cut(&cut)?;
            let packed = piece.packed.map(|(packing, bytes)| Packed { packing, bytes, raw: piece.len, skip: 0 });
            let (phys, crcs) = (piece.phys, piece.crcs.into());
            leaf.insert(Extent { at: within, len: piece.len, phys, shared: false, packed, crcs });
            self.set_leaf(key, index, leaf)?;
            at += u64::from(piece.len);
        }
        Ok(())
    }

    fn cut(&mut self, key: &Bytes, low: u64, high: u64) -> Result<(), StoreError> {
        let Some(header) = self.header(key)? else { return Ok(()) };
        let size = u64::from(LEAF);
        let last = u32::try_from(high.div_ceil(size)).unwrap_or(u32::MAX);
        for index in header.leaf_indexes(u32::try_from(low / size).unwrap_or(u32::MAX), last) {
            let base = u64::from(index) * size;
            let from = low.saturating_sub(base).min(size) as u16;
            let to = high.saturating_sub(base).min(size) as u16;
            let mut leaf = self.take_leaf(key, index)?;
            let cut = leaf.cut(from, to);
            self.settle_cut(&cut)?;
            self.set_leaf(key, index, leaf)?;
        }
        Ok(())
    }

    fn share(&mut self, from: &Bytes, block: u64, to: &Bytes, to_block: u64, len: u64) -> Result<(), StoreError> {
        // First mark and collect, then cut, then map: source and destination may be one object.
        let Some(header) = self.header(from)? else { return Err(corrupt("a copy in the journal has no source")) };
        let size = u64::from(LEAF);
        let end = block.saturating_add(len);
        let last = u32::try_from(end.div_ceil(size)).unwrap_or(u32::MAX);
        let mut copies: Vec<(u64, Extent)> = Vec::new();
        for index in header.leaf_indexes(u32::try_from(block / size).unwrap_or(u32::MAX), last) {
            let base = u64::from(index) * size;
            let (low, high) = (block.saturating_sub(base).min(size) as u16, (end - base).min(size) as u16);
            let mut leaf = self.take_leaf(from, index)?;
            let mut marked = Vec::new();
            for extent in leaf.overlapping(low, high) {
                let mut part = part_of(extent, low.max(extent.at), high.min(extent.end()));
                part.shared = true;
                copies.push((base + u64::from(part.at), part));
                marked.push(extent.at);
            }
            for at in marked {
                if let Some(extent) = leaf.find_mut(at) {
                    extent.shared = true;
                }
            }
            self.set_leaf(from, index, leaf)?;
        }
        for (_, extent) in &copies {
            self.add_refs((extent.phys, extent.stored()))?;
        }
        self.cut(to, to_block, to_block.saturating_add(len))?;
        // What falls into one leaf goes there together: a scattered object has hundreds of extents.
        let mut copies = copies.into_iter().map(|(at, extent)| (at - block + to_block, extent)).peekable();
        while let Some((at, extent)) = copies.next() {
            let (index, within) = place(at)?;
            if extent.len > LEAF - within {
                self.map_across(to, at, extent)?;
                continue;
            }
            let mut leaf = self.take_leaf(to, index)?;
            leaf.insert(Extent { at: within, ..extent });
            let base = at - u64::from(within);
            let fits = |(at, extent): &(u64, Extent)| at + u64::from(extent.len) <= base + size;
            while let Some((at, extent)) = copies.next_if(fits) {
                leaf.insert(Extent { at: (at - base) as u16, ..extent });
            }
            self.set_leaf(to, index, leaf)?;
        }
        Ok(())
    }

    /// Maps an extent, which holds its references already, from a block on; in two parts if it meets a leaf's end.
    fn map_across(&mut self, key: &Bytes, block: u64, extent: Extent) -> Result<(), StoreError> {
        let (index, at) = place(block)?;
        let room = LEAF - at;
        let moved = Extent { at, ..extent };
        let mut leaf = self.take_leaf(key, index)?;
        if moved.len <= room {
            leaf.insert(moved);
            return self.set_leaf(key, index, leaf);
        }
        // `part_of` speaks in places of one leaf; the extent overhangs this one, which its arithmetic allows.
        let end = at + moved.len;
        let (mut left, mut right) = (part_of(&moved, at, LEAF), part_of(&moved, LEAF, end));
        if moved.packed.is_some() {
            self.add_refs((moved.phys, moved.stored()))?;
            (left.shared, right.shared) = (true, true);
        }
        leaf.insert(left);
        self.set_leaf(key, index, leaf)?;
        right.at = 0;
        self.map_across(key, block + u64::from(room), right)
    }

    fn move_object(&mut self, from: &Bytes, to: &Bytes) -> Result<(), StoreError> {
        let Some(header) = self.header(from)? else { return Err(corrupt("a rename in the journal has no source")) };
        for index in header.leaf_indexes(0, u32::MAX) {
            let key = keys::leaf(from, index);
            let leaf = self.cell(&key)?;
            self.cells.insert(key, None);
            self.cells.insert(keys::leaf(to, index), leaf);
        }
        self.set_header(from, None)?;
        self.set_header(to, Some(Arc::unwrap_or_clone(header)))
    }

    /// Whether what it frees was held, and once: metadata in which two objects name one block would have it freed twice.
    /// To be asked before it is published.
    pub(crate) fn check_freed(&self) -> Result<(), StoreError> {
        let mut runs = self.freed.clone();
        runs.sort_unstable();
        let twice = runs.windows(2).any(|pair| pair[0].0 + pair[0].1 > pair[1].0);
        if !twice && runs.iter().all(|run| self.state.alloc.holds(*run)) {
            return Ok(());
        }
        Err(corrupt("blocks that are to be freed are free already, or belong to something else"))
    }

    /// Gives back what was taken; the state is as it was.
    pub(crate) fn abort(self) {
        for run in self.allocated {
            self.state.alloc.untake(run);
        }
    }

    /// Makes the transaction part of the submitted state. `weight` is what its record takes in the journal.
    pub(crate) fn publish(self) -> Vec<(u64, Bytes)> {
        let state = self.state;
        let layer = &mut state.active;
        let mut grown = 0usize;
        let mut shrunk = 0usize;
        for (key, mut cell) in self.cells {
            if let Some(Cell::Leaf(leaf)) = &mut cell
                && let Some(leaf) = Arc::get_mut(leaf)
            {
                leaf.trim();
            }
            if key.first() == Some(&b'C') {
                publish_collection(&mut state.colls, &mut state.dead, &key, cell.as_ref());
            }
            let weight = |cell: &Option<Cell>| cell.as_ref().map_or(0, Cell::weight);
            grown += weight(&cell);
            let fixed = key.len() + 96;
            // An older value in the clean cache would only take room: the layers above hide it.
            state.cells.remove(&key);
            match layer.cells.insert(key, cell) {
                Some(old) => shrunk += weight(&old),
                None => grown += fixed,
            }
        }
        for (key, present) in self.names {
            grown += key.len() + 64;
            layer.names.insert(key, present.then(Bytes::new));
        }
        for (key, value) in self.omap {
            grown += key.len() + 96 + value.as_ref().map_or(0, Bytes::len);
            if let Some(old) = layer.omap.insert(key, value) {
                shrunk += 96 + old.map_or(0, |old| old.len());
            }
        }
        layer.dropped_omaps.extend(self.dropped_omaps);
        for effect in self.logs {
            match effect {
                Effect::LogAppend { coll, version, entry } => {
                    grown += entry.len() + 96;
                    layer.logs.entry(coll).or_default().entries.insert(version, entry);
                }
                Effect::LogTrim { coll, to } => {
                    let delta = layer.logs.entry(coll).or_default();
                    delta.trim = delta.trim.max(Some(to));
                    while let Some(entry) = delta.entries.first_entry().filter(|entry| *entry.key() <= to) {
                        shrunk += entry.get().len() + 96;
                        entry.remove();
                    }
                }
                Effect::LogRewind { coll, after } => {
                    let delta = layer.logs.entry(coll).or_default();
                    delta.rewind = Some(delta.rewind.map_or(after, |old| old.min(after)));
                    while let Some(entry) = delta.entries.last_entry().filter(|entry| *entry.key() > after) {
                        shrunk += entry.get().len() + 96;
                        entry.remove();
                    }
                }
                Effect::LogDrop { coll } => {
                    layer.logs.remove(&coll);
                    layer.dropped_logs.push(coll);
                }
                _ => {}
            }
        }
        for (phys, bytes) in self.blocks {
            if layer.blocks.insert(phys, bytes).is_none() {
                grown += 4096 + 64;
            }
            let below = state.frozen.as_ref().is_some_and(|frozen| frozen.warm.contains(&phys));
            if (state.blocks.remove(&phys) || below) && layer.warm.insert(phys) {
                grown += WARM;
            }
        }
        for run in &self.freed {
            for block in run.0..run.0 + run.1 {
                if layer.blocks.remove(&block).is_some() {
                    shrunk += 4096 + 64;
                }
                if layer.warm.remove(&block) {
                    shrunk += WARM;
                }
                state.blocks.remove(&block);
            }
            state.alloc.release(*run);
        }
        for (phys, bytes) in &self.direct {
            for block in *phys..*phys + bytes.len() as u64 / 4096 {
                state.blocks.remove(&block);
            }
            state.inflight.insert(*phys, bytes.clone());
        }
        layer.weight = (layer.weight + grown).saturating_sub(shrunk);
        state.next_id = self.next_id;
        self.direct
    }
}

/// The part of an extent that maps `low..high` of it.
fn part_of(extent: &Extent, low: u16, high: u16) -> Extent {
    let mut alone = Leaf { extents: vec![Extent { at: extent.at, ..extent.clone() }] };
    if low > extent.at {
        alone.cut(extent.at, low);
    }
    if high < extent.end() {
        alone.cut(high, extent.end());
    }
    alone.extents.pop().unwrap_or_else(|| extent.clone())
}

fn publish_collection(
    colls: &mut BTreeMap<nacre_proto::ids::PgId, Arc<Coll>>,
    dead: &mut BTreeMap<u64, Arc<Coll>>,
    key: &Bytes,
    cell: Option<&Cell>,
) {
    let Ok(id) = keys::number(key) else { return };
    colls.retain(|_, coll| coll.id != id);
    dead.remove(&id);
    if let Some(Cell::Coll(coll)) = cell {
        if coll.dead {
            dead.insert(id, coll.clone());
        } else {
            colls.insert(coll.pg, coll.clone());
        }
    }
}
