//! Drawing items of straw2 buckets many at a time, in the lanes of vector registers.
//!
//! # How it stays exact
//! A draw asks which item has the smallest `floor(depth(hash) / weight)`, the first of several (see [`crate::ln`]). Only
//! the hash is worth vectors; a 48-bit logarithm from two tables and a 64-bit division are not. So the lanes compute two
//! bounds for the quotient, as floats: `depth` lies between a polynomial of the hash and that plus [`SPREAD`], and is
//! multiplied by the reciprocal of the weight. An item whose lower bound is above the smallest upper bound cannot win. Nearly
//! always a single item remains. If several do, the definition decides among them, in integers.
//!
//! The bounds are checked for all 65536 hashes by a test, for each instruction set with the very code that computes them.
//!
//! # Layout
//! Items lie in [`Pool`], each bucket in whole groups of four, eight or sixteens (`padded` in [`crate::map`]'s `compile`).
//! Small buckets share a register: sixteen lanes hold four draws of up to four items or two of up to eight. Several
//! registers go through the hash abreast, because each of its steps waits for the one before.
//!
//! # Unsafe
//! Only here, for two reasons: vector loads take pointers, and code compiled for an instruction set may run only where it
//! exists. [`Kernel`] is made by asking the processor and there is no other way to get one; all loads go through slices of
//! checked length. Everything else, the kernels' control flow included, is the same code for all instruction sets: the
//! trait [`Lanes`] is all that differs.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use crate::hash::{PAD_X, PAD_Y, SEED};
use crate::ln::depth;

/// How many draws fit one [`Jobs`].
pub(crate) const JOBS: usize = 256;

/// Room behind them, so that the last registers can be filled up.
const TAIL: usize = 16;

/// What the draws of all buckets read. Every run of items is padded with weights of zero.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// What is hashed for each item.
    pub(crate) ids: Vec<u32>,
    /// 16.16 weights.
    pub(crate) weights: Vec<u32>,
    /// For each weight the bits of [`reciprocal`].
    pub(crate) reciprocals: Vec<u32>,
}

/// The unit of depths in the lanes: `2^44`, one power of two of the hash.
const UNIT: f32 = 17_592_186_044_416.0;

/// What a weight of zero has for its reciprocal: far above any other's, so that its item is never the best.
const NEVER: f32 = 1e30;

/// How far the true depth can lie above the polynomial, in [`UNIT`]s.
const SPREAD: f32 = 1.1e-4;

/// From the highest power to the first.
const POLYNOMIAL: [f32; 5] = [-0.043_004_956, 0.402_513_38, -1.589_474_3, 3.489_878_7, -4.047_855_4];

/// The polynomial's constant, 16 and the exponent's bias of 127.
const CONSTANT: f32 = 144.787_88;

/// The float whose bits go to [`Pool::reciprocals`].
pub(crate) fn reciprocal(weight: u32) -> f32 {
    if weight == 0 { NEVER } else { UNIT / weight as f32 }
}

/// Draws to make, as columns, and what they gave.
#[derive(Debug)]
pub(crate) struct Jobs {
    len: usize,
    x: [u32; JOBS + TAIL],
    r: [u32; JOBS + TAIL],
    ids: [u32; JOBS + TAIL],
    weights: [u32; JOBS + TAIL],
    size: [u32; JOBS + TAIL],
    start: [u32; JOBS + TAIL],
    /// For the caller: whose draw it is.
    tag: [u32; JOBS + TAIL],
    found: [u32; JOBS + TAIL],
}

impl Default for Jobs {
    fn default() -> Jobs {
        let column = [0; JOBS + TAIL];
        Jobs {
            len: 0,
            x: column,
            r: column,
            ids: column,
            weights: column,
            size: column,
            start: column,
            tag: column,
            found: column,
        }
    }
}

/// One draw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) x: u32,
    pub(crate) r: u32,
    /// Where the ids begin in [`Pool::ids`].
    pub(crate) ids: u32,
    /// Where the weights begin in [`Pool::weights`].
    pub(crate) weights: u32,
    pub(crate) size: u32,
    /// Where the bucket's items begin.
    pub(crate) start: u32,
    pub(crate) tag: u32,
}

/// What a draw gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drawn {
    pub(crate) x: u32,
    pub(crate) r: u32,
    pub(crate) tag: u32,
    /// The winner: its place among all items.
    pub(crate) at: usize,
}

impl Jobs {
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a draw. There must be room.
    #[inline(always)]
    pub(crate) fn push(&mut self, job: Job) {
        let at = self.len;
        assert!(at < JOBS);
        self.x[at] = job.x;
        self.r[at] = job.r;
        self.ids[at] = job.ids;
        self.weights[at] = job.weights;
        self.size[at] = job.size;
        self.start[at] = job.start;
        self.tag[at] = job.tag;
        self.len = at + 1;
    }

    /// The results, in the order of the draws.
    #[inline(always)]
    pub(crate) fn drawn(&self) -> impl Iterator<Item = Drawn> {
        (0..self.len).map(|i| Drawn {
            x: self.x[i],
            r: self.r[i],
            tag: self.tag[i],
            at: (self.start[i] + self.found[i]) as usize,
        })
    }

    /// Fills the columns up to a multiple of what the registers take with copies of the last draw.
    fn fill_tail(&mut self) {
        let (from, to) = (self.len, self.len.next_multiple_of(TAIL));
        for column in [&mut self.x, &mut self.r, &mut self.ids, &mut self.weights, &mut self.size] {
            let last = column[from - 1];
            column[from..to].fill(last);
        }
    }

    /// The definition of the draw among the `candidates`, from which all others are ruled out.
    #[cold]
    fn settle(&self, pool: &Pool, at: usize, candidates: impl Iterator<Item = usize>) -> u32 {
        let (ids, weights) = (&pool.ids[self.ids[at] as usize..], &pool.weights[self.weights[at] as usize..]);
        let mut best = (u64::MAX, 0);
        for i in candidates {
            let depth = depth(crate::hash::hash3(self.x[at], ids[i], self.r[at]));
            if let Some(draw) = depth.checked_div(u64::from(weights[i]))
                && draw < best.0
            {
                best = (draw, i as u32);
            }
        }
        best.1
    }
}

/// Which code draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Kernel {
    /// All that run on this machine, the best last.
    pub fn all() -> Vec<Kernel> {
        let mut all = vec![Kernel(Set::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Kernel(Set::Avx2));
            }
            if is_x86_feature_detected!("avx512f") {
                all.push(Kernel(Set::Avx512));
            }
        }
        all
    }

    /// The best for this machine.
    pub fn best() -> Kernel {
        Kernel::all().pop().unwrap_or(Kernel(Set::Portable))
    }

    /// Its name, for reports.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
        }
    }

    /// Makes all draws, each of a bucket padded to `room` items; `room` is 4, 8, or 16 for any multiple of it.
    ///
    /// `bounds` is scratch space for the items of the largest bucket.
    #[inline]
    pub(crate) fn draw(self, pool: &Pool, jobs: &mut Jobs, room: usize, bounds: &mut Vec<u32>) {
        if jobs.is_empty() {
            return;
        }
        jobs.fill_tail();
        match self.0 {
            Set::Portable => portable::draw(pool, jobs, room, bounds),
            // SAFETY: this variant is made only where the processor said it has avx2 and fma.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { avx2::draw(pool, jobs, room, bounds) },
            // SAFETY: this variant is made only where the processor said it has avx512f.
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => unsafe { avx512::draw(pool, jobs, room, bounds) },
        }
    }
}

/// A register of 32-bit lanes, some operations on it, and the ways it is filled.
///
/// # Safety
/// All functions may be called only where the instruction set exists; they are inlined into functions compiled for it.
trait Lanes: Copy {
    /// How many: a multiple of 8, at most 16.
    const COUNT: usize;

    unsafe fn splat(value: u32) -> Self;
    /// The first [`Self::COUNT`] values.
    unsafe fn load(values: &[u32]) -> Self;
    /// Into the first [`Self::COUNT`] places.
    unsafe fn store(self, to: &mut [u32]);
    unsafe fn first(self) -> u32;
    /// The first `COUNT / 4` values, each in four lanes.
    unsafe fn splat_quads(values: &[u32]) -> Self;
    /// The first `COUNT / 8` values, each in eight lanes.
    unsafe fn splat_octs(values: &[u32]) -> Self;
    /// For each of the first `COUNT / 4` offsets the four values from there on.
    unsafe fn load_quads(values: &[u32], at: &[u32]) -> Self;
    /// For each of the first `COUNT / 8` offsets the eight values from there on.
    unsafe fn load_octs(values: &[u32], at: &[u32]) -> Self;

    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn xor(self, other: Self) -> Self;
    unsafe fn and(self, other: Self) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    unsafe fn shl<const N: u32>(self) -> Self;
    unsafe fn shr<const N: u32>(self) -> Self;

    /// From integers to floats; below, all lanes are floats.
    unsafe fn to_float(self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * factor + summand`
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
    /// Each lane gets the smallest of its group of four, of eight, of all.
    unsafe fn min_of_quad(self) -> Self;
    unsafe fn min_of_oct(self) -> Self;
    unsafe fn min_of_all(self) -> Self;
    /// A bit for each lane that is less or equal.
    unsafe fn at_most(self, other: Self) -> u32;
}

#[inline(always)]
unsafe fn splat_float<V: Lanes>(value: f32) -> V {
    // SAFETY: passed on to the caller.
    unsafe { V::splat(value.to_bits()) }
}

/// One stirring of three words, `K` registers abreast.
#[inline(always)]
unsafe fn mix<V: Lanes, const K: usize>(a: &mut [V; K], b: &mut [V; K], c: &mut [V; K]) {
    macro_rules! line {
        ($to:ident, $with:ident, $by:ident, $shift:ident, $n:literal) => {
            for k in 0..K {
                // SAFETY: passed on to the caller.
                unsafe { $to[k] = $to[k].sub($with[k]).sub($by[k]).xor($by[k].$shift::<$n>()) };
            }
        };
    }
    line!(a, b, c, shr, 13);
    line!(b, c, a, shl, 8);
    line!(c, a, b, shr, 13);
    line!(a, b, c, shr, 12);
    line!(b, c, a, shl, 16);
    line!(c, a, b, shr, 5);
    line!(a, b, c, shr, 3);
    line!(b, c, a, shl, 10);
    line!(c, a, b, shr, 15);
}

/// [`hash3`](crate::hash::hash3) in lanes.
#[inline(always)]
unsafe fn hash3<V: Lanes, const K: usize>(mut a: [V; K], mut b: [V; K], mut c: [V; K]) -> [V; K] {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut hash = a;
        for k in 0..K {
            hash[k] = V::splat(SEED).xor(a[k]).xor(b[k]).xor(c[k]);
        }
        let (mut x, mut y) = ([V::splat(PAD_X); K], [V::splat(PAD_Y); K]);
        mix(&mut a, &mut b, &mut hash);
        mix(&mut c, &mut x, &mut hash);
        mix(&mut y, &mut a, &mut hash);
        mix(&mut b, &mut x, &mut hash);
        mix(&mut y, &mut c, &mut hash);
        hash
    }
}

/// A lower bound of the depth of a hash in [`UNIT`]s; the depth is less than [`SPREAD`] above it.
#[inline(always)]
unsafe fn depth_floor<V: Lanes>(hash: V) -> V {
    // SAFETY: passed on to the caller.
    unsafe {
        // Sixteen bits plus one: exact as a float. Its bits, read as a number, are its exponent with its mantissa behind
        // the point; that is the logarithm already, but for a bend that the polynomial takes out.
        let number = hash.and(V::splat(0xffff)).add(V::splat(1)).to_float();
        let mantissa = number.and(V::splat(0x007f_ffff)).or(V::splat(0x3f80_0000));
        let line = number.to_float().mul_add(splat_float(-1.0 / 8_388_608.0), splat_float(CONSTANT));
        let mut bend = splat_float::<V>(POLYNOMIAL[0]);
        for &factor in &POLYNOMIAL[1..] {
            bend = bend.mul_add(mantissa, splat_float(factor));
        }
        bend.mul_add(mantissa, line)
    }
}

/// From the smallest upper bound of a draw to what a lower bound must not exceed. The factor is far above the rounding
/// errors of reciprocal and products, the summand above the one that flooring can close.
#[inline(always)]
unsafe fn limit<V: Lanes>(least: V) -> V {
    // SAFETY: passed on to the caller.
    unsafe { least.mul_add(splat_float(1.0 + 1.0 / 262_144.0), splat_float(2.0)) }
}

/// All draws of `jobs`, small buckets with up to `K` registers abreast.
#[inline(always)]
unsafe fn draw<V: Lanes, const K: usize>(pool: &Pool, jobs: &mut Jobs, room: usize, bounds: &mut Vec<u32>) {
    // SAFETY: passed on to the caller.
    unsafe {
        match room {
            4 => {
                let (mut at, per) = (0, V::COUNT / 4);
                while at + (K - 1) * per < jobs.len {
                    draw_grouped::<V, K, 4>(pool, jobs, at);
                    at += K * per;
                }
                while at < jobs.len {
                    draw_grouped::<V, 1, 4>(pool, jobs, at);
                    at += per;
                }
            }
            8 => {
                let (mut at, per) = (0, V::COUNT / 8);
                while at + (K - 1) * per < jobs.len {
                    draw_grouped::<V, K, 8>(pool, jobs, at);
                    at += K * per;
                }
                while at < jobs.len {
                    draw_grouped::<V, 1, 8>(pool, jobs, at);
                    at += per;
                }
            }
            _ => {
                for at in 0..jobs.len {
                    draw_wide::<V>(pool, jobs, at, bounds);
                }
            }
        }
    }
}

/// `K` registers of groups of `ROOM` lanes, one value for each group.
#[inline(always)]
unsafe fn splat_groups<V: Lanes, const K: usize, const ROOM: usize>(values: &[u32]) -> [V; K] {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut lanes = [V::splat(0); K];
        for k in 0..K {
            let values = &values[k * (V::COUNT / ROOM)..];
            lanes[k] = if ROOM == 4 { V::splat_quads(values) } else { V::splat_octs(values) };
        }
        lanes
    }
}

/// `K` registers of groups of `ROOM` lanes, each group from an offset of its own.
#[inline(always)]
unsafe fn load_groups<V: Lanes, const K: usize, const ROOM: usize>(values: &[u32], offsets: &[u32]) -> [V; K] {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut lanes = [V::splat(0); K];
        for k in 0..K {
            let offsets = &offsets[k * (V::COUNT / ROOM)..];
            lanes[k] = if ROOM == 4 { V::load_quads(values, offsets) } else { V::load_octs(values, offsets) };
        }
        lanes
    }
}

/// Draws of small buckets, `K` registers with `COUNT / ROOM` draws each, from job `at` on. The jobs' tail is filled.
#[inline(always)]
unsafe fn draw_grouped<V: Lanes, const K: usize, const ROOM: usize>(pool: &Pool, jobs: &mut Jobs, at: usize) {
    let per = V::COUNT / ROOM;
    // SAFETY: passed on to the caller.
    unsafe {
        let (x, r) = (splat_groups::<V, K, ROOM>(&jobs.x[at..]), splat_groups::<V, K, ROOM>(&jobs.r[at..]));
        let hash = hash3(x, load_groups::<V, K, ROOM>(&pool.ids, &jobs.ids[at..]), r);
        let reciprocals = load_groups::<V, K, ROOM>(&pool.reciprocals, &jobs.weights[at..]);
        let mut masks = [0; K];
        for k in 0..K {
            let low = depth_floor(hash[k]).mul(reciprocals[k]);
            let high = reciprocals[k].mul_add(splat_float(SPREAD), low);
            let least = if ROOM == 4 { high.min_of_quad() } else { high.min_of_oct() };
            masks[k] = low.at_most(limit(least));
        }
        for (k, mask) in masks.into_iter().enumerate() {
            for j in 0..per {
                let candidates = (mask >> (j * ROOM)) & ((1 << ROOM) - 1);
                let at = at + k * per + j;
                jobs.found[at] = if candidates & candidates.wrapping_sub(1) == 0 {
                    candidates.trailing_zeros() & (ROOM as u32 - 1)
                } else {
                    jobs.settle(pool, at, (0..ROOM).filter(|i| candidates >> i & 1 == 1))
                };
            }
        }
    }
}

/// Lower bounds of `K` registers of a bucket from item `from` on, into `bounds`; gives the smallest upper bounds, lane by
/// lane, of these and of `least`.
#[inline(always)]
unsafe fn bound<V: Lanes, const K: usize>(
    (x, r): (V, V),
    ids: &[u32],
    reciprocals: &[u32],
    from: usize,
    bounds: &mut [u32],
    mut least: V,
) -> V {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut items = [x; K];
        for (k, items) in items.iter_mut().enumerate() {
            *items = V::load(&ids[from + k * V::COUNT..]);
        }
        let hash = hash3([x; K], items, [r; K]);
        for (k, hash) in hash.into_iter().enumerate() {
            let at = from + k * V::COUNT;
            let reciprocals = V::load(&reciprocals[at..]);
            let low = depth_floor(hash).mul(reciprocals);
            low.store(&mut bounds[at..]);
            least = least.min(reciprocals.mul_add(splat_float(SPREAD), low));
        }
        least
    }
}

/// The draw of one bucket of any size.
#[inline(always)]
unsafe fn draw_wide<V: Lanes>(pool: &Pool, jobs: &mut Jobs, at: usize, bounds: &mut Vec<u32>) {
    let room = (jobs.size[at] as usize).next_multiple_of(V::COUNT);
    let ids = &pool.ids[jobs.ids[at] as usize..][..room];
    let reciprocals = &pool.reciprocals[jobs.weights[at] as usize..][..room];
    if bounds.len() < room {
        bounds.resize(room, 0);
    }
    // SAFETY: passed on to the caller.
    unsafe {
        let (x, r) = (V::splat(jobs.x[at]), V::splat(jobs.r[at]));
        let mut least = splat_float::<V>(f32::MAX);
        let mut from = 0;
        while from + 4 * V::COUNT <= room {
            least = bound::<V, 4>((x, r), ids, reciprocals, from, bounds, least);
            from += 4 * V::COUNT;
        }
        while from + 2 * V::COUNT <= room {
            least = bound::<V, 2>((x, r), ids, reciprocals, from, bounds, least);
            from += 2 * V::COUNT;
        }
        if from < room {
            least = bound::<V, 1>((x, r), ids, reciprocals, from, bounds, least);
        }
        let limit = limit(least.min_of_all());
        let mut found = None;
        let mut several = false;
        for (chunk, low) in bounds[..room].chunks_exact(V::COUNT).enumerate() {
            let low = V::load(low);
            let candidates = low.at_most(limit);
            if candidates != 0 {
                several |= found.is_some() || !candidates.is_power_of_two();
                found = Some(chunk * V::COUNT + candidates.trailing_zeros() as usize);
            }
        }
        jobs.found[at] = match found {
            Some(found) if !several => found as u32,
            _ => {
                let limit = f32::from_bits(limit.first());
                let near = |&i: &usize| f32::from_bits(bounds[i]) <= limit;
                jobs.settle(pool, at, (0..jobs.size[at] as usize).filter(near))
            }
        };
    }
}

#[cfg(test)]
#[path = "simd_test.rs"]
mod tests;
