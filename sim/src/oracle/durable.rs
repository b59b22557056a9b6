//! What is answered is durable on every acting member: a write that is acknowledged, and what a read shows. Judged for
//! what was ordered in the interval of the answer; what is older was made durable when the interval was activated.

use std::collections::{BTreeMap, BTreeSet};

use nacre_pg::io::TxnId;
use nacre_proto::ids::{OsdId, PgId, Version};
use nacre_proto::txn::{Transaction, TxnOp};

use super::ledger::Asked;
use crate::world::World;

/// Log entries of transactions, and whether they reached the disk.
#[derive(Clone, Debug, Default)]
pub struct Disks {
    under_way: BTreeMap<(OsdId, u64, TxnId), Vec<Version>>,
    /// On stable storage.
    pub durable: BTreeSet<(OsdId, PgId, Version)>,
}

impl Disks {
    /// A core's transaction goes to the disk.
    pub(crate) fn submitted(&mut self, osd: OsdId, core: u64, id: TxnId, txn: &Transaction) {
        let version = |o: &TxnOp| if let TxnOp::LogAppend { version, .. } = o { Some(*version) } else { None };
        let versions: Vec<Version> = txn.ops.iter().filter_map(version).collect();
        if !versions.is_empty() {
            self.under_way.insert((osd, core, id), versions);
        }
    }

    /// It is there.
    pub(crate) fn reached(&mut self, osd: OsdId, pg: PgId, core: u64, id: TxnId) {
        let versions = self.under_way.remove(&(osd, core, id)).unwrap_or_default();
        self.durable.extend(versions.into_iter().map(|v| (osd, pg, v)));
    }
}

/// An osd answers with what the log has at this version.
pub(super) fn check(w: &mut World, by: OsdId, asked: &Asked, version: Version) {
    let Some((_, core)) = w.nodes[by.0 as usize].pgs.get(&asked.pg) else { return };
    if version.epoch != core.info().interval {
        return;
    }
    let Some(map) = w.maps.get(core.epoch()) else { return };
    let acting = map.view(asked.pg).acting;
    let lacks: Vec<OsdId> =
        acting.into_iter().filter(|o| !w.ledger.disks.durable.contains(&(*o, asked.pg, version))).collect();
    if !lacks.is_empty() {
        w.violations.push(format!(
            "{by} pg {}: answers client {} tid {} of {:?} with version {version}, which is not durable on {lacks:?}",
            asked.pg, asked.client, asked.tid, asked.oid.name
        ));
    }
}
