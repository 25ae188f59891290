//! The terms of texts and of searches, the same for both stores. A text is folded: the letters `É`, `é` and `e` are the
//! same. Then it has words, whose terms are the words themselves, and runs of scripts that are written without spaces,
//! whose terms are the characters and the pairs of neighbours.

mod fold;
mod query;

use std::collections::BTreeSet;

use uuid::Uuid;

use fold::{Folded, folded, is_unspaced, is_word};

pub use query::{MAX_WORDS, Needed, Query};

/// Maximum characters of a term. A longer word is found by its beginning.
const MAX_TERM: usize = 64;
/// Precedes the terms of rooms and senders. No word contains it.
const MARK: char = '§';

/// A part of a text between spaces, punctuation and changes of the kind of script.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// A word, with the range of its characters in the text.
    Word { text: String, range: (u32, u32) },
    /// Characters of scripts without spaces, in one run.
    Run(Vec<Folded>),
}

/// Returns the parts of a text, in their order.
fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for letters in folded(text).chunk_by(|one, next| kind(one) == kind(next)) {
        let (first, last) = (&letters[0], &letters[letters.len() - 1]);
        match kind(first) {
            Kind::Word => {
                let range = (first.start, last.end);
                pieces.push(Piece::Word { text: letters.iter().map(|letter| letter.char).collect(), range });
            }
            Kind::Unspaced => pieces.push(Piece::Run(letters.to_vec())),
            Kind::Separator => {}
        }
    }
    pieces
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Unspaced,
    Separator,
}

fn kind(letter: &Folded) -> Kind {
    if is_unspaced(letter.char) {
        Kind::Unspaced
    } else if is_word(letter.char) {
        Kind::Word
    } else {
        Kind::Separator
    }
}

/// Returns the terms of a text, without repeats; none of a text without words.
pub fn terms(text: &str) -> BTreeSet<String> {
    let mut terms = BTreeSet::new();
    for piece in pieces(text) {
        match piece {
            Piece::Word { text, .. } => _ = terms.insert(term(&text)),
            Piece::Run(letters) => {
                terms.extend(letters.iter().map(|letter| String::from(letter.char)));
                terms.extend(letters.windows(2).map(|pair| pair.iter().map(|letter| letter.char).collect::<String>()));
            }
        }
    }
    terms
}

/// The term of a word.
fn term(word: &str) -> String {
    word.chars().take(MAX_TERM).collect()
}

/// The term of all messages of a room.
pub fn of_room(room: Uuid) -> String {
    marked('r', room)
}

/// The term of all messages of a user.
pub fn of_sender(sender: Uuid) -> String {
    marked('s', sender)
}

/// The lower half of an id is enough: the store that finds messages by terms also has their rooms and senders.
fn marked(kind: char, id: Uuid) -> String {
    format!("{MARK}{kind}{:016x}", id.as_u64_pair().1)
}

#[cfg(test)]
mod tests;
