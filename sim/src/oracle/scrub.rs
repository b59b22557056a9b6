//! Scrubs find what rotted and nothing else: no findings before a bit was flipped; after a heal and a deep scrub, every
//! copy can be read, and no object is listed as inconsistent.

use nacre_store::ObjectStore;

use crate::world::World;

/// In passing.
pub(super) fn sample(w: &mut World) {
    if w.rot.flips > 0 || !w.rotten.is_empty() {
        return;
    }
    let mut bad = Vec::new();
    for node in w.nodes.iter().filter(|n| n.running) {
        for (pg, (_, core)) in &node.pgs {
            if core.findings().found > 0 || !core.inconsistent().is_empty() {
                bad.push(format!(
                    "{} pg {pg}: a scrub found {:?} {:?}, and nothing was damaged",
                    node.id,
                    core.findings(),
                    core.inconsistent()
                ));
            }
        }
    }
    w.violations.extend(bad);
}

/// At the end.
pub(super) fn check(w: &mut World) {
    sample(w);
    if !(w.scenario.scrubs || w.scenario.rot) {
        // What rotted may not have been looked at.
        return;
    }
    let mut bad: Vec<String> =
        w.unscrubbed().iter().map(|pg| format!("pg {pg}: was never scrubbed deeply once all was healed")).collect();
    let map = w.maps.last();
    for pg in map.pgs() {
        let view = map.view(pg);
        for osd in &view.acting {
            let store = &w.nodes[osd.0 as usize].store;
            for oid in store.list(pg, None, usize::MAX).unwrap_or_default() {
                if let Err(e) = store.read_flat(pg, &oid, 0, u64::MAX) {
                    bad.push(format!("{osd} pg {pg}: {:?}/{} is still bad: {e}", oid.name, oid.snap));
                }
            }
        }
        let Some((_, core)) = view.primary.and_then(|p| w.nodes[p.0 as usize].pgs.get(&pg)) else { continue };
        if !core.inconsistent().is_empty() {
            bad.push(format!("pg {pg}: still listed as inconsistent: {:?}", core.inconsistent()));
        }
    }
    w.violations.extend(bad);
}
