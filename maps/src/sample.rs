//! Maps for tests: one with something in every section, one of any size, and random edits for property tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use nacre_crush::model::{
    Bucket, BucketAlg, ChooseArg, CrushMap, Device, Mode, MsrTunables, Rule, RuleKind, Step, Weight,
};
use nacre_proto::ids::{Epoch, Incarnation, MonId, OsdId, PgId, PoolId, SessionId, Stamp, Uuid};
use proptest::prelude::*;

use crate::map::*;

pub(crate) const FSID: Uuid = Uuid(*b"a test's cluster");
pub(crate) const NOW: Stamp = Stamp(1_700_000_000_000);

fn bucket(id: i32, name: &str, kind: u16, items: Vec<i32>, weights: Vec<u32>) -> Bucket {
    let weight = Weight(weights.iter().sum());
    let weights = weights.into_iter().map(Weight).collect();
    Bucket { id, name: name.into(), kind, alg: BucketAlg::Straw2, hash: 0, items, weights, weight, straws: None }
}

/// Racks of 16 hosts of `per_host` OSDs each, one replicated rule over hosts.
pub(crate) fn crush(osds: u32, per_host: u32) -> CrushMap {
    let mut map = CrushMap::default();
    map.types = [(0, "osd"), (1, "host"), (3, "rack"), (11, "root")].map(|(id, name)| (id, name.to_owned())).into();
    map.classes = [(0, "ssd".to_owned())].into();
    map.max_devices = osds;
    let hosts = osds.div_ceil(per_host);
    let racks = hosts.div_ceil(16);
    let one = Weight::ONE.0;
    let (mut root_items, mut root_weights) = (Vec::new(), Vec::new());
    for rack in 0..racks {
        let rack_id = -(2 + rack as i32);
        let (mut items, mut weights) = (Vec::new(), Vec::new());
        for host in rack * 16..hosts.min(rack * 16 + 16) {
            let host_id = -(2 + racks as i32 + host as i32);
            let devices: Vec<i32> = (host * per_host..osds.min((host + 1) * per_host)).map(|osd| osd as i32).collect();
            for device in &devices {
                map.devices.insert(*device, Device { name: format!("osd.{device}"), class: Some(0) });
            }
            let sum = one * devices.len() as u32;
            let ones = vec![one; devices.len()];
            map.buckets.insert(host_id, bucket(host_id, &format!("host{host}"), 1, devices, ones));
            items.push(host_id);
            weights.push(sum);
        }
        root_items.push(rack_id);
        root_weights.push(weights.iter().sum());
        map.buckets.insert(rack_id, bucket(rack_id, &format!("rack{rack}"), 3, items, weights));
    }
    map.buckets.insert(-1, bucket(-1, "default", 11, root_items, root_weights));
    map.max_buckets = (map.buckets.len() as u32).next_power_of_two();
    map.max_rules = 2;
    let steps = |mode| vec![Step::Take(-1), Step::ChooseLeaf { mode, num: 0, kind: 1 }, Step::Emit];
    let rule = |name: &str, kind, mode| Rule {
        name: name.into(),
        kind,
        ruleset: 0,
        min_size: 1,
        max_size: 10,
        steps: steps(mode),
    };
    map.rules.insert(0, rule("replicated", RuleKind::Replicated, Mode::Firstn));
    map.rules.insert(1, rule("erasure", RuleKind::Erasure, Mode::Indep));
    map
}

pub(crate) fn info(osd: u32, host: u32) -> OsdInfo {
    let addr = |port: u16| vec![std::net::SocketAddr::from(([10, 0, (host >> 8) as u8, host as u8], port))];
    OsdInfo {
        uuid: Uuid((u128::from(osd) * 0x0123_4567_89ab_cdef_0123).to_be_bytes()),
        public: addr(6800 + (osd % 100) as u16),
        cluster: addr(6900 + (osd % 100) as u16),
        heartbeat: addr(7000 + (osd % 100) as u16),
        host: format!("host{host}"),
        local_socket: String::new(),
        version: "0.1.0".into(),
        capacity_bytes: 4 << 40,
    }
}

/// All OSDs up and in, `pools` replicated pools of `pg_num` pgs.
pub(crate) fn cluster(osds: u32, per_host: u32, pools: u64, pg_num: u32) -> ClusterMap {
    let mut map = ClusterMap::empty(FSID);
    map.epoch = Epoch(100);
    map.modified = NOW;
    map.crush.replace(crush(osds, per_host));
    for osd in 0..osds {
        let state = OsdState {
            flags: OsdFlags::UP,
            incarnation: Incarnation(3),
            up_from: Epoch(50 + u64::from(osd % 40)),
            up_thru: Epoch(90 + u64::from(osd % 10)),
            down_at: Epoch(40),
            clean_begin: Epoch(20),
            clean_end: Epoch(40),
            ..OsdState::fresh(NOW)
        };
        assert!(map.osds.set(OsdId(osd), state));
        assert!(map.osd_info.set(OsdId(osd), Arc::new(info(osd, osd / per_host))));
    }
    for id in 1..=pools {
        let pool = Pool {
            name: format!("pool{id}"),
            size: 3,
            min_size: 2,
            pg_num,
            pgp_num: pg_num,
            pg_num_target: pg_num,
            flags: PoolFlags::HASH_POOL,
            created: NOW,
            created_in: Epoch(9),
            changed_in: Epoch(9),
            ..Pool::default()
        };
        assert!(map.pools.set(PoolId(id), Arc::new(pool)));
    }
    map.next_pool = PoolId(pools + 1);
    map
}

/// Something in every section: what the stored bytes of each format version hold.
pub(crate) fn full() -> ClusterMap {
    let mut map = cluster(6, 2, 2, 8);
    let pg = PgId { pool: PoolId(1), seed: 3 };
    let set = [
        map.upmap.set(pg, Arc::new(vec![OsdId(0), OsdId(2), OsdId(5)])),
        map.upmap_items.set(PgId { seed: 4, ..pg }, Arc::new(vec![(OsdId(0), OsdId(1)), (OsdId(4), OsdId(5))])),
        map.pg_temp.set(pg, Arc::new(vec![OsdId(2), OsdId::NONE, OsdId(0)])),
        map.primary_temp.set(pg, OsdId(2)),
        map.fenced.set(SessionId(77), Arc::new(Fence { epoch: Epoch(99), until: Some(NOW), why: "node lost".into() })),
        map.daemons.set(
            DaemonId { kind: DaemonKind::Mds, name: "a".into() },
            Arc::new(Daemon {
                incarnation: Incarnation(2),
                addrs: vec!["[::1]:6800".parse().unwrap()],
                state: DaemonState::Active,
                rank: Some(0),
                since: NOW,
                notes: BTreeMap::from([("fs".into(), "home".into())]),
                ..Daemon::default()
            }),
        ),
        map.settings.set(
            (Scope::Class("ssd".into()), "osd.recovery.max_active".into()),
            Arc::new(SettingValue { value: "8".into(), since: NOW, by: "operator".into() }),
        ),
        map.flags.set(
            (Flag::NoOut, FlagTarget::Bucket("rack0".into())),
            Arc::new(FlagState { until: Some(NOW), since: NOW, by: "operator".into(), why: "new switch".into() }),
        ),
        map.mutes.set("osd_down".into(), Arc::new(Mute { count: 1, ..Mute::default() })),
        map.mons.set(MonId(1), Arc::new(Mon { name: "a".into(), host: "host0".into(), ..Mon::default() })),
        map.revoked.set(vec![1, 2, 250], Arc::new(Revocation { until: NOW, why: "lost laptop".into() })),
    ];
    assert!(set.iter().all(|set| *set));
    let erasure = ErasureProfile { data: 4, parity: 2, stripe_unit: 4096 };
    let mut pool = Pool::clone(&map.pools[&PoolId(2)]);
    pool.kind = PoolKind::Erasure(erasure);
    pool.applications = BTreeMap::from([("s3".into(), BTreeMap::from([("zone".into(), "eu".into())]))]);
    assert!(map.pools.set(PoolId(2), Arc::new(pool)));
    let mut crush = CrushMap::clone(map.crush.shared());
    let arg = ChooseArg { ids: vec![], weight_set: vec![vec![Weight(5); 2]] };
    crush.choose_args.insert(-1, BTreeMap::from([(-3, arg)]));
    crush.devices.insert(3, Device { name: "a-name-of-its-own".into(), class: None });
    crush.msr = Some(MsrTunables { descents: 4, collision_tries: 5 });
    crush.shadows.insert(-1, BTreeMap::from([(0, -9)]));
    map.crush.replace(crush);
    map
}

/// One change of one section, small enough to collide with others.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    section: u8,
    key: u8,
    value: Option<u16>,
}

pub(crate) fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = (0..16u8, 0..200u8, proptest::option::weighted(0.75, 0..6u16));
    proptest::collection::vec(edit.prop_map(|(section, key, value)| Edit { section, key, value }), 0..40)
}

fn put<T: Table>(table: &mut T, key: T::Key, value: Option<T::Value>) {
    match value {
        Some(value) => assert!(table.set(key, value)),
        None => {
            table.remove(&key);
        }
    }
}

/// `base` with the edits made, as a map of its own epoch.
pub(crate) fn edited(base: &ClusterMap, edits: &[Edit], epoch: u64) -> ClusterMap {
    let mut map = base.clone();
    map.epoch = Epoch(epoch);
    for Edit { section, key, value } in edits {
        let (small, key) = (key % 4, u64::from(*key));
        let pg = PgId { pool: PoolId(key % 3), seed: (key % 5) as u32 };
        let text = |value: u16| format!("value {value}");
        let osd = OsdId(key as u32);
        match section {
            0 => put(&mut map.osds, osd, value.map(|v| OsdState { up_from: Epoch(v.into()), ..OsdState::fresh(NOW) })),
            1 => put(&mut map.osd_info, osd, value.map(|v| Arc::new(info(v.into(), 1)))),
            2 => put(&mut map.pools, PoolId(key), value.map(|v| Arc::new(Pool { name: text(v), ..Pool::default() }))),
            3 => put(&mut map.upmap, pg, value.map(|v| Arc::new(vec![OsdId(v.into())]))),
            4 => put(&mut map.upmap_items, pg, value.map(|v| Arc::new(vec![(OsdId(1), OsdId(v.into()))]))),
            5 => put(&mut map.pg_temp, pg, value.map(|v| Arc::new(vec![OsdId(v.into())]))),
            6 => put(&mut map.primary_temp, pg, value.map(|v| OsdId(v.into()))),
            7 => put(
                &mut map.fenced,
                SessionId(key),
                value.map(|v| Arc::new(Fence { why: text(v), ..Fence::default() })),
            ),
            8 => {
                let id = DaemonId { kind: DaemonKind::S3, name: text(small.into()) };
                put(&mut map.daemons, id, value.map(|v| Arc::new(Daemon { host: text(v), ..Daemon::default() })));
            }
            9 => {
                let id = (Scope::Kind(DaemonKind::Osd), text(small.into()));
                put(
                    &mut map.settings,
                    id,
                    value.map(|v| Arc::new(SettingValue { value: text(v), since: NOW, by: text(0) })),
                );
            }
            10 => {
                let id = (Flag::NoIn, FlagTarget::Osd(osd));
                put(&mut map.flags, id, value.map(|v| Arc::new(FlagState { why: text(v), ..FlagState::default() })));
            }
            11 => put(
                &mut map.mutes,
                text(small.into()),
                value.map(|v| Arc::new(Mute { count: v.into(), ..Mute::default() })),
            ),
            12 => put(&mut map.mons, MonId(key), value.map(|v| Arc::new(Mon { name: text(v), ..Mon::default() }))),
            13 => put(&mut map.revoked, vec![small], value.map(|v| Arc::new(Revocation { until: NOW, why: text(v) }))),
            14 => {
                let mut crush = CrushMap::clone(map.crush.shared());
                let id = -100 - i32::from(small);
                match value {
                    Some(v) => crush.buckets.insert(id, bucket(id, &text(*v), 1, vec![1], vec![u32::from(*v)])),
                    None => crush.buckets.remove(&id),
                };
                crush.max_buckets = value.unwrap_or(0).into();
                map.crush.replace(crush);
            }
            _ => map.next_pool = PoolId(key),
        }
    }
    map
}
