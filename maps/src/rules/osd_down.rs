//! An OSD is gone: failure reports and when they suffice, and what going down changes.
//!
//! Reports live in the leader's memory ([`Failures`]), not in the map: a new leader hears them again within a heartbeat.
//! What suffices:
//! - a refused connection at once: the kernel there says that nobody listens, so the process is gone;
//! - silence longer than the grace, seen from enough different places (buckets of `mon.down.reporter_level`), as one
//!   machine with a broken network sees everybody silent. Where there are not so many places, all there are;
//! - never so many that fewer than `mon.down.min_up_ratio` would be up: then it is the network, and marking OSDs down makes
//!   it worse.

use std::collections::BTreeMap;
use std::time::Duration;

use nacre_crush::model::{CrushMap, ItemId, TypeId};
use nacre_proto::ids::{Incarnation, OsdId, Stamp};

use super::osd_boot::flaps_by;
use super::{Outcome, RuleError, edit_osd, flag, osd_state};
use crate::increment::Draft;
use crate::map::{ClusterMap, Flag, OsdFlags, OsdState};
use crate::settings::MonSettings;

/// What one OSD says of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureReport {
    /// Who is silent.
    pub target: OsdId,
    /// Which run of it.
    pub incarnation: Incarnation,
    /// Who says so.
    pub reporter: OsdId,
    /// Since when.
    pub silent_since: Stamp,
    /// The connection was refused.
    pub refused: bool,
}

/// Failure reports that still stand.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    reports: BTreeMap<OsdId, BTreeMap<OsdId, FailureReport>>,
}

/// What the reports come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Silent for too long.
    pub silent: Vec<OsdId>,
    /// Known to be gone.
    pub dead: Vec<OsdId>,
    /// Reported, but not marked down, and why. For health.
    pub held: Vec<(OsdId, String)>,
    /// When to look again if no report comes.
    pub again: Option<Stamp>,
}

/// Who holds whom in a crush map, for those who ask about many items: the map itself searches for each.
pub(crate) struct Ancestry<'a> {
    crush: &'a CrushMap,
    parents: BTreeMap<ItemId, ItemId>,
}

impl<'a> Ancestry<'a> {
    /// Looks at every bucket once.
    pub(crate) fn of(crush: &'a CrushMap) -> Self {
        let shadows = crush.shadow_ids();
        let originals = crush.buckets.values().filter(|bucket| !shadows.contains(&bucket.id));
        let parents = originals.flat_map(|bucket| bucket.items.iter().map(|item| (*item, bucket.id))).collect();
        Self { crush, parents }
    }

    /// Whether anything holds the item.
    pub(crate) fn is_placed(&self, item: ItemId) -> bool {
        self.parents.contains_key(&item)
    }

    /// The bucket of a type above an item.
    pub(crate) fn above(&self, item: ItemId, kind: TypeId) -> Option<ItemId> {
        let mut at = item;
        // A hierarchy deeper than this is no hierarchy.
        for _ in 0..64 {
            at = *self.parents.get(&at)?;
            if self.crush.kind(at) == Some(kind) {
                return Some(at);
            }
        }
        None
    }
}

/// Where OSDs stand as reporters: their bucket of `mon.down.reporter_level`, or themselves if they have none.
struct Places<'a> {
    ancestry: Ancestry<'a>,
    level: String,
    kind: Option<TypeId>,
    /// How many OSDs are up in each.
    up: BTreeMap<ItemId, u32>,
}

impl<'a> Places<'a> {
    fn of(map: &'a ClusterMap) -> Self {
        let level = MonSettings(map).text("mon.down.reporter_level");
        let kind = map.crush.type_id(&level);
        let mut places = Self { ancestry: Ancestry::of(&map.crush), level, kind, up: BTreeMap::new() };
        for osd in map.up_osds() {
            *places.up.entry(places.place(osd)).or_default() += 1;
        }
        places
    }

    fn place(&self, osd: OsdId) -> ItemId {
        let item = osd.0 as ItemId;
        self.kind.and_then(|kind| self.ancestry.above(item, kind)).unwrap_or(item)
    }

    /// How many places have an OSD that could report this one.
    fn besides(&self, target: OsdId) -> usize {
        let alone = self.up.get(&self.place(target)) == Some(&1);
        self.up.len() - usize::from(alone)
    }
}

impl Failures {
    /// Takes a report.
    pub fn report(&mut self, report: FailureReport) {
        if report.reporter != report.target {
            self.reports.entry(report.target).or_default().insert(report.reporter, report);
        }
    }

    /// A reporter hears its peer again.
    pub fn withdraw(&mut self, target: OsdId, reporter: OsdId) {
        if let Some(reports) = self.reports.get_mut(&target) {
            reports.remove(&reporter);
        }
    }

    /// What the reports come to now. Forgets those about runs that are over and from reporters who are down themselves.
    pub fn judge(&mut self, map: &ClusterMap, now: Stamp) -> Verdict {
        self.reports.retain(|target, reports| {
            let run = map.osds.get(*target).filter(|state| state.is_up()).map(|state| state.incarnation);
            reports.retain(|reporter, report| Some(report.incarnation) == run && map.is_up(*reporter));
            !reports.is_empty()
        });
        let mut verdict = Verdict::default();
        if self.reports.is_empty() {
            return verdict;
        }
        let mut up = map.up_osds().count();
        let least = least_up(map);
        let places = Places::of(map);
        for (target, reports) in &self.reports {
            let Some(state) = map.osds.get(*target) else { continue };
            let refused = reports.values().any(|report| report.refused);
            let due = if refused { Ok(now) } else { silent_until(map, &places, *target, state, reports, now) };
            match due {
                Err(why) => verdict.held.push((*target, why)),
                Ok(due) if due > now => {
                    verdict.again = Some(verdict.again.map_or(due, |again| again.min(due)));
                }
                Ok(_) if flag::holds(map, Flag::NoDown, *target) => {
                    verdict.held.push((*target, "flag nodown is set".into()));
                }
                Ok(_) if up <= least => verdict.held.push((
                    *target,
                    format!("only {up} OSDs are up and mon.down.min_up_ratio keeps {least}: look at the network between hosts"),
                )),
                Ok(_) => {
                    up -= 1;
                    let list = if refused { &mut verdict.dead } else { &mut verdict.silent };
                    list.push(*target);
                }
            }
        }
        verdict
    }
}

fn least_up(map: &ClusterMap) -> usize {
    let all = map.osds.iter().filter(|(_, state)| state.is_in()).count() as u64;
    // Two OSDs and a ratio of 0.3: one must be allowed to fail.
    (all * MonSettings(map).millionths("mon.down.min_up_ratio") / 1_000_000) as usize
}

/// When its grace is over, or why the reports do not suffice.
fn silent_until(
    map: &ClusterMap,
    places: &Places<'_>,
    target: OsdId,
    state: &OsdState,
    reports: &BTreeMap<OsdId, FailureReport>,
    now: Stamp,
) -> Result<Stamp, String> {
    let settings = MonSettings(map);
    let mut since: BTreeMap<ItemId, Stamp> = BTreeMap::new();
    for report in reports.values() {
        let earliest = since.entry(places.place(report.reporter)).or_insert(report.silent_since);
        *earliest = (*earliest).min(report.silent_since);
    }
    let needed = (settings.number("mon.down.reporters") as usize).min(places.besides(target)).max(1);
    let mut moments: Vec<Stamp> = since.into_values().collect();
    moments.sort_unstable();
    match moments.get(needed - 1) {
        None => Err(format!("reported from {} {}(s), {needed} are needed", moments.len(), places.level)),
        Some(since) => Ok(since.after(grace(map, state, now))),
    }
}

/// How long this OSD may be silent: longer if its failures proved false before, until that is forgotten.
pub fn grace(map: &ClusterMap, state: &OsdState, now: Stamp) -> Duration {
    let settings = MonSettings(map);
    let base = settings.span("mon.down.grace");
    if !settings.switch("mon.down.adaptive") || flaps_by(map, state, now) == 0 {
        return base;
    }
    let extra = (u64::from(state.laggy_ms) * u64::from(state.laggy_share)) >> 16;
    // Even a much-suspected OSD must not stop I/O for long.
    base + Duration::from_millis(extra).min(base * 4)
}

/// Marks OSDs down that are up, whatever flags say.
pub(super) fn mark_down(map: &ClusterMap, osds: &[OsdId], dead: bool, now: Stamp) -> Outcome {
    let mut draft = Draft::of(map, now);
    let epoch = draft.epoch;
    for osd in osds.iter().filter(|osd| map.is_up(**osd)) {
        edit_osd(&mut draft, *osd, |state| {
            state.flags.remove(OsdFlags::UP);
            state.flags.set(OsdFlags::DEAD, dead);
            state.down_at = epoch;
            state.since = now;
        });
    }
    let names: Vec<String> = osds.iter().map(ToString::to_string).collect();
    Outcome::of(draft, format!("{} marked down", names.join(", ")))
}

/// Marks OSDs down, because reports suffice or an operator says so. `dead`: the processes are known to be gone.
pub fn down(map: &ClusterMap, osds: &[OsdId], dead: bool, now: Stamp) -> Result<Outcome, RuleError> {
    for osd in osds {
        osd_state(map, *osd)?;
    }
    let (held, fall): (Vec<OsdId>, Vec<OsdId>) = osds.iter().partition(|osd| flag::holds(map, Flag::NoDown, **osd));
    let mut outcome = mark_down(map, &fall, dead, now);
    for osd in held {
        outcome.notes.push(format!("{osd} stays up: flag nodown is set; clear it with `nacre flag clear nodown`"));
    }
    if outcome.increments.is_empty() {
        outcome.text = "none of them was up, or may go down".into();
    }
    Ok(outcome)
}

/// An OSD that stops by itself says so: nobody has to wait for its silence, and its interval ends clean.
pub fn stopping(map: &ClusterMap, osd: OsdId, incarnation: u64, now: Stamp) -> Result<Outcome, RuleError> {
    let state = osd_state(map, osd)?;
    if state.incarnation.0 != incarnation {
        let why = "another run has booted since";
        return Err(RuleError::Stale { who: osd.to_string(), theirs: map.epoch.0, incarnation, why });
    }
    if !state.is_up() {
        return Ok(Outcome::already(format!("{osd} is down already")));
    }
    let mut draft = Draft::of(map, now);
    let epoch = draft.epoch;
    edit_osd(&mut draft, osd, |state| {
        state.flags.remove(OsdFlags::UP);
        state.flags.insert(OsdFlags::STOPPING | OsdFlags::DEAD);
        (state.clean_begin, state.clean_end) = (state.up_from, epoch);
        state.down_at = epoch;
        state.since = now;
    });
    Ok(Outcome::of(draft, format!("{osd} has stopped")))
}
