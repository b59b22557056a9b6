//! Class `log`: lines in the order of their time, for change logs that many write and one reads.
//!
//! | method | input | output |
//! | --- | --- | --- |
//! | `append` | [`Append`] | marks, in the order given |
//! | `trim` | mark | nothing: lines up to and including it are gone |
//! | `list` (reads) | [`super::Page`] | lines, `bool`: more follow |
//!
//! A mark is the line's place: its time and a count, 16 bytes big-endian. A line whose time is 0 gets the primary's wall
//! clock, and never a place before one that was appended earlier. Lines live in the omap under `\x80log/`.

use bytes::Bytes;

use super::{Class, Method, Page, Scope, code, encode, input, refuse};
use crate::codec_struct;
use crate::exec::Stop;

/// A line to append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewLine {
    /// Milliseconds since 1970; 0: now.
    pub time_ms: u64,
    /// What part of the writer it is from.
    pub section: Bytes,
    /// What it is about.
    pub name: Bytes,
    /// The rest.
    pub data: Bytes,
}
codec_struct!(NewLine { time_ms, section, name, data });

/// Input of `append`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Append {
    /// In order.
    pub lines: Vec<NewLine>,
}
codec_struct!(Append { lines });

/// A line as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Its place.
    pub mark: Bytes,
    /// The line.
    pub line: NewLine,
}
codec_struct!(LogLine { mark, line });

/// What is kept beside the lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    /// The newest time given by the clock.
    latest_ms: u64,
    /// Lines ever appended.
    count: u64,
}
codec_struct!(State { latest_ms, count });

const NAME: &[u8] = b"state";
const PREFIX: &[u8] = b"\x80log/";
const END: &[u8] = b"\x80log0";
/// Lines of one call: their marks are kept for retries.
const LINES_MAX: usize = 1000;

/// The class.
pub struct LogClass;

impl Class for LogClass {
    fn name(&self) -> &'static str {
        "log"
    }

    fn methods(&self) -> &'static [Method] {
        &[
            Method { name: "append", writes: true, run: append },
            Method { name: "trim", writes: true, run: trim },
            Method { name: "list", writes: false, run: list },
        ]
    }
}

pub(super) fn under(prefix: &[u8], mark: &[u8]) -> Bytes {
    let mut key = prefix.to_vec();
    key.extend_from_slice(mark);
    Bytes::from(key)
}

fn append(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let Append { lines } = input(raw)?;
    if lines.is_empty() || lines.len() > LINES_MAX {
        return Err(refuse(if lines.is_empty() { code::MALFORMED } else { code::LIMIT }));
    }
    let mut state: State = s.state(NAME)?.unwrap_or_default();
    let mut marks = Vec::with_capacity(lines.len());
    let mut entries = Vec::with_capacity(lines.len());
    for mut line in lines {
        if line.time_ms == 0 {
            state.latest_ms = state.latest_ms.max(s.wall_ms());
            line.time_ms = state.latest_ms;
        }
        state.count = state.count.checked_add(1).ok_or_else(|| refuse(code::NUMBER))?;
        let mut mark = line.time_ms.to_be_bytes().to_vec();
        mark.extend_from_slice(&state.count.to_be_bytes());
        let mark = Bytes::from(mark);
        entries.push((under(PREFIX, &mark), encode(&line)));
        marks.push(mark);
    }
    s.omap_set(entries)?;
    s.set_state(NAME, &state)?;
    Ok(encode(&marks))
}

fn trim(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    s.must_exist()?;
    let mark: Bytes = input(raw)?;
    if mark.len() != 16 {
        return Err(refuse(code::MALFORMED));
    }
    let mut to = under(PREFIX, &mark).to_vec();
    to.push(0);
    s.omap_remove_range(Bytes::from_static(PREFIX), Bytes::from(to).min(Bytes::from_static(END)))?;
    Ok(Bytes::new())
}

fn list(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    s.must_exist()?;
    let Page { after, max } = input(raw)?;
    let after = if after.is_empty() { None } else { Some(under(PREFIX, &after)) };
    let (list, more) = s.omap_range(after.as_ref(), PREFIX, max)?;
    let lines = list.into_iter().map(|(k, v)| {
        let line = super::decode(&v).ok_or_else(|| refuse(code::STORED))?;
        Ok(LogLine { mark: k.slice(PREFIX.len()..), line })
    });
    Ok(encode(&(lines.collect::<Result<Vec<_>, Stop>>()?, more)))
}
