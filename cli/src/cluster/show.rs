//! `nacre cluster show`: the file with every default filled in, and where each value came from.

use std::fmt::Display;
use std::io::Write;

use clap::Args;
use serde_json::{Map, Value, json};

use super::file::Given;
use super::schema::{Cluster, Daemon};
use super::{FileArg, load, warn};
use crate::output::{JsonFlag, Out, Tone};
use crate::run::{Run, Verdict};

/// Show a cluster.toml with every default filled in, and where each value came from.
///
/// The text is TOML itself: what stands behind a # is the origin of the value.
#[derive(Args)]
#[command(after_long_help = "\
--json: {cluster, dashboard: {KEY: {value, from}}, hosts, monitors, osds, mds, s3, pools: [{KEY: {value, from}}]}
with the keys of cluster.toml; from is \"default\", \"line N\" or what the value follows from. Sizes are in bytes.")]
pub(super) struct Show {
    #[command(flatten)]
    file: FileArg,
    #[command(flatten)]
    json: JsonFlag,
}

/// One key: name, value as TOML, value as JSON, origin.
struct Row {
    key: &'static str,
    toml: String,
    json: Value,
    from: String,
}

fn text<T: Display>(key: &'static str, given: &Given<T>) -> Row {
    let value = given.value.to_string();
    Row { key, toml: toml_string(&value), json: json!(value), from: given.from.words() }
}

fn number<T: Display>(key: &'static str, given: &Given<T>) -> Row {
    let toml = given.value.to_string();
    let json = serde_json::from_str(&toml).unwrap_or_else(|_| json!(toml));
    Row { key, toml, json, from: given.from.words() }
}

fn toml_string(value: &str) -> String {
    toml::Value::from(value).to_string()
}

fn size(key: &'static str, given: &Given<super::Size>) -> Row {
    Row { json: json!(given.value.0), ..text(key, given) }
}

fn path(key: &'static str, given: &Given<std::path::PathBuf>) -> Row {
    let value = given.value.display().to_string();
    Row { key, toml: toml_string(&value), json: json!(value), from: given.from.words() }
}

fn location(given: &Given<super::schema::Location>) -> Row {
    let pairs: Map<String, Value> =
        given.value.0.iter().map(|(level, name)| ((*level).to_owned(), json!(name.0))).collect();
    Row { key: "location", toml: given.value.to_string(), json: Value::Object(pairs), from: given.from.words() }
}

/// The parts in the order of the file: heading, key in JSON, rows.
fn parts(cluster: &Cluster) -> Vec<(&'static str, &'static str, Vec<Row>)> {
    let mut parts = vec![(
        "",
        "cluster",
        vec![
            text("name", &cluster.name),
            path("data", &cluster.data),
            text("address", &cluster.address),
            number("base_port", &cluster.base_port),
        ],
    )];
    let page = &cluster.dashboard;
    parts.push(("[dashboard]", "dashboard", vec![number("enabled", &page.enabled), number("port", &page.port)]));
    for host in &cluster.hosts {
        let rows = vec![text("name", &host.name), text("address", &host.address), location(&host.location)];
        parts.push(("[[hosts]]", "hosts", rows));
    }
    let daemon = |id: Row, daemon: &Daemon| vec![id, text("host", &daemon.host), number("port", &daemon.port)];
    for mon in &cluster.monitors {
        parts.push(("[[monitors]]", "monitors", daemon(number("id", &mon.id), mon)));
    }
    for osd in &cluster.osds {
        let mut rows =
            vec![number("id", &osd.id), text("host", &osd.host), number("port", &osd.port), path("path", &osd.path)];
        rows.extend(osd.device.as_ref().map(|device| path("device", device)));
        rows.extend(osd.size.as_ref().map(|given| size("size", given)));
        rows.extend([
            text("class", &osd.class),
            number("weight", &osd.weight),
            size("memory", &osd.memory),
            number("shards", &osd.shards),
            location(&osd.location),
        ]);
        parts.push(("[[osds]]", "osds", rows));
    }
    for mds in &cluster.mds {
        parts.push(("[[mds]]", "mds", daemon(text("name", &mds.id), mds)));
    }
    for s3 in &cluster.s3 {
        parts.push(("[[s3]]", "s3", daemon(text("name", &s3.id), s3)));
    }
    for pool in &cluster.pools {
        let mut rows = vec![
            text("name", &pool.name),
            number("size", &pool.size),
            number("min_size", &pool.min_size),
            text("failure_domain", &pool.failure_domain),
        ];
        rows.extend(pool.class.as_ref().map(|class| text("class", class)));
        rows.push(match pool.pg_num.value {
            super::schema::PgNum::Auto => text("pg_num", &pool.pg_num),
            super::schema::PgNum::Fixed(_) => number("pg_num", &pool.pg_num),
        });
        rows.extend(pool.application.as_ref().map(|application| text("application", application)));
        rows.extend(pool.quota_bytes.as_ref().map(|quota| size("quota_bytes", quota)));
        rows.extend(pool.quota_objects.as_ref().map(|quota| number("quota_objects", quota)));
        parts.push(("[[pools]]", "pools", rows));
    }
    parts
}

impl Run for Show {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let loaded = load(&self.file.file)?;
        warn(&loaded);
        let parts = parts(&loaded.cluster);
        if self.json.json {
            out.json(&as_json(parts))?;
            return Ok(Verdict::Good);
        }
        let mut first = true;
        for (heading, _, rows) in parts {
            if !heading.is_empty() {
                writeln!(out, "{}{}", if first { "" } else { "\n" }, out.paint(Tone::Strong, heading))?;
            }
            first = false;
            let width = rows.iter().map(|row| row.key.len() + row.toml.chars().count() + 3).max().unwrap_or(0);
            for row in rows {
                let line = format!("{} = {}", row.key, row.toml);
                let slack = " ".repeat(width.saturating_sub(line.chars().count()));
                writeln!(out, "{line}{slack}  {}", out.paint(Tone::Faint, &format!("# {}", row.from)))?;
            }
        }
        Ok(Verdict::Good)
    }
}

fn as_json(parts: Vec<(&'static str, &'static str, Vec<Row>)>) -> Value {
    let mut all = Map::new();
    // A kind of which there is none is an empty list, not an absent one.
    for kind in ["hosts", "monitors", "osds", "mds", "s3", "pools"] {
        all.insert(kind.to_owned(), json!([]));
    }
    for (heading, kind, rows) in parts {
        let rows = rows.into_iter().map(|row| (row.key.to_owned(), json!({ "value": row.json, "from": row.from })));
        let rows = Value::Object(rows.collect());
        match all.get_mut(kind) {
            Some(Value::Array(list)) if heading.starts_with("[[") => list.push(rows),
            _ => {
                all.insert(kind.to_owned(), rows);
            }
        }
    }
    Value::Object(all)
}
