//! Where a pg lives: from the crush mapping through upmap, failures, affinity and temporary mappings to its acting set.
//!
//! ```text
//! raw      what the pool's rule gives          (crush map, weights, pool)
//! mapped   ... with OSDs replaced by hand      (upmap, upmap_items)
//! up       ... without OSDs that are down      (osd states), primary chosen by affinity
//! acting   ... or who serves meanwhile         (pg_temp, primary_temp)
//! ```
//! Each step is Ceph's, so a cluster brought along keeps its data where it is; golden vectors hold it.
//!
//! [`Placement`] keeps `raw` and `mapped` of all pgs for one epoch; the last two steps are cheap enough to take on each
//! look-up, so an OSD that goes down or comes up costs no rebuild at all.

mod interval;
mod table;
#[cfg(test)]
#[path = "placement_test.rs"]
mod tests;

use nacre_crush::hash::hash2;
use nacre_crush::model::Weight;
use nacre_proto::ids::{OsdId, PgId};

pub use interval::{IntervalBreak, PgFacts, may_have_written};
pub use table::{Placement, PlacementError};

use crate::map::{ClusterMap, Pool};

/// The OSDs of a pg. In a replicated pool the sets hold OSDs only; in an erasure-coded pool the position is the shard and
/// [`OsdId::NONE`] is a shard that nobody holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PgMapping {
    /// Who should hold it.
    pub up: Vec<OsdId>,
    /// The first among them.
    pub up_primary: Option<OsdId>,
    /// Who serves it.
    pub acting: Vec<OsdId>,
    /// Who orders its writes.
    pub acting_primary: Option<OsdId>,
}

/// Replaces OSDs by hand: the whole set, then single ones. An entry that names an OSD which is out is passed over, as
/// putting data there is the contrary of what its operator wants.
fn apply_upmap(map: &ClusterMap, pg: PgId, set: &mut Vec<OsdId>) {
    let out = |osd: OsdId| osd.is_some() && osd < map.osds.end() && !map.is_in(osd);
    if let Some(whole) = map.upmap.get(&pg) {
        if whole.iter().any(|osd| out(*osd)) {
            return;
        }
        set.clear();
        set.extend_from_slice(whole);
    }
    for (from, to) in map.upmap_items.get(&pg).into_iter().flat_map(|items| items.iter()) {
        if set.contains(to) || out(*to) {
            continue;
        }
        if let Some(at) = set.iter().position(|osd| osd == from) {
            set[at] = *to;
        }
    }
}

/// Drops OSDs that do not serve: later copies move up, shards leave a hole.
fn keep_up(map: &ClusterMap, pool: &Pool, mapped: &[OsdId], set: &mut Vec<OsdId>) {
    set.clear();
    if pool.can_shift() {
        set.extend(mapped.iter().copied().filter(|osd| map.is_up(*osd)));
    } else {
        set.extend(mapped.iter().map(|osd| if map.is_up(*osd) { *osd } else { OsdId::NONE }));
    }
}

fn first(set: &[OsdId]) -> Option<OsdId> {
    set.iter().copied().find(|osd| osd.is_some())
}

/// Chooses the primary. Each OSD refuses in proportion to what its affinity lacks of 1.0, by a hash of pg and OSD, so that
/// the same share of its pgs goes elsewhere on every machine; if all refuse, the first has to.
fn choose_primary(map: &ClusterMap, pool: &Pool, seed: u32, set: &mut [OsdId]) -> Option<OsdId> {
    let affinity = |osd: OsdId| map.osds.get(osd).map_or(Weight::ONE, |state| state.affinity);
    let accepts = |osd: OsdId| {
        let affinity = affinity(osd);
        affinity >= Weight::ONE || hash2(seed, osd.0) >> 16 < affinity.0
    };
    let at = set
        .iter()
        .position(|osd| osd.is_some() && accepts(*osd))
        .or_else(|| set.iter().position(|osd| osd.is_some()))?;
    let primary = set[at];
    if pool.can_shift() {
        set[..=at].rotate_right(1);
    }
    Some(primary)
}

/// The last two steps, from `mapped` to up and acting.
fn resolve(map: &ClusterMap, pool: &Pool, pg: PgId, seed: u32, mapped: &[OsdId], into: &mut PgMapping) {
    keep_up(map, pool, mapped, &mut into.up);
    into.up_primary = choose_primary(map, pool, seed, &mut into.up);
    into.acting.clear();
    if let Some(temp) = map.pg_temp.get(&pg) {
        keep_up(map, pool, temp, &mut into.acting);
    }
    let temp_primary = first(&into.acting);
    let named = map.primary_temp.get(&pg).copied();
    if temp_primary.is_none() {
        into.acting.clear();
        into.acting.extend_from_slice(&into.up);
    }
    into.acting_primary = named.or(temp_primary).or(into.up_primary);
}
