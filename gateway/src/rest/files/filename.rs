//! Decodes a filename from the forms in which clients write it into `Content-Disposition`.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use encoding_rs::{Encoding, WINDOWS_1252};

use super::disposition::parameter;

/// Accepts base64 with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The filename in this header; empty when the header has none.
pub fn read(header: &[u8]) -> String {
    if let Some(name) = parameter(header, "filename*").and_then(|value| extended(&value)) {
        return name;
    }
    let value = parameter(header, "filename").unwrap_or_default();
    let Ok(text) = std::str::from_utf8(&value) else {
        return WINDOWS_1252.decode_without_bom_handling(&value).0.into_owned();
    };
    encoded_words(text)
        .or_else(|| component(text))
        // Browsers and curl escape these three characters (WHATWG HTML, "multipart/form-data").
        .unwrap_or_else(|| text.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n"))
}

/// Whether this header has a filename.
pub fn is_given(header: &[u8]) -> bool {
    ["filename", "filename*"].iter().any(|name| parameter(header, name).is_some())
}

/// Decodes `charset'language'value` (RFC 8187).
fn extended(value: &[u8]) -> Option<String> {
    let mut parts = value.splitn(3, |byte| *byte == b'\'');
    let (charset, _, name) = (parts.next()?, parts.next()?, parts.next()?);
    decode(Encoding::for_label(charset)?, &unescape(b'%', name)?).filter(|name| !name.is_empty())
}

/// Decodes a value that consists of encoded words (RFC 2047), as .NET sends it.
fn encoded_words(text: &str) -> Option<String> {
    let mut runs: Vec<(&'static Encoding, Vec<u8>)> = Vec::new();
    for word in text.split_ascii_whitespace() {
        let mut parts = word.strip_prefix("=?")?.strip_suffix("?=")?.splitn(3, '?');
        let (charset, form, coded) = (parts.next()?, parts.next()?, parts.next()?);
        // A language may follow the charset (RFC 2231).
        let encoding = Encoding::for_label(charset.split('*').next()?.as_bytes())?;
        let bytes = match form {
            "B" | "b" => BASE64.decode(coded).ok()?,
            "Q" | "q" => unescape(b'=', coded.replace('_', " ").as_bytes())?,
            _ => return None,
        };
        match runs.last_mut() {
            // One character may be split over two words.
            Some((last, run)) if *last == encoding => run.extend(bytes),
            _ => runs.push((encoding, bytes)),
        }
    }
    let words = runs.into_iter().map(|(encoding, bytes)| decode(encoding, &bytes)).collect::<Option<String>>()?;
    Some(words).filter(|words| !words.is_empty())
}

/// Decodes a value written by `encodeURIComponent` or a similar function: it contains only characters that these
/// functions do not escape, and at least one `%XX`.
fn component(text: &str) -> Option<String> {
    let left_alone = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!~*'()%".contains(&byte);
    if !text.contains('%') || !text.bytes().all(left_alone) {
        return None;
    }
    String::from_utf8(unescape(b'%', text.as_bytes())?).ok()
}

/// Replaces each mark and the two hexadecimal digits after it by the byte that they encode.
fn unescape(mark: u8, text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        bytes.push(if *byte == mark { hex(*rest.next()?)? << 4 | hex(*rest.next()?)? } else { *byte });
    }
    Some(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn decode(encoding: &'static Encoding, bytes: &[u8]) -> Option<String> {
    Some(encoding.decode_without_bom_handling_and_without_replacement(bytes)?.into_owned())
}

#[cfg(test)]
mod tests;
