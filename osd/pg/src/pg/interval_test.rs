//! Roles that maps give, input by input.

use std::collections::BTreeMap;
use std::sync::Arc;

use nacre_proto::ids::{Epoch, OsdId, PgId, PoolId};

use crate::PlacementGroup;
use crate::io::{Duration, Input, Output, Step, Time};
use crate::msg::{Body, PeerMsg};
use crate::state::{Config, History};
use crate::view::{OsdSight, PastIntervals, PoolRules, View};

const PG: PgId = PgId { pool: PoolId(1), seed: 0 };

/// Feeds one input, makes what it writes durable, and gives whom it tells its info.
fn tells(core: &mut PlacementGroup, input: Input) -> Vec<OsdId> {
    let mut told = Vec::new();
    let mut inputs = vec![input];
    while let Some(input) = inputs.pop() {
        let mut out = Vec::new();
        core.step(&mut Step { now: Time(1), wall_ms: 1, out: &mut out }, input);
        for o in out {
            match o {
                Output::Submit { id, .. } => inputs.push(Input::Committed(id)),
                Output::Send { to, msg } if matches!(msg.body, Body::Info { .. }) => told.push(to),
                _ => {}
            }
        }
    }
    told
}

fn view(epoch: u64, sights: &[(bool, u64)]) -> Arc<View> {
    let sight = |(up, from): (bool, u64)| OsdSight { up, up_from: Epoch(from), ..OsdSight::default() };
    let osds: BTreeMap<OsdId, OsdSight> = (0u32..).map(OsdId).zip(sights.iter().copied().map(sight)).collect();
    let acting = vec![OsdId(0), OsdId(1)];
    Arc::new(View {
        epoch: Epoch(epoch),
        up: acting.clone(),
        up_primary: Some(OsdId(0)),
        acting,
        primary: Some(OsdId(0)),
        pool: PoolRules { size: 2, min_size: 1, pg_num: 1, ..PoolRules::default() },
        osds: Arc::new(osds),
    })
}

/// Whom a spare copy tells of itself, first and then map by map, while the map shows its osd down for a while.
fn comes_forward(cfg: Config) -> Vec<Vec<OsdId>> {
    let cfg = Arc::new(Config { check: true, ..cfg });
    let first = view(1, &[(true, 1), (true, 1), (true, 1)]);
    let mut core = PlacementGroup::create(PG, OsdId(2), cfg, Arc::clone(&first), Epoch(1));
    // It never noticed: its process ran on, and so did its connections.
    let down = view(2, &[(true, 1), (true, 1), (false, 1)]);
    let again = view(3, &[(true, 1), (true, 1), (true, 3)]);
    let later = view(4, &[(true, 1), (true, 1), (true, 3)]);
    [first, down, again, later].map(|map| tells(&mut core, Input::Map(map))).to_vec()
}

#[test]
fn a_spare_copy_that_was_down_by_the_map_comes_forward_again() {
    let once = vec![OsdId(0)];
    assert_eq!(comes_forward(Config::default()), [once.clone(), vec![], once.clone(), vec![]]);
    #[cfg(feature = "mutants")]
    {
        let mutant = Some(crate::mutant::Mutant::ReturnSilent);
        let told = comes_forward(Config { mutant, ..Config::default() });
        assert_eq!(told, [once, vec![], vec![], vec![]], "this proves nothing");
    }
}

#[test]
fn a_pg_made_by_a_message_takes_no_part_in_intervals_of_a_former_life() {
    let cfg = Arc::new(Config { check: true, ..Config::default() });
    // Its process died and began again with an empty disk, and no map says so yet.
    let before = view(4, &[(true, 1), (true, 1)]);
    let core = PlacementGroup::create(PG, OsdId(0), cfg, Arc::clone(&before), Epoch(2));
    let mut core = core.of_run(Epoch(4), Time(1));
    assert_eq!(tells(&mut core, Input::Map(before)), []);
    assert_eq!(core.state(), "dormant", "leads in an interval that it was not there for");
    tells(&mut core, Input::Map(view(5, &[(true, 5), (true, 1)])));
    assert_eq!(core.state(), "get_info");
}

#[test]
fn a_pg_made_after_a_restart_keeps_what_a_former_life_may_have_promised() {
    let cfg = Arc::new(Config { check: true, ..Config::default() });
    let lease = |began: Time| {
        let first = view(6, &[(true, 1), (true, 6)]);
        let core = PlacementGroup::create(PG, OsdId(1), Arc::clone(&cfg), Arc::clone(&first), Epoch(6));
        let mut core = core.of_run(Epoch(5), began);
        tells(&mut core, Input::Map(first));
        let body = Body::Query { history: History::default(), past: PastIntervals::default() };
        let msg = PeerMsg { epoch: Epoch(6), interval: Epoch(6), body };
        let mut out = Vec::new();
        let now = Time(10_000_000_000);
        core.step(&mut Step { now, wall_ms: 1, out: &mut out }, Input::Peer { from: OsdId(0), msg });
        out.into_iter().find_map(|o| match o {
            Output::Send { msg: PeerMsg { body: Body::Info { lease, .. }, .. }, .. } => Some(lease),
            _ => None,
        })
    };
    assert!(lease(Time(9_900_000_000)).unwrap() > Duration::ms(600));
    assert_eq!(lease(Time(1)), Some(Duration(0)), "a run that began long ago owes nothing");
}
