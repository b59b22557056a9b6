//! The history of intervals stays small, and never asks less than the whole of it would.

use std::collections::BTreeMap;
use std::sync::Arc;

use nacre_proto::ids::{Epoch, OsdId};

use super::{OsdSight, PastIntervals, PoolRules, PriorSet, View};

/// Numbers that look like chance, and repeat.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn view(epoch: u64, acting: &[u32], osds: &BTreeMap<OsdId, OsdSight>) -> View {
    let acting: Vec<OsdId> = acting.iter().copied().map(OsdId).collect();
    View {
        epoch: Epoch(epoch),
        up: acting.clone(),
        up_primary: acting.first().copied(),
        primary: acting.first().copied(),
        acting,
        pool: PoolRules { size: 2, min_size: 1, pg_num: 1, ..PoolRules::default() },
        osds: Arc::new(osds.clone()),
    }
}

fn all_up(n: u32) -> BTreeMap<OsdId, OsdSight> {
    (0..n).map(|o| (OsdId(o), OsdSight { up: true, up_thru: Epoch(u64::MAX), ..OsdSight::default() })).collect()
}

#[test]
fn a_pg_that_moves_to_and_fro_remembers_each_set_once() {
    let (mut past, osds) = (PastIntervals::default(), all_up(4));
    for e in 1..1000 {
        past.close(Epoch(e), &view(e, if e % 2 == 0 { &[0, 1] } else { &[0, 2] }, &osds));
    }
    assert_eq!(past.len(), 2);
    let lasts: Vec<Epoch> = past.iter().map(|i| i.last).collect();
    assert_eq!(lasts, [Epoch(998), Epoch(999)]);
}

#[test]
fn what_is_remembered_asks_no_less_than_all_of_it_would() {
    let mut dice = Dice(7);
    let mut merged = 0;
    for _ in 0..3000 {
        let mut osds = all_up(4);
        let (mut past, mut whole) = (PastIntervals::default(), Vec::new());
        for e in 1..=12 {
            for o in 0..4 {
                let Some(sight) = osds.get_mut(&OsdId(o)) else { continue };
                match dice.below(12) {
                    0 => sight.born = Epoch(e),
                    1 => sight.lost_at = Epoch(e),
                    _ => {}
                }
            }
            let acting = [dice.below(4) as u32, dice.below(4) as u32];
            let view = view(e, &acting, &osds);
            past.close(Epoch(e), &view);
            let mut one = PastIntervals::default();
            one.close(Epoch(e), &view);
            whole.push(one);
        }
        merged += usize::from(past.len() < whole.len());
        for sight in osds.values_mut() {
            sight.up = dice.below(2) == 0;
        }
        let now = view(13, &[dice.below(4) as u32], &osds);
        let started = Epoch(dice.below(13));
        let short = PriorSet::build(&now, &past, started);
        for one in &whole {
            let prior = PriorSet::build(&now, one, started);
            assert!(prior.probe.is_subset(&short.probe), "does not hear {:?}, but {:?}: {past:?}", prior.probe, short);
            assert!(prior.blocked_by.is_empty() || !short.blocked_by.is_empty(), "goes on, though {one:?} is lost");
        }
    }
    assert!(merged > 1000, "only {merged} histories were shortened");
}
