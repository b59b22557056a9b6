//! Export and import of a collection: a stream that any store can write and any store can read.
//!
//! The stream is `NacreExp`, version, then frames of `length u32, crc32 u32, body`; the last frame counts the others, so
//! that a stream cut short is noticed. Bodies are described in `docs/formats/store.md`. An import goes into a collection
//! that is not there yet; it is complete when it returns, and absent if it fails. One that is interrupted leaves a
//! collection with the value [`UNFINISHED`], which nobody must take for a pg; the next import of that pg replaces it.

use std::io::{Read, Write};
use std::sync::mpsc;

use bytes::Bytes;
use nacre_proto::ids::{Epoch, ObjectId, PgId, PoolId, SnapId, Version};
use nacre_proto::txn::{Transaction, TxnOp, WriteHint};

use crate::{ObjectStore, StoreError};

const MAGIC: &[u8; 8] = b"NacreExp";
const VERSION: u32 = 1;
/// The value of its own that a collection has as long as an import is filling it.
pub const UNFINISHED: &[u8] = b"\0unfinished import";
/// Bytes of data in one frame.
const STEP: u64 = 1 << 20;
/// Entries in one frame.
const PAGE: usize = 256;
/// No frame of ours is larger; a longer one is damage.
const MOST: usize = 8 << 20;

/// Why a collection could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stream failed.
    #[error("the stream: {0}")]
    Io(#[from] std::io::Error),
    /// The store stopped in the middle.
    #[error("the store was closed before the import was durable; import again")]
    Closed,
    /// The collection is what an interrupted import left.
    #[error("pg {0} is what an interrupted import left: import it again, there is nothing whole to export")]
    Unfinished(PgId),
    /// The bytes are not what an export writes.
    #[error("the stream is no export or is damaged: {0}")]
    Damaged(&'static str),
}

/// What was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Objects.
    pub objects: u64,
    /// Bytes of data.
    pub bytes: u64,
}

struct Sink<'a> {
    out: &'a mut dyn Write,
    frames: u64,
}

impl Sink<'_> {
    fn frame(&mut self, body: &[u8]) -> Result<(), TransferError> {
        self.out.write_all(&(body.len() as u32).to_le_bytes())?;
        self.out.write_all(&crc32fast::hash(body).to_le_bytes())?;
        self.out.write_all(body)?;
        self.frames += 1;
        Ok(())
    }
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn blob(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn pairs(tag: u8, pairs: &[(Bytes, Bytes)]) -> Vec<u8> {
    let mut body = vec![tag];
    for (key, value) in pairs {
        blob(&mut body, key);
        blob(&mut body, value);
    }
    body
}

/// Writes all of a collection. Corrupt data ends it with an error that names the object.
pub fn export(store: &dyn ObjectStore, pg: PgId, out: &mut dyn Write) -> Result<Transferred, TransferError> {
    let mut moved = Transferred::default();
    if store.meta(pg, UNFINISHED)?.is_some() {
        return Err(TransferError::Unfinished(pg));
    }
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    let mut sink = Sink { out, frames: 0 };
    let mut head = vec![b'C'];
    number(&mut head, pg.pool.0);
    number(&mut head, pg.seed.into());
    sink.frame(&head)?;
    for page in store.meta_list(pg)?.chunks(PAGE) {
        sink.frame(&pairs(b'M', page))?;
    }
    for (version, entry) in store.log(pg, Version::default(), usize::MAX)? {
        let mut body = vec![b'L'];
        number(&mut body, version.epoch.0);
        number(&mut body, version.counter);
        blob(&mut body, &entry);
        sink.frame(&body)?;
    }
    let mut after = None;
    loop {
        let page = store.list(pg, after.as_ref(), PAGE)?;
        for oid in &page {
            moved.bytes += export_object(store, pg, oid, &mut sink)?;
            moved.objects += 1;
        }
        match page.last() {
            Some(last) => after = Some(last.clone()),
            None => break,
        }
    }
    let mut end = vec![b'E'];
    number(&mut end, sink.frames);
    sink.frame(&end)?;
    sink.out.flush()?;
    Ok(moved)
}

fn export_object(store: &dyn ObjectStore, pg: PgId, oid: &ObjectId, sink: &mut Sink<'_>) -> Result<u64, TransferError> {
    let size = store.stat(pg, oid)?.map_or(0, |stat| stat.size);
    let mut body = vec![b'O'];
    number(&mut body, oid.hash.into());
    number(&mut body, oid.snap.0);
    number(&mut body, size);
    blob(&mut body, &oid.namespace);
    blob(&mut body, &oid.name);
    blob(&mut body, &store.omap_header(pg, oid)?);
    sink.frame(&body)?;
    let mut bytes = 0;
    for (low, len) in store.sparse_map(pg, oid, 0, size)? {
        let mut done = 0;
        while done < len {
            let step = STEP.min(len - done);
            for extent in store.read(pg, oid, low + done, step)? {
                let mut body = vec![b'D'];
                number(&mut body, extent.offset);
                body.extend_from_slice(&extent.data);
                bytes += extent.data.len() as u64;
                sink.frame(&body)?;
            }
            done += step;
        }
    }
    for page in store.xattrs(pg, oid)?.chunks(16) {
        sink.frame(&pairs(b'X', page))?;
    }
    let mut from = Vec::new();
    loop {
        // One entry may have 4 MiB: a page is as many as fit a frame.
        let page = store.omap_list(pg, oid, &from, PAGE)?;
        let Some((last, _)) = page.last() else { break };
        from = [last.as_ref(), &[0]].concat();
        for entry in &page {
            sink.frame(&pairs(b'K', std::slice::from_ref(entry)))?;
        }
    }
    Ok(bytes)
}

/// Reads the fields of a frame.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn number(&mut self) -> Result<u64, TransferError> {
        let (number, rest) = self.0.split_first_chunk::<8>().ok_or(TransferError::Damaged("a frame ends early"))?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*number))
    }

    fn small(&mut self) -> Result<u32, TransferError> {
        u32::try_from(self.number()?).map_err(|_| TransferError::Damaged("a number is too large"))
    }

    fn blob(&mut self) -> Result<Bytes, TransferError> {
        let len = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let (blob, rest) = self.0.split_at_checked(len).ok_or(TransferError::Damaged("a frame ends early"))?;
        self.0 = rest;
        Ok(Bytes::copy_from_slice(blob))
    }

    fn pairs(&mut self) -> Result<Vec<(Bytes, Bytes)>, TransferError> {
        let mut pairs = Vec::new();
        while !self.0.is_empty() {
            pairs.push((self.blob()?, self.blob()?));
        }
        Ok(pairs)
    }
}

fn read_all(from: &mut dyn Read, buf: &mut [u8]) -> Result<(), TransferError> {
    from.read_exact(buf).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => TransferError::Damaged("it ends early"),
        _ => TransferError::Io(error),
    })
}

fn read_frame(from: &mut dyn Read) -> Result<Vec<u8>, TransferError> {
    let mut head = [0; 8];
    read_all(from, &mut head)?;
    let (len, crc) = head.split_at(4);
    let number = |bytes: &[u8]| bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let len = number(len) as usize;
    if len > MOST {
        return Err(TransferError::Damaged("a frame is longer than any export writes"));
    }
    let mut body = vec![0; len];
    read_all(from, &mut body)?;
    if crc32fast::hash(&body) == number(crc) {
        Ok(body)
    } else {
        Err(TransferError::Damaged("a frame fails its checksum"))
    }
}

/// One transaction, durable when it returns.
fn wait(store: &dyn ObjectStore, pg: PgId, ops: Vec<TxnOp>) -> Result<(), TransferError> {
    let (tell, told) = mpsc::sync_channel(1);
    store.submit(Transaction { pg, ops }, Box::new(move |result| drop(tell.send(result))))?;
    Ok(told.recv().map_err(|_| TransferError::Closed)??)
}

/// Makes a collection out of an export. For stores that commit by themselves.
pub fn import(store: &dyn ObjectStore, from: &mut dyn Read) -> Result<(PgId, Transferred), TransferError> {
    let mut head = [0; 12];
    read_all(from, &mut head)?;
    if head.get(..8) != Some(MAGIC) || head.get(8..) != Some(&VERSION.to_le_bytes()) {
        return Err(TransferError::Damaged("it does not begin as one of this version"));
    }
    let body = read_frame(from)?;
    let Some((b'C', rest)) = body.split_first() else { return Err(TransferError::Damaged("it names no collection")) };
    let mut fields = Fields(rest);
    let pg = PgId { pool: PoolId(fields.number()?), seed: fields.small()? };
    if store.collections()?.contains(&pg) && store.meta(pg, UNFINISHED)?.is_some() {
        wait(store, pg, vec![TxnOp::RemoveCollection])?;
    }
    let mark = |value| TxnOp::SetMeta { key: Bytes::from_static(UNFINISHED), value };
    wait(store, pg, vec![TxnOp::CreateCollection, mark(Some(Bytes::new()))])?;
    // Nothing in between is waited for: what is durable is a prefix, and the last transaction makes it a whole.
    match import_rest(store, pg, from).and_then(|moved| wait(store, pg, vec![mark(None)]).map(|()| moved)) {
        Ok(moved) => Ok((pg, moved)),
        Err(error) => {
            // Half a collection must not pass for a whole one.
            wait(store, pg, vec![TxnOp::RemoveCollection])?;
            Err(error)
        }
    }
}

fn import_rest(store: &dyn ObjectStore, pg: PgId, from: &mut dyn Read) -> Result<Transferred, TransferError> {
    let mut moved = Transferred::default();
    let mut current: Option<ObjectId> = None;
    let mut frames = 1;
    loop {
        let body = read_frame(from)?;
        let (tag, rest) = body.split_first().ok_or(TransferError::Damaged("a frame is empty"))?;
        let mut fields = Fields(rest);
        let of = || current.clone().ok_or(TransferError::Damaged("data comes before its object"));
        let ops = match tag {
            b'M' => {
                fields.pairs()?.into_iter().map(|(key, value)| TxnOp::SetMeta { key, value: Some(value) }).collect()
            }
            b'L' => {
                let version = Version { epoch: Epoch(fields.number()?), counter: fields.number()? };
                vec![TxnOp::LogAppend { version, entry: fields.blob()? }]
            }
            b'O' => {
                let (hash, snap, size) = (fields.small()?, SnapId(fields.number()?), fields.number()?);
                let (namespace, name, header) = (fields.blob()?, fields.blob()?, fields.blob()?);
                let oid = ObjectId { pool: pg.pool, hash, namespace, name, snap };
                current = Some(oid.clone());
                moved.objects += 1;
                let mut ops = vec![TxnOp::Truncate { oid: oid.clone(), size }];
                if !header.is_empty() {
                    ops.push(TxnOp::OmapSetHeader { oid, header });
                }
                ops
            }
            b'D' => {
                let offset = fields.number()?;
                let data = Bytes::copy_from_slice(fields.0);
                moved.bytes += data.len() as u64;
                vec![TxnOp::Write { oid: of()?, offset, data, hint: WriteHint { cold: true, ..WriteHint::default() } }]
            }
            b'X' => {
                let oid = of()?;
                let set = |(name, value)| TxnOp::SetXattr { oid: oid.clone(), name, value };
                fields.pairs()?.into_iter().map(set).collect()
            }
            b'K' => vec![TxnOp::OmapSet { oid: of()?, entries: fields.pairs()? }],
            b'E' if fields.number()? == frames => return Ok(moved),
            b'E' => return Err(TransferError::Damaged("frames are missing")),
            _ => return Err(TransferError::Damaged("a frame of unknown kind")),
        };
        frames += 1;
        store.submit(Transaction { pg, ops }, Box::new(|_| ()))?;
    }
}
