//! The planners act when they should, in steps that are bounded, and come to rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use nacre_proto::ids::{OsdId, PgId};
use nacre_proto::v1::MapCommand;
use nacre_proto::v1::map_command::Verb;

use super::round::{Mode, Round, look};
use crate::ClusterMap;
use crate::health::{PgReport, PgState, Reports};
use crate::map::{Flag, FlagTarget, OsdFlags, Scope, Table};
use crate::placement::Placement;
use crate::rules::{Asker, Command, execute};
use crate::sample::{NOW, cluster};

const GIB: u64 = 1 << 30;

/// Every pg whole, with a GiB each.
fn whole(map: &ClusterMap) -> Reports {
    let placement = Placement::build(Arc::new(map.clone())).unwrap();
    let report = PgReport {
        state: PgState::ACTIVE | PgState::CLEAN,
        epoch: map.epoch,
        objects: 256,
        bytes: GIB,
        ..PgReport::default()
    };
    let pgs: BTreeMap<PgId, PgReport> = placement.pgs().map(|pg| (pg, report.clone())).collect();
    Reports { pgs, ..Reports::default() }
}

fn round(map: &ClusterMap, reports: &Reports) -> Round {
    look(&Placement::build(Arc::new(map.clone())).unwrap(), reports)
}

fn after(map: &ClusterMap, command: &Command) -> ClusterMap {
    execute(map, command, &Asker { now: NOW, who: "t".into() }).unwrap().map_after(map)
}

fn set(map: &ClusterMap, name: &str, value: &str) -> ClusterMap {
    after(map, &Command::SettingSet { scope: Scope::Global, name: name.into(), value: value.into() })
}

#[test]
fn a_skewed_cluster_is_balanced_in_bounded_steps_and_left_alone() {
    // 128 pgs of a GiB in three copies: five percent are 19.2 of them.
    let mut map = set(&cluster(12, 2, 1, 128), "balancer.max_moves", "1000");
    let mut steps = 0;
    loop {
        let round = round(&map, &whole(&map));
        assert_eq!(round.waits, None);
        let Some(step) = round.step() else { break };
        assert!(step.carry_out && round.balance.bytes <= 128 * 3 * GIB / 20, "{} bytes at once", round.balance.bytes);
        map = after(&map, &Command::try_from(MapCommand { verb: Some(step.verb) }).unwrap());
        steps += 1;
        assert!(steps < 100, "it does not come to an end");
    }
    assert!(steps > 0, "random placement is not even");
    let counts = Placement::build(Arc::new(map)).unwrap().pgs_per_osd(None);
    assert!(counts.iter().all(|count| (31..=33).contains(count)), "{counts:?}");
}

#[test]
fn nothing_moves_while_anything_is_ill_or_unknown() {
    let map = cluster(12, 2, 1, 128);
    let one = PgId { pool: nacre_proto::ids::PoolId(1), seed: 5 };
    let waits = |map: &ClusterMap, reports: &Reports| {
        let round = round(map, reports);
        assert_eq!(round.step(), None);
        round.waits.unwrap()
    };
    let changed = |edit: fn(&mut PgReport)| {
        let mut reports = whole(&map);
        edit(reports.pgs.get_mut(&one).unwrap());
        waits(&map, &reports)
    };
    assert!(changed(|pg| pg.degraded = 1).contains("short of copies"));
    assert!(changed(|pg| pg.state = PgState::PEERING).contains("1 pgs"));
    assert!(changed(|pg| pg.epoch = nacre_proto::ids::Epoch(0)).contains("have not reported"));
    // A twentieth of 128 * 256 * 3.
    assert!(changed(|pg| pg.misplaced = 4_916).contains("5.0 % of the data"));
    let mut reports = whole(&map);
    reports.pgs.remove(&one);
    assert!(waits(&map, &reports).contains("have not reported"));
    let flagged = after(
        &map,
        &Command::FlagSet { flag: Flag::NoPlan, target: FlagTarget::Cluster, until: None, why: "w".into() },
    );
    assert!(waits(&flagged, &whole(&flagged)).contains("noplan"));
    let down = after(&map, &Command::OsdDown { osds: vec![OsdId(3)], dead: true });
    assert!(waits(&down, &whole(&down)).contains("down"));
}

#[test]
fn each_planner_has_its_switch() {
    let map = cluster(12, 2, 1, 128);
    let dry = set(&map, "balancer.mode", "dry-run");
    let step = round(&dry, &whole(&dry)).step().unwrap();
    assert!(!step.carry_out && matches!(step.verb, Verb::UpmapItems(_)), "{step:?}");
    let off = set(&map, "balancer.mode", "off");
    let off = round(&off, &whole(&off));
    assert_eq!((off.step(), off.balancer), (None, Mode::Off));
    assert!(off.balancing().is_some(), "a dry run by hand still answers");
}

#[test]
fn full_devices_are_given_nothing() {
    let mut map = set(&cluster(12, 2, 1, 128), "balancer.max_moves", "1000");
    let all: Vec<OsdId> = map.osds.iter().map(|(osd, _)| osd).collect();
    for osd in all {
        let mut state = map.osds.get(osd).unwrap().clone();
        state.flags |= OsdFlags::BACKFILL_FULL;
        assert!(map.osds.set(osd, state));
    }
    assert_eq!(round(&map, &whole(&map)).balancing(), None);
}
