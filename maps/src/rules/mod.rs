//! The rules by which monitors change the map: a command and the map it meets give an increment or a refusal.
//!
//! Pure functions, so every monitor that applies the same log comes to the same map, and a dry run is the same call
//! whose increments nobody applies. Time is an argument. A refusal says what is wrong and what to do about it.
//!
//! One file per family of verbs. [`Command`] names them all; [`execute`] sends each to its rule.

pub mod command;
pub mod daemon;
pub mod fence;
pub mod flag;
pub mod location;
pub mod message;
pub mod osd_boot;
pub mod osd_down;
pub mod osd_in;
pub mod osd_remove;
pub mod osd_safe;
pub mod pg;
pub mod pool;
pub mod pool_set;
pub mod setting;
pub mod snap;
#[cfg(test)]
#[path = "rules_test.rs"]
mod tests;
pub mod tick;
pub mod usage;

use nacre_proto::ids::{OsdId, ParseIdError, PgId, Stamp};
use nacre_proto::status::{Code, Status};

pub use command::{Command, execute};

use crate::increment::{Draft, Increment};
use crate::map::{ClusterMap, OsdState, Pool};
use crate::placement::PlacementError;
use crate::settings::ValueError;

/// What came of a command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// To be applied in order; none if all was so already.
    pub increments: Vec<Increment>,
    /// What it did, in a line.
    pub text: String,
    /// What the operator should know besides.
    pub notes: Vec<String>,
}

impl Outcome {
    /// What a draft came to.
    pub fn of(draft: Draft<'_>, text: impl Into<String>) -> Self {
        Self { increments: draft.finish().into_iter().collect(), text: text.into(), notes: Vec::new() }
    }

    /// All was so already.
    pub fn already(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// With something the operator should know besides.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The map after all increments. They were made from `map`, so they fit.
    pub fn map_after(&self, map: &ClusterMap) -> ClusterMap {
        self.increments.iter().fold(map.clone(), |map, increment| map.apply(increment).unwrap_or(map))
    }
}

/// Why a command is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// It names something that is not there.
    #[error("there is no {what} {name}; {hint}")]
    NoSuch { what: &'static str, name: String, hint: String },
    /// It would make something that is there.
    #[error("{what} {name} exists already; {hint}")]
    Exists { what: &'static str, name: String, hint: &'static str },
    /// A value that cannot be.
    #[error("{what} {value} is wrong: expected {expected}")]
    Value { what: &'static str, value: String, expected: String },
    /// An id that cannot be read.
    #[error(transparent)]
    Id(#[from] ParseIdError),
    /// A value of a setting that cannot be.
    #[error("setting {name}: {source}")]
    Setting { name: &'static str, source: ValueError },
    /// The state of the cluster forbids it.
    #[error("{why}; {todo}")]
    Refused { why: String, todo: String },
    /// Sent by a run of a daemon that is over, or under a map that is.
    #[error("{who} spoke of epoch {theirs} as run {incarnation}, but the map knows better: {why}")]
    Stale { who: String, theirs: u64, incarnation: u64, why: &'static str },
    /// An edit of the crush map failed.
    #[error("crush map: {0}")]
    Crush(#[from] nacre_crush::edit::EditError),
    /// The map that would result cannot be used.
    #[error("refused, as the map would be of no use: {0}")]
    Placement(#[from] PlacementError),
}

impl RuleError {
    /// As it crosses the wire.
    pub fn status(&self) -> Status {
        let code = match self {
            RuleError::NoSuch { .. } => Code::NotFound,
            RuleError::Exists { .. } => Code::Exists,
            RuleError::Value { .. } | RuleError::Id(_) | RuleError::Setting { .. } => Code::Invalid,
            RuleError::Refused { .. } | RuleError::Crush(_) | RuleError::Placement(_) => Code::Refused,
            RuleError::Stale { .. } => Code::StaleMap,
        };
        Status::new(code, self.to_string())
    }
}

fn refused(why: impl Into<String>, todo: impl Into<String>) -> RuleError {
    RuleError::Refused { why: why.into(), todo: todo.into() }
}

fn wrong(what: &'static str, value: impl ToString, expected: impl Into<String>) -> RuleError {
    RuleError::Value { what, value: value.to_string(), expected: expected.into() }
}

fn pool_named<'a>(map: &'a ClusterMap, name: &str) -> Result<(nacre_proto::ids::PoolId, &'a Pool), RuleError> {
    map.pool_named(name).map(|(id, pool)| (id, &**pool)).ok_or_else(|| RuleError::NoSuch {
        what: "pool",
        name: name.to_owned(),
        hint: "`nacre pool ls` lists them".into(),
    })
}

fn osd_state(map: &ClusterMap, osd: OsdId) -> Result<&OsdState, RuleError> {
    map.osds.get(osd).ok_or_else(|| RuleError::NoSuch {
        what: "OSD",
        name: osd.to_string(),
        hint: "`nacre osd tree` lists them".into(),
    })
}

fn known_pg(map: &ClusterMap, pg: PgId) -> Result<&Pool, RuleError> {
    map.pool_of(pg).map(|pool| &**pool).ok_or_else(|| RuleError::NoSuch {
        what: "pg",
        name: pg.to_string(),
        hint: match map.pools.get(&pg.pool) {
            Some(pool) => {
                format!("pool {} has pgs {}.0 to {}.{:x}", pool.name, pg.pool, pg.pool, pool.pg_num.saturating_sub(1))
            }
            None => format!("there is no pool {}", pg.pool),
        },
    })
}

/// Sets a value in a table of the draft. False only for an OSD number beyond the limit, which rules check before.
fn set<T: crate::map::Table>(table: &mut T, key: T::Key, value: T::Value) {
    let fits = table.set(key, value);
    debug_assert!(fits, "rules check OSD numbers");
}

/// Edits one OSD of a draft that exists.
fn edit_osd(draft: &mut Draft<'_>, osd: OsdId, edit: impl FnOnce(&mut OsdState)) {
    if let Some(mut state) = draft.osds.get(osd).cloned() {
        edit(&mut state);
        set(&mut draft.osds, osd, state);
    }
}

/// How the parts of a command are told the time and who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// When.
    pub now: Stamp,
    /// Who, for the audit log and for what the map notes.
    pub who: String,
}

/// How many failure domains a pool's rule finds for its copies; nothing if the rule is not of the simple kind.
pub fn pool_places(map: &ClusterMap, pool: &Pool) -> Option<usize> {
    use nacre_crush::model::Step;
    let rule = map.crush.rules.get(&pool.rule)?;
    let choices: Vec<_> = rule
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Take(item) => Some(Err(*item)),
            Step::Choose { kind, .. } | Step::ChooseLeaf { kind, .. } => Some(Ok(*kind)),
            _ => None,
        })
        .collect();
    match choices[..] {
        [Err(take), Ok(kind)] => Some(pool::domains(&map.crush, take, kind).len()),
        _ => None,
    }
}
