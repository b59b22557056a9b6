//! What can be wrong with a map, in words.

use crate::model::{ItemId, MAX_TREE_ITEMS, RuleId, TypeId, Weight};

/// How bad a flaw is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The map cannot be used, or does not do what it says.
    Error,
    /// The map works, but this looks like a slip.
    Warning,
}

/// One thing that is wrong with a map. Items are shown with their type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are the words of the text beside them")]
pub enum Flaw {
    #[error("bucket {shown} is filed under {key} but calls itself {id}")]
    BucketId { shown: String, key: ItemId, id: ItemId },
    #[error("{parent} holds {item}, which holds {parent}: buckets must form a tree")]
    Cycle { parent: String, item: String },
    #[error("{item} is in both {first} and {second}; take it out of one")]
    TwoParents { item: String, first: String, second: String },
    #[error("{bucket} holds {item} twice")]
    Twice { bucket: String, item: String },
    #[error("{bucket} holds {item}, which is not in the map")]
    UnknownItem { bucket: String, item: ItemId },
    #[error("{bucket} holds device {device}, but the map says its devices end below {max_devices}")]
    DeviceBeyond { bucket: String, device: ItemId, max_devices: u32 },
    #[error("{bucket} has a slot beyond the {max_buckets} the map says it has")]
    BucketBeyond { bucket: String, max_buckets: u32 },
    #[error("{bucket} is of type {kind}, which has no name; declare it")]
    MissingType { bucket: String, kind: TypeId },
    #[error("{bucket} is of type 0, which is that of devices")]
    DeviceType { bucket: String },
    #[error("{name} names {first} and {second}; rename one")]
    DuplicateName { name: String, first: String, second: String },
    #[error("{what} {id} has no name, so the text form cannot keep it")]
    NoName { what: &'static str, id: i64 },
    #[error("{name:?} is no name for a {what}: names have letters, digits, `_`, `-` and `.`")]
    BadName { what: &'static str, name: String },
    #[error("{bucket} has {items} items but {weights} weights")]
    WeightCount { bucket: String, items: usize, weights: usize },
    #[error("{bucket} has {items} items but {straws} straws")]
    StrawCount { bucket: String, items: usize, straws: usize },
    #[error("{item} weighs {} in {bucket}; the most is {}", weight.as_f64(), most.as_f64())]
    WeightRange { item: String, bucket: String, weight: Weight, most: Weight },
    #[error("the items of {bucket} weigh more than 65535 together")]
    TooHeavy { bucket: String },
    #[error("{bucket} says it weighs {}, its items weigh {} together", weight.as_f64(), sum.as_f64())]
    WrongSum { bucket: String, weight: Weight, sum: Weight },
    #[error("{item} weighs {} but {} in {bucket}; reweight it to settle that", own.as_f64(), held.as_f64())]
    WeightDrift { item: String, bucket: String, own: Weight, held: Weight },
    #[error("{bucket} is uniform but its items weigh differently; they all draw alike")]
    Uneven { bucket: String },
    #[error("{bucket} is a tree bucket with {items} items; the most is {MAX_TREE_ITEMS}")]
    TreeTooLarge { bucket: String, items: usize },
    #[error("{bucket} draws by hash {hash}; only 0 (rjenkins1) exists")]
    UnknownHash { bucket: String, hash: u8 },
    #[error("{bucket} draws by an algorithm that allowed_bucket_algs does not allow")]
    AlgNotAllowed { bucket: String },
    #[error("{device} is of class {class}, which has no name")]
    UnknownClass { device: String, class: i32 },
    #[error("{original} has a shadow {shadow} in class {class} that is not in the map")]
    MissingShadow { original: String, shadow: ItemId, class: i32 },
    #[error("{shadow} does not mirror {original}; set the class of a device again to rebuild it")]
    StaleShadow { shadow: String, original: String },
    #[error("{original} has no shadow in class {class}; set the class of a device again to build it")]
    NoShadow { original: String, class: String },
    #[error("rule {rule} takes {item}, which is not in the map")]
    RuleTakes { rule: String, item: ItemId },
    #[error("rule {rule} chooses type {kind}, which has no name")]
    RuleType { rule: String, kind: TypeId },
    #[error("rule {rule} chooses {kind} below {from}, and there is none")]
    RuleChoosesNothing { rule: String, kind: String, from: String },
    #[error("rule {rule} chooses before it takes anything")]
    ChooseBeforeTake { rule: String },
    #[error("rule {rule} never emits what it chose")]
    NoEmit { rule: String },
    #[error("rule {rule} emits buckets; end its choices with chooseleaf or with type 0")]
    EmitsBuckets { rule: String },
    #[error("rule {rule} has number {id}; they go to 255")]
    RuleBeyond { rule: String, id: RuleId },
    #[error("rule {rule} has number {id} but ruleset {ruleset}; newer Ceph refuses that")]
    Ruleset { rule: String, id: RuleId, ruleset: u8 },
    #[error("choose_args {set} speak of bucket {bucket}, which is not in the map")]
    ArgsBucket { set: i64, bucket: ItemId },
    #[error("choose_args {set} give {bucket} {found} {what}, it has {items} items")]
    ArgsCount { set: i64, bucket: String, found: usize, what: &'static str, items: usize },
    #[error("choose_args {set} speak of {bucket}, but only straw2 buckets draw by them")]
    ArgsIgnored { set: i64, bucket: String },
}

impl Flaw {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Flaw::WrongSum { .. }
            | Flaw::WeightDrift { .. }
            | Flaw::Uneven { .. }
            | Flaw::AlgNotAllowed { .. }
            | Flaw::StaleShadow { .. }
            | Flaw::NoShadow { .. }
            | Flaw::NoName { .. }
            | Flaw::RuleChoosesNothing { .. }
            | Flaw::NoEmit { .. }
            | Flaw::EmitsBuckets { .. }
            | Flaw::Ruleset { .. }
            | Flaw::ArgsBucket { .. }
            | Flaw::ArgsIgnored { .. } => Severity::Warning,
            _ => Severity::Error,
        }
    }
}
