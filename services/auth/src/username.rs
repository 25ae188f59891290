//! The rules for usernames, and the forms in which usernames are compared.
//!
//! The allowed characters are those of RFC 8264's IdentifierClass, derived by its rules from the current Unicode
//! tables, and narrowed to letters, their marks, digits, `_`, `.` and `-`.

use std::collections::HashSet;
use std::sync::LazyLock;

use confab_common::{Error, Result, text};
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::{
    BidiClass, DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup, HangulSyllableType,
};
use icu_properties::{CodePointMapData, CodePointSetData};
use unicode_security::mixed_script::AugmentedScriptSet;
use uuid::Uuid;

/// Minimum and maximum number of characters.
const LENGTHS: std::ops::RangeInclusive<usize> = 3..=32;
/// Maximum marks on one letter.
const MAX_MARKS: usize = 4;
/// Maximum number of characters of a name that is made from a claim. Four characters of an id fit behind it.
const MAX_CLAIMED: usize = 27;
/// The name of a user whose claim contains no letter and no digit.
const NAMELESS: &str = "user";
/// How many characters of the id follow the name of a user if the name alone is taken, in the order in which they are
/// tried. The last number is the whole id.
const ID_LENGTHS: [usize; 4] = [4, 8, 16, 26];
/// The digits of base32 (RFC 4648), in lower case.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Reserved names: messages under them would seem to come from the service or from all users.
const RESERVED: [&str; 7] = ["system", "admin", "confab", "deleted", "everyone", "here", "room"];
static RESERVED_SKELETONS: LazyLock<HashSet<String>> = LazyLock::new(|| RESERVED.map(skeleton).into());

const NFC: ComposingNormalizerBorrowed<'_> = ComposingNormalizerBorrowed::new_nfc();
const NFKC: ComposingNormalizerBorrowed<'_> = ComposingNormalizerBorrowed::new_nfkc();

#[derive(Debug, PartialEq, Eq)]
pub struct Username {
    /// The form that is stored and shown.
    pub kept: String,
    /// The form by which accounts are found.
    pub folded: String,
}

impl Username {
    /// Validates a typed name.
    ///
    /// # Errors
    /// `invalid_request` for `username`.
    pub fn parse(typed: &str) -> Result<Self> {
        let kept = mapped(typed);
        let folded = text::fold(&kept);
        let refuse = |why: String| Err(Error::field("username", why));
        if !LENGTHS.contains(&kept.chars().count()) {
            return refuse(format!("must be {} to {} characters", LENGTHS.start(), LENGTHS.end()));
        }
        if let Err(why) = check_characters(&kept) {
            return refuse(why);
        }
        if AugmentedScriptSet::for_str(&kept).is_empty() {
            return refuse("must be written in one script".into());
        }
        if !has_one_set_of_digits(&kept) {
            return refuse("must use one set of digits".into());
        }
        if !reads_in_one_direction(&kept) {
            return refuse(
                "with letters written from right to left must begin with one, end with a letter or digit, \
                 and hold no letters written from left to right"
                    .into(),
            );
        }
        if RESERVED_SKELETONS.contains(&skeleton(&kept)) {
            return refuse("is reserved".into());
        }
        Ok(Self { kept, folded })
    }
}

/// Returns the usernames to try for a user of the app's own issuer: the name claim, mapped by UsernameCaseMapped, then
/// its beginning with more and more of the user's id. Such names may be shorter than typed ones, and may mix scripts.
pub fn candidates(claim: &str, id: Uuid) -> impl Iterator<Item = Username> {
    let (name, id) = (claimed(claim), base32(id));
    let alone = Some(name.clone()).filter(|name| !RESERVED_SKELETONS.contains(&skeleton(name)));
    let with_id = ID_LENGTHS.into_iter().map(move |length| {
        let begin = name.chars().take(LENGTHS.end() - 1 - length).collect::<String>();
        format!("{begin}-{}", &id[..length])
    });
    alone.into_iter().chain(with_id).map(|kept| Username { folded: text::fold(&kept), kept })
}

/// Maps a name claim to a username: by the rules of UsernameCaseMapped (RFC 8265), and each run of characters that
/// names must not contain becomes one `_`.
fn claimed(claim: &str) -> String {
    let lower = NFC.normalize(&mapped(claim).to_lowercase()).into_owned();
    let (mut name, mut before, mut marks, mut is_gap) = (String::new(), None, 0, false);
    for c in lower.chars() {
        let is_on_letter = matches!(before, Some(Kind::Letter | Kind::Mark)) && marks < MAX_MARKS;
        let kind = kind(c).filter(|kind| *kind != Kind::Mark || is_on_letter);
        if kind.is_some() {
            name.push(c);
        } else if !is_gap {
            name.push('_');
        }
        marks = if kind == Some(Kind::Mark) { marks + 1 } else { 0 };
        is_gap = kind.is_none();
        before = kind;
    }
    let name = name.trim_start_matches(['_', '.', '-']).chars().take(MAX_CLAIMED).collect::<String>();
    if name.is_empty() { NAMELESS.to_owned() } else { name }
}

/// Returns the 26 digits of an id in base32, without padding.
fn base32(id: Uuid) -> String {
    // Two zero bits follow the 128 bits, because 26 digits have 130 bits.
    let digit = |n: u32| if n < 25 { id.as_u128() >> (123 - 5 * n) } else { id.as_u128() << 2 };
    (0..26).map(|n| char::from(BASE32[(digit(n) & 31) as usize])).collect()
}

/// Returns the folded form of a typed name, under which its account is stored.
pub fn folded(typed: &str) -> String {
    text::fold(&mapped(typed))
}

/// Returns the number of characters of a typed name after composition.
pub fn length(typed: &str) -> usize {
    mapped(typed).chars().count()
}

/// Returns the folded form of earlier releases.
pub fn former(typed: &str) -> String {
    NFC.normalize(&NFC.normalize(typed.trim()).to_lowercase()).into_owned()
}

/// Returns the skeleton of a typed name. Two names that look alike in any case have the same skeleton (UTS 39). `0`
/// looks like `O` and is therefore equal to `o`; `I` looks like `l` and is the capital of `i`, so all three are equal.
pub fn skeleton(typed: &str) -> String {
    let shape = |name: &str| unicode_security::skeleton(name).collect::<String>();
    shape(&text::fold(&shape(&mapped(typed)))).replace('i', "l")
}

/// Trims the name, normalises full-width and half-width forms, and composes the name.
fn mapped(typed: &str) -> String {
    let ordinary = |c: char| match c {
        '\u{FF01}'..='\u{FFEE}' => NFKC.normalize(c.encode_utf8(&mut [0; 4])).into_owned(),
        c => c.to_string(),
    };
    NFC.normalize(&typed.trim().chars().map(ordinary).collect::<String>()).into_owned()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Letter,
    Digit,
    Mark,
    Sign,
}

/// Returns `None` for a character that names must not contain.
fn kind(c: char) -> Option<Kind> {
    if "_.-".contains(c) {
        return Some(Kind::Sign);
    }
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    let kind = match category {
        GeneralCategory::DecimalNumber => Kind::Digit,
        GeneralCategory::NonspacingMark | GeneralCategory::SpacingMark => Kind::Mark,
        category if GeneralCategoryGroup::Letter.contains(category) => Kind::Letter,
        _ => return None,
    };
    let is_old_jamo = matches!(
        CodePointMapData::<HangulSyllableType>::new().get(c),
        HangulSyllableType::LeadingJamo | HangulSyllableType::VowelJamo | HangulSyllableType::TrailingJamo
    );
    let is_refused = is_old_jamo
        || is_variant(c)
        || text::is_blank(c)
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c);
    (!is_refused).then_some(kind)
}

/// Returns whether the character is a variant of ordinary characters, or stretches or repeats them.
fn is_variant(c: char) -> bool {
    match c {
        // Thai and Lao cannot be written without these, despite their compatibility decompositions.
        '\u{E33}' | '\u{EB3}' | '\u{EDC}' | '\u{EDD}' => false,
        // Rejected by RFC 5892, section 2.6.
        '\u{640}' | '\u{7FA}' | '\u{302E}' | '\u{302F}' | '\u{3031}'..='\u{3035}' | '\u{303B}' => true,
        c => !NFKC.is_normalized(c.encode_utf8(&mut [0; 4])),
    }
}

fn check_characters(name: &str) -> Result<(), String> {
    let (mut before, mut marks) = (None, 0);
    for c in name.chars() {
        let kind = kind(c).filter(|kind| *kind != Kind::Mark || matches!(before, Some(Kind::Letter | Kind::Mark)));
        let Some(kind) = kind else {
            return Err("may contain letters, marks on letters, digits, \"_\", \".\" and \"-\" only".into());
        };
        if before.is_none() && kind == Kind::Sign {
            return Err("must begin with a letter or digit".into());
        }
        marks = if kind == Kind::Mark { marks + 1 } else { 0 };
        if marks > MAX_MARKS {
            return Err(format!("may have at most {MAX_MARKS} marks on a letter"));
        }
        before = Some(kind);
    }
    Ok(())
}

fn has_one_set_of_digits(name: &str) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new();
    let is_digit = |c: u32| category.get32(c) == GeneralCategory::DecimalNumber;
    // Digits come in consecutive blocks of ten, in order.
    let zero = |c: char| (0..10).map(|n| u32::from(c) - n).take_while(|c| is_digit(*c)).last();
    let mut zeros = name.chars().filter(|c| is_digit(u32::from(*c))).map(zero);
    let first = zeros.next();
    zeros.all(|zero| Some(zero) == first)
}

/// Checks the rules of RFC 5893, section 2, that a name of these characters could violate.
fn reads_in_one_direction(name: &str) -> bool {
    use BidiClass as B;
    let classes = name
        .chars()
        .map(|c| CodePointMapData::<B>::new().get(c))
        .filter(|class| *class != B::NonspacingMark)
        .collect::<Vec<_>>();
    if !classes.iter().any(|class| matches!(*class, B::RightToLeft | B::ArabicLetter | B::ArabicNumber)) {
        return true;
    }
    matches!(classes.first(), Some(&(B::RightToLeft | B::ArabicLetter)))
        && !classes.contains(&B::LeftToRight)
        && matches!(classes.last(), Some(&(B::RightToLeft | B::ArabicLetter | B::ArabicNumber | B::EuropeanNumber)))
}

#[cfg(test)]
#[path = "username/tests.rs"]
mod tests;
