//! Fencing of sessions and revocation of certificates.
//!
//! Fencing is one map change with a barrier: from the epoch of the fence on, every OSD that has that epoch refuses the
//! session. Who fences waits until every OSD that is up has it ([`barrier`]); then no write of the session can land any
//! more, and a volume can be given to another node.

use std::collections::BTreeMap;
use std::sync::Arc;

use nacre_proto::ids::{Epoch, OsdId, SessionId, Stamp};

use super::{Asker, Outcome, RuleError, set, wrong};
use crate::increment::Draft;
use crate::map::{ClusterMap, Fence, Revocation, Table};

/// Fences sessions. The outcome's increment carries the barrier epoch; a fence that stands keeps its own.
pub fn fence(
    map: &ClusterMap,
    sessions: &[SessionId],
    until: Option<Stamp>,
    why: &str,
    asker: &Asker,
) -> Result<Outcome, RuleError> {
    if let Some(until) = until.filter(|until| *until <= asker.now) {
        return Err(wrong("end of the fence", until, "a moment to come"));
    }
    let mut draft = Draft::of(map, asker.now);
    let epoch = draft.epoch;
    let why = if why.is_empty() { format!("fenced by {}", asker.who) } else { format!("{why} (by {})", asker.who) };
    for session in sessions {
        let (epoch, until) = match map.fenced.get(session) {
            // A longer fence is kept.
            Some(stands) => (stands.epoch, stands.until.and_then(|stands| until.map(|until| until.max(stands)))),
            None => (epoch, until),
        };
        set(&mut draft.fenced, *session, Arc::new(Fence { epoch, until, why: why.clone() }));
    }
    Ok(Outcome::of(draft, format!("{} sessions fenced", sessions.len())))
}

/// Lets a session in again.
pub fn unfence(map: &ClusterMap, session: SessionId, now: Stamp) -> Result<Outcome, RuleError> {
    let mut draft = Draft::of(map, now);
    if !draft.fenced.remove(&session) {
        return Ok(Outcome::already(format!("{session} is not fenced")));
    }
    Ok(Outcome::of(draft, format!("{session} is let in again")))
}

/// OSDs that are up and not known to have reached an epoch. Empty = every operation from now on meets that epoch.
pub fn barrier(map: &ClusterMap, reached: &BTreeMap<OsdId, Epoch>, epoch: Epoch) -> Vec<OsdId> {
    // One that booted in or after the epoch started from a map that has it.
    let has = |osd: &OsdId| {
        reached.get(osd).is_some_and(|at| *at >= epoch)
            || map.osds.get(*osd).is_some_and(|state| state.up_from >= epoch)
    };
    map.up_osds().filter(|osd| !has(osd)).collect()
}

/// Refuses a certificate from now on until it ends by itself.
pub fn revoke(map: &ClusterMap, serial: &[u8], until: Stamp, why: &str, now: Stamp) -> Result<Outcome, RuleError> {
    if serial.is_empty() || serial.len() > 64 {
        return Err(wrong("serial number", format!("of {} bytes", serial.len()), "1 to 64 bytes"));
    }
    if until <= now {
        return Ok(Outcome::already("the certificate has expired already"));
    }
    let mut draft = Draft::of(map, now);
    set(&mut draft.revoked, serial.to_vec(), Arc::new(Revocation { until, why: why.to_owned() }));
    Ok(Outcome::of(draft, "certificate revoked"))
}
