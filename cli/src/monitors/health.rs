//! `nacre health`: what is wrong, why, what follows from it and what to do; and what is not to be shown for a while.

use std::io::Write;

use clap::{Args, Subcommand};
use nacre_maps::health::CHECKS;
use nacre_proto::v1;
use nacre_proto::v1::map_command::Verb as Map;

use super::Asking;
use super::span::{now_ms, span};
use crate::output::{Align, Out, Table, Tone};
use crate::run::{Run, Verdict};

/// Say what is wrong, in full: cause, effect, what to do, and which things it is about.
///
/// Ends with 1 if anything is an error.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_long_help = "--json: {status, checks: [{name, severity, count, cause, effect, todo, details, muted}]}"
)]
pub(crate) struct Health {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// List every check there is instead. Needs no cluster.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum Verb {
    Mute(Mute),
    Unmute(Unmute),
}

impl Run for Health {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Some(Verb::Mute(verb)) => return verb.run(out),
            Some(Verb::Unmute(verb)) => return verb.run(out),
            None if self.all => return list(&self.asking, out),
            None => {}
        }
        let connected = self.asking.connect()?;
        let health = connected.runtime.block_on(connected.monitors.status(false))?.health.unwrap_or_default();
        let verdict = if health.status == "error" { Verdict::Bad } else { Verdict::Good };
        if self.asking.json.json {
            let checks: Vec<_> = health
                .checks
                .iter()
                .map(|check| {
                    serde_json::json!({
                        "name": check.name, "severity": check.severity, "count": check.count, "cause": check.cause,
                        "effect": check.effect, "todo": check.todo, "details": check.details, "muted": check.muted,
                    })
                })
                .collect();
            out.json(&serde_json::json!({ "status": health.status, "checks": checks }))?;
            return Ok(verdict);
        }
        let status = out.paint(tone(&health.status), &health.status);
        writeln!(out, "health {status}")?;
        for check in &health.checks {
            let muted = if check.muted { " (muted)" } else { "" };
            let name = out.paint(tone(&check.severity), &check.name);
            writeln!(out, "\n{name}{muted}: {}\n  effect  {}\n  do      {}", check.cause, check.effect, check.todo)?;
            for detail in &check.details {
                writeln!(out, "  - {detail}")?;
            }
        }
        Ok(verdict)
    }
}

/// How a status or severity is painted.
pub(super) fn tone(word: &str) -> Tone {
    match word {
        "ok" => Tone::Good,
        "warning" => Tone::Warn,
        _ => Tone::Bad,
    }
}

fn list(asking: &Asking, out: &mut Out) -> anyhow::Result<Verdict> {
    if asking.json.json {
        let checks: Vec<_> =
            CHECKS.iter().map(|(name, text)| serde_json::json!({ "name": name, "text": text })).collect();
        out.json(&checks)?;
        return Ok(Verdict::Good);
    }
    let mut table = Table::new(&[("CHECK", Align::Left), ("IS RAISED WHEN", Align::Left)]);
    for (name, text) in CHECKS {
        table.row([*name, *text]);
    }
    table.print(out)?;
    Ok(Verdict::Good)
}

/// Hide a check: until it gets worse or goes away, its time is over, or it is unmuted.
#[derive(Args)]
struct Mute {
    /// The check.
    check: String,
    /// Until it shows again by itself, as in `2h`.
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    length: Option<u64>,
    /// Also when it gets worse, or goes away and comes back.
    #[arg(long)]
    sticky: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Mute {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let until_ms = self.length.map(|length| now_ms().saturating_add(length));
        let mute = v1::Mute { check: self.check, until_ms, sticky: self.sticky, count: 0 };
        self.asking.change(Map::Mute(mute), false, out)
    }
}

/// Show a check again.
#[derive(Args)]
struct Unmute {
    /// The check.
    check: String,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Unmute {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        self.asking.change(Map::Unmute(v1::Unmute { check: self.check }), false, out)
    }
}
