//! What time alone changes: flags, mutes, fences and revocations that end, and OSDs that were down for too long.

use nacre_proto::ids::Stamp;

use super::{Outcome, RuleError, osd_in};
use crate::increment::Draft;
use crate::map::{ClusterMap, Table};

/// Drops entries of a table whose time is over.
fn expire<T: Table>(table: &mut T, until: impl Fn(&T::Value) -> Option<Stamp>, now: Stamp) -> Vec<T::Key> {
    let over: Vec<T::Key> = table
        .entries()
        .filter(|(_, value)| until(value).is_some_and(|until| until <= now))
        .map(|(key, _)| key)
        .collect();
    table.remove_all(over.iter().cloned());
    over
}

/// Does all that is due. Nothing due = no increment.
pub fn tick(map: &ClusterMap, now: Stamp) -> Result<Outcome, RuleError> {
    let mut draft = Draft::of(map, now);
    let mut notes = Vec::new();
    for (flag, target) in expire(&mut draft.flags, |state| state.until, now) {
        notes.push(format!("flag {flag} for {target} has ended by itself"));
    }
    for check in expire(&mut draft.mutes, |mute| mute.until, now) {
        notes.push(format!("health check {check} is shown again"));
    }
    expire(&mut draft.fenced, |fence| fence.until, now);
    expire(&mut draft.revoked, |revocation| Some(revocation.until), now);
    osd_in::auto_out(&mut draft, map, now, &mut notes);
    Ok(Outcome { notes, ..Outcome::of(draft, "time passed") })
}

/// When [`tick`] has something to do next, so that nobody need call it in vain.
pub fn next_due(map: &ClusterMap, now: Stamp) -> Option<Stamp> {
    let flags = map.flags.values().filter_map(|flag| flag.until);
    let mutes = map.mutes.values().filter_map(|mute| mute.until);
    let fences = map.fenced.values().filter_map(|fence| fence.until);
    let revoked = map.revoked.values().map(|revocation| revocation.until);
    let outs = osd_in::out_candidates(map, now).into_iter().filter(|out| out.held.is_none()).map(|out| out.due);
    flags.chain(mutes).chain(fences).chain(revoked).chain(outs).min()
}
