//! Planners gain what they promise, and are silent when there is nothing to gain.

use std::collections::BTreeMap;
use std::sync::Arc;

use nacre_crush::model::Weight;
use nacre_proto::ids::{OsdId, PgId, PoolId};

use super::balance::Budget;
use super::{balance, moved, pg_count};
use crate::ClusterMap;
use crate::map::{OsdState, PgAuto, Pool, PoolFlags, Table};
use crate::placement::Placement;
use crate::rules::{Asker, Command, execute};
use crate::sample::{NOW, cluster};

fn placed(map: &ClusterMap) -> Placement {
    Placement::build(Arc::new(map.clone())).unwrap()
}

fn after(map: &ClusterMap, command: &Command) -> ClusterMap {
    execute(map, command, &Asker { now: NOW, who: String::new() }).unwrap().map_after(map)
}

/// Lets the balancer run until it has nothing more to say.
fn balanced(mut map: ClusterMap) -> (ClusterMap, u32) {
    for steps in 0..200 {
        let plan = balance::plan(&placed(&map), Budget::NONE);
        let Some(command) = plan.command() else { return (map, steps) };
        assert!(plan.copies <= 16 && plan.worst_after <= plan.worst_before, "{plan:?}");
        map = after(&map, &command);
    }
    panic!("the balancer does not come to an end");
}

#[test]
fn the_balancer_evens_out_and_then_is_silent() {
    let mut map = cluster(24, 2, 2, 256);
    let half = OsdState { weight: Weight(0x8000), ..map.osds.get(OsdId(7)).unwrap().clone() };
    assert!(map.osds.set(OsdId(7), half));
    let (map, steps) = balanced(map);
    assert!(steps > 0, "random placement is not even");
    let placement = placed(&map);
    for pool in [PoolId(1), PoolId(2)] {
        let counts = placement.pgs_per_osd(Some(pool));
        let share = 256.0 * 3.0 / 23.5;
        for (osd, count) in counts.iter().enumerate() {
            let share = if osd == 7 { share / 2.0 } else { share };
            assert!(
                (f64::from(*count) - share).abs() <= 1.6,
                "osd.{osd} holds {count} of pool {pool}, its share is {share}"
            );
        }
    }
    for pg in placement.pgs() {
        let mut hosts: Vec<u32> = placement.mapped(pg).unwrap().iter().map(|osd| osd.0 / 2).collect();
        hosts.sort_unstable();
        hosts.dedup();
        assert_eq!(hosts.len(), 3, "pg {pg} keeps its copies on different hosts");
    }
}

#[test]
fn a_dry_run_says_what_moves() {
    let map = cluster(24, 2, 1, 256);
    let before = placed(&map);
    let next = after(&map, &balance::plan(&before, Budget::NONE).command().unwrap());
    let bytes: BTreeMap<PgId, u64> = before.pgs().map(|pg| (pg, 1000)).collect();
    let what = moved::between(&before, &placed(&next), &bytes);
    assert_eq!((what.copies, what.of, what.bytes), (16, 768, 16_000));
    assert_eq!(what.millionths(), 16 * 1_000_000 / 768);
    assert_eq!(moved::between(&before, &before, &bytes).copies, 0);
    let split = after(&map, &Command::PoolSet { pool: "pool1".into(), option: "pg_num".into(), value: "512".into() });
    assert_eq!(moved::between(&before, &placed(&split), &bytes).copies, 0, "a split stays in place");
}

fn with_pool(map: &ClusterMap, edit: impl FnOnce(&mut Pool)) -> ClusterMap {
    let mut map = map.clone();
    let mut pool = Pool::clone(&map.pools[&PoolId(1)]);
    edit(&mut pool);
    assert!(map.pools.set(PoolId(1), Arc::new(pool)));
    map
}

#[test]
fn pg_counts_grow_with_what_a_pool_holds() {
    let map = with_pool(&cluster(12, 2, 1, 32), |pool| pool.pg_auto = PgAuto::On);
    assert_eq!(pg_count::commands(&map, &BTreeMap::new()), []);
    // 8 TiB in three copies are half of 48 TiB.
    let used = BTreeMap::from([(PoolId(1), 8u64 << 40)]);
    let commands = pg_count::commands(&map, &used);
    assert_eq!(commands, [Command::PoolSet { pool: "pool1".into(), option: "pg_num".into(), value: "256".into() }]);
    let grown = after(&map, &commands[0]);
    assert_eq!(pg_count::commands(&grown, &used), [], "silent when it is right");
    let warned = with_pool(&map, |pool| pool.pg_auto = PgAuto::Warn);
    assert_eq!((pg_count::commands(&warned, &used).len(), pg_count::advise(&warned, &used).len()), (0, 1));
    let bulk = with_pool(&map, |pool| pool.flags |= PoolFlags::BULK);
    assert_eq!(pg_count::advise(&bulk, &BTreeMap::new())[0].to, 512);
    let bounded = with_pool(&bulk, |pool| pool.pg_num_max = 100);
    assert_eq!(pg_count::advise(&bounded, &BTreeMap::new())[0].to, 100);
}

#[test]
fn placement_follows_a_split_step_by_step() {
    let mut map = with_pool(&cluster(12, 2, 1, 32), |pool| pool.pg_num = 128);
    assert_eq!(pg_count::follow_splits(&map, 50_000), None, "not while too much is on its way");
    let mut steps = 0;
    while let Some(command) = pg_count::follow_splits(&map, 0) {
        let next = after(&map, &command);
        let share = moved::between(&placed(&map), &placed(&next), &BTreeMap::new()).millionths();
        assert!(share <= 60_000, "{share} millionths at once");
        map = next;
        steps += 1;
    }
    assert_eq!(map.pools[&PoolId(1)].pgp_num, 128);
    assert!((20..=30).contains(&steps), "{steps} steps");
}
