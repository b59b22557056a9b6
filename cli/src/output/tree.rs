//! The lines of a drawn tree: what stands before each name. Takes depths alone, so any nesting can be drawn and none is
//! too deep.

/// The depth from which on all nodes are drawn alike; several times that of any real tree.
const DEEPEST: usize = 40;

/// The drawing before each node of a tree that is listed top down (a node, then all below it), given the depth of each.
/// A node of depth 0 is a root and has none. Below [`DEEPEST`] nothing is indented further, since the drawing would grow
/// with the square of the depth.
pub(crate) fn branches(depths: &[usize]) -> Vec<String> {
    let mut lines = Vec::with_capacity(depths.len());
    // From the end: whether at a depth another node follows before the parent's end.
    let mut follows: Vec<bool> = Vec::new();
    for &depth in depths.iter().rev() {
        let depth = depth.min(DEEPEST);
        follows.resize(depth + 1, false);
        let mut line = String::new();
        for (level, more) in follows.iter().enumerate().skip(1) {
            line.push_str(match (level == depth, more) {
                (true, true) => "├─ ",
                (true, false) => "└─ ",
                (false, true) => "│  ",
                (false, false) => "   ",
            });
        }
        if let Some(own) = follows.last_mut() {
            *own = true;
        }
        lines.push(line);
    }
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::branches;

    #[test]
    fn branches_end_where_nothing_follows() {
        let drawn = branches(&[0, 1, 2, 2, 1, 2, 0, 1]);
        assert_eq!(drawn, ["", "├─ ", "│  ├─ ", "│  └─ ", "└─ ", "   └─ ", "", "└─ "]);
        assert!(branches(&[]).is_empty());
    }

    #[test]
    fn a_tree_without_a_bottom_stays_drawable() {
        let depths: Vec<usize> = (0..100_000).collect();
        assert!(branches(&depths).iter().all(|line| line.chars().count() <= 120));
    }
}
