//! Class `version`: a number and a tag of a user's own, changed and compared with the object, apart from its log version.
//!
//! | method | input | output |
//! | --- | --- | --- |
//! | `set` | [`Held`] | nothing |
//! | `inc` | [`Step`] | [`Held`]: after |
//! | `check` (reads) | conditions | nothing |
//! | `read` (reads) | nothing | [`Held`] |
//!
//! The tag tells lives of the object apart: it is set with the first `inc` and stays, so that a number from before the
//! object was removed and made again does not pass for one of now.

use bytes::Bytes;

use super::{Class, Method, Scope, code, encode, input, refuse};
use crate::exec::Stop;
use crate::{codec_enum, codec_struct};

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Rises.
    pub number: u64,
    /// Which life.
    pub tag: Bytes,
}
codec_struct!(Held { number, tag });

/// How a condition compares what is kept with what is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Number and tag are these.
    Is,
    /// Not both.
    IsNot,
    /// The number is at least this.
    Least,
    /// The number is at most this.
    Most,
    /// The tag is this.
    Tag,
}
codec_enum!(At { 0 => Is {}, 1 => IsNot {}, 2 => Least {}, 3 => Most {}, 4 => Tag {} });

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// How.
    pub at: At,
    /// With what.
    pub than: Held,
}
codec_struct!(Condition { at, than });

/// Input of `inc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// All must hold.
    pub when: Vec<Condition>,
    /// The tag if there is none yet.
    pub tag: Bytes,
}
codec_struct!(Step { when, tag });

const NAME: &[u8] = b"held";

/// The class.
pub struct VersionClass;

impl Class for VersionClass {
    fn name(&self) -> &'static str {
        "version"
    }

    fn methods(&self) -> &'static [Method] {
        &[
            Method { name: "set", writes: true, run: set },
            Method { name: "inc", writes: true, run: inc },
            Method { name: "check", writes: false, run: check },
            Method { name: "read", writes: false, run: read },
        ]
    }
}

fn judge(held: &Held, when: &[Condition]) -> Result<(), Stop> {
    let fine = when.iter().all(|c| match c.at {
        At::Is => *held == c.than,
        At::IsNot => *held != c.than,
        At::Least => held.number >= c.than.number,
        At::Most => held.number <= c.than.number,
        At::Tag => held.tag == c.than.tag,
    });
    if fine { Ok(()) } else { Err(refuse(code::CONDITION)) }
}

fn set(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let held: Held = input(raw)?;
    s.set_state(NAME, &held)?;
    Ok(Bytes::new())
}

fn inc(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let step: Step = input(raw)?;
    let mut held: Held = s.state(NAME)?.unwrap_or_default();
    judge(&held, &step.when)?;
    held.number = held.number.checked_add(1).ok_or_else(|| refuse(code::NUMBER))?;
    if held.tag.is_empty() {
        held.tag = step.tag;
    }
    s.set_state(NAME, &held)?;
    Ok(encode(&held))
}

fn check(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let when: Vec<Condition> = input(raw)?;
    let held: Held = s.state(NAME)?.unwrap_or_default();
    judge(&held, &when)?;
    Ok(Bytes::new())
}

fn read(s: &mut Scope<'_, '_>, _: &[u8]) -> Result<Bytes, Stop> {
    s.must_exist()?;
    Ok(encode(&s.state::<Held>(NAME)?.unwrap_or_default()))
}
