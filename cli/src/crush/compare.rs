//! `nacre crush compare`: how much data moves when one map takes the place of another, by rule and by device.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use nacre_crush::map::{Mapper, Mappings, Workspace};
use nacre_crush::model::{CrushMap, ITEM_NONE, ItemId, Mode, RuleId, Step};
use serde::Serialize;

use super::source;
use super::test::{reweights, stride};
use crate::output::{Align, JsonFlag, Out, Progress, Table, Tone, tame};
use crate::run::{Run, Verdict};

/// Say how much data moves when map B takes the place of map A, by rule and by device.
///
/// Maps the same inputs through both, by each rule that both have under one name. Of a replicated rule a copy moves when
/// its device is not among the old ones; of an erasure-coded rule a shard moves when its place has another device.
#[derive(Args)]
#[command(after_long_help = "\
IN and OUT count what a device gets and gives, BEFORE and AFTER its share of all data, BY WEIGHT the share its weight in
map B asks for. What the change of weights asks to move may be more than moves: few failure domains tie it down.

--json: {a, b, rules: [{name, positions, inputs, places, moved, moved_share, asked_share, lost, devices: [{id, name, in,
out, before, after, share_before, share_after, share_by_weight}]}], only_a, only_b}; lost counts places that had a device
and have none; only_a and only_b name rules of one map alone.")]
pub(super) struct Compare {
    /// The map as it is.
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The map as it would be.
    #[arg(value_name = "B")]
    b: PathBuf,
    /// This rule alone, by name or number in A.
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// How many devices to ask for.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    num_rep: u32,
    /// How many inputs to map: 0 to N - 1.
    #[arg(long, value_name = "N", default_value_t = 65536, value_parser = clap::value_parser!(u32).range(1..))]
    inputs: u32,
    /// An OSD's reweight in both maps, 0 (out) to 1; may be given for several.
    #[arg(
        short,
        long,
        num_args = 2,
        value_names = ["OSD", "W"],
        action = clap::ArgAction::Append,
        allow_negative_numbers = true
    )]
    weight: Vec<String>,
    /// List devices too that neither get nor give.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Debug, Serialize)]
struct Report {
    a: PathBuf,
    b: PathBuf,
    rules: Vec<Moves>,
    only_a: Vec<String>,
    only_b: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Moves {
    name: String,
    positions: u32,
    inputs: u32,
    places: u64,
    moved: u64,
    moved_share: f64,
    asked_share: f64,
    lost: u64,
    devices: Vec<Device>,
}

#[derive(Debug, Default, Serialize)]
struct Device {
    id: ItemId,
    name: String,
    #[serde(rename = "in")]
    gets: u64,
    #[serde(rename = "out")]
    gives: u64,
    before: u64,
    after: u64,
    share_before: f64,
    share_after: f64,
    share_by_weight: f64,
}

/// One of the two maps, ready to map with.
struct Side<'a> {
    map: &'a CrushMap,
    mapper: Mapper,
    reweights: Vec<nacre_crush::model::Weight>,
}

impl<'a> Side<'a> {
    fn new(map: &'a CrushMap, path: &Path, weight: &[String]) -> anyhow::Result<Side<'a>> {
        let mapper = Mapper::new(map).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        Ok(Side { map, mapper, reweights: reweights(map, path, weight)? })
    }

    /// The share of all data each device's weight asks for, among those the rule takes from.
    fn shares(&self, rule: RuleId) -> BTreeMap<ItemId, f64> {
        let steps = self.map.rules.get(&rule).map(|rule| rule.steps.as_slice()).unwrap_or_default();
        let taken = steps.iter().filter_map(|step| if let Step::Take(item) = step { Some(*item) } else { None });
        let mut weights: BTreeMap<ItemId, f64> = BTreeMap::new();
        for id in self.map.post_order(taken).buckets {
            let Some(bucket) = self.map.buckets.get(&id) else { continue };
            for (item, weight) in bucket.items.iter().zip(&bucket.weights).filter(|(item, _)| **item >= 0) {
                let reweight = usize::try_from(*item).ok().and_then(|at| self.reweights.get(at));
                let kept = reweight.map_or(1.0, |reweight| reweight.as_f64());
                *weights.entry(*item).or_default() += weight.as_f64() * kept;
            }
        }
        let total: f64 = weights.values().sum();
        if total > 0.0 {
            weights.values_mut().for_each(|weight| *weight /= total);
        }
        weights
    }
}

impl Run for Compare {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let (map_a, map_b) = (source::read(&self.a)?, source::read(&self.b)?);
        // An OSD that is in one map alone may be reweighted all the same.
        let fits = |osd: &str, map: &CrushMap| {
            let id = osd.strip_prefix("osd.").unwrap_or(osd);
            id.parse::<u32>().is_ok_and(|id| id < map.max_devices)
        };
        let pairs = || self.weight.chunks(2);
        if let Some(pair) = pairs().find(|pair| !fits(&pair[0], &map_a) && !fits(&pair[0], &map_b)) {
            anyhow::bail!("--weight {}: neither map has such a device", pair[0]);
        }
        let known =
            |map: &CrushMap| -> Vec<String> { pairs().filter(|pair| fits(&pair[0], map)).flatten().cloned().collect() };
        let (weight_a, weight_b) = (known(&map_a), known(&map_b));
        let a = Side::new(&map_a, &self.a, &weight_a)?;
        let b = Side::new(&map_b, &self.b, &weight_b)?;

        let chosen = self.rule.as_ref().map(|word| source::rule(&map_a, &self.a, word)).transpose()?;
        let mut pairs = Vec::new();
        let mut only_a = Vec::new();
        for (id, rule) in map_a.rules.iter().filter(|(id, _)| chosen.is_none_or(|chosen| chosen == **id)) {
            match map_b.rule_id(&rule.name) {
                Some(other) => pairs.push((*id, other)),
                None => only_a.push(rule.name.clone()),
            }
        }
        let names: BTreeSet<&str> = map_a.rules.values().map(|rule| rule.name.as_str()).collect();
        let new = map_b.rules.values().filter(|rule| chosen.is_none() && !names.contains(rule.name.as_str()));
        let only_b = new.map(|rule| rule.name.clone()).collect();

        let mut progress = Progress::new("mapping", u64::from(self.inputs) * pairs.len() as u64);
        let mut rules = Vec::new();
        for (in_a, in_b) in pairs {
            rules.push(self.moves(&a, in_a, &b, in_b, &mut progress)?);
        }
        drop(progress);
        let report = Report { a: self.a.clone(), b: self.b.clone(), rules, only_a, only_b };
        if self.json.json {
            out.json(&report)?;
        } else {
            self.print(&report, out)?;
        }
        if report.rules.is_empty() {
            anyhow::bail!("{} and {} have no rule in common to compare by", self.a.display(), self.b.display());
        }
        Ok(Verdict::Good)
    }
}

impl Compare {
    fn moves(
        &self,
        a: &Side<'_>,
        in_a: RuleId,
        b: &Side<'_>,
        in_b: RuleId,
        progress: &mut Progress,
    ) -> anyhow::Result<Moves> {
        let stride = stride(self.num_rep);
        let (plan_a, plan_b) =
            (a.mapper.plan(in_a, self.num_rep, Some(0))?, b.mapper.plan(in_b, self.num_rep, Some(0))?);
        let (mut space_a, mut space_b) = (Workspace::default(), Workspace::default());
        let in_place = b.map.rules.get(&in_b).is_some_and(|rule| rule.steps.iter().any(is_indep));
        let mut devices: BTreeMap<ItemId, Device> = BTreeMap::new();
        let (mut places, mut moved, mut lost) = (0, 0, 0);
        let (mut results_a, mut results_b) = (Mappings::default(), Mappings::default());
        for x in 0..self.inputs {
            let at = (x % stride) as usize;
            if at == 0 {
                let end = self.inputs.min(x.saturating_add(stride));
                plan_a.map_all(x..end, &a.reweights, &mut space_a, &mut results_a);
                plan_b.map_all(x..end, &b.reweights, &mut space_b, &mut results_b);
                progress.advance(u64::from(end - x));
            }
            let (old, new) = (results_a.get(at), results_b.get(at));
            let there = |list: &[ItemId]| list.iter().filter(|osd| **osd != ITEM_NONE).count() as u64;
            places += there(new);
            lost += there(old).saturating_sub(there(new));
            for (at, osd) in old.iter().enumerate().filter(|(_, osd)| **osd != ITEM_NONE) {
                let stays = if in_place { new.get(at) == Some(osd) } else { new.contains(osd) };
                let device = devices.entry(*osd).or_default();
                device.before += 1;
                device.gives += u64::from(!stays);
            }
            for (at, osd) in new.iter().enumerate().filter(|(_, osd)| **osd != ITEM_NONE) {
                let stays = if in_place { old.get(at) == Some(osd) } else { old.contains(osd) };
                let device = devices.entry(*osd).or_default();
                device.after += 1;
                device.gets += u64::from(!stays);
                moved += u64::from(!stays);
            }
        }

        let (share_a, share_b) = (a.shares(in_a), b.shares(in_b));
        for id in share_a.keys().chain(share_b.keys()) {
            devices.entry(*id).or_default();
        }
        let held: u64 = devices.values().map(|device| device.before).sum();
        for (id, device) in &mut devices {
            device.id = *id;
            let in_b = b.map.devices.contains_key(id);
            device.name = if in_b { b.map.item_name(*id) } else { a.map.item_name(*id) }.into_owned();
            device.share_before = share(device.before, held);
            device.share_after = share(device.after, places);
            device.share_by_weight = share_b.get(id).copied().unwrap_or_default();
        }
        let asked = share_b.iter().map(|(id, new)| (new - share_a.get(id).copied().unwrap_or_default()).max(0.0)).sum();
        Ok(Moves {
            name: b.map.rules.get(&in_b).map(|rule| rule.name.clone()).unwrap_or_default(),
            positions: self.num_rep,
            inputs: self.inputs,
            places,
            moved,
            moved_share: share(moved, places),
            asked_share: asked,
            lost,
            devices: devices.into_values().collect(),
        })
    }

    fn print(&self, report: &Report, out: &mut Out) -> anyhow::Result<()> {
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        for (n, rule) in report.rules.iter().enumerate() {
            if n > 0 {
                writeln!(out)?;
            }
            let heading = out.paint(Tone::Strong, &format!("rule {}", rule.name));
            writeln!(out, "{heading}: {} inputs, {} devices each", rule.inputs, rule.positions)?;
            let tone = if rule.moved == 0 { Tone::Good } else { Tone::Warn };
            let moved = out.paint(tone, &format!("{} of the data moves", percent(rule.moved_share)));
            writeln!(
                out,
                "  {moved} ({} of {} places); the weights ask for {}",
                rule.moved,
                rule.places,
                percent(rule.asked_share)
            )?;
            if rule.lost > 0 {
                let text = format!("{} places had a device and would have none", rule.lost);
                writeln!(out, "  {}", out.paint(Tone::Bad, &text))?;
            }
            let shown: Vec<&Device> =
                rule.devices.iter().filter(|device| self.all || device.gets + device.gives > 0).collect();
            if shown.is_empty() {
                continue;
            }
            let heads = ["DEVICE", "IN", "OUT", "BEFORE", "AFTER", "BY WEIGHT"];
            let columns: Vec<(&'static str, Align)> =
                heads.iter().map(|head| (*head, if *head == "DEVICE" { Align::Left } else { Align::Right })).collect();
            let mut table = Table::new(&columns);
            for device in shown {
                table.row([
                    device.name.clone(),
                    device.gets.to_string(),
                    device.gives.to_string(),
                    percent(device.share_before),
                    percent(device.share_after),
                    percent(device.share_by_weight),
                ]);
            }
            table.print(out)?;
        }
        for (path, names) in [(&report.a, &report.only_a), (&report.b, &report.only_b)] {
            if !names.is_empty() {
                writeln!(out, "only in {}: {}", path.display(), tame(&names.join(", ")))?;
            }
        }
        Ok(())
    }
}

fn is_indep(step: &Step) -> bool {
    matches!(step, Step::Choose { mode: Mode::Indep, .. } | Step::ChooseLeaf { mode: Mode::Indep, .. })
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
