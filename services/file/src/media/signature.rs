//! Distinguishes signatures at the beginning of a file from text that looks like a signature.

use infer::Type;

/// A binary format has a non-text byte within this number of bytes.
const NEAR: usize = 64;
/// Formats whose first bytes may all be printable.
const TEXT: [&str; 6] =
    ["application/pdf", "application/postscript", "application/rtf", "text/html", "text/x-shellscript", "text/xml"];
/// Binary formats that begin with a long printable header, or with data that may be printable.
const LATE: [&str; 5] = [
    "application/vnd.debian.binary-package",
    "application/x-bzip2",
    "application/x-cpio",
    "application/x-unix-archive",
    "audio/amr",
];

/// Returns whether a file has the type of its signature. Many signatures are a few printable characters that may also
/// begin a text; these count only together with the binary bytes that follow them.
pub fn counts(found: &Type, head: &[u8]) -> bool {
    let is_binary = match found.mime_type() {
        _ if may_be_text(found) => true,
        format if LATE.contains(&format) => !is_text(head),
        _ => head.first().is_some_and(|byte| *byte >= 0x80) || !is_text(&head[..head.len().min(NEAR)]),
    };
    is_binary && is_well_formed(found.mime_type(), head)
}

/// Returns whether all bytes of this format may be printable.
pub fn may_be_text(found: &Type) -> bool {
    // The same type also has a binary form.
    TEXT.contains(&found.mime_type()) || found.extension() == "pem"
}

/// Returns whether all bytes can occur in text (WHATWG MIME Sniffing, "binary data byte").
pub fn is_text(bytes: &[u8]) -> bool {
    !bytes.iter().any(|byte| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f))
}

/// Checks the fields after a short signature.
fn is_well_formed(format: &str, head: &[u8]) -> bool {
    match format {
        "image/gif" => head.starts_with(b"GIF87a") || head.starts_with(b"GIF89a"),
        // Four reserved bytes follow the size.
        "image/bmp" => head.get(6..10) == Some(&[0; 4]),
        // Version 0, and three flags.
        "audio/ogg" | "audio/opus" => matches!(head.get(4..6), Some([0, 0..8])),
        // The version of ID3, or an audio frame.
        "audio/mpeg" => head[0] == 0xff || matches!(head.get(3), Some(2..=4)),
        "application/vnd.sqlite3" => head.starts_with(b"SQLite format 3\0"),
        _ => true,
    }
}
