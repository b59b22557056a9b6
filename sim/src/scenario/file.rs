//! Scenario files: TOML that fixes parts of what a seed would draw. What a file does not name is drawn as ever, so a file
//! can hold one setting or all of them; the seed then decides the rest.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Kind, Scenario};
use crate::fault::Fault;
use crate::rng::Rng;
use crate::world::MS;

/// A scenario file, read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    kind: Option<String>,
    osds: Option<u32>,
    clients: Option<u32>,
    objects: Option<u64>,
    pg_num: Option<u32>,
    size: Option<u32>,
    min_size: Option<u32>,
    min_size_changes: Option<bool>,
    delay_ms: Option<u64>,
    sync_ms: Option<u64>,
    grace_ms: Option<u64>,
    refuses: Option<bool>,
    gossip: Option<bool>,
    in_flight: Option<u64>,
    pause_ms: Option<u64>,
    patience_ms: Option<u64>,
    calm_ms: Option<u64>,
    span_ms: Option<u64>,
    lag_ms: Option<u64>,
    laggards_write: Option<bool>,
    snapshots: Option<bool>,
    classes: Option<bool>,
    watches: Option<bool>,
    grows: Option<bool>,
    scrubs: Option<bool>,
    rot: Option<bool>,
    keeps_map: Option<bool>,
    hunts: Option<bool>,
    log_keep: Option<usize>,
    drift_ppm: Option<u64>,
    faults: Option<BTreeMap<String, u64>>,
}

fn within<T: PartialOrd + std::fmt::Display>(name: &str, value: T, from: T, to: T) -> Result<(), String> {
    if value >= from && value <= to { Ok(()) } else { Err(format!("{name} = {value}: must be in {from}..={to}")) }
}

impl File {
    /// Reads the text of a file; the error says which line of it is wrong.
    pub fn parse(text: &str) -> Result<File, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
        // Whatever a seed draws for the rest must fit: the widest is tried here.
        for seed in 0..64 {
            file.draw(seed)?;
        }
        Ok(file)
    }

    /// The scenario of a seed under this file.
    pub fn draw(&self, seed: u64) -> Result<Scenario, String> {
        let mut s = match &self.kind {
            None => Scenario::draw(seed),
            Some(name) => {
                let kind = Kind::ALL.into_iter().find(|k| k.name() == name);
                let names = Kind::ALL.map(Kind::name).join(", ");
                let kind = kind.ok_or_else(|| format!("kind = {name:?}: must be one of {names}"))?;
                Scenario::draw_kind(kind, &mut Rng::new(seed ^ 0x6669_6c65))
            }
        };
        self.apply(&mut s)?;
        Ok(s)
    }

    fn apply(&self, s: &mut Scenario) -> Result<(), String> {
        fn set<T: Copy>(to: &mut T, from: Option<T>) {
            *to = from.unwrap_or(*to);
        }
        let ms = |v: Option<u64>| v.map(|v| v.saturating_mul(MS));
        set(&mut s.osds, self.osds);
        set(&mut s.clients, self.clients);
        set(&mut s.objects, self.objects);
        set(&mut s.pg_num, self.pg_num);
        set(&mut s.size, self.size);
        if self.size.is_none() {
            s.size = s.size.min(s.osds);
        }
        if self.min_size.is_none() {
            s.min_size = s.min_size.min(s.size);
        }
        set(&mut s.min_size, self.min_size);
        set(&mut s.loose, self.min_size_changes);
        set(&mut s.delay, ms(self.delay_ms));
        set(&mut s.sync, ms(self.sync_ms));
        set(&mut s.grace, ms(self.grace_ms));
        set(&mut s.refuses, self.refuses);
        set(&mut s.gossip, self.gossip);
        set(&mut s.in_flight, self.in_flight);
        set(&mut s.pause, ms(self.pause_ms));
        set(&mut s.patience, ms(self.patience_ms));
        set(&mut s.calm, ms(self.calm_ms));
        set(&mut s.span, ms(self.span_ms));
        set(&mut s.lag, self.lag_ms);
        set(&mut s.laggards_write, self.laggards_write);
        set(&mut s.snapshots, self.snapshots);
        set(&mut s.classes, self.classes);
        set(&mut s.watches, self.watches);
        set(&mut s.grows, self.grows);
        set(&mut s.scrubs, self.scrubs);
        set(&mut s.rot, self.rot);
        set(&mut s.keeps_map, self.keeps_map);
        set(&mut s.hunts, self.hunts);
        set(&mut s.log_keep, self.log_keep);
        set(&mut s.drift, self.drift_ppm);
        for (name, weight) in self.faults.iter().flatten() {
            let fault = Fault::ALL.into_iter().find(|f| f.name() == name);
            let names = Fault::ALL.map(Fault::name).join(", ");
            let fault = fault.ok_or_else(|| format!("faults.{name}: there is no such fault; there are {names}"))?;
            within(&format!("faults.{name}"), *weight, 0, 1000)?;
            s.faults.insert(fault, *weight);
        }
        check(s)
    }
}

/// What the simulation can carry.
fn check(s: &Scenario) -> Result<(), String> {
    const MINUTE: u64 = 60_000 * MS;
    within("osds", s.osds, 2, 32)?;
    within("clients", s.clients, 1, 32)?;
    within("objects", s.objects, 1, 1000)?;
    within("pg_num", s.pg_num, 1, 16)?;
    if !s.pg_num.is_power_of_two() {
        return Err(format!("pg_num = {}: must be a power of two", s.pg_num));
    }
    within("size", s.size, 1, s.osds)?;
    within("min_size", s.min_size, 1, s.size)?;
    within("in_flight", s.in_flight, 1, 64)?;
    within("log_keep", s.log_keep, 1, 100_000)?;
    // The cores allow for one in a thousand.
    within("drift_ppm", s.drift, 0, 900)?;
    within("lag_ms", s.lag, 60, 60_000)?;
    for (name, value, most) in [
        ("delay_ms", s.delay, MINUTE),
        ("sync_ms", s.sync, MINUTE),
        ("grace_ms", s.grace, MINUTE),
        ("pause_ms", s.pause, MINUTE),
        ("patience_ms", s.patience, MINUTE),
        ("calm_ms", s.calm, MINUTE),
        ("span_ms", s.span, 10 * MINUTE),
    ] {
        within(name, value / MS, 0, most / MS)?;
    }
    // Times of zero would let events repeat without time going on.
    if s.pause < MS || s.calm < 10 * MS || s.span < MS {
        return Err("pause_ms and span_ms must be at least 1, calm_ms at least 10".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_names_is_fixed_and_the_rest_is_drawn() {
        let file = File::parse("osds = 5\nsize = 3\ncalm_ms = 700\n[faults]\ncrash = 90\nbit-rot = 0\n").unwrap();
        let mut delays = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let s = file.draw(seed).unwrap();
            assert_eq!((s.osds, s.size, s.calm), (5, 3, 700 * MS));
            assert_eq!((s.faults[&Fault::Crash], s.faults[&Fault::BitRot]), (90, 0));
            delays.insert(s.delay);
        }
        assert!(delays.len() > 1);
    }

    #[test]
    fn an_empty_file_changes_nothing() {
        let file = File::parse("").unwrap();
        for seed in 0..20 {
            assert_eq!(format!("{:?}", file.draw(seed).unwrap()), format!("{:?}", Scenario::draw(seed)));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("osd = 4", "unknown field `osd`"),
            ("kind = \"weather\"", "must be one of mixed, lease"),
            ("osds = 1", "osds = 1: must be in 2..=32"),
            ("osds = 3\nsize = 4", "size = 4: must be in 1..=3"),
            ("size = 2\nmin_size = 3", "min_size = 3: must be in 1..=2"),
            ("hunts = 1", "expected a boolean"),
            ("pg_num = 3", "must be a power of two"),
            ("drift_ppm = 5000", "drift_ppm"),
            ("pause_ms = 0", "pause_ms"),
            ("[faults]\nfire = 1", "faults.fire: there is no such fault; there are crash"),
        ] {
            let told = File::parse(text).unwrap_err();
            assert!(told.contains(says), "{text:?} says {told}");
        }
    }
}
