//! `nacre block top`: who uses images on this host, and how much. Asks the daemons that serve them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use nacre_net::daemon::admin::ask;
use serde_json::{Value, json};

use super::bytes;
use crate::local::{ConfigArg, run_folder_of};
use crate::output::{Align, JsonFlag, Out, Table};
use crate::run::{Run, Verdict};

/// How long a daemon has to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Show the images that are served on this host, the busiest first.
#[derive(Args)]
#[command(after_long_help = "\
--json: [{image, daemon, clients, dirty, read, write, zero, flush: {ops, bytes, us}}]; ops and bytes for each second, us
from beginning to end of one.")]
pub(super) struct Top {
    #[command(flatten)]
    config: ConfigArg,
    /// Over how many seconds.
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    #[command(flatten)]
    json: JsonFlag,
}

/// What each daemon says, by daemon and image.
fn look(folder: &std::path::Path) -> anyhow::Result<BTreeMap<(String, String), Value>> {
    let mut seen = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(seen) };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(daemon) = name.strip_suffix(".admin").filter(|name| super::open::serves(name)) else { continue };
        // One that was killed leaves its socket behind.
        let Ok(Value::Array(images)) = ask(&path, "images", json!({}), PATIENCE) else { continue };
        for image in images {
            let name = image["image"].as_str().unwrap_or_default().to_owned();
            seen.insert((daemon.to_owned(), name), image);
        }
    }
    Ok(seen)
}

const KINDS: [&str; 4] = ["read", "write", "zero", "flush"];

impl Run for Top {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let folder = run_folder_of(&self.config)?;
        let (began, before) = (Instant::now(), look(&folder)?);
        let runtime = nacre_net::daemon::current_thread_runtime()?;
        runtime.block_on(async { tokio::time::sleep(Duration::from_secs(self.seconds)).await });
        let after = look(&folder)?;
        let spent = began.elapsed().as_secs_f64().max(0.001);
        let mut lines: Vec<(u64, Value)> = Vec::new();
        for ((daemon, image), now) in after {
            let old = before.get(&(daemon.clone(), image.clone()));
            let mut line =
                json!({ "image": image, "daemon": daemon, "clients": now["clients"], "dirty": now["dirty"] });
            let mut busy = 0;
            for kind in KINDS {
                let grown = |what: &str| {
                    let then = old.map_or(0, |old| old[kind][what].as_u64().unwrap_or(0));
                    now[kind][what].as_u64().unwrap_or(0).saturating_sub(then)
                };
                let (ops, all, micros) = (grown("done"), grown("bytes"), grown("micros"));
                busy += ops;
                line[kind] = json!({
                    "ops": (ops as f64 / spent).round() as u64, "bytes": (all as f64 / spent).round() as u64,
                    "us": micros.checked_div(ops).unwrap_or(0),
                });
            }
            lines.push((busy, line));
        }
        lines.sort_by_key(|(busy, _)| std::cmp::Reverse(*busy));
        if self.json.json {
            out.json(&lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>())?;
            return Ok(Verdict::Good);
        }
        let (left, right) = (Align::Left, Align::Right);
        let mut table = Table::new(&[
            ("IMAGE", left),
            ("DAEMON", left),
            ("CLIENTS", right),
            ("READ/s", right),
            ("READ B/s", right),
            ("WRITE/s", right),
            ("WRITE B/s", right),
            ("WRITE us", right),
            ("FLUSH/s", right),
            ("NOT DURABLE", right),
        ]);
        for (_, line) in lines {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let size = |value: &Value| bytes(value.as_u64().unwrap_or(0));
            table.row([
                text(&line["image"]),
                text(&line["daemon"]),
                text(&line["clients"]),
                text(&line["read"]["ops"]),
                size(&line["read"]["bytes"]),
                text(&line["write"]["ops"]),
                size(&line["write"]["bytes"]),
                text(&line["write"]["us"]),
                text(&line["flush"]["ops"]),
                size(&line["dirty"]),
            ]);
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}
