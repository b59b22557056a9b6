//! Several at work on one image at the same moment: what is written, discarded, cut off, copied and mapped meanwhile.

use std::time::{Duration, Instant};

use bytes::Bytes;
use nacre_block::create::Shape;
use nacre_block::{Image, Use, create};
use nacre_client::class::lock::{LockState, Named};
use nacre_client::class::{decode, encode};
use nacre_client::{Op, OpResult, Pool};

use super::Running;
use super::tools::{Started, runtime};

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
