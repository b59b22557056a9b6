//! Where a process keeps its identity: a folder with `identity.pem` (certificate and key, mode 0600) and
//! `authority.pem`. Written whole and renamed into place, so that a crash leaves the old or the new one.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::identity::Keypair;

const IDENTITY: &str = "identity.pem";
const AUTHORITY: &str = "authority.pem";
const REQUEST: &str = "joining.pem";
const LARGEST: u64 = 1 << 20;

/// What goes wrong with the folder.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The system said no.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The content is not what it should be.
    #[error("{}: {why}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// Others could read the key.
    #[error("{} can be read by others (mode {mode:03o}); it holds a private key: chmod 600 it, and join anew if it may have been copied", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// What the folder holds.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Certificate and key.
    pub pair: Keypair,
    /// The authorities to trust, in DER.
    pub authorities: Vec<Vec<u8>>,
}

/// Reads certificate, key and authorities. `None` if the folder holds no identity yet.
pub fn load(folder: &Path) -> Result<Option<Stored>, FilesError> {
    let path = folder.join(IDENTITY);
    let file = match File::open(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|source| FilesError::Io { verb: "open", path: path.clone(), source })?,
    };
    let meta = file.metadata().map_err(|source| FilesError::Io { verb: "look at", path: path.clone(), source })?;
    if meta.mode() & 0o077 != 0 {
        return Err(FilesError::Exposed { path, mode: meta.mode() & 0o777 });
    }
    let mut pair = Keypair { certificate: Vec::new(), key: Zeroizing::new(Vec::new()) };
    for block in blocks(&path)? {
        match block.tag() {
            "CERTIFICATE" => pair.certificate = block.into_contents(),
            "PRIVATE KEY" => pair.key = Zeroizing::new(block.into_contents()),
            _ => return Err(FilesError::Content { path, why: "it holds more than a certificate and a key" }),
        }
    }
    if pair.certificate.is_empty() || pair.key.is_empty() {
        return Err(FilesError::Content { path, why: "it must hold a certificate and a private key" });
    }
    let path = folder.join(AUTHORITY);
    let authorities: Vec<_> = blocks(&path)?.into_iter().map(pem::Pem::into_contents).collect();
    if authorities.is_empty() {
        return Err(FilesError::Content { path, why: "it holds no certificate" });
    }
    Ok(Some(Stored { pair, authorities }))
}

fn blocks(path: &Path) -> Result<Vec<pem::Pem>, FilesError> {
    let io = |verb| move |source| FilesError::Io { verb, path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(io("look at"))?.len() > LARGEST {
        return Err(FilesError::Content { path: path.to_owned(), why: "it is larger than 1 MiB" });
    }
    let text = Zeroizing::new(std::fs::read(path).map_err(io("read"))?);
    pem::parse_many(&*text).map_err(|_| FilesError::Content { path: path.to_owned(), why: "it is not PEM" })
}

/// Writes certificate, key and authorities.
pub fn store(folder: &Path, pair: &Keypair, authorities: &[Vec<u8>]) -> Result<(), FilesError> {
    std::fs::create_dir_all(folder).map_err(|source| FilesError::Io {
        verb: "create",
        path: folder.to_owned(),
        source,
    })?;
    let text = authorities.iter().map(|a| pem::encode(&pem::Pem::new("CERTIFICATE", a.clone()))).collect::<String>();
    replace(folder, AUTHORITY, text.as_bytes())?;
    let certificate = pem::encode(&pem::Pem::new("CERTIFICATE", pair.certificate.clone()));
    let key = Zeroizing::new(pem::encode(&pem::Pem::new("PRIVATE KEY", pair.key.to_vec())));
    let text = Zeroizing::new(format!("{certificate}{}", *key));
    replace(folder, IDENTITY, text.as_bytes())
}

/// Writes the signing request of a newcomer that waits, and the key to it: it asks again with the same.
pub fn store_request(folder: &Path, request: &[u8], key: &[u8]) -> Result<(), FilesError> {
    std::fs::create_dir_all(folder).map_err(|source| FilesError::Io {
        verb: "create",
        path: folder.to_owned(),
        source,
    })?;
    let request = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", request));
    let key = Zeroizing::new(pem::encode(&pem::Pem::new("PRIVATE KEY", key)));
    replace(folder, REQUEST, Zeroizing::new(format!("{request}{}", *key)).as_bytes())
}

/// A signing request and its key, as they were stored.
pub type Waiting = (Vec<u8>, Zeroizing<Vec<u8>>);

/// Reads the signing request of a newcomer that waits.
pub fn load_request(folder: &Path) -> Result<Option<Waiting>, FilesError> {
    let path = folder.join(REQUEST);
    if !path.exists() {
        return Ok(None);
    }
    let (mut request, mut key) = (Vec::new(), Zeroizing::new(Vec::new()));
    for block in blocks(&path)? {
        match block.tag() {
            "CERTIFICATE REQUEST" => request = block.into_contents(),
            "PRIVATE KEY" => key = Zeroizing::new(block.into_contents()),
            _ => return Err(FilesError::Content { path, why: "it holds more than a signing request and a key" }),
        }
    }
    if request.is_empty() || key.is_empty() {
        return Err(FilesError::Content { path, why: "it must hold a signing request and a private key" });
    }
    Ok(Some((request, key)))
}

/// Takes the signing request away: it was decided.
pub fn clear_request(folder: &Path) -> Result<(), FilesError> {
    let path = folder.join(REQUEST);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(FilesError::Io { verb: "remove", path, source: e }),
        _ => Ok(()),
    }
}

fn replace(folder: &Path, name: &str, content: &[u8]) -> Result<(), FilesError> {
    let fresh = folder.join(format!(".{name}.new"));
    let io = |verb, path: &Path| {
        let path = path.to_owned();
        move |source| FilesError::Io { verb, path, source }
    };
    // A leftover of a crash may have another mode: start from nothing.
    match std::fs::remove_file(&fresh) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(io("remove", &fresh)(e)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(io("create", &fresh))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(io("write", &fresh))?;
    let path = folder.join(name);
    std::fs::rename(&fresh, &path).map_err(io("replace", &path))?;
    File::open(folder).and_then(|f| f.sync_all()).map_err(io("sync", folder))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn stores_and_loads_and_guards_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("osd.1");
        assert!(load(&home).unwrap().is_none());
        let pair = Keypair { certificate: vec![1, 2, 3], key: Zeroizing::new(vec![4, 5]) };
        store(&home, &pair, &[vec![7], vec![8]]).unwrap();
        store(&home, &pair, &[vec![7], vec![8]]).unwrap();
        let Stored { pair: back, authorities } = load(&home).unwrap().unwrap();
        assert_eq!(
            (back.certificate, back.key.to_vec(), authorities),
            (vec![1, 2, 3], vec![4, 5], vec![vec![7], vec![8]])
        );

        std::fs::set_permissions(home.join(IDENTITY), std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(&home), Err(FilesError::Exposed { mode: 0o640, .. })));
        std::fs::set_permissions(home.join(IDENTITY), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(home.join(IDENTITY), "no pem at all").unwrap();
        assert!(matches!(load(&home), Err(FilesError::Content { .. })));
    }
}
