//! Splits over several shards, step by step: who makes a child, who has it, and what comes for it too early.

use std::sync::Mutex;
use std::time::Duration;

use nacre_maps::ClusterMap;
use nacre_maps::rules::{self, Asker};
use nacre_pg::io::Request;
use nacre_pg::state::Config;
use nacre_pg::wire::{Parcel, Told};
use nacre_proto::ids::{OsdId, PoolId, Stamp, Uuid};
use nacre_proto::v1::map_command::Verb;
use nacre_proto::v1::{MapCommand, OsdBoot, PoolCreate, PoolSet};
use nacre_store::{Fullness, MemoryStore};
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::shard::Ground;
use crate::shards::Shards;
use crate::sight::History;

const ME: OsdId = OsdId(0);

#[derive(Default)]
struct Nowhere(Mutex<Vec<String>>);

impl Outside for Arc<Nowhere> {
    fn say(&self, _: OsdId, _: Parcel) {}
    fn mark(&self, _: OsdId, _: u64) {}
    fn ask(&self, _: PgId, _: Epoch, _: Request) {}
    fn tell(&self, _: SessionId, _: &Told) {}
    fn crowded(&self, _: Fullness) {}
    fn broken(&self, why: String) {
        self.0.lock().unwrap().push(why);
    }
}

fn after(map: &ClusterMap, verb: Verb) -> ClusterMap {
    let command = rules::Command::try_from(MapCommand { verb: Some(verb) }).unwrap();
    let asker = Asker { now: Stamp(1), who: "client.admin".into() };
    let increments = rules::execute(map, &command, &asker).unwrap().increments;
    increments.iter().fold(map.clone(), |map, increment| map.apply(increment).unwrap())
}

fn boot(osd: u32) -> Verb {
    Verb::OsdBoot(OsdBoot {
        osd,
        incarnation: 1,
        uuid: vec![osd as u8 + 1; 16].into(),
        public: vec![format!("10.0.0.{osd}:6800")],
        cluster: vec![format!("10.0.0.{osd}:6801")],
        host: format!("h{osd}"),
        capacity_bytes: 1 << 40,
        ..OsdBoot::default()
    })
}

fn pg_num(count: u32) -> Verb {
    Verb::PoolSet(PoolSet { pool: "few".into(), option: "pg_num".into(), value: count.to_string() })
}

/// An OSD of several shards, and what is in their queues.
struct Osd {
    map: ClusterMap,
    pool: PoolId,
    shards: Vec<Shard<Arc<Nowhere>>>,
    queues: Vec<UnboundedReceiver<Event>>,
    outside: Arc<Nowhere>,
}

impl Osd {
    /// With so many shards and a pool of so many groups, each of which all three OSDs hold.
    fn new(count: u64, groups: u32) -> Osd {
        let mut map = ClusterMap::empty(Uuid([3; 16]));
        let pool = Verb::PoolCreate(PoolCreate { name: "few".into(), pg_num: Some(groups), ..PoolCreate::default() });
        for verb in [boot(0), boot(1), boot(2), pool] {
            map = after(&map, verb);
        }
        let pool = *map.pools.iter().next().unwrap().0;
        let (shards, queues) = Shards::new(count);
        let ground = Ground::new(ME, shards, Arc::new(MemoryStore::new(1 << 30)));
        let outside = Arc::new(Nowhere::default());
        let mut history = History::default();
        history.push(Arc::new(Sight::first(map.clone()).unwrap()));
        let load =
            |index| Shard::load(index, &ground, Config::default(), history.clone(), Arc::clone(&outside), &[]).unwrap();
        Osd { map, pool, shards: (0..count as usize).map(load).collect(), queues, outside }
    }

    fn pg(&self, seed: u32) -> PgId {
        PgId { pool: self.pool, seed }
    }

    /// The shard that has a group.
    fn home(&mut self, seed: u32) -> &mut Shard<Arc<Nowhere>> {
        let pg = self.pg(seed);
        let index = self.shards[0].shards.of(pg);
        &mut self.shards[index]
    }

    fn next_map(&mut self, verb: Verb) -> Arc<Sight> {
        self.map = after(&self.map, verb);
        Arc::new(Sight::first(self.map.clone()).unwrap())
    }

    /// Makes a group where it belongs, as a message of its primary would.
    fn make(&mut self, seed: u32) {
        let (pg, sight) = (self.pg(seed), self.shards[0].maps.last().unwrap().clone());
        let shard = self.home(seed);
        let group = PlacementGroup::create(pg, ME, Arc::clone(&shard.cfg), sight.view(pg).unwrap(), sight.epoch());
        let number = shard.number();
        shard.groups.insert(pg, (number, group));
        shard.work.push_back((pg, number, Input::Map(sight.view(pg).unwrap())));
        shard.drain();
    }

    /// Everything that shards have for each other.
    fn deliver(&mut self) {
        for index in (0..self.shards.len()).cycle().take(3 * self.shards.len()) {
            while let Ok(event) = self.queues[index].try_recv() {
                self.shards[index].take(event);
                self.shards[index].drain();
            }
        }
    }
}

#[test]
fn a_child_for_another_shard_is_waited_for_there_and_follows_all_maps_from_its_birth_on() {
    let mut osd = Osd::new(2, 1);
    osd.make(0);
    let (parent, child) = (osd.pg(0), osd.pg(1));
    let split = osd.next_map(pg_num(2));
    let later = osd.next_map(boot(3));
    // given that the child's shard hears of the split first, and of the map after it
    assert!(!std::ptr::eq(osd.home(0), osd.home(1)), "they are in different shards");
    let home = osd.home(1);
    home.take(Event::Sight(Arc::clone(&split)));
    home.take(Event::Sight(Arc::clone(&later)));
    // when somebody wants something of the child
    home.take(Event::Order(child, Order::Scrub { deep: false }));
    // then that is kept, and nothing is made in the child's place
    assert_eq!(home.expected.get(&child).map(Vec::len), Some(1));
    assert!(home.groups.is_empty());
    // until the parent has followed
    osd.home(0).take(Event::Sight(split));
    osd.deliver();
    let home = osd.home(1);
    assert!(home.expected.is_empty());
    assert_eq!(home.groups.get(&child).map(|(_, group)| group.epoch()), Some(later.epoch()));
    assert!(osd.home(0).groups.contains_key(&parent) && osd.home(0).owed.is_empty());
    assert!(osd.outside.0.lock().unwrap().is_empty());
}

#[test]
fn a_child_that_comes_before_its_map_waits_for_that() {
    let mut osd = Osd::new(2, 1);
    osd.make(0);
    let child = osd.pg(1);
    let split = osd.next_map(pg_num(2));
    osd.home(0).take(Event::Sight(Arc::clone(&split)));
    osd.deliver();
    assert!(osd.home(1).groups.is_empty());
    osd.home(1).take(Event::Sight(Arc::clone(&split)));
    assert_eq!(osd.home(1).groups.get(&child).map(|(_, group)| group.epoch()), Some(split.epoch()));
    assert!(osd.home(1).expected.is_empty());
}

#[test]
fn without_a_parent_here_nobody_waits_also_not_for_the_children_of_children() {
    let mut osd = Osd::new(2, 1);
    let first = osd.next_map(pg_num(2));
    let second = osd.next_map(pg_num(8));
    // The shard of the child hears of both splits before it hears that there is no parent.
    osd.home(1).take(Event::Sight(Arc::clone(&first)));
    osd.home(1).take(Event::Sight(Arc::clone(&second)));
    assert!(!osd.home(1).expected.is_empty());
    osd.home(0).groups.clear();
    osd.home(0).take(Event::Sight(first));
    osd.home(0).take(Event::Sight(second));
    osd.deliver();
    for shard in &osd.shards {
        assert!(shard.expected.is_empty() && shard.owed.is_empty(), "{:?} {:?}", shard.expected, shard.owed);
    }
    // What this OSD leads it makes itself, each where it belongs.
    for (index, shard) in osd.shards.iter().enumerate() {
        assert!(shard.groups.keys().all(|pg| shard.shards.of(*pg) == index));
    }
}

#[test]
fn a_pool_that_goes_leaves_nobody_waiting() {
    let mut osd = Osd::new(2, 1);
    osd.make(0);
    let split = osd.next_map(pg_num(2));
    let gone =
        osd.next_map(Verb::PoolRemove(nacre_proto::v1::PoolRemove { pool: "few".into(), confirm: "few".into() }));
    osd.home(1).take(Event::Sight(Arc::clone(&split)));
    assert!(!osd.home(1).expected.is_empty());
    osd.home(1).take(Event::Sight(Arc::clone(&gone)));
    assert!(osd.home(1).expected.is_empty());
    // The child comes all the same, and goes again with what it has on disk.
    osd.home(0).take(Event::Sight(split));
    osd.home(0).take(Event::Sight(gone));
    osd.deliver();
    assert!(
        osd.shards.iter().all(|shard| shard.groups.is_empty() && shard.expected.is_empty() && shard.owed.is_empty())
    );
}

#[test]
fn no_child_is_given_up_before_its_parent_had_its_turn() {
    // given a shard with two groups, each of which makes children for its own shard and for both others
    let mut osd = Osd::new(3, 4);
    (0..4).for_each(|seed| osd.make(seed));
    let split = osd.next_map(pg_num(16));
    let (first, second) = (osd.pg(0), osd.pg(3));
    let home = osd.shards[0].shards.of(first);
    assert_eq!(home, osd.shards[0].shards.of(second));
    osd.shards[home].take(Event::Sight(split));
    // then each child is told of once, as made
    let told: Vec<(PgId, bool)> = (osd.queues.iter_mut().enumerate().filter(|(index, _)| *index != home))
        .flat_map(|(_, queue)| std::iter::from_fn(|| queue.try_recv().ok()).collect::<Vec<_>>())
        .filter_map(|event| match event {
            Event::Adopt(pg, _, child) => Some((pg, child.is_some())),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told.iter().all(|(_, made)| *made), "{told:?}");
    assert!(osd.shards[home].owed.is_empty() && osd.shards[home].groups.len() == 4);
}

#[test]
fn recovery_has_less_under_way_as_long_as_clients_are_there() {
    let mut osd = Osd::new(1, 1);
    let shard = &mut osd.shards[0];
    shard.heed_clients();
    let under_way = |cfg: &Config| (cfg.chunk_bytes * cfg.recover_active as u64, cfg.backfill_bytes);
    let alone = under_way(&shard.cfg);
    shard.pace.answered(shard.now(), true, 4096, 1000);
    shard.heed_clients();
    let beside = under_way(&shard.cfg);
    assert!(beside.0 * 2 <= alone.0 && beside.1 * 2 <= alone.1, "{beside:?} of {alone:?}");
    // As much later as it takes for them to count as gone.
    shard.started -= Duration::from_secs(6);
    shard.heed_clients();
    assert_eq!(under_way(&shard.cfg), alone);
}
