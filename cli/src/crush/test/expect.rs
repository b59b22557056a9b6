//! How many inputs each device should hold, by crushtool's reckoning: reweights alone count, every device is taken to be
//! as large as any other, and the sum is cut to as many replicas as the rule's types allow. Single precision, as there.

use std::collections::BTreeMap;

use nacre_crush::model::{CrushMap, RuleId, Step, TypeId, Weight};

/// For each device by its id.
pub(super) fn expected(map: &CrushMap, rule: RuleId, num_rep: u32, inputs: u64, reweights: &[Weight]) -> Vec<f32> {
    let total: u64 = reweights.iter().map(|weight| u64::from(weight.0)).sum();
    let places = (u64::from(num_rep.min(most(map, rule))) * inputs) as f32;
    let share = |weight: &Weight| if total == 0 { 0.0 } else { weight.0 as f32 / total as f32 };
    reweights.iter().map(|weight| share(weight) * places).collect()
}

/// The most replicas crushtool believes a rule can place: the fewest buckets there are of any type it chooses from, or
/// the number it chooses where that is smaller. Shadow buckets are counted like others.
fn most(map: &CrushMap, rule: RuleId) -> u32 {
    let mut wanted: BTreeMap<TypeId, i32> = BTreeMap::new();
    for step in map.rules.get(&rule).map(|rule| rule.steps.as_slice()).unwrap_or_default() {
        if let Step::Choose { num, kind, .. } | Step::ChooseLeaf { num, kind, .. } = step {
            // A later step on the same type wins.
            wanted.insert(*kind, *num);
        }
    }
    let mut most = map.max_buckets.max(map.max_devices);
    for (kind, num) in wanted {
        let have = map.buckets.values().filter(|bucket| bucket.kind == kind).count();
        let have = u32::try_from(have).unwrap_or(u32::MAX);
        let num = u32::try_from(num).unwrap_or(0);
        let limit = if num > 0 && num < have { num } else { have };
        if limit > 0 {
            most = most.min(limit);
        }
    }
    most
}
