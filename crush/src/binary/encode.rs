//! A map to bytes, all parts of the tail included.

use std::collections::BTreeMap;

use super::{ALGS, MAGIC, op};
use crate::derive;
use crate::model::{Bucket, BucketAlg, CrushMap, ItemId, Mode, Rule, Step, Weight};

pub(super) fn encode(map: &CrushMap) -> Vec<u8> {
    let mut out = Out(Vec::new());
    out.u32(MAGIC);
    let slots = map.buckets.keys().next().map_or(0, |lowest| (!lowest).max(-1) as i64 + 1);
    let slots = map.max_buckets.max(slots as u32);
    let rules = map.max_rules.max(map.rules.keys().next_back().map_or(0, |highest| highest.saturating_add(1)));
    out.u32(slots);
    out.u32(rules);
    out.u32(map.max_devices);
    for slot in 0..slots {
        match map.buckets.get(&!(slot as ItemId)) {
            Some(found) => bucket(&mut out, found, map.tunables.straw_calc_version),
            None => out.u32(0),
        }
    }
    for id in 0..rules {
        match map.rules.get(&id) {
            Some(found) => rule(&mut out, found),
            None => out.u32(0),
        }
    }
    names(&mut out, map);
    tunables(&mut out, map);
    classes(&mut out, map);
    choose_args(&mut out, map);
    if let Some(msr) = map.msr {
        out.u32(msr.descents);
        out.u32(msr.collision_tries);
    }
    out.0
}

/// Little-endian numbers, one after the other.
struct Out(Vec<u8>);

impl Out {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        self.u32(count as u32);
    }

    fn names<'a>(&mut self, names: impl IntoIterator<Item = (i32, &'a str)>) {
        let at = self.0.len();
        self.u32(0);
        let mut count = 0_u32;
        // An empty name would be read as a key of 64 bits, see the decoder.
        for (key, name) in names.into_iter().filter(|(_, name)| !name.is_empty()) {
            self.i32(key);
            self.count(name.len());
            self.0.extend_from_slice(name.as_bytes());
            count += 1;
        }
        if let Some(place) = self.0.get_mut(at..at + 4) {
            place.copy_from_slice(&count.to_le_bytes());
        }
    }
}

fn bucket(out: &mut Out, bucket: &Bucket, straw_calc_version: u8) {
    let alg = ALGS.into_iter().find(|(_, alg)| *alg == bucket.alg).map_or(0, |(number, _)| number);
    out.u32(alg);
    out.i32(bucket.id);
    out.u16(bucket.kind);
    out.u8(alg as u8);
    out.u8(bucket.hash);
    out.u32(bucket.weight.0);
    out.count(bucket.items.len());
    for item in &bucket.items {
        out.i32(*item);
    }
    let weights = &bucket.weights;
    match bucket.alg {
        BucketAlg::Uniform => out.u32(weights.first().copied().unwrap_or_default().0),
        BucketAlg::Straw2 => weights.iter().for_each(|weight| out.u32(weight.0)),
        BucketAlg::List => pairs(out, weights, &derive::list_sums(weights)),
        BucketAlg::Straw => match &bucket.straws {
            Some(straws) => pairs(out, weights, straws),
            None => pairs(out, weights, &derive::straws(weights, straw_calc_version)),
        },
        BucketAlg::Tree => {
            let nodes = derive::tree_nodes(weights);
            out.u8(nodes.len() as u8);
            nodes.into_iter().for_each(|node| out.u32(node));
        }
    }
}

fn pairs(out: &mut Out, weights: &[Weight], derived: &[u32]) {
    for (weight, derived) in weights.iter().zip(derived) {
        out.u32(weight.0);
        out.u32(*derived);
    }
}

fn rule(out: &mut Out, rule: &Rule) {
    out.u32(1);
    out.count(rule.steps.len());
    out.u8(rule.ruleset);
    out.u8(rule.kind.into());
    out.u8(rule.min_size);
    out.u8(rule.max_size);
    for step in &rule.steps {
        let (op, first, second) = match *step {
            Step::Noop => (op::NOOP, 0, 0),
            Step::Take(item) => (op::TAKE, item, 0),
            Step::Emit => (op::EMIT, 0, 0),
            Step::Choose { mode: Mode::Firstn, num, kind } => (op::CHOOSE_FIRSTN, num, kind.into()),
            Step::Choose { mode: Mode::Indep, num, kind } => (op::CHOOSE_INDEP, num, kind.into()),
            Step::ChooseLeaf { mode: Mode::Firstn, num, kind } => (op::CHOOSELEAF_FIRSTN, num, kind.into()),
            Step::ChooseLeaf { mode: Mode::Indep, num, kind } => (op::CHOOSELEAF_INDEP, num, kind.into()),
            Step::SetChooseTries(n) => (op::SET_CHOOSE_TRIES, n, 0),
            Step::SetChooseLeafTries(n) => (op::SET_CHOOSELEAF_TRIES, n, 0),
            Step::SetChooseLocalTries(n) => (op::SET_CHOOSE_LOCAL_TRIES, n, 0),
            Step::SetChooseLocalFallbackTries(n) => (op::SET_CHOOSE_LOCAL_FALLBACK_TRIES, n, 0),
            Step::SetChooseLeafVaryR(n) => (op::SET_CHOOSELEAF_VARY_R, n, 0),
            Step::SetChooseLeafStable(n) => (op::SET_CHOOSELEAF_STABLE, n, 0),
        };
        out.u32(op);
        out.i32(first);
        out.i32(second);
    }
}

fn names(out: &mut Out, map: &CrushMap) {
    out.names(map.types.iter().map(|(id, name)| (i32::from(*id), name.as_str())));
    let buckets = map.buckets.iter().map(|(id, bucket)| (*id, bucket.name.as_str()));
    let devices = map.devices.iter().map(|(id, device)| (*id, device.name.as_str()));
    out.names(buckets.chain(devices));
    out.names(map.rules.iter().map(|(id, rule)| (*id as i32, rule.name.as_str())));
}

fn tunables(out: &mut Out, map: &CrushMap) {
    let tunables = map.tunables;
    out.u32(tunables.choose_local_tries);
    out.u32(tunables.choose_local_fallback_tries);
    out.u32(tunables.choose_total_tries);
    out.u32(tunables.chooseleaf_descend_once);
    out.u8(tunables.chooseleaf_vary_r);
    out.u8(tunables.straw_calc_version);
    out.u32(tunables.allowed_bucket_algs);
    out.u8(tunables.chooseleaf_stable);
}

fn classes(out: &mut Out, map: &CrushMap) {
    let of_devices = map.devices.iter().filter_map(|(id, device)| Some((*id, device.class?)));
    let of_shadows = map.shadows.values().flatten().map(|(class, shadow)| (*shadow, *class));
    let class_of: BTreeMap<i32, i32> = of_shadows.chain(of_devices).collect();
    out.count(class_of.len());
    for (item, class) in class_of {
        out.i32(item);
        out.i32(class);
    }
    out.names(map.classes.iter().map(|(id, name)| (*id, name.as_str())));
    out.count(map.shadows.len());
    for (original, shadows) in &map.shadows {
        out.i32(*original);
        out.count(shadows.len());
        for (class, shadow) in shadows {
            out.i32(*class);
            out.i32(*shadow);
        }
    }
}

fn choose_args(out: &mut Out, map: &CrushMap) {
    out.count(map.choose_args.len());
    for (set, args) in &map.choose_args {
        out.i64(*set);
        let of_buckets =
            || args.iter().rev().filter(|(id, arg)| **id < 0 && (!arg.ids.is_empty() || !arg.weight_set.is_empty()));
        out.count(of_buckets().count());
        for (id, arg) in of_buckets() {
            out.i32(!*id);
            out.count(arg.weight_set.len());
            for weights in &arg.weight_set {
                out.count(weights.len());
                weights.iter().for_each(|weight| out.u32(weight.0));
            }
            out.count(arg.ids.len());
            arg.ids.iter().for_each(|id| out.i32(*id));
        }
    }
}
