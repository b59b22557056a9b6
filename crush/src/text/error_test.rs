//! A table of broken texts: where the error points, what it found, what it wanted and what it suggests; and of odd but
//! right ones.

use crate::model::{BucketAlg, ItemId, Mode, RuleKind, Step, Tunables, Weight};
use crate::text::{parse, print};

const HEAD: &str = "\
tunable choose_total_tries 50
device 0 osd.0 class ssd
device 1 osd.1 class hdd
type 0 osd
type 1 host
type 2 rack
";
const HOSTS: &str = "\
host h1 {
\tid -1
\talg straw2
\thash 0
\titem osd.0 weight 1.000
\titem osd.1 weight 2.000
}
rack rack1 {
\tid -2
\talg straw2
\titem h1 weight 3.000
}
";

/// Line, column and what the printed error must say, for the tail put behind a whole map.
fn broken(tail: &str, place: (u32, u32), says: &[&str]) {
    let text = format!("{HEAD}{HOSTS}{tail}");
    let before = (HEAD.lines().count() + HOSTS.lines().count()) as u32;
    let error = parse(&text).expect_err(tail);
    let shown = error.to_string();
    assert_eq!((error.line - before, error.column), place, "{shown}");
    for part in says {
        assert!(shown.contains(part), "`{part}` is not in:\n{shown}");
    }
}

/// The same for what stands instead of the whole map.
fn broken_head(text: &str, place: (u32, u32), says: &[&str]) {
    let shown = parse(text).expect_err(text).to_string();
    let error = parse(text).expect_err(text);
    assert_eq!((error.line, error.column), place, "{shown}");
    for part in says {
        assert!(shown.contains(part), "`{part}` is not in:\n{shown}");
    }
}

#[test]
fn an_error_shows_the_line_the_place_and_the_way_out() {
    let text = format!("{HEAD}{HOSTS}rule r {{\n\tid 0\n\ttype replicated\n\tstep take rak1\n\tstep emit\n}}\n");
    let want = "\
line 22, column 12: found `rak1`, which is not defined, expected a device or bucket to start from
 22 | \tstep take rak1
    | \t          ^^^^
    = did you mean `rack1`?";
    assert_eq!(parse(&text).unwrap_err().to_string(), want);
}

#[test]
fn lines_before_the_buckets() {
    broken_head(
        "tunable choose_total_trys 50",
        (1, 9),
        &["the name of a tunable", "did you mean `choose_total_tries`?"],
    );
    broken_head("tunable zzzzzz 50", (1, 9), &["there are choose_local_tries,"]);
    broken_head("tunable choose_total_tries x", (1, 28), &["found `x`, expected its value"]);
    broken_head("tunable choose_total_tries -1", (1, 28), &["found `-1`"]);
    broken_head("tunable chooseleaf_vary_r 256", (1, 27), &["expected 0 to 255"]);
    broken_head("tunable choose_total_tries", (1, 27), &["found the end of the map"]);
    broken_head("device -1 osd.0", (1, 8), &["the id of a device, from 0 on"]);
    broken_head("device 99999999 osd.0", (1, 8), &["below 16777216"]);
    broken_head("device 0 osd,0", (1, 10), &["found `osd,0`", "names have letters, digits"]);
    broken_head("device 0 osd.0\ndevice 0 osd.1", (2, 8), &["id 0, which is `osd.0`'s"]);
    broken_head("device 0 a\ndevice 1 a", (2, 10), &["`a`, which is defined on line 1"]);
    broken_head("device 0 a class", (1, 17), &["expected the name of a device class"]);
    broken_head("devize 0 a", (1, 1), &["did you mean `device`?"]);
    broken_head("type 65536 x", (1, 6), &["0 to 65535"]);
    broken_head("type 1 a\ntype 1 b", (2, 6), &["number 1, which is type `a`'s"]);
    broken_head("type 1 a\ntype 2 a", (2, 8), &["a second type `a`"]);
    broken_head("}", (1, 1), &["found `}`"]);
}

#[test]
fn buckets() {
    broken("hots h2 {\n alg straw2\n}", (1, 1), &["type `hots`, which is not defined", "did you mean `host`?"]);
    broken("osd h2 {\n alg straw2\n}", (1, 1), &["the type of devices"]);
    broken("device 3 osd.3", (1, 1), &["a `device` line behind a bucket", "before the first bucket"]);
    broken("host h1 {\n alg straw2\n}", (1, 6), &["`h1`, which is defined on line 7"]);
    broken("host osd.1 {\n alg straw2\n}", (1, 6), &["`osd.1`, which is defined on line 3"]);
    broken("host h2\n alg straw2\n}", (2, 2), &["found `alg`, expected `{` to open bucket `h2`"]);
    broken("host h2 {\n id 3\n}", (2, 5), &["a number below 0"]);
    broken("host h2 {\n id -1\n alg straw2\n}", (2, 5), &["id -1 a second time"]);
    broken("host h2 {\n id -2000000\n alg straw2\n}", (2, 5), &["an id from -262144 to -1"]);
    broken("host h2 {\n id -3\n id -4\n alg straw2\n}", (3, 2), &["a second `id` in bucket `h2`"]);
    broken(
        "host h2 {\n id -3\n id -4 class ssd\n id -5 class ssd\n alg straw2\n}",
        (4, 14),
        &["one id for each class"],
    );
    broken("host h2 {\n item osd.0\n}", (2, 2), &["expected `alg` with how bucket `h2` draws"]);
    broken("host h2 {\n alg straw3\n}", (2, 6), &["(straw2, straw, list, tree or uniform)", "did you mean `straw2`?"]);
    broken("host h2 {\n alg straw2\n hash 300\n}", (3, 7), &["`0` or `rjenkins1`"]);
    broken("host h2 {\n alg straw2\n itme osd.0\n}", (3, 2), &["did you mean `item`?"]);
    broken("host h2 {\n alg straw2\n item osd.7\n}", (3, 7), &["`osd.7`, which is not defined", "did you mean `osd."]);
    broken("host h2 {\n alg straw2\n item osd.0 weight heavy\n}", (3, 20), &["found `heavy`, expected a weight"]);
    broken("host h2 {\n alg straw2\n item osd.0 weight -1\n}", (3, 20), &["a decimal from 0"]);
    broken("host h2 {\n alg straw2\n item osd.0 weight 100.001\n}", (3, 20), &["at most 100 for a device"]);
    broken("host h2 {\n alg straw2\n item osd.0 pos 1\n}", (3, 17), &["a position below 1 that is free"]);
    broken("host h2 {\n alg straw2\n item osd.0 pos 0\n item osd.1 pos 0\n}", (4, 17), &["a position below 2"]);
    let uneven = "host h2 {\n alg uniform\n item osd.0 weight 1\n item osd.1 weight 2\n}";
    broken(uneven, (4, 20), &["weight 2.000", "1.000 as for the items before"]);
    broken("host h2 {\n alg straw2\n item osd.0\n", (3, 12), &["found the end of the map", "`}` to close bucket `h2`"]);
    broken("rack r2 {\n alg straw2\n item r2\n}", (3, 7), &["`r2`, which holds this bucket itself"]);
    let ring =
        "rack a {\n alg straw2\n item b\n}\nrack b {\n alg straw2\n item c\n}\nrack c {\n alg straw2\n item a\n}";
    broken(ring, (11, 7), &["`a`, which holds this bucket itself", "buckets that form a tree"]);
    let mut heavy = String::new();
    for at in 0..2 {
        heavy += &format!("rack big{at} {{\n alg straw2\n item h1 weight 40000\n}}\n");
    }
    broken(&format!("{heavy}rack r {{\n alg straw2\n item big0\n item big1\n}}"), (9, 6), &["weigh more than 65535"]);
    let many: String = (0..65).map(|at| format!(" item device{}\n", at + 10)).collect();
    broken(&format!("host h2 {{\n alg tree\n{many}}}"), (2, 6), &["a tree bucket with 65 items", "at most 64"]);
}

#[test]
fn rules() {
    let rule = |body: &str| format!("rule r {{\n id 0\n type replicated\n{body}\n}}");
    broken("rule r {\n type replicated\n}", (2, 2), &["expected `id` with the number of the rule"]);
    broken("rule r {\n id 256\n}", (2, 5), &["0 to 255"]);
    broken("rule r {\n id 0\n type erazure\n}", (3, 7), &["did you mean `erasure`?"]);
    broken("rule r {\n id 0\n type msr_indep\n}", (3, 7), &["newer kind are not supported"]);
    broken(&rule(" min_size 256"), (4, 11), &["0 to 255"]);
    broken(&rule(" stap emit"), (4, 2), &["did you mean `step`?"]);
    broken(&rule(" step choselaef firstn 0 type host"), (4, 7), &["expected a step", "did you mean `chooseleaf`?"]);
    broken(&rule(" step choose first 0 type host"), (4, 14), &["did you mean `firstn`?"]);
    broken(&rule(" step choose firstn many type host"), (4, 21), &["how many to choose"]);
    broken(&rule(" step choose firstn 0 host"), (4, 23), &["expected `type`"]);
    broken(&rule(" step choose firstn 0 type hots"), (4, 28), &["which is not defined", "did you mean `host`?"]);
    broken(&rule(" step take rak1"), (4, 12), &["did you mean `rack1`?"]);
    broken(&rule(" step take rack1~ssd"), (4, 12), &["`step take rack1 class ssd`"]);
    broken(&rule(" step take rack1 class sdd"), (4, 24), &["which no device has", "did you mean `ssd`?"]);
    broken(&rule(" step take osd.0 class ssd"), (4, 24), &["a class only where a bucket is taken"]);
    broken(&rule(" step set_choose_tries lots"), (4, 24), &["how many, a number"]);
    let twice = format!("{}\nrule r {{\n id 1\n type erasure\n}}", rule(""));
    broken(&twice, (6, 6), &["a second rule `r`"]);
    let twice = format!("{}\nrule s {{\n id 0\n type erasure\n}}", rule(""));
    broken(&twice, (7, 5), &["rule number 0 a second time"]);
    let after = format!("{}\nhost h2 {{\n alg straw2\n}}", rule(""));
    broken(&after, (6, 1), &["a bucket of type `host` behind a rule", "all buckets before the first rule"]);
}

#[test]
fn choose_args() {
    let set = |body: &str| format!("choose_args 1 {{\n {{\n{body}\n }}\n}}");
    broken("choose_args x {", (1, 13), &["the pool id of the weight sets"]);
    broken(&set("bucket_id 1"), (3, 11), &["a number below 0"]);
    broken(&set("bucket_id -9"), (3, 11), &["`-9`, which no bucket has"]);
    broken(&set("bucket -1"), (3, 1), &["expected `bucket_id`"]);
    broken(&set("bucket_id -1\nweight_set [\n [ 1.0 ]\n]"), (5, 2), &["found 1 weights, expected 2", "bucket `h1`"]);
    broken(&set("bucket_id -1\nweight_set [\n [ 1.0 x ]\n]"), (5, 8), &["a weight"]);
    broken(&set("bucket_id -1\nids [ -7 ]"), (4, 5), &["found 1 ids, expected 2"]);
    broken(&set("bucket_id -1\nidz [ ]"), (4, 1), &["did you mean `ids`?"]);
    broken("choose_args 1 { } choose_args 1 { }", (1, 31), &["choose_args 1 a second time"]);
    broken("choose_args 1 { } rule", (1, 19), &["found `rule`, expected `choose_args` or the end"]);
}

#[test]
fn a_shadow_tree_that_cannot_be_names_its_bucket() {
    let uneven = format!(
        "{HEAD}host h1 {{\n alg uniform\n item osd.0\n}}\nhost h2 {{\n alg uniform\n item osd.1\n}}\n\
         rack r {{\n alg uniform\n item h1\n item h2\n}}\nrule x {{\n id 0\n type replicated\n}}"
    );
    let shown = parse(&uneven).unwrap_err().to_string();
    assert!(shown.contains("bucket r is uniform"), "{shown}");
}

#[test]
fn an_empty_text_is_an_empty_map_with_the_old_tunables() {
    let map = parse("").unwrap();
    assert_eq!(map.tunables, Tunables::LEGACY);
    assert!(map.buckets.is_empty() && map.rules.is_empty() && map.devices.is_empty());
    assert_eq!(print(&map), "# begin crush map\n\n# devices\n\n# types\n\n# buckets\n\n# rules\n\n# end crush map\n");
}

#[test]
fn white_space_and_comments_mean_nothing() {
    let plain = format!("{HEAD}{HOSTS}");
    let odd = plain.replace('\n', " # note { [ ] }\r\n").replace('\t', " \x0b\x0c ");
    assert_eq!(parse(&odd).unwrap(), parse(&plain).unwrap());
    let one_line = format!("\u{feff}{}", plain.replace(['\n', '\t'], " ")).replace(" {", "{").replace("} ", "}");
    assert_eq!(parse(&one_line).unwrap(), parse(&plain).unwrap());
}

#[test]
fn what_is_left_out_is_given() {
    let text = format!(
        "{HEAD}rack top {{\n alg straw2\n item h2\n item h1 weight 5\n}}\n\
         host h1 {{\n id -1\n alg straw2\n item osd.1 pos 0\n item osd.0 weight 3\n item device7 weight .5\n}}\n\
         host h2 {{\n alg list\n item osd.0\n}}\n\
         rule {{\n ruleset 4\n type erasure\n step noop\n step take top\n step choose indep -1 type osd\n step emit\n}}"
    );
    let map = parse(&text).unwrap();
    // Ids that are not given are the highest free ones, children first; weights are the bucket's, 1 for a device.
    let id = |name: &str| map.item(name).unwrap();
    assert_eq!([id("h1"), id("h2"), id("top")], [-1, -2, -3]);
    let bucket = |id: ItemId| map.buckets.get(&id).unwrap();
    assert_eq!(bucket(-1).items, [1, 0, 7]);
    assert_eq!(bucket(-1).weight, Weight(0x48000));
    assert_eq!(bucket(-2).alg, BucketAlg::List);
    assert_eq!(bucket(-3).weights, [Weight(0x10000), Weight(0x50000)]);
    assert_eq!((map.max_devices, map.max_buckets, map.max_rules), (8, 16, 5));
    let rule = map.rules.get(&4).unwrap();
    assert_eq!((rule.kind, rule.min_size, rule.max_size, rule.ruleset), (RuleKind::Erasure, 1, 100, 4));
    assert_eq!(
        rule.steps,
        [Step::Noop, Step::Take(-3), Step::Choose { mode: Mode::Indep, num: -1, kind: 0 }, Step::Emit]
    );
    assert_eq!(parse(&print(&map)).unwrap(), map);
}

#[test]
fn the_new_way_to_write_rules_prints_as_it_was_read() {
    let rule = "rule r {\n\tid 0\n\ttype replicated\n\tstep take rack1 class hdd\n\tstep emit\n}\n";
    let map = parse(&format!("{HEAD}{HOSTS}{rule}")).unwrap();
    assert!(print(&map).contains(rule), "{}", print(&map));
    assert_eq!(map.shadows.len(), 2);
    assert_eq!(parse(&print(&map)).unwrap(), map);
}
