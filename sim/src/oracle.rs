//! What must hold, whatever happens: one file per invariant. `sample` looks in passing, `at_rest` after everything was
//! healed and is quiet.

mod acked;
pub(crate) mod alive;
mod bounds;
pub mod classes;
mod diagnose;
mod durable;
mod equal;
mod frozen;
mod histories;
pub(crate) mod interval;
mod lacking;
pub mod ledger;
pub mod linear;
pub mod model;
mod notify;
mod once;
mod scrub;
mod slots;
mod stale;

use crate::world::World;

/// Looked at now and then while faults go on.
pub fn sample(w: &mut World) {
    bounds::check(w);
    lacking::check(w);
    once::check(w);
    scrub::sample(w);
}

/// Looked at when the cluster is healed and quiet.
pub fn at_rest(w: &mut World) {
    bounds::check(w);
    lacking::check(w);
    once::check(w);
    equal::check(w);
    acked::check_all(w);
    slots::check(w);
    notify::check(w);
    frozen::check(w);
    histories::check(w);
    scrub::check(w);
}

#[cfg(test)]
#[path = "oracle_test.rs"]
mod tests;
