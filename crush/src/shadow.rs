//! Shadow trees: for each device class a copy of the hierarchy that holds only the devices of that class.
//!
//! A rule that takes `default class ssd` starts from the bucket `default~ssd`. Shadow buckets have ids of their own,
//! which place data, so a rebuild keeps them. Invariants: either no bucket has shadows, or every bucket below an original
//! root has one for every class; a shadow lists the same items in the same order, devices of other classes left out.
//! The order in which new ids are given is that of Ceph, so that compiling a text gives the same binary.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Bucket, BucketAlg, ChooseArg, ClassId, CrushMap, ItemId, MAX_BUCKETS, Step, Weight};

/// Shadow ids by original and class, as [`CrushMap::shadows`] has them.
pub(crate) type ShadowIds = BTreeMap<ItemId, BTreeMap<ClassId, ItemId>>;

/// Why a shadow tree cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShadowError {
    /// A uniform bucket wants equal weights, but its children hold unequal shares of the class.
    #[error(
        "bucket {bucket} is uniform, but its items would not weigh the same among the devices of class {class}; \
         give it the algorithm straw2"
    )]
    Uneven {
        /// The original bucket.
        bucket: String,
        /// The class.
        class: String,
    },
    /// The id kept for a shadow bucket is another bucket's.
    #[error("id {id}, meant for the shadow of bucket {bucket} in class {class}, belongs to bucket {holder}")]
    IdTaken {
        /// The id.
        id: ItemId,
        /// The original bucket.
        bucket: String,
        /// The class.
        class: String,
        /// Who has the id.
        holder: String,
    },
    /// No ids are left.
    #[error("the map would have more than {MAX_BUCKETS} buckets; remove unused classes or buckets")]
    Full,
    /// Weights add up past the format.
    #[error("the weights below bucket {bucket} in class {class} add up to more than 65535; lower them")]
    TooHeavy {
        /// The original bucket.
        bucket: String,
        /// The class.
        class: String,
    },
}

/// Throws the shadow trees away and builds them again from devices and originals, with the ids they had. Classes that no
/// device has and no rule takes are forgotten.
pub(crate) fn rebuild(map: &mut CrushMap) -> Result<(), ShadowError> {
    let previous = std::mem::take(&mut map.shadows);
    let taken: BTreeSet<ItemId> = map
        .rules
        .values()
        .flat_map(|rule| &rule.steps)
        .filter_map(|step| if let Step::Take(item) = step { Some(*item) } else { None })
        .collect();
    let mut alive: BTreeSet<ClassId> = map.devices.values().filter_map(|device| device.class).collect();
    for (class, shadow) in previous.values().flatten() {
        if taken.contains(shadow) {
            alive.insert(*class);
        }
        map.buckets.remove(shadow);
        for args in map.choose_args.values_mut() {
            args.remove(shadow);
        }
    }
    map.classes.retain(|class, _| alive.contains(class));
    populate(map, &previous)
}

/// Builds the shadow trees of a map that has none, with the ids given where there are any.
pub(crate) fn populate(map: &mut CrushMap, ids: &ShadowIds) -> Result<(), ShadowError> {
    let reserved: BTreeSet<ItemId> = ids.values().flat_map(|by_class| by_class.values().copied()).collect();
    let mut next_id = -1;
    let mut roots = map.roots();
    roots.reverse();
    let classes: Vec<ClassId> = map.classes.keys().copied().collect();
    for root in roots {
        let order = map.post_order([root]).buckets;
        for class in &classes {
            for original in &order {
                if map.shadows.get(original).is_some_and(|by_class| by_class.contains_key(class)) {
                    continue;
                }
                let id = match ids.get(original).and_then(|by_class| by_class.get(class)) {
                    Some(id) => *id,
                    None => {
                        while map.buckets.contains_key(&next_id) || reserved.contains(&next_id) {
                            next_id -= 1;
                        }
                        next_id
                    }
                };
                clone_bucket(map, *original, *class, id)?;
            }
        }
    }
    Ok(())
}

/// Makes the shadow of one bucket whose children have theirs.
fn clone_bucket(map: &mut CrushMap, original: ItemId, class: ClassId, id: ItemId) -> Result<(), ShadowError> {
    let Some(from) = map.buckets.get(&original) else { return Ok(()) };
    let class_name = map.classes.get(&class).cloned().unwrap_or_default();
    let name = map.item_name(original).into_owned();
    if let Some(holder) = map.buckets.get(&id) {
        let holder = holder.name.clone();
        return Err(ShadowError::IdTaken { id, bucket: name, class: class_name, holder });
    }
    if id >= 0 || !id >= MAX_BUCKETS as i32 {
        return Err(ShadowError::Full);
    }

    let mut items = Vec::new();
    let mut weights = Vec::new();
    let mut positions = Vec::new();
    for (position, (item, weight)) in from.items.iter().zip(&from.weights).enumerate() {
        if *item >= 0 {
            if map.devices.get(item).is_some_and(|device| device.class == Some(class)) {
                items.push(*item);
                weights.push(*weight);
                positions.push(position);
            }
        } else if let Some(child) = map.shadows.get(item).and_then(|by_class| by_class.get(&class)) {
            items.push(*child);
            weights.push(map.buckets.get(child).map_or(Weight::ZERO, |child| child.weight));
            positions.push(position);
        }
    }
    if from.alg == BucketAlg::Uniform && weights.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(ShadowError::Uneven { bucket: name, class: class_name });
    }
    let shadow = Bucket {
        id,
        name: format!("{name}~{class_name}"),
        kind: from.kind,
        alg: from.alg,
        hash: from.hash,
        items,
        weights,
        weight: Weight::ZERO,
        straws: None,
    };
    let Some(weight) = shadow.sum() else {
        return Err(ShadowError::TooHeavy { bucket: name, class: class_name });
    };
    clone_choose_args(map, original, &shadow, &positions);
    map.insert_bucket(Bucket { weight, ..shadow });
    map.shadows.entry(original).or_default().insert(class, id);
    Ok(())
}

/// A bucket with weight sets has a shadow with weight sets: a device's weight from the original's, a bucket's the sum of
/// its own shadow's set.
fn clone_choose_args(map: &mut CrushMap, original: ItemId, shadow: &Bucket, positions: &[usize]) {
    for args in map.choose_args.values_mut() {
        let Some(from) = args.get(&original).filter(|arg| !arg.weight_set.is_empty()) else { continue };
        let sum_below = |item: ItemId, at: usize, plain: Weight| {
            let set = args.get(&item).map(|arg| &arg.weight_set);
            let weights = set.and_then(|set| set.get(at).or_else(|| set.last()));
            weights.map_or(plain, |list| Weight(list.iter().fold(0_u32, |sum, weight| sum.saturating_add(weight.0))))
        };
        let mut weight_set = Vec::new();
        for (at, weights) in from.weight_set.iter().enumerate() {
            let items = shadow.items.iter().zip(&shadow.weights).zip(positions);
            let row = items.map(|((item, plain), position)| {
                if *item >= 0 {
                    weights.get(*position).copied().unwrap_or(*plain)
                } else {
                    sum_below(*item, at, *plain)
                }
            });
            weight_set.push(row.collect());
        }
        args.insert(shadow.id, ChooseArg { ids: Vec::new(), weight_set });
    }
}
