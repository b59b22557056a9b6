//! What the map says of single pgs: upmap, temporary sets and primaries, and that a primary lives.

use std::collections::BTreeSet;
use std::sync::Arc;

use nacre_proto::ids::{Epoch, OsdId, PgId, Stamp};

use super::{Outcome, RuleError, edit_osd, known_pg, osd_state, refused, set, wrong};
use crate::increment::Draft;
use crate::map::{ClusterMap, OsdFlags, Pool, PoolKind, Table};

fn list(osds: &[OsdId]) -> String {
    let names: Vec<String> =
        osds.iter().map(|osd| if osd.is_some() { osd.0.to_string() } else { "-".into() }).collect();
    format!("[{}]", names.join(","))
}

/// A set of OSDs for a pg: as long as it may be, each known and there once.
fn check_set(map: &ClusterMap, pool: &Pool, set: &[OsdId]) -> Result<(), RuleError> {
    let fits = match pool.kind {
        PoolKind::Replicated => !set.is_empty() && set.len() <= pool.size as usize,
        PoolKind::Erasure(_) => set.len() == pool.size as usize,
    };
    if !fits {
        return Err(wrong("set of OSDs", list(set), format!("{} of them, the size of pool {}", pool.size, pool.name)));
    }
    let mut seen = BTreeSet::new();
    for osd in set.iter().filter(|osd| osd.is_some()) {
        osd_state(map, *osd)?;
        if !seen.insert(osd) {
            return Err(wrong("set of OSDs", list(set), format!("each OSD once, {osd} is there twice")));
        }
    }
    if pool.can_shift() && set.contains(&OsdId::NONE) {
        return Err(wrong("set of OSDs", list(set), "OSDs only: holes are for erasure-coded pools"));
    }
    Ok(())
}

fn check_in(map: &ClusterMap, osd: OsdId) -> Result<(), RuleError> {
    if osd_state(map, osd)?.is_in() {
        return Ok(());
    }
    Err(refused(format!("{osd} is out"), format!("`nacre osd in {}` first, or choose another", osd.0)))
}

/// Places a pg by hand; an empty set lets the computed place count again.
pub fn upmap(map: &ClusterMap, pg: PgId, osds: &[OsdId], now: Stamp) -> Result<Outcome, RuleError> {
    let pool = known_pg(map, pg)?;
    let mut draft = Draft::of(map, now);
    if osds.is_empty() {
        draft.upmap.remove(&pg);
        return Ok(Outcome::of(draft, format!("pg {pg} is placed as computed")));
    }
    check_set(map, pool, osds)?;
    for osd in osds.iter().filter(|osd| osd.is_some()) {
        check_in(map, *osd)?;
    }
    set(&mut draft.upmap, pg, Arc::new(osds.to_vec()));
    Ok(Outcome::of(draft, format!("pg {pg} is placed on {}", list(osds))))
}

/// Replaces single OSDs of a pg; no items let the computed place count again.
pub fn upmap_items(map: &ClusterMap, pg: PgId, items: &[(OsdId, OsdId)], now: Stamp) -> Result<Outcome, RuleError> {
    upmap_many(map, &[(pg, items.to_vec())], now)
}

/// The same for many pgs in one epoch.
pub fn upmap_many(map: &ClusterMap, wanted: &[(PgId, Vec<(OsdId, OsdId)>)], now: Stamp) -> Result<Outcome, RuleError> {
    let mut draft = Draft::of(map, now);
    for (pg, items) in wanted {
        let pool = known_pg(map, *pg)?;
        if items.len() > pool.size as usize {
            return Err(wrong("upmap items of", pg, format!("at most {} pairs, the size of the pool", pool.size)));
        }
        for (from, to) in items {
            osd_state(map, *from)?;
            check_in(map, *to)?;
            if from == to {
                return Err(wrong("upmap item", format!("{from} to {to}"), "two different OSDs"));
            }
        }
        if items.is_empty() {
            draft.upmap_items.remove(pg);
        } else {
            set(&mut draft.upmap_items, *pg, Arc::new(items.clone()));
        }
    }
    Ok(Outcome::of(draft, format!("upmap items of {} pgs set", wanted.len())))
}

/// A primary asks that others serve its pgs while it or its peers are filled. Requests about pgs that are gone, by OSDs
/// that are not up, are dropped: the asker will see the newer map by itself.
pub fn pg_temp(
    map: &ClusterMap,
    from: OsdId,
    epoch: Epoch,
    wants: &[(PgId, Vec<OsdId>)],
    now: Stamp,
) -> Result<Outcome, RuleError> {
    let state = osd_state(map, from)?;
    if !state.is_up() || epoch < state.up_from {
        let (who, incarnation) = (from.to_string(), state.incarnation.0);
        return Err(RuleError::Stale { who, theirs: epoch.0, incarnation, why: "it is down, or was restarted since" });
    }
    let mut draft = Draft::of(map, now);
    let mut outcome = Outcome::default();
    for (pg, osds) in wants {
        let Some(pool) = map.pool_of(*pg) else {
            outcome.notes.push(format!("pg {pg} no longer exists"));
            continue;
        };
        if osds.is_empty() {
            draft.pg_temp.remove(pg);
            continue;
        }
        check_set(map, pool, osds)?;
        // Members that went down since are left to the mapping, which passes over them; one nobody knows is refused above.
        set(&mut draft.pg_temp, *pg, Arc::new(osds.clone()));
    }
    Ok(Outcome {
        notes: outcome.notes,
        ..Outcome::of(draft, format!("{from} set the temporary places of {} pgs", wants.len()))
    })
}

/// Names another primary for the time being.
pub fn primary_temp(map: &ClusterMap, pg: PgId, primary: Option<OsdId>, now: Stamp) -> Result<Outcome, RuleError> {
    known_pg(map, pg)?;
    let mut draft = Draft::of(map, now);
    match primary {
        None => drop(draft.primary_temp.remove(&pg)),
        Some(osd) if osd_state(map, osd)?.is_up() => set(&mut draft.primary_temp, pg, osd),
        Some(osd) => return Err(refused(format!("{osd} is down"), "a primary has to be up; choose another")),
    }
    Ok(Outcome::of(draft, format!("primary of pg {pg} set")))
}

/// A primary asks to have it noted that it lives in an interval that began at `epoch`. It waits for that before it takes
/// writes, so that the absence of the note proves that there were none.
pub fn up_thru(map: &ClusterMap, osd: OsdId, incarnation: u64, epoch: Epoch, now: Stamp) -> Result<Outcome, RuleError> {
    let state = osd_state(map, osd)?;
    if !state.flags.contains(OsdFlags::UP) || state.incarnation.0 != incarnation {
        let why = "that run is not up";
        return Err(RuleError::Stale { who: osd.to_string(), theirs: epoch.0, incarnation, why });
    }
    if epoch > map.epoch {
        return Err(wrong("epoch", epoch, format!("at most {}, the newest there is", map.epoch)));
    }
    if state.up_thru >= epoch {
        return Ok(Outcome::already(format!("{osd} is noted to live through {}", state.up_thru)));
    }
    let mut draft = Draft::of(map, now);
    let noted = map.epoch;
    edit_osd(&mut draft, osd, |state| state.up_thru = noted);
    Ok(Outcome::of(draft, format!("{osd} is noted to live through {noted}")))
}
