//! What a replica knows of itself and keeps, and the settings of a core.

use std::collections::BTreeSet;

use nacre_proto::ids::{Epoch, PgId, SnapId, Version};

use crate::codec_struct;
use crate::io::Duration;
use crate::log::Delta;
use crate::msg::Cursor;

/// Facts about the pg as a whole; they spread by every exchange and only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The epoch the pool was made in.
    pub created: Epoch,
    /// The last interval known to have gone active on all its members.
    pub started: Epoch,
    /// The last interval known to have been clean.
    pub clean: Epoch,
}
codec_struct!(History { created, started, clean });

impl History {
    /// Learns from another.
    pub fn learn(&mut self, other: &History) {
        self.created = self.created.max(other.created);
        self.started = self.started.max(other.started);
        self.clean = self.clean.max(other.clean);
    }
}

/// Exact counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Heads.
    pub objects: u64,
    /// Clones.
    pub clones: u64,
    /// Bytes by object size, clones included.
    pub bytes: u64,
}
codec_struct!(Stats { objects, clones, bytes });

impl Stats {
    /// Moves by an entry's counts.
    pub fn add(&mut self, d: &Delta) {
        self.objects = self.objects.saturating_add_signed(d.objects);
        self.clones = self.clones.saturating_add_signed(d.clones);
        self.bytes = self.bytes.saturating_add_signed(d.bytes);
    }
}

/// What a replica knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Which pg.
    pub pg: PgId,
    /// The map up to which intervals were followed.
    pub epoch: Epoch,
    /// The first epoch of the present interval.
    pub interval: Epoch,
    /// The last entry.
    pub last_update: Version,
    /// Entries up to here were trimmed.
    pub log_tail: Version,
    /// Objects after this are not here yet.
    pub backfilled: Cursor,
    /// The interval whose activation this replica made durable: its log was right then.
    pub started: Epoch,
    /// The pg's.
    pub history: History,
    /// Counts as of `stats_at`.
    pub stats: Stats,
    /// Entries after this are not in `stats` as stored.
    pub stats_at: Version,
    /// Snapshots whose clones were trimmed.
    pub purged: BTreeSet<SnapId>,
    /// The pool's pg count this replica has followed splits up to.
    pub pg_num: u32,
    /// Counts are being taken anew since a split.
    pub recount: bool,
}
codec_struct!(Info {
    pg,
    epoch,
    interval,
    last_update,
    log_tail,
    backfilled,
    started,
    history,
    stats,
    stats_at,
    purged,
    pg_num,
    recount
});

impl Info {
    /// Of a pg that holds nothing.
    pub fn new(pg: PgId) -> Info {
        Info {
            pg,
            epoch: Epoch(0),
            interval: Epoch(0),
            last_update: Version::default(),
            log_tail: Version::default(),
            backfilled: Cursor::Max,
            started: Epoch(0),
            history: History::default(),
            stats: Stats::default(),
            stats_at: Version::default(),
            purged: BTreeSet::new(),
            pg_num: 1,
            recount: false,
        }
    }

    /// Holds everything up to its log's head, but for what it knows to lack.
    pub fn is_complete(&self) -> bool {
        self.backfilled.is_max()
    }
}

/// Settings of a core.
#[derive(Clone, Debug)]
pub struct Config {
    /// Entries the log keeps when all is well.
    pub log_keep: usize,
    /// It is trimmed when it is longer than `log_keep` by this.
    pub log_slack: usize,
    /// Replies remembered beyond the log.
    pub max_dups: usize,
    /// How long a read lease lasts.
    pub lease: Duration,
    /// Clocks run at rates that differ by no more than one in this.
    pub drift: u64,
    /// Bytes of one piece of a recovering object.
    pub chunk_bytes: u64,
    /// Omap entries of one piece.
    pub chunk_keys: u32,
    /// Objects recovered at a time.
    pub recover_active: usize,
    /// Objects of one backfill or scrub window.
    pub window: u32,
    /// Bytes of one backfill window, unless a single object has more: for so long may a write wait.
    pub backfill_bytes: u64,
    /// Objects of one scrub window: for so long may a write wait.
    pub scrub_objects: u32,
    /// Bytes of one window of a deep scrub, unless a single object has more.
    pub scrub_bytes: u64,
    /// Whether a scrub that came by the clock repairs what it can; one that was ordered always does.
    pub repair: bool,
    /// The largest object.
    pub max_object: u64,
    /// The largest object that can be copied from: it is one write.
    pub max_copy: u64,
    /// Contexts of idle objects kept.
    pub contexts: usize,
    /// Check the costly invariants after each step.
    pub check: bool,
    /// Which deliberate fault this core has.
    #[cfg(feature = "mutants")]
    pub mutant: Option<crate::mutant::Mutant>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            log_keep: 3000,
            log_slack: 300,
            max_dups: 10_000,
            lease: Duration::ms(800),
            drift: 1000,
            chunk_bytes: 1 << 20,
            chunk_keys: 1024,
            recover_active: 4,
            window: 64,
            backfill_bytes: 8 << 20,
            scrub_objects: 8,
            scrub_bytes: 8 << 20,
            repair: true,
            max_object: 128 << 20,
            max_copy: 32 << 20,
            contexts: 4096,
            check: false,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}
