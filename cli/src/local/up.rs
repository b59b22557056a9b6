//! `nacre up`: checks, makes the data folder with the first crush map, and says what would run.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::{CRUSH_FILE, ConfigArg, preflight};
use crate::cluster::{load, placement, warn};
use crate::output::{Align, JsonFlag, Out, Table, Tone};
use crate::run::{Run, Verdict};

/// Start the cluster of a cluster.toml on this machine.
///
/// Checks the file, the data folder and the ports, writes the crush map the cluster begins with, and says what would run:
/// this version has no daemons yet, and starts none. Running it again is harmless: what is there is kept.
#[derive(Args)]
#[command(after_long_help = "\
--json: {cluster, data, crush: {file, state: written|kept}, daemons: [{name, host, listens}], started}; started counts
the daemons that were started.")]
pub(crate) struct Up {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Serialize)]
struct Report {
    cluster: String,
    data: PathBuf,
    crush: Crush,
    daemons: Vec<Daemon>,
    started: usize,
}

#[derive(Serialize)]
struct Crush {
    file: PathBuf,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Written,
    Kept,
}

#[derive(Serialize)]
struct Daemon {
    name: String,
    host: String,
    listens: String,
}

impl Run for Up {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let loaded = load(&self.config.config)?;
        warn(&loaded);
        let cluster = &loaded.cluster;
        let map = nacre_crush::text::print(&placement::crush_map(cluster)?);

        let data = &cluster.data.value;
        preflight::data_folder(data)?;
        preflight::ports(cluster)?;
        let file = data.join(CRUSH_FILE);
        let state = write_once(&file, &map).with_context(|| format!("writing {}", file.display()))?;

        let daemons = cluster.daemons().into_iter();
        let daemons = daemons.map(|(name, host, at)| Daemon { name, host: host.0.clone(), listens: at.to_string() });
        let report = Report {
            cluster: cluster.name.value.0.clone(),
            data: data.clone(),
            crush: Crush { file, state },
            daemons: daemons.collect(),
            started: 0,
        };
        if self.json.json {
            out.json(&report)?;
        } else {
            print(out, &report)?;
        }
        Ok(Verdict::Good)
    }
}

/// Writes a file that is whole or not there, and leaves one alone that is: a cluster's map is its own once it lives.
fn write_once(file: &Path, text: &str) -> io::Result<State> {
    if file.try_exists()? {
        return Ok(State::Kept);
    }
    let draft = file.with_extension(format!("draft.{}", std::process::id()));
    let written = (|| {
        let mut to = std::fs::File::create_new(&draft)?;
        to.write_all(text.as_bytes())?;
        to.sync_all()?;
        std::fs::rename(&draft, file)
    })();
    if written.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&draft);
    }
    written.map(|()| State::Written)
}

fn print(out: &mut Out, report: &Report) -> anyhow::Result<()> {
    let state = match report.crush.state {
        State::Written => "written",
        State::Kept => "already there, kept as it is",
    };
    writeln!(out, "cluster {}", out.paint(Tone::Strong, &report.cluster))?;
    writeln!(out, "  data folder  {}", report.data.display())?;
    writeln!(out, "  crush map    {} ({state})\n", report.crush.file.display())?;
    writeln!(out, "This version has no daemons yet, so none was started. These would run:\n")?;
    let mut table = Table::new(&[("DAEMON", Align::Left), ("HOST", Align::Left), ("LISTENS", Align::Left)]);
    for daemon in &report.daemons {
        table.row([daemon.name.as_str(), daemon.host.as_str(), daemon.listens.as_str()]);
    }
    table.print(out)?;
    writeln!(out, "\nLook at the placement: nacre crush tree {}", report.crush.file.display())?;
    Ok(())
}
