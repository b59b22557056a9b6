//! Gives devices, buckets, classes and rules other names. Names place nothing, so no data moves.

use super::{EditError, fit_name};
use crate::model::CrushMap;

impl CrushMap {
    /// Renames a device or bucket; its shadows follow.
    ///
    /// # Errors
    /// When there is none of that name, or the new one is taken.
    pub fn rename_item(&mut self, name: &str, new_name: &str) -> Result<(), EditError> {
        self.change(|map| {
            let item = map.wanted_item(name)?;
            map.free_name(new_name)?;
            if let Some(device) = map.devices.get_mut(&item) {
                device.name = new_name.to_owned();
            } else if let Some(bucket) = map.buckets.get_mut(&item) {
                bucket.name = new_name.to_owned();
            }
            Ok(())
        })
    }

    /// Renames a device class.
    ///
    /// # Errors
    /// When there is none of that name, or the new one is taken.
    pub fn rename_class(&mut self, name: &str, new_name: &str) -> Result<(), EditError> {
        self.change(|map| {
            let class = map.wanted_class(name)?;
            fit_name(new_name)?;
            if map.class_id(new_name).is_some() {
                return Err(EditError::NameTaken { name: new_name.to_owned() });
            }
            map.classes.insert(class, new_name.to_owned());
            Ok(())
        })
    }

    /// Renames a rule.
    ///
    /// # Errors
    /// When there is none of that name, or the new one is taken.
    pub fn rename_rule(&mut self, name: &str, new_name: &str) -> Result<(), EditError> {
        self.change(|map| {
            let rule = map.wanted_rule(name)?;
            fit_name(new_name)?;
            if map.rule_id(new_name).is_some() {
                return Err(EditError::NameTaken { name: new_name.to_owned() });
            }
            if let Some(rule) = map.rules.get_mut(&rule) {
                rule.name = new_name.to_owned();
            }
            Ok(())
        })
    }
}
