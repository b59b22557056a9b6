//! What the server-side classes the clients call should do: the oracle's own idea of `numops`, `queue` and `lock`.
//! Their effects are not idempotent, so a call that took effect twice, or not at all, leaves no order that explains it.

use std::collections::BTreeMap;

use bytes::Bytes;
use nacre_pg::class::lock::{Assert, Break, Info, Kind, Lock, LockState, Named, Renew, Unlock};
use nacre_pg::class::numops::Change;
use nacre_pg::class::queue::{Entries, Item, Take};
use nacre_pg::class::{code, decode, encode};
use nacre_pg::op::OpError;
use nacre_proto::ids::SessionId;

/// What the classes keep with an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kept {
    put: u64,
    items: Vec<(u64, Bytes)>,
    shared: bool,
    fence: u64,
    /// Who holds the lock: tag and fence.
    holds: BTreeMap<(SessionId, Bytes), (Bytes, u64)>,
    fenced: BTreeMap<Bytes, u64>,
}

/// An object as far as classes see it.
pub struct Seen<'a> {
    /// What classes keep.
    pub kept: &'a mut Kept,
    /// The user's omap.
    pub omap: &'a mut BTreeMap<Bytes, Bytes>,
    /// It exists.
    pub exists: bool,
    /// Who asks.
    pub session: SessionId,
}

/// Does this call write.
pub fn writes(method: &str) -> bool {
    !matches!(method, "list" | "info" | "assert")
}

fn refused(code: u32) -> OpError {
    OpError::Class { at: 0, code }
}

/// Calls a method. Only what the clients use is known here.
pub fn call(s: &mut Seen<'_>, class: &str, method: &str, input: &[u8]) -> Result<Bytes, OpError> {
    let unknown = OpError::NoClass { at: 0 };
    match (class, method) {
        ("numops", "add") => {
            let Change { key, by } = decode(input).ok_or(unknown)?;
            let old = s.omap.get(&key).map_or("0", |v| std::str::from_utf8(v).unwrap_or("?"));
            let new = old.parse::<i64>().ok().and_then(|o| o.checked_add(by)).ok_or(refused(code::NUMBER))?;
            s.omap.insert(key, Bytes::from(new.to_string()));
            Ok(encode(&new))
        }
        ("queue", "put") => {
            let Entries { items } = decode(input).ok_or(unknown)?;
            let first = s.kept.put + 1;
            for data in items {
                s.kept.put += 1;
                s.kept.items.push((s.kept.put, data));
            }
            Ok(encode(&first))
        }
        ("queue", "take" | "list") => {
            if !s.exists {
                return Err(OpError::NotFound { at: 0 });
            }
            let lines = |list: &[(u64, Bytes)]| -> Vec<Item> {
                list.iter().map(|(number, data)| Item { number: *number, data: data.clone() }).collect()
            };
            if method == "list" {
                return Ok(encode(&(lines(&s.kept.items), false)));
            }
            let Take { max } = decode(input).ok_or(unknown)?;
            let n = s.kept.items.len().min(max as usize);
            let taken: Vec<_> = s.kept.items.drain(..n).collect();
            Ok(encode(&lines(&taken)))
        }
        ("lock", _) => lock(s, method, input),
        _ => Err(unknown),
    }
}

fn lock(s: &mut Seen<'_>, method: &str, input: &[u8]) -> Result<Bytes, OpError> {
    let unknown = OpError::NoClass { at: 0 };
    let k = &mut *s.kept;
    match method {
        "lock" => {
            let want: Lock = decode(input).ok_or(unknown)?;
            let me = (s.session, want.cookie);
            if k.fenced.contains_key(&want.tag) {
                return Err(refused(code::FENCED));
            }
            let mine = k.holds.get(&me).cloned();
            match (&mine, want.renew) {
                (Some((tag, _)), Renew::No) if *tag == want.tag => return Err(refused(code::EXISTS)),
                (None, Renew::Must) => return Err(refused(code::ABSENT)),
                (Some((tag, _)), Renew::Must) if *tag != want.tag => return Err(refused(code::ABSENT)),
                _ => {}
            }
            let alone = k.holds.keys().all(|h| *h == me);
            let shared = want.kind == Kind::Shared;
            if !(alone || shared && k.shared) || mine.as_ref().is_some_and(|(t, _)| *t != want.tag) {
                return Err(refused(code::BUSY));
            }
            let fence = mine.map_or(k.fence + 1, |(_, f)| f);
            k.fence = k.fence.max(fence);
            k.shared = shared;
            k.holds.insert(me, (want.tag, fence));
            Ok(encode(&fence))
        }
        "unlock" => {
            let which: Unlock = decode(input).ok_or(unknown)?;
            k.holds.remove(&(s.session, which.cookie)).ok_or(refused(code::ABSENT))?;
            Ok(Bytes::new())
        }
        "break" => {
            let which: Break = decode(input).ok_or(unknown)?;
            let (tag, fence) = k.holds.remove(&(which.session, which.cookie)).ok_or(refused(code::ABSENT))?;
            k.holds.retain(|_, (t, _)| *t != tag);
            k.fenced.insert(tag, fence);
            Ok(encode(&k.fence))
        }
        "unfence" => {
            let which: Named = decode(input).ok_or(unknown)?;
            k.fenced.remove(&which.tag).ok_or(refused(code::ABSENT))?;
            Ok(Bytes::new())
        }
        "assert" => {
            let want: Assert = decode(input).ok_or(unknown)?;
            if k.fenced.contains_key(&want.tag) {
                return Err(refused(code::FENCED));
            }
            match k.holds.get(&(s.session, want.cookie)) {
                Some((tag, _)) if *tag == want.tag => Ok(Bytes::new()),
                _ => Err(refused(code::ABSENT)),
            }
        }
        "info" if !s.exists => Err(OpError::NotFound { at: 0 }),
        "info" => {
            let hold =
                |(tag, fence): &(Bytes, u64)| Info { tag: tag.clone(), fence: *fence, until_ms: 0, note: Bytes::new() };
            Ok(encode(&LockState {
                kind: if k.shared { Kind::Shared } else { Kind::Exclusive },
                fence: k.fence,
                holds: k.holds.iter().map(|(who, h)| (who.clone(), hold(h))).collect(),
                fenced: k.fenced.clone(),
            }))
        }
        _ => Err(unknown),
    }
}
