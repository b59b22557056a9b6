//! Removes devices and buckets from the map.

use std::collections::BTreeSet;

use super::EditError;
use crate::model::{CrushMap, ItemId};

impl CrushMap {
    /// Removes a device or an empty bucket.
    ///
    /// # Errors
    /// When a rule takes it or it still holds something.
    pub fn remove_item(&mut self, name: &str) -> Result<(), EditError> {
        self.change(|map| {
            let item = map.wanted_item(name)?;
            if let Some(bucket) = map.buckets.get(&item)
                && !bucket.items.is_empty()
            {
                return Err(EditError::NotEmpty { name: name.to_owned(), items: bucket.items.len() });
            }
            map.drop_items(&BTreeSet::from([item]))
        })
    }

    /// Removes a bucket with all buckets and devices below it, or a device, and says which devices are gone.
    ///
    /// # Errors
    /// When a rule takes one of them.
    pub fn remove_tree(&mut self, name: &str) -> Result<BTreeSet<ItemId>, EditError> {
        self.change(|map| {
            let item = map.wanted_item(name)?;
            let devices = map.devices_below(item);
            let all = map.tree_below(item).into_iter().chain(devices.iter().copied()).collect();
            map.drop_items(&all)?;
            Ok(devices)
        })
    }

    fn drop_items(&mut self, items: &BTreeSet<ItemId>) -> Result<(), EditError> {
        self.refuse_taken(items)?;
        let mut left = BTreeSet::new();
        for item in items {
            left.extend(self.pull_item(*item));
        }
        for item in items {
            self.devices.remove(item);
            self.buckets.remove(item);
            // The shadows of a bucket that is gone go with it; the rebuild knows only those of its original.
            for shadow in self.shadows.remove(item).unwrap_or_default().into_values() {
                self.buckets.remove(&shadow);
            }
            left.remove(item);
        }
        self.weigh_up(left)
    }
}
