//! `nacre daemon NAME VERB ...`: asks one daemon of this host, through its admin socket. What the verbs mean is the
//! daemon's business; this module only finds the socket, carries the words and prints the answer.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use nacre_net::daemon::admin::{ask, socket_path};
use nacre_net::identity::Name;
use serde_json::{Map, Value, json};

use crate::output::{Align, JsonFlag, Out, Table};
use crate::run::{Run, Verdict};

/// Ask a daemon of this host: its settings, counters and state.
///
/// Works without monitors: it speaks to the daemon's own socket, which is for the daemon's user and root.
#[derive(Args)]
#[command(after_long_help = "\
Every daemon knows: help | version | config show | config set NAME VALUE | config unset NAME | perf | log level LEVEL |
stop. Others depend on the daemon, as `dump state` of a monitor and `ops` of an OSD do; words like KEY=VALUE behind a verb are its arguments.

--json: the answer as the daemon gave it. `config show` is {NAME: {value, source, live}}, `perf` {METRIC: NUMBER}.")]
pub(crate) struct Daemon {
    /// The daemon: osd.3, mon.1.
    #[arg(value_name = "NAME")]
    name: String,
    /// What to ask, for example: config show.
    #[arg(value_name = "VERB", required = true, num_args = 1..)]
    verb: Vec<String>,
    /// The folder of the daemon's sockets; otherwise $NACRE_RUN_DIR, that of the cluster in
    /// cluster.toml, or /run/nacre.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// The file that describes the cluster, for the folder of sockets.
    #[arg(long, short, default_value = "cluster.toml", value_name = "FILE")]
    config: PathBuf,
    /// How many seconds to wait for the answer.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    patience: u64,
    #[command(flatten)]
    json: JsonFlag,
}

/// The verb as the daemon knows it, and its arguments.
fn parse(words: &[String]) -> anyhow::Result<(String, Value)> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Ok(match words[..] {
        ["config"] => ("config show".into(), json!({})),
        ["config", "set", name, value] => ("config set".into(), json!({ "name": name, "value": value })),
        ["config", "set", ..] => bail!("`config set` takes a name and a value"),
        ["config", "unset", name] => ("config unset".into(), json!({ "name": name })),
        ["log", "level", level] => ("log level".into(), json!({ "level": level })),
        _ => {
            let verb: Vec<_> = words.iter().copied().take_while(|word| !word.contains('=')).collect();
            let mut args = Map::new();
            for word in &words[verb.len()..] {
                let Some((key, value)) = word.split_once('=') else {
                    bail!("{word:?} stands behind an argument and is none: arguments are KEY=VALUE");
                };
                args.insert(key.to_owned(), value.into());
            }
            (verb.join(" "), args.into())
        }
    })
}

/// Where the sockets are.
fn folder(given: Option<&Path>, config: &Path) -> PathBuf {
    if let Some(given) = given.map(Path::to_owned).or_else(|| std::env::var_os("NACRE_RUN_DIR").map(PathBuf::from)) {
        return given;
    }
    // Without a file that can be read it is a host of a larger cluster: there the daemons use the system's folder.
    match crate::cluster::load(config) {
        Ok(loaded) => loaded.cluster.data.value.join("run"),
        Err(_) => PathBuf::from("/run/nacre"),
    }
}

/// Operations of an OSD: each stage's time in milliseconds.
fn operations(out: &mut Out, lists: &Map<String, Value>) -> anyhow::Result<()> {
    let columns = [
        ("LIST", Align::Left),
        ("CLIENT", Align::Left),
        ("PG", Align::Left),
        ("WHAT", Align::Left),
        ("OBJECT", Align::Left),
        ("STAGE", Align::Left),
        ("TOOK", Align::Right),
        ("QUEUED", Align::Right),
        ("WAITING", Align::Right),
        ("JOURNAL", Align::Right),
        ("REPLICAS", Align::Right),
    ];
    let mut table = Table::new(&columns);
    let mut causes = std::collections::BTreeMap::new();
    for list in ["recent", "slow", "in_flight"] {
        for op in lists.get(list).and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| op[key].as_str().unwrap_or_default().to_owned();
            let ms =
                |key: &str| op[key].as_u64().map_or_else(String::new, |us| format!("{:.1} ms", us as f64 / 1000.0));
            table.row([
                list.replace('_', " "),
                text("client"),
                text("pg"),
                text("what"),
                text("object"),
                text("stage"),
                ms("took_us"),
                ms("queued_us"),
                ms("waiting_us"),
                ms("journalled_us"),
                ms("replicated_us"),
            ]);
            if !text("why").is_empty() {
                causes.insert(text("pg"), text("why"));
            }
        }
    }
    table.print(out)?;
    for (pg, why) in causes {
        writeln!(out, "pg {pg}: {why}")?;
    }
    Ok(())
}

fn print(out: &mut Out, verb: &str, answer: &Value) -> anyhow::Result<()> {
    match (verb, answer) {
        (_, Value::Null) => {}
        ("config show", Value::Object(settings)) => {
            let left = Align::Left;
            let mut table = Table::new(&[("SETTING", left), ("VALUE", left), ("CHANGE", left), ("FROM", left)]);
            for (name, setting) in settings {
                let text = |key: &str| setting[key].as_str().unwrap_or_default().to_owned();
                let change = if setting["live"] == true { "live" } else { "restart" };
                table.row([name.clone(), text("value"), change.to_owned(), text("source")]);
            }
            table.print(out)?;
        }
        ("ops", Value::Object(lists)) => operations(out, lists)?,
        ("perf" | "help" | "version", Value::Object(entries)) => {
            for (name, value) in entries {
                match value {
                    Value::String(text) => writeln!(out, "{name}  {text}")?,
                    other => writeln!(out, "{name}  {other}")?,
                }
            }
        }
        (_, other) => out.json(other)?,
    }
    Ok(())
}

impl Run for Daemon {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let name: Name = self.name.parse()?;
        let (verb, args) = parse(&self.verb)?;
        let socket = socket_path(&folder(self.run_dir.as_deref(), &self.config), &name);
        let answer = ask(&socket, &verb, args, Duration::from_secs(self.patience))?;
        if self.json.json {
            out.json(&answer)?
        } else {
            print(out, &verb, &answer)?
        }
        Ok(Verdict::Good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(String, Value)> {
        parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>()).ok()
    }

    #[test]
    fn words_become_a_verb_and_its_arguments() {
        let verb = |text: &str, args: Value| Some((text.to_owned(), args));
        assert_eq!(parsed("config"), verb("config show", json!({})));
        assert_eq!(parsed("config show"), verb("config show", json!({})));
        assert_eq!(parsed("config set memory 1GiB"), verb("config set", json!({ "name": "memory", "value": "1GiB" })));
        assert_eq!(parsed("config unset memory"), verb("config unset", json!({ "name": "memory" })));
        assert_eq!(parsed("log level info,x=debug"), verb("log level", json!({ "level": "info,x=debug" })));
        assert_eq!(parsed("dump state pg=2.1f deep=yes"), verb("dump state", json!({ "pg": "2.1f", "deep": "yes" })));
        assert_eq!(parsed("config set memory"), None);
        assert_eq!(parsed("dump a=b state"), None);
    }

    #[test]
    fn the_folder_given_wins() {
        let gone = Path::new("/nonexistent/cluster.toml");
        assert_eq!(folder(Some(Path::new("/x")), gone), PathBuf::from("/x"));
    }
}
