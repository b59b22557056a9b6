//! `nacre osd`: the devices and where they stand.

use std::io::Write;

use clap::{Args, Subcommand};
use nacre_crush::model::ItemId;
use nacre_maps::ClusterMap;
use nacre_proto::ids::OsdId;

use super::Asking;
use super::osd_edit::Edit;
use crate::output::{Out, Tone};
use crate::run::{Run, Verdict};

/// Look at OSDs and decide about them.
#[derive(Args)]
pub(crate) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(crate::osds::RunOsd),
    Tree(Tree),
    #[command(flatten)]
    Edit(Edit),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Run(verb) => verb.run(out),
            Verb::Tree(verb) => verb.run(out),
            Verb::Edit(verb) => verb.run(out),
        }
    }
}

/// Draw the tree of buckets and OSDs, with the state of each.
#[derive(Args)]
#[command(after_long_help = "--json: [{id, name, kind, depth, weight, up, in}]; up and in only for OSDs.")]
struct Tree {
    #[command(flatten)]
    asking: Asking,
}

struct Line {
    id: ItemId,
    name: String,
    kind: String,
    depth: usize,
    weight: f64,
    state: Option<(bool, bool)>,
}

fn walk(map: &ClusterMap, id: ItemId, weight: f64, depth: usize, lines: &mut Vec<Line>) {
    // A tree deeper than its types cannot be; one that was damaged must not hang us.
    if depth > 32 {
        return;
    }
    if let Some(bucket) = map.crush.buckets.get(&id) {
        let kind = map.crush.type_name(bucket.kind).into_owned();
        lines.push(Line { id, name: bucket.name.clone(), kind, depth, weight: bucket.weight.as_f64(), state: None });
        for (item, weight) in bucket.items.iter().zip(&bucket.weights) {
            walk(map, *item, weight.as_f64(), depth + 1, lines);
        }
    } else if let Ok(osd) = u32::try_from(id) {
        let osd = OsdId(osd);
        let state = Some((map.is_up(osd), map.is_in(osd)));
        lines.push(Line { id, name: osd.to_string(), kind: "osd".into(), depth, weight, state });
    }
}

impl Run for Tree {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let map = self.asking.map()?;
        let shadows = map.crush.shadow_ids();
        let below: std::collections::BTreeSet<ItemId> =
            map.crush.buckets.values().flat_map(|bucket| bucket.items.iter().copied()).collect();
        let mut lines = Vec::new();
        for id in map.crush.buckets.keys().rev().filter(|id| !below.contains(id) && !shadows.contains(id)) {
            walk(&map, *id, 0.0, 0, &mut lines);
        }
        for (osd, _) in map.osds.iter() {
            if i32::try_from(osd.0).is_ok_and(|id| !below.contains(&id)) {
                walk(&map, i32::try_from(osd.0)?, 0.0, 0, &mut lines);
            }
        }
        if self.asking.json.json {
            let lines: Vec<_> = lines
                .iter()
                .map(|line| {
                    serde_json::json!({
                        "id": line.id, "name": line.name, "kind": line.kind, "depth": line.depth, "weight": line.weight,
                        "up": line.state.map(|(up, _)| up), "in": line.state.map(|(_, is_in)| is_in),
                    })
                })
                .collect();
            out.json(&lines)?;
            return Ok(Verdict::Good);
        }
        if lines.is_empty() {
            writeln!(out, "no OSD has joined the cluster yet")?;
        }
        for line in lines {
            let state = match line.state {
                None => String::new(),
                Some((up, is_in)) => {
                    let tone = if up && is_in { Tone::Good } else { Tone::Bad };
                    let text = format!("{} {}", if up { "up" } else { "down" }, if is_in { "in" } else { "out" });
                    out.paint(tone, &text)
                }
            };
            let name = format!("{}{} {}", "  ".repeat(line.depth), line.kind, line.name);
            writeln!(out, "{name:<36} {:>9.4}  {state}", line.weight)?;
        }
        Ok(Verdict::Good)
    }
}
