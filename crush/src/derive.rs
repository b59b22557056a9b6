//! What a bucket's algorithm computes ahead from its item weights: straw lengths, tree nodes, running sums.
//!
//! The model keeps item weights only; these arrays follow from them. The mapper builds them when it compiles a map and
//! the binary format carries them. Each is what Ceph's builder computes, to the bit, for any weights: no panic, and
//! sums that Ceph would refuse to build (past 32 bits) stop at the largest value.

use crate::model::Weight;

/// The straw length of each item of a [`Straw`](crate::model::BucketAlg::Straw) bucket, 16.16 fixed point.
///
/// Items are visited from the lightest to the heaviest. All straws are scaled by a 16-bit hash and the longest wins, so
/// the lightest gets length 1.0 and each heavier one a length that gives it its share of the draws. Version 0 (Ceph
/// before hammer, [`Tunables::straw_calc_version`](crate::model::Tunables)) counts zero weights and groups of equal
/// weights wrongly, which later versions could not repair without moving data; every version above 0 is version 1.
pub fn straws(weights: &[Weight], version: u8) -> Vec<u32> {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|&i| weights[i]);
    let weight = |at: usize| weights[order[at]].0;

    let size = weights.len();
    let mut straws = vec![0; size];
    let mut left = size;
    let (mut straw, mut below, mut last) = (1.0_f64, 0.0_f64, 0.0_f64);
    let mut at = 0;
    while at < size {
        if weight(at) == 0 {
            // A straw of length 0 never wins. Version 0 forgets that one item fewer is left.
            at += 1;
            left -= usize::from(version > 0);
            continue;
        }
        straws[order[at]] = to_u32(straw * 65536.0);
        at += 1;
        if at == size {
            break;
        }
        if version == 0 && weight(at) == weight(at - 1) {
            continue;
        }
        let previous = f64::from(weight(at - 1));
        below += (previous - last) * left as f64;
        left -= match version {
            0 => (at..size).take_while(|&j| weight(j) == weight(at)).count(),
            _ => 1,
        };
        // Ceph multiplies an int and an unsigned here: 32 bits, wrapping.
        let next = f64::from((left as u32).wrapping_mul(weight(at) - weight(at - 1)));
        let share = below / (below + next);
        straw *= (1.0 / share).powf(1.0 / left as f64);
        last = previous;
    }
    straws
}

/// As the conversion of a C double to an unsigned 32-bit number goes on x86-64, also out of range.
fn to_u32(value: f64) -> u32 {
    if value < 9.2e18 { value as i64 as u32 } else { 0 }
}

/// The node weights of a [`Tree`](crate::model::BucketAlg::Tree) bucket.
///
/// The tree lies in an array as an in-order walk numbers it: item `i` is the leaf `2 i + 1`, the root is the middle, and
/// the children of a node of height `h` are `2^(h-1)` to its left and right. An inner node holds the sum of its leaves.
/// An empty bucket has no nodes. (Ceph's binary form counts nodes in one byte, so it can carry up to 64 items.)
pub fn tree_nodes(weights: &[Weight]) -> Vec<u32> {
    if weights.is_empty() {
        return Vec::new();
    }
    let depth = weights.len().next_power_of_two().trailing_zeros() + 1;
    let mut nodes = vec![0_u32; 1 << depth];
    for (i, weight) in weights.iter().enumerate() {
        let mut node = 2 * i + 1;
        nodes[node] = weight.0;
        for height in 0..depth - 1 {
            // The parent of a left child lies to its right and the other way round.
            let step = 1 << height;
            if node & (step << 1) == 0 {
                node += step;
            } else {
                node -= step;
            }
            nodes[node] = nodes[node].saturating_add(weight.0);
        }
    }
    nodes
}

/// For each item of a [`List`](crate::model::BucketAlg::List) bucket the sum of the weights up to and with its own.
pub fn list_sums(weights: &[Weight]) -> Vec<u32> {
    let mut sum = 0_u32;
    weights
        .iter()
        .map(|weight| {
            sum = sum.saturating_add(weight.0);
            sum
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(of: &[f64]) -> Vec<Weight> {
        of.iter().map(|w| Weight((w * 65536.0) as u32)).collect()
    }

    #[test]
    fn equal_weights_have_straws_of_one() {
        for version in [0, 1] {
            assert_eq!(straws(&weights(&[2.0; 5]), version), [0x10000; 5]);
        }
    }

    #[test]
    fn a_zero_weight_has_no_straw_and_changes_the_others_in_version_0_only() {
        let without = straws(&weights(&[1.0, 2.0, 4.0]), 1);
        let with = weights(&[1.0, 0.0, 2.0, 4.0]);
        assert_eq!(straws(&with, 1), [without[0], 0, without[1], without[2]]);
        assert_ne!(straws(&with, 0), straws(&with, 1));
        assert_eq!(straws(&with, 0)[1], 0);
    }

    #[test]
    fn two_straws_give_their_shares() {
        // With u, v uniform, P(u * a < v * b) = 1 - a / (2 b) for a <= b: a weight of 3 against 1 wants 3/4, so b = 2 a.
        assert_eq!(straws(&weights(&[1.0, 3.0]), 1), [0x10000, 0x20000]);
    }

    #[test]
    fn tree_nodes_sum_their_leaves() {
        let nodes = tree_nodes(&weights(&[1.0, 2.0, 3.0, 4.0, 5.0]));
        let one = 0x10000;
        assert_eq!(nodes.len(), 16);
        let leaves: Vec<u32> = nodes.iter().skip(1).step_by(2).map(|w| w / one).collect();
        assert_eq!(leaves, [1, 2, 3, 4, 5, 0, 0, 0]);
        assert_eq!([nodes[2], nodes[6], nodes[10], nodes[14]], [3 * one, 7 * one, 5 * one, 0]);
        assert_eq!([nodes[4], nodes[12], nodes[8]], [10 * one, 5 * one, 15 * one]);
        assert_eq!(tree_nodes(&weights(&[1.0])), [0, one]);
        assert_eq!(tree_nodes(&[]), [0; 0]);
    }

    #[test]
    fn sums_stop_at_the_largest_value() {
        let huge = [Weight(u32::MAX), Weight(7)];
        assert_eq!(list_sums(&huge), [u32::MAX, u32::MAX]);
        assert_eq!(tree_nodes(&huge)[2], u32::MAX);
        for version in [0, 1] {
            assert_eq!(straws(&huge, version).len(), 2);
        }
    }
}
