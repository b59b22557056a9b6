//! Finds what is wrong with a map: [`check`] looks at the map alone, [`satisfy()`] asks whether a rule finds enough devices
//! and says why not.
//!
//! A map with an error places nothing or not what it says; one with warnings alone works, but not as somebody meant.
//! Nothing is repaired here.

mod flaw;
mod hierarchy;
mod rules;
mod satisfy;

pub use flaw::{Flaw, Severity};
pub use satisfy::{Cause, Shortfall, satisfy};

use crate::model::{CrushMap, ItemId};

/// All flaws of a map, errors first.
pub fn check(map: &CrushMap) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    hierarchy::check(map, &mut flaws);
    rules::check(map, &mut flaws);
    flaws.sort_by_key(Flaw::severity);
    flaws
}

/// The type and name of an item as a person says it: `host h3`, `osd.5`.
fn shown(map: &CrushMap, item: ItemId) -> String {
    match map.buckets.get(&item) {
        Some(bucket) => format!("{} {}", map.type_name(bucket.kind), map.item_name(item)),
        None => map.item_name(item).into_owned(),
    }
}

#[cfg(test)]
#[path = "check_test.rs"]
mod tests;
