//! Bytes to a map.

use std::collections::BTreeMap;

use super::read::Reader;
use super::{ALGS, BinaryError, MAGIC, op};
use crate::derive;
use crate::model::{
    Bucket, BucketAlg, ChooseArg, CrushMap, Device, ItemId, MAX_BUCKETS, MAX_DEVICES, MAX_RULES, Mode, MsrTunables,
    Rule, RuleId, RuleKind, Step, Tunables, TypeId, Weight,
};

pub(super) fn decode(bytes: &[u8]) -> Result<CrushMap, BinaryError> {
    let mut from = Reader::new(bytes);
    let magic = from.u32("the magic")?;
    if magic != MAGIC {
        return Err(BinaryError::Magic { found: magic });
    }
    let mut map = CrushMap { tunables: Tunables::LEGACY, ..CrushMap::default() };
    map.max_buckets = limited(&mut from, "the number of bucket slots", MAX_BUCKETS)?;
    map.max_rules = limited(&mut from, "the number of rule slots", MAX_RULES)?;
    map.max_devices = limited(&mut from, "the number of devices", MAX_DEVICES)?;
    for slot in 0..map.max_buckets {
        if let Some(bucket) = bucket(&mut from, !(slot as ItemId))? {
            map.buckets.insert(bucket.id, bucket);
        }
    }
    for id in 0..map.max_rules {
        if let Some(rule) = rule(&mut from, id)? {
            map.rules.insert(id, rule);
        }
    }
    names(&mut from, &mut map)?;
    tunables(&mut from, &mut map.tunables)?;
    if from.left() > 0 {
        classes(&mut from, &mut map)?;
    }
    if from.left() > 0 {
        choose_args(&mut from, &mut map)?;
    }
    if from.left() == 8 {
        let what = "the msr tunables";
        map.msr = Some(MsrTunables { descents: from.u32(what)?, collision_tries: from.u32(what)? });
    }
    if from.left() > 0 {
        return Err(BinaryError::Trailing { at: from.at(), left: from.left() });
    }
    // Only now is it known how straws are computed.
    for bucket in map.buckets.values_mut() {
        let derived = derive::straws(&bucket.weights, map.tunables.straw_calc_version);
        bucket.straws = bucket.straws.take().filter(|straws| *straws != derived);
    }
    map.cover_devices();
    Ok(map)
}

fn limited(from: &mut Reader<'_>, what: &'static str, most: u32) -> Result<u32, BinaryError> {
    let at = from.at();
    let value = from.u32(what)?;
    if value > most { Err(BinaryError::Value { at, what, value: value.into() }) } else { Ok(value) }
}

fn bucket(from: &mut Reader<'_>, slot: ItemId) -> Result<Option<Bucket>, BinaryError> {
    let at = from.at();
    let number = from.u32("a bucket")?;
    if number == 0 {
        return Ok(None);
    }
    let Some((_, alg)) = ALGS.into_iter().find(|(known, _)| *known == number) else {
        return Err(BinaryError::Value { at, what: "a bucket algorithm", value: number.into() });
    };
    let id = from.i32("a bucket's id")?;
    if id != slot {
        return Err(BinaryError::Slot { slot, found: id });
    }
    let at = from.at();
    let kind = from.u16("a bucket's type")?;
    if kind == 0 {
        return Err(BinaryError::Value { at, what: "a bucket's type", value: 0 });
    }
    let at = from.at();
    let again = from.u8("a bucket's algorithm")?;
    if u32::from(again) != number {
        return Err(BinaryError::Value { at, what: "the algorithm of a bucket the second time", value: again.into() });
    }
    let hash = from.u8("a bucket's hash")?;
    let weight = Weight(from.u32("a bucket's weight")?);
    let size = from.count(4, "a bucket's items")?;
    let at = from.at();
    let items = from.i32s(size, "a bucket's items")?;
    if let Some(item) = items.iter().find(|item| **item >= MAX_DEVICES as ItemId) {
        return Err(BinaryError::Value { at, what: "a bucket's item", value: (*item).into() });
    }
    let mut bucket =
        Bucket { id, name: String::new(), kind, alg, hash, items, weights: Vec::new(), weight, straws: None };
    weights(from, &mut bucket)?;
    Ok(Some(bucket))
}

/// Item weights with what the algorithm computes from them.
fn weights(from: &mut Reader<'_>, bucket: &mut Bucket) -> Result<(), BinaryError> {
    let what = "a bucket's weights";
    let size = bucket.items.len();
    match bucket.alg {
        BucketAlg::Uniform => {
            bucket.weights = vec![Weight(from.u32(what)?); size];
        }
        BucketAlg::Straw2 => {
            from.fits(size, 4, what)?;
            bucket.weights = from.u32s(size, what)?.into_iter().map(Weight).collect();
        }
        BucketAlg::List | BucketAlg::Straw => {
            from.fits(size, 8, what)?;
            let (mut weights, mut derived) = (Vec::with_capacity(size), Vec::with_capacity(size));
            for _ in 0..size {
                weights.push(Weight(from.u32(what)?));
                derived.push(from.u32(what)?);
            }
            bucket.weights = weights;
            if bucket.alg == BucketAlg::Straw {
                bucket.straws = Some(derived);
            } else if derived != derive::list_sums(&bucket.weights) {
                return Err(BinaryError::Derived { bucket: bucket.id, alg: "list" });
            }
        }
        BucketAlg::Tree => {
            let nodes = usize::from(from.u8(what)?);
            from.fits(nodes, 4, what)?;
            let nodes = from.u32s(nodes, what)?;
            // Leaves are the odd nodes. A bucket that lost its last item may keep a node.
            let leaves = nodes.iter().skip(1).step_by(2).take(size);
            bucket.weights = leaves.map(|weight| Weight(*weight)).collect();
            if bucket.weights.len() != size || (size > 0 && nodes != derive::tree_nodes(&bucket.weights)) {
                return Err(BinaryError::Derived { bucket: bucket.id, alg: "tree" });
            }
        }
    }
    Ok(())
}

fn rule(from: &mut Reader<'_>, id: RuleId) -> Result<Option<Rule>, BinaryError> {
    if from.u32("a rule")? == 0 {
        return Ok(None);
    }
    let what = "a rule";
    let len = from.u32(what)? as usize;
    let ruleset = from.u8(what)?;
    let kind = RuleKind::from(from.u8(what)?);
    let min_size = from.u8(what)?;
    let max_size = from.u8(what)?;
    from.fits(len, 12, "a rule's steps")?;
    let mut steps = Vec::with_capacity(len);
    for _ in 0..len {
        steps.push(step(from, id)?);
    }
    Ok(Some(Rule { name: String::new(), kind, ruleset, min_size, max_size, steps }))
}

fn step(from: &mut Reader<'_>, rule: RuleId) -> Result<Step, BinaryError> {
    let what = "a rule's steps";
    let op = from.u32(what)?;
    let num = from.i32(what)?;
    let at = from.at();
    let second = from.i32(what)?;
    let kind = || {
        TypeId::try_from(second).map_err(|_| BinaryError::Value {
            at,
            what: "the type a step chooses",
            value: second.into(),
        })
    };
    Ok(match op {
        op::NOOP => Step::Noop,
        op::TAKE => Step::Take(num),
        op::EMIT => Step::Emit,
        op::CHOOSE_FIRSTN => Step::Choose { mode: Mode::Firstn, num, kind: kind()? },
        op::CHOOSE_INDEP => Step::Choose { mode: Mode::Indep, num, kind: kind()? },
        op::CHOOSELEAF_FIRSTN => Step::ChooseLeaf { mode: Mode::Firstn, num, kind: kind()? },
        op::CHOOSELEAF_INDEP => Step::ChooseLeaf { mode: Mode::Indep, num, kind: kind()? },
        op::SET_CHOOSE_TRIES => Step::SetChooseTries(num),
        op::SET_CHOOSELEAF_TRIES => Step::SetChooseLeafTries(num),
        op::SET_CHOOSE_LOCAL_TRIES => Step::SetChooseLocalTries(num),
        op::SET_CHOOSE_LOCAL_FALLBACK_TRIES => Step::SetChooseLocalFallbackTries(num),
        op::SET_CHOOSELEAF_VARY_R => Step::SetChooseLeafVaryR(num),
        op::SET_CHOOSELEAF_STABLE => Step::SetChooseLeafStable(num),
        op => return Err(BinaryError::Step { rule, op }),
    })
}

/// A table of names. Very old maps have keys of 64 bits: as no name is empty, a length of 0 is the upper half of one.
fn name_table(from: &mut Reader<'_>, what: &'static str) -> Result<BTreeMap<i32, String>, BinaryError> {
    let mut names = BTreeMap::new();
    for _ in 0..from.count(8, what)? {
        let key = from.i32(what)?;
        let len = match from.u32(what)? {
            0 => from.u32(what)?,
            len => len,
        };
        let name = from.text(len as usize, what)?;
        if !name.is_empty() {
            names.insert(key, name);
        }
    }
    Ok(names)
}

fn names(from: &mut Reader<'_>, map: &mut CrushMap) -> Result<(), BinaryError> {
    let at = from.at();
    for (id, name) in name_table(from, "a type's name")? {
        let id = TypeId::try_from(id).map_err(|_| BinaryError::Value {
            at,
            what: "the number of a type",
            value: id.into(),
        })?;
        map.types.insert(id, name);
    }
    let at = from.at();
    for (id, name) in name_table(from, "a device's or bucket's name")? {
        if id >= 0 {
            device(map, id, at)?.name = name;
        } else if let Some(bucket) = map.buckets.get_mut(&id) {
            // Names of buckets that are gone say nothing any more.
            bucket.name = name;
        }
    }
    for (id, name) in name_table(from, "a rule's name")? {
        if let Some(rule) = RuleId::try_from(id).ok().and_then(|id| map.rules.get_mut(&id)) {
            rule.name = name;
        }
    }
    Ok(())
}

fn device(map: &mut CrushMap, id: ItemId, at: usize) -> Result<&mut Device, BinaryError> {
    if id < 0 || id as u32 >= MAX_DEVICES {
        return Err(BinaryError::Value { at, what: "the id of a device", value: id.into() });
    }
    Ok(map.devices.entry(id).or_insert_with(|| Device { name: String::new(), class: None }))
}

/// Each release appended to this, so it may end behind each of its parts.
fn tunables(from: &mut Reader<'_>, tunables: &mut Tunables) -> Result<(), BinaryError> {
    let what = "the tunables";
    if from.left() > 0 {
        tunables.choose_local_tries = from.u32(what)?;
        tunables.choose_local_fallback_tries = from.u32(what)?;
        tunables.choose_total_tries = from.u32(what)?;
    }
    if from.left() > 0 {
        tunables.chooseleaf_descend_once = from.u32(what)?;
    }
    if from.left() > 0 {
        tunables.chooseleaf_vary_r = from.u8(what)?;
    }
    if from.left() > 0 {
        tunables.straw_calc_version = from.u8(what)?;
    }
    if from.left() > 0 {
        tunables.allowed_bucket_algs = from.u32(what)?;
    }
    if from.left() > 0 {
        tunables.chooseleaf_stable = from.u8(what)?;
    }
    Ok(())
}

fn classes(from: &mut Reader<'_>, map: &mut CrushMap) -> Result<(), BinaryError> {
    let what = "the device classes";
    let at = from.at();
    for _ in 0..from.count(8, what)? {
        let (item, class) = (from.i32(what)?, from.i32(what)?);
        // Shadow buckets are listed too; their class is said again with their original.
        if item >= 0 {
            device(map, item, at)?.class = Some(class);
        }
    }
    for _ in 0..from.count(8, what)? {
        let (class, len) = (from.i32(what)?, from.u32(what)?);
        let name = from.text(len as usize, "a class's name")?;
        if !name.is_empty() {
            map.classes.insert(class, name);
        }
    }
    for _ in 0..from.count(8, what)? {
        let original = bucket_id(from)?;
        let mut shadows = BTreeMap::new();
        for _ in 0..from.count(8, what)? {
            let class = from.i32(what)?;
            shadows.insert(class, bucket_id(from)?);
        }
        map.shadows.insert(original, shadows);
    }
    Ok(())
}

fn bucket_id(from: &mut Reader<'_>) -> Result<ItemId, BinaryError> {
    let (at, what) = (from.at(), "the id of a bucket with device classes");
    let id = from.i32(what)?;
    if id < 0 { Ok(id) } else { Err(BinaryError::Value { at, what, value: id.into() }) }
}

fn choose_args(from: &mut Reader<'_>, map: &mut CrushMap) -> Result<(), BinaryError> {
    let what = "the choose_args";
    for _ in 0..from.count(12, what)? {
        let set = from.i64(what)?;
        let mut args = BTreeMap::new();
        for _ in 0..from.count(12, what)? {
            let at = from.at();
            let slot = from.u32(what)?;
            if slot >= map.max_buckets {
                return Err(BinaryError::Value { at, what: "the bucket slot of choose_args", value: slot.into() });
            }
            let positions = from.count(4, what)?;
            let mut weight_set = Vec::with_capacity(positions);
            for _ in 0..positions {
                let weights = from.count(4, what)?;
                weight_set.push(from.u32s(weights, what)?.into_iter().map(Weight).collect());
            }
            let ids = from.count(4, what)?;
            let ids = from.i32s(ids, what)?;
            args.insert(!(slot as ItemId), ChooseArg { ids, weight_set });
        }
        map.choose_args.insert(set, args);
    }
    Ok(())
}
