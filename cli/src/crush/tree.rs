//! `nacre crush tree`: the hierarchy, drawn. Draws broken maps too, as far as they go.

use std::collections::BTreeSet;
use std::io::Write;

use clap::Args;
use nacre_crush::model::{CrushMap, ItemId, Weight};
use serde::Serialize;

use super::source::MapArg;
use crate::output::{Align, JsonFlag, Out, Table, Tone, branches, tame};
use crate::run::{Run, Verdict};

/// Draw the hierarchy of a map with ids, device classes and weights.
#[derive(Args)]
#[command(after_long_help = "\
--json: {nodes: [{depth, id, name, type, class, weight, note}], stray: [NAME]}, a node before those below it; class and
note may be null; stray are devices that stand in no bucket.")]
pub(super) struct Tree {
    #[command(flatten)]
    map: MapArg,
    /// Draw the trees of the device classes too (root~ssd).
    #[arg(long, visible_alias = "show-shadow")]
    shadow: bool,
    /// Draw only what is below this bucket.
    #[arg(long, value_name = "BUCKET")]
    below: Option<String>,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Debug, Serialize)]
struct Node {
    depth: usize,
    id: ItemId,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    class: Option<String>,
    weight: f64,
    note: Option<&'static str>,
}

/// What is below and with each root, top down. A bucket that comes a second time is noted and not entered again.
fn walk(map: &CrushMap, roots: &[ItemId]) -> Vec<Node> {
    let origins = map.shadow_origins();
    let mut seen: BTreeSet<ItemId> = BTreeSet::new();
    let mut nodes = Vec::new();
    for root in roots {
        let weight = map.buckets.get(root).map_or(Weight::ZERO, |bucket| bucket.sum().unwrap_or(bucket.weight));
        let mut waiting = vec![(*root, weight, 0)];
        while let Some((id, weight, depth)) = waiting.pop() {
            let bucket = map.buckets.get(&id);
            let class = match (map.devices.get(&id), origins.get(&id)) {
                (Some(device), _) => device.class,
                (None, Some((_, class))) => Some(*class),
                (None, None) => None,
            };
            let note = match bucket {
                Some(_) if !seen.insert(id) => Some("again: drawn above"),
                None if id < 0 => Some("not in the map"),
                _ => None,
            };
            nodes.push(Node {
                depth,
                id,
                name: map.item_name(id).into_owned(),
                kind: map.kind(id).map_or_else(|| "?".to_owned(), |kind| map.type_name(kind).into_owned()),
                class: class.and_then(|class| map.classes.get(&class)).cloned(),
                weight: weight.as_f64(),
                note,
            });
            if let (Some(bucket), None) = (bucket, note) {
                let items = bucket.items.iter().zip(&bucket.weights).rev();
                waiting.extend(items.map(|(item, weight)| (*item, *weight, depth + 1)));
            }
        }
    }
    nodes
}

impl Run for Tree {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let map = self.map.read()?;
        let mut roots = match &self.below {
            Some(name) => match map.item(name) {
                Some(item) => vec![item],
                None => anyhow::bail!("{} has no bucket or device named {name}", self.map.path().display()),
            },
            None => map.roots(),
        };
        if self.shadow && self.below.is_none() {
            let shadow_of = |root: &ItemId| map.shadows.get(root).into_iter().flat_map(|classes| classes.values());
            let shadows: Vec<ItemId> = roots.iter().flat_map(shadow_of).copied().collect();
            roots.extend(shadows);
        }
        let nodes = walk(&map, &roots);
        let held: BTreeSet<ItemId> = map.buckets.values().flat_map(|bucket| bucket.items.iter().copied()).collect();
        let stray = map.devices.keys().filter(|id| !held.contains(id) && self.below.is_none());
        let stray: Vec<String> = stray.map(|id| map.item_name(*id).into_owned()).collect();
        if self.json.json {
            out.json(&serde_json::json!({ "nodes": nodes, "stray": stray }))?;
            return Ok(Verdict::Good);
        }
        print(out, &nodes)?;
        if !stray.is_empty() {
            writeln!(out, "\nin no bucket: {}", tame(&stray.join(", ")))?;
        }
        Ok(Verdict::Good)
    }
}

fn print(out: &mut Out, nodes: &[Node]) -> anyhow::Result<()> {
    let columns = [
        ("ID", Align::Right),
        ("CLASS", Align::Left),
        ("WEIGHT", Align::Right),
        ("TYPE", Align::Left),
        ("NAME", Align::Left),
    ];
    let mut table = Table::new(&columns);
    let depths: Vec<usize> = nodes.iter().map(|node| node.depth).collect();
    for (node, branch) in nodes.iter().zip(branches(&depths)) {
        let weight = if node.weight == 0.0 { Tone::Warn } else { Tone::Plain };
        let name = match node.note {
            Some(note) => format!("{branch}{} ({note})", node.name),
            None => format!("{branch}{}", node.name),
        };
        table.row_toned(vec![
            (Tone::Faint, node.id.to_string()),
            (Tone::Plain, node.class.clone().unwrap_or_default()),
            (weight, format!("{:.5}", node.weight)),
            (Tone::Plain, node.kind.clone()),
            (if node.note.is_some() { Tone::Bad } else { Tone::Plain }, name),
        ]);
    }
    table.print(out)?;
    Ok(())
}
