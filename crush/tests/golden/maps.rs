//! `crushtool --test --show-mappings` of all maps and rules in INDEX.tsv.

use crate::{fixture, list, text, unzipped};
use nacre_crush::map::{Mapper, Workspace};
use nacre_crush::model::{CrushMap, Weight};
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
    text("INDEX.tsv").lines().skip(1).map(parse).collect()
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

fn check_all(form: &str, load: impl Fn(&str) -> CrushMap) {
    let mut maps = BTreeMap::new();
    let (mut tests, mut equal) = (0, 0);
    let mut workspace = Workspace::default();
    for test in index() {
        let map = maps.entry(test.map.clone()).or_insert_with(|| load(&test.map));
        let mapper = Mapper::new(map).unwrap();
        let plan = mapper.plan(test.rule, test.positions, Some(0)).unwrap();
        let reweights = reweights(map, &test);
        let wanted = unzipped(&test.file);
        assert_eq!(wanted.lines().count(), test.lines, "{}", test.file);
        for line in wanted.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            assert_eq!(fields[..4], ["CRUSH", "rule", &test.rule.to_string(), "x"], "{}: {line}", test.file);
            let x = fields[4].parse().unwrap();
            let found = plan.map(x, &reweights, &mut workspace);
            assert_eq!(found, list(fields[5]), "{} x {x} ({form})", test.file);
            equal += 1;
        }
        tests += 1;
    }
    assert!(tests > 100 && maps.len() > 20, "the index is shorter than it was");
    println!("{form}: {} maps, {tests} tests, {equal} mappings equal", maps.len());
}

#[test]
fn mappings_equal_ceph_s_through_the_binary_form() {
    check_all("binary", |name| throwaway::decode(&std::fs::read(fixture(&format!("{name}.crush.bin"))).unwrap()));
}

pub(crate) fn throwaway_map(name: &str) -> CrushMap {
    throwaway::decode(&std::fs::read(fixture(&format!("{name}.crush.bin"))).unwrap())
}

mod throwaway {
    use nacre_crush::model::*;
    struct R<'a>(&'a [u8]);
    impl R<'_> {
        fn n<const N: usize>(&mut self) -> [u8; N] {
            let (a, b) = self.0.split_at(N);
            self.0 = b;
            a.try_into().unwrap()
        }
        fn u8(&mut self) -> u8 {
            self.n::<1>()[0]
        }
        fn u16(&mut self) -> u16 {
            u16::from_le_bytes(self.n())
        }
        fn u32(&mut self) -> u32 {
            u32::from_le_bytes(self.n())
        }
        fn i32(&mut self) -> i32 {
            i32::from_le_bytes(self.n())
        }
        fn i64(&mut self) -> i64 {
            i64::from_le_bytes(self.n())
        }
        fn s(&mut self) -> String {
            let n = self.u32() as usize;
            let (a, b) = self.0.split_at(n);
            self.0 = b;
            String::from_utf8(a.to_vec()).unwrap()
        }
    }
    pub(super) fn decode(b: &[u8]) -> CrushMap {
        let mut r = R(b);
        assert_eq!(r.u32(), 0x10000);
        let mut m = CrushMap { max_buckets: r.u32(), max_rules: r.u32(), max_devices: r.u32(), ..Default::default() };
        m.tunables = Tunables::LEGACY;
        for _ in 0..m.max_buckets {
            if r.u32() == 0 {
                continue;
            }
            let (id, kind, alg, hash, weight, size) = (r.i32(), r.u16(), r.u8(), r.u8(), Weight(r.u32()), r.u32());
            let items: Vec<i32> = (0..size).map(|_| r.i32()).collect();
            let mut weights = vec![];
            let mut straws = None;
            let alg = match alg {
                1 => {
                    weights = vec![Weight(r.u32()); size as usize];
                    BucketAlg::Uniform
                }
                2 => {
                    for _ in 0..size {
                        weights.push(Weight(r.u32()));
                        r.u32();
                    }
                    BucketAlg::List
                }
                3 => {
                    let n = r.u8();
                    let nodes: Vec<u32> = (0..n).map(|_| r.u32()).collect();
                    weights = (0..size as usize).map(|i| Weight(nodes[2 * i + 1])).collect();
                    assert_eq!(nodes, nacre_crush::derive::tree_nodes(&weights));
                    BucketAlg::Tree
                }
                4 => {
                    let mut s = vec![];
                    for _ in 0..size {
                        weights.push(Weight(r.u32()));
                        s.push(r.u32());
                    }
                    straws = Some(s);
                    BucketAlg::Straw
                }
                5 => {
                    weights = (0..size).map(|_| Weight(r.u32())).collect();
                    BucketAlg::Straw2
                }
                _ => panic!(),
            };
            let b = Bucket { id, name: id.to_string(), kind, alg, hash, items, weights, weight, straws };
            m.buckets.insert(id, b);
        }
        for n in 0..m.max_rules {
            if r.u32() == 0 {
                continue;
            }
            let len = r.u32();
            r.n::<4>();
            let steps = (0..len)
                .map(|_| {
                    let (op, a, b) = (r.u32(), r.i32(), r.i32() as u16);
                    match op {
                        0 => Step::Noop,
                        1 => Step::Take(a),
                        2 => Step::Choose { mode: Mode::Firstn, num: a, kind: b },
                        3 => Step::Choose { mode: Mode::Indep, num: a, kind: b },
                        4 => Step::Emit,
                        6 => Step::ChooseLeaf { mode: Mode::Firstn, num: a, kind: b },
                        7 => Step::ChooseLeaf { mode: Mode::Indep, num: a, kind: b },
                        8 => Step::SetChooseTries(a),
                        9 => Step::SetChooseLeafTries(a),
                        10 => Step::SetChooseLocalTries(a),
                        11 => Step::SetChooseLocalFallbackTries(a),
                        12 => Step::SetChooseLeafVaryR(a),
                        13 => Step::SetChooseLeafStable(a),
                        _ => panic!("{op}"),
                    }
                })
                .collect();
            let k = RuleKind::Replicated;
            m.rules.insert(n, Rule { name: String::new(), kind: k, ruleset: 0, min_size: 0, max_size: 0, steps });
        }
        for _ in 0..3 {
            for _ in 0..r.u32() {
                r.i32();
                r.s();
            }
        }
        let t = &mut m.tunables;
        t.choose_local_tries = r.u32();
        t.choose_local_fallback_tries = r.u32();
        t.choose_total_tries = r.u32();
        t.chooseleaf_descend_once = r.u32();
        t.chooseleaf_vary_r = r.u8();
        t.straw_calc_version = r.u8();
        t.allowed_bucket_algs = r.u32();
        t.chooseleaf_stable = r.u8();
        for b in m.buckets.values().filter(|b| b.alg == BucketAlg::Straw) {
            let calc = nacre_crush::derive::straws(&b.weights, m.tunables.straw_calc_version);
            if Some(&calc) != b.straws.as_ref() {
                println!("straws differ {:?}\n{:?} {calc:?}", b.weights, b.straws);
            }
        }
        for _ in 0..r.u32() {
            r.i64();
        }
        for _ in 0..r.u32() {
            r.i32();
            r.s();
        }
        for _ in 0..r.u32() {
            r.i32();
            for _ in 0..r.u32() {
                r.i64();
            }
        }
        for _ in 0..r.u32() {
            let mut args = std::collections::BTreeMap::new();
            let set = r.i64();
            for _ in 0..r.u32() {
                let b = r.u32();
                let weight_set = (0..r.u32()).map(|_| (0..r.u32()).map(|_| Weight(r.u32())).collect()).collect();
                let ids = (0..r.u32()).map(|_| r.i32()).collect();
                args.insert(-1 - b as i32, ChooseArg { ids, weight_set });
            }
            m.choose_args.insert(set, args);
        }
        assert!(r.0.is_empty());
        m
    }
}
