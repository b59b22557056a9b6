//! The cluster map: all that monitors decide and everyone else obeys, at one epoch.
//!
//! Plain data. It changes only by an [`Increment`](crate::Increment); to make one, edit a [`Draft`](crate::Draft).
//! A clone is some twenty pointers: sections are shared between epochs until one of them changes.
//!
//! Invariants:
//! 1. Every OSD with a state has an info and the other way round.
//! 2. A pool's id is below [`ClusterMap::next_pool`], so ids are never used twice.
//! 3. Upmap, upmap items, temporary mappings and temporary primaries name pgs of existing pools, below `pg_num`.
//! 4. [`ClusterMap::digest`] is a function of the content alone: two maps of one epoch with different digests mean that
//!    one of them is wrong.

mod entries;
mod osd;
mod pool;
mod table;

use std::sync::Arc;

use nacre_proto::ids::{Epoch, MonId, OsdId, PgId, PoolId, SessionId, Stamp, Uuid};

pub use entries::{
    Anchor, Daemon, DaemonId, DaemonKind, DaemonState, Fence, Flag, FlagState, FlagTarget, Mon, Mute, Revocation,
    Scope, SettingValue,
};
pub use osd::{OsdFlags, OsdInfo, OsdState};
pub use pool::{Compression, CompressionAlgorithm, CompressionMode, ErasureProfile, PgAuto, Pool, PoolFlags, PoolKind};
pub use table::{Dense, Shared, Table};

use crate::codec::digest;
use crate::codec::wire::Wire;
use crate::increment::Crush;

/// Hands the list of sections to another macro: number in the byte form, name, table type. Numbers are never reused. A
/// new section is one line here (and is skipped by readers that do not know it).
macro_rules! with_sections {
    ($consumer:ident) => {
        $consumer! {
            /// Whether, since when and how much each OSD takes part.
            2 osds: Dense<OsdState>,
            /// Who each OSD is and where it is reached.
            3 osd_info: Dense<Arc<OsdInfo>>,
            /// The pools.
            4 pools: Shared<PoolId, Arc<Pool>>,
            /// Pgs placed by hand: the whole list of OSDs.
            5 upmap: Shared<PgId, Arc<Vec<OsdId>>>,
            /// Pgs of which single OSDs are replaced: from, to.
            6 upmap_items: Shared<PgId, Arc<Vec<(OsdId, OsdId)>>>,
            /// Pgs that others serve while their own OSDs are filled.
            7 pg_temp: Shared<PgId, Arc<Vec<OsdId>>>,
            /// Pgs with another primary for the time being.
            8 primary_temp: Shared<PgId, OsdId>,
            /// Sessions that every OSD refuses.
            9 fenced: Shared<SessionId, Arc<Fence>>,
            /// Metadata servers and gateways.
            10 daemons: Shared<DaemonId, Arc<Daemon>>,
            /// Settings as operators changed them.
            11 settings: Shared<(Scope, String), Arc<SettingValue>>,
            /// Flags that are set.
            12 flags: Shared<(Flag, FlagTarget), Arc<FlagState>>,
            /// Health checks that are muted, by name.
            13 mutes: Shared<String, Arc<Mute>>,
            /// The monitors.
            14 mons: Shared<MonId, Arc<Mon>>,
            /// Certificates that are refused, by serial number.
            15 revoked: Shared<Vec<u8>, Arc<Revocation>>,
            /// The authorities whose certificates are believed, by fingerprint; empty until the first one is replaced.
            16 authorities: Shared<Vec<u8>, Arc<Anchor>>,
        }
    };
}
pub(crate) use with_sections;

/// The sections the first release had are those up to this tag.
const FIRST_SECTIONS: u8 = 15;

macro_rules! define_map {
    ($($(#[$doc:meta])* $tag:literal $name:ident: $table:ty,)*) => {
        /// See the module.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct ClusterMap {
            /// Its version.
            pub epoch: Epoch,
            /// Of which cluster.
            pub fsid: Uuid,
            /// When this epoch was made.
            pub modified: Stamp,
            /// The id the next pool gets.
            pub next_pool: PoolId,
            /// Where data goes.
            pub crush: Crush,
            $($(#[$doc])* pub $name: $table,)*
        }

        impl ClusterMap {
            /// Of the whole content.
            pub fn digest(&self) -> u64 {
                let mut head = Vec::with_capacity(64);
                self.epoch.put(&mut head);
                self.fsid.put(&mut head);
                self.modified.put(&mut head);
                self.next_pool.put(&mut head);
                head.extend_from_slice(&self.crush.digest().to_le_bytes());
                // What the first release did not have counts only where it holds something: its bytes keep their digest.
                $(if $tag <= FIRST_SECTIONS || self.$name.entries().next().is_some() {
                    head.extend_from_slice(&self.$name.digest().to_le_bytes());
                })*
                digest(&[&head])
            }
        }
    };
}
with_sections!(define_map);

impl ClusterMap {
    /// The map of a cluster that has nothing yet: epoch 0, before the first increment.
    pub fn empty(fsid: Uuid) -> Self {
        Self { fsid, next_pool: PoolId(1), ..Self::default() }
    }

    /// The pool of that name.
    pub fn pool_named(&self, name: &str) -> Option<(PoolId, &Arc<Pool>)> {
        self.pools.iter().find(|(_, pool)| pool.name == name).map(|(id, pool)| (*id, pool))
    }

    /// The pool of a pg, if the pg exists.
    pub fn pool_of(&self, pg: PgId) -> Option<&Arc<Pool>> {
        self.pools.get(&pg.pool).filter(|pool| pg.seed < pool.pg_num)
    }

    /// Whether an OSD exists and is up.
    pub fn is_up(&self, osd: OsdId) -> bool {
        self.osds.get(osd).is_some_and(OsdState::is_up)
    }

    /// Whether an OSD exists and is in.
    pub fn is_in(&self, osd: OsdId) -> bool {
        self.osds.get(osd).is_some_and(OsdState::is_in)
    }

    /// The OSDs that are up.
    pub fn up_osds(&self) -> impl Iterator<Item = OsdId> {
        self.osds.iter().filter(|(_, state)| state.is_up()).map(|(osd, _)| osd)
    }

    /// Whether a session is fenced. The caller compares nothing else: an entry means that its operations are refused.
    pub fn is_fenced(&self, session: SessionId) -> bool {
        self.fenced.contains_key(&session)
    }

    /// Whether a flag holds for the whole cluster.
    pub fn has_flag(&self, flag: Flag) -> bool {
        self.flags.contains_key(&(flag, FlagTarget::Cluster))
    }
}
