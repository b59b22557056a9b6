//! The NBD server, over a disk in memory: with the programs people have, and with what none of them would send.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report, also in its helpers")]

mod disk;
mod protocol;
mod stock_clients;
