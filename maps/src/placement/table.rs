//! The look-up table of one epoch: pg to mapped OSDs by one index, and what of it the next epoch can take over.
//!
//! A pool's rows are shared with the epoch before unless something they rest on changed:
//! - crush map, rule, size, pg counts, or weights of OSDs in the rule's reach: the rows are computed anew;
//! - only weights that went down, under a rule of one choice: an OSD that is not in a row was not accepted there, and with
//!   less weight it would not be either, so only rows that hold such an OSD are computed anew;
//! - upmap entries of the pool: laid over the raw rows again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nacre_crush::map::{MapError, Mapper, Mappings, Plan, Workspace};
use nacre_crush::model::{CrushMap, ItemId, RuleId, Step, Weight};
use nacre_crush::pg::Pgs;
use nacre_proto::ids::{OsdId, PgId, PoolId};

use super::{PgMapping, apply_upmap, resolve};
use crate::map::{ClusterMap, Pool, PoolFlags, PoolKind, Table};

/// Why there is no placement for a map.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// The crush map breaks its own rules.
    #[error("crush map of epoch {epoch} cannot be used: {source}")]
    Crush { epoch: nacre_proto::ids::Epoch, source: MapError },
    /// A pool asks for what the crush map does not have.
    #[error("pool {pool} cannot be placed: {source}")]
    Pool { pool: String, source: MapError },
    /// A pool asks for more than any may have.
    #[error("pool {pool} cannot be placed: {pgs} pgs of {size} are more than {MAX_PGS} of {MAX_SIZE}")]
    TooLarge { pool: String, pgs: u32, size: u32 },
}

/// The most pgs and positions a table is made for: above what the rules allow, below what a broken map could ask for.
const MAX_PGS: u32 = 1 << 20;
const MAX_SIZE: u32 = 256;

/// What the rows of a pool rest on, beside crush map and weights.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Basis {
    rule: RuleId,
    size: u32,
    pgs: Pgs,
    kind: PoolKind,
}

/// The rows of one pool.
#[derive(Debug)]
struct Rows {
    basis: Basis,
    /// `size` OSDs a pg; short rows end in holes.
    raw: Arc<Vec<OsdId>>,
    /// With upmap laid over; the same allocation if the pool has none.
    mapped: Arc<Vec<OsdId>>,
}

/// The placement of all pgs in one epoch. Shared by reference; see [`Placement::next`] for the epoch after.
#[derive(Debug)]
pub struct Placement {
    map: Arc<ClusterMap>,
    mapper: Arc<Mapper>,
    weights: Vec<Weight>,
    pools: BTreeMap<PoolId, Arc<Rows>>,
}

impl Basis {
    fn of(id: PoolId, pool: &Pool) -> Self {
        let hashed = pool.flags.contains(PoolFlags::HASH_POOL);
        let pgs = Pgs { pool: id.0, pg_num: pool.pg_num, pgp_num: pool.pgp_num, hashed };
        Self { rule: pool.rule, size: pool.size, pgs, kind: pool.kind.clone() }
    }
}

impl Rows {
    fn row<'a>(&self, rows: &'a [OsdId], seed: u32) -> &'a [OsdId] {
        let size = self.basis.size as usize;
        let at = seed as usize * size;
        let row = rows.get(at..at + size).unwrap_or(&[]);
        if self.basis.kind != PoolKind::Replicated {
            return row;
        }
        // A row of copies has holes at its end only.
        &row[..row.iter().position(|osd| !osd.is_some()).unwrap_or(row.len())]
    }
}

/// In-weight of each OSD by number; one that does not exist holds nothing.
fn weights(map: &ClusterMap) -> Vec<Weight> {
    let mut weights = vec![Weight::ZERO; map.osds.end().0 as usize];
    for (osd, state) in map.osds.iter() {
        weights[osd.0 as usize] = state.weight;
    }
    weights
}

/// How the weights of two epochs differ.
#[derive(Debug, Default)]
struct WeightChange {
    changed: BTreeSet<i32>,
    raised: bool,
}

impl WeightChange {
    fn between(old: &[Weight], new: &[Weight]) -> Self {
        let mut change = Self::default();
        for at in 0..old.len().max(new.len()) {
            let weight = |of: &[Weight]| of.get(at).copied().unwrap_or_default();
            if weight(old) != weight(new) {
                change.changed.insert(at as i32);
                change.raised |= weight(new) > weight(old);
            }
        }
        change
    }

    fn touches(&self, crush: &CrushMap, rule: RuleId) -> bool {
        !self.changed.is_empty()
            && crush.rules.get(&rule).is_none_or(|rule| {
                rule.steps.iter().any(|step| match step {
                    Step::Take(item) => !crush.devices_below(*item).is_disjoint(&self.changed),
                    _ => false,
                })
            })
    }

    /// Whether rows without a changed OSD stay as they are under this rule.
    fn spares_others(&self, crush: &CrushMap, rule: RuleId) -> bool {
        let Some(rule) = crush.rules.get(&rule) else { return false };
        let count = |wanted: fn(&Step) -> bool| rule.steps.iter().filter(|step| wanted(step)).count();
        !self.raised
            && count(|step| matches!(step, Step::Take(_))) == 1
            && count(|step| matches!(step, Step::Choose { .. } | Step::ChooseLeaf { .. })) == 1
            && count(|step| matches!(step, Step::Emit)) == 1
            && rule
                .steps
                .iter()
                .all(|step| !matches!(step, Step::Choose { num, .. } | Step::ChooseLeaf { num, .. } if *num != 0))
    }
}

fn map_row(plan: &Plan<'_>, basis: &Basis, seed: u32, weights: &[Weight], space: &mut Workspace, row: &mut [OsdId]) {
    fill_row(row, plan.map(basis.pgs.seed(seed), weights, space));
}

fn fill_row(row: &mut [OsdId], found: &[ItemId]) {
    row.fill(OsdId::NONE);
    for (slot, item) in row.iter_mut().zip(found) {
        *slot = u32::try_from(*item).map_or(OsdId::NONE, OsdId);
    }
}

impl Placement {
    /// Computes all rows.
    pub fn build(map: Arc<ClusterMap>) -> Result<Self, PlacementError> {
        let mapper =
            Mapper::new(map.crush.shared()).map_err(|source| PlacementError::Crush { epoch: map.epoch, source })?;
        Self::make(map, Arc::new(mapper), None)
    }

    /// The placement of a later (or earlier) map of the same cluster, sharing with this one whatever stays.
    pub fn next(&self, map: Arc<ClusterMap>) -> Result<Self, PlacementError> {
        if Arc::ptr_eq(map.crush.shared(), self.map.crush.shared()) {
            Self::make(map, Arc::clone(&self.mapper), Some(self))
        } else {
            Self::build(map)
        }
    }

    fn make(map: Arc<ClusterMap>, mapper: Arc<Mapper>, before: Option<&Placement>) -> Result<Self, PlacementError> {
        let weights = weights(&map);
        let change = before.map(|before| WeightChange::between(&before.weights, &weights)).unwrap_or_default();
        let upmaps_same = before.is_some_and(|before| {
            map.upmap.is_same(&before.map.upmap) && map.upmap_items.is_same(&before.map.upmap_items)
        });
        let mut this = Self { map: Arc::clone(&map), mapper, weights, pools: BTreeMap::new() };
        // Few rules serve many pools.
        let mut touched: BTreeMap<RuleId, bool> = BTreeMap::new();
        for (id, pool) in map.pools.iter() {
            let basis = Basis::of(*id, pool);
            let old = before.and_then(|before| before.pools.get(id)).filter(|old| old.basis == basis);
            let touches = || change.touches(&map.crush, pool.rule);
            let weights_matter = *touched.entry(pool.rule).or_insert_with(touches);
            let rows = match old {
                // Upmap entries are passed over while their target is out, so weights matter to them too.
                Some(old) if !weights_matter && upmaps_same && change.changed.is_empty() => Arc::clone(old),
                Some(old) if !weights_matter => Arc::new(this.overlay(*id, basis, Arc::clone(&old.raw))),
                Some(old) if change.spares_others(&map.crush, pool.rule) => {
                    let raw = this.remap(pool, &basis, &old.raw, &change.changed)?;
                    Arc::new(this.overlay(*id, basis, raw))
                }
                _ => {
                    let raw = this.compute(pool, &basis)?;
                    Arc::new(this.overlay(*id, basis, raw))
                }
            };
            this.pools.insert(*id, rows);
        }
        Ok(this)
    }

    fn plan(&self, id: PoolId, pool: &Pool) -> Result<Plan<'_>, PlacementError> {
        if pool.pg_num > MAX_PGS || pool.size > MAX_SIZE {
            let (pgs, size) = (pool.pg_num, pool.size);
            return Err(PlacementError::TooLarge { pool: pool.name.clone(), pgs, size });
        }
        let args = i64::try_from(id.0).ok();
        self.mapper
            .plan(pool.rule, pool.size, args)
            .map_err(|source| PlacementError::Pool { pool: pool.name.clone(), source })
    }

    fn compute(&self, pool: &Pool, basis: &Basis) -> Result<Arc<Vec<OsdId>>, PlacementError> {
        let plan = self.plan(PoolId(basis.pgs.pool), pool)?;
        let size = basis.size.max(1) as usize;
        let mut found = Mappings::default();
        let inputs = (0..basis.pgs.pg_num).map(|seed| basis.pgs.seed(seed));
        plan.map_all(inputs, &self.weights, &mut Workspace::default(), &mut found);
        let mut raw = vec![OsdId::NONE; basis.pgs.pg_num as usize * size];
        for (row, found) in raw.chunks_exact_mut(size).zip(found.iter()) {
            fill_row(row, found);
        }
        Ok(Arc::new(raw))
    }

    /// Computes only rows that hold one of `changed`.
    fn remap(
        &self,
        pool: &Pool,
        basis: &Basis,
        old: &Arc<Vec<OsdId>>,
        changed: &BTreeSet<i32>,
    ) -> Result<Arc<Vec<OsdId>>, PlacementError> {
        let plan = self.plan(PoolId(basis.pgs.pool), pool)?;
        let mut space = Workspace::default();
        let mut hit = vec![false; self.weights.len().max(changed.last().map_or(0, |osd| *osd as usize + 1))];
        changed.iter().for_each(|osd| hit[*osd as usize] = true);
        let holds = |row: &[OsdId]| row.iter().any(|osd| hit.get(osd.0 as usize).is_some_and(|hit| *hit));
        let size = basis.size.max(1) as usize;
        let mut raw = None;
        for (seed, row) in old.chunks_exact(size).enumerate() {
            if holds(row) {
                let raw = raw.get_or_insert_with(|| old.to_vec());
                let at = seed * size;
                map_row(&plan, basis, seed as u32, &self.weights, &mut space, &mut raw[at..at + size]);
            }
        }
        Ok(raw.map_or_else(|| Arc::clone(old), Arc::new))
    }

    /// Lays the upmap entries of a pool over its raw rows.
    fn overlay(&self, id: PoolId, basis: Basis, raw: Arc<Vec<OsdId>>) -> Rows {
        let pgs = PgId { pool: id, seed: 0 }..PgId { pool: id, seed: basis.pgs.pg_num };
        let whole = self.map.upmap.range(pgs.clone()).map(|(pg, _)| *pg);
        let items = self.map.upmap_items.range(pgs).map(|(pg, _)| *pg);
        let pgs: BTreeSet<PgId> = whole.chain(items).collect();
        let mut rows = Rows { basis, mapped: Arc::clone(&raw), raw };
        let size = rows.basis.size as usize;
        for pg in pgs {
            let mut set = rows.row(&rows.raw, pg.seed).to_vec();
            apply_upmap(&self.map, pg, &mut set);
            set.resize(size, OsdId::NONE);
            let at = pg.seed as usize * size;
            Arc::make_mut(&mut rows.mapped)[at..at + size].copy_from_slice(&set);
        }
        rows
    }

    /// The map it is made from.
    pub fn map(&self) -> &Arc<ClusterMap> {
        &self.map
    }

    /// What the pool's rule gives, before anything is laid over it.
    pub fn raw(&self, pg: PgId) -> Option<&[OsdId]> {
        let rows = self.pools.get(&pg.pool).filter(|rows| pg.seed < rows.basis.pgs.pg_num)?;
        Some(rows.row(&rows.raw, pg.seed))
    }

    /// Who should hold the pg if all were up.
    pub fn mapped(&self, pg: PgId) -> Option<&[OsdId]> {
        let rows = self.pools.get(&pg.pool).filter(|rows| pg.seed < rows.basis.pgs.pg_num)?;
        Some(rows.row(&rows.mapped, pg.seed))
    }

    /// Where the pg is; nothing if there is no such pg.
    pub fn pg(&self, pg: PgId) -> Option<PgMapping> {
        let mut mapping = PgMapping::default();
        self.pg_into(pg, &mut mapping).then_some(mapping)
    }

    /// The same without allocating, for those who look up again and again; false if there is no such pg.
    pub fn pg_into(&self, pg: PgId, into: &mut PgMapping) -> bool {
        let (Some(pool), Some(rows)) = (self.map.pool_of(pg), self.pools.get(&pg.pool)) else { return false };
        let mapped = rows.row(&rows.mapped, pg.seed);
        resolve(&self.map, pool, pg, rows.basis.pgs.seed(pg.seed), mapped, into);
        true
    }

    /// The pg of an object by its placement hash.
    pub fn pg_of(&self, pool: PoolId, hash: u32) -> Option<PgId> {
        let rows = self.pools.get(&pool).filter(|rows| rows.basis.pgs.pg_num > 0)?;
        Some(PgId { pool, seed: rows.basis.pgs.of(hash) })
    }

    /// Every pg there is.
    pub fn pgs(&self) -> impl Iterator<Item = PgId> {
        self.pools.iter().flat_map(|(pool, rows)| (0..rows.basis.pgs.pg_num).map(|seed| PgId { pool: *pool, seed }))
    }

    /// How many pgs of a pool (of all pools, if none is named) each OSD should hold.
    pub fn pgs_per_osd(&self, of: Option<PoolId>) -> Vec<u32> {
        let mut counts = vec![0; self.weights.len()];
        for (id, rows) in &self.pools {
            if of.is_none_or(|pool| pool == *id) {
                for osd in rows.mapped.iter() {
                    if let Some(count) = counts.get_mut(osd.0 as usize) {
                        *count += 1;
                    }
                }
            }
        }
        counts
    }

    /// Whether two placements share the rows of a pool, for tests and for whoever caches by pool.
    pub fn shares_rows(&self, other: &Placement, pool: PoolId) -> bool {
        match (self.pools.get(&pool), other.pools.get(&pool)) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one.raw, &other.raw) && Arc::ptr_eq(&one.mapped, &other.mapped),
            _ => false,
        }
    }
}
