//! The ordered metadata database as the engine needs it: point reads, scans, and one atomic durable batch for each
//! checkpoint. RocksDB fills it ([`super::rocks`]); so does a plain map, which crash tests can copy at any moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::error::StoreError;

/// One change of a batch, applied in order.
#[derive(Clone, Debug)]
pub(crate) enum KvOp {
    Put(Bytes, Vec<u8>),
    Delete(Bytes),
    /// From the first key to before the second.
    DeleteRange(Bytes, Bytes),
}

/// Called with key and value; returns whether to go on.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

pub(crate) trait Kv: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// Visits `[from, to)` in order.
    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), StoreError>;
    /// All of it or nothing, on stable storage when it returns. Taken one by one, so that a large checkpoint's values need not
    /// all be there beside what is made of them.
    fn commit(&self, batch: &mut dyn Iterator<Item = KvOp>) -> Result<(), StoreError>;
    /// Verifies every checksum of its files and visits every key, in the order in which they are stored.
    fn verify(&self, visit: &mut dyn FnMut(&[u8])) -> Result<(), StoreError> {
        self.scan(&[], &[u8::MAX], &mut |key, _| {
            visit(key);
            true
        })
    }
    /// Reads and commits so far, if they are counted.
    fn calls(&self) -> (u64, u64) {
        (0, 0)
    }
    /// Bytes of memory it holds.
    fn memory(&self) -> u64 {
        0
    }
    /// Bytes its file system still has, if it is on one.
    fn room(&self) -> Option<u64> {
        None
    }
}

/// A map in memory, for tests. A scan sees the map as it was when it began, and its visitor may read.
#[derive(Clone, Default)]
pub(crate) struct MemKv {
    map: Arc<Mutex<Arc<BTreeMap<Bytes, Bytes>>>>,
}

#[cfg_attr(not(any(test, feature = "fuzz")), expect(dead_code, reason = "only tests keep metadata in memory"))]
impl MemKv {
    pub(crate) fn from_map(map: Arc<BTreeMap<Bytes, Bytes>>) -> Self {
        MemKv { map: Arc::new(Mutex::new(map)) }
    }

    pub(crate) fn snapshot(&self) -> Arc<BTreeMap<Bytes, Bytes>> {
        self.lock().clone()
    }
}

impl MemKv {
    fn lock(&self) -> MutexGuard<'_, Arc<BTreeMap<Bytes, Bytes>>> {
        self.map.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Kv for MemKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.lock().get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        use std::ops::Bound::{Excluded, Included};
        if from >= to {
            return Ok(());
        }
        let map = self.lock().clone();
        for (key, value) in map.range::<[u8], _>((Included(from), Excluded(to))) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, batch: &mut dyn Iterator<Item = KvOp>) -> Result<(), StoreError> {
        let mut guard = self.lock();
        let map = Arc::make_mut(&mut guard);
        for op in batch {
            match op {
                KvOp::Put(key, value) => drop(map.insert(key, value.into())),
                KvOp::Delete(key) => drop(map.remove(&key)),
                KvOp::DeleteRange(from, to) => map.retain(|key, _| *key < from || *key >= to),
            }
        }
        Ok(())
    }
}

type Layer = BTreeMap<Bytes, Option<Bytes>>;

/// Visits `[from, to)` of the database with changes laid over it, the first layer topmost; an absent value hides.
pub(crate) fn merged_scan(
    layers: &[&Layer],
    kv: &dyn Kv,
    from: &[u8],
    to: &[u8],
    visit: Visit<'_>,
) -> Result<(), StoreError> {
    use std::ops::Bound::{Excluded, Included};
    if from >= to {
        return Ok(());
    }
    let mut tops: Vec<_> =
        layers.iter().map(|layer| layer.range::<[u8], _>((Included(from), Excluded(to))).peekable()).collect();
    // The lowest key of the layers up to `limit`, taken off all of them; the topmost speaks.
    let mut next = |limit: Option<&[u8]>| -> Option<(Bytes, Option<Bytes>)> {
        let low = tops.iter_mut().filter_map(|top| top.peek().map(|(key, _)| (*key).clone())).min()?;
        if limit.is_some_and(|limit| low.as_ref() > limit) {
            return None;
        }
        let mut said = None;
        for top in &mut tops {
            if top.peek().is_some_and(|(key, _)| **key == low) {
                let (_, value) = top.next()?;
                said.get_or_insert_with(|| value.clone());
            }
        }
        Some((low, said.flatten()))
    };
    let mut stopped = false;
    kv.scan(from, to, &mut |key, value| {
        while let Some((over, change)) = next(Some(key)) {
            let same = over.as_ref() == key;
            if let Some(change) = change
                && !visit(&over, &change)
            {
                stopped = true;
                return false;
            }
            if same {
                return true;
            }
        }
        stopped = !visit(key, value);
        !stopped
    })?;
    while !stopped {
        let Some((over, change)) = next(None) else { break };
        if let Some(change) = change {
            stopped = !visit(&over, &change);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn layers_hide_and_add(
            base in proptest::collection::btree_map(0..20u8, 0..9u8, 0..15),
            low in proptest::collection::btree_map(0..20u8, proptest::option::of(10..19u8), 0..15),
            top in proptest::collection::btree_map(0..20u8, proptest::option::of(20..29u8), 0..15),
            from in 0..20u8, to in 0..20u8, max in 1..20usize,
        ) {
            let byte = |b: u8| Bytes::copy_from_slice(&[b]);
            let layer = |map: &BTreeMap<u8, Option<u8>>| -> Layer { map.iter().map(|(k, v)| (byte(*k), v.map(byte))).collect() };
            let kv = MemKv::from_map(Arc::new(base.iter().map(|(k, v)| (byte(*k), byte(*v))).collect()));
            let mut model: BTreeMap<u8, Option<u8>> = base.iter().map(|(k, v)| (*k, Some(*v))).collect();
            model.extend(&low);
            model.extend(&top);
            let want: Vec<_> = model.iter().filter(|(k, _)| (from..to.max(from)).contains(k)).filter_map(|(k, v)| v.map(|v| (*k, v))).take(max).collect();
            let mut got = Vec::new();
            merged_scan(&[&layer(&top), &layer(&low)], &kv, &[from], &[to], &mut |key, value| {
                got.push((key[0], value[0]));
                got.len() < max
            }).unwrap();
            prop_assert_eq!(got, want);
        }
    }
}
