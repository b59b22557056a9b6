//! `nacre crush` as an operator types it, against what Ceph's own tools gave.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/crush")
}

/// Runs `nacre crush` among the golden maps.
fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nacre")).arg("crush").args(args).current_dir(fixtures()).output().unwrap()
}

/// Standard output of a run that must go well.
fn crush(args: &[&str]) -> String {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The message of a run that must fail.
fn complaint(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&crush(args)).unwrap()
}

/// The names of all golden maps.
fn maps() -> Vec<String> {
    let files = std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut maps: Vec<String> = files.filter_map(|name| Some(name.strip_suffix(".crush.txt")?.to_owned())).collect();
    maps.sort();
    maps
}

#[test]
fn mappings_are_those_of_crushtool_line_by_line() {
    let index = std::fs::read_to_string(fixtures().join("INDEX.tsv")).unwrap();
    let mut count = 0;
    for row in index.lines().skip(1) {
        // given the line that was typed into crushtool
        let file = row.split('\t').next().unwrap();
        let line = row.split('\t').next_back().unwrap().strip_prefix("crushtool ").unwrap();
        // every other time with the map as text
        let line = if count % 2 == 0 { line.to_owned() } else { line.replace(".crush.bin", ".crush.txt") };
        let args: Vec<&str> = std::iter::once("test").chain(line.split(' ')).collect();
        // then we print what it printed
        let mut golden = String::new();
        let packed = std::fs::File::open(fixtures().join(file)).unwrap();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut golden).unwrap();
        assert!(crush(&args) == golden, "{file} differs: nacre crush {}", args.join(" "));
        count += 1;
    }
    println!("{count} golden outputs equal");
    assert!(count > 100);
}

#[test]
fn counts_are_printed_as_crushtool_prints_them() {
    let args = ["test", "small3.crush.bin", "--min-x", "0", "--max-x", "9", "--rule", "rep_host", "--num-rep", "3"];
    let with = |more: &[&str]| crush(&[&args[..], &["--weight", "4", "0", "--weight", "5", "0.1"], more].concat());
    let expected = "\
rule 0 (rep_host), x = 0..9, numrep = 3..3
rule 0 (rep_host) num_rep 3 result size == 2:\t10/10
  device 0:\t\t stored : 4\t expected : 7.31709
  device 1:\t\t stored : 6\t expected : 7.31709
  device 2:\t\t stored : 3\t expected : 7.31709
  device 3:\t\t stored : 7\t expected : 7.31709
";
    assert_eq!(with(&["--show-utilization"]), expected);
    let all = format!(
        "{expected}  device 4:\t\t stored : 0\t expected : 0\n  device 5:\t\t stored : 0\t expected : 0.731642\n"
    );
    assert_eq!(with(&["--show-utilization-all"]), all);
    assert_eq!(
        with(&["--show-statistics"]),
        expected.lines().take(2).map(|line| format!("{line}\n")).collect::<String>()
    );
    assert!(with(&["--show-bad-mappings"]).starts_with("bad mapping rule 0 x 0 num_rep 3 result [0,3]\n"));
}

#[test]
fn counts_equal_those_of_the_crushtool_that_is_installed() {
    let Ok(found) = Command::new("crushtool").arg("--version").output() else {
        println!("no crushtool here, nothing compared");
        return;
    };
    if !found.status.success() {
        println!("no crushtool that runs, nothing compared");
        return;
    }
    let folder = TempDir::new().unwrap();
    for map in maps() {
        let map = format!("{map}.crush.bin");
        for options in [
            "--show-utilization-all --show-bad-mappings --min-x 0 --max-x 50",
            "--num-rep 5 --show-utilization --weight 1 0.3 --weight 4 0 --min-x 0 --max-x 300",
            "--num-rep 3 --show-statistics --show-mappings --pool-id 7 --min-x 0 --max-x 30",
        ] {
            let options: Vec<&str> = options.split(' ').collect();
            // Into a file: crushtool drops the end of what it writes into a pipe.
            let file = folder.path().join("out");
            let to_file = std::fs::File::create(&file).unwrap();
            let status = Command::new("crushtool")
                .args([&["-i", map.as_str(), "--test"], &options[..]].concat())
                .current_dir(fixtures())
                .stdout(to_file)
                .stderr(Stdio::null())
                .status();
            assert!(status.unwrap().success());
            let theirs = std::fs::read_to_string(&file).unwrap();
            assert!(crush(&[&["test", &map], &options[..]].concat()) == theirs, "{map} {options:?}");
        }
    }
}

#[test]
fn json_of_test_carries_counts_and_mappings() {
    let report = json(&[
        "test",
        "small3.crush.txt",
        "--rule",
        "ec_host",
        "--num-rep",
        "3",
        "--x",
        "3",
        "--weight",
        "osd.4",
        "0",
        "--weight",
        "5",
        "0",
        "--show-mappings",
        "--show-utilization",
        "--json",
    ]);
    let report = &report[0];
    assert_eq!(report["name"], "ec_host");
    assert_eq!((&report["inputs"], &report["bad"], &report["sizes"]), (&json!(1), &json!(1), &json!({ "3": 1 })));
    // the third host is out, so one of three places is a hole
    let osds = report["mappings"][0]["osds"].as_array().unwrap();
    assert_eq!(osds.iter().filter(|osd| osd.is_null()).count(), 1);
    assert_eq!(report["devices"].as_array().unwrap().len(), 2);
    assert_eq!(report["bad_mappings"], Value::Null);
}

#[test]
fn test_says_what_is_not_in_the_map() {
    assert_eq!(
        complaint(&["test", "small3.crush.bin", "--rule", "7", "--show-mappings"]),
        "error: small3.crush.bin has no rule 7; it has 0 (rep_host), 1 (ec_host)\n"
    );
    assert_eq!(
        complaint(&["test", "small3.crush.bin", "--weight", "77", "0", "--show-mappings"]),
        "error: --weight 77: small3.crush.bin has no such device; its ids go up to 5\n"
    );
    assert_eq!(
        complaint(&["test", "small3.crush.bin", "--weight", "1", "2", "--show-mappings"]),
        "error: --weight 1 2: a reweight goes from 0 (out) to 1\n"
    );
    assert_eq!(run(&["test", "small3.crush.bin", "--max-x", "7"]).status.code(), Some(2));
}

#[test]
fn compile_and_decompile_give_the_golden_bytes() {
    let folder = TempDir::new().unwrap();
    for map in maps() {
        let (text, binary) = (format!("{map}.crush.txt"), format!("{map}.crush.bin"));
        let to = folder.path().join("map");
        crush(&["compile", &text, "-o", to.to_str().unwrap()]);
        assert!(std::fs::read(&to).unwrap() == std::fs::read(fixtures().join(&binary)).unwrap(), "{text}");
        let again = crush(&["decompile", &binary]);
        assert!(again == std::fs::read_to_string(fixtures().join(&text)).unwrap(), "{binary}");
    }
    // nothing but the map is left behind
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn decompile_gives_json_with_names() {
    let map = json(&["decompile", "classes.crush.bin", "--json"]);
    let shadow = map["buckets"].as_array().unwrap().iter().find(|bucket| bucket["name"] == "default~ssd").unwrap();
    assert_eq!((&shadow["shadow_of"], &shadow["class"]), (&json!("default"), &json!("ssd")));
    assert_eq!(map["devices"][0], json!({ "id": 0, "name": "osd.0", "class": "ssd" }));
    assert_eq!(map["rules"][0]["steps"][0]["op"], "take");
    let small = json(&["compile", "small3.crush.txt", "-o", "/dev/null", "--json"]);
    assert_eq!(small["devices"], 6);
}

#[test]
fn tree_is_drawn_within_80_columns() {
    let expected = "\
ID  CLASS   WEIGHT  TYPE  NAME
-4         7.20000  root  default
-1         3.00000  host  ├─ h0
 0         1.00000  osd   │  ├─ osd.0
 1         2.00000  osd   │  └─ osd.1
-2         3.00000  host  ├─ h1
 2         1.00000  osd   │  ├─ osd.2
 3         2.00000  osd   │  └─ osd.3
-3         1.20000  host  └─ h2
 4         1.00000  osd      ├─ osd.4
 5         0.20000  osd      └─ osd.5
";
    assert_eq!(crush(&["tree", "small3.crush.bin"]), expected);
    for map in maps() {
        let drawn = crush(&["tree", "--shadow", &format!("{map}.crush.txt")]);
        assert!(drawn.lines().all(|line| line.chars().count() <= 80), "{map}");
    }
}

#[test]
fn tree_shows_shadows_on_request_and_one_branch_alone() {
    assert!(!crush(&["tree", "classes.crush.bin"]).contains('~'));
    assert!(crush(&["tree", "classes.crush.bin", "--shadow"]).contains("default~nvme"));
    let branch = crush(&["tree", "classes.crush.bin", "--below", "h0~ssd"]);
    assert_eq!(branch.lines().count(), 4, "{branch}");
    let nodes = json(&["tree", "classes.crush.bin", "--below", "h0~ssd", "--json"]);
    assert_eq!(nodes["nodes"][0]["class"], "ssd");
    assert_eq!(nodes["nodes"][2]["name"], "osd.1");
    assert!(complaint(&["tree", "classes.crush.bin", "--below", "h9"]).contains("no bucket or device named h9"));
}

#[test]
fn a_mistake_in_the_text_is_pointed_at() {
    // given a map with a slip of the pen
    let text = std::fs::read_to_string(fixtures().join("small3.crush.txt")).unwrap();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("slip.txt");
    std::fs::write(&file, text.replacen("alg straw2", "alg straw3", 1)).unwrap();
    let name = file.to_str().unwrap();
    // then every verb that reads it says where and what
    let expected = format!(
        "error: {name}:30:6: found `straw3`, expected a bucket algorithm (straw2, straw, list, tree or uniform)\n 30 | \talg straw3\n    | \t    ^^^^^^\n    = did you mean `straw2`?\n"
    );
    for args in [vec!["tree", name], vec!["test", name], vec!["decompile", name], vec!["compare", name, name]] {
        assert_eq!(complaint(&args), expected);
    }
}

#[test]
fn what_is_no_map_is_refused_with_a_reason() {
    assert!(complaint(&["tree", "objects.jsonl.gz"]).contains("neither crush text nor a binary crush map"));
    assert!(complaint(&["tree", "absent.bin"]).starts_with("error: reading the map absent.bin: No such file"));
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("cut.bin");
    let whole = std::fs::read(fixtures().join("small3.crush.bin")).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(complaint(&["tree", file.to_str().unwrap()]).contains("it is cut off or damaged"));
}

#[test]
fn a_map_comes_through_standard_input() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nacre"))
        .args(["crush", "tree", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let map = std::fs::read(fixtures().join("small3.crush.bin")).unwrap();
    child.stdin.take().unwrap().write_all(&map).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), crush(&["tree", "small3.crush.txt"]));
}

#[test]
fn a_map_compared_with_itself_moves_nothing() {
    let text = crush(&["compare", "small3.crush.txt", "small3.crush.bin", "--inputs", "1000"]);
    assert!(
        text.starts_with("rule rep_host: 1000 inputs, 3 devices each\n  0.00 % of the data moves (0 of 3000 places)"),
        "{text}"
    );
    assert!(!text.contains("osd."), "{text}");
}

#[test]
fn taking_a_device_away_moves_what_it_held_and_little_else() {
    // given a flat map without one of its ten devices
    let text = std::fs::read_to_string(fixtures().join("flat10.crush.txt")).unwrap();
    let without: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("item osd.3 "))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_ne!(text, without);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("without.txt");
    std::fs::write(&file, without).unwrap();
    // when the two are compared by a replicated rule
    let report =
        json(&["compare", "flat10.crush.txt", file.to_str().unwrap(), "--rule", "0", "--inputs", "20000", "--json"]);
    let rule = &report["rules"][0];
    // then what osd.3 held moves, and as much as goes out somewhere comes in elsewhere
    let devices = rule["devices"].as_array().unwrap();
    let number = |device: &Value, key: &str| device[key].as_u64().unwrap();
    let gone = devices.iter().find(|device| device["name"] == "osd.3").unwrap();
    assert_eq!(number(gone, "out"), number(gone, "before"));
    assert_eq!((number(gone, "in"), number(gone, "after")), (0, 0));
    let sum = |key| devices.iter().map(|device| number(device, key)).sum::<u64>();
    assert_eq!(sum("in"), rule["moved"].as_u64().unwrap());
    assert_eq!(sum("out"), sum("in"));
    assert!(sum("in") < 2 * number(gone, "out"), "{rule}");
    assert!(rule["asked_share"].as_f64().unwrap() > 0.0);
}

#[test]
fn compare_names_rules_of_one_map_alone() {
    let output = run(&["compare", "flat10.crush.txt", "small3.crush.txt", "--inputs", "10"]);
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout.contains("only in flat10.crush.txt: rep_osd"), "{stdout}");
    assert!(stderr.contains("no rule in common"), "{stderr}");
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_long_test_quietly() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nacre"))
        .args(["crush", "test", "tree444.crush.bin", "--show-mappings", "--min-x", "0", "--max-x", "100000000"])
        .args(["--rule", "0", "--num-rep", "3"])
        .current_dir(fixtures())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // when the reader takes some bytes and goes
    let mut some = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    assert!(some.starts_with(b"CRUSH rule 0 x 0 ["));
    // then the verb ends long before its work is done
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn a_map_cannot_steer_the_terminal() {
    // given a text in which an escape sequence that clears the screen stands where a mistake is
    let text = std::fs::read_to_string(fixtures().join("small3.crush.txt")).unwrap();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("wild.txt");
    std::fs::write(&file, text.replacen("alg straw2", "alg \x1b[2Jx", 1)).unwrap();
    // then the line that is quoted has it spelled out
    let told = complaint(&["tree", file.to_str().unwrap()]);
    assert!(!told.contains('\x1b'), "{told:?}");
    assert!(told.contains("\n 30 | \talg \\u{1b}[2Jx\n"), "{told:?}");
}
