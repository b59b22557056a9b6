//! The cluster map as placement groups see it, and the history of maps that an OSD has to keep: a pg follows every epoch
//! since it last wrote down how far it was, so none in between may be left out.
//!
//! Invariant of [`History`]: epochs are contiguous. A map that does not follow on the last one begins a new history, and
//! is refused while pgs still need the old one ([`SightError::Gap`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use nacre_maps::ClusterMap;
use nacre_maps::increment::{ApplyError, Increment};
use nacre_maps::map::{OsdFlags, PoolFlags};
use nacre_maps::placement::{Placement, PlacementError};
use nacre_pg::view::{OsdSight, PoolRules, View};
use nacre_proto::ids::{Epoch, OsdId, PgId};

/// Why a map cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum SightError {
    /// Epochs are missing in between.
    #[error("maps {have} to {first} are missing, which the monitors no longer keep one by one: this OSD was away for too long to follow what happened. Its data is left as it is; when `nacre pg explain` says that all pgs are clean without it, exchange it (`nacre osd replace`), and it is filled from the others", first = first.0, have = have.0)]
    Gap {
        /// The last epoch here.
        have: Epoch,
        /// The next one that can be had.
        first: Epoch,
    },
    /// A map that does not fit the last one.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Bytes that are no map.
    #[error(transparent)]
    Decode(#[from] nacre_maps::codec::DecodeError),
    /// A map that places nothing.
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

/// One epoch.
pub struct Sight {
    /// The whole map.
    pub map: Arc<ClusterMap>,
    placement: Placement,
    osds: Arc<BTreeMap<OsdId, OsdSight>>,
}

impl std::fmt::Debug for Sight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sight({})", self.map.epoch)
    }
}

fn osds(map: &ClusterMap) -> Arc<BTreeMap<OsdId, OsdSight>> {
    let sight = |state: &nacre_maps::map::OsdState| OsdSight {
        up: state.is_up(),
        up_from: state.up_from,
        up_thru: state.up_thru,
        dead: state.flags.contains(OsdFlags::DEAD),
        born: state.born,
        lost_at: state.lost_at,
        full: state.flags.contains(OsdFlags::FULL),
    };
    Arc::new(map.osds.iter().map(|(osd, state)| (osd, sight(state))).collect())
}

impl Sight {
    /// Of a map that follows on nothing.
    pub fn first(map: ClusterMap) -> Result<Sight, SightError> {
        let map = Arc::new(map);
        Ok(Sight { osds: osds(&map), placement: Placement::build(Arc::clone(&map))?, map })
    }

    /// Of the next map.
    pub fn next(&self, increment: &Increment) -> Result<Sight, SightError> {
        let map = Arc::new(self.map.apply(increment)?);
        let placement = self.placement.next(Arc::clone(&map))?;
        Ok(Sight { osds: osds(&map), placement, map })
    }

    /// Its number.
    pub fn epoch(&self) -> Epoch {
        self.map.epoch
    }

    /// One pg, if its pool is there and has that many.
    pub fn view(&self, pg: PgId) -> Option<Arc<View>> {
        let pool = self.map.pool_of(pg)?;
        let found = self.placement.pg(pg)?;
        Some(Arc::new(View {
            epoch: self.map.epoch,
            up: found.up,
            up_primary: found.up_primary,
            acting: found.acting,
            primary: found.acting_primary,
            pool: PoolRules {
                size: pool.size,
                min_size: pool.min_size,
                pg_num: pool.pg_num,
                removed_snaps: Arc::clone(&pool.removed_snaps),
                full: pool.flags.intersects(PoolFlags::FULL | PoolFlags::QUOTA_FULL),
            },
            osds: Arc::clone(&self.osds),
        }))
    }

    /// Every pg this OSD is the primary of.
    pub fn led_by(&self, osd: OsdId) -> impl Iterator<Item = PgId> + '_ {
        self.placement
            .pgs()
            .filter(move |pg| self.placement.pg(*pg).is_some_and(|found| found.acting_primary == Some(osd)))
    }
}

/// The maps this OSD still needs, newest last.
#[derive(Clone, Debug, Default)]
pub struct History {
    sights: VecDeque<Arc<Sight>>,
}

impl History {
    /// The newest.
    pub fn last(&self) -> Option<&Arc<Sight>> {
        self.sights.back()
    }

    /// The oldest.
    pub fn first(&self) -> Option<&Arc<Sight>> {
        self.sights.front()
    }

    /// One epoch.
    pub fn get(&self, epoch: Epoch) -> Option<&Arc<Sight>> {
        let first = self.sights.front()?.epoch().0;
        self.sights.get(usize::try_from(epoch.0.checked_sub(first)?).ok()?)
    }

    /// A whole map. One that is here already, or older, changes nothing.
    pub fn whole(&mut self, bytes: &[u8]) -> Result<Option<Arc<Sight>>, SightError> {
        let map = ClusterMap::decode(bytes)?;
        match self.last() {
            Some(last) if map.epoch <= last.epoch() => return Ok(None),
            Some(last) => return Err(SightError::Gap { have: last.epoch(), first: map.epoch }),
            None => {}
        }
        let sight = Arc::new(Sight::first(map)?);
        self.sights.push_back(Arc::clone(&sight));
        Ok(Some(sight))
    }

    /// A change. One that is here already changes nothing.
    pub fn change(&mut self, bytes: &[u8]) -> Result<Option<Arc<Sight>>, SightError> {
        let increment = Increment::decode(bytes)?;
        let Some(last) = self.sights.back() else {
            return Err(SightError::Gap { have: Epoch(0), first: increment.epoch });
        };
        if increment.epoch <= last.epoch() {
            return Ok(None);
        }
        let sight = Arc::new(last.next(&increment)?);
        self.sights.push_back(Arc::clone(&sight));
        Ok(Some(sight))
    }

    /// All, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Sight>> {
        self.sights.iter()
    }

    /// The next one, made elsewhere.
    pub fn push(&mut self, sight: Arc<Sight>) {
        if self.last().is_none_or(|last| last.epoch().next() == sight.epoch()) {
            self.sights.push_back(sight);
        }
    }

    /// Nobody needs what is before this.
    pub fn forget_before(&mut self, epoch: Epoch) {
        while self.sights.len() > 1 && self.sights.front().is_some_and(|sight| sight.epoch() < epoch) {
            self.sights.pop_front();
        }
    }
}
