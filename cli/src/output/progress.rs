//! A line on stderr that says how far a long verb is: on a terminal alone, and not before it has become long.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Work shorter than this shows nothing.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the line changes.
const TICK: Duration = Duration::from_millis(100);

/// Progress of known work. The line is wiped when this is dropped.
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    shown: bool,
    next: Option<Instant>,
}

impl Progress {
    /// `total` steps of work; `what` stands before the bar.
    pub(crate) fn new(what: &'static str, total: u64) -> Progress {
        let next = io::stderr().is_terminal().then(|| Instant::now() + PATIENCE);
        Progress { what, total: total.max(1), done: 0, shown: false, next }
    }

    /// So many steps more are done.
    pub(crate) fn advance(&mut self, steps: u64) {
        self.done = self.done.saturating_add(steps).min(self.total);
        let Some(next) = self.next else { return };
        let now = Instant::now();
        if now < next {
            return;
        }
        self.next = Some(now + TICK);
        self.shown = true;
        // A terminal that went away is nothing to fail for.
        let _ = write!(io::stderr().lock(), "\r{}", bar(self.what, self.done, self.total));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn bar(what: &str, done: u64, total: u64) -> String {
    const WIDTH: u64 = 40;
    let share = |whole: u64| (u128::from(whole) * u128::from(done) / u128::from(total.max(1))) as u64;
    let full = share(WIDTH) as usize;
    format!("{what} [{}{}] {:3} %", "#".repeat(full), ".".repeat(WIDTH as usize - full), share(100))
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn the_bar_fills() {
        assert_eq!(bar("maps", 0, 4), "maps [........................................]   0 %");
        assert_eq!(bar("maps", 1, 4), "maps [##########..............................]  25 %");
        assert_eq!(bar("maps", 4, 4), "maps [########################################] 100 %");
    }
}
