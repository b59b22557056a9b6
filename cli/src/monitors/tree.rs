//! The crush tree as lines, with its OSDs: what `nacre osd tree` and `nacre osd df` draw.

use std::collections::BTreeSet;

use nacre_crush::model::ItemId;
use nacre_maps::ClusterMap;
use nacre_proto::ids::OsdId;

/// A bucket or an OSD.
pub(super) struct Line {
    pub(super) id: ItemId,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) depth: usize,
    /// Its crush weight.
    pub(super) weight: f64,
    /// Which OSD it is, if it is one.
    pub(super) osd: Option<OsdId>,
}

impl Line {
    /// Indented, with its kind.
    pub(super) fn label(&self) -> String {
        match self.osd {
            Some(osd) => format!("{}{osd}", "  ".repeat(self.depth)),
            None => format!("{}{} {}", "  ".repeat(self.depth), self.kind, self.name),
        }
    }
}

fn walk(map: &ClusterMap, id: ItemId, weight: f64, depth: usize, lines: &mut Vec<Line>) {
    // A tree deeper than its types cannot be; one that was damaged must not hang us.
    if depth > 32 {
        return;
    }
    if let Some(bucket) = map.crush.buckets.get(&id) {
        let kind = map.crush.type_name(bucket.kind).into_owned();
        lines.push(Line { id, name: bucket.name.clone(), kind, depth, weight: bucket.weight.as_f64(), osd: None });
        for (item, weight) in bucket.items.iter().zip(&bucket.weights) {
            walk(map, *item, weight.as_f64(), depth + 1, lines);
        }
    } else if let Ok(osd) = u32::try_from(id) {
        let osd = OsdId(osd);
        lines.push(Line { id, name: osd.to_string(), kind: "osd".into(), depth, weight, osd: Some(osd) });
    }
}

/// All of the tree, top down, then the OSDs that stand nowhere in it.
pub(super) fn lines(map: &ClusterMap) -> Vec<Line> {
    let shadows = map.crush.shadow_ids();
    let below: BTreeSet<ItemId> = map.crush.buckets.values().flat_map(|bucket| bucket.items.iter().copied()).collect();
    let mut lines = Vec::new();
    for id in map.crush.buckets.keys().rev().filter(|id| !below.contains(id) && !shadows.contains(id)) {
        walk(map, *id, 0.0, 0, &mut lines);
    }
    for (osd, _) in map.osds.iter() {
        if let Ok(id) = i32::try_from(osd.0)
            && !below.contains(&id)
        {
            walk(map, id, 0.0, 0, &mut lines);
        }
    }
    lines
}
