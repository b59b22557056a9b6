//! Each flaw by example, and why rules find too little.

use super::{Flaw, Severity, check, satisfy};
use crate::model::{BucketAlg, ChooseArg, CrushMap, Device, ItemId, Step, Weight};
use crate::text;
use crate::text::golden::texts;

fn golden(name: &str) -> CrushMap {
    let (_, text) = texts().into_iter().find(|(map, _)| map == name).unwrap();
    text::parse(&text).unwrap()
}

/// What [`check`] says after a change to a golden map that has no flaw.
fn found(name: &str, change: impl FnOnce(&mut CrushMap)) -> Vec<String> {
    let mut map = golden(name);
    change(&mut map);
    check(&map).iter().map(ToString::to_string).collect()
}

fn says(name: &str, part: &str, change: impl FnOnce(&mut CrushMap)) {
    let found = found(name, change);
    assert!(found.iter().any(|flaw| flaw.contains(part)), "`{part}` is not in {found:#?}");
}

fn bucket(map: &mut CrushMap, id: ItemId) -> &mut crate::model::Bucket {
    map.buckets.get_mut(&id).unwrap()
}

#[test]
fn golden_maps_have_no_errors() {
    for (name, text) in texts() {
        for flaw in check(&text::parse(&text).unwrap()) {
            assert!(flaw.severity() == Severity::Warning, "{name}: {flaw}");
            // Trees and, in maps with the tunables of their time, straw2 are not among the algorithms allowed.
            assert!(matches!(flaw, Flaw::AlgNotAllowed { .. }), "{name}: {flaw}");
        }
    }
}

#[test]
fn flaws_of_the_hierarchy() {
    says("classes", "root default holds host h0, which holds root default", |map| {
        bucket(map, -1).items[0] = -7;
    });
    says("classes", "osd.5 is in both host h0 and host h1", |map| bucket(map, -1).items[0] = 5);
    says("classes", "host h0 holds osd.1 twice", |map| bucket(map, -1).items[0] = 1);
    says("classes", "host h0 holds -99, which is not in the map", |map| bucket(map, -1).items[0] = -99);
    says("classes", "holds device 77, but the map says its devices end below 30", |map| bucket(map, -1).items[0] = 77);
    says("classes", "filed under -1 but calls itself -3", |map| bucket(map, -1).id = -3);
    says("classes", "h0 is of type 9, which has no name", |map| bucket(map, -1).kind = 9);
    says("classes", "h0 is of type 0, which is that of devices", |map| bucket(map, -1).kind = 0);
    says("classes", "draws by hash 3", |map| bucket(map, -1).hash = 3);
    says("classes", "has 5 items but 4 weights", |map| bucket(map, -1).weights.truncate(4));
    says("classes", "has 5 items but 1 straws", |map| bucket(map, -1).straws = Some(vec![1]));
    says("classes", "osd.0 weighs 101 in host h0; the most is 100", |map| {
        bucket(map, -1).weights[0] = Weight(101 << 16)
    });
    says("classes", "weigh more than 65535 together", |map| bucket(map, -1).weights[0] = Weight(u32::MAX));
    says("classes", "says it weighs 1, its items weigh", |map| bucket(map, -1).weight = Weight::ONE);
    says("classes", "host h0 weighs 1 but 14.3", |map| bucket(map, -1).weight = Weight::ONE);
    says("classes", "uniform but its items weigh differently", |map| bucket(map, -1).alg = BucketAlg::Uniform);
    says("classes", "that allowed_bucket_algs does not allow", |map| bucket(map, -1).alg = BucketAlg::Tree);
    says("wide", "a tree bucket with 300 items", |map| bucket(map, -1).alg = BucketAlg::Tree);
    says("classes", "a slot beyond the 4", |map| map.max_buckets = 4);
}

#[test]
fn flaws_of_names_and_classes() {
    says("classes", "osd.1 names device 0 and device 1", |map| map.devices.get_mut(&0).unwrap().name = "osd.1".into());
    says("classes", "\"h 0\" is no name for a bucket", |map| bucket(map, -1).name = "h 0".into());
    says("classes", "device 44 has no name", |map| {
        map.devices.insert(44, Device { name: String::new(), class: None });
    });
    says("classes", "host names type 1 and type 2", |map| drop(map.types.insert(2, "host".into())));
    says("classes", "is no name for a class", |map| drop(map.classes.insert(0, "s d".into())));
    says("classes", "osd.0 is of class 9, which has no name", |map| map.devices.get_mut(&0).unwrap().class = Some(9));
    says("classes", "has a shadow -8 in class 0 that is not in the map", |map| drop(map.buckets.remove(&-8)));
    says("classes", "host h0~ssd does not mirror host h0", |map| map.devices.get_mut(&0).unwrap().class = Some(1));
    says("classes", "host h0 has no shadow in class optane", |map| {
        map.classes.insert(9, "optane".into());
        map.devices.get_mut(&0).unwrap().class = Some(9);
    });
}

#[test]
fn flaws_of_rules_and_choose_args() {
    let rule = |map: &mut CrushMap, at: usize, step: Step| map.rules.get_mut(&2).unwrap().steps[at] = step;
    let choose = |kind| Step::Choose { mode: crate::model::Mode::Firstn, num: 0, kind };
    says("classes", "rule rep_any takes -99, which is not in the map", |map| rule(map, 0, Step::Take(-99)));
    says("classes", "rule rep_any chooses type 7, which has no name", |map| rule(map, 1, choose(7)));
    says("classes", "rule rep_any chooses row below root default, and there is none", |map| rule(map, 1, choose(3)));
    says("classes", "rule rep_any chooses before it takes", |map| rule(map, 0, Step::Noop));
    says("classes", "rule rep_any never emits", |map| rule(map, 2, Step::Noop));
    says("classes", "rule rep_any emits buckets", |map| rule(map, 1, choose(1)));
    says("classes", "rule rep_any has number 2 but ruleset 5", |map| map.rules.get_mut(&2).unwrap().ruleset = 5);
    says("classes", "rule rep_any has number 300", |map| {
        let rule = map.rules.remove(&2).unwrap();
        map.rules.insert(300, rule);
    });
    says("classes", "rep_ssd names rule 0 and rule 1", |map| map.rules.get_mut(&1).unwrap().name = "rep_ssd".into());
    let arg = |ids: Vec<ItemId>, weights: usize| ChooseArg { ids, weight_set: vec![vec![Weight::ONE; weights]] };
    says("chooseargs", "choose_args 0 speak of bucket -9, which is not", |map| {
        map.choose_args.get_mut(&0).unwrap().insert(-9, arg(vec![], 1));
    });
    says("chooseargs", "choose_args 0 give host h1 2 weights, it has 3 items", |map| {
        map.choose_args.get_mut(&0).unwrap().insert(-2, arg(vec![], 2));
    });
    says("chooseargs", "choose_args 0 give host h1 1 ids", |map| {
        map.choose_args.get_mut(&0).unwrap().insert(-2, arg(vec![1], 3));
    });
    says("chooseargs", "but only straw2 buckets draw by them", |map| bucket(map, -1).alg = BucketAlg::List);
}

#[test]
fn errors_come_first() {
    let mut map = golden("classes");
    bucket(&mut map, -1).weight = Weight::ONE;
    bucket(&mut map, -2).hash = 9;
    let severities: Vec<Severity> = check(&map).iter().map(Flaw::severity).collect();
    assert!(severities.is_sorted() && severities.len() > 2, "{severities:?}");
}

/// Why a rule of a golden map finds too little.
fn causes(name: &str, rule: &str, positions: u32, reweights: Option<&[Weight]>) -> Vec<String> {
    let map = golden(name);
    let rule = map.rule_id(rule).unwrap();
    let shortfall = satisfy(&map, rule, positions, 0..500, reweights).unwrap();
    shortfall.map_or_else(Vec::new, |shortfall| {
        assert_eq!((shortfall.positions, shortfall.inputs), (positions, 500));
        assert!(shortfall.short > 0 && !shortfall.examples.is_empty());
        shortfall.causes.iter().map(ToString::to_string).collect()
    })
}

#[test]
fn a_rule_that_finds_enough_has_no_shortfall() {
    assert!(causes("tree444", "rep_host", 3, None).is_empty());
    assert!(causes("classes", "ssd_primary", 4, None).is_empty());
}

#[test]
fn a_shortfall_is_counted_and_explained() {
    let says = |name, rule, positions, why: &[&str]| assert_eq!(causes(name, rule, positions, None), why);
    says("small3", "rep_host", 4, &["rule rep_host wants 4 hosts below root default, there are 3"]);
    says("small3", "ec_host", 5, &["rule ec_host wants 5 hosts below root default, there are 3"]);
    says(
        "classes",
        "rep_nvme",
        4,
        &[
            "rule rep_nvme wants 4 hosts below root default (class nvme), there are 3 (3 more hold no weight or no device that is in)",
        ],
    );
    says("tree444", "two_racks_two_hosts", 6, &["rule two_racks_two_hosts gives 4 devices at most, 6 are asked for"]);
    says("flat10", "rep_osd", 11, &["rule rep_osd wants 11 osds below root default, there are 10"]);
}

#[test]
fn devices_that_are_out_count_as_idle() {
    let mut in_or_out = vec![Weight::ONE; 6];
    in_or_out[0] = Weight::ZERO;
    in_or_out[1] = Weight::ZERO;
    let why = causes("small3", "rep_host", 3, Some(&in_or_out));
    let want =
        "rule rep_host wants 3 hosts below root default, there are 2 (1 more hold no weight or no device that is in)";
    assert_eq!(why, [want]);
}

#[test]
fn enough_of_all_but_too_few_tries_is_said_so() {
    let why = causes("tree444", "few_tries", 4, None);
    assert_eq!(why.len(), 1);
    assert!(why[0].contains("its 3 tries do not always find it"), "{why:?}");
    assert!(why[0].contains("set_choose_tries 100"), "{why:?}");
}

#[test]
fn a_rule_of_endless_tries_is_given_up() {
    // Found by fuzzing: each mapping used up what the mapper allows at most, half a second for each input.
    let mut map = golden("small3");
    map.rules.get_mut(&0).unwrap().steps.insert(0, Step::SetChooseTries(i32::MAX));
    let shortfall = satisfy(&map, 0, 4, 0..500, None).unwrap().unwrap();
    assert_eq!(shortfall.short, 500);
    assert_eq!(shortfall.causes[0].to_string(), "rule rep_host wants 4 hosts below root default, there are 3");
}
