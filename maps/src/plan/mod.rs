//! Planners: what the monitors propose by themselves. Pure functions of map and reports; what they propose are commands,
//! which go through the rules like an operator's.

pub mod balance;
pub mod moved;
pub mod pg_count;
#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
