//! What a cluster is born with: its id, its authority, an identity for each monitor and the administrator, each
//! monitor's configuration and the first quorum. Done once; what is there is kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use nacre_mon::daemon::{Bootstrap, BootstrapMember};
use nacre_mon::keys;
use nacre_net::identity::{Authority, Caps, ClusterId, Grant, Keypair, Kind, Name, SealKey, UnixTime};
use nacre_net::tls::files;
use nacre_proto::ids::{MonId, OsdId, Uuid};
use nacre_store::{DiskStore, FormatOptions};
use serde::Serialize;

use super::layout::{Layout, write_whole};
use super::supervisor::Spec;
use crate::cluster::schema::{Cluster, Name as HostName, Osd};

/// The journal of a store of the local cluster: enough for seconds of writes, small beside its space.
const JOURNAL: u64 = 128 << 20;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A monitor's configuration file.
#[derive(Serialize)]
struct MonitorFile {
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

/// What the supervisor starts: monitors first, since all others wait for them.
pub(crate) fn specs(cluster: &Cluster, layout: &Layout) -> anyhow::Result<Vec<Spec>> {
    let spec = |noun: &str, name: String, id: String, config: PathBuf| Spec {
        args: [noun, "run", "--until-stdin-ends", "--id", &id, "--config", &config.display().to_string()]
            .map(str::to_owned)
            .to_vec(),
        log: layout.log(&name),
        name,
    };
    let mut specs = Vec::new();
    let here = |host: &str| layout.1.as_ref().is_none_or(|only| only == host);
    let hosts: BTreeMap<String, &HostName> =
        cluster.daemons().into_iter().map(|(name, host, _)| (name, host)).collect();
    let is_here = |name: &str| hosts.get(name).is_some_and(|host| here(&host.0));
    for monitor in monitors(cluster)?.into_iter().filter(|monitor| is_here(&monitor.name)) {
        let config = layout.monitor_config(&monitor.name);
        specs.push(spec("mon", monitor.name, monitor.id.to_string(), config));
    }
    for osd in &cluster.osds {
        let name = format!("osd.{}", osd.id.value);
        if !is_here(&name) {
            continue;
        }
        let config = layout.osd_config(&name);
        specs.push(spec("osd", name, osd.id.value.to_string(), config));
    }
    Ok(specs)
}

/// An OSD's configuration file.
#[derive(Serialize)]
struct OsdFile {
    osd: OsdSection,
    all: All,
}

#[derive(Serialize)]
struct OsdSection {
    listen: SocketAddr,
    data: PathBuf,
    monitors: Vec<SocketAddr>,
    location: String,
    class: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<f64>,
    memory: u64,
    shards: u32,
}

/// Identity, configuration and an empty store for each OSD that has none. A store that is there is kept whatever it is:
/// its daemon says if it is not its own. Gives the certificates.
fn provision_osds(cluster: &Cluster, layout: &Layout, authority: &Source) -> anyhow::Result<Vec<Vec<u8>>> {
    let monitors: Vec<SocketAddr> = monitors(cluster)?.iter().map(|monitor| monitor.address).collect();
    let listens: BTreeMap<String, SocketAddr> =
        cluster.daemons().into_iter().map(|(name, _, address)| (name, address)).collect();
    let mut made = Vec::new();
    for osd in &cluster.osds {
        let id = OsdId(osd.id.value);
        let folder = &osd.path.value;
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        made.push(identity(authority, &folder.join("tls"), Name::osd(id), Caps::of_daemon(Kind::Osd))?);
        let store = folder.join("store");
        let is_here = layout.1.as_ref().is_none_or(|only| *only == osd.host.value.0);
        if is_here && !store.exists() {
            format_store(osd, &store, authority.cluster(), id).with_context(|| format!("making the store of {id}"))?;
        }
        let place = osd.location.value.0.iter().map(|(level, name)| format!("{level}={name}"));
        let config = OsdFile {
            osd: OsdSection {
                listen: *listens.get(&id.to_string()).with_context(|| format!("{id} has no address"))?,
                data: absolute(folder)?,
                monitors: monitors.clone(),
                location: place.collect::<Vec<_>>().join(","),
                class: osd.class.value.to_string(),
                // Otherwise it weighs what its store turns out to hold.
                weight: osd.weight.from.span().map(|_| osd.weight.value.0),
                memory: osd.memory.value.0,
                shards: osd.shards.value.0,
            },
            all: All { run_dir: absolute(&layout.0.join("run"))?, log_level: "info" },
        };
        write_whole(&layout.osd_config(&id.to_string()), toml::to_string(&config)?.as_bytes())?;
    }
    Ok(made)
}

/// Makes what an OSD lacks whose store is gone; nothing if all have one. For a cluster that runs.
pub(crate) fn missing_stores(cluster: &Cluster, layout: &Layout) -> anyhow::Result<()> {
    let is_here = |host: &str| layout.1.as_ref().is_none_or(|only| only == host);
    if cluster.osds.iter().filter(|osd| is_here(&osd.host.value.0)).all(|osd| osd.path.value.join("store").exists()) {
        return Ok(());
    }
    let authority = authority(layout, cluster_id(layout, false)?, &monitors(cluster)?, false)?;
    provision_osds(cluster, layout, &authority).map(drop)
}

/// Made beside its place and moved there whole, so that a half-made one is never taken for a store.
fn format_store(osd: &Osd, store: &Path, cluster: ClusterId, id: OsdId) -> anyhow::Result<()> {
    let draft = store.with_extension("draft");
    if draft.exists() {
        std::fs::remove_dir_all(&draft)?;
    }
    std::fs::create_dir_all(&draft)?;
    if let Some(device) = &osd.device {
        std::os::unix::fs::symlink(&device.value, draft.join("block"))?;
    }
    let options = FormatOptions {
        size: osd.size.as_ref().map_or(0, |size| size.value.0),
        journal: JOURNAL,
        prewrite: false,
        store: Uuid(rand::random()),
        tag: rand::random(),
    };
    DiskStore::format(&draft, nacre_store::Identity { cluster: Uuid(cluster.0), osd: id }, &options)?;
    std::fs::rename(&draft, store)?;
    Ok(())
}

/// One host founds the cluster; a second that did so too would found another.
fn founder(cluster: &Cluster, layout: &Layout, first_time: bool) -> anyhow::Result<()> {
    let (true, Some(host)) = (first_time, &layout.1) else { return Ok(()) };
    let founder = cluster.monitors.first().map_or(host.as_str(), |monitor| monitor.host.value.0.as_str());
    if founder != host {
        bail!(
            "{} holds no cluster yet: run `nacre up --host {founder}` there first, then copy the folder from it to here",
            layout.0.display()
        );
    }
    Ok(())
}

/// Writes what is missing.
pub(crate) fn provision(cluster: &Cluster, layout: &Layout) -> anyhow::Result<()> {
    let monitors = monitors(cluster)?;
    // Hosts that share a folder may come up at once.
    let provisioning = layout.provisioning();
    let lock = File::create(&provisioning).with_context(|| format!("opening {}", provisioning.display()))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    let first_time = !layout.provisioned().exists();
    founder(cluster, layout, first_time)?;
    let cluster_id = cluster_id(layout, first_time)?;
    let authority = authority(layout, cluster_id, &monitors, first_time)?;
    let addresses: Vec<SocketAddr> = monitors.iter().map(|monitor| monitor.address).collect();

    let admin = identity(&authority, &layout.admin(), Name::new(Kind::Client, "admin")?, Caps::all())?;
    let mut first = vec![admin];
    for monitor in &monitors {
        let folder = layout.daemon(&monitor.name);
        let made = identity(&authority, &folder.join("tls"), Name::mon(MonId(monitor.id)), Caps::of_daemon(Kind::Mon))?;
        first.push(made);
        let config = MonitorFile {
            mon: Section { listen: monitor.address, data: absolute(&folder)?, monitors: addresses.clone() },
            all: All { run_dir: absolute(&layout.0.join("run"))?, log_level: "info,openraft=error" },
        };
        write_whole(&layout.monitor_config(&monitor.name), toml::to_string(&config)?.as_bytes())?;
    }
    first.extend(provision_osds(cluster, layout, &authority)?);
    if first_time {
        let Source::Made(authority) = &authority else { bail!("no authority was made") };
        // Who has a monitor's data folder has this key, and with it the authority; backups and stores alone have not.
        let seal = SealKey::random();
        let members =
            monitors.iter().map(|monitor| BootstrapMember { mon: monitor.id, address: monitor.address }).collect();
        let bootstrap = toml::to_string(&Bootstrap { members })?;
        for monitor in &monitors {
            let folder = layout.daemon(&monitor.name);
            keys::store_seal(&folder.join("seal.key"), &seal)?;
            keys::store_birth(&folder, authority, &seal, &first)?;
            write_whole(&folder.join("bootstrap.toml"), bootstrap.as_bytes())?;
        }
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

/// Who signs.
enum Source {
    /// Made now, with the cluster; not written anywhere but sealed.
    Made(Box<Authority>),
    /// Kept by the monitors: opened only if a certificate has to be made while they do not run.
    Kept(ClusterId, Vec<PathBuf>),
}

impl Source {
    fn cluster(&self) -> ClusterId {
        match self {
            Source::Made(authority) => authority.cluster(),
            Source::Kept(cluster, _) => *cluster,
        }
    }

    fn issue(&self, grant: &Grant) -> anyhow::Result<(Keypair, Vec<u8>)> {
        let sign = |authority: &Authority| -> anyhow::Result<(Keypair, Vec<u8>)> {
            Ok((authority.issue(grant, UnixTime::now(), YEAR / 2)?, authority.certificate().to_vec()))
        };
        match self {
            Source::Made(authority) => sign(authority),
            Source::Kept(cluster, folders) => {
                for folder in folders {
                    if let Some(authority) = keys::reissue(folder, &folder.join("seal.key"), *cluster)? {
                        return sign(&authority);
                    }
                }
                bail!(
                    "{} needs a certificate, and no monitor's folder here has authority.sealed and seal.key: restore one, \
                     or let it join (`nacre cert token {}` where the cluster runs)",
                    grant.name,
                    grant.name
                )
            }
        }
    }
}

fn authority(layout: &Layout, cluster: ClusterId, monitors: &[Monitor], first_time: bool) -> anyhow::Result<Source> {
    if first_time {
        return Ok(Source::Made(Box::new(Authority::create(cluster, UnixTime::now(), 10 * YEAR)?)));
    }
    Ok(Source::Kept(cluster, monitors.iter().map(|monitor| layout.daemon(&monitor.name)).collect()))
}

/// An identity in a folder, made unless it is there and has not ended; the daemon itself renews it. Gives the
/// certificate.
fn identity(source: &Source, folder: &Path, name: Name, caps: Caps) -> anyhow::Result<Vec<u8>> {
    let mut generation = 1;
    // What an attempt that was cut short left was signed by an authority that is lost.
    let anew = matches!(source, Source::Made(_));
    if let Some(stored) = files::load(folder)?.filter(|_| !anew) {
        let held = nacre_net::identity::Identity::from_der(&stored.pair.certificate)?;
        if held.name != name || held.cluster != source.cluster() {
            bail!("{} holds the identity of {} of cluster {}", folder.display(), held.name, held.cluster);
        }
        if held.not_after > UnixTime::now() {
            return Ok(stored.pair.certificate);
        }
        generation = held.generation;
    }
    let (pair, authority) = source.issue(&Grant { name, caps, generation })?;
    files::store(folder, &pair, &[authority])?;
    Ok(pair.certificate)
}
