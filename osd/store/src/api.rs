//! What a placement group may ask of its store, whatever the store is made of.
//!
//! Only the seam: no storage, no threads. Verbs that change are [`Transaction`]s; here are submission, completion and
//! the reads. All methods take `&self`; implementations lock inside.

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, PgId, Version};
use nacre_proto::txn::Transaction;

use crate::error::StoreError;

/// Called once, when the transaction is on stable storage or can never be. A store that runs without threads calls it
/// from [`crate::MemoryStore::commit`]; the real one from its committer, so it must be short and never wait.
pub type Completion = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The number of a transaction in the order of submission, from 1.
pub type Seq = u64;

/// The unit of mapping, checksums and allocation.
pub const BLOCK: u64 = 4096;

/// The largest size an object may have: 16 TiB.
pub const MAX_OBJECT: u64 = 1 << 44;

/// The local object store.
///
/// - A transaction is applied all or not at all; an `Err` from [`submit`](ObjectStore::submit) means it left no trace.
/// - Order is the order of submission; a crash keeps a prefix of it that holds everything acknowledged.
/// - Reads see what was submitted, durable or not.
/// - Bytes are mapped in blocks of 4 KiB of the object: a block is data once any byte of it was written, and a hole
///   again once a zero or a truncate covers it whole. Holes read as zeros.
pub trait ObjectStore: Send + Sync {
    /// Applies in memory and queues for stable storage.
    fn submit(&self, txn: Transaction, done: Completion) -> Result<Seq, StoreError>;

    /// Size, and whether the object is there at all.
    fn stat(&self, pg: PgId, oid: &ObjectId) -> Result<Option<ObjectStat>, StoreError>;
    /// The data in a range, holes left out, cut at the object's size. An absent object is an error.
    fn read(&self, pg: PgId, oid: &ObjectId, offset: u64, len: u64) -> Result<Vec<DataExtent>, StoreError>;
    /// Where there is data in a range: `(offset, length)`, merged, cut at the object's size.
    fn sparse_map(&self, pg: PgId, oid: &ObjectId, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, StoreError>;
    /// One xattr.
    fn xattr(&self, pg: PgId, oid: &ObjectId, name: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// All xattrs by name.
    fn xattrs(&self, pg: PgId, oid: &ObjectId) -> Result<Vec<(Bytes, Bytes)>, StoreError>;
    /// The omap's header; empty if never set.
    fn omap_header(&self, pg: PgId, oid: &ObjectId) -> Result<Bytes, StoreError>;
    /// The entries present among some keys.
    fn omap_get(&self, pg: PgId, oid: &ObjectId, keys: &[Bytes]) -> Result<Vec<(Bytes, Bytes)>, StoreError>;
    /// Entries with key >= `from` in order, at most `max`. To go on, call again from the last key with a zero byte
    /// appended.
    fn omap_list(&self, pg: PgId, oid: &ObjectId, from: &[u8], max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError>;
    /// Objects after `after` in store order, at most `max`.
    fn list(&self, pg: PgId, after: Option<&ObjectId>, max: usize) -> Result<Vec<ObjectId>, StoreError>;
    /// Log entries with version > `after` in order, at most `max`.
    fn log(&self, pg: PgId, after: Version, max: usize) -> Result<Vec<(Version, Bytes)>, StoreError>;
    /// One of the collection's own values.
    fn meta(&self, pg: PgId, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// All of the collection's own values by key.
    fn meta_list(&self, pg: PgId) -> Result<Vec<(Bytes, Bytes)>, StoreError>;
    /// All collections.
    fn collections(&self) -> Result<Vec<PgId>, StoreError>;
    /// Space.
    fn usage(&self) -> Usage;

    /// The bytes of a range in one piece, holes as zeros, cut at the object's size.
    fn read_flat(&self, pg: PgId, oid: &ObjectId, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let extents = self.read(pg, oid, offset, len)?;
        // All of it, and no hole: that needs no look at the object's size.
        if let [only] = extents.as_slice()
            && only.data.len() as u64 == len
        {
            return Ok(only.data.clone());
        }
        let size = self.stat(pg, oid)?.map_or(0, |stat| stat.size);
        let end = size.min(offset.saturating_add(len));
        let total = end.saturating_sub(offset);
        if let [only] = extents.as_slice()
            && only.data.len() as u64 == total
        {
            return Ok(only.data.clone());
        }
        let mut flat = vec![0; total as usize];
        for extent in extents {
            let at = (extent.offset - offset) as usize;
            if let Some(to) = flat.get_mut(at..at + extent.data.len()) {
                to.copy_from_slice(&extent.data);
            }
        }
        Ok(flat.into())
    }

    /// blake3 over size, data, xattrs and omap: equal on two stores exactly if the object is.
    fn digest(&self, pg: PgId, oid: &ObjectId) -> Result<[u8; 32], StoreError> {
        const STEP: u64 = 4 << 20;
        let Some(stat) = self.stat(pg, oid)? else {
            return Err(StoreError::NoObject { pg, oid: oid.clone() });
        };
        let mut hash = blake3::Hasher::new();
        let mut part = |tag: u8, bytes: &[u8]| {
            hash.update(&[tag]);
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(0, &stat.size.to_le_bytes());
        let mut at = 0;
        while at < stat.size {
            // Whether zeros are stored or a hole is no difference of content, so a stretch of zeros is not hashed.
            for extent in self.read(pg, oid, at, STEP)? {
                let mut offset = extent.offset;
                for block in extent.data.chunks(BLOCK as usize) {
                    if block.iter().any(|byte| *byte != 0) {
                        part(1, &offset.to_le_bytes());
                        part(2, block);
                    }
                    offset += block.len() as u64;
                }
            }
            at += STEP;
        }
        for (name, value) in self.xattrs(pg, oid)? {
            part(3, &name);
            part(4, &value);
        }
        part(5, &self.omap_header(pg, oid)?);
        let mut from = Vec::new();
        loop {
            let page = self.omap_list(pg, oid, &from, 1024)?;
            for (key, value) in &page {
                part(6, key);
                part(7, value);
            }
            match page.last() {
                Some((last, _)) if page.len() == 1024 => {
                    from.clear();
                    from.extend_from_slice(last);
                    from.push(0);
                }
                _ => break,
            }
        }
        Ok(*hash.finalize().as_bytes())
    }
}

/// What is known of an object without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectStat {
    /// Its length in bytes.
    pub size: u64,
}

/// Bytes of an object, verified against what was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataExtent {
    /// Where in the object.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
    /// CRC-32 (IEEE) of `data`, to travel with it, where it is known without another look at the bytes.
    pub crc: Option<u32>,
}

/// Space of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes for object data.
    pub total: u64,
    /// Bytes that objects hold.
    pub used: u64,
    /// Bytes freed that come back with the next checkpoint.
    pub pending: u64,
    /// Bytes a write may still take; the reserve for deletes is not in it.
    pub available: u64,
}

/// How full a store is, for the map's flags and for refusing early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fullness {
    /// Room enough.
    Ok,
    /// Warn.
    Near,
    /// Take no backfill.
    Backfill,
    /// Take no client writes.
    Full,
}

/// The shares of the total at which a store counts as near full, too full for backfill, full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FullRatios {
    /// From here on: warn.
    pub near: f64,
    /// From here on: no backfill.
    pub backfill: f64,
    /// From here on: no client writes.
    pub full: f64,
}

impl Default for FullRatios {
    fn default() -> Self {
        FullRatios { near: 0.85, backfill: 0.90, full: 0.95 }
    }
}

impl Usage {
    /// Used share of the total.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        if self.total == 0 { 0.0 } else { self.used as f64 / self.total as f64 }
    }

    /// Where that stands against the thresholds.
    #[must_use]
    pub fn fullness(&self, ratios: &FullRatios) -> Fullness {
        let ratio = self.ratio();
        if ratio >= ratios.full {
            Fullness::Full
        } else if ratio >= ratios.backfill {
            Fullness::Backfill
        } else if ratio >= ratios.near {
            Fullness::Near
        } else {
            Fullness::Ok
        }
    }
}
