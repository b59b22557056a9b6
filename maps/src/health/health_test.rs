//! A healthy map is silent; each trouble raises its check with what to do; mutes hide and come back.

use std::sync::Arc;
use std::time::Duration;

use nacre_proto::ids::PoolId;

use super::*;
use crate::map::Table;
use crate::map::{Flag, FlagTarget, Mon, Pool};
use crate::rules::{Asker, Command, execute};
use crate::sample::{NOW, cluster};

fn well() -> (ClusterMap, Reports) {
    let mut map = cluster(12, 2, 1, 8);
    let mut pool = Pool::clone(&map.pools[&PoolId(1)]);
    pool.applications.entry("block".into()).or_default();
    assert!(map.pools.set(PoolId(1), Arc::new(pool)));
    assert!(map.mons.set(MonId(1), Arc::new(Mon { name: "a".into(), version: "0.1.0".into(), ..Mon::default() })));
    let clean = PgReport { state: PgState::ACTIVE | PgState::CLEAN, deep_scrubbed: NOW, ..PgReport::default() };
    let pgs = (0..8).map(|seed| (PgId { pool: PoolId(1), seed }, clean.clone())).collect();
    let mons = BTreeMap::from([(MonId(1), MonReport { in_quorum: true, ..MonReport::default() })]);
    (map, Reports { pgs, mons, ..Reports::default() })
}

fn after(map: &ClusterMap, command: Command) -> ClusterMap {
    execute(map, &command, &Asker { now: NOW, who: "operator".into() }).unwrap().map_after(map)
}

fn names(health: &Health) -> Vec<&str> {
    health.checks.iter().map(|check| check.name).collect()
}

#[test]
fn a_healthy_cluster_has_nothing_to_say() {
    let (map, reports) = well();
    let health = check(&map, &reports, NOW);
    assert_eq!((names(&health), health.status), (vec![], Severity::Ok));
}

#[test]
fn trouble_is_named_with_cause_effect_and_what_to_do() {
    let (map, mut reports) = well();
    let map = after(&map, Command::OsdDown { osds: vec![OsdId(2), OsdId(3)], dead: true });
    let pg = reports.pgs.values_mut().next().unwrap();
    (pg.state, pg.why) = (PgState::DOWN, "waits for osd.2, which may hold newer writes".into());
    reports.mons.get_mut(&MonId(1)).unwrap().in_quorum = false;
    let health = check(&map, &reports, NOW.after(Duration::from_secs(300)));
    assert_eq!(names(&health), ["pg_inactive", "mon_down", "osd_down", "osd_subtree_down"]);
    assert_eq!(health.status, Severity::Error);
    assert_eq!(health.checks[0].details, ["pg 1.0 is down: waits for osd.2, which may hold newer writes"]);
    assert_eq!(health.checks[2].details[0], "osd.2 on host1 is down for 5 min");
    assert_eq!(health.checks[3].details, ["host host1: all 2 OSDs are down"]);
    for check in &health.checks {
        assert!(!check.cause.is_empty() && !check.effect.is_empty() && !check.todo.is_empty());
        assert!(CHECKS.iter().any(|(name, _)| *name == check.name), "{}", check.name);
    }
}

#[test]
fn every_kind_of_trouble_has_its_check() {
    let (map, reports) = well();
    let raised = |map: &ClusterMap, reports: &Reports| {
        let health = check(map, reports, NOW);
        names(&health).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let with = |edit: &dyn Fn(&mut Reports)| {
        let mut reports = reports.clone();
        edit(&mut reports);
        raised(&map, &reports)
    };
    let first = PgId { pool: PoolId(1), seed: 0 };
    let pg = |edit: fn(&mut PgReport)| with(&move |reports: &mut Reports| edit(reports.pgs.get_mut(&first).unwrap()));
    assert_eq!(pg(|pg| pg.unfound = 1), ["pg_unfound"]);
    assert_eq!(pg(|pg| pg.state |= PgState::INCONSISTENT), ["pg_inconsistent"]);
    assert_eq!(pg(|pg| pg.state |= PgState::DEGRADED), ["pg_degraded"]);
    assert_eq!(pg(|pg| pg.state |= PgState::TOO_FULL), ["pg_too_full"]);
    assert_eq!(with(&|reports| drop(reports.pgs.remove(&first))), ["pg_unknown"]);
    let osd =
        |edit: fn(&mut OsdReport)| with(&move |reports: &mut Reports| edit(reports.osds.entry(OsdId(1)).or_default()));
    assert_eq!(osd(|osd| osd.slow_ops = 1), ["slow_ops"]);
    assert_eq!(osd(|osd| osd.disk_errors = 1), ["osd_disk_errors"]);
    let mon =
        |edit: fn(&mut MonReport)| with(&move |reports: &mut Reports| edit(reports.mons.get_mut(&MonId(1)).unwrap()));
    assert_eq!(mon(|mon| mon.skew_ms = 900), ["mon_clock_skew"]);
    assert_eq!(mon(|mon| mon.disk_free_permille = Some(30)), ["mon_disk_low"]);
    let usage = |used| {
        let usage = crate::rules::usage::OsdUsage { osd: OsdId(1), used, total: 100 };
        crate::rules::usage::note(&map, &[usage], &[], NOW).map_after(&map)
    };
    assert_eq!(raised(&usage(86), &reports), ["osd_nearfull"]);
    assert_eq!(raised(&usage(91), &reports), ["osd_backfillfull"]);
    assert_eq!(raised(&usage(96), &reports), ["osd_full"]);
    let flag = Command::FlagSet { flag: Flag::NoOut, target: FlagTarget::Cluster, until: None, why: "night".into() };
    assert_eq!(raised(&after(&map, flag), &reports), ["flags_set"]);
    let pool = |option: &str, value: &str| {
        let command = Command::PoolSet { pool: "pool1".into(), option: option.into(), value: value.into() };
        raised(&after(&map, command), &reports)
    };
    assert_eq!(pool("size", "1"), ["pool_no_redundancy"]);
    assert_eq!(pool("size", "8"), ["pool_unplaceable"]);
    let unused = Command::PoolApplication { pool: "pool1".into(), application: "block".into(), enable: false };
    assert_eq!(raised(&after(&map, unused), &reports), ["pool_no_application"]);
    let quota =
        after(&map, Command::PoolSet { pool: "pool1".into(), option: "quota_objects".into(), value: "10".into() });
    let mut full = reports.clone();
    full.pgs.get_mut(&first).unwrap().objects = 9;
    assert_eq!(raised(&quota, &full), ["pool_quota"]);
    let late = check(&map, &reports, NOW.after(Duration::from_secs(15 * 86_400)));
    assert_eq!(names(&late), ["pg_not_scrubbed"]);
}

#[test]
fn a_mute_hides_until_it_gets_worse_or_its_time_is_over() {
    let (map, reports) = well();
    let later = NOW.after(Duration::from_secs(60));
    let down = after(&map, Command::OsdDown { osds: vec![OsdId(2)], dead: true });
    let mute = Command::Mute { check: "osd_down".into(), until: Some(later), sticky: false, count: 1 };
    let muted = after(&down, mute);
    let health = check(&muted, &reports, NOW);
    assert_eq!((health.status, health.checks[0].muted, health.unmute.len()), (Severity::Ok, true, 0));
    let worse = after(&muted, Command::OsdDown { osds: vec![OsdId(5)], dead: true });
    let health = check(&worse, &reports, NOW);
    assert_eq!((health.status, health.unmute.as_slice()), (Severity::Warning, &["osd_down".to_owned()][..]));
    assert_eq!(check(&muted, &reports, later).status, Severity::Warning);
    let unknown = Command::Mute { check: "osd_gone".into(), until: None, sticky: true, count: 0 };
    assert!(execute(&map, &unknown, &Asker::default()).is_err());
}
