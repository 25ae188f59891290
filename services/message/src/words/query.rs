//! What a search asks for: the terms that a message must have, and the check of a text itself.

use super::{Piece, pieces, term};

/// Maximum words of a search; a run of a script without spaces is one word.
pub const MAX_WORDS: usize = 10;
/// The shortest beginning of a word that is enough to find the word.
const MIN_PREFIX: usize = 2;
/// Maximum pairs of a run that are sought by their terms. The check of the text covers the rest.
const MAX_PAIRS: usize = 32;
/// Maximum highlights of one text.
const MAX_HIGHLIGHTS: usize = 100;

/// A term that a message must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    pub term: String,
    /// Whether the beginning of a term is enough.
    pub prefix: bool,
}

/// The words of a search. A message must have all of them, in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query(Vec<Word>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    /// A word; if it is the last one of the search, its beginning is enough.
    Whole { text: String, prefix: bool },
    /// Neighbours in a run.
    Run(String),
}

impl Query {
    /// Reads the words of a search, without repeats. A search without words finds nothing.
    pub fn of(text: &str) -> Self {
        let pieces = pieces(text);
        let last = pieces.len();
        let mut words = Vec::new();
        for (n, piece) in (1..).zip(pieces) {
            let word = match piece {
                Piece::Word { text, .. } => {
                    let prefix = n == last && text.chars().nth(MIN_PREFIX - 1).is_some();
                    Word::Whole { text, prefix }
                }
                Piece::Run(letters) => Word::Run(letters.iter().map(|letter| letter.char).collect()),
            };
            if !words.contains(&word) {
                words.push(word);
            }
        }
        Self(words)
    }

    /// Returns the number of words.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the terms that a message must have to be found. Some messages with these terms are not found.
    pub fn needed(&self) -> Vec<Needed> {
        let mut needed = Vec::new();
        let mut need = |term, prefix| {
            let one = Needed { term, prefix };
            if !needed.contains(&one) {
                needed.push(one);
            }
        };
        for word in &self.0 {
            match word {
                Word::Whole { text, prefix } => {
                    let term = term(text);
                    // The term of a longer word is cut.
                    let is_prefix = *prefix && term.len() == text.len();
                    need(term, is_prefix);
                }
                Word::Run(run) => {
                    let letters = run.chars().collect::<Vec<_>>();
                    match &letters[..] {
                        [one] => need(String::from(*one), false),
                        _ => letters.windows(2).take(MAX_PAIRS).for_each(|pair| need(pair.iter().collect(), false)),
                    }
                }
            }
        }
        needed
    }

    /// Checks a text. Returns where it has the words, as ranges of Unicode scalar values in ascending order that do not
    /// touch each other; `None` if a word is missing.
    pub fn highlights(&self, text: &str) -> Option<Vec<(u32, u32)>> {
        let pieces = pieces(text);
        let mut ranges = Vec::new();
        for word in &self.0 {
            let before = ranges.len();
            pieces.iter().for_each(|piece| word.find(piece, &mut ranges));
            if ranges.len() == before {
                return None;
            }
        }
        ranges.sort_unstable();
        let mut joined = Vec::<(u32, u32)>::new();
        for (start, end) in ranges {
            match joined.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => joined.push((start, end)),
            }
        }
        joined.truncate(MAX_HIGHLIGHTS);
        Some(joined)
    }
}

impl Word {
    /// Adds where a part of a text has the word.
    fn find(&self, piece: &Piece, ranges: &mut Vec<(u32, u32)>) {
        match (self, piece) {
            (Self::Whole { text: wanted, prefix }, Piece::Word { text, range })
                if text == wanted || (*prefix && text.starts_with(wanted)) =>
            {
                ranges.push(*range);
            }
            (Self::Run(wanted), Piece::Run(letters)) => {
                let run = letters.iter().map(|letter| letter.char).collect::<String>();
                let length = wanted.chars().count();
                let (mut byte, mut at) = (0, 0);
                // In linear time, also in a text of one repeated character.
                for (found, _) in run.match_indices(wanted) {
                    at += run[byte..found].chars().count();
                    byte = found;
                    ranges.push((letters[at].start, letters[at + length - 1].end));
                }
            }
            _ => {}
        }
    }
}
