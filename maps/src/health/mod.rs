//! Health: what is wrong, why, what follows from it, and what to do. A pure function of the map and of what daemons report.
//!
//! A check is quiet unless a person has something to know or do. Each has a stable name (for mutes and alerts), a cause, an
//! effect and a next step, and names the things it is about.

mod data;
mod devices;
#[cfg(test)]
#[path = "health_test.rs"]
mod tests;

use std::collections::BTreeMap;

use bitflags::bitflags;
use nacre_proto::ids::{Epoch, MonId, OsdId, PgId, Stamp};

use crate::map::ClusterMap;
use crate::rules::osd_down::Verdict;

bitflags! {
    /// What a pg is, as its primary says.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PgState: u32 {
        /// Serves.
        const ACTIVE = 1;
        /// Every copy is complete.
        const CLEAN = 1 << 1;
        /// Finds out where the newest state is.
        const PEERING = 1 << 2;
        /// Some objects have too few copies.
        const DEGRADED = 1 << 3;
        /// Fewer members than the pool wants.
        const UNDERSIZED = 1 << 4;
        /// Copies objects that replicas miss.
        const RECOVERING = 1 << 5;
        /// Fills a member from the start.
        const BACKFILLING = 1 << 6;
        /// Lacks too much history, or a member it must hear, to go on.
        const DOWN = 1 << 7;
        /// A scrub found what it could not repair.
        const INCONSISTENT = 1 << 8;
        /// Would recover or backfill, but a device is too full.
        const TOO_FULL = 1 << 9;
        /// Scrubs.
        const SCRUBBING = 1 << 10;
    }
}

/// What a primary reports of a pg.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PgReport {
    /// What it is.
    pub state: PgState,
    /// In which epoch.
    pub epoch: Epoch,
    /// When.
    pub at: Stamp,
    /// Objects it holds.
    pub objects: u64,
    /// Bytes clients stored.
    pub bytes: u64,
    /// Copies that are missing.
    pub degraded: u64,
    /// Copies that lie where they no longer should.
    pub misplaced: u64,
    /// Objects of which no copy is known.
    pub unfound: u64,
    /// When its metadata was compared last.
    pub scrubbed: Stamp,
    /// When its bytes were.
    pub deep_scrubbed: Stamp,
    /// Why it is not clean, in a line.
    pub why: String,
}

impl PgReport {
    /// Whether it serves and every copy is complete.
    pub fn is_clean(&self) -> bool {
        self.state.contains(PgState::ACTIVE | PgState::CLEAN)
    }
}

/// What an OSD reports of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsdReport {
    /// Bytes in use.
    pub used: u64,
    /// Bytes there are.
    pub total: u64,
    /// Operations that take longer than they should.
    pub slow_ops: u32,
    /// Why the slowest of them does.
    pub slow_why: String,
    /// Checksum or disk errors since its start.
    pub disk_errors: u64,
}

/// What is known of a monitor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonReport {
    /// Takes part in the quorum.
    pub in_quorum: bool,
    /// How far its clock is from the leader's.
    pub skew_ms: u64,
    /// Share of its disk that is free, in thousandths; absent = unknown.
    pub disk_free_permille: Option<u16>,
}

/// All that health looks at beside the map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    /// By pg.
    pub pgs: BTreeMap<PgId, PgReport>,
    /// By OSD.
    pub osds: BTreeMap<OsdId, OsdReport>,
    /// By monitor.
    pub mons: BTreeMap<MonId, MonReport>,
    /// What failure reports came to.
    pub failures: Verdict,
}

/// How bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// All is well.
    #[default]
    Ok,
    /// Something wants attention.
    Warning,
    /// Data or access is in danger or lost.
    Error,
}

impl Severity {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its stable name.
    pub name: &'static str,
    /// How bad.
    pub severity: Severity,
    /// How many things it is about.
    pub count: u32,
    /// What is wrong and why.
    pub cause: String,
    /// What follows from it.
    pub effect: &'static str,
    /// What to do.
    pub todo: String,
    /// The things, a line each; at most [`MAX_DETAILS`].
    pub details: Vec<String>,
    /// Hidden by an operator.
    pub muted: bool,
}

/// The most lines of details.
pub const MAX_DETAILS: usize = 50;

/// Every check with its meaning. A name is never reused.
pub const CHECKS: &[(&str, &str)] = &[
    ("daemon_lost", "A metadata server or gateway has not been heard of."),
    ("flags_set", "Flags hold the cluster back."),
    ("mon_clock_skew", "Clocks of monitors differ."),
    ("mon_disk_low", "A monitor's disk is nearly full."),
    ("mon_down", "A monitor takes no part in the quorum."),
    ("osd_backfillfull", "OSDs are too full to take backfill."),
    ("osd_disk_errors", "OSDs met checksum or disk errors."),
    ("osd_down", "OSDs are in but down."),
    ("osd_flapping", "OSDs go down and come back again and again."),
    ("osd_full", "OSDs are full: writes to their pgs wait."),
    ("osd_held_in", "OSDs are down for long and are not taken out."),
    ("osd_held_up", "OSDs are reported as failed and are not marked down."),
    ("osd_nearfull", "OSDs are nearly full."),
    ("osd_out_of_tree", "OSDs stand nowhere in the crush map."),
    ("osd_subtree_down", "Everything in a host or larger bucket is down."),
    ("pg_degraded", "Objects have fewer copies than they should."),
    ("pg_inactive", "Pgs do not serve."),
    ("pg_inconsistent", "Copies differ and could not be repaired."),
    ("pg_not_scrubbed", "Pgs have not been scrubbed in time."),
    ("pg_too_full", "Pgs cannot recover because devices are too full."),
    ("pg_unfound", "Objects of which no copy is known."),
    ("pg_unknown", "Pgs of which nobody reports."),
    ("pool_no_application", "Pools of which nobody says what uses them."),
    ("pool_no_redundancy", "Pools that keep one copy."),
    ("pool_pg_count", "Pools with far too few pgs for what they hold."),
    ("pool_quota", "Pools whose quota is, or is nearly, used up."),
    ("pool_unplaceable", "Pools that want more copies than there are places for."),
    ("slow_ops", "Operations take too long."),
    ("versions_differ", "Daemons of different versions run together."),
];

/// The state of health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The worst of what is not muted.
    pub status: Severity,
    /// Everything that is not as it should be, the worst first.
    pub checks: Vec<Check>,
    /// Checks whose mute is over, because they got worse or went away: to be unmuted.
    pub unmute: Vec<String>,
}

/// Collects checks.
struct Findings<'a> {
    map: &'a ClusterMap,
    reports: &'a Reports,
    now: Stamp,
    checks: Vec<Check>,
}

impl Findings<'_> {
    /// Raises a check if there is anything it is about.
    fn raise(
        &mut self,
        name: &'static str,
        severity: Severity,
        mut details: Vec<String>,
        cause: impl FnOnce(usize) -> String,
        effect: &'static str,
        todo: impl Into<String>,
    ) {
        let count = details.len();
        if count == 0 {
            return;
        }
        if count > MAX_DETAILS {
            details.truncate(MAX_DETAILS);
            details.push(format!("and {} more", count - MAX_DETAILS));
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let cause = cause(count as usize);
        self.checks.push(Check { name, severity, count, cause, effect, todo: todo.into(), details, muted: false });
    }
}

/// Looks at everything.
pub fn check(map: &ClusterMap, reports: &Reports, now: Stamp) -> Health {
    let mut findings = Findings { map, reports, now, checks: Vec::new() };
    devices::check(&mut findings);
    data::check(&mut findings);
    let mut checks = findings.checks;
    let mut unmute = Vec::new();
    for (name, mute) in map.mutes.iter() {
        let raised = checks.iter_mut().find(|check| check.name == name.as_str());
        let over = mute.until.is_some_and(|until| until <= now);
        match raised {
            Some(check) if !over && (mute.sticky || check.count <= mute.count) => check.muted = true,
            None if mute.sticky && !over => {}
            _ => unmute.push(name.clone()),
        }
    }
    checks.sort_by_key(|check| (check.muted, std::cmp::Reverse(check.severity), check.name));
    let status = checks.iter().filter(|check| !check.muted).map(|check| check.severity).max().unwrap_or_default();
    Health { status, checks, unmute }
}
