//! Planners: what the monitors propose by themselves. Pure functions of map and reports; what they propose are commands,
//! which go through the rules like an operator's.

pub mod balance;
pub mod moved;
pub mod pg_count;
pub mod round;
#[cfg(test)]
#[path = "round_test.rs"]
mod round_tests;
#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
