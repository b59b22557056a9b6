//! The table is sound, values are read strictly, the narrowest scope wins.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::map::{SettingValue, Table};
use crate::sample;

#[test]
fn the_table_is_sorted_within_its_ranges_and_small_enough_to_know() {
    for pair in SETTINGS.windows(2) {
        assert!(group(pair[0].name) <= group(pair[1].name), "{} after {}", pair[0].name, pair[1].name);
        assert_ne!(pair[0].name, pair[1].name);
    }
    for setting in SETTINGS {
        assert!(setting.kind.parse(setting.default).is_ok(), "{}", setting.name);
        assert!(setting.text.ends_with('.') && !setting.users.is_empty(), "{}", setting.name);
        assert_eq!(setting.default_value().to_string(), setting.default, "{}", setting.name);
    }
    assert!(SETTINGS.len() <= 60);
}

fn group(name: &str) -> &str {
    name.split('.').next().unwrap()
}

#[test]
fn values_are_read_strictly() {
    let span = Kind::Span { min_ms: 100, max_ms: 3_600_000 };
    assert_eq!(span.parse("90s"), Ok(Value::Span(Duration::from_secs(90))));
    for wrong in ["", "10", "s", "-1s", "99ms", "61m", "1.5s", "99999999999999999999s", "1 year"] {
        assert!(span.parse(wrong).is_err(), "{wrong}");
    }
    let ratio = Kind::Ratio { min: 0, max: 1_000_000 };
    assert_eq!(ratio.parse("0.85"), Ok(Value::Ratio(850_000)));
    for wrong in ["", ".5", "1.1", "0.1234567", "1e-1", "-0"] {
        assert!(ratio.parse(wrong).is_err(), "{wrong}");
    }
    let refused = Kind::Bytes { min: 1024, max: 1 << 30 }.parse("2GiB").unwrap_err();
    assert_eq!(refused.to_string(), "`2GiB` is out of the question here: expected size from 1KiB to 1GiB");
}

#[test]
fn the_narrowest_scope_wins_and_rubbish_falls_back() {
    let mut map = sample::cluster(4, 1, 0, 1);
    let setting = find("osd.recovery.max_active").unwrap();
    let reader = Reader::osd(&map, OsdId(2));
    assert_eq!(reader.class.as_deref(), Some("ssd"));
    let mut value = |scope: Scope, text: &str| {
        let entry = SettingValue { value: text.into(), ..SettingValue::default() };
        assert!(map.settings.set((scope, setting.name.into()), Arc::new(entry)));
        resolve(&map, setting, &reader).0
    };
    assert_eq!(value(Scope::Global, "2"), Value::Number(2));
    assert_eq!(value(Scope::Kind(DaemonKind::Osd), "3"), Value::Number(3));
    assert_eq!(value(Scope::Class("ssd".into()), "4"), Value::Number(4));
    assert_eq!(value(Scope::Daemon("osd.3".parse().unwrap()), "5"), Value::Number(4));
    assert_eq!(value(Scope::Daemon("osd.2".parse().unwrap()), "6"), Value::Number(6));
    assert_eq!(value(Scope::Daemon("osd.2".parse().unwrap()), "rubbish"), Value::Number(4));
}

#[test]
fn a_name_that_does_not_exist_leads_to_its_likes() {
    assert!(like("osd.max_active").contains(&"osd.recovery.max_active"));
}

/// Written anew with `NACRE_BLESS=1`.
#[test]
fn the_reference_page_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/settings.md");
    if std::env::var_os("NACRE_BLESS").is_some() {
        std::fs::write(path, reference_page()).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(stored, reference_page(), "run this test once with NACRE_BLESS=1 and commit {path}");
}
