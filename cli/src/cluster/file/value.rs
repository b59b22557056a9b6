//! How single values are read. What does not fit is answered with what would: "a port from 1 to 65535".

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use toml::de::DeValue;

/// Read from one TOML value; the error says what was expected, to follow "expects".
pub(crate) trait FromToml: Sized {
    /// Reads it.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String>;
}

/// What stands in the file, for a message.
pub(crate) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Integer(number) => format!("{number}"),
        DeValue::Float(number) => format!("{number}"),
        DeValue::Boolean(flag) => format!("{flag}"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// An integer within bounds; `what` follows "expects".
pub(crate) fn integer(value: &DeValue<'_>, low: u64, high: u64, what: &str) -> Result<u64, String> {
    let number = value.as_integer().and_then(|n| u64::from_str_radix(n.as_str(), n.radix()).ok());
    number.filter(|n| (low..=high).contains(n)).ok_or_else(|| format!("{what} from {low} to {high}"))
}

impl FromToml for bool {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| "true or false".to_owned())
    }
}

impl FromToml for IpAddr {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let address = value.as_str().and_then(|text| text.parse().ok());
        address.ok_or_else(|| "an IP address such as \"127.0.0.1\"".to_owned())
    }
}

impl FromToml for PathBuf {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_str().filter(|text| !text.is_empty() && !text.contains('\0'));
        text.map(PathBuf::from).ok_or_else(|| "a path".to_owned())
    }
}

/// A number of bytes, written `"10GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

const UNITS: [(&str, u64); 12] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("kB", 1_000),
    ("PiB", 1 << 50),
    ("PB", 1_000_000_000_000_000),
    ("B", 1),
];

impl Size {
    /// A number and a unit, a blank between them if one likes.
    pub(crate) fn parse(text: &str) -> Option<Size> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(*scale).map(Size);
        }
        let bytes = number.parse::<f64>().ok()? * (*scale as f64);
        (bytes.fract() == 0.0 && bytes < 9e15).then_some(Size(bytes as u64))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = [("PiB", 1_u64 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match binary.iter().find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale)) {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromToml for Size {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().and_then(Size::parse).ok_or_else(|| "a size with its unit, such as \"10GiB\"".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::Size;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, again) in [
            ("10GiB", 10 << 30, "10GiB"),
            ("10 GiB", 10 << 30, "10GiB"),
            ("1.5GiB", 3 << 29, "1536MiB"),
            ("4TB", 4_000_000_000_000, "3906250000KiB"),
            ("0B", 0, "0B"),
            ("1023B", 1023, "1023B"),
        ] {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
            assert_eq!(Size(bytes).to_string(), again);
        }
        for wrong in ["", "10", "GiB", "ten GiB", "-1GiB", "10 gib", "1.3B", "99999999PiB", "1..5GiB"] {
            assert_eq!(Size::parse(wrong), None, "{wrong}");
        }
    }
}
