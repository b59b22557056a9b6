//! `nacre up`, `down`, `restart`: the cluster of a `cluster.toml` on this machine, under a supervisor.
//!
//! - [`layout`]: what lies where in the data folder. [`preflight`]: what must be so before anything is started.
//! - [`provision`]: identities, configuration and the first quorum. [`supervisor`]: the process that runs the daemons.
//! - One file for each verb.

mod connect;
mod down;
mod found;
mod layout;
mod preflight;
mod provision;
mod restart;
mod supervise;
mod supervisor;
mod up;

use std::path::PathBuf;

use clap::Args;

use crate::cluster::schema::Cluster;

pub(crate) use connect::{Connected, connect};
pub(crate) use down::Down;
pub(crate) use layout::{Layout, write_whole};
pub(crate) use restart::Restart;
pub(crate) use supervise::Supervise;
pub(crate) use up::Up;

/// The data folder and monitors of a cluster that must not be running here.
pub(crate) fn stopped(config: &ConfigArg) -> anyhow::Result<(Layout, Vec<provision::Monitor>)> {
    let loaded = crate::cluster::load(&config.config)?;
    let layout = Layout::of(loaded.cluster.data.value.clone());
    if let Some(pid) = supervisor::holder(&layout)? {
        anyhow::bail!("the cluster is running here (supervisor process {pid}): stop it with `nacre down`");
    }
    Ok((layout, provision::monitors(&loaded.cluster)?))
}

/// The folder of the administrator's identity, and where the monitors are.
pub(crate) fn monitors_of(config: &ConfigArg) -> anyhow::Result<(PathBuf, Vec<String>)> {
    let loaded = crate::cluster::load(&config.config)?;
    let monitors = provision::monitors(&loaded.cluster)?.iter().map(|monitor| monitor.address.to_string()).collect();
    Ok((Layout::of(loaded.cluster.data.value.clone()).admin(), monitors))
}

/// Where the daemons of this machine write down their process ids.
pub(crate) fn run_folder_of(config: &ConfigArg) -> anyhow::Result<PathBuf> {
    Ok(crate::cluster::load(&config.config)?.cluster.data.value.join("run"))
}

/// The log of a daemon of this machine.
pub(crate) fn log_of(config: &ConfigArg, name: &str) -> anyhow::Result<PathBuf> {
    Ok(Layout::of(crate::cluster::load(&config.config)?.cluster.data.value.clone()).log(name))
}

/// The daemons of this machine as their supervisor sees them, each with its log; nothing where no supervisor runs.
pub(crate) type Here = Option<Vec<(supervisor::Seen, PathBuf)>>;

/// See [`Here`].
pub(crate) fn daemons_here(config: &ConfigArg) -> anyhow::Result<Here> {
    let layout = Layout::of(crate::cluster::load(&config.config)?.cluster.data.value.clone());
    if supervisor::holder(&layout)?.is_none() {
        return Ok(None);
    }
    let listed = supervisor::ask(&layout, &supervisor::Ask::List)?.daemons.into_iter();
    Ok(Some(listed.map(|seen| (seen.clone(), layout.log(&seen.name))).collect()))
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ConfigArg {
    /// The file that describes the cluster.
    #[arg(long, short, default_value = "cluster.toml", value_name = "FILE", env = "NACRE_CLUSTER")]
    pub(crate) config: PathBuf,
}

/// Whose daemons are meant.
#[derive(Args, Clone, Debug)]
pub(crate) struct HostArg {
    /// Only the daemons of this host of the file, where each host runs its part.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

impl HostArg {
    /// The layout of these daemons. Refuses a host that is not in the file.
    pub(crate) fn layout(&self, cluster: &Cluster) -> anyhow::Result<Layout> {
        let data = &cluster.data.value;
        let Some(host) = &self.host else { return Ok(Layout::of(data)) };
        let known: Vec<&str> = cluster.hosts.iter().map(|host| host.name.value.0.as_str()).collect();
        if !known.contains(&host.as_str()) {
            anyhow::bail!("no host {host} in the file; it has {}", known.join(", "));
        }
        Ok(Layout(data.clone(), Some(host.clone())))
    }
}

/// The file in the data folder that holds the crush map a cluster begins with.
const CRUSH_FILE: &str = "crush.txt";

/// Between two looks at something that tells nobody when it changes: another process, a port.
#[expect(clippy::disallowed_methods, reason = "the condition is looked at again after it, within a deadline")]
fn pause(length: std::time::Duration) {
    std::thread::sleep(length);
}
