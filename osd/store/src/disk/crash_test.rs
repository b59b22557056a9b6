//! Power loss at every boundary: the devices record what is written and flushed, and every prefix of that, with the
//! unflushed part lost, whole, torn or scattered, must open to a state that holds everything acknowledged and nothing
//! that was not submitted in that order.
//!
//! The metadata database takes part as a map that is copied at each commit: RocksDB promises that a flushed batch is
//! there whole and an unflushed one not at all, and the engine flushes each batch; so a crash finds the state of the
//! last commit.
//!
//! `NACRE_CRASH_POINTS` raises the number of points for long runs; `NACRE_CRASH_SEED` repeats one run.

use std::collections::BTreeMap;

use nacre_proto::ids::{OsdId, Uuid};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::kv::{KvOp, MemKv, Visit};
use super::state::Layer;
use super::superblock::{RESERVED, Superblock};
use super::*;
use crate::testkit::{dump, ignore, kind, random_txn};
use crate::{MemoryStore, ObjectStore};

type Map = BTreeMap<Bytes, Bytes>;

#[derive(Clone)]
enum Event {
    Write { device: usize, offset: u64, data: Vec<u8> },
    Sync { device: usize },
    Kv(Arc<Map>),
    Submit(u64),
    Ack(u64),
}

type Tape = Arc<Mutex<Vec<Event>>>;

/// A disk's bytes in pages that copies share until they are written.
#[derive(Clone)]
struct Image(Vec<Arc<[u8; 4096]>>);

impl Image {
    fn new(len: usize, byte: u8) -> Image {
        let page = Arc::new([byte; 4096]);
        Image((0..len / 4096).map(|_| page.clone()).collect())
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (mut at, mut rest) = (offset as usize, data);
        while !rest.is_empty() {
            let (here, tail) = rest.split_at(rest.len().min(4096 - at % 4096));
            Arc::make_mut(&mut self.0[at / 4096])[at % 4096..at % 4096 + here.len()].copy_from_slice(here);
            (at, rest) = (at + here.len(), tail);
        }
    }

    fn read(&self, offset: u64, buf: &mut [u8]) {
        let (mut at, mut rest) = (offset as usize, buf);
        while !rest.is_empty() {
            let len = rest.len().min(4096 - at % 4096);
            let (here, tail) = rest.split_at_mut(len);
            here.copy_from_slice(&self.0[at / 4096][at % 4096..at % 4096 + len]);
            (at, rest) = (at + len, tail);
        }
    }
}

struct Recorder {
    device: usize,
    image: Mutex<Image>,
    tape: Tape,
}

impl Device for Recorder {
    fn size(&self) -> u64 {
        lock(&self.image).0.len() as u64 * 4096
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        lock(&self.image).read(offset, buf);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        lock(&self.image).write(offset, data);
        lock(&self.tape).push(Event::Write { device: self.device, offset, data: data.to_vec() });
        Ok(())
    }

    fn sync(&self) -> std::io::Result<()> {
        lock(&self.tape).push(Event::Sync { device: self.device });
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) {
        // A disk may answer anything for discarded blocks until they are written again.
        let _ = self.write(offset, &vec![0xdd; len as usize]);
    }
}

struct RecorderKv {
    kv: MemKv,
    tape: Tape,
}

impl Kv for RecorderKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.kv.get(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        self.kv.scan(from, to, visit)
    }
    fn commit(&self, batch: &mut dyn Iterator<Item = KvOp>) -> Result<(), StoreError> {
        self.kv.commit(batch)?;
        lock(&self.tape).push(Event::Kv(self.kv.snapshot()));
        Ok(())
    }
}

const JOURNAL: usize = (1 << 20) + 4096;
const BLOCKS: u64 = RESERVED + 700;

fn superblock() -> Superblock {
    Superblock { store: Uuid([7; 16]), cluster: Uuid([8; 16]), osd: OsdId(1), blocks: BLOCKS, tag: 99, created: 0 }
}

/// What a crash leaves.
#[derive(Clone)]
struct Remains {
    images: [Image; 2],
    kv: Arc<Map>,
}

fn open(remains: &Remains, tape: &Tape) -> Result<Engine, StoreError> {
    let device = |device: usize| {
        Arc::new(Recorder { device, image: Mutex::new(remains.images[device].clone()), tape: tape.clone() })
    };
    let kv = Arc::new(RecorderKv { kv: MemKv::from_map(remains.kv.clone()), tape: tape.clone() });
    let parts = Parts {
        journal: device(0),
        journal_bytes: JOURNAL as u64,
        blocks: device(1),
        kv,
        discard: true,
        durable_journal: false,
    };
    let config = StoreConfig { memory: 8 << 20, ..StoreConfig::default() };
    Engine::open(parts, &superblock(), &config, false, false)
}

/// A view of an engine as a store, for the helpers.
struct View<'a>(&'a Engine);

macro_rules! forward {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        impl ObjectStore for View<'_> {
            fn submit(&self, txn: Transaction, done: Completion) -> Result<Seq, StoreError> {
                self.0.submit(&txn, done)
            }
            fn xattr(&self, pg: PgId, oid: &ObjectId, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
                Ok(self.0.header(pg, oid)?.xattrs.get(name).cloned())
            }
            fn xattrs(&self, pg: PgId, oid: &ObjectId) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
                Ok(self.0.header(pg, oid)?.xattrs.clone().into_iter().collect())
            }
            fn omap_header(&self, pg: PgId, oid: &ObjectId) -> Result<Bytes, StoreError> {
                Ok(self.0.header(pg, oid)?.omap_header.clone())
            }
            fn collections(&self) -> Result<Vec<PgId>, StoreError> {
                Ok(self.0.state().colls.keys().copied().collect())
            }
            fn usage(&self) -> Usage {
                self.0.usage()
            }
            $(fn $name(&self, $($arg: $type),*) -> Result<$out, StoreError> { self.0.$name($($arg),*) })*
        }
    };
}

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, PgId, Version};

forward! {
    stat(pg: PgId, oid: &ObjectId) -> Option<crate::ObjectStat>;
    read(pg: PgId, oid: &ObjectId, offset: u64, len: u64) -> Vec<crate::DataExtent>;
    sparse_map(pg: PgId, oid: &ObjectId, offset: u64, len: u64) -> Vec<(u64, u64)>;
    omap_get(pg: PgId, oid: &ObjectId, keys: &[Bytes]) -> Vec<(Bytes, Bytes)>;
    omap_list(pg: PgId, oid: &ObjectId, from: &[u8], max: usize) -> Vec<(Bytes, Bytes)>;
    list(pg: PgId, after: Option<&ObjectId>, max: usize) -> Vec<ObjectId>;
    log(pg: PgId, after: Version, max: usize) -> Vec<(Version, Bytes)>;
    meta(pg: PgId, key: &[u8]) -> Option<Bytes>;
    meta_list(pg: PgId) -> Vec<(Bytes, Bytes)>;
}

/// One run: what happened, and what the store must hold after each transaction.
struct Run {
    start: Remains,
    tape: Vec<Event>,
    dumps: BTreeMap<u64, String>,
}

/// A checkpoint taken in steps, so that transactions and commits fall between them.
#[derive(Default)]
struct Steps {
    layer: Option<Arc<Layer>>,
    step: usize,
}

impl Steps {
    fn go(&mut self, engine: &Engine) {
        let current = engine.state().frozen.clone();
        if self.layer.is_none()
            || current.is_none()
            || !Arc::ptr_eq(self.layer.as_ref().unwrap(), current.as_ref().unwrap())
        {
            assert!(current.is_none());
            *self = Steps { layer: Some(engine.freeze()), step: 0 };
            return;
        }
        let layer = self.layer.clone().unwrap();
        match self.step {
            0 => engine.lay_down(&layer).unwrap(),
            1 => engine.feed(&layer, &mut lock(&engine.checkpointer)).unwrap(),
            _ => {
                engine.finish(&layer);
                self.layer = None;
            }
        }
        self.step += 1;
    }
}

/// Runs random transactions on a store and on the model.
fn run(seed: u64, txns: usize) -> Run {
    let tape = Tape::default();
    let kv = MemKv::default();
    Engine::format_kv(&kv, &superblock()).unwrap();
    let start =
        Remains { images: [Image::new(JOURNAL, 0), Image::new((BLOCKS * BLOCK) as usize, 0xee)], kv: kv.snapshot() };
    let engine = open(&start, &tape).unwrap();
    let model = MemoryStore::default();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut dumps = BTreeMap::from([(0, String::new())]);
    let mut steps = Steps::default();
    let mut taken = 0;
    while taken < txns {
        match rng.random_range(0..10) {
            0..6 => {
                let txn = random_txn(&mut rng, &model);
                let (acks, ready) = (tape.clone(), Arc::new(Mutex::new(0)));
                let seq = ready.clone();
                let outcome = engine.submit(
                    &txn,
                    Box::new(move |done| {
                        done.unwrap();
                        lock(&acks).push(Event::Ack(*lock(&seq)));
                    }),
                );
                if matches!(outcome, Err(StoreError::Full { .. } | StoreError::TooLarge { .. })) {
                    // The model has no end; the store must be as it was.
                    assert_eq!(dump(&View(&engine)).unwrap(), *dumps.values().next_back().unwrap(), "seed {seed}");
                    continue;
                }
                let expected = model.submit(txn.clone(), ignore());
                assert_eq!(kind(&outcome), kind(&expected), "seed {seed}: {outcome:?} {expected:?} {txn:?}");
                model.commit(1);
                if let Ok(seq) = outcome {
                    *lock(&ready) = seq;
                    lock(&tape).push(Event::Submit(seq));
                    let want = dump(&model).unwrap();
                    assert_eq!(dump(&View(&engine)).unwrap(), want, "seed {seed}, transaction {seq}: {txn:?}");
                    dumps.insert(seq, want);
                    taken += 1;
                }
            }
            6..8 => drop(engine.commit_group().unwrap()),
            // Large writes may reach the disk long before their records.
            8 if rng.random() => drop(engine.write_direct().unwrap()),
            _ => {
                steps.go(&engine);
            }
        }
    }
    engine.checkpoint().unwrap();
    engine.checkpoint().unwrap();
    while !engine.state().dead.is_empty() {
        engine.checkpoint().unwrap();
    }
    assert_eq!(engine.audit(), vec![], "seed {seed}");
    let tape = lock(&tape).clone();
    Run { start, tape, dumps }
}

/// Crashes a run at every boundary, in several ways; returns how many crashes that were.
fn crash_everywhere(run: &Run, rng: &mut StdRng, seed: u64) -> usize {
    let mut flushed = run.start.clone();
    let mut loose: Vec<(usize, u64, &[u8])> = Vec::new();
    let (mut acked, mut submitted) = (0, 0);
    let mut points = 0;
    for (at, event) in run.tape.iter().enumerate() {
        match event {
            Event::Write { device, offset, data } => loose.push((*device, *offset, data)),
            Event::Sync { device } => {
                loose.retain(|(other, offset, data)| {
                    if other == device {
                        flushed.images[*device].write(*offset, data);
                    }
                    other != device
                });
            }
            Event::Kv(kv) => flushed.kv = kv.clone(),
            Event::Submit(seq) => {
                submitted = submitted.max(*seq);
                continue;
            }
            Event::Ack(seq) => {
                acked = acked.max(*seq);
                continue;
            }
        }
        // Internal transactions are numbered too but not announced.
        let bounds = (acked, submitted.max(acked) + 64);
        let mut verify = |remains: Remains, how: &str| {
            points += 1;
            let what = format!("seed {seed}, event {at}, {how}");
            let engine = open(&remains, &Tape::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
            let seq = engine.state().seq;
            assert!((bounds.0..=bounds.1).contains(&seq), "{what}: {seq} not within {bounds:?}");
            let (_, want) = run.dumps.range(..=seq).next_back().unwrap();
            assert_eq!(dump(&View(&engine)).unwrap_or_else(|e| panic!("{what}: {e}")), *want, "{what}");
            if points % 16 == 0 {
                engine.checkpoint().unwrap();
                assert_eq!(dump(&View(&engine)).unwrap(), *want, "{what}, after a checkpoint");
                assert_eq!(engine.audit(), vec![], "{what}");
            }
        };
        verify(flushed.clone(), "unflushed writes lost");
        if loose.is_empty() {
            continue;
        }
        let mut all = flushed.clone();
        loose.iter().for_each(|(device, offset, data)| all.images[*device].write(*offset, data));
        verify(all, "unflushed writes kept");
        let mut torn = flushed.clone();
        for (index, (device, offset, data)) in loose.iter().enumerate() {
            let sectors = data.len() / 512;
            let keep = if index + 1 == loose.len() { rng.random_range(0..=sectors) * 512 } else { data.len() };
            torn.images[*device].write(*offset, &data[..keep]);
        }
        verify(torn, "last write torn");
        let mut scattered = flushed.clone();
        for (device, offset, data) in &loose {
            for (sector, piece) in data.chunks(512).enumerate() {
                if rng.random() {
                    scattered.images[*device].write(offset + sector as u64 * 512, piece);
                }
            }
        }
        verify(scattered, "sectors kept at random");
    }
    points
}

/// Crashes until enough points were seen; each test takes a share with seeds of its own.
fn crash(first_seed: u64) {
    if let Some(seed) = std::env::var("NACRE_CRASH_SEED").ok().and_then(|seed| seed.parse().ok()) {
        crash_everywhere(&run(seed, 60), &mut StdRng::seed_from_u64(seed), seed);
        return;
    }
    let wanted = std::env::var("NACRE_CRASH_POINTS").ok().and_then(|points| points.parse().ok()).unwrap_or(10_000);
    let (mut points, mut seed) = (0, first_seed);
    while points < wanted / 4 + 1 {
        points += crash_everywhere(&run(seed, 60), &mut StdRng::seed_from_u64(seed), seed);
        seed += 4;
    }
    println!("{points} crash points, seeds {first_seed} to {} in steps of 4", seed - 4);
}

#[test]
fn power_loss_keeps_a_prefix_with_all_acknowledged_1() {
    crash(1);
}

#[test]
fn power_loss_keeps_a_prefix_with_all_acknowledged_2() {
    crash(2);
}

#[test]
fn power_loss_keeps_a_prefix_with_all_acknowledged_3() {
    crash(3);
}

#[test]
fn power_loss_keeps_a_prefix_with_all_acknowledged_4() {
    crash(4);
}

#[test]
fn seed_5402_writes_blocks_that_share_one_place() {
    crash_everywhere(&run(5402, 60), &mut StdRng::seed_from_u64(5402), 5402);
}

/// Bytes of format version 1, as text: a store whose last checkpoint and journal both hold something.
mod format_1 {
    use std::fmt::Write as _;
    use std::path::PathBuf;

    use nacre_proto::ids::SnapId;
    use nacre_proto::txn::{Compression, TxnOp, WriteHint};

    use super::*;
    use crate::testkit::{oid, pg};

    fn path(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/store").join(name)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    /// Transactions with every kind of value in them.
    fn script(engine: &Engine) {
        let write = |name: &str, offset, data: Vec<u8>, compressible| {
            let hint = WriteHint { compressible, cold: false };
            TxnOp::Write { oid: oid(name, 5), offset, data: data.into(), hint }
        };
        let submit = |ops: Vec<TxnOp>| {
            engine.submit(&Transaction { pg: pg(0), ops }, ignore()).unwrap();
            engine.commit_group().unwrap();
        };
        let at = |counter| Version { epoch: nacre_proto::ids::Epoch(2), counter };
        let snap = |id| ObjectId { snap: SnapId(id), ..oid("b", 5) };
        submit(vec![TxnOp::CreateCollection, TxnOp::SetMeta { key: "info".into(), value: Some("one".into()) }]);
        submit(vec![write("a", 3, b"partial".to_vec(), None), TxnOp::LogAppend { version: at(1), entry: "e1".into() }]);
        submit(vec![write("b", 0, vec![0; 69_632], None), TxnOp::Clone { from: oid("b", 5), to: snap(1) }]);
        submit(vec![write("c", 0, vec![7; 70_000], Some(Compression::Lz4))]);
        submit(vec![write("d", 0, vec![9; 70_000], Some(Compression::Zstd))]);
        submit(vec![TxnOp::OmapSet { oid: oid("a", 5), entries: vec![("k".into(), "v".into())] }]);
        submit(vec![TxnOp::SetXattr { oid: oid("a", 5), name: "x".into(), value: "y".into() }]);
        submit(vec![TxnOp::SplitCollection { child: pg(1), pg_num: 2, meta: Vec::new(), log: Vec::new() }]);
        engine.checkpoint().unwrap();
    }

    fn late(engine: &Engine) {
        let submit = |ops: Vec<TxnOp>| {
            engine.submit(&Transaction { pg: pg(1), ops }, ignore()).unwrap();
            engine.commit_group().unwrap();
        };
        let at = |counter| Version { epoch: nacre_proto::ids::Epoch(2), counter };
        let a = || oid("a", 5);
        submit(vec![TxnOp::Zero { oid: a(), offset: 4, len: 2 }, TxnOp::Truncate { oid: oid("c", 5), size: 9000 }]);
        submit(vec![TxnOp::Clone { from: a(), to: oid("e", 5) }, TxnOp::Rename { from: oid("d", 5), to: oid("f", 5) }]);
        submit(vec![TxnOp::OmapRemove { oid: a(), keys: vec!["k".into()] }, TxnOp::OmapClear { oid: oid("e", 5) }]);
        submit(vec![TxnOp::LogAppend { version: at(1), entry: "e1".into() }, TxnOp::LogTrim { to: at(0) }]);
        submit(vec![TxnOp::LogRewind { after: at(3) }, TxnOp::Remove { oid: oid("b", 5) }]);
    }

    #[test]
    fn a_store_of_format_1_opens() {
        if std::env::var_os("NACRE_REWRITE").is_some() {
            rewrite();
        }
        let mut images = [Image::new(JOURNAL, 0), Image::new((BLOCKS * BLOCK) as usize, 0)];
        let mut map = Map::new();
        for line in std::fs::read_to_string(path("v1.txt")).unwrap().lines() {
            let mut words = line.split(' ');
            let (table, key, value) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
            match table {
                "kv" => drop(map.insert(unhex(key).into(), unhex(value).into())),
                device => {
                    let image = &mut images[usize::from(device == "block")];
                    image.write(key.parse().unwrap(), &unhex(value));
                }
            }
        }
        assert!(
            Superblock::decode(&*images[1].0[0]).unwrap() == superblock()
                && superblock().journal_bytes(&*images[0].0[0]) == Some(0)
        );
        let engine = open(&Remains { images, kv: Arc::new(map) }, &Tape::default()).unwrap();
        let want = std::fs::read_to_string(path("v1.dump.txt")).unwrap();
        assert_eq!(dump(&View(&engine)).unwrap(), want);
        engine.checkpoint().unwrap();
        assert_eq!(dump(&View(&engine)).unwrap(), want);
        assert_eq!(engine.audit(), vec![]);
    }

    fn rewrite() {
        let tape = Tape::default();
        let kv = MemKv::default();
        Engine::format_kv(&kv, &superblock()).unwrap();
        let mut images = [Image::new(JOURNAL, 0), Image::new((BLOCKS * BLOCK) as usize, 0)];
        images[0].write(0, &superblock().encode_journal(JOURNAL as u64));
        images[1].write(0, &superblock().encode());
        let start = Remains { images: images.clone(), kv: kv.snapshot() };
        let engine = open(&start, &tape).unwrap();
        script(&engine);
        late(&engine);
        let mut kv = start.kv;
        for event in lock(&tape).iter() {
            match event {
                Event::Write { device, offset, data } => images[*device].write(*offset, data),
                Event::Kv(map) => kv = map.clone(),
                _ => {}
            }
        }
        let mut text = String::new();
        for (key, value) in kv.iter() {
            writeln!(text, "kv {} {}", hex(key), hex(value)).unwrap();
        }
        for (name, image) in ["journal", "block"].into_iter().zip(&images) {
            for (sector, bytes) in image
                .0
                .iter()
                .flat_map(|page| page.chunks(512))
                .enumerate()
                .filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0))
            {
                let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                writeln!(text, "{name} {} {}", sector * 512, hex(&bytes[..len])).unwrap();
            }
        }
        std::fs::create_dir_all(path("")).unwrap();
        std::fs::write(path("v1.txt"), text).unwrap();
        std::fs::write(path("v1.dump.txt"), dump(&View(&engine)).unwrap()).unwrap();
    }
}
