//! The balancer: moves single pgs by upmap until every OSD holds its share.
//!
//! Random placement leaves some OSDs with a quarter more than others, and the fullest decides when the cluster is full.
//! For each pool, an OSD's share is its weight's part of all copies. While some OSD holds more pgs than its share by
//! more than `balancer.max_deviation`, one of its pgs goes to an OSD below its share that no other copy shares a failure
//! domain with. Each move makes the sum of squared deviations smaller, so it ends, and says nothing when there is nothing
//! to gain.

use std::collections::{BTreeMap, BTreeSet};

use nacre_crush::model::{CrushMap, ItemId, Step, TypeId};
use nacre_proto::ids::{OsdId, PgId, PoolId};

use crate::map::{ClusterMap, OsdFlags, OsdState, Pool};
use crate::placement::Placement;
use crate::rules::Command;
use crate::settings::MonSettings;

/// What the balancer would do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Upmap items to set, whole lists; an empty one drops the entry.
    pub items: Vec<(PgId, Vec<(OsdId, OsdId)>)>,
    /// Copies that move.
    pub copies: u32,
    /// The largest deviation of an OSD from its share before, in hundredths of a pg.
    pub worst_before: i64,
    /// ... and after.
    pub worst_after: i64,
    /// Bytes that move, as far as it is known what pgs hold.
    pub bytes: u64,
}

/// How much may move in one step.
#[derive(Clone, Copy, Debug)]
pub struct Budget<'a> {
    /// What one copy of a pg takes; nothing for those of which it is not known.
    pub bytes: &'a BTreeMap<PgId, u64>,
    /// The most bytes; one move is made even if it takes more.
    pub most: u64,
}

impl Budget<'_> {
    /// However much it is.
    pub const NONE: Budget<'static> = Budget { bytes: &BTreeMap::new(), most: u64::MAX };
}

impl Plan {
    /// As a command; nothing if there is nothing to gain.
    pub fn command(&self) -> Option<Command> {
        (!self.items.is_empty()).then(|| Command::UpmapMany { items: self.items.clone() })
    }
}

/// One OSD of a pool: what it should and does hold.
struct Seat {
    share: f64,
    holds: i64,
    domain: ItemId,
    /// It takes no backfill: too full, or not up.
    closed: bool,
}

impl Seat {
    fn deviation(&self) -> f64 {
        self.holds as f64 - self.share
    }
}

/// The devices a rule of one choice reaches with their weights, and the type no two copies share. Other rules are left
/// alone: a move could break what they promise.
fn reach(crush: &CrushMap, pool: &Pool) -> Option<(ItemId, TypeId)> {
    let rule = crush.rules.get(&pool.rule)?;
    let mut takes = rule.steps.iter().filter_map(|step| match step {
        Step::Take(item) => Some(*item),
        _ => None,
    });
    let mut choices = rule.steps.iter().filter_map(|step| match step {
        Step::Choose { kind, .. } | Step::ChooseLeaf { kind, .. } => Some(*kind),
        _ => None,
    });
    let (take, kind) = (takes.next()?, choices.next()?);
    let simple = takes.next().is_none() && choices.next().is_none();
    // Choosing buckets without going down to devices gives none.
    let to_devices = rule.steps.iter().any(|step| {
        matches!(step, Step::ChooseLeaf { num: 0, .. }) || matches!(step, Step::Choose { kind: 0, num: 0, .. })
    });
    (simple && to_devices).then_some((take, kind))
}

/// For each device below an item, its crush weight and the bucket of the type above it.
fn leaves(crush: &CrushMap, below: ItemId, kind: TypeId) -> BTreeMap<ItemId, (u32, ItemId)> {
    let mut found = BTreeMap::new();
    let mut open = vec![(below, below)];
    let mut seen = BTreeSet::new();
    while let Some((at, domain)) = open.pop() {
        let Some(bucket) = crush.buckets.get(&at).filter(|_| seen.insert(at)) else { continue };
        for (item, weight) in bucket.items.iter().zip(&bucket.weights) {
            let domain = if crush.kind(*item) == Some(kind) { *item } else { domain };
            if *item >= 0 {
                found.insert(*item, (weight.0, domain));
            } else {
                open.push((*item, domain));
            }
        }
    }
    found
}

fn seats(map: &ClusterMap, placement: &Placement, id: PoolId, pool: &Pool) -> Option<BTreeMap<OsdId, Seat>> {
    let (take, kind) = reach(&map.crush, pool)?;
    let counts = placement.pgs_per_osd(Some(id));
    let mut weights = BTreeMap::new();
    for (item, (weight, domain)) in leaves(&map.crush, take, kind) {
        let osd = OsdId(u32::try_from(item).ok()?);
        let state = map.osds.get(osd).filter(|state| state.is_in());
        let effective = f64::from(weight) * state.map_or(0.0, |state: &OsdState| state.weight.as_f64());
        if effective > 0.0 {
            weights.insert(osd, (effective, domain));
        }
    }
    let sum: f64 = weights.values().map(|(weight, _)| weight).sum();
    let copies: f64 = counts.iter().map(|count| f64::from(*count)).sum();
    let seat = |(osd, (weight, domain)): (OsdId, (f64, ItemId))| {
        let holds = counts.get(osd.0 as usize).copied().unwrap_or(0).into();
        let state = map.osds.get(osd);
        let closed = state
            .is_none_or(|state| !state.is_up() || state.flags.intersects(OsdFlags::BACKFILL_FULL | OsdFlags::FULL));
        (osd, Seat { share: copies * weight / sum, holds, domain, closed })
    };
    Some(weights.into_iter().map(seat).collect())
}

/// Adds "what is on `from` goes to `to`" to the items a pg has. An item that led to `from` now leads to `to`; one that
/// would lead back to where it came from is dropped.
fn redirect(items: &[(OsdId, OsdId)], from: OsdId, to: OsdId) -> Vec<(OsdId, OsdId)> {
    let mut next: Vec<(OsdId, OsdId)> = items.to_vec();
    match next.iter_mut().find(|(_, target)| *target == from) {
        Some(item) => item.1 = to,
        None => next.push((from, to)),
    }
    next.retain(|(from, to)| from != to);
    next
}

/// Finds moves for all pools, at most `balancer.max_moves` and within the budget. Pools whose pgs are placed whole by hand
/// keep those.
pub fn plan(placement: &Placement, budget: Budget<'_>) -> Plan {
    let map = placement.map();
    let settings = MonSettings(map);
    let mut left = settings.number("balancer.max_moves") as usize;
    let tolerance = settings.number("balancer.max_deviation") as f64;
    let mut plan = Plan::default();
    for (id, pool) in map.pools.iter() {
        // While a split is under way pgs are about to move anyway.
        let Some(mut seats) = seats(map, placement, *id, pool).filter(|_| pool.pgp_num == pool.pg_num) else {
            continue;
        };
        let mut sets: BTreeMap<PgId, Vec<OsdId>> = BTreeMap::new();
        let mut changed: BTreeMap<PgId, Vec<(OsdId, OsdId)>> = BTreeMap::new();
        for seed in 0..pool.pg_num {
            let pg = PgId { pool: *id, seed };
            if !map.upmap.contains_key(&pg) {
                sets.insert(pg, placement.mapped(pg).unwrap_or(&[]).to_vec());
            }
        }
        plan.worst_before = plan.worst_before.max(worst(&seats));
        while left > 0 {
            let Some((pg, from, to)) = best_move(&seats, &sets, tolerance) else { break };
            let bytes = plan.bytes.saturating_add(budget.bytes.get(&pg).copied().unwrap_or(0));
            if bytes > budget.most && plan.copies > 0 {
                left = 0;
                break;
            }
            plan.bytes = bytes;
            let Some(set) = sets.get_mut(&pg) else { break };
            let Some(at) = set.iter().position(|osd| *osd == from) else { break };
            set[at] = to;
            if let Some(seat) = seats.get_mut(&from) {
                seat.holds -= 1;
            }
            if let Some(seat) = seats.get_mut(&to) {
                seat.holds += 1;
            }
            let items = match changed.get(&pg) {
                Some(items) => redirect(items, from, to),
                None => {
                    // An item that leads to an OSD which is out has no effect, and would be refused if it was set anew.
                    let items = map.upmap_items.get(&pg).map_or(&[][..], |items| items.as_slice());
                    let kept: Vec<_> = items.iter().copied().filter(|(_, to)| map.is_in(*to)).collect();
                    redirect(&kept, from, to)
                }
            };
            changed.insert(pg, items);
            plan.copies += 1;
            left -= 1;
        }
        plan.worst_after = plan.worst_after.max(worst(&seats));
        plan.items.extend(changed);
    }
    plan
}

fn worst(seats: &BTreeMap<OsdId, Seat>) -> i64 {
    seats.values().map(|seat| (seat.deviation().abs() * 100.0).round() as i64).max().unwrap_or(0)
}

/// A move from one of the fullest to one of the emptiest that keeps failure domains apart, or nothing.
fn best_move(
    seats: &BTreeMap<OsdId, Seat>,
    sets: &BTreeMap<PgId, Vec<OsdId>>,
    tolerance: f64,
) -> Option<(PgId, OsdId, OsdId)> {
    let mut order: Vec<(&OsdId, &Seat)> = seats.iter().collect();
    order.sort_by(|one, other| one.1.deviation().total_cmp(&other.1.deviation()).then(one.0.cmp(other.0)));
    for (from, full) in order.iter().rev() {
        let beyond = full.deviation() > tolerance;
        for (to, empty) in order.iter().filter(|(_, seat)| !seat.closed) {
            // Less would only swap the two, or make it worse; and somebody must be beyond what is tolerated.
            let gains = full.deviation() - empty.deviation() > 1.0 + 1e-9;
            if !gains || !(beyond || empty.deviation() < -tolerance) {
                break;
            }
            let fits = |set: &Vec<OsdId>| {
                set.contains(from)
                    && !set.contains(to)
                    && set
                        .iter()
                        .filter(|osd| *osd != *from)
                        .all(|osd| seats.get(osd).is_none_or(|seat| seat.domain != empty.domain))
            };
            if let Some((pg, _)) = sets.iter().find(|(_, set)| fits(set)) {
                return Some((*pg, **from, **to));
            }
        }
    }
    None
}
