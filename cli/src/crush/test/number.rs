//! Numbers as a C++ stream prints them by default: six significant digits, an exponent where it is shorter.

/// The number as `%g` has it.
pub(super) fn six_digits(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return format!("{number}");
    }
    // Rounding to six digits can add one to the exponent, so it is read from the rounded form.
    let rounded = format!("{number:.5e}");
    let (mantissa, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..6).contains(&exponent) {
        return trim(&format!("{number:.*}", (5 - exponent) as usize));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trim(mantissa), exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::six_digits;

    #[test]
    fn as_c_prints_them() {
        for (number, text) in [
            (0.0, "0"),
            (512.0, "512"),
            (7.31709, "7.31709"),
            (7.317_091_234, "7.31709"),
            (0.731_642, "0.731642"),
            (279.273, "279.273"),
            (1_234_567.0, "1.23457e+06"),
            (999_999.6, "1e+06"),
            (123_456.0, "123456"),
            (0.000_12, "0.00012"),
            (0.000_012, "1.2e-05"),
            (-2.5, "-2.5"),
        ] {
            assert_eq!(six_digits(number), text);
        }
    }
}
