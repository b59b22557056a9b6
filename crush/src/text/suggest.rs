//! Finds the word a writer may have meant: the nearest of the known ones by edit distance.

/// The nearest of `known`, if it is near enough to be a slip: one edit in three letters, swapped neighbours counting as
/// one, or a word cut short.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters: Vec<char> = word.chars().take(MAX_WORD).collect();
    let limit = (letters.len() / 3).max(1);
    let cut_short = |candidate: &str| letters.len() >= 3 && candidate.starts_with(word);
    known
        .into_iter()
        .filter(|candidate| !candidate.is_empty() && candidate.len() <= MAX_WORD)
        .map(|candidate| (distance(&letters, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= limit || cut_short(candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Longer words are no slips, and the distance takes time by the product of both lengths.
const MAX_WORD: usize = 64;

/// Insertions, removals, changes, and swaps of neighbours between two words; case does not count.
fn distance(word: &[char], candidate: &str) -> usize {
    let other: Vec<char> = candidate.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in word.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let change = usize::from(!a.eq_ignore_ascii_case(b));
            let mut best = (last[j] + change).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && word[i - 1] == *b {
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
        let known = ["rack1", "rack22", "default", "straw2"];
        assert_eq!(nearest("rak1", known), Some("rack1"));
        assert_eq!(nearest("Rack1", known), Some("rack1"));
        assert_eq!(nearest("defualt", known), Some("default"));
        assert_eq!(nearest("straw3", known), Some("straw2"));
        assert_eq!(nearest("def", known), Some("default"));
        assert_eq!(nearest("de", known), None);
        assert_eq!(nearest("host", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest("x", [""]), None);
        assert_eq!(nearest(&"x".repeat(100), [&*"x".repeat(99)]), None);
    }
}
