//! What the device does without a store: plain files on the same file system, O_DIRECT, fdatasync after each write.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use super::load::{Kind, Rng, Workload};

const FILE: u64 = 256 << 20;
const LARGE: usize = 4 << 20;
const SMALL: usize = 4096;

/// Memory that O_DIRECT takes.
struct Aligned {
    memory: Vec<u8>,
    from: usize,
}

impl Aligned {
    fn new(len: usize) -> Aligned {
        let memory = vec![0xa5; len + SMALL];
        let from = memory.as_ptr().align_offset(SMALL);
        Aligned { memory, from }
    }

    fn bytes(&mut self, len: usize) -> &mut [u8] {
        &mut self.memory[self.from..self.from + len]
    }
}

/// Measures on demand, each thing once.
pub(super) struct Limits {
    file: File,
    path: std::path::PathBuf,
    time: Duration,
    known: BTreeMap<(bool, usize, usize), f64>,
}

impl Limits {
    pub(super) fn new(folder: &Path, time: Duration) -> io::Result<Limits> {
        let path = folder.join(format!("device-limit.{}", std::process::id()));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?);
        let limits = Limits { file, path, time: time.min(Duration::from_secs(3)), known: BTreeMap::new() };
        // Written once: blocks that were only reserved would pay for the file system's journal in each measurement.
        let mut buffer = Aligned::new(LARGE);
        for at in (0..FILE).step_by(LARGE) {
            limits.file.write_all_at(buffer.bytes(LARGE), at)?;
        }
        limits.file.sync_all()?;
        Ok(limits)
    }

    /// Operations in a second at the workload's depth, or MiB in a second for large ones.
    pub(super) fn of(&mut self, workload: &Workload) -> io::Result<f64> {
        let reads = matches!(workload.kind, Kind::Read | Kind::ReadCached | Kind::OmapList);
        let unit = if workload.bytes >= LARGE { LARGE } else { SMALL };
        let key = (reads, unit, workload.depth);
        if let Some(known) = self.known.get(&key) {
            return Ok(*known);
        }
        let begin = Instant::now();
        let (file, end) = (&self.file, begin + self.time);
        let ops = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workload.depth as u64)
                .map(|seed| scope.spawn(move || one_thread(file, reads, unit, end, seed)))
                .collect();
            threads.into_iter().try_fold(0, |sum, thread| {
                let done = thread.join().map_err(|_| io::Error::other("a measuring thread panicked"))??;
                Ok::<u64, io::Error>(sum + done)
            })
        })?;
        let per_second = ops as f64 / begin.elapsed().as_secs_f64();
        let figure = if unit == LARGE { per_second * (LARGE >> 20) as f64 } else { per_second };
        self.known.insert(key, figure);
        Ok(figure)
    }
}

/// Writes are made durable one by one, as a client asks for it; that threads share a flush is the kernel's affair.
fn one_thread(file: &File, reads: bool, unit: usize, end: Instant, seed: u64) -> io::Result<u64> {
    let mut buffer = Aligned::new(unit);
    let mut rng = Rng::new(seed);
    let places = FILE / unit as u64;
    let mut ops = 0;
    // One at least, also where the machine is so busy that the time is over before we begin.
    loop {
        let at = rng.below(places) * unit as u64;
        if reads {
            file.read_exact_at(buffer.bytes(unit), at)?;
        } else {
            file.write_all_at(buffer.bytes(unit), at)?;
            file.sync_data()?;
        }
        ops += 1;
        if Instant::now() >= end {
            return Ok(ops);
        }
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        // A scratch file that stays behind costs space and nothing else.
        let _ = std::fs::remove_file(&self.path);
    }
}
