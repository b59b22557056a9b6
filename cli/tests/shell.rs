//! The command line as a whole: exit codes, help, completion, a reader that goes away.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::process::{Command, Output, Stdio};

fn nacre(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nacre")).args(args).output().unwrap()
}

#[test]
fn a_wrong_command_line_exits_with_2_and_says_so_on_stderr() {
    let output = nacre(&["pearl"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("unrecognized subcommand 'pearl'"));
}

#[test]
fn each_shell_gets_a_script_that_speaks_of_nacre() {
    for (shell, mark) in [("bash", "complete -F _nacre"), ("zsh", "#compdef nacre"), ("fish", "complete -c nacre")] {
        let output = nacre(&["completion", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(mark), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_verb_quietly() {
    // given a verb whose output nobody reads
    let mut child = Command::new(env!("CARGO_BIN_EXE_nacre"))
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    // then it ends without a word
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn help_fits_80_columns_and_every_noun_has_some() {
    for args in [
        &["--help"][..],
        &["help"],
        &["crush", "--help"],
        &["crush", "test", "--help"],
        &["cluster", "check", "--help"],
    ] {
        let output = nacre(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty(), "{args:?}: {long:#?}");
    }
}

#[test]
fn colours_come_when_asked_for_and_leave_columns_in_line() {
    let map = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/crush/small3.crush.txt");
    let plain = String::from_utf8(nacre(&["crush", "tree", map]).stdout).unwrap();
    let coloured = String::from_utf8(nacre(&["crush", "tree", map, "--color", "always"]).stdout).unwrap();
    assert!(!plain.contains('\x1b'));
    assert!(coloured.contains('\x1b'));
    // when the escapes are taken out, the same stands there
    let mut bare = String::new();
    for (n, part) in coloured.split('\x1b').enumerate() {
        bare.push_str(if n == 0 { part } else { part.split_once('m').unwrap().1 });
    }
    assert_eq!(bare, plain);
}

/// `nacre sim --json`: the exit code, and the object at the end.
fn sim(args: &[&str]) -> (Option<i32>, serde_json::Value) {
    let output = nacre(&[&["sim", "--json"], args].concat());
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn simulated_runs_end_with_one_object_of_what_they_showed() {
    let (code, one) = sim(&["--seed", "7"]);
    assert_eq!(
        (code, &one["seeds"], &one["violations"], &one["mutants_found"]),
        (Some(0), &1.into(), &0.into(), &0.into())
    );
    for key in ["operations", "simulated_seconds"] {
        assert!(one[key].as_u64().unwrap() > 0, "{key}: {one}");
    }
    let (code, many) = sim(&["--seeds", "5..8", "--threads", "1"]);
    assert_eq!((code, &many["seeds"]), (Some(0), &3.into()));
    assert!(many["operations"].as_u64() > one["operations"].as_u64(), "{many}");
    // No time at all: nothing is begun.
    let (code, none) = sim(&["--minutes", "0"]);
    assert_eq!((code, &none["seeds"]), (Some(0), &0.into()));
    let calm = concat!(env!("CARGO_MANIFEST_DIR"), "/../sim/scenarios/calm.toml");
    let (code, calm) = sim(&["--seeds", "5..8", "--scenario", calm]);
    assert_eq!((code, &calm["violations"]), (Some(0), &0.into()));
    assert_ne!(calm["operations"], many["operations"]);
    assert!(calm["sights"].get("crash").is_none() && many["sights"].get("crash").is_some(), "{many} {calm}");
}

#[test]
fn a_violation_is_told_with_the_way_to_repeat_it_and_exits_with_1() {
    // given a cluster whose messages take a minute: it cannot be clean in the time that is given
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slow.toml");
    std::fs::write(&file, "delay_ms = 60000\nspan_ms = 3000\n").unwrap();
    let file = file.to_str().unwrap();
    let (code, told) = sim(&["--seeds", "3..5", "--scenario", file]);
    // then
    assert_eq!((code, &told["violations"]), (Some(1), &2.into()));
    let failure = &told["failures"].as_array().unwrap().iter().find(|f| f["seed"] == 3).unwrap();
    assert!(failure["cause"].as_str().unwrap().contains("not quiet in time"), "{failure}");
    let replay = format!("nacre sim --seed 3 --scenario {file} --trace");
    assert_eq!(failure["replay"], replay);
    // when that command is run, the events are there, then the cause, the commit and the command again
    let words: Vec<&str> = replay.split(' ').skip(1).collect();
    let output = nacre(&words);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let (trace, report) = text.split_once("seed 3 violates:\n").unwrap();
    assert!(trace.lines().count() > 20 && trace.contains("heal"), "{trace}");
    assert!(report.contains("\ncommit ") && report.contains(&format!("\nreplay: {replay}\n")), "{report}");
    assert!(report.lines().last().unwrap().starts_with("1 seeds, "), "{report}");
}
