//! Generates the messages of `proto/nacre/v1`, without protoc. Services are generated where they are served, so that the
//! cores that share these messages do not depend on an RPC framework.

use std::error::Error;

const FILES: [&str; 3] = ["nacre/v1/command.proto", "nacre/v1/report.proto", "nacre/v1/health.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/nacre/v1");
    let files = protox::compile(FILES, ["proto"])?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(files)?;
    Ok(())
}
