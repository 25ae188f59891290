//! The pieces of a query that are looked up in the search index. The index contains all runs of one, two and three
//! characters of each room's searchable text; the stores' migrations cut them.

use std::collections::BTreeSet;

/// Length of the longest run in the index, in characters.
const LONGEST: usize = 3;
/// Maximum pieces of one query. They narrow the result to few rooms, and bound the index's work for a long query.
const MAX_PIECES: usize = 16;

/// Returns pieces that the index must have for every text that contains `query`.
pub fn of(query: &str) -> BTreeSet<&str> {
    let starts = query.char_indices().map(|(at, _)| at).chain([query.len()]).collect::<Vec<_>>();
    let characters = starts.len() - 1;
    let size = characters.min(LONGEST);
    let last = characters - size;
    let count = MAX_PIECES.min(last + 1);
    // Distributed evenly from the first to the last piece.
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
    fn short_query_is_one_piece() {
        for query in ["a", "ß", "山", "ab", "чай", "🍵%_"] {
            assert_eq!(pieces(query), [query]);
        }
    }

    #[test]
    fn long_queries_are_cut_into_few_pieces() {
        assert_eq!(pieces("чай🍵"), ["ай🍵", "чай"]);
        assert_eq!(pieces("aaaaaaaa"), ["aaa"]);
        let long = ('a'..='z').chain('A'..='Z').collect::<String>();
        let pieces = of(&long);
        assert_eq!(pieces.len(), MAX_PIECES);
        assert!(pieces.contains("abc") && pieces.contains("XYZ"));
    }
}
