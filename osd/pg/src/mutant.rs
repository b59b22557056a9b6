//! Deliberately wrong cores: the proof that the simulation can find what it claims to find. A core can be made wrong only
//! under the feature `mutants`; in the product the names are all there is of them.

/// One list gives both the names and the table of all.
macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One deliberate fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[cfg_attr(not(feature = "mutants"), expect(unreachable_pub, reason = "public with the feature"))]
        pub enum Mutant {
            $($(#[$doc])* $name,)*
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// All of them.
            pub const ALL: &[Mutant] = &[$(Mutant::$name,)*];
        }
    };
}

mutants! {
    /// The primary answers when its own copy is durable.
    AckBeforeReplicas,
    /// A replica acknowledges before its copy is durable.
    AckBeforeDurable,
    /// The primary goes active without its life being in the map.
    SkipUpThru,
    /// Divergent entries' objects are kept as they are.
    KeepDivergent,
    /// Reads are served without a lease.
    IgnoreLease,
    /// A new primary does not wait for the old one's lease.
    IgnoreOldLease,
    /// Retries are not recognised.
    DropRequestId,
    /// Remembered replies are lost when the log is trimmed.
    ForgetDups,
    /// The longest log wins, whatever interval it is from.
    LongestLog,
    /// The shortest log wins.
    ShortestLog,
    /// Active without min_size members.
    IgnoreMinSize,
    /// Past intervals are not asked.
    IgnorePast,
    /// Active before the activation is durable.
    ActivateEarly,
    /// Messages of other intervals are taken.
    TakeStale,
    /// A read sees writes that are not yet safe.
    ReadUncommitted,
    /// Writes to objects that are being backfilled are not held back.
    BackfillRaces,
    /// A write to an object a replica lacks is not held back.
    WriteDegraded,
    /// A write under a new snapshot does not clone.
    SkipClone,
    /// Refused operations are not remembered.
    ForgetErrors,
    /// A child of a split knows no requests of before.
    SplitForgetsRequests,
    /// A child of a split knows no past intervals.
    SplitForgetsPast,
    /// A removed snapshot takes its whole clone along, whoever else reads it.
    TrimTooMuch,
    /// Snapshots are recorded as purged when trimming begins.
    PurgeEarly,
    /// What is recovered takes all of the clone before it, also what has changed since.
    ShareAll,
    // Faults the core once had: what was mended is taken out again here, so that the mending is proven for good.
    /// A piece that was read late is sent, and believed, though it was sent long ago.
    LatePieces,
    /// A piece of an object that is asked for again is also written again.
    PullTwice,
    /// Who is to be filled anew is not asked for objects that only it holds.
    AskHoldersOnly,
    /// A new round of questions forgets who came forward with a spare copy.
    ForgetStrays,
    /// An interval below min_size counts as a start of the pg.
    StartBelowMin,
    /// Members do not come forward: a primary that holds nothing of the pg asks nobody.
    StaySilent,
    /// A backfill does not go back to an object that could not be read.
    LeaveDamaged,
    /// Who was asked for a piece and went away is waited for.
    LosePulls,
    /// A scrub ends with its interval, also where the primary stays.
    ForgetScrubs,
    /// A spare copy whose osd was down by the map for a while does not come forward again.
    ReturnSilent,
}
