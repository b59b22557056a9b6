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
