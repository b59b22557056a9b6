//! The one place with unsafe code: memory aligned for direct I/O, and many block writes handed to the kernel at once.
//!
//! Nothing here knows what the bytes mean.
#![expect(unsafe_code, reason = "aligned memory and io_uring have no safe interface in std")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use io_uring::{IoUring, opcode, types};

/// What direct I/O wants of memory, on every disk we know.
pub(crate) const ALIGN: usize = 4096;

/// A growing byte buffer whose memory is aligned for direct I/O.
pub(crate) struct AlignedBuf {
    memory: NonNull<u8>,
    capacity: usize,
    len: usize,
}

// SAFETY: the buffer owns its memory alone, as Vec<u8> does; nothing in it is tied to a thread.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access is by `&[u8]` only.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// An empty buffer that holds `capacity` bytes without growing.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let capacity = capacity.max(1).next_multiple_of(ALIGN);
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is at least ALIGN, so not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        AlignedBuf { memory, capacity, len: 0 }
    }

    /// A buffer of `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut buf = Self::with_capacity(len);
        buf.len = len;
        buf
    }

    #[expect(clippy::expect_used, reason = "a capacity beyond isize is a bug of the caller, who bounds it")]
    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, ALIGN).expect("a buffer's capacity fits memory")
    }

    /// Makes it so long; what is in it is anything.
    pub(crate) fn resize(&mut self, len: usize) {
        if len > self.capacity {
            *self = Self::with_capacity(len);
        }
        self.len = len;
    }

    /// Appends; grows by doubling.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        let need = self.len + bytes.len();
        if need > self.capacity {
            let mut bigger = Self::with_capacity(need.max(self.capacity * 2));
            bigger.len = self.len;
            bigger.copy_from_slice(self);
            *self = bigger;
        }
        let from = self.len;
        self.len = need;
        self[from..].copy_from_slice(bytes);
    }

    /// Grows with zeros to a multiple of `align`.
    pub(crate) fn pad(&mut self, align: usize) {
        const ZEROS: [u8; ALIGN] = [0; ALIGN];
        while !self.len.is_multiple_of(align) {
            let step = (align - self.len % align).min(ALIGN);
            self.extend(&ZEROS[..step]);
        }
    }

    /// Empties it, keeping the memory.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.capacity == 0 {
            return;
        }
        // SAFETY: the memory came from alloc_zeroed with this very layout and is freed once.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.capacity)) }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `len <= capacity` bytes are allocated and initialised (zeroed at least); without memory there
        // are none.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in deref, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Without memory of its own.
impl Default for AlignedBuf {
    fn default() -> Self {
        AlignedBuf { memory: NonNull::dangling(), capacity: 0, len: 0 }
    }
}

/// Buffers that large reads use again: fresh memory would be zeroed page by page, twice, for bytes that are overwritten
/// at once. What is lent comes back when its last reader lets go.
#[derive(Default)]
pub(crate) struct Pool {
    spare: Mutex<Vec<AlignedBuf>>,
    /// Bytes that it keeps at most.
    bound: usize,
}

impl Pool {
    pub(crate) fn new(bound: usize) -> Arc<Self> {
        Arc::new(Pool { spare: Mutex::default(), bound })
    }

    fn spare(&self) -> MutexGuard<'_, Vec<AlignedBuf>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of this length; what is in it is anything.
    pub(crate) fn lend(self: &Arc<Self>, len: usize) -> Lent {
        let mut spare = self.spare();
        let fits = |buf: &AlignedBuf| buf.capacity >= len && buf.capacity / 4 <= len;
        let found = spare.iter().position(fits).map(|at| spare.swap_remove(at));
        drop(spare);
        let mut buf = found.unwrap_or_default();
        buf.resize(len);
        Lent { buf, home: self.clone() }
    }

    fn back(&self, buf: AlignedBuf) {
        let mut spare = self.spare();
        spare.push(buf);
        while spare.iter().map(AlignedBuf::capacity).sum::<usize>() > self.bound {
            spare.remove(0);
        }
    }
}

/// A buffer of a [`Pool`].
pub(crate) struct Lent {
    buf: AlignedBuf,
    home: Arc<Pool>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.back(std::mem::take(&mut self.buf));
    }
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buf
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buf
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buf
    }
}

/// A ring for writes in bulk; one thread uses it at a time.
pub(crate) struct WriteRing {
    ring: IoUring,
}

/// Writes in flight at once.
const DEPTH: u32 = 64;

impl WriteRing {
    /// `None` if the kernel does not offer io_uring to us.
    pub(crate) fn new() -> Option<Self> {
        // Completions are taken when we ask for them, so they need not interrupt us (kernels since 5.19).
        let ring = IoUring::builder().setup_coop_taskrun().build(DEPTH).or_else(|_| IoUring::new(DEPTH));
        ring.ok().map(|ring| WriteRing { ring })
    }

    /// Writes all, in any order, and returns when all are done.
    pub(crate) fn write_all(&mut self, file: &File, writes: &[(u64, &[u8])]) -> io::Result<()> {
        let fd = types::Fd(file.as_raw_fd());
        let mut next = 0;
        let mut flying = 0;
        let mut failed: Option<io::Error> = None;
        let mut short = Vec::new();
        while flying > 0 || (next < writes.len() && failed.is_none()) {
            while flying < DEPTH as usize && failed.is_none() {
                let Some((offset, data)) = writes.get(next) else { break };
                let len = u32::try_from(data.len()).map_err(|_| io::ErrorKind::InvalidInput);
                let len = match len {
                    Ok(len) => len,
                    Err(kind) => {
                        failed = Some(kind.into());
                        break;
                    }
                };
                let entry = opcode::Write::new(fd, data.as_ptr(), len).offset(*offset).build().user_data(next as u64);
                // SAFETY: `data` and `file` are borrowed until this function returns, and it returns only when
                // nothing is in flight any more, also after an error.
                if unsafe { self.ring.submission().push(&entry) }.is_err() {
                    break;
                }
                next += 1;
                flying += 1;
            }
            // To wake up for each write and hand over the next one alone costs as much CPU as the write itself.
            let wait = if next < writes.len() && failed.is_none() { flying.min(DEPTH as usize / 2) } else { flying };
            match self.ring.submit_and_wait(wait) {
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(4 | 11 | 16)) => {} // EINTR, EAGAIN, EBUSY: again
                Err(error) => {
                    // What is in flight may still read our memory; without the ring it cannot be waited for.
                    if flying > 0 {
                        std::process::abort();
                    }
                    return Err(error);
                }
            }
            for done in self.ring.completion() {
                flying -= 1;
                let want = writes.get(done.user_data() as usize).map_or(0, |(_, data)| data.len());
                if done.result() < 0 {
                    failed = Some(io::Error::from_raw_os_error(-done.result()));
                } else if (done.result() as usize) < want {
                    short.push((done.user_data() as usize, done.result() as usize));
                }
            }
        }
        failed.map_or(Ok(()), Err)?;
        short.into_iter().try_for_each(|(index, done)| finish(file, writes.get(index), done))
    }
}

/// The rest of a write of which the kernel did only a part: a plain write either goes on or says why not.
fn finish(file: &File, write: Option<&(u64, &[u8])>, done: usize) -> io::Result<()> {
    match write.and_then(|(offset, data)| Some((offset, data.get(done..)?))) {
        Some((offset, rest)) => file.write_all_at(rest, offset + done as u64),
        None => Err(io::ErrorKind::WriteZero.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_write_is_finished_or_says_why_not() {
        let file = tempfile::tempfile().unwrap();
        finish(&file, Some(&(100, b"pearls")), 2).unwrap();
        let mut read = [0; 4];
        file.read_exact_at(&mut read, 102).unwrap();
        assert_eq!(&read, b"arls");
        let full = File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(finish(&full, Some(&(0, b"pearls")), 2).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_ring_writes_more_than_it_has_room_for() {
        let Some(mut ring) = WriteRing::new() else { return };
        let file = tempfile::tempfile().unwrap();
        let data: Vec<u8> = (0..=255).collect();
        let writes: Vec<_> = (0..256).map(|at| (at as u64 * 2, &data[at..at + 1])).collect();
        ring.write_all(&file, &writes).unwrap();
        let mut read = vec![0; 511];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read.iter().step_by(2).eq(&data));
        assert_eq!(read.iter().skip(1).step_by(2).max(), Some(&0));
    }

    #[test]
    fn a_lent_buffer_comes_back_and_is_lent_again_within_a_bound() {
        let pool = Pool::new(3 << 20);
        let first = bytes::Bytes::from_owner(pool.lend(1 << 20));
        let second = first.slice(5..);
        let place = first.as_ptr();
        drop(first);
        assert_ne!(pool.lend(1 << 20).as_ptr(), place, "somebody still reads it");
        drop(second);
        pool.spare().retain(|buf| buf.as_ptr() == place);
        let again = pool.lend((1 << 20) - 7);
        assert_eq!((again.as_ptr(), again.len()), (place, (1 << 20) - 7));
        drop(again);
        assert_eq!(pool.lend(1 << 19).as_ptr(), place);
        assert_ne!(pool.lend(1 << 10).as_ptr(), place, "a little does not hold on to much");
        let many: Vec<_> = (0..5).map(|_| pool.lend(1 << 20)).collect();
        drop(many);
        assert_eq!(pool.spare().iter().map(AlignedBuf::capacity).sum::<usize>(), 3 << 20);
    }

    #[test]
    fn a_buffer_grows_keeps_its_bytes_and_stays_aligned() {
        let mut buf = AlignedBuf::with_capacity(1);
        let mut model: Vec<u8> = Vec::new();
        for step in 0..200usize {
            let bytes = vec![step as u8; step * 3];
            buf.extend(&bytes);
            model.extend(&bytes);
            assert_eq!(buf.as_ptr() as usize % ALIGN, 0);
        }
        assert_eq!(&*buf, &*model);
        buf.pad(512);
        assert_eq!(buf.len() % 512, 0);
        assert!(buf[model.len()..].iter().all(|byte| *byte == 0));
    }
}
