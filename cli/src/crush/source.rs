//! Maps out of files and into files: text or binary, found out by looking; `-` is standard input or output.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use nacre_crush::binary::{self, BinaryError};
use nacre_crush::model::{CrushMap, RuleId};
use nacre_crush::text::{self, TextError};

use crate::output::Out;

/// The map a verb works on: as an argument, or behind `-i` as crushtool has it.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct MapArg {
    /// The map: crush text or binary; - reads standard input.
    #[arg(value_name = "MAP")]
    map: Option<PathBuf>,
    /// The same, in the manner of crushtool.
    #[arg(short = 'i', long = "infn", value_name = "MAP")]
    infn: Option<PathBuf>,
}

impl MapArg {
    /// Where the map is.
    pub(super) fn path(&self) -> &Path {
        // The group lets exactly one through.
        self.map.as_deref().or(self.infn.as_deref()).unwrap_or(Path::new("-"))
    }

    /// Reads it.
    pub(super) fn read(&self) -> Result<CrushMap, MapFileError> {
        read(self.path())
    }
}

/// Why a file gives no map.
#[derive(Debug, thiserror::Error)]
pub(super) enum MapFileError {
    /// No file.
    #[error("reading the map {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Text with a mistake in it.
    #[error("{}", Pointed { path, error })]
    Text {
        /// The file.
        path: PathBuf,
        /// The mistake.
        error: Box<TextError>,
    },
    /// Bytes that are no map.
    #[error("{}: {error}", path.display())]
    Binary {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: BinaryError,
    },
    /// Neither form.
    #[error("{}: neither crush text nor a binary crush map; get it with `ceph osd getcrushmap -o FILE`, or write text", path.display())]
    Neither {
        /// The file.
        path: PathBuf,
    },
}

/// A mistake with its file before its place.
struct Pointed<'a> {
    path: &'a Path,
    error: &'a TextError,
}

impl fmt::Display for Pointed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TextError { line, column, .. } = self.error;
        let text = self.error.to_string();
        let text = text.strip_prefix(&format!("line {line}, column {column}: ")).unwrap_or(&text);
        write!(f, "{}:{line}:{column}: {text}", self.path.display())
    }
}

/// The two forms of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Crush text.
    Text,
    /// Ceph's binary form.
    Binary,
}

/// Reads a map in whichever form.
pub(super) fn read(path: &Path) -> Result<CrushMap, MapFileError> {
    read_form(path).map(|(map, _)| map)
}

/// Reads a map and says in which form it was.
pub(super) fn read_form(path: &Path) -> Result<(CrushMap, Form), MapFileError> {
    let bytes = read_bytes(path).map_err(|source| MapFileError::Unreadable { path: path.to_owned(), source })?;
    if bytes.starts_with(&[0, 0, 1, 0]) {
        let map = binary::decode(&bytes).map(|map| (map, Form::Binary));
        return map.map_err(|error| MapFileError::Binary { path: path.to_owned(), error });
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => {
            let map = text::parse(&text).map(|map| (map, Form::Text));
            map.map_err(|error| MapFileError::Text { path: path.to_owned(), error: Box::new(error) })
        }
        _ => Err(MapFileError::Neither { path: path.to_owned() }),
    }
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    if path != Path::new("-") {
        return std::fs::read(path);
    }
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes to a file, whole or not at all; `-` is standard output.
pub(super) fn write(path: &Path, bytes: &[u8], out: &mut Out) -> anyhow::Result<()> {
    if path == Path::new("-") {
        out.write_all(bytes)?;
        return Ok(());
    }
    // Something that is no plain file (a pipe, /dev/stdout) cannot be replaced, only written to.
    if path.exists() && !path.is_file() {
        return std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()));
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".draft.{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let written = std::fs::write(&draft, bytes).and_then(|()| std::fs::rename(&draft, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&draft);
    }
    written.with_context(|| format!("writing {}", path.display()))
}

/// The rule of that number or name.
pub(super) fn rule(map: &CrushMap, path: &Path, word: &str) -> anyhow::Result<RuleId> {
    let by_number = word.parse().ok().filter(|id| map.rules.contains_key(id));
    if let Some(id) = by_number.or_else(|| map.rule_id(word)) {
        return Ok(id);
    }
    let known: Vec<String> = map.rules.iter().map(|(id, rule)| format!("{id} ({})", rule.name)).collect();
    let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
    anyhow::bail!("{} has no rule {word}; {known}", path.display())
}
