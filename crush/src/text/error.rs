//! What is wrong with a text, where, and what would have been right.

use std::fmt;

/// The first thing in a text that does not fit. Printed, it shows the source line with the place marked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TextError {
    /// Line of the text, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters marked, at least 1.
    pub width: u32,
    /// What stands there.
    pub found: String,
    /// What would fit.
    pub expected: String,
    /// What the writer may have meant, or what to do.
    pub hint: Option<String>,
    /// The line itself.
    pub source_line: String,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "line {}, column {}: found {}, expected {}", self.line, self.column, self.found, self.expected)?;
        let gutter = self.line.to_string();
        // The mark stands right in a terminal only if tabs are as wide above as below.
        let before: String = self.source_line.chars().take(self.column.saturating_sub(1) as usize).collect();
        let indent: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, " {gutter} | {}", self.source_line.trim_end())?;
        write!(f, " {} | {indent}{}", " ".repeat(gutter.len()), "^".repeat(self.width.max(1) as usize))?;
        match &self.hint {
            Some(hint) => write!(f, "\n {} = {hint}", " ".repeat(gutter.len())),
            None => Ok(()),
        }
    }
}
