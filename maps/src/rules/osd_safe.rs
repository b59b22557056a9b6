//! The questions to ask before OSDs are stopped or destroyed. Answered from the map and from what primaries report of their
//! pgs; what is not known, or was said under an older map, speaks against.

use nacre_proto::ids::{OsdId, PgId};

use crate::health::{PgReport, PgState, Reports};
use crate::placement::{PgMapping, Placement};

/// An answer with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Go ahead.
    pub yes: bool,
    /// Why not and what to do about it, or why it is safe.
    pub why: String,
    /// The pgs that speak against it, each with its reason.
    pub against: Vec<(PgId, String)>,
    /// Asked again in a moment the answer may be another: reports of pgs are not in yet.
    pub soon: bool,
}

impl Answer {
    fn yes(why: impl Into<String>) -> Answer {
        Answer { yes: true, why: why.into(), against: Vec::new(), soon: false }
    }

    fn no(against: Vec<(PgId, String)>, why: impl Into<String>) -> Answer {
        Answer { yes: false, why: why.into(), against, soon: false }
    }
}

/// `1 pg is`, `2 pgs are`.
fn some(count: usize, one: &str, more: &str) -> String {
    if count == 1 { format!("1 pg {one}") } else { format!("{count} pgs {more}") }
}

fn list(osds: &[OsdId]) -> String {
    osds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What primaries said of pgs, as far as it can be relied on.
struct Known<'a> {
    placement: &'a Placement,
    reports: &'a Reports,
}

impl Known<'_> {
    /// The pgs among these that nobody reports of, or only under an older map.
    fn unsaid(&self, pgs: &[PgId]) -> Option<Answer> {
        let newest = self.placement.map().epoch;
        let mut soon = true;
        let against: Vec<(PgId, String)> = pgs
            .iter()
            .filter_map(|pg| match self.reports.pgs.get(pg) {
                None => {
                    // With a primary that is up, its next report says more.
                    soon &= self.placement.pg(*pg).is_some_and(|at| at.acting_primary.is_some());
                    Some((*pg, "nobody reports of it: bring its OSDs up".to_owned()))
                }
                Some(report) if report.epoch < newest => {
                    Some((*pg, format!("its last report is of epoch {}, the map is at {newest}", report.epoch)))
                }
                Some(_) => None,
            })
            .collect();
        let why = format!("{} unknown", some(against.len(), "is", "are"));
        (!against.is_empty()).then(|| Answer { soon, ..Answer::no(against, why) })
    }

    fn report(&self, pg: PgId) -> Option<&PgReport> {
        self.reports.pgs.get(&pg)
    }
}

fn because(report: &PgReport, what: String) -> String {
    if report.why.is_empty() { what } else { format!("{what}: {}", report.why) }
}

/// Whether OSDs can be stopped together without a pg ceasing to serve.
pub fn ok_to_stop(placement: &Placement, reports: &Reports, osds: &[OsdId]) -> Answer {
    let map = placement.map();
    let known = Known { placement, reports };
    let mut mapping = PgMapping::default();
    let touched: Vec<PgId> = placement
        .pgs()
        .filter(|pg| placement.pg_into(*pg, &mut mapping) && mapping.acting.iter().any(|osd| osds.contains(osd)))
        .collect();
    let mut against = Vec::new();
    for pg in &touched {
        let (Some(pool), true) = (map.pool_of(*pg), placement.pg_into(*pg, &mut mapping)) else { continue };
        let left = mapping.acting.iter().filter(|osd| osd.is_some() && !osds.contains(osd)).count();
        if left < pool.min_size as usize {
            against.push((*pg, format!("would be left with {left} copies and serves with {} or more", pool.min_size)));
        }
    }
    if !against.is_empty() {
        let why = format!(
            "{} serving; bring other OSDs of theirs up first, or stop fewer at a time",
            some(against.len(), "would stop", "would stop")
        );
        return Answer::no(against, why);
    }
    if let Some(unsaid) = known.unsaid(&touched) {
        return unsaid;
    }
    for pg in &touched {
        let Some(report) = known.report(*pg) else { continue };
        if !report.state.contains(PgState::ACTIVE) {
            against.push((*pg, because(report, "does not serve".into())));
        } else if report.unfound > 0 || report.degraded > 0 {
            against.push((*pg, because(report, format!("misses {} copies", report.degraded.max(report.unfound)))));
        }
    }
    if against.is_empty() {
        return Answer::yes(match touched.len() {
            0 => format!("no pg is served by {}", list(osds)),
            count => format!("{} enough copies elsewhere", some(count, "keeps", "keep")),
        });
    }
    let why = format!(
        "{} whole: what {} hold may be the only copy; wait until recovery is done (`nacre pg explain`)",
        some(against.len(), "is not", "are not"),
        list(osds)
    );
    Answer::no(against, why)
}

/// Whether no data depends on an OSD: it is mapped to no pg, and every pg is whole without it by its own report.
pub fn safe_to_destroy(placement: &Placement, reports: &Reports, osd: OsdId) -> Answer {
    let known = Known { placement, reports };
    let mut mapping = PgMapping::default();
    let (mut mapped, mut all) = (Vec::new(), Vec::new());
    for pg in placement.pgs() {
        all.push(pg);
        if placement.pg_into(pg, &mut mapping) && (mapping.up.contains(&osd) || mapping.acting.contains(&osd)) {
            let what = if mapping.up.contains(&osd) { "belongs on" } else { "is still served by" };
            mapped.push((pg, format!("{what} {osd}")));
        }
    }
    if !mapped.is_empty() {
        let why = format!(
            "{} mapped to {osd}; `nacre osd drain {}` moves them and waits",
            some(mapped.len(), "is", "are"),
            osd.0
        );
        return Answer::no(mapped, why);
    }
    if let Some(unsaid) = known.unsaid(&all) {
        return unsaid;
    }
    let unclean: Vec<(PgId, String)> = all
        .iter()
        .filter_map(|pg| known.report(*pg).filter(|report| !report.is_clean()).map(|report| (*pg, report)))
        .map(|(pg, report)| (pg, because(report, "is not clean".into())))
        .collect();
    if !unclean.is_empty() {
        let why = format!(
            "{} clean: {osd} may hold what they miss; wait until recovery is done",
            some(unclean.len(), "is not", "are not")
        );
        return Answer::no(unclean, why);
    }
    Answer::yes(format!("no pg is mapped to {osd} and all {} are clean", all.len()))
}

/// Whether the disk of an OSD that is down can be exchanged at once: it is safe to destroy, or every pg it belongs to
/// serves without it and misses nothing but its copy.
pub fn safe_to_replace(placement: &Placement, reports: &Reports, osd: OsdId) -> Answer {
    let destroy = safe_to_destroy(placement, reports, osd);
    if destroy.yes {
        return destroy;
    }
    let (map, known) = (placement.map(), Known { placement, reports });
    let all: Vec<PgId> = placement.pgs().collect();
    if let Some(unsaid) = known.unsaid(&all) {
        return unsaid;
    }
    let mut against = Vec::new();
    for pg in all {
        let (Some(pool), Some(report)) = (map.pool_of(pg), known.report(pg)) else { continue };
        if report.is_clean() {
            continue;
        }
        let held = placement.mapped(pg).is_some_and(|set| set.contains(&osd));
        // Its own copies, and no more, are missing.
        let whole = held && report.unfound == 0 && report.misplaced == 0 && report.degraded <= report.objects;
        let others = placement.pg(pg).map_or(0, |at| at.acting.iter().filter(|at| at.is_some() && **at != osd).count());
        if !report.state.contains(PgState::ACTIVE) || !whole || others + 1 < pool.size as usize {
            against.push((pg, because(report, "misses more than its copy".into())));
        }
    }
    if against.is_empty() {
        return Answer::yes(format!("every pg of {osd} is whole on the OSDs beside it"));
    }
    let why = format!(
        "{} whole without {osd}: it may hold the only copy of something; wait until recovery is done",
        some(against.len(), "is not", "are not")
    );
    Answer::no(against, why)
}
