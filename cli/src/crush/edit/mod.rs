//! Verbs that change a map: each reads one, makes a change whole or not at all, and writes the result elsewhere.
//!
//! A change that leaves the map with a new flaw says so beside its output; it is written all the same, since several
//! changes may lead through a flaw to something good.

mod add_bucket;
mod add_device;
mod class;
mod move_item;
mod remove;
mod rename;
mod reweight;
mod rule;
mod tunables;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use nacre_crush::check::{Flaw, check};
use nacre_crush::model::{CrushMap, Weight};
use nacre_crush::{binary, text};

use super::source::{self, Form};
use crate::output::{JsonFlag, Out, Tone, aside};
use crate::run::Verdict;

pub(super) use add_bucket::AddBucket;
pub(super) use add_device::AddDevice;
pub(super) use class::SetClass;
pub(super) use move_item::Move;
pub(super) use remove::Remove;
pub(super) use rename::Rename;
pub(super) use reweight::Reweight;
pub(super) use rule::RuleNoun;
pub(super) use tunables::Tunables;

/// What the JSON of a change holds, for its help.
const JSON_HELP: &str = "\
--json: {output, done, flaws}; done says what was changed, flaws what is wrong with the map now and was not before.";

/// Where the changed map goes.
#[derive(Args)]
struct Target {
    /// Where the changed map goes; may be MAP itself, - writes standard output.
    #[arg(short, long = "output", visible_alias = "outfn", value_name = "FILE")]
    output: PathBuf,
    /// The form to write; as MAP is, if left out.
    #[arg(long, value_enum)]
    form: Option<FormName>,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormName {
    Text,
    Binary,
}

/// Reads the map, changes it, writes it. The change gives the words for what it did.
fn change<E>(
    path: &Path,
    target: &Target,
    out: &mut Out,
    change: impl FnOnce(&mut CrushMap) -> Result<String, E>,
) -> anyhow::Result<Verdict>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let (mut map, form) = source::read_form(path)?;
    let before = check(&map);
    let done = change(&mut map)?;
    let flaws: Vec<Flaw> = check(&map).into_iter().filter(|flaw| !before.contains(flaw)).collect();
    let form = match target.form {
        Some(FormName::Text) => Form::Text,
        Some(FormName::Binary) => Form::Binary,
        None => form,
    };
    let bytes = match form {
        Form::Text => text::print(&map).into_bytes(),
        Form::Binary => binary::encode(&map),
    };
    source::write(&target.output, &bytes, out)?;
    tell(path, target, &done, &flaws, out)
}

/// Standard output may hold the map, so what is wrong with it goes to stderr.
fn tell(path: &Path, target: &Target, done: &str, flaws: &[Flaw], out: &mut Out) -> anyhow::Result<Verdict> {
    let flaws: Vec<String> = flaws.iter().map(ToString::to_string).collect();
    let to_stdout = target.output == Path::new("-");
    if target.json.json && !to_stdout {
        out.json(&serde_json::json!({ "output": target.output, "done": done, "flaws": flaws }))?;
        return Ok(Verdict::Good);
    }
    for flaw in &flaws {
        aside(&format!("warning: {flaw}"));
    }
    if !to_stdout {
        writeln!(out, "{}: {done}", target.output.display())?;
        if path != target.output && path != Path::new("-") {
            let hint = format!("what would move: nacre crush compare {} {}", path.display(), target.output.display());
            writeln!(out, "{}", out.paint(Tone::Faint, &hint))?;
        }
    }
    Ok(Verdict::Good)
}

/// A weight as crush text has it: read as a C float, cut off to 1/65536.
fn weight(text: &str) -> Result<Weight, String> {
    let value = text.parse::<f32>().ok().filter(|value| (0.0..65536.0).contains(value));
    let value = value.ok_or_else(|| "a weight goes from 0 to 65535; 1.0 stands for a TiB by custom".to_owned())?;
    Ok(Weight((f64::from(value) * 65536.0) as u32))
}

fn shown(weight: Weight) -> String {
    format!("{:.5}", weight.as_f64())
}
