//! The word a writer may have meant: the nearest of the known ones by edit distance.

/// The nearest of `known`, if it is near enough to be a slip: about one edit in three letters.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        // A word cut short or drawn out is a slip too.
        .filter(|(far, candidate)| *far <= limit || (word.len() >= 3 && candidate.starts_with(word)))
        .min_by_key(|(far, _)| *far)
        .map(|(_, candidate)| candidate)
}

/// Insertions, removals, changes, and swaps of neighbours between two words; case does not count.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().take(64).collect();
    let other: Vec<char> = other.chars().take(64).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let change = usize::from(!a.eq_ignore_ascii_case(b));
            let mut best = (last[j] + change).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let known = ["size", "min_size", "failure_domain", "class", "monitors"];
        assert_eq!(nearest("siez", known), Some("size"));
        assert_eq!(nearest("Size", known), Some("size"));
        assert_eq!(nearest("minsize", known), Some("min_size"));
        assert_eq!(nearest("failure-domain", known), Some("failure_domain"));
        assert_eq!(nearest("mon", known), Some("monitors"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
    }
}
