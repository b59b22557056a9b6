//! `nacre cluster tree`: hosts and daemons as they stand in the crush tree.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::schema::{Cluster, Location, Name, Osd};
use super::{FileArg, load, warn};
use crate::output::{Align, JsonFlag, Out, Table, Tone, branches};
use crate::run::{Run, Verdict};

/// Draw a cluster.toml: hosts and their daemons, as they stand in the crush tree.
#[derive(Args)]
#[command(after_long_help = "\
--json: {cluster, nodes: [{depth, name, type, listens, size, class}]}, a node before those below it; listens, size (bytes)
and class may be null.")]
pub(super) struct Tree {
    #[command(flatten)]
    file: FileArg,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Node {
    depth: usize,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    listens: Option<String>,
    #[serde(serialize_with = "bytes")]
    size: Option<super::Size>,
    class: Option<String>,
}

fn bytes<S: serde::Serializer>(size: &Option<super::Size>, to: S) -> Result<S::Ok, S::Error> {
    size.map(|size| size.0).serialize(to)
}

/// A daemon on its way into the tree.
struct Leaf<'a> {
    path: &'a Location,
    node: Node,
}

fn leaves(cluster: &Cluster) -> Vec<Leaf<'_>> {
    let mut leaves = Vec::new();
    let osds: BTreeMap<u32, &Osd> = cluster.osds.iter().map(|osd| (osd.id.value, osd)).collect();
    let place = |host: &Name| cluster.hosts.iter().find(|known| known.name.value == *host);
    for (name, host, listens) in cluster.daemons() {
        let osd = name.strip_prefix("osd.").and_then(|id| osds.get(&id.parse::<u32>().ok()?));
        let path = match (osd, place(host)) {
            (Some(osd), _) => &osd.location.value,
            (None, Some(host)) => &host.location.value,
            (None, None) => continue,
        };
        let kind = match name.split('.').next() {
            Some("mon") => "mon",
            Some("mds") => "mds",
            Some("s3") => "s3",
            _ => "osd",
        };
        let size = osd.and_then(|osd| osd.size.as_ref()).map(|size| size.value);
        let class = osd.map(|osd| osd.class.value.0.clone());
        let node = Node { depth: path.0.len(), name, kind, listens: Some(listens.to_string()), size, class };
        leaves.push(Leaf { path, node });
    }
    leaves
}

/// Buckets and daemons, each before what is below it. Buckets in the order in which the file first speaks of them.
fn nodes(cluster: &Cluster) -> Vec<Node> {
    let leaves = leaves(cluster);
    let mut nodes = Vec::new();
    let hosts = cluster.hosts.iter().map(|host| &host.location.value);
    let paths: Vec<&Location> = hosts.chain(leaves.iter().map(|leaf| leaf.path)).collect();
    below(&mut nodes, &paths, &leaves, &[]);
    nodes
}

/// Adds what is below a bucket. As deep as there are types, no deeper.
fn below<'a>(nodes: &mut Vec<Node>, paths: &[&'a Location], leaves: &[Leaf<'a>], at: &[(&'static str, Name)]) {
    nodes.extend(leaves.iter().filter(|leaf| leaf.path.0 == at).map(|leaf| leaf.node.clone()));
    let mut done: Vec<&Name> = Vec::new();
    for path in paths.iter().filter(|path| path.0.starts_with(at)) {
        let Some((level, bucket)) = path.0.get(at.len()) else { continue };
        if done.contains(&bucket) {
            continue;
        }
        done.push(bucket);
        let name = bucket.0.clone();
        nodes.push(Node { depth: at.len(), name, kind: level, listens: None, size: None, class: None });
        below(nodes, paths, leaves, &path.0[..=at.len()]);
    }
}

impl Run for Tree {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let loaded = load(&self.file.file)?;
        warn(&loaded);
        let nodes = nodes(&loaded.cluster);
        if self.json.json {
            out.json(&serde_json::json!({ "cluster": loaded.cluster.name.value.0, "nodes": nodes }))?;
            return Ok(Verdict::Good);
        }
        writeln!(out, "cluster {}, data in {}\n", loaded.cluster.name.value, loaded.cluster.data.value.display())?;
        let mut table = Table::new(&[
            ("TYPE", Align::Left),
            ("SIZE", Align::Right),
            ("CLASS", Align::Left),
            ("LISTENS", Align::Left),
            ("NAME", Align::Left),
        ]);
        let depths: Vec<usize> = nodes.iter().map(|node| node.depth).collect();
        for (node, branch) in nodes.iter().zip(branches(&depths)) {
            let size = node.size.map(|size| size.to_string()).unwrap_or_default();
            let cells = [
                node.kind.to_owned(),
                size,
                node.class.clone().unwrap_or_default(),
                node.listens.clone().unwrap_or_default(),
                format!("{branch}{}", node.name),
            ];
            table.row_toned(cells.map(|cell| (Tone::Plain, cell)).into());
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}
