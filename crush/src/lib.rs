//! Placement: which devices hold an input, as a pure function of a map and that input.
//!
//! The mapping is equal to Ceph's CRUSH bit for bit, so a map can be brought along and checked against `crushtool`.
//! No I/O, no clock, no randomness: the same map and input give the same answer everywhere, for ever.
//!
//! - [`model`]: what a map is (devices, buckets, types, rules, tunables, classes, weight sets).
//! - [`text`]: the text form, as `crushtool` reads and prints it.
//! - [`binary`]: the binary form, as Ceph stores it.
//! - [`edit`]: the changes operators make.
//! - [`mod@check`]: what is wrong with a map, and why a rule finds too little.
//! - [`pg`]: object names to pgs, pgs to inputs of the mapping.
//! - [`map`]: the mapping: a compiled map, its rules run for an input.
//! - [`hash`], [`ln`]: the hashes and the logarithm that all draws rest on.
//! - [`mod@derive`]: what bucket algorithms compute ahead from weights.

#![deny(unsafe_code)]

pub mod binary;
pub mod check;
pub mod derive;
pub mod edit;
pub mod hash;
pub mod ln;
mod lookup;
pub mod map;
pub mod model;
pub mod pg;
mod shadow;
#[expect(unsafe_code, reason = "vector instructions: loads by pointer, and code only some processors run")]
mod simd;
pub mod text;

pub use lookup::PostOrder;
pub use shadow::ShadowError;

#[cfg(test)]
mod corpus_test;
#[cfg(test)]
mod property_test;
#[cfg(test)]
mod random_map;
