//! How many copies of objects a pg still has to make, for progress and health: an estimate by what its primary knows, not a
//! listing. Nothing decides by it.

use super::{PlacementGroup, Role};
use crate::msg::Cursor;

/// Copies of objects that are not where they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// Copies that are nowhere: fewer than the pool wants.
    pub degraded: u64,
    /// Copies that are somewhere, and are to be made elsewhere.
    pub misplaced: u64,
}

/// What is left of `objects` for a copy that is filled up to `cursor`, in a pool of `pg_num` pgs. Objects lie in the order
/// of their bit-reversed hashes, and those of one pg share the first bits.
fn left(objects: u64, cursor: &Cursor, pg_num: u32) -> u64 {
    match cursor {
        Cursor::Max => 0,
        Cursor::Min => objects,
        Cursor::At(oid) => {
            let own = oid.hash.reverse_bits().wrapping_shl(pg_num.max(1).ilog2());
            let rest = (u128::from(u32::MAX - own) * u128::from(objects)) >> 32;
            // Until it is at its end there is something left.
            u64::try_from(rest).unwrap_or(objects).max(1).min(objects)
        }
    }
}

impl PlacementGroup {
    /// See the module. Only a primary whose members have activated knows; others say nothing.
    pub fn still_lacking(&self) -> Lacking {
        let Role::Primary(primary) = &self.role else { return Lacking::default() };
        if !primary.is_started() {
            return Lacking::default();
        }
        let objects = self.info.stats.objects;
        let lacks = |osd| {
            if osd == self.me {
                return (self.missing.len() as u64).min(objects);
            }
            let Some(peer) = primary.peers.get(&osd) else { return objects };
            let missing = peer.missing.as_ref().map_or(0, |missing| missing.len() as u64);
            missing.saturating_add(left(objects, &peer.info.backfilled, self.view.pool.pg_num)).min(objects)
        };
        let (up, acting) = (&self.view.up, &self.view.acting);
        let to_be: u64 = up.iter().filter(|osd| osd.is_some()).map(|osd| lacks(*osd)).sum();
        let members = acting.iter().chain(up.iter().filter(|osd| !acting.contains(osd))).filter(|osd| osd.is_some());
        let there: u64 = members.map(|osd| objects - lacks(*osd)).sum();
        let degraded = objects.saturating_mul(u64::from(self.view.pool.size)).saturating_sub(there);
        Lacking { degraded, misplaced: to_be.saturating_sub(degraded) }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nacre_proto::ids::{ObjectId, PoolId, SnapId};

    use super::left;
    use crate::msg::Cursor;

    #[test]
    fn what_is_left_goes_down_with_the_cursor() {
        let at = |reversed: u32| {
            let hash = reversed.reverse_bits();
            Cursor::At(ObjectId {
                pool: PoolId(1),
                hash,
                namespace: Bytes::new(),
                name: "a".into(),
                snap: SnapId::HEAD,
            })
        };
        assert_eq!(left(1000, &Cursor::Min, 8), 1000);
        assert_eq!(left(1000, &Cursor::Max, 8), 0);
        // Of eight pgs each has the objects of an eighth of the hashes, here the last eighth.
        assert_eq!(left(1000, &at(0xf000_0000), 8), 499);
        assert_eq!(left(1000, &at(0xe000_0000), 8), 999);
        assert_eq!(left(1000, &at(u32::MAX), 8), 1);
        assert_eq!(left(0, &at(0xe000_0000), 8), 0);
    }
}
