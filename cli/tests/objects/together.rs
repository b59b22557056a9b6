//! Several at work on one image at the same moment: what is written, discarded, cut off, copied and mapped meanwhile.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nacre_block::create::Shape;
use nacre_block::{Image, Use, create};
use nacre_client::class::lock::{LockState, Named};
use nacre_client::class::{decode, encode};
use nacre_client::{Op, OpResult, Pool};

use super::Running;
use super::tools::{Server, Started, moment, run, runtime};

const MIB: u64 = 1 << 20;
const OBJECT: u64 = 4096;
const OBJECTS: u64 = 1024;
const SIZE: u64 = OBJECT * OBJECTS;

fn filled(byte: u8, len: u64) -> Bytes {
    Bytes::from(vec![byte; len as usize])
}

async fn made(pool: &Pool, name: &str) -> Image {
    create::create(pool, name, SIZE, Shape::from(12)).await.unwrap();
    let image = Image::open_for(pool, name, Use::Write).await.unwrap();
    image.write(0, filled(1, SIZE)).await.unwrap();
    image
}

/// Does somebody have the right to remove what lies past the end.
async fn is_cut(pool: &Pool, image: &Image) -> bool {
    let which = Named { name: Bytes::from_static(b"cutter"), ..Named::default() };
    let op = Op::Call { class: "lock".into(), method: "info".into(), input: encode(&which) };
    let done = pool.object(format!("block.head.{:016x}", image.id())).execute(vec![op]).await.unwrap();
    match &done.results[..] {
        [OpResult::Data(data)] => !decode::<LockState>(data).unwrap().holds.is_empty(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_who_was_stopped_while_it_cut_off_an_end_removes_nothing_when_it_goes_on() {
    let running = Running::new(44);
    runtime().block_on(async {
        let cluster = running.client().await;
        let pool = cluster.pool("data").await.unwrap();
        let mut image = made(&pool, "a").await;
        // given a shrink that was stopped in the middle of it
        let shrink = ["block", "resize", "data/a", "--size", "4KiB", "--lose-data"];
        let mut stopped = loop {
            image.close().await.unwrap();
            let mut shrinking = Started::nacre(running.0.path(), &shrink);
            let caught = loop {
                if is_cut(&pool, &image).await {
                    break true;
                }
                if shrinking.0.try_wait().unwrap().is_some() {
                    break false;
                }
            };
            if caught {
                shrinking.signal("-STOP");
                if is_cut(&pool, &image).await {
                    break shrinking;
                }
            }
            // It was done sooner than this was seen.
            drop(shrinking);
            image = Image::open_for(&pool, "a", Use::Write).await.unwrap();
            image.resize(SIZE, false).await.unwrap();
            image.write(0, filled(1, SIZE)).await.unwrap();
        };
        // when another completes it, lets the image grow and fills it
        let image = Image::open_for(&pool, "a", Use::Write).await.unwrap();
        image.resize(SIZE, false).await.unwrap();
        assert!(image.read(OBJECT, SIZE - OBJECT).await.unwrap().iter().all(|byte| *byte == 0), "old bytes came back");
        image.write(0, filled(2, SIZE)).await.unwrap();
        // then the first is told that it is shut out, and nothing is gone
        stopped.signal("-CONT");
        let began = Instant::now();
        let status = loop {
            if let Some(status) = stopped.0.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "it does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(status.code(), Some(1));
        assert!(image.read(0, SIZE).await.unwrap() == filled(2, SIZE), "it went on cutting");
        let found = image.check_map(|_, _| {}).await.unwrap();
        assert_eq!((found.objects, found.missed), (OBJECTS, 0), "{found:?}");
        image.close().await.unwrap();
    });
}

#[test]
fn an_object_map_is_true_of_what_is_written_discarded_and_copied_at_once() {
    let running = Running::new(45);
    runtime().block_on(async {
        let cluster = running.client().await;
        let pool = cluster.pool("data").await.unwrap();
        let image = made(&pool, "a").await;
        // Discards of everything, and writes of parts of it before those have come to their end.
        for round in 0..6u8 {
            let writes = async {
                for index in (0..OBJECTS).step_by(7) {
                    image.write(index * OBJECT, filled(round, 512)).await.unwrap();
                }
            };
            let (zeroed, ()) = tokio::join!(image.zero(0, SIZE), writes);
            zeroed.unwrap();
            let found = image.check_map(|_, _| {}).await.unwrap();
            assert!(found.asked && found.missed == 0, "{found:?}");
        }
        image.write(0, filled(9, SIZE)).await.unwrap();
        // A reader that opened it before, and does not hear of changes, believes no map that is gone.
        let reader = Image::open(&pool, "a").await.unwrap();
        let snapshot = image.snapshot("s").await.unwrap();
        image.drop_map().await.unwrap();
        assert_eq!(reader.used().await.unwrap(), SIZE);
        assert_eq!(reader.changed_since(None).await.unwrap().len(), 1);
        image.rebuild_map(|_, _| {}).await.unwrap();
        assert_eq!(reader.used().await.unwrap(), SIZE);
        assert_eq!(image.header().image.map_since, snapshot);

        // A clone that is made independent while its end is cut off: nothing of the parent comes back behind it.
        create::clone(&pool, "a", "s", &pool, "b", Shape::default()).await.unwrap();
        let clone = Image::open_for(&pool, "b", Use::Write).await.unwrap();
        let other = Image::open(&pool, "b").await.unwrap();
        let resizes = async {
            other.resize(OBJECT, true).await.unwrap();
            other.resize(SIZE, false).await.unwrap();
        };
        let (flattened, ()) = tokio::join!(clone.flatten(|_, _| {}), resizes);
        flattened.unwrap();
        assert!(clone.read(0, OBJECT).await.unwrap() == filled(9, OBJECT));
        let rest = clone.read(OBJECT, SIZE - OBJECT).await.unwrap();
        assert!(rest.iter().all(|byte| *byte == 0), "what was cut off is there again");
        let found = clone.check_map(|_, _| {}).await.unwrap();
        assert_eq!(found.missed, 0, "{found:?}");
        clone.close().await.unwrap();
        image.close().await.unwrap();
    });
}

#[test]
fn two_who_use_an_image_draw_on_one_limit() {
    let running = Running::new(46);
    runtime().block_on(async {
        let (here, there) = (running.client().await, running.client().await);
        let pool = here.pool("data").await.unwrap();
        create::create(&pool, "a", SIZE, Shape::from(12)).await.unwrap();
        let writer = Image::open_for(&pool, "a", Use::Write).await.unwrap();
        // One that was open before hears of it.
        writer.note("limit.iops", "200").await.unwrap();
        let reader = Image::open(&there.pool("data").await.unwrap(), "a").await.unwrap();
        const EACH: u64 = 150;
        let writes = async {
            for at in 0..EACH {
                writer.write(at * 512, filled(1, 512)).await.unwrap();
            }
        };
        let reads = async {
            for at in 0..EACH {
                reader.read(at * 512, 512).await.unwrap();
            }
        };
        tokio::join!(writes, reads);
        // All of it was dealt out by one, who deals out no more than there is (a test of the class shows that), in handfuls
        // of a tenth of a second's worth, of which at most the last of each was not used up.
        let dealt = writer.dealt().await.unwrap();
        assert!((2 * EACH..=2 * EACH + 2 * 20).contains(&dealt[0]), "{dealt:?}");
        assert_eq!(dealt[1..], [0; 5]);
        // Without it, nobody is counted.
        writer.note("limit.iops", "").await.unwrap();
        writer.write(0, filled(1, 512)).await.unwrap();
        assert_eq!(writer.dealt().await.unwrap(), dealt);
        writer.close().await.unwrap();
    });
}

/// Sends a line to an interactive qemu-io, and waits until it has answered it: the answer.
fn said(client: &mut Started, log: &std::path::Path, line: &str) -> String {
    let before = std::fs::read_to_string(log).unwrap().len();
    writeln!(client.0.stdin.as_mut().unwrap(), "{line}").unwrap();
    let began = Instant::now();
    loop {
        let said = std::fs::read_to_string(log).unwrap();
        if said[before..].contains("ops; ") || said[before..].contains("failed") {
            return said[before..].to_owned();
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no answer to {line}: {said}");
        moment(Duration::from_millis(20));
    }
}

#[test]
fn a_connected_client_is_judged_by_the_size_the_image_has_and_the_next_one_is_told_it() {
    let running = Running::new(47);
    let good = |args: &[&str]| running.good(args);
    good(&["block", "create", "data/a", "--size", "8MiB"]);
    let server = Server::start(&running, "nbd.sock", &[]);
    let path = running.0.path().join("qemu-io.log");
    let log = std::fs::File::create(&path).unwrap();
    let mut client = Command::new("qemu-io");
    client.args(["-f", "raw", &server.uri("a")]).stdin(Stdio::piped()).stderr(log.try_clone().unwrap()).stdout(log);
    let mut client = Started(client.spawn().unwrap());
    assert!(said(&mut client, &path, "write -P 1 0 64k").contains("wrote 65536"));
    // A shrink under a connected client: what it still takes for its disk is refused at once, as what it is.
    good(&["block", "resize", "data/a", "--size", "4MiB"]);
    assert_eq!(run("nbdinfo", &["--size", &server.uri("a")]).trim(), (4 * MIB).to_string());
    assert!(said(&mut client, &path, "write -P 2 6M 64k").contains("No space left on device"));
    assert!(said(&mut client, &path, "write -z 6M 64k").contains("No space left on device"));
    assert!(said(&mut client, &path, "read 6M 64k").contains("Invalid argument"));
    assert!(said(&mut client, &path, "write -P 2 3M 64k").contains("wrote 65536"));
    // Grown again, what it took for its disk is its disk, and zeros; who comes now is told of all of it.
    good(&["block", "resize", "data/a", "--size", "16MiB"]);
    let zeros = said(&mut client, &path, "read -P 0 6M 64k");
    assert!(zeros.contains("read 65536") && !zeros.contains("failed"), "{zeros}");
    assert_eq!(run("nbdinfo", &["--size", &server.uri("a")]).trim(), (16 * MIB).to_string());
    run("qemu-io", &["-f", "raw", "-c", "write -P 3 15M 1M", "-c", "read -P 2 3M 64k", &server.uri("a")]);
}
