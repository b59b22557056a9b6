//! `nacre block top`: who uses images, and how much. Asks the daemons of this host that serve them, or through the cluster
//! all who have an image open, wherever they are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt as _;
use nacre_net::daemon::admin::ask;
use serde_json::{Value, json};

use nacre_block::meter::KINDS;
use nacre_block::{Image, directory};
use nacre_client::Cluster;

use super::{At, Room, bytes};
use crate::local::run_folder_of;
use crate::output::{Align, JsonFlag, Out, Table};
use crate::run::{Run, Verdict};

/// How long a daemon has to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Images that are asked for at a time.
const ABREAST: usize = 16;

/// By daemon and image.
type Seen = BTreeMap<(String, String), Value>;

/// Show the images that are in use, the busiest first: those that daemons of this host serve, or all of a pool.
#[derive(Args)]
#[command(after_long_help = "\
--json: [{image, daemon, clients, dirty, lost, read, write, zero, flush: {ops, bytes, us}}]; ops and bytes for each second, us
from beginning to end of one. With --pool, daemon is a host and a process, and clients null.")]
pub(super) struct Top {
    #[command(flatten)]
    at: At,
    /// The images of POOL or POOL/NAMESPACE, whoever uses them on whatever host: asks all who may write one, or have it
    /// mapped or served. May be said more than once.
    #[arg(long, value_name = "POOL")]
    pool: Vec<Room>,
    /// Over how many seconds.
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    #[command(flatten)]
    json: JsonFlag,
}

/// What everybody says of the images of some pools.
async fn look_everywhere(cluster: &Cluster, rooms: &[Room]) -> anyhow::Result<Seen> {
    let mut seen = BTreeMap::new();
    for room in rooms {
        let pool = room.open(cluster).await?;
        let asked = directory::list(&pool).await?.into_iter().map(|entry| {
            let pool = pool.clone();
            async move {
                let told = match Image::open(&pool, &entry.name).await {
                    Ok(image) => image.users().await,
                    Err(error) => Err(error),
                };
                (entry.name, told)
            }
        });
        let mut asked = futures_util::stream::iter(asked).buffer_unordered(ABREAST);
        while let Some((name, told)) = asked.next().await {
            let image = match room.namespace.as_str() {
                "" => format!("{}/{name}", room.pool),
                namespace => format!("{}/{namespace}/{name}", room.pool),
            };
            let told = match told {
                Ok(told) => told,
                Err(error) => {
                    // It may have gone meanwhile; the others are of interest all the same.
                    crate::output::aside(&format!("{image}: {error}"));
                    continue;
                }
            };
            for user in told {
                let mut line = json!({ "image": image, "clients": null, "dirty": user.dirty, "lost": user.lost });
                for (kind, seen) in KINDS.into_iter().zip(user.counts) {
                    line[kind] = json!({ "done": seen.done, "bytes": seen.bytes, "micros": seen.micros });
                }
                seen.insert((user.who, image.clone()), line);
            }
        }
    }
    Ok(seen)
}

/// What each daemon of this host says.
fn look(folder: &std::path::Path) -> anyhow::Result<Seen> {
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

impl Run for Top {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let span = Duration::from_secs(self.seconds);
        let (before, after, spent) = if self.pool.is_empty() {
            let folder = run_folder_of(&self.at.config)?;
            let (began, before) = (Instant::now(), look(&folder)?);
            nacre_net::daemon::current_thread_runtime()?.block_on(async { tokio::time::sleep(span).await });
            (before, look(&folder)?, began.elapsed())
        } else {
            let rooms = self.pool.clone();
            self.at.with(|cluster| async move {
                let (began, before) = (Instant::now(), look_everywhere(&cluster, &rooms).await?);
                // From the end of one look to the end of the other.
                let first = began.elapsed();
                tokio::time::sleep(span).await;
                let after = look_everywhere(&cluster, &rooms).await?;
                Ok((before, after, began.elapsed().saturating_sub(first)))
            })?
        };
        let spent = spent.as_secs_f64().max(0.001);
        let mut lines: Vec<(u64, Value)> = Vec::new();
        for ((daemon, image), now) in after {
            let old = before.get(&(daemon.clone(), image.clone()));
            let mut line = json!({
                "image": image, "daemon": daemon, "clients": now["clients"], "dirty": now["dirty"], "lost": now["lost"],
            });
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
            let text = |value: &Value| match value {
                Value::Null => "-".to_owned(),
                value => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            };
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
