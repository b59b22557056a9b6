//! Where verbs speak: standard output with colours when they help, JSON when asked for, and the one line of an error.
//!
//! - [`Out`]: standard output, buffered. Notices when its reader is gone (`| head`), which ends the verb quietly.
//! - [`JsonFlag`]: the `--json` of a verb, to be flattened into its arguments.
//! - [`table`]: columns that fit a terminal. [`tree`]: the lines of a drawn tree.
//! - [`Progress`]: how far a long verb is. [`Bytes`], [`Span`]: amounts as people read them.
//!
//! Nothing here knows what it prints.

mod progress;
mod table;
mod tree;
mod units;

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde::Serialize;

pub(crate) use progress::Progress;
pub(crate) use table::{Align, Table};
pub(crate) use tree::branches;
pub(crate) use units::{Bytes, Micros, Span, bar, share};

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    // Comments, not documentation: clap would print a list of them in every help text.
    // On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    // Also into a pipe or file.
    Always,
    // Plain text.
    Never,
}

impl Colour {
    fn on(self, is_terminal: bool) -> bool {
        let unwanted = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        match self {
            Colour::Auto => is_terminal && !unwanted("NO_COLOR") && !dumb(),
            Colour::Always => true,
            Colour::Never => false,
        }
    }
}

/// The `--json` of a verb. Keys are part of the interface: added, never renamed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct JsonFlag {
    /// Print JSON for programs instead of text for people.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a piece of text means; the colour follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it is.
    Plain,
    /// A heading or a name to find at a glance.
    Strong,
    /// Less important than its surroundings.
    Faint,
    /// As it should be.
    Good,
    /// Look at this.
    Warn,
    /// A person must act.
    Bad,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Tone::Plain => Style::new(),
            Tone::Strong => Style::new().bold(),
            Tone::Faint => Style::new().dimmed(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Warn => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default().bold(),
        }
    }
}

/// Standard output.
pub(crate) struct Out {
    sink: Box<dyn Write>,
    coloured: bool,
    reader_is_gone: bool,
}

impl Out {
    /// The process's standard output.
    pub(crate) fn stdout(colour: Colour) -> Out {
        let stdout = io::stdout();
        let coloured = colour.on(stdout.is_terminal());
        Out { sink: Box::new(BufWriter::with_capacity(64 * 1024, stdout)), coloured, reader_is_gone: false }
    }

    /// Whether a write failed because nobody reads any more.
    pub(crate) fn reader_is_gone(&self) -> bool {
        self.reader_is_gone
    }

    /// `text` in the colour of `tone`, or as it is where colours are off.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        paint(self.coloured, tone, text)
    }

    /// One value as JSON, indented, with a newline.
    pub(crate) fn json<T: Serialize>(&mut self, value: &T) -> anyhow::Result<()> {
        serde_json::to_writer_pretty(&mut *self, value)?;
        writeln!(self)?;
        Ok(())
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.sink.write(bytes);
        self.notice(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.sink.flush();
        self.notice(done)
    }
}

impl Out {
    fn notice<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &done
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            self.reader_is_gone = true;
        }
        done
    }
}

/// The text without what would steer a terminal: names and lines come from files that anybody may have written. Line
/// ends and tabs stay, other control characters are spelled out.
pub(crate) fn tame(text: &str) -> Cow<'_, str> {
    let wild = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(wild) {
        return Cow::Borrowed(text);
    }
    let mut tamed = String::with_capacity(text.len());
    for c in text.chars() {
        if wild(c) { tamed.extend(c.escape_default()) } else { tamed.push(c) }
    }
    Cow::Owned(tamed)
}

fn paint(coloured: bool, tone: Tone, text: &str) -> String {
    let text = tame(text);
    if !coloured || tone == Tone::Plain {
        return text.into_owned();
    }
    let style = tone.style();
    format!("{style}{text}{style:#}")
}

/// `3 rules`, `1 rule`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A line on stderr, beside the output: a warning, or a remark to a person.
pub(crate) fn aside(text: &str) {
    // Nowhere left to report that stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{}", tame(text));
}

/// The last words of a verb that failed: `error:` and the chain of causes.
pub(crate) fn complain(colour: Colour, error: &anyhow::Error) {
    let stderr = io::stderr();
    let coloured = colour.on(stderr.is_terminal());
    // Nowhere left to report that stderr is closed.
    let text = format!("{error:#}");
    let _ = writeln!(stderr.lock(), "{} {}", paint(coloured, Tone::Bad, "error:"), tame(&text));
}

#[cfg(test)]
mod tests {
    use super::tame;

    #[test]
    fn what_steers_a_terminal_is_spelled_out() {
        assert_eq!(tame("osd.1\tßé\n"), "osd.1\tßé\n");
        assert_eq!(tame("\u{1b}[2Jx\r\u{9b}"), "\\u{1b}[2Jx\\r\\u{9b}");
    }
}
