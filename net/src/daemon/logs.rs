//! Structured logs to standard error, where systemd or the supervisor collects them. Fields, not prose: `pg`, `osd`,
//! `epoch`, `op`, `peer`; messages in lower case without a full stop. ERROR: a person must act. WARN: odd, we went on.
//! INFO: a state change an operator would want.

use std::sync::Arc;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::{Layer as _, reload};

use super::config::Value;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One object a line, for programs.
    Json,
}

impl Value for Format {
    const KIND: &'static str = "text or json";

    fn parse(text: &str) -> Result<Format, String> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err("it is neither text nor json".into()),
        }
    }

    fn print(&self) -> String {
        match self {
            Format::Text => "text".into(),
            Format::Json => "json".into(),
        }
    }
}

/// What goes wrong with logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// A level that cannot be read.
    #[error("{0:?} is not a log level; give error, warn, info, debug or trace, or PART=LEVEL, separated by commas")]
    Level(String),
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let bad = || LogError::Level(level.to_owned());
    let known = |word: &str| matches!(word, "error" | "warn" | "info" | "debug" | "trace" | "off");
    // EnvFilter takes a single unknown word as the name of a part: a typo would switch everything off.
    for clause in level.split(',') {
        let word = clause.rsplit('=').next().unwrap_or_default().trim();
        if !known(&word.to_ascii_lowercase()) || clause.trim().contains(char::is_whitespace) {
            return Err(bad());
        }
    }
    EnvFilter::builder().parse(level).map_err(|_| bad())
}

/// Changes the level of logs that run.
#[derive(Clone)]
pub struct Logs(Arc<dyn Fn(EnvFilter) -> bool + Send + Sync>);

impl std::fmt::Debug for Logs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Logs")
    }
}

impl Logs {
    /// Logs this much from now on.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        if (self.0)(filter(level)?) { Ok(()) } else { Err(LogError::Level(level.to_owned())) }
    }
}

fn build<W>(level: &str, format: Format, to: W) -> Result<(impl tracing::Subscriber + Send + Sync, Logs), LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::<EnvFilter, Registry>::new(filter(level)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(to);
    let lines = match format {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    Ok((subscriber, Logs(Arc::new(move |filter| handle.reload(filter).is_ok()))))
}

/// Starts logging for the whole process. Within one process the first call counts; a second daemon in the same process,
/// as tests have them, logs with the first one's settings.
pub fn start(level: &str, format: Format) -> Result<Logs, LogError> {
    let (subscriber, logs) = build(level, format, std::io::stderr)?;
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(logs)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(buf)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(format: Format, log: impl FnOnce(&Logs)) -> String {
        let paper = Paper::default();
        let to = paper.clone();
        let (subscriber, logs) = build("info", format, move || to.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || log(&logs));
        String::from_utf8(paper.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn lines_are_structured_and_the_level_changes_while_running() {
        let json = written(Format::Json, |logs| {
            tracing::debug!("unseen");
            tracing::info!(osd = 3, "up");
            logs.set_level("debug").unwrap();
            tracing::debug!(osd = 4, "seen");
            assert!(logs.set_level("loud").is_err());
        });
        let lines: Vec<serde_json::Value> = json.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{json}");
        assert_eq!(
            (&lines[0]["osd"], &lines[0]["message"], &lines[0]["level"]),
            (&3.into(), &"up".into(), &"INFO".into())
        );
        assert_eq!(lines[1]["osd"], 4);
        let text = written(Format::Text, |_| tracing::warn!(peer = "osd.1", "slow"));
        assert!(text.contains(" WARN ") && text.contains("slow peer=\"osd.1\""), "{text}");
    }

    #[test]
    fn levels_are_checked() {
        for good in ["info", "warn,nacre_osd=debug", "ERROR", "off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["", "loud", "info,", "nacre_osd=loud", "info nacre=debug"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
