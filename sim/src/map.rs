//! The map service: one history of epochs, changed by failure reports, boots, requests of primaries, and operators.
//!
//! It is a service that never fails itself: monitors have a simulation of their own. Where pgs go is the product's own
//! matter: each epoch is laid out by `nacre-maps`, so crush, upmap, affinity, temporary sets and splits are the real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nacre_crush::model::{Bucket, BucketAlg, CrushMap, Device, Mode, Rule, RuleKind, Step, Weight};
use nacre_maps::ClusterMap;
use nacre_maps::map::{OsdFlags, OsdState, Pool, PoolFlags, Table};
use nacre_maps::placement::Placement;
use nacre_pg::view::{OsdSight, PoolRules, View, pg_of_hash};
use nacre_proto::ids::{Epoch, OsdId, PgId, PoolId, SnapId, Stamp, Uuid};

/// One epoch, whole.
#[derive(Clone, Debug)]
pub struct Map {
    /// Its number.
    pub epoch: Epoch,
    /// What it says of each osd.
    pub osds: Arc<BTreeMap<OsdId, OsdSight>>,
    /// Osds that get data.
    pub inside: BTreeSet<OsdId>,
    /// Their weights in crush, in hundredths.
    pub weight: BTreeMap<OsdId, u64>,
    /// The pool.
    pub pool: PoolRules,
    /// Temporary acting sets.
    pub temp: BTreeMap<PgId, Vec<OsdId>>,
    /// Explicit placements.
    pub upmap: BTreeMap<PgId, Vec<OsdId>>,
    /// By how many pgs placement goes: children stay with their parents until it follows.
    pub placed: u32,
    /// Osds that would rather not be primary.
    pub reluctant: BTreeSet<OsdId>,
    /// The newest snapshot.
    pub snap_seq: SnapId,
    /// Those that live.
    pub snaps: BTreeSet<SnapId>,
    /// Where that puts the pgs.
    placement: Option<Arc<Placement>>,
}

/// The one pool of the simulation.
pub const POOL: PoolId = PoolId(1);

impl Map {
    /// The first epoch: nobody is up yet.
    pub fn first(osds: u32, pool: PoolRules) -> Map {
        let ids: Vec<OsdId> = (0..osds).map(OsdId).collect();
        let mut out = Map {
            epoch: Epoch(1),
            osds: Arc::new(
                ids.iter().map(|o| (*o, OsdSight { up: true, up_from: Epoch(1), ..OsdSight::default() })).collect(),
            ),
            inside: ids.iter().copied().collect(),
            weight: ids.iter().map(|o| (*o, 100)).collect(),
            placed: pool.pg_num,
            pool,
            temp: BTreeMap::new(),
            upmap: BTreeMap::new(),
            reluctant: BTreeSet::new(),
            snap_seq: SnapId(0),
            snaps: BTreeSet::new(),
            placement: None,
        };
        out.place();
        out
    }

    /// All pgs.
    pub fn pgs(&self) -> Vec<PgId> {
        (0..self.pool.pg_num).map(|seed| PgId { pool: POOL, seed }).collect()
    }

    /// Lays the pgs out, sharing with the epoch before whatever stays.
    #[expect(clippy::expect_used, reason = "a map the product cannot place is a bug of one of the two")]
    fn place(&mut self) {
        let before = self.placement.take();
        let map = Arc::new(self.cluster(before.as_deref().map(Placement::map)));
        let placement = match before {
            Some(before) => before.next(map),
            None => Placement::build(map),
        };
        self.placement = Some(Arc::new(placement.expect("a map that can be placed")));
    }

    /// The product's map of this epoch; `before` is that of the last.
    fn cluster(&self, before: Option<&Arc<ClusterMap>>) -> ClusterMap {
        let mut map = before.map_or_else(|| ClusterMap::empty(Uuid(*b"a simulated one!")), |m| ClusterMap::clone(m));
        let crush = crush(&self.weight);
        if before.is_none_or(|m| **m.crush.shared() != crush) {
            map.crush.replace(crush);
        }
        map.epoch = self.epoch;
        for (&osd, sight) in self.osds.iter() {
            let state = OsdState {
                flags: if sight.up { OsdFlags::UP } else { OsdFlags::empty() },
                weight: if self.inside.contains(&osd) { Weight::ONE } else { Weight::ZERO },
                affinity: if self.reluctant.contains(&osd) { Weight::ZERO } else { Weight::ONE },
                up_from: sight.up_from,
                up_thru: sight.up_thru,
                born: sight.born,
                ..OsdState::fresh(Stamp(0))
            };
            set(&mut map.osds, osd, Some(state));
        }
        let PoolRules { size, min_size, pg_num, .. } = self.pool;
        let pool = Pool {
            name: "pool".to_owned(),
            size,
            min_size,
            pg_num,
            pgp_num: self.placed,
            flags: PoolFlags::HASH_POOL,
            ..Pool::default()
        };
        set(&mut map.pools, POOL, Some(Arc::new(pool)));
        for pg in self.pgs() {
            // Monitors drop what an operator placed by hand when it no longer fits.
            let fits = |list: &&Vec<OsdId>| list.len() == size as usize && list.iter().all(|o| self.inside.contains(o));
            set(&mut map.upmap, pg, self.upmap.get(&pg).filter(fits).map(|list| Arc::new(list.clone())));
            set(&mut map.pg_temp, pg, self.temp.get(&pg).map(|list| Arc::new(list.clone())));
        }
        map
    }

    /// Where a pg is; one of before its birth is where its parent was.
    fn placed_at(&self, pg: PgId) -> (&Placement, PgId) {
        #[expect(clippy::expect_used, reason = "every map is placed when it is made")]
        let placement = self.placement.as_deref().expect("a map that was placed");
        (placement, PgId { seed: pg_of_hash(pg.seed, self.pool.pg_num), ..pg })
    }

    /// Has every pg as many osds as it wants, were they all up.
    pub fn is_whole(&self) -> bool {
        let size = self.pool.size as usize;
        self.pgs().into_iter().all(|pg| {
            let (placement, pg) = self.placed_at(pg);
            placement.mapped(pg).is_some_and(|mapped| mapped.len() >= size)
        })
    }

    /// One pg, as its core sees it.
    pub fn view(&self, pg: PgId) -> View {
        let (placement, at) = self.placed_at(pg);
        let found = placement.pg(at).unwrap_or_default();
        View {
            epoch: self.epoch,
            up: found.up,
            up_primary: found.up_primary,
            acting: found.acting,
            primary: found.acting_primary,
            pool: self.pool.clone(),
            osds: Arc::clone(&self.osds),
        }
    }
}

/// Changes an entry of the product's map if it is another.
fn set<T: Table>(table: &mut T, key: T::Key, value: Option<T::Value>)
where
    T::Value: PartialEq,
{
    match value {
        Some(value) if table.get(&key) == Some(&value) => {}
        Some(value) => assert!(table.set(key, value), "a key the product's map cannot hold"),
        None => {
            table.remove(&key);
        }
    }
}

/// Each osd is a host of its own under one root; copies go to different hosts.
fn crush(weights: &BTreeMap<OsdId, u64>) -> CrushMap {
    let mut map = CrushMap::default();
    map.types = [(0, "osd"), (1, "host"), (2, "root")].map(|(id, name)| (id, name.to_owned())).into();
    map.max_devices = weights.len() as u32;
    let bucket = |id: i32, name: String, kind: u16, items: Vec<i32>, weights: Vec<Weight>| Bucket {
        id,
        name,
        kind,
        alg: BucketAlg::Straw2,
        hash: 0,
        weight: Weight(weights.iter().map(|w| w.0).sum()),
        items,
        weights,
        straws: None,
    };
    let (mut hosts, mut shares) = (Vec::new(), Vec::new());
    for (osd, weight) in weights {
        let (device, host) = (osd.0 as i32, -2 - osd.0 as i32);
        let weight = Weight((*weight * u64::from(Weight::ONE.0) / 100) as u32);
        map.devices.insert(device, Device { name: osd.to_string(), class: None });
        map.buckets.insert(host, bucket(host, format!("host-{}", osd.0), 1, vec![device], vec![weight]));
        hosts.push(host);
        shares.push(weight);
    }
    map.buckets.insert(-1, bucket(-1, "default".to_owned(), 2, hosts, shares));
    map.max_buckets = (map.buckets.len() as u32).next_power_of_two();
    map.max_rules = 1;
    let steps = vec![Step::Take(-1), Step::ChooseLeaf { mode: Mode::Firstn, num: 0, kind: 1 }, Step::Emit];
    let rule =
        Rule { name: "copies".to_owned(), kind: RuleKind::Replicated, ruleset: 0, min_size: 1, max_size: 10, steps };
    map.rules.insert(0, rule);
    map
}

/// The history.
#[derive(Debug)]
pub struct Maps {
    all: Vec<Arc<Map>>,
}

impl Maps {
    /// Beginning with this.
    pub fn new(first: Map) -> Maps {
        Maps { all: vec![Arc::new(first)] }
    }

    /// The newest.
    pub fn last(&self) -> &Arc<Map> {
        &self.all[self.all.len() - 1]
    }

    /// One epoch.
    pub fn get(&self, epoch: Epoch) -> Option<&Arc<Map>> {
        self.all.get((epoch.0 as usize).checked_sub(1)?)
    }

    /// Makes the next epoch.
    pub fn change(&mut self, f: impl FnOnce(&mut Map)) {
        let mut next = Map::clone(self.last());
        next.epoch = next.epoch.next();
        f(&mut next);
        next.place();
        self.all.push(Arc::new(next));
    }

    /// Changes what a map says of an osd.
    pub fn change_osd(&mut self, osd: OsdId, f: impl FnOnce(&mut OsdSight, Epoch)) {
        self.change(|m| {
            let epoch = m.epoch;
            let mut osds = BTreeMap::clone(&m.osds);
            f(osds.entry(osd).or_default(), epoch);
            m.osds = Arc::new(osds);
        });
    }
}
