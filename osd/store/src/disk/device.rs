//! What the engine asks of a disk: read, write, flush, discard, at offsets of one file or block device.
//!
//! [`FileDevice`] is the real one. Tests put a recording one in its place and replay every prefix as a power loss.
//! A write is durable only after the next `sync`; until then it may be lost whole or in sectors.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::direct::{ALIGN, AlignedBuf, WriteRing};

/// One disk.
pub(crate) trait Device: Send + Sync {
    fn size(&self) -> u64;
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

/// What writes in bulk use again and again.
#[derive(Default)]
struct Bulk {
    ring: Option<WriteRing>,
    bounce: AlignedBuf,
}

/// A file or block device with direct I/O where the file system has it.
pub(crate) struct FileDevice {
    file: File,
    size: u64,
    direct: bool,
    bulk: Mutex<Bulk>,
}

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
        Ok(FileDevice { file, size, direct, bulk: Mutex::default() })
    }

    /// Keeps everyone else out as long as this is open, or a write through it is under way: the kernel holds on to the
    /// file of a killed process until its last write has ended. So a lock that is taken may be free in a moment, and
    /// must be waited for: opening earlier, we could be overtaken by those writes.
    #[expect(clippy::disallowed_methods, reason = "another process's lock gives no event to wait for with a deadline")]
    pub(crate) fn lock(&self) -> io::Result<()> {
        let patience = Duration::from_secs(3);
        let begin = Instant::now();
        loop {
            match self.file.try_lock() {
                Ok(()) => return Ok(()),
                Err(_) if begin.elapsed() < patience => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(crate) fn is_block_device(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.file_type().is_block_device())
    }

    fn fits(&self, offset: u64, data: &[u8]) -> bool {
        !self.direct
            || (offset.is_multiple_of(512)
                && data.len().is_multiple_of(512)
                && (data.as_ptr() as usize).is_multiple_of(ALIGN.min(512)))
    }
}

impl Device for FileDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.fits(offset, buf) {
            return self.file.read_exact_at(buf, offset);
        }
        let low = offset / 512 * 512;
        let high = (offset + buf.len() as u64).next_multiple_of(512);
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
        let mut bulk = self.bulk.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Bulk { ring, bounce } = &mut *bulk;
        if ring.is_none() {
            *ring = WriteRing::new();
        }
        let Some(ring) = ring.as_mut() else {
            return writes.iter().try_for_each(|(offset, data)| self.write(*offset, data));
        };
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
                bounce.pad(512);
            }
            let part: Vec<_> =
                places.iter().map(|(offset, from, len)| (*offset, &bounce[*from..*from + *len])).collect();
            ring.write_all(&self.file, &part)?;
            rest = &rest[places.len()..];
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&self, offset: u64, len: u64) {
        let _ = fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len);
    }
}
