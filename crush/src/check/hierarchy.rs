//! Buckets, devices, types, classes and their shadows.

use std::collections::BTreeMap;

use super::{Flaw, shown};
use crate::model::{Bucket, BucketAlg, CrushMap, ItemId, MAX_TREE_ITEMS, Weight};
use crate::shadow;
use crate::text::is_name;

/// A hundredth: text forms with three decimals let a bucket and its place in the parent drift apart by some thousandths.
const DRIFT: u32 = 655;

pub(super) fn check(map: &CrushMap, flaws: &mut Vec<Flaw>) {
    names(map, flaws);
    for (key, bucket) in &map.buckets {
        one_bucket(map, *key, bucket, flaws);
        items(map, bucket, flaws);
    }
    for (parent, item) in map.post_order(map.buckets.keys().rev().copied()).back_links {
        flaws.push(Flaw::Cycle { parent: shown(map, parent), item: shown(map, item) });
    }
    parents(map, flaws);
    classes(map, flaws);
}

fn names(map: &CrushMap, flaws: &mut Vec<Flaw>) {
    let shadows = map.shadow_ids();
    let mut seen: BTreeMap<&str, ItemId> = BTreeMap::new();
    let devices = map.devices.iter().map(|(id, device)| (*id, device.name.as_str(), "device"));
    let buckets = map.buckets.iter().map(|(id, bucket)| (*id, bucket.name.as_str(), "bucket"));
    for (id, name, what) in devices.chain(buckets) {
        if name.is_empty() {
            flaws.push(Flaw::NoName { what, id: id.into() });
        } else if !is_name(name) && !shadows.contains(&id) {
            flaws.push(Flaw::BadName { what, name: name.to_owned() });
        }
        if let Some(first) = seen.insert(name, id).filter(|_| !name.is_empty()) {
            let place = |id: ItemId| if id >= 0 { format!("device {id}") } else { format!("bucket {id}") };
            flaws.push(Flaw::DuplicateName { name: name.to_owned(), first: place(first), second: place(id) });
        }
    }
    let types = map.types.iter().map(|(id, name)| (i64::from(*id), name));
    let classes = map.classes.iter().map(|(id, name)| (i64::from(*id), name));
    for (what, entries) in [("type", types.collect::<Vec<_>>()), ("class", classes.collect())] {
        let mut seen: BTreeMap<&str, i64> = BTreeMap::new();
        for (id, name) in entries {
            if !is_name(name) {
                flaws.push(Flaw::BadName { what, name: name.clone() });
            }
            if let Some(first) = seen.insert(name, id) {
                let (first, second) = (format!("{what} {first}"), format!("{what} {id}"));
                flaws.push(Flaw::DuplicateName { name: name.clone(), first, second });
            }
        }
    }
}

fn one_bucket(map: &CrushMap, key: ItemId, bucket: &Bucket, flaws: &mut Vec<Flaw>) {
    let name = || shown(map, key);
    if bucket.id != key || key >= 0 {
        flaws.push(Flaw::BucketId { shown: name(), key, id: bucket.id });
    }
    if key < 0 && !key as u32 >= map.max_buckets {
        flaws.push(Flaw::BucketBeyond { bucket: name(), max_buckets: map.max_buckets });
    }
    if bucket.kind == 0 {
        flaws.push(Flaw::DeviceType { bucket: name() });
    } else if !map.types.contains_key(&bucket.kind) {
        flaws.push(Flaw::MissingType { bucket: name(), kind: bucket.kind });
    }
    if bucket.hash != 0 {
        flaws.push(Flaw::UnknownHash { bucket: name(), hash: bucket.hash });
    }
    let number = match bucket.alg {
        BucketAlg::Uniform => 1,
        BucketAlg::List => 2,
        BucketAlg::Tree => 3,
        BucketAlg::Straw => 4,
        BucketAlg::Straw2 => 5,
    };
    if map.tunables.allowed_bucket_algs & (1 << number) == 0 {
        flaws.push(Flaw::AlgNotAllowed { bucket: name() });
    }
    if bucket.alg == BucketAlg::Tree && bucket.items.len() > MAX_TREE_ITEMS {
        flaws.push(Flaw::TreeTooLarge { bucket: name(), items: bucket.items.len() });
    }
    if bucket.weights.len() != bucket.items.len() {
        flaws.push(Flaw::WeightCount { bucket: name(), items: bucket.items.len(), weights: bucket.weights.len() });
    }
    if let Some(straws) = bucket.straws.as_ref().filter(|straws| straws.len() != bucket.items.len()) {
        flaws.push(Flaw::StrawCount { bucket: name(), items: bucket.items.len(), straws: straws.len() });
    }
    if bucket.alg == BucketAlg::Uniform && bucket.weights.windows(2).any(|pair| pair[0] != pair[1]) {
        flaws.push(Flaw::Uneven { bucket: name() });
    }
    match bucket.sum() {
        None => flaws.push(Flaw::TooHeavy { bucket: name() }),
        Some(sum) if sum != bucket.weight => {
            flaws.push(Flaw::WrongSum { bucket: name(), weight: bucket.weight, sum });
        }
        Some(_) => {}
    }
}

fn items(map: &CrushMap, bucket: &Bucket, flaws: &mut Vec<Flaw>) {
    let name = || shown(map, bucket.id);
    for (item, weight) in bucket.items.iter().zip(&bucket.weights) {
        let most = if *item >= 0 { Weight::MAX_DEVICE } else { Weight::MAX_BUCKET };
        if *weight > most {
            flaws.push(Flaw::WeightRange { item: shown(map, *item), bucket: name(), weight: *weight, most });
        }
    }
    for (position, item) in bucket.items.iter().enumerate() {
        if *item >= 0 {
            if *item as u32 >= map.max_devices {
                let (device, max_devices) = (*item, map.max_devices);
                flaws.push(Flaw::DeviceBeyond { bucket: name(), device, max_devices });
            }
            continue;
        }
        let Some(child) = map.buckets.get(item) else {
            flaws.push(Flaw::UnknownItem { bucket: name(), item: *item });
            continue;
        };
        let held = bucket.weights.get(position).copied().unwrap_or_default();
        if child.weight.0.abs_diff(held.0) > DRIFT {
            flaws.push(Flaw::WeightDrift { item: shown(map, *item), bucket: name(), own: child.weight, held });
        }
    }
}

/// Each item has one parent among the originals and one among the shadows of a class.
fn parents(map: &CrushMap, flaws: &mut Vec<Flaw>) {
    let origins = map.shadow_origins();
    let mut seen: BTreeMap<_, ItemId> = BTreeMap::new();
    for bucket in map.buckets.values().rev() {
        let class = origins.get(&bucket.id).map(|(_, class)| *class);
        for (position, item) in bucket.items.iter().enumerate() {
            // A tree bucket keeps the places of removed items: device 0 with weight 0.
            let weight = bucket.weights.get(position).copied().unwrap_or_default();
            if bucket.alg == BucketAlg::Tree && *item == 0 && weight == Weight::ZERO {
                continue;
            }
            match seen.insert((class, *item), bucket.id) {
                Some(first) if first == bucket.id => {
                    flaws.push(Flaw::Twice { bucket: shown(map, bucket.id), item: shown(map, *item) });
                }
                Some(first) => flaws.push(Flaw::TwoParents {
                    item: shown(map, *item),
                    first: shown(map, first),
                    second: shown(map, bucket.id),
                }),
                None => {}
            }
        }
    }
}

fn classes(map: &CrushMap, flaws: &mut Vec<Flaw>) {
    for (id, device) in &map.devices {
        if let Some(class) = device.class.filter(|class| !map.classes.contains_key(class)) {
            flaws.push(Flaw::UnknownClass { device: shown(map, *id), class });
        }
    }
    let mut missing = false;
    for (original, by_class) in &map.shadows {
        for (class, shadow) in by_class {
            if !map.buckets.contains_key(shadow) || !map.buckets.contains_key(original) {
                let (shadow, class) = (*shadow, *class);
                flaws.push(Flaw::MissingShadow { original: shown(map, *original), shadow, class });
                missing = true;
            }
        }
    }
    if map.shadows.is_empty() || missing || !flaws.is_empty() {
        return;
    }
    // What a rebuild would make of it.
    let mut again = map.clone();
    if shadow::rebuild(&mut again).is_err() {
        return;
    }
    for (original, by_class) in &again.shadows {
        for (class, id) in by_class {
            let was = map.shadows.get(original).and_then(|by_class| by_class.get(class));
            let Some(was) = was.and_then(|id| map.buckets.get(id)) else {
                let class = map.classes.get(class).cloned().unwrap_or_default();
                flaws.push(Flaw::NoShadow { original: shown(map, *original), class });
                continue;
            };
            let same = |now: &Bucket| now.items == was.items && now.weights == was.weights && now.kind == was.kind;
            if !again.buckets.get(id).is_some_and(same) {
                flaws.push(Flaw::StaleShadow { shadow: shown(map, was.id), original: shown(map, *original) });
            }
        }
    }
}
