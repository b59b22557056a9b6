//! In and out, and how much: whether and how much of the data mapped to an OSD stays there.

use nacre_crush::model::Weight;
use nacre_proto::ids::{OsdId, Stamp};

use super::osd_down::Ancestry;
use super::{Outcome, RuleError, edit_osd, flag, osd_state, wrong};
use crate::increment::Draft;
use crate::map::{ClusterMap, Flag, OsdFlags, OsdState};
use crate::settings::MonSettings;

/// 16.16 from millionths, to the nearest.
pub(super) fn weight_of(millionths: u64) -> Weight {
    Weight(u32::try_from((u128::from(millionths) * 65_536 + 500_000) / 1_000_000).unwrap_or(u32::MAX))
}

fn names(osds: &[OsdId]) -> String {
    let names: Vec<String> = osds.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn take_out(state: &mut OsdState, auto: bool) {
    state.weight_before_out = state.weight;
    state.weight = Weight::ZERO;
    state.flags.set(OsdFlags::AUTO_OUT, auto);
}

/// Has the data of OSDs rebuilt elsewhere.
pub fn out(map: &ClusterMap, osds: &[OsdId], now: Stamp) -> Result<Outcome, RuleError> {
    let mut draft = Draft::of(map, now);
    for osd in osds {
        if osd_state(map, *osd)?.is_in() {
            edit_osd(&mut draft, *osd, |state| take_out(state, false));
        } else {
            // An operator's word: the next boot does not bring it back.
            edit_osd(&mut draft, *osd, |state| state.flags.remove(OsdFlags::AUTO_OUT));
        }
    }
    let outcome = Outcome::of(draft, format!("{} out", names(osds)));
    let left = outcome.map_after(map).osds.iter().filter(|(_, state)| state.is_in()).count();
    let need = map.pools.values().map(|pool| pool.size).max().unwrap_or(0) as usize;
    Ok(if left < need {
        outcome
            .note(format!("only {left} OSDs are in, the largest pool wants {need}: its pgs will stay short of copies"))
    } else {
        outcome
    })
}

/// Lets data come back to OSDs.
pub fn back_in(map: &ClusterMap, osds: &[OsdId], now: Stamp) -> Result<Outcome, RuleError> {
    let mut draft = Draft::of(map, now);
    for osd in osds {
        if osd_state(map, *osd)?.is_in() {
            continue;
        }
        edit_osd(&mut draft, *osd, |state| {
            let before = Some(state.weight_before_out).filter(|weight| *weight > Weight::ZERO);
            state.weight = before.unwrap_or(Weight::ONE);
            state.flags.remove(OsdFlags::AUTO_OUT);
        });
    }
    Ok(Outcome::of(draft, format!("{} in", names(osds))))
}

/// Sets how much of what is mapped to an OSD stays there, from 0 to 1.0.
pub fn reweight(map: &ClusterMap, osd: OsdId, millionths: u32, now: Stamp) -> Result<Outcome, RuleError> {
    osd_state(map, osd)?;
    if millionths > 1_000_000 {
        return Err(wrong(
            "reweight",
            f64::from(millionths) / 1e6,
            "0 to 1.0; how large a disk is, is its crush weight",
        ));
    }
    let mut draft = Draft::of(map, now);
    edit_osd(&mut draft, osd, |state| {
        state.weight = weight_of(millionths.into());
        state.flags.remove(OsdFlags::AUTO_OUT);
    });
    Ok(Outcome::of(draft, format!("{osd} keeps {} of what is mapped to it", f64::from(millionths) / 1e6)))
}

/// Sets how willing an OSD is to be primary, from 0 to 1.0.
pub fn affinity(map: &ClusterMap, osd: OsdId, millionths: u32, now: Stamp) -> Result<Outcome, RuleError> {
    osd_state(map, osd)?;
    if millionths > 1_000_000 {
        return Err(wrong("primary affinity", f64::from(millionths) / 1e6, "0 to 1.0"));
    }
    let mut draft = Draft::of(map, now);
    edit_osd(&mut draft, osd, |state| state.affinity = weight_of(millionths.into()));
    Ok(Outcome::of(draft, format!("{osd} is primary in {} of the cases it could be", f64::from(millionths) / 1e6)))
}

/// An OSD that could be taken out automatically, and what holds it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutCandidate {
    /// Which.
    pub osd: OsdId,
    /// When its time is up.
    pub due: Stamp,
    /// Why it stays in all the same.
    pub held: Option<String>,
}

/// OSDs that are down and in, and whether they are to be taken out.
pub fn out_candidates(map: &ClusterMap, now: Stamp) -> Vec<OutCandidate> {
    let settings = MonSettings(map);
    let (after, limit) = (settings.span("mon.out.after"), settings.text("mon.out.subtree_limit"));
    let all = map.osds.len() as u64;
    let ancestry = Ancestry::of(&map.crush);
    let mut within = map.osds.iter().filter(|(_, state)| state.is_in()).count() as u64;
    let least = all * settings.millionths("mon.out.min_in_ratio") / 1_000_000;
    let gone =
        map.osds.iter().filter(|(_, state)| !state.is_up() && state.is_in() && !state.flags.contains(OsdFlags::NEW));
    gone.map(|(osd, state)| {
        let due = state.since.after(after);
        let held = if flag::holds(map, Flag::NoOut, osd) {
            Some("flag noout is set".to_owned())
        } else if let Some(name) = all_down_above(map, &ancestry, osd, &limit) {
            Some(format!(
                "all of {limit} {name} is down, which looks like a switch or power line (mon.out.subtree_limit)"
            ))
        } else if within <= least {
            Some(format!("only {within} of {all} OSDs are in (mon.out.min_in_ratio)"))
        } else {
            within -= u64::from(due <= now);
            None
        };
        OutCandidate { osd, due, held }
    })
    .collect()
}

/// The bucket of the limiting type above an OSD, if everything in it is down and it is not the only one of its type.
fn all_down_above(map: &ClusterMap, ancestry: &Ancestry<'_>, osd: OsdId, limit: &str) -> Option<String> {
    let crush = &map.crush;
    let bucket = ancestry.above(i32::try_from(osd.0).ok()?, crush.type_id(limit)?)?;
    let below = crush.devices_below(bucket);
    let down = below.iter().all(|item| u32::try_from(*item).is_ok_and(|osd| !map.is_up(OsdId(osd))));
    (down && below.len() > 1).then(|| crush.item_name(bucket).into_owned())
}

/// Takes out what is down for too long. Part of [`super::tick`].
pub(super) fn auto_out(draft: &mut Draft<'_>, map: &ClusterMap, now: Stamp, notes: &mut Vec<String>) {
    for candidate in out_candidates(map, now) {
        if candidate.due <= now && candidate.held.is_none() {
            edit_osd(draft, candidate.osd, |state| take_out(state, true));
            notes.push(format!("{} was down for too long and is out: its data is rebuilt elsewhere", candidate.osd));
        }
    }
}
