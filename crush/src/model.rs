//! What a map is: plain data, as an operator edits it and as the two formats carry it.
//!
//! Invariants of a valid [`CrushMap`] (the codecs and the edits keep them; the mapper refuses a map without them):
//! 1. Device ids are `>= 0`, bucket ids `< 0`; each bucket's key equals its `id`.
//! 2. Each item of a bucket is a known bucket or a device below [`CrushMap::max_devices`]; buckets form a forest.
//! 3. Names are unique over devices and buckets together.
//! 4. A shadow bucket (`root~ssd`) belongs to one original and one class and is never edited by hand.

use std::collections::BTreeMap;

/// A device (`>= 0`, an OSD) or a bucket (`< 0`).
pub type ItemId = i32;
/// The kind of a bucket (host, rack ...); 0 is the device itself.
pub type TypeId = u16;
/// A device class (ssd, hdd ...).
pub type ClassId = i32;
/// The number of a rule.
pub type RuleId = u32;

/// A position of an `indep` mapping that no device could be found for.
pub const ITEM_NONE: ItemId = 0x7fff_ffff;

/// Buckets a map can hold, shadow buckets included. Lower ids are refused, so that the bucket table stays small.
pub const MAX_BUCKETS: u32 = 1 << 18;
/// Devices a map can speak of.
pub const MAX_DEVICES: u32 = 1 << 24;
/// Rules a map can hold; a rule's number is below.
pub const MAX_RULES: u32 = 256;
/// Items of a [`BucketAlg::Tree`] bucket: the binary form counts its nodes in one byte.
pub const MAX_TREE_ITEMS: usize = 64;

/// A 16.16 fixed-point weight: `0x10000` is 1.0. In a bucket it says how much an item holds against its siblings; as a
/// reweight (0 to 1.0) it says with what probability a device keeps what is mapped to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(pub u32);

impl Weight {
    /// 1.0
    pub const ONE: Weight = Weight(0x10000);
    /// 0.0: holds nothing.
    pub const ZERO: Weight = Weight(0);
    /// The most a device may weigh in its bucket.
    pub const MAX_DEVICE: Weight = Weight(100 << 16);
    /// The most a bucket may weigh in its parent.
    pub const MAX_BUCKET: Weight = Weight(65535 << 16);

    /// The weight as a number; exact, since 32 bits fit a double's mantissa.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 65536.0
    }
}

/// How a bucket draws one of its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BucketAlg {
    /// Equal weights; O(1), but any change of the item count moves nearly all.
    Uniform,
    /// Cheap to append to; removing moves much.
    List,
    /// Binary tree of weights.
    Tree,
    /// Straws computed ahead from all weights: changing one weight moves data between other items too.
    Straw,
    /// Each item's straw depends on its own weight only: a change moves the least data. The default.
    Straw2,
}

/// A node of the hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Own id, `< 0`.
    pub id: ItemId,
    /// Its name in the text form.
    pub name: String,
    /// Its kind: a key of [`CrushMap::types`], never 0.
    pub kind: TypeId,
    /// How it draws.
    pub alg: BucketAlg,
    /// Hash function number; 0 (rjenkins1) is the only one there is.
    pub hash: u8,
    /// Children in order; the order is part of the mapping for all but straw2.
    pub items: Vec<ItemId>,
    /// One weight per item (for [`BucketAlg::Uniform`] they are all equal).
    pub weights: Vec<Weight>,
    /// The bucket's own weight as stored. The formats carry it apart from the items' weights, and Ceph writes it back
    /// as it was, so it is kept and not derived.
    pub weight: Weight,
    /// Straws of a [`BucketAlg::Straw`] as a binary map brought them, kept only where they differ from what the weights
    /// give under [`Tunables::straw_calc_version`] (Ceph recomputes straws at the next change of the bucket, not when
    /// the tunable is switched). One per item; the mapper draws with them, an edit of the bucket drops them.
    pub straws: Option<Vec<u32>>,
}

/// A device as the map names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// `osd.N` by convention.
    pub name: String,
    /// Its class, a key of [`CrushMap::classes`].
    pub class: Option<ClassId>,
}

/// What one step of a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Does nothing (present in old maps).
    Noop,
    /// Start from this item.
    Take(ItemId),
    /// Hand the current set over to the result.
    Emit,
    /// Choose `num` items of a type (0 = as many as asked for, negative = that many fewer).
    Choose { mode: Mode, num: i32, kind: TypeId },
    /// Choose `num` items of a type and descend to one device below each.
    ChooseLeaf { mode: Mode, num: i32, kind: TypeId },
    /// Override [`Tunables::choose_total_tries`] for this rule.
    SetChooseTries(i32),
    /// Override how often the descent to a leaf is tried.
    SetChooseLeafTries(i32),
    /// Override [`Tunables::choose_local_tries`].
    SetChooseLocalTries(i32),
    /// Override [`Tunables::choose_local_fallback_tries`].
    SetChooseLocalFallbackTries(i32),
    /// Override [`Tunables::chooseleaf_vary_r`].
    SetChooseLeafVaryR(i32),
    /// Override [`Tunables::chooseleaf_stable`].
    SetChooseLeafStable(i32),
}

/// How a choice treats a position that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Later positions move up: for replicas, where order has no meaning.
    Firstn,
    /// A hole stays a hole: for erasure-coded shards, where the position is the shard.
    Indep,
}

/// What a rule is meant for; the mapping does not look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleKind {
    /// Whole copies.
    Replicated,
    /// Shards.
    Erasure,
    /// A number this version has no name for; kept as it came.
    Other(u8),
}

impl From<u8> for RuleKind {
    fn from(number: u8) -> Self {
        match number {
            1 => RuleKind::Replicated,
            3 => RuleKind::Erasure,
            other => RuleKind::Other(other),
        }
    }
}

impl From<RuleKind> for u8 {
    fn from(kind: RuleKind) -> Self {
        match kind {
            RuleKind::Replicated => 1,
            RuleKind::Erasure => 3,
            RuleKind::Other(other) => other,
        }
    }
}

/// How inputs become devices: a small program over the hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: RuleKind,
    /// Pool size bounds kept from old maps (`min_size`, `max_size`), and the rule's `ruleset` number.
    pub ruleset: u8,
    /// See `ruleset`.
    pub min_size: u8,
    /// See `ruleset`.
    pub max_size: u8,
    /// The program.
    pub steps: Vec<Step>,
}

/// The numbers that steer how the mapper retries; they are part of the placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunables {
    /// Retries inside the bucket of a collision.
    pub choose_local_tries: u32,
    /// Retries by permutation of that bucket.
    pub choose_local_fallback_tries: u32,
    /// Retries from the top; the formats and text say 50 where the mapper tries 51 times.
    pub choose_total_tries: u32,
    /// Descend to a leaf once per retry.
    pub chooseleaf_descend_once: u32,
    /// Vary the leaf's r with the parent's.
    pub chooseleaf_vary_r: u8,
    /// Keep leaves in place when a sibling fails.
    pub chooseleaf_stable: u8,
    /// How straws of [`BucketAlg::Straw`] are computed: 0 or 1.
    pub straw_calc_version: u8,
    /// Bit set of the bucket algorithms the map allows (bit n = algorithm n of the format).
    pub allowed_bucket_algs: u32,
}

impl Tunables {
    /// What a map without a word about tunables means: the first release's values.
    pub const LEGACY: Tunables = Tunables {
        choose_local_tries: 2,
        choose_local_fallback_tries: 5,
        choose_total_tries: 19,
        chooseleaf_descend_once: 0,
        chooseleaf_vary_r: 0,
        chooseleaf_stable: 0,
        straw_calc_version: 0,
        allowed_bucket_algs: 0b1_0110,
    };
    /// The values new maps are made with.
    pub const JEWEL: Tunables = Tunables {
        choose_local_tries: 0,
        choose_local_fallback_tries: 0,
        choose_total_tries: 50,
        chooseleaf_descend_once: 1,
        chooseleaf_vary_r: 1,
        chooseleaf_stable: 1,
        straw_calc_version: 1,
        allowed_bucket_algs: 0b11_0110,
    };
}

impl Default for Tunables {
    fn default() -> Self {
        Tunables::JEWEL
    }
}

/// Numbers newer releases of Ceph append for a kind of rule that is not supported here; carried along untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrTunables {
    /// Descents of such a rule.
    pub descents: u32,
    /// Tries after a collision.
    pub collision_tries: u32,
}

/// Replacement weights (and ids) of one bucket, for a pool or for all (see [`CrushMap::choose_args`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChooseArg {
    /// Ids hashed instead of the items' own; empty = their own.
    pub ids: Vec<ItemId>,
    /// One weight list per result position, the last one serving all later positions; empty = the bucket's own.
    pub weight_set: Vec<Vec<Weight>>,
}

/// A whole map. The default is empty, with the tunables of a new map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrushMap {
    /// One more than the highest device id that is an item of a bucket.
    pub max_devices: u32,
    /// Slots of the bucket table in the binary form (a power of two by Ceph's custom); bucket `-1-n` is slot `n`.
    pub max_buckets: u32,
    /// Slots of the rule table in the binary form.
    pub max_rules: u32,
    /// Devices with a name or a class. An item may be a device that has neither.
    pub devices: BTreeMap<ItemId, Device>,
    /// Names of the types.
    pub types: BTreeMap<TypeId, String>,
    /// The hierarchy, shadow buckets included.
    pub buckets: BTreeMap<ItemId, Bucket>,
    /// The rules.
    pub rules: BTreeMap<RuleId, Rule>,
    /// See [`Tunables`].
    pub tunables: Tunables,
    /// Names of the device classes.
    pub classes: BTreeMap<ClassId, String>,
    /// For each original bucket, its shadow of each class.
    pub shadows: BTreeMap<ItemId, BTreeMap<ClassId, ItemId>>,
    /// Weight sets: by pool id, or -1 for the default set; then by bucket.
    pub choose_args: BTreeMap<i64, BTreeMap<ItemId, ChooseArg>>,
    /// See [`MsrTunables`].
    pub msr: Option<MsrTunables>,
}

impl CrushMap {
    /// Puts a bucket in its slot. The table grows by doubling from 8, as Ceph's does, so that the binary form is equal.
    pub(crate) fn insert_bucket(&mut self, bucket: Bucket) {
        // The slot of bucket -1-n is n, which is what `!` gives in two's complement.
        let slot = (!bucket.id).max(0) as u32;
        while slot >= self.max_buckets {
            self.max_buckets = self.max_buckets.saturating_mul(2).max(8);
        }
        self.buckets.insert(bucket.id, bucket);
    }

    /// Raises [`CrushMap::max_devices`] above every device that is an item.
    pub(crate) fn cover_devices(&mut self) {
        let highest = self.buckets.values().flat_map(|bucket| &bucket.items).max().copied().unwrap_or(-1);
        self.max_devices = self.max_devices.max(highest.saturating_add(1).max(0) as u32);
    }
}
