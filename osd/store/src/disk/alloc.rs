//! Which blocks are free: a bitmap with a hint for each 16 MiB of how long its longest free run may be.
//!
//! No I/O and no decision about durability beyond one: a freed block is not given out again before the checkpoint that
//! no longer names it is on disk, so nothing a crash could bring back is ever overwritten.
//!
//! Invariants
//! 1. `used` has exactly the blocks that submitted state names; `busy` has those and the freed ones still waiting.
//! 2. `free` counts the zeros of `busy`; `room[c]` those of chunk `c`; no free run within `c` is longer than
//!    `longest[c]`.
//! 3. Blocks past the end and the reserved ones at the front are used.

use std::collections::BTreeSet;

/// First block and number of blocks.
pub(crate) type Run = (u64, u64);

/// Blocks for each persisted piece of the bitmap: 16 MiB of space in 512 bytes.
pub(crate) const CHUNK: u64 = 4096;
const WORDS: usize = (CHUNK / 64) as usize;

pub(crate) type Words = [u64; WORDS];

/// Up to this many blocks an allocation counts as small and fills gaps next to other small ones.
const SMALL: u64 = 16;

pub(crate) struct Allocator {
    blocks: u64,
    reserved: u64,
    used: Vec<u64>,
    busy: Vec<u64>,
    room: Vec<u16>,
    longest: Vec<u16>,
    free: u64,
    used_count: u64,
    dirty: BTreeSet<u64>,
    /// Where the next small and the next large allocation start to look, so that they do not mix.
    cursors: [usize; 2],
    waiting_count: u64,
    waiting: Vec<Run>,
    frozen: Vec<Run>,
    /// Chunks asked and words searched so far.
    #[cfg(test)]
    pub(crate) looked: std::cell::Cell<u64>,
}

fn bit(block: u64) -> (usize, u64) {
    ((block / 64) as usize, 1 << (block % 64))
}

impl Allocator {
    /// All free but the first `reserved`.
    pub(crate) fn new(blocks: u64, reserved: u64) -> Self {
        let chunks = blocks.div_ceil(CHUNK) as usize;
        let mut this = Allocator {
            blocks,
            reserved,
            used: vec![0; chunks * WORDS],
            busy: vec![0; chunks * WORDS],
            room: vec![CHUNK as u16; chunks],
            longest: vec![CHUNK as u16; chunks],
            free: chunks as u64 * CHUNK,
            used_count: 0,
            dirty: BTreeSet::new(),
            cursors: [0, chunks / 2],
            waiting_count: 0,
            waiting: Vec::new(),
            frozen: Vec::new(),
            #[cfg(test)]
            looked: std::cell::Cell::new(0),
        };
        for block in (0..reserved.min(blocks)).chain(blocks..chunks as u64 * CHUNK) {
            this.set(block);
        }
        this.used_count = 0;
        this.dirty.clear();
        this
    }

    fn set(&mut self, block: u64) {
        let (word, mask) = bit(block);
        self.used[word] |= mask;
        self.busy[word] |= mask;
        let chunk = (block / CHUNK) as usize;
        self.room[chunk] -= 1;
        self.free -= 1;
        self.used_count += 1;
        self.dirty.insert(block / CHUNK);
    }

    /// Takes over a persisted piece of the bitmap, before anything was allocated.
    pub(crate) fn load(&mut self, chunk: u64, words: &Words) {
        for (index, word) in words.iter().enumerate() {
            let mut bits = *word;
            while bits != 0 {
                let block = chunk * CHUNK + index as u64 * 64 + u64::from(bits.trailing_zeros());
                bits &= bits - 1;
                if block < self.blocks && !self.is_busy(block) {
                    self.set(block);
                }
            }
        }
        self.dirty.remove(&chunk);
    }

    fn is_busy(&self, block: u64) -> bool {
        let (word, mask) = bit(block);
        self.busy.get(word).is_none_or(|word| word & mask != 0)
    }

    pub(crate) fn is_used(&self, block: u64) -> bool {
        let (word, mask) = bit(block);
        self.used.get(word).is_none_or(|word| word & mask != 0)
    }

    /// Whether all of a run are in use and may be freed: the reserved blocks may not.
    pub(crate) fn holds(&self, run: Run) -> bool {
        let end = run.0.checked_add(run.1).filter(|end| run.0 >= self.reserved && *end <= self.blocks);
        end.is_some_and(|end| (run.0..end).all(|block| self.is_used(block)))
    }

    /// Blocks that can be given out now.
    pub(crate) fn free(&self) -> u64 {
        self.free
    }

    pub(crate) fn used(&self) -> u64 {
        self.used_count
    }

    /// Blocks that come back with the next checkpoints.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting_count
    }

    /// Takes exactly these blocks. False, and nothing taken, if one of them is not free.
    pub(crate) fn take_exact(&mut self, run: Run) -> bool {
        let Some(end) = run.0.checked_add(run.1).filter(|end| *end <= self.blocks) else { return false };
        if (run.0..end).any(|block| self.is_busy(block)) {
            return false;
        }
        (run.0..end).for_each(|block| self.set(block));
        true
    }

    /// `want` blocks in as few runs as is cheap to find, the first at `hint` if it is free. `None` if there are not so
    /// many.
    pub(crate) fn allocate(&mut self, want: u64, hint: Option<u64>) -> Option<Vec<Run>> {
        if want > self.free {
            return None;
        }
        let mut runs = Vec::new();
        let mut left = want;
        if let Some(hint) = hint {
            let mut len = 0;
            while len < left && hint + len < self.blocks && !self.is_busy(hint + len) {
                len += 1;
            }
            if len > 0 {
                (hint..hint + len).for_each(|block| self.set(block));
                runs.push((hint, len));
                left -= len;
            }
        }
        let mut aim = left.min(CHUNK);
        while left > 0 {
            aim = aim.min(left).max(1);
            match self.find(aim, want <= SMALL) {
                Some(at) => {
                    (at..at + aim).for_each(|block| self.set(block));
                    match runs.last_mut() {
                        Some(last) if last.0 + last.1 == at => last.1 += aim,
                        _ => runs.push((at, aim)),
                    }
                    left -= aim;
                }
                None => {
                    assert!(aim > 1, "the allocator counts {} free blocks but finds none", self.free);
                    aim /= 2;
                }
            }
        }
        Some(runs)
    }

    /// The first run of `len` free blocks in a chunk, from the cursor on.
    fn find(&mut self, len: u64, small: bool) -> Option<u64> {
        let chunks = self.room.len();
        let cursor = self.cursors[usize::from(!small)];
        for step in 0..chunks {
            let chunk = (cursor + step) % chunks;
            #[cfg(test)]
            self.looked.set(self.looked.get() + 1);
            if u64::from(self.room[chunk]) < len || u64::from(self.longest[chunk]) < len {
                continue;
            }
            match self.search(chunk, len) {
                Ok(at) => {
                    self.cursors[usize::from(!small)] = chunk;
                    return Some(at);
                }
                Err(longest) => self.longest[chunk] = longest,
            }
        }
        None
    }

    /// The first run of `len` in a chunk, or how long the longest is.
    fn search(&self, chunk: usize, len: u64) -> Result<u64, u16> {
        let words = &self.busy[chunk * WORDS..(chunk + 1) * WORDS];
        let (mut at, mut run, mut longest) = (0u64, 0u64, 0u64);
        while at < CHUNK {
            let word = words[(at / 64) as usize] >> (at % 64);
            #[cfg(test)]
            self.looked.set(self.looked.get() + 1);
            if word == 0 {
                let rest = 64 - at % 64;
                run += rest;
                at += rest;
            } else {
                run += u64::from(word.trailing_zeros());
                at += u64::from(word.trailing_zeros());
            }
            if run >= len {
                return Ok(chunk as u64 * CHUNK + at - run);
            }
            if word != 0 {
                longest = longest.max(run);
                run = 0;
                at += u64::from((word >> word.trailing_zeros()).trailing_ones());
            }
        }
        Err(longest.max(run) as u16)
    }

    /// Gives blocks back that an aborted transaction took: they were never named by anything.
    pub(crate) fn untake(&mut self, run: Run) {
        for block in run.0..run.0 + run.1 {
            self.clear_used(block);
            self.clear_busy(block);
        }
    }

    /// Frees blocks; they wait for the next checkpoint.
    pub(crate) fn release(&mut self, run: Run) {
        for block in run.0..run.0 + run.1 {
            self.clear_used(block);
        }
        self.waiting_count += run.1;
        match self.waiting.last_mut() {
            Some(last) if last.0 + last.1 == run.0 => last.1 += run.1,
            _ => self.waiting.push(run),
        }
    }

    fn clear_used(&mut self, block: u64) {
        let (word, mask) = bit(block);
        assert!(self.used[word] & mask != 0, "block {block} was freed twice");
        self.used[word] &= !mask;
        self.used_count -= 1;
        self.dirty.insert(block / CHUNK);
    }

    fn clear_busy(&mut self, block: u64) {
        let (word, mask) = bit(block);
        self.busy[word] &= !mask;
        let chunk = (block / CHUNK) as usize;
        self.room[chunk] += 1;
        self.longest[chunk] = CHUNK as u16;
        self.free += 1;
    }

    /// The pieces of the bitmap that changed since the last freeze, as they are now. What was freed so far comes back
    /// with [`thaw`](Self::thaw).
    pub(crate) fn freeze(&mut self) -> Vec<(u64, Box<Words>)> {
        self.frozen.append(&mut self.waiting);
        std::mem::take(&mut self.dirty)
            .into_iter()
            .map(|chunk| {
                let mut words = Box::new([0; WORDS]);
                let from = chunk as usize * WORDS;
                words.copy_from_slice(&self.used[from..from + WORDS]);
                (chunk, words)
            })
            .collect()
    }

    /// The runs that were freed before the last freeze.
    pub(crate) fn frozen(&self) -> &[Run] {
        &self.frozen
    }

    /// The checkpoint is on disk: what was freed before it may be given out.
    pub(crate) fn thaw(&mut self) {
        for run in std::mem::take(&mut self.frozen) {
            self.waiting_count -= run.1;
            for block in run.0..run.0 + run.1 {
                self.clear_busy(block);
            }
        }
    }

    pub(crate) fn weight(&self) -> usize {
        self.used.len() * 16 + self.room.len() * 4 + 16 * (self.waiting.len() + self.frozen.len())
    }
}

#[cfg(test)]
#[path = "alloc_test.rs"]
mod tests;
