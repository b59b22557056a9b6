//! `nacre restart`: stops one daemon of this machine and starts it again.

use std::io::Write;

use anyhow::{Context, bail};
use clap::Args;

use super::supervisor::{self, Ask};
use super::{ConfigArg, HostArg, provision};
use crate::cluster::load;
use crate::output::{JsonFlag, Out};
use crate::run::{Run, Verdict};

/// Stop one daemon in order and start it again, or start one that was stopped.
///
/// An OSD whose store is gone, as after its disk was exchanged, gets an empty one.
#[derive(Args)]
#[command(after_long_help = "--json: {daemon, pid}")]
pub(crate) struct Restart {
    /// The daemon, as in `mon.1`.
    daemon: String,
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    host: HostArg,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Restart {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let loaded = load(&self.config.config)?;
        let layout = self.host.layout(&loaded.cluster)?;
        if supervisor::holder(&layout)?.is_none() {
            bail!("cluster {} is not running here: start it with `nacre up`", loaded.cluster.name.value);
        }
        provision::missing_stores(&loaded.cluster, &layout)?;
        let answer = supervisor::ask(&layout, &Ask::Restart { daemon: self.daemon.clone() })?;
        let seen = answer.daemons.into_iter().find(|seen| seen.name == self.daemon).context("it is gone")?;
        if self.json.json {
            out.json(&serde_json::json!({ "daemon": seen.name, "pid": seen.pid }))?;
        } else {
            let pid = seen.pid.map_or_else(|| "none yet".into(), |pid| pid.to_string());
            writeln!(out, "{} was started again (process {pid})", seen.name)?;
        }
        Ok(Verdict::Good)
    }
}
