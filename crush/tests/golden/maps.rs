//! `crushtool --test --show-mappings` of all maps and rules in INDEX.tsv.

use crate::{fixture, list, text_of, unzipped};
use nacre_crush::map::{Kernel, Mapper, Mappings, Workspace};
use nacre_crush::model::{CrushMap, Weight};
use nacre_crush::{binary, text};
use std::collections::BTreeMap;

/// One line of INDEX.tsv.
struct Test {
    file: String,
    map: String,
    rule: u32,
    positions: u32,
    reweights: Vec<(usize, Weight)>,
    lines: usize,
}

fn index() -> Vec<Test> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let reweight = |pair: &str| {
            let (device, weight) = pair.split_once('=').unwrap();
            (device.parse().unwrap(), Weight((weight.parse::<f64>().unwrap() * 65536.0) as u32))
        };
        Test {
            file: fields[0].into(),
            map: fields[1].trim_end_matches(".crush.txt").into(),
            rule: fields[2].parse().unwrap(),
            positions: fields[4].parse().unwrap(),
            reweights: fields[5].split(' ').filter(|pair| *pair != "-").map(reweight).collect(),
            lines: fields[6].parse().unwrap(),
        }
    };
    text_of("INDEX.tsv").lines().skip(1).map(parse).collect()
}

/// As crushtool: devices that some bucket holds are in, and what is said on the command line.
fn reweights(map: &CrushMap, test: &Test) -> Vec<Weight> {
    let mut weights = vec![Weight::ZERO; map.max_devices as usize];
    for item in map.buckets.values().flat_map(|bucket| &bucket.items).filter(|item| **item >= 0) {
        weights[*item as usize] = Weight::ONE;
    }
    for &(device, weight) in &test.reweights {
        weights[device] = weight;
    }
    weights
}

/// `CRUSH rule 0 x 17 [3,1,2]`
fn mapping(line: &str, rule: u32) -> (u32, Vec<i32>) {
    let fields: Vec<&str> = line.split(' ').collect();
    assert_eq!(fields[..4], ["CRUSH", "rule", &rule.to_string(), "x"], "{line}");
    (fields[4].parse().unwrap(), list(fields[5]))
}

fn check_all(form: &str, kernels: &[Kernel], load: impl Fn(&str) -> CrushMap) {
    let mut maps = BTreeMap::new();
    let (mut tests, mut equal) = (0, 0);
    let mut workspace = Workspace::default();
    for test in index() {
        let map = maps.entry(test.map.clone()).or_insert_with(|| load(&test.map));
        let mapper = Mapper::new(map).unwrap();
        let reweights = reweights(map, &test);
        let wanted = unzipped(&test.file);
        assert_eq!(wanted.lines().count(), test.lines, "{}", test.file);
        let wanted: Vec<(u32, Vec<i32>)> = wanted.lines().map(|line| mapping(line, test.rule)).collect();
        let plan = mapper.plan(test.rule, test.positions, Some(0)).unwrap();
        for (x, wanted) in &wanted {
            assert_eq!(plan.map(*x, &reweights, &mut workspace), wanted, "{} x {x} ({form})", test.file);
            equal += 1;
        }
        for &kernel in kernels {
            let mapper = Mapper::new(map).unwrap().with_kernel(kernel);
            let plan = mapper.plan(test.rule, test.positions, Some(0)).unwrap();
            let mut mappings = Mappings::default();
            plan.map_all(wanted.iter().map(|(x, _)| *x), &reweights, &mut workspace, &mut mappings);
            let wanted = wanted.iter().map(|(_, wanted)| wanted.as_slice());
            assert!(mappings.iter().eq(wanted), "{} abreast by {} ({form})", test.file, kernel.name());
        }
        tests += 1;
    }
    assert!(tests > 100 && maps.len() > 20, "the index is shorter than it was");
    println!("{form}: {} maps, {tests} tests, {equal} mappings equal", maps.len());
}

#[test]
fn mappings_equal_ceph_s_through_the_binary_form() {
    check_all("binary", &Kernel::all(), |name| {
        binary::decode(&std::fs::read(fixture(&format!("{name}.crush.bin"))).unwrap()).unwrap()
    });
}

#[test]
fn mappings_equal_ceph_s_through_the_text_form() {
    check_all("text", &[], |name| text::parse(&text_of(&format!("{name}.crush.txt"))).unwrap());
}
