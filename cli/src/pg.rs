//! `nacre pg`: how placement groups are, why, and what an operator can order.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use nacre_client::{Cluster, Order, OsdId, PgId, PgLine, Place, Settings};
use serde_json::json;

use crate::local::{ConfigArg, monitors_of};
use crate::output::{Align, JsonFlag, Out, Table};
use crate::run::{Run, Verdict};

/// List placement groups, say why one waits, compare and repair copies.
#[derive(Args)]
pub(crate) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Ls(Ls),
    Query(Query),
    Explain(Explain),
    Scrub(Scrub),
    Repair(Repair),
    Unfound(Unfound),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Ls(verb) => verb.run(out),
            Verb::Query(verb) => verb.run(out),
            Verb::Explain(verb) => verb.run(out),
            Verb::Scrub(verb) => verb.run(out),
            Verb::Repair(verb) => verb.run(out),
            Verb::Unfound(verb) => verb.run(out),
        }
    }
}

/// How long one OSD may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

fn with<T, F>(config: &ConfigArg, does: impl FnOnce(Cluster) -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let (folder, monitors) = monitors_of(config)?;
    nacre_net::daemon::current_thread_runtime()?.block_on(async {
        let mut settings = Settings::of_folder(&folder, monitors)?;
        settings.patience = Some(PATIENCE);
        does(Cluster::connect(settings).await?).await
    })
}

/// A pg as its primary sees it.
struct Row {
    pg: PgId,
    place: Place,
    line: Option<PgLine>,
}

impl Row {
    /// One or two words, as in `active+clean`.
    fn state(&self) -> String {
        let Some(line) = &self.line else {
            return if self.place.primary.is_some() { "silent".into() } else { "down".into() };
        };
        let mut state = line.state.clone();
        if line.state == "active" {
            state.push_str(if line.clean { "+clean" } else { "+degraded" });
        }
        if line.scrubbing {
            state.push_str("+scrubbing");
        }
        if !line.inconsistent.is_empty() {
            state.push_str("+inconsistent");
        }
        state
    }

    /// What it waits for.
    fn why(&self) -> String {
        match (&self.line, self.place.primary) {
            (Some(line), _) => line.why.clone(),
            (None, Some(primary)) => format!("{primary}, its primary, does not answer"),
            (None, None) => "none of the OSDs that hold it is up".into(),
        }
    }
}

/// All pgs, as their primaries see them.
async fn rows(cluster: &Cluster) -> Vec<Row> {
    let mut lines: BTreeMap<(OsdId, PgId), PgLine> = BTreeMap::new();
    for osd in cluster.up() {
        // One that does not answer shows as silent primary.
        for line in cluster.look(osd, None).await.unwrap_or_default() {
            lines.insert((osd, line.pg), line);
        }
    }
    let places = cluster.places().into_iter();
    places.map(|(pg, place)| Row { line: place.primary.and_then(|osd| lines.remove(&(osd, pg))), pg, place }).collect()
}

fn osds(list: &[OsdId]) -> String {
    list.iter().map(|osd| osd.0.to_string()).collect::<Vec<_>>().join(",")
}

fn bytes_of(line: Option<&PgLine>) -> (String, String) {
    line.map_or_else(|| ("?".into(), "?".into()), |line| (line.objects.to_string(), line.bytes.to_string()))
}

/// List the pgs: state, where they are, what they hold, what they wait for.
#[derive(Args)]
#[command(after_long_help = "\
--json: [{pg, state, up, acting, primary, objects, bytes, why}]; objects and bytes are null where the primary did not
answer.")]
struct Ls {
    #[command(flatten)]
    config: ConfigArg,
    /// Only pgs that are not active and clean.
    #[arg(long)]
    unclean: bool,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Ls {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let mut rows = with(&self.config, |cluster| async move { Ok(rows(&cluster).await) })?;
        if self.unclean {
            rows.retain(|row| !row.line.as_ref().is_some_and(|line| line.clean && line.inconsistent.is_empty()));
        }
        if self.json.json {
            let rows: Vec<_> = rows
                .iter()
                .map(|row| {
                    json!({
                        "pg": row.pg.to_string(), "state": row.state(),
                        "up": row.place.up.iter().map(|osd| osd.0).collect::<Vec<_>>(),
                        "acting": row.place.acting.iter().map(|osd| osd.0).collect::<Vec<_>>(),
                        "primary": row.place.primary.map(|osd| osd.0),
                        "objects": row.line.as_ref().map(|line| line.objects),
                        "bytes": row.line.as_ref().map(|line| line.bytes), "why": row.why(),
                    })
                })
                .collect();
            out.json(&rows)?;
            return Ok(Verdict::Good);
        }
        let mut table = Table::new(&[
            ("PG", Align::Left),
            ("STATE", Align::Left),
            ("UP", Align::Left),
            ("ACTING", Align::Left),
            ("OBJECTS", Align::Right),
            ("BYTES", Align::Right),
            ("WAITS FOR", Align::Left),
        ]);
        for row in &rows {
            let (objects, bytes) = bytes_of(row.line.as_ref());
            let (up, acting) = (osds(&row.place.up), osds(&row.place.acting));
            table.row([row.pg.to_string(), row.state(), up, acting, objects, bytes, row.why()]);
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}

fn pg(text: &str) -> Result<PgId, String> {
    text.parse().map_err(|_| "a pg is written as pool number and hexadecimal index, as in 1.1f".to_owned())
}

/// Show one pg at every OSD that holds a copy.
#[derive(Args)]
#[command(after_long_help = "\
--json: {pg, up, acting, primary, copies: [{osd, state, clean, scrubbing, why, epoch, interval, last, tail, objects,
clones, bytes, missing, unfound, inconsistent: [{object, copies: [{osd, damage}]}]}]}")]
struct Query {
    #[command(flatten)]
    config: ConfigArg,
    /// The pg, as in 1.1f.
    #[arg(value_parser = pg)]
    pg: PgId,
    #[command(flatten)]
    json: JsonFlag,
}

/// The pg's place, and its copies.
async fn copies(cluster: &Cluster, pg: PgId) -> anyhow::Result<(Place, Vec<(OsdId, PgLine)>)> {
    let place = cluster.places().into_iter().find(|(id, _)| *id == pg).map(|(_, place)| place);
    let place = place.with_context(|| format!("there is no pg {pg}; `nacre pg ls` lists them"))?;
    let mut copies = Vec::new();
    for osd in cluster.up() {
        for line in cluster.look(osd, Some(pg)).await? {
            copies.push((osd, line));
        }
    }
    Ok((place, copies))
}

fn name(oid: &nacre_proto::ids::ObjectId) -> String {
    String::from_utf8_lossy(&oid.name).into_owned()
}

fn copy_json((osd, line): &(OsdId, PgLine)) -> serde_json::Value {
    let damage = |(osd, damage): &(OsdId, String)| json!({ "osd": osd.0, "damage": damage });
    let inconsistent: Vec<_> = line
        .inconsistent
        .iter()
        .map(|(oid, copies)| json!({ "object": name(oid), "copies": copies.iter().map(damage).collect::<Vec<_>>() }))
        .collect();
    json!({
        "osd": osd.0, "state": line.state, "clean": line.clean, "scrubbing": line.scrubbing, "why": line.why,
        "epoch": line.epoch.0, "interval": line.interval.0, "last": line.last.to_string(),
        "tail": line.tail.to_string(), "objects": line.objects, "clones": line.clones, "bytes": line.bytes,
        "missing": line.missing, "unfound": line.unfound.iter().map(name).collect::<Vec<_>>(),
        "inconsistent": inconsistent,
    })
}

impl Run for Query {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let pg = self.pg;
        let (place, copies) = with(&self.config, |cluster| async move { copies(&cluster, pg).await })?;
        if self.json.json {
            out.json(&json!({
                "pg": pg.to_string(), "up": place.up.iter().map(|osd| osd.0).collect::<Vec<_>>(),
                "acting": place.acting.iter().map(|osd| osd.0).collect::<Vec<_>>(),
                "primary": place.primary.map(|osd| osd.0), "copies": copies.iter().map(copy_json).collect::<Vec<_>>(),
            }))?;
            return Ok(Verdict::Good);
        }
        let primary = place.primary.map_or_else(|| "nobody".into(), |osd| osd.to_string());
        writeln!(out, "pg {pg}: up {}; acting {}; led by {primary}", osds(&place.up), osds(&place.acting))?;
        let mut table = Table::new(&[
            ("COPY", Align::Left),
            ("STATE", Align::Left),
            ("LOG", Align::Left),
            ("OBJECTS", Align::Right),
            ("BYTES", Align::Right),
            ("LACKS", Align::Right),
            ("WHY", Align::Left),
        ]);
        for (osd, line) in &copies {
            let log = format!("{}..{}", line.tail, line.last);
            let (objects, bytes) = bytes_of(Some(line));
            table.row([
                osd.to_string(),
                line.state.clone(),
                log,
                objects,
                bytes,
                line.missing.to_string(),
                line.why.clone(),
            ]);
        }
        table.print(out)?;
        for (osd, line) in &copies {
            for oid in &line.unfound {
                writeln!(out, "unfound, says {osd}: {}", name(oid))?;
            }
            for (oid, bad) in &line.inconsistent {
                let bad: Vec<String> = bad.iter().map(|(osd, damage)| format!("{damage} on {osd}")).collect();
                writeln!(out, "inconsistent, says {osd}: {} ({})", name(oid), bad.join(", "))?;
            }
        }
        Ok(Verdict::Good)
    }
}

/// Say in a line why a pg is not clean; without a pg: of all that are not.
#[derive(Args)]
#[command(after_long_help = "--json: [{pg, state, why}]. Exits with 1 if a pg is not active and clean.")]
struct Explain {
    #[command(flatten)]
    config: ConfigArg,
    /// The pg, as in 1.1f.
    #[arg(value_parser = pg)]
    pg: Option<PgId>,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Explain {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let mut rows = with(&self.config, |cluster| async move { Ok(rows(&cluster).await) })?;
        if let Some(pg) = self.pg {
            rows.retain(|row| row.pg == pg);
            if rows.is_empty() {
                bail!("there is no pg {pg}; `nacre pg ls` lists them");
            }
        }
        let clean = |row: &Row| row.line.as_ref().is_some_and(|line| line.clean && line.inconsistent.is_empty());
        let all_clean = rows.iter().all(clean);
        let said: Vec<&Row> = rows.iter().filter(|row| self.pg.is_some() || !clean(row)).collect();
        if self.json.json {
            let said: Vec<_> = said
                .iter()
                .map(|row| json!({ "pg": row.pg.to_string(), "state": row.state(), "why": row.why() }))
                .collect();
            out.json(&said)?;
        } else if said.is_empty() {
            writeln!(out, "all {} pgs are active and clean", rows.len())?;
        } else {
            for row in said {
                let why = row.why();
                let why = if why.is_empty() { "nothing is wrong with it".to_owned() } else { why };
                writeln!(out, "pg {} is {}: {why}", row.pg, row.state())?;
            }
        }
        Ok(if all_clean { Verdict::Good } else { Verdict::Bad })
    }
}

fn order(config: &ConfigArg, pg: PgId, order: Order) -> anyhow::Result<()> {
    with(config, |cluster| async move {
        if !cluster.places().iter().any(|(id, _)| *id == pg) {
            bail!("there is no pg {pg}; `nacre pg ls` lists them");
        }
        Ok(cluster.order(pg, order).await?)
    })
}

/// Compare the copies of a pg; what is provably bad is repaired.
#[derive(Args)]
struct Scrub {
    #[command(flatten)]
    config: ConfigArg,
    /// The pg, as in 1.1f.
    #[arg(value_parser = pg)]
    pg: PgId,
    /// Compare the bytes too, not only sizes, attributes and versions.
    #[arg(long)]
    deep: bool,
}

impl Run for Scrub {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        order(&self.config, self.pg, Order::Scrub { deep: self.deep })?;
        writeln!(out, "ordered; `nacre pg query {}` shows what it finds", self.pg)?;
        Ok(Verdict::Good)
    }
}

/// Read every byte of a pg's copies, and replace those that are provably bad by good ones.
#[derive(Args)]
struct Repair {
    #[command(flatten)]
    config: ConfigArg,
    /// The pg, as in 1.1f.
    #[arg(value_parser = pg)]
    pg: PgId,
}

impl Run for Repair {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        order(&self.config, self.pg, Order::Scrub { deep: true })?;
        writeln!(out, "ordered; `nacre pg query {}` lists what could not be repaired", self.pg)?;
        Ok(Verdict::Good)
    }
}

/// Decide about objects of which no copy of the needed version is left.
#[derive(Args)]
struct Unfound {
    #[command(flatten)]
    config: ConfigArg,
    /// The pg, as in 1.1f.
    #[arg(value_parser = pg)]
    pg: PgId,
    /// Take the newest older version there is; a new object is forgotten.
    #[arg(long, required_unless_present = "forget", conflicts_with = "forget")]
    revert: bool,
    /// Forget the objects altogether.
    #[arg(long)]
    forget: bool,
}

impl Run for Unfound {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        order(&self.config, self.pg, Order::Unfound { revert: self.revert })?;
        writeln!(out, "ordered; `nacre pg query {}` shows what is left", self.pg)?;
        Ok(Verdict::Good)
    }
}
