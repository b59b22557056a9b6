//! Random maps and rules: the ways to map agree, keep their promises and end, however odd the map is. And maps that must be
//! refused. (That mappings equal Ceph's, and how they are spread, is tested in `tests/`.)

use super::*;
use crate::model::{self, BucketAlg, ChooseArg, CrushMap, ITEM_NONE, Mode, Rule, RuleKind, TypeId};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn weight() -> impl Strategy<Value = Weight> {
    prop_oneof![5 => Just(0x10000), 3 => 0x1000..0x80000_u32, 1 => Just(0), 1 => any::<u32>()].prop_map(Weight)
}

fn alg() -> impl Strategy<Value = BucketAlg> {
    prop_oneof![
        6 => Just(BucketAlg::Straw2),
        1 => Just(BucketAlg::Uniform),
        1 => Just(BucketAlg::List),
        1 => Just(BucketAlg::Tree),
        1 => Just(BucketAlg::Straw),
    ]
}

fn tunables() -> impl Strategy<Value = Tunables> {
    let any = (0..3_u32, 0..3_u32, 0..60_u32, 0..2_u32, 0..6_u8, 0..2_u8, 0..2_u8).prop_map(
        |(local, fallback, total, once, vary_r, stable, straw)| Tunables {
            choose_local_tries: local,
            choose_local_fallback_tries: fallback,
            choose_total_tries: total,
            chooseleaf_descend_once: once,
            chooseleaf_vary_r: vary_r,
            chooseleaf_stable: stable,
            straw_calc_version: straw,
            ..Tunables::JEWEL
        },
    );
    prop_oneof![3 => Just(Tunables::JEWEL), 1 => Just(Tunables::LEGACY), 2 => any]
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Firstn), Just(Mode::Indep)]
}

/// Some step but take and emit.
fn step() -> impl Strategy<Value = Step> {
    let num = || prop_oneof![3 => Just(0_i32), 2 => 1..5_i32, 1 => -3..0_i32, 1 => any::<i32>()];
    let value = || prop_oneof![4 => 0..10_i32, 1 => -2..0_i32, 1 => any::<i32>()];
    prop_oneof![
        4 => (mode(), num(), 0..5_u16).prop_map(|(mode, num, kind)| Step::Choose { mode, num, kind }),
        6 => (mode(), num(), 0..5_u16).prop_map(|(mode, num, kind)| Step::ChooseLeaf { mode, num, kind }),
        1 => Just(Step::Noop),
        1 => Just(Step::Emit),
        1 => (-20..20_i32).prop_map(Step::Take),
        1 => value().prop_map(Step::SetChooseTries),
        1 => value().prop_map(Step::SetChooseLeafTries),
        1 => value().prop_map(Step::SetChooseLocalTries),
        1 => value().prop_map(Step::SetChooseLocalFallbackTries),
        1 => value().prop_map(Step::SetChooseLeafVaryR),
        1 => value().prop_map(Step::SetChooseLeafStable),
    ]
}

fn rule(steps: Vec<Step>) -> Rule {
    Rule { name: String::new(), kind: RuleKind::Replicated, ruleset: 0, min_size: 1, max_size: 10, steps }
}

/// What random maps are made of: for each bucket its algorithm, type, and children with weights. A child is a bucket that
/// comes later (so there is no cycle, but there may be several ways to a bucket), or else a device.
type Seed = Vec<(BucketAlg, TypeId, Vec<(u16, Weight)>)>;

fn build(seed: Seed, tunables: Tunables, rules: Vec<Vec<Step>>) -> CrushMap {
    let count = seed.len();
    let mut map = CrushMap { max_devices: 64, tunables, ..CrushMap::default() };
    for (n, (alg, kind, children)) in seed.into_iter().enumerate() {
        let id = -1 - n as ItemId;
        let child = |at: u16| {
            let later = count - n - 1;
            match at as usize % (later + 2) {
                // Mostly the next few, so that trees become deep.
                below if below < later => -1 - (n + 1 + below) as ItemId,
                _ => ItemId::from(at / 7 % 64),
            }
        };
        let (items, mut weights): (Vec<_>, Vec<_>) =
            children.into_iter().map(|(at, weight)| (child(at), weight)).unzip();
        if alg == BucketAlg::Uniform {
            weights.fill(Weight::ONE);
        }
        let name = format!("b{n}");
        let bucket = model::Bucket { id, name, kind, alg, hash: 0, items, weights, weight: Weight::ONE, straws: None };
        map.buckets.insert(id, bucket);
    }
    map.rules = rules.into_iter().map(rule).zip(0..).map(|(rule, id)| (id, rule)).collect();
    map
}

/// Any map that is not refused.
fn odd_map() -> impl Strategy<Value = CrushMap> {
    let children = prop::collection::vec((any::<u16>(), weight()), 0..24);
    let buckets = prop::collection::vec((alg(), 1..5_u16, children), 1..12);
    let steps = prop::collection::vec(step(), 0..6).prop_map(|mut steps| {
        steps.insert(0, Step::Take(-1));
        steps.push(Step::Emit);
        steps
    });
    (buckets, tunables(), prop::collection::vec(steps, 1..4))
        .prop_map(|(seed, tunables, rules)| build(seed, tunables, rules))
}

/// Maps as they are in use: a straw2 tree of hosts and devices in racks, and rules of one choice.
fn usual_map() -> impl Strategy<Value = CrushMap> {
    let host =
        prop_oneof![8 => 0..10_usize, 1 => 10..40_usize].prop_flat_map(|size| prop::collection::vec(weight(), size));
    let racks = prop::collection::vec(prop::collection::vec(host, 1..7), 1..5);
    let choice = (mode(), any::<bool>(), prop_oneof![4 => Just(0), 1 => -1..6_i32], 0..3_u16);
    let rule = (choice, prop::option::of(0..60_i32), prop::option::of(0..6_i32));
    (racks, prop::collection::vec(rule, 1..4)).prop_map(|(racks, rules)| {
        let mut seed: Seed = vec![(BucketAlg::Straw2, 3, Vec::new())];
        let mut map = CrushMap { tunables: Tunables::JEWEL, ..CrushMap::default() };
        for hosts in racks {
            let rack = seed.len();
            seed.push((BucketAlg::Straw2, 2, Vec::new()));
            seed[0].2.push((rack as u16, Weight::ONE));
            for weights in hosts {
                let host = seed.len();
                seed[rack].2.push((host as u16, Weight(0x10000 * weights.len() as u32)));
                let devices = weights.into_iter().map(|weight| {
                    map.max_devices += 1;
                    (map.max_devices as u16 - 1, weight)
                });
                seed.push((BucketAlg::Straw2, 1, devices.collect()));
            }
        }
        for (n, (alg, kind, children)) in seed.into_iter().enumerate() {
            let id = -1 - n as ItemId;
            let item = |at: u16| if kind == 1 { ItemId::from(at) } else { -1 - ItemId::from(at) };
            let (items, weights) = children.into_iter().map(|(at, weight)| (item(at), weight)).unzip();
            let bucket = model::Bucket {
                id,
                name: format!("b{n}"),
                kind,
                alg,
                hash: 0,
                items,
                weights,
                weight: Weight::ONE,
                straws: None,
            };
            map.buckets.insert(id, bucket);
        }
        for (id, ((mode, leaf, num, kind), tries, leaf_tries)) in (0..).zip(rules) {
            let mut steps = Vec::new();
            steps.extend(tries.map(Step::SetChooseTries));
            steps.extend(leaf_tries.map(Step::SetChooseLeafTries));
            steps.push(Step::Take(-1));
            steps.push(if leaf { Step::ChooseLeaf { mode, num, kind } } else { Step::Choose { mode, num, kind } });
            steps.push(Step::Emit);
            map.rules.insert(id, self::rule(steps));
        }
        map
    })
}

fn reweights() -> impl Strategy<Value = Vec<Weight>> {
    let one = prop_oneof![8 => Just(0x10000), 1 => Just(0), 1 => 0..0x10000_u32, 1 => any::<u32>()];
    prop_oneof![
        1 => Just(vec![Weight::ONE; 2000]),
        2 => prop::collection::vec(one.prop_map(Weight), 0..80),
    ]
}

/// Keeps rules that cannot be satisfied from taking all the time; for others it is plenty.
const BUDGET_HERE: u32 = 20_000;

/// The general code, whatever the rule.
fn general(plan: &Plan<'_>, x: u32, reweights: &[Weight], workspace: &mut Workspace) -> Vec<ItemId> {
    rule::run(plan, x, reweights, workspace);
    workspace.result.clone()
}

/// All ways to map agree, for all kernels, with a workspace that remembers other mappings.
fn check_ways(map: &CrushMap, positions: u32, args: Option<i64>, reweights: &[Weight]) -> Result<(), TestCaseError> {
    let xs: Vec<u32> = (0..40).map(|x| x * 0x0101_0101).collect();
    let (mut workspace, mut mappings) = (Workspace::default(), Mappings::default());
    for &rule in map.rules.keys() {
        let portable = Mapper::new(map).unwrap().with_kernel(Kernel::all()[0]).with_budget(BUDGET_HERE);
        let plan = portable.plan(rule, positions, args).unwrap();
        let wanted: Vec<_> = xs.iter().map(|&x| general(&plan, x, reweights, &mut workspace)).collect();
        for kernel in Kernel::all() {
            let mapper = Mapper::new(map).unwrap().with_kernel(kernel).with_budget(BUDGET_HERE);
            let plan = mapper.plan(rule, positions, args).unwrap();
            plan.map_all(xs.iter().copied(), reweights, &mut workspace, &mut mappings);
            prop_assert_eq!(mappings.len(), xs.len());
            for ((&x, wanted), found) in xs.iter().zip(&wanted).zip(mappings.iter()) {
                prop_assert_eq!(found, wanted, "many: rule {} x {} {}", rule, x, kernel.name());
                prop_assert_eq!(
                    &general(&plan, x, reweights, &mut workspace),
                    wanted,
                    "general: rule {} x {} {}",
                    rule,
                    x,
                    kernel.name()
                );
            }
            for (&x, wanted) in xs.iter().zip(&wanted) {
                prop_assert_eq!(
                    plan.map(x, reweights, &mut workspace),
                    wanted,
                    "one: rule {} x {} {}",
                    rule,
                    x,
                    kernel.name()
                );
            }
        }
    }
    Ok(())
}

/// Each case maps thousands of inputs, so a quarter of the usual number will do.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases.div_ceil(4), ..usual }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn odd_maps_map_one_way_whichever_code_maps(map in odd_map(), positions in 0..9_u32, reweights in reweights()) {
        check_ways(&map, positions, None, &reweights)?;
    }

    #[test]
    fn usual_maps_map_one_way_whichever_code_maps(map in usual_map(), positions in 1..9_u32, reweights in reweights()) {
        check_ways(&map, positions, None, &reweights)?;
    }

    #[test]
    fn weight_sets_map_one_way_whichever_code_maps(
        map in usual_map(),
        sets in prop::collection::vec(prop::collection::vec(weight(), 64), 1..4),
        ids in prop::option::of(-1000..1000_i32),
        positions in 1..6_u32,
    ) {
        let mut map = map;
        let arg = |bucket: &model::Bucket| ChooseArg {
            ids: ids.map(|first| (first..).take(bucket.items.len()).collect()).unwrap_or_default(),
            weight_set: sets.iter().map(|set| set[..bucket.items.len().min(64)].to_vec()).collect(),
        };
        let args: BTreeMap<_, _> = map.buckets.values().filter(|b| b.items.len() <= 64).map(|b| (b.id, arg(b))).collect();
        map.choose_args.insert(-1, args);
        check_ways(&map, positions, Some(7), &[Weight::ONE; 2000])?;
    }

    #[test]
    fn results_are_devices_in_and_different(map in usual_map(), positions in 1..9_u32, reweights in reweights()) {
        let mapper = Mapper::new(&map).unwrap().with_budget(BUDGET_HERE);
        let mut workspace = Workspace::default();
        for (&id, rule) in &map.rules {
            // Here Ceph can hand on devices that were drawn but are out, several times too.
            if rule.steps.iter().any(|step| matches!(step, Step::ChooseLeaf { mode: Mode::Indep, kind: 0, .. })) {
                continue;
            }
            let wants_devices = rule.steps.iter().any(|step| match step {
                Step::ChooseLeaf { kind, .. } => *kind > 0,
                Step::Choose { kind, .. } => *kind == 0,
                _ => false,
            });
            let plan = mapper.plan(id, positions, None).unwrap();
            for x in 0..64 {
                let found = plan.map(x, &reweights, &mut workspace);
                prop_assert!(found.len() <= positions as usize);
                let mut some: Vec<ItemId> = found.iter().copied().filter(|&item| item != ITEM_NONE).collect();
                if wants_devices {
                    for &device in &some {
                        let weight = reweights.get(device as usize).copied().unwrap_or_default();
                        prop_assert!(weight > Weight::ZERO, "{} is out", device);
                    }
                }
                some.sort_unstable();
                some.dedup();
                let holes = found.iter().filter(|&&item| item == ITEM_NONE).count();
                prop_assert_eq!(some.len() + holes, found.len(), "{:?}", found);
            }
        }
    }
}

/// Two hosts of two devices.
fn small() -> CrushMap {
    let host = |n: u16| (BucketAlg::Straw2, 1, vec![(n, Weight::ONE), (n, Weight::ONE)]);
    let mut map = build(
        vec![(BucketAlg::Straw2, 2, Vec::new()), host(0), host(0)],
        Tunables::JEWEL,
        vec![vec![Step::Take(-1), Step::ChooseLeaf { mode: Mode::Firstn, num: 0, kind: 1 }, Step::Emit]],
    );
    let mut set = |id: ItemId, items: &[ItemId]| {
        let bucket = map.buckets.get_mut(&id).unwrap();
        bucket.items = items.to_vec();
        bucket.weights = vec![Weight::ONE; items.len()];
    };
    set(-1, &[-2, -3]);
    set(-2, &[0, 1]);
    set(-3, &[2, 3]);
    map.max_devices = 4;
    map
}

#[test]
fn a_rule_of_the_usual_kind_is_mapped_abreast() {
    let mapper = Mapper::new(&small()).unwrap();
    assert!(mapper.plan(0, 2, None).unwrap().choice.is_some());
    let mut old = small();
    old.tunables = Tunables::LEGACY;
    assert!(Mapper::new(&old).unwrap().plan(0, 2, None).unwrap().choice.is_none());
}

#[test]
fn maps_that_cannot_be_mapped_are_refused_by_name() {
    let refused = |change: &dyn Fn(&mut CrushMap)| {
        let mut map = small();
        change(&mut map);
        Mapper::new(&map).unwrap_err().to_string()
    };
    let bucket = |map: &mut CrushMap, id: ItemId, change: fn(&mut model::Bucket)| {
        change(map.buckets.get_mut(&id).unwrap());
    };
    assert_eq!(
        refused(&|map| bucket(map, -2, |b| b.id = -9)),
        "bucket b1 is filed under -2 but calls itself -9; give it one id below 0"
    );
    assert_eq!(
        refused(&|map| bucket(map, -2, |b| b.kind = 0)),
        "bucket b1 has type 0, which is for devices; give it a type of its own"
    );
    assert_eq!(refused(&|map| bucket(map, -2, |b| b.hash = 1)), "bucket b1 asks for hash 1; only 0 (rjenkins1) exists");
    assert_eq!(refused(&|map| bucket(map, -2, |b| b.weights.truncate(1))), "bucket b1 has 2 items but 1 weights");
    assert_eq!(refused(&|map| bucket(map, -2, |b| b.straws = Some(vec![1]))), "bucket b1 has 2 items but 1 straws");
    for item in [4, -4, i32::MAX, i32::MIN] {
        let mut map = small();
        map.buckets.get_mut(&-2).unwrap().items[0] = item;
        let text = Mapper::new(&map).unwrap_err().to_string();
        assert_eq!(text, format!("bucket b1 holds item {item}, which is neither a bucket nor a device below 4"));
    }
    assert_eq!(
        refused(&|map| bucket(map, -2, |b| b.items[0] = -2)),
        "bucket b1 lies below itself; take it out of one of its parents"
    );
    assert_eq!(
        refused(&|map| bucket(map, -3, |b| b.items[1] = -1)),
        "bucket b2 lies below itself; take it out of one of its parents"
    );
    assert_eq!(
        refused(&|map| {
            let arg = ChooseArg { ids: Vec::new(), weight_set: vec![vec![Weight::ONE; 3]] };
            map.choose_args.insert(5, BTreeMap::from([(-2, arg)]));
        }),
        "choose_args 5 give bucket b1 a list of 3 where it has 2 items"
    );
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let mapper = Mapper::new(&small()).unwrap();
    assert_eq!(mapper.plan(7, 3, None).unwrap_err(), MapError::UnknownRule { rule: 7 });
    assert_eq!(mapper.plan(0, 1 << 16, None).unwrap_err(), MapError::TooManyPositions { positions: 1 << 16 });
    let mut workspace = Workspace::default();
    assert_eq!(mapper.map_rule(0, 5, 0, &[Weight::ONE; 4], None, &mut workspace).unwrap(), []);
}

#[test]
fn a_rule_that_would_try_for_ever_ends() {
    let mut map = small();
    for mode in [Mode::Firstn, Mode::Indep] {
        let steps = vec![
            Step::SetChooseTries(i32::MAX),
            Step::SetChooseLeafTries(i32::MAX),
            Step::SetChooseLocalFallbackTries(i32::MAX),
            Step::Take(-1),
            Step::ChooseLeaf { mode, num: i32::MAX, kind: 1 },
            Step::Emit,
        ];
        map.rules.insert(map.rules.len() as u32, rule(steps));
    }
    let mapper = Mapper::new(&map).unwrap().with_budget(1 << 20);
    let mut workspace = Workspace::default();
    // Nobody is in.
    assert_eq!(mapper.map_rule(1, 5, 3, &[], None, &mut workspace).unwrap(), []);
    assert_eq!(mapper.map_rule(2, 5, 3, &[], None, &mut workspace).unwrap(), [ITEM_NONE; 3]);

    // Nobody is there. So many places that no machine would come to the end of the tries.
    for bucket in map.buckets.values_mut() {
        bucket.items.clear();
        bucket.weights.clear();
    }
    let mapper = Mapper::new(&map).unwrap().with_budget(1 << 20);
    let many = MAX_POSITIONS;
    assert_eq!(mapper.map_rule(1, 5, many, &[], None, &mut workspace).unwrap(), []);
    assert_eq!(mapper.map_rule(2, 5, many, &[], None, &mut workspace).unwrap(), vec![ITEM_NONE; many as usize]);
}

#[test]
fn a_pool_without_weights_of_its_own_uses_the_default_ones() {
    let mut map = small();
    let only = |n: usize| {
        let mut weights = vec![Weight::ZERO; 2];
        weights[n] = Weight::ONE;
        let arg = |id| (id, ChooseArg { ids: Vec::new(), weight_set: vec![weights.clone()] });
        BTreeMap::from([arg(-1), arg(-2), arg(-3)])
    };
    map.choose_args.insert(-1, only(0));
    map.choose_args.insert(3, only(1));
    let mapper = Mapper::new(&map).unwrap();
    let mut workspace = Workspace::default();
    let mut first = |args| mapper.map_rule(0, 9, 1, &[Weight::ONE; 4], args, &mut workspace).unwrap()[0];
    assert_eq!([first(Some(3)), first(Some(-1)), first(Some(4))], [3, 0, 0]);
    assert!((0..4).contains(&first(None)));
}
