//! The fixed-point logarithm of the straw2 draw.
//!
//! A straw2 item of weight `w` draws `ln(u) / w` with `u` uniform in (0, 1]; the largest draw wins. The exponential
//! distribution has the property that the smallest of several draws belongs to each with a chance in proportion to its
//! rate: so each item wins by its own weight, whatever the others are. Ceph does this in integers, with a logarithm of
//! 16 bits looked up in two tables. Its rounding errors are part of the placement: [`crush_ln`] has them all.

mod table;

use table::{COARSE, FINE};

/// About `2^44 * log2(u + 1)` for `u` of 16 bits; higher bits are cut off.
///
/// It is not quite monotone: 0xffff gives less than 0xfffe. Whoever compares draws must compare these numbers, not `u`.
#[inline]
pub fn crush_ln(u: u32) -> u64 {
    // Shift to 0x8000..=0x10000: one bit before the point, fifteen behind it.
    let x = (u & 0xffff) + 1;
    let shift = if x >= 0x8000 { 0 } else { x.leading_zeros() - 16 };
    let x = u64::from(x << shift);
    // log2(x) = log2(head) + log2(x / head), head being the eight leading bits.
    let (reciprocal, coarse) = COARSE[(x >> 8) as usize - 128];
    let rest = (x * reciprocal) >> 48;
    let fine = FINE[(rest & 0xff) as usize];
    (u64::from(15 - shift) << 44) + ((coarse + fine) >> 4)
}

/// How far the logarithm lies below its largest value, `2^48 - crush_ln(u)`: the draw's dividend with its sign turned.
/// Between `2^25` and `2^48`.
#[inline]
pub(crate) fn depth(u: u32) -> u64 {
    (1 << 48) - crush_ln(u)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_deviate_from_their_formulas_as_ceph_s_do() {
        let log2 = |x: f64| x.log2() * (1_u64 << 48) as f64;
        for (k, &(reciprocal, coarse)) in COARSE.iter().enumerate() {
            assert_eq!(reciprocal, (1_u64 << 55).div_ceil(128 + k as u64), "reciprocal {k}");
            let short = if k == 128 { 1_u64 << 32 } else { 0 };
            // A double gives the formula to within a few units.
            assert!((log2(1.0 + k as f64 / 128.0) - (coarse + short) as f64).abs() < 64.0, "coarse {k}");
        }
        let shifted = 0x1_4770_0000_u64 as f64;
        let mut odd = 0;
        for (k, &fine) in FINE.iter().enumerate() {
            let above = fine as f64 - log2(1.0 + k as f64 / 32768.0);
            assert!((-64.0..=shifted + 64.0).contains(&above), "fine {k}");
            let by_formula = above.abs() < 64.0;
            odd += usize::from(!by_formula && (above - shifted).abs() >= 64.0);
            assert!(!by_formula || [0, 1].contains(&k) || k > 200, "fine {k}");
        }
        assert_eq!(odd, 23);
    }

    #[test]
    fn it_is_a_logarithm_to_fifteen_bits() {
        for u in 0..=0xffff_u32 {
            let exact = f64::from(u + 1).log2();
            let error = crush_ln(u) as f64 / (1_u64 << 44) as f64 - exact;
            assert!((-4.4e-5..2.0e-5).contains(&error), "{u}: {error}");
        }
        assert_eq!(crush_ln(0), 0);
        assert_eq!(crush_ln(0xffff), 0xffff_f000_0000);
        assert_eq!(crush_ln(0x1_ffff), crush_ln(0xffff), "higher bits are cut off");
    }

    #[test]
    fn it_falls_in_one_place_only() {
        let falls: Vec<u32> = (0..0xffff).filter(|&u| crush_ln(u + 1) < crush_ln(u)).collect();
        assert_eq!(falls, [0xfffe]);
        let least = (0..=0xffff).map(depth).min();
        assert_eq!(least, Some(0x29e_52f0));
    }
}
