//! Slots of recovery are given back: one that is held or asked for when all is clean never will be.

use crate::world::World;

/// Every osd's scheduler.
pub(super) fn check(w: &mut World) {
    let stuck =
        w.nodes.iter().filter_map(|n| n.slots.first().map(|s| format!("{}: a slot, {s}, is never given back", n.id)));
    let stuck: Vec<String> = stuck.collect();
    w.violations.extend(stuck);
}
