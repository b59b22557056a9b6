//! Ends of an OSD: lost, removed; and the questions to ask before stopping or destroying one.

use std::sync::Arc;

use nacre_proto::ids::{OsdId, PgId, Stamp};

use super::{Outcome, RuleError, edit_osd, location, osd_state, refused, set};
use crate::health::Reports;
use crate::increment::Draft;
use crate::map::{ClusterMap, Table};
use crate::placement::{PgMapping, Placement};

/// An answer with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Go ahead.
    pub yes: bool,
    /// Why not, or why it is safe.
    pub why: String,
    /// The pgs that speak against it.
    pub pgs: Vec<PgId>,
}

/// Whether OSDs can be stopped together without a pg losing access.
pub fn ok_to_stop(placement: &Placement, osds: &[OsdId]) -> Answer {
    let map = placement.map();
    let mut mapping = PgMapping::default();
    let mut pgs = Vec::new();
    for pg in placement.pgs() {
        let Some(pool) = map.pool_of(pg) else { continue };
        if !placement.pg_into(pg, &mut mapping) || !mapping.acting.iter().any(|osd| osds.contains(osd)) {
            continue;
        }
        let left = mapping.acting.iter().filter(|osd| osd.is_some() && !osds.contains(osd)).count();
        if left < pool.min_size as usize {
            pgs.push(pg);
        }
    }
    let why = match pgs.len() {
        0 => "every pg keeps at least min_size copies".to_owned(),
        count => format!("{count} pgs would have fewer copies than min_size and stop serving"),
    };
    Answer { yes: pgs.is_empty(), why, pgs }
}

/// Whether no data depends on an OSD: it is mapped to no pg, and every pg is whole without it by its own report.
pub fn safe_to_destroy(placement: &Placement, reports: &Reports, osd: OsdId) -> Answer {
    let mapped: Vec<PgId> = placement
        .pgs()
        .filter(|pg| placement.pg(*pg).is_some_and(|at| at.up.contains(&osd) || at.acting.contains(&osd)))
        .collect();
    if !mapped.is_empty() {
        let why = format!(
            "{} pgs are mapped to {osd}; run `nacre osd out {}` and wait until they have moved",
            mapped.len(),
            osd.0
        );
        return Answer { yes: false, why, pgs: mapped };
    }
    let unknown: Vec<PgId> = placement.pgs().filter(|pg| !reports.pgs.contains_key(pg)).collect();
    if !unknown.is_empty() {
        let why = format!(
            "{} pgs have not reported: what {osd} holds of them may be the last copy; bring their OSDs up",
            unknown.len()
        );
        return Answer { yes: false, why, pgs: unknown };
    }
    let unclean: Vec<PgId> = reports.pgs.iter().filter(|(_, pg)| !pg.is_clean()).map(|(pg, _)| *pg).collect();
    if !unclean.is_empty() {
        let why =
            format!("{} pgs are not clean: {osd} may hold what they miss; wait until recovery is done", unclean.len());
        return Answer { yes: false, why, pgs: unclean };
    }
    Answer { yes: true, why: format!("no pg is mapped to {osd} and all pgs are clean"), pgs: Vec::new() }
}

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
