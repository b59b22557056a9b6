//! `nacre mon backup` and `restore`: the state of the monitors in one file, and a quorum of one out of it.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use nacre_mon::backup;

use super::Asking;
use crate::local::Layout;
use crate::output::{JsonFlag, Out};
use crate::run::{Run, Verdict};

/// Write the state of the monitors into a file.
#[derive(Args)]
#[command(after_long_help = "--json: {file, bytes, epoch, commands}")]
pub(super) struct Backup {
    /// The file; it must not be there.
    file: PathBuf,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Backup {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let connected = self.asking.connect()?;
        let state = connected.runtime.block_on(async {
            let mut parts = connected.monitors.backup().await?;
            let mut state = Vec::new();
            while let Some(part) = parts.message().await? {
                state.extend_from_slice(&part.data);
            }
            anyhow::Ok(state)
        })?;
        let (record, summary) = backup::pack(&state)?;
        let mut file =
            std::fs::File::create_new(&self.file).with_context(|| format!("writing {}", self.file.display()))?;
        file.write_all(&record)?;
        file.sync_all()?;
        if self.asking.json.json {
            out.json(&serde_json::json!({
                "file": self.file, "bytes": record.len(), "epoch": summary.epoch, "commands": summary.commands,
            }))?;
        } else {
            writeln!(out, "{}: {} bytes, epoch {}", self.file.display(), record.len(), summary.epoch)?;
        }
        Ok(Verdict::Good)
    }
}

/// Make a quorum of one monitor out of a backup, when the quorum is lost for good. The cluster must be down; the other
/// monitors' stores are set aside, and they join the new quorum when they start.
#[derive(Args)]
#[command(after_long_help = "--json: {monitor, epoch, aside}; aside lists the stores that were set aside.")]
pub(super) struct Restore {
    /// The backup.
    file: PathBuf,
    /// The monitor that starts from it.
    #[arg(long, default_value_t = 0)]
    mon: u64,
    #[command(flatten)]
    config: crate::local::ConfigArg,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Restore {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let (layout, monitors): (Layout, _) = crate::local::stopped(&self.config)?;
        let record = std::fs::read(&self.file).with_context(|| format!("reading {}", self.file.display()))?;
        let chosen = monitors.iter().find(|monitor| monitor.id == self.mon);
        let chosen = chosen.with_context(|| format!("cluster.toml has no mon.{}", self.mon))?;
        let fsid = std::fs::read_to_string(layout.fsid()).context("reading the cluster's id")?;
        // Read before anything is moved.
        let state = backup::unpack(&record)?;
        let mut aside = Vec::new();
        for monitor in &monitors {
            let folder = layout.daemon(&monitor.name);
            let store = folder.join("store");
            let _ = std::fs::remove_file(folder.join("bootstrap.toml"));
            if store.exists() {
                let kept = folder.join(format!("store.before-restore-{}", nacre_mon::node::now_ms()));
                std::fs::rename(&store, &kept).with_context(|| format!("setting {} aside", store.display()))?;
                aside.push(kept);
            }
        }
        let epoch = state.map.epoch.0;
        backup::restore(state, fsid.trim(), chosen.id, chosen.address, &layout.daemon(&chosen.name).join("store"))?;
        if self.json.json {
            out.json(&serde_json::json!({ "monitor": chosen.name, "epoch": epoch, "aside": aside }))?;
        } else {
            writeln!(out, "{} holds the map of epoch {epoch}; `nacre up` starts it, the others join it", chosen.name)?;
        }
        Ok(Verdict::Good)
    }
}
