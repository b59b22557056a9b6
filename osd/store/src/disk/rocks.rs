//! RocksDB as the metadata database: without its own log, flushed once for each checkpoint's batch.
//!
//! A batch goes into one memtable whole and the memtable becomes one file, so a flush makes it durable all or not at
//! all; what was written and not flushed is forgotten by a crash, and the journal still has it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use rocksdb::{BlockBasedOptions, Cache, DB, FlushOptions, Options, ReadOptions, WriteBatch, WriteOptions};

use super::kv::{Kv, KvOp, Visit};
use crate::error::StoreError;

pub(crate) struct RocksKv {
    db: DB,
    cache: Cache,
    path: PathBuf,
    reads: AtomicU64,
    commits: AtomicU64,
    /// Bytes of the last batch: the next one is likely as large, and need not grow into its place.
    batch: AtomicUsize,
}

/// The most a batch is given room for before it is filled.
const BATCH: usize = 16 << 20;

fn failed(error: rocksdb::Error) -> StoreError {
    StoreError::Kv { what: error.into_string() }
}

impl RocksKv {
    /// Opens, or creates if told to, with so much memory for cached blocks.
    pub(crate) fn open(path: &Path, create: bool, memory: usize) -> Result<Self, StoreError> {
        let cache = Cache::new_lru_cache(memory);
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&cache);
        table.set_bloom_filter(10.0, false);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_format_version(6);
        let mut options = Options::default();
        options.create_if_missing(create);
        options.set_error_if_exists(create);
        options.set_block_based_table_factory(&table);
        options.set_paranoid_checks(true);
        // A checkpoint is flushed by hand; the memtable must hold it whole whatever its size.
        options.set_write_buffer_size(1 << 30);
        options.set_arena_block_size(1 << 20);
        options.set_max_write_buffer_number(2);
        // Each checkpoint makes a file; filters keep a look-up from most of them.
        options.set_level_zero_file_num_compaction_trigger(8);
        options.set_target_file_size_base(16 << 20);
        options.set_max_bytes_for_level_base(64 << 20);
        options.set_max_background_jobs(2);
        // What the last checkpoints wrote is written again soon, and half of it is checksums: only what has sunk is packed.
        let (raw, lz4) = (rocksdb::DBCompressionType::None, rocksdb::DBCompressionType::Lz4);
        options.set_compression_per_level(&[raw, raw, lz4, lz4, lz4, lz4, lz4]);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1 << 20);
        options.set_stats_dump_period_sec(0);
        options.set_max_open_files(512);
        let db = DB::open(&options, path).map_err(failed)?;
        let (reads, commits, batch) = Default::default();
        Ok(RocksKv { db, cache, path: path.to_owned(), reads, commits, batch })
    }
}

impl Kv for RocksKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(self.db.get(key).map_err(failed)?.map(Bytes::from))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mut iter = self.db.raw_iterator_opt(options);
        iter.seek(from);
        while let Some((key, value)) = iter.item() {
            if !visit(key, value) {
                return Ok(());
            }
            iter.next();
        }
        iter.status().map_err(failed)
    }

    fn commit(&self, batch: &mut dyn Iterator<Item = KvOp>) -> Result<(), StoreError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        let mut writes = WriteBatch::with_capacity_bytes(self.batch.load(Ordering::Relaxed).min(BATCH));
        for op in batch {
            match op {
                KvOp::Put(key, value) => writes.put(key, value),
                KvOp::Delete(key) => writes.delete(key),
                KvOp::DeleteRange(from, to) => writes.delete_range(from, to),
            }
        }
        self.batch.store(writes.size_in_bytes() * 9 / 8, Ordering::Relaxed);
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(writes, &options).map_err(failed)?;
        let mut flush = FlushOptions::default();
        flush.set_wait(true);
        self.db.flush_opt(&flush).map_err(failed)
    }

    fn verify(&self, visit: &mut dyn FnMut(&[u8])) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut iter = self.db.raw_iterator_opt(options);
        iter.seek_to_first();
        while let Some(key) = iter.key() {
            visit(key);
            iter.next();
        }
        iter.status().map_err(failed)
    }

    fn calls(&self) -> (u64, u64) {
        (self.reads.load(Ordering::Relaxed), self.commits.load(Ordering::Relaxed))
    }

    fn memory(&self) -> u64 {
        let property = |name: &str| self.db.property_int_value(name).ok().flatten().unwrap_or(0);
        self.cache.get_usage() as u64
            + property("rocksdb.cur-size-all-mem-tables")
            + property("rocksdb.estimate-table-readers-mem")
    }

    fn room(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.path).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
