//! Where OSDs stand in the crush map: put there at their first boot, moved, weighed, classed, taken away. The edits
//! themselves are `nacre-crush`'s.

use nacre_crush::edit::EditError;
use nacre_crush::model::{CrushMap, ItemId, Weight};
use nacre_proto::ids::{OsdId, Stamp};

use super::osd_boot::Boot;
use super::osd_in::weight_of;
use super::pool::check_name;
use super::{Outcome, RuleError, osd_state, refused, wrong};
use crate::increment::Draft;
use crate::map::ClusterMap;

/// The types of a new cluster's crush map, from the device up.
pub const TYPES: [(u16, &str); 12] = [
    (0, "osd"),
    (1, "host"),
    (2, "chassis"),
    (3, "rack"),
    (4, "row"),
    (5, "pdu"),
    (6, "pod"),
    (7, "room"),
    (8, "datacenter"),
    (9, "zone"),
    (10, "region"),
    (11, "root"),
];

const TIB: u128 = 1 << 40;

/// The crush map of a new cluster: the types, and nothing else.
pub fn first_crush() -> CrushMap {
    CrushMap { types: TYPES.map(|(id, name)| (id, name.to_owned())).into(), ..CrushMap::default() }
}

fn item(osd: OsdId) -> ItemId {
    // OSD numbers are checked to be far below this.
    ItemId::try_from(osd.0).unwrap_or(ItemId::MAX)
}

fn device_name(crush: &CrushMap, osd: OsdId) -> String {
    crush.item_name(item(osd)).into_owned()
}

/// A disk weighs its size in TiB, as is Ceph's custom; the smallest still count.
pub fn weight_of_capacity(bytes: u64) -> Weight {
    let weight = u128::from(bytes) * u128::from(Weight::ONE.0) / TIB;
    let most = u128::from(Weight::MAX_DEVICE.0);
    Weight(u32::try_from(weight.clamp(66, most)).unwrap_or(Weight::ONE.0))
}

/// Types and names from the root down, each there once; `root=default` and the host are added where they are not named.
fn complete(crush: &CrushMap, location: &[(String, String)], host: &str) -> Result<Vec<(u16, String)>, RuleError> {
    let mut path: Vec<(u16, String)> = Vec::new();
    let defaults = [("root", "default"), ("host", host)];
    let missing = defaults.iter().filter(|(kind, _)| location.iter().all(|(named, _)| named != kind));
    let given = location.iter().map(|(kind, name)| (kind.as_str(), name.as_str()));
    for (kind, name) in given.chain(missing.copied()) {
        check_name("bucket name", name)?;
        let known: Vec<&str> = crush.types.values().map(String::as_str).collect();
        let id = crush.type_id(kind).filter(|id| *id > 0);
        let id = id.ok_or_else(|| wrong("crush type", format!("`{kind}`"), format!("one of {}", known.join(", "))))?;
        if path.iter().any(|(there, _)| *there == id) {
            return Err(wrong("location", format!("{kind}={name}"), format!("one {kind}, there are two")));
        }
        path.push((id, name.to_owned()));
    }
    path.sort_by_key(|(kind, _)| std::cmp::Reverse(*kind));
    Ok(path)
}

/// Makes the buckets of a path that are not there, and moves none that are. The name of the lowest.
fn ensure_path(crush: &mut CrushMap, path: &[(u16, String)]) -> Result<String, RuleError> {
    let mut above: Option<String> = None;
    for (kind, name) in path {
        let type_name = crush.type_name(*kind).into_owned();
        match crush.item(name) {
            None => {
                crush.add_bucket(name, &type_name, above.as_deref())?;
            }
            Some(found) if crush.kind(found) != Some(*kind) => {
                let is = crush.kind(found).map(|kind| crush.type_name(kind).into_owned()).unwrap_or_default();
                return Err(refused(format!("{name} is a {is}, not a {type_name}"), "give the bucket another name"));
            }
            Some(_) => {}
        }
        above = Some(name.clone());
    }
    above.ok_or_else(|| wrong("location", "", "at least a host"))
}

/// Puts a newcomer where it says it stands. One that has a place keeps it: operators move OSDs, boots do not.
pub(super) fn place_at_boot(draft: &mut Draft<'_>, boot: &Boot, notes: &mut Vec<String>) -> Result<(), RuleError> {
    let id = item(boot.osd);
    let mut crush = CrushMap::clone(draft.crush.shared());
    let host = if boot.info.host.is_empty() { "unknown-host" } else { &boot.info.host };
    if let Some(parent) = crush.parent(id) {
        let named = boot.location.iter().find(|(kind, _)| kind == "host").map_or(host, |(_, name)| name.as_str());
        if crush.type_name(parent.kind) == "host" && parent.name != named {
            notes.push(format!(
                "{} runs on {named} but stands below {} in the crush map; if the disk was moved for good, run `nacre osd move {} host={named}`",
                boot.osd, parent.name, boot.osd.0
            ));
        }
    } else {
        if crush.types.is_empty() {
            crush.types = first_crush().types;
        }
        let path = complete(&crush, &boot.location, host)?;
        let parent = ensure_path(&mut crush, &path)?;
        let class = Some(boot.class.as_str()).filter(|class| !class.is_empty());
        let weight = boot.weight.map_or_else(|| weight_of_capacity(boot.info.capacity_bytes), weight_of);
        crush.add_device(id, None, weight, class, &parent)?;
        notes.push(format!("{} stands below {parent}", boot.osd));
        draft.crush.replace(crush);
        return Ok(());
    }
    let unclassed = crush.devices.get(&id).is_some_and(|device| device.class.is_none());
    if unclassed && !boot.class.is_empty() {
        let name = device_name(&crush, boot.osd);
        crush.set_class(&[&name], &boot.class)?;
        draft.crush.replace(crush);
    }
    Ok(())
}

fn edit(
    map: &ClusterMap,
    osd: OsdId,
    now: Stamp,
    text: String,
    change: impl FnOnce(&mut CrushMap, &str) -> Result<(), RuleError>,
) -> Result<Outcome, RuleError> {
    osd_state(map, osd)?;
    let mut draft = Draft::of(map, now);
    let mut crush = CrushMap::clone(map.crush.shared());
    let name = device_name(&crush, osd);
    change(&mut crush, &name)?;
    draft.crush.replace(crush);
    Ok(Outcome::of(draft, text))
}

/// Sets how much an OSD holds against its siblings.
pub fn crush_weight(map: &ClusterMap, osd: OsdId, millionths: u64, now: Stamp) -> Result<Outcome, RuleError> {
    let weight = weight_of(millionths);
    let text = format!("{osd} weighs {}", weight.as_f64());
    edit(map, osd, now, text, |crush, name| Ok(crush.reweight_item(name, weight)?))
}

/// Moves an OSD to another place.
pub fn move_osd(map: &ClusterMap, osd: OsdId, location: &[(String, String)], now: Stamp) -> Result<Outcome, RuleError> {
    let place: Vec<String> = location.iter().map(|(kind, name)| format!("{kind}={name}")).collect();
    let host = map.osd_info.get(osd).map(|info| info.host.clone()).unwrap_or_default();
    edit(map, osd, now, format!("{osd} moved to {}", place.join(" ")), |crush, name| {
        let path = complete(crush, location, &host)?;
        let parent = ensure_path(crush, &path)?;
        match crush.parent(item(osd)).map(|bucket| bucket.name.clone()) {
            Some(there) if there == parent => Ok(()),
            _ => Ok(crush.move_item(name, &parent)?),
        }
    })
}

/// Sets an OSD's device class; an empty one takes it away.
pub fn set_class(map: &ClusterMap, osd: OsdId, class: &str, now: Stamp) -> Result<Outcome, RuleError> {
    edit(map, osd, now, format!("{osd} is of class {class}"), |crush, name| match class {
        "" => Ok(crush.clear_class(&[name])?),
        _ => Ok(crush.set_class(&[name], class)?),
    })
}

/// Takes an OSD out of the crush map.
pub(super) fn unlink_device(draft: &mut Draft<'_>, osd: OsdId) -> Result<(), RuleError> {
    let mut crush = CrushMap::clone(draft.crush.shared());
    let name = device_name(&crush, osd);
    match crush.remove_item(&name) {
        Ok(()) => draft.crush.replace(crush),
        // It never had a place.
        Err(EditError::Unknown { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
