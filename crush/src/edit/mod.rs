//! Changes an operator makes to a map, one file for each verb; all are methods of [`CrushMap`].
//!
//! A change is made whole or not at all: it runs on a copy, and the map is replaced when the copy came out right. After
//! each change these hold, if they held before: the hierarchy is a forest, names are unique, a bucket weighs what its
//! items weigh together and as much in its parent, shadow trees mirror the originals, and choose_args have one entry for
//! each item. Ids never change: neither those of buckets nor those of their shadows, because ids place data.
//!
//! A map that had a flaw keeps it, away from what the change touches; the map check finds flaws.

mod add;
mod class;
mod create_rule;
mod move_item;
mod remove;
mod remove_rule;
mod rename;
mod reweight;
mod tunables;
mod weigh;

use std::collections::BTreeSet;

pub use create_rule::NewRule;
pub use tunables::{Profile, TUNABLES};

use crate::model::{ChooseArg, ClassId, CrushMap, ItemId, MAX_TREE_ITEMS, RuleId, TypeId};
use crate::shadow::{self, ShadowError};
use crate::text::{is_name, nearest};

/// Why a change cannot be made. The map is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// A name that is not in the map.
    #[error("there is no {what} {name}{}", near.as_ref().map(|near| format!("; did you mean {near}?")).unwrap_or_default())]
    Unknown {
        /// Device, bucket, type ...
        what: &'static str,
        /// The name.
        name: String,
        /// A name like it.
        near: Option<String>,
    },
    /// A name that is in the map already.
    #[error("the name {name} is taken; choose another")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A name the text form could not say.
    #[error("{name:?} is no name: use letters, digits, `_`, `-` and `.`")]
    BadName {
        /// The name.
        name: String,
    },
    /// A device id that is in use.
    #[error("device {id} is in the map already, as {holder}")]
    IdTaken {
        /// The id.
        id: ItemId,
        /// The device that has it.
        holder: String,
    },
    /// A device id out of range.
    #[error("{id} is no id of a device: they go from 0 to {}", crate::model::MAX_DEVICES - 1)]
    IdRange {
        /// The id.
        id: ItemId,
    },
    /// A device where a bucket is wanted.
    #[error("{name} is a device, and a bucket is wanted")]
    NotABucket {
        /// The device.
        name: String,
    },
    /// A bucket where a device is wanted.
    #[error("{name} is a bucket, and a device is wanted")]
    NotADevice {
        /// The bucket.
        name: String,
    },
    /// Shadow buckets are not edited.
    #[error("{name} is the shadow of {original} and follows it by itself; change {original}")]
    IsShadow {
        /// The shadow bucket.
        name: String,
        /// Its original.
        original: String,
    },
    /// The type of devices for a bucket.
    #[error("type {name} is that of devices; a bucket wants another")]
    DeviceType {
        /// The type.
        name: String,
    },
    /// A bucket below one of a lower type, or its own.
    #[error(
        "{parent} is of type {parent_type} and cannot hold {item} of type {item_type}, which comes above or beside it"
    )]
    Order {
        /// The one to hold.
        parent: String,
        /// Its type.
        parent_type: String,
        /// The one to be held.
        item: String,
        /// Its type.
        item_type: String,
    },
    /// A bucket below itself.
    #[error("{parent} lies below {item}, so {item} cannot go below it")]
    Cycle {
        /// The bucket to move.
        item: String,
        /// Where it was to go.
        parent: String,
    },
    /// An item that is in no bucket.
    #[error("{name} is in no bucket, so it has no weight; move it into one first")]
    NotPlaced {
        /// The item.
        name: String,
    },
    /// A bucket that still has items.
    #[error(
        "{name} still holds {items} item{}; move or remove what it holds first, or remove the whole tree",
        if *items == 1 { "" } else { "s" }
    )]
    NotEmpty {
        /// The bucket.
        name: String,
        /// How many.
        items: usize,
    },
    /// An item that a rule starts from.
    #[error("{name} is in use: rule {rule} takes it; change or remove the rule first")]
    InUse {
        /// The item.
        name: String,
        /// The rule.
        rule: String,
    },
    /// A weight out of range.
    #[error("{name} cannot weigh {weight}: weights of a {what} go from 0 to {most}")]
    WeightRange {
        /// The item.
        name: String,
        /// The weight, as written.
        weight: String,
        /// Device or bucket.
        what: &'static str,
        /// The most it can be.
        most: u32,
    },
    /// A bucket without weight has no proportions to scale.
    #[error("{name} weighs nothing, so it cannot be scaled; set the weight of its devices")]
    NothingToScale {
        /// The bucket.
        name: String,
    },
    /// A uniform bucket wants items of one weight.
    #[error(
        "bucket {bucket} is uniform: its items must weigh the same; weigh them all at once, or use a straw2 bucket"
    )]
    Uneven {
        /// The bucket.
        bucket: String,
    },
    /// Too much weight.
    #[error("bucket {bucket} would weigh more than 65535; lower the weights below it")]
    TooHeavy {
        /// The bucket.
        bucket: String,
    },
    /// A tree bucket takes no more items.
    #[error("bucket {bucket} is of the tree kind and holds {MAX_TREE_ITEMS} items at most; use a straw2 bucket")]
    TreeFull {
        /// The bucket.
        bucket: String,
    },
    /// No ids are left.
    #[error("the map has no room for another {what}")]
    Full {
        /// Bucket, rule or device class.
        what: &'static str,
    },
    /// A rule that could never be satisfied.
    #[error("no {kind} below {root} holds a device{}; a rule could choose nothing", class.as_ref().map(|class| format!(" of class {class}")).unwrap_or_default())]
    NothingBelow {
        /// Where the rule would start.
        root: String,
        /// What it would choose.
        kind: String,
        /// Of which class.
        class: Option<String>,
    },
    /// A value a tunable cannot have.
    #[error("{name} cannot be {value}: it goes from {} to {}", range.0, range.1)]
    TunableRange {
        /// The tunable.
        name: String,
        /// The value.
        value: u32,
        /// From and to.
        range: (u32, u32),
    },
    /// The shadow trees cannot follow.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
}

impl CrushMap {
    /// Runs a change on a copy and keeps that if it comes out right.
    fn change<T>(&mut self, change: impl FnOnce(&mut CrushMap) -> Result<T, EditError>) -> Result<T, EditError> {
        let mut next = self.clone();
        let made = change(&mut next)?;
        next.settle()?;
        *self = next;
        Ok(made)
    }

    /// What follows from devices and original buckets: shadow trees and the number of devices.
    fn settle(&mut self) -> Result<(), EditError> {
        if !self.classes.is_empty() || !self.shadows.is_empty() {
            shadow::rebuild(self)?;
        }
        let buckets = &self.buckets;
        for args in self.choose_args.values_mut() {
            // An argument that says nothing is none: neither form keeps it.
            args.retain(|bucket, arg| buckets.contains_key(bucket) && *arg != ChooseArg::default());
        }
        self.cover_devices();
        Ok(())
    }

    /// A device or original bucket by its name.
    fn wanted_item(&self, name: &str) -> Result<ItemId, EditError> {
        let Some(id) = self.item(name) else {
            let shadows = self.shadow_ids();
            let buckets = self.buckets.values().filter(|bucket| !shadows.contains(&bucket.id));
            let known = buckets.map(|bucket| &bucket.name).chain(self.devices.values().map(|device| &device.name));
            return Err(unknown("device or bucket", name, known));
        };
        match self.shadow_origins().get(&id) {
            Some((original, _)) => {
                Err(EditError::IsShadow { name: name.to_owned(), original: self.item_name(*original).into_owned() })
            }
            None => Ok(id),
        }
    }

    fn wanted_bucket(&self, name: &str) -> Result<ItemId, EditError> {
        let id = self.wanted_item(name)?;
        if id < 0 { Ok(id) } else { Err(EditError::NotABucket { name: name.to_owned() }) }
    }

    fn wanted_device(&self, name: &str) -> Result<ItemId, EditError> {
        let id = self.wanted_item(name)?;
        if id >= 0 { Ok(id) } else { Err(EditError::NotADevice { name: name.to_owned() }) }
    }

    fn wanted_type(&self, name: &str) -> Result<TypeId, EditError> {
        self.type_id(name).ok_or_else(|| unknown("type", name, self.types.values()))
    }

    fn wanted_class(&self, name: &str) -> Result<ClassId, EditError> {
        self.class_id(name).ok_or_else(|| unknown("device class", name, self.classes.values()))
    }

    fn wanted_rule(&self, name: &str) -> Result<RuleId, EditError> {
        self.rule_id(name).ok_or_else(|| unknown("rule", name, self.rules.values().map(|rule| &rule.name)))
    }

    /// Checks that a name may be given to a device or bucket.
    fn free_name(&self, name: &str) -> Result<(), EditError> {
        fit_name(name)?;
        match self.item(name) {
            Some(_) => Err(EditError::NameTaken { name: name.to_owned() }),
            None => Ok(()),
        }
    }

    /// Checks that no rule starts from one of these items, or from a shadow of one.
    fn refuse_taken(&self, items: &BTreeSet<ItemId>) -> Result<(), EditError> {
        let shadows = items.iter().filter_map(|item| self.shadows.get(item)).flat_map(|by_class| by_class.values());
        let all: BTreeSet<ItemId> = items.iter().chain(shadows).copied().collect();
        match self.rules_taking(&all).first() {
            Some((rule, item)) => {
                let rule = self.rules.get(rule).map(|rule| rule.name.clone()).unwrap_or_default();
                Err(EditError::InUse { name: self.item_name(*item).into_owned(), rule })
            }
            None => Ok(()),
        }
    }
}

fn fit_name(name: &str) -> Result<(), EditError> {
    if is_name(name) { Ok(()) } else { Err(EditError::BadName { name: name.to_owned() }) }
}

fn unknown<'a>(what: &'static str, name: &str, known: impl IntoIterator<Item = &'a String>) -> EditError {
    let near = nearest(name, known.into_iter().map(String::as_str)).map(str::to_owned);
    EditError::Unknown { what, name: name.to_owned(), near }
}

#[cfg(test)]
#[path = "edit_test.rs"]
mod tests;
