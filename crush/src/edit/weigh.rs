//! Carries weights up: what changed in a bucket changes what it weighs in its parent, up to the root.
//!
//! Weight sets of choose_args follow: a changed item gets its plain weight there, a changed bucket the sum of its own set.

use std::collections::{BTreeMap, BTreeSet};

use super::EditError;
use crate::model::{BucketAlg, ChooseArg, CrushMap, ItemId, MAX_TREE_ITEMS, Weight};

impl CrushMap {
    /// Puts an item last into an original bucket. The caller carries the weight up.
    pub(super) fn push_item(&mut self, parent: ItemId, item: ItemId, weight: Weight) -> Result<(), EditError> {
        let Some(bucket) = self.buckets.get_mut(&parent) else { return Ok(()) };
        if bucket.alg == BucketAlg::Tree && bucket.items.len() >= MAX_TREE_ITEMS {
            return Err(EditError::TreeFull { bucket: bucket.name.clone() });
        }
        bucket.items.push(item);
        bucket.weights.push(weight);
        self.each_arg(parent, |arg| {
            arg.weight_set.iter_mut().for_each(|weights| weights.push(weight));
            if !arg.ids.is_empty() {
                arg.ids.push(item);
            }
        });
        Ok(())
    }

    /// Takes an item out of every original bucket that holds it and gives these.
    pub(super) fn pull_item(&mut self, item: ItemId) -> BTreeSet<ItemId> {
        let shadows = self.shadow_ids();
        let mut parents = BTreeSet::new();
        for id in self.buckets.keys().copied().collect::<Vec<_>>() {
            while let Some(bucket) = self.buckets.get_mut(&id)
                && !shadows.contains(&id)
                && let Some(position) = bucket.position(item)
            {
                remove_at(&mut bucket.items, position);
                remove_at(&mut bucket.weights, position);
                self.each_arg(id, |arg| {
                    arg.weight_set.iter_mut().for_each(|weights| remove_at(weights, position));
                    remove_at(&mut arg.ids, position);
                });
                parents.insert(id);
            }
        }
        parents
    }

    /// Sets the weight of an item in a bucket, in its weight sets too.
    pub(super) fn set_weight(&mut self, bucket: ItemId, position: usize, weight: Weight) {
        if let Some(place) = self.buckets.get_mut(&bucket).and_then(|bucket| bucket.weights.get_mut(position)) {
            *place = weight;
        }
        self.each_arg(bucket, |arg| set_column(arg, position, |_| weight));
    }

    /// Weighs these original buckets anew, and all above them.
    pub(super) fn weigh_up(&mut self, changed: BTreeSet<ItemId>) -> Result<(), EditError> {
        let shadows = self.shadow_ids();
        let originals: Vec<ItemId> = self.buckets.keys().rev().copied().filter(|id| !shadows.contains(id)).collect();
        let mut parents: BTreeMap<ItemId, Vec<(ItemId, usize)>> = BTreeMap::new();
        for id in &originals {
            let items = self.buckets.get(id).map(|bucket| bucket.items.as_slice()).unwrap_or_default();
            for (position, item) in items.iter().enumerate().filter(|(_, item)| **item < 0) {
                parents.entry(*item).or_default().push((*id, position));
            }
        }
        let mut changed = changed;
        for id in self.post_order(originals).buckets {
            if !changed.contains(&id) {
                continue;
            }
            let Some(bucket) = self.buckets.get_mut(&id) else { continue };
            let name = || bucket.name.clone();
            let Some(weight) = bucket.sum().filter(|sum| *sum <= Weight::MAX_BUCKET) else {
                return Err(EditError::TooHeavy { bucket: name() });
            };
            if bucket.alg == BucketAlg::Uniform && bucket.weights.windows(2).any(|pair| pair[0] != pair[1]) {
                return Err(EditError::Uneven { bucket: name() });
            }
            bucket.weight = weight;
            bucket.straws = None;
            for (parent, position) in parents.get(&id).into_iter().flatten() {
                changed.insert(*parent);
                self.set_weight_of_bucket(*parent, *position, id, weight);
            }
        }
        Ok(())
    }

    fn set_weight_of_bucket(&mut self, parent: ItemId, position: usize, child: ItemId, weight: Weight) {
        if let Some(place) = self.buckets.get_mut(&parent).and_then(|bucket| bucket.weights.get_mut(position)) {
            *place = weight;
        }
        for args in self.choose_args.values_mut() {
            let sums: Vec<Weight> = args.get(&child).map(sums).unwrap_or_default();
            if let Some(arg) = args.get_mut(&parent) {
                set_column(arg, position, |at| sums.get(at).or_else(|| sums.last()).copied().unwrap_or(weight));
            }
        }
    }

    fn each_arg(&mut self, bucket: ItemId, change: impl Fn(&mut ChooseArg)) {
        self.choose_args.values_mut().filter_map(|args| args.get_mut(&bucket)).for_each(change);
    }
}

/// What a bucket weighs at each position of its weight set.
fn sums(arg: &ChooseArg) -> Vec<Weight> {
    let sum = |weights: &Vec<Weight>| weights.iter().fold(0_u32, |sum, weight| sum.saturating_add(weight.0));
    arg.weight_set.iter().map(|weights| Weight(sum(weights))).collect()
}

/// Sets the weight of one item at each position of a weight set.
fn set_column(arg: &mut ChooseArg, item: usize, weight: impl Fn(usize) -> Weight) {
    for (at, weights) in arg.weight_set.iter_mut().enumerate() {
        if let Some(place) = weights.get_mut(item) {
            *place = weight(at);
        }
    }
}

fn remove_at<T>(list: &mut Vec<T>, position: usize) {
    if position < list.len() {
        list.remove(position);
    }
}
