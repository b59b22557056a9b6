//! A line on stderr that says how far a long verb is: on a terminal alone, and not before it has become long.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::{Bytes, Span, units};

/// Work shorter than this shows nothing.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the line changes.
const TICK: Duration = Duration::from_millis(100);
/// How wide the bar is.
const WIDTH: usize = 40;

/// Progress of known work. The line is wiped when this is dropped.
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    bytes: bool,
    began: Instant,
    shown: bool,
    next: Option<Instant>,
}

impl Progress {
    /// `total` steps of work; `what` stands before the bar.
    pub(crate) fn new(what: &'static str, total: u64) -> Progress {
        let began = Instant::now();
        let next = io::stderr().is_terminal().then(|| began + PATIENCE);
        Progress { what, total: total.max(1), done: 0, bytes: false, began, shown: false, next }
    }

    /// `total` bytes of work, 0 if nobody knows how many: the line says how fast it is and when it ends.
    pub(crate) fn of_bytes(what: &'static str, total: u64) -> Progress {
        Progress { bytes: true, total, ..Progress::new(what, total) }
    }

    /// So many steps more are done.
    pub(crate) fn advance(&mut self, steps: u64) {
        self.done = self.done.saturating_add(steps);
        if !self.is_due() {
            return;
        }
        let line = match (self.bytes, self.began.elapsed()) {
            (true, took) => of_bytes(self.what, self.done, self.total, took),
            (false, _) => of_steps(self.what, self.done.min(self.total), self.total),
        };
        self.draw(&line);
    }

    /// So much of all is done, which may have grown; `text` stands behind the bar. False where nobody looks.
    pub(crate) fn set(&mut self, done: u64, total: u64, text: &str) -> bool {
        (self.done, self.total) = (done, total.max(1));
        if self.is_due() {
            let line = format!("{}  {text}", of_steps(self.what, self.done.min(self.total), self.total));
            self.draw(&line);
        }
        self.next.is_some()
    }

    fn is_due(&self) -> bool {
        self.next.is_some_and(|next| Instant::now() >= next)
    }

    fn draw(&mut self, line: &str) {
        self.next = Some(Instant::now() + TICK);
        self.shown = true;
        // A terminal that went away is nothing to fail for.
        let _ = write!(io::stderr().lock(), "\r{line}\x1b[K");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn of_steps(what: &str, done: u64, total: u64) -> String {
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    format!("{what} [{}] {percent:3} %", units::bar(units::share(done, total), WIDTH))
}

fn of_bytes(what: &str, done: u64, total: u64, took: Duration) -> String {
    let pace = done as f64 / took.as_secs_f64().max(0.001);
    let speed = format!("{}/s", Bytes(pace as u64));
    if total == 0 {
        return format!("{what} {}  {speed}", Bytes(done));
    }
    let left = Duration::from_secs_f64((total.saturating_sub(done) as f64 / pace.max(1.0)).min(1e9));
    let bar = of_steps(what, done.min(total), total);
    format!("{bar}  {} of {}  {speed}  {} left", Bytes(done), Bytes(total), Span(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills() {
        assert_eq!(of_steps("maps", 0, 4), "maps [........................................]   0 %");
        assert_eq!(of_steps("maps", 1, 4), "maps [##########..............................]  25 %");
        assert_eq!(of_steps("maps", 4, 4), "maps [########################################] 100 %");
    }

    #[test]
    fn bytes_say_how_fast_and_how_long_still() {
        let line = of_bytes("put", 1 << 20, 4 << 20, Duration::from_secs(2));
        assert_eq!(
            line,
            "put [##########..............................]  25 %  1.0 MiB of 4.0 MiB  512.0 KiB/s  6 s left"
        );
        assert_eq!(of_bytes("get", 3 << 20, 0, Duration::from_secs(1)), "get 3.0 MiB  3.0 MiB/s");
    }
}
