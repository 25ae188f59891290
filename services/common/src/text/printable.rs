//! The characters that are allowed in text that other users read.

use icu_properties::props::{BidiControl, DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointSetData};

use crate::{Error, Result};

/// The black flag, the only character that tags may follow.
const TAGGED: char = '\u{1F3F4}';
/// Ends a run of tags.
const END_TAG: char = '\u{E007F}';

/// Whether a text may have several lines.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    One,
    /// Line breaks and tabs are allowed.
    Many,
}

/// The context before the current character.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// The beginning of the text, white space, or a character without a shape.
    Nothing,
    /// A visible character, possibly with marks.
    Visible,
    /// The flag that tags may follow.
    Flag,
    /// A visible character with a variation selector.
    Selected,
    /// A joiner after a visible character.
    Joiner,
    /// This number of tags after a flag, in an unfinished run.
    Tag(u8),
}

/// Letters and digits in a run of tags, which names a subdivision of a country and stands for its flag (UTS 51).
const TAGS: std::ops::RangeInclusive<u8> = 3..=6;

/// Rejects a text without visible characters, and superfluous invisible characters.
pub(super) fn check(field: &str, text: &str, lines: Lines) -> Result<()> {
    let (mut before, mut has_shape) = (Before::Nothing, false);
    for c in text.chars() {
        let kind = kind(c, lines).ok_or_else(|| Error::field(field, "must not contain control characters"))?;
        before = next(before, kind).ok_or_else(|| invisible(field))?;
        has_shape |= before == Before::Visible || before == Before::Flag;
    }
    if matches!(before, Before::Joiner | Before::Tag(_)) {
        return Err(invisible(field));
    }
    if has_shape { Ok(()) } else { Err(Error::field(field, "must contain a visible character")) }
}

fn invisible(field: &str) -> Error {
    Error::field(
        field,
        "must not contain invisible characters, except joiners and variation selectors within visible text",
    )
}

enum Kind {
    Visible,
    Flag,
    Mark,
    Space,
    Selector,
    Joiner,
    Tag,
    EndTag,
    /// An invisible character that a name does not need.
    Invisible,
}

/// Returns whether the character is blank although its category has a shape: the blank Braille pattern, the null
/// notehead, the blanks of Egyptian hieroglyphs and the Khitan filler.
pub fn is_blank(c: char) -> bool {
    matches!(c, '\u{2800}' | '\u{1D159}' | '\u{13441}' | '\u{13442}' | '\u{16FE4}')
}

/// Returns `None` for a control character.
fn kind(c: char, lines: Lines) -> Option<Kind> {
    use GeneralCategory::{Format, LineSeparator, ParagraphSeparator, PrivateUse, SpaceSeparator, Unassigned};
    match c {
        '\n' | '\r' | '\t' if lines == Lines::Many => return Some(Kind::Space),
        TAGGED => return Some(Kind::Flag),
        END_TAG => return Some(Kind::EndTag),
        '\u{E0030}'..='\u{E0039}' | '\u{E0061}'..='\u{E007A}' => return Some(Kind::Tag),
        '\u{180B}'..='\u{180D}' | '\u{180F}' | '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}' => {
            return Some(Kind::Selector);
        }
        '\u{200C}' | '\u{200D}' => return Some(Kind::Joiner),
        // The Khitan filler is a mark without a shape; the others enclose a text that a renderer may hide.
        '\u{16FE4}' | '\u{FFF9}'..='\u{FFFB}' => return Some(Kind::Invisible),
        c if is_blank(c) => return Some(Kind::Space),
        _ => {}
    }
    if CodePointSetData::new::<BidiControl>().contains(c)
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
    {
        return Some(Kind::Invisible);
    }
    Some(match CodePointMapData::<GeneralCategory>::new().get(c) {
        GeneralCategory::Control => return None,
        LineSeparator | ParagraphSeparator if lines == Lines::One => return None,
        category if GeneralCategoryGroup::Mark.contains(category) => Kind::Mark,
        SpaceSeparator | LineSeparator | ParagraphSeparator | Format | PrivateUse | Unassigned => Kind::Space,
        _ => Kind::Visible,
    })
}

/// Returns `None` where this kind of character is not allowed.
fn next(before: Before, kind: Kind) -> Option<Before> {
    match (before, kind) {
        (Before::Flag, Kind::Tag) => Some(Before::Tag(1)),
        (Before::Tag(count), Kind::Tag) if count < *TAGS.end() => Some(Before::Tag(count + 1)),
        (Before::Tag(count), Kind::EndTag) if TAGS.contains(&count) => Some(Before::Visible),
        (Before::Tag(_), _) | (_, Kind::Tag | Kind::EndTag | Kind::Invisible) => None,
        (_, Kind::Visible) => Some(Before::Visible),
        (_, Kind::Flag) => Some(Before::Flag),
        // In Bengali ya-phalaa the virama follows the joiner.
        (Before::Nothing, Kind::Mark) => Some(Before::Nothing),
        (_, Kind::Mark) => Some(Before::Visible),
        (Before::Joiner, Kind::Space) => None,
        (_, Kind::Space) => Some(Before::Nothing),
        (Before::Visible | Before::Flag, Kind::Selector) => Some(Before::Selected),
        (Before::Visible | Before::Flag | Before::Selected, Kind::Joiner) => Some(Before::Joiner),
        (_, Kind::Selector | Kind::Joiner) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_texts_are_accepted() {
        for good in [
            "Tea 🍵",
            "❤️",
            "👩‍❤️‍👨 family",
            "👩🏽‍🚀",
            "🏳️‍🌈",
            "🏴‍☠️",
            "🏴\u{E0067}\u{E0062}\u{E0073}\u{E0063}\u{E0074}\u{E007F} Scotland",
            "1️⃣",
            "می\u{200C}خواهم",
            "ශ්\u{200D}රී",
            "র\u{200D}\u{9CD}য",
            "हिन्दी",
            "葛\u{E0100}城",
            "שלום עולם",
            "مرحبا hello",
            "…",
            "a\u{A0}b",
            "⠓⠊⠀⠓⠊",
            "𓀀\u{13441}𓀀",
            "Z\u{335}o",
        ] {
            check("name", good, Lines::One).unwrap_or_else(|error| panic!("{good:?}: {error}"));
        }
        check("description", "one\r\n\ttwo\u{2028}three", Lines::Many).unwrap();
    }

    #[test]
    fn deceptive_texts_are_rejected() {
        for bad in [
            "",
            "\u{200B}",
            "\u{FEFF}",
            "\u{2800}",
            "\u{2800} \u{A0}\u{3000}",
            "\u{3164}",
            "\u{115F}\u{1160}",
            "\u{FFA0}",
            "\u{301}\u{302}",
            "\u{1D159}",
            "\u{E000}",
            "\u{202E}moor",
            "a\u{202A}b",
            "a\u{2067}b\u{2069}",
            "a\u{200E}",
            "\u{200F}a",
            "a\u{61C}b",
            "a\u{200B}b",
            "a\u{AD}b",
            "a\u{34F}b",
            "a\u{2060}b",
            "a\u{17B4}b",
            "general\u{3164}",
            "a\u{200D}",
            "\u{200D}a",
            "a \u{200C}b",
            "a\u{200D} b",
            "a\u{200D}\u{200D}b",
            "a\u{FE0F}\u{FE0F}",
            "\u{FE0F}a",
            "a\u{E0061}",
            "\u{13441}\u{13442}",
            "a\u{16FE4}",
            "a\u{FFF9}hidden\u{FFFA}b\u{FFFB}",
            "🏴\u{E0067}\u{E0062}\u{E007F}",
            "🏴\u{E0061}\u{E0061}\u{E0061}\u{E0061}\u{E0061}\u{E0061}\u{E0061}\u{E007F}",
            "🏴\u{E0041}\u{E0044}\u{E004D}\u{E007F}",
            "🏴\u{E0067}",
            "🏴\u{E0067}a",
            "🏴\u{E007F}",
            "a\u{E0001}",
            "a\0b",
            "a\nb",
            "a\u{85}b",
            "a\u{2028}b",
        ] {
            check("name", bad, Lines::One).unwrap_err();
        }
        for bad in ["\n\t", "one\0two", "one\u{B}two", "one\u{202E}two"] {
            check("description", bad, Lines::Many).unwrap_err();
        }
    }
}
