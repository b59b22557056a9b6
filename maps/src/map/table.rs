//! The tables a map is made of: ordered, cheap to clone, cheap to change while others hold the old state.
//!
//! Two kinds share one trait. [`Shared`] is an ordered map behind one pointer: right for what is small or seldom
//! changes. [`Dense`] is an array in chunks: right for OSDs, of which one changes while ten thousand do not.
//!
//! Invariant: [`Table::digest`] is the sum of the digests of all entries, kept up to date by every change, so a change
//! costs its own size and never that of the table.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use nacre_proto::ids::OsdId;

use crate::codec::digest;
use crate::codec::wire::Wire;

/// The digest of one entry. Its key is part of it, so that two entries cannot swap values unseen.
fn entry_digest<K: Wire, V: Wire>(key: &K, value: &V, scratch: &mut Vec<u8>) -> u64 {
    scratch.clear();
    key.put(scratch);
    value.put(scratch);
    digest(&[scratch])
}

/// What increments need from a table.
pub trait Table: Clone + Default {
    /// What entries are found by.
    type Key: Ord + Clone + Wire + fmt::Debug;
    /// What an entry holds.
    type Value: Clone + PartialEq + Wire + fmt::Debug;

    /// The entry of a key.
    fn get(&self, key: &Self::Key) -> Option<&Self::Value>;
    /// Adds or replaces; false if the key is beyond what the table can hold.
    #[must_use]
    fn set(&mut self, key: Self::Key, value: Self::Value) -> bool;
    /// Removes; false if there was nothing.
    fn remove(&mut self, key: &Self::Key) -> bool;
    /// Removes many.
    fn remove_all(&mut self, keys: impl IntoIterator<Item = Self::Key>) {
        for key in keys {
            self.remove(&key);
        }
    }
    /// Entries in the order of their keys.
    fn entries(&self) -> impl Iterator<Item = (Self::Key, &Self::Value)>;
    /// How many entries there are.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether the two are one allocation (then they are equal; otherwise nothing is said).
    fn is_same(&self, other: &Self) -> bool;
    /// Equal tables have equal digests, and tables that differ do not but by an accident of one in 2^64.
    fn digest(&self) -> u64;
    /// What differs: for each key that changed, the value in `to`, or nothing if it is gone there.
    fn changes<'a>(&'a self, to: &'a Self) -> Vec<(Self::Key, Option<&'a Self::Value>)> {
        if self.is_same(to) {
            return Vec::new();
        }
        merge(self.entries(), to.entries())
    }
}

/// Walks two ordered runs of entries side by side.
fn merge<'a, K: Ord, V: PartialEq>(
    old: impl Iterator<Item = (K, &'a V)>,
    new: impl Iterator<Item = (K, &'a V)>,
) -> Vec<(K, Option<&'a V>)> {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    let mut changed = Vec::new();
    loop {
        match (old.peek(), new.peek()) {
            (None, None) => return changed,
            (Some((gone, _)), Some((kept, _))) if gone < kept => {
                changed.extend(old.next().map(|(key, _)| (key, None)));
            }
            (Some(_), None) => changed.extend(old.next().map(|(key, _)| (key, None))),
            (Some((before, _)), Some((after, _))) if before == after => {
                if let (Some((_, was)), Some((key, is))) = (old.next(), new.next())
                    && was != is
                {
                    changed.push((key, Some(is)));
                }
            }
            _ => changed.extend(new.next().map(|(key, value)| (key, Some(value)))),
        }
    }
}

/// An ordered map behind one pointer.
#[derive(Clone)]
pub struct Shared<K, V> {
    entries: Arc<BTreeMap<K, V>>,
    digest: u64,
}

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self { entries: Arc::default(), digest: 0 }
    }
}

impl<K, V> std::ops::Deref for Shared<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.entries
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Shared<K, V> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.entries, &other.entries) || (self.digest == other.digest && self.entries == other.entries)
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Shared<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries.fmt(f)
    }
}

impl<K, V> Table for Shared<K, V>
where
    K: Ord + Clone + Wire + fmt::Debug,
    V: Clone + PartialEq + Wire + fmt::Debug,
{
    type Key = K;
    type Value = V;

    fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    fn set(&mut self, key: K, value: V) -> bool {
        let mut scratch = Vec::new();
        let added = entry_digest(&key, &value, &mut scratch);
        let entries = Arc::make_mut(&mut self.entries);
        let gone = match entries.get(&key) {
            Some(old) => entry_digest(&key, old, &mut scratch),
            None => 0,
        };
        self.digest = self.digest.wrapping_sub(gone).wrapping_add(added);
        entries.insert(key, value);
        true
    }

    fn remove(&mut self, key: &K) -> bool {
        if !self.entries.contains_key(key) {
            return false;
        }
        if let Some(old) = Arc::make_mut(&mut self.entries).remove(key) {
            self.digest = self.digest.wrapping_sub(entry_digest(key, &old, &mut Vec::new()));
        }
        true
    }

    fn entries(&self) -> impl Iterator<Item = (K, &V)> {
        self.entries.iter().map(|(key, value)| (key.clone(), value))
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.entries, &other.entries)
    }

    fn digest(&self) -> u64 {
        self.digest
    }
}

/// How many slots a chunk has: a change copies one chunk and the list of chunks.
const CHUNK: usize = 64;
type Chunk<V> = [Option<V>; CHUNK];

/// An array of OSD slots in chunks.
#[derive(Clone)]
pub struct Dense<V> {
    chunks: Vec<Option<Arc<Chunk<V>>>>,
    len: usize,
    digest: u64,
}

impl<V> Default for Dense<V> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0, digest: 0 }
    }
}

impl<V> Dense<V> {
    /// The highest OSD number there can be. Bounds what a hostile or broken message can make this allocate.
    pub const MAX: OsdId = OsdId((1 << 20) - 1);

    fn place(osd: OsdId) -> (usize, usize) {
        let at = osd.0 as usize;
        (at / CHUNK, at % CHUNK)
    }

    /// The entry of an OSD.
    pub fn get(&self, osd: OsdId) -> Option<&V> {
        let (chunk, slot) = Self::place(osd);
        self.chunks.get(chunk)?.as_ref()?.get(slot)?.as_ref()
    }

    /// Whether there is an entry.
    pub fn contains(&self, osd: OsdId) -> bool {
        self.get(osd).is_some()
    }

    /// Entries in the order of OSD numbers.
    pub fn iter(&self) -> impl Iterator<Item = (OsdId, &V)> {
        self.chunks.iter().enumerate().flat_map(|(at, chunk)| {
            chunk.iter().flat_map(move |chunk| {
                chunk.iter().enumerate().filter_map(move |(slot, value)| {
                    let osd = OsdId((at * CHUNK + slot) as u32);
                    value.as_ref().map(|value| (osd, value))
                })
            })
        })
    }

    /// How many OSDs have an entry.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One more than the highest number with an entry.
    pub fn end(&self) -> OsdId {
        let last = self.chunks.iter().enumerate().rev().find_map(|(at, chunk)| {
            let slot = chunk.as_ref()?.iter().rposition(Option::is_some)?;
            Some(at * CHUNK + slot + 1)
        });
        OsdId(last.unwrap_or(0) as u32)
    }
}

impl<V: PartialEq> PartialEq for Dense<V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.digest == other.digest && self.iter().eq(other.iter())
    }
}

impl<V: fmt::Debug> fmt::Debug for Dense<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<V: Clone + PartialEq + Wire + fmt::Debug> Table for Dense<V> {
    type Key = OsdId;
    type Value = V;

    fn get(&self, key: &OsdId) -> Option<&V> {
        Dense::get(self, *key)
    }

    fn set(&mut self, key: OsdId, value: V) -> bool {
        if key > Self::MAX {
            return false;
        }
        let mut scratch = Vec::new();
        let added = entry_digest(&key, &value, &mut scratch);
        let (chunk, slot) = Self::place(key);
        if self.chunks.len() <= chunk {
            self.chunks.resize(chunk + 1, None);
        }
        let slots = self.chunks[chunk].get_or_insert_with(|| Arc::new([const { None }; CHUNK]));
        let old = Arc::make_mut(slots)[slot].replace(value);
        let gone = old.as_ref().map_or(0, |old| entry_digest(&key, old, &mut scratch));
        self.len += usize::from(old.is_none());
        self.digest = self.digest.wrapping_sub(gone).wrapping_add(added);
        true
    }

    fn remove(&mut self, key: &OsdId) -> bool {
        if !self.contains(*key) {
            return false;
        }
        let (chunk, slot) = Self::place(*key);
        if let Some(slots) = &mut self.chunks[chunk]
            && let Some(old) = Arc::make_mut(slots)[slot].take()
        {
            self.len -= 1;
            self.digest = self.digest.wrapping_sub(entry_digest(key, &old, &mut Vec::new()));
        }
        true
    }

    fn entries(&self) -> impl Iterator<Item = (OsdId, &V)> {
        self.iter()
    }

    fn len(&self) -> usize {
        self.len
    }

    fn is_same(&self, other: &Self) -> bool {
        self.len == other.len
            && self.digest == other.digest
            && self.chunks.len() == other.chunks.len()
            && self.chunks.iter().zip(&other.chunks).all(|pair| same_chunk(pair.0, pair.1))
    }

    fn digest(&self) -> u64 {
        self.digest
    }

    /// Looks only into chunks that are not shared between the two.
    fn changes<'a>(&'a self, to: &'a Self) -> Vec<(OsdId, Option<&'a V>)> {
        let mut changed = Vec::new();
        for at in 0..self.chunks.len().max(to.chunks.len()) {
            let old = self.chunks.get(at).unwrap_or(&None);
            let new = to.chunks.get(at).unwrap_or(&None);
            if same_chunk(old, new) {
                continue;
            }
            for slot in 0..CHUNK {
                let was = old.as_ref().and_then(|chunk| chunk[slot].as_ref());
                let is = new.as_ref().and_then(|chunk| chunk[slot].as_ref());
                if was != is {
                    changed.push((OsdId((at * CHUNK + slot) as u32), is));
                }
            }
        }
        changed
    }
}

fn same_chunk<V>(one: &Option<Arc<Chunk<V>>>, other: &Option<Arc<Chunk<V>>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}
