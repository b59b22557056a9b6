//! Full devices and used-up quotas: what daemons report of them becomes flags of the map, which every OSD and client
//! follows. Only what changes a flag is worth an epoch.

use nacre_proto::ids::{OsdId, PoolId, Stamp};

use super::{Outcome, edit_osd, set};
use crate::increment::Draft;
use crate::map::{ClusterMap, OsdFlags, PoolFlags};
use crate::settings::MonSettings;

/// What is used of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OsdUsage {
    /// Whose.
    pub osd: OsdId,
    /// Bytes in use.
    pub used: u64,
    /// Bytes there are.
    pub total: u64,
}

/// What a pool holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUsage {
    /// Which.
    pub pool: PoolId,
    /// Bytes clients stored.
    pub bytes: u64,
    /// Objects.
    pub objects: u64,
}

/// Marks what is full, by the ratios that are set and the pools' quotas, and takes the mark from what is not.
pub fn note(map: &ClusterMap, osds: &[OsdUsage], pools: &[PoolUsage], now: Stamp) -> Outcome {
    let settings = MonSettings(map);
    let levels = [
        (OsdFlags::FULL, "osd.full.ratio"),
        (OsdFlags::BACKFILL_FULL, "osd.backfillfull.ratio"),
        (OsdFlags::NEAR_FULL, "osd.nearfull.ratio"),
    ]
    .map(|(flag, name)| (flag, u128::from(settings.millionths(name))));
    let mut draft = Draft::of(map, now);
    for usage in osds.iter().filter(|usage| map.osds.contains(usage.osd)) {
        let over =
            |share: u128| usage.total > 0 && u128::from(usage.used) * 1_000_000 >= u128::from(usage.total) * share;
        edit_osd(&mut draft, usage.osd, |state| {
            for (flag, share) in levels {
                state.flags.set(flag, over(share));
            }
        });
    }
    for usage in pools {
        let Some(pool) = map.pools.get(&usage.pool) else { continue };
        let over = |used: u64, quota: u64| quota > 0 && used >= quota;
        let full = over(usage.bytes, pool.quota_bytes) || over(usage.objects, pool.quota_objects);
        if pool.flags.contains(PoolFlags::QUOTA_FULL) != full {
            let mut pool = std::sync::Arc::clone(pool);
            std::sync::Arc::make_mut(&mut pool).flags.set(PoolFlags::QUOTA_FULL, full);
            set(&mut draft.pools, usage.pool, pool);
        }
    }
    Outcome::of(draft, "what is full was noted")
}
