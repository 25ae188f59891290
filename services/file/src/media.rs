//! The media type of a file: detected from its first bytes, otherwise its sender's claim.

use infer::MatcherType;

/// How many of the first bytes are inspected.
pub const HEAD: usize = 8192;
/// The type when nothing is known.
const UNKNOWN: &str = "application/octet-stream";
/// Longest claimed media type that is accepted, in bytes.
const MAX_LEN: usize = 255;
/// Image types that cannot contain a script.
const RASTER: [&str; 10] = [
    "image/avif",
    "image/bmp",
    "image/gif",
    "image/heif",
    "image/jpeg",
    "image/jxl",
    "image/png",
    "image/tiff",
    "image/vnd.microsoft.icon",
    "image/webp",
];

/// A media type, and whether a browser may show the bytes in place.
#[derive(Debug, PartialEq, Eq)]
pub struct Media {
    pub content_type: String,
    pub safe_inline: bool,
}

impl Media {
    /// The type of a file with these first bytes; if they are inconclusive, the claim, provided that it is a media
    /// type.
    pub fn of(head: &[u8], claim: &str) -> Self {
        // Texts can begin with BM too; in a picture four reserved bytes follow the size.
        let certain = |found: &infer::Type| found.mime_type() != "image/bmp" || head.get(6..10) == Some(&[0; 4]);
        let Some(found) = infer::get(head).filter(certain) else {
            return Self { content_type: valid(claim).unwrap_or_else(|| UNKNOWN.into()), safe_inline: false };
        };
        let safe_inline = match found.matcher_type() {
            MatcherType::Audio | MatcherType::Video => true,
            MatcherType::Image => RASTER.contains(&found.mime_type()),
            _ => false,
        };
        Self { content_type: found.mime_type().into(), safe_inline }
    }
}

/// The claim in canonical form, if it is a media type: `type/subtype` with optional `;name=value` (RFC 9110, 8.3.1).
fn valid(claim: &str) -> Option<String> {
    let mut parts = claim.split(';').map(str::trim);
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let parameters = parts.map(|part| part.split_once('=').filter(|(name, value)| is_token(name) && is_token(value)));
    let parameters = parameters.collect::<Option<Vec<_>>>()?;
    if claim.len() > MAX_LEN || !is_token(kind) || !is_token(subtype) {
        return None;
    }
    let media = format!("{kind}/{subtype}").to_ascii_lowercase();
    Some(parameters.iter().fold(media, |media, (name, value)| format!("{media}; {}={value}", name.to_ascii_lowercase())))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(head: &[u8], claim: &str) -> (String, bool) {
        let Media { content_type, safe_inline } = Media::of(head, claim);
        (content_type, safe_inline)
    }

    #[test]
    fn pictures_audio_and_video_are_shown_in_place() {
        for (head, media) in [
            (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], "image/png"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
            (b"GIF89a\x01\0\x01\0", "image/gif"),
            (b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp"),
            (b"BM\x46\0\0\0\0\0\0\0", "image/bmp"),
            (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "image/avif"),
            (b"OggS\0\x02\0\0\0\0\0\0\0\0", "audio/ogg"),
            (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "video/mp4"),
        ] {
            assert_eq!(of(head, "text/plain"), (media.into(), true));
        }
    }

    #[test]
    fn types_that_could_contain_a_script_are_not_shown_in_place() {
        for head in [
            &b"<html><script>alert(1)</script>"[..],
            b"<svg xmlns=\"http://www.w3.org/2000/svg\"><script/></svg>",
            b"<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\"/>",
            b"%PDF-1.7",
            b"plain text",
            b"",
        ] {
            for claim in ["image/png", "video/mp4", "text/html", ""] {
                assert!(!of(head, claim).1, "{head:?} {claim}");
            }
        }
        assert_eq!(of(b"%PDF-1.7", "image/png").0, "application/pdf");
    }

    #[test]
    fn a_claim_counts_where_the_bytes_say_nothing_and_it_is_a_media_type() {
        assert_eq!(of(b"hello", "text/plain").0, "text/plain");
        assert_eq!(of(b"hello", " Text/Plain ;Charset=utf-8").0, "text/plain; charset=utf-8");
        assert_eq!(of(b"BMI is 22.5", "text/plain"), ("text/plain".into(), false));
        assert_eq!(of(b"hello", "image/svg+xml"), ("image/svg+xml".into(), false));
        let long = format!("text/{}", "x".repeat(300));
        for bad in ["", "text", "text/", "/plain", "a/b/c", "text/pl ain", "text/plain;", "text/plain; x", "a/b\r\nX: y", "té/xt", &long] {
            assert_eq!(of(b"hello", bad), (UNKNOWN.into(), false), "{bad}");
        }
    }
}
