//! `nacre flag`: what holds the cluster back, and until when.

use clap::{Args, Subcommand};
use nacre_proto::v1;
use nacre_proto::v1::map_command::Verb as Map;

use super::Asking;
use super::span::{moment, now_ms, span};
use crate::output::{Align, Out, Table};
use crate::run::{Run, Verdict};

/// Set and clear flags that hold things back.
#[derive(Args)]
pub(crate) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Ls(Ls),
    Set(Set),
    Clear(Clear),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Ls(verb) => verb.run(out),
            Verb::Set(verb) => verb.run(out),
            Verb::Clear(verb) => verb.run(out),
        }
    }
}

/// List the flags that are set.
#[derive(Args)]
#[command(
    after_long_help = "--json: [{flag, target, since_ms, until_ms, by, why}]; until_ms is absent without an end."
)]
struct Ls {
    #[command(flatten)]
    asking: Asking,
}

impl Run for Ls {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let map = self.asking.map()?;
        if self.asking.json.json {
            let flags: Vec<_> = map
                .flags
                .iter()
                .map(|((flag, target), state)| {
                    serde_json::json!({
                        "flag": flag.to_string(), "target": target.to_string(), "since_ms": state.since.0,
                        "until_ms": state.until.map(|until| until.0), "by": state.by, "why": state.why,
                    })
                })
                .collect();
            out.json(&flags)?;
            return Ok(Verdict::Good);
        }
        let columns = ["FLAG", "FOR", "UNTIL", "BY", "WHY"].map(|name| (name, Align::Left));
        let mut table = Table::new(&columns);
        for ((flag, target), state) in map.flags.iter() {
            let until = state.until.map_or_else(|| "cleared".to_owned(), |until| moment(until.0));
            table.row([flag.to_string(), target.to_string(), until, state.by.clone(), state.why.clone()]);
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}

/// Set a flag.
#[derive(Args)]
struct Set {
    /// The flag, as in `noout`; a wrong one is answered with those there are.
    flag: String,
    /// What it holds back: `cluster`, `osd.7`, `bucket:rack2`, `class:ssd`.
    #[arg(long, default_value = "cluster", value_name = "TARGET")]
    on: String,
    /// Until it ends by itself, as in `30m`; left out: until it is cleared.
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    length: Option<u64>,
    /// Why, for those who find it.
    #[arg(long, default_value = "")]
    why: String,
    /// Say what would happen and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Set {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let until_ms = self.length.map(|length| now_ms().saturating_add(length));
        let set = v1::FlagSet { flag: self.flag, target: self.on, until_ms, why: self.why };
        self.asking.change(Map::FlagSet(set), self.dry_run, out)
    }
}

/// Clear a flag.
#[derive(Args)]
struct Clear {
    /// The flag.
    flag: String,
    /// For what it was set.
    #[arg(long, default_value = "cluster", value_name = "TARGET")]
    on: String,
    /// Say what would happen and do nothing. What the flag holds back begins only after it is cleared, and is not told.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Clear {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let clear = v1::FlagClear { flag: self.flag, target: self.on };
        self.asking.change(Map::FlagClear(clear), self.dry_run, out)
    }
}
