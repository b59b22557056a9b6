//! Eight lanes of AVX2, with fused multiply-add.

use super::{Jobs, Lanes, Pool};
use core::arch::x86_64::*;

/// # Safety
/// The processor must have avx2 and fma.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn draw(pool: &Pool, jobs: &mut Jobs, room: usize, bounds: &mut Vec<u32>) {
    // SAFETY: compiled for, and by this function's contract run on, what the lanes need.
    unsafe { super::draw::<Register, 2>(pool, jobs, room, bounds) }
}

#[derive(Clone, Copy)]
pub(super) struct Register(__m256i);

impl Register {
    #[inline(always)]
    unsafe fn float(self) -> __m256 {
        // SAFETY: passed on to the caller.
        unsafe { _mm256_castsi256_ps(self.0) }
    }
    #[inline(always)]
    unsafe fn of_float(floats: __m256) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm256_castps_si256(floats) })
    }
}

/// Four values from an offset on.
#[inline(always)]
unsafe fn quad(values: &[u32], at: u32) -> __m128i {
    let values = &values[at as usize..][..4];
    // SAFETY: four values are there.
    unsafe { _mm_loadu_si128(values.as_ptr().cast()) }
}

impl Lanes for Register {
    const COUNT: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: u32) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm256_set1_epi32(value as i32) })
    }
    #[inline(always)]
    unsafe fn load(values: &[u32]) -> Register {
        let values = &values[..8];
        // SAFETY: eight values are there.
        Register(unsafe { _mm256_loadu_si256(values.as_ptr().cast()) })
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut [u32]) {
        let to = &mut to[..8];
        // SAFETY: there is room for eight values.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), self.0) }
    }
    #[inline(always)]
    unsafe fn first(self) -> u32 {
        // SAFETY: passed on to the caller.
        unsafe { _mm_cvtsi128_si32(_mm256_castsi256_si128(self.0)) as u32 }
    }
    #[inline(always)]
    unsafe fn splat_quads(values: &[u32]) -> Register {
        let values = &values[..2];
        // SAFETY: passed on to the caller.
        unsafe {
            let low = _mm_set1_epi32(values[0] as i32);
            Register(_mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), _mm_set1_epi32(values[1] as i32)))
        }
    }
    #[inline(always)]
    unsafe fn splat_octs(values: &[u32]) -> Register {
        // SAFETY: passed on to the caller.
        unsafe { Register::splat(values[0]) }
    }
    #[inline(always)]
    unsafe fn load_quads(values: &[u32], at: &[u32]) -> Register {
        let at = &at[..2];
        // SAFETY: passed on to the caller.
        unsafe {
            let low = _mm256_castsi128_si256(quad(values, at[0]));
            Register(_mm256_inserti128_si256::<1>(low, quad(values, at[1])))
        }
    }
    #[inline(always)]
    unsafe fn load_octs(values: &[u32], at: &[u32]) -> Register {
        // SAFETY: passed on to the caller.
        unsafe { Register::load(&values[at[0] as usize..]) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Register) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm256_add_epi32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Register) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm256_sub_epi32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn xor(self, other: Register) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm256_xor_si256(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn and(self, other: Register) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm256_and_si256(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn or(self, other: Register) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm256_or_si256(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn shl<const N: u32>(self) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm256_sll_epi32(self.0, _mm_cvtsi32_si128(N as i32)) })
    }
    #[inline(always)]
    unsafe fn shr<const N: u32>(self) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm256_srl_epi32(self.0, _mm_cvtsi32_si128(N as i32)) })
    }
    #[inline(always)]
    unsafe fn to_float(self) -> Register {
        // SAFETY: passed on to the caller.
        unsafe { Register::of_float(_mm256_cvtepi32_ps(self.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Register) -> Register {
        // SAFETY: passed on to the caller.
        unsafe { Register::of_float(_mm256_mul_ps(self.float(), other.float())) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Register, summand: Register) -> Register {
        // SAFETY: passed on to the caller.
        unsafe { Register::of_float(_mm256_fmadd_ps(self.float(), factor.float(), summand.float())) }
    }
    #[inline(always)]
    unsafe fn min(self, other: Register) -> Register {
        // SAFETY: passed on to the caller.
        unsafe { Register::of_float(_mm256_min_ps(self.float(), other.float())) }
    }
    #[inline(always)]
    unsafe fn min_of_quad(self) -> Register {
        // SAFETY: passed on to the caller.
        unsafe {
            let pairs = self.min(Register(_mm256_shuffle_epi32::<0b10_11_00_01>(self.0)));
            pairs.min(Register(_mm256_shuffle_epi32::<0b01_00_11_10>(pairs.0)))
        }
    }
    #[inline(always)]
    unsafe fn min_of_oct(self) -> Register {
        // SAFETY: passed on to the caller.
        unsafe {
            let quads = self.min_of_quad();
            quads.min(Register(_mm256_permute2x128_si256::<1>(quads.0, quads.0)))
        }
    }
    #[inline(always)]
    unsafe fn min_of_all(self) -> Register {
        // SAFETY: passed on to the caller.
        unsafe { self.min_of_oct() }
    }
    #[inline(always)]
    unsafe fn at_most(self, other: Register) -> u32 {
        // SAFETY: passed on to the caller.
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(self.float(), other.float())) as u32 }
    }
}
