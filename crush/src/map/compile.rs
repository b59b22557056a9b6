//! From a [`CrushMap`] to flat arrays: checks the invariants that mapping rests on and refuses a map without them.
//!
//! After [`Mapper::new`] these hold, and the rest of the module leans on them:
//! 1. Every link of an item leads to a bucket of the table; following links ends (no cycle), at devices at last.
//! 2. Ids that are hashed, weights and items of a bucket are equally many; each view has at least one position.
//! 3. No device has the id of a hole or of an undecided position.
//! 4. A straw2 bucket with items has at least one weight above zero (see `straw2_weights`).

use super::{BUDGET, Mapper, Views, batch, choose};
use crate::derive;
use crate::model::{self, BucketAlg, ChooseArg, CrushMap, ItemId, RuleId, TypeId, Weight};
use crate::simd::{Kernel, Pool, reciprocal};
use std::collections::BTreeMap;

/// The link of an item that is a device.
pub(super) const DEVICE: u32 = u32::MAX;

/// Ids from here on mark holes and undecided positions.
const RESERVED: ItemId = choose::UNDECIDED;

/// The most items of all buckets and weight sets together; far above any real map, it keeps offsets in 32 bits.
const MAX_ITEMS: usize = 1 << 28;

/// Why a map cannot be mapped with, or a mapping not be asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MapError {
    /// The table's key and the bucket's own id differ.
    #[error("bucket {name} is filed under {key} but calls itself {id}; give it one id below 0")]
    BucketId {
        /// Where it is filed.
        key: ItemId,
        /// What it says.
        id: ItemId,
        /// The bucket.
        name: String,
    },
    /// A bucket that claims to be a device.
    #[error("bucket {name} has type 0, which is for devices; give it a type of its own")]
    BucketType {
        /// The bucket.
        name: String,
    },
    /// A hash function that nobody defined.
    #[error("bucket {name} asks for hash {hash}; only 0 (rjenkins1) exists")]
    UnknownHash {
        /// The bucket.
        name: String,
        /// What it asks for.
        hash: u8,
    },
    /// Items and weights are not equally many.
    #[error("bucket {name} has {items} items but {weights} weights")]
    WeightCount {
        /// The bucket.
        name: String,
        /// Its items.
        items: usize,
        /// Its weights.
        weights: usize,
    },
    /// Items and straws are not equally many.
    #[error("bucket {name} has {items} items but {straws} straws")]
    StrawCount {
        /// The bucket.
        name: String,
        /// Its items.
        items: usize,
        /// Its straws.
        straws: usize,
    },
    /// An item that is not in the map.
    #[error("bucket {name} holds item {item}, which is neither a bucket nor a device below {max_devices}")]
    UnknownItem {
        /// The bucket.
        name: String,
        /// The item.
        item: ItemId,
        /// Where device ids end.
        max_devices: u32,
    },
    /// A bucket below itself.
    #[error("bucket {name} lies below itself; take it out of one of its parents")]
    Cycle {
        /// One bucket of the cycle.
        name: String,
    },
    /// A weight set that does not fit its bucket.
    #[error("choose_args {set} give bucket {name} a list of {found} where it has {items} items")]
    ChooseArgs {
        /// The set.
        set: i64,
        /// The bucket.
        name: String,
        /// The length of the list.
        found: usize,
        /// The bucket's items.
        items: usize,
    },
    /// Past what the arrays can address.
    #[error("the map has more than {MAX_ITEMS} items in buckets and weight sets")]
    TooLarge,
    /// No such rule.
    #[error("there is no rule {rule} in the map")]
    UnknownRule {
        /// The rule asked for.
        rule: RuleId,
    },
    /// More positions than a mapping can have.
    #[error("{positions} positions are too many; at most {max} can be asked for", max = super::MAX_POSITIONS)]
    TooManyPositions {
        /// What was asked for.
        positions: u32,
    },
}

/// A bucket as the mapper sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// Its id: hashed by list, tree and uniform buckets.
    pub(super) id: ItemId,
    /// Where its items begin in [`Mapper::items`]; also its place in a workspace's permutations.
    pub(super) start: u32,
    pub(super) size: u32,
    /// Where its straws, tree nodes or list sums begin in [`Mapper::derived`].
    pub(super) derived: u32,
    pub(super) kind: TypeId,
    pub(super) alg: BucketAlg,
}

/// What the items of a bucket draw with.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Where the ids to hash begin in [`Pool::ids`].
    pub(super) ids: u32,
    /// Where the weights of position 0 begin in [`Pool::weights`]; those of the next position follow, padded.
    pub(super) weights: u32,
    /// How many positions there are; later ones use the last.
    pub(super) positions: u32,
}

/// The room a bucket of `size` items takes up: whole vectors, so that loads need no tail. Four, eight, or sixteens.
pub(super) fn padded(size: usize) -> usize {
    match size {
        0..=4 => 4,
        5..=8 => 8,
        _ => size.next_multiple_of(16),
    }
}

impl Mapper {
    /// Compiles a map.
    pub fn new(map: &CrushMap) -> Result<Mapper, MapError> {
        let numbers: BTreeMap<ItemId, u32> = map.buckets.keys().rev().zip(0..).map(|(&id, n)| (id, n)).collect();
        let mut mapper = Mapper {
            buckets: Vec::with_capacity(map.buckets.len()),
            items: Vec::new(),
            links: Vec::new(),
            pool: Pool::default(),
            kernel: Kernel::best(),
            derived: Vec::new(),
            views: Views { views: Vec::with_capacity(map.buckets.len()), plain: Vec::new() },
            arg_views: Vec::with_capacity(map.choose_args.len()),
            rules: map.rules.iter().map(|(&id, rule)| (id, rule.steps.clone())).collect(),
            tunables: map.tunables,
            max_devices: map.max_devices,
            budget: BUDGET,
        };
        for (&key, bucket) in map.buckets.iter().rev() {
            check(map, key, bucket)?;
            mapper.push_bucket(bucket, &numbers, map.tunables.straw_calc_version)?;
        }
        let children_first = mapper.children_first(map)?;
        mapper.views.plain = batch::plain(&mapper, &mapper.views.views, &children_first);
        for (&set, args) in &map.choose_args {
            let mut views = mapper.views.views.clone();
            for (id, arg) in args {
                // A set may speak of a bucket that is gone, and only straw2 looks at it: Ceph passes over both.
                let Some(bucket) = map.buckets.get(id) else { continue };
                views[numbers[id] as usize] = mapper.push_args(set, bucket, arg, views[numbers[id] as usize])?;
            }
            let plain = batch::plain(&mapper, &views, &children_first);
            mapper.arg_views.push((set, Views { views, plain }));
        }
        Ok(mapper)
    }

    fn push_bucket(
        &mut self,
        bucket: &model::Bucket,
        numbers: &BTreeMap<ItemId, u32>,
        straw_calc_version: u8,
    ) -> Result<(), MapError> {
        let room = padded(bucket.items.len());
        let start = self.items.len();
        self.items.extend_from_slice(&bucket.items);
        self.items.resize(start + room, 0);
        self.links.extend(bucket.items.iter().map(|item| numbers.get(item).copied().unwrap_or(DEVICE)));
        self.links.resize(start + room, DEVICE);

        let ids = self.push_ids(&bucket.items);
        let weights = self.push_weights(&bucket.weights);
        let derived = self.derived.len();
        match bucket.alg {
            BucketAlg::Uniform | BucketAlg::Straw2 => {}
            BucketAlg::List => self.derived.extend(derive::list_sums(&bucket.weights)),
            BucketAlg::Tree => self.derived.extend(derive::tree_nodes(&bucket.weights)),
            BucketAlg::Straw => match &bucket.straws {
                Some(straws) => self.derived.extend_from_slice(straws),
                None => self.derived.extend(derive::straws(&bucket.weights, straw_calc_version)),
            },
        }
        self.check_room()?;
        self.views.views.push(View { ids, weights, positions: 1 });
        self.buckets.push(Bucket {
            id: bucket.id,
            start: start as u32,
            size: bucket.items.len() as u32,
            derived: derived as u32,
            kind: bucket.kind,
            alg: bucket.alg,
        });
        Ok(())
    }

    fn push_args(
        &mut self,
        set: i64,
        bucket: &model::Bucket,
        arg: &ChooseArg,
        mut view: View,
    ) -> Result<View, MapError> {
        let items = bucket.items.len();
        let wrong = |found| MapError::ChooseArgs { set, name: bucket.name.clone(), found, items };
        if !arg.ids.is_empty() {
            if arg.ids.len() != items {
                return Err(wrong(arg.ids.len()));
            }
            view.ids = self.push_ids(&arg.ids);
        }
        if !arg.weight_set.is_empty() && bucket.alg == BucketAlg::Straw2 {
            view.positions = arg.weight_set.len() as u32;
            view.weights = self.pool.weights.len() as u32;
            for weights in &arg.weight_set {
                if weights.len() != items {
                    return Err(wrong(weights.len()));
                }
                self.push_weights(weights);
                self.check_room()?;
            }
        }
        self.check_room()?;
        Ok(view)
    }

    fn push_ids(&mut self, ids: &[ItemId]) -> u32 {
        let start = self.pool.ids.len();
        self.pool.ids.extend(ids.iter().map(|&id| id as u32));
        self.pool.ids.resize(start + padded(ids.len()), 0);
        start as u32
    }

    /// Where all weights are zero all draws are equal and the first item wins. Giving the first one a weight says the
    /// same, and spares every draw the question.
    fn push_weights(&mut self, weights: &[Weight]) -> u32 {
        let Pool { weights: pool, reciprocals, .. } = &mut self.pool;
        let start = pool.len();
        pool.extend(weights.iter().map(|weight| weight.0));
        if weights.iter().all(|&weight| weight == Weight::ZERO)
            && let Some(first) = pool.get_mut(start)
        {
            *first = 1;
        }
        pool.resize(start + padded(weights.len()), 0);
        reciprocals.extend(pool[start..].iter().map(|&weight| reciprocal(weight).to_bits()));
        start as u32
    }

    fn check_room(&self) -> Result<(), MapError> {
        let most = self.items.len().max(self.pool.ids.len()).max(self.pool.weights.len()).max(self.derived.len());
        if most <= MAX_ITEMS { Ok(()) } else { Err(MapError::TooLarge) }
    }

    /// All buckets in an order that has children before their parents: peels off those whose children are all peeled off.
    /// What remains holds a cycle.
    fn children_first(&self, map: &CrushMap) -> Result<Vec<u32>, MapError> {
        let children = |n: usize| {
            let bucket = &self.buckets[n];
            let at = bucket.start as usize;
            self.links[at..at + bucket.size as usize].iter().filter(|&&link| link != DEVICE).map(|&link| link as usize)
        };
        let count = self.buckets.len();
        let mut parents = vec![Vec::new(); count];
        let mut open = vec![0_usize; count];
        for (n, open) in open.iter_mut().enumerate() {
            for child in children(n) {
                parents[child].push(n);
                *open += 1;
            }
        }
        let mut order: Vec<u32> = (0..count as u32).filter(|&n| open[n as usize] == 0).collect();
        let mut at = 0;
        while let Some(&n) = order.get(at) {
            at += 1;
            for &parent in &parents[n as usize] {
                open[parent] -= 1;
                if open[parent] == 0 {
                    order.push(parent as u32);
                }
            }
        }
        if order.len() == count {
            return Ok(order);
        }
        // What is left also holds the buckets above the cycle; going down from one leads into it, and then round.
        let below = |n: usize| children(n).find(|&child| open[child] > 0);
        let mut at = (0..count).find(|&n| open[n] > 0);
        for _ in 0..count {
            at = at.and_then(below).or(at);
        }
        let id = at.map_or(0, |n| self.buckets[n].id);
        Err(MapError::Cycle { name: map.buckets.get(&id).map(|bucket| bucket.name.clone()).unwrap_or_default() })
    }
}

/// The invariants of one bucket by itself.
fn check(map: &CrushMap, key: ItemId, bucket: &model::Bucket) -> Result<(), MapError> {
    let name = || bucket.name.clone();
    if key != bucket.id || key >= 0 {
        return Err(MapError::BucketId { key, id: bucket.id, name: name() });
    }
    if bucket.kind == 0 {
        return Err(MapError::BucketType { name: name() });
    }
    if bucket.hash != 0 {
        return Err(MapError::UnknownHash { name: name(), hash: bucket.hash });
    }
    if bucket.items.len() != bucket.weights.len() {
        return Err(MapError::WeightCount { name: name(), items: bucket.items.len(), weights: bucket.weights.len() });
    }
    if let Some(straws) = &bucket.straws
        && straws.len() != bucket.items.len()
    {
        return Err(MapError::StrawCount { name: name(), items: bucket.items.len(), straws: straws.len() });
    }
    let known = |item: ItemId| match u32::try_from(item) {
        Ok(device) => device < map.max_devices && item < RESERVED,
        Err(_) => map.buckets.contains_key(&item),
    };
    match bucket.items.iter().find(|&&item| !known(item)) {
        Some(&item) => Err(MapError::UnknownItem { name: name(), item, max_devices: map.max_devices }),
        None => Ok(()),
    }
}
