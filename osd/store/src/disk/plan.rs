//! From verbs to effects: decides what a transaction does to blocks, allocates, merges partial blocks, and encodes the
//! record while the stage applies it. Here the verbs on names, attributes, omaps, logs and collections; those on bytes are in
//! [`data`].

mod data;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, PgId};
use nacre_proto::txn::{Transaction, TxnOp};

use super::device::Device;
use super::keys;
use super::kv::Kv;
use super::meta::{Coll, Header};
use super::record::Effect;
use super::stage::Stage;
use super::state::State;
use crate::api::BLOCK;
use crate::error::StoreError;
use crate::ranges::{HashRanges, seed_range};

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
