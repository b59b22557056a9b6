//! A disk in memory and a server for it, for the tests of this folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use nacre_nbd::volume::Reply;
use nacre_nbd::{Catalog, Encryption, Extent, Fault, Limits, Listing, Volume, negotiate, serve};
use tokio::net::UnixListener;

const BLOCK: u64 = 4096;

/// Sparse bytes; what was never written, or was trimmed, is a hole.
pub(super) struct Disk {
    pub(super) size: AtomicU64,
    read_only: bool,
    blocks: Mutex<BTreeMap<u64, Vec<u8>>>,
    pub(super) flushes: AtomicU64,
}

impl Disk {
    pub(super) fn new(size: u64) -> Arc<Disk> {
        Arc::new(Disk { size: size.into(), read_only: false, blocks: Mutex::default(), flushes: AtomicU64::new(0) })
    }

    pub(super) fn read_only(size: u64) -> Arc<Disk> {
        Arc::new(Disk { size: size.into(), read_only: true, blocks: Mutex::default(), flushes: AtomicU64::new(0) })
    }

    pub(super) fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let blocks = self.blocks.lock().unwrap();
        (offset..offset + len as u64)
            .map(|at| blocks.get(&(at / BLOCK)).map_or(0, |block| block[(at % BLOCK) as usize]))
            .collect()
    }

    fn put(&self, offset: u64, data: &[u8]) {
        let mut blocks = self.blocks.lock().unwrap();
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at % BLOCK) as usize;
            let part = (data.len() - done).min(BLOCK as usize - within);
            let block = blocks.entry(at / BLOCK).or_insert_with(|| vec![0; BLOCK as usize]);
            block[within..within + part].copy_from_slice(&data[done..done + part]);
            done += part;
        }
    }

    fn punch(&self, offset: u64, len: u64) {
        let (first, last) = (offset.div_ceil(BLOCK), (offset + len) / BLOCK);
        if first >= last {
            return self.put(offset, &vec![0; len as usize]);
        }
        self.put(offset, &vec![0; (first * BLOCK - offset) as usize]);
        self.put(last * BLOCK, &vec![0; (offset + len - last * BLOCK) as usize]);
        self.blocks.lock().unwrap().retain(|at, _| *at < first || *at >= last);
    }
}

fn now<T: Send + 'static>(value: Result<T, Fault>) -> Reply<'static, T> {
    Box::pin(std::future::ready(value))
}

impl Volume for Disk {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, offset: u64, len: u32) -> Reply<'_, Bytes> {
        let mut out = vec![0; len as usize];
        let blocks = self.blocks.lock().unwrap();
        for (index, block) in blocks.range(offset / BLOCK..=(offset + u64::from(len) - 1) / BLOCK) {
            let start = index * BLOCK;
            let (from, to) = (start.max(offset), (start + BLOCK).min(offset + u64::from(len)));
            out[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&block[(from - start) as usize..(to - start) as usize]);
        }
        now(Ok(out.into()))
    }

    fn write(&self, offset: u64, data: Bytes, _fua: bool) -> Reply<'_, ()> {
        self.put(offset, &data);
        now(Ok(()))
    }

    fn zero(&self, offset: u64, len: u64, keep: bool, fast: bool, _fua: bool) -> Reply<'_, ()> {
        if keep && fast {
            return now(Err(Fault::NotSupported));
        }
        if keep {
            self.put(offset, &vec![0; len as usize])
        } else {
            self.punch(offset, len)
        }
        now(Ok(()))
    }

    fn trim(&self, offset: u64, len: u64, _fua: bool) -> Reply<'_, ()> {
        self.punch(offset, len);
        now(Ok(()))
    }

    fn flush(&self) -> Reply<'_, ()> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        now(Ok(()))
    }

    fn extents(&self, offset: u64, len: u64, most: usize) -> Reply<'_, Vec<Extent>> {
        let blocks = self.blocks.lock().unwrap();
        let mut runs: Vec<Extent> = Vec::new();
        let mut at = offset;
        while at < offset + len {
            let hole = !blocks.contains_key(&(at / BLOCK));
            let part = ((at / BLOCK + 1) * BLOCK).min(offset + len) - at;
            match runs.last_mut() {
                Some(last) if last.hole == hole => last.len += part,
                _ => {
                    if runs.len() == most {
                        break;
                    }
                    runs.push(Extent { len: part, hole });
                }
            }
            at += part;
        }
        now(Ok(runs))
    }
}

/// Exports by name.
#[derive(Default)]
pub(super) struct Shelf(pub(crate) BTreeMap<String, Arc<Disk>>);

impl Catalog for Shelf {
    fn list(&self) -> Reply<'_, Vec<Listing>> {
        let entry = |name: &String| Listing { name: name.clone(), description: format!("disk {name}") };
        now(Ok(self.0.keys().map(entry).collect()))
    }

    fn open<'a>(&'a self, name: &'a str) -> Reply<'a, Option<Arc<dyn Volume>>> {
        now(Ok(self.0.get(name).map(|disk| Arc::clone(disk) as Arc<dyn Volume>)))
    }
}

/// A server on a local socket in a folder that goes when this is dropped; so do its threads.
pub(super) struct Server {
    folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    pub(super) fn start(shelf: Shelf, encryption: Encryption) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _guard = runtime.enter();
            UnixListener::bind(folder.path().join("nbd")).unwrap()
        };
        let shelf = Arc::new(shelf);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shelf, encryption) = (Arc::clone(&shelf), encryption.clone());
                tokio::spawn(async move {
                    let limits = Limits::default();
                    if let Ok(agreed) = negotiate(stream, &*shelf, &encryption, &limits).await {
                        let _ = serve(agreed, &limits).await;
                    }
                });
            }
        });
        Server { folder, _runtime: runtime }
    }

    pub(super) fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket().display())
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("nbd")
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}
