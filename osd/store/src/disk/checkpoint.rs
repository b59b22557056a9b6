//! Checkpoints: lays down what the journal deferred, gives RocksDB the changed metadata, lets the journal's old groups go.
//!
//! The steps, and why a crash between any two is harmless:
//! 1. `freeze`: under the lock, the changes so far (up to transaction N) become a layer of their own.
//! 2. Wait until N is durable: blocks must never be ahead of the journal.
//! 3. `lay_down`: deferred blocks to their places, one flush. Until RocksDB knows N, replay starts before N and brings
//!    every one of these blocks again, whole, out of the journal; it reads none of them.
//! 4. `feed`: one atomic durable batch with all changed values, and N. From here replay starts after N.
//! 5. `finish`: what was freed before N may be given out, the journal before N overwritten.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use nacre_proto::ids::Version;

use super::alloc::Words;
use super::codec::Put;
use super::keys;
use super::kv::KvOp;
use super::meta::{Cell, decode_log, encode_log};
use super::plan::Plan;
use super::state::{Layer, LogDelta};
use super::{Engine, lock};
use crate::api::BLOCK;
use crate::error::StoreError;

/// Which chunks a collection's log has in RocksDB, with the first and last version in each; read once, then kept.
#[derive(Default)]
pub(crate) struct LogIndex {
    chunks: HashMap<u64, BTreeMap<u64, (Version, Version)>>,
}

/// Bytes laid down with one call.
const LAY: usize = 2 << 20;
/// Keys of a dropped omap that are deleted one by one; more are deleted as a range, which costs later reads more.
const FEW: usize = 1024;

impl Engine {
    pub(crate) fn request_checkpoint(&self) {
        if self.threaded {
            let mut turns = lock(&self.turns);
            if turns.wanted <= turns.started {
                turns.wanted = turns.started + 1;
                self.turned.notify_all();
            }
        }
    }

    /// Returns after a checkpoint that began after this call.
    pub(crate) fn checkpoint_and_wait(&self) -> Result<(), StoreError> {
        if !self.threaded {
            return self.checkpoint();
        }
        let mut turns = lock(&self.turns);
        let mine = turns.started + 1;
        turns.wanted = turns.wanted.max(mine);
        self.turned.notify_all();
        while turns.done < mine {
            self.check_poison()?;
            turns = self.turned.wait(turns).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        // A failed one is over too.
        self.check_poison()
    }

    /// The checkpointer's life.
    pub(crate) fn checkpoint_forever(&self) {
        loop {
            let mut turns = lock(&self.turns);
            while turns.wanted <= turns.done && !turns.stop {
                turns = self.turned.wait(turns).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            if turns.stop {
                return;
            }
            turns.started += 1;
            let turn = turns.started;
            drop(turns);
            // An error has poisoned the store; whoever waits is told by that.
            let _ = self.checkpoint();
            let again = !self.poisoned.load(Ordering::Acquire) && !self.state().dead.is_empty();
            let mut turns = lock(&self.turns);
            turns.done = turn;
            if again {
                turns.wanted = turns.wanted.max(turn + 1);
            }
            if self.poisoned.load(Ordering::Acquire) {
                turns.wanted = turns.done;
            }
            drop(turns);
            self.turned.notify_all();
        }
    }

    /// One whole checkpoint.
    pub(crate) fn checkpoint(&self) -> Result<(), StoreError> {
        let mut index = lock(&self.checkpointer);
        self.check_poison()?;
        let result = self.reap().and_then(|()| {
            // A layer is frozen already only after a step of an earlier checkpoint was left undone; it comes first.
            let unfinished = self.state().frozen.clone();
            let layer = unfinished.unwrap_or_else(|| self.freeze());
            self.lay_down(&layer)?;
            self.feed(&layer, &mut index)?;
            self.finish(&layer);
            Ok(())
        });
        result.map_err(|error| match error {
            StoreError::Poisoned { .. } => error,
            error => self.poison(&error),
        })
    }

    /// Frees some of what removed collections hold.
    fn reap(&self) -> Result<(), StoreError> {
        for _ in 0..64 {
            let mut state = self.state();
            if !self.has_room(&state) {
                break;
            }
            let Some(coll) = state.dead.values().next().cloned() else { break };
            let plan = Plan::new(&mut state, &*self.kv, &*self.blocks, coll.pg).reap(&coll)?;
            self.accept(plan, Box::new(|_| ()))?;
        }
        Ok(())
    }

    pub(crate) fn freeze(&self) -> Arc<Layer> {
        self.state().freeze()
    }

    /// Writes the layer's blocks where they belong, in order of place, neighbours with one write.
    pub(crate) fn lay_down(&self, layer: &Layer) -> Result<(), StoreError> {
        self.wait_durable(layer.applied.seq)?;
        if layer.blocks.is_empty() {
            return Ok(());
        }
        let mut blocks: Vec<(u64, &Bytes)> = layer.blocks.iter().map(|(phys, bytes)| (*phys, bytes)).collect();
        blocks.sort_unstable_by_key(|(phys, _)| *phys);
        let failed = |error| StoreError::io("cannot lay down deferred writes", error);
        let mut buf = lock(&self.laying);
        for part in blocks.chunks(LAY / BLOCK as usize) {
            buf.clear();
            let mut runs: Vec<(u64, usize, usize)> = Vec::new();
            for (phys, bytes) in part {
                let from = buf.len();
                buf.extend(bytes);
                match runs.last_mut() {
                    Some((first, low, high)) if *first + ((*high - *low) as u64 / BLOCK) == *phys => *high = buf.len(),
                    _ => runs.push((*phys, from, buf.len())),
                }
            }
            let writes: Vec<_> = runs.iter().map(|(phys, low, high)| (phys * BLOCK, &buf[*low..*high])).collect();
            self.blocks.write_many(&writes).map_err(failed)?;
            self.counters.block_bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        }
        self.blocks.sync().map_err(failed)?;
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Gives the database the layer's metadata.
    pub(crate) fn feed(&self, layer: &Layer, index: &mut LogIndex) -> Result<(), StoreError> {
        let change = |key: &Bytes, value: Option<Vec<u8>>| match value {
            Some(value) => KvOp::Put(key.clone(), value),
            None => KvOp::Delete(key.clone()),
        };
        let cells = layer.cells.iter().map(|(key, cell)| change(key, cell.as_ref().map(Cell::encode)));
        let dropped: HashSet<u64> = layer.dropped_omaps.iter().copied().collect();
        let lives = |key: &Bytes| dropped.is_empty() || keys::number(key).is_ok_and(|id| !dropped.contains(&id));
        let omap = layer.omap.iter().filter(|(key, _)| lives(key));
        let omap = omap.map(|(key, value)| change(key, value.as_ref().map(|value| value.to_vec())));
        let mut batch = Vec::new();
        for id in &dropped {
            let id = *id;
            self.drop_keys(&keys::first(b'M', id), &keys::past(b'M', id), &mut batch)?;
        }
        for (coll, delta) in &layer.logs {
            self.feed_log(*coll, delta, layer.applied.seq, index, &mut batch)?;
        }
        for coll in &layer.dropped_logs {
            index.chunks.remove(coll);
            self.drop_keys(&keys::first(b'G', *coll), &keys::past(b'G', *coll), &mut batch)?;
        }
        for (chunk, words) in &layer.bitmaps {
            batch.push(bitmap_value(*chunk, words));
        }
        let mut applied = layer.applied;
        (applied.group, applied.at) = lock(&self.journal).position_after(applied.seq);
        batch.push(KvOp::Put(Bytes::from_static(keys::APPLIED), applied.encode()));
        self.kv.commit(&mut cells.chain(omap).chain(batch))
    }

    fn drop_keys(&self, from: &Bytes, to: &Bytes, batch: &mut Vec<KvOp>) -> Result<(), StoreError> {
        let mut found = Vec::new();
        self.kv.scan(from, to, &mut |key, _| {
            found.push(Bytes::copy_from_slice(key));
            found.len() <= FEW
        })?;
        if found.len() > FEW {
            batch.push(KvOp::DeleteRange(from.clone(), to.clone()));
        } else {
            batch.extend(found.into_iter().map(KvOp::Delete));
        }
        Ok(())
    }

    fn feed_log(
        &self,
        coll: u64,
        delta: &LogDelta,
        seq: u64,
        index: &mut LogIndex,
        batch: &mut Vec<KvOp>,
    ) -> Result<(), StoreError> {
        let malformed = || StoreError::CorruptMetadata { what: format!("a log chunk of collection {coll}") };
        if let std::collections::hash_map::Entry::Vacant(entry) = index.chunks.entry(coll) {
            let mut chunks = BTreeMap::new();
            let mut bad = false;
            self.kv.scan(&keys::first(b'G', coll), &keys::past(b'G', coll), &mut |key, value| {
                let seq = key.get(9..).and_then(|rest| rest.first_chunk::<8>()).map(|seq| u64::from_be_bytes(*seq));
                match (seq, decode_log(Bytes::copy_from_slice(value)).map(|log| bounds(&log))) {
                    (Some(seq), Ok(Some(bounds))) => drop(chunks.insert(seq, bounds)),
                    _ => bad = true,
                }
                !bad
            })?;
            if bad {
                return Err(malformed());
            }
            entry.insert(chunks);
        }
        let Some(chunks) = index.chunks.get_mut(&coll) else { return Ok(()) };
        if delta.trim.is_some() || delta.rewind.is_some() {
            let touched: Vec<u64> = chunks
                .iter()
                .filter(|(_, (low, high))| {
                    delta.trim.is_some_and(|to| *low <= to) || delta.rewind.is_some_and(|after| *high > after)
                })
                .map(|(seq, _)| *seq)
                .collect();
            for chunk in touched {
                let key = keys::log_chunk(coll, chunk);
                let whole = chunks.get(&chunk).is_some_and(|(low, high)| {
                    delta.trim.is_some_and(|to| *high <= to) || delta.rewind.is_some_and(|after| *low > after)
                });
                let mut kept = BTreeMap::new();
                if !whole {
                    let value = self.kv.get(&key)?.ok_or_else(malformed)?;
                    kept = decode_log(value).map_err(|_| malformed())?;
                    kept.retain(|version, _| !delta.hides(*version));
                }
                match bounds(&kept) {
                    Some(bounds) => {
                        chunks.insert(chunk, bounds);
                        batch.push(KvOp::Put(key, encode_log(&kept)));
                    }
                    None => {
                        chunks.remove(&chunk);
                        batch.push(KvOp::Delete(key));
                    }
                }
            }
        }
        if let Some(bounds) = bounds(&delta.entries) {
            chunks.insert(seq, bounds);
            batch.push(KvOp::Put(keys::log_chunk(coll, seq), encode_log(&delta.entries)));
        }
        Ok(())
    }

    /// The layer is on disk: its space and its journal are free.
    pub(crate) fn finish(&self, layer: &Layer) {
        if self.discard {
            let freed = self.state().alloc.frozen().to_vec();
            for (phys, len) in freed {
                self.blocks.discard(phys * BLOCK, len * BLOCK);
            }
        }
        let kv_full = self.kv_is_full();
        lock(&self.journal).trim(layer.applied.seq);
        let mut state = self.state();
        state.kv_full = kv_full;
        state.thaw();
        drop(state);
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
    }
}

/// How a piece of the bitmap is kept.
pub(crate) fn bitmap_value(chunk: u64, words: &Words) -> KvOp {
    if words.iter().all(|word| *word == 0) {
        return KvOp::Delete(keys::bitmap(chunk));
    }
    let mut value = vec![1];
    words.iter().for_each(|word| value.u64(*word));
    KvOp::Put(keys::bitmap(chunk), value)
}

fn bounds(log: &BTreeMap<Version, Bytes>) -> Option<(Version, Version)> {
    Some((*log.first_key_value()?.0, *log.last_key_value()?.0))
}
