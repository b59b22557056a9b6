//! Messages of generic netlink, as bytes: what the kernel's drivers are told and what they answer. No I/O.
//!
//! All numbers are in this machine's order, all parts begin at multiples of four. What the kernel says is not trusted to
//! be well formed: what is not, is an end.

use std::fmt;

/// Asks for something, and for an answer whether it was done.
const REQUEST: u16 = 1 | 4;
/// The type of a message that says how a request ended.
const ENDED: u16 = 2;
/// Types below this are the protocol's own.
const FAMILIES: u16 = 16;
/// An attribute that holds attributes.
const NESTED: u16 = 1 << 15;
/// The bits of an attribute's kind that say how its value is written.
const KIND: u16 = 0x3fff;
const HEADER: usize = 16;
const COMMAND: usize = 4;

fn padded(len: usize) -> usize {
    len.next_multiple_of(4)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Attributes to be sent, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn add(mut self, kind: u16, value: &[u8]) -> Attributes {
        // A value is short: names, numbers, a socket or two.
        let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value.iter().take(usize::from(len) - 4));
        self.0.resize(padded(self.0.len()), 0);
        self
    }

    /// A number of 32 bits.
    #[must_use]
    pub fn u32(self, kind: u16, value: u32) -> Attributes {
        self.add(kind, &value.to_ne_bytes())
    }

    /// A number of 64 bits.
    #[must_use]
    pub fn u64(self, kind: u16, value: u64) -> Attributes {
        self.add(kind, &value.to_ne_bytes())
    }

    /// A text, and the zero behind it.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Attributes {
        self.add(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Attributes in an attribute.
    #[must_use]
    pub fn nested(self, kind: u16, value: &Attributes) -> Attributes {
        self.add(kind | NESTED, &value.0)
    }
}

/// A request to a family.
#[must_use]
pub fn request(family: u16, sequence: u32, command: u8, attributes: &Attributes) -> Vec<u8> {
    let len = HEADER + COMMAND + attributes.0.len();
    let mut out = Vec::with_capacity(len);
    out.extend((len as u32).to_ne_bytes());
    out.extend(family.to_ne_bytes());
    out.extend(REQUEST.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    // The kernel knows who sends it.
    out.extend(0u32.to_ne_bytes());
    // Both families that are spoken to here have only ever had a version 1.
    out.extend([command, 1, 0, 0]);
    out.extend(&attributes.0);
    out
}

/// What the kernel says to a request.
#[derive(Clone, PartialEq, Eq)]
pub enum Said {
    /// It is done, or it failed with this number of an error of the system.
    Ended(Result<(), i32>),
    /// Something to read: attributes.
    Answer(Vec<u8>),
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Said::Ended(how) => write!(f, "Ended({how:?})"),
            Said::Answer(attributes) => write!(f, "Answer({} bytes)", attributes.len()),
        }
    }
}

/// What of a datagram belongs to a request; `None` if it is not well formed.
#[must_use]
pub fn said(mut datagram: &[u8], sequence: u32) -> Option<Vec<Said>> {
    let mut all = Vec::new();
    while !datagram.is_empty() {
        let len = u32::from_ne_bytes(array(datagram, 0)?) as usize;
        let kind = u16::from_ne_bytes(array(datagram, 4)?);
        let message = datagram.get(HEADER..len)?;
        if u32::from_ne_bytes(array(datagram, 8)?) == sequence && (kind == ENDED || kind >= FAMILIES) {
            all.push(match kind {
                ENDED => match i32::from_ne_bytes(array(message, 0)?) {
                    0 => Said::Ended(Ok(())),
                    error => Said::Ended(Err(error.checked_neg()?)),
                },
                _ => Said::Answer(message.get(COMMAND..)?.to_vec()),
            });
        }
        datagram = datagram.get(padded(len)..).unwrap_or_default();
    }
    Some(all)
}

/// The attributes that were received, by their kind; `None` if they are not well formed.
#[must_use]
pub fn attributes(mut bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let len = usize::from(u16::from_ne_bytes(array(bytes, 0)?));
        let kind = u16::from_ne_bytes(array(bytes, 2)?) & KIND;
        all.push((kind, bytes.get(4..len)?));
        bytes = bytes.get(padded(len)..).unwrap_or_default();
    }
    Some(all)
}

/// The value of the first attribute of a kind.
#[must_use]
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)?.into_iter().find(|(other, _)| *other == kind).map(|(_, value)| value)
}

/// A number of 16 bits.
#[must_use]
pub fn u16_of(value: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(value.try_into().ok()?))
}

/// A number of 32 bits.
#[must_use]
pub fn u32_of(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

#[cfg(test)]
#[path = "netlink_test.rs"]
mod tests;
