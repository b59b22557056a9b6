//! What one object should do, written for clarity and apart from the core: the oracle's own idea of every operation
//! the simulated clients use.

use std::collections::BTreeMap;

use bytes::Bytes;
use nacre_pg::log::Outcome;
use nacre_pg::op::{Op, OpError, OpResult};
use nacre_proto::ids::{SessionId, SnapId};

use super::classes::{self, Kept, Seen};
use crate::client::copies;
use crate::history::Call;

/// One state of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content {
    data: Vec<u8>,
    xattrs: BTreeMap<Bytes, Bytes>,
    omap: BTreeMap<Bytes, Bytes>,
    kept: Kept,
}

/// An object with its frozen states.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Model {
    head: Option<Content>,
    seq: SnapId0,
    /// Snapshots and the state they see, oldest first.
    frozen: Vec<(Vec<u64>, Content)>,
}

type SnapId0 = u64;

impl Model {
    /// What is left once the removed snapshots are trimmed, if that is nothing at all.
    pub fn forgotten(&self, removed: &std::collections::BTreeSet<u64>) -> Option<Model> {
        let kept_for_them = self.head.is_none()
            && !self.frozen.is_empty()
            && self.frozen.iter().all(|(snaps, _)| snaps.iter().all(|s| removed.contains(s)));
        kept_for_them.then(Model::default)
    }

    /// Carries out a call; what it should answer, and the object afterwards.
    pub fn apply(&self, call: &Call) -> (Outcome, Model) {
        if call.snap != SnapId::HEAD {
            return (self.read_snap(call), self.clone());
        }
        if let ([Op::CopyFrom { .. }], Some((_, Err(e)))) = (&call.ops[..], &call.answer)
            && matches!(e, OpError::NotFound { .. } | OpError::Guard { .. })
        {
            // The source was not there, or changed all the while: its own history says whether that can be.
            return (Err(e.clone()), self.clone());
        }
        let mut next = self.head.clone();
        let mut results = Vec::new();
        let mut changed = false;
        for (i, op) in call.ops.iter().enumerate() {
            match self.one(session(call), op, &mut next, &mut changed) {
                Ok(r) => results.push(r),
                Err(e) => return (Err(e.at(i as u32)), self.clone()),
            }
        }
        if !changed {
            return (Ok(results), self.clone());
        }
        let mut out = self.clone();
        if call.snapc.seq.0 > out.seq {
            let mut fresh: Vec<u64> = call.snapc.snaps.iter().map(|s| s.0).filter(|s| *s > out.seq).collect();
            fresh.sort_unstable();
            if let (Some(was), false) = (&self.head, fresh.is_empty()) {
                out.frozen.push((fresh, was.clone()));
            }
            out.seq = call.snapc.seq.0;
        }
        out.head = next;
        if out.head.is_none() && out.frozen.is_empty() {
            // The last trace is gone, and with it the newest snapshot it had seen.
            out.seq = 0;
        }
        (Ok(results), out)
    }

    fn state_of(&self, snap: u64) -> Option<&Content> {
        if snap > self.seq {
            return self.head.as_ref();
        }
        self.frozen.iter().find(|(snaps, _)| snaps.contains(&snap)).map(|(_, c)| c)
    }

    fn read_snap(&self, call: &Call) -> Outcome {
        let mut state = self.state_of(call.snap.0).cloned();
        let mut changed = false;
        let mut out = Vec::new();
        for (i, op) in call.ops.iter().enumerate() {
            out.push(self.one(session(call), op, &mut state, &mut changed).map_err(|e| e.at(i as u32))?);
        }
        Ok(out)
    }

    fn one(
        &self,
        session: SessionId,
        op: &Op,
        state: &mut Option<Content>,
        changed: &mut bool,
    ) -> Result<OpResult, OpError> {
        let absent = OpError::NotFound { at: 0 };
        match op {
            Op::Read { offset, len } => {
                let c = state.as_ref().ok_or(absent)?;
                let from = (*offset as usize).min(c.data.len());
                let to = (offset.saturating_add(*len) as usize).min(c.data.len());
                Ok(OpResult::Data(Bytes::copy_from_slice(&c.data[from..to])))
            }
            Op::GetXattr { name } => {
                let c = state.as_ref().ok_or(absent)?;
                c.xattrs.get(name).cloned().map(OpResult::Data).ok_or(OpError::NoAttr { at: 0 })
            }
            Op::OmapRange { after, prefix, max } => {
                let c = state.as_ref().ok_or(absent)?;
                let all: Vec<(Bytes, Bytes)> = c
                    .omap
                    .iter()
                    .filter(|(k, _)| k.starts_with(prefix) && after.as_ref().is_none_or(|a| *k > a))
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect();
                let more = all.len() > *max as usize;
                Ok(OpResult::Pairs { pairs: all.into_iter().take(*max as usize).collect(), more })
            }
            Op::AssertExists => state.as_ref().map(|_| OpResult::Done).ok_or(absent),
            Op::CompareXattr { name, how, value } => {
                let c = state.as_ref().ok_or(absent)?;
                let stored = c.xattrs.get(name).cloned().unwrap_or_default();
                if how.holds(&stored, value) { Ok(OpResult::Done) } else { Err(OpError::Guard { at: 0 }) }
            }
            Op::Create { exclusive } => {
                if *exclusive && state.is_some() {
                    return Err(OpError::Exists { at: 0 });
                }
                *changed = true;
                state.get_or_insert_default();
                Ok(OpResult::Done)
            }
            Op::Write { offset, data } => {
                *changed = true;
                put(&mut state.get_or_insert_default().data, *offset as usize, data);
                Ok(OpResult::Done)
            }
            Op::WriteFull { data } => {
                *changed = true;
                state.get_or_insert_default().data = data.to_vec();
                Ok(OpResult::Done)
            }
            Op::Append { data } => {
                *changed = true;
                state.get_or_insert_default().data.extend_from_slice(data);
                Ok(OpResult::Done)
            }
            Op::Truncate { size } => {
                let c = state.as_mut().ok_or(absent)?;
                *changed = true;
                c.data.resize(*size as usize, 0);
                Ok(OpResult::Done)
            }
            Op::Zero { offset, len } => {
                let c = state.as_mut().ok_or(absent)?;
                let from = (*offset as usize).min(c.data.len());
                let to = (offset.saturating_add(*len) as usize).min(c.data.len());
                if from < to {
                    *changed = true;
                    c.data[from..to].fill(0);
                }
                Ok(OpResult::Done)
            }
            Op::Remove => {
                state.take().ok_or(absent)?;
                *changed = true;
                Ok(OpResult::Done)
            }
            Op::SetXattr { name, value } => {
                *changed = true;
                state.get_or_insert_default().xattrs.insert(name.clone(), value.clone());
                Ok(OpResult::Done)
            }
            Op::OmapSet { entries } => {
                *changed = true;
                state.get_or_insert_default().omap.extend(entries.iter().cloned());
                Ok(OpResult::Done)
            }
            Op::OmapRemove { keys } => {
                let c = state.as_mut().ok_or(absent)?;
                *changed = true;
                for k in keys {
                    c.omap.remove(k);
                }
                Ok(OpResult::Done)
            }
            Op::Rollback { snap } => {
                if snap.0 > self.seq {
                    return state.as_ref().map(|_| OpResult::Done).ok_or(absent);
                }
                let was = self.frozen.iter().find(|(s, _)| s.contains(&snap.0)).map(|(_, c)| c.clone());
                if was.is_some() || state.is_some() {
                    *changed = true;
                }
                *state = was;
                Ok(OpResult::Done)
            }
            Op::CopyFrom { from, .. } => {
                *changed = true;
                *state = Some(Content { data: copies::of_source(&from.name), ..Content::default() });
                Ok(OpResult::Done)
            }
            // Who watches is not part of what a reader sees.
            Op::Watch { .. } => state.as_ref().map(|_| OpResult::Done).ok_or(absent),
            Op::Unwatch { .. } => Ok(OpResult::Done),
            Op::Call { class, method, input } => {
                let exists = state.is_some();
                let mut c = state.clone().unwrap_or_default();
                let mut seen = Seen { kept: &mut c.kept, omap: &mut c.omap, exists, session };
                let out = classes::call(&mut seen, class, method, input)?;
                // All methods that write do write, but for taking from an empty queue.
                let nothing = method == "take" && *state == Some(c.clone());
                if classes::writes(method) && !nothing {
                    *changed = true;
                    *state = Some(c);
                }
                Ok(OpResult::Data(out))
            }
            _ => Err(OpError::Invalid { at: 0 }),
        }
    }
}

fn session(call: &Call) -> SessionId {
    SessionId(call.client + 1)
}

fn put(data: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    if data.len() < offset + bytes.len() {
        data.resize(offset + bytes.len(), 0);
    }
    data[offset..offset + bytes.len()].copy_from_slice(bytes);
}
