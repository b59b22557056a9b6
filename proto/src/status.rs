//! How a call ends when it does not succeed: a stable code, what the caller should do about it, and a text.
//!
//! Each error enum of the product maps to a [`Code`] in one function; what a protocol at the edge calls it (errno, S3
//! codes) is one table there. The codes themselves are [`TABLE`], and nothing else knows their numbers.

use std::fmt;

/// What a caller does with a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Send it again at once, to another address if there is one. It carries a request id, so it is not done twice.
    Now,
    /// Send it again after a pause that grows.
    Later,
    /// Wait for a newer map than the one the call was made under, choose the target anew, then send it again.
    AfterNewMap,
    /// Give the error to whoever asked: the same call will fail again.
    Never,
}

/// One line of [`TABLE`].
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The code.
    pub code: Code,
    /// Its number on the wire. Never reused.
    pub number: u16,
    /// Its name in logs, metrics and `--json`.
    pub name: &'static str,
    /// What a caller does.
    pub retry: Retry,
    /// The gRPC status it travels under.
    pub grpc: u8,
    /// What it says, for the reference page.
    pub meaning: &'static str,
}

macro_rules! codes {
    ($($number:literal $code:ident $name:literal $retry:ident $grpc:literal $meaning:literal)*) => {
        /// Why a call did not succeed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = $meaning] $code,)*
        }

        /// Every code: number, name, retry class, gRPC status, meaning.
        pub const TABLE: &[Row] = &[
            $(Row { code: Code::$code, number: $number, name: $name, retry: Retry::$retry, grpc: $grpc, meaning: $meaning },)*
        ];

        impl Code {
            /// Its line of [`TABLE`].
            pub fn row(self) -> &'static Row {
                match self {
                    $(Code::$code => &Row { code: Code::$code, number: $number, name: $name, retry: Retry::$retry, grpc: $grpc, meaning: $meaning },)*
                }
            }
        }
    };
}

codes! {
    1 Invalid "invalid" Never 3 "The call itself is wrong: a value out of its range, a name that may not be."
    2 NotFound "not_found" Never 5 "What it names does not exist."
    3 Exists "exists" Never 6 "What it would make is there already."
    4 Refused "refused" Never 9 "The state of the cluster forbids it; the text says what to do first."
    5 Denied "denied" Never 7 "The identity lacks the capability."
    6 Unauthenticated "unauthenticated" Never 16 "The peer did not prove who it is."
    7 Fenced "fenced" Never 9 "The session was fenced: its holder must stop and open a new one."
    8 Guard "guard" Never 9 "A guard of the operation (version, existence, comparison) did not hold."
    9 Range "range" Never 11 "Offset or length outside of what is allowed."
    10 TooLarge "too_large" Never 3 "Larger than the limit the text names."
    11 Unsupported "unsupported" Never 12 "This version, pool or object does not know the operation."
    12 Quota "quota" Never 8 "A quota is used up."
    13 Corrupt "corrupt" Never 15 "Stored bytes do not match their checksum and no good copy is left."
    14 Internal "internal" Never 13 "A bug: the text and the daemon's log say where."
    15 NotPrimary "not_primary" AfterNewMap 14 "Sent to an OSD that does not serve the pg in its newest map."
    16 StaleMap "stale_map" AfterNewMap 14 "Made under a map older than the receiver can serve."
    17 NotLeader "not_leader" Now 14 "Only the leading monitor does this, and it is another one."
    18 Disconnected "disconnected" Now 14 "The connection was lost before the answer."
    19 Unavailable "unavailable" Later 14 "Too few monitors or OSDs are up for it."
    20 Busy "busy" Later 8 "A queue is full or a limit on running work is reached."
    21 TimedOut "timed_out" Later 4 "No answer in time; it may or may not have been done."
    22 Full "full" Later 8 "A device or pool has no room."
    23 Stopping "stopping" Later 14 "The daemon is shutting down."
    24 Aborted "aborted" Now 10 "Lost against a change made at the same time."
}

impl Code {
    /// The code of a number; a number of a later version is [`Code::Internal`] to this one.
    pub fn from_number(number: u16) -> Code {
        TABLE.iter().find(|row| row.number == number).map_or(Code::Internal, |row| row.code)
    }

    /// Its number on the wire.
    pub fn number(self) -> u16 {
        self.row().number
    }

    /// Its name in logs, metrics and `--json`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What a caller does with it.
    pub fn retry(self) -> Retry {
        self.row().retry
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Retry {
    /// Its name in the reference page and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Retry::Now => "now",
            Retry::Later => "later",
            Retry::AfterNewMap => "after a new map",
            Retry::Never => "never",
        }
    }
}

/// The end of a call that did not succeed, as it crosses the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Status {
    /// What went wrong, for programs.
    pub code: Code,
    /// What went wrong and what to do, for people.
    pub text: String,
}

impl Status {
    /// A status from its parts.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// What the caller does with it.
    pub fn retry(&self) -> Retry {
        self.code.retry()
    }
}

/// The reference page of the codes, generated from [`TABLE`].
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Status codes\n\nGenerated from `proto/src/status.rs`. A failed call carries one of these codes, and a text that names the\nthing and what to do.\n\n| number | name | try again | gRPC | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for row in TABLE {
        page.push_str(&format!(
            "| {} | `{}` | {} | {} | {} |\n",
            row.number,
            row.name,
            row.retry.name(),
            row.grpc,
            row.meaning
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_lead_back() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(Code::from_number(row.number), row.code);
            assert_eq!(row.code.row().name, row.name);
            assert!((1..=16).contains(&row.grpc), "{}", row.name);
            assert!(TABLE.iter().skip(at + 1).all(|other| other.number != row.number && other.name != row.name));
        }
    }

    #[test]
    fn a_code_of_a_later_version_is_not_retried() {
        assert_eq!(Code::from_number(60_000).retry(), Retry::Never);
    }

    /// Written anew with `NACRE_BLESS=1`.
    #[test]
    fn the_reference_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/status-codes.md");
        if std::env::var_os("NACRE_BLESS").is_some() {
            std::fs::write(path, reference_page()).unwrap();
        }
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(stored, reference_page(), "run this test once with NACRE_BLESS=1 and commit {path}");
    }
}
