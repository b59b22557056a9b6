//! `docs/reference/cli.md` is what clap knows about our verbs; this test writes it anew and compares.
//!
//! After a change of a verb: `NACRE_REWRITE=1 cargo nextest run -p nacre-cli reference`, then look at the difference.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Arg, Command, CommandFactory};

use crate::Cli;

/// Compares `text` with a file under `docs/reference`, or writes it there when `NACRE_REWRITE` is set.
pub(crate) fn settle(file: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference").join(file);
    if std::env::var_os("NACRE_REWRITE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let stands = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stands == text,
        "docs/reference/{file} is behind the code: run `NACRE_REWRITE=1 cargo nextest run -p nacre-cli reference`"
    );
}

fn describe(page: &mut String, path: &str, command: &Command) {
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    writeln!(page, "\n## `{path}`\n\n{}\n", about.trim_end()).unwrap();
    let mut command = command.clone().bin_name(path);
    let usage = command.render_usage().to_string();
    writeln!(page, "```text\n{}\n```", usage.trim_end()).unwrap();
    let shown: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && !arg.is_global_set())
        .filter(|arg| !built_in(arg))
        .collect();
    if !shown.is_empty() {
        writeln!(page, "\n| argument | meaning |\n| --- | --- |").unwrap();
        for arg in shown {
            writeln!(page, "| {} | {} |", name(arg), meaning(arg)).unwrap();
        }
    }
    if let Some(after) = command.get_after_long_help().or(command.get_after_help()) {
        writeln!(page, "\n```text\n{}\n```", after.to_string().trim_end()).unwrap();
    }
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        describe(page, &format!("{path} {}", verb.get_name()), verb);
    }
}

fn built_in(arg: &Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version")
}

fn name(arg: &Arg) -> String {
    let values = || {
        let names = arg.get_value_names().unwrap_or_default();
        names.iter().map(|name| format!("<{name}>")).collect::<Vec<_>>().join(" ")
    };
    let takes_value = arg.get_action().takes_values();
    let mut text = match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (None, Some(long)) => format!("--{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, None) => return format!("`{}`", values()),
    };
    if takes_value {
        write!(text, " {}", values()).unwrap();
    }
    format!("`{text}`")
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut text = help.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    let takes_values = arg.get_action().takes_values();
    let defaults = arg.get_default_values();
    let values: Vec<_> = arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if takes_values && !(text.is_empty() || text.ends_with('.') || defaults.is_empty() && values.is_empty()) {
        text.push('.');
    }
    if takes_values && !defaults.is_empty() {
        let list: Vec<_> = defaults.iter().map(|value| value.to_string_lossy().into_owned()).collect();
        write!(text, " Default: `{}`.", list.join(" ")).unwrap();
    }
    if takes_values && !values.is_empty() {
        write!(text, " One of {}.", values.join(", ")).unwrap();
    }
    text.trim().to_owned()
}

#[test]
fn reference_of_the_command_line_is_current() {
    let mut page = String::from(
        "# Command line\n\nGenerated from the definition of the verbs by a test (`cli/src/reference.rs`); edits by hand \
         are refused there.\n\nEvery command takes `--help`, `--version` and `--color auto|always|never`.\n",
    );
    let mut command = Cli::command();
    command.build();
    describe(&mut page, "nacre", &command);
    settle("cli.md", &page);
}

#[test]
fn definition_of_the_verbs_is_sound() {
    Cli::command().debug_assert();
}
