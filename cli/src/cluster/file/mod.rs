//! A TOML file read key by key against a list of known keys, with every problem kept instead of the first one thrown.
//!
//! - [`Reader`]: the file, and the [`Problem`]s found so far. [`Section`]: one table of it.
//! - [`Key`]: what a section may hold; the same list serves defaults, suggestions and the reference page.
//! - [`Given`]: a value and where it came from.
//! - [`FromToml`]: how a type is read, and what is said when it cannot be.
//!
//! Nothing here knows what a cluster is.

mod problem;
mod value;

use std::ops::Range;

use nacre_crush::text::nearest;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(crate) use problem::{Problem, Problems, Severity};
pub(crate) use value::{FromToml, Size, describe, integer};

/// A key a section may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// As written in the file.
    pub(crate) name: &'static str,
    /// What kind of value, in words.
    pub(crate) kind: &'static str,
    /// What holds when it is left out.
    pub(crate) default: Fallback,
    /// What it means.
    pub(crate) doc: &'static str,
}

/// What holds when a key is left out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fallback {
    /// This value, written as in the file.
    Toml(&'static str),
    /// Something that follows from the rest of the file, in words.
    Follows(&'static str),
    /// Nothing: the key must be there.
    Required,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The file, at this line and these bytes.
    File {
        /// Counted from 1.
        line: usize,
        /// The value's bytes.
        span: Range<usize>,
    },
    /// The default.
    Default,
    /// It follows from something else, in words.
    Follows(&'static str),
}

impl Origin {
    /// For the reader of `nacre cluster show`.
    pub(crate) fn words(&self) -> String {
        match self {
            Origin::File { line, .. } => format!("line {line}"),
            Origin::Default => "default".to_owned(),
            Origin::Follows(what) => (*what).to_owned(),
        }
    }

    /// The bytes of the file to point at.
    pub(crate) fn span(&self) -> Option<Range<usize>> {
        if let Origin::File { span, .. } = self { Some(span.clone()) } else { None }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given<T> {
    /// The value.
    pub(crate) value: T,
    /// Where it came from.
    pub(crate) from: Origin,
}

impl<T> Given<T> {
    /// A value that follows from something else, which `what` names.
    pub(crate) fn follows(value: T, what: &'static str) -> Given<T> {
        Given { value, from: Origin::Follows(what) }
    }
}

/// A file while it is read.
pub(crate) struct Reader<'a> {
    text: &'a str,
    /// What is wrong so far.
    pub(crate) problems: Vec<Problem>,
}

/// One table of the file, or an absent one that is all defaults.
#[derive(Clone, Copy)]
pub(crate) struct Section<'a> {
    table: Option<&'a DeTable<'a>>,
    keys: &'static [Key],
    title: &'static str,
    /// Where the table stands.
    span: Option<(usize, usize)>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Reader<'a> {
        Reader { text, problems: Vec::new() }
    }

    /// A section over a table of the file. Keys that are not known are reported at once.
    pub(crate) fn section<'t>(
        &mut self,
        title: &'static str,
        keys: &'static [Key],
        table: &'t DeTable<'t>,
        span: Range<usize>,
    ) -> Section<'t> {
        for key in table.keys() {
            let word = key.get_ref().as_ref();
            if keys.iter().any(|known| known.name == word) {
                continue;
            }
            let known: Vec<&str> = keys.iter().map(|key| key.name).collect();
            let hint = match nearest(word, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("{title} knows: {}", known.join(", ")),
            };
            self.problem(Some(key.span()), format!("unknown key `{word}` in {title}"), Some(hint));
        }
        Section { table: Some(table), keys, title, span: Some((span.start, span.end)) }
    }

    /// Notes an error.
    pub(crate) fn problem(&mut self, span: Option<Range<usize>>, text: String, hint: Option<String>) {
        self.problems.push(Problem { severity: Severity::Error, span, text, hint });
    }

    /// Notes a warning.
    pub(crate) fn warning(&mut self, span: Option<Range<usize>>, text: String, hint: Option<String>) {
        self.problems.push(Problem { severity: Severity::Warning, span, text, hint });
    }

    /// The line of a span, from 1.
    pub(crate) fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.get(..span.start).unwrap_or_default();
        before.matches('\n').count() + 1
    }

    /// Where a span of the file is.
    pub(crate) fn origin(&self, span: Range<usize>) -> Origin {
        Origin::File { line: self.line(&span), span }
    }

    /// The value of a key that has a default. A value that cannot be read is reported, and the default stands in.
    pub(crate) fn get<T: FromToml>(&mut self, section: Section<'_>, name: &str) -> Given<T> {
        match self.optional(section, name) {
            Some(given) => given,
            None => Given { value: section.default(name), from: Origin::Default },
        }
    }

    /// The value of a key that may be absent.
    pub(crate) fn optional<T: FromToml>(&mut self, section: Section<'_>, name: &str) -> Option<Given<T>> {
        let value = section.raw(name)?;
        match T::from_toml(value.get_ref()) {
            Ok(read) => Some(Given { value: read, from: self.origin(value.span()) }),
            Err(expected) => {
                let found = describe(value.get_ref());
                self.problem(Some(value.span()), format!("`{name}` expects {expected}, not {found}"), None);
                None
            }
        }
    }

    /// The value of a key that must be there; its absence is reported.
    pub(crate) fn required<T: FromToml>(&mut self, section: Section<'_>, name: &str) -> Option<Given<T>> {
        if section.raw(name).is_none() {
            let span = section.span.map(|(start, end)| start..end);
            let hint = section.key(name).map(|key| format!("{name} = {}: {}", key.kind, key.doc));
            self.problem(span, format!("{} lacks `{name}`", section.title), hint);
            return None;
        }
        self.optional(section, name)
    }
}

impl<'a> Section<'a> {
    /// A table that is not in the file.
    pub(crate) fn absent(title: &'static str, keys: &'static [Key]) -> Section<'a> {
        Section { table: None, keys, title, span: None }
    }

    /// The value as it stands in the file.
    pub(crate) fn raw(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        assert!(self.key(name).is_some(), "{} has no key {name}", self.title);
        self.table?.get(name)
    }

    /// Where the table stands.
    pub(crate) fn span(&self) -> Option<Range<usize>> {
        self.span.map(|(start, end)| start..end)
    }

    fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    #[expect(clippy::expect_used, reason = "a test reads the default of each key")]
    fn default<T: FromToml>(&self, name: &str) -> T {
        let Some(Key { default: Fallback::Toml(text), .. }) = self.key(name) else {
            unreachable!("{} has no default for {name}", self.title)
        };
        let value = DeValue::parse(text).expect("defaults are TOML");
        T::from_toml(value.get_ref()).expect("defaults fit their type")
    }
}
