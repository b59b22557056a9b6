//! Log, ballot and snapshots of a monitor on RocksDB.
//!
//! Invariants:
//! - What was reported as durable (an appended entry, a ballot, a snapshot) is on disk and below the [`watermark`].
//! - Every value is a [`record`]: magic, version, checksum over key and payload.
//! - A store that has lost something it had synced does not open: [`StoreError::Lost`] says so, and its monitor comes
//!   back under a new identity. One that has lost only unsynced bytes opens as if they had never been written.
//! - After a failed sync the store takes no more writes until it is opened anew.
//!
//! Writes go to RocksDB's memory and the buffer of its journal first, where they can be read at once; a committer
//! thread then syncs whatever has gathered in one go and reports each append as durable.

mod log;
pub mod record;
pub mod snapshot;
pub mod watermark;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use bytes::Bytes;
use nacre_mon_api::v1;
use prost::Message;
use rocksdb::{BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, Options, WriteBatch, WriteOptions};

use crate::raft::convert::ConvertError;
use record::{Kind, RecordError};
use watermark::Watermark;

/// The version of the layout as a whole (column families, keys). 1: the first.
pub const LAYOUT: u32 = 1;

const LOG: &str = "log";
const META: &str = "default";
const IDENTITY: &[u8] = b"identity";
const BALLOT: &[u8] = b"ballot";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";
const SNAPSHOT_META: &[u8] = b"snapshot-meta";
const SNAPSHOT: &[u8] = b"snapshot";

/// What is wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// RocksDB gave up.
    #[error("monitor store {path}: {source}")]
    Rocks {
        /// Its folder.
        path: PathBuf,
        /// Why.
        source: rocksdb::Error,
    },
    /// A file beside the database.
    #[error("monitor store {path}: {source}")]
    File {
        /// Its folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Synced bytes are gone.
    #[error(
        "monitor store {path} has lost synced data: its journal ends at {found}, it was synced up to {synced}. \
         What this monitor promised to others may be among it, so it must come back under a new identity"
    )]
    Lost {
        /// Its folder.
        path: PathBuf,
        /// Where the journal ends.
        found: u64,
        /// Where it was known to be durable.
        synced: u64,
    },
    /// A value that is not what was written.
    #[error("monitor store {path}, {what}: {source}")]
    Corrupt {
        /// Its folder.
        path: PathBuf,
        /// Which value.
        what: String,
        /// What is wrong with it.
        source: RecordError,
    },
    /// A value whose checksum holds and whose content makes no sense.
    #[error("monitor store {path}, {what}: {problem}")]
    Senseless {
        /// Its folder.
        path: PathBuf,
        /// Which value.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Another monitor's, or another cluster's.
    #[error("monitor store {path} belongs to {found}, not to {wanted}: check the data folder in the configuration")]
    Foreign {
        /// Its folder.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// A sync failed before.
    #[error("monitor store {path} is poisoned by a failed sync: restart this monitor after looking at its disk")]
    Poisoned {
        /// Its folder.
        path: PathBuf,
    },
}

impl StoreError {
    /// Whether the store itself is damaged, so that only a new identity helps.
    pub fn is_damage(&self) -> bool {
        match self {
            StoreError::Lost { .. } | StoreError::Senseless { .. } => true,
            StoreError::Corrupt { source, .. } => !matches!(source, RecordError::Version(_)),
            StoreError::Rocks { source, .. } => source.kind() == rocksdb::ErrorKind::Corruption,
            StoreError::File { .. } | StoreError::Foreign { .. } | StoreError::Poisoned { .. } => false,
        }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> io::Error {
        io::Error::other(error)
    }
}

/// Whose store it is: written once, when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub fsid: String,
    /// The monitor's number, as in `mon.1`.
    pub mon: u64,
    /// The incarnation: its id among the members of the quorum.
    pub node: u64,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "mon.{} (node {:x}) of cluster {}", self.mon, self.node, self.fsid)
    }
}

/// Told when a sync has covered what it waited for.
pub type Job = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Where jobs go that wait for the next sync. The simulation puts its own here.
pub type Committer = Arc<dyn Fn(&Store, Job) + Send + Sync>;

struct Inner {
    db: DB,
    path: PathBuf,
    watermark: Mutex<Watermark>,
    poisoned: AtomicBool,
    fsync: bool,
    committer: Committer,
    syncs: AtomicU64,
}

/// An open store. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(2 << 20));
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // The journal is written and synced by us alone, see `sync`.
    options.set_manual_wal_flush(true);
    // A monitor writes little: small buffers, few files, few threads, so that it fits into tens of megabytes.
    options.set_write_buffer_size(1 << 20);
    options.set_max_write_buffer_number(2);
    options.set_db_write_buffer_size(2 << 20);
    options.set_max_total_wal_size(4 << 20);
    options.set_max_open_files(64);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_block_based_table_factory(&table);
    options
}

/// Starts the thread that syncs what has gathered, and returns the way to it.
pub fn committer_thread() -> Committer {
    let (sender, jobs) = mpsc::channel::<(Store, Job)>();
    std::thread::Builder::new()
        .name("mon-commit".into())
        .spawn(move || {
            while let Ok((store, first)) = jobs.recv() {
                let mut group = vec![first];
                group.extend(jobs.try_iter().map(|(_, job)| job));
                let result = store.sync();
                drop(store);
                for job in group {
                    job(match &result {
                        Ok(()) => Ok(()),
                        Err(error) => Err(io::Error::other(error.to_string())),
                    });
                }
            }
        })
        .map(drop)
        .unwrap_or_else(|error| tracing::error!(%error, "cannot start the committer thread"));
    Arc::new(move |store, job| {
        if let Err(mpsc::SendError((_, job))) = sender.send((store.clone(), job)) {
            job(Err(io::Error::other("the committer thread is gone")));
        }
    })
}

/// Syncs inline, in the caller's thread.
pub fn committer_inline() -> Committer {
    Arc::new(|store, job| job(store.sync().map_err(io::Error::from)))
}

impl Store {
    /// Opens the store of `identity` in `path`, creating it if there is none.
    ///
    /// `fsync` off leaves bytes in the page cache: they survive the process and not the machine. Only the simulation
    /// does that, where the machine is simulated as well.
    pub fn open(path: &Path, identity: &Identity, fsync: bool, committer: Committer) -> Result<Store, StoreError> {
        let store = Store::open_any(path, fsync, committer)?;
        match store.identity()? {
            Some(found) if found == *identity => {}
            Some(found) => {
                return Err(StoreError::Foreign {
                    path: path.to_owned(),
                    found: found.to_string(),
                    wanted: identity.to_string(),
                });
            }
            None => store.adopt(identity)?,
        }
        Ok(store)
    }

    /// Opens a store whosever it is.
    pub fn open_any(path: &Path, fsync: bool, committer: Committer) -> Result<Store, StoreError> {
        let file = |source| StoreError::File { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(file)?;
        let watermark = Watermark::open(&path.join("watermark")).map_err(file)?;
        let families = [META, LOG].map(|name| ColumnFamilyDescriptor::new(name, options()));
        let db = DB::open_cf_descriptors(&options(), path.join("db"), families)
            .map_err(|source| StoreError::Rocks { path: path.to_owned(), source })?;
        let found = db.latest_sequence_number();
        if found < watermark.last() {
            return Err(StoreError::Lost { path: path.to_owned(), found, synced: watermark.last() });
        }
        let inner = Inner {
            db,
            path: path.to_owned(),
            watermark: Mutex::new(watermark),
            poisoned: AtomicBool::new(false),
            fsync,
            committer,
            syncs: AtomicU64::new(0),
        };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// Whose store it is; none when it is new.
    pub fn identity(&self) -> Result<Option<Identity>, StoreError> {
        let Some(bytes) = self.get(Kind::Identity, IDENTITY)? else { return Ok(None) };
        let found = v1::StoreIdentity::decode(bytes).map_err(|error| self.senseless("identity", &error))?;
        if found.layout != LAYOUT {
            return Err(StoreError::Corrupt {
                path: self.inner.path.clone(),
                what: "identity".into(),
                source: RecordError::Version(u16::try_from(found.layout).unwrap_or(u16::MAX)),
            });
        }
        Ok(Some(Identity { fsid: found.fsid, mon: found.mon, node: found.node }))
    }

    fn adopt(&self, identity: &Identity) -> Result<(), StoreError> {
        let message =
            v1::StoreIdentity { layout: LAYOUT, fsid: identity.fsid.clone(), mon: identity.mon, node: identity.node };
        let mut batch = WriteBatch::default();
        batch.put_cf(self.meta()?, IDENTITY, record::encode(Kind::Identity, IDENTITY, &message.encode_to_vec()));
        self.write(batch)?;
        self.sync()
    }

    /// How many syncs it has made.
    pub fn syncs(&self) -> u64 {
        self.inner.syncs.load(Ordering::Relaxed)
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Makes everything written so far durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.check()?;
        // Taken first: what is written while we sync may not be covered by it.
        let sequence = self.inner.db.latest_sequence_number();
        let synced = self.inner.db.flush_wal(self.inner.fsync).map_err(|source| self.rocks(source)).and_then(|()| {
            let mut watermark = self.inner.watermark.lock().unwrap_or_else(PoisonError::into_inner);
            watermark.advance(sequence).map_err(|source| StoreError::File { path: self.inner.path.clone(), source })
        });
        self.inner.syncs.fetch_add(1, Ordering::Relaxed);
        if synced.is_err() {
            self.inner.poisoned.store(true, Ordering::Release);
        }
        synced
    }

    /// Has `job` told once everything written so far is durable.
    fn when_durable(&self, job: Job) {
        (self.inner.committer)(self, job);
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.inner.poisoned.load(Ordering::Acquire) {
            return Err(StoreError::Poisoned { path: self.inner.path.clone() });
        }
        Ok(())
    }

    fn rocks(&self, source: rocksdb::Error) -> StoreError {
        StoreError::Rocks { path: self.inner.path.clone(), source }
    }

    fn senseless(&self, what: &str, problem: &dyn std::fmt::Display) -> StoreError {
        StoreError::Senseless { path: self.inner.path.clone(), what: what.into(), problem: problem.to_string() }
    }

    fn misread(&self, what: &str) -> impl Fn(ConvertError) -> StoreError {
        let (store, what) = (self.clone(), what.to_owned());
        move |error| store.senseless(&what, &error)
    }

    fn family(&self, name: &str) -> Result<&ColumnFamily, StoreError> {
        self.inner.db.cf_handle(name).ok_or_else(|| self.senseless(name, &"the column family is missing"))
    }

    fn meta(&self) -> Result<&ColumnFamily, StoreError> {
        self.family(META)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        self.check()?;
        self.inner.db.write_opt(batch, &WriteOptions::default()).map_err(|source| self.rocks(source))
    }

    fn get(&self, kind: Kind, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.inner.db.get_cf(self.meta()?, key).map_err(|source| self.rocks(source))?;
        found.map(|value| self.unframe(kind, key, &value)).transpose()
    }

    fn unframe(&self, kind: Kind, key: &[u8], value: &[u8]) -> Result<Bytes, StoreError> {
        record::decode(kind, key, value).map_err(|source| StoreError::Corrupt {
            path: self.inner.path.clone(),
            what: format!("{kind:?} {}", key.escape_ascii()),
            source,
        })
    }
}

#[cfg(test)]
#[path = "format_test.rs"]
mod format_tests;
#[cfg(test)]
#[path = "store_test.rs"]
mod tests;
