//! Settings: everything tunable, with type, range, unit, who uses it, whether a change needs a restart, and what it does.
//!
//! The map holds what operators changed; this table holds everything else. A name is `noun.what`, the same in commands,
//! in listings and in `cluster.toml`. `docs/reference/settings.md` is generated from the table.

mod list;
#[cfg(test)]
#[path = "settings_test.rs"]
mod tests;
mod value;

use nacre_proto::ids::OsdId;

pub use list::SETTINGS;
pub use value::{Kind, Value, ValueError};

use crate::map::{ClusterMap, DaemonId, DaemonKind, Scope};

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// In the text form of its type.
    pub default: &'static str,
    /// The kinds of daemon that read it.
    pub users: &'static [DaemonKind],
    /// Whether a change takes effect at once; otherwise at the next start.
    pub live: bool,
    /// What it does, for the reference page and `nacre config explain`.
    pub text: &'static str,
}

/// The setting of that name.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The names most like one that does not exist.
pub fn like(name: &str) -> Vec<&'static str> {
    let last = name.rsplit('.').next().unwrap_or(name);
    let near = |setting: &&Setting| {
        setting.name.contains(last) || setting.name.split('.').any(|part| part.len() > 3 && name.contains(part))
    };
    SETTINGS.iter().filter(near).map(|setting| setting.name).take(5).collect()
}

/// For whom a value is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The daemon.
    pub daemon: DaemonId,
    /// An OSD's device class.
    pub class: Option<String>,
}

impl Reader {
    /// A monitor, whichever.
    pub fn mon() -> Self {
        Self { daemon: DaemonId { kind: DaemonKind::Mon, name: String::new() }, class: None }
    }

    /// An OSD with its class from the crush map.
    pub fn osd(map: &ClusterMap, osd: OsdId) -> Self {
        let device = i32::try_from(osd.0).ok().and_then(|id| map.crush.devices.get(&id));
        let class = device.and_then(|device| device.class).and_then(|class| map.crush.classes.get(&class).cloned());
        Self { daemon: DaemonId { kind: DaemonKind::Osd, name: osd.0.to_string() }, class }
    }
}

/// The value that holds for a reader, and the scope it was set for; absent scope = the default.
///
/// A stored text that no longer parses (written by another version) counts as absent: a rollback must start.
pub fn resolve(map: &ClusterMap, setting: &'static Setting, reader: &Reader) -> (Value, Option<Scope>) {
    let scopes = [
        Some(Scope::Daemon(reader.daemon.clone())),
        reader.class.clone().map(Scope::Class),
        Some(Scope::Kind(reader.daemon.kind)),
        Some(Scope::Global),
    ];
    for scope in scopes.into_iter().flatten() {
        let stored = map.settings.get(&(scope.clone(), setting.name.to_owned()));
        if let Some(value) = stored.and_then(|stored| setting.kind.parse(&stored.value).ok()) {
            return (value, Some(scope));
        }
    }
    (setting.default_value(), None)
}

impl Setting {
    /// Its default as a value.
    pub fn default_value(&self) -> Value {
        // A test parses every default; an empty text is what is left if it ever lied.
        self.kind.parse(self.default).unwrap_or(Value::Text(String::new()))
    }
}

/// Look-ups by the rules, which know their settings by name.
#[derive(Clone, Copy, Debug)]
pub struct MonSettings<'a>(pub &'a ClusterMap);

impl MonSettings<'_> {
    fn value(self, name: &str) -> Value {
        find(name).map_or(Value::Text(String::new()), |setting| resolve(self.0, setting, &Reader::mon()).0)
    }

    /// A whole number.
    pub fn number(self, name: &str) -> u64 {
        match self.value(name) {
            Value::Number(value) | Value::Bytes(value) => value,
            _ => 0,
        }
    }

    /// A share, in millionths.
    pub fn millionths(self, name: &str) -> u64 {
        match self.value(name) {
            Value::Ratio(millionths) => millionths.into(),
            _ => 0,
        }
    }

    /// A span of time.
    pub fn span(self, name: &str) -> std::time::Duration {
        match self.value(name) {
            Value::Span(span) => span,
            _ => std::time::Duration::ZERO,
        }
    }

    /// A word.
    pub fn text(self, name: &str) -> String {
        match self.value(name) {
            Value::Text(text) => text,
            _ => String::new(),
        }
    }

    /// Yes or no.
    pub fn switch(self, name: &str) -> bool {
        self.value(name) == Value::Switch(true)
    }
}

/// The reference page.
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Settings\n\nGenerated from `maps/src/settings/list.rs`. Set with `nacre config set SCOPE NAME VALUE`; the scope is `global`, a kind\nof daemon (`osd`), a device class (`class:ssd`) or a daemon (`osd.7`), the narrowest wins. `nacre config explain NAME`\nshows this text and where a value comes from.\n\n| name | type and range | default | read by | change | what it does |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for setting in SETTINGS {
        let users: Vec<&str> = setting.users.iter().map(|user| user.word()).collect();
        let default = if setting.default.is_empty() { "(empty)" } else { setting.default };
        page.push_str(&format!(
            "| `{}` | {} | `{default}` | {} | {} | {} |\n",
            setting.name,
            setting.kind,
            users.join(", "),
            if setting.live { "live" } else { "restart" },
            setting.text,
        ));
    }
    page
}
