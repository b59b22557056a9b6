//! The text form of a map, as `crushtool -d` prints and `crushtool -c` reads it (docs/formats/crush.md has the grammar).
//!
//! Text to map goes in three steps: `lex` cuts words and remembers where they stood, `parse` checks the grammar and
//! gives declarations, `compile` turns names into ids and builds the shadow trees. [`print`](print()) goes the other
//! way. What is wrong with a map as a whole (two parents, unused types) is no matter of this module but of
//! the map checks.

mod compile;
mod error;
mod lex;
mod parse;
mod print;
mod suggest;
mod weight;

pub use error::TextError;
pub use suggest::nearest;

use crate::model::CrushMap;

/// Compiles the text of a map.
///
/// # Errors
/// The first thing that does not fit, with its place and what would have fitted.
pub fn parse(text: &str) -> Result<CrushMap, TextError> {
    let source = lex::Source::new(text);
    let declarations = parse::declarations(&source)?;
    compile::compile(&source, &declarations)
}

/// The text of a map. [`parse`](parse()) reads it back to the same map, if that is a valid one.
pub fn print(map: &CrushMap) -> String {
    print::print(map)
}

/// Whether crush text takes this as the name of a device, bucket, type, class or rule.
pub fn is_name(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

#[cfg(test)]
#[path = "golden_test.rs"]
pub(crate) mod golden;
#[cfg(test)]
#[path = "error_test.rs"]
mod tests;
