//! Making, opening and closing a store, and replay.
//!
//! A store is a folder: `block` (the block space: a file, or a link to a block device), `journal` (likewise), `kv`
//! (RocksDB). Whoever has it open holds a lock on `block`, so that two folders which lead to one device exclude each
//! other too.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, OsdId, PgId, Uuid, Version};
use nacre_proto::txn::Transaction;
use rustix::fs::{FallocateFlags, fallocate};

use super::alloc::{Allocator, CHUNK};
use super::codec::{Put, Take};
use super::commit::Queue;
use super::device::{Device, FileDevice};
use super::direct::{AlignedBuf, Pool};
use super::journal::{Journal, START};
use super::kv::{Kv, KvOp};
use super::meta::{Applied, Coll};
use super::record::decode_records;
use super::rocks::RocksKv;
use super::stage::Stage;
use super::state::{Cache, Layer, State};
use super::superblock::{RESERVED, Superblock};
use super::{Bounds, Counters, Engine, Parts, StoreConfig, Turns, keys, lock};
use crate::api::{BLOCK, Completion, DataExtent, ObjectStat, ObjectStore, Seq, Usage};
use crate::error::StoreError;

/// Whose store it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: Uuid,
    /// The OSD.
    pub osd: OsdId,
}

/// How a new store is laid out.
#[derive(Clone, Debug)]
pub struct FormatOptions {
    /// Bytes of block space; not needed where `block` is a block device.
    pub size: u64,
    /// Bytes of journal.
    pub journal: u64,
    /// Write the block space once from end to end. A file's blocks that were only reserved cost a change of the file
    /// system's metadata at their first write, and with it the flush behind it.
    pub prewrite: bool,
    /// The number of the new store.
    pub store: Uuid,
    /// A secret number, by which the journal knows its groups.
    pub tag: u64,
}

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// Its own number.
    pub store: Uuid,
    /// Whose it is.
    pub identity: Identity,
    /// Seconds since 1970 when it was made.
    pub created: u64,
    /// Bytes of block space, the reserved front among them.
    pub size: u64,
    /// Bytes of journal.
    pub journal: u64,
    /// The version of everything on disk.
    pub format: u32,
}

/// The least journal that works.
pub(crate) const MIN_JOURNAL: u64 = 1 << 20;

impl Engine {
    /// Loads the last checkpoint and replays the journal. `cut` accepts the loss of what stands behind damage in it.
    pub(crate) fn open(
        parts: Parts,
        superblock: &Superblock,
        config: &StoreConfig,
        threaded: bool,
        cut: bool,
    ) -> Result<Engine, StoreError> {
        let Parts { blocks, journal, journal_bytes, kv, discard, durable_journal } = parts;
        let applied = match kv.get(keys::APPLIED)? {
            Some(bytes) => Applied::decode(bytes).map_err(|e| e.of("the record of the last checkpoint"))?,
            None => {
                return Err(StoreError::CorruptMetadata {
                    what: "the record of the last checkpoint is missing".into(),
                });
            }
        };
        let mut alloc = Allocator::new(superblock.blocks, RESERVED);
        load_bitmaps(&*kv, &mut alloc)?;
        let mut journal =
            Journal::new(journal, journal_bytes, superblock.tag, (applied.group, applied.at), durable_journal);
        let bounds = Bounds::new(journal.ring(), config);
        let data = superblock.blocks.saturating_sub(RESERVED);
        let mut state = State {
            seq: applied.seq,
            next_id: applied.next_id.max(1),
            active: Layer::default(),
            frozen: None,
            alloc,
            inflight: Default::default(),
            cells: Cache::new(),
            blocks: Cache::new(),
            colls: Default::default(),
            dead: Default::default(),
            granted: [0, 0],
            reserve: (data / 100).clamp(16, 4096).min(data / 4),
            kv_full: kv.room().is_some_and(|room| room < super::KV_RESERVE),
            bound: cached(config.memory),
        };
        load_collections(&*kv, &mut state)?;
        journal.replay(
            &mut |group| {
                let records = decode_records(group.payload).map_err(|e| e.of("a record in the journal"))?;
                for (seq, effects) in records {
                    if seq <= state.seq {
                        continue;
                    }
                    if seq != state.seq + 1 {
                        return Err(StoreError::CorruptMetadata {
                            what: format!("the journal lacks transaction {}", state.seq + 1),
                        });
                    }
                    state.seq = seq;
                    let mut stage = Stage::new(&mut state, &*kv, true);
                    for effect in effects {
                        stage.apply(effect)?;
                    }
                    stage.check_freed()?;
                    let direct = stage.publish();
                    debug_assert!(direct.is_empty());
                }
                Ok(())
            },
            cut,
        )?;
        if cut {
            journal.wipe_behind()?;
        }
        state.granted[0] = journal.live_bytes();
        let seq = state.seq;
        let engine = Engine {
            blocks,
            space: superblock.blocks,
            kv,
            discard,
            bounds,
            memory: config.memory,
            state: Mutex::new(state),
            queue: Mutex::new(Queue::new(seq)),
            queued: Condvar::new(),
            direct: Condvar::new(),
            settled: Condvar::new(),
            journal: Mutex::new(journal),
            checkpointer: Mutex::default(),
            laying: Mutex::default(),
            pool: Pool::new((config.memory / 16) as usize),
            turns: Mutex::new(Turns::default()),
            turned: Condvar::new(),
            poisoned: AtomicBool::new(false),
            poison: Mutex::new(None),
            threaded,
            counters: Counters::default(),
        };
        Ok(engine)
    }

    /// What a new store's database holds.
    pub(crate) fn format_kv(kv: &dyn Kv, superblock: &Superblock) -> Result<(), StoreError> {
        let mut identity = vec![1];
        identity.bytes(&superblock.store.0);
        let applied = Applied { seq: 0, group: 1, at: 0, next_id: 1 };
        let values = [(keys::IDENTITY, identity), (keys::APPLIED, applied.encode())];
        kv.commit(&mut values.into_iter().map(|(key, value)| KvOp::Put(Bytes::from_static(key), value)))
    }
}

/// Bytes for changes and caches. Of the whole bound RocksDB's cache has an eighth; buffers, memtables, compaction and the
/// allocator's losses take some 72 MiB, whatever the bound is.
fn cached(memory: u64) -> usize {
    (memory / 8 * 7).saturating_sub(72 << 20).max(memory / 4) as usize
}

impl Bounds {
    fn new(ring: u64, config: &StoreConfig) -> Bounds {
        let group = (ring / 8).min(1 << 20);
        let record = (ring / 8).min(64 << 20);
        // A group may be a record longer than its bound; one may be lost where the ring ends, and one may be kept by a
        // record behind the last checkpoint.
        let granted = (ring - 2 * (group + record) - 4096).min(config.memory / 2);
        let checkpoint = config.checkpoint_bytes.unwrap_or(u64::MAX).min(granted / 2).min(config.memory / 5);
        Bounds { group, record, granted, checkpoint, dirty: cached(config.memory).min((config.memory / 2) as usize) }
    }
}

pub(crate) fn load_bitmaps(kv: &dyn Kv, alloc: &mut Allocator) -> Result<(), StoreError> {
    let mut bad = None;
    kv.scan(b"A", b"B", &mut |key, value| {
        let parsed = (|| {
            let chunk = keys::number(key)?;
            let mut take = Take::new(Bytes::copy_from_slice(value));
            let version = take.u8()?;
            let mut words = [0; (CHUNK / 64) as usize];
            for word in &mut words {
                *word = take.u64()?;
            }
            take.end()?;
            if version == 1 { Ok((chunk, words)) } else { Err(super::codec::Malformed) }
        })();
        match parsed {
            Ok((chunk, words)) => alloc.load(chunk, &words),
            Err(malformed) => bad = Some(malformed.of("a piece of the allocator's bitmap")),
        }
        bad.is_none()
    })?;
    bad.map_or(Ok(()), Err)
}

/// The last piece of the bitmap without the blocks behind the end.
fn open_end(kv: &dyn Kv, blocks: u64) -> Result<Option<KvOp>, StoreError> {
    let chunk = blocks / CHUNK;
    let Some(value) = kv.get(&keys::bitmap(chunk))? else { return Ok(None) };
    let mut take = Take::new(value);
    let mut words = [0; (CHUNK / 64) as usize];
    let bad = |malformed: super::codec::Malformed| malformed.of("a piece of the allocator's bitmap");
    take.u8().map_err(bad)?;
    for (index, word) in words.iter_mut().enumerate() {
        let first = chunk * CHUNK + index as u64 * 64;
        let within = blocks.saturating_sub(first).min(64);
        let mask = if within == 64 { u64::MAX } else { (1 << within) - 1 };
        *word = take.u64().map_err(bad)? & mask;
    }
    Ok(Some(super::checkpoint::bitmap_value(chunk, &words)))
}

fn load_collections(kv: &dyn Kv, state: &mut State) -> Result<(), StoreError> {
    let mut bad = None;
    kv.scan(b"C", b"D", &mut |_, value| {
        match Coll::decode(Bytes::copy_from_slice(value)) {
            Ok(coll) if coll.dead => drop(state.dead.insert(coll.id, coll.into())),
            Ok(coll) => drop(state.colls.insert(coll.pg, coll.into())),
            Err(malformed) => bad = Some(malformed.of("a collection's record")),
        }
        bad.is_none()
    })?;
    bad.map_or(Ok(()), Err)
}

/// The real store, open.
pub struct DiskStore {
    engine: Arc<Engine>,
    info: StoreInfo,
    writer: Option<JoinHandle<()>>,
    committer: Option<JoinHandle<()>>,
    checkpointer: Option<JoinHandle<()>>,
}

fn io<'a>(what: &'a str, path: &'a Path) -> impl Fn(std::io::Error) -> StoreError + 'a {
    move |error| StoreError::io(format!("cannot {what} {}", path.display()), error)
}

impl DiskStore {
    /// Makes an empty store in a folder, which is made too. Refuses a folder or device that holds a store.
    pub fn format(path: &Path, identity: Identity, options: &FormatOptions) -> Result<StoreInfo, StoreError> {
        let (block, journal, kv) = (path.join("block"), path.join("journal"), path.join("kv"));
        let refuse = |why: &str| StoreError::Format { path: path.display().to_string(), why: why.into() };
        if options.journal < MIN_JOURNAL {
            return Err(refuse("the journal must have 1 MiB at least"));
        }
        if kv.exists() {
            return Err(refuse("the folder holds a store already; remove it first if its data is not wanted"));
        }
        // Before anything is reserved: reserving would make the file of a store that is there longer.
        if let Ok(device) = FileDevice::open(&block, false)
            && holds_store(&device).map_err(io("read", &block))?
        {
            return Err(refuse("the device holds a store already; wipe its first 8 KiB if its data is not wanted"));
        }
        // What a failed attempt made would only be in the way of the next.
        let made = Made::new([path, &block, &journal, &kv]);
        std::fs::create_dir_all(path).map_err(io("make", path))?;
        reserve(&block, options.size).map_err(io("reserve space in", &block))?;
        reserve(&journal, options.journal).map_err(io("reserve space in", &journal))?;
        let mut blocks = FileDevice::open(&block, false).map_err(io("open", &block))?;
        blocks.lock().map_err(|_| StoreError::Locked { path: path.display().to_string() })?;
        let device = FileDevice::open(&journal, false).map_err(io("open", &journal))?;
        if blocks.size() < (RESERVED + 64) * BLOCK || device.size() < MIN_JOURNAL {
            return Err(refuse("1.25 MiB of block space and 1 MiB of journal are the least"));
        }
        // Once more, now that nobody else may make one.
        if holds_store(&blocks).map_err(io("read", &block))? {
            return Err(refuse("the device holds a store already; wipe its first 8 KiB if its data is not wanted"));
        }
        let superblock = Superblock {
            store: options.store,
            cluster: identity.cluster,
            osd: identity.osd,
            blocks: blocks.size() / BLOCK,
            tag: options.tag,
            created: std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
        };
        // The journal is written from end to end: a first write would make the file system change metadata, which costs
        // each flush a commit of its own. The superblock comes last: without it there is no store.
        zero(&device).map_err(io("write", &journal))?;
        if options.prewrite {
            zero(&blocks).map_err(io("write", &block))?;
        }
        device.write(0, &superblock.encode_journal(device.size())).map_err(io("write", &journal))?;
        device.sync().map_err(io("flush", &journal))?;
        let rocks = RocksKv::open(&kv, true, 8 << 20)?;
        Engine::format_kv(&rocks, &superblock)?;
        drop(rocks);
        for copy in [1, 0] {
            blocks.write(copy * BLOCK, &superblock.encode()).map_err(io("write", &block))?;
            blocks.sync().map_err(io("flush", &block))?;
        }
        for folder in [Some(path), path.parent().filter(|parent| !parent.as_os_str().is_empty())].into_iter().flatten()
        {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("flush", folder))?;
        }
        made.stays();
        Ok(info(&superblock, device.size()))
    }

    /// Lets a closed store have more block space: a file grows to so many bytes, of a block device all is taken.
    pub fn grow(path: &Path, size: u64) -> Result<StoreInfo, StoreError> {
        let store = Self::open(path, None, &StoreConfig::default())?;
        store.checkpoint()?;
        let block = path.join("block");
        let refuse = |why: String| StoreError::Format { path: path.display().to_string(), why };
        let old = store.engine.space;
        let now = FileDevice::open(&block, false).map_err(io("open", &block))?;
        let wanted = if now.is_block_device() { now.size() } else { size };
        if wanted / BLOCK <= old {
            return Err(refuse(format!("it has {} bytes of block space already", old * BLOCK)));
        }
        reserve(&block, wanted).map_err(io("reserve space in", &block))?;
        // The last piece of the bitmap calls what lay behind the old end taken; the next freeze would keep it so.
        if let Some(fix) = open_end(&*store.engine.kv, old)? {
            store.engine.kv.commit(&mut std::iter::once(fix))?;
        }
        let mut head = AlignedBuf::zeroed(2 * BLOCK as usize);
        now.read(0, &mut head).map_err(io("read", &block))?;
        let (first, second) = head.split_at(BLOCK as usize);
        let known = Superblock::decode(first).or_else(|_| Superblock::decode(second));
        let known = known.map_err(|_| refuse("both copies of its superblock are damaged".into()))?;
        let superblock = Superblock { blocks: wanted / BLOCK, ..known };
        // The copy that is read first comes last: until it is whole, the store has its old size.
        for copy in [1, 0] {
            now.write(copy * BLOCK, &superblock.encode()).map_err(io("write", &block))?;
            now.sync().map_err(io("flush", &block))?;
        }
        Ok(info(&superblock, store.info.journal))
    }

    /// What a store says of itself, without opening it.
    pub fn info_of(path: &Path) -> Result<StoreInfo, StoreError> {
        let block = path.join("block");
        present(path, &block)?;
        let device = FileDevice::open(&block, false).map_err(io("open", &block))?;
        let superblock = read_superblock(path, &device)?;
        let journal = FileDevice::open(&path.join("journal"), false).map_err(io("open", &path.join("journal")))?;
        Ok(info(&superblock, journal.size()))
    }

    /// Opens a store and replays its journal. With an identity, refuses one that belongs to someone else.
    pub fn open(path: &Path, expected: Option<Identity>, config: &StoreConfig) -> Result<DiskStore, StoreError> {
        Self::open_with(path, expected, config, false)
    }

    /// Opens a store whose journal is damaged before its end, giving up what stands behind the damage.
    pub fn open_cutting_journal(path: &Path, config: &StoreConfig) -> Result<DiskStore, StoreError> {
        Self::open_with(path, None, config, true)
    }

    fn open_with(
        path: &Path,
        expected: Option<Identity>,
        config: &StoreConfig,
        cut: bool,
    ) -> Result<DiskStore, StoreError> {
        let (block, journal) = (path.join("block"), path.join("journal"));
        present(path, &block)?;
        let mut blocks = FileDevice::open(&block, false).map_err(io("open", &block))?;
        blocks.lock().map_err(|_| StoreError::Locked { path: path.display().to_string() })?;
        let superblock = read_superblock(path, &blocks)?;
        if let Some(expected) = expected
            && (expected.cluster, expected.osd) != (superblock.cluster, superblock.osd)
        {
            let who = |osd: OsdId, cluster: Uuid| format!("{osd} of cluster {cluster}");
            return Err(StoreError::WrongIdentity {
                path: path.display().to_string(),
                found: who(superblock.osd, superblock.cluster),
                expected: who(expected.osd, expected.cluster),
            });
        }
        let wrong = |why: &str| StoreError::Format { path: path.display().to_string(), why: why.into() };
        if blocks.size() / BLOCK < superblock.blocks {
            return Err(wrong("its block space is shorter than its superblock says"));
        }
        let device = FileDevice::open(&journal, true).map_err(io("open", &journal))?;
        let mut head = AlignedBuf::zeroed(START as usize);
        device.read(0, &mut head).map_err(io("read", &journal))?;
        let Some(journal) = superblock.journal_bytes(&head) else {
            return Err(wrong("its journal belongs to another store or is damaged"));
        };
        if device.size() < journal {
            return Err(wrong(&format!("its journal is shorter than the {journal} bytes it was made with")));
        }
        let journal = if journal == 0 { device.size() } else { journal };
        // RocksDB would make a folder to write a log of its failure into.
        if !path.join("kv").join("CURRENT").exists() {
            return Err(wrong("its metadata database `kv` is missing"));
        }
        let kv = RocksKv::open(&path.join("kv"), false, (config.memory / 8) as usize)?;
        match kv.get(keys::IDENTITY)? {
            Some(bytes) if bytes.get(1..) == Some(&superblock.store.0) => {}
            _ => return Err(wrong("its metadata database belongs to another store")),
        }
        let discard = config.discard.unwrap_or(blocks.is_block_device());
        let parts = Parts {
            blocks: Arc::new(blocks),
            journal: Arc::new(device),
            journal_bytes: journal,
            kv: Arc::new(kv),
            discard,
            durable_journal: true,
        };
        let engine = Arc::new(Engine::open(parts, &superblock, config, true, cut)?);
        Self::start(engine, &superblock, journal)
    }

    /// Gives an engine its threads.
    pub(crate) fn start(engine: Arc<Engine>, superblock: &Superblock, journal: u64) -> Result<DiskStore, StoreError> {
        let info = info(superblock, journal);
        let mut store = DiskStore { engine, info, writer: None, committer: None, checkpointer: None };
        store.writer = Some(store.spawn("store-write", Engine::write_forever)?);
        store.committer = Some(store.spawn("store-commit", Engine::commit_forever)?);
        store.checkpointer = Some(store.spawn("store-checkpoint", Engine::checkpoint_forever)?);
        Ok(store)
    }

    fn spawn(&self, name: &str, life: fn(&Engine)) -> Result<JoinHandle<()>, StoreError> {
        let engine = self.engine.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || engine.guarded(life));
        thread.map_err(|error| StoreError::io("cannot start a thread", error))
    }

    /// What the store says of itself.
    #[must_use]
    pub fn info(&self) -> &StoreInfo {
        &self.info
    }

    /// What it has done since it was opened.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.engine.counters
    }

    /// How often RocksDB was read and written since the store was opened: neither happens between the submission and the
    /// completion of a write to an object whose metadata is in memory, and writing never does.
    #[must_use]
    pub fn database_calls(&self) -> (u64, u64) {
        self.engine.kv.calls()
    }

    /// Waits until all that was submitted is durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.engine.sync()
    }

    /// Waits until all that was submitted is in its final place, with nothing left in the journal.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.engine.checkpoint_and_wait()
    }

    /// Bytes of memory the store knows it holds, and its bound.
    #[must_use]
    pub fn memory(&self) -> (u64, u64) {
        (self.engine.memory_used(), self.engine.memory)
    }

    /// Why the store refuses work, if it does.
    #[must_use]
    pub fn poisoned(&self) -> Option<StoreError> {
        self.engine.check_poison().err()
    }

    /// Makes everything durable, empties the journal, and lets go.
    pub fn close(self) -> Result<(), StoreError> {
        self.engine.checkpoint_and_wait()
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine, unless it is poisoned: what was submitted and is seen by reads may never become durable then.
    fn sound(&self) -> Result<&Engine, StoreError> {
        self.engine.check_poison().map(|()| &*self.engine)
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        // The checkpointer first: it may be waiting for the committer, and that for the writer. A thread that panicked has said so; there is
        // nothing to add while dropping.
        lock(&self.engine.turns).stop = true;
        self.engine.turned.notify_all();
        drop(self.checkpointer.take().map(JoinHandle::join));
        lock(&self.engine.queue).stop = true;
        self.engine.queued.notify_all();
        drop(self.committer.take().map(JoinHandle::join));
        lock(&self.engine.queue).stop_writer = true;
        self.engine.direct.notify_all();
        drop(self.writer.take().map(JoinHandle::join));
    }
}

fn info(superblock: &Superblock, journal: u64) -> StoreInfo {
    StoreInfo {
        store: superblock.store,
        identity: Identity { cluster: superblock.cluster, osd: superblock.osd },
        created: superblock.created,
        size: superblock.blocks * BLOCK,
        journal,
        format: super::superblock::VERSION,
    }
}

/// A folder without a block space is no store; of other trouble with it the system's own words tell.
fn present(path: &Path, block: &Path) -> Result<(), StoreError> {
    match block.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let why = "it has no file `block`; `nacre store format` makes a new store".into();
            Err(StoreError::Format { path: path.display().to_string(), why })
        }
        _ => Ok(()),
    }
}

fn read_superblock(path: &Path, device: &FileDevice) -> Result<Superblock, StoreError> {
    let mut head = AlignedBuf::zeroed(2 * BLOCK as usize);
    let format = |why: String| StoreError::Format { path: path.display().to_string(), why };
    if device.size() < head.len() as u64 {
        return Err(format(Superblock::explain(&[])));
    }
    device.read(0, &mut head).map_err(io("read", &path.join("block")))?;
    let (first, second) = head.split_at(BLOCK as usize);
    Superblock::decode(first).or_else(|_| Superblock::decode(second)).map_err(|_| format(Superblock::explain(first)))
}

/// What a format makes, gone again if it fails; what was there before stays.
struct Made(Vec<PathBuf>);

impl Made {
    fn new<const N: usize>(paths: [&Path; N]) -> Made {
        Made(paths.into_iter().filter(|path| path.symlink_metadata().is_err()).map(Path::to_owned).collect())
    }

    fn stays(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.0.drain(..).rev() {
            // What cannot be removed stays; the error that brought us here is the one to tell. The folder itself goes
            // only if it is empty.
            let _ = match path.file_name().is_some_and(|name| name == "kv") {
                true => std::fs::remove_dir_all(&path),
                false => std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)),
            };
        }
    }
}

fn holds_store(device: &FileDevice) -> std::io::Result<bool> {
    if device.size() < BLOCK {
        return Ok(false);
    }
    let mut head = AlignedBuf::zeroed(BLOCK as usize);
    device.read(0, &mut head)?;
    Ok(Superblock::decode(&head).is_ok())
}

fn zero(device: &FileDevice) -> std::io::Result<()> {
    let zeros = AlignedBuf::zeroed(4 << 20);
    let mut at = 0;
    while at < device.size() / 512 * 512 {
        let step = (device.size() / 512 * 512 - at).min(zeros.len() as u64);
        device.write(at, zeros.get(..step as usize).unwrap_or_default())?;
        at += step;
    }
    Ok(())
}

/// Lets a file have its space, unless the path is a device already.
fn reserve(path: &Path, size: u64) -> std::io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    if std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device()) {
        return Ok(());
    }
    let file = std::fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
    let size = size / BLOCK * BLOCK;
    match fallocate(&file, FallocateFlags::empty(), 0, size) {
        Ok(()) => {}
        // A file system that cannot reserve: space is then found as it is written, and may be missing.
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(size)?,
        Err(error) => return Err(error.into()),
    }
    file.sync_all()
}

impl ObjectStore for DiskStore {
    fn submit(&self, txn: Transaction, done: Completion) -> Result<Seq, StoreError> {
        self.engine.submit(&txn, done)
    }

    fn stat(&self, pg: PgId, oid: &ObjectId) -> Result<Option<ObjectStat>, StoreError> {
        self.sound()?.stat(pg, oid)
    }

    fn read(&self, pg: PgId, oid: &ObjectId, offset: u64, len: u64) -> Result<Vec<DataExtent>, StoreError> {
        self.sound()?.read(pg, oid, offset, len)
    }

    fn sparse_map(&self, pg: PgId, oid: &ObjectId, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, StoreError> {
        self.sound()?.sparse_map(pg, oid, offset, len)
    }

    fn xattr(&self, pg: PgId, oid: &ObjectId, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.sound()?.header(pg, oid)?.xattrs.get(name).cloned())
    }

    fn xattrs(&self, pg: PgId, oid: &ObjectId) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let header = self.sound()?.header(pg, oid)?;
        Ok(header.xattrs.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    fn omap_header(&self, pg: PgId, oid: &ObjectId) -> Result<Bytes, StoreError> {
        Ok(self.sound()?.header(pg, oid)?.omap_header.clone())
    }

    fn omap_get(&self, pg: PgId, oid: &ObjectId, keys: &[Bytes]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.sound()?.omap_get(pg, oid, keys)
    }

    fn omap_list(&self, pg: PgId, oid: &ObjectId, from: &[u8], max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.sound()?.omap_list(pg, oid, from, max)
    }

    fn list(&self, pg: PgId, after: Option<&ObjectId>, max: usize) -> Result<Vec<ObjectId>, StoreError> {
        self.sound()?.list(pg, after, max)
    }

    fn log(&self, pg: PgId, after: Version, max: usize) -> Result<Vec<(Version, Bytes)>, StoreError> {
        self.sound()?.log(pg, after, max)
    }

    fn meta(&self, pg: PgId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.sound()?.meta(pg, key)
    }

    fn meta_list(&self, pg: PgId) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.sound()?.meta_list(pg)
    }

    fn collections(&self) -> Result<Vec<PgId>, StoreError> {
        Ok(lock(&self.sound()?.state).colls.keys().copied().collect())
    }

    fn usage(&self) -> Usage {
        self.engine.usage()
    }
}
