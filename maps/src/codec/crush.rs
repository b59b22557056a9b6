//! The byte form of the crush map's parts. The whole map travels as [`CrushDelta`] from an empty one; Ceph's own binary
//! form is `nacre-crush`'s business.

use std::collections::BTreeMap;

use nacre_crush::model::{
    Bucket, BucketAlg, ChooseArg, ClassId, CrushMap, Device, ItemId, Mode, Rule, RuleKind, Step, Tunables, Weight,
};

use super::DecodeError;
use super::wire::{Reader, Wire, put_part, put_varint, record};
use crate::increment::CrushDelta;

/// The whole map.
pub fn put_crush(map: &CrushMap, out: &mut Vec<u8>) {
    CrushDelta::between(&CrushMap::default(), map).put(out);
}

/// Reads what [`put_crush`] wrote.
pub fn take_crush(from: &mut Reader<'_>) -> Result<CrushMap, DecodeError> {
    let mut map = CrushMap::default();
    CrushDelta::take(from)?.apply(&mut map);
    Ok(map)
}

/// Calls a device by the name that nearly all have.
fn is_usual_name(id: ItemId, name: &str) -> bool {
    name.strip_prefix("osd.").and_then(|number| number.parse().ok()) == Some(id) && name == format!("osd.{id}")
}

/// A device with its number, so that the usual name needs no bytes.
pub(crate) fn put_device(id: ItemId, device: &Device, out: &mut Vec<u8>) {
    put_part(out, |out| {
        device.class.put(out);
        if !is_usual_name(id, &device.name) {
            device.name.put(out);
        }
    });
}

pub(crate) fn take_device(id: ItemId, from: &mut Reader<'_>) -> Result<Device, DecodeError> {
    let mut from = from.part()?;
    let class: Option<ClassId> = Wire::take(&mut from)?;
    let name = if from.is_empty() { format!("osd.{id}") } else { String::take(&mut from)? };
    Ok(Device { name, class })
}

impl Wire for Bucket {
    fn put(&self, out: &mut Vec<u8>) {
        put_part(out, |out| {
            self.name.put(out);
            self.kind.put(out);
            out.push(match self.alg {
                BucketAlg::Uniform => 1,
                BucketAlg::List => 2,
                BucketAlg::Tree => 3,
                BucketAlg::Straw => 4,
                BucketAlg::Straw2 => 5,
            });
            self.hash.put(out);
            self.weight.put(out);
            self.items.put(out);
            self.weights.put(out);
            self.id.put(out);
            if self.straws.is_some() {
                self.straws.put(out);
            }
        });
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut from = from.part()?;
        let name = Wire::take(&mut from)?;
        let kind = Wire::take(&mut from)?;
        let alg = match from.byte()? {
            1 => BucketAlg::Uniform,
            2 => BucketAlg::List,
            3 => BucketAlg::Tree,
            4 => BucketAlg::Straw,
            5 => BucketAlg::Straw2,
            _ => return Err(DecodeError::Value { what: "bucket algorithm" }),
        };
        let hash = Wire::take(&mut from)?;
        let weight = Wire::take(&mut from)?;
        let items: Vec<ItemId> = Wire::take(&mut from)?;
        let weights: Vec<Weight> = Wire::take(&mut from)?;
        if items.len() != weights.len() {
            return Err(DecodeError::Value { what: "bucket with more items than weights" });
        }
        let id = Wire::take(&mut from)?;
        let straws: Option<Vec<u32>> = from.field()?;
        if straws.as_ref().is_some_and(|straws| straws.len() != items.len()) {
            return Err(DecodeError::Value { what: "bucket with more items than straws" });
        }
        Ok(Bucket { id, name, kind, alg, hash, items, weights, weight, straws })
    }
}

fn put_choice(number: u8, mode: Mode, num: i32, kind: u16, out: &mut Vec<u8>) {
    out.push(number + u8::from(mode == Mode::Indep));
    num.put(out);
    kind.put(out);
}

impl Wire for Step {
    fn put(&self, out: &mut Vec<u8>) {
        let (number, value) = match *self {
            Step::Choose { mode, num, kind } => return put_choice(3, mode, num, kind, out),
            Step::ChooseLeaf { mode, num, kind } => return put_choice(5, mode, num, kind, out),
            Step::Noop => return out.push(0),
            Step::Emit => return out.push(2),
            Step::Take(item) => (1, item),
            Step::SetChooseTries(tries) => (7, tries),
            Step::SetChooseLeafTries(tries) => (8, tries),
            Step::SetChooseLocalTries(tries) => (9, tries),
            Step::SetChooseLocalFallbackTries(tries) => (10, tries),
            Step::SetChooseLeafVaryR(on) => (11, on),
            Step::SetChooseLeafStable(on) => (12, on),
        };
        out.push(number);
        value.put(out);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let number = from.byte()?;
        let mode = if matches!(number, 4 | 6) { Mode::Indep } else { Mode::Firstn };
        Ok(match number {
            0 => Step::Noop,
            1 => Step::Take(Wire::take(from)?),
            2 => Step::Emit,
            3 | 4 => Step::Choose { mode, num: Wire::take(from)?, kind: Wire::take(from)? },
            5 | 6 => Step::ChooseLeaf { mode, num: Wire::take(from)?, kind: Wire::take(from)? },
            7 => Step::SetChooseTries(Wire::take(from)?),
            8 => Step::SetChooseLeafTries(Wire::take(from)?),
            9 => Step::SetChooseLocalTries(Wire::take(from)?),
            10 => Step::SetChooseLocalFallbackTries(Wire::take(from)?),
            11 => Step::SetChooseLeafVaryR(Wire::take(from)?),
            12 => Step::SetChooseLeafStable(Wire::take(from)?),
            _ => return Err(DecodeError::Value { what: "rule step" }),
        })
    }
}

impl Wire for RuleKind {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.byte().map(RuleKind::from)
    }
}

impl Wire for Rule {
    fn put(&self, out: &mut Vec<u8>) {
        put_part(out, |out| {
            self.name.put(out);
            self.kind.put(out);
            self.ruleset.put(out);
            self.min_size.put(out);
            self.max_size.put(out);
            self.steps.put(out);
        });
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut from = from.part()?;
        Ok(Rule {
            name: Wire::take(&mut from)?,
            kind: Wire::take(&mut from)?,
            ruleset: Wire::take(&mut from)?,
            min_size: Wire::take(&mut from)?,
            max_size: Wire::take(&mut from)?,
            steps: Wire::take(&mut from)?,
        })
    }
}

record!(Tunables {
    choose_local_tries,
    choose_local_fallback_tries,
    choose_total_tries,
    chooseleaf_descend_once,
    chooseleaf_vary_r,
    chooseleaf_stable,
    straw_calc_version,
    allowed_bucket_algs,
});
record!(ChooseArg { ids, weight_set });

/// Entries that are there, then keys that are gone.
pub(crate) fn put_changes<K: Wire, V>(
    changes: &BTreeMap<K, Option<V>>,
    mut put_value: impl FnMut(&K, &V, &mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    put_varint(changes.values().flatten().count() as u64, out);
    for (key, value) in changes {
        if let Some(value) = value {
            key.put(out);
            put_value(key, value, out);
        }
    }
    put_varint(changes.values().filter(|value| value.is_none()).count() as u64, out);
    for (key, _) in changes.iter().filter(|(_, value)| value.is_none()) {
        key.put(out);
    }
}

/// Reads what [`put_changes`] wrote.
pub(crate) fn take_changes<K: Wire + Ord, V>(
    from: &mut Reader<'_>,
    mut take_value: impl FnMut(&K, &mut Reader<'_>) -> Result<V, DecodeError>,
) -> Result<BTreeMap<K, Option<V>>, DecodeError> {
    let twice = DecodeError::Value { what: "change of one key twice" };
    let mut changes = BTreeMap::new();
    for _ in 0..from.count()? {
        let key = K::take(from)?;
        let value = take_value(&key, from)?;
        if changes.insert(key, Some(value)).is_some() {
            return Err(twice);
        }
    }
    for _ in 0..from.count()? {
        if changes.insert(K::take(from)?, None).is_some() {
            return Err(twice);
        }
    }
    Ok(changes)
}
