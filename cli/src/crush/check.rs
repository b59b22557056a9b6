//! `nacre crush check`: what is wrong with a map, and whether its rules find what they are asked for.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use nacre_crush::check::{Flaw, Severity, Shortfall, check, satisfy};
use nacre_crush::model::{ITEM_NONE, ItemId, RuleId};
use serde_json::{Value, json};

use super::source::{self, MapArg};
use super::test::reweights;
use crate::output::{JsonFlag, Out, Progress, Tone, count, tame};
use crate::run::{Run, Verdict};

/// Find what is wrong with a map, and whether its rules find enough devices.
///
/// Exit code 1 if the map has an error or a rule falls short; warnings alone leave it at 0.
#[derive(Args)]
#[command(after_long_help = "\
--json: {ok, flaws: [{severity: error|warning, text}], rules: [{rule, name, num_rep, inputs, short, causes, examples:
[{x, osds}]}]}; a hole in osds is null.")]
pub(super) struct Check {
    #[command(flatten)]
    map: MapArg,
    /// This rule alone, by number or name.
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// How many devices each rule must find.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    num_rep: u32,
    /// How many inputs to try: 0 to N - 1.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    inputs: u32,
    /// An OSD's reweight, 0 (out) to 1; may be given for several.
    #[arg(
        short,
        long,
        num_args = 2,
        value_names = ["OSD", "W"],
        action = clap::ArgAction::Append,
        allow_negative_numbers = true
    )]
    weight: Vec<String>,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Check {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let map = self.map.read()?;
        let path = self.map.path();
        let weights = reweights(&map, path, &self.weight)?;
        let flaws = check(&map);
        let broken = flaws.iter().any(|flaw| flaw.severity() == Severity::Error);
        let rules: Vec<RuleId> = match &self.rule {
            Some(word) => vec![source::rule(&map, path, word)?],
            None => map.rules.keys().copied().collect(),
        };
        let mut shorts: BTreeMap<RuleId, Shortfall> = BTreeMap::new();
        // A map with errors need not map at all, and what it gave would say nothing.
        if !broken {
            let mut progress = Progress::new("mapping", rules.len() as u64);
            for rule in &rules {
                let found = satisfy(&map, *rule, self.num_rep, 0..self.inputs, Some(&weights))?;
                shorts.extend(found.map(|short| (*rule, short)));
                progress.advance(1);
            }
        }
        let name = |rule: RuleId| map.rules.get(&rule).map(|rule| rule.name.as_str()).unwrap_or_default();
        let ok = !broken && shorts.is_empty();
        if self.json.json {
            let rules: Vec<Value> = shorts.values().map(|short| short_json(short, name(short.rule))).collect();
            out.json(&json!({ "ok": ok, "flaws": flaws.iter().map(flaw_json).collect::<Vec<_>>(), "rules": rules }))?;
            return Ok(if ok { Verdict::Good } else { Verdict::Bad });
        }
        for flaw in &flaws {
            let word = match flaw.severity() {
                Severity::Error => out.paint(Tone::Bad, "error:"),
                Severity::Warning => out.paint(Tone::Warn, "warning:"),
            };
            writeln!(out, "{word} {}", tame(&flaw.to_string()))?;
        }
        for short in shorts.values() {
            let text = format!("{} of {} inputs come out short", short.short, short.inputs);
            let text = out.paint(Tone::Bad, &text);
            writeln!(out, "rule {}, {} devices each: {text}", tame(name(short.rule)), short.positions)?;
            for cause in &short.causes {
                writeln!(out, "  because {}", tame(&cause.to_string()))?;
            }
            for (x, osds) in short.examples.iter().take(3) {
                let osds: Vec<String> =
                    holes(osds).iter().map(|osd| osd.map_or("-".to_owned(), |id| id.to_string())).collect();
                writeln!(out, "  input {x} gives [{}]", osds.join(","))?;
            }
        }
        let file = path.display();
        if ok {
            let good = out.paint(Tone::Good, "ok");
            let rules = match rules.len() {
                1 => "1 rule finds".to_owned(),
                number => format!("{number} rules find"),
            };
            let devices = count(self.num_rep as usize, "device");
            writeln!(out, "{file}: {good}: {rules} {devices} for each of {} inputs", self.inputs)?;
        } else if broken {
            writeln!(out, "{file}: {}", out.paint(Tone::Bad, "broken; its rules were not tried"))?;
        } else {
            let text = format!("{} of {} short", shorts.len(), count(rules.len(), "rule"));
            writeln!(out, "{file}: {}", out.paint(Tone::Bad, &text))?;
        }
        Ok(if ok { Verdict::Good } else { Verdict::Bad })
    }
}

fn holes(osds: &[ItemId]) -> Vec<Option<ItemId>> {
    osds.iter().map(|osd| Some(*osd).filter(|osd| *osd != ITEM_NONE)).collect()
}

fn flaw_json(flaw: &Flaw) -> Value {
    let severity = match flaw.severity() {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    json!({ "severity": severity, "text": flaw.to_string() })
}

fn short_json(short: &Shortfall, name: &str) -> Value {
    let causes: Vec<String> = short.causes.iter().map(ToString::to_string).collect();
    let examples: Vec<Value> = short.examples.iter().map(|(x, osds)| json!({ "x": x, "osds": holes(osds) })).collect();
    json!({
        "rule": short.rule, "name": name, "num_rep": short.positions, "inputs": short.inputs, "short": short.short,
        "causes": causes, "examples": examples,
    })
}
