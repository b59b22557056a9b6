//! Cuts a text into words and brackets and remembers where each stood. Knows nothing of the grammar.
//!
//! A word is a run of anything but white space, `{ } [ ]` and `#`; whether it may stand where it does is for the parser.
//! A comment goes from `#` to the end of its line. Line ends mean nothing.

use super::TextError;

/// A text and its words.
pub(super) struct Source<'a> {
    lines: Vec<&'a str>,
    /// At least one: the last is the end of the text.
    pub(super) words: Vec<Word<'a>>,
}

/// A word or bracket with its place. The empty word is the end of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    line: u32,
    column: u32,
}

impl Word<'_> {
    pub(super) fn line(&self) -> u32 {
        self.line
    }

    /// The word as an error shows it.
    pub(super) fn shown(&self) -> String {
        if self.text.is_empty() { "the end of the map".to_owned() } else { format!("`{}`", clip(self.text)) }
    }
}

/// Long words are cut where they are shown.
fn clip(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST).chain(['.', '.', '.']).collect()
}

const BRACKETS: [char; 4] = ['{', '}', '[', ']'];

/// White space as C's `isspace` has it.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        // Editors on some systems begin a file with a byte-order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines: Vec<&str> = text.split('\n').collect();
        let mut words = Vec::new();
        for (line, number) in lines.iter().zip(1..) {
            words_of(line, number, &mut words);
        }
        // Errors about the end point behind the last word: that is where something is missing.
        let (line, column) = words.last().map_or((1, 1), |last: &Word<'_>| {
            (last.line, last.column.saturating_add(last.text.chars().count() as u32))
        });
        words.push(Word { text: "", line, column });
        Source { lines, words }
    }

    /// The error for a word that does not fit.
    pub(super) fn error(&self, word: Word<'_>, expected: impl Into<String>) -> TextError {
        self.error_about(word, word.shown(), expected)
    }

    /// The same, with more to say of what was found.
    pub(super) fn error_about(
        &self,
        word: Word<'_>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> TextError {
        TextError {
            line: word.line,
            column: word.column,
            width: word.text.chars().count().max(1) as u32,
            found: found.into(),
            expected: expected.into(),
            hint: None,
            source_line: self.lines.get(word.line.saturating_sub(1) as usize).copied().unwrap_or_default().to_owned(),
        }
    }
}

fn words_of<'a>(line: &'a str, number: u32, words: &mut Vec<Word<'a>>) {
    let code = line.split('#').next().unwrap_or_default();
    let mut start: Option<(usize, u32)> = None;
    let ends = std::iter::once((code.len(), ' '));
    for ((at, c), column) in code.char_indices().chain(ends).zip(1..) {
        let bracket = BRACKETS.contains(&c);
        if !bracket && !is_space(c) {
            start.get_or_insert((at, column));
            continue;
        }
        if let Some((from, column)) = start.take() {
            words.push(Word { text: code.get(from..at).unwrap_or_default(), line: number, column });
        }
        if bracket {
            words.push(Word { text: code.get(at..=at).unwrap_or_default(), line: number, column });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_know_their_place() {
        let source = Source::new("a{ b # c }\r\n\tdé [1]\n");
        let seen: Vec<_> = source.words.iter().map(|w| (w.text, w.line, w.column)).collect();
        let want =
            [("a", 1, 1), ("{", 1, 2), ("b", 1, 4), ("dé", 2, 2), ("[", 2, 5), ("1", 2, 6), ("]", 2, 7), ("", 2, 8)];
        assert_eq!(seen, want);
    }

    #[test]
    fn an_empty_text_is_its_end() {
        assert_eq!(Source::new("\u{feff}").words, [Word { text: "", line: 1, column: 1 }]);
        assert_eq!(Source::new(" # nothing\n\n").words.len(), 1);
    }
}
