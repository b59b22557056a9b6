//! The map service: one history of epochs, changed by failure reports, boots, requests of primaries, and operators.
//!
//! It is a service that never fails itself: monitors have a simulation of their own. Placement is a straw draw per pg and
//! osd, so that a change of one osd moves little, as with crush.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nacre_pg::view::{OsdSight, PoolRules, View, pg_of_hash};
use nacre_proto::ids::{Epoch, OsdId, PgId, PoolId, SnapId};

/// One epoch, whole.
#[derive(Clone, Debug)]
pub struct Map {
    /// Its number.
    pub epoch: Epoch,
    /// What it says of each osd.
    pub osds: Arc<BTreeMap<OsdId, OsdSight>>,
    /// Osds that get data.
    pub inside: BTreeSet<OsdId>,
    /// Weights of the draw.
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
}

/// The one pool of the simulation.
pub const POOL: PoolId = PoolId(1);

impl Map {
    /// The first epoch: nobody is up yet.
    pub fn first(osds: u32, pool: PoolRules) -> Map {
        let ids: Vec<OsdId> = (0..osds).map(OsdId).collect();
        Map {
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
        }
    }

    /// All pgs.
    pub fn pgs(&self) -> Vec<PgId> {
        (0..self.pool.pg_num).map(|seed| PgId { pool: POOL, seed }).collect()
    }

    fn draw(&self, pg: PgId) -> Vec<OsdId> {
        let seed = pg_of_hash(pg.seed, self.placed);
        let mut straws: Vec<(u64, OsdId)> = self
            .inside
            .iter()
            .map(|&o| {
                let h = crate::rng::Rng::new(u64::from(seed) << 32 | u64::from(o.0)).draw() >> 40;
                (h * self.weight.get(&o).copied().unwrap_or(100), o)
            })
            .collect();
        straws.sort_by(|a, b| b.cmp(a));
        straws.into_iter().map(|(_, o)| o).take(self.pool.size as usize).collect()
    }

    /// One pg, as its core sees it.
    pub fn view(&self, pg: PgId) -> View {
        let is_up = |o: &OsdId| self.osds.get(o).is_some_and(|s| s.up);
        let mut wanted = self.draw(pg);
        if let Some(list) = self.upmap.get(&pg)
            && list.iter().all(|o| self.inside.contains(o))
            && list.len() == wanted.len()
        {
            wanted.clone_from(list);
        }
        let up: Vec<OsdId> = wanted.into_iter().filter(is_up).collect();
        let temp: Vec<OsdId> =
            self.temp.get(&pg).map(|t| t.iter().copied().filter(is_up).collect()).unwrap_or_default();
        let acting = if temp.is_empty() { up.clone() } else { temp };
        let first = |list: &[OsdId]| list.iter().find(|o| !self.reluctant.contains(o)).or(list.first()).copied();
        View {
            epoch: self.epoch,
            up_primary: first(&up),
            // A temporary set begins with who serves.
            primary: if acting == up { first(&up) } else { acting.first().copied() },
            up,
            acting,
            pool: self.pool.clone(),
            osds: Arc::clone(&self.osds),
        }
    }
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
