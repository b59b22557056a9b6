//! `nacre osd ok-to-stop | safe-to-destroy`: questions before maintenance, answered with the pgs that speak against it.

use std::io::Write;

use clap::Args;
use nacre_maps::rules::osd_safe::{Answer, ok_to_stop, safe_to_destroy};
use nacre_proto::ids::{OsdId, PgId};
use serde_json::json;

use super::Asking;
use super::osd_edit::osd;
use super::seen::Seen;
use crate::output::{Out, Tone};
use crate::run::{Run, Verdict};

/// So many pgs are listed for a person; programs get all.
const SHOWN: usize = 20;

/// Say whether OSDs can be stopped together without a pg ceasing to serve.
///
/// Ends with 1 if not, and lists the pgs that speak against it.
#[derive(Args)]
#[command(after_long_help = "--json: {ok, why, osds, pgs: [{pg, why}]}")]
pub(super) struct OkToStop {
    /// The OSDs, to be stopped at the same time.
    #[arg(required = true, value_parser = osd)]
    osds: Vec<u32>,
    #[command(flatten)]
    asking: Asking,
}

/// Say whether any data still depends on OSDs.
///
/// Ends with 1 if so, and lists the pgs that speak against it.
#[derive(Args)]
#[command(after_long_help = "--json: {ok, why, osds, pgs: [{pg, why}]}")]
pub(super) struct SafeToDestroy {
    /// The OSDs.
    #[arg(required = true, value_parser = osd)]
    osds: Vec<u32>,
    #[command(flatten)]
    asking: Asking,
}

/// OSDs that are in the map; an error names the first that is not.
pub(super) fn known(seen: &Seen, osds: &[u32]) -> anyhow::Result<Vec<OsdId>> {
    let osds: Vec<OsdId> = osds.iter().map(|osd| OsdId(*osd)).collect();
    match osds.iter().find(|osd| seen.map().osds.get(**osd).is_none()) {
        Some(osd) => anyhow::bail!("there is no OSD {osd}; `nacre osd tree` lists them"),
        None => Ok(osds),
    }
}

/// The pgs that speak against something, in lines.
pub(super) fn list(against: &[(PgId, String)], out: &mut Out) -> anyhow::Result<()> {
    for (pg, why) in against.iter().take(SHOWN) {
        writeln!(out, "  pg {pg} {why}")?;
    }
    if against.len() > SHOWN {
        writeln!(out, "  and {} more", against.len() - SHOWN)?;
    }
    Ok(())
}

fn tell(answer: &Answer, osds: &[u32], json: bool, out: &mut Out) -> anyhow::Result<Verdict> {
    if json {
        let pgs: Vec<_> = answer.against.iter().map(|(pg, why)| json!({ "pg": pg.to_string(), "why": why })).collect();
        out.json(&json!({ "ok": answer.yes, "why": answer.why, "osds": osds, "pgs": pgs }))?;
    } else {
        let (tone, word) = if answer.yes { (Tone::Good, "yes") } else { (Tone::Bad, "no") };
        writeln!(out, "{}: {}", out.paint(tone, word), answer.why)?;
        list(&answer.against, out)?;
    }
    Ok(if answer.yes { Verdict::Good } else { Verdict::Bad })
}

impl Run for OkToStop {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let osds: Vec<OsdId> = self.osds.iter().map(|osd| OsdId(*osd)).collect();
        let (seen, answer) = self.asking.judge(|seen| ok_to_stop(&seen.placement, &seen.reports, &osds))?;
        known(&seen, &self.osds)?;
        tell(&answer, &self.osds, self.asking.json.json, out)
    }
}

/// The first of the answers for each OSD that is no, or the last.
pub(super) fn all_safe(seen: &Seen, osds: &[OsdId]) -> Answer {
    let mut last = None;
    for osd in osds {
        let answer = safe_to_destroy(&seen.placement, &seen.reports, *osd);
        if !answer.yes {
            return answer;
        }
        last = Some(answer);
    }
    last.unwrap_or_else(|| Answer { yes: true, why: String::new(), against: Vec::new(), soon: false })
}

impl Run for SafeToDestroy {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let osds: Vec<OsdId> = self.osds.iter().map(|osd| OsdId(*osd)).collect();
        let (seen, answer) = self.asking.judge(|seen| all_safe(seen, &osds))?;
        known(&seen, &self.osds)?;
        tell(&answer, &self.osds, self.asking.json.json, out)
    }
}
