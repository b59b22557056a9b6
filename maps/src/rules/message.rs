//! Commands and reports as they cross the wire, and what the rules make of them. Bytes from outside end here: whatever
//! cannot be is refused with what was expected.

use std::net::SocketAddr;
use std::str::FromStr;

use nacre_proto::ids::{Epoch, Incarnation, MonId, OsdId, PgId, PoolId, SessionId, SnapId, Stamp, Uuid};
use nacre_proto::v1;
use nacre_proto::v1::map_command::Verb;

use super::daemon::DaemonBeacon;
use super::osd_boot::Boot;
use super::osd_down::FailureReport;
use super::pool::PoolCreate;
use super::usage::{OsdUsage, PoolUsage};
use super::{Command, Outcome, RuleError, wrong};
use crate::health::{Health, OsdReport, PgReport, PgState};
use crate::map::{ErasureProfile, Mon, OsdInfo};
use crate::plan::moved::Moved;

/// The most entries one message may name.
pub const MAX_ENTRIES: usize = 100_000;

fn osds(numbers: &[u32]) -> Result<Vec<OsdId>, RuleError> {
    bounded(numbers.len())?;
    Ok(numbers.iter().map(|number| OsdId(*number)).collect())
}

fn bounded(count: usize) -> Result<(), RuleError> {
    if count > MAX_ENTRIES {
        return Err(wrong("message", format!("of {count} entries"), format!("at most {MAX_ENTRIES}; send several")));
    }
    Ok(())
}

fn addrs(texts: &[String]) -> Result<Vec<SocketAddr>, RuleError> {
    bounded(texts.len())?;
    let parse = |text: &String| {
        SocketAddr::from_str(text).map_err(|_| {
            wrong("address", format!("`{text}`"), "address and port, as in `10.0.0.1:6800` or `[fd00::1]:6800`")
        })
    };
    texts.iter().map(parse).collect()
}

fn places(places: Vec<v1::Place>) -> Vec<(String, String)> {
    places.into_iter().map(|place| (place.kind, place.name)).collect()
}

fn small(what: &'static str, number: u32) -> Result<u8, RuleError> {
    u8::try_from(number).map_err(|_| wrong(what, number, "at most 255"))
}

/// Reads an OSD's boot message.
pub fn boot(boot: v1::OsdBoot) -> Result<Boot, RuleError> {
    let uuid: [u8; 16] = boot
        .uuid
        .as_ref()
        .try_into()
        .map_err(|_| wrong("uuid", format!("of {} bytes", boot.uuid.len()), "16 bytes"))?;
    Ok(Boot {
        osd: OsdId(boot.osd),
        incarnation: Incarnation(boot.incarnation),
        epoch: Epoch(boot.epoch),
        info: OsdInfo {
            uuid: Uuid(uuid),
            public: addrs(&boot.public)?,
            cluster: addrs(&boot.cluster)?,
            heartbeat: addrs(&boot.heartbeat)?,
            host: boot.host,
            local_socket: boot.local_socket,
            version: boot.version,
            capacity_bytes: boot.capacity_bytes,
        },
        location: places(boot.location),
        weight: boot.weight_millionths,
        class: boot.class,
    })
}

/// Reads an OSD's report on itself and on pgs.
pub fn beacon(beacon: v1::OsdBeacon) -> Result<(OsdReport, Vec<(PgId, PgReport)>), RuleError> {
    bounded(beacon.pgs.len())?;
    let report = OsdReport {
        used: beacon.used_bytes,
        total: beacon.total_bytes,
        slow_ops: beacon.slow_ops,
        slow_why: beacon.slow_why,
        disk_errors: beacon.disk_errors,
    };
    Ok((report, beacon.pgs.into_iter().map(pg_report).collect::<Result<_, _>>()?))
}

/// Reads what is said of a pg.
pub fn pg_report(pg: v1::PgReport) -> Result<(PgId, PgReport), RuleError> {
    let report = PgReport {
        state: PgState::from_bits_truncate(pg.state),
        epoch: Epoch(pg.epoch),
        at: Stamp(0),
        objects: pg.objects,
        bytes: pg.bytes,
        degraded: pg.degraded,
        misplaced: pg.misplaced,
        unfound: pg.unfound,
        scrubbed: Stamp(pg.scrubbed_ms),
        deep_scrubbed: Stamp(pg.deep_scrubbed_ms),
        why: pg.why,
    };
    Ok((pg.pg.parse()?, report))
}

impl PgReport {
    /// As it crosses the wire.
    pub fn message(&self, pg: PgId) -> v1::PgReport {
        v1::PgReport {
            pg: pg.to_string(),
            state: self.state.bits(),
            epoch: self.epoch.0,
            objects: self.objects,
            bytes: self.bytes,
            degraded: self.degraded,
            misplaced: self.misplaced,
            unfound: self.unfound,
            scrubbed_ms: self.scrubbed.0,
            deep_scrubbed_ms: self.deep_scrubbed.0,
            why: self.why.clone(),
        }
    }
}

/// Reads failure reports as of `now`; those who answer again are in the second list.
pub fn failures(reports: &v1::FailureReports, now: Stamp) -> (Vec<FailureReport>, Vec<OsdId>) {
    let reporter = OsdId(reports.reporter);
    let (alive, silent): (Vec<_>, Vec<_>) = reports.reports.iter().take(MAX_ENTRIES).partition(|report| report.alive);
    let read = |report: &v1::FailureReport| FailureReport {
        target: OsdId(report.target),
        incarnation: Incarnation(report.incarnation),
        reporter,
        silent_since: Stamp(now.0.saturating_sub(report.silent_ms)),
        refused: report.refused,
    };
    (silent.into_iter().map(read).collect(), alive.into_iter().map(|report| OsdId(report.target)).collect())
}

fn pool_create(create: v1::PoolCreate) -> Result<PoolCreate, RuleError> {
    let erasure = match create.erasure {
        None => None,
        Some(profile) => Some(ErasureProfile {
            data: small("data shards", profile.data)?,
            parity: small("parity shards", profile.parity)?,
            stripe_unit: profile.stripe_unit,
        }),
    };
    Ok(PoolCreate {
        name: create.name,
        erasure,
        size: create.size,
        min_size: create.min_size,
        pg_num: create.pg_num,
        pg_auto: create.pg_auto.map(|word| word.parse()).transpose()?,
        rule: create.rule,
        failure_domain: create.failure_domain,
        device_class: create.device_class,
        root: create.root,
        application: create.application,
        bulk: create.bulk,
    })
}

fn upmap_items(items: v1::UpmapItems) -> Result<Command, RuleError> {
    bounded(items.pgs.len())?;
    let pairs = |pairs: Vec<v1::Pair>| pairs.into_iter().map(|pair| (OsdId(pair.from), OsdId(pair.to))).collect();
    let read = |pg: v1::PgPairs| -> Result<_, RuleError> { Ok((pg.pg.parse()?, pairs(pg.pairs))) };
    Ok(Command::UpmapMany { items: items.pgs.into_iter().map(read).collect::<Result<_, _>>()? })
}

fn pg_temp(temp: v1::PgTemp) -> Result<Command, RuleError> {
    bounded(temp.wants.len())?;
    let read = |want: v1::PgSet| -> Result<_, RuleError> { Ok((want.pg.parse()?, osds(&want.osds)?)) };
    let wants = temp.wants.into_iter().map(read).collect::<Result<_, _>>()?;
    Ok(Command::PgTemp { from: OsdId(temp.from), epoch: Epoch(temp.epoch), wants })
}

fn daemon_beacon(beacon: v1::DaemonBeacon) -> Result<Command, RuleError> {
    bounded(beacon.notes.len())?;
    Ok(Command::DaemonBeacon(DaemonBeacon {
        daemon: beacon.daemon.parse()?,
        incarnation: Incarnation(beacon.incarnation),
        addrs: addrs(&beacon.addrs)?,
        host: beacon.host,
        state: beacon.state.parse()?,
        rank: beacon.rank,
        version: beacon.version,
        notes: beacon.notes,
    }))
}

impl TryFrom<v1::MapCommand> for Command {
    type Error = RuleError;

    fn try_from(message: v1::MapCommand) -> Result<Self, RuleError> {
        let verb = message
            .verb
            .ok_or_else(|| wrong("command", "", "a verb this version knows; upgrade the monitors first"))?;
        Ok(match verb {
            Verb::PoolCreate(create) => Command::PoolCreate(pool_create(create)?),
            Verb::PoolSet(set) => Command::PoolSet { pool: set.pool, option: set.option, value: set.value },
            Verb::PoolRemove(remove) => Command::PoolRemove { pool: remove.pool, confirm: remove.confirm },
            Verb::PoolRename(rename) => Command::PoolRename { pool: rename.pool, to: rename.to },
            Verb::PoolApplication(application) => Command::PoolApplication {
                pool: application.pool,
                application: application.application,
                enable: application.enable,
            },
            Verb::PgpStep(step) => Command::PgpStep { pool: step.pool, to: step.to },
            Verb::SnapMake(make) => Command::SnapMake { pool: make.pool, snap: SnapId(make.snap) },
            Verb::SnapDrop(drop) => {
                bounded(drop.snaps.len())?;
                Command::SnapDrop { pool: drop.pool, snaps: drop.snaps.into_iter().map(SnapId).collect() }
            }
            Verb::OsdBoot(message) => Command::OsdBoot(boot(message)?),
            Verb::OsdStopping(stop) => Command::OsdStopping { osd: OsdId(stop.osd), incarnation: stop.incarnation },
            Verb::OsdDown(down) => Command::OsdDown { osds: osds(&down.osds)?, dead: down.dead },
            Verb::OsdOut(out) => Command::OsdOut { osds: osds(&out.osds)? },
            Verb::OsdIn(back) => Command::OsdIn { osds: osds(&back.osds)? },
            Verb::OsdReweight(weight) => Command::OsdReweight { osd: OsdId(weight.osd), millionths: weight.millionths },
            Verb::OsdAffinity(weight) => Command::OsdAffinity { osd: OsdId(weight.osd), millionths: weight.millionths },
            Verb::OsdCrushWeight(weight) => {
                Command::OsdCrushWeight { osd: OsdId(weight.osd), millionths: weight.millionths }
            }
            Verb::OsdMove(to) => Command::OsdMove { osd: OsdId(to.osd), location: places(to.location) },
            Verb::OsdClass(class) => Command::OsdClass { osd: OsdId(class.osd), class: class.class },
            Verb::Usage(usage) => {
                bounded(usage.osds.len() + usage.pools.len())?;
                let osd = |u: v1::OsdUsage| OsdUsage { osd: OsdId(u.osd), used: u.used_bytes, total: u.total_bytes };
                let pool = |u: v1::PoolUsage| PoolUsage { pool: PoolId(u.pool), bytes: u.bytes, objects: u.objects };
                Command::Usage {
                    osds: usage.osds.into_iter().map(osd).collect(),
                    pools: usage.pools.into_iter().map(pool).collect(),
                }
            }
            Verb::OsdLost(lost) => Command::OsdLost { osd: OsdId(lost.osd), confirm: lost.confirm },
            Verb::OsdDestroy(destroy) => {
                Command::OsdDestroy { osd: OsdId(destroy.osd), safe: destroy.safe, force: destroy.force }
            }
            Verb::OsdRemove(remove) => {
                Command::OsdRemove { osd: OsdId(remove.osd), safe: remove.safe, force: remove.force }
            }
            Verb::Upmap(upmap) => Command::Upmap { pg: upmap.pg.parse()?, osds: osds(&upmap.osds)? },
            Verb::UpmapItems(items) => upmap_items(items)?,
            Verb::PgTemp(temp) => pg_temp(temp)?,
            Verb::PrimaryTemp(temp) => Command::PrimaryTemp { pg: temp.pg.parse()?, primary: temp.primary.map(OsdId) },
            Verb::UpThru(alive) => {
                Command::UpThru { osd: OsdId(alive.osd), incarnation: alive.incarnation, epoch: Epoch(alive.epoch) }
            }
            Verb::Fence(fence) => {
                bounded(fence.sessions.len())?;
                let sessions = fence.sessions.into_iter().map(SessionId).collect();
                Command::Fence { sessions, until: fence.until_ms.map(Stamp), why: fence.why }
            }
            Verb::Unfence(unfence) => Command::Unfence { session: SessionId(unfence.session) },
            Verb::Revoke(revoke) => {
                Command::Revoke { serial: revoke.serial.to_vec(), until: Stamp(revoke.until_ms), why: revoke.why }
            }
            Verb::SettingSet(set) => {
                Command::SettingSet { scope: set.scope.parse()?, name: set.name, value: set.value }
            }
            Verb::SettingRemove(remove) => Command::SettingRemove { scope: remove.scope.parse()?, name: remove.name },
            Verb::FlagSet(set) => Command::FlagSet {
                flag: set.flag.parse()?,
                target: set.target.parse()?,
                until: set.until_ms.map(Stamp),
                why: set.why,
            },
            Verb::FlagClear(clear) => Command::FlagClear { flag: clear.flag.parse()?, target: clear.target.parse()? },
            Verb::Mute(mute) => Command::Mute {
                check: mute.check,
                until: mute.until_ms.map(Stamp),
                sticky: mute.sticky,
                count: mute.count,
            },
            Verb::Unmute(unmute) => Command::Unmute { check: unmute.check },
            Verb::DaemonBeacon(beacon) => daemon_beacon(beacon)?,
            Verb::DaemonRemove(remove) => Command::DaemonRemove { daemon: remove.daemon.parse()? },
            Verb::MonSet(set) => {
                let entry = Mon {
                    name: set.name,
                    addrs: addrs(&set.addrs)?,
                    host: set.host,
                    learner: set.learner,
                    version: set.version,
                };
                Command::MonSet { mon: MonId(set.mon), entry }
            }
            Verb::MonRemove(remove) => Command::MonRemove { mon: MonId(remove.mon) },
            Verb::Tick(_) => Command::Tick,
        })
    }
}

impl Health {
    /// As it crosses the wire.
    pub fn message(&self) -> v1::Health {
        let check = |check: &crate::health::Check| v1::HealthCheck {
            name: check.name.to_owned(),
            severity: check.severity.word().to_owned(),
            count: check.count,
            cause: check.cause.clone(),
            effect: check.effect.to_owned(),
            todo: check.todo.clone(),
            details: check.details.clone(),
            muted: check.muted,
        };
        v1::Health { status: self.status.word().to_owned(), checks: self.checks.iter().map(check).collect() }
    }
}

impl Outcome {
    /// As it crosses the wire; `moved` is what a dry run found.
    pub fn message(&self, epoch: Epoch, moved: Option<&Moved>) -> v1::Outcome {
        let moved = moved.map(|moved| v1::Moved {
            pgs: moved.pgs,
            copies: moved.copies,
            of: moved.of,
            bytes: moved.bytes,
            millionths: moved.millionths(),
        });
        v1::Outcome { text: self.text.clone(), notes: self.notes.clone(), epoch: epoch.0, moved }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Asker, execute};
    use crate::sample::{NOW, cluster};

    fn read(verb: Verb) -> Result<Command, RuleError> {
        Command::try_from(v1::MapCommand { verb: Some(verb) })
    }

    #[test]
    fn messages_become_the_commands_they_name() {
        let out = v1::OsdOut { osds: vec![1, 2] };
        assert_eq!(read(Verb::OsdOut(out)).unwrap(), Command::OsdOut { osds: vec![OsdId(1), OsdId(2)] });
        let flag = v1::FlagSet {
            flag: "noout".into(),
            target: "bucket:host1".into(),
            until_ms: Some(NOW.0 + 5),
            why: "w".into(),
        };
        let command = read(Verb::FlagSet(flag)).unwrap();
        let map = cluster(4, 2, 1, 8);
        assert_eq!(execute(&map, &command, &Asker { now: NOW, who: "o".into() }).unwrap().increments.len(), 1);
        let boot =
            v1::OsdBoot { osd: 3, uuid: vec![7; 16].into(), public: vec!["[::1]:1".into()], ..v1::OsdBoot::default() };
        match read(Verb::OsdBoot(boot)).unwrap() {
            Command::OsdBoot(boot) => {
                assert_eq!((boot.osd, boot.info.uuid, boot.info.public.len()), (OsdId(3), Uuid([7; 16]), 1))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_was_expected() {
        let refusals = [
            (Verb::FlagClear(v1::FlagClear { flag: "nofun".into(), target: "cluster".into() }), "`noout`"),
            (Verb::SettingRemove(v1::SettingRemove { scope: "osd.".into(), name: "x".into() }), "as in `osd.7`"),
            (Verb::Upmap(v1::Upmap { pg: "1".into(), osds: vec![] }), "as in `2.1f`"),
            (Verb::OsdBoot(v1::OsdBoot::default()), "16 bytes"),
            (
                Verb::Fence(v1::Fence { sessions: vec![0; MAX_ENTRIES + 1], until_ms: None, why: String::new() }),
                "at most",
            ),
            (Verb::MonSet(v1::MonSet { addrs: vec!["here".into()], ..v1::MonSet::default() }), "10.0.0.1:6800"),
        ];
        for (verb, words) in refusals {
            let refused = read(verb).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
        assert!(Command::try_from(v1::MapCommand { verb: None }).unwrap_err().to_string().contains("upgrade"));
    }

    #[test]
    fn silence_is_counted_from_the_receiver_s_clock() {
        let report = v1::FailureReport { target: 1, silent_ms: 700, ..v1::FailureReport::default() };
        let alive = v1::FailureReport { target: 2, alive: true, ..v1::FailureReport::default() };
        let (silent, alive) = failures(&v1::FailureReports { reporter: 5, reports: vec![report, alive] }, NOW);
        assert_eq!((silent[0].silent_since, silent[0].reporter, alive), (Stamp(NOW.0 - 700), OsdId(5), vec![OsdId(2)]));
    }
}
