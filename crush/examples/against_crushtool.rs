//! Random maps and rules, mapped here and by Ceph's `crushtool` (package ceph-base): `cargo run -p nacre-crush --example
//! against_crushtool -- [ROUNDS] [SEED]`. Stops at the first difference, and leaves the map where it says.
//!
//! The vectors in `fixtures/crush` are what the tests go by; this looks for what they might not cover.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the report")]

use nacre_crush::binary;
use nacre_crush::map::{Mapper, Workspace};
use nacre_crush::model::{
    Bucket, BucketAlg, ChooseArg, CrushMap, Device, ItemId, Mode, Rule, RuleKind, Step, Tunables, TypeId, Weight,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, ExitCode};

const INPUTS: u32 = 300;

fn weight(rng: &mut StdRng) -> Weight {
    Weight(match rng.random_range(0..10) {
        0 => 0,
        1 => rng.random_range(1..100),
        2 => rng.random_range(0..0x400_0000),
        3..6 => rng.random_range(0x1000..0x80000),
        _ => 0x10000,
    })
}

fn tunables(rng: &mut StdRng) -> Tunables {
    match rng.random_range(0..4) {
        0 => Tunables::LEGACY,
        1 => Tunables {
            choose_local_tries: rng.random_range(0..4),
            choose_local_fallback_tries: rng.random_range(0..6),
            choose_total_tries: rng.random_range(0..60),
            chooseleaf_descend_once: rng.random_range(0..2),
            chooseleaf_vary_r: rng.random_range(0..6),
            chooseleaf_stable: rng.random_range(0..2),
            straw_calc_version: rng.random_range(0..2),
            ..Tunables::JEWEL
        },
        _ => Tunables::JEWEL,
    }
}

/// A tree of one to four levels above devices; type n is level n, the root is bucket -1.
fn map(rng: &mut StdRng) -> CrushMap {
    let mut map = CrushMap { tunables: tunables(rng), max_buckets: 1024, max_rules: 1, ..CrushMap::default() };
    let top: TypeId = rng.random_range(1..5);
    let one_alg = rng.random_bool(0.5);
    let algs = [BucketAlg::Straw2, BucketAlg::Straw, BucketAlg::List, BucketAlg::Tree, BucketAlg::Uniform];
    let all = algs[if rng.random_bool(0.5) { 0 } else { rng.random_range(0..5) }];
    for kind in 0..=top {
        map.types.insert(kind, format!("t{kind}"));
    }
    let mut next = -2;
    let mut open: Vec<(ItemId, TypeId)> = vec![(-1, top)];
    while let Some((id, kind)) = open.pop() {
        let alg = if one_alg { all } else { algs[rng.random_range(0..5)] };
        let widest = if kind == top { 8 } else { 5 };
        let count = match rng.random_range(0..20) {
            0 if id != -1 => 0,
            1 if kind == 1 => rng.random_range(0..40),
            _ => rng.random_range(1..=widest),
        };
        let mut items = Vec::new();
        for _ in 0..count {
            // Now and then a level is left out.
            let below = if rng.random_bool(0.05) { 0 } else { kind - 1 };
            if below == 0 {
                items.push(map.max_devices as ItemId);
                map.max_devices += 1;
            } else {
                items.push(next);
                open.push((next, below));
                next -= 1;
            }
        }
        let same = weight(rng);
        let uniform = alg == BucketAlg::Uniform;
        let weights: Vec<_> = items.iter().map(|_| if uniform { same } else { weight(rng) }).collect();
        let sum = Weight(weights.iter().map(|weight| weight.0).sum());
        let name = format!("b{}", -id);
        map.buckets.insert(id, Bucket { id, name, kind, alg, hash: 0, items, weights, weight: sum, straws: None });
    }
    for id in 0..map.max_devices as ItemId {
        map.devices.insert(id, Device { name: format!("osd.{id}"), class: None });
    }
    if rng.random_bool(0.3) {
        let positions = rng.random_range(1..4);
        let mut args = BTreeMap::new();
        for bucket in map.buckets.values().filter(|bucket| bucket.alg == BucketAlg::Straw2) {
            let set = |rng: &mut StdRng| bucket.items.iter().map(|_| weight(rng)).collect();
            let weight_set = (0..positions).map(|_| set(rng)).collect();
            let first = rng.random_range(-500..500);
            let ids = if rng.random_bool(0.3) { (first..).take(bucket.items.len()).collect() } else { Vec::new() };
            args.insert(bucket.id, ChooseArg { ids, weight_set });
        }
        map.choose_args.insert(0, args);
    }
    let steps = steps(rng, top);
    let rule = Rule { name: "r".into(), kind: RuleKind::Replicated, ruleset: 0, min_size: 1, max_size: 10, steps };
    map.rules.insert(0, rule);
    map
}

fn steps(rng: &mut StdRng, top: TypeId) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..rng.random_range(0..3) {
        let value = rng.random_range(0..8);
        steps.push(match rng.random_range(0..6) {
            0 => Step::SetChooseTries(value * 8),
            1 => Step::SetChooseLeafTries(value),
            2 => Step::SetChooseLocalTries(value),
            3 => Step::SetChooseLocalFallbackTries(value),
            4 => Step::SetChooseLeafVaryR(value),
            _ => Step::SetChooseLeafStable(value % 2),
        });
    }
    for _ in 0..rng.random_range(1..3) {
        steps.push(Step::Take(-1));
        let num = |rng: &mut StdRng| if rng.random_bool(0.6) { 0 } else { rng.random_range(-2..5) };
        let mode = |rng: &mut StdRng| if rng.random_bool(0.5) { Mode::Firstn } else { Mode::Indep };
        let mut kind = top;
        while kind > 1 && rng.random_bool(0.3) {
            kind = rng.random_range(1..kind);
            steps.push(Step::Choose { mode: mode(rng), num: num(rng), kind });
        }
        let (mode, num, kind) = (mode(rng), num(rng), rng.random_range(0..=kind.saturating_sub(1)));
        let leaf = rng.random_bool(0.7);
        steps.push(if leaf { Step::ChooseLeaf { mode, num, kind } } else { Step::Choose { mode, num, kind } });
        steps.push(Step::Emit);
    }
    steps
}

/// What `crushtool --test --show-mappings` prints.
fn lines(map: &CrushMap, positions: u32, reweights: &[Weight]) -> anyhow::Result<String> {
    let mapper = Mapper::new(map)?;
    let plan = mapper.plan(0, positions, Some(0))?;
    let (mut workspace, mut text) = (Workspace::default(), String::new());
    for x in 0..INPUTS {
        let found = plan.map(x, reweights, &mut workspace);
        let found: Vec<String> = found.iter().map(ItemId::to_string).collect();
        writeln!(text, "CRUSH rule 0 x {x} [{}]", found.join(","))?;
    }
    Ok(text)
}

fn main() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let rounds: u64 = args.next().map_or(Ok(500), |text| text.parse())?;
    let seed: u64 = args.next().map_or(Ok(1), |text| text.parse())?;
    let path = std::env::temp_dir().join(format!("against-crushtool-{}.crush", std::process::id()));
    let (mut equal, mut skipped) = (0, 0);
    for round in seed..seed + rounds {
        let mut rng = StdRng::seed_from_u64(round);
        let map = map(&mut rng);
        let positions = rng.random_range(1..9);
        std::fs::write(&path, binary::encode(&map))?;
        let mut command = Command::new("timeout");
        // Where it fails it can hang.
        command.args(["10", "crushtool", "-i"]).arg(&path).args([
            "--test",
            "--show-mappings",
            "--rule",
            "0",
            "--num-rep",
        ]);
        command.arg(positions.to_string()).args(["--min-x", "0", "--max-x", &(INPUTS - 1).to_string()]);
        let mut reweights = vec![Weight::ONE; map.max_devices as usize];
        for device in 0..map.max_devices {
            if rng.random_bool(0.1) {
                let quarters = rng.random_range(0..4);
                reweights[device as usize] = Weight(quarters * 0x4000);
                let weight = format!("{}", f64::from(quarters) / 4.0);
                command.args(["--weight", &device.to_string(), &weight]);
            }
        }
        let output = command.output()?;
        if !output.status.success() {
            // It runs past its arrays with some maps.
            skipped += 1;
            continue;
        }
        let theirs = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let theirs: Vec<&str> = theirs.lines().filter(|line| line.starts_with("CRUSH rule 0 x")).collect();
        if theirs.is_empty() {
            // It says nothing where no device has a weight.
            skipped += 1;
            continue;
        }
        let ours = lines(&map, positions, &reweights)?;
        for (ours, theirs) in ours.lines().zip(&theirs) {
            if ours != *theirs {
                eprintln!("seed {round}: here {ours}\n{theirs} there\n{command:?}\n{:#?}", map.rules);
                return Ok(ExitCode::FAILURE);
            }
        }
        if theirs.len() != INPUTS as usize {
            eprintln!("seed {round}: {} lines of {INPUTS}; map left in {}", theirs.len(), path.display());
            return Ok(ExitCode::FAILURE);
        }
        equal += 1;
    }
    std::fs::remove_file(&path)?;
    println!(
        "{equal} maps equal, {} mappings; {skipped} skipped, where crushtool failed or was silent",
        equal * INPUTS
    );
    Ok(ExitCode::SUCCESS)
}
