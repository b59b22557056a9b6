//! Random maps that are valid, for property tests: any seed gives one, the same one each time.

use std::collections::BTreeMap;

use crate::derive;
use crate::model::{
    Bucket, BucketAlg, ChooseArg, CrushMap, Device, ItemId, Mode, Rule, RuleKind, Step, Tunables, TypeId, Weight,
};
use crate::shadow;

/// A small generator of numbers (splitmix64): all that a test map needs.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let at = self.below(of.len() as u64) as usize;
        &of[at]
    }

    /// A weight as operators give them, or any other.
    pub(crate) fn weight(&mut self) -> Weight {
        match self.below(4) {
            0 => *self.pick(&[Weight::ZERO, Weight::ONE, Weight(0x8000), Weight::MAX_DEVICE]),
            1 => Weight(self.below(0x10000) as u32),
            _ => Weight(self.below(u64::from(Weight::MAX_DEVICE.0) + 1) as u32),
        }
    }
}

/// What a random map may have.
#[derive(Clone, Copy)]
pub(crate) struct Kinds {
    /// Straws of another version, which text cannot say.
    pub(crate) odd_straws: bool,
    /// Bucket kinds other than straw2.
    pub(crate) all_algs: bool,
}

pub(crate) fn random_map(seed: u64, kinds: Kinds) -> CrushMap {
    let mut dice = Dice(seed);
    let mut map = CrushMap { tunables: random_tunables(&mut dice), ..CrushMap::default() };
    for (id, name) in [(0, "osd"), (1, "host"), (3, "rack"), (10, "root")] {
        map.types.insert(id, name.to_owned());
    }
    let class_count = if dice.one_in(3) { 0 } else { 1 + dice.below(3) };
    let mut builder = Builder { dice, map, kinds, class_count, next_id: -1, next_device: 0 };
    for root in 0..1 + builder.dice.below(2) {
        builder.bucket(&format!("root{root}"), 10, &[3, 1]);
    }
    let Builder { mut dice, mut map, .. } = builder;
    name_classes(&mut map);
    map.cover_devices();
    shadow::populate(&mut map, &BTreeMap::new()).unwrap();
    for id in 0..dice.below(4) as u32 * 2 {
        if dice.one_in(4) {
            continue;
        }
        let rule = random_rule(&mut dice, &map, id);
        map.rules.insert(id, rule);
        map.max_rules = id + 1;
    }
    if map.rules.is_empty() {
        // Text without rules has no shadows to speak of unless it gives their ids, which it does; both are valid.
        map.max_rules = 0;
    }
    for set in [-1, 0, 7] {
        if dice.one_in(3) {
            let args = random_args(&mut dice, &map);
            map.choose_args.insert(set, args);
        }
    }
    map
}

struct Builder {
    dice: Dice,
    map: CrushMap,
    kinds: Kinds,
    class_count: u64,
    next_id: ItemId,
    next_device: ItemId,
}

impl Builder {
    fn bucket(&mut self, name: &str, kind: TypeId, below: &[TypeId]) -> (ItemId, Weight) {
        let (mut items, mut weights) = (Vec::new(), Vec::new());
        let algs = [BucketAlg::Straw2, BucketAlg::Straw, BucketAlg::List, BucketAlg::Tree, BucketAlg::Uniform];
        let mut alg =
            if self.kinds.all_algs && self.dice.one_in(2) { *self.dice.pick(&algs) } else { BucketAlg::Straw2 };
        if alg == BucketAlg::Uniform && (kind != 1 || self.class_count > 0) {
            alg = BucketAlg::Straw2;
        }
        let alike = self.dice.weight();
        for at in 0..self.dice.below(5) {
            let (item, weight) = match below.split_first() {
                Some((kind, below)) => self.bucket(&format!("{name}-{at}"), *kind, below),
                None => self.device(),
            };
            items.push(item);
            weights.push(if alg == BucketAlg::Uniform { alike } else { weight });
        }
        // Ids need not be dense, nor in order.
        self.next_id -= self.dice.below(3) as ItemId;
        let id = self.next_id;
        self.next_id -= 1;
        let mut bucket = Bucket {
            id,
            name: name.to_owned(),
            kind,
            alg,
            hash: 0,
            items,
            weights,
            weight: Weight::ZERO,
            straws: None,
        };
        bucket.weight = bucket.sum().unwrap();
        if self.kinds.odd_straws && alg == BucketAlg::Straw {
            let other = u8::from(self.map.tunables.straw_calc_version == 0);
            let ours = derive::straws(&bucket.weights, self.map.tunables.straw_calc_version);
            bucket.straws = Some(derive::straws(&bucket.weights, other)).filter(|straws| *straws != ours);
        }
        let weight = bucket.weight;
        self.map.insert_bucket(bucket);
        (id, weight)
    }

    fn device(&mut self) -> (ItemId, Weight) {
        self.next_device += self.dice.below(3) as ItemId;
        let id = self.next_device;
        self.next_device += 1;
        let class = (self.class_count > 0 && !self.dice.one_in(5)).then(|| self.dice.below(self.class_count) as i32);
        self.map.devices.insert(id, Device { name: format!("osd.{id}"), class });
        (id, self.dice.weight())
    }
}

/// Gives classes the numbers they get when the text is read: by the first device that has them.
fn name_classes(map: &mut CrushMap) {
    let mut numbers: BTreeMap<i32, i32> = BTreeMap::new();
    for device in map.devices.values_mut() {
        if let Some(class) = device.class {
            let next = numbers.len() as i32;
            device.class = Some(*numbers.entry(class).or_insert(next));
        }
    }
    map.classes = (0..numbers.len() as i32).map(|class| (class, format!("class{class}"))).collect();
}

fn random_tunables(dice: &mut Dice) -> Tunables {
    match dice.below(3) {
        0 => Tunables::LEGACY,
        1 => Tunables::JEWEL,
        _ => Tunables {
            choose_local_tries: dice.below(4) as u32,
            choose_local_fallback_tries: dice.below(6) as u32,
            choose_total_tries: dice.below(100) as u32,
            chooseleaf_descend_once: dice.below(2) as u32,
            chooseleaf_vary_r: dice.below(4) as u8,
            chooseleaf_stable: dice.below(2) as u8,
            straw_calc_version: dice.below(2) as u8,
            allowed_bucket_algs: dice.below(64) as u32,
        },
    }
}

fn random_rule(dice: &mut Dice, map: &CrushMap, id: u32) -> Rule {
    let buckets: Vec<ItemId> = map.buckets.keys().copied().collect();
    let mut steps = Vec::new();
    let setters: [fn(i32) -> Step; 6] = [
        Step::SetChooseTries,
        Step::SetChooseLeafTries,
        Step::SetChooseLocalTries,
        Step::SetChooseLocalFallbackTries,
        Step::SetChooseLeafVaryR,
        Step::SetChooseLeafStable,
    ];
    for _ in 0..dice.below(3) {
        let setter = dice.pick(&setters);
        steps.push(setter(dice.below(50) as i32));
    }
    let mode = if dice.one_in(2) { Mode::Firstn } else { Mode::Indep };
    steps.push(Step::Take(*dice.pick(&buckets)));
    if dice.one_in(3) {
        steps.push(Step::Choose { mode, num: dice.below(4) as i32 - 1, kind: 3 });
    }
    let num = dice.below(5) as i32 - 1;
    steps.push(match dice.below(3) {
        0 => Step::Choose { mode, num, kind: 0 },
        _ => Step::ChooseLeaf { mode, num, kind: *dice.pick(&[0, 1, 3]) },
    });
    steps.push(Step::Emit);
    let kind = *dice.pick(&[RuleKind::Replicated, RuleKind::Erasure, RuleKind::Other(9)]);
    let (min_size, max_size) = *dice.pick(&[(1, 10), (1, 100), (3, 20), (0, 255)]);
    Rule { name: format!("rule{id}"), kind, ruleset: id as u8, min_size, max_size, steps }
}

fn random_args(dice: &mut Dice, map: &CrushMap) -> BTreeMap<ItemId, ChooseArg> {
    let mut args = BTreeMap::new();
    for bucket in map.buckets.values().filter(|bucket| bucket.alg == BucketAlg::Straw2) {
        if dice.one_in(2) {
            continue;
        }
        let positions = dice.below(4);
        let mut arg = ChooseArg::default();
        for _ in 0..positions {
            arg.weight_set.push(bucket.items.iter().map(|_| dice.weight()).collect());
        }
        if dice.one_in(3) {
            arg.ids = bucket.items.iter().map(|item| item - 1000).collect();
        }
        if arg != ChooseArg::default() {
            args.insert(bucket.id, arg);
        }
    }
    args
}
