//! The table of settings. Add a line here, then let the reference page be written anew.

use super::{Kind, Setting};
use crate::map::DaemonKind::{self, Client, Csi, Fs, Mds, Mon, Nbd, Osd, S3};

const ALL: &[DaemonKind] = &[Mon, Osd, Mds, S3, Nbd, Fs, Csi, Client];
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

const fn setting(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    users: &'static [DaemonKind],
    live: bool,
    text: &'static str,
) -> Setting {
    Setting { name, kind, default, users, live, text }
}

const fn span(min_ms: u64, max_ms: u64) -> Kind {
    Kind::Span { min_ms, max_ms }
}

const fn number(min: u64, max: u64) -> Kind {
    Kind::Number { min, max }
}

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Bytes { min, max }
}

const fn ratio(min: u32, max: u32) -> Kind {
    Kind::Ratio { min, max }
}

/// Every setting, by name.
pub const SETTINGS: &[Setting] = &[
    setting(
        "balancer.max_deviation",
        number(1, 100),
        "1",
        &[Mon],
        true,
        "How many pgs an OSD may hold above or below its share before the balancer moves any.",
    ),
    setting(
        "balancer.max_misplaced",
        ratio(1_000, 1_000_000),
        "0.05",
        &[Mon],
        true,
        "The balancer and pg splits wait while more than this share of the data is on its way.",
    ),
    setting("balancer.max_moves", number(1, 1_000), "16", &[Mon], true, "How many pgs the balancer moves in one step."),
    setting(
        "balancer.mode",
        Kind::Choice(&["on", "off", "dry-run"]),
        "on",
        &[Mon],
        true,
        "Move pgs by upmap until every OSD holds its share; dry-run: only say in the log what would be moved.",
    ),
    setting(
        "log.level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        "info",
        ALL,
        true,
        "What daemons write into their logs.",
    ),
    setting(
        "mon.cert_lifetime",
        span(10 * SECOND, 365 * DAY),
        "30d",
        &[Mon],
        true,
        "How long certificates live. Each daemon renews its own at two thirds of it.",
    ),
    setting(
        "mon.down.adaptive",
        Kind::Switch,
        "true",
        &[Mon],
        true,
        "Give OSDs whose failures proved false before a longer grace.",
    ),
    setting(
        "mon.down.grace",
        span(200, HOUR),
        "1500ms",
        &[Mon, Osd],
        true,
        "How long an OSD may be silent before its peers report it.",
    ),
    setting(
        "mon.down.min_up_ratio",
        ratio(0, 1_000_000),
        "0.3",
        &[Mon],
        true,
        "Mark no OSD down on reports when fewer than this share would be up.",
    ),
    setting(
        "mon.down.reporter_level",
        Kind::Text { max: 64 },
        "host",
        &[Mon],
        true,
        "Reporters count as different when they are in different buckets of this crush type.",
    ),
    setting(
        "mon.down.reporters",
        number(1, 16),
        "2",
        &[Mon],
        true,
        "How many different reporters it takes to mark an OSD down (fewer, if there are not so many that could report).",
    ),
    setting(
        "mon.flap.limit",
        number(1, 1_000),
        "5",
        &[Mon],
        true,
        "How often an OSD may be marked down and come back within `mon.flap.window` before it has to wait.",
    ),
    setting("mon.flap.window", span(MINUTE, DAY), "10m", &[Mon], true, "The time after which a flap counts half."),
    setting(
        "mon.flap.wait",
        span(SECOND, HOUR),
        "1m",
        &[Mon],
        true,
        "How long an OSD that flaps too often is kept down.",
    ),
    setting(
        "mon.out.after",
        span(10 * SECOND, 30 * DAY),
        "10m",
        &[Mon],
        true,
        "How long an OSD is down before its data is rebuilt elsewhere.",
    ),
    setting(
        "mon.out.min_in_ratio",
        ratio(0, 1_000_000),
        "0.75",
        &[Mon],
        true,
        "Take no OSD out automatically when fewer than this share would be in.",
    ),
    setting(
        "mon.out.subtree_limit",
        Kind::Text { max: 64 },
        "rack",
        &[Mon],
        true,
        "Take no OSD out automatically while all of its bucket of this crush type is down: that is a switch or a power line, not a disk.",
    ),
    setting(
        "mon.pg.count",
        Kind::Choice(&["on", "off", "dry-run"]),
        "on",
        &[Mon],
        true,
        "Raise pg counts of pools whose `pg_auto` is on; dry-run: only say in the log what they would be.",
    ),
    setting(
        "mon.pg.per_osd_max",
        number(30, 2_000),
        "250",
        &[Mon],
        true,
        "Refuse pg counts that would put more than this many pgs on the average OSD.",
    ),
    setting(
        "mon.pg.per_osd_target",
        number(10, 1_000),
        "100",
        &[Mon],
        true,
        "How many pgs the automatic pg count aims at for each OSD.",
    ),
    setting(
        "osd.background.slowdown",
        ratio(1_000_000, 100_000_000),
        "3",
        &[Osd],
        true,
        "How many times longer than in quiet a client's operation may take, before recovery, trimming and scrubs give way.",
    ),
    setting(
        "osd.backfill.max",
        number(1, 64),
        "2",
        &[Osd],
        true,
        "How many pgs one OSD backfills at a time, as source and as target.",
    ),
    setting(
        "osd.backfillfull.ratio",
        ratio(500_000, 990_000),
        "0.9",
        &[Mon, Osd],
        true,
        "How full an OSD may be to take backfill.",
    ),
    setting(
        "osd.client.bytes_max",
        bytes(MIB, 4 * GIB),
        "64MiB",
        &[Osd],
        true,
        "Bytes of client operations in flight before an OSD stops reading more.",
    ),
    setting(
        "osd.full.ratio",
        ratio(500_000, 990_000),
        "0.95",
        &[Mon, Osd],
        true,
        "How full an OSD may be to take writes; removals are always taken.",
    ),
    setting("osd.heartbeat.interval", span(50, MINUTE), "300ms", &[Osd], true, "How often an OSD pings its peers."),
    setting("osd.memory", bytes(64 * MIB, 64 * GIB), "256MiB", &[Osd], false, "The most memory an OSD uses."),
    setting(
        "osd.nearfull.ratio",
        ratio(500_000, 990_000),
        "0.85",
        &[Mon, Osd],
        true,
        "How full an OSD may be before health warns.",
    ),
    setting(
        "osd.op.slow_after",
        span(100, HOUR),
        "5s",
        &[Osd],
        true,
        "An operation that takes longer is reported as slow, with its cause.",
    ),
    setting(
        "osd.pg_log.max",
        number(100, 100_000),
        "3000",
        &[Osd],
        true,
        "Entries of a pg's log: an OSD that missed more is filled by backfill.",
    ),
    setting("osd.recovery.max_active", number(1, 1_024), "8", &[Osd], true, "Objects one OSD recovers at a time."),
    setting(
        "osd.scrub.deep_interval",
        span(HOUR, 365 * DAY),
        "7d",
        &[Osd],
        true,
        "How often the bytes of each pg are compared.",
    ),
    setting(
        "osd.scrub.interval",
        span(MINUTE, 365 * DAY),
        "1d",
        &[Osd],
        true,
        "How often the metadata of each pg is compared.",
    ),
    setting("osd.scrub.max", number(0, 64), "1", &[Osd], true, "How many pgs one OSD scrubs at a time."),
    setting(
        "osd.scrub.repair",
        Kind::Switch,
        "true",
        &[Osd],
        true,
        "Repair what a scrub finds when a checksum shows which copy is good.",
    ),
    setting(
        "pool.default.min_size",
        number(0, 16),
        "0",
        &[Mon],
        true,
        "`min_size` of new pools; 0 = size less half of it.",
    ),
    setting("pool.default.pg_num", number(1, 65_536), "32", &[Mon], true, "Pgs of a new pool that is not `bulk`."),
    setting("pool.default.size", number(1, 16), "3", &[Mon], true, "Copies of new pools."),
    setting(
        "s3.body_max",
        bytes(5 * MIB, 5 * 1024 * GIB),
        "5GiB",
        &[S3],
        true,
        "The largest object one PUT may carry.",
    ),
    setting(
        "s3.inline_max",
        bytes(0, 64 * KIB),
        "16KiB",
        &[S3],
        true,
        "Objects up to this size are kept inside the bucket index.",
    ),
];
