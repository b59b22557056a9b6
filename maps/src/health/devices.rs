//! Checks of machines: OSDs, monitors, other daemons, flags.

use std::collections::{BTreeMap, BTreeSet};

use nacre_proto::ids::{OsdId, Stamp};

use super::{Findings, Severity};
use crate::map::{ClusterMap, DaemonState, OsdFlags, OsdState};
use crate::rules::osd_down::Ancestry;
use crate::rules::osd_in::out_candidates;

fn span(map_now: Stamp, since: Stamp) -> String {
    let seconds = map_now.since(since).as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

fn host(map: &ClusterMap, osd: OsdId) -> &str {
    map.osd_info.get(osd).map_or("an unknown host", |info| &info.host)
}

fn with_flag(map: &ClusterMap, flag: OsdFlags) -> Vec<OsdId> {
    map.osds.iter().filter(|(_, state)| state.flags.contains(flag)).map(|(osd, _)| osd).collect()
}

fn is_gone(state: &OsdState) -> bool {
    !state.is_up() && state.is_in() && !state.flags.contains(OsdFlags::NEW)
}

pub(super) fn check(find: &mut Findings<'_>) {
    down(find);
    full(find);
    held(find);
    monitors(find);
    others(find);
}

fn down(find: &mut Findings<'_>) {
    let (map, now) = (find.map, find.now);
    let gone = map.osds.iter().filter(|(_, state)| is_gone(state));
    let details: Vec<String> = gone
        .map(|(osd, state)| format!("{osd} on {} is down for {}", host(map, osd), span(now, state.since)))
        .collect();
    find.raise(
        "osd_down",
        Severity::Warning,
        details,
        |count| format!("{count} OSDs are down and their data has not been rebuilt elsewhere yet"),
        "their pgs keep fewer copies",
        "start them (`systemctl start nacre-osd@N` on their host, or `nacre restart osd.N`); if a disk is dead, `nacre osd out N` rebuilds its data now, `nacre osd replace N` takes a new one",
    );
    let mut buckets = Vec::new();
    let shadows = map.crush.shadow_ids();
    for bucket in map.crush.buckets.values().filter(|bucket| !shadows.contains(&bucket.id)) {
        let below = map.crush.devices_below(bucket.id);
        let state = |item: &i32| u32::try_from(*item).ok().and_then(|osd| map.osds.get(OsdId(osd)));
        let known: Vec<_> = below.iter().filter_map(state).collect();
        if known.len() > 1 && known.iter().all(|state| !state.is_up()) && known.iter().any(|state| is_gone(state)) {
            buckets.push(format!(
                "{} {}: all {} OSDs are down",
                map.crush.type_name(bucket.kind),
                bucket.name,
                known.len()
            ));
        }
    }
    find.raise(
        "osd_subtree_down",
        Severity::Warning,
        buckets,
        |count| format!("{count} parts of the crush map are down as a whole"),
        "copies that share the part are out of reach together",
        "look at what these OSDs share: machine, switch, power",
    );
    let flapping =
        map.osds.iter().filter(|(_, state)| state.flaps >= 3 * 256 && now.since(state.flapped).as_secs() < 1_800);
    let details =
        flapping.map(|(osd, state)| format!("{osd} on {}: {} times", host(map, osd), state.flaps / 256)).collect();
    find.raise(
        "osd_flapping",
        Severity::Warning,
        details,
        |count| format!("{count} OSDs were marked down and came straight back, again and again"),
        "each time their pgs stop for a moment",
        "their peers cannot reach them though they live: look at network, MTU and load of their hosts",
    );
    let ancestry = Ancestry::of(&map.crush);
    let lost = map.osds.iter().filter(|(osd, state)| {
        !state.flags.contains(OsdFlags::NEW) && i32::try_from(osd.0).is_ok_and(|item| !ancestry.is_placed(item))
    });
    let details = lost.map(|(osd, _)| format!("{osd} is in no bucket")).collect();
    find.raise(
        "osd_out_of_tree",
        Severity::Warning,
        details,
        |count| format!("{count} OSDs stand nowhere in the crush map"),
        "they hold no data",
        "put them somewhere: `nacre osd move N host=NAME`",
    );
}

fn full(find: &mut Findings<'_>) {
    let (map, reports) = (find.map, find.reports);
    let line = |osd: &OsdId| match reports.osds.get(osd) {
        Some(report) if report.total > 0 => {
            format!("{osd} on {}: {} % full", host(map, *osd), u128::from(report.used) * 100 / u128::from(report.total))
        }
        _ => format!("{osd} on {}", host(map, *osd)),
    };
    let more = "add OSDs, remove data, or `nacre balancer status` if others have room";
    let full = with_flag(map, OsdFlags::FULL);
    let backfill: Vec<_> =
        with_flag(map, OsdFlags::BACKFILL_FULL).into_iter().filter(|osd| !full.contains(osd)).collect();
    let near: Vec<_> = with_flag(map, OsdFlags::NEAR_FULL)
        .into_iter()
        .filter(|osd| !full.contains(osd) && !backfill.contains(osd))
        .collect();
    find.raise(
        "osd_full",
        Severity::Error,
        full.iter().map(line).collect(),
        |count| format!("{count} OSDs are full"),
        "writes to their pgs wait; removals go through",
        more,
    );
    find.raise(
        "osd_backfillfull",
        Severity::Warning,
        backfill.iter().map(line).collect(),
        |count| format!("{count} OSDs are too full to take backfill"),
        "pgs that should move to them stay where they are",
        more,
    );
    find.raise(
        "osd_nearfull",
        Severity::Warning,
        near.iter().map(line).collect(),
        |count| format!("{count} OSDs are nearly full"),
        "none yet; when they are full, writes wait",
        more,
    );
    let errors = reports.osds.iter().filter(|(_, report)| report.disk_errors > 0);
    let details = errors
        .map(|(osd, report)| format!("{osd} on {}: {} errors within a day", host(map, *osd), report.disk_errors))
        .collect();
    find.raise(
        "osd_disk_errors",
        Severity::Warning,
        details,
        |count| format!("{count} OSDs met checksum or disk errors"),
        "what was damaged is repaired from other copies; the disk may be dying",
        "look at the disk (`smartctl -a`), exchange it: `nacre osd drain N`, then `nacre osd replace N`",
    );
    let slow = reports.osds.iter().filter(|(_, report)| report.slow_ops > 0);
    let details =
        slow.map(|(osd, report)| format!("{osd}: {} operations, {}", report.slow_ops, report.slow_why)).collect();
    find.raise(
        "slow_ops",
        Severity::Warning,
        details,
        |count| format!("operations on {count} OSDs take too long"),
        "clients wait",
        "each line says what the slowest waits for; `nacre daemon osd.N ops` lists them all",
    );
}

fn held(find: &mut Findings<'_>) {
    let (map, now) = (find.map, find.now);
    let details = find.reports.failures.held.iter().map(|(osd, why)| format!("{osd}: {why}")).collect();
    find.raise(
        "osd_held_up",
        Severity::Warning,
        details,
        |count| format!("{count} OSDs are reported as failed and are not marked down"),
        "operations on their pgs may hang",
        "each line says what holds it; `nacre osd down N` marks one down all the same",
    );
    let stays = out_candidates(map, now).into_iter().filter(|out| out.due <= now);
    let details = stays.filter_map(|out| out.held.map(|why| format!("{}: {why}", out.osd))).collect();
    find.raise(
        "osd_held_in",
        Severity::Warning,
        details,
        |count| format!("{count} OSDs are down for long and are not taken out"),
        "their data keeps fewer copies until they come back",
        "bring them up, or `nacre osd out N` to have their data rebuilt",
    );
    let details = map
        .flags
        .iter()
        .map(|((flag, target), state)| {
            let end = state.until.map_or("until cleared".to_owned(), |until| format!("for {} more", span(until, now)));
            let why = if state.why.is_empty() { String::new() } else { format!(": {}", state.why) };
            format!("{flag} for {target}, set by {} {end}{why}", state.by)
        })
        .collect();
    find.raise(
        "flags_set",
        Severity::Warning,
        details,
        |count| format!("{count} flags hold the cluster back"),
        "what they hold back does not happen by itself",
        "clear them when the work is done: `nacre flag clear FLAG`",
    );
}

fn monitors(find: &mut Findings<'_>) {
    let (map, reports) = (find.map, find.reports);
    let name = |mon: &nacre_proto::ids::MonId| {
        map.mons.get(mon).map_or_else(|| mon.to_string(), |entry| format!("mon.{}", entry.name))
    };
    let voters = map.mons.iter().filter(|(_, entry)| !entry.learner).count();
    let out = reports.mons.iter().filter(|(mon, report)| map.mons.contains_key(mon) && !report.in_quorum);
    let details: Vec<String> = out.map(|(mon, _)| format!("{} is out of the quorum", name(mon))).collect();
    let spare = voters.saturating_sub(details.len() + voters / 2 + 1);
    find.raise(
        "mon_down",
        Severity::Warning,
        details,
        |count| format!("{count} of {voters} monitors are out of the quorum"),
        if spare == 0 {
            "if one more fails, the cluster map cannot change"
        } else {
            "fewer monitors may fail from now on"
        },
        "start it (`nacre restart mon.NAME`); if its machine is gone, `nacre mon remove` and `nacre mon add`",
    );
    let skewed = reports.mons.iter().filter(|(_, report)| report.skew_ms > 500);
    let details = skewed.map(|(mon, report)| format!("{} is {} ms off", name(mon), report.skew_ms)).collect();
    find.raise(
        "mon_clock_skew",
        Severity::Warning,
        details,
        |count| format!("clocks of {count} monitors differ from the leader's"),
        "logs and expiry times are off when such a monitor leads",
        "run a time service (chrony or ntpd) on their machines",
    );
    let low = reports
        .mons
        .iter()
        .filter_map(|(mon, report)| report.disk_free_permille.filter(|free| *free < 150).map(|free| (mon, free)));
    let details = low.map(|(mon, free)| format!("{}: {} % free", name(mon), free / 10)).collect();
    find.raise(
        "mon_disk_low",
        Severity::Error,
        details,
        |count| format!("disks of {count} monitors are nearly full"),
        "a monitor that cannot write leaves the quorum",
        "make room on the disk that holds its data folder",
    );
}

fn others(find: &mut Findings<'_>) {
    let (map, now) = (find.map, find.now);
    let lost = map.daemons.iter().filter(|(_, daemon)| daemon.state == DaemonState::Lost);
    let details =
        lost.map(|(id, daemon)| format!("{id} on {} since {}", daemon.host, span(now, daemon.since))).collect();
    find.raise(
        "daemon_lost",
        Severity::Warning,
        details,
        |count| format!("{count} daemons have not been heard of"),
        "what they serve is served by others, or not at all",
        "start them, or take them off the list: `nacre daemon rm KIND.NAME`",
    );
    let mut versions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (osd, info) in map.osd_info.iter().filter(|(osd, _)| map.is_up(*osd)) {
        versions.entry(&info.version).or_default().insert(osd.to_string());
    }
    for entry in map.mons.values() {
        versions.entry(&entry.version).or_default().insert(format!("mon.{}", entry.name));
    }
    for (id, daemon) in map.daemons.iter().filter(|(_, daemon)| daemon.state != DaemonState::Lost) {
        versions.entry(&daemon.version).or_default().insert(id.to_string());
    }
    versions.remove("");
    let line = |(version, who): (&&str, &BTreeSet<String>)| {
        let first = who.iter().next().cloned().unwrap_or_default();
        format!("{version}: {} daemons, {first} among them", who.len())
    };
    let details = if versions.len() > 1 { versions.iter().map(line).collect() } else { Vec::new() };
    find.raise(
        "versions_differ",
        Severity::Warning,
        details,
        |count| format!("daemons of {count} versions run together"),
        "none for a while; new features wait for the last of them",
        "finish the upgrade: restart what runs the older version",
    );
}
