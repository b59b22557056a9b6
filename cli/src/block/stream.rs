//! `nacre block export`, `import`, `diff`: images into files and back.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use nacre_block::qcow2::Reader;
use nacre_block::stream::Head;
use nacre_block::{Image, Use, create};
use serde_json::json;

use super::snap::shown;
use super::{At, Spot, bytes, size};
use crate::output::{Align, JsonFlag, Out, Table};
use crate::run::{Run, Verdict};

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// The bytes of the disk, as they are.
    Raw,
    /// A disk of qemu.
    Qcow2,
    /// Nacre's own: with checksums, sparse, able to hold a difference.
    Stream,
}

/// Write an image or a snapshot to a file, or what changed since an older snapshot.
#[derive(Args)]
pub(super) struct Export {
    #[command(flatten)]
    at: At,
    /// The image, or POOL/IMAGE@SNAPSHOT.
    image: Spot,
    /// The file; - writes standard output.
    file: PathBuf,
    /// What to write.
    #[arg(long, value_enum, default_value_t = Form::Stream)]
    form: Form,
    /// Only what changed since this snapshot of the same image (a stream).
    #[arg(long, value_name = "SNAPSHOT")]
    from: Option<String>,
}

/// Passes over zeros in a new file.
fn skip(file: Option<&File>) -> impl FnMut(&mut dyn Write, u64) -> std::io::Result<bool> + use<> {
    let file = file.and_then(|file| file.try_clone().ok());
    move |out, len| match &file {
        // What is buffered belongs before the gap.
        Some(file) => {
            out.flush()?;
            let mut file: &File = file;
            file.seek(SeekFrom::Current(i64::try_from(len).unwrap_or(i64::MAX)))?;
            Ok(true)
        }
        None => Ok(false),
    }
}

impl Run for Export {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        if self.form != Form::Stream && self.from.is_some() {
            anyhow::bail!("a difference can only be written as a stream: leave out --form or --from");
        }
        let to_file = self.file.as_os_str() != "-";
        let file = match to_file {
            true => Some(File::create(&self.file).with_context(|| format!("making {}", self.file.display()))?),
            false => None,
        };
        self.at.with(|cluster| async move {
            let image = self.image.open(&cluster).await?;
            let plain = match &file {
                Some(file) => file.metadata()?.is_file(),
                None => false,
            };
            let mut skip = skip(file.as_ref().filter(|_| plain));
            let mut into: Box<dyn Write> = match &file {
                Some(file) => Box::new(BufWriter::with_capacity(1 << 20, file.try_clone()?)),
                None => Box::new(out),
            };
            let progress = shown("exporting");
            match (self.form, &self.from) {
                (Form::Raw, _) => image.export_raw(&mut into, &mut skip, progress).await?,
                (Form::Qcow2, _) => image.export_qcow2(&mut into, &mut skip, progress).await?,
                (Form::Stream, from) => {
                    let older = match from {
                        Some(from) => {
                            let pool = self.image.room.open(&cluster).await?;
                            Some(Image::open_snapshot(&pool, &self.image.image, from).await?)
                        }
                        None => None,
                    };
                    let older = older.as_ref().zip(from.as_deref());
                    let to = self.image.snapshot.clone().unwrap_or_default();
                    image.export(older, &to, &mut into, progress).await?;
                }
            }
            into.flush()?;
            drop(into);
            if let Some(file) = &file {
                if plain && self.form != Form::Stream {
                    // Zeros at the end were passed over.
                    let mut at: &File = file;
                    file.set_len(at.stream_position()?)?;
                }
                file.sync_all().or_else(|error| if plain { Err(error) } else { Ok(()) })?;
            }
            Ok(())
        })?;
        Ok(Verdict::Good)
    }
}

/// Make an image of a file, or bring one forward by a difference.
///
/// A difference (a stream that was exported with --from) is applied to the image that is there: it must have the snapshot
/// that the difference begins with, and gets the one that it leads to.
#[derive(Args)]
pub(super) struct Import {
    #[command(flatten)]
    at: At,
    /// The file; - reads standard input (a qcow2 that comes through a pipe is kept in the temporary folder meanwhile).
    file: PathBuf,
    /// The image.
    image: Spot,
    /// What the file holds.
    #[arg(long, value_enum, default_value_t = Form::Stream)]
    form: Form,
    /// How large the image is to be; needed to read raw bytes from standard input.
    #[arg(long, short, value_parser = size)]
    size: Option<u64>,
}

fn opened(path: &Path) -> anyhow::Result<(Box<dyn Read>, Option<u64>)> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(BufReader::with_capacity(1 << 20, std::io::stdin())), None));
    }
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    // Also of a device.
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    Ok((Box::new(BufReader::with_capacity(1 << 20, file)), Some(length)))
}

/// Standard input as a file that can be read anywhere: itself, if it can; otherwise a copy without a name.
fn standard_input() -> anyhow::Result<File> {
    let input = std::io::stdin().as_fd().try_clone_to_owned().context("reading standard input")?;
    let mut input = File::from(input);
    if input.stream_position().is_ok() {
        return Ok(input);
    }
    let path = std::env::temp_dir().join(format!("nacre-import-{}", std::process::id()));
    let kept = || format!("keeping what comes on standard input in {}", path.display());
    // A disk's bytes are nobody else's to read, not even in the moment that the name is there.
    let mut copy =
        File::options().read(true).write(true).create_new(true).mode(0o600).open(&path).with_context(kept)?;
    std::fs::remove_file(&path).with_context(kept)?;
    std::io::copy(&mut input, &mut copy).with_context(kept)?;
    copy.rewind()?;
    Ok(copy)
}

impl Run for Import {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let name = self.image.whole()?.to_owned();
        let (mut from, length) = opened(&self.file)?;
        self.at.with(|cluster| async move {
            let pool = self.image.room.open(&cluster).await?;
            let mut disk = None;
            let head = match self.form {
                Form::Qcow2 => {
                    let file = match self.file.as_os_str() == "-" {
                        true => standard_input()?,
                        false => File::open(&self.file).with_context(|| format!("opening {}", self.file.display()))?,
                    };
                    let reader = Reader::open(file).with_context(|| format!("reading {}", self.file.display()))?;
                    let size = self.size.unwrap_or(reader.size().next_multiple_of(512));
                    anyhow::ensure!(size >= reader.size(), "the disk in the file is larger: {}", bytes(reader.size()));
                    disk = Some(reader);
                    Head { size, order: create::ORDER, ..Head::default() }
                }
                Form::Stream => Head::read(&mut from)?,
                Form::Raw => {
                    let size = self.size.or(length.map(|length| length.next_multiple_of(512)));
                    let size = size.context("--size is needed: the length of standard input is not known before")?;
                    Head { size, order: create::ORDER, ..Head::default() }
                }
            };
            let new = head.from.is_empty();
            if new {
                create::create(&pool, &name, head.size, head.order).await?;
            }
            let image = Image::open_for(&pool, &name, Use::Write).await?;
            let total = head.size;
            let done = async {
                match self.form {
                    Form::Qcow2 => {
                        if let Some(disk) = &mut disk {
                            image.import_qcow2(disk, shown("importing")).await?;
                        }
                    }
                    Form::Raw => {
                        image.import_raw(&mut from, shown("importing")).await?;
                        if from.read(&mut [0])? > 0 {
                            anyhow::bail!("the file is longer than the image of {}", bytes(total));
                        }
                    }
                    Form::Stream => {
                        if !new {
                            if !image.snapshots().iter().any(|snap| snap.name == head.from) {
                                anyhow::bail!(
                                    "the difference begins with snapshot {}, which {} does not have; nothing was changed",
                                    head.from, self.image
                                );
                            }
                            if image.snapshots().iter().any(|snap| snap.name == head.to) {
                                anyhow::bail!("{} has snapshot {} already; nothing was changed", self.image, head.to);
                            }
                            image.resize(head.size, true).await?;
                        }
                        let mut progress = shown("importing");
                        image.apply(&mut from, |done| progress(done, total)).await?;
                        if !head.to.is_empty() {
                            image.snapshot(&head.to).await?;
                        }
                    }
                }
                Ok(())
            }
            .await;
            image.close().await?;
            if done.is_err() && new {
                // Half an image is worse than none.
                create::remove(&pool, &name).await.context("removing what was imported so far")?;
            }
            done
        })?;
        Ok(Verdict::Good)
    }
}

/// Show which ranges of an image, or of a snapshot, changed since an older snapshot.
#[derive(Args)]
#[command(after_long_help = "\
Found by the versions of the image's objects, without reading them: a range is where bytes may differ.
--json: [{offset, length}]")]
pub(super) struct Diff {
    #[command(flatten)]
    at: At,
    /// The image, or POOL/IMAGE@SNAPSHOT.
    image: Spot,
    /// The older snapshot; left out: what holds anything at all.
    #[arg(long, value_name = "SNAPSHOT")]
    from: Option<String>,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for Diff {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let json = self.json.json;
        let ranges = self.at.with(|cluster| async move {
            let image = self.image.open(&cluster).await?;
            let older = match &self.from {
                Some(from) => {
                    let pool = self.image.room.open(&cluster).await?;
                    Some(Image::open_snapshot(&pool, &self.image.image, from).await?)
                }
                None => None,
            };
            Ok(image.changed_since(older.as_ref()).await?)
        })?;
        if json {
            let line = |range: &nacre_block::diff::Range| json!({ "offset": range.offset, "length": range.len });
            out.json(&ranges.iter().map(line).collect::<Vec<_>>())?;
            return Ok(Verdict::Good);
        }
        let mut table = Table::new(&[("OFFSET", Align::Right), ("LENGTH", Align::Right)]);
        for range in ranges {
            table.row([range.offset.to_string(), range.len.to_string()]);
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}
