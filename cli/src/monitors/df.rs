//! `nacre osd df`: how full each OSD is, in the tree it stands in.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use nacre_maps::map::OsdFlags;
use nacre_maps::placement::PgMapping;
use nacre_proto::ids::OsdId;
use serde_json::json;

use super::Asking;
use super::seen::Seen;
use super::tree::{Line, lines};
use crate::output::{Align, Bytes, Out, Table, Tone, bar, share};
use crate::run::{Run, Verdict};

/// Draw how full each OSD is, in its tree: with pgs, weights, and how far it is from the average.
#[derive(Args)]
#[command(after_long_help = "\
DEV is by how many percentage points an OSD is fuller than the average of those that are in.

--json: {nodes: [{id, name, kind, depth, class, weight, reweight, up, in, destroyed, total_bytes, used_bytes,
used_percent, deviation, pgs, primaries}], total_bytes, used_bytes, used_percent, deviation: {least, most, standard}};
class, reweight, up, in, destroyed, deviation and primaries only for OSDs; bytes are null where nothing was reported.")]
pub(super) struct Df {
    #[command(flatten)]
    asking: Asking,
}

/// What there is to know of an OSD, or summed up of a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Fill {
    used: u64,
    total: u64,
    pgs: u32,
    primaries: u32,
    heard: bool,
}

impl Fill {
    fn percent(&self) -> f64 {
        share(self.used, self.total) * 100.0
    }

    fn add(&mut self, other: &Fill) {
        self.used = self.used.saturating_add(other.used);
        self.total = self.total.saturating_add(other.total);
        self.pgs += other.pgs;
        self.primaries += other.primaries;
        self.heard |= other.heard;
    }
}

fn fills(seen: &Seen) -> BTreeMap<OsdId, Fill> {
    let mut fills: BTreeMap<OsdId, Fill> = BTreeMap::new();
    for (osd, heard) in &seen.heard {
        let fill = Fill { used: heard.used_bytes, total: heard.total_bytes, heard: true, ..Fill::default() };
        fills.insert(*osd, fill);
    }
    let mut at = PgMapping::default();
    for pg in seen.placement.pgs() {
        if !seen.placement.pg_into(pg, &mut at) {
            continue;
        }
        for osd in at.acting.iter().filter(|osd| osd.is_some()) {
            fills.entry(*osd).or_default().pgs += 1;
        }
        if let Some(primary) = at.acting_primary {
            fills.entry(primary).or_default().primaries += 1;
        }
    }
    fills
}

/// The average fullness of OSDs that are in, by bytes; least and most deviation from it, and the standard one.
struct Spread {
    mean: f64,
    least: f64,
    most: f64,
    standard: f64,
}

fn spread(fills: &[Fill]) -> Spread {
    let mut all = Fill::default();
    fills.iter().for_each(|fill| all.add(fill));
    let mean = all.percent();
    let away = |fill: &Fill| fill.percent() - mean;
    let square = fills.iter().map(|fill| away(fill).powi(2)).sum::<f64>() / fills.len().max(1) as f64;
    let least = fills.iter().map(away).fold(0.0, f64::min);
    Spread { mean, least, most: fills.iter().map(away).fold(0.0, f64::max), standard: square.sqrt() }
}

/// The fill of each line: an OSD's own, a bucket's the sum of what is below it.
fn by_line(lines: &[Line], fills: &BTreeMap<OsdId, Fill>) -> Vec<Fill> {
    let own = |line: &Line| line.osd.and_then(|osd| fills.get(&osd)).copied().unwrap_or_default();
    let mut sums: Vec<Fill> = lines.iter().map(own).collect();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.osd.is_none()) {
        let below = lines.iter().skip(at + 1).take_while(|other| other.depth > line.depth);
        let mut sum = Fill::default();
        below.for_each(|line| sum.add(&own(line)));
        if let Some(place) = sums.get_mut(at) {
            *place = sum;
        }
    }
    sums
}

impl Run for Df {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let seen = self.asking.seen()?;
        let map = seen.map();
        let fills = fills(&seen);
        let within: Vec<Fill> =
            fills.iter().filter(|(osd, fill)| map.is_in(**osd) && fill.heard).map(|(_, fill)| *fill).collect();
        let spread = spread(&within);
        let mut all = Fill::default();
        fills.values().for_each(|fill| all.add(fill));
        let lines = lines(map);
        let sums = by_line(&lines, &fills);
        if self.asking.json.json {
            let nodes: Vec<_> = lines.iter().zip(&sums).map(|(line, fill)| node(&seen, line, fill, &spread)).collect();
            out.json(&json!({
                "nodes": nodes, "total_bytes": all.total, "used_bytes": all.used, "used_percent": all.percent(),
                "deviation": { "least": spread.least, "most": spread.most, "standard": spread.standard },
            }))?;
            return Ok(Verdict::Good);
        }
        if lines.is_empty() {
            writeln!(out, "no OSD has joined the cluster yet")?;
            return Ok(Verdict::Good);
        }
        let mut table = Table::new(&[
            ("NAME", Align::Left),
            ("CLASS", Align::Left),
            ("WEIGHT", Align::Right),
            ("REWEIGHT", Align::Right),
            ("SIZE", Align::Right),
            ("USED", Align::Right),
            ("FULL", Align::Right),
            ("", Align::Left),
            ("DEV", Align::Right),
            ("PGS", Align::Right),
            ("STATE", Align::Left),
        ]);
        for (line, fill) in lines.iter().zip(&sums) {
            table.row_toned(row(&seen, line, fill, &spread));
        }
        table.print(out)?;
        writeln!(
            out,
            "\n{} of {} used ({:.1} %); OSDs deviate by {:+.1} to {:+.1} points, {:.1} on average",
            Bytes(all.used),
            Bytes(all.total),
            all.percent(),
            spread.least,
            spread.most,
            spread.standard
        )?;
        Ok(Verdict::Good)
    }
}

fn class(seen: &Seen, line: &Line) -> Option<String> {
    let crush = &seen.map().crush;
    crush.classes.get(&crush.devices.get(&line.id)?.class?).cloned()
}

fn node(seen: &Seen, line: &Line, fill: &Fill, spread: &Spread) -> serde_json::Value {
    let map = seen.map();
    let state = line.osd.and_then(|osd| map.osds.get(osd));
    json!({
        "id": line.id, "name": line.name, "kind": line.kind, "depth": line.depth, "class": class(seen, line),
        "weight": line.weight, "reweight": state.map(|state| state.weight.as_f64()),
        "up": line.osd.map(|osd| map.is_up(osd)), "in": line.osd.map(|osd| map.is_in(osd)),
        "destroyed": state.map(|state| state.flags.contains(OsdFlags::DESTROYED)),
        "total_bytes": fill.heard.then_some(fill.total), "used_bytes": fill.heard.then_some(fill.used),
        "used_percent": fill.heard.then(|| fill.percent()),
        "deviation": line.osd.filter(|_| fill.heard).map(|_| fill.percent() - spread.mean),
        "pgs": fill.pgs, "primaries": line.osd.map(|_| fill.primaries),
    })
}

fn row(seen: &Seen, line: &Line, fill: &Fill, spread: &Spread) -> Vec<(Tone, String)> {
    let map = seen.map();
    let state = line.osd.and_then(|osd| map.osds.get(osd));
    let flagged = |flag| state.is_some_and(|state| state.flags.contains(flag));
    let tone = match () {
        () if flagged(OsdFlags::FULL) => Tone::Bad,
        () if flagged(OsdFlags::NEAR_FULL) || flagged(OsdFlags::BACKFILL_FULL) => Tone::Warn,
        () => Tone::Plain,
    };
    let mut words = Vec::new();
    if let Some(osd) = line.osd {
        words.push(if map.is_up(osd) { "up" } else { "down" });
        words.push(if map.is_in(osd) { "in" } else { "out" });
    }
    let more = [
        (OsdFlags::DESTROYED, "destroyed"),
        (OsdFlags::FULL, "full"),
        (OsdFlags::BACKFILL_FULL, "backfillfull"),
        (OsdFlags::NEAR_FULL, "nearfull"),
    ];
    words.extend(more.iter().filter(|(flag, _)| flagged(*flag)).map(|(_, word)| *word));
    let well = line.osd.is_none_or(|osd| map.is_up(osd) && map.is_in(osd));
    let known = |text: String| if fill.heard { text } else { "?".to_owned() };
    let only_osd = |text: String| if line.osd.is_some() { text } else { String::new() };
    vec![
        (Tone::Plain, line.label()),
        (Tone::Plain, class(seen, line).unwrap_or_default()),
        (Tone::Plain, format!("{:.4}", line.weight)),
        (Tone::Plain, only_osd(state.map_or("?".into(), |state| format!("{:.4}", state.weight.as_f64())))),
        (Tone::Plain, known(Bytes(fill.total).to_string())),
        (Tone::Plain, known(Bytes(fill.used).to_string())),
        (tone, known(format!("{:.1} %", fill.percent()))),
        (tone, if fill.heard { format!("[{}]", bar(fill.percent() / 100.0, 20)) } else { String::new() }),
        (Tone::Plain, only_osd(known(format!("{:+.1}", fill.percent() - spread.mean)))),
        (Tone::Plain, fill.pgs.to_string()),
        (if well { Tone::Good } else { Tone::Bad }, words.join(" ")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_from_the_average_by_bytes() {
        let fill = |used, total| Fill { used, total, heard: true, ..Fill::default() };
        // Half of one and a tenth of one three times as large: 8 of 40.
        let spread = spread(&[fill(5, 10), fill(3, 30)]);
        assert!((spread.mean - 20.0).abs() < 1e-9);
        assert!((spread.most - 30.0).abs() < 1e-9 && (spread.least + 10.0).abs() < 1e-9);
        assert!((spread.standard - 500f64.sqrt()).abs() < 1e-9);
    }

    #[test]
    fn a_bucket_sums_up_what_is_below_it() {
        let line = |depth, osd: Option<u32>| Line {
            id: 0,
            name: String::new(),
            kind: String::new(),
            depth,
            weight: 1.0,
            osd: osd.map(OsdId),
        };
        let lines = [line(0, None), line(1, None), line(2, Some(0)), line(2, Some(1)), line(1, None), line(2, Some(2))];
        let fills = (0..3).map(|n| (OsdId(n), Fill { used: 1 << n, pgs: 1, ..Fill::default() })).collect();
        let used: Vec<u64> = by_line(&lines, &fills).iter().map(|fill| fill.used).collect();
        assert_eq!(used, [7, 3, 1, 2, 4, 4]);
    }
}
