//! Ends of an OSD: lost, destroyed to be replaced, removed.

use std::sync::Arc;

use nacre_proto::ids::{Incarnation, OsdId, PgId, Stamp};

use super::{Outcome, RuleError, edit_osd, location, osd_state, refused, set};
use crate::increment::Draft;
use crate::map::{ClusterMap, OsdFlags, Table};

/// Declares that what an OSD held is gone for good, so that peering need not wait for it.
pub fn lost(map: &ClusterMap, osd: OsdId, confirm: bool, now: Stamp) -> Result<Outcome, RuleError> {
    let state = osd_state(map, osd)?;
    if state.is_up() {
        return Err(refused(format!("{osd} is up"), "stop it first; a disk that can be read is not lost"));
    }
    if !confirm {
        return Err(refused(
            format!("declaring {osd} lost gives up writes that only it holds"),
            "try to bring it up, on another machine if need be; if it cannot be, repeat with `--yes-i-lose-data`",
        ));
    }
    let mut draft = Draft::of(map, now);
    let epoch = draft.epoch;
    edit_osd(&mut draft, osd, |state| state.lost_at = epoch);
    Ok(Outcome::of(draft, format!("{osd} is lost: pgs go on without what only it held")))
}

/// Declares that the disk of an OSD is gone and another will take its number, weight and place. `safe` is what
/// [`super::osd_safe::safe_to_replace`] said by the pgs' reports.
pub fn destroy(map: &ClusterMap, osd: OsdId, safe: bool, force: bool, now: Stamp) -> Result<Outcome, RuleError> {
    let state = osd_state(map, osd)?;
    if state.flags.contains(OsdFlags::DESTROYED) {
        return Ok(Outcome::already(format!("{osd} waits for its new disk already")));
    }
    if state.is_up() {
        return Err(refused(
            format!("{osd} is up"),
            format!("stop its daemon first, then repeat `nacre osd replace {}`", osd.0),
        ));
    }
    if !safe && !force {
        return Err(refused(
            format!("{osd} may hold data that is nowhere else"),
            "wait until recovery is done; `--force` gives that data up",
        ));
    }
    let mut draft = Draft::of(map, now);
    let epoch = draft.epoch;
    edit_osd(&mut draft, osd, |state| {
        state.flags.insert(OsdFlags::DESTROYED);
        state.lost_at = epoch;
        // The new disk counts its runs from one.
        state.incarnation = Incarnation(0);
    });
    Ok(Outcome::of(draft, format!("{osd} keeps its number and weight and waits for a new disk")))
}

/// Forgets an OSD.
pub fn remove(map: &ClusterMap, osd: OsdId, safe: bool, force: bool, now: Stamp) -> Result<Outcome, RuleError> {
    let state = osd_state(map, osd)?;
    if state.is_up() {
        return Err(refused(
            format!("{osd} is up"),
            format!("stop its daemon first, then repeat `nacre osd rm {}`", osd.0),
        ));
    }
    if !safe && !force {
        return Err(refused(
            format!("{osd} may hold data that is nowhere else"),
            format!("`nacre osd safe-to-destroy {}` says what is missing; `--force` gives that data up", osd.0),
        ));
    }
    let mut draft = Draft::of(map, now);
    draft.osds.remove(&osd);
    draft.osd_info.remove(&osd);
    forget_exceptions(&mut draft, osd);
    location::unlink_device(&mut draft, osd)?;
    Ok(Outcome::of(draft, format!("{osd} removed")))
}

/// Drops what places pgs on an OSD by hand.
fn forget_exceptions(draft: &mut Draft<'_>, osd: OsdId) {
    let whole: Vec<PgId> = draft.upmap.iter().filter(|(_, set)| set.contains(&osd)).map(|(pg, _)| *pg).collect();
    draft.upmap.remove_all(whole);
    let temp: Vec<PgId> = draft.pg_temp.iter().filter(|(_, set)| set.contains(&osd)).map(|(pg, _)| *pg).collect();
    draft.pg_temp.remove_all(temp);
    let primary: Vec<PgId> = draft.primary_temp.iter().filter(|(_, at)| **at == osd).map(|(pg, _)| *pg).collect();
    draft.primary_temp.remove_all(primary);
    let items: Vec<_> = draft.upmap_items.iter().map(|(pg, items)| (*pg, Arc::clone(items))).collect();
    for (pg, items) in items {
        let kept: Vec<_> = items.iter().copied().filter(|(from, to)| *from != osd && *to != osd).collect();
        if kept.is_empty() {
            draft.upmap_items.remove(&pg);
        } else if kept.len() < items.len() {
            set(&mut draft.upmap_items, pg, Arc::new(kept));
        }
    }
}
