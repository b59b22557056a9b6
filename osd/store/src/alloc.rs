//! Which blocks of the block space are free. Pure: no I/O, no threads; the engine calls it under its own lock.
//!
//! The space is cut into chunks of [`CHUNK`] blocks. A chunk that is wholly free or wholly used costs a few bytes; only
//! a mixed one has a bitmap, so memory follows fragmentation and not size. Chunks with free blocks are filed by the
//! length of their longest free run, so that a fitting place is found without a search, also when the space is nearly
//! full.
//!
//! How it places:
//! - A caller that continues something says where it would like to go on (`hint`); if that is free, it gets it. This
//!   is what keeps sequential data sequential.
//! - Otherwise a run goes to the chunk whose longest free run fits it most closely: small ones fill gaps, and long
//!   runs stay for those who need them.
//! - Where no run is long enough, the longest ones are handed out until it is enough.
//!
//! Invariants:
//! 1. A block is free, used or held. Only free blocks are handed out.
//! 2. A block that a transaction frees is *held* until a checkpoint that holds the transaction is durable: until then a
//!    crash may bring back the state in which the block carries live data.
//! 3. What a checkpoint writes shows held blocks as free, and is what [`Allocator::load`] takes.

use std::collections::BTreeSet;

/// Blocks of a chunk: what a bitmap of 4 KiB covers.
pub const CHUNK: u64 = 8 * BITMAP as u64;
/// Bytes of the bitmap of a chunk; a set bit is a used block, lowest bit first.
pub const BITMAP: usize = 4096;
const WORDS: usize = BITMAP / 8;
/// Lengths of a longest free run fall into the classes 2^0.., 2^1.., up to a whole chunk.
const CLASSES: usize = CHUNK.ilog2() as usize + 1;

/// Blocks that lie side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// The first.
    pub start: u64,
    /// How many.
    pub len: u64,
}

impl Run {
    /// The block after the last.
    pub fn end(self) -> u64 {
        self.start + self.len
    }
}

/// Why blocks could not be had or given back. But for `NoSpace` these mean that what was read contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    /// Fewer free blocks than asked for. Nothing was taken.
    #[error("{wanted} blocks wanted, {free} are free")]
    NoSpace {
        /// Asked for.
        wanted: u64,
        /// Free now; held ones come on top at the next checkpoint.
        free: u64,
    },
    /// Not all of the run lies in the block space.
    #[error("blocks {}+{} lie outside of the block space of {blocks} blocks", run.start, run.len)]
    Outside {
        /// What was named.
        run: Run,
        /// Size of the space.
        blocks: u64,
    },
    /// A run is marked as used of which some block is used already: two owners.
    #[error("blocks {}+{} are in use already, at least in part", run.start, run.len)]
    InUse {
        /// What was named.
        run: Run,
    },
    /// A run is given back of which some block is free: given back twice.
    #[error("blocks {}+{} are free already, at least in part", run.start, run.len)]
    NotInUse {
        /// What was named.
        run: Run,
    },
    /// A chunk's bitmap that the space has no room for.
    #[error("the block space of {blocks} blocks has no chunk {chunk}")]
    NoChunk {
        /// What was named.
        chunk: u32,
        /// Size of the space.
        blocks: u64,
    },
}

#[derive(Clone)]
enum State {
    Free,
    Used,
    Mixed(Box<[u64; WORDS]>),
}

#[derive(Clone)]
struct Chunk {
    state: State,
    free: u32,
    /// At least the length of the longest free run: taking blocks leaves it standing, a failed search mends it.
    longest: u32,
}

/// Free, used and held blocks of one block space.
pub struct Allocator {
    blocks: u64,
    chunks: Vec<Chunk>,
    /// Chunks with free blocks, by class of `longest`.
    classes: [BTreeSet<u32>; CLASSES],
    free: u64,
    held: u64,
    /// Freed since the last checkpoint began.
    holds: Vec<Run>,
    /// Freed before the checkpoint that is under way.
    releasing: Option<Vec<Run>>,
    dirty: BTreeSet<u32>,
    mixed: usize,
    /// Where small runs without a hint were last placed: the next go on from there.
    cursor: u32,
}

impl std::fmt::Debug for Allocator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Allocator { blocks, free, held, mixed, .. } = self;
        write!(f, "Allocator {{ blocks: {blocks}, free: {free}, held: {held}, mixed chunks: {mixed} }}")
    }
}

impl Allocator {
    /// A space in which all is free.
    pub fn new(blocks: u64) -> Allocator {
        let count = blocks.div_ceil(CHUNK) as usize;
        let mut chunks = vec![Chunk { state: State::Free, free: CHUNK as u32, longest: CHUNK as u32 }; count];
        let tail = (blocks % CHUNK) as usize;
        let mut mixed = 0;
        if tail != 0 {
            // What lies beyond the end is used for good.
            let mut words = Box::new([u64::MAX; WORDS]);
            mark(&mut words, 0, tail, false);
            chunks[count - 1] = Chunk { state: State::Mixed(words), free: tail as u32, longest: tail as u32 };
            mixed = 1;
        }
        let mut classes: [BTreeSet<u32>; CLASSES] = std::array::from_fn(|_| BTreeSet::new());
        for (at, chunk) in chunks.iter().enumerate() {
            classes[class(chunk.longest)].insert(at as u32);
        }
        Allocator {
            blocks,
            chunks,
            classes,
            free: blocks,
            held: 0,
            holds: Vec::new(),
            releasing: None,
            dirty: BTreeSet::new(),
            mixed,
            cursor: 0,
        }
    }

    /// The space as a checkpoint left it: the bitmaps it wrote, in any order; a chunk without one is free.
    pub fn load(blocks: u64, bitmaps: impl IntoIterator<Item = (u32, [u8; BITMAP])>) -> Result<Allocator, AllocError> {
        let mut all = Allocator::new(blocks);
        for (at, bitmap) in bitmaps {
            if at as usize >= all.chunks.len() {
                return Err(AllocError::NoChunk { chunk: at, blocks });
            }
            let mut words = Box::new([0; WORDS]);
            for (word, bytes) in words.iter_mut().zip(bitmap.chunks_exact(8)) {
                let mut eight = [0; 8];
                eight.copy_from_slice(bytes);
                *word = u64::from_le_bytes(eight);
            }
            let tail = (blocks - u64::from(at) * CHUNK).min(CHUNK) as usize;
            // What the bitmap says beyond the end does not count.
            let used: Vec<Run> = used_bits(&words, tail, u64::from(at) * CHUNK).collect();
            let whole = Run { start: u64::from(at) * CHUNK, len: tail as u64 };
            if !all.all(whole, false) {
                return Err(AllocError::InUse { run: whole });
            }
            used.into_iter().for_each(|run| all.take(run));
        }
        all.dirty.clear();
        Ok(all)
    }

    /// Size of the space.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Blocks that can be had now.
    pub fn free_blocks(&self) -> u64 {
        self.free
    }

    /// Blocks that become free with the next checkpoints.
    pub fn held_blocks(&self) -> u64 {
        self.held
    }

    /// Memory this takes, within a tenth.
    pub fn memory_bytes(&self) -> usize {
        let filed = self.classes.iter().map(BTreeSet::len).sum::<usize>() + self.dirty.len();
        self.chunks.len() * size_of::<Chunk>()
            + self.mixed * BITMAP
            + filed * 8
            + self.holds.capacity() * size_of::<Run>()
            + self.releasing.as_ref().map_or(0, |runs| runs.capacity() * size_of::<Run>())
    }

    /// How scattered the free blocks are: 0 where they lie in whole chunks, towards 1 where no two are neighbours.
    pub fn fragmentation(&mut self) -> f64 {
        if self.free == 0 {
            return 0.0;
        }
        let mut best = 0u64;
        for at in 0..self.chunks.len() as u32 {
            best += u64::from(self.mend_longest(at));
        }
        1.0 - best as f64 / self.free as f64
    }

    /// Takes `count` blocks, all or none, in as few runs as can be. With a `hint`, from there on if that is free.
    pub fn alloc(&mut self, count: u64, hint: Option<u64>) -> Result<Vec<Run>, AllocError> {
        if count > self.free {
            return Err(AllocError::NoSpace { wanted: count, free: self.free });
        }
        let mut runs: Vec<Run> = Vec::new();
        let mut left = count;
        if let Some(at) = hint.filter(|at| *at < self.blocks) {
            self.extend_from(at, &mut left, &mut runs);
        }
        while left > 0 {
            // Free blocks are left, because `count` was no more than `free`; so some class is not empty.
            let Some((chunk, from, len)) = self.place(left) else { break };
            let start = u64::from(chunk) * CHUNK + from as u64;
            let take = Run { start, len: (len as u64).min(left) };
            self.take(take);
            push(&mut runs, take);
            left -= take.len;
            self.cursor = chunk;
            // More than a chunk: go straight on, so that a large run stays in one piece across chunks.
            if left > 0 {
                self.extend_from(take.end(), &mut left, &mut runs);
            }
        }
        assert_eq!(left, 0, "free blocks were counted that no chunk has");
        Ok(runs)
    }

    /// Takes what is free from `at` on, up to `left`, across chunks.
    fn extend_from(&mut self, mut at: u64, left: &mut u64, runs: &mut Vec<Run>) {
        while *left > 0 && at < self.blocks {
            let (chunk, within) = ((at / CHUNK) as usize, (at % CHUNK) as usize);
            let here = match &self.chunks[chunk].state {
                State::Used => 0,
                State::Free => CHUNK as usize - within,
                State::Mixed(words) => free_from(words, within),
            };
            if here == 0 {
                return;
            }
            let run = Run { start: at, len: (here as u64).min(*left) };
            self.take(run);
            push(runs, run);
            *left -= run.len;
            at = run.end();
            if !at.is_multiple_of(CHUNK) {
                return;
            }
        }
    }

    /// The chunk and the free run in it that fit `want` blocks most closely, or else the longest there is.
    fn place(&mut self, want: u64) -> Option<(u32, usize, usize)> {
        let want = want.min(CHUNK) as u32;
        // From the first class in which every chunk fits; `longest` may be too high, so each is looked at.
        for at_class in class(want.next_power_of_two())..CLASSES {
            while let Some(chunk) = self.nearest(at_class) {
                if let Some((from, len)) = self.first_fit(chunk, want) {
                    return Some((chunk, from, len));
                }
                self.mend_longest(chunk);
            }
        }
        // Then the class below, of which some may fit; and if none does, the longest of all.
        for at_class in (0..CLASSES).rev() {
            while let Some(chunk) = self.nearest(at_class) {
                if self.mend_longest(chunk) == 0 || class(self.chunks[chunk as usize].longest) != at_class {
                    continue;
                }
                if let Some(found) = self.first_fit(chunk, want) {
                    return Some((chunk, found.0, found.1));
                }
                let (from, len) = match &self.chunks[chunk as usize].state {
                    State::Mixed(words) => longest_run(words),
                    _ => (0, CHUNK as usize),
                };
                return Some((chunk, from, len));
            }
        }
        None
    }

    /// A chunk of a class, the next after where the last run went.
    fn nearest(&self, at_class: usize) -> Option<u32> {
        let set = &self.classes[at_class];
        set.range(self.cursor..).next().or_else(|| set.iter().next()).copied()
    }

    fn first_fit(&self, chunk: u32, want: u32) -> Option<(usize, usize)> {
        match &self.chunks[chunk as usize].state {
            State::Free => Some((0, CHUNK as usize)),
            State::Used => None,
            State::Mixed(words) => free_runs(words).find(|(_, len)| *len >= want as usize),
        }
    }

    /// Makes a chunk's `longest` exact and files the chunk anew.
    fn mend_longest(&mut self, at: u32) -> u32 {
        let chunk = &self.chunks[at as usize];
        let exact = match &chunk.state {
            State::Free => CHUNK as u32,
            State::Used => 0,
            State::Mixed(words) => longest_run(words).1 as u32,
        };
        let before = chunk.longest;
        if exact != before {
            self.refile(at, before, exact);
        }
        exact
    }

    fn refile(&mut self, at: u32, before: u32, after: u32) {
        if before > 0 {
            self.classes[class(before)].remove(&at);
        }
        if after > 0 {
            self.classes[class(after)].insert(at);
        }
        self.chunks[at as usize].longest = after;
    }

    /// Cuts a run at the borders of chunks.
    fn parts(run: Run) -> impl Iterator<Item = (u32, usize, usize)> {
        let mut at = run.start;
        std::iter::from_fn(move || {
            if at >= run.end() {
                return None;
            }
            let within = (at % CHUNK) as usize;
            let len = (CHUNK as usize - within).min((run.end() - at) as usize);
            let part = ((at / CHUNK) as u32, within, len);
            at += len as u64;
            Some(part)
        })
    }

    /// Marks free blocks as used; the caller knows that they are free.
    fn take(&mut self, run: Run) {
        for (at, within, len) in Self::parts(run) {
            self.change(at, within, len, true);
            self.dirty.insert(at);
        }
        self.free -= run.len;
    }

    /// Marks used blocks as free; the caller knows that they are used.
    fn give(&mut self, run: Run) {
        for (at, within, len) in Self::parts(run) {
            self.change(at, within, len, false);
        }
        self.free += run.len;
    }

    /// Changes the bits of a part of a chunk, all of which have the other value now.
    fn change(&mut self, at: u32, within: usize, len: usize, used: bool) {
        let chunk = &mut self.chunks[at as usize];
        let before = chunk.longest;
        let mut words = match std::mem::replace(&mut chunk.state, State::Used) {
            State::Mixed(words) => {
                self.mixed -= 1;
                words
            }
            State::Free => Box::new([0; WORDS]),
            State::Used => Box::new([u64::MAX; WORDS]),
        };
        mark(&mut words, within, len, used);
        let after = if used {
            chunk.free -= len as u32;
            before.min(chunk.free)
        } else {
            chunk.free += len as u32;
            before.max(run_around(&words, within, len) as u32)
        };
        if chunk.free == 0 {
            chunk.state = State::Used;
        } else if u64::from(chunk.free) == CHUNK {
            chunk.state = State::Free;
        } else {
            chunk.state = State::Mixed(words);
            self.mixed += 1;
        }
        self.refile(at, before, after);
    }

    /// Whether all blocks of a run have one value.
    fn all(&self, run: Run, used: bool) -> bool {
        Self::parts(run).all(|(at, within, len)| match &self.chunks[at as usize].state {
            State::Free => !used,
            State::Used => used,
            State::Mixed(words) => count_used(words, within, len) == if used { len } else { 0 },
        })
    }

    fn inside(&self, run: Run) -> Result<(), AllocError> {
        match run.start.checked_add(run.len) {
            Some(end) if end <= self.blocks => Ok(()),
            _ => Err(AllocError::Outside { run, blocks: self.blocks }),
        }
    }

    /// Marks a run as used that a journal says was handed out.
    pub fn mark_used(&mut self, run: Run) -> Result<(), AllocError> {
        self.inside(run)?;
        if !self.all(run, false) {
            return Err(AllocError::InUse { run });
        }
        self.take(run);
        Ok(())
    }

    /// Gives blocks back that were never part of a transaction: free at once.
    pub fn free(&mut self, run: Run) -> Result<(), AllocError> {
        self.inside(run)?;
        if !self.all(run, true) || self.is_held(run) {
            return Err(AllocError::NotInUse { run });
        }
        self.give(run);
        self.dirty.extend(Self::parts(run).map(|(at, ..)| at));
        Ok(())
    }

    /// Gives blocks back that a transaction freed: free once a checkpoint that holds the transaction is durable.
    pub fn hold(&mut self, run: Run) -> Result<(), AllocError> {
        self.inside(run)?;
        if !self.all(run, true) {
            return Err(AllocError::NotInUse { run });
        }
        self.held += run.len;
        self.dirty.extend(Self::parts(run).map(|(at, ..)| at));
        push(&mut self.holds, run);
        Ok(())
    }

    /// Whether a run touches blocks that were given back already. Linear, and only ever asked about blocks that were
    /// just handed out, when there are few holds near.
    fn is_held(&self, run: Run) -> bool {
        let touches = |hold: &Run| hold.start < run.end() && run.start < hold.end();
        self.holds.iter().any(touches) || self.releasing.iter().flatten().any(touches)
    }

    /// The bitmaps that changed since the last checkpoint, as the one that begins now must write them: what was freed
    /// up to now is free in them. No other checkpoint may be under way.
    pub fn checkpoint_begin(&mut self) -> Vec<(u32, [u8; BITMAP])> {
        assert!(self.releasing.is_none(), "two checkpoints at the same time");
        let holds = std::mem::take(&mut self.holds);
        // The bits of the holds in each chunk they touch.
        let mut masks = std::collections::BTreeMap::<u32, Box<[u64; WORDS]>>::new();
        for run in &holds {
            for (at, within, len) in Self::parts(*run) {
                let mask = masks.entry(at).or_insert_with(|| Box::new([0; WORDS]));
                assert_eq!(count_used(mask, within, len), 0, "blocks were given back twice");
                mark(mask, within, len, true);
            }
        }
        self.releasing = Some(holds);
        let dirty = std::mem::take(&mut self.dirty);
        let bitmap = |at: u32| {
            let fill = |value: u64| Box::new([value; WORDS]);
            let mut words = match &self.chunks[at as usize].state {
                State::Free => fill(0),
                State::Used => fill(u64::MAX),
                State::Mixed(words) => words.clone(),
            };
            if let Some(mask) = masks.get(&at) {
                words.iter_mut().zip(mask.iter()).for_each(|(word, mask)| *word &= !mask);
            }
            let mut bytes = [0; BITMAP];
            bytes.chunks_exact_mut(8).zip(words.iter()).for_each(|(eight, word)| {
                eight.copy_from_slice(&word.to_le_bytes());
            });
            (at, bytes)
        };
        dirty.into_iter().map(bitmap).collect()
    }

    /// The checkpoint is durable: what was freed before it began can be had again. Returns those runs, for a device
    /// that wants to be told what it need not keep.
    pub fn checkpoint_done(&mut self) -> Vec<Run> {
        let runs = self.releasing.take().unwrap_or_default();
        for run in &runs {
            self.give(*run);
            self.held -= run.len;
        }
        runs
    }

    /// Used blocks in order, for a check against what objects say they own. Held blocks count as used.
    pub fn used_runs(&self) -> Vec<Run> {
        let mut runs = Vec::new();
        for (at, chunk) in self.chunks.iter().enumerate() {
            let base = at as u64 * CHUNK;
            let end = (base + CHUNK).min(self.blocks);
            let mut next = base;
            let free: Vec<(usize, usize)> = match &chunk.state {
                State::Free => vec![(0, CHUNK as usize)],
                State::Used => Vec::new(),
                State::Mixed(words) => free_runs(words).collect(),
            };
            for (from, len) in free {
                let from = base + from as u64;
                if from > next {
                    push(&mut runs, Run { start: next, len: from - next });
                }
                next = from + len as u64;
            }
            if end > next {
                push(&mut runs, Run { start: next, len: end - next });
            }
        }
        runs
    }
}

/// Appends a run, or lengthens the last one by it.
fn push(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.end() == run.start => last.len += run.len,
        _ => runs.push(run),
    }
}

/// The class of a length above 0.
fn class(len: u32) -> usize {
    len.max(1).ilog2() as usize
}

/// For each word that a range of bits touches: its index and the mask of the bits.
fn masks(within: usize, len: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = within + len;
    (within / 64..end.div_ceil(64)).filter(move |_| len > 0).map(move |word| {
        let (low, high) = (within.max(word * 64) - word * 64, end.min(word * 64 + 64) - word * 64);
        (word, (u64::MAX >> (64 - (high - low))) << low)
    })
}

fn mark(words: &mut [u64; WORDS], within: usize, len: usize, used: bool) {
    for (word, mask) in masks(within, len) {
        if used { words[word] |= mask } else { words[word] &= !mask }
    }
}

fn count_used(words: &[u64; WORDS], within: usize, len: usize) -> usize {
    masks(within, len).map(|(word, mask)| (words[word] & mask).count_ones() as usize).sum()
}

/// The first bit from `within` on with a value, or the end.
fn find(words: &[u64; WORDS], within: usize, used: bool) -> usize {
    let mut at = within;
    while at < WORDS * 64 {
        let word = if used { words[at / 64] } else { !words[at / 64] };
        let rest = word >> (at % 64);
        if rest != 0 {
            return at + rest.trailing_zeros() as usize;
        }
        at = (at / 64 + 1) * 64;
    }
    WORDS * 64
}

/// Free bits from `within` on, without a gap.
fn free_from(words: &[u64; WORDS], within: usize) -> usize {
    find(words, within, true) - within
}

/// Used runs among the first `tail` bits, as blocks of the space.
fn used_bits(words: &[u64; WORDS], tail: usize, base: u64) -> impl Iterator<Item = Run> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let from = find(words, at, true);
        if from >= tail {
            return None;
        }
        at = find(words, from, false);
        Some(Run { start: base + from as u64, len: (at.min(tail) - from) as u64 })
    })
}

/// Free runs in order.
fn free_runs(words: &[u64; WORDS]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let from = find(words, at, false);
        if from == WORDS * 64 {
            return None;
        }
        at = find(words, from, true);
        Some((from, at - from))
    })
}

fn longest_run(words: &[u64; WORDS]) -> (usize, usize) {
    // Of equals the first, so that the space fills from the front.
    free_runs(words).fold((0, 0), |best, run| if run.1 > best.1 { run } else { best })
}

/// The length of the free run that a free range lies in.
fn run_around(words: &[u64; WORDS], within: usize, len: usize) -> usize {
    let mut from = within;
    while from > 0 {
        // Used bits below `from` in its word; the highest of them ends the run.
        let word = (from - 1) / 64;
        let below = words[word] & (u64::MAX >> (63 - (from - 1) % 64));
        if below != 0 {
            from = word * 64 + 64 - below.leading_zeros() as usize;
            break;
        }
        from = word * 64;
    }
    find(words, within + len, true) - from
}

#[cfg(test)]
#[path = "alloc_test.rs"]
mod tests;
