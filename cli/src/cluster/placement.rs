//! The crush map that follows from a cluster: the tree of its OSDs' locations, and a rule for each way its pools are
//! placed.
//!
//! The map is written as crush text and compiled, so that what is derived passes the checks of any map brought along.
//! The edits of `nacre_crush` would do too, but each of them copies the map, which is slow for ten thousand OSDs.

use std::collections::BTreeMap;
use std::fmt::Write;

use nacre_crush::model::CrushMap;
use nacre_crush::text::{self, TextError};

use super::keys::LEVELS;
use super::schema::{Cluster, Name, Osd, Pool};
use super::validate::main_root;

/// The name of the rule that places a pool.
pub(crate) fn rule_name(pool: &Pool) -> String {
    match &pool.class {
        Some(class) => format!("replicated_{}_{}", pool.failure_domain.value, class.value),
        None => format!("replicated_{}", pool.failure_domain.value),
    }
}

/// The map of a cluster. An error here is ours, not the file's: `load` lets nothing through that does not compile.
pub(crate) fn crush_map(cluster: &Cluster) -> Result<CrushMap, TextError> {
    text::parse(&describe(cluster))
}

/// What a bucket of the tree holds.
#[derive(Default)]
struct Node<'a> {
    children: Vec<&'a Name>,
    osds: Vec<&'a Osd>,
}

fn describe(cluster: &Cluster) -> String {
    let mut text = String::from(
        "tunable choose_local_tries 0\ntunable choose_local_fallback_tries 0\ntunable choose_total_tries 50\n\
         tunable chooseleaf_descend_once 1\ntunable chooseleaf_vary_r 1\ntunable chooseleaf_stable 1\n\
         tunable straw_calc_version 1\ntunable allowed_bucket_algs 54\n",
    );
    for osd in &cluster.osds {
        line(&mut text, format_args!("device {0} osd.{0} class {1}", osd.id.value, osd.class.value));
    }
    line(&mut text, format_args!("type 0 osd"));
    for (id, level) in (1..).zip(LEVELS) {
        line(&mut text, format_args!("type {id} {level}"));
    }

    // By level from the bottom up, so that what is held is declared before what holds it.
    let mut levels: BTreeMap<usize, BTreeMap<&Name, Node<'_>>> = BTreeMap::new();
    for osd in &cluster.osds {
        let path = &osd.location.value.0;
        for (at, (level, bucket)) in path.iter().enumerate() {
            let depth = LEVELS.iter().position(|known| known == level).unwrap_or_default();
            let node = levels.entry(depth).or_default().entry(bucket).or_default();
            match path.get(at + 1) {
                Some((_, child)) if !node.children.contains(&child) => node.children.push(child),
                Some(_) => {}
                None => node.osds.push(osd),
            }
        }
    }
    let mut weights: BTreeMap<&Name, f64> = BTreeMap::new();
    for (depth, buckets) in levels {
        for (name, node) in buckets {
            line(&mut text, format_args!("{} {name} {{\n\talg straw2\n\thash 0", LEVELS[depth]));
            let mut sum = 0.0;
            for osd in &node.osds {
                sum += cut(osd.weight.value.0);
                line(&mut text, format_args!("\titem osd.{} weight {}", osd.id.value, decimals(osd.weight.value.0)));
            }
            for child in &node.children {
                let weight = weights.get(child).copied().unwrap_or_default();
                sum += weight;
                line(&mut text, format_args!("\titem {child} weight {}", decimals(weight)));
            }
            line(&mut text, format_args!("}}"));
            weights.insert(name, sum);
        }
    }
    rules(&mut text, cluster);
    text
}

fn rules(text: &mut String, cluster: &Cluster) {
    let Some(root) = main_root(cluster) else { return };
    let mut made: Vec<String> = Vec::new();
    for pool in &cluster.pools {
        let name = rule_name(pool);
        if made.contains(&name) {
            continue;
        }
        let class = pool.class.as_ref().map(|class| format!(" class {}", class.value)).unwrap_or_default();
        let choose = match pool.failure_domain.value.0 {
            "osd" => "step choose firstn 0 type osd".to_owned(),
            level => format!("step chooseleaf firstn 0 type {level}"),
        };
        line(
            text,
            format_args!(
                "rule {name} {{\n\tid {}\n\ttype replicated\n\tmin_size 1\n\tmax_size 10\n\tstep take {root}{class}\n\t\
                 {choose}\n\tstep emit\n}}",
                made.len()
            ),
        );
        made.push(name);
    }
}

/// A weight in whole 65536ths, as the map holds it; sums are then the map's own.
fn cut(weight: f64) -> f64 {
    let whole = (weight * 65536.0).floor();
    // A small device still holds its share.
    (if weight > 0.0 { whole.max(1.0) } else { 0.0 }) / 65536.0
}

/// All decimals of a 65536th, so that reading the text gives the same weight.
fn decimals(weight: f64) -> String {
    format!("{:.16}", cut(weight))
}

fn line(text: &mut String, args: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(args);
    text.push('\n');
}
