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
