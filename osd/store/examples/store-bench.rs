//! Runs the bench on a fresh store in a folder: `cargo run --example store-bench -- FOLDER SECONDS [WORKLOAD]`.
//! The verb `nacre store bench` does the same; this builds without the rest of the product, for profiling.

use std::sync::atomic::Ordering;
use std::time::Duration;

use nacre_proto::ids::{OsdId, Uuid};
use nacre_store::{DiskStore, FormatOptions, Identity, StoreConfig, bench};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("which folder?")?;
    let seconds = args.next().unwrap_or("10".into()).parse()?;
    let folder = tempfile::tempdir_in(folder)?;
    let path = folder.path().join("store");
    let identity = Identity { cluster: Uuid([1; 16]), osd: OsdId(0) };
    let options = FormatOptions { size: 2 << 30, journal: 128 << 20, prewrite: true, store: Uuid([2; 16]), tag: 3 };
    DiskStore::format(&path, identity, &options)?;
    let store = DiskStore::open(&path, Some(identity), &StoreConfig::default())?;
    let options = bench::Options { time: Duration::from_secs(seconds), only: args.next(), ..Default::default() };
    bench::run(&store, folder.path(), &options, &|| store.counters().flushes.load(Ordering::Relaxed), |row| {
        let (held, bound) = store.memory();
        println!("{row:?}\n  held {} of {} MiB, {:?}", held >> 20, bound >> 20, store.counters());
    })?;
    store.close()?;
    Ok(())
}
