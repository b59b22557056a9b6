//! What the cluster no longer believes. The list travels in the cluster map; each process judges its peers by it, when
//! they connect and again whenever it changes. No distribution here, and no clock.

use std::collections::BTreeMap;

use super::certificate::Serial;
use super::{Identity, Name, UnixTime};

/// The list. Two ways to revoke: one certificate by its serial number (kept until it would have expired anyway), or
/// every certificate of a name so far, by asking for a higher generation of it. Both are exact: no clocks are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    /// Single certificates, with the time they end by themselves.
    pub serials: BTreeMap<Serial, UnixTime>,
    /// The least generation of a name that is believed. A name which is not here: every one.
    pub generations: BTreeMap<Name, u64>,
}

/// Why a certificate is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Revoked {
    /// This one certificate.
    #[error("its certificate was revoked")]
    Serial,
    /// Every certificate of its name up to a generation.
    #[error("its certificate is of generation {has}, generation {needs} is the least believed")]
    Generation {
        /// What the certificate says.
        has: u64,
        /// What the list asks for.
        needs: u64,
    },
}

impl Revocations {
    /// Judges a peer.
    pub fn judge(&self, who: &Identity) -> Result<(), Revoked> {
        if self.serials.contains_key(&who.serial) {
            return Err(Revoked::Serial);
        }
        match self.generations.get(&who.name) {
            Some(&needs) if who.generation < needs => Err(Revoked::Generation { has: who.generation, needs }),
            _ => Ok(()),
        }
    }

    /// Revokes one certificate.
    pub fn revoke(&mut self, serial: Serial, not_after: UnixTime) {
        self.serials.insert(serial, not_after);
    }

    /// Revokes every certificate of `name` below generation `least`. Never goes back.
    pub fn revoke_name(&mut self, name: Name, least: u64) {
        let at = self.generations.entry(name).or_default();
        *at = least.max(*at);
    }

    /// Forgets certificates that have ended by themselves.
    pub fn prune(&mut self, now: UnixTime) {
        self.serials.retain(|_, not_after| *not_after >= now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Caps, ClusterId};
    use super::*;

    fn who(name: &str, serial: u8, generation: u64) -> Identity {
        Identity {
            cluster: ClusterId([0; 16]),
            name: name.parse().unwrap(),
            caps: Caps::default(),
            generation,
            serial: Serial(Box::new([serial])),
            not_before: UnixTime(0),
            not_after: UnixTime(100),
            signer: None,
        }
    }

    #[test]
    fn by_serial_and_by_generation() {
        let mut list = Revocations::default();
        assert_eq!(list.judge(&who("osd.1", 1, 0)), Ok(()));
        list.revoke(Serial(Box::new([1])), UnixTime(100));
        assert_eq!(list.judge(&who("osd.1", 1, 0)), Err(Revoked::Serial));
        assert_eq!(list.judge(&who("osd.1", 2, 0)), Ok(()));
        list.revoke_name("osd.1".parse().unwrap(), 2);
        list.revoke_name("osd.1".parse().unwrap(), 1);
        assert_eq!(list.judge(&who("osd.1", 2, 1)), Err(Revoked::Generation { has: 1, needs: 2 }));
        assert_eq!(list.judge(&who("osd.1", 2, 2)), Ok(()));
        assert_eq!(list.judge(&who("osd.2", 2, 0)), Ok(()));
    }

    #[test]
    fn what_ended_by_itself_is_forgotten() {
        let mut list = Revocations::default();
        list.revoke(Serial(Box::new([1])), UnixTime(100));
        list.prune(UnixTime(100));
        assert_eq!(list.serials.len(), 1);
        list.prune(UnixTime(101));
        assert!(list.serials.is_empty());
    }
}
