//! Flags that hold things back, and muted health checks. Both can end by themselves, so that what was set for one night
//! is not forgotten for a year.

use std::sync::Arc;

use nacre_proto::ids::{OsdId, Stamp};

use super::{Asker, Outcome, RuleError, osd_state, refused, set, wrong};
use crate::increment::Draft;
use crate::map::{ClusterMap, Flag, FlagState, FlagTarget, Mute, Table};

/// Whether a flag holds for an OSD: set for it, for a bucket above it, for its class, or for all.
pub fn holds(map: &ClusterMap, flag: Flag, osd: OsdId) -> bool {
    map.flags.keys().filter(|(set, _)| *set == flag).any(|(_, target)| match target {
        FlagTarget::Cluster => true,
        FlagTarget::Osd(only) => *only == osd,
        FlagTarget::Class(class) => class_of(map, osd).is_some_and(|of| of == class),
        FlagTarget::Bucket(name) => {
            let item = i32::try_from(osd.0).unwrap_or(i32::MAX);
            map.crush.item(name).is_some_and(|bucket| map.crush.devices_below(bucket).contains(&item))
        }
    })
}

fn class_of(map: &ClusterMap, osd: OsdId) -> Option<&String> {
    let device = map.crush.devices.get(&i32::try_from(osd.0).ok()?)?;
    map.crush.classes.get(&device.class?)
}

/// Flags that make sense for the whole cluster only.
const CLUSTER_ONLY: &[Flag] = &[Flag::Pause, Flag::NoPlan, Flag::NoSnapTrim];

/// Sets a flag, for a time or until somebody clears it.
pub fn set_flag(
    map: &ClusterMap,
    flag: Flag,
    target: &FlagTarget,
    until: Option<Stamp>,
    why: &str,
    asker: &Asker,
) -> Result<Outcome, RuleError> {
    if let Some(until) = until.filter(|until| *until <= asker.now) {
        return Err(wrong("end of the flag", until, "a moment to come"));
    }
    if CLUSTER_ONLY.contains(&flag) && *target != FlagTarget::Cluster {
        return Err(wrong("target of the flag", target, format!("`cluster`: {flag} cannot be set for a part")));
    }
    let no_such = |what, name: &str| RuleError::NoSuch {
        what,
        name: name.to_owned(),
        hint: "`nacre osd tree` lists them".into(),
    };
    match target {
        FlagTarget::Cluster => {}
        FlagTarget::Osd(osd) => drop(osd_state(map, *osd)?.flags),
        FlagTarget::Bucket(name) if map.crush.item(name).is_some_and(|item| item < 0) => {}
        FlagTarget::Bucket(name) => return Err(no_such("bucket", name)),
        FlagTarget::Class(name) if map.crush.class_id(name).is_some() => {}
        FlagTarget::Class(name) => return Err(no_such("device class", name)),
    }
    let mut draft = Draft::of(map, asker.now);
    let state = FlagState { until, since: asker.now, by: asker.who.clone(), why: why.to_owned() };
    set(&mut draft.flags, (flag, target.clone()), Arc::new(state));
    let outcome = Outcome::of(draft, format!("flag {flag} set for {target}"));
    Ok(match until {
        Some(_) => outcome,
        None => outcome.note("it stays until somebody clears it; `--for 30m` would end it by itself"),
    })
}

/// Clears a flag.
pub fn clear(map: &ClusterMap, flag: Flag, target: &FlagTarget, now: Stamp) -> Result<Outcome, RuleError> {
    let mut draft = Draft::of(map, now);
    if !draft.flags.remove(&(flag, target.clone())) {
        let others: Vec<String> =
            map.flags.keys().filter(|(set, _)| *set == flag).map(|(_, target)| target.to_string()).collect();
        let outcome = Outcome::already(format!("flag {flag} is not set for {target}"));
        return Ok(match others.is_empty() {
            true => outcome,
            false => outcome.note(format!("it is set for {}", others.join(", "))),
        });
    }
    Ok(Outcome::of(draft, format!("flag {flag} cleared for {target}")))
}

/// Hides a health check: until it gets worse, goes away, its time is over or, if sticky, until it is unmuted.
pub fn mute(
    map: &ClusterMap,
    check: &str,
    until: Option<Stamp>,
    sticky: bool,
    count: u32,
    asker: &Asker,
) -> Result<Outcome, RuleError> {
    if !crate::health::CHECKS.iter().any(|(name, _)| *name == check) {
        let hint = "`nacre health --all` lists them".into();
        return Err(RuleError::NoSuch { what: "health check", name: check.to_owned(), hint });
    }
    if let Some(until) = until.filter(|until| *until <= asker.now) {
        return Err(wrong("end of the mute", until, "a moment to come"));
    }
    if count == 0 && !sticky {
        return Err(refused(format!("{check} is not raised now"), "mute it with `--sticky` to hide it when it comes"));
    }
    let mut draft = Draft::of(map, asker.now);
    set(&mut draft.mutes, check.to_owned(), Arc::new(Mute { until, sticky, count, by: asker.who.clone() }));
    Ok(Outcome::of(draft, format!("{check} is muted")))
}

/// Shows a muted check again.
pub fn unmute(map: &ClusterMap, check: &str, now: Stamp) -> Result<Outcome, RuleError> {
    let mut draft = Draft::of(map, now);
    if !draft.mutes.remove(&check.to_owned()) {
        return Ok(Outcome::already(format!("{check} is not muted")));
    }
    Ok(Outcome::of(draft, format!("{check} is shown again")))
}
