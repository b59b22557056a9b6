//! `nacre crush`: the verbs that change a map, and the check of a map, as an operator types them.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A folder with one golden map in it, to change.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn with(golden: &str) -> Desk {
        let folder = TempDir::new().unwrap();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/crush");
        std::fs::copy(fixtures.join(golden), folder.path().join("map")).unwrap();
        Desk { folder }
    }

    /// Types a line of `nacre crush`; `map` is the golden map. Exit code, standard output, standard error.
    fn types(&self, line: &str) -> (Option<i32>, String, String) {
        let args: Vec<&str> = line.split_whitespace().collect();
        let output = Command::new(env!("CARGO_BIN_EXE_nacre"))
            .arg("crush")
            .args(args)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// The same for a line that must go well without a word of complaint; what it prints.
    fn does(&self, line: &str) -> String {
        let (code, stdout, stderr) = self.types(line);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{line}");
        stdout
    }

    /// The same for a line that must fail; what it complains.
    fn refuses(&self, line: &str) -> String {
        let (code, stdout, stderr) = self.types(line);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{line}");
        stderr
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[test]
fn a_host_comes_and_goes_and_the_map_is_as_before() {
    // given a map of three hosts
    let desk = Desk::with("small3.crush.txt");
    let before = desk.does("decompile map");
    // when a fourth is added with a device
    let told = desk.does("add-bucket map h3 host --in default -o new");
    assert_eq!(told, "new: added host h3 (id -5) to default\nwhat would move: nacre crush compare map new\n");
    assert_eq!(desk.does("add-device new 6 1.5 --in h3 -o new"), "new: added osd.6 with weight 1.50000 to h3\n");
    // then it stands in the tree, and data moves to it alone
    let drawn = desk.does("tree new --below h3");
    assert_eq!(
        drawn,
        "ID  CLASS   WEIGHT  TYPE  NAME\n-5         1.50000  host  h3\n 6         1.50000  osd   └─ osd.6\n"
    );
    assert!(desk.does("compare map new --rule rep_host --inputs 5000").contains("osd.6"));
    // when it is removed again
    assert_eq!(desk.does("remove new h3 --tree -o new"), "new: removed h3 with 1 device\n");
    // then nothing of it is left
    let after = desk.does("decompile new");
    assert_eq!(after, before);
}

#[test]
fn the_form_of_the_map_is_kept_unless_another_is_asked_for() {
    let desk = Desk::with("small3.crush.bin");
    desk.does("reweight map osd.1 3 -o binary");
    desk.does("reweight map osd.1 3 -o text --form text");
    let (binary, text) = (std::fs::read(desk.file("binary")).unwrap(), std::fs::read(desk.file("text")).unwrap());
    assert!(binary.starts_with(&[0, 0, 1, 0]));
    assert!(text.starts_with(b"# begin crush map"));
    assert_eq!(desk.does("decompile binary").as_bytes(), text);
    // to standard output goes the map and nothing else
    assert_eq!(desk.does("reweight map osd.1 3 -o - --form text").as_bytes(), text);
}

#[test]
fn weights_of_a_bucket_are_scaled_or_set_for_each() {
    let desk = Desk::with("small3.crush.txt");
    assert_eq!(desk.does("reweight map h0 6 -o new").lines().next(), Some("new: h0 weighs 6.00000"));
    assert!(desk.does("tree new").contains(" 1          4.00000  osd   │  └─ osd.1\n"));
    let told = desk.does("reweight map default 1 --each -o new");
    assert!(told.starts_with("new: weight 1.00000 for each of 6 devices below default\n"), "{told}");
    assert!(desk.does("tree new").contains("-4         6.00000  root  default\n"));
}

#[test]
fn devices_change_class_and_a_rule_takes_them() {
    let desk = Desk::with("small3.crush.txt");
    desk.does("set-class map ssd osd.0 osd.2 osd.4 -o new");
    assert!(desk.does("rule create new fast --class ssd -o new").contains("created rule fast (id 2)"));
    // then the rule uses one device of each host, and finds three for each input
    let told = desk.does("check new --rule fast");
    assert_eq!(told, "new: ok: 1 rule finds 3 devices for each of 4096 inputs\n");
    let mapped = desk.does("test new --rule fast --num-rep 3 --show-mappings --x 5");
    let mut osds: Vec<&str> = mapped.trim_end().trim_end_matches(']').rsplit('[').next().unwrap().split(',').collect();
    osds.sort_unstable();
    assert_eq!(osds, ["0", "2", "4"]);
    // and it can be taken away again
    desk.does("rule remove new fast -o new");
    assert!(desk.refuses("test new --rule fast --show-mappings").contains("has no rule fast"));
}

#[test]
fn a_change_that_cannot_be_leaves_no_file() {
    let desk = Desk::with("small3.crush.txt");
    for (line, reason) in [
        ("remove map h0 -o new", "h0 still holds 2 items"),
        ("remove map default --tree -o new", "is in use: rule rep_host takes it"),
        ("move map default --in h0 -o new", "h0 lies below default, so default cannot go below it"),
        ("add-bucket map h9 hots -o new", "there is no type hots; did you mean host?"),
        ("add-device map -1 1 --in h0 -o new", "-1 is no id of a device: they go from 0 to 16777215"),
        ("add-device map 3 1 --in h0 -o new", "device 3 is in the map already"),
        ("add-bucket map h0 host -o new", "the name h0 is taken"),
        ("rename map osd.9 osd.8 -o new", "there is no device or bucket osd.9"),
        ("rule create map r --failure-domain hots -o new", "did you mean host?"),
        ("tunables map --profile jewl -o new", "did you mean jewel?"),
        ("tunables map --set choose_total_tries many -o new", "a tunable is a whole number"),
    ] {
        let told = desk.refuses(line);
        assert!(told.starts_with("error: ") && told.contains(reason), "{line}: {told}");
        assert!(!desk.file("new").exists(), "{line}");
    }
}

#[test]
fn a_number_out_of_range_is_told_its_range() {
    let desk = Desk::with("small3.crush.txt");
    for (line, reason) in [
        ("add-device map 9 -1 --in h0 -o new", "a weight goes from 0 to 65535"),
        ("reweight map osd.1 -0.5 -o new", "a weight goes from 0 to 65535"),
        ("reweight map osd.1 65536 -o new", "a weight goes from 0 to 65535"),
        ("test map --show-mappings --weight 1 -0.5", "--weight 1 -0.5: a reweight goes from 0 (out) to 1"),
        ("check map --inputs 0", "0 is not in 1.."),
        ("compare map map --weight 6 0", "--weight 6: neither map has such a device"),
        // Another's reweight is no device.
        ("compare map map --weight 6 0 --weight 5 6", "--weight 6: neither map has such a device"),
    ] {
        let (code, stdout, stderr) = desk.types(line);
        assert!(code.is_some_and(|code| code > 0) && stdout.is_empty(), "{line}: {stdout}");
        assert!(stderr.contains(reason), "{line}: {stderr}");
    }
    assert!(!desk.file("new").exists());
}

#[test]
fn a_result_that_cannot_be_written_is_told_and_leaves_nothing_behind() {
    let desk = Desk::with("small3.crush.txt");
    let told = desk.refuses("rename map h0 h9 -o nowhere/new");
    assert!(told.starts_with("error: writing nowhere/new: No such file or directory"), "{told}");
    assert_eq!(std::fs::read_dir(desk.folder.path()).unwrap().count(), 1);
}

#[test]
fn check_says_which_inputs_map_short_and_why() {
    let desk = Desk::with("small3.crush.bin");
    assert_eq!(desk.does("check map"), "map: ok: 2 rules find 3 devices for each of 4096 inputs\n");
    // when a host is out, no third can be found
    let (code, stdout, _) = desk.types("check map --rule ec_host --inputs 2 --weight 4 0 --weight 5 0");
    let expected = "\
rule ec_host, 3 devices each: 2 of 2 inputs come out short
  because rule ec_host wants 3 hosts below root default, there are 2 (1 more hold no weight or no device that is in)
  input 0 gives [0,-,3]
  input 1 gives [0,-,3]
map: 1 of 1 rule short
";
    assert_eq!((code, stdout.as_str()), (Some(1), expected));
    let (code, stdout, _) = desk.types("check map --rule 1 --inputs 2 --num-rep 4 --json");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &report["ok"], &report["rules"][0]["short"]), (Some(1), &false.into(), &2.into()));
    assert_eq!(report["flaws"], serde_json::json!([]));
}

#[test]
fn check_finds_a_bucket_in_two_places() {
    let desk = Desk::with("small3.crush.txt");
    let text = std::fs::read_to_string(desk.file("map")).unwrap();
    let other = "root other {\n\tid -9\n\talg straw2\n\thash 0\n\titem h0 weight 3.000\n}\n\n# rules\n";
    std::fs::write(desk.file("map"), text.replacen("# rules\n", other, 1)).unwrap();
    let (code, stdout, stderr) = desk.types("check map");
    assert_eq!((code, stderr.as_str()), (Some(1), ""));
    assert!(stdout.starts_with("error: "), "{stdout}");
    assert!(stdout.contains("h0 is in both"), "{stdout}");
    assert!(stdout.ends_with("map: broken; its rules were not tried\n"), "{stdout}");
    // and the tree draws what is shared once, and says so the second time
    assert!(desk.does("tree map").contains("h0 (again: drawn above)"));
}
