//! What came out of many mappings, counted.

use std::collections::BTreeMap;

use nacre_crush::model::{ITEM_NONE, ItemId};

/// Counts over the mappings seen so far.
pub(super) struct Tally {
    inputs: u64,
    bad: u64,
    sizes: BTreeMap<usize, u64>,
    stored: Vec<u64>,
}

impl Tally {
    /// For devices below `devices`.
    pub(super) fn new(devices: usize) -> Tally {
        Tally { inputs: 0, bad: 0, sizes: BTreeMap::new(), stored: vec![0; devices] }
    }

    /// Counts one mapping; says whether it lacks a device. A hole counts for the length, as in crushtool.
    pub(super) fn count(&mut self, osds: &[ItemId], wanted: usize) -> bool {
        self.inputs += 1;
        *self.sizes.entry(osds.len()).or_default() += 1;
        for osd in osds {
            if let Some(stored) = usize::try_from(*osd).ok().and_then(|id| self.stored.get_mut(id)) {
                *stored += 1;
            }
        }
        let bad = osds.len() != wanted || osds.contains(&ITEM_NONE);
        self.bad += u64::from(bad);
        bad
    }

    pub(super) fn inputs(&self) -> u64 {
        self.inputs
    }

    pub(super) fn bad(&self) -> u64 {
        self.bad
    }

    /// Inputs by the length of their result.
    pub(super) fn sizes(&self) -> &BTreeMap<usize, u64> {
        &self.sizes
    }

    /// Inputs by device.
    pub(super) fn stored(&self) -> &[u64] {
        &self.stored
    }
}
