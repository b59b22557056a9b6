//! Which hashes a collection holds: ranges of bit-reversed hash. Pure arithmetic.
//!
//! A collection starts with every hash. A split cuts the child's range out of the parent's; nothing is ever moved.
//!
//! Invariant: ranges are inclusive, sorted, disjoint.

/// The bit-reversed hashes `(low, high)`, inclusive, that fall into `seed` when there are `pg_num` pgs.
/// `None` if there is no such pg.
#[must_use]
pub fn seed_range(seed: u32, pg_num: u32) -> Option<(u32, u32)> {
    if seed >= pg_num {
        return None;
    }
    // The hash's low `bits` bits select a pg; where that number is not a pg yet (pg_num is no power of two), one bit
    // less does. So `seed` owns `bits` bits if its sibling with the top bit flipped exists, else one bit less.
    let bits = u32::BITS - (pg_num - 1).leading_zeros();
    let top = if bits == 0 { 0 } else { 1u32 << (bits - 1) };
    let own = if bits > 0 && seed < top && (seed | top) >= pg_num { bits - 1 } else { bits };
    if own == 0 {
        return Some((0, u32::MAX));
    }
    let low = seed.reverse_bits();
    Some((low, low | (u32::MAX.checked_shr(own).unwrap_or(0))))
}

/// The hashes of one collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashRanges(pub Vec<(u32, u32)>);

impl HashRanges {
    /// Every hash.
    #[must_use]
    pub fn all() -> Self {
        HashRanges(vec![(0, u32::MAX)])
    }

    /// Whether a bit-reversed hash is in it.
    #[must_use]
    pub fn contains(&self, sort_hash: u32) -> bool {
        self.0.iter().any(|(low, high)| (*low..=*high).contains(&sort_hash))
    }

    /// Cuts `cut` out and returns what was cut.
    pub fn split_off(&mut self, cut: (u32, u32)) -> HashRanges {
        let (mut kept, mut taken) = (Vec::new(), Vec::new());
        for &(low, high) in &self.0 {
            if high < cut.0 || low > cut.1 {
                kept.push((low, high));
                continue;
            }
            if low < cut.0 {
                kept.push((low, cut.0 - 1));
            }
            taken.push((low.max(cut.0), high.min(cut.1)));
            if high > cut.1 {
                kept.push((cut.1 + 1, high));
            }
        }
        self.0 = kept;
        HashRanges(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stable_mod(hash: u32, pg_num: u32) -> u32 {
        let mask = pg_num.next_power_of_two() - 1;
        if hash & mask < pg_num { hash & mask } else { hash & (mask >> 1) }
    }

    #[test]
    fn a_range_holds_exactly_the_hashes_that_placement_gives_the_pg() {
        for pg_num in 1..=40 {
            for step in 0..2000u32 {
                let hash = step.wrapping_mul(0x9e37_79b9) ^ step;
                for seed in 0..pg_num {
                    let (low, high) = seed_range(seed, pg_num).unwrap();
                    let inside = (low..=high).contains(&hash.reverse_bits());
                    assert_eq!(inside, stable_mod(hash, pg_num) == seed, "{hash:x} {seed} of {pg_num}");
                }
            }
            assert_eq!(seed_range(pg_num, pg_num), None);
        }
    }

    #[test]
    fn splitting_shares_the_hashes_out_without_loss() {
        let mut parent = HashRanges::all();
        let mut parts: Vec<_> = (1..6).map(|seed| (seed, parent.split_off(seed_range(seed, 6).unwrap()))).collect();
        parts.push((0, parent));
        for step in 0..5000u32 {
            let hash = step.wrapping_mul(0x85eb_ca6b);
            let owners: Vec<_> = parts
                .iter()
                .filter(|(_, ranges)| ranges.contains(hash.reverse_bits()))
                .map(|(seed, _)| *seed)
                .collect();
            assert_eq!(owners, vec![stable_mod(hash, 6)]);
        }
    }
}
