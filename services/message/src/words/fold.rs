//! The form in which texts are compared: compatibility forms, capital letters and accents make no difference.

use icu_casemap::CaseMapper;
use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use icu_properties::props::{
    CanonicalCombiningClass, DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup,
};
use icu_properties::{CodePointMapData, CodePointSetData};

/// A character of a folded text, and the characters of the text that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Folded {
    pub char: char,
    /// The first character in the text, and the one after the last.
    pub start: u32,
    pub end: u32,
}

/// Returns the folded characters of a text. A character and the marks that follow it are folded together.
pub fn folded(text: &str) -> Vec<Folded> {
    let mut folded = Vec::with_capacity(text.len());
    let mut group = String::new();
    let (mut start, mut end) = (0, 0);
    for char in text.chars() {
        if !group.is_empty() && !continues(char) {
            fold(&mut folded, &group, start, end);
            group.clear();
            start = end;
        }
        group.push(char);
        end += 1;
    }
    fold(&mut folded, &group, start, end);
    folded
}

/// Whether a character belongs to the one before it: marks, and the parts of Korean syllables.
fn continues(char: char) -> bool {
    !char.is_ascii()
        && (matches!(char, '\u{1160}'..='\u{11ff}' | '\u{ff9e}' | '\u{ff9f}')
            || CodePointMapData::<CanonicalCombiningClass>::new().get(char) != CanonicalCombiningClass::NotReordered)
}

fn fold(folded: &mut Vec<Folded>, group: &str, start: u32, end: u32) {
    if let [byte] = group.as_bytes() {
        folded.push(Folded { char: char::from(byte.to_ascii_lowercase()), start, end });
        return;
    }
    let nfkc = ComposingNormalizerBorrowed::new_nfkc();
    let lower = CaseMapper::new().fold_string(&nfkc.normalize(group)).into_owned();
    let parts = DecomposingNormalizerBorrowed::new_nfkd().normalize(&lower).into_owned();
    let bare = parts.chars().filter(|char| !is_accent(*char)).collect::<String>();
    // Composed again: Korean syllables, and Japanese characters with their sound marks, which are no accents.
    let composed = nfkc.normalize(&bare);
    folded.extend(composed.chars().map(|char| Folded { char, start, end }));
}

/// Marks without which a word is still the same: accents, the vowels of Arabic and Hebrew, and invisible characters.
fn is_accent(char: char) -> bool {
    matches!(
        char,
        '\u{300}'..='\u{36f}'
            | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}' | '\u{5c2}' | '\u{5c4}' | '\u{5c5}' | '\u{5c7}'
            | '\u{610}'..='\u{61a}' | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{6d6}'..='\u{6dc}'
            | '\u{6df}'..='\u{6e8}' | '\u{6ea}'..='\u{6ed}'
            | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}'
    ) || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(char)
}

/// Whether a character is part of a word: letters, digits and their marks.
pub fn is_word(char: char) -> bool {
    char.is_alphanumeric()
        || (!char.is_ascii()
            && GeneralCategoryGroup::Mark.contains(CodePointMapData::<GeneralCategory>::new().get(char)))
}

/// Whether a character belongs to a script that is written without spaces between words: Han, Kana, Hangul (whose words
/// have endings without spaces), Thai, Lao, Burmese and Khmer.
pub fn is_unspaced(char: char) -> bool {
    !char.is_ascii()
        && is_word(char)
        && matches!(
            char,
            '\u{e01}'..='\u{e4e}' | '\u{e80}'..='\u{ece}' | '\u{edc}'..='\u{edf}'
                | '\u{1000}'..='\u{103f}' | '\u{1050}'..='\u{108f}' | '\u{a9e0}'..='\u{a9ef}' | '\u{aa60}'..='\u{aa7f}'
                | '\u{1100}'..='\u{11ff}' | '\u{a960}'..='\u{a97f}' | '\u{ac00}'..='\u{d7fb}' | '\u{3131}'..='\u{318e}'
                | '\u{1780}'..='\u{17d3}' | '\u{17d7}' | '\u{17dc}' | '\u{17dd}'
                | '\u{3005}'..='\u{3007}' | '\u{3021}'..='\u{3029}' | '\u{3031}'..='\u{3035}' | '\u{3038}'..='\u{303b}'
                | '\u{3041}'..='\u{30ff}' | '\u{3105}'..='\u{312f}' | '\u{31a0}'..='\u{31bf}' | '\u{31f0}'..='\u{31ff}'
                | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
                | '\u{1b000}'..='\u{1b16f}' | '\u{20000}'..='\u{323af}'
        )
}
