//! What fuzzers and their short form among the tests feed: every decoder of the real store, and a whole store that
//! opens with bytes in it which no writer wrote but which have the right checksums.
//!
//! Nothing here judges an answer: an error is fine, damage that is not seen too. Only a panic or a hang is a finding.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, PoolId, SnapId, Uuid, Version};
use nacre_proto::txn::{Compression, Transaction, TxnOp, WriteHint};

use super::codec::{Put, Take};
use super::device::Device;
use super::direct::AlignedBuf;
use super::journal::{self, HEADER, Journal};
use super::kv::MemKv;
use super::leaf::Packing;
use super::meta::{Applied, Cell, decode_log};
use super::record::decode_records;
use super::superblock::{RESERVED, Superblock};
use super::{Engine, Parts, StoreConfig, keys, lock, pack};
use crate::api::BLOCK;

type Map = BTreeMap<Bytes, Bytes>;

const JOURNAL: u64 = (1 << 20) + journal::START;
const BLOCKS: u64 = RESERVED + 700;
const TAG: u64 = 99;
const PG: PgId = PgId { pool: PoolId(1), seed: 0 };

/// A disk in memory.
struct Memory(Mutex<Vec<u8>>);

fn range(offset: u64, len: usize, size: usize) -> io::Result<std::ops::Range<usize>> {
    let from = usize::try_from(offset).ok();
    from.and_then(|from| Some(from..from.checked_add(len)?))
        .filter(|range| range.end <= size)
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl Device for Memory {
    fn size(&self) -> u64 {
        lock(&self.0).len() as u64
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = lock(&self.0);
        buf.copy_from_slice(&bytes[range(offset, buf.len(), bytes.len())?]);
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = lock(&self.0);
        let range = range(offset, data.len(), bytes.len())?;
        bytes[range].copy_from_slice(data);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) {}
}

/// A small store as files would have it: the database after a checkpoint, and what came after it in the journal.
pub(crate) struct Base {
    pub(crate) kv: Arc<Map>,
    blocks: Vec<u8>,
    journal: Vec<u8>,
    /// The records behind the checkpoint, each without its length and number.
    pub(crate) records: Vec<Vec<u8>>,
    applied: Applied,
}

pub(crate) static BASE: LazyLock<Base> = LazyLock::new(|| Base::new().unwrap_or_else(|error| panic!("{error}")));

fn superblock() -> Superblock {
    Superblock { store: Uuid([7; 16]), cluster: Uuid([8; 16]), osd: OsdId(1), blocks: BLOCKS, tag: TAG, created: 0 }
}

fn oid(name: &'static str, snap: SnapId) -> ObjectId {
    ObjectId { pool: PG.pool, hash: name.len() as u32, namespace: Bytes::new(), name: name.into(), snap }
}

fn script() -> Vec<Vec<TxnOp>> {
    let head = |name| oid(name, SnapId::HEAD);
    let write = |name, offset, data: Vec<u8>, compressible| {
        let hint = WriteHint { compressible, cold: false };
        TxnOp::Write { oid: head(name), offset, data: data.into(), hint }
    };
    let at = |counter| Version { epoch: Epoch(1), counter };
    let entries = |keys: &[&'static str]| keys.iter().map(|key| (Bytes::from(*key), Bytes::from("value"))).collect();
    vec![
        vec![TxnOp::CreateCollection, TxnOp::SetMeta { key: "info".into(), value: Some("x".into()) }],
        vec![write("a", 0, vec![1; 9000], None), write("bb", 4096, vec![2; 200_000], None)],
        vec![write("ccc", 0, vec![3; 150_000], Some(Compression::Zstd))],
        vec![TxnOp::Clone { from: head("bb"), to: oid("bb", SnapId(1)) }, write("bb", 8192, vec![4; 100], None)],
        vec![TxnOp::OmapSet { oid: head("a"), entries: entries(&["k1", "k2", "k3"]) }],
        vec![
            TxnOp::SetXattr { oid: head("a"), name: "name".into(), value: "value".into() },
            TxnOp::LogAppend { version: at(1), entry: "one".into() },
            TxnOp::LogAppend { version: at(2), entry: "two".into() },
        ],
        vec![TxnOp::SplitCollection { child: PgId { seed: 1, ..PG }, pg_num: 2, meta: Vec::new(), log: Vec::new() }],
    ]
}

/// Every kind of effect, for the journal.
fn later() -> Vec<Vec<TxnOp>> {
    let mut script = script();
    let head = |name| oid(name, SnapId::HEAD);
    // The collection and the child are there already.
    script.remove(0);
    script.pop();
    // Of this hash the parent kept half: the names with an even length.
    script.iter_mut().for_each(|ops| ops.retain(belongs));
    script.retain(|ops| !ops.is_empty());
    script.push(vec![TxnOp::Truncate { oid: head("bb"), size: 5000 }]);
    script.push(vec![TxnOp::CloneRange {
        from: head("bb"),
        to: oid("bb", SnapId(3)),
        from_offset: 0,
        len: 8192,
        to_offset: 8192,
    }]);
    script.push(vec![TxnOp::Rename { from: oid("bb", SnapId(3)), to: head("dddd") }]);
    script.push(vec![TxnOp::OmapSet { oid: head("dddd"), entries: vec![("k".into(), "v".into())] }]);
    script.push(vec![TxnOp::Clone { from: head("dddd"), to: oid("dddd", SnapId(1)) }]);
    script.push(vec![TxnOp::OmapClear { oid: head("dddd") }, TxnOp::Remove { oid: head("dddd") }]);
    script.push(vec![TxnOp::LogTrim { to: Version { epoch: Epoch(1), counter: 1 } }]);
    script
}

fn belongs(op: &TxnOp) -> bool {
    match op {
        TxnOp::Write { oid, .. } | TxnOp::OmapSet { oid, .. } | TxnOp::SetXattr { oid, .. } => oid.hash % 2 == 0,
        _ => true,
    }
}

impl Base {
    fn new() -> Result<Base, crate::StoreError> {
        let kv = MemKv::default();
        Engine::format_kv(&kv, &superblock())?;
        let memory = |len| Arc::new(Memory(Mutex::new(vec![0; len as usize])));
        let (blocks, ring) = (memory(BLOCKS * BLOCK), memory(JOURNAL));
        let engine = open(kv.clone(), blocks.clone(), ring.clone())?;
        let submit = |ops| engine.submit(&Transaction { pg: PG, ops }, Box::new(|_| ()));
        for ops in script() {
            submit(ops)?;
        }
        engine.checkpoint()?;
        let snapshot = kv.snapshot();
        let bytes = snapshot.get(keys::APPLIED).cloned().unwrap_or_default();
        let applied = Applied::decode(bytes).map_err(|error| error.of("the checkpoint"))?;
        for ops in later() {
            submit(ops)?;
            engine.commit_group()?;
        }
        let mut records = Vec::new();
        let mut journal = Journal::new(ring.clone(), JOURNAL, TAG, (applied.group, applied.at), false);
        journal.replay(
            &mut |group| {
                let mut take = Take::new(group.payload);
                while take.left() > 0 {
                    let parts = (|| {
                        let len = take.u32()?;
                        take.u64()?;
                        take.take((len as usize).saturating_sub(8))
                    })();
                    records.push(parts.map_err(|error| error.of("a record"))?.to_vec());
                }
                Ok(())
            },
            false,
        )?;
        let (blocks, journal) = (lock(&blocks.0).clone(), lock(&ring.0).clone());
        Ok(Base { kv: snapshot, blocks, journal, records, applied })
    }
}

fn open(kv: MemKv, blocks: Arc<Memory>, journal: Arc<Memory>) -> Result<Engine, crate::StoreError> {
    let parts =
        Parts { blocks, journal, journal_bytes: JOURNAL, kv: Arc::new(kv), discard: true, durable_journal: false };
    let config = StoreConfig { memory: 8 << 20, ..StoreConfig::default() };
    Engine::open(parts, &superblock(), &config, false, false)
}

/// One decoder, chosen by the first byte.
pub fn decoder(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let bytes = Bytes::copy_from_slice(rest);
    match kind % 12 {
        table @ 0..4 => drop(Cell::decode(&b"OLRC"[usize::from(table)..], bytes)),
        4 => drop(Applied::decode(bytes)),
        5 => drop(decode_log(bytes)),
        6 => drop(decode_records(bytes)),
        7 => drop(keys::parse_object(rest, PG.pool)),
        8 => drop(keys::parse_leaf(rest)),
        9 => {
            let _ = Superblock::decode(rest);
            let _ = Superblock::explain(rest);
            let _ = superblock().journal_bytes(rest);
        }
        10 => drop(pack::unpack(
            Packing::Lz4,
            rest.get(1..).unwrap_or_default(),
            rest.first().map_or(0, |n| u16::from(*n)),
        )),
        _ => drop(pack::unpack(
            Packing::Zstd,
            rest.get(1..).unwrap_or_default(),
            rest.first().map_or(0, |n| u16::from(*n)),
        )),
    }
}

/// A store whose database has other values: which value (two bytes), how many bytes (two), those; and again. No bytes:
/// the value is gone.
pub fn metadata(mut input: &[u8]) {
    let mut map = Map::clone(&BASE.kv);
    while let [a, b, c, d, rest @ ..] = input {
        let which = usize::from(u16::from_le_bytes([*a, *b])) % BASE.kv.len().max(1);
        let len = usize::from(u16::from_le_bytes([*c, *d])).min(rest.len());
        let (value, rest) = rest.split_at(len);
        if let Some(key) = BASE.kv.keys().nth(which) {
            if value.is_empty() {
                map.remove(key);
            } else {
                map.insert(key.clone(), Bytes::copy_from_slice(value));
            }
        }
        input = rest;
    }
    exercise(map, BASE.journal.clone());
}

/// A store whose journal has one more record, behind some of its own: how many of those, and the effects.
pub fn journal(input: &[u8]) {
    let Some((kept, effects)) = input.split_first() else { return };
    let ring = Arc::new(Memory(Mutex::new(vec![0; JOURNAL as usize])));
    let Applied { seq, group, at, .. } = BASE.applied;
    let mut journal = Journal::new(ring.clone(), JOURNAL, TAG, (group, at), false);
    let kept = usize::from(*kept) % (BASE.records.len() + 1);
    let records = BASE.records.iter().take(kept).map(Vec::as_slice).chain([effects]);
    for (record, seq) in records.zip(seq + 1..) {
        let mut buf = AlignedBuf::with_capacity(record.len() + 4096);
        buf.extend(&[0; HEADER]);
        buf.u32(record.len() as u32 + 8);
        buf.u64(seq);
        buf.extend(record);
        if buf.len() as u64 + 4096 > JOURNAL / 8 || journal.append(&mut buf, seq, seq).is_err() {
            return;
        }
    }
    let journal = lock(&ring.0).clone();
    exercise(Map::clone(&BASE.kv), journal);
}

/// Bytes in the ring itself: where (two bytes, in steps of 16), and what.
pub fn ring(input: &[u8]) {
    let [a, b, bytes @ ..] = input else { return };
    let mut journal = BASE.journal.clone();
    let at = journal::START as usize + usize::from(u16::from_le_bytes([*a, *b])) * 16;
    if let Some(to) = journal.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
        exercise(Map::clone(&BASE.kv), journal);
    }
}

/// Opens it, and if that works asks for everything and changes everything.
fn exercise(map: Map, journal: Vec<u8>) {
    let kv = MemKv::from_map(map.into());
    let memory = |bytes| Arc::new(Memory(Mutex::new(bytes)));
    let Ok(engine) = open(kv, memory(BASE.blocks.clone()), memory(journal)) else { return };
    let pgs: Vec<PgId> = engine.state().colls.keys().copied().take(4).collect();
    for pg in pgs {
        let _ = engine.meta_list(pg);
        let _ = engine.log(pg, Version::default(), 100);
        for oid in engine.list(pg, None, 20).unwrap_or_default() {
            let Ok(Some(stat)) = engine.stat(pg, &oid) else { continue };
            // The largest object there may be takes too long for a fuzzer; it is not an error.
            if stat.size > 1 << 32 || engine.header(pg, &oid).is_ok_and(|header| header.leaf_count() > 4096) {
                continue;
            }
            let _ = engine.read(pg, &oid, 0, 300_000);
            let _ = engine.read(pg, &oid, stat.size.saturating_sub(5000), 6000);
            let _ = engine.sparse_map(pg, &oid, 0, u64::MAX);
            let _ = engine.omap_list(pg, &oid, &[], 100);
            let to = ObjectId { snap: SnapId(9), ..oid.clone() };
            let (data, hint) = (Bytes::from(vec![5; 70_000]), WriteHint::default());
            for op in [
                TxnOp::Clone { from: oid.clone(), to: to.clone() },
                TxnOp::Write { oid: oid.clone(), offset: 5000, data: data.slice(..5000), hint },
                TxnOp::Write { oid: to.clone(), offset: 100, data, hint },
                TxnOp::Truncate { oid: oid.clone(), size: 100 },
                TxnOp::OmapSet { oid: oid.clone(), entries: vec![("k".into(), "v".into())] },
                TxnOp::Remove { oid },
            ] {
                let _ = engine.submit(&Transaction { pg, ops: vec![op] }, Box::new(|_| ()));
            }
            let _ = engine.commit_group();
        }
        let _ = engine.submit(&Transaction { pg, ops: vec![TxnOp::RemoveCollection] }, Box::new(|_| ()));
    }
    let _ = engine.checkpoint();
    let _ = engine.checkpoint();
    let _ = engine.audit();
}

#[cfg(test)]
#[path = "fuzz_test.rs"]
mod tests;
