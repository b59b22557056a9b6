//! `nacre down`: stops what `up` started, which is nothing yet, and keeps all data.

use std::io::Write;

use clap::Args;

use super::ConfigArg;
use crate::cluster::{load, warn};
use crate::output::{JsonFlag, Out};
use crate::run::{Run, Verdict};

/// Stop the cluster of a cluster.toml on this machine. Data stays.
///
/// This version has no daemons yet, so there is nothing to stop.
#[derive(Args)]
#[command(after_long_help = "--json: {cluster, data, stopped}; stopped counts the daemons that were stopped.")]
pub(crate) struct Down {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Down {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let loaded = load(&self.config.config)?;
        warn(&loaded);
        let (name, data) = (&loaded.cluster.name.value, &loaded.cluster.data.value);
        if self.json.json {
            out.json(&serde_json::json!({ "cluster": name.0, "data": data, "stopped": 0 }))?;
        } else {
            writeln!(out, "cluster {name}: nothing to stop, this version has no daemons yet")?;
            if data.is_dir() {
                writeln!(out, "The data folder {} stays; remove it by hand to begin anew.", data.display())?;
            }
        }
        Ok(Verdict::Good)
    }
}
