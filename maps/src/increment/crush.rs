//! What changes in the crush map from one epoch to the next: by device, bucket, type, rule, class and weight set, so that
//! adding an OSD to a cluster of ten thousand sends its host's and root's buckets and not the whole map.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use nacre_crush::model::{
    Bucket, ChooseArg, ClassId, CrushMap, Device, ItemId, MsrTunables, Rule, RuleId, Tunables, TypeId,
};

use crate::codec::wire::{Reader, Wire, put_part, record};
use crate::codec::{DecodeError, digest};
use crate::codec::{put_changes, put_device, take_changes, take_device};

type Changes<K, V> = BTreeMap<K, Option<V>>;

/// A change of the crush map. An entry without a value is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrushDelta {
    /// Numbers of the whole map.
    pub limits: Option<CrushLimits>,
    /// New tunables.
    pub tunables: Option<Tunables>,
    /// Devices.
    pub devices: Changes<ItemId, Device>,
    /// Types.
    pub types: Changes<TypeId, String>,
    /// Buckets.
    pub buckets: Changes<ItemId, Bucket>,
    /// Rules.
    pub rules: Changes<RuleId, Rule>,
    /// Classes.
    pub classes: Changes<ClassId, String>,
    /// Shadows of original buckets.
    pub shadows: Changes<ItemId, BTreeMap<ClassId, ItemId>>,
    /// Weight sets.
    pub choose_args: Changes<i64, BTreeMap<ItemId, ChooseArg>>,
}

/// The numbers of a crush map that are not tunables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrushLimits {
    /// `max_devices` of the map.
    pub devices: u32,
    /// `max_buckets` of the map.
    pub buckets: u32,
    /// `max_rules` of the map.
    pub rules: u32,
    /// `msr` of the map: descents and collision tries.
    pub msr: Option<(u32, u32)>,
}
record!(CrushLimits { devices, buckets, rules, msr });

fn limits(map: &CrushMap) -> CrushLimits {
    CrushLimits {
        devices: map.max_devices,
        buckets: map.max_buckets,
        rules: map.max_rules,
        msr: map.msr.map(|msr| (msr.descents, msr.collision_tries)),
    }
}

fn between<K: Ord + Clone, V: PartialEq + Clone>(from: &BTreeMap<K, V>, to: &BTreeMap<K, V>) -> Changes<K, V> {
    let gone = from.keys().filter(|key| !to.contains_key(key)).map(|key| (key.clone(), None));
    let set = to.iter().filter(|(key, value)| from.get(key) != Some(value));
    set.map(|(key, value)| (key.clone(), Some(value.clone()))).chain(gone).collect()
}

fn apply<K: Ord + Clone, V: Clone>(changes: &Changes<K, V>, to: &mut BTreeMap<K, V>) {
    for (key, value) in changes {
        match value {
            Some(value) => to.insert(key.clone(), value.clone()),
            None => to.remove(key),
        };
    }
}

/// The sum of what entries of a kind weigh in the digest.
fn sum<'a, K: Wire + 'a, V: 'a>(
    kind: u8,
    entries: impl Iterator<Item = (&'a K, &'a V)>,
    put: impl Fn(&K, &V, &mut Vec<u8>),
) -> u64 {
    let mut scratch = Vec::new();
    entries.fold(0, |sum, (key, value)| {
        scratch.clear();
        scratch.push(kind);
        key.put(&mut scratch);
        put(key, value, &mut scratch);
        sum.wrapping_add(digest(&[&scratch]))
    })
}

fn put_plain<K, V: Wire>(_: &K, value: &V, out: &mut Vec<u8>) {
    value.put(out);
}

fn take_plain<K, V: Wire>(_: &K, from: &mut Reader<'_>) -> Result<V, DecodeError> {
    V::take(from)
}

impl CrushDelta {
    /// What leads from one map to the other.
    pub fn between(from: &CrushMap, to: &CrushMap) -> Self {
        Self {
            limits: (limits(from) != limits(to)).then(|| limits(to)),
            tunables: (from.tunables != to.tunables).then_some(to.tunables),
            devices: between(&from.devices, &to.devices),
            types: between(&from.types, &to.types),
            buckets: between(&from.buckets, &to.buckets),
            rules: between(&from.rules, &to.rules),
            classes: between(&from.classes, &to.classes),
            shadows: between(&from.shadows, &to.shadows),
            choose_args: between(&from.choose_args, &to.choose_args),
        }
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Makes the change.
    pub fn apply(&self, map: &mut CrushMap) {
        if let Some(limits) = &self.limits {
            (map.max_devices, map.max_buckets, map.max_rules) = (limits.devices, limits.buckets, limits.rules);
            map.msr = limits.msr.map(|(descents, collision_tries)| MsrTunables { descents, collision_tries });
        }
        if let Some(tunables) = self.tunables {
            map.tunables = tunables;
        }
        apply(&self.devices, &mut map.devices);
        apply(&self.types, &mut map.types);
        apply(&self.buckets, &mut map.buckets);
        apply(&self.rules, &mut map.rules);
        apply(&self.classes, &mut map.classes);
        apply(&self.shadows, &mut map.shadows);
        apply(&self.choose_args, &mut map.choose_args);
    }

    /// What `map`'s entries of the keys named here weigh in the digest.
    fn weigh(&self, map: &CrushMap) -> u64 {
        fn part<K: Wire + Ord, V>(
            kind: u8,
            changes: &Changes<K, V>,
            entries: &BTreeMap<K, V>,
            put: impl Fn(&K, &V, &mut Vec<u8>),
        ) -> u64 {
            sum(kind, changes.keys().filter_map(|key| entries.get_key_value(key)), put)
        }
        let mut scratch = Vec::new();
        let mut fixed = |kind: u8, value: &dyn Fn(&mut Vec<u8>)| {
            scratch.clear();
            scratch.push(kind);
            value(&mut scratch);
            digest(&[&scratch])
        };
        [
            self.limits.as_ref().map_or(0, |_| fixed(1, &|out| limits(map).put(out))),
            self.tunables.map_or(0, |_| fixed(2, &|out| map.tunables.put(out))),
            part(3, &self.devices, &map.devices, |id, device, out| put_device(*id, device, out)),
            part(4, &self.types, &map.types, put_plain),
            part(5, &self.buckets, &map.buckets, put_plain),
            part(6, &self.rules, &map.rules, put_plain),
            part(7, &self.classes, &map.classes, put_plain),
            part(8, &self.shadows, &map.shadows, put_plain),
            part(9, &self.choose_args, &map.choose_args, put_plain),
        ]
        .into_iter()
        .fold(0, u64::wrapping_add)
    }
}

impl Wire for CrushDelta {
    fn put(&self, out: &mut Vec<u8>) {
        put_part(out, |out| {
            self.limits.put(out);
            self.tunables.put(out);
            put_changes(&self.devices, |id, device, out| put_device(*id, device, out), out);
            put_changes(&self.types, put_plain, out);
            put_changes(&self.buckets, put_plain, out);
            put_changes(&self.rules, put_plain, out);
            put_changes(&self.classes, put_plain, out);
            put_changes(&self.shadows, put_plain, out);
            put_changes(&self.choose_args, put_plain, out);
        });
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut from = from.part()?;
        Ok(Self {
            limits: Wire::take(&mut from)?,
            tunables: Wire::take(&mut from)?,
            devices: take_changes(&mut from, |id, from| take_device(*id, from))?,
            types: take_changes(&mut from, take_plain)?,
            buckets: take_changes(&mut from, take_plain)?,
            rules: take_changes(&mut from, take_plain)?,
            classes: take_changes(&mut from, take_plain)?,
            shadows: take_changes(&mut from, take_plain)?,
            choose_args: take_changes(&mut from, take_plain)?,
        })
    }
}

/// The crush map of a cluster map: shared, with its part of the digest.
#[derive(Clone)]
pub struct Crush {
    map: Arc<CrushMap>,
    digest: u64,
}

impl Default for Crush {
    fn default() -> Self {
        Self { map: Arc::new(CrushMap::default()), digest: 0 }
    }
}

impl std::ops::Deref for Crush {
    type Target = CrushMap;

    fn deref(&self) -> &CrushMap {
        &self.map
    }
}

impl PartialEq for Crush {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.map, &other.map) || (self.digest == other.digest && self.map == other.map)
    }
}

impl Debug for Crush {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.map.fmt(f)
    }
}

impl Crush {
    /// The map, to be held on to.
    pub fn shared(&self) -> &Arc<CrushMap> {
        &self.map
    }

    /// Puts another map in place.
    pub fn replace(&mut self, map: CrushMap) {
        let delta = CrushDelta::between(&self.map, &map);
        self.digest = self.digest.wrapping_sub(delta.weigh(&self.map)).wrapping_add(delta.weigh(&map));
        self.map = Arc::new(map);
    }

    pub(crate) fn changes(&self, to: &Self) -> CrushDelta {
        if Arc::ptr_eq(&self.map, &to.map) { CrushDelta::default() } else { CrushDelta::between(&self.map, &to.map) }
    }

    pub(crate) fn apply(&mut self, delta: &CrushDelta) {
        if delta.is_empty() {
            return;
        }
        let gone = delta.weigh(&self.map);
        let map = Arc::make_mut(&mut self.map);
        delta.apply(map);
        self.digest = self.digest.wrapping_sub(gone).wrapping_add(delta.weigh(map));
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }
}
