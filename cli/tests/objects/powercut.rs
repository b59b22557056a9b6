//! Everything ends at once, without a warning: monitors, OSDs, the supervisor, and the daemon that serves the image. What
//! a flush was answered for is there when all begins again, and what is there was written.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Running;
use super::tools::{Server, moment};

const BLOCK: usize = 4096;
/// Blocks of each writer.
const BLOCKS: u64 = 1024;
const WRITERS: u64 = 3;

/// The least of a client of the protocol that can write, trim and flush, one after the other. It says what was
/// answered; stock clients do not.
struct Client {
    stream: UnixStream,
    requests: u64,
}

const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;

impl Client {
    fn open(socket: &Path, export: &str) -> std::io::Result<Client> {
        let mut stream = UnixStream::connect(socket)?;
        let mut hello = [0; 18];
        stream.read_exact(&mut hello)?;
        assert_eq!(&hello[..16], b"NBDMAGICIHAVEOPT");
        // Fixed newstyle, no zeros after the answer; then: this export.
        let mut ask = 3u32.to_be_bytes().to_vec();
        ask.extend(b"IHAVEOPT");
        ask.extend(1u32.to_be_bytes());
        ask.extend((export.len() as u32).to_be_bytes());
        ask.extend(export.as_bytes());
        stream.write_all(&ask)?;
        stream.read_exact(&mut [0; 10])?;
        Ok(Client { stream, requests: 0 })
    }

    fn request(&mut self, kind: u16, offset: u64, len: usize, data: &[u8]) -> std::io::Result<Vec<u8>> {
        self.requests += 1;
        let mut ask = 0x2560_9513u32.to_be_bytes().to_vec();
        ask.extend(0u16.to_be_bytes());
        ask.extend(kind.to_be_bytes());
        ask.extend(self.requests.to_be_bytes());
        ask.extend(offset.to_be_bytes());
        ask.extend((len as u32).to_be_bytes());
        ask.extend(data);
        self.stream.write_all(&ask)?;
        let mut answer = [0; 16];
        self.stream.read_exact(&mut answer)?;
        assert_eq!(answer[..4], 0x6744_6698u32.to_be_bytes());
        assert_eq!(answer[8..], self.requests.to_be_bytes());
        if answer[4..8] != [0; 4] {
            return Err(std::io::Error::other("the server reports a failure"));
        }
        let mut data = vec![0; if kind == READ { len } else { 0 }];
        self.stream.read_exact(&mut data)?;
        Ok(data)
    }
}

/// What a block may hold: the state of the last flush, and each that was asked for since. 0 is zeros.
type Log = BTreeMap<u64, Vec<u64>>;

/// A block of one version of it.
fn content(block: u64, version: u64) -> Vec<u8> {
    if version == 0 {
        return vec![0; BLOCK];
    }
    let unit: Vec<u8> = block.to_le_bytes().into_iter().chain(version.to_le_bytes()).collect();
    unit.repeat(BLOCK / unit.len())
}

/// The version of a block, if it holds a whole one.
fn version(block: u64, bytes: &[u8]) -> Option<u64> {
    let version = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
    (content(block, version) == bytes).then_some(version)
}

/// Writes until the server is gone, and counts the flushes that were answered.
fn write(socket: &Path, writer: u64, log: &mut Log, dice: &mut u64, flushes: &AtomicU64) {
    let mut roll = |below: u64| {
        *dice ^= *dice << 13;
        *dice ^= *dice >> 7;
        *dice ^= *dice << 17;
        *dice % below
    };
    let Ok(mut client) = Client::open(socket, "a") else { return };
    loop {
        for _ in 0..1 + roll(12) {
            let block = writer * BLOCKS + roll(BLOCKS);
            let states = log.entry(block).or_insert_with(|| vec![0]);
            let (kind, next) = if roll(8) == 0 { (TRIM, 0) } else { (WRITE, roll(u64::MAX - 1) + 1) };
            // Before it is sent: it may land without an answer.
            states.push(next);
            let data = if kind == WRITE { content(block, next) } else { Vec::new() };
            if client.request(kind, block * BLOCK as u64, BLOCK, &data).is_err() {
                return;
            }
        }
        if client.request(FLUSH, 0, 0, &[]).is_err() {
            return;
        }
        flushes.fetch_add(1, Ordering::Relaxed);
        for states in log.values_mut() {
            states.drain(..states.len() - 1);
        }
    }
}

/// Ends every process of a cluster at once.
fn cut(running: &Running, server: &Server) {
    let data = running.0.path().join("var/pearl");
    let pid = |path: &Path| std::fs::read_to_string(path).unwrap().trim().to_owned();
    // The supervisor first: else it starts the others again.
    let mut pids = vec![pid(&data.join("supervisor.lock")), server.pid().to_string()];
    for entry in std::fs::read_dir(data.join("run")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "pid") {
            pids.push(pid(&path));
        }
    }
    assert!(pids.len() >= 6, "a supervisor, a server, a monitor and three OSDs: {pids:?}");
    assert!(Command::new("kill").arg("-9").args(&pids).status().unwrap().success());
    // Until the last has left.
    let began = Instant::now();
    while pids.iter().any(|pid| lives(pid)) {
        assert!(began.elapsed() < Duration::from_secs(30), "a process survives kill -9");
        moment(Duration::from_millis(10));
    }
}

/// A process that is no more than an entry in a table does not.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

fn nothing_flushed_is_missing(apart: u8, more: &[&str]) {
    let running = Running::new(apart);
    running.good(&["block", "create", "data/a", "--size", "16MiB", "--object-size", "256KiB"]);
    let seed = 0x9e37_79b9_7f4a_7c15 ^ u64::from(std::process::id());
    let mut writers: Vec<(Log, u64)> = (0..WRITERS).map(|writer| (Log::new(), seed ^ (writer + 1))).collect();
    for round in 0..3 {
        let server = Server::start(&running, &format!("nbd-{round}.sock"), more);
        let socket = &server.socket;
        let flushes: Vec<AtomicU64> = writers.iter().map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for ((writer, (log, dice)), flushes) in (0..).zip(writers.iter_mut()).zip(&flushes) {
                scope.spawn(move || write(socket, writer, log, dice, flushes));
            }
            let began = Instant::now();
            while !flushes.iter().all(|count| count.load(Ordering::Relaxed) >= 5) {
                assert!(began.elapsed() < Duration::from_secs(60), "round {round}, seed {seed}: nothing is flushed");
                moment(Duration::from_millis(5));
            }
            // Somewhere in the middle of it.
            moment(Duration::from_millis(100 + seed % 293 * (round + 1)));
            cut(&running, &server);
        });
        drop(server);
        running.good(&["up"]);
        let server = Server::start(&running, &format!("look-{round}.sock"), &["--read-only"]);
        let mut client = Client::open(&server.socket, "a").unwrap();
        for (block, states) in writers.iter_mut().flat_map(|(log, _)| log.iter_mut()) {
            let bytes = client.request(READ, block * BLOCK as u64, BLOCK, &[]).unwrap();
            let found = version(*block, &bytes);
            let good = found.filter(|found| states.contains(found));
            assert!(
                good.is_some(),
                "round {round}, seed {seed}: block {block} holds {found:?}, and may hold {states:?}"
            );
            // What was found is there for good.
            *states = vec![good.unwrap()];
        }
    }
}

#[test]
fn nothing_flushed_is_missing_after_everything_was_killed_at_once() {
    nothing_flushed_is_missing(36, &[]);
}

#[test]
fn nothing_flushed_is_missing_with_write_back_after_everything_was_killed_at_once() {
    nothing_flushed_is_missing(37, &["--write-back", "1MiB"]);
}
