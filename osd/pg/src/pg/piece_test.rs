//! Recovered copies share with each other what their sources share, and are what the sources are.

use nacre_proto::ids::SnapId;

use super::{Layout, RANGES, solid};
use crate::io::Input;
use crate::msg::{Chunk, CopyCursor, Shared};
use crate::object::{INFO_XATTR, ObjectInfo};
use crate::op::{Op, Reply, SnapContext};
use crate::state::Config;
use crate::trio::{Disk, Trio, oid};

const SIZE: u64 = 8000;

/// One write under so many snapshots.
fn write(t: &mut Trio, to: usize, snaps: u64, op: Op) {
    t.next += 1;
    let mut r = t.request(oid(), t.next, vec![op]);
    r.snapc = SnapContext { seq: SnapId(snaps), snaps: (1..=snaps).rev().map(SnapId).collect() };
    assert!(matches!(t.send(to, r), Some(Reply::Done { outcome: Ok(_), .. })));
}

/// Osds 0 and 1 hold an object of 8000 bytes; then osd `left` alone sees four snapshots, with a small write after each.
fn parted(left: u32) -> Trio {
    parted_with(left, Config::default())
}

fn parted_with(left: u32, cfg: Config) -> Trio {
    let mut t = Trio::with(Config { chunk_bytes: 1000, ..cfg });
    t.map(&[0, 1], &[]);
    write(&mut t, 0, 0, Op::WriteFull { data: (0..SIZE).map(|n| (n / 7) as u8).collect::<Vec<_>>().into() });
    t.map(&[left], &[]);
    for snap in 1..=4 {
        write(&mut t, left as usize, snap, Op::Write { offset: snap * 1700, data: vec![snap as u8; 50].into() });
    }
    assert_eq!(t.disks[left as usize].len(), 5);
    (t.sent, t.shared) = (0, 0);
    t
}

fn clean(t: &Trio, osds: [usize; 2]) {
    assert!(t.cores[osds[0]].is_clean(), "{}", t.cores[osds[0]].explain());
    assert!(t.disks[osds[0]] == t.disks[osds[1]], "the copies differ");
}

/// Bytes that a copy of this occupies, if ranges that are listed as shared are.
fn occupies(disk: &Disk) -> u64 {
    let info: ObjectInfo = crate::format::open(crate::format::Kind::Object, &disk[&oid()].xattrs[INFO_XATTR]).unwrap();
    let all: u64 = disk.values().map(|thing| thing.bytes.len() as u64).sum();
    all - info.snaps.clones.iter().flat_map(|c| &c.overlap).map(|(_, len)| len).sum::<u64>()
}

#[test]
fn a_member_that_returns_shares_what_its_primary_does() {
    let mut t = parted(0);
    t.map(&[0, 1], &[]);
    clean(&t, [0, 1]);
    let most = occupies(&t.disks[0]);
    assert_eq!(most, SIZE + 4 * 50);
    assert_eq!((t.sent, t.shared), (most, 4 * (SIZE - 50)));
}

#[test]
fn a_member_filled_from_the_beginning_shares_what_its_primary_does() {
    let mut t = parted(0);
    t.map(&[0, 2], &[]);
    clean(&t, [0, 2]);
    assert_eq!((t.sent, t.shared), (occupies(&t.disks[0]), 4 * (SIZE - 50)));
}

#[test]
fn a_primary_that_returns_shares_what_its_source_does() {
    let mut t = parted(1);
    t.map(&[0, 1], &[]);
    clean(&t, [0, 1]);
    assert_eq!((t.sent, t.shared), (occupies(&t.disks[1]), 4 * (SIZE - 50)));
}

#[test]
fn what_a_client_waits_for_comes_after_its_clones_and_shares_too() {
    let mut t = parted(0);
    // Nothing goes on in the background.
    t.no_slots = true;
    t.map(&[0, 1], &[]);
    assert_eq!(t.sent, 0);
    write(&mut t, 0, 4, Op::Append { data: "end".into() });
    assert_eq!(t.sent, SIZE + 4 * 50);
    assert!(t.disks[0] == t.disks[1]);
}

#[test]
fn a_damaged_copy_is_replaced_by_one_that_shares_nothing() {
    let mut t = parted(0);
    t.map(&[0, 1], &[]);
    (t.sent, t.shared) = (0, 0);
    t.rotten.insert((0, oid()));
    assert!(t.read(0).unwrap().is_ok());
    assert!(t.rotten.is_empty());
    assert_eq!((t.sent, t.shared), (SIZE, 0), "the common blocks may be those that are bad");
    clean(&t, [0, 1]);
}

/// Whatever is done to an object under snapshots, those who missed it get the same.
#[test]
fn copies_are_equal_whatever_was_done_under_snapshots() {
    let mut draw = 7_u64;
    let mut below = |n: u64| {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (draw >> 33) % n
    };
    let (mut shared, mut snap) = (0, 0);
    for round in 0..60 {
        let mut t = Trio::with(Config { chunk_bytes: 1 + below(400), ..Config::default() });
        t.map(&[0, 1], &[]);
        write(&mut t, 0, snap, Op::WriteFull { data: vec![1; 600].into() });
        let left = below(2) as usize;
        t.map(&[left as u32], &[]);
        for _ in 0..12 {
            snap += below(2);
            let data = vec![below(250) as u8; 1 + below(90) as usize].into();
            let op = match below(9) {
                0 => Op::Truncate { size: below(900) },
                1 => Op::Zero { offset: below(500), len: below(200) },
                2 => Op::WriteFull { data },
                3 => Op::Append { data },
                4 if below(3) == 0 => Op::Remove {},
                5 if snap > 0 => Op::Rollback { snap: SnapId(1 + below(snap)) },
                _ => Op::Write { offset: below(700), data },
            };
            t.next += 1;
            let mut r = t.request(oid(), t.next, vec![op]);
            r.snapc = SnapContext { seq: SnapId(snap), snaps: (1..=snap).rev().map(SnapId).collect() };
            // A refusal, as of removing what is not there, is as good as any.
            assert!(t.send(left, r).is_some());
        }
        let other = if below(2) == 0 { 1 - left } else { 2 };
        let both = if below(2) == 0 && other != 2 { [other, left] } else { [left, other] };
        t.map(&both.map(|o| o as u32), &[]);
        assert!(t.cores[both[0]].is_clean(), "round {round}: {}", t.cores[both[0]].explain());
        assert!(t.disks[left] == t.disks[other], "round {round}: the copies differ");
        shared += t.shared;
    }
    assert!(shared > 5000, "only {shared} bytes were shared: nothing is tested");
}

#[test]
fn a_layout_covers_everything_once_and_is_bounded() {
    let many: Vec<(u64, u64)> = (0..1000).map(|n| (n * 10, 7)).collect();
    for (ranges, size) in [
        (vec![], 500),
        (vec![(0, 500)], 500),
        (vec![(0, 10), (490, 10)], 500),
        (vec![(100, 5000)], 500),
        (vec![(600, 10)], 500),
        (many, 10_000),
    ] {
        for bytes in [1, 13, 100_000] {
            let mut at = 0;
            while at < size {
                let shared = Shared { with: SnapId(1), ranges: ranges.clone() };
                let layout = Layout::sharing(at, bytes, size, shared);
                let common: Vec<(u64, u64)> = layout.shared.iter().flat_map(|s| s.ranges.clone()).collect();
                assert!(layout.own.iter().map(|(_, len)| len).sum::<u64>() <= bytes && common.len() <= RANGES);
                let mut parts: Vec<(u64, u64)> = layout.own.iter().copied().chain(common.iter().copied()).collect();
                parts.sort_unstable();
                let begin = at;
                for (from, len) in parts {
                    assert!(from == at && len > 0, "{layout:?}");
                    at += len;
                }
                assert!(at > begin && at <= size, "no way on from {begin} in {ranges:?}");
                for (from, len) in common {
                    assert!(ranges.iter().any(|(f, l)| *f <= from && from + len <= f + l));
                }
            }
        }
    }
}

#[test]
fn blocks_of_zeros_stay_holes() {
    let mut data = vec![0; 5 * 4096];
    data[2 * 4096 + 5] = 7;
    let parts = |offset: u64, data: &[u8]| -> Vec<(u64, usize)> {
        solid(offset, &bytes::Bytes::copy_from_slice(data)).into_iter().map(|(at, part)| (at, part.len())).collect()
    };
    assert_eq!(parts(8192, &data), [(8192 + 2 * 4096, 4096)]);
    assert_eq!(parts(0, &data[..4096]), []);
    // Blocks are the object's: what is cut off at either end may have more beside it.
    assert_eq!(parts(100, &data), [(100, 3996), (100 + 3996 + 4096, 4096), (4096 * 5, 100)]);
    assert_eq!(parts(0, &[]), []);
    assert_eq!(parts(0, &[1; 10_000]), [(0, 10_000)]);
    assert_eq!(parts(u64::MAX - 9, &[0; 9]), [(u64::MAX - 9, 9)]);
}

#[test]
fn a_piece_whose_parts_do_not_fit_is_refused() {
    let chunk = |ranges: Vec<(u64, u64)>, data: usize, next: Option<u64>| Chunk {
        at: CopyCursor { offset: 100, omap_after: None },
        next: next.map(|offset| CopyCursor { offset, omap_after: None }),
        xattrs: Vec::new(),
        header: bytes::Bytes::new(),
        size: 1000,
        data: vec![0; data].into(),
        omap: Vec::new(),
        shared: Some(Shared { with: SnapId(3), ranges }),
    };
    assert!(chunk(vec![(100, 300), (500, 100)], 500, None).is_sound());
    assert!(chunk(vec![(100, 300), (500, 100)], 150, Some(650)).is_sound());
    for bad in [
        chunk(vec![(50, 100)], 850, None),
        chunk(vec![(200, 100), (100, 100)], 700, None),
        chunk(vec![(900, 101)], 800, None),
        chunk(vec![(900, u64::MAX)], 800, None),
        chunk(vec![(100, 0)], 900, None),
        chunk(vec![(100, 300)], 599, None),
        chunk(vec![(100, 300)], 601, None),
        chunk(vec![(100, 300)], 0, Some(50)),
    ] {
        assert!(!bad.is_sound(), "{bad:?}");
    }
}

/// A member may be told anything.
#[test]
fn a_member_drops_a_piece_that_does_not_fit() {
    let mut t = parted(0);
    t.map(&[0, 1], &[]);
    let before = t.disks[1].clone();
    let chunk = Chunk {
        at: CopyCursor::default(),
        next: None,
        xattrs: Vec::new(),
        header: bytes::Bytes::new(),
        size: 10,
        data: bytes::Bytes::new(),
        omap: Vec::new(),
        shared: Some(Shared { with: SnapId(1), ranges: vec![(5, u64::MAX)] }),
    };
    let body = crate::msg::Body::Push { oid: oid(), version: t.cores[1].info().last_update, chunk };
    let msg = crate::msg::PeerMsg { epoch: t.view.epoch, interval: t.view.epoch, body };
    t.queue.push_back((1, Input::Peer { from: nacre_proto::ids::OsdId(0), msg }));
    t.settle();
    assert!(t.disks[1] == before);
}

/// A primary that is given each piece twice ends up with the object.
fn survives_pieces_that_come_twice(cfg: Config) -> bool {
    let mut t = parted_with(1, cfg);
    t.twice = true;
    t.map(&[0, 1], &[]);
    t.cores[0].is_clean() && t.disks[0] == t.disks[1]
}

#[test]
fn a_piece_that_comes_twice_is_put_in_place_once() {
    assert!(survives_pieces_that_come_twice(Config::default()));
    #[cfg(feature = "mutants")]
    {
        let mutant = Some(crate::mutant::Mutant::PullTwice);
        assert!(!survives_pieces_that_come_twice(Config { mutant, ..Config::default() }), "this proves nothing");
    }
}

/// A spare copy alone holds what the primary lacks; its osd goes away while it is asked, and comes back.
fn asks_again_who_was_away(cfg: Config) -> bool {
    let mut t = Trio::with(cfg);
    t.map(&[2], &[]);
    write(&mut t, 2, 0, Op::WriteFull { data: "only here".into() });
    t.spare = Some(2);
    t.no_pull = true;
    t.map(&[0, 1], &[]);
    assert!(t.cores[0].explain().contains("lacks 1 objects"), "{}", t.cores[0].explain());
    let interval = t.cores[0].info().interval;
    t.spare = None;
    t.map(&[0, 1], &[]);
    (t.spare, t.no_pull) = (Some(2), false);
    t.map(&[0, 1], &[]);
    assert_eq!(t.cores[0].info().interval, interval, "a new interval asks anew anyway");
    t.cores[0].is_clean() && t.disks[0].contains_key(&oid()) && t.disks[0] == t.disks[1]
}

#[test]
fn a_spare_copy_that_was_away_while_it_was_asked_is_asked_again() {
    assert!(asks_again_who_was_away(Config::default()));
    #[cfg(feature = "mutants")]
    {
        let mutant = Some(crate::mutant::Mutant::LosePulls);
        assert!(!asks_again_who_was_away(Config { mutant, ..Config::default() }), "this proves nothing");
    }
}

/// What becomes of an object of so many pieces that is read for a member, and read again since the connection was lost, when
/// the second answer comes late.
struct Twice {
    t: Trio,
    pieces: u64,
}

impl Twice {
    fn new(cfg: Config, pieces: u64) -> Twice {
        let mut t = Trio::with(Config { chunk_bytes: 1000, ..cfg });
        t.map(&[0, 1], &[]);
        write(&mut t, 0, 0, Op::WriteFull { data: "first".into() });
        t.map(&[0], &[]);
        let data: Vec<u8> = (0..pieces * 1000).map(|n| 1 + (n / 7) as u8 % 250).collect();
        write(&mut t, 0, 0, Op::WriteFull { data: data.into() });
        t.late = Some(Vec::new());
        t.map(&[0, 1], &[]);
        for (me, other) in [(0, 1), (1, 0)] {
            t.queue.push_back((me, Input::PeerReset { osd: nacre_proto::ids::OsdId(other) }));
        }
        t.settle();
        assert_eq!(t.late.as_ref().unwrap().len(), 2, "the first piece is read twice");
        Twice { t, pieces }
    }

    /// So many pieces are read and sent; the second answer for the first waits, behind the newest.
    fn send(&mut self, pieces: u64) {
        self.t.read_comes(0, true);
        for _ in 1..pieces {
            let newest = self.t.late.as_ref().unwrap().len() - 1;
            self.t.read_comes(newest, true);
        }
    }

    /// The late answer comes; is all well?
    fn end(mut self, fresh: bool) -> bool {
        self.t.read_comes(0, fresh);
        while !self.t.late.as_ref().unwrap().is_empty() {
            self.t.read_comes(0, true);
        }
        self.t.late = None;
        self.t.cores[0].is_clean() && self.t.disks[0] == self.t.disks[1]
    }
}

/// The late answer comes when the member has the object, and a client has removed it.
fn late_read_of_what_is_gone(cfg: Config) -> bool {
    let mut w = Twice::new(cfg, 1);
    w.send(w.pieces);
    let late = w.t.late.take();
    write(&mut w.t, 0, 0, Op::Remove);
    w.t.late = late;
    w.end(true)
}

/// The same, but it was changed, and what was read is as it was before.
fn late_read_of_what_was_changed(cfg: Config) -> bool {
    let mut w = Twice::new(cfg, 1);
    w.send(w.pieces);
    let late = w.t.late.take();
    write(&mut w.t, 0, 0, Op::Append { data: "more".into() });
    w.t.late = late;
    w.end(false)
}

/// It comes when the member has got two of three pieces.
fn late_read_of_the_first_of_three_pieces(cfg: Config) -> bool {
    let mut w = Twice::new(cfg, 3);
    w.send(2);
    w.end(true)
}

#[test]
fn a_piece_that_was_read_twice_is_sent_no_more_when_its_object_has_moved_on() {
    for play in [late_read_of_what_is_gone, late_read_of_what_was_changed, late_read_of_the_first_of_three_pieces] {
        assert!(play(Config::default()));
        #[cfg(feature = "mutants")]
        {
            let mutant = Some(crate::mutant::Mutant::LatePieces);
            assert!(!play(Config { mutant, ..Config::default() }), "this proves nothing");
        }
    }
}
