//! What the map of a large cluster costs: bytes and CPU time (of this thread; wall time says little on a busy machine).
//!
//! 10,000 OSDs in 500 hosts of 32 racks, 100 pools of 1,024 pgs in three copies, no upmaps.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench reports, and has nothing to report if it cannot run"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use nacre_crush::edit::NewRule;
use nacre_crush::model::{Bucket, BucketAlg, CrushMap, Device, ItemId, RuleKind, Weight};
use nacre_maps::map::{Mon, OsdFlags, OsdInfo, OsdState, Pool, PoolFlags, Table};
use nacre_maps::placement::{PgMapping, Placement};
use nacre_maps::rules::location::first_crush;
use nacre_maps::rules::{Asker, Command, execute};
use nacre_maps::{ClusterMap, Increment, health, plan};
use nacre_proto::ids::{Epoch, Incarnation, MonId, OsdId, PgId, PoolId, Stamp, Uuid};
use rustix::time::{ClockId, clock_gettime};

const OSDS: u32 = 10_000;
const PER_HOST: u32 = 20;
const PER_RACK: u32 = 16;
const POOLS: u64 = 100;
const PGS: u32 = 1_024;
const NOW: Stamp = Stamp(1_700_000_000_000);

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The least CPU time of some runs: what it costs when nothing gets in its way.
fn measure<T>(what: &str, runs: u32, mut run: impl FnMut() -> T) {
    let mut least = Duration::MAX;
    for _ in 0..runs {
        let start = cpu();
        black_box(run());
        least = least.min(cpu() - start);
    }
    println!("{what:<44} {:>12.1} us", least.as_secs_f64() * 1e6);
}

fn bytes(what: &str, count: usize) {
    println!("{what:<44} {count:>12} bytes");
}

fn bucket(id: ItemId, name: String, kind: u16, items: Vec<ItemId>, each: Vec<Weight>) -> Bucket {
    let weight = Weight(each.iter().map(|weight| weight.0).sum());
    Bucket { id, name, kind, alg: BucketAlg::Straw2, hash: 0, items, weights: each, weight, straws: None }
}

fn crush() -> CrushMap {
    let mut map = first_crush();
    let (mut next, mut hosts, mut racks) = (-2, Vec::new(), Vec::new());
    let mut take = || {
        next -= 1;
        next
    };
    for host in 0..OSDS / PER_HOST {
        let devices: Vec<ItemId> = (host * PER_HOST..(host + 1) * PER_HOST).map(|osd| osd as ItemId).collect();
        for device in &devices {
            map.devices.insert(*device, Device { name: format!("osd.{device}"), class: None });
        }
        let made = bucket(take(), format!("store-{host:03}"), 1, devices, vec![Weight::ONE; PER_HOST as usize]);
        hosts.push((made.id, made.weight));
        map.buckets.insert(made.id, made);
    }
    for (number, hosts) in hosts.chunks(PER_RACK as usize).enumerate() {
        let (items, weights) = hosts.iter().copied().unzip();
        let made = bucket(take(), format!("rack-{number:02}"), 3, items, weights);
        racks.push((made.id, made.weight));
        map.buckets.insert(made.id, made);
    }
    let (items, weights) = racks.iter().copied().unzip();
    map.buckets.insert(-1, bucket(-1, "default".into(), 11, items, weights));
    map.max_buckets = 1024;
    map.max_devices = OSDS;
    let rule =
        NewRule { name: "replicated_host", root: "default", domain: "host", class: None, kind: RuleKind::Replicated };
    map.create_rule(&rule).unwrap();
    // With classes there is a shadow of every bucket, as in any real cluster.
    let names: Vec<String> = (0..OSDS).map(|osd| format!("osd.{osd}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    map.set_class(&names, "ssd").unwrap();
    map
}

fn cluster() -> ClusterMap {
    let mut map = ClusterMap::empty(Uuid(*b"a bench: cluster"));
    map.epoch = Epoch(123_456);
    map.modified = NOW;
    map.crush.replace(crush());
    for osd in 0..OSDS {
        let host = osd / PER_HOST;
        let addr = |port: u32| vec![([10, 1, (host >> 8) as u8, host as u8], (port + osd % PER_HOST) as u16).into()];
        let info = OsdInfo {
            uuid: Uuid((u128::from(osd) * 0x9e37_79b9_7f4a_7c15_f39c).to_be_bytes()),
            public: addr(6800),
            cluster: addr(6900),
            heartbeat: addr(7000),
            host: format!("store-{host:03}"),
            local_socket: String::new(),
            version: "0.1.0".into(),
            capacity_bytes: 8 << 40,
        };
        let state = OsdState {
            flags: OsdFlags::UP,
            incarnation: Incarnation(7),
            up_from: Epoch(100_000 + u64::from(osd)),
            up_thru: Epoch(123_000),
            down_at: Epoch(99_000),
            clean_begin: Epoch(90_000),
            clean_end: Epoch(99_000),
            born: Epoch(12),
            ..OsdState::fresh(NOW)
        };
        assert!(map.osds.set(OsdId(osd), state) && map.osd_info.set(OsdId(osd), Arc::new(info)));
    }
    for id in 1..=POOLS {
        let pool = Pool {
            name: format!("tenant-{id:03}"),
            size: 3,
            min_size: 2,
            pg_num: PGS,
            pgp_num: PGS,
            pg_num_target: PGS,
            flags: PoolFlags::HASH_POOL,
            applications: [("block".to_owned(), Default::default())].into(),
            created: NOW,
            created_in: Epoch(500),
            changed_in: Epoch(500),
            ..Pool::default()
        };
        assert!(map.pools.set(PoolId(id), Arc::new(pool)));
    }
    map.next_pool = PoolId(POOLS + 1);
    for mon in 1..=3u64 {
        let entry = Mon { name: format!("{mon}"), addrs: vec![([10, 1, 0, mon as u8], 6789).into()], ..Mon::default() };
        assert!(map.mons.set(MonId(mon), Arc::new(entry)));
    }
    map
}

fn increment(map: &ClusterMap, command: Command) -> Increment {
    let outcome = execute(map, &command, &Asker { now: NOW, who: "bench".into() }).unwrap();
    outcome.increments.into_iter().next().unwrap()
}

fn main() {
    let map = cluster();
    println!("{OSDS} OSDs, {POOLS} pools, {} pgs", POOLS * u64::from(PGS));
    let full = map.encode();
    bytes("full map", full.len());
    bytes("  of it crush map", {
        let mut out = Vec::new();
        nacre_maps::codec::put_crush(&map.crush, &mut out);
        out.len()
    });
    measure("encode the full map", 20, || map.encode());
    measure("decode the full map", 20, || ClusterMap::decode(&full).unwrap());
    measure("digest of the map", 100, || map.digest());

    let down = increment(&map, Command::OsdDown { osds: vec![OsdId(4_321)], dead: true });
    let many = increment(&map, Command::OsdDown { osds: (0..320).map(OsdId).collect(), dead: true });
    let out = increment(&map, Command::OsdOut { osds: vec![OsdId(4_321)] });
    let weight = increment(&map, Command::OsdCrushWeight { osd: OsdId(4_321), millionths: 2_000_000 });
    let incs = [
        ("one OSD down", &down),
        ("a rack (320 OSDs) down", &many),
        ("one OSD out", &out),
        ("one crush weight", &weight),
    ];
    for (what, increment) in incs {
        let encoded = increment.encode();
        bytes(&format!("increment: {what}"), encoded.len());
        measure(&format!("decode it: {what}"), 100, || Increment::decode(&encoded).unwrap());
        measure(&format!("apply it, the old map kept: {what}"), 100, || map.apply(increment).unwrap());
    }
    measure("rule: mark one OSD down", 100, || increment_of_down(&map));
    let after = map.apply(&down).unwrap();
    measure("diff of two maps in memory, one OSD down", 100, || map.diff(&after));

    let map = Arc::new(map);
    let placement = Placement::build(Arc::clone(&map)).unwrap();
    let down_map = Arc::new(after);
    let out_map = Arc::new(map.apply(&out).unwrap());
    measure("placement table of all pgs", 5, || Placement::build(Arc::clone(&map)).unwrap());
    measure("  the next one, one OSD down", 20, || placement.next(Arc::clone(&down_map)).unwrap());
    measure("  the next one, one OSD out", 20, || placement.next(Arc::clone(&out_map)).unwrap());
    let mut mapping = PgMapping::default();
    measure("look up 1,000 pgs", 50, || {
        for seed in 0..1_000 {
            black_box(placement.pg_into(PgId { pool: PoolId(7), seed }, &mut mapping));
        }
    });
    measure("health without reports", 3, || health::check(&map, &health::Reports::default(), NOW));
    measure("balancer, one step", 1, || plan::balance::plan(&placement, plan::balance::Budget::NONE));
}

fn increment_of_down(map: &ClusterMap) -> Increment {
    increment(map, Command::OsdDown { osds: vec![OsdId(4_321)], dead: true })
}
