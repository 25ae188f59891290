//! Parses the media type that a sender claims.

use std::fmt;

use super::family;

/// Longest claim that is parsed, in bytes.
const MAX_LEN: usize = 255;

/// A media type in canonical form, without parameters except the charset.
pub struct Claim {
    /// `type/subtype`, in lower case, under its registered name.
    pub essence: String,
    charset: Option<String>,
}

/// Parses a claim, if it is a media type: `type/subtype` with parameters whose values may be quoted (RFC 9110, 5.6.6
/// and 8.3.1).
pub fn parse(claim: &str) -> Option<Claim> {
    let claim = claim.trim_matches(is_space);
    let (essence, mut rest) = claim.split_at(claim.find(';').unwrap_or(claim.len()));
    let (kind, subtype) = essence.trim_end_matches(is_space).split_once('/')?;
    if claim.len() > MAX_LEN || !is_token(kind) || !is_token(subtype) {
        return None;
    }
    let mut charset = None;
    while let Some(after) = rest.strip_prefix(';') {
        rest = after.trim_start_matches(is_space);
        if rest.is_empty() || rest.starts_with(';') {
            continue;
        }
        let (name, after) = rest.split_once('=').filter(|(name, _)| is_token(name))?;
        let (value, after) = value(after)?;
        if name.eq_ignore_ascii_case("charset") && is_token(&value) {
            charset.get_or_insert(value);
        }
        rest = after.trim_start_matches(is_space);
    }
    let essence = format!("{kind}/{subtype}").to_ascii_lowercase();
    rest.is_empty().then(|| Claim { essence: family::registered(&essence).into(), charset })
}

/// Parses a parameter's value. Returns the value and the rest of the text.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find([';', ' ', '\t']).unwrap_or(text.len()));
        return is_token(value).then(|| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            character => value.push(character),
        }
    }
    None
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.essence)?;
        self.charset.iter().try_for_each(|charset| write!(f, "; charset={charset}"))
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
