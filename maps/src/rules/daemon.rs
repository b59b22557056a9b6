//! Metadata servers, gateways and monitors: entered, kept up to date, forgotten.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use nacre_proto::ids::{Incarnation, MonId, Stamp};

use super::pool::check_name;
use super::{Outcome, RuleError, refused, set, wrong};
use crate::increment::Draft;
use crate::map::{ClusterMap, Daemon, DaemonId, DaemonState, Mon, Table};

/// What a metadata server or gateway says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonBeacon {
    /// Who.
    pub daemon: DaemonId,
    /// Which run.
    pub incarnation: Incarnation,
    /// Where it is reached.
    pub addrs: Vec<SocketAddr>,
    /// The machine it runs on.
    pub host: String,
    /// What it does.
    pub state: DaemonState,
    /// Which of several it is.
    pub rank: Option<u32>,
    /// Version of the program.
    pub version: String,
    /// Facts its own kind understands.
    pub notes: BTreeMap<String, String>,
}

/// A monitor's entry.
pub type MonEntry = Mon;

/// Enters or updates a daemon. A beacon that says nothing new changes nothing: beacons are no map changes.
pub fn beacon(map: &ClusterMap, beacon: &DaemonBeacon, now: Stamp) -> Result<Outcome, RuleError> {
    check_name("name of a daemon", &beacon.daemon.name)?;
    let known = map.daemons.get(&beacon.daemon);
    if let Some(known) = known.filter(|known| known.incarnation > beacon.incarnation) {
        let (who, incarnation) = (beacon.daemon.to_string(), beacon.incarnation.0);
        let _ = known;
        return Err(RuleError::Stale { who, theirs: map.epoch.0, incarnation, why: "a later run has started since" });
    }
    if let Some(rank) = beacon.rank.filter(|_| beacon.state == DaemonState::Active) {
        let rival = map.daemons.iter().find(|(id, other)| {
            **id != beacon.daemon
                && id.kind == beacon.daemon.kind
                && other.state == DaemonState::Active
                && other.rank == Some(rank)
                && other.notes.get("fs") == beacon.notes.get("fs")
        });
        if let Some((rival, _)) = rival {
            return Err(refused(
                format!("rank {rank} is {rival}'s"),
                "stay standby; it is given away when its holder is lost",
            ));
        }
    }
    let since = known.filter(|known| known.state == beacon.state).map_or(now, |known| known.since);
    let entry = Daemon {
        incarnation: beacon.incarnation,
        addrs: beacon.addrs.clone(),
        host: beacon.host.clone(),
        state: beacon.state,
        rank: beacon.rank,
        since,
        version: beacon.version.clone(),
        notes: beacon.notes.clone(),
    };
    let mut draft = Draft::of(map, now);
    set(&mut draft.daemons, beacon.daemon.clone(), Arc::new(entry));
    Ok(Outcome::of(draft, format!("{} is {}", beacon.daemon, beacon.state)))
}

/// Forgets a daemon.
pub fn remove(map: &ClusterMap, daemon: &DaemonId, now: Stamp) -> Result<Outcome, RuleError> {
    let mut draft = Draft::of(map, now);
    if !draft.daemons.remove(daemon) {
        return Ok(Outcome::already(format!("{daemon} is not in the map")));
    }
    Ok(Outcome::of(draft, format!("{daemon} removed")))
}

/// Enters or updates a monitor, so that clients and daemons find it.
pub fn mon_set(map: &ClusterMap, mon: MonId, entry: &MonEntry, now: Stamp) -> Result<Outcome, RuleError> {
    check_name("name of a monitor", &entry.name)?;
    if entry.addrs.is_empty() {
        return Err(wrong("addresses of monitor", &entry.name, "at least one"));
    }
    if map.mons.iter().any(|(id, other)| *id != mon && other.name == entry.name) {
        return Err(RuleError::Exists { what: "monitor", name: entry.name.clone(), hint: "choose another name" });
    }
    let mut draft = Draft::of(map, now);
    set(&mut draft.mons, mon, Arc::new(entry.clone()));
    Ok(Outcome::of(draft, format!("monitor {} is in the map", entry.name)))
}

/// Forgets a monitor.
pub fn mon_remove(map: &ClusterMap, mon: MonId, now: Stamp) -> Result<Outcome, RuleError> {
    if map.mons.len() == 1 && map.mons.contains_key(&mon) {
        return Err(refused(format!("{mon} is the only monitor"), "add another first"));
    }
    let mut draft = Draft::of(map, now);
    if !draft.mons.remove(&mon) {
        return Ok(Outcome::already(format!("{mon} is not in the map")));
    }
    Ok(Outcome::of(draft, format!("{mon} removed")))
}
