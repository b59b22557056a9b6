//! What can be wrong with an image, or with what was asked of it.

use nacre_client::{OpError, class::code};

/// See the module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such image.
    #[error("there is no image {name}; `nacre block ls` lists those of a pool")]
    NoImage {
        /// Its name.
        name: String,
    },
    /// The name is taken.
    #[error("there is an image {name} already; nothing was changed")]
    Exists {
        /// Its name.
        name: String,
    },
    /// There is no such snapshot.
    #[error("image {image} has no snapshot {snap}; `nacre block snap ls` lists them")]
    NoSnap {
        /// Of which image.
        image: String,
        /// Its name.
        snap: String,
    },
    /// The name of a snapshot is taken.
    #[error("image {image} has a snapshot {snap} already; nothing was changed")]
    SnapExists {
        /// Of which image.
        image: String,
        /// Its name.
        snap: String,
    },
    /// A name that cannot be.
    #[error("`{name}` is no name for {what}: 1 to 200 letters, without `@`, `/` and control characters")]
    Name {
        /// What was to be named.
        what: &'static str,
        /// The name given.
        name: String,
    },
    /// A size or order that cannot be.
    #[error("{what}: {why}; nothing was changed")]
    Size {
        /// What was given.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A shrink that would lose data.
    #[error(
        "image {image} holds data past {size} bytes, which a shrink would lose; nothing was changed. Shrink the file \
         system in it first, or say --lose-data"
    )]
    LosesData {
        /// Which image.
        image: String,
        /// The size asked for.
        size: u64,
    },
    /// Someone else writes it.
    #[error("image {image} is open for writing by {holder}, who does not let go; close it there, or take it by force")]
    InUse {
        /// Which image.
        image: String,
        /// Who has it, as far as is known.
        holder: String,
    },
    /// The image was taken from this writer.
    #[error("image {image} is no longer this writer's: {why}. Nothing it still wants to write lands; open it again")]
    Lost {
        /// Which image.
        image: String,
        /// What happened.
        why: String,
    },
    /// Not open for writing.
    #[error("image {image} is open for reading only")]
    ReadOnly {
        /// Which image.
        image: String,
    },
    /// Past the end.
    #[error("image {image}: bytes {offset} to {end} lie past its end at {size}")]
    Bounds {
        /// Which image.
        image: String,
        /// From where.
        offset: u64,
        /// To where.
        end: u64,
        /// Its size.
        size: u64,
    },
    /// It has snapshots.
    #[error("image {image} has {count} snapshots; remove them first (`nacre block snap purge`)")]
    HasSnaps {
        /// Which image.
        image: String,
        /// How many.
        count: usize,
    },
    /// The snapshot has clones.
    #[error("snapshot {snap} of image {image} has clones: {children}; flatten or remove them first")]
    HasChildren {
        /// Of which image.
        image: String,
        /// Its name.
        snap: String,
        /// The clones.
        children: String,
    },
    /// The parent cannot be opened.
    #[error("image {image} is a clone, and its parent cannot be read: {why}")]
    NoParent {
        /// Which image.
        image: String,
        /// Why.
        why: String,
    },
    /// It is not a clone.
    #[error("image {image} has no parent: there is nothing to flatten")]
    NoClone {
        /// Which image.
        image: String,
    },
    /// Made by a newer release.
    #[error("image {image} needs features {features:#x} that this release does not know; upgrade the client")]
    Features {
        /// Which image.
        image: String,
        /// The bits.
        features: u64,
    },
    /// The writer did not answer, so it may still write as before.
    #[error("image {image}: its writer did not confirm within the time that it knows of the change; {undone}")]
    WriterSilent {
        /// Which image.
        image: String,
        /// What was done about it.
        undone: &'static str,
    },
    /// The directory or header says something that cannot be.
    #[error("{what} cannot be understood: {why}")]
    Damaged {
        /// What.
        what: String,
        /// Why.
        why: String,
    },
    /// A stream that is not what it should be.
    #[error("the stream is not usable: {0}")]
    Stream(String),
    /// Reading or writing the stream failed.
    #[error("reading or writing the stream: {0}")]
    Io(#[from] std::io::Error),
    /// Another changed the header at the same moment, again and again.
    #[error("image {image} was changed by another at the same moment; look at it and try again")]
    Raced {
        /// Which image.
        image: String,
    },
    /// The image is in the trash until then.
    #[error("image {name} stays in the trash for another {seconds} seconds; --force removes it at once")]
    Kept {
        /// Its name.
        name: String,
        /// For how long.
        seconds: u64,
    },
    /// The cluster says no.
    #[error(transparent)]
    Cluster(#[from] nacre_client::Error),
}

/// The object is not there.
pub(crate) fn is_absent(error: &nacre_client::Error) -> bool {
    matches!(error, nacre_client::Error::Object { source: OpError::NotFound { .. }, .. })
}

/// It is there already.
pub(crate) fn is_present(error: &nacre_client::Error) -> bool {
    matches!(error, nacre_client::Error::Object { source: OpError::Exists { .. }, .. })
}

/// A guard did not hold.
pub(crate) fn is_guard(error: &nacre_client::Error) -> bool {
    matches!(error, nacre_client::Error::Object { source: OpError::Guard { .. }, .. })
}

/// The class's own code, if it was the class that refused.
pub(crate) fn refusal(error: &nacre_client::Error) -> Option<u32> {
    match error {
        nacre_client::Error::Object { source: OpError::Class { code, .. }, .. } => Some(*code),
        nacre_client::Error::Object { source: OpError::NotFound { .. }, .. } => Some(code::ABSENT),
        _ => None,
    }
}

/// This session was shut out.
pub(crate) fn is_fenced(error: &nacre_client::Error) -> bool {
    matches!(error, nacre_client::Error::Refused(status) if status.code == nacre_client::Code::Fenced)
}
