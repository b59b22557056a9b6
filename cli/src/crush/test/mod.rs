//! `nacre crush test`: what a map does with inputs, in the lines of `crushtool --test` so that the two can be diffed.
//!
//! - [`tally`]: counts of one rule and number of replicas. [`expect`]: what each device should hold.
//! - [`number`]: numbers as C++ streams print them.

mod expect;
mod number;
mod tally;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use clap::Args;
use nacre_crush::hash::hash2;
use nacre_crush::map::{Mapper, Mappings, Workspace};
use nacre_crush::model::{CrushMap, ITEM_NONE, ItemId, RuleId, Weight};
use serde::Serialize;

use super::source::{self, MapArg};
use crate::output::{JsonFlag, Out, aside};
use crate::run::{Run, Verdict};
use tally::Tally;

/// Map inputs through a map and show what comes out, as `crushtool --test` does.
///
/// Options and lines are those of crushtool, so that `crushtool -i MAP --test ...` and `nacre crush test MAP ...` can be
/// diffed. Without --rule every rule is tested; without --num-rep every size from the rule's min_size to its max_size.
#[derive(Args)]
#[command(after_long_help = "\
--json: [{rule, name, num_rep, min_x, max_x, inputs, bad, sizes: {SIZE: COUNT}, mappings, bad_mappings, devices}], one
for each rule and num_rep; mappings and bad_mappings are [{x, osds}] and devices [{id, stored, expected}], each null
unless its --show option is given; a hole in osds is null.")]
pub(super) struct Test {
    #[command(flatten)]
    map: MapArg,
    /// Taken and ignored, so that a line of crushtool can be pasted.
    #[arg(long, hide = true)]
    test: bool,
    /// The rule, by number or name.
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// How many devices to ask for.
    #[arg(long, value_name = "N")]
    num_rep: Option<u32>,
    /// The first input; needs --max-x. Without both: 0 to 1023.
    #[arg(long, value_name = "X", requires = "max_x")]
    min_x: Option<u32>,
    /// The last input; needs --min-x.
    #[arg(long, value_name = "X", requires = "min_x")]
    max_x: Option<u32>,
    /// This input alone.
    #[arg(long, value_name = "X", conflicts_with_all = ["min_x", "max_x"])]
    x: Option<u32>,
    /// Hash this pool's id into each input, as a cluster does.
    #[arg(long, value_name = "ID")]
    pool_id: Option<u32>,
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
    /// One line for each input with its devices.
    #[arg(long)]
    show_mappings: bool,
    /// One line for each input that got too few devices.
    #[arg(long)]
    show_bad_mappings: bool,
    /// How many inputs got how many devices.
    #[arg(long)]
    show_statistics: bool,
    /// How many inputs each device got, and how many it should have; devices that got none are left out.
    #[arg(long)]
    show_utilization: bool,
    /// The same, for every device.
    #[arg(long)]
    show_utilization_all: bool,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Serialize)]
struct Report {
    rule: RuleId,
    name: String,
    num_rep: u32,
    min_x: u32,
    max_x: u32,
    inputs: u64,
    bad: u64,
    sizes: BTreeMap<usize, u64>,
    mappings: Option<Vec<Mapping>>,
    bad_mappings: Option<Vec<Mapping>>,
    devices: Option<Vec<Use>>,
}

#[derive(Clone, Serialize)]
struct Mapping {
    x: u32,
    osds: Vec<Option<ItemId>>,
}

#[derive(Serialize)]
struct Use {
    id: usize,
    stored: u64,
    expected: f32,
}

impl Run for Test {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let map = self.map.read()?;
        let mapper = Mapper::new(&map).map_err(|error| anyhow::anyhow!("{}: {error}", self.map.path().display()))?;
        let reweights = reweights(&map, self.map.path(), &self.weight)?;
        let (first, last) = match (self.x, self.min_x, self.max_x) {
            (Some(x), _, _) => (x, x),
            (None, Some(min), Some(max)) => (min, max),
            _ => (0, 1023),
        };
        let rules: Vec<RuleId> = match &self.rule {
            Some(word) => vec![source::rule(&map, self.map.path(), word)?],
            None => map.rules.keys().copied().collect(),
        };
        if !self.json.json {
            self.warn_like_crushtool(&reweights);
        }
        let mut reports = Vec::new();
        for id in rules {
            let Some(rule) = map.rules.get(&id) else { continue };
            let (low, high) = match self.num_rep {
                Some(number) => (number, number),
                None => (u32::from(rule.min_size), u32::from(rule.max_size)),
            };
            if self.counts() && !self.json.json {
                writeln!(out, "rule {id} ({}), x = {first}..{last}, numrep = {low}..{high}", rule.name)?;
            }
            for num_rep in low..=high {
                let case = Case { test: &self, map: &map, rule: id, num_rep, first, last, reweights: &reweights };
                reports.extend(case.run(&mapper, out)?);
            }
        }
        if self.json.json {
            out.json(&reports)?;
        }
        Ok(Verdict::Good)
    }
}

impl Test {
    /// Whether counts are printed behind the mappings.
    fn counts(&self) -> bool {
        self.show_statistics || self.show_utilization || self.show_utilization_all
    }

    /// What crushtool says on stderr.
    fn warn_like_crushtool(&self, reweights: &[Weight]) {
        if !self.counts() && !self.show_mappings && !self.show_bad_mappings {
            aside("WARNING: no output selected; use --show-mappings, --show-statistics or --show-utilization");
        }
        if self.show_utilization_all {
            let list: Vec<String> = reweights.iter().map(|weight| format!("{:x}", weight.0)).collect();
            aside(&format!("devices weights (hex): [{}]", list.join(",")));
        }
    }
}

/// One rule with one number of replicas.
struct Case<'a> {
    test: &'a Test,
    map: &'a CrushMap,
    rule: RuleId,
    num_rep: u32,
    first: u32,
    last: u32,
    reweights: &'a [Weight],
}

impl Case<'_> {
    /// Prints its lines, or gives its report.
    fn run(&self, mapper: &Mapper, out: &mut Out) -> anyhow::Result<Option<Report>> {
        let Case { test, rule, num_rep, .. } = *self;
        // crushtool asks for weight set 0, which is the default set where there is no set of that pool.
        let plan = mapper.plan(rule, num_rep, Some(0))?;
        let mut workspace = Workspace::default();
        let mut tally = Tally::new(self.reweights.len());
        let json = test.json.json;
        let (mut mappings, mut bad_mappings) = (Vec::new(), Vec::new());
        let mut line = Vec::new();
        let mut results = Mappings::default();
        let stride = stride(num_rep);
        for x in self.first..=self.last {
            let at = ((x - self.first) % stride) as usize;
            if at == 0 {
                let inputs = x..=self.last.min(x.saturating_add(stride - 1));
                let inputs = inputs.map(|x| test.pool_id.map_or(x, |pool| hash2(x, pool)));
                plan.map_all(inputs, self.reweights, &mut workspace, &mut results);
            }
            let osds = results.get(at);
            let bad = tally.count(osds, num_rep as usize);
            if json {
                let mapping = || {
                    let hole = |osd: &ItemId| Some(*osd).filter(|osd| *osd != ITEM_NONE);
                    Mapping { x, osds: osds.iter().map(hole).collect() }
                };
                mappings.extend(test.show_mappings.then(mapping));
                bad_mappings.extend((bad && test.show_bad_mappings).then(mapping));
                continue;
            }
            if test.show_mappings {
                write!(line, "CRUSH rule {rule} x {x} ")?;
                list(&mut line, osds)?;
            }
            if bad && test.show_bad_mappings {
                write!(line, "bad mapping rule {rule} x {x} num_rep {num_rep} result ")?;
                list(&mut line, osds)?;
            }
            out.write_all(&line)?;
            line.clear();
        }
        let inputs = tally.inputs();
        let expected = expect::expected(self.map, rule, num_rep, inputs, self.reweights);
        if json {
            let devices = tally.stored().iter().zip(expected).enumerate();
            let devices = devices.map(|(id, (stored, expected))| Use { id, stored: *stored, expected });
            let devices = devices.filter(|device| test.show_utilization_all || device.stored > 0);
            let wanted = test.show_utilization || test.show_utilization_all;
            return Ok(Some(Report {
                rule,
                name: self.map.rules.get(&rule).map(|rule| rule.name.clone()).unwrap_or_default(),
                num_rep,
                min_x: self.first,
                max_x: self.last,
                inputs,
                bad: tally.bad(),
                sizes: tally.sizes().clone(),
                mappings: test.show_mappings.then_some(mappings),
                bad_mappings: test.show_bad_mappings.then_some(bad_mappings),
                devices: wanted.then(|| devices.collect()),
            }));
        }
        if test.counts() {
            self.print_counts(&tally, &expected, out)?;
        }
        Ok(None)
    }

    fn print_counts(&self, tally: &Tally, expected: &[f32], out: &mut Out) -> anyhow::Result<()> {
        let name = self.map.rules.get(&self.rule).map(|rule| rule.name.as_str()).unwrap_or_default();
        for (size, count) in tally.sizes() {
            writeln!(
                out,
                "rule {} ({name}) num_rep {} result size == {size}:\t{count}/{}",
                self.rule,
                self.num_rep,
                tally.inputs()
            )?;
        }
        if !self.test.show_utilization && !self.test.show_utilization_all {
            return Ok(());
        }
        for (id, (stored, expected)) in tally.stored().iter().zip(expected).enumerate() {
            if *stored > 0 || self.test.show_utilization_all {
                let expected = number::six_digits(f64::from(*expected));
                writeln!(out, "  device {id}:\t\t stored : {stored}\t expected : {expected}")?;
            }
        }
        Ok(())
    }
}

/// How many inputs to map at once: enough to be fast, few enough to fit in memory.
pub(super) fn stride(num_rep: u32) -> u32 {
    (65536 / num_rep.max(1)).clamp(1, 4096)
}

/// `[1,2,3]` and a newline.
fn list(line: &mut Vec<u8>, osds: &[ItemId]) -> std::io::Result<()> {
    line.push(b'[');
    for (n, osd) in osds.iter().enumerate() {
        write!(line, "{}{osd}", if n == 0 { "" } else { "," })?;
    }
    line.extend_from_slice(b"]\n");
    Ok(())
}

/// The reweight of each device by its id: 1 for those in the map, 0 for gaps, and what `--weight` says.
pub(super) fn reweights(map: &CrushMap, path: &Path, words: &[String]) -> anyhow::Result<Vec<Weight>> {
    let mut weights = vec![Weight::ZERO; map.max_devices as usize];
    let held = map.buckets.values().flat_map(|bucket| &bucket.items);
    for device in held.filter_map(|item| usize::try_from(*item).ok()) {
        if let Some(weight) = weights.get_mut(device) {
            *weight = Weight::ONE;
        }
    }
    for pair in words.chunks(2) {
        let [osd, weight] = pair else { continue };
        let id = osd.strip_prefix("osd.").unwrap_or(osd);
        let slot = id.parse::<usize>().ok().and_then(|id| weights.get_mut(id));
        let slot = slot.ok_or_else(|| {
            anyhow::anyhow!(
                "--weight {osd}: {} has no such device; its ids go up to {}",
                path.display(),
                i64::from(map.max_devices) - 1
            )
        })?;
        // As crushtool reads it: a C float, cut off.
        let value = weight.parse::<f32>().ok().filter(|value| (0.0..=1.0).contains(value));
        let value =
            value.ok_or_else(|| anyhow::anyhow!("--weight {osd} {weight}: a reweight goes from 0 (out) to 1"))?;
        *slot = Weight((value * 65536.0) as u32);
    }
    Ok(weights)
}
