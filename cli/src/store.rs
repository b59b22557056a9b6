//! `nacre store`: an OSD's local store, offline. Opens what no daemon has open; the logic is the store's own.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use nacre_proto::ids::{OsdId, PgId, Uuid};
use nacre_store::{
    DiskStore, FormatOptions, FullRatios, Identity, ObjectStore, StoreConfig, StoreError, StoreInfo, bench, check,
    transfer,
};
use serde::Serialize;

use crate::cluster::Size;
use crate::output::{Align, JsonFlag, Out, Table, Tone};
use crate::run::{Run, Verdict};

/// Make, look at, check, repair and measure the local store of an OSD, offline.
///
/// A store is a folder: `block` (a file, or a link to a block device), `journal` (likewise) and `kv`. The OSD that uses it
/// must be stopped: a store can be open once.
#[derive(Args)]
pub(crate) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Format(Format),
    Info(Info),
    Check(Check),
    Repair(Repair),
    Grow(Grow),
    Export(Export),
    Import(Import),
    Bench(Bench),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Format(verb) => verb.run(out),
            Verb::Info(verb) => verb.run(out),
            Verb::Check(verb) => verb.run(out),
            Verb::Repair(verb) => verb.run(out),
            Verb::Grow(verb) => verb.run(out),
            Verb::Export(verb) => verb.run(out),
            Verb::Import(verb) => verb.run(out),
            Verb::Bench(verb) => verb.run(out),
        }
    }
}

#[derive(Args)]
struct PathArg {
    /// The store's folder.
    #[arg(value_name = "STORE")]
    path: PathBuf,
}

/// `10GiB`, and `10G` for those whose fingers know it: the same.
fn size(text: &str) -> Result<u64, String> {
    let long = match text.strip_suffix(['K', 'M', 'G', 'T']) {
        Some(_) => format!("{text}iB"),
        None => text.to_owned(),
    };
    Size::parse(&long).map(|size| size.0).ok_or_else(|| "a size is a number and a unit, as in 100GiB".into())
}

/// Bytes as a person reads them, with three digits.
fn bytes(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(scale, _)| bytes >= *scale) {
        Some((scale, unit)) => {
            let value = bytes as f64 / scale as f64;
            let digits = if bytes.is_multiple_of(scale) || value >= 100.0 { 0 } else { 1 };
            format!("{value:.digits$} {unit}")
        }
        None => format!("{bytes} B"),
    }
}

/// Numbers nobody can guess.
fn random() -> anyhow::Result<[u8; 24]> {
    let mut bytes = [0; 24];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("reading /dev/urandom")?;
    Ok(bytes)
}

fn options(size: u64, journal: u64, prewrite: bool) -> anyhow::Result<FormatOptions> {
    let random = random()?;
    let (store, tag) = random.split_at(16);
    Ok(FormatOptions {
        size,
        journal,
        prewrite,
        store: Uuid(store.try_into()?),
        tag: u64::from_le_bytes(tag.try_into()?),
    })
}

/// Make an empty store. Refuses a folder or device that holds one.
#[derive(Args)]
struct Format {
    #[command(flatten)]
    path: PathArg,
    /// Space for object data, as in 100GiB; where `block` is a link to a block device, all of that.
    #[arg(long, value_parser = size, default_value = "10GiB")]
    size: u64,
    /// Size of the journal.
    #[arg(long, value_parser = size, default_value = "128MiB")]
    journal: u64,
    /// Write all of `block` once: takes as long as the disk needs, and spares a file its slow first writes.
    #[arg(long)]
    prewrite: bool,
    /// The cluster it belongs to.
    #[arg(long, value_name = "UUID")]
    cluster: Uuid,
    /// The number of the OSD it belongs to.
    #[arg(long, value_name = "NUMBER")]
    osd: u32,
}

impl Run for Format {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let identity = Identity { cluster: self.cluster, osd: OsdId(self.osd) };
        let info = DiskStore::format(&self.path.path, identity, &options(self.size, self.journal, self.prewrite)?)?;
        writeln!(out, "made store {} for {} of cluster {}", info.store, identity.osd, identity.cluster)?;
        Ok(Verdict::Good)
    }
}

/// Show whose store it is, how large, and how full.
#[derive(Args)]
#[command(after_long_help = "\
--json: {store, cluster, osd, format, created, size, journal, in_use, total, used, pending, available, fullness,
collections}; sizes in bytes, created in seconds since 1970, fullness one of ok, near, backfill, full. Of a store that
is in use by another process only what stands before total.")]
struct Info {
    #[command(flatten)]
    path: PathArg,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Serialize)]
struct InfoView {
    store: String,
    cluster: String,
    osd: u32,
    format: u32,
    created: u64,
    size: u64,
    journal: u64,
    in_use: bool,
    total: u64,
    used: u64,
    pending: u64,
    available: u64,
    fullness: String,
    collections: usize,
}

impl Run for Info {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let store = match DiskStore::open(&self.path.path, None, &StoreConfig::default()) {
            Err(StoreError::Locked { .. }) => return self.of_one_in_use(out),
            store => store?,
        };
        let StoreInfo { store: id, identity, created, size, journal, format } = *store.info();
        let usage = store.usage();
        let view = InfoView {
            store: id.to_string(),
            cluster: identity.cluster.to_string(),
            osd: identity.osd.0,
            format,
            created,
            size,
            journal,
            in_use: false,
            total: usage.total,
            used: usage.used,
            pending: usage.pending,
            available: usage.available,
            fullness: format!("{:?}", usage.fullness(&FullRatios::default())).to_lowercase(),
            collections: store.collections()?.len(),
        };
        if self.json.json {
            out.json(&view)?;
            return Ok(Verdict::Good);
        }
        writeln!(out, "store {} of {} in cluster {}, format {format}", view.store, identity.osd, view.cluster)?;
        writeln!(out, "space {}, journal {}, {} collections", bytes(size), bytes(journal), view.collections)?;
        let percent = usage.ratio() * 100.0;
        writeln!(
            out,
            "used {} of {} ({percent:.1} %, {}), {} available",
            bytes(usage.used),
            bytes(usage.total),
            view.fullness,
            bytes(usage.available)
        )?;
        Ok(Verdict::Good)
    }
}

impl Info {
    /// What stands on the disk for everyone to read; how full it is, only its OSD knows.
    fn of_one_in_use(&self, out: &mut Out) -> anyhow::Result<Verdict> {
        let StoreInfo { store, identity, created, size, journal, format } = DiskStore::info_of(&self.path.path)?;
        if self.json.json {
            let (cluster, osd) = (identity.cluster.to_string(), identity.osd.0);
            out.json(&serde_json::json!({
                "store": store.to_string(), "cluster": cluster, "osd": osd, "format": format, "created": created,
                "size": size, "journal": journal, "in_use": true,
            }))?;
            return Ok(Verdict::Good);
        }
        writeln!(out, "store {store} of {} in cluster {}, format {format}", identity.osd, identity.cluster)?;
        writeln!(out, "space {}, journal {}", bytes(size), bytes(journal))?;
        writeln!(out, "in use by another process: how full it is, that one knows")?;
        Ok(Verdict::Good)
    }
}

fn open(path: &Path) -> anyhow::Result<DiskStore> {
    Ok(DiskStore::open(path, None, &StoreConfig::default())?)
}

fn report(out: &mut Out, json: JsonFlag, report: &check::Report) -> anyhow::Result<()> {
    if json.json {
        #[derive(Serialize)]
        struct View {
            ok: bool,
            collections: u64,
            objects: u64,
            blocks: u64,
            problems: Vec<Line>,
        }
        #[derive(Serialize)]
        struct Line {
            text: String,
            repairable: bool,
        }
        let line = |problem: &check::Problem| Line { text: problem.to_string(), repairable: problem.repairable() };
        return out.json(&View {
            ok: report.problems.is_empty(),
            collections: report.collections,
            objects: report.objects,
            blocks: report.blocks,
            problems: report.problems.iter().map(line).collect(),
        });
    }
    for problem in &report.problems {
        writeln!(out, "{} {problem}", out.paint(Tone::Bad, "bad:"))?;
    }
    let verdict = match report.problems.len() {
        0 => out.paint(Tone::Good, "ok"),
        1 => out.paint(Tone::Bad, "1 problem"),
        many => out.paint(Tone::Bad, &format!("{many} problems")),
    };
    let (collections, objects, blocks) = (report.collections, report.objects, report.blocks);
    writeln!(out, "{verdict}: {collections} collections, {objects} objects, {blocks} blocks of data read")?;
    Ok(())
}

/// Verify all invariants of a store: references, leaks, checksums, key order.
///
/// Exit code 1 if something is wrong. Applies the journal, as every opening does; changes nothing else.
#[derive(Args)]
#[command(after_long_help = "--json: {ok, collections, objects, blocks, problems: [{text, repairable}]}.")]
struct Check {
    #[command(flatten)]
    path: PathArg,
    /// Leave object data unread: faster, and blind for rotten bits.
    #[arg(long)]
    metadata_only: bool,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Check {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let found = open(&self.path.path)?.check(!self.metadata_only)?;
        report(out, self.json, &found)?;
        Ok(if found.problems.is_empty() { Verdict::Good } else { Verdict::Bad })
    }
}

/// Put right what can be proved: free space, reference counts, leftovers. Damaged data needs another copy.
///
/// Exit code 1 if something is left that it cannot put right.
#[derive(Args)]
struct Repair {
    #[command(flatten)]
    path: PathArg,
    /// Give up what stands in the journal behind damage. Acknowledged writes are lost: only if no other copy is better.
    #[arg(long)]
    cut_journal: bool,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Repair {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let path = &self.path.path;
        let store = if self.cut_journal {
            DiskStore::open_cutting_journal(path, &StoreConfig::default())?
        } else {
            open(path)?
        };
        let found = store.repair()?;
        report(out, self.json, &found)?;
        let left = open(path)?.check(false)?.problems.len();
        if left == 0 {
            return Ok(Verdict::Good);
        }
        if !self.json.json {
            writeln!(out, "{left} problems could not be put right from this store alone")?;
        }
        Ok(Verdict::Bad)
    }
}

/// Let a store have more space. It cannot be made smaller.
#[derive(Args)]
struct Grow {
    #[command(flatten)]
    path: PathArg,
    /// All the space it shall have, as in 200GiB; where `block` is a link to a block device, all of that is taken.
    #[arg(long, value_parser = size, default_value = "0B")]
    size: u64,
}

impl Run for Grow {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let info = DiskStore::grow(&self.path.path, self.size)?;
        writeln!(out, "store {} has {} of space now", info.store, bytes(info.size))?;
        Ok(Verdict::Good)
    }
}

/// Write a collection to a file, for another store to import. `-` is standard output.
#[derive(Args)]
struct Export {
    #[command(flatten)]
    path: PathArg,
    /// The pg, as in 2.1f.
    pg: PgId,
    /// The file, which must not exist.
    file: PathBuf,
}

impl Run for Export {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let store = open(&self.path.path)?;
        if self.file == Path::new("-") {
            transfer::export(&store, self.pg, out)?;
            return Ok(Verdict::Good);
        }
        let name = self.file.display().to_string();
        let file = File::create_new(&self.file).with_context(|| format!("making {name}"))?;
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        let moved = transfer::export(&store, self.pg, &mut writer)
            .map_err(anyhow::Error::from)
            .and_then(|moved| writer.get_ref().sync_all().map(|()| moved).map_err(anyhow::Error::from))
            .with_context(|| format!("writing {name}"));
        let moved = moved.inspect_err(|_| {
            // Half an export is of no use to anyone and would be in the way of the next try.
            let _ = std::fs::remove_file(&self.file);
        })?;
        writeln!(out, "wrote pg {}: {} objects, {}", self.pg, moved.objects, bytes(moved.bytes))?;
        Ok(Verdict::Good)
    }
}

/// Read a collection from an export. The store must not have it. `-` is standard input.
#[derive(Args)]
struct Import {
    #[command(flatten)]
    path: PathArg,
    /// The export.
    file: PathBuf,
}

impl Run for Import {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let store = open(&self.path.path)?;
        let mut from: Box<dyn Read> = if self.file == Path::new("-") {
            Box::new(std::io::stdin().lock())
        } else {
            let file = File::open(&self.file).with_context(|| format!("opening {}", self.file.display()))?;
            Box::new(BufReader::with_capacity(1 << 20, file))
        };
        let imported = transfer::import(&store, &mut from);
        let (pg, moved) = imported.with_context(|| format!("importing {}", self.file.display()))?;
        store.close()?;
        writeln!(out, "read pg {pg}: {} objects, {}", moved.objects, bytes(moved.bytes))?;
        Ok(Verdict::Good)
    }
}

/// Measure a store beside its device: makes one in a folder, runs the workloads, removes it.
#[derive(Args)]
#[command(after_long_help = "\
--json: one object a line for each workload: {workload, iops, mib_s, cpu_us_per_op, flushes_per_op, write_amplification,
rss_mib, device_limit}. device_limit is what plain files do with O_DIRECT and fdatasync in the same run: operations in a
second, for 4m workloads MiB in a second.")]
struct Bench {
    /// A folder on the device to measure.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Seconds for each workload.
    #[arg(long, default_value_t = 10)]
    time: u64,
    /// Bytes of objects that are overwritten and read.
    #[arg(long, value_parser = size, default_value = "512MiB")]
    size: u64,
    /// Only workloads whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    #[command(flatten)]
    json: JsonFlag,
}

/// The scratch folder, gone at the end whatever happens.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind costs space and nothing else.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Run for Bench {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        anyhow::ensure!(
            self.folder.is_dir(),
            "{} is no folder; name one on the device to measure",
            self.folder.display()
        );
        let scratch = Scratch(self.folder.join(format!("nacre-store-bench.{}", std::process::id())));
        let path = scratch.0.join("store");
        let space = self.size.saturating_mul(3).max(512 << 20);
        DiskStore::format(
            &path,
            Identity { cluster: Uuid([0; 16]), osd: OsdId(0) },
            &options(space, 128 << 20, true)?,
        )?;
        let store = open(&path)?;
        let options = bench::Options { time: Duration::from_secs(self.time.max(1)), size: self.size, only: self.only };
        let flushes = || store.counters().flushes.load(Ordering::Relaxed);
        let mut failed = Ok(());
        let json = self.json.json;
        let rows = bench::run(&store, &scratch.0, &options, &flushes, |row| {
            if json && failed.is_ok() {
                failed = serde_json::to_string(row)
                    .map_err(anyhow::Error::from)
                    .and_then(|line| Ok(writeln!(out, "{line}").and_then(|()| out.flush())?));
            }
        })?;
        failed?;
        if !json {
            let columns = ["workload", "iops", "MiB/s", "CPU us/op", "flushes/op", "write amp", "RSS MiB", "device"];
            let align = |(at, name): (usize, &'static str)| (name, if at == 0 { Align::Left } else { Align::Right });
            let columns: Vec<_> = columns.into_iter().enumerate().map(align).collect();
            let mut table = Table::new(&columns);
            for row in rows {
                table.row([
                    row.workload.to_owned(),
                    format!("{:.0}", row.iops),
                    format!("{:.1}", row.mib_s),
                    format!("{:.1}", row.cpu_us_per_op),
                    format!("{:.3}", row.flushes_per_op),
                    format!("{:.2}", row.write_amplification),
                    format!("{:.0}", row.rss_mib),
                    format!("{:.0}", row.device_limit),
                ]);
            }
            table.print(out)?;
        }
        store.close()?;
        Ok(Verdict::Good)
    }
}
