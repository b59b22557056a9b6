//! Images as devices of this machine: file systems and databases on them, while what is under them dies. All by loop devices;
//! what the kernel's NBD driver does is shown by `./x soak vm`.
//!
//! Where there is no way to make devices, or this is not root, these tests say so and check nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::tools::{Started, at_last, moment, run};
use super::{Running, nacre};

const MIB: u64 = 1 << 20;

/// Can images be mapped here; says it if not.
fn can_map() -> bool {
    let there = ["/dev/fuse", "/dev/loop-control"].into_iter().all(|device| Path::new(device).exists());
    let root = run("id", &["-u"]).trim() == "0";
    if !(there && root) {
        let why = b"skipped: needs root, /dev/fuse and /dev/loop-control, to make devices of images\n";
        std::io::Write::write_all(&mut std::io::stderr(), why).unwrap();
    }
    there && root
}

/// A cluster, and the devices and mounts made with it; all go with the test, also when it fails.
struct Disks {
    mounts: TempDir,
    running: Running,
}

impl Drop for Disks {
    fn drop(&mut self) {
        let below = self.mounts.path().to_str().unwrap().to_owned();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let at = table.lines().filter_map(|line| line.split(' ').nth(4)).filter(|at| at.starts_with(&below));
        for at in at {
            let _ = Command::new("umount").args(["--lazy", at]).status();
        }
        for line in self.mapped() {
            let _ = self.nacre(&["block", "unmap", "--force", line["image"].as_str().unwrap()]);
        }
    }
}

impl Disks {
    fn new(apart: u8) -> Disks {
        Disks::on(Running::new(apart))
    }

    fn on(running: Running) -> Disks {
        let mounts = TempDir::new().unwrap();
        // A database does not run as root, and must get in.
        std::fs::set_permissions(mounts.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Disks { mounts, running }
    }

    fn nacre(&self, args: &[&str]) -> (Option<i32>, String, String) {
        nacre(self.running.0.path(), args)
    }

    fn mapped(&self) -> Vec<Value> {
        let (_, stdout, _) = self.nacre(&["block", "mapped", "--json"]);
        serde_json::from_str(&stdout).unwrap_or_default()
    }

    /// Maps an image of that many MiB, made if need be; the device.
    fn map(&self, image: &str, more: &[&str]) -> String {
        let (code, stdout, stderr) = self.nacre(&[&["block", "map", "--way", "loop", image], more].concat());
        assert_eq!(code, Some(0), "{image}: {stderr}");
        let device = stdout.trim().to_owned();
        assert!(device.starts_with("/dev/"), "{stdout}");
        device
    }

    fn unmap(&self, what: &str) {
        self.running.good(&["block", "unmap", what]);
    }

    /// Ends the process behind a device without a warning.
    fn kill_behind(&self, image: &str) {
        let pid = self.line(image)["process"].as_u64().unwrap();
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        let began = Instant::now();
        while self.line(image)["state"] != "broken" {
            assert!(began.elapsed() < Duration::from_secs(30), "{:?}", self.line(image));
        }
    }

    fn line(&self, image: &str) -> Value {
        self.mapped().into_iter().find(|line| line["image"] == image).unwrap_or_default()
    }

    /// Mounts a device.
    fn mount(&self, device: &str, name: &str) -> PathBuf {
        let at = self.mounts.path().join(name);
        std::fs::create_dir_all(&at).unwrap();
        run("mount", &[device, at.to_str().unwrap()]);
        at
    }
}

/// Those who used it may be on their way out.
fn unmount(at: &Path) {
    at_last("umount", &[at.to_str().unwrap()]);
}

/// Bytes of a device, past every cache.
fn bytes_of(device: &str, from: u64, len: u64) -> Vec<u8> {
    let dd = Command::new("dd")
        .args([&format!("if={device}"), "bs=4096", "iflag=direct", "status=none"])
        .args([&format!("skip={}", from / 4096), &format!("count={}", len / 4096)])
        .output()
        .unwrap();
    assert!(dd.status.success(), "{dd:?}");
    dd.stdout
}

#[test]
fn an_image_is_a_device_until_it_is_unmapped_and_again_after_the_process_behind_it_died() {
    if !can_map() {
        return;
    }
    let disks = Disks::new(31);
    disks.running.good(&["block", "create", "data/a", "--size", "64MiB"]);
    let device = disks.map("data/a", &[]);
    // It is there, once, and is said to be.
    assert_eq!(disks.map("data/a", &[]), device, "mapping it again changes nothing");
    let line = disks.line("data/a");
    assert_eq!((line["device"].as_str(), line["state"].as_str()), (Some(&*device), Some("up")), "{line}");
    assert_eq!(run("blockdev", &["--getsize64", &device]).trim(), (64 * MIB).to_string());
    let direct = std::fs::read_to_string(format!("/sys/block/{}/loop/dio", &device[5..])).unwrap();
    assert_eq!(direct.trim(), "1", "no cache between the device and the image");
    let (code, _, error) = disks.nacre(&["block", "map", "data/a", "--read-only"]);
    assert!(code == Some(1) && error.contains("mapped already, to be written"), "{error}");
    let (code, _, error) = disks.nacre(&["block", "map", "data/none"]);
    assert!(code == Some(1) && error.contains("there is no image none"), "{error}");
    // By the way that was asked for, or not at all.
    disks.running.good(&["block", "create", "data/b", "--size", "1MiB"]);
    let drivers = std::fs::read_to_string("/proc/devices").unwrap();
    if !drivers.lines().any(|line| line.ends_with(" nbd")) {
        let (code, _, error) = disks.nacre(&["block", "map", "data/b", "--way", "nbd"]);
        assert!(code == Some(1) && error.contains("modprobe nbd") && !error.contains("loop"), "{error}");
    }
    let (code, _, error) = disks.nacre(&["block", "map", "data/a", "--way", "nbd"]);
    assert!(code == Some(1) && error.contains("mapped already, by loop and not by nbd"), "{error}");
    // Nor what no device can be as large as.
    disks.running.good(&["block", "create", "data/vast", "--size", "8589934592GiB"]);
    let (code, _, error) = disks.nacre(&["block", "map", "data/vast", "--way", "loop"]);
    assert!(code == Some(1) && error.contains("9223372036854775807 at most"), "{error}");
    assert_eq!(disks.mapped().len(), 1, "what could not be mapped is not listed");
    // What is written to it is in the image; what is discarded is not.
    let file = disks.running.0.path().join("content");
    let content: Vec<u8> = (0..16 * MIB).map(|at| (at * 31 % 251) as u8).collect();
    std::fs::write(&file, &content).unwrap();
    run("dd", &[&format!("if={}", file.display()), &format!("of={device}"), "bs=1M", "oflag=direct", "conv=fsync"]);
    let used = || -> u64 {
        let du: Value = serde_json::from_str(&disks.running.good(&["block", "du", "data/a", "--json"])).unwrap();
        du[0]["used"].as_u64().unwrap()
    };
    assert_eq!(used(), 16 * MIB);
    run("blkdiscard", &["--offset", "8MiB", "--length", "4MiB", &device]);
    run("blkdiscard", &["--zeroout", "--offset", "12MiB", "--length", "4MiB", &device]);
    assert_eq!(used(), 8 * MIB);
    assert!(bytes_of(&device, 0, 8 * MIB) == content[..8 << 20] && bytes_of(&device, 8 * MIB, 8 * MIB) == [0; 8 << 20]);
    // It grows with its image, while it is there.
    disks.running.good(&["block", "resize", "data/a", "--size", "96MiB"]);
    let began = Instant::now();
    while run("blockdev", &["--getsize64", &device]).trim() != (96 * MIB).to_string() {
        assert!(began.elapsed() < Duration::from_secs(10), "the device keeps its size");
    }
    // While it is used it stays, and whoever uses it is named.
    run("mkfs.ext4", &["-q", &device]);
    let at = disks.mount(&device, "a");
    std::fs::write(at.join("kept"), "before").unwrap();
    run("sync", &["-f", at.to_str().unwrap()]);
    let (code, _, error) = disks.nacre(&["block", "unmap", "data/a"]);
    assert!(code == Some(1) && error.contains(&format!("mounted at {}", at.display())), "{error}");
    // when the process behind it dies, with a file system on it
    disks.kill_behind("data/a");
    let (code, _, error) = disks.nacre(&["block", "unmap", "data/a"]);
    assert!(code == Some(1) && error.contains("mounted at"), "{error}");
    unmount(&at);
    // then the image comes back with all that was flushed, as the same device unless somebody else was quicker
    let device = disks.map("data/a", &[]);
    let at = disks.mount(&device, "a");
    assert_eq!(std::fs::read_to_string(at.join("kept")).unwrap(), "before");
    // and if the old one is still in use, as another
    disks.kill_behind("data/a");
    let (code, stdout, stderr) = disks.nacre(&["block", "map", "data/a", "--way", "loop"]);
    assert!(code == Some(0) && stderr.contains("goes away when it is used no more"), "{stderr}");
    let other = stdout.trim().to_owned();
    assert_ne!(other, device);
    unmount(&at);
    let at = disks.mount(&other, "a");
    assert_eq!(std::fs::read_to_string(at.join("kept")).unwrap(), "before");
    unmount(&at);
    run("e2fsck", &["-fn", &other]);
    disks.unmap(&other);
    assert_eq!(disks.mapped().len(), 0);
    // Somebody else may have it by now.
    let backing = std::fs::read_to_string(format!("/sys/block/{}/loop/backing_file", &other[5..])).unwrap_or_default();
    assert!(!backing.starts_with(disks.running.0.path().to_str().unwrap()), "{other}: {backing}");
    // A snapshot is a device that cannot be written; the image is free for others.
    disks.running.good(&["block", "snap", "create", "data/a@s"]);
    let device = disks.map("data/a@s", &[]);
    assert_eq!(run("blockdev", &["--getro", &device]).trim(), "1");
    disks.running.good(&["block", "bench", "data/a", "write", "--seconds", "1"]);
    disks.unmap("data/a@s");
}

/// Ends OSDs without a warning, one after the other, each when the one before it is back, until it is stopped.
struct Killer {
    stop: std::sync::mpsc::Sender<()>,
    kills: Arc<AtomicU32>,
    thread: std::thread::JoinHandle<()>,
}

impl Killer {
    fn start(folder: &Path, every: Duration) -> Killer {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (folder, kills) = (folder.to_owned(), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&kills);
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(every) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                // One at a time: two at once would be an outage, not a failure.
                if nacre(&folder, &["pg", "explain"]).0 == Some(0) {
                    let pid = folder.join(format!("var/pearl/run/osd.{}.pid", count.load(Ordering::Relaxed) % 3));
                    let pid = std::fs::read_to_string(pid).unwrap();
                    assert!(Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Killer { stop, kills, thread }
    }

    /// Does something again and again until so many were ended: a quick machine is done before the first.
    fn until(&self, kills: u32, mut work: impl FnMut()) {
        let began = Instant::now();
        while self.kills.load(Ordering::Relaxed) < kills {
            assert!(began.elapsed() < Duration::from_secs(120), "the cluster is not well enough for OSDs to be killed");
            work();
        }
    }

    /// How many it ended.
    fn end(self) -> u32 {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap();
        self.kills.load(Ordering::Relaxed)
    }
}

/// A clone of this repository and a build on a file system of an image, while OSDs are killed; looked at again after
/// the image went away and came back.
fn a_clone_and_a_build(apart: u8, make: &[&str], check: &[&str], fill: &str) {
    if !can_map() {
        return;
    }
    let disks = Disks::new(apart);
    disks.running.good(&["block", "create", "data/a", "--size", "400MiB"]);
    let device = disks.map("data/a", &["--write-back", "8MiB"]);
    run(make[0], &[&make[1..], &[&*device]].concat());
    let at = disks.mount(&device, "a");
    let killer = Killer::start(disks.running.0.path(), Duration::from_secs(3));
    let (source, clone) = (concat!(env!("CARGO_MANIFEST_DIR"), "/.."), at.join("clone"));
    let clone = clone.to_str().unwrap();
    let git = |args: &[&str]| run("git", &[&["-c", "safe.directory=*"], args].concat());
    if Path::new(source).join(".git").exists() {
        git(&["clone", "--quiet", "--no-hardlinks", source, clone]);
    } else {
        // A source tree without its history: it gets one.
        run("cp", &["-r", "--", source, clone]);
        git(&["init", "--quiet", clone]);
    }
    // Twenty files in C make a program that adds up to 210.
    let part = |n: u32| at.join(format!("part{n}.c"));
    killer.until(2, || {
        for n in 1..=20 {
            std::fs::write(part(n), format!("int part{n}(void) {{ return {n}; }}\n")).unwrap();
            run("cc", &["-O1", "-c", part(n).to_str().unwrap(), "-o", part(n).with_extension("o").to_str().unwrap()]);
        }
    });
    let list = |form: &dyn Fn(u32) -> String| (1..=20).map(form).collect::<Vec<_>>();
    let declared = list(&|n| format!("int part{n}(void);")).concat();
    let sum = list(&|n| format!("part{n}()")).join("+");
    std::fs::write(at.join("main.c"), format!("{declared}\nint main(void) {{ return {sum}; }}\n")).unwrap();
    let program = at.join("program");
    let mut parts = list(&|n| part(n).with_extension("o").display().to_string());
    parts.extend([at.join("main.c").display().to_string(), "-o".into(), program.display().to_string()]);
    run("cc", &parts.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(killer.end() > 0, "no OSD was killed");
    // What is removed is given back.
    let filler = at.join("filler");
    run("dd", &["if=/dev/zero", &format!("of={}", filler.display()), "bs=1M", "count=16", "conv=fsync", "status=none"]);
    std::fs::remove_file(filler).unwrap();
    run(fill, &["-v", at.to_str().unwrap()]);
    unmount(&at);
    run(check[0], &[&check[1..], &[&*device]].concat());
    disks.unmap("data/a");
    // It is all there when it comes back, also after the process behind it was killed.
    disks.map("data/a", &[]);
    disks.kill_behind("data/a");
    let at = disks.mount(&disks.map("data/a", &[]), "a");
    assert_eq!(Command::new(&program).status().unwrap().code(), Some(210));
    git(&["-C", clone, "fsck", "--full", "--no-progress"]);
    if Path::new(source).join(".git").exists() {
        let changed = git(&["-C", clone, "status", "--porcelain"]);
        assert_eq!(changed, "");
        let head = |of: &str| git(&["-C", of, "rev-parse", "HEAD"]);
        assert_eq!(head(clone), head(source));
    }
    unmount(&at);
    disks.unmap("data/a");
}

#[test]
fn ext4_on_a_mapped_image_holds_a_clone_and_a_build_while_osds_are_killed() {
    a_clone_and_a_build(32, &["mkfs.ext4", "-q"], &["e2fsck", "-fn"], "fstrim");
}

#[test]
fn xfs_on_a_mapped_image_holds_a_clone_and_a_build_while_osds_are_killed() {
    a_clone_and_a_build(33, &["mkfs.xfs", "-q"], &["xfs_repair", "-n"], "fstrim");
}

/// Who runs databases: not root.
const NOBODY: &str = "65534";

/// Programs of PostgreSQL, wherever its version lies.
fn postgres(program: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let found = versions.map(|entry| entry.unwrap().path().join("bin").join(program)).filter(|path| path.exists());
    found.max().unwrap_or_else(|| panic!("{program} of PostgreSQL is not here; ./x test installs it"))
}

/// A command that runs as nobody.
fn as_nobody(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(program).args(args);
    // Where the test began may be closed to nobody.
    command.current_dir("/").env("HOME", "/").env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// A database server on a folder of a mapped image.
struct Database {
    data: PathBuf,
    sockets: PathBuf,
    server: Option<Started>,
}

impl Database {
    /// Makes one in a file system.
    fn make(disks: &Disks, at: &Path) -> Database {
        let (data, sockets) = (at.join("db"), disks.mounts.path().join("sockets"));
        for folder in [&data, &sockets] {
            std::fs::create_dir_all(folder).unwrap();
            run("chown", &[NOBODY, folder.to_str().unwrap()]);
        }
        let text = data.to_str().unwrap().to_owned();
        let args = ["-D", &text, "--username=pearl", "--auth=trust", "--wal-segsize=1", "--encoding=UTF8", "--no-sync"];
        let made = as_nobody(&postgres("initdb"), &args).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        run("sync", &["-f", at.to_str().unwrap()]);
        Database { data, sockets, server: None }
    }

    fn start(&mut self) {
        let (data, sockets) = (self.data.to_str().unwrap(), self.sockets.to_str().unwrap());
        let set = ["-c", "listen_addresses=", "-c", "shared_buffers=16MB", "-c", "max_wal_size=32MB"];
        let log = self.sockets.join("log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut server = as_nobody(&postgres("postgres"), &[&["-D", data, "-k", sockets], &set[..]].concat());
        self.server = Some(Started(server.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()));
        let began = Instant::now();
        while !self.ask("SELECT 1").status.success() {
            let log = std::fs::read_to_string(self.sockets.join("log")).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(60), "the database does not start:\n{log}");
            moment(Duration::from_millis(50));
        }
    }

    fn client(&self, program: &str, args: &[&str]) -> Command {
        let mut all = vec!["-h", self.sockets.to_str().unwrap(), "-U", "pearl"];
        all.extend(args);
        all.push("postgres");
        as_nobody(&postgres(program), &all)
    }

    fn ask(&self, query: &str) -> std::process::Output {
        self.client("psql", &["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", query]).output().unwrap()
    }

    fn answer(&self, query: &str) -> String {
        let said = self.ask(query);
        assert!(said.status.success(), "{query}: {said:?}");
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }

    /// Ends it in good order.
    fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        server.signal("-INT");
        server.0.wait().unwrap();
    }

    /// Ends all its processes at once.
    fn kill(&mut self) {
        // The server is the first of its session's processes; the others leave when it is gone.
        drop(self.server.take());
        let lock = self.data.join("postmaster.pid");
        let _ = std::fs::remove_file(lock);
    }
}

#[test]
fn databases_on_a_mapped_image_lose_nothing_while_osds_are_killed() {
    if !can_map() {
        return;
    }
    let disks = Disks::new(34);
    disks.running.good(&["block", "create", "data/a", "--size", "300MiB"]);
    let device = disks.map("data/a", &[]);
    run("mkfs.ext4", &["-q", &device]);
    let at = disks.mount(&device, "a");
    let mut database = Database::make(&disks, &at);
    database.start();
    let made = database.client("pgbench", &["-i", "-q", "-s", "1"]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let killer = Killer::start(disks.running.0.path(), Duration::from_secs(4));
    // SQLite writes beside PostgreSQL, each number a transaction of its own; it says each when it is in.
    let file = at.join("lite.db");
    let mut script = String::from("PRAGMA synchronous=FULL;\nCREATE TABLE t(n INTEGER PRIMARY KEY, pad TEXT);\n");
    for n in 1..=100_000 {
        script.push_str(&format!("INSERT INTO t VALUES ({n}, hex(randomblob(200)));\nSELECT {n};\n"));
    }
    let (input, said) = (disks.running.0.path().join("script.sql"), disks.running.0.path().join("said"));
    std::fs::write(&input, script).unwrap();
    let mut lite = Command::new("sqlite3");
    lite.args(["-bail", "-batch"]).arg(&file).stdin(std::fs::File::open(&input).unwrap());
    let mut lite = Started(lite.stdout(std::fs::File::create(&said).unwrap()).spawn().unwrap());
    let load = database.client("pgbench", &["-c", "4", "-T", "15", "-n"]).output().unwrap();
    let text = String::from_utf8_lossy(&load.stdout).into_owned();
    assert!(load.status.success() && text.contains("number of failed transactions: 0 "), "{load:?}");
    let said_in = || std::fs::read_to_string(&said).unwrap().lines().filter_map(|n| n.parse().ok()).max().unwrap_or(0);
    let began = Instant::now();
    while said_in() < 30 {
        assert!(lite.0.try_wait().unwrap().is_none(), "SQLite ended: {}", std::fs::read_to_string(&said).unwrap());
        assert!(began.elapsed() < Duration::from_secs(60), "SQLite does not write");
        moment(Duration::from_millis(50));
    }
    drop(lite);
    killer.until(2, || drop(database.answer("SELECT count(*) FROM pgbench_history")));
    killer.end();
    // The books balance.
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history),
        (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches),
        (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history)";
    assert_eq!(database.answer(sums), "t|t|t");
    let count: u64 = database.answer("SELECT count(*) FROM pgbench_history").parse().unwrap();
    assert!(count > 10 && text.contains(&format!("actually processed: {count}")), "{count} of {text}");
    database.stop();
    // All is there when the device comes back, and whole.
    unmount(&at);
    run("e2fsck", &["-fn", &device]);
    disks.unmap("data/a");
    let at = disks.mount(&disks.map("data/a", &[]), "a");
    database.start();
    assert_eq!(database.answer(sums), "t|t|t");
    database.stop();
    let last: u64 = said_in();
    let lite = |query: &str| run("sqlite3", &["-readonly", file.to_str().unwrap(), query]).trim().to_owned();
    // It was killed in the middle of a transaction: a journal may be there to be rolled back.
    assert_eq!(run("sqlite3", &[file.to_str().unwrap(), "PRAGMA integrity_check"]).trim(), "ok");
    let found: u64 = lite("SELECT max(n) FROM t").parse().unwrap();
    assert!(found >= last, "{last} were said to be in, {found} are");
    assert_eq!(lite("SELECT count(*) FROM t"), found.to_string());
    unmount(&at);
    disks.unmap("data/a");
}

#[test]
fn a_database_recovers_every_transaction_after_the_process_behind_its_device_was_killed() {
    if !can_map() {
        return;
    }
    let disks = Disks::new(35);
    disks.running.good(&["block", "create", "data/a", "--size", "300MiB"]);
    let write_back = ["--write-back", "4MiB"];
    let mut device = disks.map("data/a", &write_back);
    run("mkfs.ext4", &["-q", &device]);
    let mut at = disks.mount(&device, "a");
    let mut database = Database::make(&disks, &at);
    database.start();
    database.answer("CREATE TABLE log(client int, n int, PRIMARY KEY (client, n))");
    let mut said: Vec<PathBuf> = Vec::new();
    for round in 0..3 {
        // given clients who write down outside what was committed
        let mut clients = Vec::new();
        for client in 0..3 {
            let client = round * 3 + client;
            let insert = |n| format!("INSERT INTO log VALUES ({client}, {n}) RETURNING n;\n");
            let input = database.sockets.join(format!("{client}.sql"));
            std::fs::write(&input, (0..100_000).map(insert).collect::<String>()).unwrap();
            let output = database.sockets.join(format!("{client}.said"));
            let mut psql = database.client("psql", &["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]);
            psql.stdin(std::fs::File::open(&input).unwrap()).stdout(std::fs::File::create(&output).unwrap());
            clients.push(Started(psql.stderr(Stdio::null()).spawn().unwrap()));
            said.push(output);
        }
        let committed = |path: &PathBuf| std::fs::read_to_string(path).unwrap().lines().count();
        let began = Instant::now();
        while !said.iter().all(|path| committed(path) > 50) {
            assert!(began.elapsed() < Duration::from_secs(60), "nothing is committed");
            moment(Duration::from_millis(20));
        }
        // when the process behind the device is killed
        disks.kill_behind("data/a");
        for client in &mut clients {
            // Each hears that the database has no disk any more, or is ended with it.
            let began = Instant::now();
            while client.0.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(20) {
                moment(Duration::from_millis(20));
            }
        }
        drop(clients);
        database.kill();
        unmount(&at);
        // then it recovers with all of that from the device that comes back
        device = disks.map("data/a", &write_back);
        at = disks.mount(&device, "a");
        database.start();
        for (client, path) in said.iter().enumerate() {
            let acknowledged = committed(path) as u64;
            let query = format!("SELECT count(*), coalesce(max(n) + 1, 0) FROM log WHERE client = {client}");
            let answer = database.answer(&query);
            let (count, next) = answer.split_once('|').unwrap();
            assert_eq!(count, next, "a hole in what client {client} wrote");
            assert!(count.parse::<u64>().unwrap() >= acknowledged, "{acknowledged} were committed, {count} are there");
        }
    }
    database.stop();
    unmount(&at);
    run("e2fsck", &["-fn", &device]);
    disks.unmap("data/a");
}
