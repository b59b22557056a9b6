//! How many pgs each pool should have, and how placement follows a split.
//!
//! A pool's share of the capacity decides: what it is said to take (`target_ratio`, `target_bytes`) or what it takes
//! already, whichever is more. Its pgs are that share of `mon.pg.per_osd_target` on every OSD, as the nearest power of
//! two. Advice is given only when the count is too small by a factor of two or more, so it does not swing; pgs are
//! never merged, so there is no advice to have fewer.

use std::collections::BTreeMap;

use nacre_proto::ids::PoolId;

use crate::map::{ClusterMap, PgAuto, PoolFlags};
use crate::rules::Command;
use crate::rules::pool::MAX_PGS;
use crate::settings::MonSettings;

/// A pool that should have more pgs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Which.
    pub pool: PoolId,
    /// Its name.
    pub name: String,
    /// How many it has.
    pub from: u32,
    /// How many it should have.
    pub to: u32,
    /// What share of the capacity it takes and why that is thought.
    pub why: String,
}

/// Pools with too few pgs, of those where anybody wants to know. `used`: bytes clients stored.
pub fn advise(map: &ClusterMap, used: &BTreeMap<PoolId, u64>) -> Vec<Advice> {
    let osds = map.osds.iter().filter(|(_, state)| state.is_in()).count() as u128;
    let sizes = map.osds.iter().filter(|(_, state)| state.is_in()).filter_map(|(osd, _)| map.osd_info.get(osd));
    let capacity: u128 = sizes.map(|info| u128::from(info.capacity_bytes)).sum();
    let target = u128::from(MonSettings(map).number("mon.pg.per_osd_target"));
    let bulk = map.pools.values().filter(|pool| pool.flags.contains(PoolFlags::BULK)).count().max(1) as u128;
    let mut advice = Vec::new();
    for (id, pool) in map.pools.iter().filter(|(_, pool)| pool.pg_auto != PgAuto::Off) {
        let (times, over) = pool.overhead();
        let raw =
            |bytes: u64| u128::from(bytes) * u128::from(times) * 1_000_000 / u128::from(over).max(1) / capacity.max(1);
        let stored = raw(used.get(id).copied().unwrap_or(0));
        let promised = raw(pool.target_bytes).max(u128::from(pool.target_permille) * 1_000);
        let bulk_share = if pool.flags.contains(PoolFlags::BULK) { 1_000_000 / bulk } else { 0 };
        let share = stored.max(promised).max(bulk_share).min(1_000_000);
        let why = match share {
            share if share == stored => "by what it holds",
            share if share == promised => "by what it is expected to hold",
            _ => "as it is bulk",
        };
        let ideal = target * osds * share / 1_000_000 / u128::from(pool.size.max(1));
        let highest = if pool.pg_num_max == 0 { MAX_PGS } else { pool.pg_num_max };
        let ideal = nearest_power(u32::try_from(ideal).unwrap_or(MAX_PGS)).clamp(pool.pg_num_min.min(highest), highest);
        if ideal >= pool.pg_num_target.saturating_mul(2).max(2) {
            let why = format!("{}.{} % of the capacity, {why}", share / 10_000, share / 1_000 % 10);
            advice.push(Advice { pool: *id, name: pool.name.clone(), from: pool.pg_num_target, to: ideal, why });
        }
    }
    advice
}

/// The power of two nearest by ratio.
fn nearest_power(count: u32) -> u32 {
    let low = 1u32 << count.clamp(1, MAX_PGS).ilog2();
    // Beyond sqrt(2) times the lower power, the upper is nearer.
    if u64::from(count) * u64::from(count) > 2 * u64::from(low) * u64::from(low) { (low * 2).min(MAX_PGS) } else { low }
}

/// The advice as commands, for pools that leave it to the monitors.
pub fn commands(map: &ClusterMap, used: &BTreeMap<PoolId, u64>) -> Vec<Command> {
    let automatic = |advice: &Advice| map.pools.get(&advice.pool).is_some_and(|pool| pool.pg_auto == PgAuto::On);
    advise(map, used)
        .into_iter()
        .filter(automatic)
        .map(|advice| Command::PoolSet { pool: advice.name, option: "pg_num".into(), value: advice.to.to_string() })
        .collect()
}

/// Lets placement follow splits while not too much is on its way. `misplaced`: share of the data, in millionths.
pub fn follow_splits(map: &ClusterMap, misplaced: u64) -> Option<Command> {
    let limit = MonSettings(map).millionths("balancer.max_misplaced");
    if misplaced >= limit {
        return None;
    }
    let pool = map.pools.values().find(|pool| pool.pgp_num < pool.pg_num)?;
    // While placement tells n pgs apart, each is one of 2^k or 2^(k+1) parts of the pool: one more cuts a part in two and
    // moves the half, a 2^(k+1)th.
    let parts = 2u64 << pool.pgp_num.max(1).ilog2();
    let step = (parts * (limit - misplaced) / 1_000_000).max(1);
    let to = u64::from(pool.pgp_num).saturating_add(step).min(pool.pg_num.into());
    Some(Command::PgpStep { pool: pool.name.clone(), to: u32::try_from(to).unwrap_or(pool.pg_num) })
}
