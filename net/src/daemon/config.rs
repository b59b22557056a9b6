//! Settings of a daemon: typed, documented, with ranges, and each with the place its value came from.
//!
//! Layers, the first that says something wins: `runtime` (set through the admin socket, until restart), `flag`,
//! `environment`, `file`, `cluster` (the monitors' settings), `default`. A file has sections: `[osd.3]` before `[osd]`
//! before `[all]`. A name may be written with dots, as the monitors' settings are, or with dashes.
//!
//! What is unknown in a file warns at start and fails in a check: rolling back must start, mistakes must show. A value
//! that cannot be read or is out of range is an error, wherever it stands; from the cluster it is refused and the old one
//! kept.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Set through the admin socket.
    Runtime,
    /// A flag of the command.
    Flag,
    /// This variable.
    Environment(String),
    /// This section of this file.
    File(String),
    /// The monitors.
    Cluster,
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Runtime => f.write_str("runtime"),
            Source::Flag => f.write_str("flag"),
            Source::Environment(name) => write!(f, "environment {name}"),
            Source::File(place) => write!(f, "file {place}"),
            Source::Cluster => f.write_str("cluster"),
            Source::Default => f.write_str("default"),
        }
    }
}

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// At once.
    Live,
    /// When the daemon is started again.
    Restart,
}

/// One setting, for the reference page and for help.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub doc: String,
    /// What its values look like.
    pub kind: &'static str,
    /// The default, as text.
    pub default: String,
    /// Smallest and largest value.
    pub range: Option<(String, String)>,
    /// When it takes effect.
    pub change: Change,
    /// What it was called before; still read.
    pub was: &'static [&'static str],
}

/// What goes wrong with settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its form.
    #[error("{}: {why}", path.display())]
    Form {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A value.
    #[error("{name} = {value:?} (from {source_of}): {why}")]
    Value {
        /// Which setting.
        name: &'static str,
        /// What was given.
        value: String,
        /// Where.
        source_of: Source,
        /// What is wrong.
        why: String,
    },
    /// A name.
    #[error("there is no setting {0:?}; `--show-config` lists them")]
    Unknown(String),
    /// A flag.
    #[error("--set takes NAME=VALUE, not {0:?}")]
    Flag(String),
    /// Not now.
    #[error("{0} takes effect only at a restart; set it in the file or in the cluster's settings")]
    NotLive(&'static str),
}

/// A type settings can have.
pub trait Value: Sized + Clone + PartialEq {
    /// What its values look like, for people.
    const KIND: &'static str;
    /// Reads one.
    fn parse(text: &str) -> Result<Self, String>;
    /// Prints it so that it can be read again.
    fn print(&self) -> String;
}

macro_rules! values {
    ($($type:ty, $kind:literal;)*) => {
        $(impl Value for $type {
            const KIND: &'static str = $kind;

            fn parse(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_| format!("it is not {}", $kind))
            }

            fn print(&self) -> String {
                self.to_string()
            }
        })*
    };
}

values! {
    u16, "a number from 0 to 65535";
    u32, "a number";
    u64, "a number";
    f64, "a number";
    bool, "true or false";
    SocketAddr, "an address such as 127.0.0.1:9100";
}

impl Value for String {
    const KIND: &'static str = "text";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn print(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "a path";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("it is empty".into()) } else { Ok(text.into()) }
    }

    fn print(&self) -> String {
        self.display().to_string()
    }
}

impl<T: Value> Value for Option<T> {
    const KIND: &'static str = T::KIND;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn print(&self) -> String {
        self.as_ref().map(T::print).unwrap_or_default()
    }
}

impl<T: Value> Value for Vec<T> {
    const KIND: &'static str = "a list, separated by commas";

    fn parse(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(T::parse).collect()
    }

    fn print(&self) -> String {
        self.iter().map(T::print).collect::<Vec<_>>().join(",")
    }
}

/// A number and a unit, the largest unit that divides it.
fn scaled(text: &str, units: &[(&str, u64)], kind: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("it is not {kind}"))?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(|| format!("it is not {kind}"))?;
    number.checked_mul(*factor).ok_or_else(|| "it is too large".to_owned())
}

fn unscaled(value: u64, units: &[(&str, u64)]) -> String {
    let (name, factor) = units.iter().rev().find(|(_, f)| value != 0 && value.is_multiple_of(*f)).unwrap_or(&units[0]);
    format!("{}{name}", value / factor)
}

const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

impl Value for Duration {
    const KIND: &'static str = "a time such as 500ms, 5s, 10min, 2h, 1d";

    fn parse(text: &str) -> Result<Self, String> {
        scaled(text, &TIMES, Self::KIND).map(Duration::from_millis)
    }

    fn print(&self) -> String {
        unscaled(u64::try_from(self.as_millis()).unwrap_or(u64::MAX), &TIMES)
    }
}

/// A number of bytes, in text with its unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// So many MiB.
    #[must_use]
    pub const fn mib(n: u64) -> Size {
        Size(n << 20)
    }
}

impl Value for Size {
    const KIND: &'static str = "a size such as 64KiB, 256MiB, 4GiB";

    fn parse(text: &str) -> Result<Self, String> {
        scaled(text, &SIZES, Self::KIND).map(Size)
    }

    fn print(&self) -> String {
        unscaled(self.0, &SIZES)
    }
}

/// `log.level` as the monitors call it, `log-level` as a flag: one setting, `log_level`.
fn normal(name: &str) -> String {
    name.replace(['.', '-'], "_")
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The setting.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Where it came from.
    pub source: Source,
    /// When a change takes effect.
    pub change: Change,
}

/// What was said about settings, layer by layer.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    runtime: BTreeMap<String, String>,
    flags: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    files: Vec<(String, BTreeMap<String, String>)>,
    cluster: BTreeMap<String, String>,
}

impl Layers {
    /// Layers of a daemon: the process's environment, and a file if there is one. `daemon` is its name, such as `osd.3`:
    /// variables are `NACRE_OSD_MEMORY`, or `NACRE_MEMORY` for every daemon.
    pub fn of(daemon: &str, file: Option<&Path>) -> Result<Layers, ConfigError> {
        let mut layers = Layers::default();
        let (kind, id) = daemon.split_once('.').unwrap_or((daemon, ""));
        for (name, value) in std::env::vars_os() {
            if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) {
                layers.environment(kind, &name, value);
            }
        }
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
            layers
                .file(&text, &path.display().to_string(), kind, id)
                .map_err(|why| ConfigError::Form { path: path.to_owned(), why })?;
        }
        Ok(layers)
    }

    fn environment(&mut self, kind: &str, name: &str, value: String) {
        let Some(rest) = name.strip_prefix("NACRE_") else { return };
        let own = rest.strip_prefix(&format!("{}_", kind.to_ascii_uppercase()));
        let setting = own.unwrap_or(rest).to_ascii_lowercase();
        // The daemon's own variable wins over the one for every daemon, in whatever order they come.
        if own.is_some() || !self.environment.contains_key(&setting) {
            self.environment.insert(setting.clone(), value);
            self.environment.insert(format!("\0{setting}"), name.to_owned());
        }
    }

    fn file(&mut self, text: &str, path: &str, kind: &str, id: &str) -> Result<(), String> {
        let document: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
        let section = |keys: &[&str]| {
            let mut table = &document;
            for key in keys {
                table = table.get(*key)?.as_table()?;
            }
            Some(table)
        };
        for (name, found) in [
            (format!("{kind}.{id}"), section(&[kind, id])),
            (kind.to_owned(), section(&[kind])),
            ("all".to_owned(), section(&["all"])),
        ] {
            let Some(table) = found else { continue };
            let mut values = BTreeMap::new();
            for (key, value) in table {
                match value {
                    toml::Value::String(text) => values.insert(key.clone(), text.clone()),
                    // `[osd.3]` stands in `[osd]`.
                    toml::Value::Table(_) => None,
                    toml::Value::Array(items) => {
                        let texts: Vec<_> = items
                            .iter()
                            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
                            .collect();
                        values.insert(key.clone(), texts.join(","))
                    }
                    other => values.insert(key.clone(), other.to_string()),
                };
            }
            self.files.push((format!("{path} [{name}]"), values));
        }
        Ok(())
    }

    /// A flag: `NAME=VALUE`.
    pub fn flag(&mut self, text: &str) -> Result<(), ConfigError> {
        let (name, value) = text.split_once('=').ok_or_else(|| ConfigError::Flag(text.to_owned()))?;
        self.flags.insert(normal(name.trim()), value.trim().to_owned());
        Ok(())
    }

    /// What the monitors say, instead of what they said before.
    pub fn set_cluster(&mut self, settings: BTreeMap<String, String>) {
        self.cluster = settings.into_iter().map(|(name, value)| (normal(&name), value)).collect();
    }

    fn find(&self, name: &str) -> Option<(&str, Source)> {
        if let Some(value) = self.runtime.get(name) {
            return Some((value, Source::Runtime));
        }
        if let Some(value) = self.flags.get(name) {
            return Some((value, Source::Flag));
        }
        if let Some(value) = self.environment.get(name) {
            let variable = self.environment.get(&format!("\0{name}")).cloned().unwrap_or_default();
            return Some((value, Source::Environment(variable)));
        }
        for (place, values) in &self.files {
            if let Some(value) = values.get(name) {
                return Some((value, Source::File(place.clone())));
            }
        }
        self.cluster.get(name).map(|value| (value.as_str(), Source::Cluster))
    }

    /// Reads one setting. Used by the struct that [`crate::options!`] makes.
    pub fn read<T: Value>(&self, spec: &Spec, default: T, check: impl Fn(&T) -> bool) -> Result<T, ConfigError> {
        let names = std::iter::once(&spec.name).chain(spec.was);
        let Some((text, source_of)) = names.clone().find_map(|name| self.find(name)) else { return Ok(default) };
        let bad = |why: String| ConfigError::Value {
            name: spec.name,
            value: text.to_owned(),
            source_of: source_of.clone(),
            why,
        };
        let value = T::parse(text).map_err(&bad)?;
        if !check(&value) {
            let (least, most) = spec.range.clone().unwrap_or_default();
            return Err(bad(format!("it must be from {least} to {most}")));
        }
        Ok(value)
    }

    fn source(&self, spec: &Spec) -> Source {
        let names = std::iter::once(&spec.name).chain(spec.was);
        names.clone().find_map(|name| self.find(name)).map_or(Source::Default, |(_, source)| source)
    }

    /// Names in flags and files that no setting has.
    #[must_use]
    pub fn unknown(&self, specs: &[Spec]) -> Vec<String> {
        let known = |name: &str| specs.iter().any(|s| s.name == name || s.was.contains(&name));
        let flags = self.flags.keys().filter(|k| !known(k)).map(|k| format!("{k} (flag)"));
        let files = self.files.iter().flat_map(|(place, values)| {
            // What stands in [all] may be meant for other daemons.
            let own = !place.ends_with("[all]");
            values.keys().filter(move |k| own && !known(k)).map(move |k| format!("{k} ({place})"))
        });
        flags.chain(files).collect()
    }
}

/// A struct of settings, made by [`crate::options!`].
pub trait Options: Clone + PartialEq + Send + Sync + 'static {
    /// What it holds.
    fn specs() -> Vec<Spec>;
    /// Reads it.
    fn read(layers: &Layers) -> Result<Self, ConfigError>;
    /// The values as text, in the order of the specs.
    fn texts(&self) -> Vec<String>;
}

/// The settings of a running daemon. Changes of live settings are seen through [`Settings::watch`].
#[derive(Debug)]
pub struct Settings<T: Options> {
    layers: std::sync::Mutex<Layers>,
    now: tokio::sync::watch::Sender<std::sync::Arc<T>>,
}

impl<T: Options> Settings<T> {
    /// Reads them for the first time.
    pub fn new(layers: Layers) -> Result<Settings<T>, ConfigError> {
        let now = tokio::sync::watch::Sender::new(std::sync::Arc::new(T::read(&layers)?));
        Ok(Settings { layers: std::sync::Mutex::new(layers), now })
    }

    /// As they are now.
    #[must_use]
    pub fn now(&self) -> std::sync::Arc<T> {
        self.now.borrow().clone()
    }

    /// To see them change.
    #[must_use]
    pub fn watch(&self) -> tokio::sync::watch::Receiver<std::sync::Arc<T>> {
        self.now.subscribe()
    }

    fn layers(&self) -> std::sync::MutexGuard<'_, Layers> {
        self.layers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Each value and where it came from: `--show-config`.
    #[must_use]
    pub fn show(&self) -> Vec<Shown> {
        let layers = self.layers();
        let values = self.now().texts();
        let shown = |(spec, value): (Spec, String)| Shown {
            name: spec.name,
            value,
            source: layers.source(&spec),
            change: spec.change,
        };
        T::specs().into_iter().zip(values).map(shown).collect()
    }

    /// Takes the monitors' settings. Gives the settings that changed but wait for a restart. On an error nothing
    /// changes.
    pub fn set_cluster(&self, settings: BTreeMap<String, String>) -> Result<Vec<&'static str>, ConfigError> {
        let mut layers = self.layers();
        let mut next = layers.clone();
        next.set_cluster(settings);
        let read = T::read(&next)?;
        *layers = next;
        Ok(self.install(read))
    }

    /// Sets one until the daemon is restarted; live ones only. `None` takes it back.
    pub fn set_runtime(&self, name: &str, value: Option<&str>) -> Result<(), ConfigError> {
        let specs = T::specs();
        let name = &normal(name);
        let spec = specs.iter().find(|s| s.name == name).ok_or_else(|| ConfigError::Unknown(name.to_owned()))?;
        if spec.change == Change::Restart {
            return Err(ConfigError::NotLive(spec.name));
        }
        let mut layers = self.layers();
        let mut next = layers.clone();
        match value {
            Some(value) => next.runtime.insert(name.clone(), value.to_owned()),
            None => next.runtime.remove(name),
        };
        let read = T::read(&next)?;
        *layers = next;
        self.install(read);
        Ok(())
    }

    fn install(&self, read: T) -> Vec<&'static str> {
        let before = self.now().texts();
        let changed = T::specs().into_iter().zip(before.into_iter().zip(read.texts()));
        let waits = changed.filter(|(s, (old, new))| s.change == Change::Restart && old != new);
        let waits = waits.map(|(s, _)| s.name).collect();
        self.now.send_if_modified(|now| {
            let differs = **now != read;
            *now = std::sync::Arc::new(read);
            differs
        });
        waits
    }
}

/// Prints settings as a table: value, and where it came from.
#[must_use]
pub fn render(shown: &[Shown]) -> String {
    let name = shown.iter().map(|s| s.name.len()).max().unwrap_or(0);
    let value = shown.iter().map(|s| s.value.len()).max().unwrap_or(0);
    shown.iter().map(|s| format!("{:name$}  {:value$}  {}\n", s.name, s.value, s.source)).collect()
}

/// The same as JSON.
#[must_use]
pub fn to_json(shown: &[Shown]) -> serde_json::Value {
    let entry = |s: &Shown| {
        let live = s.change == Change::Live;
        (s.name.to_owned(), serde_json::json!({ "value": s.value, "source": s.source.to_string(), "live": live }))
    };
    shown.iter().map(entry).collect::<serde_json::Map<_, _>>().into()
}

/// Makes a struct of settings: `name: type = default, live|restart`, then perhaps `in LEAST => MOST` and former names.
///
/// ```
/// use nacre_net::daemon::config::Size;
///
/// nacre_net::options! {
///     /// What an OSD can be told.
///     pub struct OsdOptions {
///         /// Memory it may use.
///         memory: Size = Size::mib(256), live, in Size::mib(64) => Size::mib(1 << 20);
///         /// Where it keeps its data.
///         data: std::path::PathBuf = "/var/lib/nacre".into(), restart, was ["data_dir"];
///     }
/// }
/// ```
#[macro_export]
macro_rules! options {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident : $type:ty = $default:expr, $change:ident
                    $(, in $least:expr => $most:expr)? $(, was [$($was:literal),* $(,)?])? ;
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )*
        }

        impl $crate::daemon::config::Options for $name {
            fn specs() -> Vec<$crate::daemon::config::Spec> {
                use $crate::daemon::config::{Change, Spec, Value};
                vec![$( Spec {
                    name: stringify!($field),
                    doc: [$($doc),+].map(str::trim).join(" "),
                    kind: <$type as Value>::KIND,
                    default: <$type as Value>::print(&$default),
                    range: $crate::options!(@range $type $(, $least, $most)?),
                    change: $crate::options!(@change Change $change),
                    was: &[$($($was),*)?],
                } ),*]
            }

            fn read(
                layers: &$crate::daemon::config::Layers,
            ) -> Result<Self, $crate::daemon::config::ConfigError> {
                let mut specs = Self::specs().into_iter();
                Ok(Self { $(
                    $field: {
                        let spec = specs.next().ok_or_else(|| {
                            $crate::daemon::config::ConfigError::Unknown(stringify!($field).into())
                        })?;
                        layers.read(&spec, $default, |_value: &$type| {
                            true $( && *_value >= $least && *_value <= $most )?
                        })?
                    },
                )* })
            }

            fn texts(&self) -> Vec<String> {
                vec![$( $crate::daemon::config::Value::print(&self.$field) ),*]
            }
        }
    };
    (@range $type:ty) => { None };
    (@range $type:ty, $least:expr, $most:expr) => {{
        let (least, most): ($type, $type) = ($least, $most);
        Some(($crate::daemon::config::Value::print(&least), $crate::daemon::config::Value::print(&most)))
    }};
    (@change $change:ident live) => { $change::Live };
    (@change $change:ident restart) => { $change::Restart };
}

/// The reference page of a struct of settings.
#[must_use]
pub fn reference<T: Options>(title: &str) -> String {
    let mut page = format!(
        "# Settings: {title}\n\n| name | default | values | change | meaning |\n| --- | --- | --- | --- | --- |\n"
    );
    for spec in T::specs() {
        let range = spec.range.map(|(least, most)| format!(", {least} to {most}")).unwrap_or_default();
        let change = if spec.change == Change::Live { "live" } else { "restart" };
        page.push_str(&format!(
            "| `{}` | `{}` | {}{range} | {change} | {} |\n",
            spec.name, spec.default, spec.kind, spec.doc
        ));
    }
    page
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
