//! Every verb that changes the map, as data. The monitors' messages are turned into these; nothing else changes a map.

use nacre_proto::ids::{Epoch, MonId, OsdId, PgId, SessionId, SnapId, Stamp};

use super::daemon::{DaemonBeacon, MonEntry};
use super::osd_boot::Boot;
use super::pool::PoolCreate;
use super::usage::{OsdUsage, PoolUsage};
use super::{
    Asker, Outcome, RuleError, daemon, fence, flag, location, osd_boot, osd_down, osd_in, osd_remove, pg, pool,
    pool_set, setting, snap, tick, usage,
};
use crate::map::{ClusterMap, DaemonId, Flag, FlagTarget, Scope};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Makes a pool.
    PoolCreate(PoolCreate),
    /// Changes one option of a pool.
    PoolSet { pool: String, option: String, value: String },
    /// Removes a pool and all that is in it; the name is given twice.
    PoolRemove { pool: String, confirm: String },
    /// Renames a pool.
    PoolRename { pool: String, to: String },
    /// Says what uses a pool.
    PoolApplication { pool: String, application: String, enable: bool },
    /// An OSD has started.
    OsdBoot(Boot),
    /// An OSD says that it stops.
    OsdStopping { osd: OsdId, incarnation: u64 },
    /// The failure reports suffice, or an operator says so.
    OsdDown { osds: Vec<OsdId>, dead: bool },
    /// Its data is rebuilt elsewhere.
    OsdOut { osds: Vec<OsdId> },
    /// Data comes back.
    OsdIn { osds: Vec<OsdId> },
    /// How much of what is mapped to it stays, in millionths.
    OsdReweight { osd: OsdId, millionths: u32 },
    /// How willing it is to be primary, in millionths.
    OsdAffinity { osd: OsdId, millionths: u32 },
    /// How much it holds against its siblings.
    OsdCrushWeight { osd: OsdId, millionths: u64 },
    /// Where it stands: type and name of each bucket above it.
    OsdMove { osd: OsdId, location: Vec<(String, String)> },
    /// Its device class; empty takes it away.
    OsdClass { osd: OsdId, class: String },
    /// How full devices and pools are, where that changes what they may take.
    Usage { osds: Vec<OsdUsage>, pools: Vec<PoolUsage> },
    /// Its data is gone for good.
    OsdLost { osd: OsdId, confirm: bool },
    /// Its disk is exchanged. `safe` is what [`super::osd_safe::safe_to_replace`] said by the pgs' reports.
    OsdDestroy { osd: OsdId, safe: bool, force: bool },
    /// Forgets an OSD that holds nothing. `safe` is what [`super::osd_safe::safe_to_destroy`] said by the pgs' reports.
    OsdRemove { osd: OsdId, safe: bool, force: bool },
    /// Places a pg by hand; none = as computed.
    Upmap { pg: PgId, osds: Vec<OsdId> },
    /// Replaces single OSDs of a pg; none = as computed.
    UpmapItems { pg: PgId, items: Vec<(OsdId, OsdId)> },
    /// What the balancer found.
    UpmapMany { items: Vec<(PgId, Vec<(OsdId, OsdId)>)> },
    /// An OSD asks that others serve pgs for the time being; an empty set ends it.
    PgTemp { from: OsdId, epoch: Epoch, wants: Vec<(PgId, Vec<OsdId>)> },
    /// Another primary for the time being; none ends it.
    PrimaryTemp { pg: PgId, primary: Option<OsdId> },
    /// A primary asks to have it noted that it lives.
    UpThru { osd: OsdId, incarnation: u64, epoch: Epoch },
    /// Every OSD refuses a session from now on.
    Fence { sessions: Vec<SessionId>, until: Option<Stamp>, why: String },
    /// Lets a session in again.
    Unfence { session: SessionId },
    /// Refuses a certificate.
    Revoke { serial: Vec<u8>, until: Stamp, why: String },
    /// Gives a setting a value.
    SettingSet { scope: Scope, name: String, value: String },
    /// Gives a setting back its default.
    SettingRemove { scope: Scope, name: String },
    /// Sets a flag, for a time or until cleared.
    FlagSet { flag: Flag, target: FlagTarget, until: Option<Stamp>, why: String },
    /// Clears a flag.
    FlagClear { flag: Flag, target: FlagTarget },
    /// Hides a health check.
    Mute { check: String, until: Option<Stamp>, sticky: bool, count: u32 },
    /// Shows it again.
    Unmute { check: String },
    /// A metadata server or gateway lives, or changes its state.
    DaemonBeacon(DaemonBeacon),
    /// It is gone.
    DaemonRemove { daemon: DaemonId },
    /// A monitor as clients find it.
    MonSet { mon: MonId, entry: MonEntry },
    /// A monitor is no more.
    MonRemove { mon: MonId },
    /// Raises pgp_num of pools whose pgs were split.
    PgpStep { pool: String, to: u32 },
    /// Takes the next snapshot number of a pool.
    SnapMake { pool: String, snap: SnapId },
    /// Snapshots nobody will read any more.
    SnapDrop { pool: String, snaps: Vec<SnapId> },
    /// What time alone changes.
    Tick,
}

/// Applies the rule of a command.
pub fn execute(map: &ClusterMap, command: &Command, asker: &Asker) -> Result<Outcome, RuleError> {
    let now = asker.now;
    match command {
        Command::PoolCreate(create) => pool::create(map, create, now),
        Command::PoolSet { pool, option, value } => pool_set::set_option(map, pool, option, value, now),
        Command::PoolRemove { pool, confirm } => pool::remove(map, pool, confirm, now),
        Command::PoolRename { pool, to } => pool::rename(map, pool, to, now),
        Command::PoolApplication { pool, application, enable } => {
            pool::application(map, pool, application, *enable, now)
        }
        Command::PgpStep { pool, to } => pool_set::pgp_step(map, pool, *to, now),
        Command::SnapMake { pool, snap } => snap::make(map, pool, *snap, now),
        Command::SnapDrop { pool, snaps } => snap::drop_snaps(map, pool, snaps, now),
        Command::OsdBoot(boot) => osd_boot::boot(map, boot, now),
        Command::OsdStopping { osd, incarnation } => osd_down::stopping(map, *osd, *incarnation, now),
        Command::OsdDown { osds, dead } => osd_down::down(map, osds, *dead, now),
        Command::OsdOut { osds } => osd_in::out(map, osds, now),
        Command::OsdIn { osds } => osd_in::back_in(map, osds, now),
        Command::OsdReweight { osd, millionths } => osd_in::reweight(map, *osd, *millionths, now),
        Command::OsdAffinity { osd, millionths } => osd_in::affinity(map, *osd, *millionths, now),
        Command::OsdCrushWeight { osd, millionths } => location::crush_weight(map, *osd, *millionths, now),
        Command::OsdMove { osd, location } => location::move_osd(map, *osd, location, now),
        Command::OsdClass { osd, class } => location::set_class(map, *osd, class, now),
        Command::Usage { osds, pools } => Ok(usage::note(map, osds, pools, now)),
        Command::OsdLost { osd, confirm } => osd_remove::lost(map, *osd, *confirm, now),
        Command::OsdDestroy { osd, safe, force } => osd_remove::destroy(map, *osd, *safe, *force, now),
        Command::OsdRemove { osd, safe, force } => osd_remove::remove(map, *osd, *safe, *force, now),
        Command::Upmap { pg, osds } => pg::upmap(map, *pg, osds, now),
        Command::UpmapItems { pg, items } => pg::upmap_items(map, *pg, items, now),
        Command::UpmapMany { items } => pg::upmap_many(map, items, now),
        Command::PgTemp { from, epoch, wants } => pg::pg_temp(map, *from, *epoch, wants, now),
        Command::PrimaryTemp { pg, primary } => pg::primary_temp(map, *pg, *primary, now),
        Command::UpThru { osd, incarnation, epoch } => pg::up_thru(map, *osd, *incarnation, *epoch, now),
        Command::Fence { sessions, until, why } => fence::fence(map, sessions, *until, why, asker),
        Command::Unfence { session } => fence::unfence(map, *session, now),
        Command::Revoke { serial, until, why } => fence::revoke(map, serial, *until, why, now),
        Command::SettingSet { scope, name, value } => setting::set_value(map, scope, name, value, asker),
        Command::SettingRemove { scope, name } => setting::remove(map, scope, name, now),
        Command::FlagSet { flag, target, until, why } => flag::set_flag(map, *flag, target, *until, why, asker),
        Command::FlagClear { flag, target } => flag::clear(map, *flag, target, now),
        Command::Mute { check, until, sticky, count } => flag::mute(map, check, *until, *sticky, *count, asker),
        Command::Unmute { check } => flag::unmute(map, check, now),
        Command::DaemonBeacon(beacon) => daemon::beacon(map, beacon, now),
        Command::DaemonRemove { daemon } => daemon::remove(map, daemon, now),
        Command::MonSet { mon, entry } => daemon::mon_set(map, *mon, entry, now),
        Command::MonRemove { mon } => daemon::mon_remove(map, *mon, now),
        Command::Tick => tick::tick(map, now),
    }
}
