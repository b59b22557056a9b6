//! The settings of the cluster map that an OSD follows while it runs, as values.

use std::time::Duration;

use nacre_maps::ClusterMap;
use nacre_maps::settings::{self, Reader, Value};
use nacre_proto::ids::OsdId;
use nacre_store::FullRatios;

/// The memory that the map gives this OSD, if it says anything of it. For the start: its own configuration says the rest.
pub(crate) fn memory(map: &ClusterMap, me: OsdId) -> Option<u64> {
    match settings::resolve(map, settings::find("osd.memory")?, &Reader::osd(map, me)) {
        (Value::Bytes(bytes), Some(_)) => Some(bytes),
        _ => None,
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tuning {
    /// How often peers are asked whether they live.
    pub(crate) heartbeat: Duration,
    /// Groups recovered or backfilled at a time, as source and as target each.
    pub(crate) backfills: usize,
    /// Groups scrubbed at a time.
    pub(crate) scrubs: usize,
    /// How often each group's metadata, and its bytes, are compared.
    pub(crate) scrub_every: Duration,
    pub(crate) deep_every: Duration,
    /// From when on an operation counts as slow.
    pub(crate) slow_after: Duration,
    /// How many times slower than in quiet clients may become for background work.
    pub(crate) slowdown: f64,
    /// Bytes of requests that are held at a time.
    pub(crate) requests: u64,
    /// Entries of a group's log.
    pub(crate) log_max: usize,
    /// Objects recovered at a time, over all groups.
    pub(crate) recover: usize,
    /// Whether scrubs by the clock repair.
    pub(crate) repair: bool,
    /// From when on space is short.
    pub(crate) full: FullRatios,
}

impl Tuning {
    /// As the map says for this OSD.
    pub(crate) fn of(map: &ClusterMap, me: OsdId) -> Tuning {
        let reader = Reader::osd(map, me);
        let value = |name: &str| settings::find(name).map(|setting| settings::resolve(map, setting, &reader).0);
        let number = |name: &str, or: u64| match value(name) {
            Some(Value::Number(number)) => number,
            _ => or,
        };
        let span = |name: &str, or: Duration| match value(name) {
            Some(Value::Span(span)) => span,
            _ => or,
        };
        let share = |name: &str, or: f64| match value(name) {
            Some(Value::Ratio(millionths)) => f64::from(millionths) / 1e6,
            _ => or,
        };
        let switch = |name: &str, or: bool| match value(name) {
            Some(Value::Switch(on)) => on,
            _ => or,
        };
        let size = |name: &str, or: u64| match value(name) {
            Some(Value::Bytes(bytes)) => bytes,
            _ => or,
        };
        let or = FullRatios::default();
        Tuning {
            heartbeat: span("osd.heartbeat.interval", Duration::from_millis(300)),
            backfills: number("osd.backfill.max", 2) as usize,
            scrubs: number("osd.scrub.max", 1) as usize,
            scrub_every: span("osd.scrub.interval", Duration::from_secs(24 * 3600)),
            deep_every: span("osd.scrub.deep_interval", Duration::from_secs(7 * 24 * 3600)),
            slow_after: span("osd.op.slow_after", Duration::from_secs(5)),
            slowdown: share("osd.background.slowdown", 3.0),
            requests: size("osd.client.bytes_max", 64 << 20),
            log_max: number("osd.pg_log.max", 3000) as usize,
            recover: number("osd.recovery.max_active", 8) as usize,
            repair: switch("osd.scrub.repair", true),
            full: FullRatios {
                near: share("osd.nearfull.ratio", or.near),
                backfill: share("osd.backfillfull.ratio", or.backfill),
                full: share("osd.full.ratio", or.full),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nacre_maps::ClusterMap;
    use nacre_proto::ids::OsdId;
    use nacre_store::FullRatios;

    use super::{Tuning, memory};

    #[test]
    fn every_name_is_one_of_the_settings() {
        // A name that is not found falls back to the value written here, so a wrong one would go unseen otherwise.
        let text = include_str!("tuning.rs");
        let names: Vec<&str> = text.split('"').filter(|part| part.starts_with("osd.") && part.len() > 4).collect();
        assert!(names.len() >= 14);
        for name in names {
            assert!(nacre_maps::settings::find(name).is_some(), "{name}");
        }
        let tuning = Tuning::of(&ClusterMap::empty(nacre_proto::ids::Uuid([1; 16])), OsdId(0));
        assert_eq!((tuning.heartbeat, tuning.backfills), (Duration::from_millis(300), 2));
        assert_eq!(tuning.full, FullRatios::default());
        assert_eq!((tuning.slowdown, tuning.requests, tuning.log_max), (3.0, 64 << 20, 3000));
        assert_eq!((tuning.recover, tuning.repair), (8, true));
        // A default is not the map's word: the OSD's own configuration holds then.
        assert_eq!(memory(&ClusterMap::empty(nacre_proto::ids::Uuid([1; 16])), OsdId(0)), None);
    }
}
