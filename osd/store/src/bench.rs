//! What a store does in a second and what that costs, beside what its device can do, measured in the same run.
//!
//! Works on the [`ObjectStore`] trait alone, so every store is held to one measure. One thread asks, keeping so many
//! transactions in flight; CPU time is that of the whole process, the store's own threads included, because it barely
//! moves when a machine is busy with other things. Wall-clock figures are only worth their ratio to the device's.
//!
//! - [`limit`]: the device's own figures: plain files, O_DIRECT, fdatasync.
//! - [`load`]: the workloads.

mod limit;
mod load;

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::{ObjectStore, StoreError};
use limit::Limits;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long each workload runs.
    pub time: Duration,
    /// Bytes of objects that overwrites and reads are spread over.
    pub size: u64,
    /// Only workloads whose name contains this.
    pub only: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options { time: Duration::from_secs(10), size: 512 << 20, only: None }
    }
}

/// One workload's figures; the names are those of the JSON form.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Row {
    /// Its name.
    pub workload: &'static str,
    /// Operations finished in a second.
    pub iops: f64,
    /// Client bytes in a second.
    pub mib_s: f64,
    /// CPU time of the process for each operation.
    pub cpu_us_per_op: f64,
    /// Flushes of the device's cache for each operation.
    pub flushes_per_op: f64,
    /// Bytes given to the device for each byte a client wrote; 0 where none was written.
    pub write_amplification: f64,
    /// Memory of the process at the end.
    pub rss_mib: f64,
    /// What the device does without a store: operations in a second, or MiB in a second for `4m` workloads.
    pub device_limit: f64,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The store refused something.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The device could not be measured.
    #[error("measuring the device under {folder}: {source}")]
    Device {
        /// Where.
        folder: String,
        /// Why.
        source: std::io::Error,
    },
    /// No workload is called so.
    #[error("no workload has {0:?} in its name; there are {list}", list = load::names().join(", "))]
    NoWorkload(String),
    /// A read gave something else than was asked for.
    #[error("a read of {wanted} bytes gave {got}")]
    ShortRead {
        /// Asked for.
        wanted: u64,
        /// Given.
        got: u64,
    },
}

/// Counters at one moment; a workload's cost is the difference of two.
#[derive(Clone, Copy)]
struct Cost {
    at: Instant,
    cpu: Duration,
    flushes: u64,
    written: u64,
}

impl Cost {
    fn now(flushes: &dyn Fn() -> u64) -> Cost {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Cost {
            at: Instant::now(),
            cpu: Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32),
            flushes: flushes(),
            written: process_figure("/proc/self/io", "write_bytes:"),
        }
    }
}

/// A figure of the kernel's about this process; 0 where the kernel does not tell.
fn process_figure(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Runs the workloads one after the other and hands each row over as it is done. `flushes` counts what the store has
/// asked of its device so far; `folder` lies on the same device.
pub fn run(
    store: &dyn ObjectStore,
    folder: &Path,
    options: &Options,
    flushes: &dyn Fn() -> u64,
    mut report: impl FnMut(&Row),
) -> Result<Vec<Row>, BenchError> {
    let chosen: Vec<_> = load::WORKLOADS
        .iter()
        .filter(|(name, _)| options.only.as_ref().is_none_or(|part| name.contains(part.as_str())))
        .collect();
    if chosen.is_empty() {
        return Err(BenchError::NoWorkload(options.only.clone().unwrap_or_default()));
    }
    let mut limits = Limits::new(folder, options.time)
        .map_err(|source| BenchError::Device { folder: folder.display().to_string(), source })?;
    let mut bench = load::Load::prepare(store, options.size)?;
    let mut rows = Vec::new();
    for (name, workload) in chosen {
        let device_limit = limits
            .of(workload)
            .map_err(|source| BenchError::Device { folder: folder.display().to_string(), source })?;
        let before = Cost::now(flushes);
        let done = bench.run(workload, options.time)?;
        let after = Cost::now(flushes);
        let (seconds, ops) = ((after.at - before.at).as_secs_f64(), done.ops.max(1) as f64);
        let row = Row {
            workload: name,
            iops: done.ops as f64 / seconds,
            mib_s: (done.read + done.written) as f64 / seconds / 1_048_576.0,
            cpu_us_per_op: (after.cpu - before.cpu).as_secs_f64() * 1e6 / ops,
            flushes_per_op: (after.flushes - before.flushes) as f64 / ops,
            write_amplification: match done.written {
                0 => 0.0,
                bytes => (after.written - before.written) as f64 / bytes as f64,
            },
            rss_mib: process_figure("/proc/self/status", "VmRSS:") as f64 / 1024.0,
            device_limit,
        };
        report(&row);
        rows.push(row);
    }
    bench.clean_up()?;
    Ok(rows)
}

#[cfg(test)]
#[path = "bench_test.rs"]
mod tests;
