//! Options of a pool, one at a time: `nacre pool set POOL OPTION VALUE`.

use std::str::FromStr;
use std::sync::Arc;

use nacre_crush::model::CrushMap;
use nacre_proto::ids::Stamp;

use super::pool::{
    self, RuleWish, check_min_size, check_pg_num, check_placed, choose_rule, default_min_size, forget_pgs,
};
use super::{Outcome, RuleError, pool_named, refused, set, wrong};
use crate::increment::Draft;
use crate::map::{ClusterMap, Pool, PoolFlags, PoolKind};
use crate::settings::{Kind, Value};

/// Every option with what it takes.
pub const OPTIONS: &[(&str, &str)] = &[
    ("size", "copies, 1 to 16"),
    ("min_size", "copies or shards that must be there to serve"),
    ("pg_num", "pgs; may only grow"),
    ("pg_auto", "`off`, `warn` or `on`: who decides on pg_num"),
    ("pg_num_min", "the fewest pgs the automatic choice makes"),
    ("pg_num_max", "the most pgs the automatic choice makes, 0 = no limit"),
    ("rule", "a rule of the crush map by name"),
    ("failure_domain", "the crush type no two copies share, as in `host`"),
    ("device_class", "only OSDs of this class, spread over hosts"),
    ("quota_bytes", "most bytes clients may store, as in `10GiB`; `0B` = no limit"),
    ("quota_objects", "most objects clients may store, 0 = no limit"),
    ("compression_mode", "`none`, `passive`, `aggressive` or `force`"),
    ("compression_algorithm", "`lz4` or `zstd`"),
    ("compression_required_ratio", "keep the compressed form only up to this share of the original, as in `0.875`"),
    ("target_ratio", "share of the capacity it is expected to take, as in `0.4`; 0 = unknown"),
    ("target_bytes", "bytes it is expected to take, as in `2TiB`; `0B` = unknown"),
    ("nodelete", "`true`: may not be removed"),
    ("nosizechange", "`true`: size and min_size may not be changed"),
    ("nopgchange", "`true`: pg_num may not be changed"),
    ("noscrub", "`true`: no light scrubs"),
    ("nodeepscrub", "`true`: no deep scrubs"),
    ("bulk", "`true`: will hold much, gets all its pgs at once"),
    ("overwrites", "`true`: erasure-coded objects may be overwritten in part"),
];

fn number<T: FromStr>(option: &'static str, value: &str) -> Result<T, RuleError> {
    value.parse().map_err(|_| wrong(option, format!("`{value}`"), "a whole number"))
}

fn kind(option: &'static str, kind: Kind, value: &str) -> Result<Value, RuleError> {
    kind.parse(value).map_err(|error| wrong(option, format!("`{value}`"), error.expected))
}

fn size_of(option: &'static str, value: &str) -> Result<u64, RuleError> {
    match kind(option, Kind::Bytes { min: 0, max: u64::MAX }, value)? {
        Value::Bytes(bytes) => Ok(bytes),
        _ => Err(wrong(option, value, "a size")),
    }
}

fn share_of(option: &'static str, value: &str) -> Result<u32, RuleError> {
    match kind(option, Kind::Ratio { min: 0, max: 1_000_000 }, value)? {
        Value::Ratio(millionths) => Ok(millionths / 1_000),
        _ => Err(wrong(option, value, "a share")),
    }
}

fn guarded(pool: &Pool, flag: PoolFlags, word: &str) -> Result<(), RuleError> {
    if pool.flags.contains(flag) {
        let name = &pool.name;
        return Err(refused(
            format!("pool {name} is protected by {word}"),
            format!("run `nacre pool set {name} {word} false` first"),
        ));
    }
    Ok(())
}

/// Changes one option.
pub fn set_option(map: &ClusterMap, name: &str, option: &str, value: &str, now: Stamp) -> Result<Outcome, RuleError> {
    let (id, old) = pool_named(map, name)?;
    let mut draft = Draft::of(map, now);
    let mut pool = old.clone();
    let mut notes = Vec::new();
    match option {
        "size" => set_size(map, &mut pool, number("size", value)?, &mut notes)?,
        "min_size" => {
            guarded(old, PoolFlags::NO_SIZE_CHANGE, "nosizechange")?;
            pool.min_size = number("min_size", value)?;
            check_min_size(&pool.kind, pool.size, pool.min_size)?;
            if pool.kind == PoolKind::Replicated && pool.min_size == 1 && pool.size > 1 {
                notes.push("with min_size 1 a write may be on one disk alone: its loss loses the write".into());
            }
        }
        "pg_num" => {
            guarded(old, PoolFlags::NO_PG_CHANGE, "nopgchange")?;
            let wish: u32 = number("pg_num", value)?;
            if wish < old.pg_num {
                return Err(refused(
                    format!("pool {name} has {} pgs and pgs are never merged", old.pg_num),
                    "copy its objects to a new pool with fewer pgs if it must be",
                ));
            }
            check_pg_num(map, Some(id), wish, pool.size)?;
            (pool.pg_num, pool.pg_num_target) = (wish, wish);
            notes
                .push(format!("pgs are split in place; data moves as pgp_num follows from {} to {wish}", pool.pgp_num));
        }
        "pg_auto" => pool.pg_auto = value.parse()?,
        "pg_num_min" => pool.pg_num_min = number("pg_num_min", value)?,
        "pg_num_max" => pool.pg_num_max = number("pg_num_max", value)?,
        "rule" | "failure_domain" | "device_class" => {
            let mut wish = RuleWish::default();
            match option {
                "rule" => wish.rule = Some(value),
                "failure_domain" => wish.failure_domain = Some(value),
                _ => wish.device_class = Some(value),
            }
            let mut crush = CrushMap::clone(map.crush.shared());
            pool.rule = choose_rule(&mut crush, &pool.kind, pool.size, &wish, &mut notes)?;
            draft.crush.replace(crush);
            // Exceptions were made for where pgs lay under the old rule.
            if pool.rule != old.rule {
                let temp = draft.pg_temp.clone();
                forget_pgs(&mut draft, id, 0);
                draft.pg_temp = temp;
            }
        }
        "quota_bytes" => pool.quota_bytes = size_of("quota_bytes", value)?,
        "quota_objects" => pool.quota_objects = number("quota_objects", value)?,
        "compression_mode" => pool.compression.mode = value.parse()?,
        "compression_algorithm" => pool.compression.algorithm = value.parse()?,
        "compression_required_ratio" => {
            pool.compression.required_permille = share_of("compression_required_ratio", value)? as u16
        }
        "target_ratio" => pool.target_permille = share_of("target_ratio", value)?,
        "target_bytes" => pool.target_bytes = size_of("target_bytes", value)?,
        _ => {
            let known = PoolFlags::SETTABLE.iter().find(|(word, _)| *word == option);
            let Some((word, flag)) = known else {
                let options: Vec<&str> = OPTIONS.iter().map(|(name, _)| *name).collect();
                return Err(RuleError::NoSuch {
                    what: "pool option",
                    name: option.to_owned(),
                    hint: format!("there are {}", options.join(", ")),
                });
            };
            let on = value.parse().map_err(|_| wrong(word, format!("`{value}`"), "`true` or `false`"))?;
            pool.flags.set(*flag, on);
        }
    }
    if pool == *old {
        return Ok(Outcome::already(format!("pool {name}: {option} is {value} already")));
    }
    pool.changed_in = draft.epoch;
    set(&mut draft.pools, id, Arc::new(pool));
    check_placed(&draft, id)?;
    Ok(Outcome { notes, ..Outcome::of(draft, format!("pool {name}: {option} set to {value}")) })
}

fn set_size(map: &ClusterMap, pool: &mut Pool, size: u32, notes: &mut Vec<String>) -> Result<(), RuleError> {
    guarded(pool, PoolFlags::NO_SIZE_CHANGE, "nosizechange")?;
    if pool.kind != PoolKind::Replicated {
        return Err(refused(
            "the size of an erasure-coded pool follows from its profile",
            "make a new pool with another profile",
        ));
    }
    if !(1..=pool::MAX_SIZE).contains(&size) {
        return Err(wrong("size", size, format!("1 to {}", pool::MAX_SIZE)));
    }
    let id = map.pool_named(&pool.name).map(|(id, _)| id);
    check_pg_num(map, id, pool.pg_num, size)?;
    pool.size = size;
    // A min_size that nobody chose follows; one that would not fit has to.
    if pool.min_size > size || pool.min_size < default_min_size(&pool.kind, size) {
        pool.min_size = default_min_size(&pool.kind, size);
        notes.push(format!("min_size is now {}", pool.min_size));
    }
    if size == 1 {
        notes.push("with one copy the loss of any disk loses data".into());
    }
    Ok(())
}

/// Lets placement follow a split: raises `pgp_num`. Data moves.
pub fn pgp_step(map: &ClusterMap, name: &str, to: u32, now: Stamp) -> Result<Outcome, RuleError> {
    let (id, old) = pool_named(map, name)?;
    if to <= old.pgp_num || to > old.pg_num {
        return Err(wrong("pgp_num", to, format!("more than {} and at most {}", old.pgp_num, old.pg_num)));
    }
    let mut draft = Draft::of(map, now);
    let pool = Pool { pgp_num: to, changed_in: draft.epoch, ..old.clone() };
    set(&mut draft.pools, id, Arc::new(pool));
    Ok(Outcome::of(draft, format!("pool {name}: pgs are placed apart up to {to} of {}", old.pg_num)))
}
