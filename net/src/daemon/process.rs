//! What the process itself uses, read from the system when the metrics page is asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::metrics::Registry;

/// CPU time of all threads so far.
#[must_use]
pub fn cpu_time() -> Duration {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
}

/// Takes memory in small pages from now on. The allocator asks for huge ones, so that each megabyte it has touched once
/// counts as two; what is gained by them in speed did not show.
pub fn take_small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "this system does not let a process do without huge pages");
    }
}

/// Memory that is in RAM, in bytes.
#[must_use]
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Registers them.
pub fn register(registry: &Arc<Registry>) {
    let began = Instant::now();
    registry.read("process_cpu_seconds_total", "CPU time of the process.", "counter", || cpu_time().as_secs_f64());
    registry
        .read("process_resident_bytes", "Memory of the process that is in RAM.", "gauge", || resident_bytes() as f64);
    registry.read("process_open_files", "File descriptors of the process.", "gauge", || open_files() as f64);
    registry.read("process_uptime_seconds", "Time since the process started.", "gauge", move || {
        began.elapsed().as_secs_f64()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_something() {
        let registry = Registry::new("osd");
        register(&registry);
        let json = registry.to_json();
        for name in ["process_cpu_seconds_total", "process_resident_bytes", "process_open_files"] {
            assert!(json[format!("nacre_osd_{name}")].as_f64().unwrap() > 0.0, "{name}: {json}");
        }
    }
}
