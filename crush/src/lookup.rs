//! Questions about a map that every part asks: names to ids and back, parents, roots, the order of the hierarchy.
//!
//! Reads only. Everything here also answers for broken maps (cycles, absent items): nothing recurses, nothing panics.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Bucket, ClassId, CrushMap, ItemId, RuleId, Step, TypeId, Weight};

/// The order of a hierarchy, children before parents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostOrder {
    /// Each bucket once.
    pub buckets: Vec<ItemId>,
    /// Parent and child of each link that leads back up.
    pub back_links: Vec<(ItemId, ItemId)>,
}

impl CrushMap {
    /// The device or bucket of that name, shadow buckets included.
    pub fn item(&self, name: &str) -> Option<ItemId> {
        if name.is_empty() {
            return None;
        }
        let device = self.devices.iter().find(|(_, device)| device.name == name).map(|(id, _)| *id);
        device.or_else(|| self.buckets.values().find(|bucket| bucket.name == name).map(|bucket| bucket.id))
    }

    /// What to call an item: its name, or `device5` and `bucket3` for the fifth device and the fourth bucket slot when
    /// it has none.
    pub fn item_name(&self, item: ItemId) -> Cow<'_, str> {
        let name = match self.devices.get(&item) {
            Some(device) => Some(device.name.as_str()),
            None => self.buckets.get(&item).map(|bucket| bucket.name.as_str()),
        };
        match name {
            Some(name) if !name.is_empty() => Cow::Borrowed(name),
            _ if item >= 0 => Cow::Owned(format!("device{item}")),
            _ => Cow::Owned(format!("bucket{}", !item)),
        }
    }

    /// The type of that name.
    pub fn type_id(&self, name: &str) -> Option<TypeId> {
        self.types.iter().find(|(_, known)| *known == name).map(|(id, _)| *id)
    }

    /// What to call a type: its name, else `device` for 0 and `type7` for others.
    pub fn type_name(&self, kind: TypeId) -> Cow<'_, str> {
        match self.types.get(&kind) {
            Some(name) => Cow::Borrowed(name),
            None if kind == 0 => Cow::Borrowed("device"),
            None => Cow::Owned(format!("type{kind}")),
        }
    }

    /// The device class of that name.
    pub fn class_id(&self, name: &str) -> Option<ClassId> {
        self.classes.iter().find(|(_, known)| *known == name).map(|(id, _)| *id)
    }

    /// The rule of that name.
    pub fn rule_id(&self, name: &str) -> Option<RuleId> {
        self.rules.iter().find(|(_, rule)| rule.name == name).map(|(id, _)| *id)
    }

    /// The type of an item: 0 for devices, none for buckets that are not there.
    pub fn kind(&self, item: ItemId) -> Option<TypeId> {
        if item >= 0 { Some(0) } else { self.buckets.get(&item).map(|bucket| bucket.kind) }
    }

    /// The bucket that holds the item. A shadow bucket's parent is a shadow bucket, a device's is an original.
    pub fn parent(&self, item: ItemId) -> Option<&Bucket> {
        let shadows = self.shadow_ids();
        self.buckets.values().find(|bucket| bucket.items.contains(&item) && (item < 0 || !shadows.contains(&bucket.id)))
    }

    /// Buckets that are in no other, highest id first: the trees as they were written, without their shadows.
    pub fn roots(&self) -> Vec<ItemId> {
        let children: BTreeSet<ItemId> =
            self.buckets.values().flat_map(|bucket| bucket.items.iter().copied()).collect();
        let shadows = self.shadow_ids();
        let root = |id: &&ItemId| !children.contains(id) && !shadows.contains(id);
        self.buckets.keys().rev().filter(root).copied().collect()
    }

    /// All shadow buckets with what they are the shadow of: `(original, class)`.
    pub fn shadow_origins(&self) -> BTreeMap<ItemId, (ItemId, ClassId)> {
        let of = |(original, by_class): (&ItemId, &BTreeMap<ClassId, ItemId>)| {
            let original = *original;
            by_class.iter().map(move |(class, shadow)| (*shadow, (original, *class))).collect::<Vec<_>>()
        };
        self.shadows.iter().flat_map(of).collect()
    }

    /// The ids of all shadow buckets.
    pub fn shadow_ids(&self) -> BTreeSet<ItemId> {
        self.shadows.values().flat_map(|by_class| by_class.values().copied()).collect()
    }

    /// Rules that start from one of these items, with the item.
    pub fn rules_taking(&self, items: &BTreeSet<ItemId>) -> Vec<(RuleId, ItemId)> {
        let mut found = Vec::new();
        for (id, rule) in &self.rules {
            for step in &rule.steps {
                if let Step::Take(item) = step
                    && items.contains(item)
                {
                    found.push((*id, *item));
                }
            }
        }
        found
    }

    /// The buckets below and with each start, children before parents, each once, in the order of the starts.
    pub fn post_order(&self, starts: impl IntoIterator<Item = ItemId>) -> PostOrder {
        let mut order = PostOrder::default();
        // Absent: not seen. False: on the path from a start to here. True: in the order.
        let mut done: BTreeMap<ItemId, bool> = BTreeMap::new();
        for start in starts {
            let Some(bucket) = self.buckets.get(&start) else { continue };
            if done.contains_key(&start) {
                continue;
            }
            done.insert(start, false);
            let mut path = vec![(bucket, 0)];
            while let Some((bucket, at)) = path.last_mut() {
                let bucket = *bucket;
                let Some(child) = bucket.items.get(*at).copied() else {
                    done.insert(bucket.id, true);
                    order.buckets.push(bucket.id);
                    path.pop();
                    continue;
                };
                *at += 1;
                match done.get(&child) {
                    Some(true) => {}
                    Some(false) => order.back_links.push((bucket.id, child)),
                    None => {
                        if let Some(below) = self.buckets.get(&child) {
                            done.insert(child, false);
                            path.push((below, 0));
                        }
                    }
                }
            }
        }
        order
    }

    /// The devices below an item (itself, if it is one), each once, lowest first.
    pub fn devices_below(&self, item: ItemId) -> BTreeSet<ItemId> {
        if item >= 0 {
            return BTreeSet::from([item]);
        }
        let order = self.post_order([item]);
        let items = order.buckets.iter().filter_map(|id| self.buckets.get(id)).flat_map(|bucket| &bucket.items);
        items.copied().filter(|item| *item >= 0).collect()
    }
}

impl Bucket {
    /// The position of an item.
    pub fn position(&self, item: ItemId) -> Option<usize> {
        self.items.iter().position(|held| *held == item)
    }

    /// The sum of the items' weights; none if it does not fit.
    pub fn sum(&self) -> Option<Weight> {
        let sum = self.weights.iter().try_fold(0_u32, |sum, weight| sum.checked_add(weight.0));
        sum.map(Weight)
    }
}
