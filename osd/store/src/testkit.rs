//! What the store's tests share: random transactions, and a text that says all a store holds.

use std::fmt::Write;

use bytes::Bytes;
use nacre_proto::ids::{Epoch, ObjectId, PgId, PoolId, SnapId, Version};
use nacre_proto::txn::{Compression, Transaction, TxnOp, WriteHint};
use rand::{Rng, RngExt, rngs::StdRng};

use crate::{ObjectStore, StoreError};

pub(crate) const POOL: PoolId = PoolId(1);

pub(crate) fn pg(seed: u32) -> PgId {
    PgId { pool: POOL, seed }
}

pub(crate) fn oid(name: &str, hash: u32) -> ObjectId {
    let name = Bytes::copy_from_slice(name.as_bytes());
    ObjectId { pool: POOL, hash, namespace: Bytes::new(), name, snap: SnapId::HEAD }
}

pub(crate) fn ignore() -> crate::Completion {
    Box::new(|_| ())
}

fn random_oid(rng: &mut StdRng) -> ObjectId {
    let which = rng.random_range(0..6u32);
    let mut oid = oid(["a", "b", "c", "d", "e\0x", "f"][which as usize], which.wrapping_mul(0x9e37_79b9) ^ which);
    if rng.random_range(0..4) == 0 {
        oid.snap = SnapId(rng.random_range(1..3));
    }
    oid
}

fn random_data(rng: &mut StdRng, len: usize) -> Bytes {
    let mut data = vec![0; len];
    match rng.random_range(0..3) {
        0 => data.fill(rng.random()),
        1 => data.chunks_mut(1000).for_each(|piece| piece.fill(rng.random())),
        _ => rng.fill_bytes(&mut data),
    }
    data.into()
}

/// Offset and length: all shapes around blocks, small and large writes, leaves.
fn random_range(rng: &mut StdRng) -> (u64, u64) {
    let offset = match rng.random_range(0..4) {
        0 => rng.random_range(0..64) * 4096,
        1 => rng.random_range(0..300_000),
        2 => rng.random_range(0..20_000),
        _ => (1 << 20) - rng.random_range(0..3) * 4096 + rng.random_range(0..2) * 100,
    };
    let len = match rng.random_range(0..10) {
        0..3 => 4096 * rng.random_range(1..4),
        3..6 => rng.random_range(0..9000),
        6..8 => rng.random_range(0..66_000),
        _ => rng.random_range(65_000..150_000),
    };
    (offset, len)
}

fn random_key(rng: &mut StdRng) -> Bytes {
    Bytes::from(format!("k{:02}", rng.random_range(0..30)))
}

fn random_version(rng: &mut StdRng) -> Version {
    Version { epoch: Epoch(rng.random_range(1..3)), counter: rng.random_range(0..20) }
}

fn random_op(rng: &mut StdRng) -> TxnOp {
    let oid = random_oid(rng);
    let (offset, len) = random_range(rng);
    match rng.random_range(0..100) {
        0..35 => {
            let compressible = match rng.random_range(0..3) {
                0 => Some(Compression::Lz4),
                1 => Some(Compression::Zstd),
                _ => None,
            };
            let data = random_data(rng, len as usize);
            TxnOp::Write { oid, offset, data, hint: WriteHint { compressible, cold: false } }
        }
        35..38 => TxnOp::Touch { oid },
        38..44 => TxnOp::Zero { oid, offset, len },
        44..50 => TxnOp::Truncate { oid, size: offset },
        50..54 => TxnOp::Remove { oid },
        54..60 => TxnOp::Clone { from: oid, to: random_oid(rng) },
        60..68 => {
            let (mut from_offset, to_offset) = (random_range(rng).0, offset);
            if rng.random() {
                from_offset = from_offset / 4096 * 4096 + to_offset % 4096;
            }
            TxnOp::CloneRange { from: oid, to: random_oid(rng), from_offset, len, to_offset }
        }
        68..71 => TxnOp::Rename { from: oid, to: random_oid(rng) },
        71..74 => TxnOp::SetXattr { oid, name: random_key(rng), value: random_data(rng, 20) },
        74..76 => TxnOp::RemoveXattr { oid, name: random_key(rng) },
        76..82 => {
            let count = rng.random_range(0..5);
            TxnOp::OmapSet { oid, entries: (0..count).map(|_| (random_key(rng), random_data(rng, 30))).collect() }
        }
        82..84 => TxnOp::OmapRemove { oid, keys: vec![random_key(rng), random_key(rng)] },
        84..86 => {
            TxnOp::OmapRemoveRange { oid, from: random_key(rng), to: rng.random::<bool>().then(|| random_key(rng)) }
        }
        86..87 => TxnOp::OmapClear { oid },
        87..88 => TxnOp::OmapSetHeader { oid, header: random_key(rng) },
        88..92 => TxnOp::LogAppend { version: random_version(rng), entry: random_data(rng, 40) },
        92..93 => TxnOp::LogTrim { to: random_version(rng) },
        93..94 => TxnOp::LogRewind { after: random_version(rng) },
        94..97 => TxnOp::SetMeta { key: random_key(rng), value: rng.random::<bool>().then(|| random_data(rng, 10)) },
        97 => TxnOp::CreateCollection,
        98 => TxnOp::SplitCollection {
            child: pg(rng.random_range(1..4)),
            pg_num: rng.random_range(2..5),
            meta: vec![(random_key(rng), random_data(rng, 10))],
            log: vec![(random_version(rng), random_data(rng, 10))],
        },
        _ if rng.random_range(0..3) == 0 => TxnOp::RemoveCollection,
        _ => TxnOp::Touch { oid },
    }
}

/// A transaction that may fail: absent objects, wrong collections, all are in it.
pub(crate) fn random_txn(rng: &mut StdRng, store: &dyn ObjectStore) -> Transaction {
    let colls = store.collections().unwrap();
    let mut pg = pg(rng.random_range(0..3));
    if colls.is_empty() || rng.random_range(0..30) == 0 {
        return Transaction { pg, ops: vec![TxnOp::CreateCollection] };
    }
    if !colls.contains(&pg) && rng.random_range(0..20) != 0 {
        pg = colls[rng.random_range(0..colls.len())];
    }
    let count = rng.random_range(1..4);
    let mut ops: Vec<_> = (0..count).map(|_| random_op(rng)).collect();
    // Aim at the collection's own objects mostly, or most transactions would be refused once pgs are split.
    if rng.random_range(0..10) != 0 {
        ops.retain(|op| object_of(op).is_none_or(|oid| store.stat(pg, oid).is_ok()));
    }
    Transaction { pg, ops }
}

fn object_of(op: &TxnOp) -> Option<&ObjectId> {
    match op {
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
        | TxnOp::OmapSetHeader { oid, .. } => Some(oid),
        TxnOp::Clone { to, .. } | TxnOp::CloneRange { to, .. } | TxnOp::Rename { to, .. } => Some(to),
        _ => None,
    }
}

/// The kind of an outcome, for comparing two stores.
pub(crate) fn kind<T>(result: &Result<T, StoreError>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(error) => format!("{error:?}").split([' ', '{']).next().unwrap_or_default().to_owned(),
    }
}

/// All that a store holds, in words that can be compared.
pub(crate) fn dump(store: &dyn ObjectStore) -> Result<String, StoreError> {
    let mut out = String::new();
    for pg in store.collections()? {
        writeln!(
            out,
            "pg {pg} log {:?} meta {:?}",
            store.log(pg, Version::default(), usize::MAX)?,
            store.meta_list(pg)?
        )
        .unwrap();
        let mut after = None;
        loop {
            let page = store.list(pg, after.as_ref(), 3)?;
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            for oid in &page {
                let size = store.stat(pg, oid)?.map_or(u64::MAX, |stat| stat.size);
                // Where the bytes stand, the map says.
                let mut hash = blake3::Hasher::new();
                for extent in store.read(pg, oid, 0, u64::MAX)? {
                    hash.update(&extent.data);
                }
                let data = hash.finalize();
                let map = store.sparse_map(pg, oid, 0, u64::MAX)?;
                let omap = store.omap_list(pg, oid, &[], usize::MAX)?;
                let (xattrs, header) = (store.xattrs(pg, oid)?, store.omap_header(pg, oid)?);
                writeln!(
                    out,
                    "  {} size {size} data {data} map {map:?} xattrs {xattrs:?} header {header:?} omap {omap:?}",
                    crate::name(oid)
                )
                .unwrap();
            }
        }
    }
    Ok(out)
}
