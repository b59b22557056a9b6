//! Weights between text and 16.16 fixed point, with the arithmetic of `crushtool`.
//!
//! Reading: the decimal becomes a C float, times 65536, cut off. A float holds 24 bits, so weights from 256 on lose their
//! last bits; where the text has six or more decimals there, it is read exactly instead.
//! Printing: three decimals as `crushtool -d` has them, and more only where three would read back as another weight.

use crate::model::Weight;

/// Floats hold every 16.16 number below this and not all above.
const FLOAT_IS_EXACT_BELOW: f32 = 256.0;

/// The weight a decimal stands for, none if it is no decimal or out of range. Digits with an optional fraction and
/// exponent; no `inf`, no `nan`.
pub(super) fn read(word: &str) -> Option<Weight> {
    let digits = word.strip_prefix('+').unwrap_or(word);
    let decimal = |b: u8| b.is_ascii_digit() || b".eE+-".contains(&b);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') || !digits.bytes().all(decimal) {
        return None;
    }
    let float: f32 = digits.parse().ok()?;
    let decimals = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let scaled = if float >= FLOAT_IS_EXACT_BELOW && decimals > 5 {
        digits.parse::<f64>().ok()? * 65536.0
    } else {
        f64::from(float) * 65536.0
    };
    // `as` cuts off towards zero, as C does.
    (0.0..4_294_967_296.0).contains(&scaled).then_some(Weight(scaled as u32))
}

/// The shortest of the usual forms that reads back as this weight.
pub(super) fn print(weight: Weight) -> String {
    let reads_back = |text: &String| read(text) == Some(weight);
    let exact = weight.as_f64();
    let up = |decimals: i32| {
        let unit = 10_f64.powi(decimals);
        (exact * unit).ceil() / unit
    };
    let forms = [print_short(weight), format!("{exact:.5}"), format!("{:.5}", up(5)), format!("{:.6}", up(6))];
    forms.into_iter().find(reads_back).unwrap_or_else(|| format!("{exact:.16}"))
}

/// Three decimals, whatever they read back as.
pub(super) fn print_short(weight: Weight) -> String {
    format!("{:.3}", weight.0 as f32 / 65536.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_cuts_off() {
        assert_eq!(read("1.000"), Some(Weight(65536)));
        assert_eq!(read("0.910"), Some(Weight(59637)));
        assert_eq!(read("3.639"), Some(Weight(238_485)));
        assert_eq!(read("0.00001"), Some(Weight(0)));
        assert_eq!(read("2"), Some(Weight::ONE).map(|w| Weight(w.0 * 2)));
        assert_eq!(read(".5"), Some(Weight(32768)));
        assert_eq!(read("5e-1"), Some(Weight(32768)));
        assert_eq!(read("+1."), Some(Weight(65536)));
    }

    #[test]
    fn what_is_no_weight_is_refused() {
        for word in ["", "x", "-1", "inf", "nan", "1.2.3", "65536", "1e9", "+", ".", "1f", "--1", "+-1"] {
            assert_eq!(read(word), None, "{word}");
        }
    }

    #[test]
    fn a_float_loses_bits_from_256_on_unless_asked_not_to() {
        assert_eq!(read("256.00001"), Some(Weight(0x0100_0000)));
        assert_eq!(read("256.000016"), Some(Weight(0x0100_0001)));
    }

    #[test]
    fn printing_takes_three_decimals_where_they_do() {
        assert_eq!(print(Weight(59637)), "0.910");
        assert_eq!(print(Weight(4096)), "0.06250");
        assert_eq!(print(Weight(0)), "0.000");
        assert_eq!(print(Weight(0x0100_0001)), "256.000016");
    }

    #[test]
    fn every_weight_reads_back() {
        // A stride that is coprime to 2^32 visits all magnitudes; and every value around the turning points.
        let spread = (0..400_000_u32).map(|i| i.wrapping_mul(2_654_435_761));
        let near = [0, 1 << 16, 1 << 22, 1 << 23, 1 << 24, 1 << 25, u32::MAX].into_iter();
        let near = near.flat_map(|at: u32| at.saturating_sub(3000)..=at.saturating_add(3000));
        for weight in spread.chain(near).map(Weight) {
            assert_eq!(read(&print(weight)), Some(weight), "{weight:?} prints as {}", print(weight));
        }
    }
}
