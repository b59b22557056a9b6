//! What is kept on disk of the images that are mapped on this machine: one folder for each, numbered.
//!
//! ```text
//! run/map/lock          held while a number is given out
//! run/map/3/pid         locked as long as the process behind the device lives
//! run/map/3/record      what is mapped, and as which device
//! run/map/3/disk/       where the file system with the image is mounted, if there is one
//! ```
//!
//! A device of the kernel's NBD driver is known by a tag that the kernel keeps ([`Record::tag`]). It is written down before
//! there is a device: a mapping whose process died before it knew its device is found all the same.
//!
//! Whether a process lives is told by its lock alone. A record without a process is a mapping that broke: it stays until
//! it is unmapped, or mapped again, and says which device it was.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nacre_net::daemon::pidfile::PidFile;
use serde::{Deserialize, Serialize};

use crate::local::{ConfigArg, run_folder_of, write_whole};

/// Of the form of the record.
const VERSION: u32 = 1;

/// What is written down of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// As it was asked for: POOL/IMAGE, perhaps with a snapshot.
    pub(super) image: String,
    /// None as long as there is none. Before it is ready: that of the mapping before, which broke.
    pub(super) device: Option<PathBuf>,
    /// The device can be used.
    pub(super) ready: bool,
    pub(super) way: String,
    pub(super) read_only: bool,
    /// What the kernel calls an NBD device of this mapping. Another mapping, also of the same image, has another: what was
    /// taken away by force is its users' until they are gone, and must not be taken for a device to follow on.
    #[serde(default)]
    pub(super) tag: String,
    /// The session that writes the image, if one does: when the process is gone, so is whatever this one wrote.
    pub(super) session: Option<u64>,
}

impl Record {
    pub(super) fn new(image: &str, way: &str, read_only: bool) -> Record {
        Record {
            version: VERSION,
            image: image.to_owned(),
            device: None,
            ready: false,
            way: way.to_owned(),
            read_only,
            tag: String::new(),
            session: None,
        }
    }
}

/// One number and what is under it.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) number: u32,
    folder: PathBuf,
}

impl Slot {
    fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    fn record_file(&self) -> PathBuf {
        self.folder.join("record")
    }

    /// Where the image is mounted as a file.
    pub(super) fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }

    /// The process behind it, if it lives.
    pub(super) fn pid(&self) -> Option<u32> {
        PidFile::holder(&self.pid_file())
    }

    /// The name of that process, as other daemons have theirs.
    pub(super) fn daemon(&self) -> String {
        format!("map-{}", self.number)
    }

    pub(super) fn record(&self) -> anyhow::Result<Option<Record>> {
        let path = self.record_file();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let record: Record = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no record of a mapping: remove it if nothing is mapped", path.display()))?;
        anyhow::ensure!(record.version == VERSION, "{} is of another release", path.display());
        Ok(Some(record))
    }

    pub(super) fn write(&self, record: &Record) -> anyhow::Result<()> {
        let path = self.record_file();
        write_whole(&path, &serde_json::to_vec_pretty(record)?).with_context(|| format!("writing {}", path.display()))
    }

    /// Forgets the mapping. Nothing of it may be left.
    pub(super) fn forget(&self) -> anyhow::Result<()> {
        let _ = std::fs::remove_dir(self.disk());
        match std::fs::remove_file(self.record_file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.record_file().display()))
            }
            _ => Ok(()),
        }
    }
}

/// A slot that is this process's.
pub(super) struct Claimed {
    pub(super) slot: Slot,
    /// What was mapped here by a process that is gone.
    pub(super) before: Option<Record>,
    /// See [`Record::tag`]: that of before, if there is one.
    pub(super) tag: String,
    pub(super) _held: PidFile,
}

/// All slots of this machine.
pub(super) struct Slots(PathBuf);

impl Slots {
    pub(super) fn of(config: &ConfigArg) -> anyhow::Result<Slots> {
        Ok(Slots(std::path::absolute(run_folder_of(config)?)?.join("map")))
    }

    fn slot(&self, number: u32) -> Slot {
        Slot { number, folder: self.0.join(number.to_string()) }
    }

    /// All that have a record, with it.
    pub(super) fn all(&self) -> anyhow::Result<Vec<(Slot, Record)>> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("reading {}", self.0.display())),
        };
        let mut all = Vec::new();
        for entry in entries {
            let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let slot = self.slot(number);
            if let Some(record) = slot.record()? {
                all.push((slot, record));
            }
        }
        all.sort_by_key(|(slot, _)| slot.number);
        Ok(all)
    }

    /// The mapping of an image, or behind a device.
    pub(super) fn find(&self, image: &str, device: Option<&Path>) -> anyhow::Result<Option<(Slot, Record)>> {
        let is = |record: &Record| record.image == image || (device.is_some() && record.device.as_deref() == device);
        Ok(self.all()?.into_iter().find(|(_, record)| is(record)))
    }

    /// Takes a number for an image: that of its broken mapping, if it has one, else the lowest that is free.
    pub(super) fn claim(&self, record: &Record) -> anyhow::Result<Claimed> {
        let context = || format!("using {}", self.0.display());
        std::fs::create_dir_all(&self.0).with_context(context)?;
        let lock = File::create(self.0.join("lock")).with_context(context)?;
        lock.lock().with_context(context)?;
        let all = self.all()?;
        let free = || (0..).find(|number| all.iter().all(|(slot, _)| slot.number != *number)).unwrap_or(u32::MAX);
        let (slot, before) = match all.iter().find(|(_, other)| other.image == record.image) {
            Some((slot, before)) => (slot.clone(), Some(before.clone())),
            None => (self.slot(free()), None),
        };
        std::fs::create_dir_all(&slot.folder).with_context(context)?;
        let pid = PidFile::take(&slot.pid_file()).with_context(|| format!("{} is mapped already", record.image))?;
        // What there was before stands in it until there is something new: it must be found if this goes wrong.
        let (device, session) =
            before.as_ref().map(|before| (before.device.clone(), before.session)).unwrap_or_default();
        let tag = before.as_ref().map(|before| before.tag.clone()).filter(|tag| !tag.is_empty());
        let tag = tag.unwrap_or_else(|| format!("nacre:{}:{:016x}", record.image, rand::random::<u64>()));
        slot.write(&Record { device, session, tag: tag.clone(), ..record.clone() })?;
        Ok(Claimed { slot, before, tag, _held: pid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_mapping_keeps_its_number_and_another_gets_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let slots = Slots(folder.path().join("map"));
        assert!(slots.all().unwrap().is_empty());
        let record = |image: &str| Record::new(image, "loop", false);
        let first = slots.claim(&record("p/a")).unwrap();
        let second = slots.claim(&record("p/b")).unwrap();
        assert_eq!((first.slot.number, second.slot.number), (0, 1));
        assert!(slots.claim(&record("p/a")).is_err(), "it is mapped");
        assert_ne!(first.tag, second.tag);
        let tag = first.tag.clone();
        let device = PathBuf::from("/dev/loop7");
        let kept = first.slot.record().unwrap().unwrap();
        assert_eq!(kept.tag, tag, "it is known before there is a device");
        first.slot.write(&Record { device: Some(device.clone()), ..kept }).unwrap();
        drop(first);
        // Nobody behind it any more, but it is known.
        let (slot, found) = slots.find("", Some(&device)).unwrap().unwrap();
        assert_eq!((slot.number, slot.pid(), found.image.as_str()), (0, None, "p/a"));
        assert_eq!(slots.claim(&record("p/c")).unwrap().slot.number, 2);
        let again = slots.claim(&record("p/a")).unwrap();
        assert_eq!(again.slot.number, 0);
        assert_eq!(again.before.as_ref().and_then(|before| before.device.clone()), Some(device));
        assert_eq!(again.tag, tag);
        again.slot.forget().unwrap();
        drop(again);
        // What was let go is not followed.
        let anew = slots.claim(&record("p/a")).unwrap();
        assert!(anew.slot.number == 0 && anew.tag != tag);
        anew.slot.forget().unwrap();
        assert_eq!(slots.find("p/a", None).unwrap().map(|(_, record)| record), None);
    }
}
