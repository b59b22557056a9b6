//! Each verb by example, on golden maps: what it does, what it leaves alone, and when it refuses.

use super::{EditError, NewRule, Profile};
use crate::check::{Severity, check};
use crate::map::{Mapper, Workspace};
use crate::model::{BucketAlg, ChooseArg, ClassId, CrushMap, ItemId, RuleKind, Step, Tunables, Weight};
use crate::text;
use crate::text::golden::texts;

fn golden(name: &str) -> CrushMap {
    let (_, text) = texts().into_iter().find(|(map, _)| map == name).unwrap();
    text::parse(&text).unwrap()
}

fn weight(of: f64) -> Weight {
    Weight((of * 65536.0) as u32)
}

/// What an item weighs in its parent.
fn held(map: &CrushMap, name: &str) -> Weight {
    let item = map.item(name).unwrap();
    let parent = map.parent(item).unwrap();
    parent.weights[parent.position(item).unwrap()]
}

fn fit(map: &CrushMap) {
    let bad: Vec<String> =
        check(map).iter().filter(|flaw| flaw.severity() == Severity::Error).map(ToString::to_string).collect();
    assert!(bad.is_empty(), "{bad:?}");
    Mapper::new(map).unwrap();
}

fn refused(map: &mut CrushMap, edit: impl FnOnce(&mut CrushMap) -> Result<(), EditError>) -> String {
    let before = map.clone();
    let error = edit(map).unwrap_err();
    assert!(*map == before, "a refused edit left its mark");
    error.to_string()
}

#[test]
fn a_device_is_added_with_its_weight_and_class() {
    let mut map = golden("classes");
    let root = held(&map, "h0");
    map.add_device(30, None, weight(2.0), Some("ssd"), "h0").unwrap();
    fit(&map);
    assert_eq!(map.max_devices, 31);
    assert_eq!(held(&map, "osd.30"), weight(2.0));
    // The text had cut the host's weight to three decimals; now it is what its devices weigh.
    assert_eq!(held(&map, "h0").0, root.0 + weight(2.0).0 - 1);
    let ssd = map.class_id("ssd").unwrap();
    let shadow = &map.buckets[&map.shadows[&-1][&ssd]];
    assert_eq!((shadow.id, shadow.items.as_slice()), (-8, &[0, 1, 30][..]));
    map.add_device(40, Some("fast"), weight(1.0), Some("optane"), "h1").unwrap();
    fit(&map);
    assert_eq!(map.classes.len(), 4);
    assert!(map.item("default~optane").is_some());

    let near = refused(&mut map, |map| map.add_device(41, None, Weight::ONE, None, "h77"));
    assert!(near.contains("there is no device or bucket h77"), "{near}");
    assert!(refused(&mut map, |map| map.add_device(0, None, Weight::ONE, None, "h1")).contains("osd.0 in h0"));
    assert!(refused(&mut map, |map| map.add_device(41, Some("h2"), Weight::ONE, None, "h1")).contains("h2 is taken"));
    assert!(refused(&mut map, |map| map.add_device(41, Some("a b"), Weight::ONE, None, "h1")).contains("is no name"));
    assert!(refused(&mut map, |map| map.add_device(-1, None, Weight::ONE, None, "h1")).contains("is no id"));
    assert!(refused(&mut map, |map| map.add_device(41, None, weight(101.0), None, "h1")).contains("from 0 to 100"));
    assert!(refused(&mut map, |map| map.add_device(41, None, Weight::ONE, None, "osd.3")).contains("is a device"));
    let shadow = refused(&mut map, |map| map.add_device(41, None, Weight::ONE, None, "h0~ssd"));
    assert!(shadow.contains("is the shadow of h0"), "{shadow}");
}

#[test]
fn a_detached_device_is_placed_again() {
    let mut map = golden("classes");
    map.detach_item("osd.4").unwrap();
    assert!(map.parent(4).is_none());
    assert!(map.devices.contains_key(&4));
    fit(&map);
    map.add_device(4, None, Weight::ONE, None, "h5").unwrap();
    assert_eq!(map.parent(4).unwrap().name, "h5");
    assert_eq!(map.devices[&4].class, map.class_id("hdd"));
    assert!(refused(&mut map, |map| map.detach_item("default")).contains("is in no bucket"));
}

#[test]
fn buckets_are_added_moved_and_removed() {
    let mut map = golden("classes");
    let before = map.clone();
    let rack = map.add_bucket("rack1", "rack", Some("default")).unwrap();
    // -1 to -28 are taken, shadows included.
    assert_eq!(rack, -29);
    map.move_item("h0", "rack1").unwrap();
    map.move_item("h1", "rack1").unwrap();
    fit(&map);
    assert_eq!(map.buckets[&-29].items, [-1, -2]);
    assert_eq!(held(&map, "rack1").0, held(&map, "h0").0 + held(&map, "h1").0);
    let default = &map.buckets[&-7];
    assert_eq!(default.items, [-3, -4, -5, -6, -29]);
    assert_eq!(default.sum(), Some(default.weight));
    // Shadows that were there keep their ids, rack1 gets new ones.
    for (original, by_class) in &before.shadows {
        assert_eq!(&map.shadows[original], by_class);
    }
    assert_eq!(map.shadows[&-29].values().copied().collect::<Vec<ItemId>>(), [-30, -31, -32]);

    assert!(refused(&mut map, |map| map.move_item("default", "rack1")).contains("lies below default"));
    assert!(refused(&mut map, |map| map.move_item("rack1", "h3")).contains("cannot hold rack1 of type rack"));
    assert!(refused(&mut map, |map| map.move_item("rack1", "rack1")).contains("lies below rack1"));
    assert!(refused(&mut map, |map| map.remove_item("rack1")).contains("still holds 2 items"));
    assert!(refused(&mut map, |map| map.remove_tree("default").map(drop)).contains("rule rep_ssd takes it"));
    assert!(refused(&mut map, |map| map.add_bucket("h0", "rack", None).map(drop)).contains("is taken"));
    assert!(refused(&mut map, |map| map.add_bucket("x", "rak", None).map(drop)).contains("did you mean rack?"));
    assert!(refused(&mut map, |map| map.add_bucket("x", "osd", None).map(drop)).contains("is that of devices"));

    let gone = map.remove_tree("rack1").unwrap();
    assert_eq!(gone.len(), 10);
    fit(&map);
    assert!(map.item("h0").is_none() && map.item("osd.3").is_none() && map.item("h0~ssd").is_none());
    assert_eq!(map.shadow_ids().len(), 5 * 3);
    map.remove_item("osd.29").unwrap();
    assert!(!map.devices.contains_key(&29));
    fit(&map);
}

#[test]
fn what_a_rule_takes_by_its_class_is_in_use_too() {
    let mut map = golden("classes");
    map.remove_rule("rep_any").unwrap();
    assert!(refused(&mut map, |map| map.remove_tree("default").map(drop)).contains("takes it"));
}

#[test]
fn weights_go_up_and_nowhere_else() {
    let mut map = golden("tree444");
    let before = map.clone();
    map.reweight_item("osd.5", weight(9.0)).unwrap();
    fit(&map);
    let path: Vec<ItemId> = ["host01", "rack0", "default"].iter().map(|name| map.item(name).unwrap()).collect();
    for (id, bucket) in &map.buckets {
        if path.contains(id) {
            assert_eq!(bucket.sum(), Some(bucket.weight));
            assert_ne!(bucket.weight, before.buckets[id].weight);
        } else {
            assert_eq!(bucket, &before.buckets[id]);
        }
    }
    assert_eq!(held(&map, "host01"), map.buckets[&path[0]].weight);
    assert_eq!(held(&map, "rack0"), map.buckets[&path[1]].weight);
    assert!(refused(&mut map, |map| map.reweight_item("osd.5", weight(100.5))).contains("cannot weigh 100.5"));
}

#[test]
fn a_bucket_is_scaled_as_a_whole() {
    let mut map = golden("tree444");
    let before = map.buckets[&-1].clone();
    map.reweight_item("host00", Weight(before.weight.0 * 2)).unwrap();
    let doubled: Vec<u32> = before.weights.iter().map(|weight| weight.0 * 2).collect();
    assert_eq!(map.buckets[&-1].weights.iter().map(|weight| weight.0).collect::<Vec<_>>(), doubled);
    fit(&map);
    assert!(refused(&mut map, |map| map.reweight_item("host00", weight(1000.0))).contains("weights of a device"));
    assert_eq!(map.reweight_devices_below("rack1", weight(1.5)).unwrap(), 16);
    assert_eq!(held(&map, "rack1"), weight(24.0));
    map.reweight_devices_below("rack1", Weight::ZERO).unwrap();
    assert!(refused(&mut map, |map| map.reweight_item("rack1", Weight::ONE)).contains("weighs nothing"));
    fit(&map);
}

#[test]
fn a_uniform_bucket_is_weighed_all_at_once() {
    let mut map = golden("tree444-uniform");
    assert!(refused(&mut map, |map| map.reweight_item("osd.0", weight(2.0))).contains("host00 is uniform"));
    assert!(refused(&mut map, |map| map.reweight_devices_below("host00", weight(2.0)).map(drop)).contains("rack0 is"));
    map.reweight_devices_below("default", weight(2.0)).unwrap();
    assert_eq!(map.buckets[&map.item("default").unwrap()].weight, weight(128.0));
    fit(&map);
}

#[test]
fn choose_args_keep_one_entry_for_each_item() {
    let mut map = golden("chooseargs");
    map.add_device(12, None, weight(4.0), None, "h0").unwrap();
    fit(&map);
    let rows = |map: &CrushMap, id| map.choose_args[&0][&id].weight_set.clone();
    // Device by device the rows had 4.5 and 4.1; the root's entry for h0 is their sum now.
    assert_eq!(rows(&map, -1)[0], [weight(1.0), weight(0.5), weight(3.0), weight(4.0)]);
    assert_eq!(rows(&map, -5).iter().map(|row| row[0]).collect::<Vec<_>>()[0], weight(8.5));
    assert_eq!(rows(&map, -5)[1][1..], [weight(6.0), weight(6.0), weight(6.0)]);
    map.move_item("osd.1", "h2").unwrap();
    fit(&map);
    assert_eq!(rows(&map, -1)[0], [weight(1.0), weight(3.0), weight(4.0)]);
    map.remove_tree("h3").unwrap();
    fit(&map);
    assert_eq!(map.choose_args[&0][&-5].ids, [-101, -102, -103]);
    map.remove_tree("h0").unwrap();
    assert!(!map.choose_args[&0].contains_key(&-1));
    fit(&map);
    // The number of devices does not shrink, as in Ceph; text counts anew.
    map.max_devices = 9;
    assert_eq!(text::parse(&text::print(&map)), Ok(map));
}

#[test]
fn an_argument_that_lost_its_last_id_is_dropped() {
    // Found by the property test: ids alone, and the bucket loses its only item.
    let mut map = golden("small3");
    map.remove_item("osd.0").unwrap();
    let bucket = map.parent(1).unwrap().id;
    map.choose_args.entry(0).or_default().insert(bucket, ChooseArg { ids: vec![-9], weight_set: Vec::new() });
    map.remove_item("osd.1").unwrap();
    assert!(map.choose_args[&0].is_empty());
}

#[test]
fn names_change_and_nothing_moves() {
    let mut map = golden("classes");
    let mapped = |map: &CrushMap| {
        let mapper = Mapper::new(map).unwrap();
        let plan = mapper.plan(0, 3, None).unwrap();
        let (mut workspace, all_in) = (Workspace::default(), vec![Weight::ONE; 30]);
        (0..200).map(|x| plan.map(x, &all_in, &mut workspace).to_vec()).collect::<Vec<_>>()
    };
    let before = mapped(&map);
    map.rename_item("h0", "node-a").unwrap();
    map.rename_item("osd.7", "disk7").unwrap();
    map.rename_class("ssd", "flash").unwrap();
    map.rename_rule("rep_ssd", "fast").unwrap();
    fit(&map);
    assert_eq!(map.item("node-a~flash"), Some(-8));
    assert_eq!(map.rule_id("fast"), Some(0));
    assert_eq!(mapped(&map), before);
    assert!(text::print(&map).contains("step take default class flash"));
    assert!(refused(&mut map, |map| map.rename_item("h1", "disk7")).contains("is taken"));
    assert!(refused(&mut map, |map| map.rename_item("h1", "h~1")).contains("is no name"));
    assert!(refused(&mut map, |map| map.rename_class("hdd", "flash")).contains("is taken"));
    assert!(refused(&mut map, |map| map.rename_class("hddd", "x")).contains("did you mean hdd?"));
    assert!(refused(&mut map, |map| map.rename_rule("rep_hdd", "fast")).contains("is taken"));
}

#[test]
fn classes_come_and_go_with_their_devices() {
    let mut map = golden("classes");
    let nvme = map.class_id("nvme").unwrap();
    map.set_class(&["osd.0", "osd.1"], "nvme").unwrap();
    fit(&map);
    assert_eq!(
        map.buckets[&-22].items,
        [0, 1, 4].into_iter().filter(|item| map.devices[item].class == Some(nvme)).collect::<Vec<_>>()
    );
    assert_eq!(map.buckets[&-8].items, []);
    // A rule takes nvme, so it stays without devices.
    let all: Vec<String> = map.devices.values().filter(|d| d.class == Some(nvme)).map(|d| d.name.clone()).collect();
    map.clear_class(&all.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    assert!(map.classes.contains_key(&nvme));
    map.remove_rule("rep_nvme").unwrap();
    assert!(!map.classes.contains_key(&nvme));
    assert!(map.item("default~nvme").is_none());
    fit(&map);
    assert!(refused(&mut map, |map| map.set_class(&["h0"], "ssd")).contains("is a bucket"));
    assert!(refused(&mut map, |map| map.set_class(&["osd.0"], "s s")).contains("is no name"));
}

#[test]
fn a_new_class_takes_no_other_s_number() {
    let mut map = golden("small3");
    map.set_class(&["osd.0"], "ssd").unwrap();
    // A map from elsewhere may have given the last number there is.
    let ssd = map.class_id("ssd").unwrap();
    let name = map.classes.remove(&ssd).unwrap();
    map.classes.insert(ClassId::MAX, name);
    map.devices.get_mut(&0).unwrap().class = Some(ClassId::MAX);
    map.shadows.values_mut().for_each(|by_class| {
        let shadow = by_class.remove(&ssd).unwrap();
        by_class.insert(ClassId::MAX, shadow);
    });
    map.set_class(&["osd.1"], "hdd").unwrap();
    assert_eq!(map.classes[&ClassId::MAX], "ssd");
    assert_eq!(map.classes[&map.devices[&1].class.unwrap()], "hdd");
    fit(&map);
}

#[test]
fn the_first_class_builds_the_shadow_trees() {
    let mut map = golden("small3");
    map.set_class(&["osd.0", "osd.2", "osd.4"], "ssd").unwrap();
    fit(&map);
    assert_eq!(map.shadow_ids().len(), 4);
    let rule =
        NewRule { name: "fast", root: "default", domain: "host", class: Some("ssd"), kind: RuleKind::Replicated };
    let id = map.create_rule(&rule).unwrap();
    assert_eq!(id, 2);
    let mapper = Mapper::new(&map).unwrap();
    let (mut workspace, all_in) = (Workspace::default(), vec![Weight::ONE; 6]);
    for x in 0..100 {
        let mut found = mapper.map_rule(id, x, 3, &all_in, None, &mut workspace).unwrap().to_vec();
        found.sort_unstable();
        assert_eq!(found, [0, 2, 4]);
    }
}

#[test]
fn rules_are_made_and_removed() {
    let mut map = golden("classes");
    map.remove_rule("rep_any").unwrap();
    let new = NewRule { name: "ec", root: "default", domain: "host", class: None, kind: RuleKind::Erasure };
    assert_eq!(map.create_rule(&new).unwrap(), 2);
    fit(&map);
    let rule = &map.rules[&2];
    assert_eq!(rule.steps.len(), 5);
    assert_eq!(rule.steps[..2], [Step::SetChooseLeafTries(5), Step::SetChooseTries(100)]);
    let on_devices = NewRule { name: "flat", domain: "osd", kind: RuleKind::Replicated, class: Some("nvme"), ..new };
    assert_eq!(map.create_rule(&on_devices).unwrap(), 6);
    assert!(matches!(map.rules[&6].steps[..], [Step::Take(-28), Step::Choose { kind: 0, .. }, Step::Emit]));
    assert_eq!(map.max_rules, 7);

    let mut create = |new: NewRule<'_>| refused(&mut map, |map| map.create_rule(&new).map(drop));
    assert!(create(new).contains("is taken"));
    let new = NewRule { name: "other", ..new };
    assert!(create(NewRule { root: "defalt", ..new }).contains("did you mean default?"));
    assert!(create(NewRule { domain: "hots", ..new }).contains("did you mean host?"));
    assert!(create(NewRule { class: Some("sdd"), ..new }).contains("did you mean ssd?"));
    assert!(create(NewRule { domain: "row", ..new }).contains("no row below default holds a device"));
    assert!(
        create(NewRule { root: "h0", class: Some("nvme"), ..new })
            .contains("no host below h0 holds a device of class nvme")
    );
    assert!(refused(&mut map, |map| map.remove_rule("e").map(drop)).contains("there is no rule e"));
}

#[test]
fn tunables_are_set_by_profile_and_by_value() {
    let mut map = golden("tree444");
    for (name, profile) in [
        ("argonaut", Profile::Argonaut),
        ("bobtail", Profile::Bobtail),
        ("firefly", Profile::Firefly),
        ("hammer", Profile::Hammer),
    ] {
        map.set_profile(name.parse().unwrap());
        assert_eq!(Profile::of(&map.tunables), Some(profile));
        assert_eq!(map.tunables, golden(&format!("tree444-{name}")).tunables, "{name}");
    }
    assert_eq!("optimal".parse::<Profile>().unwrap().tunables(), Tunables::JEWEL);
    assert!("jewl".parse::<Profile>().unwrap_err().to_string().contains("did you mean jewel?"));
    map.set_tunable("choose_total_tries", 100).unwrap();
    assert_eq!(map.tunables.choose_total_tries, 100);
    assert_eq!(Profile::of(&map.tunables), None);
    assert!(refused(&mut map, |map| map.set_tunable("chooseleaf_vary_r", 256)).contains("from 0 to 255"));
    assert!(refused(&mut map, |map| map.set_tunable("choose_tries", 1)).contains("there is no tunable"));
}

#[test]
fn straws_wait_for_their_bucket_to_change() {
    let mut map = golden("tree444-straw-calc0");
    let before = map.clone();
    map.set_tunable("straw_calc_version", 1).unwrap();
    let kept = map.buckets.values().filter(|bucket| bucket.straws.is_some()).count();
    assert!(kept > 0, "straws of version 0 were dropped");
    // Back again, nothing happened.
    let mut back = map.clone();
    back.set_tunable("straw_calc_version", 0).unwrap();
    assert!(back == before);
    let host = map.buckets.values().find(|bucket| bucket.kind == 1 && bucket.straws.is_some()).unwrap().clone();
    let device = map.item_name(host.items[0]).into_owned();
    map.reweight_item(&device, weight(3.0)).unwrap();
    assert!(map.buckets[&host.id].straws.is_none());
    map.recompute_straws();
    assert!(map.buckets.values().all(|bucket| bucket.alg == BucketAlg::Straw && bucket.straws.is_none()));
    fit(&map);
}
