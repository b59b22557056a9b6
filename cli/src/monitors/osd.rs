//! `nacre osd`: the devices and where they stand.

use std::io::Write;

use clap::{Args, Subcommand};

use super::Asking;
use super::df::Df;
use super::osd_away::{Drain, Replace};
use super::osd_edit::Edit;
use super::osd_safe::{OkToStop, SafeToDestroy};
use super::tree::{Line, lines};
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
    Df(Df),
    OkToStop(OkToStop),
    SafeToDestroy(SafeToDestroy),
    Drain(Drain),
    Replace(Replace),
    #[command(flatten)]
    Edit(Edit),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Run(verb) => verb.run(out),
            Verb::Tree(verb) => verb.run(out),
            Verb::Df(verb) => verb.run(out),
            Verb::OkToStop(verb) => verb.run(out),
            Verb::SafeToDestroy(verb) => verb.run(out),
            Verb::Drain(verb) => verb.run(out),
            Verb::Replace(verb) => verb.run(out),
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

impl Run for Tree {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let map = self.asking.map()?;
        let lines = lines(&map);
        let state = |line: &Line| line.osd.map(|osd| (map.is_up(osd), map.is_in(osd)));
        if self.asking.json.json {
            let lines: Vec<_> = lines
                .iter()
                .map(|line| {
                    serde_json::json!({
                        "id": line.id, "name": line.name, "kind": line.kind, "depth": line.depth, "weight": line.weight,
                        "up": state(line).map(|(up, _)| up), "in": state(line).map(|(_, is_in)| is_in),
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
            let state = match state(&line) {
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
