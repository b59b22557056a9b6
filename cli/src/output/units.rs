//! Amounts as people read them: bytes, spans of time, shares, and a bar for a share.

use std::fmt;
use std::time::Duration;

/// Bytes, for a glance.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.iter().find(|(bits, _)| self.0 >> bits > 0) {
            Some((bits, unit)) => f.pad(&format!("{:.1} {unit}", self.0 as f64 / (1_u64 << bits) as f64)),
            None => f.pad(&format!("{} B", self.0)),
        }
    }
}

/// A span, for a glance: the two largest units that matter.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let text = match seconds {
            0..90 => format!("{seconds} s"),
            90..5_400 => format!("{} min", (seconds + 30) / 60),
            5_400..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
            _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
        };
        f.pad(&text)
    }
}

/// Microseconds, for a glance.
pub(crate) struct Micros(pub(crate) u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            0..1_000 => format!("{} us", self.0),
            1_000..1_000_000 => format!("{:.1} ms", self.0 as f64 / 1e3),
            _ => format!("{:.1} s", self.0 as f64 / 1e6),
        };
        f.pad(&text)
    }
}

/// What part `some` is of `all`, from 0 to 1; 0 of nothing.
pub(crate) fn share(some: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { some as f64 / all as f64 }
}

/// A bar of `width` characters of which this share is full. What is not empty shows at least a mark, and only what is
/// full fills it.
pub(crate) fn bar(share: f64, width: usize) -> String {
    let share = share.clamp(0.0, 1.0);
    let mut full = (share * width as f64).round() as usize;
    if share > 0.0 {
        full = full.max(1);
    }
    if share < 1.0 {
        full = full.min(width.saturating_sub(1));
    }
    format!("{}{}", "#".repeat(full), ".".repeat(width - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_at_a_glance() {
        assert_eq!(Bytes(0).to_string(), "0 B");
        assert_eq!(Bytes(1_536).to_string(), "1.5 KiB");
        assert_eq!(Bytes(3 << 40).to_string(), "3.0 TiB");
        assert_eq!(format!("{:>9}", Bytes(2 << 20)), "  2.0 MiB");
        assert_eq!(Span(Duration::from_secs(89)).to_string(), "89 s");
        assert_eq!(Span(Duration::from_secs(600)).to_string(), "10 min");
        assert_eq!(Span(Duration::from_secs(7_260)).to_string(), "2 h 1 min");
        assert_eq!(Span(Duration::from_secs(200_000)).to_string(), "2 d 7 h");
        assert_eq!(Micros(950).to_string(), "950 us");
        assert_eq!(Micros(12_345).to_string(), "12.3 ms");
    }

    #[test]
    fn a_bar_does_not_lie_about_empty_and_full() {
        assert_eq!(bar(0.0, 4), "....");
        assert_eq!(bar(0.001, 4), "#...");
        assert_eq!(bar(0.5, 4), "##..");
        assert_eq!(bar(0.999, 4), "###.");
        assert_eq!(bar(1.7, 4), "####");
        assert!(share(1, 0).abs() < f64::EPSILON);
    }
}
