//! What is wrong in a file, where, and what to do; many at once.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but look.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// How bad.
    pub(crate) severity: Severity,
    /// The bytes of the file to point at; none for what is missing.
    pub(crate) span: Option<Range<usize>>,
    /// What is wrong.
    pub(crate) text: String,
    /// What to do.
    pub(crate) hint: Option<String>,
}

/// All that is wrong with one file, with the file's text to quote from. Printed, each shows its line with the place
/// marked.
#[derive(Clone, Debug)]
pub(crate) struct Problems {
    /// The file's name as the user gave it.
    pub(crate) file: String,
    text: String,
    list: Vec<Problem>,
}

/// A place in a text: counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    /// Of the text.
    pub(crate) line: usize,
    /// In characters.
    pub(crate) column: usize,
    width: usize,
    source: &'a str,
}

impl Problems {
    /// In the order of the file, what has no place last.
    pub(crate) fn new(file: String, text: &str, mut list: Vec<Problem>) -> Problems {
        list.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
        Problems { file, text: text.to_owned(), list }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    pub(crate) fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|problem| problem.severity == severity).count()
    }

    /// Where a problem stands.
    pub(crate) fn place(&self, problem: &Problem) -> Option<Place<'_>> {
        let span = problem.span.as_ref()?;
        let start = self.text.get(..span.start)?.rfind('\n').map_or(0, |newline| newline + 1);
        let source = self.text.get(start..)?.lines().next().unwrap_or_default();
        let before = self.text.get(start..span.start)?;
        let width = self.text.get(span.clone())?.lines().next().unwrap_or_default().chars().count().max(1);
        let line = self.text.get(..start)?.matches('\n').count() + 1;
        Some(Place { line, column: before.chars().count() + 1, width, source })
    }

    /// One problem as a person reads it, several lines without a newline at the end.
    pub(crate) fn show(&self, problem: &Problem) -> String {
        let word = if problem.severity == Severity::Warning { "warning: " } else { "" };
        let Some(place) = self.place(problem) else {
            let hint = problem.hint.as_ref().map(|hint| format!("\n  = {hint}")).unwrap_or_default();
            return format!("{}: {word}{}{hint}", self.file, problem.text);
        };
        let Place { line, column, width, source } = place;
        let gutter = " ".repeat(line.to_string().len());
        // The mark stands right in a terminal only if tabs are as wide above as below.
        let indent: String = source.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let mark = "^".repeat(width);
        let mut text = format!(
            "{}:{line}:{column}: {word}{}\n {line} | {source}\n {gutter} | {indent}{mark}",
            self.file, problem.text
        );
        if let Some(hint) = &problem.hint {
            text.push_str(&format!("\n {gutter} = {hint}"));
        }
        text
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.count(Severity::Error);
        write!(f, "{} has {errors} problem{}", self.file, if errors == 1 { "" } else { "s" })?;
        for problem in &self.list {
            write!(f, "\n{}", self.show(problem))?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
