//! Adds devices and buckets.

use std::collections::BTreeSet;

use super::EditError;
use super::reweight::fit_weight;
use crate::model::{Bucket, BucketAlg, CrushMap, Device, ItemId, MAX_BUCKETS, MAX_DEVICES, Weight};

impl CrushMap {
    /// Adds device `id`, called `osd.ID` if it is given no name, of a class if one is given, last into a bucket. A device
    /// that the map names but no bucket holds is put into its place with what is given here.
    ///
    /// # Errors
    /// When id or name are taken, the weight is out of range, or the bucket cannot take it.
    pub fn add_device(
        &mut self,
        id: ItemId,
        name: Option<&str>,
        weight: Weight,
        class: Option<&str>,
        parent: &str,
    ) -> Result<(), EditError> {
        self.change(|map| {
            if !(0..MAX_DEVICES as ItemId).contains(&id) {
                return Err(EditError::IdRange { id });
            }
            let name = name.map_or_else(|| format!("osd.{id}"), str::to_owned);
            if let Some(holder) = map.parent(id) {
                let holder = format!("{} in {}", map.item_name(id), holder.name);
                return Err(EditError::IdTaken { id, holder });
            }
            match map.devices.get(&id) {
                Some(known) if known.name == name => {}
                Some(known) if !known.name.is_empty() => {
                    return Err(EditError::IdTaken { id, holder: known.name.clone() });
                }
                _ => map.free_name(&name)?,
            }
            fit_weight(&name, id, weight)?;
            let parent = map.wanted_bucket(parent)?;
            let class = match class {
                Some(class) => Some(map.class_or_new(class)?),
                None => map.devices.get(&id).and_then(|known| known.class),
            };
            map.devices.insert(id, Device { name, class });
            map.push_item(parent, id, weight)?;
            map.weigh_up(BTreeSet::from([parent]))
        })
    }

    /// Adds an empty bucket, as a root or last into another, with the best algorithm the map allows.
    ///
    /// # Errors
    /// When the name is taken, there is no such type, or the parent cannot take it.
    pub fn add_bucket(&mut self, name: &str, kind: &str, parent: Option<&str>) -> Result<ItemId, EditError> {
        self.change(|map| {
            map.free_name(name)?;
            let kind_id = map.wanted_type(kind)?;
            if kind_id == 0 {
                return Err(EditError::DeviceType { name: kind.to_owned() });
            }
            let mut id = -1;
            while map.buckets.contains_key(&id) {
                id -= 1;
            }
            if !id >= MAX_BUCKETS as ItemId {
                return Err(EditError::Full { what: "bucket" });
            }
            map.insert_bucket(Bucket {
                id,
                name: name.to_owned(),
                kind: kind_id,
                alg: map.best_alg(),
                hash: 0,
                items: Vec::new(),
                weights: Vec::new(),
                weight: Weight::ZERO,
                straws: None,
            });
            if let Some(parent) = parent {
                map.put_below(id, Weight::ZERO, parent)?;
            }
            Ok(id)
        })
    }

    /// Puts a bucket below another that is named.
    pub(super) fn put_below(&mut self, item: ItemId, weight: Weight, parent: &str) -> Result<(), EditError> {
        let parent = self.wanted_bucket(parent)?;
        let name = |id| self.item_name(id).into_owned();
        let (kind, parent_kind) = (self.kind(item).unwrap_or_default(), self.kind(parent).unwrap_or_default());
        if self.post_order([item]).buckets.contains(&parent) {
            return Err(EditError::Cycle { item: name(item), parent: name(parent) });
        }
        if kind >= parent_kind {
            return Err(EditError::Order {
                parent: name(parent),
                parent_type: self.type_name(parent_kind).into_owned(),
                item: name(item),
                item_type: self.type_name(kind).into_owned(),
            });
        }
        self.push_item(parent, item, weight)?;
        self.weigh_up(BTreeSet::from([item, parent]))
    }

    fn best_alg(&self) -> BucketAlg {
        let order = [
            (5, BucketAlg::Straw2),
            (4, BucketAlg::Straw),
            (3, BucketAlg::Tree),
            (2, BucketAlg::List),
            (1, BucketAlg::Uniform),
        ];
        let allowed = |number: u32| self.tunables.allowed_bucket_algs & (1 << number) != 0;
        order.into_iter().find(|(number, _)| allowed(*number)).map_or(BucketAlg::Straw2, |(_, alg)| alg)
    }
}
