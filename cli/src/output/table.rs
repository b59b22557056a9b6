//! Columns that line up: headings, left or right aligned cells, two blanks between. It does not wrap; what may grow
//! without bound belongs into the last column, which is never padded.

use std::borrow::Cow;
use std::io::{self, Write};

use super::{Out, Tone, tame};

/// Which side of its column a cell leans to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under headings.
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<(Tone, String)>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are blank, cells past the headings are not shown.
    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.row_toned(cells.into_iter().map(|cell| (Tone::Plain, cell.into())).collect());
    }

    /// Adds a row whose cells carry a tone each.
    pub(crate) fn row_toned(&mut self, mut cells: Vec<(Tone, String)>) {
        // Before widths are taken: what is printed must be as wide as what was measured.
        for (_, cell) in &mut cells {
            if let Cow::Owned(tamed) = tame(cell) {
                *cell = tamed;
            }
        }
        self.rows.push(cells);
    }

    /// Prints headings and rows.
    pub(crate) fn print(&self, out: &mut Out) -> io::Result<()> {
        let headings: Vec<(Tone, String)> =
            self.columns.iter().map(|(name, _)| (Tone::Strong, (*name).to_owned())).collect();
        let lines = || std::iter::once(&headings).chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|n| lines().filter_map(|row| row.get(n)).map(|(_, cell)| cell.chars().count()).max().unwrap_or(0))
            .collect();
        for row in lines() {
            let mut line = String::new();
            // Blanks are owed until something follows them, so that no line ends in blanks.
            let mut owed = 0;
            for (n, ((_, align), width)) in self.columns.iter().zip(&widths).enumerate() {
                let (tone, cell) = row.get(n).map_or((Tone::Plain, ""), |(tone, cell)| (*tone, cell.as_str()));
                let slack = width.saturating_sub(cell.chars().count());
                let (before, after) = match align {
                    Align::Left => (0, slack),
                    Align::Right => (slack, 0),
                };
                owed += before;
                if !cell.is_empty() {
                    line.extend(std::iter::repeat_n(' ', owed));
                    line.push_str(&out.paint(tone, cell));
                    owed = 0;
                }
                owed += after + 2;
            }
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}
