//! Block images as their users meet them: the command line, the library, stock NBD clients, and OSDs that die.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nacre_block::create::Shape;
use nacre_block::{Error, Image, Use, create, directory};
use nacre_client::Pool;

use super::tools::{Server, Started, at_last, moment, run, runtime};
use super::{Running, nacre};

const MIB: u64 = 1 << 20;

pub(super) fn refused(running: &Running, args: &[&str]) -> String {
    let (code, _, stderr) = nacre(running.0.path(), args);
    assert_eq!(code, Some(1), "{args:?}");
    stderr
}

#[test]
fn images_are_made_listed_changed_and_removed_by_verbs() {
    let running = Running::new(11);
    let good = |args: &[&str]| running.good(args);
    let info = |image: &str| -> serde_json::Value {
        serde_json::from_str(&good(&["block", "info", image, "--json"])).unwrap()
    };
    // An image is made, once.
    good(&["block", "create", "data/disk", "--size", "64MiB"]);
    assert_eq!(info("data/disk")["size"], 64 * MIB);
    let error = refused(&running, &["block", "create", "data/disk", "--size", "1GiB"]);
    assert!(error.contains("already; nothing was changed"), "{error}");
    // A wrong size is said to be wrong.
    let error = refused(&running, &["block", "create", "data/odd", "--size", "1000B"]);
    assert!(error.contains("multiple of 512"), "{error}");
    let error = refused(&running, &["block", "create", "data/odd", "--size", "1MiB", "--object-size", "1KiB"]);
    assert!(error.contains("4 KiB to 32 MiB"), "{error}");
    let error = refused(&running, &["block", "create", "data/odd", "--size", "17179869153GiB"]);
    assert!(error.contains("at most 16 EiB less 32 GiB"), "{error}");
    // The largest can be written all over.
    good(&["block", "create", "data/giant/vast", "--size", "17179869152GiB", "--object-size", "32MiB"]);
    good(&["block", "bench", "data/giant/vast", "write", "--seconds", "1", "--depth", "4"]);
    good(&["block", "bench", "data/giant/vast", "read", "--seconds", "1", "--depth", "4"]);
    assert_eq!(info("data/giant/vast")["size"], 18_446_744_039_349_813_248_u64);
    let error = refused(&running, &["block", "info", "data/none"]);
    assert!(error.contains("there is no image none"), "{error}");
    // One in another namespace is another.
    good(&["block", "create", "data/guest/disk", "--size", "1MiB"]);
    assert_eq!(info("data/guest/disk")["size"], MIB);
    // What is in it keeps it from shrinking.
    let file = running.0.path().join("file");
    std::fs::write(&file, vec![7; 5 * MIB as usize]).unwrap();
    good(&["block", "import", "file", "data/full", "--form", "raw", "--size", "16MiB"]);
    let error = refused(&running, &["block", "resize", "data/full", "--size", "4MiB"]);
    assert!(error.contains("holds data past"), "{error}");
    assert_eq!(info("data/full")["size"], 16 * MIB);
    good(&["block", "resize", "data/full", "--size", "8MiB"]);
    good(&["block", "resize", "data/full", "--size", "4MiB", "--lose-data"]);
    good(&["block", "resize", "data/full", "--size", "12MiB"]);
    good(&["block", "export", "data/full", "out", "--form", "raw"]);
    let out = std::fs::read(running.0.path().join("out")).unwrap();
    assert_eq!(out.len() as u64, 12 * MIB);
    assert!(out[..4 << 20].iter().all(|b| *b == 7) && out[4 << 20..].iter().all(|b| *b == 0), "what was cut stays cut");
    let du: serde_json::Value = serde_json::from_str(&good(&["block", "du", "data/full", "--json"])).unwrap();
    assert_eq!(du[0]["used"], 4 * MIB);
    // Names change, limits are notes, wrong ones are refused.
    good(&["block", "rename", "data/full", "half"]);
    good(&["block", "note", "data/half", "limit.iops=100", "owner=me"]);
    assert_eq!(info("data/half")["notes"]["limit.iops"], "100");
    assert!(refused(&running, &["block", "note", "data/half", "limit.pace=1"]).contains("no such limit"));
    // The trash keeps for a time, and gives back.
    let number = good(&["block", "trash", "mv", "data/half"]);
    assert!(refused(&running, &["block", "info", "data/half"]).contains("no image"));
    assert!(refused(&running, &["block", "trash", "rm", "data", number.trim()]).contains("stays in the trash"));
    good(&["block", "trash", "restore", "data", number.trim(), "--name", "again"]);
    // A snapshot keeps an image.
    good(&["block", "snap", "create", "data/again@monday"]);
    assert!(refused(&running, &["block", "rm", "data/again"]).contains("1 snapshots"));
    assert!(refused(&running, &["block", "snap", "create", "data/again@monday"]).contains("already"));
    // A clone of what is not there is refused by what is missing, and nothing is left of it.
    let before = (good(&["block", "ls", "data"]), good(&["object", "ls", "data"]));
    for (parent, what) in [
        ("data/again@tuesday", "no snapshot tuesday"),
        ("data/nobody@monday", "no image nobody"),
        ("data/guest/again@monday", "no image again"),
        ("nowhere/again@monday", "nowhere"),
    ] {
        let error = refused(&running, &["block", "clone", parent, "data/c"]);
        assert!(error.contains(what), "{error}");
    }
    let error = refused(&running, &["block", "clone", "data/again@monday", "nowhere/c"]);
    assert!(error.contains("nowhere"), "{error}");
    assert_eq!((good(&["block", "ls", "data"]), good(&["object", "ls", "data"])), before);
    good(&["block", "clone", "data/again@monday", "data/guest/c"]);
    let error = refused(&running, &["block", "snap", "rm", "data/again@monday"]);
    assert!(error.contains("has clones: data/c"), "{error}");
    good(&["block", "flatten", "data/guest/c"]);
    good(&["block", "snap", "rm", "data/again@monday"]);
    good(&["block", "rm", "data/again", "data/disk", "data/guest/c", "data/guest/disk"]);
    // Nothing of them is left but the directories.
    for namespace in ["", "guest"] {
        let left = good(&["object", "ls", "data", "--namespace", namespace]);
        assert!(left.lines().all(|name| name == "block.directory" || name == "block.trash"), "{left}");
    }
}

/// A seeded generator, so that a failure can be had again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }
}

/// An image beside what it must hold.
struct Twin {
    name: String,
    image: Image,
    bytes: Vec<u8>,
    snaps: BTreeMap<String, Vec<u8>>,
}

impl Twin {
    async fn new(pool: &Pool, name: &str, size: usize, held_back: u64, shape: Shape) -> Twin {
        create::create(pool, name, size as u64, shape).await.unwrap();
        let image = Image::open_for(pool, name, Use::Write).await.unwrap();
        image.write_back(held_back);
        Twin { name: name.to_owned(), image, bytes: vec![0; size], snaps: BTreeMap::new() }
    }

    fn range(&self, dice: &mut Dice) -> (usize, usize) {
        let from = dice.roll(self.bytes.len() as u64) as usize;
        let most = (self.bytes.len() - from).min([600, 5000, 20_000][dice.roll(3) as usize]);
        (from, dice.roll(most as u64 + 1) as usize)
    }

    async fn check(&self, pool: &Pool, seed: u64) {
        if seed.is_multiple_of(2) {
            self.image.flush().await.unwrap();
            assert_eq!(self.image.dirty(), 0, "a flush leaves nothing");
        }
        let whole = self.image.read(0, self.bytes.len() as u64).await.unwrap();
        let differs = whole.iter().zip(&self.bytes).position(|(a, b)| a != b);
        assert_eq!((whole.len(), differs), (self.bytes.len(), None), "{} at seed {seed}", self.name);
        for (snap, bytes) in &self.snaps {
            let image = Image::open_snapshot(pool, &self.name, snap).await.unwrap();
            let whole = image.read(0, image.size()).await.unwrap();
            let differs = whole.iter().zip(bytes).position(|(a, b)| a != b);
            assert_eq!((whole.len(), differs), (bytes.len(), None), "{}@{snap} at seed {seed}", self.name);
        }
        self.check_maps(pool, seed).await;
    }

    /// The maps of the image and of its snapshots miss no object, and what they say changed is what a look at each object
    /// finds.
    async fn check_maps(&self, pool: &Pool, seed: u64) {
        self.image.flush().await.unwrap();
        let mut older: Option<(String, Image)> = None;
        let mut all: Vec<Option<Image>> = Vec::new();
        for snap in self.image.snapshots() {
            all.push(Some(Image::open_snapshot(pool, &self.name, &snap.name).await.unwrap()));
        }
        all.push(None);
        for frozen in all {
            let image = frozen.unwrap_or_else(|| self.image.clone());
            let found = image.check_map(|_, _| {}).await.unwrap();
            let name = image.header().image.name;
            assert!(found.used && found.asked && found.missed == 0, "{found:?} of {name} at seed {seed}");
            for older in [None, older.as_ref()] {
                let since = older.map(|(_, image)| image);
                let by_map = image.changed_since(since).await.unwrap();
                assert_eq!(by_map, image.changed_since_by_objects(since).await.unwrap(), "{name} at seed {seed}");
            }
            older = Some((name, image));
        }
    }

    /// Reads piece by piece, so that the next is fetched ahead, and writes between two of them.
    async fn scan(&mut self, dice: &mut Dice, turn: u64) {
        let (mut from, piece) = (0, 600 + dice.roll(3000) as usize);
        while from + piece <= self.bytes.len() {
            let read = self.image.read(from as u64, piece as u64).await.unwrap();
            assert!(read[..] == self.bytes[from..from + piece], "read {from} {piece} of {} in turn {turn}", self.name);
            from += piece;
            if dice.roll(8) == 0 {
                let at = (from + dice.roll(2 * piece as u64) as usize).min(self.bytes.len());
                let len = piece.min(self.bytes.len() - at);
                let data = vec![turn as u8 | 1; len];
                let write = self.image.write(at as u64, data.clone().into());
                // A read at the same time may see either, and must leave nothing old behind.
                let (written, read) = tokio::join!(write, self.image.read(0, 512));
                written.and(read.map(drop)).unwrap();
                self.bytes[at..at + len].copy_from_slice(&data);
            }
        }
    }

    async fn step(&mut self, dice: &mut Dice, turn: u64) {
        match dice.roll(21) {
            20 => self.scan(dice, turn).await,
            0..8 => {
                let (from, len) = self.range(dice);
                let data: Vec<u8> = (0..len).map(|at| (at as u64 + turn) as u8 | 1).collect();
                self.bytes[from..from + len].copy_from_slice(&data);
                self.image.write(from as u64, data.into()).await.unwrap();
            }
            8..12 => {
                let (from, len) = self.range(dice);
                self.bytes[from..from + len].fill(0);
                self.image.zero(from as u64, len as u64).await.unwrap();
            }
            12 => {
                let size = 512 * (1 + dice.roll(160)) as usize;
                self.bytes.resize(size, 0);
                self.image.resize(size as u64, true).await.unwrap();
            }
            13 | 14 if self.snaps.len() < 4 => {
                let name = format!("s{turn}");
                self.image.snapshot(&name).await.unwrap();
                self.snaps.insert(name, self.bytes.clone());
            }
            15 => {
                let at = dice.roll(self.snaps.len() as u64) as usize;
                if let Some((name, bytes)) = self.snaps.iter().nth(at) {
                    self.image.rollback(name, |_, _| {}).await.unwrap();
                    self.bytes.clone_from(bytes);
                }
            }
            16 => {
                let at = dice.roll(self.snaps.len() as u64) as usize;
                if let Some(name) = self.snaps.keys().nth(at).cloned() {
                    match self.image.remove_snapshot(&name).await {
                        Ok(()) => drop(self.snaps.remove(&name)),
                        Err(Error::HasChildren { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            17 => match self.image.flatten(|_, _| {}).await {
                Ok(()) | Err(Error::NoClone { .. }) => {}
                Err(error) => panic!("{error}"),
            },
            _ => {
                let (from, len) = self.range(dice);
                let read = self.image.read(from as u64, len as u64).await.unwrap();
                assert!(read[..] == self.bytes[from..from + len], "read {from} {len} in turn {turn}");
            }
        }
    }
}

#[test]
fn an_image_is_what_a_flat_file_would_be_through_snapshots_clones_and_resizes() {
    let running = Running::new(12);
    runtime().block_on(async {
        let cluster = running.client().await;
        let pool = cluster.pool("data").await.unwrap();
        let other = pool.namespace("other");
        running.good(&["pool", "create", "apart", "--pg-num", "8"]);
        let striped = |unit, count, apart: bool| Shape {
            order: Some(12),
            stripes: Some((unit, count)),
            data_pool: apart.then(|| "apart".to_owned()),
        };
        // The third and fourth hold writes back, the fourth with hardly any room; the later ones have stripes, and their
        // data in another pool.
        for (seed, held_back, shape) in [
            (3, 0, Shape::from(12)),
            (77, 0, striped(1024, 3, true)),
            (4242, 1 << 20, Shape::from(12)),
            (5, 9000, striped(2048, 5, false)),
        ] {
            let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ seed);
            let mut base = Twin::new(&pool, &format!("base{seed}"), 50_176, held_back, shape.clone()).await;
            for turn in 0..50 {
                base.step(&mut dice, turn).await;
            }
            base.image.snapshot("origin").await.unwrap();
            base.snaps.insert("origin".into(), base.bytes.clone());
            base.check(&pool, seed).await;
            // A clone of it, with objects of another size, in another namespace.
            let name = format!("clone{seed}");
            let shape =
                Shape { order: Some(13), stripes: shape.stripes.map(|(unit, count)| (2 * unit, count)), ..shape };
            create::clone(&pool, &base.name, "origin", &other, &name, shape).await.unwrap();
            let image = Image::open_for(&other, &name, Use::Write).await.unwrap();
            image.write_back(held_back);
            let mut clone = Twin { name, image, bytes: base.bytes.clone(), snaps: BTreeMap::new() };
            clone.check(&other, seed).await;
            for turn in 0..120 {
                clone.step(&mut dice, turn).await;
                if turn % 3 == 0 {
                    base.step(&mut dice, turn).await;
                }
                if turn % 30 == 29 {
                    clone.check(&other, seed).await;
                    base.check(&pool, seed).await;
                }
            }
            // What changed since each snapshot, applied to that snapshot, gives the image.
            clone.image.flush().await.unwrap();
            for (snap, bytes) in &clone.snaps {
                let old = Image::open_snapshot(&other, &clone.name, snap).await.unwrap();
                let mut copy = bytes.clone();
                copy.resize(clone.bytes.len(), 0);
                for range in clone.image.changed_since(Some(&old)).await.unwrap() {
                    let (from, to) = (range.offset as usize, (range.offset + range.len) as usize);
                    copy[from..to].copy_from_slice(&clone.bytes[from..to]);
                }
                let differs = copy.iter().zip(&clone.bytes).position(|(a, b)| a != b);
                assert_eq!(differs, None, "the difference from {snap} at seed {seed}");
            }
            clone.image.close().await.unwrap();
            base.image.close().await.unwrap();
        }
    });
}

#[test]
fn an_image_goes_out_and_comes_back_as_raw_bytes_as_a_stream_and_by_differences() {
    let running = Running::new(13);
    let good = |args: &[&str]| running.good(args);
    let path = |name: &str| running.0.path().join(name);
    let mut bytes: Vec<u8> = vec![0; 9 * MIB as usize];
    bytes[3_000_000..3_500_000].fill(5);
    std::fs::write(path("in"), &bytes).unwrap();
    good(&["block", "import", "in", "data/a", "--form", "raw"]);
    good(&["block", "snap", "create", "data/a@one"]);
    good(&["block", "export", "data/a@one", "whole"]);
    assert!(std::fs::metadata(path("whole")).unwrap().len() < MIB, "zeros take no room in a stream");
    good(&["block", "import", "whole", "data/b"]);
    // Written on through NBD, while it is open.
    let server = Server::start(&running, "nbd.sock", &[]);
    run("qemu-io", &["-f", "raw", "-c", "write -P 9 8M 64k", "-c", "write -z 3M 64k", &server.uri("a")]);
    bytes[8 << 20..(8 << 20) + 65536].fill(9);
    bytes[3 << 20..(3 << 20) + 65536].fill(0);
    good(&["block", "snap", "create", "data/a@two"]);
    good(&["block", "export", "data/a@two", "more", "--from", "one"]);
    good(&["block", "import", "more", "data/b"]);
    good(&["block", "export", "data/b@two", "out", "--form", "raw"]);
    assert!(std::fs::read(path("out")).unwrap() == bytes, "the copy is what the image is");
    let error = refused(&running, &["block", "import", "more", "data/b"]);
    assert!(error.contains("has snapshot two already"), "{error}");
    // A damaged stream leaves no image behind.
    let mut bad = std::fs::read(path("whole")).unwrap();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(path("bad"), &bad).unwrap();
    let error = refused(&running, &["block", "import", "bad", "data/c"]);
    assert!(error.contains("checksum"), "{error}");
    assert!(refused(&running, &["block", "info", "data/c"]).contains("no image c"));
}

#[test]
fn stock_clients_use_images_over_nbd() {
    let running = Running::new(14);
    running.good(&["block", "create", "data/a", "--size", "32MiB"]);
    running.good(&["block", "create", "data/b", "--size", "32MiB"]);
    let server = Server::start(&running, "nbd.sock", &[]);
    let raw = running.0.path().join("raw");
    let data: Vec<u8> = (0..8 * MIB).map(|i| (i * 31 % 251) as u8).collect();
    std::fs::write(&raw, &data).unwrap();
    let (raw, uri) = (raw.to_str().unwrap(), server.uri("a"));
    run("qemu-img", &["create", "-f", "qcow2", &uri, "16M"]);
    run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "qcow2", raw, &uri]);
    assert!(run("qemu-img", &["check", "-f", "qcow2", &uri]).contains("No errors"));
    run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", raw, &uri]);
    run("qemu-io", &["-f", "raw", "-d", "unmap", "-c", "discard 0 32M", "-c", "read -P 0 0 32M", &uri]);
    run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", raw, &uri]);
    let map = run("nbdinfo", &["--map", &uri]);
    assert!(map.contains("hole,zero") && map.contains("data"), "{map}");
    let list = run("nbdinfo", &["--list", &server.uri("")]);
    assert!(list.contains("export=\"a\"") && list.contains("export=\"b\""), "{list}");
    run("nbdcopy", &["--connections=4", &uri, &server.uri("data/b")]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &uri, &server.uri("b")]);
    // A snapshot is served read-only, and stays as it was.
    running.good(&["block", "snap", "create", "data/a@s"]);
    run("qemu-io", &["-f", "raw", "-c", "write -P 1 0 1M", &uri]);
    assert!(run("nbdinfo", &["--json", &server.uri("a@s")]).contains("\"is_read_only\": true"));
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &server.uri("a@s"), &server.uri("b")]);
    let gone = Command::new("nbdinfo").arg(server.uri("nothing")).output().unwrap();
    assert!(!gone.status.success());
}

#[test]
fn nothing_of_a_writer_that_was_stopped_and_shut_out_lands_when_it_goes_on() {
    let running = Running::new(16);
    running.good(&["block", "create", "data/a", "--size", "1MiB"]);
    let path = running.0.path();
    // given a writer in full swing, stopped in the middle of it
    let bench = ["block", "bench", "data/a", "write", "--seconds", "600", "--depth", "8"];
    let mut writer = Started::nacre(path, &bench);
    runtime().block_on(async {
        let cluster = running.client().await;
        let pool = cluster.pool("data").await.unwrap();
        let began = Instant::now();
        loop {
            let image = Image::open(&pool, "a").await.unwrap();
            if image.used().await.unwrap() > 0 {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "the writer does not write");
        }
        // One that lives and says no is not disturbed.
        match Image::open_for(&pool, "a", Use::Write).await {
            Err(Error::InUse { holder, .. }) => assert!(holder.contains(&writer.0.id().to_string()), "{holder}"),
            other => panic!("{other:?}"),
        }
        writer.signal("-STOP");
        // when another takes the image, and writes it
        let image = Image::open_for(&pool, "a", Use::Write).await.unwrap();
        let mine = Bytes::from(vec![0xee; MIB as usize]);
        image.write(0, mine.clone()).await.unwrap();
        // then nothing of the first lands any more, and it is told so
        writer.signal("-CONT");
        let began = Instant::now();
        let status = loop {
            if let Some(status) = writer.0.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "the old writer goes on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(status.code(), Some(1));
        let log = std::fs::read_to_string(path.join("block.log")).unwrap();
        assert!(log.contains("fenced"), "{log}");
        assert!(image.read(0, MIB).await.unwrap() == mine, "a write of the old writer landed");
        image.close().await.unwrap();
    });
}

#[test]
fn an_image_without_clients_is_handed_over_and_one_with_clients_is_not() {
    let running = Running::new(17);
    running.good(&["block", "create", "data/a", "--size", "4MiB"]);
    let (one, two) = (Server::start(&running, "one.sock", &[]), Server::start(&running, "two.sock", &[]));
    run("qemu-io", &["-f", "raw", "-c", "write -P 1 0 1M", &one.uri("a")]);
    // The first has no client any more, so the second gets the image, and the first again.
    at_last("qemu-io", &["-f", "raw", "-c", "read -P 1 0 1M", "-c", "write -P 2 0 1M", &two.uri("a")]);
    at_last("qemu-io", &["-f", "raw", "-c", "read -P 2 0 1M", "-c", "write -P 3 0 1M", &one.uri("a")]);
    // With a client it stays where it is.
    let log = std::fs::File::create(running.0.path().join("busy")).unwrap();
    let mut busy = Command::new("qemu-io");
    busy.args(["-f", "raw", &one.uri("a")]).stdin(Stdio::piped()).stdout(log);
    let mut busy = Started(busy.spawn().unwrap());
    use std::io::Write;
    let stdin = busy.0.stdin.as_mut().unwrap();
    stdin.write_all(b"write -P 4 0 512\n").unwrap();
    stdin.flush().unwrap();
    let began = Instant::now();
    while !std::fs::read_to_string(running.0.path().join("busy")).unwrap().contains("wrote 512") {
        assert!(began.elapsed() < Duration::from_secs(30), "the client does not write");
        moment(Duration::from_millis(20));
    }
    let refused = Command::new("nbdinfo").arg(two.uri("a")).output().unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    let error = refused_open(&running);
    assert!(error.contains("open for writing"), "{error}");
}

fn refused_open(running: &Running) -> String {
    runtime().block_on(async {
        let pool = running.client().await.pool("data").await.unwrap();
        assert_eq!(directory::list(&pool).await.unwrap().len(), 1);
        Image::open_for(&pool, "a", Use::Write).await.unwrap_err().to_string()
    })
}

#[test]
fn an_image_goes_out_and_comes_back_as_a_disk_of_qemu() {
    let running = Running::new(41);
    let good = |args: &[&str]| running.good(args);
    let path = |name: &str| running.0.path().join(name).to_str().unwrap().to_owned();
    let mut bytes: Vec<u8> = vec![0; 21 * MIB as usize];
    for (from, to) in [(3_000_000, 3_500_000), (8 << 20, (8 << 20) + 100), (20_900_000, 21 << 20)] {
        (from..to).for_each(|at| bytes[at] = (at * 31 % 251) as u8);
    }
    std::fs::write(path("raw"), &bytes).unwrap();
    good(&["block", "import", "raw", "data/a", "--form", "raw"]);
    // Out to a file, and out as a stream: qemu finds nothing wrong with either.
    good(&["block", "export", "data/a", "a.qcow2", "--form", "qcow2"]);
    let piped = Command::new(env!("CARGO_BIN_EXE_nacre"))
        .args(["block", "export", "data/a", "-", "--form", "qcow2"])
        .current_dir(running.0.path())
        .output()
        .unwrap();
    std::fs::write(path("piped.qcow2"), &piped.stdout).unwrap();
    for file in ["a.qcow2", "piped.qcow2"] {
        assert!(run("qemu-img", &["check", "-f", "qcow2", &path(file)]).contains("No errors"));
        run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", &path("raw"), &path(file)]);
    }
    // In from what qemu makes: as it does by itself, packed in both ways, of the old version, with odd clusters.
    for (n, options) in [
        vec![],
        vec!["-c"],
        vec!["-c", "-o", "compression_type=zstd"],
        vec!["-o", "compat=0.10"],
        vec!["-o", "cluster_size=512"],
        vec!["-o", "cluster_size=2M"],
    ]
    .into_iter()
    .enumerate()
    {
        let made = path(&format!("{n}.qcow2"));
        run("qemu-img", &[&["convert", "-f", "raw", "-O", "qcow2"], &options[..], &[&path("raw"), &made]].concat());
        let image = format!("data/q{n}");
        good(&["block", "import", &made, &image, "--form", "qcow2"]);
        good(&["block", "export", &image, "out", "--form", "raw"]);
        assert!(std::fs::read(path("out")).unwrap() == bytes, "{options:?}");
    }
    // And from standard input, be it a file or what another program writes.
    let import = |image: &str, from: Stdio| {
        let mut import = Command::new(env!("CARGO_BIN_EXE_nacre"));
        import.args(["block", "import", "-", image, "--form", "qcow2"]).current_dir(running.0.path()).stdin(from);
        let done = import.output().unwrap();
        assert!(done.status.success(), "{done:?}");
        good(&["block", "export", image, "out", "--form", "raw"]);
        assert!(std::fs::read(path("out")).unwrap() == bytes, "{image}");
    };
    import("data/file", std::fs::File::open(path("1.qcow2")).unwrap().into());
    let mut cat = Command::new("cat").arg(path("2.qcow2")).stdout(Stdio::piped()).spawn().unwrap();
    import("data/pipe", cat.stdout.take().unwrap().into());
    assert!(cat.wait().unwrap().success());
    run("qemu-img", &["create", "-f", "qcow2", "-b", &path("raw"), "-F", "raw", &path("over.qcow2")]);
    let error = refused(&running, &["block", "import", "over.qcow2", "data/over", "--form", "qcow2"]);
    assert!(error.contains("backing file"), "{error}");
    assert!(refused(&running, &["block", "info", "data/over"]).contains("no image over"));
}

#[test]
fn an_image_without_a_name_is_found_and_named_or_removed() {
    let running = Running::new(40);
    let good = |args: &[&str]| running.good(args);
    for image in ["data/used", "data/unused", "data/named"] {
        good(&["block", "create", image, "--size", "8MiB"]);
    }
    good(&["block", "bench", "data/used", "write", "--seconds", "1"]);
    // given two whose names were lost
    for image in ["used", "unused"] {
        good(&["object", "omap", "rm", "data", "block.directory", image]);
    }
    let find = |age: &str| -> Vec<serde_json::Value> {
        serde_json::from_str(&good(&["block", "lost", "ls", "data", "--age", age, "--json"])).unwrap()
    };
    assert_eq!(find("1h").len(), 0, "they may be about to get their names");
    let lost = find("1ms");
    let mut names: Vec<_> = lost.iter().map(|one| one["image"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["unused", "used"]);
    // then the one without data goes
    let gone = good(&["block", "lost", "rm", "data", "--age", "1ms"]);
    assert!(gone.trim().ends_with(" unused") && gone.lines().count() == 1, "{gone}");
    // and the other gets a name again, or goes when it is named by its number
    let id = find("1ms")[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(good(&["block", "lost", "restore", "data", &id, "--name", "again"]), "again\n");
    let du: serde_json::Value = serde_json::from_str(&good(&["block", "du", "data/again", "--json"])).unwrap();
    assert!(du[0]["used"].as_u64().unwrap() > 0, "{du}");
    good(&["object", "omap", "rm", "data", "block.directory", "again"]);
    good(&["block", "lost", "rm", "data", &id, "--age", "1ms"]);
    good(&["block", "rm", "data/named"]);
    let left = good(&["object", "ls", "data"]);
    assert!(left.lines().all(|name| name == "block.directory" || name == "block.trash"), "{left}");
}

#[test]
fn a_group_s_snapshot_is_one_moment_of_all_its_images() {
    let running = Running::new(19);
    for image in ["data/a", "data/b"] {
        running.good(&["block", "create", image, "--size", "1MiB"]);
    }
    running.good(&["block", "group", "create", "data/both"]);
    running.good(&["block", "group", "add", "data/both", "data/a", "data/b"]);
    assert!(refused(&running, &["block", "group", "create", "data/both"]).contains("already"));
    let path = running.0.path().to_owned();
    runtime().block_on(async {
        let pool = running.client().await.pool("data").await.unwrap();
        let a = Image::open_for(&pool, "a", Use::Write).await.unwrap();
        // Each image its own session, as each has its own writer.
        let other = running.client().await.pool("data").await.unwrap();
        let b = Image::open_for(&other, "b", Use::Write).await.unwrap();
        for round in 0..3 {
            let name = format!("data/both@s{round}");
            let folder = path.clone();
            // A number goes to the one, and when it is there to the other.
            let mut n = 0u64;
            let mut snap = None;
            loop {
                n += 1;
                a.write(0, Bytes::copy_from_slice(&n.to_le_bytes())).await.unwrap();
                b.write(0, Bytes::copy_from_slice(&n.to_le_bytes())).await.unwrap();
                let (name, folder) = (name.clone(), folder.clone());
                let verb = move || nacre(&folder, &["block", "group", "snap", &name]);
                if snap.get_or_insert_with(|| std::thread::spawn(verb)).is_finished() {
                    break;
                }
            }
            let (code, _, stderr) = snap.unwrap().join().unwrap();
            assert_eq!((code, stderr.as_str()), (Some(0), ""));
            let mut numbers = Vec::new();
            for image in ["a", "b"] {
                let frozen = Image::open_snapshot(&pool, image, &format!("s{round}")).await.unwrap();
                numbers.push(u64::from_le_bytes(frozen.read(0, 8).await.unwrap()[..].try_into().unwrap()));
            }
            assert!(numbers[1] > 0 && (numbers[0] == numbers[1] || numbers[0] == numbers[1] + 1), "{numbers:?}");
        }
        a.close().await.unwrap();
        b.close().await.unwrap();
    });
    // All of one go at once, or none if one of them has a clone.
    running.good(&["block", "clone", "data/b@s1", "data/c"]);
    let error = refused(&running, &["block", "group", "snap-rm", "data/both@s1"]);
    assert!(error.contains("has clones: data/c"), "{error}");
    running.good(&["block", "group", "snap-rm", "data/both@s0"]);
    assert!(refused(&running, &["block", "group", "snap-rm", "data/both@s0"]).contains("no snapshot s0"));
    let snaps: serde_json::Value =
        serde_json::from_str(&running.good(&["block", "group", "snap-ls", "data/both", "--json"])).unwrap();
    assert_eq!(snaps, serde_json::json!([{ "snapshot": "s1", "images": 2 }, { "snapshot": "s2", "images": 2 }]));
    running.good(&["block", "group", "rm", "data/both"]);
}

#[test]
fn a_deep_copy_has_the_snapshots_too_and_sparsify_frees_zeros() {
    let running = Running::new(20);
    let good = |args: &[&str]| running.good(args);
    good(&["block", "create", "data/a", "--size", "3MiB", "--object-size", "1MiB"]);
    let server = Server::start(&running, "nbd.sock", &[]);
    let uri = server.uri("a");
    run("qemu-io", &["-f", "raw", "-c", "write -P 1 0 1536k", &uri]);
    good(&["block", "snap", "create", "data/a@one"]);
    run("qemu-io", &["-f", "raw", "-c", "write -P 2 512k 64k", "-c", "write -z 1M 256k", &uri]);
    // While it is served, `nacre block top` shows it.
    let top: serde_json::Value = serde_json::from_str(&good(&["block", "top", "--json"])).unwrap();
    assert_eq!(top[0]["image"], "a", "{top}");
    // Asked through the cluster, it is seen from any host.
    good(&["block", "create", "data/unused", "--size", "1MiB"]);
    let top: serde_json::Value =
        serde_json::from_str(&good(&["block", "top", "--pool", "data", "--seconds", "0", "--json"])).unwrap();
    assert_eq!((top[0]["image"].as_str(), top.as_array().map(Vec::len)), (Some("data/a"), Some(1)), "{top}");
    assert!(top[0]["daemon"].as_str().is_some_and(|who| who.contains("process")) && top[0]["lost"] == false, "{top}");
    good(&["block", "copy", "data/a", "data/b"]);
    for (from, to) in [("a@one", "b@one"), ("a", "b")] {
        run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &server.uri(from), &server.uri(to)]);
    }
    drop(server);
    let used = || -> u64 {
        let du: serde_json::Value = serde_json::from_str(&good(&["block", "du", "data/z", "--json"])).unwrap();
        du[0]["used"].as_u64().unwrap()
    };
    good(&["block", "create", "data/z", "--size", "2MiB", "--object-size", "1MiB"]);
    let server = Server::start(&running, "again.sock", &[]);
    run("qemu-io", &["-f", "raw", "-c", "write -P 0 0 1M", "-c", "write -P 3 1M 4k", &server.uri("z")]);
    drop(server);
    assert_eq!(used(), MIB + 4096);
    assert_eq!(good(&["block", "sparsify", "data/z"]), "1 MiB freed\n");
    assert_eq!(used(), 4096);
}
