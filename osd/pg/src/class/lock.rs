//! Class `lock`: named locks on an object, shared or exclusive, held by a client's session under a cookie.
//!
//! | method | input | output |
//! | --- | --- | --- |
//! | `lock` | [`Lock`] | `u64`: the fence |
//! | `unlock` | [`Unlock`] | nothing |
//! | `break` | [`Break`] | `u64`: the lock's newest fence |
//! | `unfence` | [`Named`] with `tag` | nothing |
//! | `assert` (reads) | [`Assert`] | nothing |
//! | `info` (reads) | [`Named`] | [`LockState`] |
//! | `list` (reads) | nothing | names |
//!
//! A `tag` names the holder beyond its session: a process, a mount, an image's writer. Breaking a hold fences the tag: it
//! can neither lock again, nor pass `assert`, until `unfence`. So whoever takes over may write at once, if the old
//! holder's writes carry `assert` as a guard. The fence number rises with each new hold and is never given twice.
//!
//! Expiry is by the primary's wall clock: good for cleaning up, not for safety. A hold that is over is dropped when the
//! lock is next asked for; `assert` does not pass meanwhile.

use std::collections::BTreeMap;

use bytes::Bytes;
use nacre_proto::ids::SessionId;

use super::{Class, Method, Scope, code, encode, input, refuse};
use crate::exec::Stop;
use crate::{codec_enum, codec_struct};

/// How it is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// By one.
    #[default]
    Exclusive,
    /// By many.
    Shared,
}
codec_enum!(Kind { 0 => Exclusive {}, 1 => Shared {} });

/// What a hold by the same session and cookie means to `lock`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Renew {
    /// Refused: it is held already.
    #[default]
    No,
    /// It is prolonged; if there is none, a new one is made.
    May,
    /// It is prolonged; if there is none, refused.
    Must,
}
codec_enum!(Renew { 0 => No {}, 1 => May {}, 2 => Must {} });

/// Input of `lock`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// Which lock of the object.
    pub name: Bytes,
    /// How.
    pub kind: Kind,
    /// Tells apart the holds of one session.
    pub cookie: Bytes,
    /// The holder's identity, not empty.
    pub tag: Bytes,
    /// How long it lasts unless renewed; 0: until unlocked or broken.
    pub last_ms: u64,
    /// If held already.
    pub renew: Renew,
    /// For people.
    pub note: Bytes,
}
codec_struct!(Lock { name, kind, cookie, tag, last_ms, renew, note });

/// Input of `unlock`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unlock {
    /// Which lock.
    pub name: Bytes,
    /// Which hold of the session.
    pub cookie: Bytes,
}
codec_struct!(Unlock { name, cookie });

/// Input of `break`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Break {
    /// Which lock.
    pub name: Bytes,
    /// Whose hold.
    pub session: SessionId,
    /// Which of its holds.
    pub cookie: Bytes,
}
codec_struct!(Break { name, session, cookie });

/// Input of `assert`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assert {
    /// Which lock.
    pub name: Bytes,
    /// Which hold of the session.
    pub cookie: Bytes,
    /// The identity it was taken under.
    pub tag: Bytes,
    /// The fence it got; 0: any.
    pub fence: u64,
}
codec_struct!(Assert { name, cookie, tag, fence });

/// Input of `info` (without `tag`) and `unfence`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Which lock.
    pub name: Bytes,
    /// Which identity.
    pub tag: Bytes,
}
codec_struct!(Named { name, tag });

/// One hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The holder's identity.
    pub tag: Bytes,
    /// Its fence.
    pub fence: u64,
    /// When it is over, by the wall clock; 0: never.
    pub until_ms: u64,
    /// For people.
    pub note: Bytes,
}
codec_struct!(Info { tag, fence, until_ms, note });

/// A lock as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockState {
    /// How the present holds are.
    pub kind: Kind,
    /// The newest fence given.
    pub fence: u64,
    /// By session and cookie.
    pub holds: BTreeMap<(SessionId, Bytes), Info>,
    /// Identities whose hold was broken, with the fence they had.
    pub fenced: BTreeMap<Bytes, u64>,
}
codec_struct!(LockState { kind, fence, holds, fenced });

/// Fenced identities kept per lock; the oldest give way. One that gave way still holds nothing.
const FENCED_MAX: usize = 256;
/// Names, cookies and tags are short.
const NAME_MAX: usize = 200;

/// The class.
pub struct LockClass;

impl Class for LockClass {
    fn name(&self) -> &'static str {
        "lock"
    }

    fn methods(&self) -> &'static [Method] {
        &[
            Method { name: "lock", writes: true, run: lock },
            Method { name: "unlock", writes: true, run: unlock },
            Method { name: "break", writes: true, run: break_hold },
            Method { name: "unfence", writes: true, run: unfence },
            Method { name: "assert", writes: false, run: assert },
            Method { name: "info", writes: false, run: info },
            Method { name: "list", writes: false, run: list },
        ]
    }
}

fn load(s: &mut Scope<'_, '_>, name: &[u8]) -> Result<LockState, Stop> {
    Ok(s.state(name)?.unwrap_or_default())
}

fn lock(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let want: Lock = input(raw)?;
    let long = [&want.name, &want.cookie, &want.tag, &want.note].iter().any(|x| x.len() > NAME_MAX);
    if want.name.is_empty() || want.tag.is_empty() || long {
        return Err(refuse(code::MALFORMED));
    }
    let mut state = load(s, &want.name)?;
    if state.fenced.contains_key(&want.tag) {
        return Err(refuse(code::FENCED));
    }
    let now = s.wall_ms();
    state.holds.retain(|_, h| h.until_ms == 0 || h.until_ms > now);
    let me = (s.session(), want.cookie.clone());
    let until_ms = if want.last_ms == 0 { 0 } else { now.saturating_add(want.last_ms) };
    let held = state.holds.get(&me).filter(|h| h.tag == want.tag).map(|h| h.fence);
    match (want.renew, held) {
        (Renew::No, Some(_)) => return Err(refuse(code::EXISTS)),
        (Renew::Must, None) => return Err(refuse(code::ABSENT)),
        _ => {}
    }
    let others = state.holds.keys().any(|k| *k != me);
    if others && (want.kind == Kind::Exclusive || state.kind == Kind::Exclusive) {
        return Err(refuse(code::BUSY));
    }
    // The same session and cookie under another identity holds it: that one must let go first.
    if held.is_none() && state.holds.contains_key(&me) {
        return Err(refuse(code::BUSY));
    }
    let fence = match held {
        Some(fence) => fence,
        None => {
            state.fence += 1;
            state.fence
        }
    };
    state.kind = want.kind;
    state.holds.insert(me, Info { tag: want.tag, fence, until_ms, note: want.note });
    s.set_state(&want.name, &state)?;
    Ok(encode(&fence))
}

fn unlock(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let which: Unlock = input(raw)?;
    let mut state = load(s, &which.name)?;
    if state.holds.remove(&(s.session(), which.cookie)).is_none() {
        return Err(refuse(code::ABSENT));
    }
    s.set_state(&which.name, &state)?;
    Ok(Bytes::new())
}

fn break_hold(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let which: Break = input(raw)?;
    let mut state = load(s, &which.name)?;
    let Some(hold) = state.holds.remove(&(which.session, which.cookie)) else {
        return Err(refuse(code::ABSENT));
    };
    // All holds of the identity end: it is the identity that is no longer trusted.
    state.holds.retain(|_, h| h.tag != hold.tag);
    state.fenced.insert(hold.tag, hold.fence);
    while state.fenced.len() > FENCED_MAX {
        let Some(oldest) = state.fenced.iter().min_by_key(|(_, f)| **f).map(|(t, _)| t.clone()) else { break };
        state.fenced.remove(&oldest);
    }
    let fence = state.fence;
    s.set_state(&which.name, &state)?;
    Ok(encode(&fence))
}

fn unfence(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let which: Named = input(raw)?;
    let mut state = load(s, &which.name)?;
    if state.fenced.remove(&which.tag).is_none() {
        return Err(refuse(code::ABSENT));
    }
    s.set_state(&which.name, &state)?;
    Ok(Bytes::new())
}

fn assert(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    let want: Assert = input(raw)?;
    let state = load(s, &want.name)?;
    if state.fenced.contains_key(&want.tag) {
        return Err(refuse(code::FENCED));
    }
    let now = s.wall_ms();
    let hold = state.holds.get(&(s.session(), want.cookie));
    let hold = hold.filter(|h| h.tag == want.tag && (h.until_ms == 0 || h.until_ms > now));
    match hold {
        None => Err(refuse(code::ABSENT)),
        Some(h) if want.fence != 0 && h.fence != want.fence => Err(refuse(code::CONDITION)),
        Some(_) => Ok(Bytes::new()),
    }
}

fn info(s: &mut Scope<'_, '_>, raw: &[u8]) -> Result<Bytes, Stop> {
    s.must_exist()?;
    let which: Named = input(raw)?;
    Ok(encode(&load(s, &which.name)?))
}

fn list(s: &mut Scope<'_, '_>, _: &[u8]) -> Result<Bytes, Stop> {
    s.must_exist()?;
    Ok(encode(&s.states()?))
}
