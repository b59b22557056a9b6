//! The maps on disk: a file that begins with a whole map and goes on with every change since. It spares a restart the
//! question what happened meanwhile; nothing depends on its last bytes, which the monitors give again.
//!
//! Layout: magic `NacreMap`, version u32, then records of `length u32, crc32 u32, kind u8, bytes`; a record that is cut or
//! damaged ends the file.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nacre_proto::ids::Epoch;

use crate::sight::{History, SightError};

const MAGIC: &[u8; 12] = b"NacreMap\x01\0\0\0";
const WHOLE: u8 = 1;
const CHANGE: u8 = 2;
/// The file is written anew when it has grown to this.
const LARGEST: u64 = 64 << 20;

/// The file, open for more.
#[derive(Debug)]
pub struct MapLog {
    path: PathBuf,
    file: File,
    length: u64,
}

fn record(kind: u8, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::other("a map is larger than 4 GiB"))?;
    let mut sum = crc32fast::Hasher::new();
    sum.update(&[kind]);
    sum.update(bytes);
    let mut out = Vec::with_capacity(bytes.len() + 9);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&sum.finalize().to_le_bytes());
    out.push(kind);
    out.extend_from_slice(bytes);
    Ok(out)
}

/// The next record, if a whole one follows.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (sum, after) = after.split_first_chunk::<4>()?;
    let (body, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?.checked_add(1)?)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
        return None;
    }
    *rest = after;
    body.split_first().map(|(kind, bytes)| (*kind, bytes))
}

impl MapLog {
    /// What is there.
    pub fn read(path: &Path) -> io::Result<History> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut history = History::default();
        if let Some(mut rest) = bytes.strip_prefix(MAGIC.as_slice()) {
            while let Some((kind, bytes)) = next(&mut rest) {
                let taken = if kind == WHOLE { history.whole(bytes) } else { history.change(bytes) };
                if let Err(error) = taken {
                    tracing::warn!(%error, path = %path.display(), "the maps kept here end early; the monitors have more");
                    break;
                }
            }
        }
        Ok(history)
    }

    /// Goes on with what was read; keeps what is needed from `oldest` on.
    pub fn open(path: &Path, mut history: History, oldest: Option<Epoch>) -> io::Result<(MapLog, History)> {
        if let Some(oldest) = oldest {
            history.forget_before(oldest);
        }
        let log = MapLog::write(path, &history)?;
        Ok((log, history))
    }

    /// Writes the file anew, with just this.
    fn write(path: &Path, history: &History) -> io::Result<MapLog> {
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(MAGIC)?;
        let mut before = None;
        for sight in history.iter() {
            let bytes = match before.replace(sight) {
                None => record(WHOLE, &sight.map.encode())?,
                Some(before) => record(CHANGE, &before.map.diff(&sight.map).encode())?,
            };
            file.write_all(&bytes)?;
        }
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        let length = file.metadata()?.len();
        Ok(MapLog { path: path.to_owned(), file, length })
    }

    /// Takes a whole map (the first) or a change into history and file.
    pub fn take(&mut self, history: &mut History, whole: bool, bytes: &[u8]) -> Result<bool, SightError> {
        let sight = if whole { history.whole(bytes)? } else { history.change(bytes)? };
        if sight.is_none() {
            return Ok(false);
        }
        let appended = record(if whole { WHOLE } else { CHANGE }, bytes).and_then(|record| {
            self.length += record.len() as u64;
            self.file.write_all(&record)
        });
        let kept = match appended {
            Ok(()) if self.length > LARGEST => MapLog::write(&self.path, history).map(|log| *self = log),
            other => other,
        };
        if let Err(error) = kept {
            // What matters is in memory, and the monitors have it too.
            tracing::error!(%error, path = %self.path.display(), "maps cannot be kept on disk");
        }
        Ok(true)
    }
}
