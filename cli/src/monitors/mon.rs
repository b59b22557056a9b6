//! `nacre mon`: the monitors and their quorum.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use nacre_mon_api::v1;
use nacre_mon_api::v1::change_quorum_request::Change;

use super::{Asking, backup, run, status};
use crate::output::{Align, Out, Table};
use crate::run::{Run, Verdict};

/// Run monitors and look after their quorum.
#[derive(Args)]
pub(crate) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(run::Verb),
    Status(Status),
    Quorum(Quorum),
    Add(Add),
    Remove(Remove),
    Lead(Lead),
    Backup(backup::Backup),
    Restore(backup::Restore),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Run(verb) => verb.run(out),
            Verb::Status(verb) => verb.run(out),
            Verb::Quorum(verb) => verb.run(out),
            Verb::Add(verb) => verb.run(out),
            Verb::Remove(verb) => verb.run(out),
            Verb::Lead(verb) => verb.run(out),
            Verb::Backup(verb) => verb.run(out),
            Verb::Restore(verb) => verb.run(out),
        }
    }
}

/// Ask every monitor by itself how it is; works without a quorum.
#[derive(Args)]
#[command(
    after_long_help = "--json: [{name, role, leader, term, epoch, applied, snapshot}] or {name, error} for one that does not answer."
)]
struct Status {
    #[command(flatten)]
    asking: Asking,
}

impl Run for Status {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let connected = self.asking.connect()?;
        let mut table = Table::new(&[
            ("MONITOR", Align::Left),
            ("ROLE", Align::Left),
            ("TERM", Align::Right),
            ("EPOCH", Align::Right),
            ("APPLIED", Align::Right),
            ("SNAPSHOT", Align::Right),
        ]);
        let mut listed = Vec::new();
        let (mut good, mut silent) = (true, Vec::new());
        for monitor in &connected.known {
            let alone = {
                let _inside = connected.runtime.enter();
                connected.only(monitor.address.to_string(), Duration::from_secs(2))
            };
            match connected.runtime.block_on(alone.status(true)) {
                Ok(seen) => {
                    let numbers = [seen.term, seen.epoch, seen.applied, seen.snapshot].map(|number| number.to_string());
                    // One that was removed goes on as it was: nobody tells it any more.
                    let member = seen.members.iter().any(|member| member.node == seen.node);
                    let role = if member { seen.role.clone() } else { "no member".into() };
                    table.row([monitor.name.clone(), role].into_iter().chain(numbers));
                    listed.push(serde_json::json!({
                        "name": monitor.name, "role": seen.role, "leader": seen.leader, "term": seen.term,
                        "epoch": seen.epoch, "applied": seen.applied, "snapshot": seen.snapshot,
                    }));
                }
                Err(error) => {
                    good = false;
                    table.row([monitor.name.clone(), "not reached".into()]);
                    silent.push(format!("{}: {}", monitor.name, error.text));
                    listed.push(serde_json::json!({ "name": monitor.name, "error": error.to_string() }));
                }
            }
        }
        if self.asking.json.json {
            out.json(&listed)?;
        } else {
            table.print(out)?;
            for why in silent {
                writeln!(out, "{why}")?;
            }
        }
        Ok(if good { Verdict::Good } else { Verdict::Bad })
    }
}

/// Say who votes, as the leader has it.
#[derive(Args)]
#[command(after_long_help = "--json: {leader, term, members: [{name, address, votes, silent_ms, matched, node}]}")]
struct Quorum {
    #[command(flatten)]
    asking: Asking,
}

impl Run for Quorum {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let connected = self.asking.connect()?;
        let seen = connected.runtime.block_on(connected.monitors.status(false))?;
        if self.asking.json.json {
            out.json(&serde_json::json!({
                "leader": format!("mon.{}", seen.mon), "term": seen.term, "members": status::members(&seen),
            }))?;
            return Ok(Verdict::Good);
        }
        writeln!(out, "mon.{} leads in term {}\n", seen.mon, seen.term)?;
        let mut table = Table::new(&[
            ("MONITOR", Align::Left),
            ("ADDRESS", Align::Left),
            ("VOTES", Align::Left),
            ("SILENT MS", Align::Right),
            ("NODE", Align::Right),
        ]);
        for member in &seen.members {
            let silent = member.silent_ms.map_or_else(|| "-".into(), |ms| ms.to_string());
            let votes = if member.voter { "yes" } else { "no, learns" };
            table.row([
                format!("mon.{}", member.mon),
                member.address.clone(),
                votes.into(),
                silent,
                format!("{:x}", member.node),
            ]);
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}

fn change(asking: &Asking, change: Change, out: &mut Out) -> anyhow::Result<Verdict> {
    let connected = asking.connect()?;
    let reply = connected.runtime.block_on(connected.monitors.change_quorum(change))?;
    if asking.json.json {
        let members: Vec<String> = reply.members.iter().map(|member| format!("mon.{}", member.mon)).collect();
        out.json(&serde_json::json!({ "text": reply.text, "node": format!("{:x}", reply.node), "members": members }))?;
    } else {
        writeln!(out, "{}", reply.text)?;
    }
    Ok(Verdict::Good)
}

/// Let a monitor that runs and waits into the quorum. One that starts without a store asks by itself.
#[derive(Args)]
struct Add {
    /// Its number.
    mon: u64,
    /// Where it listens.
    address: SocketAddr,
    /// The node id it was given, in hex, as its log says.
    #[arg(long, value_parser = |text: &str| u64::from_str_radix(text, 16))]
    node: u64,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Add {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let join = v1::JoinQuorum { mon: self.mon, address: self.address.to_string(), node: self.node };
        change(&self.asking, Change::Join(join), out)
    }
}

/// Take a monitor out of the quorum. Its data stays where it is.
#[derive(Args)]
struct Remove {
    /// Its number.
    mon: u64,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Remove {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        change(&self.asking, Change::Remove(self.mon), out)
    }
}

/// Move leadership to a monitor.
#[derive(Args)]
struct Lead {
    /// Its number.
    mon: u64,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Lead {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        change(&self.asking, Change::Lead(self.mon), out)
    }
}
