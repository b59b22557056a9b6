//! Liveness: a healed cluster becomes clean and answers everything within simulated time, and no run goes round in circles.

use nacre_proto::ids::PgId;

use crate::world::{MS, World};

/// Is every pg clean by the newest map, and no request open.
fn is_quiet(w: &World) -> bool {
    let map = w.maps.last();
    w.clients.iter().all(|c| c.waiting() == 0)
        && w.is_delivered()
        && w.nodes.iter().all(|n| n.running && n.epoch == map.epoch)
        && map.pgs().into_iter().all(|pg| is_settled(w, pg))
}

/// Has a pg nothing left to do, as its primary sees it.
fn is_settled(w: &World, pg: PgId) -> bool {
    let core = w.maps.last().view(pg).primary.and_then(|p| w.nodes[p.0 as usize].pgs.get(&pg));
    core.is_some_and(|(_, g)| g.is_clean() && g.is_trimmed() && !g.is_scrubbing())
}

/// The one thing that healing alone does not mend: the newest write of an object, never acknowledged, lies in a block
/// that rotted, and nowhere else. An operator has to give it up.
fn is_given_up(w: &World) -> bool {
    w.rotten.iter().any(|(_, _, oid)| {
        w.nodes.iter().flat_map(|n| n.pgs.values()).any(|(_, g)| {
            g.explain().contains("no known copy") && {
                let lacked = |o: &nacre_proto::ids::ObjectId| o.hash == oid.hash && o.name == oid.name;
                g.missing().keys().any(lacked)
            }
        })
    })
}

/// Time for a healed cluster to become quiet.
const PATIENCE: u64 = 120_000 * MS;

/// More events than any honest run needs.
pub(crate) const STORM: u64 = 2_000_000;

/// Runs a healed cluster until it is quiet; that it never is, is a violation.
pub(crate) fn settle(w: &mut World) {
    let until = w.now + PATIENCE;
    let mut next = w.now;
    while w.violations.is_empty() {
        if w.now >= next {
            // Quiet must last a moment: a report may be on its way.
            if is_quiet(w) {
                let end = w.now + 200 * MS;
                while w.step(end) {}
                if is_quiet(w) {
                    return;
                }
            } else if w.now + PATIENCE > until + PATIENCE / 4 && is_given_up(w) {
                w.seen("only copy of an unacknowledged write rotted");
                w.given_up = true;
                return;
            }
            next = w.now + 50 * MS;
        }
        if !w.step(until) || w.events > STORM {
            break;
        }
    }
    if w.violations.is_empty() {
        w.violations.push(stuck(w));
    }
}

fn stuck(w: &World) -> String {
    let mut lines = vec!["healed, but not quiet in time:".to_owned()];
    for c in &w.clients {
        lines.extend(c.stuck());
    }
    let map = w.maps.last();
    for pg in map.pgs().into_iter().filter(|pg| !is_settled(w, *pg)) {
        let view = map.view(pg);
        lines.push(format!("pg {pg} up {:?} acting {:?} map {}", view.up, view.acting, map.epoch));
        for node in &w.nodes {
            if let Some((_, g)) = node.pgs.get(&pg) {
                lines.push(format!(
                    "  {} running {} map {} {} clean {}: {}",
                    node.id,
                    node.running,
                    node.epoch,
                    g.state(),
                    g.is_clean(),
                    g.explain()
                ));
            }
        }
    }
    for node in w.nodes.iter().filter(|n| !n.slots.is_empty()) {
        let slots: Vec<String> = node.slots.iter().map(ToString::to_string).collect();
        lines.push(format!("{} slots: {}", node.id, slots.join("; ")));
    }
    lines.truncate(100);
    lines.join("\n")
}
