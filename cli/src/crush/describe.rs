//! A whole map as JSON, with names beside ids so that a program need not join them.

use nacre_crush::model::{BucketAlg, CrushMap, Mode, RuleKind, Step, Weight};
use serde_json::{Value, json};

/// The map of `nacre crush decompile --json`.
pub(super) fn describe(map: &CrushMap) -> Value {
    let devices: Vec<Value> = map
        .devices
        .iter()
        .map(|(id, device)| {
            let class = device.class.and_then(|class| map.classes.get(&class));
            json!({ "id": id, "name": device.name, "class": class })
        })
        .collect();
    let types: Vec<Value> = map.types.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect();
    json!({
        "max_devices": map.max_devices,
        "devices": devices,
        "types": types,
        "buckets": buckets(map),
        "rules": rules(map),
        "tunables": tunables(map),
        "choose_args": choose_args(map),
    })
}

fn buckets(map: &CrushMap) -> Vec<Value> {
    let origins = map.shadow_origins();
    map.buckets
        .values()
        .rev()
        .map(|bucket| {
            let items: Vec<Value> = bucket
                .items
                .iter()
                .zip(&bucket.weights)
                .map(|(item, weight)| json!({ "id": item, "name": map.item_name(*item), "weight": weight.as_f64() }))
                .collect();
            let origin = origins.get(&bucket.id);
            json!({
                "id": bucket.id,
                "name": map.item_name(bucket.id),
                "type": map.type_name(bucket.kind),
                "alg": alg(bucket.alg),
                "hash": bucket.hash,
                "weight": bucket.weight.as_f64(),
                "items": items,
                "shadow_of": origin.map(|(original, _)| map.item_name(*original)),
                "class": origin.and_then(|(_, class)| map.classes.get(class)),
            })
        })
        .collect()
}

fn alg(alg: BucketAlg) -> &'static str {
    match alg {
        BucketAlg::Uniform => "uniform",
        BucketAlg::List => "list",
        BucketAlg::Tree => "tree",
        BucketAlg::Straw => "straw",
        BucketAlg::Straw2 => "straw2",
    }
}

fn rules(map: &CrushMap) -> Vec<Value> {
    map.rules
        .iter()
        .map(|(id, rule)| {
            let kind = match rule.kind {
                RuleKind::Replicated => json!("replicated"),
                RuleKind::Erasure => json!("erasure"),
                RuleKind::Other(number) => json!(number),
            };
            let steps: Vec<Value> = rule.steps.iter().map(|step| describe_step(map, *step)).collect();
            json!({
                "id": id, "name": rule.name, "type": kind, "min_size": rule.min_size, "max_size": rule.max_size,
                "steps": steps,
            })
        })
        .collect()
}

fn describe_step(map: &CrushMap, step: Step) -> Value {
    let mode = |mode| match mode {
        Mode::Firstn => "firstn",
        Mode::Indep => "indep",
    };
    let set = |op: &str, value: i32| json!({ "op": op, "value": value });
    match step {
        Step::Noop => json!({ "op": "noop" }),
        Step::Take(item) => json!({ "op": "take", "item": map.item_name(item) }),
        Step::Emit => json!({ "op": "emit" }),
        Step::Choose { mode: how, num, kind } => {
            json!({ "op": format!("choose_{}", mode(how)), "num": num, "type": map.type_name(kind) })
        }
        Step::ChooseLeaf { mode: how, num, kind } => {
            json!({ "op": format!("chooseleaf_{}", mode(how)), "num": num, "type": map.type_name(kind) })
        }
        Step::SetChooseTries(value) => set("set_choose_tries", value),
        Step::SetChooseLeafTries(value) => set("set_chooseleaf_tries", value),
        Step::SetChooseLocalTries(value) => set("set_choose_local_tries", value),
        Step::SetChooseLocalFallbackTries(value) => set("set_choose_local_fallback_tries", value),
        Step::SetChooseLeafVaryR(value) => set("set_chooseleaf_vary_r", value),
        Step::SetChooseLeafStable(value) => set("set_chooseleaf_stable", value),
    }
}

fn tunables(map: &CrushMap) -> Value {
    let tunables = &map.tunables;
    json!({
        "choose_local_tries": tunables.choose_local_tries,
        "choose_local_fallback_tries": tunables.choose_local_fallback_tries,
        "choose_total_tries": tunables.choose_total_tries,
        "chooseleaf_descend_once": tunables.chooseleaf_descend_once,
        "chooseleaf_vary_r": tunables.chooseleaf_vary_r,
        "chooseleaf_stable": tunables.chooseleaf_stable,
        "straw_calc_version": tunables.straw_calc_version,
        "allowed_bucket_algs": tunables.allowed_bucket_algs,
    })
}

fn choose_args(map: &CrushMap) -> Vec<Value> {
    let numbers = |weights: &Vec<Weight>| weights.iter().map(|weight| weight.as_f64()).collect::<Vec<_>>();
    map.choose_args
        .iter()
        .map(|(set, args)| {
            let buckets: Vec<Value> = args
                .iter()
                .map(|(bucket, arg)| {
                    let weight_set: Vec<_> = arg.weight_set.iter().map(numbers).collect();
                    json!({ "bucket": map.item_name(*bucket), "ids": arg.ids, "weight_set": weight_set })
                })
                .collect();
            json!({ "set": set, "buckets": buckets })
        })
        .collect()
}
