//! Settings: given a value, given back their default.

use std::sync::Arc;

use nacre_proto::ids::Stamp;

use super::{Asker, Outcome, RuleError, refused, set, wrong};
use crate::increment::Draft;
use crate::map::{ClusterMap, DaemonKind, Scope, SettingValue, Table};
use crate::settings::{MonSettings, Setting, find, like};

fn known(name: &str) -> Result<&'static Setting, RuleError> {
    find(name).ok_or_else(|| {
        let near = like(name);
        let hint = match near.is_empty() {
            true => "`nacre config ls` lists them".to_owned(),
            false => format!("perhaps {}", near.join(", ")),
        };
        RuleError::NoSuch { what: "setting", name: name.to_owned(), hint }
    })
}

fn check_scope(setting: &Setting, scope: &Scope) -> Result<(), RuleError> {
    let kind = match scope {
        Scope::Global => return Ok(()),
        Scope::Kind(kind) => *kind,
        Scope::Class(_) => DaemonKind::Osd,
        Scope::Daemon(daemon) => daemon.kind,
    };
    if setting.users.contains(&kind) {
        return Ok(());
    }
    let users: Vec<&str> = setting.users.iter().map(|user| user.word()).collect();
    Err(wrong("scope", scope, format!("`global` or one of {}: nobody else reads {}", users.join(", "), setting.name)))
}

/// Gives a setting a value.
pub fn set_value(
    map: &ClusterMap,
    scope: &Scope,
    name: &str,
    value: &str,
    asker: &Asker,
) -> Result<Outcome, RuleError> {
    let setting = known(name)?;
    check_scope(setting, scope)?;
    // Stored as the type prints it, so that equal values are equal texts.
    let parsed = setting.kind.parse(value).map_err(|source| RuleError::Setting { name: setting.name, source })?;
    let key = (scope.clone(), name.to_owned());
    if map.settings.get(&key).is_some_and(|stored| stored.value == parsed.to_string()) {
        return Ok(Outcome::already(format!("{name} is {parsed} for {scope} already")));
    }
    let mut draft = Draft::of(map, asker.now);
    let text = format!("{name} is {parsed} for {scope}");
    let stored = SettingValue { value: parsed.to_string(), since: asker.now, by: asker.who.clone() };
    set(&mut draft.settings, key, Arc::new(stored));
    check_together(&draft)?;
    let outcome = Outcome::of(draft, text);
    Ok(if setting.live { outcome } else { outcome.note("daemons use it from their next start on") })
}

/// What only makes sense together.
fn check_together(map: &ClusterMap) -> Result<(), RuleError> {
    let share = |name: &str| MonSettings(map).millionths(name);
    let (near, backfill, full) =
        (share("osd.nearfull.ratio"), share("osd.backfillfull.ratio"), share("osd.full.ratio"));
    if near > backfill || backfill > full {
        return Err(refused(
            "osd.nearfull.ratio, osd.backfillfull.ratio and osd.full.ratio must not fall",
            "set the one that is in the way first",
        ));
    }
    Ok(())
}

/// Gives a setting back its default.
pub fn remove(map: &ClusterMap, scope: &Scope, name: &str, now: Stamp) -> Result<Outcome, RuleError> {
    let mut draft = Draft::of(map, now);
    // Also names of another version: what nobody knows must be removable.
    if !draft.settings.remove(&(scope.clone(), name.to_owned())) {
        return Ok(Outcome::already(format!("{name} is not set for {scope}")));
    }
    check_together(&draft)?;
    Ok(Outcome::of(draft, format!("{name} is no longer set for {scope}")))
}
