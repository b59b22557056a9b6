//! Sets and clears the class of devices.

use super::{EditError, fit_name};
use crate::model::{ClassId, CrushMap};

impl CrushMap {
    /// Puts devices into a class, which is made if nobody is in it yet. Classes they were in are left.
    ///
    /// # Errors
    /// When a device is not there, or a uniform bucket cannot have a shadow then.
    pub fn set_class(&mut self, devices: &[&str], class: &str) -> Result<(), EditError> {
        self.change(|map| {
            let ids = devices.iter().map(|name| map.wanted_device(name)).collect::<Result<Vec<_>, _>>()?;
            if ids.is_empty() {
                return Ok(());
            }
            let class = map.class_or_new(class)?;
            for id in ids {
                if let Some(device) = map.devices.get_mut(&id) {
                    device.class = Some(class);
                }
            }
            Ok(())
        })
    }

    /// Takes devices out of their class. A class that no device has and no rule takes is forgotten.
    ///
    /// # Errors
    /// When a device is not there.
    pub fn clear_class(&mut self, devices: &[&str]) -> Result<(), EditError> {
        self.change(|map| {
            for name in devices {
                let id = map.wanted_device(name)?;
                if let Some(device) = map.devices.get_mut(&id) {
                    device.class = None;
                }
            }
            Ok(())
        })
    }

    pub(super) fn class_or_new(&mut self, name: &str) -> Result<ClassId, EditError> {
        if let Some(id) = self.class_id(name) {
            return Ok(id);
        }
        fit_name(name)?;
        let after = self.classes.keys().next_back().map_or(Some(0), |last| last.checked_add(1));
        let free = || (0..ClassId::MAX).find(|id| !self.classes.contains_key(id));
        let id = after.or_else(free).ok_or(EditError::Full { what: "device class" })?;
        self.classes.insert(id, name.to_owned());
        Ok(id)
    }
}
