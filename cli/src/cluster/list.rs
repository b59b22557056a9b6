//! `nacre cluster keys`: what a cluster.toml may hold, without leaving the terminal.

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::file::{Fallback, Key};
use super::keys::PARTS;
use crate::output::{JsonFlag, Out, Tone};
use crate::run::{Run, Verdict};

/// List every key a cluster.toml may hold, with its default and meaning.
#[derive(Args)]
#[command(after_long_help = "\
--json: [{part, doc, keys: [{key, value, required, default, follows, doc}]}]; default is TOML; follows
says in words what the value follows from; at least one of the two is null.")]
pub(super) struct List {
    /// Only keys whose name has this in it.
    #[arg(value_name = "WORD")]
    word: Option<String>,
    #[command(flatten)]
    json: JsonFlag,
}

impl Run for List {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let wanted = |key: &&Key| self.word.as_ref().is_none_or(|word| key.name.contains(word.as_str()));
        let parts = PARTS.iter().map(|part| (part, part.keys.iter().filter(wanted).collect::<Vec<_>>()));
        let parts: Vec<_> = parts.filter(|(_, keys)| !keys.is_empty()).collect();
        if self.json.json {
            let list: Vec<_> = parts
                .iter()
                .map(|(part, keys)| {
                    let keys: Vec<_> = keys.iter().copied().map(as_json).collect();
                    json!({ "part": part.title, "doc": part.doc, "keys": keys })
                })
                .collect();
            out.json(&list)?;
        } else {
            for (part, keys) in &parts {
                writeln!(out, "{}", out.paint(Tone::Strong, part.title))?;
                for key in keys {
                    let name = out.paint(Tone::Good, key.name);
                    let default = match key.default {
                        Fallback::Toml(text) => format!("default {text}"),
                        Fallback::Follows(what) => format!("left out: {}", what.replace('`', "")),
                        Fallback::Required => "must be given".to_owned(),
                    };
                    writeln!(out, "  {name}: {}; {default}", key.kind.replace('`', ""))?;
                    for line in wrap(key.doc, 74) {
                        writeln!(out, "      {line}")?;
                    }
                }
                writeln!(out)?;
            }
        }
        Ok(if parts.is_empty() { Verdict::Bad } else { Verdict::Good })
    }
}

fn as_json(key: &Key) -> serde_json::Value {
    let (default, follows) = match key.default {
        Fallback::Toml(text) => (Some(text), None),
        Fallback::Follows(what) => (None, Some(what)),
        Fallback::Required => (None, None),
    };
    let required = matches!(key.default, Fallback::Required);
    json!({
        "key": key.name, "value": key.kind, "required": required, "default": default, "follows": follows,
        "doc": key.doc,
    })
}

/// Lines of at most `width` characters; a longer word has a line of its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
