//! What the default run must have shown: every fault, every thing faults lead to, every move of state. What cannot be
//! shown is named here with the reason, so that a move nobody makes is a decision and not an accident.

use std::collections::BTreeMap;

use crate::fault::Fault;

/// Counts by name.
pub type Sights = BTreeMap<&'static str, u64>;

/// Counts of moves of state.
pub type Moves = BTreeMap<(&'static str, &'static str), u64>;

/// Things that faults lead to: a fault that is done without any of these following would prove nothing.
pub const SIGHTS: &[&str] = &[
    "background read put off",
    "damaged read",
    "frozen snapshot read again",
    "message lost in a cut",
    "message lost with its connection",
    "message of an interval that is over",
    "message overtook one of another connection",
    "object read to its end for a copy",
    "one-way cut",
    "request sent twice",
    "ranges taken from a clone by a member",
    "ranges taken from a clone by a primary",
    "slow sync",
    "snapshot removed",
    "split",
    "sync refused",
    "torn writes",
];

/// Moves no seed makes, and why.
pub const UNREACHABLE: &[(&str, &str, &str)] = &[
    (
        "get_info",
        "incomplete",
        "all who held the log of the last start must have been declared lost; the simulation gives no data up",
    ),
    ("incomplete", "get_info", "there is no incomplete pg, see above"),
];

/// Moves of the core's table that were never made, but those which are known not to be.
#[must_use]
pub fn moves_never_seen(moves: &Moves) -> Vec<String> {
    nacre_pg::TRANSITIONS
        .iter()
        .filter(|(from, to, _)| !moves.keys().any(|(f, t)| (f == from || *from == "*") && t == to))
        .filter(|(from, to, _)| !UNREACHABLE.iter().any(|(f, t, _)| f == from && t == to))
        .map(|(from, to, by)| format!("{from} -> {to}: {by}"))
        .collect()
}

/// Faults never done, and things never seen.
#[must_use]
pub fn sights_never_seen(sights: &Sights) -> Vec<String> {
    let names = Fault::ALL.iter().map(|f| f.name()).chain(SIGHTS.iter().copied());
    names.filter(|n| !sights.contains_key(n)).map(str::to_owned).collect()
}
