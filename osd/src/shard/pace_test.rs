//! Background work beside clients that are modelled: the more is read, the slower they are.

use nacre_pg::io::{Class, ReadId, ReadItem, Time};
use nacre_proto::ids::{PgId, PoolId};

use super::{BESIDE, CLASSES, FLOOR, Job, PIECES, Pace, Portion, START};

const MS: u64 = 1_000_000;

fn job(id: u64, len: u64) -> Job {
    let items = vec![ReadItem::Extent { offset: 0, len }];
    Job { pg: PgId { pool: PoolId(1), seed: 0 }, core: 1, id: ReadId(id), oid: None, items }
}

/// Seconds of a device on which clients, one operation each millisecond, are slowed down in proportion to what is read
/// beside them: twice as slow at `weight` bytes a second. Gives what was read in the last second, and the clients' slowness.
fn play(pace: &mut Pace, seconds: u64, clients: bool, weight: f64) -> (u64, f64) {
    let (mut id, mut read, mut last) = (0, std::collections::VecDeque::new(), (0, 0.0));
    let first = pace.looked / MS + 1;
    for ms in first..first + seconds * 1000 {
        let now = Time(ms * MS);
        while pace.waiting()[0].1 < 32 {
            pace.put(Class::Recovery, job(id, 256 << 10));
            id += 1;
        }
        let mut bytes = 0;
        for _ in 0..64 {
            let Some(job) = pace.take(now) else { break };
            bytes += job.cost();
        }
        read.push_back(bytes);
        if read.len() > 1000 {
            read.pop_front();
        }
        let lately: u64 = read.iter().rev().take(50).sum();
        let slowed = 1.0 + lately as f64 * 20.0 / weight;
        if clients {
            pace.answered(now, true, 4096, (2000.0 * slowed) as u64);
        }
        last = (read.iter().sum(), slowed);
    }
    last
}

/// Clients alone, so that their pace in quiet is known.
fn quiet(pace: &mut Pace) {
    for ms in 1..2000 {
        pace.answered(Time(ms * MS), true, 4096, 2000);
    }
    pace.looked = 2000 * MS;
}

#[test]
fn it_reads_as_much_as_clients_bear() {
    for weight in [40e6, 150e6, 600e6] {
        let mut pace = Pace::new(3.0);
        quiet(&mut pace);
        let (read, slowed) = play(&mut pace, 20, true, weight);
        // Three times as slow is at twice the weight.
        let bound = 2.0 * weight;
        assert!((0.4 * bound..1.3 * bound).contains(&(read as f64)), "{read} of {bound}");
        assert!(slowed < 4.0, "{slowed}");
    }
}

#[test]
fn it_goes_on_beside_clients_who_bear_nothing() {
    let mut pace = Pace::new(1.1);
    quiet(&mut pace);
    let (read, _) = play(&mut pace, 10, true, 1e6);
    assert!((0.8 * FLOOR..1.3 * FLOOR).contains(&(read as f64)), "{read}");
}

#[test]
fn without_clients_nothing_waits() {
    let mut pace = Pace::new(3.0);
    let (read, _) = play(&mut pace, 2, false, 1.0);
    // All there was to take: 64 jobs, or what waits, each millisecond.
    assert!(read as f64 > 8e9, "{read}");
    // Clients who went do not hold it up either.
    quiet(&mut pace);
    pace.looked += 1000 * MS;
    let (read, _) = play(&mut pace, 2, false, 1.0);
    assert!(read as f64 > 8e9, "{read}");
}

#[test]
fn classes_share_by_weight_and_keep_their_order() {
    let mut pace = Pace::new(3.0);
    for id in 0..130 {
        for (class, _) in CLASSES {
            pace.put(class, job(id, 1 << 20));
        }
    }
    let (mut taken, mut last) = ([0u32; 4], [None; 4]);
    for _ in 0..130 {
        let before = pace.waiting();
        let job = pace.take(Time(MS)).unwrap();
        let at = (0..4).find(|at| pace.waiting()[*at].1 < before[*at].1).unwrap();
        assert!(last[at].is_none_or(|last| last < job.id), "in the order they came");
        last[at] = Some(job.id);
        taken[at] += 1;
    }
    assert_eq!(taken, [80, 20, 20, 10]);
    // Whoever was away has no claim to the time it was.
    let mut pace = Pace::new(3.0);
    (0..100).for_each(|id| pace.put(Class::Scrub, job(id, 1 << 20)));
    (0..50).for_each(|_| drop(pace.take(Time(MS))));
    (0..50).for_each(|id| pace.put(Class::BestEffort, job(id, 1 << 20)));
    (0..30).for_each(|_| drop(pace.take(Time(MS))));
    let waiting = pace.waiting();
    assert_eq!((waiting[2].1, waiting[3].1), (30, 40));
}

#[test]
fn who_waits_is_told_when_to_come_again() {
    let mut pace = Pace::new(3.0);
    assert_eq!(pace.wait(Time(MS)), None);
    pace.answered(Time(MS), false, 0, 100);
    (0..100).for_each(|id| pace.put(Class::Recovery, job(id, 4 << 20)));
    while pace.take(Time(2 * MS)).is_some() {}
    let wait = pace.wait(Time(2 * MS)).unwrap();
    assert!(!wait.is_zero());
    let later = Time(2 * MS + u64::try_from(wait.as_nanos()).unwrap() + 1000);
    pace.answered(later, false, 0, 100);
    assert!(pace.take(later).is_some());
}

#[test]
fn beside_clients_little_is_under_way_however_it_is_shared() {
    // With the settings as they come: four pieces, and windows that a write may wait for.
    assert_eq!(Portion::of(true, 8, 2), Portion { objects: 2, piece: 256 << 10, window: 8 << 20 });
    assert_eq!(Portion::of(false, 8, 2), Portion { objects: 4, piece: 256 << 10, window: 32 << 20 });
    for groups in [0, 1, 2, 3, 5, 8, 16, 64] {
        for objects in [1, 2, 7, 8, 64, 1024] {
            let Portion { objects: each, piece, .. } = Portion::of(true, objects, groups);
            let under_way = (each * groups) as u64 * piece;
            // A piece of each group is the least there is.
            assert!(
                under_way <= BESIDE.max(groups as u64 * PIECES.1),
                "{groups} groups, {objects} objects: {under_way}"
            );
            assert!(each >= 1 && piece >= PIECES.1);
            assert!(each <= Portion::of(false, objects, groups).objects, "never more than the setting says");
        }
    }
}

#[test]
fn many_who_are_late_count_though_most_are_quick() {
    // Beside reads one of `every` takes ten times as long as the slowest in quiet: on average nothing.
    let play = |every: u64| {
        let mut pace = Pace::new(3.0);
        quiet(&mut pace);
        let first = pace.looked / MS + 1;
        for ms in first..first + 5000 {
            let now = Time(ms * MS);
            if pace.waiting()[0].1 < 32 {
                (0..64).for_each(|id| pace.put(Class::Recovery, job(id, 256 << 10)));
            }
            while pace.take(now).is_some() {}
            pace.answered(now, true, 4096, if ms % every == 0 { 30_000 } else { 2000 });
        }
        pace.rate
    };
    assert!(play(20) < 2.0 * FLOOR, "{}", play(20));
    // So many were late in quiet, too.
    assert!(play(400) > START, "{}", play(400));
}

#[test]
fn clients_are_there_until_they_are_silent_for_a_while() {
    let mut pace = Pace::new(3.0);
    assert!(!pace.has_clients(Time(MS)) && !pace.had_clients(Time(MS)));
    pace.answered(Time(MS), false, 0, 100);
    assert!(pace.has_clients(Time(200 * MS)));
    // What is read does not wait for those who have gone, but they may come again.
    assert!(!pace.has_clients(Time(302 * MS)) && pace.had_clients(Time(302 * MS)));
    assert!(!pace.had_clients(Time(5002 * MS)));
}
