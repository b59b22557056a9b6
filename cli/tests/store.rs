//! `nacre store` as an operator meets it: each verb, and each thing a hand does wrong.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const CLUSTER: &str = "00112233-4455-6677-8899-aabbccddeeff";

fn nacre(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nacre")).arg("store").args(args).output().unwrap()
}

/// What a verb that must go well says.
fn good(args: &[&str]) -> String {
    let output = nacre(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    assert_eq!(stderr, "", "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a verb that must fail says, and that it is one line of plain words.
fn bad(args: &[&str], said: &[&str]) {
    let output = nacre(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{args:?}: {:?} {stderr}", output.status);
    for part in said {
        assert!(stderr.contains(part), "{args:?} does not say {part:?}: {stderr}");
    }
    assert!(!stderr.contains("panicked") && !stderr.contains("Error {"), "{args:?}: {stderr}");
}

struct Store {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Store {
    fn new() -> Store {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = Store { folder, path };
        let said =
            good(&["format", store.path(), "--size", "16MiB", "--journal", "4M", "--cluster", CLUSTER, "--osd", "3"]);
        assert!(said.contains("osd.3") && said.contains(CLUSTER), "{said}");
        store
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn beside(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Puts a collection with one object into it, by way of an import: no verb writes objects.
    fn fill(&self) {
        let file = self.beside("given.export");
        std::fs::write(&file, export(&[7; 20_000])).unwrap();
        assert!(good(&["import", self.path(), &file]).contains("read pg 2.1f: 1 objects, 19.5 KiB"));
    }

    fn json(&self, verb: &str) -> serde_json::Value {
        serde_json::from_str(&good(&[verb, self.path(), "--json"])).unwrap()
    }

    /// Flips a bit of a file of the store.
    fn flip(&self, file: &str, at: u64) {
        let file = std::fs::File::options().read(true).write(true).open(self.path.join(file)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
}

/// An export of pg 2.1f with one object, made by hand from the page on formats.
fn export(data: &[u8]) -> Vec<u8> {
    fn number(number: u64) -> [u8; 8] {
        number.to_le_bytes()
    }
    fn blob(bytes: &[u8]) -> Vec<u8> {
        [&number(bytes.len() as u64), bytes].concat()
    }
    let object = [
        &b"O"[..],
        &number(0x1f),
        &number(u64::MAX),
        &number(data.len() as u64),
        &blob(b""),
        &blob(b"pearl"),
        &blob(b""),
    ];
    let frames = [
        [&b"C"[..], &number(2), &number(0x1f)].concat(),
        [&b"M"[..], &blob(b"info"), &blob(b"one")].concat(),
        object.concat(),
        [&b"D"[..], &number(0), data].concat(),
        [&b"X"[..], &blob(b"colour"), &blob(b"white")].concat(),
        [&b"K"[..], &blob(b"key"), &blob(b"value")].concat(),
        [&b"E"[..], &number(6)].concat(),
    ];
    let mut out = [&b"NacreExp"[..], &1u32.to_le_bytes()].concat();
    for body in frames {
        out.extend((body.len() as u32).to_le_bytes());
        out.extend(crc32fast::hash(&body).to_le_bytes());
        out.extend(body);
    }
    out
}

#[test]
fn a_store_is_made_looked_at_filled_checked_and_moved() {
    let store = Store::new();
    let info = store.json("info");
    assert_eq!(info["cluster"], CLUSTER);
    assert_eq!((&info["osd"], &info["format"], &info["in_use"]), (&3.into(), &1.into(), &false.into()));
    assert_eq!((&info["size"], &info["journal"]), (&(16 << 20).into(), &(4 << 20).into()));
    assert_eq!((&info["used"], &info["fullness"], &info["collections"]), (&0.into(), &"ok".into(), &0.into()));

    store.fill();
    assert_eq!(store.json("info")["used"], 20_480);
    assert!(
        good(&["info", store.path()]).contains("used 20.0 KiB of 15 MiB")
            || good(&["info", store.path()]).contains("1 collections")
    );
    assert!(good(&["check", store.path()]).contains("ok: 1 collections, 1 objects, 5 blocks of data read"));
    let check = store.json("check");
    assert_eq!(
        (&check["ok"], &check["objects"], &check["problems"]),
        (&true.into(), &1.into(), &serde_json::json!([]))
    );

    // Out of one store, into another, out again: the same bytes.
    let (first, second) = (store.beside("first"), store.beside("second"));
    assert!(good(&["export", store.path(), "2.1f", &first]).contains("wrote pg 2.1f: 1 objects"));
    let other = Store::new();
    good(&["import", other.path(), &first]);
    good(&["export", other.path(), "2.1f", &second]);
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
    let piped = nacre(&["export", other.path(), "2.1f", "-"]);
    assert_eq!(piped.stdout, std::fs::read(&first).unwrap());
    assert_eq!(store.json("repair")["ok"], true);
    bad(&["grow", store.path()], &["16777216 bytes of block space already"]);
    assert!(good(&["grow", store.path(), "--size", "24MiB"]).contains("24 MiB"));
    assert_eq!(store.json("info")["size"], 24 << 20);
    assert_eq!(store.json("check")["ok"], true);
}

#[test]
fn what_is_no_store_is_called_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for verb in ["info", "check", "repair"] {
        bad(&[verb, path], &[path, "no store"]);
        bad(&[verb, "/nowhere/at/all"], &["/nowhere/at/all", "no store"]);
    }
    // A file that is too short, and one of something else.
    std::fs::write(folder.path().join("block"), b"short").unwrap();
    bad(&["info", path], &[path, "no superblock", "nacre store format"]);
    std::fs::write(folder.path().join("block"), vec![b'x'; 1 << 20]).unwrap();
    bad(&["info", path], &[path, "no superblock"]);
    assert!(folder.path().join("block").exists() && !folder.path().join("kv").exists(), "nothing was made");
}

#[test]
fn a_store_is_not_made_over_another_nor_too_small() {
    let store = Store::new();
    store.fill();
    let again = ["format", store.path(), "--cluster", CLUSTER, "--osd", "4"];
    bad(&again, &[store.path(), "holds a store already"]);
    // The database is gone, the data still there.
    std::fs::remove_dir_all(store.path.join("kv")).unwrap();
    let len = || std::fs::metadata(store.path.join("block")).unwrap().len();
    let before = len();
    bad(&again, &["holds a store already", "wipe"]);
    assert_eq!(len(), before, "what is refused changes nothing");
    let small = store.beside("small");
    bad(&["format", &small, "--size", "64K", "--cluster", CLUSTER, "--osd", "4"], &["least"]);
    bad(&["format", &small, "--journal", "64K", "--cluster", CLUSTER, "--osd", "4"], &["journal", "1 MiB"]);
    assert!(!Path::new(&small).join("block").exists(), "what could not be finished is cleared away");
    bad(&["format", &small, "--size", "much", "--cluster", CLUSTER, "--osd", "4"], &["100GiB"]);
    bad(&["format", &small, "--cluster", "rome", "--osd", "4"], &["rome"]);
    bad(&["format", &small, "--osd", "4"], &["--cluster"]);
}

#[test]
fn truncated_and_mixed_up_files_are_named() {
    let cut = |file: &str, len: u64, said: &[&str]| {
        let store = Store::new();
        let file = std::fs::File::options().write(true).open(store.path.join(file)).unwrap();
        file.set_len(len).unwrap();
        for verb in ["info", "check", "repair"] {
            bad(&[verb, store.path()], said);
        }
    };
    cut("block", 8 << 20, &["block space", "shorter"]);
    cut("block", 0, &["no superblock"]);
    cut("journal", 0, &["journal"]);
    cut("journal", 1 << 20, &["journal", "shorter"]);
    let (one, two) = (Store::new(), Store::new());
    for (part, said) in [("journal", "journal belongs to another store"), ("kv", "database belongs to another store")] {
        std::fs::rename(one.path.join(part), one.beside("aside")).unwrap();
        bad(&["check", one.path()], &[part]);
        std::os::unix::fs::symlink(two.path.join(part), one.path.join(part)).unwrap();
        bad(&["check", one.path()], &[said]);
        std::fs::remove_file(one.path.join(part)).unwrap();
        std::fs::rename(one.beside("aside"), one.path.join(part)).unwrap();
    }
    good(&["check", one.path()]);
    // One copy of the superblock is enough, none is not, and a newer format is named.
    one.flip("block", 20);
    good(&["check", one.path()]);
    one.flip("block", 4096 + 20);
    bad(&["check", one.path()], &["both copies of its superblock are damaged"]);
    two.flip("block", 8);
    two.flip("block", 4096 + 8);
    bad(&["check", two.path()], &["format 0"]);
}

#[test]
fn damage_is_found_named_and_only_what_is_provable_is_repaired() {
    let store = Store::new();
    store.fill();
    let block = std::fs::read(store.path.join("block")).unwrap();
    let at = block.windows(64).position(|bytes| bytes == [7; 64]).unwrap();
    store.flip("block", at as u64 + 5000);
    let output = nacre(&["check", store.path()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("object pearl in pg 2.1f: data at byte 4096 fails its checksum"), "{said}");
    assert!(good(&["check", store.path(), "--metadata-only"]).contains("ok"));
    let file = store.beside("broken.export");
    bad(&["export", store.path(), "2.1f", &file], &["pearl", "corrupt at byte 4096"]);
    assert!(!Path::new(&file).exists(), "half an export is no export");
}

#[test]
fn an_import_is_whole_or_not_there() {
    let store = Store::new();
    let file = store.beside("some.export");
    let whole = export(&[1; 9000]);
    for (bytes, said) in
        [(&whole[..whole.len() - 9], "early"), (&whole[..40], "early"), (&b"pearls before"[..], "no export")]
    {
        std::fs::write(&file, bytes).unwrap();
        bad(&["import", store.path(), &file], &["some.export", said]);
        assert_eq!(store.json("info")["collections"], 0);
    }
    let mut flipped = whole.clone();
    flipped[200] ^= 1;
    std::fs::write(&file, flipped).unwrap();
    bad(&["import", store.path(), &file], &["checksum"]);
    std::fs::write(&file, &whole).unwrap();
    good(&["import", store.path(), &file]);
    bad(&["import", store.path(), &file], &["2.1f", "already"]);
    bad(&["import", store.path(), "/nowhere"], &["/nowhere"]);
    bad(&["export", store.path(), "2.1f", &file], &["some.export", "exists"]);
    bad(&["export", store.path(), "7.0", "-"], &["no collection for pg 7.0"]);
    bad(&["export", store.path(), "seven", "-"], &["seven"]);
}

#[test]
fn a_store_in_use_says_so_and_still_tells_whose_it_is() {
    let store = Store::new();
    store.fill();
    // An import that waits for its input has the store open.
    let mut child = Command::new(env!("CARGO_BIN_EXE_nacre"))
        .args(["store", "import", store.path(), "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut tries, mut info) = (0, store.json("info"));
    while info["in_use"] == false {
        tries += 1;
        assert!(tries < 200, "the import never opens the store");
        info = store.json("info");
    }
    assert_eq!((&info["osd"], &info["cluster"]), (&3.into(), &CLUSTER.into()));
    assert!(good(&["info", store.path()]).contains("in use by another process"));
    bad(&["check", store.path()], &[store.path(), "in use by another process"]);
    bad(&["format", store.path(), "--cluster", CLUSTER, "--osd", "4"], &["holds a store already"]);
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    good(&["check", store.path()]);
}

#[test]
fn the_bench_speaks_the_keys_it_promises_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let said = good(&["bench", path, "--time", "1", "--size", "16MiB", "--only", "write-4k-qd16", "--json"]);
    let row: serde_json::Value = serde_json::from_str(said.trim_end()).unwrap();
    let keys: Vec<_> = row.as_object().unwrap().keys().cloned().collect();
    let mut want = [
        "workload",
        "iops",
        "mib_s",
        "cpu_us_per_op",
        "flushes_per_op",
        "write_amplification",
        "rss_mib",
        "device_limit",
    ];
    want.sort_unstable();
    let mut keys_sorted = keys.clone();
    keys_sorted.sort_unstable();
    assert_eq!(keys_sorted, want);
    assert_eq!(row["workload"], "write-4k-qd16");
    assert!(want.iter().filter(|key| **key != "workload").all(|key| row[*key].as_f64().unwrap() > 0.0), "{row}");
    assert_eq!(std::fs::read_dir(path).unwrap().count(), 0);
    bad(&["bench", path, "--only", "raed"], &["raed", "read-4k"]);
    bad(&["bench", "/nowhere"], &["/nowhere", "no folder"]);
    assert_eq!(std::fs::read_dir(path).unwrap().count(), 0);
}

#[test]
fn help_of_each_verb_fits_80_columns() {
    for verb in ["format", "info", "check", "repair", "grow", "export", "import", "bench"] {
        let said = good(&[verb, "--help"]);
        let long: Vec<&str> = said.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty(), "{verb}: {long:#?}");
    }
}
