//! Whose word is enough to go on without an interval that nobody is left of.

use std::collections::BTreeMap;
use std::sync::Arc;

use nacre_proto::ids::{Epoch, OsdId, PgId, PoolId};

use crate::PlacementGroup;
use crate::io::{Duration, Input, Output, Step, Time, TimerId};
use crate::log::{Dups, LogPart};
use crate::msg::{Body, Cursor, PeerMsg};
use crate::state::{Config, History, Info, Stats};
use crate::view::{OsdSight, PastIntervals, PoolRules, View};

const PG: PgId = PgId { pool: PoolId(1), seed: 0 };

fn step(core: &mut PlacementGroup, input: Input) {
    let mut inputs = vec![input];
    while let Some(input) = inputs.pop() {
        let mut out = Vec::new();
        core.step(&mut Step { now: Time(1), wall_ms: 1, out: &mut out }, input);
        inputs.extend(out.into_iter().filter_map(|o| match o {
            Output::Submit { id, .. } => Some(Input::Committed(id)),
            _ => None,
        }));
    }
}

fn view(epoch: u64, acting: [u32; 2], up: &[u32]) -> Arc<View> {
    let sight = |o: u32| OsdSight {
        up: up.contains(&o),
        up_from: Epoch(1),
        up_thru: Epoch(epoch),
        dead: !up.contains(&o),
        ..OsdSight::default()
    };
    let osds: BTreeMap<OsdId, OsdSight> = (0..4).map(|o| (OsdId(o), sight(o))).collect();
    let acting: Vec<OsdId> = acting.map(OsdId).to_vec();
    Arc::new(View {
        epoch: Epoch(epoch),
        up: acting.clone(),
        up_primary: acting.first().copied(),
        primary: acting.first().copied(),
        acting,
        pool: PoolRules { size: 2, min_size: 1, pg_num: 1, ..PoolRules::default() },
        osds: Arc::new(osds),
    })
}

/// Osd 1 leads in epoch 4. Of epoch 2, which osds 0 and 3 served, nobody is left; osd 2 was there in epochs 1 and 3 and
/// says which activation it made durable last.
fn hears(started: u64, backfilled: Cursor, known: u64) -> PlacementGroup {
    let all = [0, 1, 2, 3];
    let first = view(1, [1, 2], &all);
    let cfg = Arc::new(Config { check: true, ..Config::default() });
    let mut core = PlacementGroup::create(PG, OsdId(1), cfg, Arc::clone(&first), Epoch(1));
    for map in [first, view(2, [0, 3], &all), view(3, [0, 2], &all), view(4, [1, 2], &[1, 2])] {
        step(&mut core, Input::Map(map));
    }
    assert_eq!(core.state(), "get_info");
    let info = Box::new(Info {
        epoch: Epoch(4),
        interval: Epoch(4),
        started: Epoch(started),
        backfilled,
        history: History { created: Epoch(1), started: Epoch(known), clean: Epoch(0) },
        ..Info::new(PG)
    });
    let body = Body::Info { info, past: PastIntervals::default(), lease: Duration(0), holder: None, asked: true };
    let msg = PeerMsg { epoch: Epoch(4), interval: Epoch(4), body };
    step(&mut core, Input::Peer { from: OsdId(2), msg });
    core
}

#[test]
fn a_complete_copy_stands_for_what_ended_before_the_start_it_made_durable() {
    let core = hears(3, Cursor::Max, 1);
    assert_eq!(core.state(), "get_log", "{}", core.explain());
}

#[test]
fn an_incomplete_copy_stands_for_nothing() {
    let core = hears(3, Cursor::Min, 1);
    assert_eq!(core.state(), "down");
    assert!(core.explain().contains("only on osd.0, osd.3"), "{}", core.explain());
}

#[test]
fn the_interval_of_the_start_itself_and_later_ones_are_waited_for() {
    for started in [1, 2] {
        let core = hears(started, Cursor::Max, 1);
        assert_eq!(core.state(), "down", "started {started}");
        assert!(core.explain().contains("only on osd.0, osd.3"), "{}", core.explain());
    }
}

/// Osd 3 may have promised osd 0 that it may answer reads, and can no longer tell.
#[test]
fn a_whole_lease_is_waited_for_where_nobody_can_tell_a_promise() {
    let lease = |core: &PlacementGroup| {
        let super::Role::Primary(p) = &core.role else { panic!("leads, but is {}", core.state()) };
        p.old_lease
    };
    assert!(lease(&hears(3, Cursor::Max, 1)) > Time(1) + Config::default().lease);
    assert_eq!(lease(&hears(3, Cursor::Max, 3)), Time(0), "all made it durable: nothing to wait for");
}

/// Osd 1 leads anew with osd 2, after osd 0 led with both, and then osd 0 with osd 2 alone. What osd 2 promised binds nobody
/// once osd 0, in whose favour it was, has spoken in the new interval: whoever speaks there answers no older reads.
#[test]
fn a_promise_is_void_once_its_holder_has_spoken() {
    let span = Duration::ms(800);
    let all = [0, 1, 2];
    let lease = |holder: Option<OsdId>, spoken: bool| {
        let cfg = Arc::new(Config::default());
        let map = |epoch, acting: &[u32]| view(epoch, [acting[0], acting[1]], &all);
        let first = map(1, &[0, 2]);
        let mut core = PlacementGroup::create(PG, OsdId(1), cfg, Arc::clone(&first), Epoch(1));
        for map in [first, map(2, &[0, 1]), map(3, &[0, 2]), map(4, &[1, 2])] {
            step(&mut core, Input::Map(map));
        }
        let mut say = |from: u32, lease, holder| {
            let history = History { created: Epoch(1), started: Epoch(3), clean: Epoch(0) };
            let info = Info { epoch: Epoch(4), interval: Epoch(4), started: Epoch(3), history, ..Info::new(PG) };
            let body = Body::Info { info: Box::new(info), past: PastIntervals::default(), lease, holder, asked: true };
            let msg = PeerMsg { epoch: Epoch(4), interval: Epoch(4), body };
            step(&mut core, Input::Peer { from: OsdId(from), msg });
        };
        say(2, span, holder);
        if spoken {
            say(0, Duration(0), None);
        }
        core.old_lease_until()
    };
    assert!(lease(Some(OsdId(0)), false) > Time(0));
    assert_eq!(lease(Some(OsdId(0)), true), Time(0));
    assert_eq!(lease(Some(OsdId(1)), false), Time(0), "its own is none to wait for");
    // Forgotten: whoever it can have been given to has to have spoken.
    assert!(lease(None, false) > Time(0));
    assert_eq!(lease(None, true), Time(0));
}

/// A durable activation stands for all that was before it, promises to older primaries too: nobody asks for them again.
#[test]
fn nothing_is_activated_before_an_old_promise_is_over() {
    let all = [0, 1, 2];
    let map = |epoch, acting| view(epoch, acting, &all);
    let first = map(1, [0, 2]);
    let mut core = PlacementGroup::create(PG, OsdId(1), Arc::new(Config::default()), Arc::clone(&first), Epoch(1));
    // The first one is cut off, and nobody knows whether it still reads.
    let mut cut = (*map(3, [1, 2])).clone();
    Arc::make_mut(&mut cut.osds).get_mut(&OsdId(0)).unwrap().up = false;
    for map in [first, map(2, [0, 2]), Arc::new(cut)] {
        step(&mut core, Input::Map(map));
    }
    let say = |core: &mut PlacementGroup, body| {
        step(core, Input::Peer { from: OsdId(2), msg: PeerMsg { epoch: Epoch(3), interval: Epoch(3), body } });
    };
    let history = History { created: Epoch(1), started: Epoch(1), clean: Epoch(0) };
    let info = Box::new(Info { epoch: Epoch(3), interval: Epoch(3), started: Epoch(1), history, ..Info::new(PG) });
    let (past, lease) = (PastIntervals::default(), Duration::ms(800));
    say(&mut core, Body::Info { info, past, lease, holder: Some(OsdId(0)), asked: true });
    let log = Body::Log { part: LogPart::default(), dups: Dups::default(), stats: Stats::default() };
    say(&mut core, log);
    assert_eq!((core.state(), core.info.started), ("wait_lease", Epoch(0)), "{}", core.explain());
    // when the time is not over yet, and when it is
    let mut ring = |now| {
        let mut out = Vec::new();
        let timer = Input::Timer(TimerId::OldLease { interval: 3 });
        core.step(&mut Step { now, wall_ms: 1, out: &mut out }, timer);
        let told =
            out.iter().any(|o| matches!(o, Output::Send { msg: PeerMsg { body: Body::Activate { .. }, .. }, .. }));
        (core.state(), told)
    };
    assert_eq!(ring(Time(1) + Duration::ms(799)), ("wait_lease", false));
    assert_eq!(ring(Time(1) + Duration::ms(800)), ("activating", true));
    assert_eq!(core.info.started, Epoch(3));
}
