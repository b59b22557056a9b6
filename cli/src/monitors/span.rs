//! Spans of time and moments as an operator writes and reads them.

use std::time::{SystemTime, UNIX_EPOCH};

use nacre_maps::settings::{Kind, Value};

const YEAR: u64 = 365 * 86_400_000;

/// Milliseconds of a span such as `30m`.
pub(crate) fn span(text: &str) -> Result<u64, String> {
    match (Kind::Span { min_ms: 1, max_ms: YEAR }).parse(text) {
        Ok(Value::Span(span)) => u64::try_from(span.as_millis()).map_err(|error| error.to_string()),
        Ok(_) => Err(format!("{text} is no time")),
        Err(error) => Err(error.to_string()),
    }
}

/// Now, in milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Days since 1970 as year, month and day of the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    // Counted from the first of March of the year 0, so that a leap day is the last day of its year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// A moment in UTC, as in `2026-02-28T23:59:59.123Z`.
pub(crate) fn moment(ms: u64) -> String {
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_of_the_calendar() {
        assert_eq!(moment(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(moment(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(moment(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(moment(1_772_323_199_123), "2026-02-28T23:59:59.123Z");
        assert_eq!(moment(1_772_323_200_000), "2026-03-01T00:00:00.000Z");
        assert_eq!(moment(4_102_444_800_000), "2100-01-01T00:00:00.000Z");
    }

    #[test]
    fn spans_have_a_unit() {
        assert_eq!(span("30m"), Ok(1_800_000));
        assert!(span("30").is_err() && span("0s").is_err() && span("9999d").is_err());
    }
}
