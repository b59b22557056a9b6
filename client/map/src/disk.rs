//! A volume as the one file of a file system in user space, for a loop device to stand on.
//!
//! Requests are taken by a thread of their own and carried out on the runtime of whoever mounted it; many are under way
//! at a time, and each is answered when it is done. The kernel caches nothing of the file: what is answered is what the
//! volume said.
//!
//! - A flush of the device is an `fsync` of the file is a flush of the volume, no more and no less.
//! - A discard is a hole that is punched; zeros that are to be written are a range that is zeroed. Both end as zeros.
//! - The file's size is what the watch says; the loop device must be told by [`crate::loops::refresh`].

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session, SessionUnmounter, TimeOrNow, WriteFlags,
};
use nacre_nbd::{Fault, Volume};
use rustix::mount::UnmountFlags;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::error::Error;

/// The name of the file.
pub const FILE: &str = "disk";

const ROOT: INodeNo = INodeNo(1);
const DISK: INodeNo = INodeNo(2);
/// The kernel asks for size and times anew each time.
const STALE: Duration = Duration::ZERO;
/// Requests the kernel may have under way.
const ABREAST: u16 = 128;
/// Bytes the kernel writes at a time, where its own bound allows it.
const WRITE: u32 = 1 << 20;
/// The unit that is discarded.
const BLOCK: u32 = 4096;

const KEEP_SIZE: i32 = 1;
const PUNCH_HOLE: i32 = 2;
const ZERO_RANGE: i32 = 16;

struct Served {
    volume: Arc<dyn Volume>,
    size: watch::Receiver<u64>,
    runtime: Handle,
    since: SystemTime,
}

fn errno(fault: Fault) -> Errno {
    match fault {
        Fault::NotPermitted => Errno::EROFS,
        Fault::Io | Fault::ShuttingDown => Errno::EIO,
        Fault::NoMemory => Errno::ENOMEM,
        Fault::Invalid => Errno::EINVAL,
        Fault::NoSpace => Errno::ENOSPC,
        Fault::NotSupported => Errno::EOPNOTSUPP,
    }
}

impl Served {
    fn attr(&self, ino: INodeNo) -> Option<FileAttr> {
        let size = *self.size.borrow();
        let (kind, perm, size, nlink) = match ino {
            ROOT => (FileType::Directory, 0o500, 0, 2),
            DISK if self.volume.read_only() => (FileType::RegularFile, 0o400, size, 1),
            DISK => (FileType::RegularFile, 0o600, size, 1),
            _ => return None,
        };
        Some(FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: self.since,
            mtime: self.since,
            ctime: self.since,
            crtime: self.since,
            kind,
            perm,
            nlink,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: BLOCK,
            flags: 0,
        })
    }

    /// How much of a range lies in the volume.
    fn within(&self, offset: u64, len: u64) -> u64 {
        self.size.borrow().saturating_sub(offset).min(len)
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(work));
    }
}

/// An answer without a value.
fn told(reply: ReplyEmpty, done: Result<(), Fault>) {
    match done {
        Ok(()) => reply.ok(),
        Err(fault) => reply.error(errno(fault)),
    }
}

impl Filesystem for Served {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Without it the kernel would send direct requests one after the other.
        if config.add_capabilities(InitFlags::FUSE_ASYNC_DIO).is_err() {
            tracing::warn!("this kernel sends requests to a file in user space one by one: the device will be slow");
        }
        let _ = config.set_max_background(ABREAST);
        let _ = config.set_max_write(WRITE);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attr(DISK) {
            Some(attr) if parent == ROOT && name == FILE => reply.entry(&STALE, &attr, Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino) {
            Some(attr) => reply.attr(&STALE, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.attr(ino) {
            // An image is resized by its own verb.
            Some(attr) if size.is_some_and(|size| size != attr.size) => reply.error(Errno::EPERM),
            Some(attr) => reply.attr(&STALE, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let writes = flags.acc_mode() != fuser::OpenAccMode::O_RDONLY;
        match ino {
            DISK if writes && self.volume.read_only() => reply.error(Errno::EROFS),
            DISK => reply.opened(
                FileHandle(0),
                FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES | FopenFlags::FOPEN_NOFLUSH,
            ),
            _ => reply.error(Errno::EISDIR),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        // No longer than `size` was.
        let len = self.within(offset, u64::from(size)) as u32;
        if len == 0 {
            return reply.data(&[]);
        }
        let volume = Arc::clone(&self.volume);
        self.spawn(async move {
            match volume.read(offset, len).await {
                Ok(bytes) => reply.data(&bytes),
                Err(fault) => reply.error(errno(fault)),
            }
        });
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // A write is less than the read buffer of the session: 16 MiB.
        let len = data.len() as u32;
        if self.within(offset, u64::from(len)) < u64::from(len) {
            return reply.error(Errno::EFBIG);
        }
        if len == 0 {
            return reply.written(0);
        }
        let sync = flags.0 & (rustix::fs::OFlags::DSYNC.bits() as i32) != 0;
        let (volume, data) = (Arc::clone(&self.volume), Bytes::copy_from_slice(data));
        self.spawn(async move {
            match volume.write(offset, data, sync).await {
                Ok(()) => reply.written(len),
                Err(fault) => reply.error(errno(fault)),
            }
        });
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        // What a close of the file does; to be durable is asked for by fsync.
        reply.ok();
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let volume = Arc::clone(&self.volume);
        self.spawn(async move { told(reply, volume.flush().await) });
    }

    fn fallocate(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let len = self.within(offset, length);
        if mode & (PUNCH_HOLE | ZERO_RANGE) == 0 {
            // Room that is kept for nobody: there is none to keep.
            return reply.error(Errno::EOPNOTSUPP);
        }
        if mode & KEEP_SIZE == 0 && len < length {
            return reply.error(Errno::EFBIG);
        }
        if len == 0 {
            return reply.ok();
        }
        let volume = Arc::clone(&self.volume);
        self.spawn(async move {
            let done = match mode & PUNCH_HOLE {
                0 => volume.zero(offset, len, true, false, false).await,
                // Who punches a hole reads zeros there.
                _ => volume.zero(offset, len, false, false, false).await,
            };
            told(reply, done);
        });
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        // The loop device discards in units of this block.
        let blocks = *self.size.borrow() / u64::from(BLOCK);
        reply.statfs(blocks, 0, 0, 2, 0, BLOCK, 255, BLOCK);
    }

    fn readdir(&self, _request: &Request, ino: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if ino != ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        let all =
            [(ROOT, FileType::Directory, "."), (ROOT, FileType::Directory, ".."), (DISK, FileType::RegularFile, FILE)];
        for (at, (ino, kind, name)) in all.into_iter().enumerate().skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            if reply.add(ino, at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}

/// A volume that is mounted; its file answers as long as this lives.
pub struct Mounted {
    file: PathBuf,
    folder: PathBuf,
    unmounter: SessionUnmounter,
    ended: oneshot::Receiver<std::io::Result<()>>,
}

impl std::fmt::Debug for Mounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mounted({})", self.file.display())
    }
}

/// Mounts a volume on a folder. To be called within a runtime: it carries the requests out.
pub fn mount(folder: &Path, volume: Arc<dyn Volume>, size: watch::Receiver<u64>) -> Result<Mounted, Error> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("nacre".into()),
        MountOption::Subtype("nacre-disk".into()),
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoExec,
    ];
    if volume.read_only() {
        config.mount_options.push(MountOption::RO);
    }
    let served = Served { volume, size, runtime: Handle::current(), since: SystemTime::now() };
    let mut session =
        Session::new(served, folder, &config).map_err(Error::system("mounting a file system at", folder))?;
    let unmounter = session.unmount_callable();
    let (tell, ended) = oneshot::channel();
    let serve = move || {
        let _ = tell.send(session.run());
    };
    std::thread::Builder::new()
        .name("disk".into())
        .spawn(serve)
        .map_err(Error::system("starting the thread of the file system at", folder))?;
    Ok(Mounted { file: folder.join(FILE), folder: folder.to_owned(), unmounter, ended })
}

impl Mounted {
    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Ends when the kernel has no more requests for it, because it is not mounted any more.
    pub async fn ended(&mut self) -> std::io::Result<()> {
        (&mut self.ended).await.unwrap_or(Ok(()))
    }

    /// Takes it away. If something still has the file open, that is served until it is closed or this process ends.
    pub fn unmount(mut self) -> Result<(), Error> {
        match self.unmounter.unmount() {
            Ok(()) => Ok(()),
            // Somebody has the file open.
            Err(_) => clear(&self.folder),
        }
    }
}

/// Takes away what a process that is gone has mounted on a folder, as often as it did; nothing is wrong if there is
/// nothing.
pub fn clear(folder: &Path) -> Result<(), Error> {
    loop {
        match rustix::mount::unmount(folder, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Not mounted, or no such folder.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(Error::system("unmounting", folder)(error.into())),
        }
    }
}
