//! When a pg's interval ends, and whether writes may have happened in it.
//!
//! An interval is the longest run of epochs in which everything that peering rests on stays the same. Peering must reach
//! someone of every past interval that may have taken writes, so both questions are answered here, once, for all.

use nacre_proto::ids::{Epoch, PgId};

use super::{PgMapping, Placement};
use crate::map::ClusterMap;

/// All that an interval rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PgFacts {
    /// Where it is.
    pub mapping: PgMapping,
    /// Copies or shards of the pool.
    pub size: u32,
    /// How many must be there for it to serve.
    pub min_size: u32,
    /// Pgs of the pool: a change splits or merges.
    pub pg_num: u32,
}

/// Why an interval ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntervalBreak {
    /// Others serve it.
    Acting,
    /// Another orders its writes.
    Primary,
    /// Others should hold it.
    Up,
    /// The first of those who should hold it is another.
    UpPrimary,
    /// The pool's size changed.
    Size,
    /// The pool's min_size changed.
    MinSize,
    /// It was split into, or split off from, another pg, or merged.
    PgNum,
}

impl Placement {
    /// What the interval of a pg rests on in this epoch; nothing if there is no such pg.
    pub fn facts(&self, pg: PgId) -> Option<PgFacts> {
        let pool = self.map().pool_of(pg)?;
        let (size, min_size, pg_num) = (pool.size, pool.min_size, pool.pg_num);
        Some(PgFacts { mapping: self.pg(pg)?, size, min_size, pg_num })
    }
}

impl PgFacts {
    /// Whether a new interval starts where `self` follows on `before`, and why.
    pub fn breaks(&self, before: &PgFacts) -> Option<IntervalBreak> {
        let (was, is) = (&before.mapping, &self.mapping);
        [
            (was.acting != is.acting, IntervalBreak::Acting),
            (was.acting_primary != is.acting_primary, IntervalBreak::Primary),
            (was.up != is.up, IntervalBreak::Up),
            (was.up_primary != is.up_primary, IntervalBreak::UpPrimary),
            (before.size != self.size, IntervalBreak::Size),
            (before.min_size != self.min_size, IntervalBreak::MinSize),
            // A split or merge of any pg of the pool may concern this one; a new interval too many only costs a peering.
            (before.pg_num != self.pg_num, IntervalBreak::PgNum),
        ]
        .into_iter()
        .find_map(|(differs, why)| differs.then_some(why))
    }
}

/// Whether writes may have been taken in the interval with these facts that began at `first`, seen from the map of its last
/// epoch. A primary only goes active after the monitors have noted that it lived in its interval (`up_thru`), so if they
/// have not, nothing was written, and peering need not wait for members of that interval who are gone.
pub fn may_have_written(facts: &PgFacts, first: Epoch, last_map: &ClusterMap) -> bool {
    let Some(primary) = facts.mapping.acting_primary else { return false };
    let members = facts.mapping.acting.iter().filter(|osd| osd.is_some()).count();
    members >= facts.min_size as usize
        && last_map.osds.get(primary).is_some_and(|state| state.up_thru >= first && state.up_from <= first)
}
