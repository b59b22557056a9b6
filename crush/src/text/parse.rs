//! The grammar: words to declarations. Names stay words here; what they stand for is for the compiler.
//!
//! Recursive descent with one word of look-ahead. Nothing nests deeper than the grammar does, so neither does the stack.

use super::lex::{Source, Word};
use super::suggest::nearest;
use super::{TextError, is_name};
use crate::model::{BucketAlg, ItemId, Mode, RuleKind, Weight};

/// A whole text, in its order.
#[derive(Debug, Default)]
pub(super) struct Declarations<'a> {
    pub(super) tunables: Vec<TunableLine<'a>>,
    pub(super) devices: Vec<DeviceLine<'a>>,
    pub(super) types: Vec<TypeLine<'a>>,
    pub(super) buckets: Vec<BucketBlock<'a>>,
    pub(super) rules: Vec<RuleBlock<'a>>,
    pub(super) choose_args: Vec<ChooseArgsBlock<'a>>,
}

/// A number and the word it was read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<'a> {
    pub(super) word: Word<'a>,
    pub(super) value: i64,
}

#[derive(Debug)]
pub(super) struct TunableLine<'a> {
    pub(super) name: Word<'a>,
    pub(super) value: Number<'a>,
}

#[derive(Debug)]
pub(super) struct DeviceLine<'a> {
    pub(super) id: Number<'a>,
    pub(super) name: Word<'a>,
    pub(super) class: Option<Word<'a>>,
}

#[derive(Debug)]
pub(super) struct TypeLine<'a> {
    pub(super) id: Number<'a>,
    pub(super) name: Word<'a>,
}

#[derive(Debug)]
pub(super) struct BucketBlock<'a> {
    pub(super) kind: Word<'a>,
    pub(super) name: Word<'a>,
    pub(super) id: Option<Number<'a>>,
    /// Ids of shadow buckets with their class.
    pub(super) shadows: Vec<(Number<'a>, Word<'a>)>,
    pub(super) alg: BucketAlg,
    pub(super) alg_word: Word<'a>,
    pub(super) hash: u8,
    pub(super) items: Vec<ItemLine<'a>>,
}

#[derive(Debug)]
pub(super) struct ItemLine<'a> {
    pub(super) name: Word<'a>,
    pub(super) weight: Option<(Word<'a>, Weight)>,
    pub(super) position: Option<Number<'a>>,
}

#[derive(Debug)]
pub(super) struct RuleBlock<'a> {
    pub(super) name: Option<Word<'a>>,
    pub(super) id: Number<'a>,
    pub(super) kind: RuleKind,
    pub(super) min_size: u8,
    pub(super) max_size: u8,
    pub(super) steps: Vec<StepLine<'a>>,
}

#[derive(Debug)]
pub(super) enum StepLine<'a> {
    Noop,
    Take { item: Word<'a>, class: Option<Word<'a>> },
    Emit,
    Choose { leaf: bool, mode: Mode, num: i32, kind: Word<'a> },
    Set { what: Setting, value: i32 },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Setting {
    ChooseTries,
    ChooseLeafTries,
    ChooseLocalTries,
    ChooseLocalFallbackTries,
    ChooseLeafVaryR,
    ChooseLeafStable,
}

#[derive(Debug)]
pub(super) struct ChooseArgsBlock<'a> {
    pub(super) set: Number<'a>,
    pub(super) args: Vec<ChooseArgBlock<'a>>,
}

#[derive(Debug)]
pub(super) struct ChooseArgBlock<'a> {
    pub(super) bucket: Number<'a>,
    /// Each position's weights, with the bracket they opened with.
    pub(super) weight_set: Vec<(Word<'a>, Vec<Weight>)>,
    pub(super) ids: Option<(Word<'a>, Vec<ItemId>)>,
}

/// Sizes a rule has when its text says none, as newer releases write rules.
pub(super) const DEFAULT_SIZES: (u8, u8) = (1, 100);

const SETTINGS: [(&str, Setting); 6] = [
    ("set_choose_tries", Setting::ChooseTries),
    ("set_chooseleaf_tries", Setting::ChooseLeafTries),
    ("set_choose_local_tries", Setting::ChooseLocalTries),
    ("set_choose_local_fallback_tries", Setting::ChooseLocalFallbackTries),
    ("set_chooseleaf_vary_r", Setting::ChooseLeafVaryR),
    ("set_chooseleaf_stable", Setting::ChooseLeafStable),
];

const ALGS: [(&str, BucketAlg); 5] = [
    ("straw2", BucketAlg::Straw2),
    ("straw", BucketAlg::Straw),
    ("list", BucketAlg::List),
    ("tree", BucketAlg::Tree),
    ("uniform", BucketAlg::Uniform),
];

/// Checks the grammar of a whole text.
pub(super) fn declarations<'a>(source: &'a Source<'a>) -> Result<Declarations<'a>, TextError> {
    let mut parser = Parser { source, at: 0 };
    parser.map()
}

struct Parser<'a> {
    source: &'a Source<'a>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn map(&mut self) -> Result<Declarations<'a>, TextError> {
        let mut map = Declarations::default();
        loop {
            match self.peek().text {
                "tunable" => map.tunables.push(self.tunable()?),
                "device" => map.devices.push(self.device()?),
                "type" => map.types.push(self.kind()?),
                _ => break,
            }
        }
        loop {
            let word = self.peek();
            match word.text {
                "" | "choose_args" => break,
                "rule" => map.rules.push(self.rule()?),
                "tunable" | "device" | "type" => {
                    let found = format!("a `{}` line behind a bucket or rule", word.text);
                    let expected = "all tunables, devices and types before the first bucket";
                    return Err(self.source.error_about(word, found, expected));
                }
                _ if !map.rules.is_empty()
                    && is_name(word.text)
                    && map.types.iter().any(|t| t.name.text == word.text) =>
                {
                    let found = format!("a bucket of type {} behind a rule", word.shown());
                    return Err(self.source.error_about(word, found, "all buckets before the first rule"));
                }
                _ => map.buckets.push(self.bucket(&map.types)?),
            }
        }
        while self.accept("choose_args").is_some() {
            map.choose_args.push(self.choose_args()?);
        }
        let word = self.peek();
        if !word.text.is_empty() {
            return Err(self.source.error(word, "`choose_args` or the end of the map"));
        }
        Ok(map)
    }

    fn tunable(&mut self) -> Result<TunableLine<'a>, TextError> {
        self.next();
        let name = self.name("the name of a tunable")?;
        Ok(TunableLine { name, value: self.number("its value, a number from 0 on", 0..=i64::from(u32::MAX))? })
    }

    fn device(&mut self) -> Result<DeviceLine<'a>, TextError> {
        self.next();
        let id = self.number("the id of a device, from 0 on", 0..=i64::from(i32::MAX))?;
        let name = self.name("the name of the device")?;
        Ok(DeviceLine { id, name, class: self.class()? })
    }

    fn kind(&mut self) -> Result<TypeLine<'a>, TextError> {
        self.next();
        let id = self.number("the number of a type, 0 to 65535", 0..=i64::from(u16::MAX))?;
        Ok(TypeLine { id, name: self.name("the name of the type")? })
    }

    /// `class NAME`, if it stands here.
    fn class(&mut self) -> Result<Option<Word<'a>>, TextError> {
        match self.accept("class") {
            Some(_) => self.name("the name of a device class").map(Some),
            None => Ok(None),
        }
    }

    fn bucket(&mut self, types: &[TypeLine<'a>]) -> Result<BucketBlock<'a>, TextError> {
        let kind = self.peek();
        if !is_name(kind.text) {
            return Err(self.source.error(kind, "a bucket (its type, name and `{`), `rule`, `choose_args` or the end"));
        }
        self.next();
        let known = types.iter().any(|known| known.name.text == kind.text);
        if !known && (!is_name(self.peek().text) || self.peek_second().text != "{") {
            // Not `TYPE NAME {`: more likely a slip in a keyword than a type nobody declared.
            let starts = ["tunable", "device", "type", "rule", "choose_args"];
            let types = types.iter().map(|known| known.name.text);
            let expected = "`tunable`, `device`, `type`, a bucket, `rule` or `choose_args`";
            return Err(self.slip(kind, expected, starts.into_iter().chain(types)));
        }
        let name = self.name("the name of the bucket")?;
        self.bracket("{", &format!("to open bucket `{}`", name.text))?;

        let (mut id, mut shadows) = (None, Vec::new());
        while let Some(keyword) = self.accept("id") {
            let number = self.number("the id of the bucket, a number below 0", i64::from(i32::MIN)..=-1)?;
            match self.class()? {
                Some(class) => shadows.push((number, class)),
                None if id.is_none() => id = Some(number),
                None => {
                    let found = format!("a second `id` in bucket `{}`", name.text);
                    return Err(self.source.error_about(keyword, found, "one `id`, and `id N class NAME` for shadows"));
                }
            }
        }
        let keyword = self.peek();
        if keyword.text != "alg" {
            let expected = format!("`alg` with how bucket `{}` draws", name.text);
            return Err(self.slip(keyword, expected, ["id", "alg"]));
        }
        self.next();
        let alg_word = self.peek();
        let Some((_, alg)) = ALGS.into_iter().find(|(name, _)| *name == alg_word.text) else {
            let algs = ALGS.map(|(name, _)| name);
            return Err(self.slip(alg_word, "a bucket algorithm (straw2, straw, list, tree or uniform)", algs));
        };
        self.next();
        let mut hash = 0;
        while self.accept("hash").is_some() {
            hash = match self.accept("rjenkins1") {
                Some(_) => 0,
                None => self.small("a hash function, `0` or `rjenkins1`")?,
            };
        }
        let mut items = Vec::new();
        while self.accept("item").is_some() {
            items.push(self.item()?);
        }
        let close = self.peek();
        if close.text != "}" {
            let expected = format!("`item` or `}}` to close bucket `{}`", name.text);
            return Err(self.slip(close, expected, ["hash", "item", "weight", "pos"]));
        }
        self.next();
        Ok(BucketBlock { kind, name, id, shadows, alg, alg_word, hash, items })
    }

    fn item(&mut self) -> Result<ItemLine<'a>, TextError> {
        let name = self.name("the name of a device or bucket")?;
        let weight = match self.accept("weight") {
            Some(_) => Some(self.weight()?),
            None => None,
        };
        let position = match self.accept("pos") {
            Some(_) => Some(self.number("a position, from 0 on", 0..=i64::from(u32::MAX))?),
            None => None,
        };
        Ok(ItemLine { name, weight, position })
    }

    fn rule(&mut self) -> Result<RuleBlock<'a>, TextError> {
        self.next();
        let name = match self.peek().text {
            "{" => None,
            _ => Some(self.name("the name of a rule or `{`")?),
        };
        self.bracket("{", "to open the rule")?;
        let keyword = self.peek();
        if !matches!(keyword.text, "id" | "ruleset") {
            return Err(self.slip(keyword, "`id` with the number of the rule", ["id", "ruleset"]));
        }
        self.next();
        let id = self.number("the number of the rule, 0 to 255", 0..=255)?;
        self.keyword("type", "`type` with what the rule is for")?;
        let kind = self.rule_kind()?;
        let (mut min_size, mut max_size) = DEFAULT_SIZES;
        if self.accept("min_size").is_some() {
            min_size = self.small("the least size of a pool, 0 to 255")?;
        }
        if self.accept("max_size").is_some() {
            max_size = self.small("the largest size of a pool, 0 to 255")?;
        }
        let mut steps = Vec::new();
        while self.accept("step").is_some() {
            steps.push(self.step()?);
        }
        let close = self.peek();
        if close.text != "}" {
            let known = ["min_size", "max_size", "step"];
            return Err(self.slip(close, "`step` or `}` to close the rule", known));
        }
        self.next();
        Ok(RuleBlock { name, id, kind, min_size, max_size, steps })
    }

    fn rule_kind(&mut self) -> Result<RuleKind, TextError> {
        let word = self.peek();
        let kind = match word.text {
            "replicated" => RuleKind::Replicated,
            "erasure" => RuleKind::Erasure,
            "msr_firstn" | "msr_indep" => {
                let mut error = self.source.error(word, "`replicated` or `erasure`");
                error.hint =
                    Some("rules of this newer kind are not supported; write the choices as `chooseleaf`".to_owned());
                return Err(error);
            }
            _ => match word.text.parse::<u8>() {
                Ok(number) => RuleKind::from(number),
                Err(_) => return Err(self.slip(word, "`replicated` or `erasure`", ["replicated", "erasure"])),
            },
        };
        self.next();
        Ok(kind)
    }

    fn step(&mut self) -> Result<StepLine<'a>, TextError> {
        let word = self.next();
        if let Some((_, what)) = SETTINGS.into_iter().find(|(name, _)| *name == word.text) {
            return Ok(StepLine::Set { what, value: self.int("how many, a number")? });
        }
        match word.text {
            "noop" => Ok(StepLine::Noop),
            "emit" => Ok(StepLine::Emit),
            "take" => {
                let item = self.peek();
                if let Some((original, class)) = item.text.split_once('~') {
                    let mut error = self.source.error(item, "the name of a bucket or device");
                    error.hint =
                        Some(format!("shadow buckets go by their class: `step take {original} class {class}`"));
                    return Err(error);
                }
                Ok(StepLine::Take { item: self.name("the name of a bucket or device")?, class: self.class()? })
            }
            "choose" | "chooseleaf" => {
                let mode = self.peek();
                let mode = match mode.text {
                    "firstn" => Mode::Firstn,
                    "indep" => Mode::Indep,
                    _ => return Err(self.slip(mode, "`firstn` or `indep`", ["firstn", "indep"])),
                };
                self.next();
                let num = self.int("how many to choose (0 for as many as the pool has)")?;
                self.keyword("type", "`type` with what to choose")?;
                let kind = self.name("the name of a type")?;
                Ok(StepLine::Choose { leaf: word.text == "chooseleaf", mode, num, kind })
            }
            _ => {
                let known = ["take", "choose", "chooseleaf", "emit", "noop"];
                let known = known.into_iter().chain(SETTINGS.map(|(name, _)| name));
                let expected = "a step: take, choose, chooseleaf, emit, noop or one of set_*";
                Err(self.slip(word, expected, known))
            }
        }
    }

    fn choose_args(&mut self) -> Result<ChooseArgsBlock<'a>, TextError> {
        let set = self.number("the pool id of the weight sets, or -1 for the default", i64::MIN..=i64::MAX)?;
        self.bracket("{", "to open choose_args")?;
        let mut args = Vec::new();
        while self.accept("{").is_some() {
            args.push(self.choose_arg()?);
        }
        self.bracket("}", "to close choose_args, or `{` for one more bucket")?;
        Ok(ChooseArgsBlock { set, args })
    }

    fn choose_arg(&mut self) -> Result<ChooseArgBlock<'a>, TextError> {
        self.keyword("bucket_id", "`bucket_id` with the bucket whose weights follow")?;
        let bucket = self.number("the id of a bucket, a number below 0", i64::from(i32::MIN)..=-1)?;
        let mut weight_set = Vec::new();
        if self.accept("weight_set").is_some() {
            self.bracket("[", "to open the weight set")?;
            while let Some(open) = self.accept("[") {
                let mut weights = Vec::new();
                while self.accept("]").is_none() {
                    weights.push(self.weight()?.1);
                }
                weight_set.push((open, weights));
            }
            self.bracket("]", "to close the weight set, or `[` for one more position")?;
        }
        let mut ids = None;
        if self.accept("ids").is_some() {
            let open = self.bracket("[", "to open the ids")?;
            let mut list = Vec::new();
            while self.accept("]").is_none() {
                list.push(self.int("an id or `]`")?);
            }
            ids = Some((open, list));
        }
        let close = self.peek();
        if close.text != "}" {
            let known = ["weight_set", "ids"];
            return Err(self.slip(close, "`weight_set`, `ids` or `}` to close the bucket's arguments", known));
        }
        self.next();
        Ok(ChooseArgBlock { bucket, weight_set, ids })
    }

    fn peek(&self) -> Word<'a> {
        self.word_at(self.at)
    }

    fn peek_second(&self) -> Word<'a> {
        self.word_at(self.at.saturating_add(1))
    }

    fn word_at(&self, at: usize) -> Word<'a> {
        let last = self.source.words.len().saturating_sub(1);
        self.source.words[at.min(last)]
    }

    /// The next word; the end stays where it is.
    fn next(&mut self) -> Word<'a> {
        let word = self.peek();
        self.at += usize::from(!word.text.is_empty());
        word
    }

    fn accept(&mut self, text: &str) -> Option<Word<'a>> {
        (self.peek().text == text).then(|| self.next())
    }

    fn keyword(&mut self, keyword: &str, expected: &str) -> Result<Word<'a>, TextError> {
        match self.accept(keyword) {
            Some(word) => Ok(word),
            None => Err(self.slip(self.peek(), expected, [keyword])),
        }
    }

    fn bracket(&mut self, bracket: &str, why: &str) -> Result<Word<'a>, TextError> {
        let word = self.peek();
        self.accept(bracket).ok_or_else(|| self.source.error(word, format!("`{bracket}` {why}")))
    }

    fn name(&mut self, expected: &str) -> Result<Word<'a>, TextError> {
        let word = self.peek();
        if is_name(word.text) {
            return Ok(self.next());
        }
        let mut error = self.source.error(word, expected);
        if !word.text.is_empty() && !"{}[]".contains(word.text) {
            error.hint = Some("names have letters, digits, `_`, `-` and `.`".to_owned());
        }
        Err(error)
    }

    fn number(&mut self, expected: &str, range: std::ops::RangeInclusive<i64>) -> Result<Number<'a>, TextError> {
        let word = self.peek();
        match word.text.parse::<i64>() {
            Ok(value) if range.contains(&value) && !word.text.starts_with('+') => {
                Ok(Number { word: self.next(), value })
            }
            _ => Err(self.source.error(word, expected)),
        }
    }

    fn int(&mut self, expected: &str) -> Result<i32, TextError> {
        let number = self.number(expected, i64::from(i32::MIN)..=i64::from(i32::MAX))?;
        i32::try_from(number.value).map_err(|_| self.source.error(number.word, expected))
    }

    fn small(&mut self, expected: &str) -> Result<u8, TextError> {
        let number = self.number(expected, 0..=255)?;
        u8::try_from(number.value).map_err(|_| self.source.error(number.word, expected))
    }

    fn weight(&mut self) -> Result<(Word<'a>, Weight), TextError> {
        let word = self.peek();
        match super::weight::read(word.text) {
            Some(weight) => Ok((self.next(), weight)),
            None => Err(self.source.error(word, "a weight, a decimal from 0 to 65535")),
        }
    }

    /// The error for a word that may be a slip for one of the known ones.
    fn slip<'k>(
        &self,
        word: Word<'a>,
        expected: impl Into<String>,
        known: impl IntoIterator<Item = &'k str>,
    ) -> TextError {
        let mut error = self.source.error(word, expected);
        error.hint = nearest(word.text, known).map(|near| format!("did you mean `{near}`?"));
        error
    }
}
