//! Files.

use std::fmt;

use confab_proto::file::v1::File;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::page::Time;
use super::user::UserJson;

/// A file that is attached to a message.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = MessageFile)]
pub enum FileJson<'a> {
    /// A stored file.
    Present(PresentFile<'a>),
    /// A deleted file that messages still refer to.
    Deleted(DeletedFile<'a>),
}

/// A stored file.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = File)]
pub struct PresentFile<'a> {
    /// UUIDv7.
    #[schema(format = "uuid")]
    id: &'a str,
    /// The last path component of the uploaded name, without control characters, at most 255 bytes.
    name: &'a str,
    /// Size in bytes.
    size: u64,
    /// The media type, detected from the bytes and the uploader's claim; `application/octet-stream` when unknown.
    content_type: &'a str,
    /// SHA-256 of the bytes, in lower-case hexadecimal.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    sha256: &'a str,
    url: FileUrl<'a>,
    /// The room that the file belongs to; null for a file without a room, which only its uploader may read.
    #[schema(format = "uuid", required)]
    room_id: Option<&'a str>,
    #[schema(required)]
    uploaded_by: Option<UserJson<'a>>,
    created_at: Time,
}

/// A deleted file.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeletedFile<'a> {
    /// UUIDv7.
    #[schema(format = "uuid")]
    id: &'a str,
    /// The file's former name.
    name: &'a str,
    /// Always `true`.
    deleted: bool,
}

impl<'a> From<&'a File> for FileJson<'a> {
    fn from(file: &'a File) -> Self {
        if file.deleted {
            return Self::Deleted(DeletedFile { id: &file.id, name: &file.name, deleted: true });
        }
        Self::Present(PresentFile {
            id: &file.id,
            name: &file.name,
            size: file.size,
            content_type: &file.content_type,
            sha256: &file.sha256,
            url: FileUrl(&file.id),
            room_id: file.room_id.as_deref(),
            uploaded_by: file.uploaded_by.as_ref().map(UserJson::from),
            created_at: Time(file.created_at_ms),
        })
    }
}

/// The URL of the file's bytes, relative to this server.
#[derive(Debug, Clone, Copy, ToSchema)]
#[schema(value_type = String, format = "uri-reference")]
pub struct FileUrl<'a>(pub &'a str);

impl fmt::Display for FileUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/api/files/{}", self.0)
    }
}

impl Serialize for FileUrl<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A link to a file's bytes that needs no `Authorization` header.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Link)]
pub struct LinkJson {
    /// The link, relative to this server.
    #[schema(format = "uri-reference")]
    pub url: String,
    /// When the link expires.
    pub expires_at: Time,
}
