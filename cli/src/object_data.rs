//! `nacre object xattr | omap`: attributes and the ordered map of an object. Keys and values are bytes: they are written as
//! text where they are printable, and as `0x` with hexadecimal digits where not; both are read.

use std::io::{Read, Write};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use nacre_client::{Object, Op, OpResult};
use serde_json::json;

use crate::object::Where;
use crate::output::{Align, JsonFlag, Out, Table};
use crate::run::{Run, Verdict};

/// Entries fetched at a time.
const PAGE: u32 = 1000;
/// So much of a value is shown in a list.
const SHOWN: usize = 80;

/// Attributes of an object.
#[derive(Args)]
pub(crate) struct Xattr {
    #[command(subcommand)]
    verb: Verb,
}

/// Entries of an object's ordered map.
#[derive(Args)]
pub(crate) struct Omap {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Ls(Ls),
    Get(Get),
    Set(Set),
    Rm(Rm),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Xattr,
    Omap,
}

impl Run for Xattr {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        self.verb.run(Kind::Xattr, out)
    }
}

impl Run for Omap {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        self.verb.run(Kind::Omap, out)
    }
}

impl Verb {
    fn run(self, kind: Kind, out: &mut Out) -> anyhow::Result<Verdict> {
        match self {
            Verb::Ls(verb) => verb.run(kind, out),
            Verb::Get(verb) => verb.run(kind, out),
            Verb::Set(verb) => verb.run(kind),
            Verb::Rm(verb) => verb.run(kind),
        }
    }
}

/// List keys and values.
#[derive(Args)]
#[command(after_long_help = "--json: [{key, value}], both as they would be typed.")]
struct Ls {
    #[command(flatten)]
    at: Where,
    /// The pool.
    pool: String,
    /// The object.
    object: String,
    /// Only keys that begin so.
    #[arg(long, value_parser = key, default_value = "")]
    prefix: Bytes,
    #[command(flatten)]
    json: JsonFlag,
}

/// Write one value to standard output, as it is.
#[derive(Args)]
struct Get {
    #[command(flatten)]
    at: Where,
    /// The pool.
    pool: String,
    /// The object.
    object: String,
    /// The key; 0x6b6579 names bytes.
    #[arg(value_parser = key)]
    key: Bytes,
}

/// Set a value; the object is made if it is not there.
#[derive(Args)]
struct Set {
    #[command(flatten)]
    at: Where,
    /// The pool.
    pool: String,
    /// The object.
    object: String,
    /// The key; 0x6b6579 names bytes.
    #[arg(value_parser = key)]
    key: Bytes,
    /// The value; - reads standard input.
    #[arg(allow_hyphen_values = true)]
    value: String,
}

/// Remove keys with their values.
#[derive(Args)]
struct Rm {
    #[command(flatten)]
    at: Where,
    /// The pool.
    pool: String,
    /// The object.
    object: String,
    /// The keys; 0x6b6579 names bytes.
    #[arg(required = true, value_parser = key)]
    keys: Vec<Bytes>,
}

/// Bytes as they are typed.
fn key(text: &str) -> Result<Bytes, String> {
    let Some(digits) = text.strip_prefix("0x") else { return Ok(Bytes::copy_from_slice(text.as_bytes())) };
    let wrong =
        || format!("{text}: 0x wants an even number of hexadecimal digits; write text that begins so as 0x3078...");
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return Err(wrong());
    }
    let byte = |at: usize| digits.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    (0..digits.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>().map(Bytes::from).ok_or_else(wrong)
}

/// Bytes as they would be typed.
fn typed(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.starts_with("0x") && !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
    }
}

/// The only answer of a vector of one.
async fn one(object: &Object, op: Op) -> anyhow::Result<OpResult> {
    object.execute(vec![op]).await?.results.into_iter().next().context("an answer without a result")
}

/// All pairs whose key begins so, in order.
async fn pairs(object: &Object, kind: Kind, prefix: &Bytes) -> anyhow::Result<Vec<(Bytes, Bytes)>> {
    if kind == Kind::Xattr {
        let OpResult::Pairs { pairs, .. } = one(object, Op::ListXattrs).await? else {
            bail!("an answer of another shape")
        };
        return Ok(pairs.into_iter().filter(|(key, _)| key.starts_with(prefix)).collect());
    }
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let range = Op::OmapRange { after: after.take(), prefix: prefix.clone(), max: PAGE };
        let OpResult::Pairs { pairs, more } = one(object, range).await? else { bail!("an answer of another shape") };
        after = pairs.last().map(|(key, _)| key.clone());
        all.extend(pairs);
        if !more || after.is_none() {
            return Ok(all);
        }
    }
}

impl Ls {
    fn run(self, kind: Kind, out: &mut Out) -> anyhow::Result<Verdict> {
        let (object, prefix) = (self.object, self.prefix);
        let pairs = self.at.with(&self.pool, |pool| async move { pairs(&pool.object(object), kind, &prefix).await })?;
        if self.json.json {
            let pairs: Vec<_> =
                pairs.iter().map(|(key, value)| json!({ "key": typed(key), "value": typed(value) })).collect();
            out.json(&pairs)?;
            return Ok(Verdict::Good);
        }
        let mut table = Table::new(&[("KEY", Align::Left), ("BYTES", Align::Right), ("VALUE", Align::Left)]);
        for (key, value) in &pairs {
            let shown = value.get(..SHOWN).unwrap_or(value);
            let more = if shown.len() < value.len() { "..." } else { "" };
            table.row([typed(key), value.len().to_string(), format!("{}{more}", typed(shown))]);
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}

impl Get {
    fn run(self, kind: Kind, out: &mut Out) -> anyhow::Result<Verdict> {
        let (object, wanted) = (self.object.clone(), self.key.clone());
        let value = self.at.with(&self.pool, |pool| async move {
            let object = pool.object(object);
            if kind == Kind::Xattr {
                return Ok(Some(object.xattr(wanted).await?));
            }
            match one(&object, Op::OmapKeys { keys: vec![wanted.clone()] }).await? {
                OpResult::Pairs { pairs, .. } => {
                    Ok(pairs.into_iter().find(|(key, _)| *key == wanted).map(|(_, value)| value))
                }
                _ => bail!("an answer of another shape"),
            }
        })?;
        let value = value.with_context(|| format!("object {} has no key {}", self.object, typed(&self.key)))?;
        out.write_all(&value)?;
        Ok(Verdict::Good)
    }
}

impl Set {
    fn run(self, kind: Kind) -> anyhow::Result<Verdict> {
        let value = match self.value.as_str() {
            "-" => {
                let mut bytes = Vec::new();
                std::io::stdin().lock().read_to_end(&mut bytes).context("reading the value")?;
                Bytes::from(bytes)
            }
            text => key(text).map_err(anyhow::Error::msg)?,
        };
        let op = match kind {
            Kind::Xattr => Op::SetXattr { name: self.key, value },
            Kind::Omap => Op::OmapSet { entries: vec![(self.key, value)] },
        };
        let object = self.object;
        self.at.with(&self.pool, |pool| async move { one(&pool.object(object), op).await.map(drop) })?;
        Ok(Verdict::Good)
    }
}

impl Rm {
    fn run(self, kind: Kind) -> anyhow::Result<Verdict> {
        let ops = match kind {
            Kind::Xattr => self.keys.into_iter().map(|name| Op::RemoveXattr { name }).collect(),
            Kind::Omap => vec![Op::OmapRemove { keys: self.keys }],
        };
        let object = self.object;
        // All of them or none. On an object that is not there nothing is made.
        let ops = std::iter::once(Op::AssertExists).chain(ops).collect();
        self.at.with(&self.pool, |pool| async move { Ok(pool.object(object).execute(ops).await.map(drop)?) })?;
        Ok(Verdict::Good)
    }
}

#[cfg(test)]
mod tests {
    use super::{key, typed};

    #[test]
    fn bytes_are_typed_as_they_are_read() {
        for bytes in [&b""[..], b"colour", "gr\u{fc}n".as_bytes(), b"\0\xff", b"0x41", b"a\nb"] {
            assert_eq!(key(&typed(bytes)).unwrap(), bytes);
        }
        assert_eq!(
            (typed(b"colour"), typed(b"\0\xff"), typed(b"0x")),
            ("colour".into(), "0x00ff".into(), "0x3078".into())
        );
        assert!(key("0x1").is_err() && key("0xzz").is_err() && key("0x\u{e9}").is_err());
    }
}
