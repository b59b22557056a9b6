//! What tests of images start: daemons, stock clients, and their ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Running;

/// A process that ends with the test.
pub(crate) struct Started(pub(crate) Child);

impl Drop for Started {
    fn drop(&mut self) {
        // A stopped one would not end.
        let _ = Command::new("kill").args(["-CONT", &self.0.id().to_string()]).status();
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Started {
    pub(crate) fn nacre(folder: &Path, args: &[&str]) -> Started {
        let log = std::fs::File::create(folder.join(format!("{}.log", args[0]))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_nacre"))
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        Started(child)
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }
}

/// `nacre nbd`, on a local socket or on an address.
pub(crate) struct Server {
    pub(crate) socket: PathBuf,
    said: String,
    process: Started,
}

impl Server {
    pub(crate) fn start(running: &Running, name: &str, more: &[&str]) -> Server {
        let socket = running.0.path().join(name);
        let text = socket.to_str().unwrap().to_owned();
        let mut args = vec!["nbd", "--pool", "data", "--socket", &text];
        args.extend_from_slice(more);
        let process = Started::nacre(running.0.path(), &args);
        let began = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "nacre nbd does not listen");
            moment(Duration::from_millis(20));
        }
        Server { socket, said: String::new(), process }
    }

    pub(crate) fn on_address(running: &Running, more: &[&str]) -> Server {
        let mut args = vec!["nbd", "--pool", "data", "--listen", "127.0.0.1:0"];
        args.extend_from_slice(more);
        let mut process = Started::nacre(running.0.path(), &args);
        let mut said = BufReader::new(process.0.stdout.take().unwrap());
        let mut lines = String::new();
        let count = 1 + usize::from(more.contains(&"--metrics"));
        for _ in 0..count {
            assert!(said.read_line(&mut lines).unwrap() > 0, "nacre nbd does not listen: {lines}");
        }
        Server { socket: PathBuf::new(), said: lines, process }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        self.said.lines().find_map(|line| line.strip_prefix("listening on ")).unwrap()
    }

    /// Its page of metrics.
    pub(crate) fn metrics(&self) -> String {
        let page = self.said.lines().find_map(|line| line.strip_prefix("metrics on http://")).unwrap();
        let (address, path) = page.split_once('/').unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(format!("GET /{path} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub(crate) fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket.display())
    }
}

/// Runs a program to its end and returns what it printed; its failure is the test's.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} does not start ({error}); ./x test installs it"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {}\n{text}", output.status);
    text
}

/// The same, for what may not work at once.
pub(crate) fn at_last(program: &str, args: &[&str]) {
    let began = Instant::now();
    loop {
        let output = Command::new(program).args(args).output().unwrap();
        if output.status.success() {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{program} {args:?}: {output:?}");
        moment(Duration::from_millis(20));
    }
}

/// Between two looks.
pub(crate) fn moment(time: Duration) {
    runtime().block_on(async { tokio::time::sleep(time).await });
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
