//! Rules as an operator and an OSD meet them: what a command makes of a map, and what is refused with which words.

use std::collections::BTreeSet;
use std::time::Duration;

use nacre_crush::model::Weight;
use nacre_proto::ids::{Epoch, Incarnation, PoolId, SessionId, SnapId, Uuid};

use super::osd_boot::Boot;
use super::osd_down::{FailureReport, Failures};
use super::pool::PoolCreate;
use super::*;
use crate::map::{ErasureProfile, Flag, FlagTarget, OsdFlags, OsdInfo, PgAuto, Scope};
use crate::sample::{self, NOW, cluster};

fn at(seconds: u64) -> Stamp {
    NOW.after(Duration::from_secs(seconds))
}

fn run(map: &ClusterMap, command: Command, now: Stamp) -> Result<Outcome, RuleError> {
    execute(map, &command, &Asker { now, who: "operator".into() })
}

/// The map after a command that must succeed; each increment also survives its byte form.
fn done(map: &ClusterMap, command: Command, now: Stamp) -> ClusterMap {
    let outcome = run(map, command, now).unwrap();
    outcome.increments.iter().fold(map.clone(), |map, increment| {
        let read = Increment::decode(&increment.encode()).unwrap();
        map.apply(&read).unwrap()
    })
}

fn refusal(map: &ClusterMap, command: Command, now: Stamp) -> String {
    run(map, command, now).unwrap_err().to_string()
}

fn booting(osd: u32, incarnation: u64, epoch: u64) -> Boot {
    let info = OsdInfo { host: format!("box{}", osd / 2), ..sample::info(osd, osd / 2) };
    Boot {
        osd: OsdId(osd),
        incarnation: Incarnation(incarnation),
        epoch: Epoch(epoch),
        info,
        class: "ssd".into(),
        ..Boot::default()
    }
}

fn create(name: &str) -> PoolCreate {
    PoolCreate { name: name.into(), ..PoolCreate::default() }
}

#[test]
fn a_cluster_grows_from_nothing() {
    let mut map = ClusterMap::empty(sample::FSID);
    let refused = refusal(&map, Command::PoolCreate(create("first")), NOW);
    assert!(refused.contains("no OSD has joined") && refused.contains("start OSDs first"), "{refused}");
    for osd in 0..6 {
        assert_eq!(osd_boot::number_for(&map, Uuid([osd; 16])).unwrap(), OsdId(osd.into()));
        map = done(&map, Command::OsdBoot(booting(osd.into(), 1, 0)), NOW);
    }
    assert_eq!(
        osd_boot::number_for(&map, sample::info(3, 1).uuid).unwrap(),
        OsdId(3),
        "the same disk, the same number"
    );
    assert_eq!(map.up_osds().count(), 6);
    assert_eq!(map.crush.parent(5).unwrap().name, "box2");
    assert_eq!(map.crush.buckets[&map.crush.item("default").unwrap()].weight, Weight(24 << 16));
    let outcome = run(&map, Command::PoolCreate(create("first")), NOW).unwrap();
    assert!(outcome.text.contains("size 3, min_size 2, 32 pgs, rule replicated_host"), "{}", outcome.text);
    map = outcome.map_after(&map);
    let placement = crate::placement::Placement::build(map.clone().into()).unwrap();
    assert_eq!(placement.pgs().count(), 32);
    assert!(placement.pgs().all(|pg| placement.pg(pg).unwrap().acting.len() == 3));
    let ssd = PoolCreate { device_class: Some("ssd".into()), failure_domain: Some("host".into()), ..create("fast") };
    map = done(&map, Command::PoolCreate(ssd), NOW);
    assert_eq!(map.pool_named("fast").unwrap().0, PoolId(2));
}

#[test]
fn one_host_is_enough_to_begin_with_and_says_what_it_costs() {
    let mut map = ClusterMap::empty(sample::FSID);
    for osd in 0..3 {
        let mut boot = booting(osd, 1, 0);
        boot.info.host = "laptop".into();
        map = done(&map, Command::OsdBoot(boot), NOW);
    }
    let outcome = run(&map, Command::PoolCreate(create("p")), NOW).unwrap();
    assert!(outcome.notes.iter().any(|note| note.contains("only 1 hosts hold OSDs")), "{:?}", outcome.notes);
    let strict = PoolCreate { failure_domain: Some("host".into()), ..create("p") };
    let refused = refusal(&map, Command::PoolCreate(strict), NOW);
    assert!(refused.contains("need 3 of them, default has 1"), "{refused}");
}

#[test]
fn of_two_runs_of_an_osd_the_later_one_counts() {
    let map = cluster(6, 2, 1, 8);
    let mut again = booting(1, 4, 100);
    again.info = OsdInfo::clone(map.osd_info.get(OsdId(1)).unwrap());
    let outcome = run(&map, Command::OsdBoot(again.clone()), NOW).unwrap();
    assert_eq!(outcome.increments.len(), 2, "down in an epoch of its own, then up");
    let between = map.apply(&outcome.increments[0]).unwrap();
    assert!(between.osds.get(OsdId(1)).unwrap().flags.contains(OsdFlags::DEAD) && !between.is_up(OsdId(1)));
    let map = outcome.map_after(&map);
    assert_eq!(map.osds.get(OsdId(1)).unwrap().up_from, map.epoch);
    assert!(
        run(&map, Command::OsdBoot(again.clone()), NOW).unwrap().increments.is_empty(),
        "a repeated message changes nothing"
    );

    let late = Boot { incarnation: Incarnation(3), ..again.clone() };
    assert!(matches!(run(&map, Command::OsdBoot(late), NOW), Err(RuleError::Stale { .. })));
    let down = done(&map, Command::OsdDown { osds: vec![OsdId(1)], dead: false }, at(1));
    let before_the_mark = Boot { epoch: map.epoch, ..again.clone() };
    assert!(matches!(run(&down, Command::OsdBoot(before_the_mark), at(2)), Err(RuleError::Stale { .. })));
    let back = done(&down, Command::OsdBoot(Boot { epoch: down.epoch, ..again }), at(2));
    assert!(back.is_up(OsdId(1)));
    assert_eq!(back.osds.get(OsdId(1)).unwrap().flaps, 256, "a failure that proved false is remembered");
}

#[test]
fn a_disk_cannot_take_another_ones_number() {
    let map = cluster(6, 2, 1, 8);
    let mut stranger = booting(1, 9, 100);
    stranger.info.uuid = Uuid([7; 16]);
    let refused = refusal(&map, Command::OsdBoot(stranger), NOW);
    assert!(refused.contains("nacre osd rm 1"), "{refused}");
    let mut copy = booting(7, 1, 100);
    copy.info.uuid = map.osd_info.get(OsdId(2)).unwrap().uuid;
    assert!(refusal(&map, Command::OsdBoot(copy), NOW).contains("is osd.2, not osd.7"));
    let huge = Boot { osd: OsdId(u32::MAX), ..booting(1, 1, 1) };
    assert!(refusal(&map, Command::OsdBoot(huge), NOW).contains("OSD number"));
}

#[test]
fn a_weight_that_is_given_holds_at_the_first_boot_and_no_later() {
    let map = ClusterMap::empty(sample::FSID);
    let weighs = |map: &ClusterMap, bucket: &str| map.crush.buckets[&map.crush.item(bucket).unwrap()].weight;
    let light = Boot { weight: Some(250_000), ..booting(0, 1, 0) };
    let map = done(&map, Command::OsdBoot(light), NOW);
    assert_eq!(weighs(&map, "box0"), Weight(1 << 14));
    let map = done(&map, Command::OsdBoot(booting(1, 1, 0)), NOW);
    assert_eq!(weighs(&map, "box0"), Weight((1 << 14) + (4 << 16)), "its size, where nothing is said");
    let heavy = Boot { weight: Some(9_000_000), ..booting(0, 2, map.epoch.0) };
    let map = done(&map, Command::OsdBoot(heavy), NOW);
    assert_eq!(weighs(&map, "box0"), Weight((1 << 14) + (4 << 16)), "operators weigh OSDs, later boots do not");
    let none = Boot { weight: Some(0), ..booting(2, 1, 0) };
    assert_eq!(weighs(&done(&map, Command::OsdBoot(none), NOW), "box1"), Weight::ZERO);
    let huge = Boot { weight: Some(u64::MAX), ..booting(2, 1, 0) };
    assert!(!refusal(&map, Command::OsdBoot(huge), NOW).is_empty());
}

#[test]
fn an_osd_that_flaps_has_to_wait() {
    let mut map = cluster(6, 2, 1, 8);
    let boot = |map: &ClusterMap| Boot {
        info: OsdInfo::clone(map.osd_info.get(OsdId(1)).unwrap()),
        ..booting(1, 3, map.epoch.0)
    };
    for time in 0..5 {
        map = done(&map, Command::OsdDown { osds: vec![OsdId(1)], dead: false }, at(time));
        map = done(&map, Command::OsdBoot(boot(&map)), at(time));
    }
    map = done(&map, Command::OsdDown { osds: vec![OsdId(1)], dead: false }, at(10));
    let refused = refusal(&map, Command::OsdBoot(boot(&map)), at(11));
    assert!(refused.contains("came straight back 5 times") && refused.contains("60 s"), "{refused}");
    assert!(done(&map, Command::OsdBoot(boot(&map)), at(71)).is_up(OsdId(1)));
    let fresh = Boot { incarnation: Incarnation(4), ..boot(&map) };
    assert!(done(&map, Command::OsdBoot(fresh), at(11)).is_up(OsdId(1)), "a new process is not punished for the old");
}

fn report(target: u32, reporter: u32, since: Stamp) -> FailureReport {
    let incarnation = Incarnation(3);
    FailureReport { target: OsdId(target), incarnation, reporter: OsdId(reporter), silent_since: since, refused: false }
}

#[test]
fn two_reporters_on_different_hosts_are_enough_and_two_on_one_are_not() {
    let map = cluster(8, 2, 1, 8);
    let mut failures = Failures::default();
    failures.report(report(0, 2, NOW));
    failures.report(report(0, 3, NOW));
    let verdict = failures.judge(&map, at(60));
    assert_eq!(verdict.silent, []);
    assert_eq!(verdict.held, [(OsdId(0), "reported from 1 host(s), 2 are needed".to_owned())]);
    failures.report(report(0, 4, at(59)));
    let verdict = failures.judge(&map, at(60));
    assert_eq!((verdict.silent.len(), verdict.again), (0, Some(at(59).after(Duration::from_millis(1500)))));
    assert_eq!(failures.judge(&map, at(61)).silent, [OsdId(0)]);
    failures.withdraw(OsdId(0), OsdId(4));
    assert_eq!(failures.judge(&map, at(62)).silent, []);
}

#[test]
fn a_refused_connection_counts_at_once() {
    let map = cluster(8, 2, 1, 8);
    let mut failures = Failures::default();
    failures.report(FailureReport { refused: true, ..report(0, 1, NOW) });
    assert_eq!(failures.judge(&map, NOW).dead, [OsdId(0)]);
}

#[test]
fn reports_about_other_runs_and_by_the_dead_are_forgotten() {
    let map = cluster(8, 2, 1, 8);
    let mut failures = Failures::default();
    failures.report(FailureReport { incarnation: Incarnation(2), refused: true, ..report(0, 2, NOW) });
    assert_eq!(failures.judge(&map, at(60)), osd_down::Verdict::default());
    failures.report(report(1, 4, NOW));
    failures.report(report(1, 6, NOW));
    let map = done(&map, Command::OsdDown { osds: vec![OsdId(4)], dead: true }, at(1));
    assert_eq!(failures.judge(&map, at(60)).silent, []);
}

#[test]
fn never_so_many_that_too_few_would_be_up() {
    let map = cluster(10, 1, 1, 8);
    let mut failures = Failures::default();
    for target in 0..9 {
        failures.report(FailureReport { refused: true, ..report(target, 9, NOW) });
    }
    let verdict = failures.judge(&map, NOW);
    assert_eq!((verdict.dead.len(), verdict.held.len()), (7, 2), "3 of 10 stay up");
    assert!(verdict.held[0].1.contains("min_up_ratio"));
}

#[test]
fn an_osd_known_to_lag_gets_more_grace() {
    let mut map = cluster(8, 2, 1, 8);
    let mut state = map.osds.get(OsdId(0)).unwrap().clone();
    (state.laggy_ms, state.laggy_share, state.flaps, state.flapped) = (4_000, 1 << 15, 256, NOW);
    set(&mut map.osds, OsdId(0), state);
    let grace = |now| osd_down::grace(&map, map.osds.get(OsdId(0)).unwrap(), now);
    assert_eq!(grace(NOW), Duration::from_millis(3_500));
    assert_eq!(grace(at(3 * 3600)), Duration::from_millis(1_500), "forgotten after a while");
}

#[test]
fn what_is_down_too_long_goes_out_and_its_boot_brings_it_back() {
    let map = cluster(16, 2, 1, 8);
    let map = done(&map, Command::OsdDown { osds: vec![OsdId(3)], dead: true }, NOW);
    assert_eq!(tick::next_due(&map, NOW), Some(at(600)));
    assert!(run(&map, Command::Tick, at(599)).unwrap().increments.is_empty());
    let out = done(&map, Command::Tick, at(600));
    assert!(!out.is_in(OsdId(3)));
    assert!(run(&out, Command::Tick, at(700)).unwrap().increments.is_empty(), "once is enough");
    let boot = Boot { info: OsdInfo::clone(map.osd_info.get(OsdId(3)).unwrap()), ..booting(3, 9, 1) };
    let back = done(&out, Command::OsdBoot(boot.clone()), at(800));
    assert_eq!(back.osds.get(OsdId(3)).unwrap().weight, Weight::ONE);
    let by_hand = done(&out, Command::OsdOut { osds: vec![OsdId(3)] }, at(700));
    assert!(!done(&by_hand, Command::OsdBoot(boot), at(800)).is_in(OsdId(3)), "an operator's word stays");
}

#[test]
fn what_must_not_go_out_stays_in_and_says_why() {
    let down = |map: &ClusterMap, osds: std::ops::Range<u32>| {
        done(map, Command::OsdDown { osds: osds.map(OsdId).collect(), dead: true }, NOW)
    };
    let held = |map: &ClusterMap| {
        assert!(run(map, Command::Tick, at(9_000)).unwrap().increments.is_empty());
        osd_in::out_candidates(map, at(9_000))[0].held.clone().unwrap()
    };
    let map = cluster(64, 2, 1, 8);
    assert!(held(&down(&map, 0..32)).contains("all of rack rack0 is down"));
    let flag = |target| Command::FlagSet { flag: Flag::NoOut, target, until: None, why: String::new() };
    let flagged = done(&map, flag(FlagTarget::Bucket("host0".into())), NOW);
    assert!(held(&down(&flagged, 1..2)).contains("noout"));
    assert!(osd_in::out_candidates(&down(&flagged, 2..3), at(9_000))[0].held.is_none(), "another host");
    let many = down(&map, 0..30);
    let out = done(&many, Command::Tick, at(9_000));
    assert_eq!(out.osds.iter().filter(|(_, state)| state.is_in()).count(), 48, "three quarters stay in");
}

#[test]
fn flags_end_by_themselves() {
    let map = cluster(4, 2, 1, 8);
    let flag =
        Command::FlagSet { flag: Flag::NoIn, target: FlagTarget::Cluster, until: Some(at(60)), why: "night".into() };
    let set = done(&map, flag, NOW);
    assert!(set.has_flag(Flag::NoIn));
    let after = run(&set, Command::Tick, at(60)).unwrap();
    assert!(after.notes[0].contains("ended by itself") && !after.map_after(&set).has_flag(Flag::NoIn));
    let past = Command::FlagSet { flag: Flag::NoIn, target: FlagTarget::Cluster, until: Some(NOW), why: String::new() };
    assert!(refusal(&map, past, NOW).contains("a moment to come"));
    let part =
        Command::FlagSet { flag: Flag::Pause, target: FlagTarget::Osd(OsdId(1)), until: None, why: String::new() };
    assert!(refusal(&map, part, NOW).contains("cannot be set for a part"));
}

#[test]
fn a_fence_holds_when_every_osd_has_its_epoch() {
    let map = cluster(4, 2, 1, 8);
    let fenced =
        done(&map, Command::Fence { sessions: vec![SessionId(9)], until: Some(at(60)), why: "node lost".into() }, NOW);
    let epoch = fenced.fenced[&SessionId(9)].epoch;
    assert_eq!(epoch, fenced.epoch);
    let mut reached: std::collections::BTreeMap<_, _> = (0..3).map(|osd| (OsdId(osd), epoch)).collect();
    assert_eq!(fence::barrier(&fenced, &reached, epoch), [OsdId(3)]);
    let down = done(&fenced, Command::OsdDown { osds: vec![OsdId(3)], dead: false }, NOW);
    assert_eq!(fence::barrier(&down, &reached, epoch), [], "one that is down has to boot into a map that has it");
    reached.insert(OsdId(3), epoch);
    assert_eq!(fence::barrier(&fenced, &reached, epoch), []);
    assert!(
        run(
            &fenced,
            Command::Fence { sessions: vec![SessionId(9)], until: Some(at(50)), why: "node lost".into() },
            at(1)
        )
        .unwrap()
        .map_after(&fenced)
        .fenced[&SessionId(9)]
            .until
            == Some(at(60))
    );
    assert!(!done(&fenced, Command::Tick, at(60)).is_fenced(SessionId(9)));
}

#[test]
fn settings_are_checked_where_they_are_set() {
    let map = cluster(4, 2, 1, 8);
    let command = |scope: &str, name: &str, value: &str| Command::SettingSet {
        scope: scope.parse().unwrap(),
        name: name.into(),
        value: value.into(),
    };
    let set = done(&map, command("osd.2", "osd.recovery.max_active", "4"), NOW);
    assert_eq!(set.settings[&("osd.2".parse::<Scope>().unwrap(), "osd.recovery.max_active".into())].value, "4");
    assert!(run(&set, command("osd.2", "osd.recovery.max_active", "04"), NOW).unwrap().increments.is_empty());
    for (scope, name, value, words) in [
        ("global", "osd.recovery.max_actve", "4", "there is no setting"),
        ("global", "osd.recovery.max_active", "0", "number from 1 to 1024"),
        ("mds", "osd.recovery.max_active", "4", "nobody else reads"),
        ("global", "osd.full.ratio", "0.6", "must not fall"),
    ] {
        let refused = refusal(&map, command(scope, name, value), NOW);
        assert!(refused.contains(words), "{refused}");
    }
    let gone = done(
        &set,
        Command::SettingRemove { scope: "osd.2".parse().unwrap(), name: "osd.recovery.max_active".into() },
        NOW,
    );
    assert!(gone.settings.is_empty());
}

#[test]
fn pools_are_guarded() {
    let map = cluster(12, 2, 1, 32);
    let change = |option: &str, value: &str| Command::PoolSet {
        pool: "pool1".into(),
        option: option.into(),
        value: value.into(),
    };
    for (command, words) in [
        (Command::PoolCreate(create("pool1")), "exists already"),
        (Command::PoolCreate(create("a/b")), "letters, digits"),
        (
            Command::PoolCreate(PoolCreate { pg_num: Some(4_096), ..create("p") }),
            "mon.pg.per_osd_max = 250; choose at most",
        ),
        (Command::PoolCreate(PoolCreate { size: Some(3), min_size: Some(4), ..create("p") }), "expected 1 to 3"),
        (Command::PoolCreate(PoolCreate { rule: Some("nope".into()), ..create("p") }), "known are replicated, erasure"),
        (
            Command::PoolCreate(PoolCreate { failure_domain: Some("row".into()), ..create("p") }),
            "known are osd, host, rack, root",
        ),
        (Command::PoolRemove { pool: "pool1".into(), confirm: String::new() }, "repeat its name"),
        (Command::PoolRemove { pool: "other".into(), confirm: String::new() }, "nacre pool ls"),
        (change("pg_num", "16"), "never merged"),
        (change("size", "17"), "1 to 16"),
        (change("colour", "red"), "there are size, min_size"),
        (change("nodelete", "yes"), "`true` or `false`"),
        (change("quota_bytes", "10"), "expected size from"),
    ] {
        let refused = refusal(&map, command, NOW);
        assert!(refused.contains(words), "{refused}");
    }
    let kept = done(&map, change("nodelete", "true"), NOW);
    let remove = Command::PoolRemove { pool: "pool1".into(), confirm: "pool1".into() };
    assert!(refusal(&kept, remove.clone(), NOW).contains("protected by nodelete"));
    let gone = done(&map, remove, NOW);
    assert!(gone.pools.is_empty());
    let next = done(&gone, Command::PoolCreate(create("pool1")), NOW);
    assert_eq!(next.pool_named("pool1").unwrap().0, PoolId(2), "an id is never used twice");
}

#[test]
fn options_of_a_pool_change_what_they_say() {
    let map = cluster(12, 2, 1, 32);
    let change = |map: &ClusterMap, option: &str, value: &str| {
        let command = Command::PoolSet { pool: "pool1".into(), option: option.into(), value: value.into() };
        let next = done(map, command.clone(), NOW);
        assert!(run(&next, command, NOW).unwrap().increments.is_empty(), "{option} {value} again changes nothing");
        next
    };
    for (option, value) in [
        ("size", "2"),
        ("min_size", "1"),
        ("pg_num", "64"),
        ("pg_auto", "warn"),
        ("pg_num_min", "16"),
        ("pg_num_max", "512"),
        ("rule", "erasure"),
        ("failure_domain", "osd"),
        ("quota_bytes", "10GiB"),
        ("quota_objects", "1000"),
        ("compression_mode", "force"),
        ("compression_algorithm", "zstd"),
        ("compression_required_ratio", "0.7"),
        ("target_ratio", "0.2"),
        ("target_bytes", "1TiB"),
        ("nodelete", "true"),
        ("nosizechange", "true"),
        ("nopgchange", "true"),
        ("noscrub", "true"),
        ("nodeepscrub", "true"),
        ("bulk", "true"),
        ("overwrites", "true"),
    ] {
        assert!(pool_set::OPTIONS.iter().any(|(name, _)| *name == option));
        let next = change(&map, option, value);
        assert_eq!(next.pools[&PoolId(1)].changed_in, next.epoch, "{option}");
    }
    let split = change(&map, "pg_num", "64");
    assert_eq!(
        (split.pools[&PoolId(1)].pg_num, split.pools[&PoolId(1)].pgp_num),
        (64, 32),
        "splits stay in place at first"
    );
    let guarded = change(&change(&map, "nosizechange", "true"), "nopgchange", "true");
    for (option, value) in [("size", "2"), ("min_size", "1"), ("pg_num", "64")] {
        let command = Command::PoolSet { pool: "pool1".into(), option: option.into(), value: value.into() };
        assert!(refusal(&guarded, command, NOW).contains("is protected by"), "{option}");
    }
}

#[test]
fn an_erasure_pool_follows_its_profile() {
    let map = cluster(12, 1, 0, 1);
    let erasure = |data, parity| PoolCreate {
        erasure: Some(ErasureProfile { data, parity, stripe_unit: 4096 }),
        pg_auto: Some(PgAuto::Off),
        ..create("ec")
    };
    let made = done(&map, Command::PoolCreate(erasure(4, 2)), NOW);
    let pool = &made.pools[&PoolId(1)];
    assert_eq!((pool.size, pool.min_size), (6, 5));
    assert!(refusal(&map, Command::PoolCreate(erasure(0, 2)), NOW).contains("as in 4+2"));
    let size = Command::PoolSet { pool: "ec".into(), option: "size".into(), value: "7".into() };
    assert!(refusal(&made, size, NOW).contains("follows from its profile"));
}

#[test]
fn an_osd_is_moved_weighed_classed_and_removed() {
    let map = cluster(12, 2, 1, 32);
    let mut map = done(&map, Command::OsdCrushWeight { osd: OsdId(1), millionths: 2_500_000 }, NOW);
    assert_eq!(map.crush.parent(1).unwrap().weight, Weight(0x38000));
    let place = vec![("rack".to_owned(), "rack9".to_owned()), ("host".to_owned(), "host9".to_owned())];
    map = done(&map, Command::OsdMove { osd: OsdId(1), location: place }, NOW);
    assert_eq!(map.crush.parent(1).unwrap().name, "host9");
    assert_eq!(map.crush.parent(map.crush.item("host9").unwrap()).unwrap().name, "rack9");
    let wrong = vec![("shelf".to_owned(), "x".to_owned())];
    assert!(
        refusal(&map, Command::OsdMove { osd: OsdId(1), location: wrong }, NOW)
            .contains("one of osd, host, rack, root")
    );
    map = done(&map, Command::OsdClass { osd: OsdId(1), class: "hdd".into() }, NOW);
    assert!(map.crush.class_id("hdd").is_some());
    map = done(&map, Command::UpmapItems { pg: "1.3".parse().unwrap(), items: vec![(OsdId(0), OsdId(1))] }, NOW);
    let remove = |safe| Command::OsdRemove { osd: OsdId(1), safe, force: false };
    assert!(refusal(&map, remove(true), NOW).contains("is up"));
    map = done(&map, Command::OsdDown { osds: vec![OsdId(1)], dead: true }, NOW);
    assert!(refusal(&map, remove(false), NOW).contains("safe-to-destroy"));
    map = done(&map, remove(true), NOW);
    assert!(!map.osds.contains(OsdId(1)) && map.osd_info.get(OsdId(1)).is_none() && map.crush.parent(1).is_none());
    assert!(map.upmap_items.is_empty());
    assert!(refusal(&map, remove(true), NOW).contains("nacre osd tree"));
}

#[test]
fn upmaps_name_osds_that_can_take_them() {
    let map = cluster(12, 2, 1, 32);
    let pg: PgId = "1.3".parse().unwrap();
    let out = done(&map, Command::OsdOut { osds: vec![OsdId(5)] }, NOW);
    for (command, words) in [
        (Command::Upmap { pg, osds: vec![OsdId(1), OsdId(5)] }, "nacre osd in 5"),
        (Command::Upmap { pg, osds: vec![OsdId(1), OsdId(1)] }, "twice"),
        (Command::Upmap { pg, osds: vec![OsdId(1), OsdId(99)] }, "there is no OSD osd.99"),
        (Command::Upmap { pg: "1.20".parse().unwrap(), osds: vec![OsdId(1)] }, "1.0 to 1.1f"),
        (Command::UpmapItems { pg, items: vec![(OsdId(1), OsdId(1))] }, "two different"),
        (Command::PrimaryTemp { pg, primary: Some(OsdId(77)) }, "there is no OSD"),
    ] {
        let refused = refusal(&out, command, NOW);
        assert!(refused.contains(words), "{refused}");
    }
    let set = done(&map, Command::Upmap { pg, osds: vec![OsdId(1), OsdId(3)] }, NOW);
    assert_eq!(done(&set, Command::Upmap { pg, osds: vec![] }, NOW).upmap.len(), 0);
}

#[test]
fn temporary_sets_come_from_those_who_are_up() {
    let map = cluster(12, 2, 1, 32);
    let pg: PgId = "1.3".parse().unwrap();
    let wants = vec![(pg, vec![OsdId(1), OsdId(3)]), ("9.0".parse().unwrap(), vec![OsdId(1)])];
    let ask = |epoch| Command::PgTemp { from: OsdId(1), epoch: Epoch(epoch), wants: wants.clone() };
    let outcome = run(&map, ask(100), NOW).unwrap();
    assert!(outcome.notes[0].contains("9.0 no longer exists"));
    let set = outcome.map_after(&map);
    assert_eq!(*set.pg_temp[&pg], [OsdId(1), OsdId(3)]);
    assert!(matches!(run(&map, ask(1), NOW), Err(RuleError::Stale { .. })), "spoken by an earlier run");
    let ended = done(&set, Command::PgTemp { from: OsdId(1), epoch: Epoch(100), wants: vec![(pg, vec![])] }, NOW);
    assert!(ended.pg_temp.is_empty());
}

#[test]
fn up_thru_is_noted_once_and_for_this_run_only() {
    let map = cluster(12, 2, 1, 32);
    let ask = |incarnation, epoch| Command::UpThru { osd: OsdId(1), incarnation, epoch: Epoch(epoch) };
    let noted = done(&map, ask(3, 95), NOW);
    assert_eq!(noted.osds.get(OsdId(1)).unwrap().up_thru, Epoch(100));
    assert!(run(&noted, ask(3, 100), NOW).unwrap().increments.is_empty());
    assert!(matches!(run(&map, ask(2, 95), NOW), Err(RuleError::Stale { .. })));
    assert!(run(&map, ask(3, 500), NOW).is_err());
}

#[test]
fn stopping_cleanly_is_no_failure() {
    let map = cluster(12, 2, 1, 32);
    let up_from = map.osds.get(OsdId(1)).unwrap().up_from;
    let stopped = done(&map, Command::OsdStopping { osd: OsdId(1), incarnation: 3 }, NOW);
    let state = stopped.osds.get(OsdId(1)).unwrap();
    assert!(!state.is_up() && state.flags.contains(OsdFlags::STOPPING | OsdFlags::DEAD));
    assert_eq!((state.clean_begin, state.clean_end), (up_from, stopped.epoch));
    assert!(matches!(
        run(&map, Command::OsdStopping { osd: OsdId(1), incarnation: 2 }, NOW),
        Err(RuleError::Stale { .. })
    ));
}

#[test]
fn every_refusal_has_a_code_that_tells_whether_to_try_again() {
    let map = cluster(4, 2, 1, 8);
    let code = |command| run(&map, command, NOW).unwrap_err().status().code;
    assert_eq!(code(Command::OsdOut { osds: vec![OsdId(9)] }), Code::NotFound);
    assert_eq!(code(Command::OsdReweight { osd: OsdId(0), millionths: 1_000_001 }), Code::Invalid);
    assert_eq!(code(Command::PoolCreate(create("pool1"))), Code::Exists);
    assert_eq!(code(Command::OsdLost { osd: OsdId(0), confirm: true }), Code::Refused);
    assert_eq!(code(Command::OsdStopping { osd: OsdId(0), incarnation: 1 }), Code::StaleMap);
}

#[test]
fn what_is_full_is_marked_once_and_unmarked_when_there_is_room() {
    let map = cluster(4, 1, 1, 8);
    let pool = *map.pools.keys().next().unwrap();
    let used = |map: &ClusterMap, used| {
        let osds = vec![usage::OsdUsage { osd: OsdId(1), used, total: 1000 }];
        run(map, Command::Usage { osds, pools: vec![] }, NOW).unwrap()
    };
    let full = |map: &ClusterMap| map.osds.get(OsdId(1)).unwrap().flags.contains(OsdFlags::FULL);
    assert!(used(&map, 500).increments.is_empty());
    let filled = used(&map, 950).map_after(&map);
    assert!(full(&filled) && !full(&map));
    assert!(used(&filled, 960).increments.is_empty(), "what is known is worth no epoch");
    assert!(!full(&used(&filled, 100).map_after(&filled)));
    // A quota likewise.
    let name = map.pools.get(&pool).unwrap().name.clone();
    let set =
        |value: &str| Command::PoolSet { pool: name.clone(), option: "quota_objects".into(), value: value.into() };
    let limited = done(&map, set("10"), NOW);
    let holds = |map: &ClusterMap, objects| {
        let pools = vec![usage::PoolUsage { pool, bytes: 0, objects }];
        done(map, Command::Usage { osds: vec![], pools }, NOW)
    };
    let quota = |map: &ClusterMap| map.pools.get(&pool).unwrap().flags.contains(crate::map::PoolFlags::QUOTA_FULL);
    assert!(!quota(&holds(&limited, 9)));
    let over = holds(&limited, 10);
    assert!(quota(&over) && quota(&holds(&over, 11)) && !quota(&holds(&over, 9)));
    // An OSD nobody knows changes nothing.
    let osds = vec![usage::OsdUsage { osd: OsdId(99), used: 10, total: 10 }];
    assert!(run(&map, Command::Usage { osds, pools: vec![] }, NOW).unwrap().increments.is_empty());
}

#[test]
fn a_snapshot_number_is_given_once_and_a_dropped_one_is_remembered() {
    let map = cluster(4, 2, 1, 8);
    let pool = map.pools.get(&PoolId(1)).unwrap().name.clone();
    let make = |snap| Command::SnapMake { pool: pool.clone(), snap: SnapId(snap) };
    let drop =
        |snaps: &[u64]| Command::SnapDrop { pool: pool.clone(), snaps: snaps.iter().map(|s| SnapId(*s)).collect() };
    let map = done(&map, make(1), NOW);
    let refused = refusal(&map, make(1), NOW);
    assert!(refused.contains("ask for the next"), "{refused}");
    let map = done(&map, make(2), NOW);
    let refused = refusal(&map, drop(&[1, 3]), NOW);
    assert!(refused.contains("never had a snapshot 3"), "{refused}");
    let map = done(&map, drop(&[1]), NOW);
    assert_eq!(*map.pools.get(&PoolId(1)).unwrap().removed_snaps, BTreeSet::from([SnapId(1)]));
    assert!(run(&map, drop(&[1]), NOW).unwrap().increments.is_empty());
    assert_eq!(map.pools.get(&PoolId(1)).unwrap().snap_seq, SnapId(2));
    assert!(refusal(&map, make(u64::MAX), NOW).contains("the one after 2"));
}
