//! Map to text, byte for byte as `crushtool -d` for maps that tool can say without loss.
//!
//! Where it would lose something we say more: weights that three decimals do not hold get more of them, and devices
//! that are in no bucket are listed too.

use std::borrow::Cow;
use std::fmt::Write;

use super::parse::DEFAULT_SIZES;
use super::weight;
use crate::model::{Bucket, BucketAlg, ChooseArg, CrushMap, Mode, Rule, RuleId, RuleKind, Step, Tunables};

const UNCHANGED: &str = "\t\t# do not change unnecessarily";

pub(super) fn print(map: &CrushMap) -> String {
    let mut text = String::new();
    #[expect(clippy::expect_used, reason = "writing to a String cannot fail")]
    write_map(&mut text, map).expect("a String takes all text");
    text
}

fn write_map(out: &mut String, map: &CrushMap) -> std::fmt::Result {
    writeln!(out, "# begin crush map")?;
    write_tunables(out, map)?;

    writeln!(out, "\n# devices")?;
    for (id, device) in map.devices.iter().filter(|(_, device)| !device.name.is_empty()) {
        write!(out, "device {id} {}", device.name)?;
        if let Some(class) = device.class.and_then(|class| map.classes.get(&class)) {
            write!(out, " class {class}")?;
        }
        writeln!(out)?;
    }

    writeln!(out, "\n# types")?;
    if !map.types.is_empty() && !map.types.contains_key(&0) {
        writeln!(out, "type 0 {}", device_type(map))?;
    }
    for (id, name) in &map.types {
        writeln!(out, "type {id} {name}")?;
    }

    writeln!(out, "\n# buckets")?;
    let shadows = map.shadow_ids();
    for id in map.post_order(map.buckets.keys().rev().copied()).buckets {
        if let Some(bucket) = map.buckets.get(&id)
            && !shadows.contains(&id)
        {
            write_bucket(out, map, bucket)?;
        }
    }

    writeln!(out, "\n# rules")?;
    for (id, rule) in &map.rules {
        write_rule(out, map, *id, rule)?;
    }

    if !map.choose_args.is_empty() {
        writeln!(out, "\n# choose_args")?;
    }
    for (set, args) in &map.choose_args {
        writeln!(out, "choose_args {set} {{")?;
        // Highest bucket id first, as in the table of the binary form.
        for (bucket, arg) in args.iter().rev().filter(|(_, arg)| !arg.weight_set.is_empty() || !arg.ids.is_empty()) {
            write_choose_arg(out, *bucket, arg)?;
        }
        writeln!(out, "}}")?;
    }
    writeln!(out, "\n# end crush map")
}

fn write_tunables(out: &mut String, map: &CrushMap) -> std::fmt::Result {
    let (tunables, old) = (map.tunables, Tunables::LEGACY);
    let rows = [
        ("choose_local_tries", tunables.choose_local_tries, old.choose_local_tries),
        ("choose_local_fallback_tries", tunables.choose_local_fallback_tries, old.choose_local_fallback_tries),
        ("choose_total_tries", tunables.choose_total_tries, old.choose_total_tries),
        ("chooseleaf_descend_once", tunables.chooseleaf_descend_once, old.chooseleaf_descend_once),
        ("chooseleaf_vary_r", tunables.chooseleaf_vary_r.into(), old.chooseleaf_vary_r.into()),
        ("chooseleaf_stable", tunables.chooseleaf_stable.into(), old.chooseleaf_stable.into()),
        ("straw_calc_version", tunables.straw_calc_version.into(), old.straw_calc_version.into()),
        ("allowed_bucket_algs", tunables.allowed_bucket_algs, old.allowed_bucket_algs),
    ];
    for (name, value, _) in rows.into_iter().filter(|(_, value, old)| value != old) {
        writeln!(out, "tunable {name} {value}")?;
    }
    if let Some(msr) = map.msr {
        writeln!(out, "tunable msr_descents {}", msr.descents)?;
        writeln!(out, "tunable msr_collision_tries {}", msr.collision_tries)?;
    }
    Ok(())
}

fn write_bucket(out: &mut String, map: &CrushMap, bucket: &Bucket) -> std::fmt::Result {
    writeln!(out, "{} {} {{", map.type_name(bucket.kind), map.item_name(bucket.id))?;
    writeln!(out, "\tid {}{UNCHANGED}", bucket.id)?;
    for (class, shadow) in map.shadows.get(&bucket.id).into_iter().flatten() {
        if let Some(class) = map.classes.get(class) {
            writeln!(out, "\tid {shadow} class {class}{UNCHANGED}")?;
        }
    }
    writeln!(out, "\t# weight {}", weight::print_short(bucket.weight))?;
    let (alg, note) = match bucket.alg {
        BucketAlg::Uniform => {
            ("uniform", format!("\t# do not change bucket size ({}) unnecessarily", bucket.items.len()))
        }
        BucketAlg::List => ("list", "\t# add new items at the end; do not change order unnecessarily".to_owned()),
        BucketAlg::Tree => ("tree", "\t# do not change pos for existing items unnecessarily".to_owned()),
        BucketAlg::Straw => ("straw", String::new()),
        BucketAlg::Straw2 => ("straw2", String::new()),
    };
    writeln!(out, "\talg {alg}{note}")?;
    writeln!(out, "\thash {}\t# {}", bucket.hash, if bucket.hash == 0 { "rjenkins1" } else { "unknown" })?;
    for (position, (item, item_weight)) in bucket.items.iter().zip(&bucket.weights).enumerate() {
        write!(out, "\titem {} weight {}", map.item_name(*item), weight::print(*item_weight))?;
        if matches!(bucket.alg, BucketAlg::Uniform | BucketAlg::Tree) {
            write!(out, " pos {position}")?;
        }
        writeln!(out)?;
    }
    writeln!(out, "}}")
}

fn write_rule(out: &mut String, map: &CrushMap, id: RuleId, rule: &Rule) -> std::fmt::Result {
    writeln!(out, "rule {} {{", rule.name)?;
    writeln!(out, "\tid {id}")?;
    if id != RuleId::from(rule.ruleset) {
        let ruleset = rule.ruleset;
        writeln!(out, "\t# WARNING: ruleset {ruleset} != id {id}; this will not recompile to the same map")?;
    }
    match rule.kind {
        RuleKind::Replicated => writeln!(out, "\ttype replicated")?,
        RuleKind::Erasure => writeln!(out, "\ttype erasure")?,
        RuleKind::Other(number) => writeln!(out, "\ttype {number}")?,
    }
    if (rule.min_size, rule.max_size) != DEFAULT_SIZES {
        writeln!(out, "\tmin_size {}\n\tmax_size {}", rule.min_size, rule.max_size)?;
    }
    let origins = map.shadow_origins();
    for step in &rule.steps {
        write!(out, "\tstep ")?;
        match *step {
            Step::Noop => writeln!(out, "noop")?,
            Step::Emit => writeln!(out, "emit")?,
            Step::Take(item) => match origins.get(&item).and_then(|(of, class)| Some((of, map.classes.get(class)?))) {
                Some((original, class)) => writeln!(out, "take {} class {class}", map.item_name(*original))?,
                None => writeln!(out, "take {}", map.item_name(item))?,
            },
            Step::Choose { mode, num, kind } => write_choose(out, map, "choose", mode, num, kind)?,
            Step::ChooseLeaf { mode, num, kind } => write_choose(out, map, "chooseleaf", mode, num, kind)?,
            Step::SetChooseTries(n) => writeln!(out, "set_choose_tries {n}")?,
            Step::SetChooseLeafTries(n) => writeln!(out, "set_chooseleaf_tries {n}")?,
            Step::SetChooseLocalTries(n) => writeln!(out, "set_choose_local_tries {n}")?,
            Step::SetChooseLocalFallbackTries(n) => writeln!(out, "set_choose_local_fallback_tries {n}")?,
            Step::SetChooseLeafVaryR(n) => writeln!(out, "set_chooseleaf_vary_r {n}")?,
            Step::SetChooseLeafStable(n) => writeln!(out, "set_chooseleaf_stable {n}")?,
        }
    }
    writeln!(out, "}}")
}

fn write_choose(out: &mut String, map: &CrushMap, verb: &str, mode: Mode, num: i32, kind: u16) -> std::fmt::Result {
    let mode = match mode {
        Mode::Firstn => "firstn",
        Mode::Indep => "indep",
    };
    let kind = if kind == 0 { Cow::Borrowed(device_type(map)) } else { map.type_name(kind) };
    writeln!(out, "{verb} {mode} {num} type {kind}")
}

/// The name of type 0, which is printed for maps that give it none too.
fn device_type(map: &CrushMap) -> &str {
    match map.types.get(&0) {
        Some(name) => name,
        None if map.types.is_empty() => "device",
        None => {
            ["osd", "device", "type0", "leaf"].into_iter().find(|name| map.type_id(name).is_none()).unwrap_or("osd")
        }
    }
}

fn write_choose_arg(out: &mut String, bucket: i32, arg: &ChooseArg) -> std::fmt::Result {
    writeln!(out, "  {{\n    bucket_id {bucket}")?;
    if !arg.weight_set.is_empty() {
        writeln!(out, "    weight_set [")?;
        for weights in &arg.weight_set {
            let weights: Vec<String> = weights.iter().map(|weight| format!("{} ", weight::print(*weight))).collect();
            writeln!(out, "      [ {}]", weights.concat())?;
        }
        writeln!(out, "    ]")?;
    }
    if !arg.ids.is_empty() {
        let ids: Vec<String> = arg.ids.iter().map(|id| format!("{id} ")).collect();
        writeln!(out, "    ids [ {}]", ids.concat())?;
    }
    writeln!(out, "  }}")
}
