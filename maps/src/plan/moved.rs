//! What a change of the map moves: the answer of every dry run.

use std::collections::BTreeMap;

use nacre_proto::ids::{OsdId, PgId, PoolId};

use crate::placement::Placement;

/// How much of the data has to move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Pgs that lose or gain a place.
    pub pgs: u32,
    /// Copies or shards that have to be made elsewhere.
    pub copies: u64,
    /// Copies or shards there are.
    pub of: u64,
    /// Bytes that have to be made, by what pgs report; 0 if they do not.
    pub bytes: u64,
    /// Copies that arrive, by OSD.
    pub arrive: BTreeMap<OsdId, u32>,
}

impl Moved {
    /// The share of all copies that moves, in millionths.
    pub fn millionths(&self) -> u64 {
        if self.of == 0 {
            0
        } else {
            u64::try_from(u128::from(self.copies) * 1_000_000 / u128::from(self.of)).unwrap_or(0)
        }
    }
}

/// Compares where everything should be before and after. `bytes` says what a pg holds, where that is known.
pub fn between(before: &Placement, after: &Placement, bytes: &BTreeMap<PgId, u64>) -> Moved {
    let mut moved = Moved::default();
    for pg in after.pgs() {
        let is = after.mapped(pg).unwrap_or(&[]);
        moved.of += is.iter().filter(|osd| osd.is_some()).count() as u64;
        let Some(was) = before.mapped(pg).or_else(|| parent(before, pg)) else { continue };
        let shifts = after.map().pool_of(pg).is_some_and(|pool| pool.can_shift());
        let mut count = 0u64;
        for (at, osd) in is.iter().enumerate().filter(|(_, osd)| osd.is_some()) {
            // A shard is of use only in its own position, a copy in any.
            let there = if shifts { was.contains(osd) } else { was.get(at) == Some(osd) };
            if !there {
                count += 1;
                *moved.arrive.entry(*osd).or_default() += 1;
            }
        }
        moved.pgs += u32::from(count > 0);
        moved.copies += count;
        let data = match after.map().pool_of(pg).map(|pool| &pool.kind) {
            Some(crate::map::PoolKind::Erasure(profile)) => u64::from(profile.data.max(1)),
            _ => 1,
        };
        moved.bytes = moved.bytes.saturating_add(bytes.get(&pg).copied().unwrap_or(0).saturating_mul(count) / data);
    }
    moved
}

/// Where the objects of a pg that a split makes lie before: in the pg it splits off from.
fn parent(before: &Placement, pg: PgId) -> Option<&[OsdId]> {
    let pg_num = before.map().pools.get(&PoolId(pg.pool.0))?.pg_num;
    before.mapped(PgId { seed: nacre_crush::pg::stable_mod(pg.seed, pg_num), ..pg })
}
