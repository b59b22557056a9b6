//! One round of the planners: may they act, what would they do, and which one step is next. The leader's background work
//! and an operator's dry run are the same call.
//!
//! Nothing is moved while anything is short of copies or not known: a planner's move would wait behind repairs, or get in
//! their way. What may be on its way at once is bounded by `balancer.max_misplaced`, a share of all that is stored.

use std::collections::BTreeMap;

use nacre_proto::ids::{PgId, PoolId};
use nacre_proto::v1::map_command::Verb;
use nacre_proto::v1::{self, PgPairs};

use super::balance::{self, Budget};
use super::pg_count::{self, Advice};
use crate::health::{PgState, Reports};
use crate::map::{ClusterMap, Flag, FlagTarget, PgAuto};
use crate::placement::Placement;
use crate::settings::MonSettings;

/// What a planner does with what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Carries it out.
    On,
    /// Says it.
    DryRun,
    /// Does not look.
    Off,
}

impl Mode {
    fn of(map: &ClusterMap, setting: &str) -> Mode {
        match MonSettings(map).text(setting).as_str() {
            "on" => Mode::On,
            "dry-run" => Mode::DryRun,
            _ => Mode::Off,
        }
    }

    /// As it is set.
    pub fn word(self) -> &'static str {
        match self {
            Mode::On => "on",
            Mode::DryRun => "dry-run",
            Mode::Off => "off",
        }
    }
}

/// What the planners found.
#[derive(Clone, Debug)]
pub struct Round {
    /// Of the balancer.
    pub balancer: Mode,
    /// Of the pg count.
    pub pg_count: Mode,
    /// Why nothing is done now, whatever there is to do.
    pub waits: Option<String>,
    /// Share of all copies that is on its way, in millionths.
    pub misplaced: u64,
    /// Pools that should have more pgs, of those that leave it to the monitors.
    pub pools: Vec<Advice>,
    /// A split that placement follows, as a command.
    split: Option<Verb>,
    /// What the balancer would move in its next step.
    pub balance: balance::Plan,
}

/// The one thing to do next.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// In a line.
    pub text: String,
    /// As a command; only said, not done, where a planner is set to that.
    pub verb: Verb,
    /// Whether it is to be done.
    pub carry_out: bool,
}

/// All copies and those on their way, and why nothing should be moved now.
fn standing(placement: &Placement, reports: &Reports) -> (u64, Option<String>) {
    let map = placement.map();
    let (mut copies, mut misplaced) = (0u64, 0u64);
    let (mut unknown, mut ill) = (0u32, 0u32);
    let mut worst = String::new();
    for pg in placement.pgs() {
        let Some(report) = reports.pgs.get(&pg).filter(|report| report.epoch >= map.epoch) else {
            unknown += 1;
            continue;
        };
        let size = map.pool_of(pg).map_or(0, |pool| u64::from(pool.size));
        copies = copies.saturating_add(report.objects.saturating_mul(size));
        misplaced = misplaced.saturating_add(report.misplaced);
        let bad = PgState::DEGRADED | PgState::UNDERSIZED | PgState::DOWN | PgState::PEERING | PgState::TOO_FULL;
        let serves = report.state.contains(PgState::ACTIVE) && !report.state.intersects(bad);
        if !serves || report.degraded > 0 || report.unfound > 0 {
            ill += 1;
            if worst.is_empty() {
                worst = format!("pg {pg}: {}", report.why);
            }
        }
    }
    let share = u64::try_from(u128::from(misplaced) * 1_000_000 / u128::from(copies.max(1))).unwrap_or(u64::MAX);
    let limit = MonSettings(map).millionths("balancer.max_misplaced");
    let set = |flag: Flag| map.flags.contains_key(&(flag, FlagTarget::Cluster));
    let flag = [Flag::NoPlan, Flag::NoRebalance, Flag::NoBackfill, Flag::Pause].into_iter().find(|flag| set(*flag));
    let gone = map.osds.iter().filter(|(_, state)| state.is_in() && !state.is_up()).count();
    let waits = match () {
        () if flag.is_some() => flag.map(|flag| format!("flag {flag} is set")),
        () if gone > 0 => Some(format!("{gone} OSDs are in but down")),
        () if ill > 0 => Some(format!("{ill} pgs are short of copies or do not serve ({worst})")),
        () if unknown > 0 => Some(format!("{unknown} pgs have not reported under the newest map")),
        () if share >= limit => Some(format!(
            "{}.{} % of the data is on its way (balancer.max_misplaced)",
            share / 10_000,
            share / 1_000 % 10
        )),
        () => None,
    };
    (share, waits)
}

/// Looks at everything. What is switched off is looked at all the same, for whoever asks.
pub fn look(placement: &Placement, reports: &Reports) -> Round {
    let map = placement.map();
    let (misplaced, waits) = standing(placement, reports);
    let mut used: BTreeMap<PoolId, u64> = BTreeMap::new();
    let mut bytes: BTreeMap<PgId, u64> = BTreeMap::new();
    let mut stored = 0u64;
    for (pg, report) in &reports.pgs {
        let Some(pool) = map.pool_of(*pg) else { continue };
        let sum = used.entry(pg.pool).or_default();
        *sum = sum.saturating_add(report.bytes);
        let (times, over) = pool.overhead();
        // One copy, or one shard.
        let copy = report.bytes.saturating_mul(times.into()) / u64::from(over.max(1)) / u64::from(pool.size.max(1));
        bytes.insert(*pg, copy);
        stored = stored.saturating_add(copy.saturating_mul(pool.size.into()));
    }
    let limit = MonSettings(map).millionths("balancer.max_misplaced");
    let left = limit.saturating_sub(misplaced);
    let most = u64::try_from(u128::from(stored) * u128::from(left) / 1_000_000).unwrap_or(u64::MAX);
    let automatic = |advice: &Advice| map.pools.get(&advice.pool).is_some_and(|pool| pool.pg_auto == PgAuto::On);
    let split = pg_count::follow_splits(map, misplaced).and_then(|command| match command {
        crate::rules::Command::PgpStep { pool, to } => Some(Verb::PgpStep(v1::PgpStep { pool, to })),
        _ => None,
    });
    Round {
        balancer: Mode::of(map, "balancer.mode"),
        pg_count: Mode::of(map, "mon.pg.count"),
        waits,
        misplaced,
        pools: pg_count::advise(map, &used).into_iter().filter(automatic).collect(),
        split,
        balance: balance::plan(placement, Budget { bytes: &bytes, most }),
    }
}

impl Round {
    /// What is to be done, or said, next; nothing if there is nothing to gain or it is not the time.
    pub fn step(&self) -> Option<Step> {
        if self.waits.is_some() {
            return None;
        }
        // A split that was begun is brought to its end, whoever began it.
        if let Some(verb @ Verb::PgpStep(step)) = &self.split {
            let text = format!("placement of pool {} follows its split to {} pgs", step.pool, step.to);
            return Some(Step { text, verb: verb.clone(), carry_out: true });
        }
        if let Some(advice) = self.pools.first().filter(|_| self.pg_count != Mode::Off) {
            let text =
                format!("pool {} gets {} pgs instead of {}: {}", advice.name, advice.to, advice.from, advice.why);
            let set = v1::PoolSet { pool: advice.name.clone(), option: "pg_num".into(), value: advice.to.to_string() };
            return Some(Step { text, verb: Verb::PoolSet(set), carry_out: self.pg_count == Mode::On });
        }
        if self.balancer == Mode::Off {
            return None;
        }
        self.balancing().map(|(text, verb)| Step { text, verb, carry_out: self.balancer == Mode::On })
    }

    /// The balancer's next step, whatever its mode.
    pub fn balancing(&self) -> Option<(String, Verb)> {
        if self.balance.items.is_empty() {
            return None;
        }
        let deviation = |hundredths: i64| format!("{}.{:02}", hundredths / 100, hundredths % 100);
        let text = format!(
            "{} pgs with {} bytes move to OSDs that hold less than their share; the worst deviation goes from {} to {} pgs",
            self.balance.copies,
            self.balance.bytes,
            deviation(self.balance.worst_before),
            deviation(self.balance.worst_after)
        );
        let pgs = self.balance.items.iter().map(|(pg, items)| PgPairs {
            pg: pg.to_string(),
            pairs: items.iter().map(|(from, to)| v1::Pair { from: from.0, to: to.0 }).collect(),
        });
        Some((text, Verb::UpmapItems(v1::UpmapItems { pgs: pgs.collect() })))
    }
}
