//! What the map knows of a pool.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitflags::bitflags;
use nacre_crush::model::RuleId;
use nacre_proto::ids::{Epoch, SnapId, Stamp};

use crate::codec::DecodeError;
use crate::codec::wire::{Reader, Wire, choice, flag_word, put_part, record};

bitflags! {
    /// Yes-or-no settings and states of a pool.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PoolFlags: u32 {
        /// The pool's id is hashed into the placement, so that pools do not lie on top of each other. Off only in maps
        /// brought along from very old clusters.
        const HASH_POOL = 1;
        /// May not be removed.
        const NO_DELETE = 1 << 1;
        /// `size` and `min_size` may not be changed.
        const NO_SIZE_CHANGE = 1 << 2;
        /// The pg count may not be changed.
        const NO_PG_CHANGE = 1 << 3;
        /// No light scrubs.
        const NO_SCRUB = 1 << 4;
        /// No deep scrubs.
        const NO_DEEP_SCRUB = 1 << 5;
        /// Will hold much: starts with all the pgs it may have.
        const BULK = 1 << 6;
        /// Erasure-coded objects may be overwritten in part.
        const OVERWRITES = 1 << 7;
        /// A quota is used up: only removals are taken. Set and cleared by the monitors.
        const QUOTA_FULL = 1 << 16;
        /// Its devices are full. Set and cleared by the monitors.
        const FULL = 1 << 17;
        /// Its devices are near full. Set and cleared by the monitors.
        const NEAR_FULL = 1 << 18;
    }
}
flag_word!(PoolFlags);

impl PoolFlags {
    /// The flags an operator sets, with their words.
    pub const SETTABLE: &'static [(&'static str, PoolFlags)] = &[
        ("nodelete", PoolFlags::NO_DELETE),
        ("nosizechange", PoolFlags::NO_SIZE_CHANGE),
        ("nopgchange", PoolFlags::NO_PG_CHANGE),
        ("noscrub", PoolFlags::NO_SCRUB),
        ("nodeepscrub", PoolFlags::NO_DEEP_SCRUB),
        ("bulk", PoolFlags::BULK),
        ("overwrites", PoolFlags::OVERWRITES),
    ];
}

/// How a pool keeps its data safe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PoolKind {
    /// Whole copies.
    #[default]
    Replicated,
    /// Data and parity shards.
    Erasure(ErasureProfile),
}

impl Wire for PoolKind {
    fn put(&self, out: &mut Vec<u8>) {
        put_part(out, |out| match self {
            PoolKind::Replicated => out.push(0),
            PoolKind::Erasure(profile) => {
                out.push(1);
                profile.put(out);
            }
        });
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut from = from.part()?;
        match from.byte()? {
            0 => Ok(PoolKind::Replicated),
            1 => Wire::take(&mut from).map(PoolKind::Erasure),
            _ => Err(DecodeError::Value { what: "kind of pool" }),
        }
    }
}

/// How an erasure-coded pool cuts an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErasureProfile {
    /// Data shards.
    pub data: u8,
    /// Parity shards.
    pub parity: u8,
    /// Bytes of one shard in one stripe.
    pub stripe_unit: u32,
}
record!(ErasureProfile { data, parity, stripe_unit });

/// Who decides on a pool's pg count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PgAuto {
    /// The operator.
    Off,
    /// The operator, with a health warning when the count is far off.
    Warn,
    /// The monitors.
    #[default]
    On,
}
choice!(PgAuto, "pg count mode" { 0 Off "off", 1 Warn "warn", 2 On "on" });

/// When data is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CompressionMode {
    /// Never.
    #[default]
    None,
    /// If the client hints that it pays.
    Passive,
    /// Unless the client hints that it does not.
    Aggressive,
    /// Always.
    Force,
}
choice!(CompressionMode, "compression mode" { 0 None "none", 1 Passive "passive", 2 Aggressive "aggressive", 3 Force "force" });

/// By what data is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CompressionAlgorithm {
    /// Fast.
    #[default]
    Lz4,
    /// Small.
    Zstd,
}
choice!(CompressionAlgorithm, "compression algorithm" { 0 Lz4 "lz4", 1 Zstd "zstd" });

/// Compression of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression {
    /// When.
    pub mode: CompressionMode,
    /// By what.
    pub algorithm: CompressionAlgorithm,
    /// Keep the compressed form only if it is at most this many thousandths of the original.
    pub required_permille: u16,
}
record!(Compression { mode, algorithm, required_permille });

impl Default for Compression {
    fn default() -> Self {
        Self { mode: CompressionMode::None, algorithm: CompressionAlgorithm::Lz4, required_permille: 875 }
    }
}

/// A pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Its name, unique among pools.
    pub name: String,
    /// Copies or shards.
    pub kind: PoolKind,
    /// How many copies or shards there are.
    pub size: u32,
    /// How many must be there for the pg to serve.
    pub min_size: u32,
    /// How many pgs there are. May be any number; powers of two spread best.
    pub pg_num: u32,
    /// How many pgs placement tells apart: follows `pg_num`, so that a split first stays in place.
    pub pgp_num: u32,
    /// Where `pg_num` is going, step by step.
    pub pg_num_target: u32,
    /// Who decides on it.
    pub pg_auto: PgAuto,
    /// The crush rule.
    pub rule: RuleId,
    /// See [`PoolFlags`].
    pub flags: PoolFlags,
    /// Most bytes clients may store; 0 is no limit.
    pub quota_bytes: u64,
    /// Most objects clients may store; 0 is no limit.
    pub quota_objects: u64,
    /// What uses it (`block`, `fs`, `s3`, or a name of one's own), each with notes of its own.
    pub applications: BTreeMap<String, BTreeMap<String, String>>,
    /// See [`Compression`].
    pub compression: Compression,
    /// What share of the capacity it is expected to take, in thousandths; 0 is unknown.
    pub target_permille: u32,
    /// How many bytes it is expected to take; 0 is unknown.
    pub target_bytes: u64,
    /// The lowest pg count the automatic choice may make.
    pub pg_num_min: u32,
    /// The highest, 0 is no limit.
    pub pg_num_max: u32,
    /// The newest snapshot of the pool.
    pub snap_seq: SnapId,
    /// Snapshots that were removed and whose clones are to be trimmed.
    pub removed_snaps: Arc<BTreeSet<SnapId>>,
    /// When it was made.
    pub created: Stamp,
    /// Epoch in which it was made.
    pub created_in: Epoch,
    /// Epoch of the last change.
    pub changed_in: Epoch,
}
record!(Pool {
    name,
    kind,
    size,
    min_size,
    pg_num,
    pgp_num,
    pg_num_target,
    pg_auto,
    rule,
    flags,
    quota_bytes,
    quota_objects,
    applications,
    compression,
    target_permille,
    target_bytes,
    pg_num_min,
    pg_num_max,
    snap_seq,
    removed_snaps,
    created,
    created_in,
    changed_in,
});

impl Pool {
    /// Whether a missing position lets later ones move up: copies are alike, shards are not.
    pub fn can_shift(&self) -> bool {
        self.kind == PoolKind::Replicated
    }

    /// Bytes on devices for each byte stored, as a fraction.
    pub fn overhead(&self) -> (u32, u32) {
        match &self.kind {
            PoolKind::Replicated => (self.size, 1),
            PoolKind::Erasure(profile) => {
                (u32::from(profile.data) + u32::from(profile.parity), u32::from(profile.data).max(1))
            }
        }
    }
}
