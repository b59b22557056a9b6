//! The default runs: many seeds, the seeds that once found something, and the same seed twice.

use std::sync::Arc;

use nacre_sim::Options;
use nacre_sim::campaign::{Plan, campaign, describe, judge};
use nacre_sim::coverage::UNREACHABLE;
use nacre_sim::fault::Fault;
use nacre_sim::scenario::File;

fn expect_fine(seeds: &[u64]) {
    let options = Options::default();
    for &seed in seeds {
        let outcome = judge(seed, &options);
        if !outcome.violations.is_empty() {
            let again = judge(seed, &options.traced(true));
            panic!("{}", describe(&again, "of this build", None));
        }
    }
}

/// How many seeds every change is held against.
const SEEDS: u64 = 2400;

#[test]
fn the_default_seeds_hold_and_show_everything() {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let plan = Plan { from: 0, to: SEEDS, until: None, threads };
    let mut failed = None;
    let summary = campaign(&plan, &Options::default(), &mut |o| {
        if !o.violations.is_empty() {
            failed.get_or_insert(o.seed);
        }
    });
    if let Some(seed) = failed {
        panic!("{}", describe(&judge(seed, &Options::default().traced(true)), "of this build", None));
    }
    assert_eq!(summary.seeds, SEEDS);
    assert!(summary.operations > 300 * SEEDS, "clients did next to nothing: {summary:?}");
    assert_eq!(summary.too_hard, 0, "histories were too long to judge");
    assert_eq!(summary.moves_never_seen, Vec::<String>::new(), "moves of state that no seed made");
    assert_eq!(summary.sights_never_seen, Vec::<String>::new(), "faults that no seed did, or that led to nothing");
    for (from, to, _) in UNREACHABLE {
        assert!(
            !summary.moves().contains_key(&(*from, *to)),
            "{from} -> {to} is made after all: no longer unreachable"
        );
    }
}

/// The files that come along say what they mean, and hold.
#[test]
fn scenario_files_hold() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = File::parse(&std::fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let options = Options { file: Some(Arc::new(file)), ..Options::default() };
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let (mut cuts, mut asked, mut exchanged) = (0, 0, 0);
        for seed in 0..8 {
            let outcome = judge(seed, &options);
            assert_eq!(outcome.too_hard, 0, "{name} seed {seed}: a history was too long to judge");
            assert!(outcome.violations.is_empty(), "{}", describe(&outcome, "of this build", Some(&name)));
            let faults: Vec<&str> =
                Fault::ALL.map(Fault::name).into_iter().filter(|f| outcome.sights.contains_key(f)).collect();
            if name == "calm.toml" {
                assert!(faults.iter().all(|f| *f == "snapshot"), "{faults:?}");
            }
            asked += outcome.sights.get("spare copy asked for an object").copied().unwrap_or_default();
            exchanged += outcome.sights.get("pg got another member while it was scrubbed").copied().unwrap_or_default();
            cuts += outcome.sights.get("power-cut").copied().unwrap_or_default();
        }
        assert!(!name.starts_with("power-cuts") || cuts > 10, "{name}: only {cuts} power cuts");
        assert!(!name.starts_with("hunts") || asked > 8, "{name}: spare copies were asked {asked} times");
        assert!(!name.starts_with("hunts") || exchanged >= 8, "{name}: {exchanged} pgs got another member");
        names.push(name);
    }
    assert!(names.len() >= 3, "{names:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let traced = Options::default().traced(true);
    let (a, b) = (judge(11, &traced), judge(11, &traced));
    assert!(a.trace.len() > 1000);
    assert_eq!(a.trace, b.trace);
    // Looking on changes nothing.
    assert_eq!(a.hash, judge(11, &Options::default()).hash);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 7, 130, 1095] {
        let (a, b) = (judge(seed, &Options::default()), judge(seed, &Options::default()));
        assert_eq!(a.hash, b.hash, "seed {seed} ran differently the second time");
        assert_eq!(a.events, b.events);
    }
    assert_ne!(judge(1, &Options::default()).hash, judge(2, &Options::default()).hash);
}

/// A lost connection made the primary ask for the last piece of an object again while the first copy of it was being
/// written; the second took the place of the whole object.
#[test]
fn a_piece_pulled_twice_does_not_replace_the_object() {
    expect_fine(&[1095]);
}

/// A member whose log was too old to join was started anew by a backfill, and was no longer asked for objects that only
/// it held.
#[test]
fn what_only_a_member_to_be_filled_holds_is_found() {
    expect_fine(&[130]);
}

/// A spare copy was known to the primary, which then asked all again and forgot it: it was never told to go.
#[test]
fn spare_copies_are_remembered_over_a_new_round_of_questions() {
    expect_fine(&[46, 159, 569, 764]);
}

/// An interval with fewer than min_size members recorded itself as a start of the pg. Past intervals do not count such a
/// one, so the next primary never asked its members, and waited for ever for a log of that start.
#[test]
fn a_start_below_min_size_is_no_start() {
    expect_fine(&[1308]);
}

/// A primary with an empty disk holds no pg and asks nobody; members waited for it for ever.
#[test]
fn a_primary_without_the_pg_is_told_of_it() {
    expect_fine(&[7, 47, 73, 382]);
}

/// The primary asked a spare copy for an object, its osd went away and came back: the question was not asked again.
#[test]
fn who_was_away_is_asked_again() {
    expect_fine(&[10584]);
}

/// A piece for a member was read twice, as its connection had ended. The second read came back when the object had been
/// sent and trimmed away: the primary took its own copy for lost, and looked for ever for an object that was gone.
#[test]
fn a_piece_that_is_read_late_says_nothing() {
    expect_fine(&[3131]);
}

/// A watch's time was up while a scrub held its object, and so was a renewal that had come before. The renewal was done first,
/// the end then found time left, and no timer was set any more: a dead watcher was never forgotten.
#[test]
fn a_watch_renewed_while_its_end_waits_ends_later() {
    expect_fine(&[40087]);
}

/// Of two pgs each held a slot for a member that was to be filled later, and waited for the other's to give a member what it
/// lacked first.
#[test]
fn no_slot_is_held_for_work_that_waits_for_another() {
    expect_fine(&[75457]);
}

/// A pg that became clean began to trim with the next message, whatever that was: also with one of an interval that is over.
#[test]
fn trimming_begins_when_a_pg_becomes_clean() {
    expect_fine(&[97145, 99898]);
}

/// A client with many late requests made a connection for each, which took the one before along: of seven the first was sent in
/// vain until time was up.
#[test]
fn late_requests_of_a_client_share_a_connection_once_all_is_healed() {
    expect_fine(&[98990]);
}

/// A primary that was cut off waited for a lease of before and began to serve when nobody followed it any more. It answered
/// nobody; the oracle asked it for writes of an interval it could not know of.
#[test]
fn a_primary_of_an_interval_that_is_over_is_not_asked_for_what_came_after() {
    expect_fine(&[23110]);
}

/// An activation was durable while its primary still waited for a promise to an older one; the next interval, without whoever
/// had promised, took that start for the end of all that was before, and served while the older primary still read.
#[test]
fn no_start_is_durable_before_old_promises_are_over() {
    expect_fine(&[191_740]);
}

/// A damaged object was known as missing when the log of others said that it was gone: its remains stayed in the store.
#[test]
fn a_damaged_object_that_is_removed_meanwhile_is_gone() {
    expect_fine(&[153_061]);
}

/// A block of an object that was being given to a member in a backfill had rotted: the good copy was fetched, and never
/// sent on.
#[test]
fn a_backfill_goes_on_after_a_damaged_object() {
    expect_fine(&[506]);
}

/// Calls of server-side classes are asked for and answered, not only refused: without that the oracle's model of them
/// judges nothing.
#[test]
fn class_calls_take_effect() {
    let traced = Options::default().traced(true);
    let lines: Vec<String> = (0..12).flat_map(|seed| judge(seed, &traced).trace).collect();
    for class in ["numops", "queue", "lock"] {
        let asked = lines.iter().filter(|l| l.contains(&format!("Call {{ class: \"{class}\""))).filter_map(|l| {
            // "<time> client C tid T to ..."
            l.split(" to ").next()?.split("client ").nth(1).map(|who| format!("client {who} answered Ok"))
        });
        let answered = asked.filter(|a| lines.iter().any(|l| l.contains(a.as_str()))).count();
        assert!(answered > 20, "only {answered} calls of {class} were answered");
    }
}

/// Notifies reach watchers, some of whom answer and some do not: else the oracle of notifies judges nothing.
#[test]
fn notifies_reach_watchers() {
    let traced = Options::default().traced(true);
    let lines: Vec<String> = (0..20).flat_map(|seed| judge(seed, &traced).trace).collect();
    let count = |what: &str| lines.iter().filter(|l| l.contains(what)).count();
    let ended = count("Notified {");
    let unheard = lines.iter().filter(|l| l.contains("Notified {") && l.contains("acks: []")).count();
    let missed = lines.iter().filter(|l| l.contains("Notified {") && !l.contains("missed: []")).count();
    assert!(
        count("is told") > 50 && ended - unheard > 30 && missed > 3,
        "{ended} ended, {unheard} unheard, {missed} missed some"
    );
}

/// A primary whose own slot was taken back kept the slots it had of others, and the pg that got its slot waited for one of
/// those.
#[test]
fn a_slot_taken_back_sets_the_others_free() {
    expect_fine(&[324]);
}

/// Pgs do split in these runs, over old maps too, and clients' requests cross the split.
#[test]
fn pgs_become_more_while_clients_write() {
    let grown: Vec<u64> = (0..60).filter(|s| nacre_sim::scenario::Scenario::draw(*s).grows).collect();
    let mut splits = 0;
    for &seed in &grown {
        let outcome = judge(seed, &Options::default().traced(true));
        assert!(outcome.violations.is_empty(), "{}", describe(&outcome, "of this build", None));
        splits += outcome.trace.iter().filter(|l| l.contains(" pgs become ")).count();
    }
    assert!(splits > grown.len(), "{} runs, {splits} doublings", grown.len());
}

/// Two reads of one object met a damaged copy; the first had it replaced, and the second, whose bytes had come meanwhile,
/// was refused as if no copy were good.
#[test]
fn a_read_under_way_while_its_copy_is_repaired_begins_again() {
    expect_fine(&[507]);
}

/// A copy found bad in a clean pg was asked of a spare holder that had been told to go, which never answered, although a
/// member held it: the member's info was from before the object's last write.
#[test]
fn a_bad_copy_is_fetched_from_a_member() {
    expect_fine(&[30]);
}

/// A scrub ordered while another was under way was not begun when that one ended, until something else happened.
#[test]
fn a_scrub_asked_for_during_another_follows_it() {
    expect_fine(&[1328]);
}

/// An osd came back with an empty disk while the map still showed its former life as up: a message made the pg there, which
/// served in an interval of that life, and was waited for ever after.
#[test]
fn a_pg_made_by_a_message_takes_no_part_in_a_former_life() {
    expect_fine(&[7314]);
}

/// A member died of a fault of before while it was to note a bad copy, and the scrub that had found that ended with the
/// interval; the simulation took a scrub of long before for the one it had ordered.
#[test]
fn a_scrub_outlives_its_interval_where_the_primary_stays() {
    expect_fine(&[128_037]);
}

/// The last disk that was to fail did so during the last scrub, whose order went with its process; the simulation took that
/// for a pg that is never scrubbed.
#[test]
fn the_last_scrub_is_ordered_again_if_its_primary_dies() {
    expect_fine(&[3121]);
}
