//! Nothing grows without end: a clean pg's log is as long as its settings allow, and no longer.

use crate::world::World;

/// Writes that may be on their way and cannot be cut yet.
const UNDER_WAY: usize = 64;

/// Every core of every osd.
pub(super) fn check(w: &mut World) {
    let mut bad = Vec::new();
    for node in w.nodes.iter().filter(|n| n.running) {
        for (pg, (_, core)) in &node.pgs {
            let allowed = node.cfg.log_keep + node.cfg.log_slack + UNDER_WAY;
            if core.is_clean() && core.log().len() > allowed {
                bad.push(format!("{} pg {pg}: log of {} entries, {allowed} are allowed", node.id, core.log().len()));
            }
        }
    }
    w.violations.extend(bad);
}
