//! What the index of searches is asked for. It holds all runs of one, two and three characters of each room's searched text, as
//! the stores' migrations cut them.

use std::collections::BTreeSet;

/// Characters of the longest run in the index.
const LONGEST: usize = 3;
/// Most pieces of one query: they leave few rooms to look at, and bound the index' work for a long query.
const MOST: usize = 16;

/// Pieces that a text must have in the index to contain `query`.
pub fn of(query: &str) -> BTreeSet<&str> {
    let starts = query.char_indices().map(|(at, _)| at).chain([query.len()]).collect::<Vec<_>>();
    let characters = starts.len() - 1;
    let size = characters.min(LONGEST);
    let last = characters - size;
    let count = MOST.min(last + 1);
    // Evenly from the first to the last.
    let places = (0..count).map(|n| if count == 1 { 0 } else { n * last / (count - 1) });
    places.map(|at| &query[starts[at]..starts[at + size]]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(query: &str) -> Vec<&str> {
        of(query).into_iter().collect()
    }

    #[test]
    fn short_queries_are_their_own_piece() {
        for query in ["a", "ß", "山", "ab", "чай", "🍵%_"] {
            assert_eq!(pieces(query), [query]);
        }
    }

    #[test]
    fn longer_ones_are_cut_at_characters_and_long_ones_have_few_from_end_to_end() {
        assert_eq!(pieces("чай🍵"), ["ай🍵", "чай"]);
        assert_eq!(pieces("aaaaaaaa"), ["aaa"]);
        let long = ('a'..='z').chain('A'..='Z').collect::<String>();
        let pieces = of(&long);
        assert_eq!(pieces.len(), MOST);
        assert!(pieces.contains("abc") && pieces.contains("XYZ"));
    }
}
