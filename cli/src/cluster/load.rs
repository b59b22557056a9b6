//! From a `cluster.toml` to a [`Cluster`], or to the list of all that is wrong with it.

use std::io;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::file::{Problems, Reader, Severity};
use super::read::read;
use super::schema::Cluster;
use super::validate::validate;

/// A cluster and what to look at although it can be used.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The cluster.
    pub(crate) cluster: Cluster,
    /// Warnings alone.
    pub(crate) warnings: Problems,
}

/// Why there is no cluster to speak of.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The file cannot be read.
    #[error("{}: {source}; name another file, or write one (docs/reference/cluster-toml.md)", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file can be read, and is wrong.
    #[error("{0}")]
    Wrong(Problems),
}

/// Reads and checks a file.
pub(crate) fn load(path: &Path) -> Result<Loaded, LoadError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    parse(&path.display().to_string(), folder, &text).map_err(LoadError::Wrong)
}

/// Reads and checks a text; `folder` is where relative paths start.
pub(crate) fn parse(file: &str, folder: &Path, text: &str) -> Result<Loaded, Problems> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader::new(text);
    let mut lines = Vec::new();
    for error in &errors {
        // One slip makes several errors of the parser; the first of a line is the slip.
        let line = error.span().map(|span| reader.line(&span));
        if line.is_some() && lines.contains(&line) {
            continue;
        }
        lines.push(line);
        reader.problem(error.span(), format!("not TOML: {}", error.message().trim()), None);
    }
    // A text that is not TOML has lost keys: complaints about those would lead astray.
    let cluster = if errors.is_empty() { read(&mut reader, document.get_ref(), folder) } else { None };
    if let Some(cluster) = &cluster {
        validate(&mut reader, cluster);
    }
    let problems = Problems::new(file.to_owned(), text, reader.problems);
    match cluster {
        Some(cluster) if problems.count(Severity::Error) == 0 => Ok(Loaded { cluster, warnings: problems }),
        _ => Err(problems),
    }
}
