//! `nacre cluster check`: every problem of a file at once.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::file::{Problems, Severity};
use super::load::LoadError;
use super::{FileArg, load};
use crate::output::{JsonFlag, Out, Tone, count, tame};
use crate::run::{Run, Verdict};

/// Check a cluster.toml: every problem at once, each with its line and what to do.
///
/// Exit code 1 if there is an error; warnings alone leave it at 0.
#[derive(Args)]
#[command(after_long_help = "\
--json: {file, ok, problems: [{severity: error|warning, line, column, text, hint}]}; line, column and hint may be null.")]
pub(super) struct Check {
    #[command(flatten)]
    file: FileArg,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Serialize)]
struct Report<'a> {
    file: &'a str,
    ok: bool,
    problems: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    severity: Severity,
    line: Option<usize>,
    column: Option<usize>,
    text: &'a str,
    hint: Option<&'a str>,
}

impl Run for Check {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let (problems, cluster) = match load(&self.file.file) {
            Ok(loaded) => (loaded.warnings, Some(loaded.cluster)),
            Err(LoadError::Wrong(problems)) => (problems, None),
            Err(error) => return Err(error.into()),
        };
        if self.json.json {
            out.json(&report(&problems, cluster.is_some()))?;
        } else {
            for problem in problems.iter() {
                writeln!(out, "{}\n", tame(&problems.show(problem)))?;
            }
            let (errors, warnings) = (problems.count(Severity::Error), problems.count(Severity::Warning));
            match &cluster {
                Some(cluster) => {
                    let good = out.paint(Tone::Good, "ok");
                    let [mon, osd] = [cluster.monitors.len(), cluster.osds.len()];
                    let what = [count(mon, "monitor"), count(osd, "OSD"), count(cluster.pools.len(), "pool")];
                    let warned = if warnings == 0 {
                        String::new()
                    } else {
                        format!("; {}", out.paint(Tone::Warn, &count(warnings, "warning")))
                    };
                    writeln!(
                        out,
                        "{}: {good}: cluster {}, {}{warned}",
                        problems.file,
                        cluster.name.value,
                        what.join(", ")
                    )?;
                }
                None => {
                    let bad = out.paint(Tone::Bad, &count(errors, "error"));
                    writeln!(out, "{}: {bad}, {}", problems.file, count(warnings, "warning"))?;
                }
            }
        }
        Ok(if cluster.is_some() { Verdict::Good } else { Verdict::Bad })
    }
}

fn report(problems: &Problems, ok: bool) -> Report<'_> {
    let entry = |problem| {
        let place = problems.place(problem);
        Entry {
            severity: problem.severity,
            line: place.map(|place| place.line),
            column: place.map(|place| place.column),
            text: &problem.text,
            hint: problem.hint.as_deref(),
        }
    };
    Report { file: &problems.file, ok, problems: problems.iter().map(entry).collect() }
}
