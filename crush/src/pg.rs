//! From an object's name to its pg, and from a pg to the input of its mapping. All of it is Ceph's arithmetic.
//!
//! ```text
//! name (and namespace) --hash--> 32 bits --stable_mod(pg_num)--> pg --stable_mod(pgp_num), pool--> seed --rule--> OSDs
//! ```
//! The last arrow is [`Plan::map`](crate::map::Plan::map) with the seed for `x`. What lies over it (upmap, primary
//! affinity, temporary sets, OSDs that do not exist) belongs to the cluster map.

use crate::hash::{hash_parts, hash2};

/// Stands between namespace and name when both are hashed.
const SEPARATOR: u8 = 0x1f;

/// The hash of an object's name in a namespace; the empty namespace is none.
pub fn object_hash(namespace: &[u8], name: &[u8]) -> u32 {
    match namespace {
        [] => hash_parts(&[name]),
        _ => hash_parts(&[namespace, &[SEPARATOR], name]),
    }
}

/// `x` modulo `n`, stable under growth: when `n` rises by one, a single class splits in two and all others stay.
///
/// It takes as many low bits as numbers below `n` need; where they give `n` or more, one bit fewer. With `n` 0, as with 1,
/// everything is 0.
#[inline]
pub fn stable_mod(x: u32, n: u32) -> u32 {
    let mask = n.saturating_sub(1).checked_ilog2().map_or(0, |bits| u32::MAX >> (31 - bits));
    if x & mask < n { x & mask } else { x & (mask >> 1) }
}

/// What a pool's pgs are placed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pgs {
    /// The pool's id. Its low 32 bits count.
    pub pool: u64,
    /// How many pgs it has.
    pub pg_num: u32,
    /// How many of them are placed apart: pgs that are equal modulo this lie together. Lags behind `pg_num` while a
    /// split has not been spread yet.
    pub pgp_num: u32,
    /// Whether the pool's id is hashed into the seed. Without (very old pools) pg n of one pool lies where pg n - 1 of the
    /// next lies.
    pub hashed: bool,
}

impl Pgs {
    /// The pg that holds an object with this [`object_hash`].
    #[inline]
    pub fn of(&self, object_hash: u32) -> u32 {
        stable_mod(object_hash, self.pg_num)
    }

    /// The input of the pool's rule for a pg.
    #[inline]
    pub fn seed(&self, pg: u32) -> u32 {
        let pg = stable_mod(pg, self.pgp_num);
        let pool = self.pool as u32;
        if self.hashed { hash2(pg, pool) } else { pg.wrapping_add(pool) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_mod_covers_all_classes_and_splits_one_at_a_time() {
        for n in 1..300 {
            let mut seen = vec![false; n as usize];
            for x in 0..2048 {
                let (before, after) = (stable_mod(x, n), stable_mod(x, n + 1));
                seen[before as usize] = true;
                assert!(after == before || after == n, "{x} goes from {before} to {after} when {n} grows");
            }
            assert!(seen.iter().all(|&seen| seen), "{n}");
        }
        assert_eq!([stable_mod(77, 0), stable_mod(77, 1)], [0, 0]);
        assert_eq!(stable_mod(u32::MAX, u32::MAX), u32::MAX >> 1);
    }

    #[test]
    fn a_power_of_two_is_a_plain_modulo() {
        for bits in 0..31 {
            assert_eq!(stable_mod(0xdead_beef, 1 << bits), 0xdead_beef % (1 << bits));
        }
    }

    #[test]
    fn unhashed_pools_overlap() {
        let pgs = |pool| Pgs { pool, pg_num: 8, pgp_num: 8, hashed: false };
        assert_eq!(pgs(3).seed(5), pgs(4).seed(4));
    }
}
