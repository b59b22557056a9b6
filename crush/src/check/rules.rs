//! Rules and weight sets.

use std::collections::{BTreeMap, BTreeSet};

use super::{Flaw, shown};
use crate::model::{BucketAlg, ChooseArg, CrushMap, ItemId, MAX_RULES, Rule, RuleId, Step, TypeId};
use crate::text::is_name;

pub(super) fn check(map: &CrushMap, flaws: &mut Vec<Flaw>) {
    let mut names: BTreeMap<&str, RuleId> = BTreeMap::new();
    for (id, rule) in &map.rules {
        if rule.name.is_empty() {
            flaws.push(Flaw::NoName { what: "rule", id: (*id).into() });
        } else if !is_name(&rule.name) {
            flaws.push(Flaw::BadName { what: "rule", name: rule.name.clone() });
        }
        if let Some(first) = names.insert(&rule.name, *id).filter(|_| !rule.name.is_empty()) {
            let (first, second) = (format!("rule {first}"), format!("rule {id}"));
            flaws.push(Flaw::DuplicateName { name: rule.name.clone(), first, second });
        }
        one_rule(map, *id, rule, flaws);
    }
    for (set, args) in &map.choose_args {
        for (bucket, arg) in args {
            one_arg(map, *set, *bucket, arg, flaws);
        }
    }
}

fn one_rule(map: &CrushMap, id: RuleId, rule: &Rule, flaws: &mut Vec<Flaw>) {
    let name = || if rule.name.is_empty() { id.to_string() } else { rule.name.clone() };
    if id >= MAX_RULES {
        flaws.push(Flaw::RuleBeyond { rule: name(), id });
    } else if id != RuleId::from(rule.ruleset) {
        flaws.push(Flaw::Ruleset { rule: name(), id, ruleset: rule.ruleset });
    }
    // What the rule works on now: nothing yet, something unknown, or all that may have been chosen.
    let mut from: Option<BTreeSet<ItemId>> = None;
    let mut emitted = false;
    for step in &rule.steps {
        match *step {
            Step::Take(item) => {
                let known = map.buckets.contains_key(&item) || (item >= 0 && (item as u32) < map.max_devices);
                if !known {
                    flaws.push(Flaw::RuleTakes { rule: name(), item });
                }
                from = Some(if known { BTreeSet::from([item]) } else { BTreeSet::new() });
            }
            Step::Choose { kind, .. } | Step::ChooseLeaf { kind, .. } => {
                if kind != 0 && !map.types.contains_key(&kind) {
                    flaws.push(Flaw::RuleType { rule: name(), kind });
                }
                let Some(starts) = from.take() else {
                    flaws.push(Flaw::ChooseBeforeTake { rule: name() });
                    return;
                };
                let chosen: BTreeSet<ItemId> =
                    starts.iter().flat_map(|start| of_type_below(map, *start, kind)).collect();
                if let Some(start) = starts.first().filter(|_| chosen.is_empty()) {
                    let (kind, from) = (map.type_name(kind).into_owned(), shown(map, *start));
                    flaws.push(Flaw::RuleChoosesNothing { rule: name(), kind, from });
                }
                from = Some(match step {
                    Step::ChooseLeaf { .. } => chosen.iter().flat_map(|item| map.devices_below(*item)).collect(),
                    _ => chosen,
                });
            }
            Step::Emit => {
                emitted = true;
                if from.take().is_some_and(|chosen| chosen.iter().any(|item| *item < 0)) {
                    flaws.push(Flaw::EmitsBuckets { rule: name() });
                }
            }
            _ => {}
        }
    }
    if !emitted {
        flaws.push(Flaw::NoEmit { rule: name() });
    }
}

/// The nearest items of a type below one, each once. Below an item of the type none is looked for.
pub(super) fn of_type_below(map: &CrushMap, start: ItemId, kind: TypeId) -> BTreeSet<ItemId> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::from([start]);
    let mut todo = vec![start];
    while let Some(bucket) = todo.pop().and_then(|id| map.buckets.get(&id)) {
        for item in &bucket.items {
            if map.kind(*item) == Some(kind) {
                found.insert(*item);
            } else if *item < 0 && map.buckets.contains_key(item) && seen.insert(*item) {
                todo.push(*item);
            }
        }
    }
    found
}

fn one_arg(map: &CrushMap, set: i64, bucket: ItemId, arg: &ChooseArg, flaws: &mut Vec<Flaw>) {
    let Some(of) = map.buckets.get(&bucket) else {
        flaws.push(Flaw::ArgsBucket { set, bucket });
        return;
    };
    let items = of.items.len();
    if of.alg != BucketAlg::Straw2 {
        flaws.push(Flaw::ArgsIgnored { set, bucket: shown(map, bucket) });
    }
    if !arg.ids.is_empty() && arg.ids.len() != items {
        let bucket = shown(map, bucket);
        flaws.push(Flaw::ArgsCount { set, bucket, found: arg.ids.len(), what: "ids", items });
    }
    if let Some(found) = arg.weight_set.iter().map(Vec::len).find(|len| *len != items) {
        flaws.push(Flaw::ArgsCount { set, bucket: shown(map, bucket), found, what: "weights", items });
    }
}
