//! Properties of random valid maps: both forms keep them whole, and edits keep them valid.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::check::{Flaw, check};
use crate::edit::{EditError, NewRule, Profile};
use crate::map::Mapper;
use crate::model::{ClassId, CrushMap, ItemId, RuleKind};
use crate::random_map::{Dice, Kinds, random_map};
use crate::{binary, text};

/// Flaws a random map may have from the start: they are about taste and not about what edits keep.
fn tolerated(flaw: &Flaw) -> bool {
    matches!(
        flaw,
        Flaw::AlgNotAllowed { .. }
            | Flaw::RuleChoosesNothing { .. }
            | Flaw::ArgsIgnored { .. }
            | Flaw::EmitsBuckets { .. }
    )
}

fn flaws(map: &CrushMap) -> Vec<String> {
    check(map).iter().filter(|flaw| !tolerated(flaw)).map(ToString::to_string).collect()
}

/// What places data: the ids of buckets by name, of shadows by original and class.
fn ids(map: &CrushMap) -> (BTreeMap<String, ItemId>, BTreeMap<(String, ClassId), ItemId>) {
    let shadow_ids = map.shadow_ids();
    let buckets = map.buckets.values().filter(|bucket| !shadow_ids.contains(&bucket.id));
    let shadows = map.shadow_origins();
    (
        buckets.map(|bucket| (bucket.name.clone(), bucket.id)).collect(),
        shadows.into_iter().map(|(id, (of, class))| ((map.item_name(of).into_owned(), class), id)).collect(),
    )
}

/// One change an operator might try.
fn random_edit(dice: &mut Dice, map: &mut CrushMap) -> Result<(), EditError> {
    let shadows = map.shadow_ids();
    let mut buckets: Vec<String> = Vec::new();
    buckets
        .extend(map.buckets.values().filter(|bucket| !shadows.contains(&bucket.id)).map(|bucket| bucket.name.clone()));
    let devices: Vec<String> = map.devices.values().map(|device| device.name.clone()).collect();
    let items: Vec<String> = buckets.iter().chain(&devices).cloned().collect();
    if buckets.is_empty() || devices.is_empty() {
        return map.add_bucket(&format!("new{}", dice.below(1000)), "root", None).map(drop);
    }
    let (item, bucket, device) = (dice.pick(&items).clone(), dice.pick(&buckets).clone(), dice.pick(&devices).clone());
    let class = format!("class{}", dice.below(4));
    let weight = dice.weight();
    let new_name = format!("new{}", dice.below(1000));
    match dice.below(15) {
        0 => {
            let class = Some(class.as_str()).filter(|_| dice.one_in(2));
            map.add_device(dice.below(60) as ItemId, None, weight, class, &bucket)
        }
        1 => {
            let kind = *dice.pick(&["host", "rack", "root", "osd"]);
            map.add_bucket(&new_name, kind, Some(&bucket)).map(drop)
        }
        2 => map.add_bucket(&new_name, "root", None).map(drop),
        3 | 4 => map.move_item(&item, &bucket),
        5 => map.detach_item(&item),
        6 => map.remove_item(&item),
        7 => map.remove_tree(&item).map(drop),
        8 => map.rename_item(&item, &new_name),
        9 => map.reweight_item(&item, weight),
        10 => map.reweight_devices_below(&bucket, weight).map(drop),
        11 => map.set_class(&[&device], &class),
        12 => map.clear_class(&[&device]),
        13 => {
            let kind = if dice.one_in(2) { RuleKind::Replicated } else { RuleKind::Erasure };
            let class = Some(class.as_str()).filter(|_| dice.one_in(2));
            let domain = *dice.pick(&["host", "rack", "osd"]);
            map.create_rule(&NewRule { name: &new_name, root: &bucket, domain, class, kind }).map(drop)
        }
        _ => match map.rules.values().next().map(|rule| rule.name.clone()) {
            Some(rule) if dice.one_in(2) => map.remove_rule(&rule).map(drop),
            _ => {
                map.set_profile(*dice.pick(&[Profile::Argonaut, Profile::Firefly, Profile::Jewel]));
                Ok(())
            }
        },
    }
}

proptest! {
    // More than usual, and as many as `PROPTEST_CASES` says where that is more still.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(400)))]

    #[test]
    fn a_random_map_is_valid(seed: u64) {
        let map = random_map(seed, Kinds { odd_straws: true, all_algs: true });
        prop_assert_eq!(flaws(&map), Vec::<String>::new());
    }

    #[test]
    fn text_keeps_a_map_whole(seed: u64) {
        let map = random_map(seed, Kinds { odd_straws: false, all_algs: true });
        let printed = text::print(&map);
        let read = text::parse(&printed);
        prop_assert!(read.as_ref() == Ok(&map), "{printed}\n{read:#?}\n{map:#?}");
    }

    #[test]
    fn the_binary_form_keeps_a_map_whole(seed: u64) {
        let map = random_map(seed, Kinds { odd_straws: true, all_algs: true });
        prop_assert!(binary::decode(&binary::encode(&map)) == Ok(map));
    }

    #[test]
    fn edits_keep_a_map_valid_and_its_ids(seed: u64) {
        let mut map = random_map(seed, Kinds { odd_straws: true, all_algs: seed % 2 == 0 });
        let mut dice = Dice(!seed);
        for _ in 0..12 {
            let before = map.clone();
            if let Err(error) = random_edit(&mut dice, &mut map) {
                prop_assert!(map == before, "a refused edit left its mark: {error}");
                continue;
            }
            prop_assert_eq!(flaws(&map), Vec::<String>::new());
            prop_assert!(Mapper::new(&map).is_ok());
            prop_assert!(binary::decode(&binary::encode(&map)).as_ref() == Ok(&map));
            let ((old_buckets, old_shadows), (buckets, shadows)) = (ids(&before), ids(&map));
            for (name, id) in &old_buckets {
                prop_assert!(buckets.get(name).is_none_or(|now| now == id), "{name} got another id");
            }
            for (of, id) in &old_shadows {
                prop_assert!(shadows.get(of).is_none_or(|now| now == id), "a shadow of {of:?} got another id");
            }
        }
    }
}
