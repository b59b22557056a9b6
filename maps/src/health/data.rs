//! Checks of data: pgs and pools.

use std::collections::BTreeMap;

use nacre_proto::ids::{PgId, PoolId};

use super::{Findings, PgReport, PgState, Severity};
use crate::map::{PgAuto, PoolFlags, PoolKind};
use crate::plan::pg_count;
use crate::rules::pool_places;
use crate::settings::MonSettings;

pub(super) fn check(find: &mut Findings<'_>) {
    pgs(find);
    scrubs(find);
    pools(find);
    quotas(find);
}

fn line(pg: &PgId, report: &PgReport, what: &str) -> String {
    match report.why.is_empty() {
        true => format!("pg {pg} {what}"),
        false => format!("pg {pg} {what}: {}", report.why),
    }
}

fn pgs(find: &mut Findings<'_>) {
    let (map, reports) = (find.map, find.reports);
    let existing = |pg: &PgId| map.pool_of(*pg).is_some();
    let known: Vec<(&PgId, &PgReport)> = reports.pgs.iter().filter(|(pg, _)| existing(pg)).collect();
    let having = |state: PgState| known.iter().filter(move |(_, report)| report.state.intersects(state));
    let mut unknown = Vec::new();
    for (id, pool) in map.pools.iter() {
        let silent = (0..pool.pg_num).map(|seed| PgId { pool: *id, seed }).filter(|pg| !reports.pgs.contains_key(pg));
        unknown.extend(silent.map(|pg| format!("pg {pg} of pool {}", pool.name)));
    }
    find.raise(
        "pg_unknown",
        Severity::Warning,
        unknown,
        |count| format!("nobody reports of {count} pgs"),
        "whether they serve is not known; if their OSDs are all down, they do not",
        "bring up the OSDs they lie on: `nacre pg ls` names them",
    );
    let idle = known.iter().filter(|(_, report)| !report.state.contains(PgState::ACTIVE));
    let details = idle
        .map(|(pg, report)| {
            line(pg, report, if report.state.contains(PgState::DOWN) { "is down" } else { "does not serve" })
        })
        .collect();
    find.raise(
        "pg_inactive",
        Severity::Error,
        details,
        |count| format!("{count} pgs do not serve"),
        "operations on their objects wait",
        "each line says what it waits for; `nacre pg query PG` says more",
    );
    let details = known
        .iter()
        .filter(|(_, r)| r.unfound > 0)
        .map(|(pg, r)| line(pg, r, &format!("misses {} objects", r.unfound)))
        .collect();
    find.raise(
        "pg_unfound",
        Severity::Error,
        details,
        |count| format!("in {count} pgs there are objects of which no copy is known"),
        "operations on these objects wait",
        "bring up OSDs that are down; if their disks are gone for good, `nacre osd lost N`",
    );
    let details = having(PgState::INCONSISTENT).map(|(pg, r)| line(pg, r, "has copies that differ")).collect();
    find.raise(
        "pg_inconsistent",
        Severity::Error,
        details,
        |count| format!("in {count} pgs copies differ and no checksum tells which is right"),
        "reads may give what was not written last",
        "`nacre pg scrub PG --deep`, then `nacre pg repair PG`",
    );
    let details = having(PgState::DEGRADED | PgState::UNDERSIZED)
        .map(|(pg, r)| line(pg, r, &format!("misses {} copies", r.degraded)))
        .collect();
    let (missing, all) = known.iter().fold((0u64, 0u64), |(missing, all), (pg, report)| {
        let copies = map.pool_of(**pg).map_or(0, |pool| u64::from(pool.size));
        (missing.saturating_add(report.degraded), all.saturating_add(report.objects.saturating_mul(copies)))
    });
    find.raise(
        "pg_degraded",
        Severity::Warning,
        details,
        |count| format!("{count} pgs have fewer copies than they should ({missing} of {all} copies are missing)"),
        "further failures may stop or lose data",
        "recovery runs by itself when OSDs are up; the lines say what it waits for",
    );
    let details = having(PgState::TOO_FULL).map(|(pg, r)| line(pg, r, "finds no room")).collect();
    find.raise(
        "pg_too_full",
        Severity::Error,
        details,
        |count| format!("{count} pgs cannot recover because devices are too full"),
        "they keep fewer copies",
        "add OSDs or remove data",
    );
}

fn scrubs(find: &mut Findings<'_>) {
    let (map, now) = (find.map, find.now);
    // Twice the interval: scrubs wait for quiet hours.
    let late = MonSettings(map).span("osd.scrub.deep_interval") * 2;
    let old = find.reports.pgs.iter().filter(|(pg, report)| {
        let allowed = map.pool_of(**pg).is_some_and(|pool| !pool.flags.contains(PoolFlags::NO_DEEP_SCRUB));
        let last = report.deep_scrubbed.max(map.pools.get(&pg.pool).map(|pool| pool.created).unwrap_or_default());
        allowed && now.since(last) > late
    });
    let details = old.map(|(pg, report)| line(pg, report, "was not scrubbed in time")).collect();
    find.raise(
        "pg_not_scrubbed",
        Severity::Warning,
        details,
        |count| format!("the bytes of {count} pgs have not been compared in time"),
        "silent damage may go unnoticed",
        "raise `osd.scrub.max`, or lower the load; `nacre pg scrub PG --deep` scrubs one now",
    );
}

fn pools(find: &mut Findings<'_>) {
    let map = find.map;
    let plain = map.pools.values().filter(|pool| pool.applications.is_empty());
    let details = plain.map(|pool| format!("pool {}", pool.name)).collect();
    find.raise(
        "pool_no_application",
        Severity::Warning,
        details,
        |count| format!("nobody says what uses {count} pools"),
        "two programs may use one pool and break each other's data",
        "`nacre pool application POOL NAME`, with block, fs, s3 or a name of your own",
    );
    let single = map.pools.values().filter(|pool| pool.kind == PoolKind::Replicated && pool.size == 1);
    let details = single.map(|pool| format!("pool {}", pool.name)).collect();
    find.raise(
        "pool_no_redundancy",
        Severity::Warning,
        details,
        |count| format!("{count} pools keep one copy"),
        "the loss of any disk loses data of theirs",
        "`nacre pool set POOL size 3`",
    );
    let short = map.pools.values().filter_map(|pool| {
        let places = pool_places(map, pool)?;
        (places < pool.size as usize).then(|| format!("pool {} wants {} and finds {places}", pool.name, pool.size))
    });
    let details = short.collect();
    find.raise(
        "pool_unplaceable",
        Severity::Warning,
        details,
        |count| format!("{count} pools want more copies than there are failure domains"),
        "their pgs stay short of copies",
        "add OSDs in further failure domains, or choose a smaller size or failure domain",
    );
    let advice = pg_count::advise(map, &used_by_pool(find));
    let warn =
        advice.iter().filter(|advice| map.pools.get(&advice.pool).is_some_and(|pool| pool.pg_auto == PgAuto::Warn));
    let details = warn
        .map(|advice| {
            format!("pool {}: {} pgs, {} would be right ({})", advice.name, advice.from, advice.to, advice.why)
        })
        .collect();
    find.raise(
        "pool_pg_count",
        Severity::Warning,
        details,
        |count| format!("{count} pools have far too few pgs for what they hold"),
        "data lies unevenly and recovery is slow",
        "`nacre pool set POOL pg_num N`, or `pg_auto on` to have it done",
    );
}

/// Bytes clients stored, by pool.
fn used_by_pool(find: &Findings<'_>) -> BTreeMap<PoolId, u64> {
    let mut used = BTreeMap::new();
    for (pg, report) in &find.reports.pgs {
        let sum: &mut u64 = used.entry(pg.pool).or_default();
        *sum = sum.saturating_add(report.bytes);
    }
    used
}

fn quotas(find: &mut Findings<'_>) {
    let bytes = used_by_pool(find);
    let mut objects: BTreeMap<PoolId, u64> = BTreeMap::new();
    for (pg, report) in &find.reports.pgs {
        let sum = objects.entry(pg.pool).or_default();
        *sum = sum.saturating_add(report.objects);
    }
    let mut details = Vec::new();
    let mut over = false;
    for (id, pool) in find.map.pools.iter() {
        let kinds = [("bytes", &bytes, pool.quota_bytes), ("objects", &objects, pool.quota_objects)];
        for (what, used, quota) in kinds {
            let used = used.get(id).copied().unwrap_or(0);
            if quota > 0 && u128::from(used) * 100 >= u128::from(quota) * 90 {
                over |= used >= quota;
                details.push(format!("pool {}: {used} of {quota} {what}", pool.name));
            }
        }
    }
    find.raise(
        "pool_quota",
        if over { Severity::Error } else { Severity::Warning },
        details,
        |count| format!("{count} quotas are, or are nearly, used up"),
        "a pool whose quota is used up takes removals only",
        "remove data or raise it: `nacre pool set POOL quota_bytes SIZE`",
    );
}
