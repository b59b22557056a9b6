//! An OSD starts: who may take a number, which of two runs is the later, and where a newcomer stands.
//!
//! A daemon counts its starts in its own store, so of two messages the one with the greater incarnation is the later:
//! - a greater one than the map's: a new run. If the map thinks the old one up, it is marked down first, in an epoch of its
//!   own, so that every pg sees that the OSD was away;
//! - the same one: the run was marked down and is alive all the same. It is let in again if it has seen the epoch in which
//!   it was marked down; before that, the message is older than the mark;
//! - a smaller one: a message of a run that is over. Refused.

use std::sync::Arc;
use std::time::Duration;

use nacre_crush::model::Weight;
use nacre_proto::ids::{Epoch, Incarnation, OsdId, Stamp};

use super::{Outcome, RuleError, flag, location, osd_down, refused, set, wrong};
use crate::increment::Draft;
use crate::map::{ClusterMap, Dense, Flag, OsdFlags, OsdInfo, OsdState};
use crate::settings::MonSettings;

/// What an OSD says when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// Its number.
    pub osd: OsdId,
    /// Its run.
    pub incarnation: Incarnation,
    /// The newest map it has.
    pub epoch: Epoch,
    /// Who it is and where it is reached.
    pub info: OsdInfo,
    /// Where it stands, type and name; empty = its host below `default`. Only looked at when it is new to the crush map.
    pub location: Vec<(String, String)>,
    /// How much it holds against its siblings, in millionths; none = its size in TiB. Looked at as the location is.
    pub weight: Option<u64>,
    /// Its device class; empty = unknown. Only looked at while it has none.
    pub class: String,
}

/// The lowest number that no OSD has, for a new disk that asks for one. The same disk gets the same number again.
pub fn number_for(map: &ClusterMap, uuid: nacre_proto::ids::Uuid) -> Result<OsdId, RuleError> {
    if let Some((osd, _)) = map.osd_info.iter().find(|(_, info)| info.uuid == uuid) {
        return Ok(osd);
    }
    let taken = |number: u32| map.osds.contains(OsdId(number)) || map.crush.devices.contains_key(&(number as i32));
    (0..=Dense::<OsdState>::MAX.0)
        .find(|number| !taken(*number))
        .map(OsdId)
        .ok_or_else(|| refused("every OSD number is taken", "remove OSDs that no longer exist with `nacre osd rm`"))
}

/// See the module.
pub fn boot(map: &ClusterMap, boot: &Boot, now: Stamp) -> Result<Outcome, RuleError> {
    let osd = boot.osd;
    if osd > Dense::<OsdState>::MAX {
        return Err(wrong("OSD number", osd, format!("at most {}", Dense::<OsdState>::MAX)));
    }
    if boot.info.public.is_empty() || boot.info.cluster.is_empty() {
        return Err(wrong("addresses of", osd, "at least one public and one cluster address"));
    }
    check_disk(map, boot)?;
    if flag::holds(map, Flag::NoUp, osd) {
        return Err(refused(
            format!("{osd} may not come up: flag noup is set"),
            "clear it with `nacre flag clear noup`",
        ));
    }
    let Some(state) = map.osds.get(osd) else { return come_up(map, boot, now) };
    let stale =
        |why| RuleError::Stale { who: osd.to_string(), theirs: boot.epoch.0, incarnation: boot.incarnation.0, why };
    if boot.incarnation < state.incarnation {
        return Err(stale("a later run has booted since"));
    }
    if boot.incarnation == state.incarnation && !state.flags.contains(OsdFlags::NEW) {
        if state.is_up() {
            return match map.osd_info.get(osd).is_some_and(|info| **info == boot.info) {
                true => Ok(Outcome::already(format!("{osd} is up already"))),
                false => {
                    Err(stale("this run is up with other addresses; restart the daemon so that it counts a new run"))
                }
            };
        }
        if boot.epoch < state.down_at {
            return Err(stale("it was marked down in an epoch it has not seen yet"));
        }
        check_flapping(map, osd, state, now)?;
    }
    if !state.is_up() {
        return come_up(map, boot, now);
    }
    let down = osd_down::mark_down(map, &[osd], true, now);
    let between = down.map_after(map);
    let up = come_up(&between, boot, now)?;
    Ok(Outcome { increments: [down.increments, up.increments].concat(), ..up })
}

fn check_disk(map: &ClusterMap, boot: &Boot) -> Result<(), RuleError> {
    let osd = boot.osd;
    if let Some((other, _)) = map.osd_info.iter().find(|(other, info)| info.uuid == boot.info.uuid && *other != osd) {
        return Err(refused(
            format!("disk {} is {other}, not {osd}", boot.info.uuid),
            format!("start it as {other}; if the disk was copied, wipe the copy and create a new OSD on it"),
        ));
    }
    let Some(info) = map.osd_info.get(osd) else { return Ok(()) };
    let destroyed = map.osds.get(osd).is_some_and(|state| state.flags.contains(OsdFlags::DESTROYED));
    if destroyed && info.uuid == boot.info.uuid {
        return Err(refused(
            format!("{osd} was given up to be replaced, and this is its old disk"),
            "make a new store for it; data of the old one is rebuilt from its copies",
        ));
    }
    let reusable = map.osds.get(osd).is_none_or(|state| state.flags.contains(OsdFlags::DESTROYED));
    if info.uuid != boot.info.uuid && !reusable {
        return Err(refused(
            format!("{osd} is the disk {}, but the disk that wants to boot is {}", info.uuid, boot.info.uuid),
            format!(
                "if the old disk is gone for good, run `nacre osd rm {}` first, or create the new OSD under a number of its own",
                osd.0
            ),
        ));
    }
    Ok(())
}

/// How often it flapped by now, in 1/256: halves each window.
pub(super) fn flaps_by(map: &ClusterMap, state: &OsdState, now: Stamp) -> u32 {
    let window = MonSettings(map).span("mon.flap.window").as_millis().max(1);
    let halvings = now.since(state.flapped).as_millis() / window;
    state.flaps.checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX)).unwrap_or(0)
}

fn check_flapping(map: &ClusterMap, osd: OsdId, state: &OsdState, now: Stamp) -> Result<(), RuleError> {
    let settings = MonSettings(map);
    let (flaps, wait) = (flaps_by(map, state, now), settings.span("mon.flap.wait"));
    let waited = now.since(state.since);
    if u64::from(flaps) >= settings.number("mon.flap.limit") * 256 && waited < wait {
        let left = wait.saturating_sub(waited).as_secs() + 1;
        return Err(refused(
            format!("{osd} was marked down and came straight back {} times lately, so it is kept down", flaps / 256),
            format!("it is let in in {left} s; look at its host's network and load, its peers could not reach it"),
        ));
    }
    Ok(())
}

/// A failure that proved false: the run it was about is alive.
fn learn_from_false_failure(map: &ClusterMap, state: &mut OsdState, now: Stamp) {
    let away = now.since(state.since).min(Duration::from_secs(300)).as_millis() as u32;
    state.laggy_ms = state.laggy_ms / 2 + away / 2;
    state.laggy_share = state.laggy_share / 2 + (1 << 15);
    state.flaps = flaps_by(map, state, now).saturating_add(256);
    state.flapped = now;
}

fn come_up(map: &ClusterMap, boot: &Boot, now: Stamp) -> Result<Outcome, RuleError> {
    let osd = boot.osd;
    let mut draft = Draft::of(map, now);
    let epoch = draft.epoch;
    let fresh = OsdState { born: epoch, ..OsdState::fresh(now) };
    let mut state = map.osds.get(osd).cloned().unwrap_or(fresh.clone());
    let mut notes = Vec::new();
    if state.flags.contains(OsdFlags::DESTROYED) {
        let before = [state.weight, state.weight_before_out, Weight::ONE];
        let weight = before.into_iter().find(|weight| *weight > Weight::ZERO).unwrap_or(Weight::ONE);
        state = OsdState { weight, affinity: state.affinity, up_thru: state.up_thru, down_at: state.down_at, ..fresh };
    }
    if state.flags.contains(OsdFlags::NEW) {
        state.born = epoch;
        if flag::holds(map, Flag::NoIn, osd) {
            state.weight = Weight::ZERO;
            notes.push(format!("flag noin is set: {osd} stays out until `nacre osd in {}`", osd.0));
        }
    } else if boot.incarnation == state.incarnation {
        learn_from_false_failure(map, &mut state, now);
    }
    if state.flags.contains(OsdFlags::AUTO_OUT) && !flag::holds(map, Flag::NoIn, osd) {
        state.weight = Some(state.weight_before_out).filter(|weight| *weight > Weight::ZERO).unwrap_or(Weight::ONE);
        state.flags.remove(OsdFlags::AUTO_OUT);
        notes.push(format!("{osd} was taken out while it was down and is in again"));
    }
    state.flags.remove(OsdFlags::NEW | OsdFlags::STOPPING | OsdFlags::DEAD | OsdFlags::DESTROYED);
    state.flags.insert(OsdFlags::UP);
    state.incarnation = boot.incarnation;
    state.up_from = epoch;
    state.since = now;
    set(&mut draft.osds, osd, state);
    set(&mut draft.osd_info, osd, Arc::new(boot.info.clone()));
    location::place_at_boot(&mut draft, boot, &mut notes)?;
    Ok(Outcome { notes, ..Outcome::of(draft, format!("{osd} is up on {}", boot.info.host)) })
}
