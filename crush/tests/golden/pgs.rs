//! Objects to pgs as `ceph osd map` gave them, and pgs to OSDs before upmap as `osdmaptool` dumped them.

use crate::{fixture, list, unzipped};
use nacre_crush::binary;
use nacre_crush::map::{Mapper, Workspace};
use nacre_crush::model::Weight;
use nacre_crush::pg::{Pgs, object_hash};
use serde_json::Value;
use std::collections::BTreeMap;

/// The flag of a pool whose id is hashed into the seed.
const HASHPSPOOL: u64 = 1;

struct Pool {
    pgs: Pgs,
    size: u32,
    rule: u32,
}

fn pools() -> BTreeMap<u64, Pool> {
    let osdmap: Value = serde_json::from_str(&unzipped("osdmap.json.gz")).unwrap();
    let pool = |pool: &Value| {
        let field = |name: &str| pool[name].as_u64().unwrap();
        let pgs = Pgs {
            pool: field("pool"),
            pg_num: field("pg_num") as u32,
            pgp_num: field("pg_placement_num") as u32,
            hashed: field("flags") & HASHPSPOOL != 0,
        };
        (pgs.pool, Pool { pgs, size: field("size") as u32, rule: field("crush_rule") as u32 })
    };
    osdmap["pools"].as_array().unwrap().iter().map(pool).collect()
}

#[test]
fn objects_hash_to_ceph_s_pgs() {
    let pools = pools();
    let mut equal = 0;
    for line in unzipped("objects.jsonl.gz").lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        let bytes = |field: &str| vector[field].as_str().unwrap().as_bytes().to_vec();
        let hash = object_hash(&bytes("namespace"), &bytes("object"));
        for answer in vector.as_object().unwrap().values().filter_map(Value::as_array) {
            let [raw, pg] = [&answer[0], &answer[1]].map(|id| id.as_str().unwrap().split_once('.').unwrap());
            assert_eq!(format!("{hash:x}"), raw.1, "{line}");
            let pgs = pools[&pg.0.parse().unwrap()].pgs;
            assert_eq!(format!("{:x}", pgs.of(hash)), pg.1, "{line}");
            equal += 1;
        }
    }
    println!("{equal} object placements equal");
    assert!(equal >= 2160, "only {equal}: the vectors are fewer than they were");
}

#[test]
fn pgs_map_to_ceph_s_raw_osds() {
    let mapper = Mapper::new(&binary::decode(&std::fs::read(fixture("osdmap.crush.bin")).unwrap()).unwrap()).unwrap();
    let pools = pools();
    let mut workspace = Workspace::default();
    for (file, out) in [("pgs-all-up.txt.gz", None), ("pgs-out5.txt.gz", Some(5))] {
        let mut reweights = [Weight::ONE; 16];
        if let Some(osd) = out {
            reweights[osd] = Weight::ZERO;
        }
        let mut equal = 0;
        for line in unzipped(file).lines() {
            // `1.a raw ([13,15,7], p13) up ...`
            let (id, rest) = line.split_once(" raw (").unwrap();
            let (pool, pg) = id.split_once('.').unwrap();
            let pool = &pools[&pool.parse().unwrap()];
            let seed = pool.pgs.seed(u32::from_str_radix(pg, 16).unwrap());
            let plan = mapper.plan(pool.rule, pool.size, Some(pool.pgs.pool as i64)).unwrap();
            let raw = list(rest.split_once(", p").unwrap().0);
            assert_eq!(plan.map(seed, &reweights, &mut workspace), raw, "{file}: {line}");
            equal += 1;
        }
        println!("{file}: {equal} raw pg mappings equal");
        let pgs: u32 = pools.values().map(|pool| pool.pgs.pg_num).sum();
        assert_eq!(equal, pgs);
    }
}

#[test]
fn objects_lie_in_the_pgs_osdmaptool_says() {
    let pools = pools();
    let mut equal = 0;
    for line in unzipped("objects-osdmaptool.txt.gz").lines() {
        // `object 'NAME' -> 1.18 -> [10,4,13]`
        let (name, rest) = line.strip_prefix("object '").unwrap().rsplit_once("' -> ").unwrap();
        let (pool, pg) = rest.split_once(" -> ").unwrap().0.split_once('.').unwrap();
        let pgs = pools[&pool.parse().unwrap()].pgs;
        assert_eq!(format!("{:x}", pgs.of(object_hash(b"", name.as_bytes()))), pg, "{line}");
        equal += 1;
    }
    println!("{equal} objects in the pgs osdmaptool finds them in");
    assert!(equal >= 585, "only {equal}: the vectors are fewer than they were");
}
