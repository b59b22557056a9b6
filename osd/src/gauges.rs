//! What an OSD shows of its store beside everything else it counts. Read when somebody asks, so nothing is kept here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use nacre_net::metrics::Registry;
use nacre_store::{Counters, DiskStore, ObjectStore};

/// What is read of a store.
type Figure = fn(&DiskStore) -> u64;
/// What it counts.
type Count = fn(&Counters) -> &AtomicU64;

const GAUGES: [(&str, &str, Figure); 7] = [
    ("store_memory_bytes", "Memory that the store knows it holds.", |store| store.memory().0),
    ("store_memory_limit_bytes", "Memory that the store may hold.", |store| store.memory().1),
    ("store_total_bytes", "Block space of the store.", |store| store.usage().total),
    ("store_used_bytes", "Block space that objects hold.", |store| store.usage().used),
    ("store_pending_bytes", "Block space that the next checkpoint frees.", |store| store.usage().pending),
    ("store_available_bytes", "Block space that writes may still take.", |store| store.usage().available),
    ("store_poisoned", "1 after a failed write or flush: the store refuses everything.", |store| {
        u64::from(store.poisoned().is_some())
    }),
];

const COUNTERS: [(&str, &str, Count); 7] = [
    ("store_transactions_total", "Transactions made durable.", |all| &all.transactions),
    ("store_groups_total", "Groups of transactions made durable by one write and one flush.", |all| &all.groups),
    ("store_flushes_total", "Flushes of a device.", |all| &all.flushes),
    ("store_journal_bytes_total", "Bytes written to the journal.", |all| &all.journal_bytes),
    ("store_block_bytes_total", "Bytes written to the block space.", |all| &all.block_bytes),
    ("store_checkpoints_total", "Checkpoints finished.", |all| &all.checkpoints),
    ("store_stalls_total", "Times a transaction had to wait for a checkpoint.", |all| &all.stalls),
];

/// Lets a registry show a store, as long as there is one: the registry does not keep it open.
pub(crate) fn show(registry: &Registry, store: &Arc<DiskStore>) {
    for (name, help, figure) in GAUGES {
        registry.read(name, help, "gauge", reader(store, figure));
    }
    for (name, help, counter) in COUNTERS {
        registry.read(
            name,
            help,
            "counter",
            reader(store, move |store| counter(store.counters()).load(Ordering::Relaxed)),
        );
    }
}

fn reader<F: Fn(&DiskStore) -> u64>(store: &Arc<DiskStore>, figure: F) -> impl Fn() -> f64 + use<F> {
    let store: Weak<DiskStore> = Arc::downgrade(store);
    move || store.upgrade().map_or(0.0, |store| figure(&store) as f64)
}

#[cfg(test)]
mod tests {
    use nacre_proto::ids::{OsdId, Uuid};
    use nacre_store::{FormatOptions, Identity, StoreConfig};

    use super::*;

    #[test]
    fn a_store_shows_its_memory_and_its_space_until_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity { cluster: Uuid([1; 16]), osd: OsdId(0) };
        let options = FormatOptions { size: 16 << 20, journal: 1 << 20, prewrite: false, store: Uuid([2; 16]), tag: 3 };
        DiskStore::format(folder.path(), identity, &options).unwrap();
        let config = StoreConfig { memory: 64 << 20, ..StoreConfig::default() };
        let store = Arc::new(DiskStore::open(folder.path(), None, &config).unwrap());
        let registry = Registry::new("osd");
        show(&registry, &store);
        store.checkpoint().unwrap();
        let page = registry.render();
        let value = |name: &str| -> f64 {
            let line = page.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
            line.split(' ').nth(1).unwrap().parse().unwrap()
        };
        assert_eq!(value("nacre_osd_store_memory_limit_bytes"), f64::from(64 << 20));
        assert!(value("nacre_osd_store_memory_bytes") > 0.0, "{page}");
        assert_eq!(value("nacre_osd_store_total_bytes"), store.usage().total as f64);
        assert_eq!(value("nacre_osd_store_checkpoints_total"), 1.0);
        assert_eq!(value("nacre_osd_store_poisoned"), 0.0);
        drop(store);
        DiskStore::open(folder.path(), None, &config).unwrap();
        assert!(registry.render().contains("nacre_osd_store_total_bytes 0"));
    }
}
