//! Drawing one item of a bucket: the five algorithms, and the permutation that uniform buckets and old tunables use.
//!
//! Each takes the bucket, the input and the attempt and gives the place of an item in [`Mapper::items`]. The bucket has at
//! least one item. Random permutations are the only state; they are forgotten from one mapping to the next.

use super::compile::{Bucket, View, padded};
use super::{Mapper, Scratch};
use crate::hash::{hash3, hash4};
use crate::ln::depth;
use crate::model::{BucketAlg, ItemId};
use crate::simd::Job;

/// A position of an indep choice that nothing was found for yet. No device has this id.
pub(super) const UNDECIDED: ItemId = 0x7fff_fffe;

/// Straw2 buckets of fewer items are drawn without the kernel.
const WORTH_VECTORS: usize = 3;

impl Mapper {
    /// Draws an item of bucket `n`.
    #[inline]
    pub(super) fn choose(
        &self,
        views: &[View],
        n: u32,
        x: u32,
        r: u32,
        position: usize,
        scratch: &mut Scratch,
    ) -> usize {
        let bucket = &self.buckets[n as usize];
        let start = bucket.start as usize;
        let items = &self.items[start..start + bucket.size as usize];
        start
            + match bucket.alg {
                BucketAlg::Straw2 => self.straw2(&views[n as usize], bucket.size as usize, x, r, position, scratch),
                BucketAlg::Uniform => scratch.perms.choose(bucket, x, r),
                BucketAlg::List => self.list(bucket, items, n, x, r),
                BucketAlg::Tree => self.tree(bucket, x, r),
                BucketAlg::Straw => self.straw(bucket, items, x, r),
            }
    }

    fn straw2(&self, view: &View, size: usize, x: u32, r: u32, position: usize, scratch: &mut Scratch) -> usize {
        let last = view.positions as usize - 1;
        let room = padded(size);
        let weights = view.weights as usize + position.min(last) * room;
        if size < WORTH_VECTORS {
            return straw2(&self.pool.ids[view.ids as usize..][..size], &self.pool.weights[weights..][..size], x, r);
        }
        let Scratch { jobs, bounds, .. } = scratch;
        jobs.clear();
        jobs.push(Job { x, r, ids: view.ids, weights: weights as u32, size: size as u32, start: 0, tag: 0 });
        self.kernel.draw(&self.pool, jobs, room.min(16), bounds);
        jobs.drawn().next().map_or(0, |drawn| drawn.at)
    }

    /// From the newest item to the oldest: each wins by its share of what it and all older ones weigh.
    fn list(&self, bucket: &Bucket, items: &[ItemId], n: u32, x: u32, r: u32) -> usize {
        let sums = &self.derived[bucket.derived as usize..][..items.len()];
        let weights = &self.pool.weights[self.views.views[n as usize].weights as usize..][..items.len()];
        let wins = |&i: &usize| {
            let draw = hash4(x, items[i] as u32, r, bucket.id as u32) & 0xffff;
            (u64::from(draw) * u64::from(sums[i])) >> 16 < u64::from(weights[i])
        };
        (0..items.len()).rev().find(wins).unwrap_or(0)
    }

    /// From the root of a binary tree down: left or right by weight.
    fn tree(&self, bucket: &Bucket, x: u32, r: u32) -> usize {
        let last = bucket.size as usize - 1;
        let half = (last + 1).next_power_of_two();
        let nodes = &self.derived[bucket.derived as usize..][..2 * half];
        let (mut node, mut step) = (half, half);
        while step > 1 {
            step /= 2;
            let draw = u64::from(hash4(x, node as u32, r, bucket.id as u32));
            let point = (draw * u64::from(nodes[node])) >> 32;
            node = if point < u64::from(nodes[node - step]) { node - step } else { node + step };
        }
        // Where nothing weighs anything the descent keeps to the right and can end beside the last item.
        (node / 2).min(last)
    }

    /// Each straw's length times a hash; the first of the longest wins.
    fn straw(&self, bucket: &Bucket, items: &[ItemId], x: u32, r: u32) -> usize {
        let straws = &self.derived[bucket.derived as usize..][..items.len()];
        let mut best = (0, 0);
        for (i, (&item, &straw)) in items.iter().zip(straws).enumerate() {
            let draw = u64::from(hash3(x, item as u32, r) & 0xffff) * u64::from(straw);
            if draw > best.0 {
                best = (draw, i);
            }
        }
        best.1
    }
}

/// The straw2 draw as it is defined: the smallest `depth / weight` wins, the first of several; zero weights never do.
/// At least one weight is above zero.
pub(crate) fn straw2(ids: &[u32], weights: &[u32], x: u32, r: u32) -> usize {
    let mut best = (u64::MAX, 0);
    for (i, (&id, &weight)) in ids.iter().zip(weights).enumerate() {
        if let Some(draw) = depth(hash3(x, id, r)).checked_div(u64::from(weight))
            && draw < best.0
        {
            best = (draw, i);
        }
    }
    best.1
}

/// Random permutations of buckets, one for each bucket and mapping, computed as far as they are asked for.
#[derive(Debug, Default)]
pub(super) struct Permutations {
    /// Numbers the mappings, so that what an earlier one left need not be wiped.
    mapping: u64,
    /// By bucket start: the permutation.
    places: Vec<u32>,
    /// By bucket start: the mapping it belongs to and how many places are settled.
    settled: Vec<(u64, u32)>,
}

impl Permutations {
    /// Forgets all permutations, and makes room for a mapper with that many items.
    pub(super) fn begin(&mut self, items: usize) {
        self.mapping += 1;
        if self.places.len() < items {
            self.places.resize(items, 0);
            self.settled.resize(items, (0, 0));
        }
    }

    /// The item at place `r` of the bucket's permutation, by Fisher and Yates with hashes for dice.
    pub(super) fn choose(&mut self, bucket: &Bucket, x: u32, r: u32) -> usize {
        let size = bucket.size;
        let place = r % size;
        let dice = |p: u32| hash3(x, bucket.id as u32, p) % (size - p);
        if place == 0 {
            return dice(0) as usize;
        }
        let start = bucket.start as usize;
        let places = &mut self.places[start..start + size as usize];
        let (mapping, settled) = &mut self.settled[start];
        if *mapping != self.mapping {
            (*mapping, *settled) = (self.mapping, 0);
            places.iter_mut().zip(0..).for_each(|(place, i)| *place = i);
        }
        while *settled <= place {
            let p = *settled;
            // The last one has nobody to change with.
            if p < size - 1 {
                places.swap(p as usize, (p + dice(p)) as usize);
            }
            *settled += 1;
        }
        places[place as usize] as usize
    }
}
