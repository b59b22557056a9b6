//! Sets how much devices and buckets hold.

use std::collections::BTreeSet;

use super::EditError;
use crate::model::{CrushMap, ItemId, Weight};

impl CrushMap {
    /// Sets the weight of a device, or scales the devices below a bucket so that it weighs about as much (each device's
    /// share is cut off to 1/65536).
    ///
    /// # Errors
    /// When the weight is out of range for the device or for one of the devices below the bucket, the device is in no
    /// bucket, or the bucket weighs nothing.
    pub fn reweight_item(&mut self, name: &str, weight: Weight) -> Result<(), EditError> {
        self.change(|map| {
            let item = map.wanted_item(name)?;
            fit_weight(name, item, weight)?;
            if item >= 0 {
                return match map.set_devices(&BTreeSet::from([item]), |_| Some(weight))? {
                    0 => Err(EditError::NotPlaced { name: name.to_owned() }),
                    _ => Ok(()),
                };
            }
            let whole = map.buckets.get(&item).and_then(|bucket| bucket.sum()).filter(|whole| *whole > Weight::ZERO);
            let Some(whole) = whole else { return Err(EditError::NothingToScale { name: name.to_owned() }) };
            let scale = |old: Weight| {
                let scaled = u64::from(old.0) * u64::from(weight.0) / u64::from(whole.0);
                u32::try_from(scaled).ok().map(Weight)
            };
            map.set_devices(&map.devices_below(item), scale).map(drop)
        })
    }

    /// Gives every device below a bucket the same weight and says how many there are.
    ///
    /// # Errors
    /// When the weight is out of range for a device.
    pub fn reweight_devices_below(&mut self, name: &str, weight: Weight) -> Result<usize, EditError> {
        self.change(|map| {
            let bucket = map.wanted_bucket(name)?;
            map.set_devices(&map.devices_below(bucket), |_| Some(weight))
        })
    }

    /// Weighs devices anew wherever an original bucket holds them, and says how many were found.
    fn set_devices(
        &mut self,
        devices: &BTreeSet<ItemId>,
        weight: impl Fn(Weight) -> Option<Weight>,
    ) -> Result<usize, EditError> {
        let shadows = self.shadow_ids();
        let mut found = Vec::new();
        for bucket in self.buckets.values().filter(|bucket| !shadows.contains(&bucket.id)) {
            for (position, (item, old)) in bucket.items.iter().zip(&bucket.weights).enumerate() {
                if devices.contains(item) {
                    let name = self.item_name(*item);
                    let new = weight(*old).unwrap_or(Weight(u32::MAX));
                    fit_weight(&name, *item, new)?;
                    found.push((bucket.id, position, new));
                }
            }
        }
        for (bucket, position, weight) in &found {
            self.set_weight(*bucket, *position, *weight);
        }
        self.weigh_up(found.iter().map(|(bucket, _, _)| *bucket).collect())?;
        Ok(found.len())
    }
}

/// Checks that an item may weigh this.
pub(super) fn fit_weight(name: &str, item: ItemId, weight: Weight) -> Result<(), EditError> {
    let (what, most) = if item >= 0 { ("device", Weight::MAX_DEVICE) } else { ("bucket", Weight::MAX_BUCKET) };
    if weight <= most {
        return Ok(());
    }
    Err(EditError::WeightRange { name: name.to_owned(), weight: weight.as_f64().to_string(), what, most: most.0 >> 16 })
}
