//! Verbs that speak with the monitors, and the monitor itself.
//!
//! - [`mon`]: `nacre mon`, with [`run`] the daemon. [`status`]: the first page. [`health`], [`pool`], [`config`], [`osd`],
//!   [`flag`], [`fence`], [`log`].

mod backup;
mod balancer;
mod cert;
mod config;
mod df;
mod doctor;
mod fence;
mod flag;
mod health;
mod log;
mod mon;
mod osd;
mod osd_away;
mod osd_edit;
mod osd_safe;
mod pool;
mod recovery;
mod run;
mod seen;
mod span;
mod status;
mod top;
mod tree;

use std::time::Duration;

use clap::Args;
use nacre_maps::ClusterMap;
use nacre_mon_api::v1;
use nacre_proto::v1::map_command::Verb as Map;
use nacre_proto::v1::{MapCommand, Outcome};
use prost::Message;
use std::io::Write;

use crate::local::{ConfigArg, Connected, connect};
use crate::output::{Bytes, JsonFlag, Out};
use crate::run::Verdict;

pub(crate) use balancer::Noun as Balancer;
pub(crate) use cert::Noun as Cert;
pub(crate) use config::Noun as Config;
pub(crate) use doctor::Doctor;
pub(crate) use fence::Noun as Fence;
pub(crate) use flag::Noun as Flag;
pub(crate) use health::Health;
pub(crate) use log::{Log, Watch};
pub(crate) use mon::Noun as Mon;
pub(crate) use osd::Noun as Osd;
pub(crate) use pool::Noun as Pool;
pub(crate) use span::{moment, span};
pub(crate) use status::Status;
pub(crate) use top::Top;

/// How long a verb waits for a monitor that answers.
const PATIENCE: Duration = Duration::from_secs(15);

/// What every verb that asks the monitors takes.
#[derive(Args, Clone, Debug)]
struct Asking {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    json: JsonFlag,
}

impl Asking {
    fn connect(&self) -> anyhow::Result<Connected> {
        connect(&self.config, PATIENCE)
    }

    /// The cluster map, as the quorum has it.
    fn map(&self) -> anyhow::Result<ClusterMap> {
        let connected = self.connect()?;
        let status = connected.runtime.block_on(connected.monitors.status(false))?;
        Ok(ClusterMap::decode(&status.map)?)
    }

    /// Has the quorum change the map, and says what came of it.
    fn change(&self, verb: Map, dry_run: bool, out: &mut Out) -> anyhow::Result<Verdict> {
        let connected = self.connect()?;
        let verb = v1::command::Verb::Map(MapCommand { verb: Some(verb) });
        let reply = connected.runtime.block_on(connected.monitors.execute(verb, dry_run))?;
        let outcome = Outcome::decode(reply.detail).unwrap_or_default();
        if self.json.json {
            let moved = outcome.moved.as_ref().map(|moved| {
                serde_json::json!({ "pgs": moved.pgs, "copies": moved.copies, "of": moved.of, "bytes": moved.bytes })
            });
            out.json(&serde_json::json!({
                "text": reply.text, "notes": outcome.notes, "epoch": reply.epoch, "dry_run": dry_run, "moved": moved,
            }))?;
            return Ok(Verdict::Good);
        }
        let would = if dry_run { "would be done: " } else { "" };
        writeln!(out, "{would}{} (epoch {})", reply.text, reply.epoch)?;
        for note in outcome.notes {
            writeln!(out, "  {note}")?;
        }
        if let Some(moved) = outcome.moved {
            writeln!(
                out,
                "  moves {} of {} copies in {} pgs, {}",
                moved.copies,
                moved.of,
                moved.pgs,
                Bytes(moved.bytes)
            )?;
        }
        Ok(Verdict::Good)
    }
}
