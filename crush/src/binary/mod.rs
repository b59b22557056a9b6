//! The binary form of a map, as Ceph's monitors hand it out and `crushtool` writes it (docs/formats/crush.md has the
//! layout).
//!
//! Bytes come from anywhere: [`decode()`] neither panics nor allocates more than a small multiple of what it was given,
//! and refuses what the model cannot say. It reads all lengths of the tail that releases have written; what is absent
//! has the value of the time before. [`encode()`] always writes the whole tail, as today's Ceph does, so a current map
//! comes back byte for byte.
//!
//! The format is Ceph's and has no checksum. Where Nacre keeps maps on disk or sends them, the record around them has.

mod decode;
mod encode;
mod read;

use crate::model::{BucketAlg, CrushMap, ItemId};

/// The first four bytes, little-endian.
pub(crate) const MAGIC: u32 = 0x0001_0000;

/// Why bytes are no map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BinaryError {
    /// Not a crush map at all.
    #[error("this is no binary crush map: it begins with {found:#010x} and not with {MAGIC:#010x}")]
    Magic {
        /// What it begins with.
        found: u32,
    },
    /// The bytes end too early.
    #[error("the map ends at byte {at}, within {what}: it is cut off or damaged; get it again")]
    Truncated {
        /// Where it ends.
        at: usize,
        /// What was being read.
        what: &'static str,
    },
    /// Bytes are left over.
    #[error(
        "{left} bytes are left behind the end of the map, at byte {at}: it is damaged, or of a release not known here"
    )]
    Trailing {
        /// Where the map ends.
        at: usize,
        /// How many bytes are left.
        left: usize,
    },
    /// A number that the field cannot have.
    #[error("byte {at}: {what} cannot be {value}")]
    Value {
        /// Where it stands.
        at: usize,
        /// The field.
        what: &'static str,
        /// What stands there.
        value: i64,
    },
    /// A bucket in the slot of another.
    #[error("the slot of bucket {slot} holds bucket {found}: the map is damaged")]
    Slot {
        /// The bucket the slot is for.
        slot: ItemId,
        /// What it holds.
        found: ItemId,
    },
    /// A name that cannot be shown.
    #[error("byte {at}: {what} is not plain UTF-8")]
    Name {
        /// Where it stands.
        at: usize,
        /// Whose name.
        what: &'static str,
    },
    /// Sums or nodes that the weights do not give.
    #[error("the {alg} numbers of bucket {bucket} do not follow from its weights: the map is damaged")]
    Derived {
        /// The bucket.
        bucket: ItemId,
        /// Its algorithm.
        alg: &'static str,
    },
    /// A step of a rule that this version cannot run.
    #[error(
        "rule {rule} has a step of kind {op}, which is of a newer release and not supported; rewrite it as chooseleaf"
    )]
    Step {
        /// The rule.
        rule: u32,
        /// The kind of the step.
        op: u32,
    },
}

/// Reads a binary map.
///
/// # Errors
/// The first thing that cannot be, with its place.
pub fn decode(bytes: &[u8]) -> Result<CrushMap, BinaryError> {
    decode::decode(bytes)
}

/// The binary form of a map. For maps that the map check finds fit, [`decode()`] gives the same map back.
pub fn encode(map: &CrushMap) -> Vec<u8> {
    encode::encode(map)
}

/// The numbers of the bucket algorithms.
const ALGS: [(u32, BucketAlg); 5] = [
    (1, BucketAlg::Uniform),
    (2, BucketAlg::List),
    (3, BucketAlg::Tree),
    (4, BucketAlg::Straw),
    (5, BucketAlg::Straw2),
];

/// The numbers of the steps.
mod op {
    pub(super) const NOOP: u32 = 0;
    pub(super) const TAKE: u32 = 1;
    pub(super) const CHOOSE_FIRSTN: u32 = 2;
    pub(super) const CHOOSE_INDEP: u32 = 3;
    pub(super) const EMIT: u32 = 4;
    pub(super) const CHOOSELEAF_FIRSTN: u32 = 6;
    pub(super) const CHOOSELEAF_INDEP: u32 = 7;
    pub(super) const SET_CHOOSE_TRIES: u32 = 8;
    pub(super) const SET_CHOOSELEAF_TRIES: u32 = 9;
    pub(super) const SET_CHOOSE_LOCAL_TRIES: u32 = 10;
    pub(super) const SET_CHOOSE_LOCAL_FALLBACK_TRIES: u32 = 11;
    pub(super) const SET_CHOOSELEAF_VARY_R: u32 = 12;
    pub(super) const SET_CHOOSELEAF_STABLE: u32 = 13;
}

#[cfg(test)]
#[path = "binary_test.rs"]
mod tests;
