//! `nacre pool`: what pools there are, and changes of them.

use clap::{Args, Subcommand};
use nacre_maps::map::{Pool, PoolKind};
use nacre_proto::ids::PoolId;
use nacre_proto::v1;
use nacre_proto::v1::map_command::Verb as Map;

use super::Asking;
use super::seen::Seen;
use crate::output::{Align, Bytes, Out, Table, Tone, share};
use crate::run::{Run, Verdict};

/// Make, list, change and remove pools.
#[derive(Args)]
pub(crate) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Create(Create),
    Ls(Ls),
    Set(Set),
    Rename(Rename),
    Application(Application),
    Rm(Rm),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Create(verb) => verb.run(out),
            Verb::Ls(verb) => verb.run(out),
            Verb::Set(verb) => verb.run(out),
            Verb::Rename(verb) => verb.run(out),
            Verb::Application(verb) => verb.run(out),
            Verb::Rm(verb) => verb.run(out),
        }
    }
}

/// Make a pool.
#[derive(Args)]
#[command(after_long_help = "--json: {text, notes, epoch, dry_run, moved}")]
struct Create {
    /// Its name.
    name: String,
    /// Copies that are kept.
    #[arg(long)]
    size: Option<u32>,
    /// Copies that must be there to serve.
    #[arg(long)]
    min_size: Option<u32>,
    /// Pgs to begin with.
    #[arg(long)]
    pg_num: Option<u32>,
    /// What no two copies may share, as in `host`.
    #[arg(long, value_name = "TYPE")]
    failure_domain: Option<String>,
    /// Only devices of this class.
    #[arg(long)]
    class: Option<String>,
    /// What uses it: `block`, `fs`, `s3`, or a name of one's own.
    #[arg(long)]
    application: Option<String>,
    /// Only devices below this bucket of the crush map.
    #[arg(long, value_name = "BUCKET")]
    root: Option<String>,
    /// A rule of the crush map, instead of failure domain, class and root.
    #[arg(long, conflicts_with_all = ["failure_domain", "class", "root"])]
    rule: Option<String>,
    /// Who decides on the number of pgs later: `on`, `warn` or `off`.
    #[arg(long, value_name = "WHO")]
    pg_auto: Option<String>,
    /// It will hold much: begin with as many pgs as there is room for.
    #[arg(long)]
    bulk: bool,
    /// Say what would happen and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Create {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let create = v1::PoolCreate {
            name: self.name,
            size: self.size,
            min_size: self.min_size,
            pg_num: self.pg_num,
            failure_domain: self.failure_domain,
            device_class: self.class,
            application: self.application,
            root: self.root,
            rule: self.rule,
            pg_auto: self.pg_auto,
            bulk: self.bulk,
            ..v1::PoolCreate::default()
        };
        self.asking.change(Map::PoolCreate(create), self.dry_run, out)
    }
}

/// List the pools, with what they hold.
#[derive(Args)]
#[command(after_long_help = "\
RAW is what all copies take, FULL the share of the quota, or without one of the space there is.

--json: [{id, name, size, min_size, pg_num, pg_auto, applications, quota_bytes, quota_objects, objects, bytes, raw_bytes,
used_percent, room_bytes, pgs_reported, pgs_clean}]; used_percent is of the quota or of the space, room_bytes what still
fits.")]
struct Ls {
    #[command(flatten)]
    asking: Asking,
}

/// What a pool holds, and how much more it could.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Usage {
    objects: u64,
    bytes: u64,
    raw: u64,
    room: u64,
    percent: f64,
    reported: u32,
    clean: u32,
}

fn usage(seen: &Seen, id: PoolId, pool: &Pool) -> Usage {
    let mut usage = Usage::default();
    for (_, report) in seen.reports.pgs.iter().filter(|(pg, _)| pg.pool == id) {
        usage.objects = usage.objects.saturating_add(report.objects);
        usage.bytes = usage.bytes.saturating_add(report.bytes);
        usage.reported += 1;
        usage.clean += u32::from(report.is_clean());
    }
    let (times, over) = pool.overhead();
    let (times, over) = (u64::from(times).max(1), u64::from(over).max(1));
    usage.raw = usage.bytes.saturating_mul(times) / over;
    let within = seen.heard.iter().filter(|(osd, _)| seen.map().is_in(**osd));
    let free: u64 = within.map(|(_, osd)| osd.total_bytes.saturating_sub(osd.used_bytes)).sum();
    let space = free.saturating_mul(over) / times;
    (usage.percent, usage.room) = fullness(usage.bytes, usage.objects, pool.quota_bytes, pool.quota_objects, space);
    usage
}

/// How full, in percent, and how many bytes still fit: by the quotas, else by the space that is left.
fn fullness(bytes: u64, objects: u64, quota_bytes: u64, quota_objects: u64, space: u64) -> (f64, u64) {
    let of = |used: u64, all: u64| share(used, all) * 100.0;
    let room = match quota_bytes {
        0 => space,
        quota => space.min(quota.saturating_sub(bytes)),
    };
    let percent = match (quota_bytes, quota_objects) {
        (0, 0) => of(bytes, bytes.saturating_add(space)),
        _ => of(bytes, quota_bytes).max(of(objects, quota_objects)),
    };
    (percent, room)
}

impl Run for Ls {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let seen = self.asking.seen()?;
        let map = seen.map();
        if self.asking.json.json {
            let pools: Vec<_> = map
                .pools
                .iter()
                .map(|(id, pool)| {
                    let usage = usage(&seen, *id, pool);
                    serde_json::json!({
                        "id": id.0, "name": pool.name, "size": pool.size, "min_size": pool.min_size,
                        "pg_num": pool.pg_num, "pg_auto": pool.pg_auto.to_string(),
                        "applications": pool.applications.keys().collect::<Vec<_>>(),
                        "quota_bytes": pool.quota_bytes, "quota_objects": pool.quota_objects,
                        "objects": usage.objects, "bytes": usage.bytes, "raw_bytes": usage.raw,
                        "used_percent": usage.percent, "room_bytes": usage.room, "pgs_reported": usage.reported,
                        "pgs_clean": usage.clean,
                    })
                })
                .collect();
            out.json(&pools)?;
            return Ok(Verdict::Good);
        }
        let mut table = Table::new(&[
            ("ID", Align::Right),
            ("NAME", Align::Left),
            ("KEEPS", Align::Left),
            ("PGS", Align::Right),
            ("OBJECTS", Align::Right),
            ("BYTES", Align::Right),
            ("RAW", Align::Right),
            ("QUOTA", Align::Right),
            ("FULL", Align::Right),
            ("ROOM", Align::Right),
            ("APPLICATION", Align::Left),
        ]);
        for (id, pool) in map.pools.iter() {
            let usage = usage(&seen, *id, pool);
            let keeps = match &pool.kind {
                PoolKind::Replicated => format!("{} copies, serves with {}", pool.size, pool.min_size),
                PoolKind::Erasure(profile) => format!("{}+{} shards", profile.data, profile.parity),
            };
            let quota = match (pool.quota_bytes, pool.quota_objects) {
                (0, 0) => "-".to_owned(),
                (0, objects) => format!("{objects} objects"),
                (bytes, 0) => Bytes(bytes).to_string(),
                (bytes, objects) => format!("{}, {objects} objects", Bytes(bytes)),
            };
            let applications: Vec<&str> = pool.applications.keys().map(String::as_str).collect();
            let tone = match usage.percent {
                95.0.. => Tone::Bad,
                85.0.. => Tone::Warn,
                _ => Tone::Plain,
            };
            let plain = |text: String| (Tone::Plain, text);
            table.row_toned(vec![
                plain(id.to_string()),
                plain(pool.name.clone()),
                plain(keeps),
                plain(pool.pg_num.to_string()),
                plain(usage.objects.to_string()),
                plain(Bytes(usage.bytes).to_string()),
                plain(Bytes(usage.raw).to_string()),
                plain(quota),
                (tone, format!("{:.1} %", usage.percent)),
                plain(Bytes(usage.room).to_string()),
                plain(applications.join(", ")),
            ]);
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}

/// Change one option of a pool.
#[derive(Args)]
struct Set {
    /// The pool.
    pool: String,
    /// The option, as in `size`; a wrong one is answered with those there are.
    option: String,
    /// Its new value.
    value: String,
    /// Say what would happen and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Set {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let set = v1::PoolSet { pool: self.pool, option: self.option, value: self.value };
        self.asking.change(Map::PoolSet(set), self.dry_run, out)
    }
}

/// Give a pool another name.
#[derive(Args)]
struct Rename {
    /// The pool.
    pool: String,
    /// Its new name.
    to: String,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Rename {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        self.asking.change(Map::PoolRename(v1::PoolRename { pool: self.pool, to: self.to }), false, out)
    }
}

/// Say what uses a pool.
#[derive(Args)]
struct Application {
    /// The pool.
    pool: String,
    /// What uses it: `block`, `fs`, `s3`, or a name of one's own.
    application: String,
    /// It uses it no more.
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Application {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let enable = !self.remove;
        let change = v1::PoolApplication { pool: self.pool, application: self.application, enable };
        self.asking.change(Map::PoolApplication(change), false, out)
    }
}

/// Remove a pool and all that is in it.
#[derive(Args)]
struct Rm {
    /// The pool.
    pool: String,
    /// Its name again: all its data goes.
    #[arg(long, value_name = "NAME")]
    confirm: String,
    /// Say what would happen and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Rm {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let remove = v1::PoolRemove { pool: self.pool, confirm: self.confirm };
        self.asking.change(Map::PoolRemove(remove), self.dry_run, out)
    }
}

#[cfg(test)]
mod tests {
    use super::fullness;

    #[test]
    fn quotas_count_before_space() {
        let near =
            |(percent, room): (f64, u64), wanted: f64, fits: u64| (percent - wanted).abs() < 1e-9 && room == fits;
        assert!(near(fullness(25, 1, 0, 0, 75), 25.0, 75));
        assert!(near(fullness(25, 1, 50, 0, 75), 50.0, 25));
        assert!(near(fullness(25, 9, 50, 10, 75), 90.0, 25));
        assert!(near(fullness(25, 1, 50, 0, 5), 50.0, 5), "what is not there is no room");
        assert!(near(fullness(60, 1, 50, 0, 5), 120.0, 0));
        assert!(near(fullness(0, 0, 0, 0, 0), 0.0, 0));
    }
}
