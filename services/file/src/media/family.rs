//! Families of types with the same first bytes, and the canonical names of types.

use infer::Type;

use super::signature::{is_text, may_be_text};

/// Prefixes of the types of documents, programs and books that are zip archives.
const ZIPPED: [&str; 15] = [
    "application/epub",
    "application/java-archive",
    "application/oxps",
    "application/vnd.adobe.",
    "application/vnd.android.",
    "application/vnd.apple.",
    "application/vnd.comicbook",
    "application/vnd.google-earth.kmz",
    "application/vnd.ms-",
    "application/vnd.oasis.opendocument.",
    "application/vnd.openxmlformats-officedocument.",
    "application/x-cbz",
    "application/x-java-archive",
    "application/x-xpinstall",
    "model/3mf",
];
/// Text formats whose type does not begin with `text/`.
const TEXTUAL: [&str; 14] = [
    "application/ecmascript",
    "application/graphql",
    "application/javascript",
    "application/json",
    "application/sql",
    "application/toml",
    "application/x-httpd-php",
    "application/x-javascript",
    "application/x-perl",
    "application/x-python",
    "application/x-ruby",
    "application/x-sh",
    "application/x-shellscript",
    "application/yaml",
];

/// The types that a signature leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Audio or video of one container.
    Sound(Container),
    /// Text with markup in angle brackets.
    Markup,
    Text,
    Zip,
    /// Documents of old Office programs, installers.
    Ole,
    Heif,
    Png,
    Font,
    /// The signature determines the type.
    Closed,
}

/// Containers of audio and video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    Asf,
    Matroska,
    Mp4,
    Mpeg,
    Ogg,
}

/// Returns the family of a file with these first bytes.
pub fn of(found: &Type, head: &[u8]) -> Family {
    match found.mime_type() {
        "text/html" | "text/xml" => Family::Markup,
        _ if may_be_text(found) && is_text(head) => Family::Text,
        "image/heif" => Family::Heif,
        "image/png" => Family::Png,
        "application/font-woff" | "application/font-sfnt" => Family::Font,
        "application/x-ole-storage"
        | "application/msword"
        | "application/vnd.ms-excel"
        | "application/vnd.ms-powerpoint" => Family::Ole,
        _ if head.starts_with(b"PK") => Family::Zip,
        format => container(registered(format)).map_or(Family::Closed, Family::Sound),
    }
}

impl Family {
    /// Returns whether a file of this family may have this type.
    pub fn admits(self, essence: &str) -> bool {
        let is_text = essence.starts_with("text/") || TEXTUAL.contains(&essence) || essence.ends_with("+json");
        match self {
            Self::Sound(kind) => container(essence) == Some(kind),
            Self::Markup => is_text || essence.ends_with("+xml") || essence == "application/xml",
            Self::Text => is_text,
            Self::Zip => {
                essence.ends_with("+zip")
                    || essence == "application/zip"
                    || ZIPPED.iter().any(|prefix| essence.starts_with(prefix)) && !essence.ends_with("+xml")
            }
            Self::Ole => ["application/msword", "application/vnd.ms-", "application/x-msi"]
                .iter()
                .any(|prefix| essence.starts_with(prefix)),
            Self::Heif => essence.starts_with("image/hei"),
            Self::Png => essence == "image/apng",
            Self::Font => essence.starts_with("font/"),
            Self::Closed => false,
        }
    }
}

/// Returns the container of a registered type of audio or video.
fn container(essence: &str) -> Option<Container> {
    Some(match essence {
        "audio/x-ms-wma" | "video/x-ms-asf" | "video/x-ms-wmv" => Container::Asf,
        "audio/matroska" | "audio/webm" | "video/matroska" | "video/webm" => Container::Matroska,
        "audio/3gpp" | "audio/3gpp2" | "audio/mp4" | "video/3gpp" | "video/3gpp2" | "video/mp4" | "video/quicktime" => {
            Container::Mp4
        }
        "audio/mpeg" | "video/mpeg" => Container::Mpeg,
        "application/ogg" | "audio/ogg" | "video/ogg" => Container::Ogg,
        _ => return None,
    })
}

/// Returns the name of the type that a signature determines.
pub fn name(found: &Type) -> &'static str {
    match found.extension() {
        "otf" => "font/otf",
        "ttf" => "font/ttf",
        "woff2" => "font/woff2",
        _ => registered(found.mime_type()),
    }
}

/// Returns the registered name of a type with several names. WAVE is an exception: browsers play `audio/wav`, but
/// download the registered `audio/vnd.wave`.
pub fn registered(essence: &str) -> &str {
    match essence {
        "application/font-woff" | "application/x-font-woff" => "font/woff",
        "application/x-font-otf" | "application/x-font-opentype" => "font/otf",
        "application/x-font-ttf" | "application/x-font-truetype" => "font/ttf",
        "application/x-ogg" => "application/ogg",
        "application/x-zip" | "application/x-zip-compressed" => "application/zip",
        "audio/aacp" | "audio/x-aac" => "audio/aac",
        "audio/x-flac" => "audio/flac",
        "audio/m4a" | "audio/m4b" | "audio/mp4a-latm" | "audio/x-m4a" | "audio/x-m4b" | "audio/x-mp4" => "audio/mp4",
        "audio/mp3" | "audio/mpeg3" | "audio/mpg" | "audio/x-mp3" | "audio/x-mpeg" | "audio/x-mpeg-3"
        | "audio/x-mpeg3" | "audio/x-mpg" => "audio/mpeg",
        "audio/opus" | "audio/vorbis" | "audio/x-ogg" | "audio/x-opus" | "audio/x-opus+ogg" | "audio/x-vorbis"
        | "audio/x-vorbis+ogg" => "audio/ogg",
        "audio/vnd.wave" | "audio/wave" | "audio/x-pn-wav" | "audio/x-wav" | "audio/x-wave" => "audio/wav",
        "audio/x-matroska" => "audio/matroska",
        "audio/x-webm" => "audio/webm",
        "image/jpg" | "image/pjpeg" | "image/x-jpeg" => "image/jpeg",
        "image/x-png" => "image/png",
        "video/avi" | "video/msvideo" | "video/x-avi" | "video/x-msvideo" => "video/vnd.avi",
        "video/m4v" | "video/x-m4v" | "video/x-mp4" => "video/mp4",
        "video/x-matroska" => "video/matroska",
        "video/x-mpeg" | "video/mpg" | "video/x-mpg" => "video/mpeg",
        "video/x-ogg" | "video/x-theora" | "video/x-theora+ogg" => "video/ogg",
        "video/x-quicktime" => "video/quicktime",
        "video/x-webm" => "video/webm",
        other => other,
    }
}
