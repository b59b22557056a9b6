//! What a new cluster begins with besides its keys: the pools of its file. Made once, when its OSDs are there to hold
//! them; pools are the cluster's own from then on, so that one removed later does not come back with the next `nacre up`.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nacre_client::{Cluster as Client, Settings};
use nacre_maps::ClusterMap;
use nacre_mon_api::v1::command::Verb as Command;
use nacre_proto::ids::OsdId;
use nacre_proto::v1;
use nacre_proto::v1::map_command::Verb as Map;

use super::connect::Connected;
use super::layout::{Layout, write_whole};
use crate::cluster::schema::{Cluster, PgNum, Pool};

/// Waits until every OSD of the file is up in the map.
pub(crate) fn wait_for_osds(
    cluster: &Cluster,
    layout: &Layout,
    connected: &Connected,
    patience: Duration,
) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let status = connected.runtime.block_on(connected.monitors.status(false))?;
        let map = ClusterMap::decode(&status.map)?;
        let up = |id: u32| map.osds.get(OsdId(id)).is_some_and(|state| state.is_up());
        let Some(down) = cluster.osds.iter().find(|osd| !up(osd.id.value)) else { return Ok(()) };
        if began.elapsed() > patience {
            let name = format!("osd.{}", down.id.value);
            bail!("{name} is not up after {} s; its log is {}", patience.as_secs(), layout.log(&name).display());
        }
        super::pause(Duration::from_millis(20));
    }
}

/// Whether there is a quorum, and, once this host's OSDs are up in its map, all others are too.
pub(crate) fn is_whole(
    cluster: &Cluster,
    host: &str,
    layout: &Layout,
    connected: &Connected,
    patience: Duration,
) -> anyhow::Result<bool> {
    if connected.runtime.block_on(connected.monitors.status(false)).is_err() {
        return Ok(false);
    }
    let mine = Cluster {
        osds: cluster.osds.iter().filter(|osd| osd.host.value.0 == host).cloned().collect(),
        ..cluster.clone()
    };
    wait_for_osds(&mine, layout, connected, patience)?;
    let status = connected.runtime.block_on(connected.monitors.status(false))?;
    let map = ClusterMap::decode(&status.map)?;
    Ok(cluster.osds.iter().all(|osd| map.osds.get(OsdId(osd.id.value)).is_some_and(|state| state.is_up())))
}

/// The cluster's health, as soon as it is good, or as it is after a while: what daemons report of themselves comes with
/// their beacons, a moment after they are up.
pub(crate) fn settled(connected: &Connected, patience: Duration) -> anyhow::Result<v1::Health> {
    let began = Instant::now();
    loop {
        let health = connected.runtime.block_on(connected.monitors.status(false))?.health.unwrap_or_default();
        if health.status == "ok" || began.elapsed() > patience {
            return Ok(health);
        }
        super::pause(Duration::from_millis(50));
    }
}

fn create(pool: &Pool) -> v1::PoolCreate {
    v1::PoolCreate {
        name: pool.name.value.to_string(),
        size: Some(pool.size.value.0),
        min_size: Some(pool.min_size.value.0),
        pg_num: match pool.pg_num.value {
            PgNum::Auto => None,
            PgNum::Fixed(number) => Some(number),
        },
        failure_domain: Some(pool.failure_domain.value.to_string()),
        device_class: pool.class.as_ref().map(|class| class.value.to_string()),
        application: pool.application.as_ref().map(|application| application.value.to_string()),
        ..v1::PoolCreate::default()
    }
}

/// Makes the pools of the file that are not there, once in the life of the cluster, and waits until they serve. Says how
/// many it made.
pub(crate) fn found(
    cluster: &Cluster,
    layout: &Layout,
    connected: &Connected,
    patience: Duration,
) -> anyhow::Result<usize> {
    if layout.founded().exists() {
        return Ok(0);
    }
    let status = connected.runtime.block_on(connected.monitors.status(false))?;
    let map = ClusterMap::decode(&status.map)?;
    let missing = |pool: &&Pool| map.pool_named(&pool.name.value.to_string()).is_none();
    let mut made = 0;
    for pool in cluster.pools.iter().filter(missing) {
        let name = &pool.name.value;
        let run = |verb: Map| {
            let verb = Command::Map(v1::MapCommand { verb: Some(verb) });
            connected.runtime.block_on(connected.monitors.execute(verb, false))
        };
        run(Map::PoolCreate(create(pool))).with_context(|| format!("making the pool {name}"))?;
        let quotas = [
            ("quota_bytes", pool.quota_bytes.as_ref().map(|quota| format!("{}B", quota.value.0))),
            ("quota_objects", pool.quota_objects.as_ref().map(|quota| quota.value.to_string())),
        ];
        for (option, value) in quotas.into_iter().filter_map(|(option, value)| Some((option, value?))) {
            let set = v1::PoolSet { pool: name.to_string(), option: option.into(), value };
            run(Map::PoolSet(set)).with_context(|| format!("setting {option} of the pool {name}"))?;
        }
        made += 1;
    }
    serve(cluster, layout, connected, patience)?;
    write_whole(&layout.founded(), b"the pools of cluster.toml were made by `nacre up`\n")?;
    Ok(made)
}

/// Asks every placement group of the new pools for its (empty) list: it answers when it serves.
fn serve(cluster: &Cluster, layout: &Layout, connected: &Connected, patience: Duration) -> anyhow::Result<()> {
    let monitors = connected.known.iter().map(|monitor| monitor.address.to_string());
    let mut settings = Settings::of_folder(&layout.admin(), monitors)?;
    settings.patience = Some(patience);
    connected.runtime.block_on(async {
        let client = Client::connect(settings).await?;
        for pool in &cluster.pools {
            client.pool(&pool.name.value.to_string()).await?.list().next().await?;
        }
        Ok::<_, nacre_client::Error>(())
    })?;
    Ok(())
}
