//! `nacre down`: stops the daemons and their supervisor, in order. Data stays.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;

use super::supervisor::{self, Ask};
use super::{ConfigArg, HostArg};
use crate::cluster::{load, warn};
use crate::output::{JsonFlag, Out};
use crate::run::{Run, Verdict};

/// How long the supervisor may take: it gives its daemons ten seconds before it kills them.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stop the cluster of a cluster.toml on this machine, or single daemons of it. Data stays.
///
/// Daemons that are named stay stopped until `nacre restart DAEMON` or `nacre up`.
#[derive(Args)]
#[command(after_long_help = "--json: {cluster, data, stopped}; stopped counts the daemons that were stopped.")]
pub(crate) struct Down {
    /// The daemons, as in `osd.1`; left out: all.
    daemons: Vec<String>,
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    host: HostArg,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Down {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let loaded = load(&self.config.config)?;
        warn(&loaded);
        let (name, data) = (&loaded.cluster.name.value, &loaded.cluster.data.value);
        let layout = self.host.layout(&loaded.cluster)?;
        let stopped = match supervisor::holder(&layout)? {
            None => 0,
            Some(_) if !self.daemons.is_empty() => {
                for daemon in &self.daemons {
                    supervisor::ask(&layout, &Ask::Halt { daemon: daemon.clone() })?;
                }
                self.daemons.len()
            }
            Some(pid) => {
                let running = supervisor::ask(&layout, &Ask::List)?;
                supervisor::ask(&layout, &Ask::Stop)?;
                let started = Instant::now();
                while supervisor::holder(&layout)?.is_some() {
                    if started.elapsed() > PATIENCE {
                        bail!(
                            "the supervisor (process {pid}) does not end; its log is {}",
                            layout.supervisor_log().display()
                        );
                    }
                    super::pause(Duration::from_millis(10));
                }
                running.daemons.iter().filter(|daemon| daemon.pid.is_some()).count()
            }
        };
        if self.json.json {
            out.json(&serde_json::json!({ "cluster": name.0, "data": data, "stopped": stopped }))?;
        } else if stopped == 0 {
            writeln!(out, "cluster {name}: not running, nothing to stop")?;
        } else {
            let what = match (&self.daemons[..], stopped) {
                ([], 1) => "1 daemon".to_owned(),
                ([], count) => format!("{count} daemons"),
                (named, _) => named.join(", "),
            };
            writeln!(out, "cluster {name}: {what} stopped; data stays in {}", data.display())?;
        }
        Ok(Verdict::Good)
    }
}
