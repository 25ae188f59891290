//! The media type of a file: detected from its first bytes, refined by the sender's claim.

mod claim;
mod family;
mod signature;

use infer::MatcherType;

/// How many of the first bytes are inspected.
pub const HEAD: usize = 8192;
/// The type when none is detected.
const UNKNOWN: &str = "application/octet-stream";
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

/// A media type, and whether a browser may show the file inline.
#[derive(Debug, PartialEq, Eq)]
pub struct Media {
    pub content_type: String,
    pub safe_inline: bool,
}

impl Media {
    /// Returns the type of a file with these first bytes. The claim is used if no type is detected, or if it names a
    /// type of the same family: audio in a container that could contain video, a document in a zip archive, Markdown
    /// that begins like HTML. Whether the file is shown inline depends only on the bytes.
    pub fn of(head: &[u8], claim: &str) -> Self {
        let claim = claim::parse(claim);
        let Some(found) = infer::get(head).filter(|found| signature::counts(found, head)) else {
            return Self {
                content_type: claim.map_or_else(|| UNKNOWN.into(), |claim| claim.to_string()),
                safe_inline: false,
            };
        };
        let safe_inline = match found.matcher_type() {
            MatcherType::Audio | MatcherType::Video => true,
            MatcherType::Image => RASTER.contains(&found.mime_type()),
            _ => false,
        };
        let content_type = match claim {
            Some(claim) if family::of(&found, head).admits(&claim.essence) => claim.to_string(),
            _ => family::name(&found).into(),
        };
        Self { content_type, safe_inline }
    }
}

#[cfg(test)]
mod tests;
