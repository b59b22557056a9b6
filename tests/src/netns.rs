//! Hosts on one machine: a network namespace for each, all on one bridge, and cables that can be pulled.
//!
//! Needs root and `ip`. Whoever cannot make namespaces hears why. All goes away with the value, and what a killed test
//! left behind goes with the next one's beginning.

use std::path::Path;
use std::process::Command;

/// Namespaces `PREFIX-b` with the bridge, and `PREFIX-0`, `PREFIX-1` ... with a host each.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    subnet: String,
    hosts: u32,
}

/// Runs `ip`.
pub fn ip(args: &str) -> Result<(), String> {
    run("ip", args)
}

fn run(program: &str, args: &str) -> Result<(), String> {
    let output = Command::new(program).args(args.split(' ')).output().map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{program} {args}: {text}")) }
}

/// Takes away what a test left behind that was killed before it could.
fn sweep() {
    let listed = Command::new("ip").args(["netns", "list"]).output().map(|output| output.stdout).unwrap_or_default();
    for name in String::from_utf8_lossy(&listed).lines().filter_map(|line| line.split(' ').next()) {
        let pid = name.strip_prefix("nacre").and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
        if pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

impl Network {
    /// So many hosts, in a subnet that follows from the process id.
    pub fn new(hosts: u32) -> Result<Network, String> {
        sweep();
        let pid = std::process::id();
        let [_, _, c, d] = pid.to_be_bytes();
        let network = Network { prefix: format!("nacre{pid}"), subnet: format!("10.{}.{d}", 64 + c % 64), hosts };
        let base = network.space("b");
        ip(&format!("netns add {base}"))?;
        ip(&format!("-n {base} link set lo up"))?;
        ip(&format!("-n {base} link add name sw0 type bridge"))?;
        ip(&format!("-n {base} addr add {}.100/24 dev sw0", network.subnet))?;
        ip(&format!("-n {base} link set sw0 up"))?;
        for host in 0..hosts {
            let own = network.space(host);
            ip(&format!("netns add {own}"))?;
            ip(&format!("-n {own} link set lo up"))?;
            ip(&format!("-n {base} link add name v{host} type veth peer name eth0 netns {own}"))?;
            ip(&format!("-n {base} link set v{host} master sw0"))?;
            ip(&format!("-n {base} link set v{host} up"))?;
            ip(&format!("-n {own} addr add {}/24 dev eth0", network.address(host)))?;
            ip(&format!("-n {own} link set eth0 up"))?;
        }
        Ok(network)
    }

    /// Lets this process reach the hosts, which otherwise only they do among themselves.
    pub fn join(&self) -> Result<(), String> {
        let (base, own) = (self.space("b"), self.link());
        ip(&format!("link add name {own} type veth peer name outside netns {base}"))?;
        ip(&format!("-n {base} link set outside master sw0"))?;
        ip(&format!("-n {base} link set outside up"))?;
        ip(&format!("addr add {}.200/24 dev {own}", self.subnet))?;
        ip(&format!("link set {own} up"))
    }

    fn link(&self) -> String {
        format!("nc{}", self.prefix.trim_start_matches("nacre"))
    }

    /// A namespace's name: of a host, or `b` for the bridge's.
    pub fn space(&self, of: impl std::fmt::Display) -> String {
        format!("{}-{of}", self.prefix)
    }

    /// A host's address.
    pub fn address(&self, host: u32) -> String {
        format!("{}.{}", self.subnet, host + 1)
    }

    /// A command inside a namespace.
    pub fn inside(&self, of: impl std::fmt::Display, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(of)]).arg(program);
        command
    }

    /// Pulls a host's cable, or plugs it in again.
    pub fn cable(&self, host: u32, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        let set = ip(&format!("-n {} link set v{host} {state}", self.space("b")));
        assert!(set.is_ok(), "{set:?}");
    }

    /// Makes a host's cable thin, in both directions: what is sent waits in a queue of at most so many milliseconds, and
    /// what does not fit is lost. With nothing, it is as before.
    pub fn thin(&self, host: u32, thin: Option<(u32, u32)>) {
        for at in [
            format!("-n {} qdisc VERB dev v{host} root", self.space("b")),
            format!("-n {} qdisc VERB dev eth0 root", self.space(host)),
        ] {
            let args = match thin {
                Some((kbit, queue_ms)) => {
                    format!("{} tbf rate {kbit}kbit burst 6kb latency {queue_ms}ms", at.replace("VERB", "add"))
                }
                None => at.replace("VERB", "del"),
            };
            let set = run("tc", &args);
            assert!(set.is_ok(), "{set:?}");
        }
    }

    /// Lets nothing through from one host to another, or all again. The other way stays open.
    pub fn one_way(&self, from: u32, to: u32, open: bool) {
        let verb = if open { "del" } else { "add" };
        let set = ip(&format!("-n {} route {verb} blackhole {}/32", self.space(from), self.address(to)));
        assert!(set.is_ok(), "{set:?}");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Its other end lies in a namespace that goes; this is for the case that it was not moved there.
        let _ = ip(&format!("link del {}", self.link()));
        let _ = ip(&format!("netns del {}", self.space("b")));
        for host in 0..self.hosts {
            let _ = ip(&format!("netns del {}", self.space(host)));
        }
    }
}
