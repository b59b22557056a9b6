//! `nacre fence`: sessions that every OSD refuses.

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};
use nacre_proto::v1;
use nacre_proto::v1::map_command::Verb as Map;

use super::Asking;
use super::span::{moment, now_ms, span};
use crate::output::{Align, Out, Table};
use crate::run::{Run, Verdict};

/// Shut sessions out, so that nothing they have sent can land any more.
#[derive(Args)]
pub(crate) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Ls(Ls),
    Add(Add),
    Rm(Rm),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Ls(verb) => verb.run(out),
            Verb::Add(verb) => verb.run(out),
            Verb::Rm(verb) => verb.run(out),
        }
    }
}

/// List the fenced sessions.
#[derive(Args)]
#[command(after_long_help = "--json: [{session, epoch, until_ms, why}]")]
struct Ls {
    #[command(flatten)]
    asking: Asking,
}

impl Run for Ls {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let map = self.asking.map()?;
        if self.asking.json.json {
            let fences: Vec<_> = map
                .fenced
                .iter()
                .map(|(session, fence)| {
                    serde_json::json!({
                        "session": session.0, "epoch": fence.epoch.0, "until_ms": fence.until.map(|until| until.0),
                        "why": fence.why,
                    })
                })
                .collect();
            out.json(&fences)?;
            return Ok(Verdict::Good);
        }
        let mut table = Table::new(&[
            ("SESSION", Align::Right),
            ("SINCE EPOCH", Align::Right),
            ("UNTIL", Align::Left),
            ("WHY", Align::Left),
        ]);
        for (session, fence) in map.fenced.iter() {
            let until = fence.until.map_or_else(|| "let in".to_owned(), |until| moment(until.0));
            table.row([session.0.to_string(), fence.epoch.to_string(), until, fence.why.clone()]);
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}

/// Fence sessions, and wait until every OSD that is up refuses them.
#[derive(Args)]
#[command(after_long_help = "\
Ends with 1 if an OSD that is up has not said in time that it knows: what the session has sent may still land there.
--json: {text, epoch, behind: [osd]}")]
struct Add {
    /// The sessions, by number.
    #[arg(required = true)]
    sessions: Vec<u64>,
    /// Until the fence may be forgotten, as in `1h`; left out: until they are let in again.
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    length: Option<u64>,
    /// Why, for those who find it.
    #[arg(long, default_value = "")]
    why: String,
    /// How long to wait for the OSDs.
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "10s")]
    wait: u64,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Add {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let connected = self.asking.connect()?;
        let until_ms = self.length.map(|length| now_ms().saturating_add(length));
        let fence = Map::Fence(v1::Fence { sessions: self.sessions, until_ms, why: self.why });
        let verb = nacre_mon_api::v1::command::Verb::Map(v1::MapCommand { verb: Some(fence) });
        let (reply, behind) = connected.runtime.block_on(async {
            let reply = connected.monitors.execute(verb, false).await?;
            let behind = connected.monitors.barrier(reply.epoch, Duration::from_millis(self.wait)).await?;
            Ok::<_, nacre_proto::status::Status>((reply, behind))
        })?;
        if self.asking.json.json {
            out.json(&serde_json::json!({ "text": reply.text, "epoch": reply.epoch, "behind": behind }))?;
        } else if behind.is_empty() {
            writeln!(out, "{}; every OSD that is up refuses them from now on (epoch {})", reply.text, reply.epoch)?;
        } else {
            let names: Vec<String> = behind.iter().map(|osd| format!("osd.{osd}")).collect();
            writeln!(out, "{} (epoch {}), but not known to {} yet", reply.text, reply.epoch, names.join(", "))?;
        }
        Ok(if behind.is_empty() { Verdict::Good } else { Verdict::Bad })
    }
}

/// Let a session in again.
#[derive(Args)]
struct Rm {
    /// The session, by number.
    session: u64,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Rm {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        self.asking.change(Map::Unfence(v1::Unfence { session: self.session }), false, out)
    }
}
