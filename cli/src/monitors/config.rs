//! `nacre config`: settings that the monitors hold for all daemons.

use std::io::Write;

use anyhow::bail;
use clap::{Args, Subcommand};
use nacre_maps::map::{DaemonKind, Scope};
use nacre_maps::settings::{self, Reader, SETTINGS, Setting};
use nacre_proto::ids::OsdId;
use nacre_proto::v1;
use nacre_proto::v1::map_command::Verb as Map;

use super::Asking;
use crate::output::{Align, Out, Table};
use crate::run::{Run, Verdict};

/// Look at and change settings.
#[derive(Args)]
pub(crate) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Get(Get),
    Set(Set),
    Unset(Unset),
    Explain(Explain),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Get(verb) => verb.run(out),
            Verb::Set(verb) => verb.run(out),
            Verb::Unset(verb) => verb.run(out),
            Verb::Explain(verb) => verb.run(out),
        }
    }
}

fn known(name: &str) -> anyhow::Result<&'static Setting> {
    match settings::find(name) {
        Some(setting) => Ok(setting),
        None => bail!("there is no setting {name}; like it are: {}", settings::like(name).join(", ")),
    }
}

/// Say what value a setting has, and where it comes from.
#[derive(Args)]
#[command(after_long_help = "--json: [{name, value, from}]; from is a scope or \"default\".")]
struct Get {
    /// The setting; left out: all that are not at their default.
    name: Option<String>,
    /// For whom: a daemon as in `osd.7`.
    #[arg(long = "for", value_name = "DAEMON")]
    whom: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Get {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let map = self.asking.map()?;
        let reader = match &self.whom {
            None => Reader::mon(),
            Some(text) => {
                let Scope::Daemon(daemon) = text.parse()? else { bail!("{text} is no daemon: name one, as in osd.7") };
                match (daemon.kind, daemon.name.parse()) {
                    (DaemonKind::Osd, Ok(number)) => Reader::osd(&map, OsdId(number)),
                    _ => Reader { daemon, class: None },
                }
            }
        };
        let wanted: Vec<&'static Setting> = match &self.name {
            Some(name) => vec![known(name)?],
            None => SETTINGS.iter().collect(),
        };
        let found = wanted.into_iter().map(|setting| (setting.name, settings::resolve(&map, setting, &reader)));
        let rows: Vec<(&str, String, String)> = found
            .map(|(name, (value, scope))| {
                (name, value.to_string(), scope.map_or("default".into(), |scope| scope.to_string()))
            })
            .filter(|(_, _, from)| self.name.is_some() || from != "default")
            .collect();
        if self.asking.json.json {
            let rows: Vec<_> = rows
                .iter()
                .map(|(name, value, from)| serde_json::json!({ "name": name, "value": value, "from": from }))
                .collect();
            out.json(&rows)?;
            return Ok(Verdict::Good);
        }
        if rows.is_empty() {
            writeln!(out, "every setting is at its default; `nacre config explain NAME` says what one does")?;
            return Ok(Verdict::Good);
        }
        let mut table = Table::new(&[("SETTING", Align::Left), ("VALUE", Align::Left), ("FROM", Align::Left)]);
        for (name, value, from) in rows {
            table.row([name.to_owned(), value, from]);
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}

/// Give a setting a value.
#[derive(Args)]
struct Set {
    /// The setting.
    name: String,
    /// Its value.
    value: String,
    /// For whom: `global`, a kind as in `osd`, `class:ssd`, or a daemon as in `osd.7`.
    #[arg(long, default_value = "global")]
    scope: String,
    /// Say whether it would be taken, and how much data would move at once, and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Set {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let set = v1::SettingSet { scope: self.scope, name: self.name, value: self.value };
        self.asking.change(Map::SettingSet(set), self.dry_run, out)
    }
}

/// Give a setting back its default.
#[derive(Args)]
struct Unset {
    /// The setting.
    name: String,
    /// For whom it was set.
    #[arg(long, default_value = "global")]
    scope: String,
    /// Say what would happen and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Unset {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let remove = v1::SettingRemove { scope: self.scope, name: self.name };
        self.asking.change(Map::SettingRemove(remove), self.dry_run, out)
    }
}

/// Say what a setting does. Needs no cluster.
#[derive(Args)]
struct Explain {
    /// The setting.
    name: String,
    #[command(flatten)]
    json: crate::output::JsonFlag,
}

impl Run for Explain {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let setting = known(&self.name)?;
        let users: Vec<String> = setting.users.iter().map(ToString::to_string).collect();
        let change = if setting.live { "at once" } else { "at the next start" };
        if self.json.json {
            out.json(&serde_json::json!({
                "name": setting.name, "default": setting.default, "users": users, "live": setting.live,
                "expects": setting.kind.to_string(), "text": setting.text,
            }))?;
            return Ok(Verdict::Good);
        }
        writeln!(out, "{}\n  {}", setting.name, setting.text)?;
        writeln!(out, "  expects a {}", setting.kind)?;
        writeln!(out, "  default {}; read by {}; a change takes effect {change}", setting.default, users.join(", "))?;
        Ok(Verdict::Good)
    }
}
