//! `nacre pool`: what pools there are, and changes of them.

use clap::{Args, Subcommand};
use nacre_maps::map::PoolKind;
use nacre_proto::v1;
use nacre_proto::v1::map_command::Verb as Map;

use super::Asking;
use crate::output::{Align, Out, Table};
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

/// List the pools.
#[derive(Args)]
#[command(after_long_help = "--json: [{id, name, size, min_size, pg_num, applications, quota_bytes, quota_objects}]")]
struct Ls {
    #[command(flatten)]
    asking: Asking,
}

impl Run for Ls {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let map = self.asking.map()?;
        if self.asking.json.json {
            let pools: Vec<_> = map
                .pools
                .iter()
                .map(|(id, pool)| {
                    serde_json::json!({
                        "id": id.0, "name": pool.name, "size": pool.size, "min_size": pool.min_size,
                        "pg_num": pool.pg_num, "applications": pool.applications.keys().collect::<Vec<_>>(),
                        "quota_bytes": pool.quota_bytes, "quota_objects": pool.quota_objects,
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
            ("APPLICATION", Align::Left),
        ]);
        for (id, pool) in map.pools.iter() {
            let keeps = match &pool.kind {
                PoolKind::Replicated => format!("{} copies, serves with {}", pool.size, pool.min_size),
                PoolKind::Erasure(profile) => format!("{}+{} shards", profile.data, profile.parity),
            };
            let applications: Vec<&str> = pool.applications.keys().map(String::as_str).collect();
            table.row([id.to_string(), pool.name.clone(), keeps, pool.pg_num.to_string(), applications.join(", ")]);
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
