//! `nacre status`: what of a cluster stands on this machine.

use std::io::Write;

use clap::Args;

use super::{CRUSH_FILE, ConfigArg};
use crate::cluster::{load, warn};
use crate::output::{JsonFlag, Out};
use crate::run::{Run, Verdict};

/// Say how the cluster of a cluster.toml is.
///
/// This version has no daemons yet: it says what stands in the data folder, and how many daemons are described.
#[derive(Args)]
#[command(after_long_help = "\
--json: {cluster, data, prepared, daemons: {described, running}}; prepared says whether `nacre up` has been here.")]
pub(crate) struct Status {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Status {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let loaded = load(&self.config.config)?;
        warn(&loaded);
        let cluster = &loaded.cluster;
        let (name, data) = (&cluster.name.value, &cluster.data.value);
        let prepared = data.join(CRUSH_FILE).is_file();
        let described = cluster.daemons().len();
        if self.json.json {
            let daemons = serde_json::json!({ "described": described, "running": 0 });
            out.json(
                &serde_json::json!({ "cluster": name.0, "data": data, "prepared": prepared, "daemons": daemons }),
            )?;
            return Ok(Verdict::Good);
        }
        writeln!(out, "cluster {name}: not running, this version has no daemons yet ({described} are described)")?;
        if prepared {
            writeln!(out, "  prepared in {}", data.display())?;
        } else {
            writeln!(out, "  not prepared: `nacre up` makes {}", data.display())?;
        }
        Ok(Verdict::Good)
    }
}
