//! Generates messages, clients and servers of the monitors from `proto/proto`, without protoc.

use std::error::Error;

const FILES: [&str; 5] = [
    "nacre/mon/v1/command.proto",
    "nacre/mon/v1/identity.proto",
    "nacre/mon/v1/mon.proto",
    "nacre/mon/v1/raft.proto",
    "nacre/mon/v1/store.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = "../../proto/proto";
    println!("cargo:rerun-if-changed={root}");
    let files = protox::compile(FILES, [root])?;
    tonic_prost_build::configure().bytes(".").extern_path(".nacre.v1", "::nacre_proto::v1").compile_fds(files)?;
    Ok(())
}
