//! Sixteen lanes of AVX-512 (the foundation subset alone).

use super::{Jobs, Lanes, Pool};
use core::arch::x86_64::*;

/// # Safety
/// The processor must have avx512f.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn draw(pool: &Pool, jobs: &mut Jobs, room: usize, bounds: &mut Vec<u32>) {
    // SAFETY: compiled for, and by this function's contract run on, what the lanes need.
    unsafe { super::draw::<Register, 4>(pool, jobs, room, bounds) }
}

#[derive(Clone, Copy)]
pub(super) struct Register(__m512i);

impl Register {
    #[inline(always)]
    unsafe fn float(self) -> __m512 {
        // SAFETY: passed on to the caller.
        unsafe { _mm512_castsi512_ps(self.0) }
    }
    #[inline(always)]
    unsafe fn of_float(floats: __m512) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm512_castps_si512(floats) })
    }
}

/// Four values from an offset on.
#[inline(always)]
unsafe fn quad(values: &[u32], at: u32) -> __m128i {
    let values = &values[at as usize..][..4];
    // SAFETY: four values are there.
    unsafe { _mm_loadu_si128(values.as_ptr().cast()) }
}

/// Eight values from an offset on.
#[inline(always)]
unsafe fn oct(values: &[u32], at: u32) -> __m256i {
    let values = &values[at as usize..][..8];
    // SAFETY: eight values are there.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

impl Lanes for Register {
    const COUNT: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: u32) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm512_set1_epi32(value as i32) })
    }
    #[inline(always)]
    unsafe fn load(values: &[u32]) -> Register {
        let values = &values[..16];
        // SAFETY: sixteen values are there.
        Register(unsafe { _mm512_loadu_si512(values.as_ptr().cast()) })
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut [u32]) {
        let to = &mut to[..16];
        // SAFETY: there is room for sixteen values.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), self.0) }
    }
    #[inline(always)]
    unsafe fn first(self) -> u32 {
        // SAFETY: passed on to the caller.
        unsafe { _mm_cvtsi128_si32(_mm512_castsi512_si128(self.0)) as u32 }
    }
    #[inline(always)]
    unsafe fn splat_quads(values: &[u32]) -> Register {
        // SAFETY: passed on to the caller.
        unsafe {
            let each = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
            Register(_mm512_permutexvar_epi32(each, _mm512_castsi128_si512(quad(values, 0))))
        }
    }
    #[inline(always)]
    unsafe fn splat_octs(values: &[u32]) -> Register {
        let values = &values[..2];
        // SAFETY: two values are there.
        unsafe {
            let each = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
            let both = _mm_loadl_epi64(values.as_ptr().cast());
            Register(_mm512_permutexvar_epi32(each, _mm512_castsi128_si512(both)))
        }
    }
    #[inline(always)]
    unsafe fn load_quads(values: &[u32], at: &[u32]) -> Register {
        let at = &at[..4];
        // SAFETY: passed on to the caller.
        unsafe {
            let quads = _mm512_castsi128_si512(quad(values, at[0]));
            let quads = _mm512_inserti32x4::<1>(quads, quad(values, at[1]));
            let quads = _mm512_inserti32x4::<2>(quads, quad(values, at[2]));
            Register(_mm512_inserti32x4::<3>(quads, quad(values, at[3])))
        }
    }
    #[inline(always)]
    unsafe fn load_octs(values: &[u32], at: &[u32]) -> Register {
        let at = &at[..2];
        // SAFETY: passed on to the caller.
        unsafe {
            let octs = _mm512_castsi256_si512(oct(values, at[0]));
            Register(_mm512_inserti64x4::<1>(octs, oct(values, at[1])))
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Register) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm512_add_epi32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Register) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm512_sub_epi32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn xor(self, other: Register) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm512_xor_si512(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn and(self, other: Register) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm512_and_si512(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn or(self, other: Register) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm512_or_si512(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn shl<const N: u32>(self) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm512_slli_epi32::<N>(self.0) })
    }
    #[inline(always)]
    unsafe fn shr<const N: u32>(self) -> Register {
        // SAFETY: passed on to the caller.
        Register(unsafe { _mm512_srli_epi32::<N>(self.0) })
    }
    #[inline(always)]
    unsafe fn to_float(self) -> Register {
        // SAFETY: passed on to the caller.
        unsafe { Register::of_float(_mm512_cvtepi32_ps(self.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Register) -> Register {
        // SAFETY: passed on to the caller.
        unsafe { Register::of_float(_mm512_mul_ps(self.float(), other.float())) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Register, summand: Register) -> Register {
        // SAFETY: passed on to the caller.
        unsafe { Register::of_float(_mm512_fmadd_ps(self.float(), factor.float(), summand.float())) }
    }
    #[inline(always)]
    unsafe fn min(self, other: Register) -> Register {
        // SAFETY: passed on to the caller.
        unsafe { Register::of_float(_mm512_min_ps(self.float(), other.float())) }
    }
    #[inline(always)]
    unsafe fn min_of_quad(self) -> Register {
        // SAFETY: passed on to the caller.
        unsafe {
            let pairs = self.min(Register(_mm512_shuffle_epi32::<0b10_11_00_01>(self.0)));
            pairs.min(Register(_mm512_shuffle_epi32::<0b01_00_11_10>(pairs.0)))
        }
    }
    #[inline(always)]
    unsafe fn min_of_oct(self) -> Register {
        // SAFETY: passed on to the caller.
        unsafe {
            let quads = self.min_of_quad();
            quads.min(Register(_mm512_shuffle_i32x4::<0b10_11_00_01>(quads.0, quads.0)))
        }
    }
    #[inline(always)]
    unsafe fn min_of_all(self) -> Register {
        // SAFETY: passed on to the caller.
        unsafe {
            let octs = self.min_of_oct();
            octs.min(Register(_mm512_shuffle_i32x4::<0b01_00_11_10>(octs.0, octs.0)))
        }
    }
    #[inline(always)]
    unsafe fn at_most(self, other: Register) -> u32 {
        // SAFETY: passed on to the caller.
        u32::from(unsafe { _mm512_cmp_ps_mask::<_CMP_LE_OQ>(self.float(), other.float()) })
    }
}
