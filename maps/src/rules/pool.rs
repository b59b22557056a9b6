//! Pools: made, removed, renamed, given an application.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nacre_crush::model::{CrushMap, ItemId, Mode, Rule, RuleId, RuleKind, Step, TypeId};
use nacre_proto::ids::{PgId, PoolId, Stamp};

use super::{Outcome, RuleError, pool_named, refused, set, wrong};
use crate::increment::Draft;
use crate::map::{ClusterMap, ErasureProfile, PgAuto, Pool, PoolFlags, PoolKind, Table};
use crate::placement::Placement;
use crate::settings::MonSettings;

/// The most pgs a pool may have.
pub const MAX_PGS: u32 = 65_536;
/// The most pgs a pool may be made with; it can be split afterwards.
pub const MAX_PGS_AT_START: u32 = 8_192;
/// The most copies.
pub const MAX_SIZE: u32 = 16;

/// What a new pool is to be. What is left out is chosen, and the outcome's notes say how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolCreate {
    /// Its name.
    pub name: String,
    /// Shards instead of copies.
    pub erasure: Option<ErasureProfile>,
    /// Copies.
    pub size: Option<u32>,
    /// How many must be there to serve.
    pub min_size: Option<u32>,
    /// Pgs.
    pub pg_num: Option<u32>,
    /// Who decides on the pg count later.
    pub pg_auto: Option<PgAuto>,
    /// A rule of the crush map by name, instead of the next three.
    pub rule: Option<String>,
    /// The crush type no two copies share.
    pub failure_domain: Option<String>,
    /// Only OSDs of this device class.
    pub device_class: Option<String>,
    /// Only OSDs below this bucket.
    pub root: Option<String>,
    /// What uses it.
    pub application: Option<String>,
    /// Will hold much.
    pub bulk: bool,
}

/// How names of pools, applications and buckets are written.
pub(super) fn check_name(what: &'static str, name: &str) -> Result<(), RuleError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > 128 || !name.bytes().all(plain) || name.starts_with('-') {
        return Err(wrong(
            what,
            format!("`{name}`"),
            "1 to 128 letters, digits, `.`, `_` or `-`, not beginning with `-`",
        ));
    }
    Ok(())
}

/// `min_size` if nobody says otherwise: more than half of the copies; one shard more than the data needs.
pub(super) fn default_min_size(kind: &PoolKind, size: u32) -> u32 {
    match kind {
        PoolKind::Replicated => size - size / 2,
        PoolKind::Erasure(profile) => (u32::from(profile.data) + 1).min(size),
    }
}

/// The buckets of a type below an item that hold a device with weight (for type 0, the devices).
pub(super) fn domains(crush: &CrushMap, below: ItemId, kind: TypeId) -> BTreeSet<ItemId> {
    let mut found = BTreeSet::new();
    let order = crush.post_order([below]);
    for bucket in order.buckets.iter().filter_map(|id| crush.buckets.get(id)) {
        let weighted = bucket.items.iter().zip(&bucket.weights).filter(|(_, weight)| weight.0 > 0);
        found.extend(weighted.map(|(item, _)| *item).filter(|item| crush.kind(*item) == Some(kind)));
        if bucket.kind == kind && bucket.weights.iter().any(|weight| weight.0 > 0) {
            found.insert(bucket.id);
        }
    }
    found
}

/// Where copies go: a rule that exists or one to be made.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleWish<'a> {
    pub rule: Option<&'a str>,
    pub failure_domain: Option<&'a str>,
    pub device_class: Option<&'a str>,
    pub root: Option<&'a str>,
}

fn no_such(what: &'static str, name: &str, known: impl Iterator<Item = String>) -> RuleError {
    let known: Vec<String> = known.collect();
    RuleError::NoSuch { what, name: name.to_owned(), hint: format!("known are {}", known.join(", ")) }
}

/// Finds or makes the rule for `size` positions. Notes tell what was chosen for the operator.
pub(super) fn choose_rule(
    crush: &mut CrushMap,
    kind: &PoolKind,
    size: u32,
    wish: &RuleWish<'_>,
    notes: &mut Vec<String>,
) -> Result<RuleId, RuleError> {
    if let Some(name) = wish.rule {
        let rules = crush.rules.values().map(|rule| rule.name.clone());
        return crush.rule_id(name).ok_or_else(|| no_such("crush rule", name, rules));
    }
    let root_name = wish.root.unwrap_or("default");
    let shadows = crush.shadow_ids();
    let buckets =
        crush.buckets.values().filter(|bucket| !shadows.contains(&bucket.id)).map(|bucket| bucket.name.clone());
    let root = crush.item(root_name).filter(|item| *item < 0).ok_or_else(|| match wish.root {
        None => {
            refused("no OSD has joined the cluster yet", "start OSDs first (`nacre osd tree` shows those that joined)")
        }
        Some(name) => no_such("bucket", name, buckets),
    })?;
    let take = match wish.device_class {
        None => root,
        Some(class) => {
            let classes = crush.classes.values().cloned();
            let id = crush.class_id(class).ok_or_else(|| no_such("device class", class, classes))?;
            let shadow = crush.shadows.get(&root).and_then(|by_class| by_class.get(&id)).copied();
            shadow.ok_or_else(|| {
                no_such("device class", class, std::iter::once(format!("none of that class below {root_name}")))
            })?
        }
    };
    let enough = |kind: TypeId| domains(crush, take, kind).len() >= size as usize;
    let domain = match wish.failure_domain {
        Some(name) => {
            let types = crush.types.values().cloned();
            let domain = crush.type_id(name).ok_or_else(|| no_such("crush type", name, types))?;
            if !enough(domain) {
                let have = domains(crush, take, domain).len();
                return Err(refused(
                    format!(
                        "{size} copies or shards on different {name}s need {size} of them, {root_name} has {have} with OSDs"
                    ),
                    format!("add {name}s, or choose a smaller size or failure domain"),
                ));
            }
            domain
        }
        None => match crush.type_id("host") {
            Some(host) if enough(host) => host,
            _ => {
                let have = crush.type_id("host").map_or(0, |host| domains(crush, take, host).len());
                notes.push(format!(
                    "only {have} hosts hold OSDs, so copies are spread over OSDs and the loss of one host may lose access; \
                     when there are {size}, run `nacre pool set POOL failure_domain host`"
                ));
                0
            }
        },
    };
    let mode = if *kind == PoolKind::Replicated { Mode::Firstn } else { Mode::Indep };
    let choice = match domain {
        0 => Step::Choose { mode, num: 0, kind: 0 },
        kind => Step::ChooseLeaf { mode, num: 0, kind },
    };
    let mut steps = vec![Step::Take(take), choice, Step::Emit];
    if mode == Mode::Indep {
        // Shards cannot move up: more tries find a device for the last position.
        steps.splice(0..0, [Step::SetChooseLeafTries(5), Step::SetChooseTries(100)]);
    }
    if let Some((id, _)) = crush.rules.iter().find(|(_, rule)| rule.steps == steps) {
        return Ok(*id);
    }
    let prefix = if mode == Mode::Firstn { "replicated" } else { "erasure" };
    let mut name = format!("{prefix}_{}", crush.type_name(domain));
    for part in [wish.root, wish.device_class].into_iter().flatten() {
        name.push('_');
        name.push_str(part);
    }
    let free = (0..nacre_crush::model::MAX_RULES).find(|id| !crush.rules.contains_key(id));
    let id =
        free.ok_or_else(|| refused("the crush map holds as many rules as it can", "remove rules that no pool uses"))?;
    while crush.rule_id(&name).is_some() {
        name.push('+');
    }
    let kind = if mode == Mode::Firstn { RuleKind::Replicated } else { RuleKind::Erasure };
    crush.rules.insert(id, Rule { name, kind, ruleset: id as u8, min_size: 1, max_size: MAX_SIZE as u8, steps });
    crush.max_rules = crush.max_rules.max(id + 1);
    Ok(id)
}

/// Refuses a pg count that would burden OSDs too much.
pub(super) fn check_pg_num(map: &ClusterMap, except: Option<PoolId>, pg_num: u32, size: u32) -> Result<(), RuleError> {
    if !(1..=MAX_PGS).contains(&pg_num) {
        return Err(wrong("pg_num", pg_num, format!("1 to {MAX_PGS}")));
    }
    let osds = map.osds.iter().filter(|(_, state)| state.is_in()).count().max(1) as u64;
    let others = map.pools.iter().filter(|(id, _)| Some(**id) != except);
    let placed: u64 = others.map(|(_, pool)| u64::from(pool.pg_num) * u64::from(pool.size)).sum();
    let limit = MonSettings(map).number("mon.pg.per_osd_max");
    let each = (placed + u64::from(pg_num) * u64::from(size)).div_ceil(osds);
    if each > limit {
        let room = (limit * osds).saturating_sub(placed) / u64::from(size.max(1));
        return Err(refused(
            format!(
                "{pg_num} pgs of {size} would make {each} pgs on each of {osds} OSDs, more than mon.pg.per_osd_max = {limit}"
            ),
            format!("choose at most {room}, add OSDs, or raise the setting"),
        ));
    }
    Ok(())
}

fn start_pg_num(map: &ClusterMap, create: &PoolCreate, size: u32) -> u32 {
    let settings = MonSettings(map);
    let osds = map.osds.iter().filter(|(_, state)| state.is_in()).count() as u64;
    let placed: u64 = map.pools.values().map(|pool| u64::from(pool.pg_num) * u64::from(pool.size)).sum();
    let room = (settings.number("mon.pg.per_osd_target") * osds).saturating_sub(placed) / u64::from(size.max(1));
    let wish = if create.bulk { room } else { settings.number("pool.default.pg_num").min(room) };
    // Powers of two give pgs of one size.
    let wish = wish.clamp(1, MAX_PGS_AT_START.into()) as u32;
    1 << wish.ilog2()
}

/// Makes a pool.
pub fn create(map: &ClusterMap, create: &PoolCreate, now: Stamp) -> Result<Outcome, RuleError> {
    check_name("pool name", &create.name)?;
    if map.pool_named(&create.name).is_some() {
        return Err(RuleError::Exists { what: "pool", name: create.name.clone(), hint: "choose another name" });
    }
    let settings = MonSettings(map);
    let kind = match &create.erasure {
        None => PoolKind::Replicated,
        Some(profile) => {
            check_profile(profile)?;
            PoolKind::Erasure(profile.clone())
        }
    };
    let size = match (&kind, create.size) {
        (PoolKind::Replicated, size) => size.unwrap_or(settings.number("pool.default.size") as u32),
        (PoolKind::Erasure(profile), None) => u32::from(profile.data) + u32::from(profile.parity),
        (PoolKind::Erasure(_), Some(size)) => {
            return Err(wrong("size", size, "none: an erasure-coded pool has as many shards as its profile says"));
        }
    };
    if kind == PoolKind::Replicated && !(1..=MAX_SIZE).contains(&size) {
        return Err(wrong("size", size, format!("1 to {MAX_SIZE}")));
    }
    let default_min = match settings.number("pool.default.min_size") as u32 {
        wish if wish > 0 && kind == PoolKind::Replicated => wish.min(size),
        _ => default_min_size(&kind, size),
    };
    let min_size = create.min_size.unwrap_or(default_min);
    check_min_size(&kind, size, min_size)?;
    let mut notes = Vec::new();
    let wish = RuleWish {
        rule: create.rule.as_deref(),
        failure_domain: create.failure_domain.as_deref(),
        device_class: create.device_class.as_deref(),
        root: create.root.as_deref(),
    };
    let mut draft = Draft::of(map, now);
    let mut crush = CrushMap::clone(map.crush.shared());
    let rule = choose_rule(&mut crush, &kind, size, &wish, &mut notes)?;
    draft.crush.replace(crush);
    let pg_num = create.pg_num.unwrap_or_else(|| start_pg_num(map, create, size));
    check_pg_num(map, None, pg_num, size)?;
    if !pg_num.is_power_of_two() {
        notes.push(format!("pg_num {pg_num} is no power of two: some pgs will be twice as large as others"));
    }
    let mut applications = BTreeMap::new();
    match &create.application {
        Some(name) => {
            check_name("application", name)?;
            applications.insert(name.clone(), BTreeMap::new());
        }
        None => notes.push("no application is named; say what uses it with `nacre pool application POOL NAME`".into()),
    }
    let id = map.next_pool;
    let mut flags = PoolFlags::HASH_POOL;
    flags.set(PoolFlags::BULK, create.bulk);
    let pool = Pool {
        name: create.name.clone(),
        kind,
        size,
        min_size,
        pg_num,
        pgp_num: pg_num,
        pg_num_target: pg_num,
        pg_auto: create.pg_auto.unwrap_or(if create.pg_num.is_some() { PgAuto::Warn } else { PgAuto::On }),
        rule,
        flags,
        applications,
        created: now,
        created_in: draft.epoch,
        changed_in: draft.epoch,
        ..Pool::default()
    };
    let rule_name = draft.crush.rules.get(&rule).map(|rule| rule.name.clone()).unwrap_or_default();
    let text =
        format!("pool {} made: id {id}, size {size}, min_size {min_size}, {pg_num} pgs, rule {rule_name}", create.name);
    set(&mut draft.pools, id, Arc::new(pool));
    draft.next_pool = PoolId(id.0 + 1);
    check_placed(&draft, id)?;
    Ok(Outcome { notes, ..Outcome::of(draft, text) })
}

fn check_profile(profile: &ErasureProfile) -> Result<(), RuleError> {
    if !(1..=32).contains(&profile.data) || !(1..=16).contains(&profile.parity) {
        let given = format!("{}+{}", profile.data, profile.parity);
        return Err(wrong("erasure profile", given, "1 to 32 data shards and 1 to 16 parity shards, as in 4+2"));
    }
    if !(4096..=1 << 20).contains(&profile.stripe_unit) || !profile.stripe_unit.is_power_of_two() {
        return Err(wrong("stripe_unit", profile.stripe_unit, "a power of two from 4096 to 1048576"));
    }
    Ok(())
}

pub(super) fn check_min_size(kind: &PoolKind, size: u32, min_size: u32) -> Result<(), RuleError> {
    let least = match kind {
        PoolKind::Replicated => 1,
        PoolKind::Erasure(profile) => u32::from(profile.data),
    };
    if !(least..=size).contains(&min_size) {
        return Err(wrong("min_size", min_size, format!("{least} to {size}")));
    }
    Ok(())
}

/// A smoke test of the map before it is accepted: the pool's first pg must find all its OSDs' places computed.
pub(super) fn check_placed(map: &ClusterMap, pool: PoolId) -> Result<(), RuleError> {
    let mut probe = map.clone();
    let others: Vec<PoolId> = probe.pools.keys().copied().filter(|id| *id != pool).collect();
    probe.pools.remove_all(others);
    if let Some(first) = probe.pools.get(&pool).cloned() {
        let small = Pool { pg_num: first.pg_num.min(8), pgp_num: first.pgp_num.min(8), ..Pool::clone(&first) };
        set(&mut probe.pools, pool, Arc::new(small));
    }
    Placement::build(Arc::new(probe))?;
    Ok(())
}

/// Removes a pool with all that is in it.
pub fn remove(map: &ClusterMap, name: &str, confirm: &str, now: Stamp) -> Result<Outcome, RuleError> {
    let (id, pool) = pool_named(map, name)?;
    if confirm != name {
        return Err(refused(
            format!("removing pool {name} destroys all its data"),
            format!("repeat its name to confirm: `nacre pool rm {name} --confirm {name}`"),
        ));
    }
    if pool.flags.contains(PoolFlags::NO_DELETE) {
        return Err(refused(
            format!("pool {name} is protected by nodelete"),
            format!("run `nacre pool set {name} nodelete false` first"),
        ));
    }
    let mut draft = Draft::of(map, now);
    draft.pools.remove(&id);
    forget_pgs(&mut draft, id, 0);
    Ok(Outcome::of(draft, format!("pool {name} removed (id {id})")))
}

/// Drops what the map holds of a pool's pgs from a seed on.
pub(super) fn forget_pgs(draft: &mut Draft<'_>, pool: PoolId, from: u32) {
    fn drop_range<T: Table<Key = PgId>>(table: &mut T, pool: PoolId, from: u32) {
        let gone: Vec<PgId> =
            table.entries().map(|(pg, _)| pg).filter(|pg| pg.pool == pool && pg.seed >= from).collect();
        table.remove_all(gone);
    }
    drop_range(&mut draft.upmap, pool, from);
    drop_range(&mut draft.upmap_items, pool, from);
    drop_range(&mut draft.pg_temp, pool, from);
    drop_range(&mut draft.primary_temp, pool, from);
}

/// Renames a pool.
pub fn rename(map: &ClusterMap, name: &str, to: &str, now: Stamp) -> Result<Outcome, RuleError> {
    check_name("pool name", to)?;
    let (id, pool) = pool_named(map, name)?;
    if name == to {
        return Ok(Outcome::already(format!("pool {name} has that name already")));
    }
    if map.pool_named(to).is_some() {
        return Err(RuleError::Exists { what: "pool", name: to.to_owned(), hint: "choose another name" });
    }
    let mut draft = Draft::of(map, now);
    let renamed = Pool { name: to.to_owned(), changed_in: draft.epoch, ..pool.clone() };
    set(&mut draft.pools, id, Arc::new(renamed));
    Ok(Outcome::of(draft, format!("pool {name} is now {to}")))
}

/// Says what uses a pool, or that it no longer does.
pub fn application(
    map: &ClusterMap,
    name: &str,
    application: &str,
    enable: bool,
    now: Stamp,
) -> Result<Outcome, RuleError> {
    check_name("application", application)?;
    let (id, pool) = pool_named(map, name)?;
    let mut draft = Draft::of(map, now);
    let mut changed = pool.clone();
    match enable {
        true => drop(changed.applications.entry(application.to_owned()).or_default()),
        false => drop(changed.applications.remove(application)),
    }
    if changed.applications == pool.applications {
        return Ok(Outcome::already(format!("pool {name}: application {application} is so already")));
    }
    changed.changed_in = draft.epoch;
    set(&mut draft.pools, id, Arc::new(changed));
    let verb = if enable { "enabled" } else { "disabled" };
    Ok(Outcome::of(draft, format!("pool {name}: application {application} {verb}")))
}
