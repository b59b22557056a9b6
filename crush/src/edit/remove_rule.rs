//! Removes a rule. Whether a pool still uses it is known to the cluster map only.

use super::EditError;
use crate::model::{CrushMap, RuleId};

impl CrushMap {
    /// Removes a rule and gives the number it had. A class that only this rule took is forgotten.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn remove_rule(&mut self, name: &str) -> Result<RuleId, EditError> {
        self.change(|map| {
            let id = map.wanted_rule(name)?;
            map.rules.remove(&id);
            Ok(id)
        })
    }
}
