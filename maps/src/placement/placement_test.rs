//! Equal to Ceph on every golden line; and the table of an epoch that followed on another equals one built from nothing.

use std::io::Read;
use std::sync::Arc;

use nacre_crush::pg::object_hash;
use nacre_proto::ids::{Epoch, PoolId};
use proptest::prelude::*;

use super::*;
use crate::map::{ErasureProfile, OsdFlags, OsdState, PoolFlags, PoolKind, Table};
use crate::sample;

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/../fixtures/crush/{name}", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    if !name.ends_with(".gz") {
        return bytes;
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap();
    plain
}

fn text(name: &str) -> String {
    String::from_utf8(fixture(name)).unwrap()
}

/// The golden map: what `ceph osd dump` says of pools, OSDs and upmaps, all up and in.
fn golden() -> ClusterMap {
    let dump: serde_json::Value = serde_json::from_str(&text("osdmap.json.gz")).unwrap();
    let number = |value: &serde_json::Value| value.as_u64().unwrap() as u32;
    let osds = |value: &serde_json::Value| value.as_array().unwrap().iter().map(|osd| OsdId(number(osd))).collect();
    let mut map = ClusterMap::empty(sample::FSID);
    map.epoch = Epoch(1);
    map.crush.replace(nacre_crush::text::parse(&text("osdmap.crush.txt")).unwrap());
    for osd in dump["osds"].as_array().unwrap() {
        let affinity = Weight((osd["primary_affinity"].as_f64().unwrap() * 65536.0) as u32);
        let state = OsdState { flags: OsdFlags::UP, affinity, ..OsdState::fresh(sample::NOW) };
        assert!(map.osds.set(OsdId(number(&osd["osd"])), state));
    }
    for pool in dump["pools"].as_array().unwrap() {
        let mut flags = PoolFlags::empty();
        flags.set(PoolFlags::HASH_POOL, pool["flags_names"].as_str().unwrap().contains("hashpspool"));
        let erasure = PoolKind::Erasure(ErasureProfile { data: 4, parity: 2, stripe_unit: 4096 });
        let pool_of = Pool {
            name: pool["pool_name"].as_str().unwrap().into(),
            kind: if number(&pool["type"]) == 3 { erasure } else { PoolKind::Replicated },
            size: number(&pool["size"]),
            min_size: number(&pool["min_size"]),
            pg_num: number(&pool["pg_num"]),
            pgp_num: number(&pool["pg_placement_num"]),
            rule: number(&pool["crush_rule"]),
            flags,
            ..Pool::default()
        };
        assert!(map.pools.set(PoolId(pool["pool"].as_u64().unwrap()), Arc::new(pool_of)));
    }
    for entry in dump["pg_upmap"].as_array().unwrap() {
        let pg = entry["pgid"].as_str().unwrap().parse().unwrap();
        assert!(map.upmap.set(pg, Arc::new(osds(&entry["osds"]))));
    }
    for entry in dump["pg_upmap_items"].as_array().unwrap() {
        let pg = entry["pgid"].as_str().unwrap().parse().unwrap();
        let pairs = entry["mappings"].as_array().unwrap().iter();
        let pairs = pairs.map(|pair| (OsdId(number(&pair["from"])), OsdId(number(&pair["to"])))).collect();
        assert!(map.upmap_items.set(pg, Arc::new(pairs)));
    }
    map
}

/// `[1,2,3], p1`
fn parse_set(text: &str) -> (Vec<OsdId>, Option<OsdId>) {
    let (list, primary) = text.trim_start_matches('(').trim_end_matches(')').rsplit_once(", p").unwrap();
    let list = list.trim_matches(['[', ']']).split(',').filter(|osd| !osd.is_empty());
    (list.map(|osd| osd.parse().unwrap()).collect(), primary.parse().ok())
}

fn check_pgs(name: &str, map: ClusterMap) {
    let placement = Placement::build(Arc::new(map)).unwrap();
    let mut lines = 0;
    for line in text(name).lines() {
        let parts: Vec<&str> = line.split([' ']).collect();
        let pg: PgId = parts[0].parse().unwrap();
        let sets: Vec<_> = ["raw (", "up (", "acting ("]
            .iter()
            .map(|key| {
                let from = line.find(&format!(" {key}")).unwrap() + key.len() + 1;
                let to = from + line[from..].find(')').unwrap();
                parse_set(&line[from..to])
            })
            .collect();
        let mapping = placement.pg(pg).unwrap();
        assert_eq!((placement.raw(pg).unwrap().to_vec(), first(placement.raw(pg).unwrap())), sets[0], "raw {line}");
        assert_eq!((mapping.up, mapping.up_primary), sets[1], "up {line}");
        assert_eq!((mapping.acting, mapping.acting_primary), sets[2], "acting {line}");
        lines += 1;
    }
    assert_eq!(lines, placement.pgs().count(), "{name} has a line for each pg");
}

#[test]
fn every_pg_is_where_ceph_puts_it() {
    check_pgs("pgs-all-up.txt.gz", golden());
}

#[test]
fn every_pg_is_where_ceph_puts_it_with_an_osd_out() {
    let mut map = golden();
    let state = OsdState { weight: Weight::ZERO, ..map.osds.get(OsdId(5)).unwrap().clone() };
    assert!(map.osds.set(OsdId(5), state));
    check_pgs("pgs-out5.txt.gz", map);
}

#[test]
fn every_object_is_where_ceph_puts_it() {
    let placement = Placement::build(Arc::new(golden())).unwrap();
    let mut lines = 0;
    for line in text("objects-osdmaptool.txt.gz").lines() {
        let parts: Vec<&str> = line.rsplitn(3, " -> ").collect();
        let [osds, pg, object] = parts[..] else { panic!("{line}") };
        let name = object.strip_prefix("object '").and_then(|name| name.strip_suffix('\'')).unwrap();
        let pg: PgId = pg.parse().unwrap();
        let osds: Vec<OsdId> = osds.trim_matches(['[', ']']).split(',').map(|osd| osd.parse().unwrap()).collect();
        assert_eq!(placement.pg_of(pg.pool, object_hash(b"", name.as_bytes())), Some(pg), "{line}");
        assert_eq!(placement.pg(pg).unwrap().acting, osds, "{line}");
        lines += 1;
    }
    assert!(lines > 0);
}

fn step(base: &ClusterMap, edits: &[(u32, u8)]) -> ClusterMap {
    let mut map = ClusterMap { epoch: base.epoch.next(), ..base.clone() };
    for (osd, what) in edits {
        let mut state = map.osds.get(OsdId(*osd)).unwrap().clone();
        match what {
            0 => state.flags.toggle(OsdFlags::UP),
            1 => state.weight = Weight::ZERO,
            2 => state.weight = Weight(state.weight.0 / 2),
            3 => state.weight = Weight::ONE,
            _ => {
                let pg = PgId { pool: PoolId(1), seed: *osd };
                assert!(map.upmap_items.set(pg, Arc::new(vec![(OsdId(*osd), OsdId(osd / 2))])));
                assert!(map.upmap.set(pg, Arc::new(vec![OsdId(1), OsdId(9), OsdId(30)])));
            }
        }
        assert!(map.osds.set(OsdId(*osd), state));
    }
    map
}

fn two_pools() -> ClusterMap {
    let mut map = sample::cluster(48, 4, 2, 128);
    let kind = PoolKind::Erasure(ErasureProfile { data: 4, parity: 2, stripe_unit: 4096 });
    let pool = Pool { rule: 1, size: 6, min_size: 5, kind, ..Pool::clone(&map.pools[&PoolId(2)]) };
    assert!(map.pools.set(PoolId(2), Arc::new(pool)));
    map
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_table_that_follows_equals_one_built_anew(
        steps in proptest::collection::vec(proptest::collection::vec((0u32..48, 0u8..6), 1..4), 1..6)
    ) {
        let mut map = two_pools();
        let mut placement = Placement::build(Arc::new(map.clone())).unwrap();
        for edits in steps {
            map = step(&map, &edits);
            placement = placement.next(Arc::new(map.clone())).unwrap();
            let anew = Placement::build(Arc::new(map.clone())).unwrap();
            for pg in anew.pgs() {
                prop_assert_eq!(placement.raw(pg), anew.raw(pg));
                prop_assert_eq!(placement.mapped(pg), anew.mapped(pg));
                prop_assert_eq!(placement.pg(pg), anew.pg(pg));
            }
        }
    }
}

#[test]
fn an_osd_that_goes_down_costs_no_rebuild() {
    let map = two_pools();
    let before = Placement::build(Arc::new(map.clone())).unwrap();
    let after = before.next(Arc::new(step(&map, &[(7, 0)]))).unwrap();
    assert!(after.shares_rows(&before, PoolId(1)) && after.shares_rows(&before, PoolId(2)));
    let moved = after.pgs().filter(|pg| after.facts(*pg).unwrap().breaks(&before.facts(*pg).unwrap()).is_some());
    let held = before.pgs().filter(|pg| before.mapped(*pg).unwrap().contains(&OsdId(7)));
    assert_eq!(moved.collect::<Vec<_>>(), held.collect::<Vec<_>>());
}

#[test]
fn temporary_mappings_serve_while_their_members_are_up() {
    let mut map = two_pools();
    let (copies, shards) = (PgId { pool: PoolId(1), seed: 1 }, PgId { pool: PoolId(2), seed: 1 });
    let temp = [OsdId(3), OsdId(7), OsdId(11)];
    assert!(map.pg_temp.set(copies, Arc::new(temp.to_vec())) && map.pg_temp.set(shards, Arc::new(temp.to_vec())));
    assert!(map.primary_temp.set(copies, OsdId(11)));
    let before = Placement::build(Arc::new(map.clone())).unwrap();
    let mapping = before.pg(copies).unwrap();
    assert_eq!((mapping.acting.as_slice(), mapping.acting_primary), (&temp[..], Some(OsdId(11))));
    assert_eq!(before.facts(copies).unwrap().breaks(&before.facts(copies).unwrap()), None);

    let after = before.next(Arc::new(step(&map, &[(3, 0)]))).unwrap();
    assert_eq!(after.pg(copies).unwrap().acting, [OsdId(7), OsdId(11)]);
    assert_eq!(after.pg(shards).unwrap().acting, [OsdId::NONE, OsdId(7), OsdId(11)]);
    assert_eq!(after.pg(shards).unwrap().acting_primary, Some(OsdId(7)));
    assert_eq!(after.facts(copies).unwrap().breaks(&before.facts(copies).unwrap()), Some(IntervalBreak::Acting));

    let gone = after.next(Arc::new(step(after.map(), &[(7, 0), (11, 0)]))).unwrap();
    let mapping = gone.pg(shards).unwrap();
    assert_eq!(mapping.acting, mapping.up, "a temporary set of which nobody is up is passed over");
}

#[test]
fn an_interval_may_hold_writes_only_if_its_primary_was_noted_alive_in_it() {
    let mut map = two_pools();
    let placement = Placement::build(Arc::new(map.clone())).unwrap();
    let facts = placement.facts(PgId { pool: PoolId(1), seed: 0 }).unwrap();
    let primary = facts.mapping.acting_primary.unwrap();
    let mut with = |up_from: u64, up_thru: u64, facts: &PgFacts| {
        let state = map.osds.get(primary).unwrap().clone();
        assert!(map.osds.set(primary, OsdState { up_from: Epoch(up_from), up_thru: Epoch(up_thru), ..state }));
        may_have_written(facts, Epoch(10), &map)
    };
    assert!(with(10, 10, &facts));
    assert!(!with(10, 9, &facts), "the monitors never noted it");
    assert!(!with(11, 12, &facts), "noted in a later run");
    assert!(!with(10, 10, &PgFacts { min_size: 4, ..facts.clone() }), "too few members");
}

#[test]
fn an_unknown_rule_names_the_pool() {
    let mut map = two_pools();
    let pool = Pool { rule: 9, ..Pool::clone(&map.pools[&PoolId(1)]) };
    assert!(map.pools.set(PoolId(1), Arc::new(pool)));
    let error = Placement::build(Arc::new(map)).unwrap_err().to_string();
    assert!(error.contains("pool1") && error.contains('9'), "{error}");
}
