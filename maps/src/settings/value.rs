//! Types of settings: how their values are written, and what is in range.

use std::fmt;
use std::time::Duration;

/// Type and range of a setting. Ranges include both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Number { min: u64, max: u64 },
    /// A share, written as a decimal; bounds in millionths.
    Ratio { min: u32, max: u32 },
    /// A span of time with its unit: `250ms`, `10s`, `5m`, `2h`, `7d`; bounds in milliseconds.
    Span { min_ms: u64, max_ms: u64 },
    /// A size with its unit: `4KiB`, `256MiB`, `1GiB`, `2TiB`; bounds in bytes.
    Bytes { min: u64, max: u64 },
    /// One of some words.
    Choice(&'static [&'static str]),
    /// Any text up to so many bytes.
    Text { max: usize },
}

/// A value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Yes or no.
    Switch(bool),
    /// A whole number.
    Number(u64),
    /// A share in millionths.
    Ratio(u32),
    /// A span of time.
    Span(Duration),
    /// A size.
    Bytes(u64),
    /// A text or word.
    Text(String),
}

/// A text that is no value of the setting's type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is out of the question here: expected {expected}")]
pub struct ValueError {
    /// What was given.
    pub text: String,
    /// What can be given.
    pub expected: String,
}

const SPANS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// A whole number and its unit.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|digit: char| !digit.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn print_with_unit(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let fits = units.iter().rev().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    let (unit, factor) = fits.copied().unwrap_or((units[0].0, 1));
    write!(f, "{}{unit}", value / factor)
}

struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_with_unit(self.0, &SPANS, f)
    }
}

struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_with_unit(self.0, &SIZES, f)
    }
}

struct Share(u32);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        f.write_str(digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// A decimal with up to six places, exactly.
fn millionths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let plain = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    if whole.is_empty() || part.len() > 6 || !plain(whole) || !plain(part) {
        return None;
    }
    let part: u32 = format!("{part:0<6}").parse().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(1_000_000)?.checked_add(part)
}

impl Kind {
    /// Reads a value and checks its range.
    pub fn parse(&self, text: &str) -> Result<Value, ValueError> {
        let value = match *self {
            Kind::Switch => text.parse().ok().map(Value::Switch),
            Kind::Number { min, max } => {
                let number = text.parse().ok().filter(|number| (min..=max).contains(number));
                number.filter(|_| !text.starts_with('+')).map(Value::Number)
            }
            Kind::Ratio { min, max } => millionths(text).filter(|share| (min..=max).contains(share)).map(Value::Ratio),
            Kind::Span { min_ms, max_ms } => with_unit(text, &SPANS)
                .filter(|span| (min_ms..=max_ms).contains(span))
                .map(|span| Value::Span(Duration::from_millis(span))),
            Kind::Bytes { min, max } => {
                with_unit(text, &SIZES).filter(|size| (min..=max).contains(size)).map(Value::Bytes)
            }
            Kind::Choice(words) => words.contains(&text).then(|| Value::Text(text.to_owned())),
            Kind::Text { max } => (text.len() <= max).then(|| Value::Text(text.to_owned())),
        };
        value.ok_or_else(|| ValueError { text: text.to_owned(), expected: self.to_string() })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Kind::Switch => f.write_str("`true` or `false`"),
            Kind::Number { min, max } => write!(f, "number from {min} to {max}"),
            Kind::Ratio { min, max } => write!(f, "share from {} to {}", Share(min), Share(max)),
            Kind::Span { min_ms, max_ms } => write!(f, "time from {} to {}", Span(min_ms), Span(max_ms)),
            Kind::Bytes { min, max } => write!(f, "size from {} to {}", Size(min), Size(max)),
            Kind::Choice(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
                write!(f, "one of {}", words.join(", "))
            }
            Kind::Text { max } => write!(f, "text of up to {max} bytes"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Switch(on) => on.fmt(f),
            Value::Number(number) => number.fmt(f),
            Value::Ratio(share) => Share(*share).fmt(f),
            Value::Span(span) => Span(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)).fmt(f),
            Value::Bytes(size) => Size(*size).fmt(f),
            Value::Text(text) => f.write_str(text),
        }
    }
}
