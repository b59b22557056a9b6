//! Eight lanes as an array: for processors without a kernel of their own. The compiler makes of it what it can.

use super::{Jobs, Lanes, Pool};

pub(super) fn draw(pool: &Pool, jobs: &mut Jobs, room: usize, bounds: &mut Vec<u32>) {
    // SAFETY: nothing below needs more than the instructions everything is compiled for.
    unsafe { super::draw::<Array, 1>(pool, jobs, room, bounds) }
}

#[derive(Clone, Copy)]
#[repr(align(32))]
pub(super) struct Array([u32; 8]);

#[inline(always)]
fn each(a: Array, b: Array, with: impl Fn(u32, u32) -> u32) -> Array {
    Array(std::array::from_fn(|i| with(a.0[i], b.0[i])))
}

#[inline(always)]
fn floats(a: Array, b: Array, with: impl Fn(f32, f32) -> f32) -> Array {
    each(a, b, |a, b| with(f32::from_bits(a), f32::from_bits(b)).to_bits())
}

/// Each lane with the one `N` further on in its group.
#[inline(always)]
fn min_across<const N: usize>(a: Array) -> Array {
    floats(a, Array(std::array::from_fn(|i| a.0[i ^ N])), |a, b| if a < b { a } else { b })
}

impl Lanes for Array {
    const COUNT: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: u32) -> Array {
        Array([value; 8])
    }
    #[inline(always)]
    unsafe fn load(values: &[u32]) -> Array {
        Array(std::array::from_fn(|i| values[i]))
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut [u32]) {
        to[..8].copy_from_slice(&self.0);
    }
    #[inline(always)]
    unsafe fn first(self) -> u32 {
        self.0[0]
    }
    #[inline(always)]
    unsafe fn splat_quads(values: &[u32]) -> Array {
        Array(std::array::from_fn(|i| values[i / 4]))
    }
    #[inline(always)]
    unsafe fn splat_octs(values: &[u32]) -> Array {
        Array([values[0]; 8])
    }
    #[inline(always)]
    unsafe fn load_quads(values: &[u32], at: &[u32]) -> Array {
        let (low, high) = (&values[at[0] as usize..][..4], &values[at[1] as usize..][..4]);
        Array(std::array::from_fn(|i| if i < 4 { low[i] } else { high[i - 4] }))
    }
    #[inline(always)]
    unsafe fn load_octs(values: &[u32], at: &[u32]) -> Array {
        let values = &values[at[0] as usize..][..8];
        Array(std::array::from_fn(|i| values[i]))
    }
    #[inline(always)]
    unsafe fn add(self, other: Array) -> Array {
        each(self, other, u32::wrapping_add)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Array) -> Array {
        each(self, other, u32::wrapping_sub)
    }
    #[inline(always)]
    unsafe fn xor(self, other: Array) -> Array {
        each(self, other, |a, b| a ^ b)
    }
    #[inline(always)]
    unsafe fn and(self, other: Array) -> Array {
        each(self, other, |a, b| a & b)
    }
    #[inline(always)]
    unsafe fn or(self, other: Array) -> Array {
        each(self, other, |a, b| a | b)
    }
    #[inline(always)]
    unsafe fn shl<const N: u32>(self) -> Array {
        each(self, self, |a, _| a << N)
    }
    #[inline(always)]
    unsafe fn shr<const N: u32>(self) -> Array {
        each(self, self, |a, _| a >> N)
    }
    #[inline(always)]
    unsafe fn to_float(self) -> Array {
        each(self, self, |a, _| (a as i32 as f32).to_bits())
    }
    #[inline(always)]
    unsafe fn mul(self, other: Array) -> Array {
        floats(self, other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Array, summand: Array) -> Array {
        floats(floats(self, factor, |a, b| a * b), summand, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn min(self, other: Array) -> Array {
        floats(self, other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min_of_quad(self) -> Array {
        min_across::<2>(min_across::<1>(self))
    }
    #[inline(always)]
    unsafe fn min_of_oct(self) -> Array {
        min_across::<4>(min_across::<2>(min_across::<1>(self)))
    }
    #[inline(always)]
    unsafe fn min_of_all(self) -> Array {
        min_across::<4>(min_across::<2>(min_across::<1>(self)))
    }
    #[inline(always)]
    unsafe fn at_most(self, other: Array) -> u32 {
        let mut mask = 0;
        for i in 0..8 {
            mask |= u32::from(f32::from_bits(self.0[i]) <= f32::from_bits(other.0[i])) << i;
        }
        mask
    }
}
