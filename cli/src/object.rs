//! `nacre object`: objects of a pool, from the command line.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use nacre_client::{Cluster, Pool, Settings};
use serde_json::json;

use crate::local::{ConfigArg, monitors_of};
use crate::object_data::{Omap, Xattr};
use crate::output::{JsonFlag, Out, Progress};
use crate::run::{Run, Verdict};

/// Put, get, list and remove objects of a pool, their attributes and maps.
#[derive(Args)]
pub(crate) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Put(Put),
    Get(Get),
    Ls(Ls),
    Rm(Rm),
    Stat(Stat),
    Xattr(Xattr),
    Omap(Omap),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Put(verb) => verb.run(out),
            Verb::Get(verb) => verb.run(out),
            Verb::Ls(verb) => verb.run(out),
            Verb::Rm(verb) => verb.run(out),
            Verb::Stat(verb) => verb.run(out),
            Verb::Xattr(noun) => noun.run(out),
            Verb::Omap(noun) => noun.run(out),
        }
    }
}

/// Which pool, and how patient the verb is.
#[derive(Args)]
pub(crate) struct Where {
    #[command(flatten)]
    config: ConfigArg,
    /// A namespace of the pool.
    #[arg(long, short, value_name = "NAME", default_value = "")]
    namespace: String,
    /// Give up when the cluster has not answered for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
}

impl Where {
    /// Which cluster.
    pub(crate) fn config(&self) -> &ConfigArg {
        &self.config
    }

    /// Does something with the pool.
    pub(crate) fn with<T, F>(&self, pool: &str, does: impl FnOnce(Pool) -> F) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let (folder, monitors) = monitors_of(&self.config)?;
        nacre_net::daemon::current_thread_runtime()?.block_on(async {
            let mut settings = Settings::of_folder(&folder, monitors)?;
            settings.patience = Some(Duration::from_secs(self.patience));
            let cluster = Cluster::connect(settings).await?;
            does(cluster.pool(pool).await?.namespace(&self.namespace)).await
        })
    }
}

/// Bytes written and read at a time.
const PIECE: usize = 4 << 20;

/// Store a file, or standard input, as an object.
///
/// What the object held before is replaced. Up to 4 MiB this happens at once; more is written piece by piece.
#[derive(Args)]
struct Put {
    #[command(flatten)]
    at: Where,
    /// The pool.
    pool: String,
    /// The object.
    object: String,
    /// The file; - reads standard input.
    file: PathBuf,
}

impl Run for Put {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let mut from: Box<dyn Read> = if self.file.as_os_str() == "-" {
            Box::new(std::io::stdin().lock())
        } else {
            Box::new(std::fs::File::open(&self.file).with_context(|| format!("opening {}", self.file.display()))?)
        };
        // What comes through a pipe ends when it ends.
        let size = std::fs::metadata(&self.file).map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 });
        let mut progress = Progress::of_bytes("put", size);
        let mut piece = move || {
            let mut bytes = Vec::with_capacity(PIECE);
            from.by_ref().take(PIECE as u64).read_to_end(&mut bytes).map(|_| bytes)
        };
        self.at.with(&self.pool, |pool| async move {
            let object = pool.object(self.object.clone());
            let first = piece().context("reading what is to be stored")?;
            let mut offset = first.len() as u64;
            object.write_full(first).await?;
            progress.advance(offset);
            while offset > 0 && offset.is_multiple_of(PIECE as u64) {
                let next = piece().context("reading what is to be stored")?;
                if next.is_empty() {
                    break;
                }
                let written = next.len() as u64;
                object.write(offset, next).await?;
                offset += written;
                progress.advance(written);
            }
            Ok(())
        })?;
        Ok(Verdict::Good)
    }
}

/// Write an object to a file, or to standard output.
#[derive(Args)]
struct Get {
    #[command(flatten)]
    at: Where,
    /// The pool.
    pool: String,
    /// The object.
    object: String,
    /// The file; - writes standard output.
    #[arg(default_value = "-")]
    file: PathBuf,
}

impl Run for Get {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let mut file = match self.file.as_os_str() == "-" {
            true => None,
            false => {
                Some(std::fs::File::create(&self.file).with_context(|| format!("making {}", self.file.display()))?)
            }
        };
        self.at.with(&self.pool, |pool| async move {
            let object = pool.object(self.object.clone());
            let mut offset = 0;
            let mut progress = None;
            loop {
                let bytes = object.read(offset, PIECE as u64).await?;
                match &mut file {
                    Some(file) => file.write_all(&bytes)?,
                    None => out.write_all(&bytes)?,
                }
                offset += bytes.len() as u64;
                if bytes.len() < PIECE {
                    return Ok(());
                }
                if progress.is_none() {
                    // Only what takes more than one piece is worth asking how long it is.
                    progress = Some(Progress::of_bytes("get", object.stat().await?.size));
                }
                if let Some(progress) = &mut progress {
                    progress.advance(if offset == PIECE as u64 { offset } else { bytes.len() as u64 });
                }
            }
        })?;
        Ok(Verdict::Good)
    }
}

/// List the objects of a pool, in no order a human would choose.
#[derive(Args)]
#[command(after_long_help = "--json: [NAME], names that are no UTF-8 with their odd bytes replaced.")]
struct Ls {
    #[command(flatten)]
    at: Where,
    /// The pool.
    pool: String,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Ls {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let json = self.json.json;
        self.at.with(&self.pool, |pool| async move {
            let mut all = Vec::new();
            let mut listing = pool.list();
            while let Some(page) = listing.next().await? {
                for name in page {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    if json {
                        all.push(name);
                    } else {
                        writeln!(out, "{name}")?;
                    }
                }
            }
            if json {
                out.json(&all)?;
            }
            Ok(())
        })?;
        Ok(Verdict::Good)
    }
}

/// Remove objects.
#[derive(Args)]
struct Rm {
    #[command(flatten)]
    at: Where,
    /// The pool.
    pool: String,
    /// The objects.
    #[arg(required = true)]
    objects: Vec<String>,
}

impl Run for Rm {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        self.at.with(&self.pool, |pool| async move {
            for object in &self.objects {
                pool.object(object.clone()).remove().await?;
            }
            Ok(())
        })?;
        Ok(Verdict::Good)
    }
}

/// Size and version of an object.
#[derive(Args)]
#[command(after_long_help = "--json: {object, size, version}.")]
struct Stat {
    #[command(flatten)]
    at: Where,
    /// The pool.
    pool: String,
    /// The object.
    object: String,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Stat {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let json = self.json.json;
        self.at.with(&self.pool, |pool| async move {
            let stat = pool.object(self.object.clone()).stat().await?;
            if json {
                out.json(&json!({
                    "object": self.object, "size": stat.size, "version": stat.version.to_string(),
                }))?;
            } else {
                writeln!(out, "{}  {} bytes  version {}", self.object, stat.size, stat.version)?;
            }
            Ok(())
        })?;
        Ok(Verdict::Good)
    }
}
