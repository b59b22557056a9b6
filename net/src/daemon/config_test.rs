//! Settings: which layer wins, what is refused, what changes when.

use super::*;

crate::options! {
    /// Of a test.
    struct TestOptions {
        /// Memory it may use.
        /// All of it.
        memory: Size = Size::mib(256), live, in Size::mib(64) => Size::mib(4096);
        /// Where its data is.
        data: PathBuf = "/var/lib/nacre".into(), restart, was ["data_dir"];
        /// How long it waits.
        patience: Duration = Duration::from_secs(5), live;
        /// Where it is measured.
        metrics: Option<SocketAddr> = None, restart;
        /// Its friends.
        friends: Vec<String> = Vec::new(), live;
    }
}

const FILE: &str = r#"
[all]
patience = "7s"
somebody_elses = 3

[osd]
memory = "128MiB"
data_dir = "/srv"
friends = ["a", "b"]

[osd.3]
memory = "512MiB"
typo = true
"#;

fn layers(id: &str) -> Layers {
    let mut layers = Layers::default();
    layers.file(FILE, "nacre.toml", "osd", id).unwrap();
    layers
}

fn source(settings: &Settings<TestOptions>, name: &str) -> String {
    settings.show().into_iter().find(|s| s.name == name).unwrap().source.to_string()
}

#[test]
fn the_nearest_layer_wins_and_is_named() {
    let mut all = layers("3");
    all.set_cluster(
        [("patience".to_owned(), "1s".to_owned()), ("metrics".to_owned(), "127.0.0.1:1".to_owned())].into(),
    );
    let settings = Settings::<TestOptions>::new(all.clone()).unwrap();
    let now = settings.now();
    assert_eq!((now.memory, &now.data, now.patience), (Size::mib(512), &PathBuf::from("/srv"), Duration::from_secs(7)));
    assert_eq!(now.friends, ["a", "b"]);
    assert_eq!(source(&settings, "memory"), "file nacre.toml [osd.3]");
    assert_eq!(source(&settings, "data"), "file nacre.toml [osd]");
    assert_eq!(source(&settings, "patience"), "file nacre.toml [all]");
    assert_eq!(source(&settings, "metrics"), "cluster");

    all.environment("osd", "NACRE_MEMORY", "100MiB".into());
    all.environment("osd", "NACRE_OSD_MEMORY", "200MiB".into());
    all.environment("osd", "NACRE_MEMORY", "300MiB".into());
    all.environment("osd", "PATH", "/bin".into());
    let settings = Settings::<TestOptions>::new(all.clone()).unwrap();
    assert_eq!(settings.now().memory, Size::mib(200));
    assert_eq!(source(&settings, "memory"), "environment NACRE_OSD_MEMORY");
    all.flag("memory=64MiB").unwrap();
    let settings = Settings::<TestOptions>::new(all).unwrap();
    assert_eq!(source(&settings, "memory"), "flag");
    settings.set_runtime("memory", Some("1GiB")).unwrap();
    assert_eq!((settings.now().memory, source(&settings, "memory")), (Size::mib(1024), "runtime".into()));
    settings.set_runtime("memory", None).unwrap();
    assert_eq!(settings.now().memory, Size::mib(64));
    assert!(render(&settings.show()).contains("memory    64MiB        flag\n"), "{}", render(&settings.show()));
    assert_eq!(to_json(&settings.show())["memory"]["source"], "flag");
}

#[test]
fn mistakes_show() {
    assert_eq!(layers("3").unknown(&TestOptions::specs()), ["typo (nacre.toml [osd.3])"]);
    let mut bad = layers("4");
    bad.flag("memory=1MiB").unwrap();
    let error = Settings::<TestOptions>::new(bad).unwrap_err().to_string();
    assert_eq!(error, "memory = \"1MiB\" (from flag): it must be from 64MiB to 4GiB");
    let mut bad = layers("4");
    bad.flag("patience=5 parsecs").unwrap();
    assert!(Settings::<TestOptions>::new(bad).unwrap_err().to_string().contains("a time such as"));
    assert!(layers("4").flag("memory").is_err());
    assert!(Layers::default().file("[osd", "x", "osd", "1").is_err());
}

#[test]
fn what_the_cluster_says_changes_live_settings_and_waits_for_the_rest() {
    let settings = Settings::<TestOptions>::new(Layers::default()).unwrap();
    let mut watch = settings.watch();
    let say = |pairs: &[(&str, &str)]| {
        settings.set_cluster(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    };
    assert_eq!(say(&[("patience", "9s"), ("data", "/mnt")]).unwrap(), ["data"]);
    assert!(watch.has_changed().unwrap());
    assert_eq!(watch.borrow_and_update().patience, Duration::from_secs(9));
    assert!(say(&[("patience", "soon")]).is_err());
    assert_eq!(settings.now().patience, Duration::from_secs(9), "refused: the old value stays");
    assert!(matches!(settings.set_runtime("data", Some("/x")), Err(ConfigError::NotLive("data"))));
    assert!(matches!(settings.set_runtime("colour", Some("red")), Err(ConfigError::Unknown(_))));
    say(&[]).unwrap();
    assert_eq!(settings.now().patience, Duration::from_secs(5));
}

#[test]
fn a_name_with_dots_or_dashes_is_the_same_name() {
    crate::options! {
        /// Of a test.
        struct Dotted {
            /// How much is logged.
            log_level: String = "info".into(), live;
        }
    }
    let mut layers = Layers::default();
    layers.set_cluster([("log.level".to_owned(), "warn".to_owned())].into());
    let settings = Settings::<Dotted>::new(layers.clone()).unwrap();
    assert_eq!(settings.now().log_level, "warn");
    settings.set_runtime("log.level", Some("debug")).unwrap();
    assert_eq!(settings.now().log_level, "debug");
    layers.flag("log-level=error").unwrap();
    assert_eq!(Settings::<Dotted>::new(layers).unwrap().now().log_level, "error");
}

#[test]
fn values_read_what_they_print() {
    for text in ["0ms", "500ms", "90s", "10min", "1d"] {
        assert_eq!(Duration::parse(text).unwrap().print(), text);
    }
    for text in ["0B", "1KiB", "300MiB", "5TiB", "1025B"] {
        assert_eq!(Size::parse(text).unwrap().print(), text);
    }
    for text in ["", "5", "5m", "-1s", "99999999999999999999s", "300000000000d"] {
        assert!(Duration::parse(text).is_err(), "{text}");
    }
    assert!(reference::<TestOptions>("test").contains("| `memory` | `256MiB` | a size such as 64KiB, 256MiB, 4GiB, 64MiB to 4GiB | live | Memory it may use. All of it. |"));
}
