//! Sets the tunables, by profile or one by one. Each change can move much data.

use std::str::FromStr;

use super::{EditError, unknown};
use crate::derive;
use crate::model::{BucketAlg, CrushMap, Tunables};

/// The values of a release of Ceph. Those of jewel are the best there are, and what new maps have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The first values: retries inside a bucket, which place badly.
    Argonaut,
    /// Retries from the top.
    Bobtail,
    /// Leaves vary with their parents' retries.
    Firefly,
    /// Straw2 buckets allowed.
    Hammer,
    /// Leaves stay where they are when a sibling fails.
    Jewel,
}

/// All profiles by name, oldest first.
const PROFILES: [(&str, Profile); 5] = [
    ("argonaut", Profile::Argonaut),
    ("bobtail", Profile::Bobtail),
    ("firefly", Profile::Firefly),
    ("hammer", Profile::Hammer),
    ("jewel", Profile::Jewel),
];

/// The names of all tunables, as text maps have them.
pub const TUNABLES: [&str; 8] = [
    "choose_local_tries",
    "choose_local_fallback_tries",
    "choose_total_tries",
    "chooseleaf_descend_once",
    "chooseleaf_vary_r",
    "chooseleaf_stable",
    "straw_calc_version",
    "allowed_bucket_algs",
];

impl Profile {
    /// Its name.
    pub fn name(self) -> &'static str {
        PROFILES.into_iter().find(|(_, profile)| *profile == self).map_or("", |(name, _)| name)
    }

    /// Its values.
    pub fn tunables(self) -> Tunables {
        let jewel = Tunables::JEWEL;
        let hammer = Tunables { chooseleaf_stable: 0, ..jewel };
        let firefly = Tunables { allowed_bucket_algs: Tunables::LEGACY.allowed_bucket_algs, ..hammer };
        match self {
            Profile::Argonaut => Tunables::LEGACY,
            Profile::Bobtail => Tunables { chooseleaf_vary_r: 0, straw_calc_version: 0, ..firefly },
            Profile::Firefly => firefly,
            Profile::Hammer => hammer,
            Profile::Jewel => jewel,
        }
    }

    /// The profile that has these values, whatever the version of straws.
    pub fn of(tunables: &Tunables) -> Option<Profile> {
        let same = |profile: Profile| {
            let values = profile.tunables();
            Tunables { straw_calc_version: tunables.straw_calc_version, ..values } == *tunables
        };
        PROFILES.into_iter().map(|(_, profile)| profile).find(|profile| same(*profile))
    }
}

impl FromStr for Profile {
    type Err = EditError;

    /// By name; `default` and `optimal` are jewel, `legacy` is argonaut.
    fn from_str(name: &str) -> Result<Self, EditError> {
        match name {
            "default" | "optimal" => Ok(Profile::Jewel),
            "legacy" => Ok(Profile::Argonaut),
            _ => {
                let known: Vec<String> = PROFILES.iter().map(|(name, _)| (*name).to_owned()).collect();
                let found = PROFILES.into_iter().find(|(known, _)| *known == name).map(|(_, profile)| profile);
                found.ok_or_else(|| unknown("tunables profile", name, &known))
            }
        }
    }
}

impl CrushMap {
    /// Sets all tunables to those of a profile.
    pub fn set_profile(&mut self, profile: Profile) {
        self.replace_tunables(profile.tunables());
    }

    /// Sets one tunable.
    ///
    /// # Errors
    /// When there is none of that name, or it cannot have that value.
    pub fn set_tunable(&mut self, name: &str, value: u32) -> Result<(), EditError> {
        let mut next = self.tunables;
        let range = |most: u32| EditError::TunableRange { name: name.to_owned(), value, range: (0, most) };
        let small = || u8::try_from(value).map_err(|_| range(255));
        match name {
            "choose_local_tries" => next.choose_local_tries = value,
            "choose_local_fallback_tries" => next.choose_local_fallback_tries = value,
            "choose_total_tries" => next.choose_total_tries = value,
            "chooseleaf_descend_once" if value > 1 => return Err(range(1)),
            "chooseleaf_descend_once" => next.chooseleaf_descend_once = value,
            "chooseleaf_vary_r" => next.chooseleaf_vary_r = small()?,
            "chooseleaf_stable" => next.chooseleaf_stable = small()?,
            "straw_calc_version" if value > 1 => return Err(range(1)),
            "straw_calc_version" => next.straw_calc_version = small()?,
            "allowed_bucket_algs" => next.allowed_bucket_algs = value,
            _ => return Err(unknown("tunable", name, &TUNABLES.map(str::to_owned))),
        }
        self.replace_tunables(next);
        Ok(())
    }

    /// Computes the straws of all straw buckets anew from their weights, by the version the tunables say.
    pub fn recompute_straws(&mut self) {
        for bucket in self.buckets.values_mut() {
            bucket.straws = None;
        }
    }

    /// Straws stay as they are when their version changes, as in Ceph: they follow at the next change of their bucket, or
    /// all at once by [`CrushMap::recompute_straws`].
    fn replace_tunables(&mut self, next: Tunables) {
        let (old, new) = (self.tunables.straw_calc_version, next.straw_calc_version);
        for bucket in self.buckets.values_mut().filter(|bucket| bucket.alg == BucketAlg::Straw) {
            let straws = bucket.straws.take().unwrap_or_else(|| derive::straws(&bucket.weights, old));
            bucket.straws = Some(straws).filter(|straws| *straws != derive::straws(&bucket.weights, new));
        }
        self.tunables = next;
    }
}
