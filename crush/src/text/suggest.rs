//! Finds the word a writer may have meant: the nearest of the known ones by edit distance.

/// The nearest of `known`, if it is near enough to be a slip: one edit in three letters, swapped neighbours counting as
/// one.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(MAX_WORD).collect();
    let limit = (word.len() / 3).max(1);
    known
        .into_iter()
        .filter(|candidate| !candidate.is_empty() && candidate.len() <= MAX_WORD)
        .filter_map(|candidate| Some((distance(&word, candidate, limit)?, candidate)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Longer words are no slips, and the distance takes time by the product of both lengths.
const MAX_WORD: usize = 64;

fn distance(word: &[char], candidate: &str, limit: usize) -> Option<usize> {
    let other: Vec<char> = candidate.chars().collect();
    if word.len().abs_diff(other.len()) > limit {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in word.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let same = usize::from(!a.eq_ignore_ascii_case(b));
            let mut best = (last[j] + same).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && word[i - 1] == *b {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().filter(|distance| *distance <= limit)
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
        assert_eq!(nearest("host", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest("x", [""]), None);
    }
}
