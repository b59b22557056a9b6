//! What the engine asks of a disk: read, write, flush, discard, at offsets of one file or block device.
//!
//! [`FileDevice`] is the real one. Tests put a recording one in its place and replay every prefix as a power loss.
//! A write is durable only after the next `sync`; until then it may be lost whole or in sectors.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FallocateFlags, OFlags, StatxFlags, fallocate, statx};

use super::direct::{AlignedBuf, WriteRing};

/// One disk.
pub(crate) trait Device: Send + Sync {
    fn size(&self) -> u64;
    /// What offsets and lengths of writes are best multiples of: the disk's sector. Others cost a copy or do not work.
    fn align(&self) -> u64 {
        512
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Writes in any order; all are handed over when it returns.
    fn write_many(&self, writes: &[(u64, &[u8])]) -> io::Result<()> {
        writes.iter().try_for_each(|(offset, data)| self.write(*offset, data))
    }
    fn sync(&self) -> io::Result<()>;
    /// Tells the disk that nobody needs a range any more. Advice: failure is not an error.
    fn discard(&self, offset: u64, len: u64);
}

/// Bytes that one request to the disk has at most.
const PIECE: usize = 512 << 10;
/// Bytes that are copied into aligned memory at a time.
const BOUNCE: usize = 8 << 20;

/// What writes in bulk use again and again. A checkpoint and a commit write at the same time, each with its own ring.
#[derive(Default)]
struct Bulk {
    rings: Mutex<Vec<WriteRing>>,
    /// The kernel may refuse io_uring to us (containers, hardened hosts): writes then go one by one.
    refused: AtomicBool,
    bounce: Mutex<AlignedBuf>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bulk {
    fn ring(&self) -> Option<WriteRing> {
        if self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let ring = lock(&self.rings).pop().or_else(WriteRing::new);
        if ring.is_none() {
            self.refused.store(true, Ordering::Relaxed);
        }
        ring
    }
}

/// A file or block device with direct I/O where the file system has it.
pub(crate) struct FileDevice {
    file: File,
    size: u64,
    direct: bool,
    align: u64,
    bulk: Bulk,
    path: PathBuf,
    /// A block device is claimed from mounts and other programs as well.
    claim: Option<File>,
}

/// The least that every disk takes.
const SECTOR: u64 = 512;
/// The largest sector that we write whole: that of 4K-native disks.
const LARGE_SECTOR: u64 = 4096;

impl FileDevice {
    /// Opens a file or block device. `durable` makes every write wait for stable storage by itself, which for one
    /// write is cheaper than a flush behind it.
    pub(crate) fn open(path: &Path, durable: bool) -> io::Result<FileDevice> {
        let flags = if durable { OFlags::DSYNC } else { OFlags::empty() };
        let open =
            |flags: OFlags| OpenOptions::new().read(true).write(true).custom_flags(flags.bits() as i32).open(path);
        let (file, direct) = match open(flags | OFlags::DIRECT) {
            Ok(file) => (file, true),
            // A file system without direct I/O (tmpfs before 6.6, some FUSE ones): flushes still hold, caches cost.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => (open(flags)?, false),
            Err(error) => return Err(error),
        };
        let size = if file.metadata()?.file_type().is_block_device() {
            use std::io::Seek;
            (&file).seek(io::SeekFrom::End(0))?
        } else {
            file.metadata()?.len()
        };
        let align = if direct { direct_align(&file) } else { SECTOR };
        if align > LARGE_SECTOR {
            let text = format!("its sectors of {align} bytes are larger than the {LARGE_SECTOR} that a store can use");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        Ok(FileDevice { file, size, direct, align, bulk: Bulk::default(), path: path.to_owned(), claim: None })
    }

    /// The same without io_uring.
    #[cfg(test)]
    pub(crate) fn without_ring(self) -> Self {
        FileDevice { bulk: Bulk { refused: AtomicBool::new(true), ..Bulk::default() }, ..self }
    }

    /// Keeps everyone else out as long as this is open, or a write through it is under way: the kernel holds on to the
    /// file of a killed process until its last write has ended. So a lock that is taken may be free in a moment, and
    /// must be waited for: opening earlier, we could be overtaken by those writes.
    #[expect(clippy::disallowed_methods, reason = "another process's lock gives no event to wait for with a deadline")]
    pub(crate) fn lock(&mut self) -> io::Result<()> {
        let patience = Duration::from_secs(3);
        let begin = Instant::now();
        loop {
            match self.file.try_lock().map_err(io::Error::from).and_then(|()| self.claim()) {
                Ok(()) => return Ok(()),
                Err(_) if begin.elapsed() < patience => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(error),
            }
        }
    }

    fn claim(&mut self) -> io::Result<()> {
        if self.is_block_device() && self.claim.is_none() {
            let flags = OFlags::EXCL.bits() as i32;
            self.claim = Some(OpenOptions::new().read(true).custom_flags(flags).open(&self.path)?);
        }
        Ok(())
    }

    pub(crate) fn is_block_device(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.file_type().is_block_device())
    }

    fn fits(&self, offset: u64, data: &[u8]) -> bool {
        !self.direct
            || (offset.is_multiple_of(self.align)
                && (data.len() as u64).is_multiple_of(self.align)
                && (data.as_ptr() as u64).is_multiple_of(self.align))
    }
}

/// What direct I/O on a file or device wants offsets and lengths to be multiples of.
fn direct_align(file: &File) -> u64 {
    let known = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok();
    let known = known.filter(|stat| stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0);
    // A kernel before 6.1 does not say, and some file systems never do: ask the disk with the smallest read there is.
    known
        .map(|stat| u64::from(stat.stx_dio_offset_align))
        .filter(|align| *align > 0)
        .unwrap_or_else(|| {
            let mut probe = AlignedBuf::zeroed(SECTOR as usize);
            match file.read_at(&mut probe, SECTOR) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => LARGE_SECTOR,
                _ => SECTOR,
            }
        })
        .max(SECTOR)
}

impl Device for FileDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn align(&self) -> u64 {
        self.align
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.fits(offset, buf) {
            return self.file.read_exact_at(buf, offset);
        }
        let low = offset / self.align * self.align;
        let high = (offset + buf.len() as u64).next_multiple_of(self.align);
        let mut bounce = AlignedBuf::zeroed((high - low) as usize);
        self.file.read_exact_at(&mut bounce, low)?;
        let from = (offset - low) as usize;
        buf.copy_from_slice(&bounce[from..from + buf.len()]);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.fits(offset, data) {
            return self.file.write_all_at(data, offset);
        }
        let mut bounce = AlignedBuf::with_capacity(data.len().min(1 << 20));
        let mut at = offset;
        for piece in data.chunks(1 << 20) {
            bounce.clear();
            bounce.extend(piece);
            self.file.write_all_at(&bounce, at)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn write_many(&self, writes: &[(u64, &[u8])]) -> io::Result<()> {
        let Some(mut ring) = self.bulk.ring() else {
            return writes.iter().try_for_each(|(offset, data)| self.write(*offset, data));
        };
        let result = self.write_with(&mut ring, writes);
        lock(&self.bulk.rings).push(ring);
        result
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&self, offset: u64, len: u64) {
        let _ = fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len);
    }
}

impl FileDevice {
    fn write_with(&self, ring: &mut WriteRing, writes: &[(u64, &[u8])]) -> io::Result<()> {
        // Pieces of which the disk takes many at once; what is not aligned goes through a bounce buffer, so much at a time.
        let pieces: Vec<(u64, &[u8])> = writes
            .iter()
            .flat_map(|(offset, data)| {
                let at = move |index: usize| offset + (index * PIECE) as u64;
                data.chunks(PIECE).enumerate().map(move |(index, piece)| (at(index), piece))
            })
            .collect();
        if pieces.iter().all(|(offset, data)| self.fits(*offset, data)) {
            return ring.write_all(&self.file, &pieces);
        }
        let mut bounce = lock(&self.bulk.bounce);
        let mut rest = &pieces[..];
        while !rest.is_empty() {
            bounce.clear();
            let mut places = Vec::new();
            for (offset, data) in rest {
                if !places.is_empty() && bounce.len() + data.len() > BOUNCE {
                    break;
                }
                places.push((*offset, bounce.len(), data.len()));
                bounce.extend(data);
                bounce.pad(self.align as usize);
            }
            let part: Vec<_> =
                places.iter().map(|(offset, from, len)| (*offset, &bounce[*from..*from + *len])).collect();
            ring.write_all(&self.file, &part)?;
            rest = &rest[places.len()..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_writes_land_with_io_uring_and_without_aligned_or_not() {
        let folder = tempfile::tempdir().unwrap();
        for ring in [true, false] {
            let path = folder.path().join(ring.to_string());
            File::create(&path).unwrap().set_len(20 << 20).unwrap();
            let device = FileDevice::open(&path, false).unwrap();
            let device = if ring { device } else { device.without_ring() };
            let mut aligned = AlignedBuf::with_capacity(0);
            (0..(9 << 20) / 4096u32).for_each(|block| aligned.extend(&block.to_le_bytes().repeat(1024)));
            let unaligned = [&[0][..], &aligned].concat();
            let writes = [(0, &aligned[..]), (10 << 20, &unaligned[1..]), (19 << 20, &unaligned[1..4097])];
            device.write_many(&writes[..1]).unwrap();
            device.write_many(&writes).unwrap();
            device.sync().unwrap();
            for (offset, data) in writes {
                let mut read = vec![0; data.len()];
                device.read(offset, &mut read).unwrap();
                assert!(read == data, "ring {ring}, offset {offset}");
            }
        }
    }

    #[test]
    fn a_disk_that_is_full_says_so_in_a_bulk_write() {
        let path = Path::new("/dev/full");
        let write = (0, &[1; 4096][..]);
        for ring in [true, false] {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            let device = FileDevice {
                file,
                size: 4096,
                direct: false,
                align: 512,
                bulk: Bulk::default(),
                path: path.into(),
                claim: None,
            };
            let device = if ring { device } else { device.without_ring() };
            assert_eq!(device.write_many(&[write]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
    }
}
