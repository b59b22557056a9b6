//! Declarations to a map: names become ids, missing ids and weights are given, shadow trees are built.
//!
//! Ids are given as `crushtool -c` gives them, so that the binary form of a text is the same. Buckets may stand in any
//! order; weights not given are those of the bucket, so children are done before their parents.

use std::collections::{BTreeMap, BTreeSet};

use super::TextError;
use super::lex::{Source, Word};
use super::parse::{
    BucketBlock, ChooseArgBlock, ChooseArgsBlock, Declarations, DeviceLine, ItemLine, RuleBlock, Setting, StepLine,
    TunableLine, TypeLine,
};
use super::suggest::nearest;
use crate::model::{
    Bucket, BucketAlg, ChooseArg, ClassId, CrushMap, Device, ItemId, MAX_BUCKETS, MAX_DEVICES, MAX_TREE_ITEMS,
    MsrTunables, Rule, RuleId, Step, Tunables, TypeId, Weight,
};
use crate::shadow::{self, ShadowIds};

const TUNABLES: [&str; 10] = [
    "choose_local_tries",
    "choose_local_fallback_tries",
    "choose_total_tries",
    "chooseleaf_descend_once",
    "chooseleaf_vary_r",
    "chooseleaf_stable",
    "straw_calc_version",
    "allowed_bucket_algs",
    "msr_descents",
    "msr_collision_tries",
];

pub(super) fn compile<'a>(source: &'a Source<'a>, from: &'a Declarations<'a>) -> Result<CrushMap, TextError> {
    let mut compiler = Compiler {
        source,
        from,
        map: CrushMap { tunables: Tunables::LEGACY, ..CrushMap::default() },
        names: BTreeMap::new(),
        types: BTreeMap::new(),
        shadow_ids: ShadowIds::new(),
        done: BTreeMap::new(),
        next_id: -1,
    };
    compiler.compile()?;
    Ok(compiler.map)
}

/// A device or the block of a bucket.
#[derive(Clone, Copy, Debug)]
enum Named {
    Device(ItemId),
    Bucket(usize),
}

struct Compiler<'a> {
    source: &'a Source<'a>,
    from: &'a Declarations<'a>,
    map: CrushMap,
    names: BTreeMap<&'a str, (Named, Word<'a>)>,
    types: BTreeMap<&'a str, TypeId>,
    shadow_ids: ShadowIds,
    /// Ids of the bucket blocks that are in the map.
    done: BTreeMap<usize, ItemId>,
    /// Where to look for the next free id.
    next_id: ItemId,
}

impl<'a> Compiler<'a> {
    fn compile(&mut self) -> Result<(), TextError> {
        for line in &self.from.tunables {
            self.tunable(line)?;
        }
        for line in &self.from.types {
            self.kind(line)?;
        }
        for line in &self.from.devices {
            self.device(line)?;
        }
        for (index, block) in self.from.buckets.iter().enumerate() {
            self.define(block.name, Named::Bucket(index))?;
        }
        let used = self.given_ids()?;
        for index in self.children_first()? {
            if let Some(block) = self.from.buckets.get(index) {
                self.bucket(index, block, &used)?;
            }
        }
        // Without rules nobody takes from a shadow tree, and crushtool makes none then; ids that are given are kept.
        if !self.from.rules.is_empty() || !self.shadow_ids.is_empty() {
            self.shadows()?;
        }
        for block in &self.from.rules {
            self.rule(block)?;
        }
        for block in &self.from.choose_args {
            self.choose_args(block)?;
        }
        self.map.cover_devices();
        Ok(())
    }

    fn tunable(&mut self, line: &TunableLine<'a>) -> Result<(), TextError> {
        let error = |expected: &str| Err(self.source.error(line.value.word, expected));
        let Ok(value) = u32::try_from(line.value.value) else { return error("a number below 4294967296") };
        let small = u8::try_from(value);
        let tunables = &mut self.map.tunables;
        match (line.name.text, small) {
            ("choose_local_tries", _) => tunables.choose_local_tries = value,
            ("choose_local_fallback_tries", _) => tunables.choose_local_fallback_tries = value,
            ("choose_total_tries", _) => tunables.choose_total_tries = value,
            ("chooseleaf_descend_once", _) => tunables.chooseleaf_descend_once = u32::from(value != 0),
            ("allowed_bucket_algs", _) => tunables.allowed_bucket_algs = value,
            ("chooseleaf_vary_r", Ok(small)) => tunables.chooseleaf_vary_r = small,
            ("chooseleaf_stable", Ok(small)) => tunables.chooseleaf_stable = small,
            ("straw_calc_version", Ok(small)) => tunables.straw_calc_version = small,
            ("chooseleaf_vary_r" | "chooseleaf_stable" | "straw_calc_version", Err(_)) => return error("0 to 255"),
            ("msr_descents", _) => self.msr().descents = value,
            ("msr_collision_tries", _) => self.msr().collision_tries = value,
            _ => {
                let mut error = self.source.error(line.name, "the name of a tunable");
                error.hint = Some(match nearest(line.name.text, TUNABLES) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", TUNABLES.join(", ")),
                });
                return Err(error);
            }
        }
        Ok(())
    }

    fn msr(&mut self) -> &mut MsrTunables {
        self.map.msr.get_or_insert(MsrTunables { descents: 100, collision_tries: 100 })
    }

    fn kind(&mut self, line: &TypeLine<'a>) -> Result<(), TextError> {
        let Ok(id) = TypeId::try_from(line.id.value) else {
            return Err(self.source.error(line.id.word, "the number of a type, 0 to 65535"));
        };
        if let Some(name) = self.map.types.get(&id) {
            let found = format!("number {id}, which is type `{name}`'s");
            return Err(self.source.error_about(line.id.word, found, "a number of its own for each type"));
        }
        if self.types.insert(line.name.text, id).is_some() {
            return Err(self.source.error_about(
                line.name,
                format!("a second type {}", line.name.shown()),
                "a new name",
            ));
        }
        self.map.types.insert(id, line.name.text.to_owned());
        Ok(())
    }

    fn device(&mut self, line: &DeviceLine<'a>) -> Result<(), TextError> {
        let id = match ItemId::try_from(line.id.value) {
            Ok(id) if (id as u32) < MAX_DEVICES => id,
            _ => return Err(self.source.error(line.id.word, format!("the id of a device, below {MAX_DEVICES}"))),
        };
        if let Some(other) = self.map.devices.get(&id) {
            let found = format!("id {id}, which is `{}`'s", other.name);
            return Err(self.source.error_about(line.id.word, found, "an id of its own for each device"));
        }
        self.define(line.name, Named::Device(id))?;
        let class = line.class.map(|class| self.class(class));
        self.map.devices.insert(id, Device { name: line.name.text.to_owned(), class });
        Ok(())
    }

    /// The id of a class, a new one if nobody spoke of it yet.
    fn class(&mut self, name: Word<'a>) -> ClassId {
        if let Some(id) = self.map.class_id(name.text) {
            return id;
        }
        let id = self.map.classes.keys().next_back().map_or(0, |last| last.saturating_add(1));
        self.map.classes.insert(id, name.text.to_owned());
        id
    }

    fn define(&mut self, name: Word<'a>, what: Named) -> Result<(), TextError> {
        if let Some((_, first)) = self.names.get(name.text) {
            let found = format!("{}, which is defined on line {}", name.shown(), first.line());
            return Err(self.source.error_about(name, found, "a name of its own for each device and bucket"));
        }
        self.names.insert(name.text, (what, name));
        Ok(())
    }

    /// All bucket ids the text gives, shadows included.
    fn given_ids(&self) -> Result<BTreeSet<ItemId>, TextError> {
        let mut used = BTreeSet::new();
        for block in &self.from.buckets {
            let shadows = block.shadows.iter().map(|(number, _)| number);
            for number in block.id.iter().chain(shadows) {
                let id = self.bucket_id(number.value);
                let id =
                    id.ok_or_else(|| self.source.error(number.word, format!("an id from -{MAX_BUCKETS} to -1")))?;
                if !used.insert(id) {
                    let found = format!("id {id} a second time");
                    return Err(self.source.error_about(number.word, found, "an id of its own for each bucket"));
                }
            }
        }
        Ok(used)
    }

    fn bucket_id(&self, value: i64) -> Option<ItemId> {
        (-i64::from(MAX_BUCKETS)..=-1).contains(&value).then(|| ItemId::try_from(value).ok()).flatten()
    }

    /// The bucket blocks in the order of the text, but each behind those it holds.
    fn children_first(&self) -> Result<Vec<usize>, TextError> {
        let mut order = Vec::new();
        // Absent: not seen. False: the path leads through it. True: in the order.
        let mut done: BTreeMap<usize, bool> = BTreeMap::new();
        for start in 0..self.from.buckets.len() {
            let mut path = vec![(start, 0)];
            while let Some((index, at)) = path.last_mut() {
                let (index, item) = (*index, *at);
                *at += 1;
                if item == 0 && done.get(&index) == Some(&true) {
                    path.pop();
                    continue;
                }
                done.entry(index).or_insert(false);
                let Some(line) = self.from.buckets.get(index).and_then(|block| block.items.get(item)) else {
                    done.insert(index, true);
                    order.push(index);
                    path.pop();
                    continue;
                };
                let Some((Named::Bucket(child), _)) = self.names.get(line.name.text) else { continue };
                match done.get(child) {
                    Some(true) => {}
                    None => path.push((*child, 0)),
                    Some(false) => {
                        let found = format!("{}, which holds this bucket itself", line.name.shown());
                        return Err(self.source.error_about(line.name, found, "buckets that form a tree"));
                    }
                }
            }
        }
        Ok(order)
    }

    fn bucket(&mut self, index: usize, block: &'a BucketBlock<'a>, used: &BTreeSet<ItemId>) -> Result<(), TextError> {
        let kind = self.type_of(block.kind)?;
        if kind == 0 {
            let found = format!("{}, the type of devices", block.kind.shown());
            return Err(self.source.error_about(block.kind, found, "a bucket type with a number from 1 on"));
        }
        let (items, weights) = self.items(block)?;
        if block.alg == BucketAlg::Tree && items.len() > MAX_TREE_ITEMS {
            let found = format!("a tree bucket with {} items", items.len());
            let expected = format!("at most {MAX_TREE_ITEMS}; straw2 takes any number");
            return Err(self.source.error_about(block.alg_word, found, expected));
        }
        let id = match block.id.and_then(|number| self.bucket_id(number.value)) {
            Some(id) => id,
            None => self.free_id(used, block)?,
        };
        for (number, class) in &block.shadows {
            let class_id = self.class(*class);
            let shadow = self.bucket_id(number.value).unwrap_or_default();
            if self.shadow_ids.entry(id).or_default().insert(class_id, shadow).is_some() {
                let found = format!("class {} a second time", class.shown());
                return Err(self.source.error_about(*class, found, "one id for each class"));
            }
        }
        let name = block.name.text.to_owned();
        let bucket = Bucket {
            id,
            name,
            kind,
            alg: block.alg,
            hash: block.hash,
            items,
            weights,
            weight: Weight::ZERO,
            straws: None,
        };
        let Some(weight) = bucket.sum() else {
            let found = format!("bucket {}, whose items weigh more than 65535 together", block.name.shown());
            return Err(self.source.error_about(block.name, found, "less weight below a bucket"));
        };
        self.map.insert_bucket(Bucket { weight, ..bucket });
        self.done.insert(index, id);
        Ok(())
    }

    /// The highest id below the last one given that no bucket has.
    fn free_id(&mut self, used: &BTreeSet<ItemId>, block: &'a BucketBlock<'a>) -> Result<ItemId, TextError> {
        while used.contains(&self.next_id) {
            self.next_id -= 1;
        }
        let id = self.bucket_id(self.next_id.into());
        self.next_id -= 1;
        id.ok_or_else(|| {
            let found = format!("bucket {} without a free id", block.name.shown());
            self.source.error_about(block.name, found, format!("at most {MAX_BUCKETS} buckets"))
        })
    }

    /// The items of a bucket at their positions: those with `pos` there, the others in the places left, in order.
    fn items(&self, block: &'a BucketBlock<'a>) -> Result<(Vec<ItemId>, Vec<Weight>), TextError> {
        let size = block.items.len();
        let mut taken = BTreeSet::new();
        for line in &block.items {
            if let Some(position) = line.position
                && (position.value >= size as i64 || !taken.insert(position.value as usize))
            {
                let expected = format!("a position below {size} that is free");
                return Err(self.source.error(position.word, expected));
            }
        }
        let mut free = (0..size).filter(|position| !taken.contains(position));
        let mut placed: Vec<(ItemId, Weight)> = vec![(0, Weight::ZERO); size];
        let mut first: Option<Weight> = None;
        for line in &block.items {
            let (item, weight) = self.item(line)?;
            if block.alg == BucketAlg::Uniform && weight != *first.get_or_insert(weight) {
                let word = line.weight.map_or(line.name, |(word, _)| word);
                let found = format!("weight {}", super::weight::print(weight));
                let wanted = super::weight::print(first.unwrap_or_default());
                let expected = format!("{wanted} as for the items before: those of a uniform bucket weigh the same");
                return Err(self.source.error_about(word, found, expected));
            }
            let position = line.position.map(|number| number.value as usize).or_else(|| free.next());
            if let Some(place) = position.and_then(|position| placed.get_mut(position)) {
                *place = (item, weight);
            }
        }
        Ok(placed.into_iter().unzip())
    }

    fn item(&self, line: &ItemLine<'a>) -> Result<(ItemId, Weight), TextError> {
        let item = self.named(line.name, "a device or bucket")?;
        let Some((word, weight)) = line.weight else {
            return Ok((item, self.map.buckets.get(&item).map_or(Weight::ONE, |bucket| bucket.weight)));
        };
        let (what, most) = if item >= 0 { ("device", Weight::MAX_DEVICE) } else { ("bucket", Weight::MAX_BUCKET) };
        if weight > most {
            return Err(self.source.error(word, format!("at most {} for a {what}", most.as_f64())));
        }
        Ok((item, weight))
    }

    /// The id behind the name of a device or of a bucket that is in the map.
    fn named(&self, name: Word<'a>, expected: &str) -> Result<ItemId, TextError> {
        let id = match self.names.get(name.text) {
            Some((Named::Device(id), _)) => Some(*id),
            Some((Named::Bucket(index), _)) => self.done.get(index).copied(),
            None => self.nameless_device(name.text),
        };
        id.ok_or_else(|| {
            let mut error = self.source.error_about(name, format!("{}, which is not defined", name.shown()), expected);
            let near = nearest(name.text, self.names.keys().copied());
            error.hint = near.map(|near| format!("did you mean `{near}`?"));
            error
        })
    }

    /// `device5` is device 5 if nobody gave that a name.
    fn nameless_device(&self, name: &str) -> Option<ItemId> {
        let id: ItemId = name.strip_prefix("device")?.parse().ok()?;
        ((0..MAX_DEVICES as ItemId).contains(&id) && !self.map.devices.contains_key(&id)).then_some(id)
    }

    fn type_of(&self, name: Word<'a>) -> Result<TypeId, TextError> {
        if let Some(id) = self.types.get(name.text) {
            return Ok(*id);
        }
        // What a type without a name is printed as.
        let nameless = match name.text {
            "device" => Some(0),
            text => text.strip_prefix("type").and_then(|number| number.parse().ok()),
        };
        match nameless.filter(|id| !self.map.types.contains_key(id)) {
            Some(id) => Ok(id),
            None => {
                let found = format!("type {}, which is not defined", name.shown());
                let mut error = self.source.error_about(name, found, "one of the types above");
                let near = nearest(name.text, self.types.keys().copied());
                error.hint = near.map(|near| format!("did you mean `{near}`?"));
                Err(error)
            }
        }
    }

    fn shadows(&mut self) -> Result<(), TextError> {
        shadow::populate(&mut self.map, &self.shadow_ids).map_err(|problem| {
            // The problem names its bucket; the first class is as good a place as any to point at.
            let with_class = self.from.devices.iter().find_map(|line| line.class);
            let shadow = self.from.buckets.iter().find_map(|block| block.shadows.first()).map(|(_, class)| *class);
            let word = with_class.or(shadow).or_else(|| self.source.words.last().copied());
            let mut error = self.source.error(
                word.unwrap_or_else(|| self.source.words[0]),
                "classes that every bucket can have a shadow tree for",
            );
            error.hint = Some(problem.to_string());
            error
        })
    }

    fn rule(&mut self, block: &'a RuleBlock<'a>) -> Result<(), TextError> {
        let id = block.id.value as RuleId;
        if self.map.rules.contains_key(&id) {
            let found = format!("rule number {id} a second time");
            return Err(self.source.error_about(block.id.word, found, "a number of its own for each rule"));
        }
        if let Some(name) = block.name.filter(|name| self.map.rule_id(name.text).is_some()) {
            return Err(self.source.error_about(name, format!("a second rule {}", name.shown()), "a new name"));
        }
        let mut steps = Vec::new();
        for line in &block.steps {
            steps.push(self.step(line)?);
        }
        let rule = Rule {
            name: block.name.map(|name| name.text.to_owned()).unwrap_or_default(),
            kind: block.kind,
            ruleset: id as u8,
            min_size: block.min_size,
            max_size: block.max_size,
            steps,
        };
        self.map.rules.insert(id, rule);
        self.map.max_rules = self.map.max_rules.max(id + 1);
        Ok(())
    }

    fn step(&self, line: &StepLine<'a>) -> Result<Step, TextError> {
        Ok(match *line {
            StepLine::Noop => Step::Noop,
            StepLine::Emit => Step::Emit,
            StepLine::Take { item, class } => {
                let id = self.named(item, "a device or bucket to start from")?;
                Step::Take(match class {
                    Some(class) => self.shadow_of(id, item, class)?,
                    None => id,
                })
            }
            StepLine::Choose { leaf: false, mode, num, kind } => Step::Choose { mode, num, kind: self.type_of(kind)? },
            StepLine::Choose { leaf: true, mode, num, kind } => {
                Step::ChooseLeaf { mode, num, kind: self.type_of(kind)? }
            }
            StepLine::Set { what, value } => match what {
                Setting::ChooseTries => Step::SetChooseTries(value),
                Setting::ChooseLeafTries => Step::SetChooseLeafTries(value),
                Setting::ChooseLocalTries => Step::SetChooseLocalTries(value),
                Setting::ChooseLocalFallbackTries => Step::SetChooseLocalFallbackTries(value),
                Setting::ChooseLeafVaryR => Step::SetChooseLeafVaryR(value),
                Setting::ChooseLeafStable => Step::SetChooseLeafStable(value),
            },
        })
    }

    fn shadow_of(&self, id: ItemId, item: Word<'a>, class: Word<'a>) -> Result<ItemId, TextError> {
        let Some(class_id) = self.map.class_id(class.text) else {
            let found = format!("class {}, which no device has", class.shown());
            let mut error = self.source.error_about(class, found, "a class of the devices above");
            let near = nearest(class.text, self.map.classes.values().map(String::as_str));
            error.hint = near.map(|near| format!("did you mean `{near}`?"));
            return Err(error);
        };
        let shadow = self.map.shadows.get(&id).and_then(|by_class| by_class.get(&class_id));
        shadow.copied().ok_or_else(|| {
            let found = format!("class {} of {}", class.shown(), item.shown());
            self.source.error_about(class, found, "a class only where a bucket is taken")
        })
    }

    fn choose_args(&mut self, block: &'a ChooseArgsBlock<'a>) -> Result<(), TextError> {
        let set = block.set.value;
        if self.map.choose_args.contains_key(&set) {
            let found = format!("choose_args {set} a second time");
            return Err(self.source.error_about(block.set.word, found, "one choose_args for each pool"));
        }
        let mut args = BTreeMap::new();
        for arg in &block.args {
            let (bucket, made) = self.choose_arg(arg)?;
            let empty = made == ChooseArg::default();
            if args.contains_key(&bucket) {
                let found = format!("bucket {bucket} a second time");
                return Err(self.source.error_about(arg.bucket.word, found, "each bucket once"));
            }
            if !empty {
                args.insert(bucket, made);
            }
        }
        self.map.choose_args.insert(set, args);
        Ok(())
    }

    fn choose_arg(&self, block: &'a ChooseArgBlock<'a>) -> Result<(ItemId, ChooseArg), TextError> {
        let bucket = self.bucket_id(block.bucket.value).and_then(|id| self.map.buckets.get(&id));
        let Some(bucket) = bucket else {
            let found = format!("{}, which no bucket has", block.bucket.word.shown());
            return Err(self.source.error_about(block.bucket.word, found, "the id of a bucket above"));
        };
        let size = bucket.items.len();
        let mut arg = ChooseArg::default();
        for (open, weights) in &block.weight_set {
            if weights.len() != size {
                let found = format!("{} weights", weights.len());
                let expected = format!("{size}, one for each item of bucket `{}`", bucket.name);
                return Err(self.source.error_about(*open, found, expected));
            }
            arg.weight_set.push(weights.clone());
        }
        if let Some((open, ids)) = &block.ids {
            if ids.len() != size {
                let found = format!("{} ids", ids.len());
                let expected = format!("{size}, one for each item of bucket `{}`", bucket.name);
                return Err(self.source.error_about(*open, found, expected));
            }
            arg.ids.clone_from(ids);
        }
        Ok((bucket.id, arg))
    }
}
