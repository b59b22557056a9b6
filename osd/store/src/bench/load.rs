//! The workloads: one thread that keeps so many operations in flight.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, PgId, PoolId, SnapId};
use nacre_proto::txn::{Transaction, TxnOp, WriteHint};

use super::BenchError;
use crate::{ObjectStore, StoreError};

/// What one operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Overwrites a random range of an existing object.
    Write,
    /// Writes a whole object anew.
    Replace,
    /// Reads a random range.
    Read,
    /// Reads a random range of a few objects that memory holds.
    ReadCached,
    /// Sets sixteen omap entries of 100 bytes.
    OmapSet,
    /// Lists a hundred omap entries from a random key on.
    OmapList,
    /// Overwrites, reads, and every twentieth time a snapshot of an object.
    Mixed,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Workload {
    pub(super) kind: Kind,
    pub(super) bytes: usize,
    pub(super) depth: usize,
}

const OBJECT: u64 = 4 << 20;
/// 4 MiB writes in flight.
const DEPTH_4M: usize = 16;
/// Objects that cached reads are spread over: 32 MiB.
const CACHED_OBJECTS: u64 = 8;
const OMAP_OBJECTS: u64 = 16;
const OMAP_KEYS: u64 = 10_000;
/// Snapshots of an object that are kept; older ones go.
const SNAPS: u64 = 3;

const fn workload(kind: Kind, bytes: usize, depth: usize) -> Workload {
    Workload { kind, bytes, depth }
}

pub(super) const WORKLOADS: [(&str, Workload); 10] = [
    ("write-4k-qd1", workload(Kind::Write, 4096, 1)),
    ("write-4k-qd16", workload(Kind::Write, 4096, 16)),
    ("write-4k-qd64", workload(Kind::Write, 4096, 64)),
    ("read-4k", workload(Kind::Read, 4096, 1)),
    ("read-4k-cached", workload(Kind::ReadCached, 4096, 1)),
    ("write-4m", workload(Kind::Replace, OBJECT as usize, DEPTH_4M)),
    ("read-4m", workload(Kind::Read, OBJECT as usize, 1)),
    ("omap-set", workload(Kind::OmapSet, 1600, 16)),
    ("omap-list", workload(Kind::OmapList, 10_000, 1)),
    ("mixed-snapshots", workload(Kind::Mixed, 4096, 16)),
];

pub(super) fn names() -> Vec<&'static str> {
    WORKLOADS.iter().map(|(name, _)| *name).collect()
}

/// What a workload got done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) ops: u64,
    pub(super) read: u64,
    pub(super) written: u64,
}

/// A generator that is the same on every run (splitmix64).
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Bytes that do not compress.
    fn bytes(&mut self, len: usize) -> Bytes {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(len);
        out.into()
    }
}

/// A store with the objects that the workloads work on.
pub(super) struct Load<'s> {
    store: &'s dyn ObjectStore,
    pg: PgId,
    objects: u64,
    rng: Rng,
    small: Bytes,
    large: Bytes,
    /// Snapshots taken of each object.
    snaps: Vec<u64>,
}

impl<'s> Load<'s> {
    /// Creates a collection with objects of 4 MiB that together have `size` bytes.
    pub(super) fn prepare(store: &'s dyn ObjectStore, size: u64) -> Result<Load<'s>, StoreError> {
        let mut rng = Rng::new(1);
        let objects = (size / OBJECT).max(1);
        let (small, large) = (rng.bytes(4096), rng.bytes(OBJECT as usize));
        let pg = PgId { pool: PoolId(u64::MAX), seed: 0 };
        let load = Load { store, pg, objects, rng, small, large, snaps: vec![0; objects as usize] };
        load.wait([TxnOp::CreateCollection])?;
        for object in 0..objects {
            load.wait([load.write(object, 0, load.large.clone())])?;
        }
        for object in 0..OMAP_OBJECTS {
            let oid = load.omap_object(object);
            for from in (0..OMAP_KEYS).step_by(1000) {
                let entries = (from..from + 1000).map(|key| (key_name(key), load.small.slice(..100))).collect();
                load.wait([TxnOp::OmapSet { oid: oid.clone(), entries }])?;
            }
        }
        Ok(load)
    }

    pub(super) fn clean_up(self) -> Result<(), StoreError> {
        self.wait([TxnOp::RemoveCollection])
    }

    fn oid(&self, name: String, snap: SnapId) -> ObjectId {
        let hash = crc32fast::hash(name.as_bytes());
        ObjectId { pool: self.pg.pool, hash, namespace: Bytes::new(), name: name.into(), snap }
    }

    fn object(&self, at: u64) -> ObjectId {
        self.oid(format!("bench.data.{at}"), SnapId::HEAD)
    }

    fn omap_object(&self, at: u64) -> ObjectId {
        self.oid(format!("bench.omap.{at}"), SnapId::HEAD)
    }

    fn write(&self, object: u64, offset: u64, data: Bytes) -> TxnOp {
        TxnOp::Write { oid: self.object(object), offset, data, hint: WriteHint::default() }
    }

    /// One transaction, durable when this returns.
    fn wait(&self, ops: impl Into<Vec<TxnOp>>) -> Result<(), StoreError> {
        let (tell, told) = mpsc::sync_channel(1);
        let txn = Transaction { pg: self.pg, ops: ops.into() };
        self.store.submit(txn, Box::new(move |result| drop(tell.send(result))))?;
        told.recv().unwrap_or(Ok(()))
    }

    /// Runs until the time is over, for as many operations as its depth at least, then waits for what is in flight.
    pub(super) fn run(&mut self, workload: &Workload, time: Duration) -> Result<Done, BenchError> {
        let end = Instant::now() + time;
        let (tell, told) = mpsc::channel();
        let (mut done, mut begun, mut flying) = (Done::default(), 0, 0);
        while begun < workload.depth || Instant::now() < end {
            begun += 1;
            match self.next(workload) {
                Next::Read(object, offset) => {
                    let wanted = workload.bytes as u64;
                    let got = self.store.read(self.pg, &self.object(object), offset, wanted)?;
                    let got = got.iter().map(|extent| extent.data.len() as u64).sum();
                    if got != wanted {
                        return Err(BenchError::ShortRead { wanted, got });
                    }
                    done.read += got;
                    done.ops += 1;
                }
                Next::List(object, key) => {
                    let page = self.store.omap_list(self.pg, &self.omap_object(object), &key_name(key), 100)?;
                    if page.len() != 100 {
                        return Err(BenchError::ShortRead { wanted: 100, got: page.len() as u64 });
                    }
                    done.read += page.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
                    done.ops += 1;
                }
                Next::Change(ops, bytes) => {
                    let tell = tell.clone();
                    let txn = Transaction { pg: self.pg, ops };
                    self.store.submit(txn, Box::new(move |result| drop(tell.send((result, bytes)))))?;
                    flying += 1;
                }
            }
            // Full: wait for one. Not full: take what is there.
            while flying > 0 {
                let Some((result, bytes)) =
                    (if flying >= workload.depth { told.recv().ok() } else { told.try_recv().ok() })
                else {
                    break;
                };
                result?;
                flying -= 1;
                done.ops += 1;
                done.written += bytes;
            }
        }
        while flying > 0 {
            let Ok((result, bytes)) = told.recv() else { break };
            result?;
            flying -= 1;
            done.ops += 1;
            done.written += bytes;
        }
        Ok(done)
    }

    fn next(&mut self, workload: &Workload) -> Next {
        let object = self.rng.below(self.objects);
        let offset = self.rng.below(OBJECT / workload.bytes.max(4096) as u64) * workload.bytes as u64;
        match workload.kind {
            Kind::Read => Next::Read(object, offset),
            Kind::ReadCached => Next::Read(object % CACHED_OBJECTS, offset),
            Kind::Write => self.overwrite(object, offset),
            Kind::Replace => Next::Change(vec![self.write(object, 0, self.large.clone())], OBJECT),
            Kind::OmapSet => {
                let object = self.rng.below(OMAP_OBJECTS);
                let oid = self.omap_object(object);
                let first = self.rng.below(OMAP_KEYS - 16);
                let entries: Vec<_> = (first..first + 16).map(|key| (key_name(key), self.small.slice(..100))).collect();
                let bytes = entries.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
                Next::Change(vec![TxnOp::OmapSet { oid, entries }], bytes)
            }
            Kind::OmapList => Next::List(self.rng.below(OMAP_OBJECTS), self.rng.below(OMAP_KEYS - 100)),
            Kind::Mixed => match self.rng.below(20) {
                0 => self.snapshot(object),
                1..=5 => Next::Read(object, offset),
                _ => self.overwrite(object, offset),
            },
        }
    }

    fn overwrite(&self, object: u64, offset: u64) -> Next {
        Next::Change(vec![self.write(object, offset, self.small.clone())], self.small.len() as u64)
    }

    fn snapshot(&mut self, object: u64) -> Next {
        let taken = &mut self.snaps[object as usize];
        *taken += 1;
        let taken = *taken;
        let of = |snap| ObjectId { snap: SnapId(snap), ..self.object(object) };
        let mut ops = vec![TxnOp::Clone { from: self.object(object), to: of(taken) }];
        if taken > SNAPS {
            ops.push(TxnOp::Remove { oid: of(taken - SNAPS) });
        }
        Next::Change(ops, 0)
    }
}

enum Next {
    Read(u64, u64),
    List(u64, u64),
    Change(Vec<TxnOp>, u64),
}

fn key_name(key: u64) -> Bytes {
    format!("key.{key:08}").into()
}
