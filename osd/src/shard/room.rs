//! What a shard does within bounds: room on the device, slots for background work, scrubs by the clock.
//!
//! Invariant: a group that found no room for a transaction is stepped no further, and what it asked for after that is
//! kept in order, until the transaction is taken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nacre_pg::io::{Input, Order, Output};
use nacre_pg::state::Config;
use nacre_store::Fullness;

use super::pace::Portion;
use super::{Outside, Shard};
use crate::slots::{Slot, Slots};
use crate::tuning::Tuning;

/// A group that waits for room.
pub(super) struct Stuck {
    pub(super) core: u64,
    pub(super) outputs: VecDeque<Output>,
    pub(super) inputs: VecDeque<Input>,
}

/// When a group that is led here was last told to compare its copies.
pub(super) struct Scrubbed {
    pub(super) light: Instant,
    pub(super) deep: Instant,
}

/// How often space is looked at while there is work.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// How often groups that wait for room try again.
pub(super) const RETRY: Duration = Duration::from_millis(250);

impl<O: Outside> Shard<O> {
    /// Tries again what found no room. Called when room may have come.
    pub(super) fn unstick(&mut self) {
        self.retrying = true;
        for (pg, stuck) in std::mem::take(&mut self.stuck) {
            let Stuck { core, outputs, inputs } = stuck;
            let Some((_, group)) = self.groups.get(&pg).filter(|(number, _)| *number == core) else { continue };
            let interval = group.info().interval;
            for output in outputs {
                self.carry_out(pg, core, interval, output);
            }
            match self.stuck.get_mut(&pg) {
                Some(again) => again.inputs = inputs,
                None => {
                    tracing::warn!(%pg, "found room and goes on");
                    self.work.extend(inputs.into_iter().map(|input| (pg, core, input)));
                }
            }
        }
        self.retrying = false;
    }

    /// Tells the monitors of another fullness at once, and those who may no longer be filled.
    pub(super) fn look_at_space(&mut self) {
        let now = Instant::now();
        if now - self.looked < LOOK {
            return;
        }
        self.looked = now;
        if !self.stuck.is_empty() {
            self.unstick();
            self.drain();
        }
        let fullness = self.store.usage().fullness(&self.tuning.full);
        if fullness != self.fullness {
            tracing::info!(from = ?self.fullness, to = ?fullness, "the device's fullness has changed");
            self.fullness = fullness;
            self.outside.crowded(fullness);
            self.tune();
        }
    }

    /// Slots as the settings and the room on the device allow.
    pub(super) fn tune(&mut self) {
        let Tuning { backfills, scrubs, .. } = self.tuning;
        let remote = if self.fullness >= Fullness::Backfill { 0 } else { backfills };
        self.work_slots(|slots| slots.limit([backfills, remote, scrubs]));
        self.pace.allow(self.tuning.slowdown);
        let Tuning { log_max, recover, repair, .. } = self.tuning;
        let Portion { objects, piece, window } = Portion::of(self.beside_clients, recover, backfills);
        let old = &*self.cfg;
        let now = (old.log_keep, old.recover_active, old.chunk_bytes, old.backfill_bytes, old.repair);
        if now != (log_max, objects, piece, window, repair) {
            let cfg = Config {
                log_keep: log_max,
                log_slack: log_max / 10,
                recover_active: objects,
                chunk_bytes: piece,
                backfill_bytes: window,
                repair,
                ..old.clone()
            };
            self.cfg = Arc::new(cfg);
            self.groups.values_mut().for_each(|(_, group)| group.retune(Arc::clone(&self.cfg)));
        }
    }

    /// Lets recovery have less under way while there are clients, and more when they have gone.
    pub(super) fn heed_clients(&mut self) {
        let beside_clients = self.pace.had_clients(self.now());
        if beside_clients != self.beside_clients {
            self.beside_clients = beside_clients;
            self.tune();
        }
    }

    /// Works on the OSD's slots, and tells those whom that concerns.
    pub(super) fn work_slots(&mut self, work: impl FnOnce(&mut Slots) -> Vec<Slot>) {
        let shards = self.shards.clone();
        shards.slots(work, |slot| self.told_slot(slot));
    }

    pub(super) fn told_slot(&mut self, Slot { pg, core, kind, holder, held, .. }: Slot) {
        self.work.push_back((pg, core, Input::Slot { kind, holder, granted: held }));
    }

    /// Orders scrubs whose time has come, for groups led here, as many at a time as the settings say.
    pub(super) fn begin_scrubs(&mut self) {
        let Tuning { scrubs, scrub_every, deep_every, .. } = self.tuning;
        // A scrub that waits until its group is whole again keeps no other from beginning.
        let busy = self.groups.values().filter(|(_, group)| group.is_clean() && group.is_scrubbing()).count();
        let mut room = scrubs.saturating_sub(busy);
        let now = Instant::now();
        for (pg, (core, group)) in &self.groups {
            if !group.is_clean() {
                self.scrubbed.remove(pg);
                continue;
            }
            // Groups that become clean here begin at different moments of the period, so that they do not all come due
            // at once.
            let share = f64::from(pg.seed.wrapping_mul(0x9e37_79b9)) / f64::from(u32::MAX);
            let early = |every: Duration| now.checked_sub(every.mul_f64(share)).unwrap_or(now);
            let last = self
                .scrubbed
                .entry(*pg)
                .or_insert_with(|| Scrubbed { light: early(scrub_every), deep: early(deep_every) });
            let deep = now - last.deep >= deep_every;
            if room == 0 || group.is_scrubbing() || !(deep || now - last.light >= scrub_every) {
                continue;
            }
            room -= 1;
            last.light = now;
            if deep {
                last.deep = now;
            }
            self.work.push_back((*pg, *core, Input::Order(Order::ScrubDue { deep })));
        }
    }
}
