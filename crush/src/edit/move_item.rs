//! Moves devices and buckets with all below them, and takes them out of the hierarchy.

use std::collections::BTreeSet;

use super::EditError;
use crate::model::{CrushMap, ItemId, Weight};

impl CrushMap {
    /// Moves an item, with its weight, last into another bucket. A root or a device that is in no bucket is linked in.
    ///
    /// # Errors
    /// When the bucket lies below the item, or is of a type that cannot hold it.
    pub fn move_item(&mut self, name: &str, parent: &str) -> Result<(), EditError> {
        self.change(|map| {
            let item = map.wanted_item(name)?;
            let weight = map.weight_of(item);
            let mut left = map.pull_item(item);
            if item < 0 {
                left.insert(item);
            }
            map.weigh_up(left)?;
            let weight = map.buckets.get(&item).map_or(weight, |bucket| bucket.weight);
            map.put_below(item, weight, parent)
        })
    }

    /// Takes an item out of the bucket that holds it: a bucket becomes a root, a device stays known but holds nothing.
    ///
    /// # Errors
    /// When the item is in no bucket.
    pub fn detach_item(&mut self, name: &str) -> Result<(), EditError> {
        self.change(|map| {
            let item = map.wanted_item(name)?;
            let left = map.pull_item(item);
            if left.is_empty() {
                return Err(EditError::NotPlaced { name: name.to_owned() });
            }
            map.weigh_up(left)
        })
    }

    /// What an item weighs: in the bucket that holds it, else by itself. A device nobody holds weighs nothing.
    pub(super) fn weight_of(&self, item: ItemId) -> Weight {
        let held = self.parent(item).and_then(|parent| parent.weights.get(parent.position(item)?));
        held.copied().or_else(|| self.buckets.get(&item).map(|bucket| bucket.weight)).unwrap_or_default()
    }

    /// The buckets below and with an item that are originals.
    pub(super) fn tree_below(&self, item: ItemId) -> BTreeSet<ItemId> {
        self.post_order([item]).buckets.into_iter().collect()
    }
}
