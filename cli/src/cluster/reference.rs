//! `docs/reference/cluster-toml.md` is what `keys` says; and each default there is one the reader takes.

use std::fmt::Write;
use std::path::Path;

use super::file::Fallback;
use super::keys::PARTS;
use super::load::parse;

#[test]
fn reference_of_cluster_toml_is_current() {
    let mut page = String::from(
        "# cluster.toml\n\nGenerated from the schema by a test (`cli/src/cluster/keys.rs`); edits by hand are refused \
         there.\n\nCheck a file with `nacre cluster check`, see it with all defaults filled in with `nacre cluster show`. \
         Sizes have a unit: `\"10GiB\"`, `\"512MiB\"`, `\"4TB\"`. Unknown keys are refused.\n",
    );
    for part in PARTS {
        writeln!(page, "\n## {}\n\n{}\n\n| key | value | default | meaning |", part.title, part.doc).unwrap();
        writeln!(page, "| --- | --- | --- | --- |").unwrap();
        for key in part.keys {
            let default = match key.default {
                Fallback::Toml(text) => format!("`{text}`"),
                Fallback::Follows(what) => what.to_owned(),
                Fallback::Required => "must be given".to_owned(),
            };
            writeln!(page, "| `{}` | {} | {default} | {} |", key.name, key.kind, key.doc).unwrap();
        }
    }
    crate::reference::settle("cluster-toml.md", &page);
}

#[test]
fn every_key_is_read_and_every_default_fits() {
    // given a file that has each table once, and in it nothing but what must be there
    let text = "name = \"a\"\nmonitors = [{}]\nosds = [{ location = {} }]\nmds = [{}]\ns3 = [{}]\n\
                hosts = [{ name = \"h\" }]\npools = [{ name = \"p\", size = 1, failure_domain = \"osd\" }]\n";
    // then each default is read without a panic, and the file holds
    let loaded = parse("test", Path::new(""), text).unwrap();
    assert_eq!(loaded.cluster.osds.len(), 1);
    parse("test", Path::new(""), "name = \"a\"").unwrap();
}
