//! What leads from one epoch of the cluster map to a later one, as data.
//!
//! `a.apply(&a.diff(&b)) == b` for any two maps of one cluster, back as well as forth; a property test holds it. An
//! increment names the epoch it starts from and carries the digest of the map it leads to, so it is never applied to
//! the wrong map and two copies that drift apart notice at once.
//!
//! A full map travels as the increment from nothing: there is one codec, one fuzz target, one check.

mod crush;
#[cfg(test)]
#[path = "increment_test.rs"]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use nacre_proto::ids::{Epoch, MonId, OsdId, PgId, PoolId, SessionId, Stamp, Uuid};
use nacre_proto::status::{Code, Status};

pub use crush::{Crush, CrushDelta};

use crate::codec::wire::{Reader, Wire, put_part};
use crate::codec::{DecodeError, VERSION, put_changes, seal, take_changes, unseal};
use crate::map::{
    Anchor, ClusterMap, Daemon, DaemonId, Dense, Fence, Flag, FlagState, FlagTarget, Mon, Mute, OsdInfo, OsdState,
    Pool, Revocation, Scope, SettingValue, Shared, Table, with_sections,
};

const MAP_MAGIC: [u8; 4] = *b"NCMP";
const INCREMENT_MAGIC: [u8; 4] = *b"NCIN";

type Changes<T> = BTreeMap<<T as Table>::Key, Option<<T as Table>::Value>>;

/// Why an increment does not fit a map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Of another cluster.
    #[error("increment of cluster {theirs} offered to cluster {ours}: the sender is configured for another cluster")]
    OtherCluster { ours: Uuid, theirs: Uuid },
    /// Between two other epochs.
    #[error("increment leads from epoch {from} to {to}, the map is at {have}: ask for the map from epoch {have} on")]
    NotNext { have: Epoch, from: Epoch, to: Epoch },
    /// The result is not what the sender had.
    #[error(
        "map diverged at epoch {epoch}: digest {computed:016x} where the monitors have {expected:016x}; drop the map and fetch a full one"
    )]
    Diverged { epoch: Epoch, expected: u64, computed: u64 },
    /// An OSD number that cannot be.
    #[error("increment to epoch {epoch} names an OSD beyond {}", Dense::<OsdState>::MAX)]
    TooManyOsds { epoch: Epoch },
}

impl ApplyError {
    /// As it crosses the wire.
    pub fn status(&self) -> Status {
        let code = match self {
            ApplyError::NotNext { .. } | ApplyError::Diverged { .. } => Code::StaleMap,
            ApplyError::OtherCluster { .. } | ApplyError::TooManyOsds { .. } => Code::Invalid,
        };
        Status::new(code, self.to_string())
    }
}

macro_rules! define_increment {
    ($($(#[$doc:meta])* $tag:literal $name:ident: $table:ty,)*) => {
        /// See the module. In each section an entry without a value is removed.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Increment {
            /// Of which cluster.
            pub fsid: Uuid,
            /// The epoch it starts from.
            pub from: Epoch,
            /// The epoch it leads to.
            pub epoch: Epoch,
            /// When that epoch was made.
            pub modified: Stamp,
            /// The id the next pool gets.
            pub next_pool: PoolId,
            /// Digest of the map it leads to, as this version computes it; absent if another version made it.
            pub digest: Option<u64>,
            /// Where data goes.
            pub crush: CrushDelta,
            $($(#[$doc])* pub $name: Changes<$table>,)*
        }

        impl Increment {
            /// Whether nothing but the epoch changes.
            pub fn is_empty(&self) -> bool {
                self.crush.is_empty() $(&& self.$name.is_empty())*
            }

            fn put_body(&self, out: &mut Vec<u8>) {
                put_part(out, |out| {
                    self.fsid.put(out);
                    self.from.put(out);
                    self.epoch.put(out);
                    self.modified.put(out);
                    self.next_pool.put(out);
                    // Digests of two versions may differ for equal content: the reader must know whose it is.
                    VERSION.put(out);
                    self.digest.unwrap_or(0).to_le_bytes().iter().for_each(|byte| out.push(*byte));
                });
                if !self.crush.is_empty() {
                    out.push(1);
                    put_part(out, |out| self.crush.put(out));
                }
                $(if !self.$name.is_empty() {
                    out.push($tag);
                    put_part(out, |out| put_changes(&self.$name, |_, value, out| value.put(out), out));
                })*
            }

            fn take_body(mut from: Reader<'_>) -> Result<Self, DecodeError> {
                let mut head = from.part()?;
                let mut this = Self {
                    fsid: Wire::take(&mut head)?,
                    from: Wire::take(&mut head)?,
                    epoch: Wire::take(&mut head)?,
                    modified: Wire::take(&mut head)?,
                    next_pool: Wire::take(&mut head)?,
                    ..Self::default()
                };
                let maker = u8::take(&mut head)?;
                let digest = <[u8; 8]>::try_from(head.bytes(8)?).map_err(|_| DecodeError::Truncated)?;
                this.digest = Some(u64::from_le_bytes(digest)).filter(|digest| maker == VERSION && *digest != 0);
                let mut last = 0;
                while !from.is_empty() {
                    let tag = from.byte()?;
                    let mut part = from.part()?;
                    if tag <= last {
                        return Err(DecodeError::Value { what: "order of sections" });
                    }
                    last = tag;
                    match tag {
                        1 => this.crush = CrushDelta::take(&mut part)?,
                        $($tag => this.$name = take_changes(&mut part, |_, from| Wire::take(from))?,)*
                        _ => {}
                    }
                }
                Ok(this)
            }
        }

        impl ClusterMap {
            /// What leads from this map to the other.
            pub fn diff(&self, to: &ClusterMap) -> Increment {
                Increment {
                    fsid: to.fsid,
                    from: self.epoch,
                    epoch: to.epoch,
                    modified: to.modified,
                    next_pool: to.next_pool,
                    digest: Some(to.digest()),
                    crush: self.crush.changes(&to.crush),
                    $($name: self.$name.changes(&to.$name).into_iter().map(|(key, value)| (key, value.cloned())).collect(),)*
                }
            }

            /// The later (or earlier) map the increment leads to. This one stays as it is: who holds it goes on.
            pub fn apply(&self, increment: &Increment) -> Result<ClusterMap, ApplyError> {
                if increment.fsid != self.fsid {
                    return Err(ApplyError::OtherCluster { ours: self.fsid, theirs: increment.fsid });
                }
                if increment.from != self.epoch {
                    return Err(ApplyError::NotNext { have: self.epoch, from: increment.from, to: increment.epoch });
                }
                let mut map = self.clone();
                map.epoch = increment.epoch;
                map.modified = increment.modified;
                map.next_pool = increment.next_pool;
                map.crush.apply(&increment.crush);
                $(for (key, value) in &increment.$name {
                    match value {
                        Some(value) => {
                            if !map.$name.set(key.clone(), value.clone()) {
                                return Err(ApplyError::TooManyOsds { epoch: increment.epoch });
                            }
                        }
                        None => {
                            map.$name.remove(key);
                        }
                    }
                })*
                match increment.digest {
                    Some(expected) if expected != map.digest() => {
                        Err(ApplyError::Diverged { epoch: increment.epoch, expected, computed: map.digest() })
                    }
                    _ => Ok(map),
                }
            }
        }
    };
}
with_sections!(define_increment);

impl Increment {
    /// The byte form.
    pub fn encode(&self) -> Vec<u8> {
        seal(INCREMENT_MAGIC, |out| self.put_body(out))
    }

    /// Reads the byte form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        unseal(INCREMENT_MAGIC, "cluster map increment", bytes).and_then(Self::take_body)
    }
}

impl ClusterMap {
    /// The byte form.
    pub fn encode(&self) -> Vec<u8> {
        let nothing = ClusterMap { fsid: self.fsid, ..ClusterMap::default() };
        seal(MAP_MAGIC, |out| nothing.diff(self).put_body(out))
    }

    /// Reads the byte form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let all = unseal(MAP_MAGIC, "cluster map", bytes).and_then(Increment::take_body)?;
        let nothing = ClusterMap { fsid: all.fsid, ..ClusterMap::default() };
        nothing.apply(&all).map_err(|error| match error {
            ApplyError::Diverged { .. } => DecodeError::Value { what: "digest" },
            _ => DecodeError::Value { what: "full map that starts from another one" },
        })
    }
}

/// A map in the making: edit it freely, then take the increment.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    base: &'a ClusterMap,
    next: ClusterMap,
}

impl<'a> Draft<'a> {
    /// Starts from `base`; the draft has the next epoch already.
    pub fn of(base: &'a ClusterMap, now: Stamp) -> Self {
        // A leader's clock may be behind the last leader's: the map's own time never goes back.
        let modified = now.max(base.modified);
        Self { base, next: ClusterMap { epoch: base.epoch.next(), modified, ..base.clone() } }
    }

    /// The increment, or nothing if the edits came to nothing.
    pub fn finish(self) -> Option<Increment> {
        let increment = self.base.diff(&self.next);
        let changed = !increment.is_empty() || self.next.next_pool != self.base.next_pool;
        changed.then_some(increment)
    }
}

impl std::ops::Deref for Draft<'_> {
    type Target = ClusterMap;

    fn deref(&self) -> &ClusterMap {
        &self.next
    }
}

impl std::ops::DerefMut for Draft<'_> {
    fn deref_mut(&mut self) -> &mut ClusterMap {
        &mut self.next
    }
}
