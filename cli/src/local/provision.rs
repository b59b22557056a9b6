//! What a cluster is born with: its id, its authority, an identity for each monitor and the administrator, each
//! monitor's configuration and the first quorum. Done once; what is there is kept.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use nacre_mon::daemon::{Bootstrap, BootstrapMember};
use nacre_net::identity::{Authority, Caps, ClusterId, Grant, Kind, Name, UnixTime};
use nacre_net::tls::files;
use nacre_proto::ids::MonId;
use serde::Serialize;

use super::layout::{Layout, write_whole};
use crate::cluster::schema::Cluster;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A monitor's configuration file.
#[derive(Serialize)]
struct File {
    mon: Section,
    all: All,
}

#[derive(Serialize)]
struct Section {
    listen: SocketAddr,
    data: PathBuf,
    monitors: Vec<SocketAddr>,
}

#[derive(Serialize)]
struct All {
    run_dir: PathBuf,
    log_level: &'static str,
}

/// A monitor of the file.
#[derive(Clone, Debug)]
pub(crate) struct Monitor {
    /// `mon.N`
    pub(crate) name: String,
    /// N.
    pub(crate) id: u64,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

/// The monitors of the file.
pub(crate) fn monitors(cluster: &Cluster) -> anyhow::Result<Vec<Monitor>> {
    cluster
        .daemons()
        .into_iter()
        .filter_map(|(name, _, address)| name.strip_prefix("mon.").map(str::to_owned).map(|id| (id, name, address)))
        .map(|(id, name, address)| {
            let id = id.parse().with_context(|| format!("monitor {name} has no number"))?;
            Ok(Monitor { name, id, address })
        })
        .collect()
}

/// Writes what is missing.
pub(crate) fn provision(cluster: &Cluster, layout: &Layout) -> anyhow::Result<()> {
    let monitors = monitors(cluster)?;
    let first_time = !layout.provisioned().exists();
    let cluster_id = cluster_id(layout, first_time)?;
    let authority = authority(layout, cluster_id, first_time)?;
    let addresses: Vec<SocketAddr> = monitors.iter().map(|monitor| monitor.address).collect();

    identity(&authority, &layout.admin(), Name::new(Kind::Client, "admin")?, Caps::all())?;
    for monitor in &monitors {
        let folder = layout.daemon(&monitor.name);
        identity(&authority, &folder.join("tls"), Name::mon(MonId(monitor.id)), Caps::of_daemon(Kind::Mon))?;
        let config = File {
            mon: Section { listen: monitor.address, data: absolute(&folder)?, monitors: addresses.clone() },
            all: All { run_dir: absolute(&layout.0.join("run"))?, log_level: "info,openraft=error" },
        };
        write_whole(&layout.monitor_config(&monitor.name), toml::to_string(&config)?.as_bytes())?;
        if first_time {
            let members =
                monitors.iter().map(|monitor| BootstrapMember { mon: monitor.id, address: monitor.address }).collect();
            let bootstrap = toml::to_string(&Bootstrap { members })?;
            write_whole(&folder.join("bootstrap.toml"), bootstrap.as_bytes())?;
        }
    }
    if first_time {
        write_whole(&layout.provisioned(), b"identities and the first quorum were written by `nacre up`\n")?;
    }
    Ok(())
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("finding {}", path.display()))
}

fn cluster_id(layout: &Layout, first_time: bool) -> anyhow::Result<ClusterId> {
    let path = layout.fsid();
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().parse().with_context(|| format!("reading {}", path.display()))?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && first_time => {
            let id = ClusterId::random();
            write_whole(&path, format!("{id}\n").as_bytes())?;
            Ok(id)
        }
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

fn authority(layout: &Layout, cluster: ClusterId, first_time: bool) -> anyhow::Result<Authority> {
    let folder = layout.authority();
    if let Some(stored) = files::load(&folder)? {
        return Ok(Authority::open(cluster, stored.pair)?);
    }
    if !first_time {
        bail!(
            "{} has lost the cluster's authority: restore that folder, no identity can be made without it",
            folder.display()
        );
    }
    let authority = Authority::create(cluster, UnixTime::now(), 10 * YEAR)?;
    files::store(&folder, authority.keypair(), &[authority.certificate().to_vec()])?;
    Ok(authority)
}

/// An identity in a folder, made unless it is there and good for a while yet.
fn identity(authority: &Authority, folder: &Path, name: Name, caps: Caps) -> anyhow::Result<()> {
    let now = UnixTime::now();
    if let Some(stored) = files::load(folder)? {
        let held = nacre_net::identity::Identity::from_der(&stored.pair.certificate)?;
        if held.name != name || held.cluster != authority.cluster() {
            bail!("{} holds the identity of {} of cluster {}", folder.display(), held.name, held.cluster);
        }
        if held.not_after > now.after(YEAR / 12) {
            return Ok(());
        }
    }
    let pair = authority.issue(&Grant { name, caps, generation: 1 }, now, YEAR / 2)?;
    files::store(folder, &pair, &[authority.certificate().to_vec()])?;
    Ok(())
}
