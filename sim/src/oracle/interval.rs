//! A message of an interval that is over has no effect: nothing is sent, stored or answered because of it.

use nacre_pg::io::{Input, Output};
use nacre_proto::ids::{OsdId, PgId};

use crate::world::World;

/// Is the input such a message.
pub(crate) fn is_stale(w: &World, osd: OsdId, pg: PgId, input: &Input) -> bool {
    let Input::Peer { msg, .. } = input else { return false };
    w.nodes[osd.0 as usize].pgs.get(&pg).is_some_and(|(_, g)| msg.interval < g.info().interval)
}

/// What it led to, if anything. What is asked of the shell (a slot given back) is upkeep that any step may do.
pub(crate) fn effect(osd: OsdId, pg: PgId, out: &[Output]) -> Option<String> {
    let counts = |o: &&Output| !matches!(o, Output::Ask(_) | Output::Arm { .. } | Output::Report(_));
    let mut first = format!("{:?}", out.iter().find(counts)?);
    first.truncate(first.char_indices().nth(200).map_or(first.len(), |(i, _)| i));
    Some(format!("{osd} pg {pg}: took a message of an interval that is over, and led to {first}"))
}
