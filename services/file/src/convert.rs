//! Converts files to their gRPC form, for answers and events.

use confab_proto::auth::v1::UserRef;
use confab_proto::file::v1 as pb;

use crate::store::{File, User};

pub fn file(file: &File) -> pb::File {
    pb::File {
        id: file.id.to_string(),
        name: file.name.clone(),
        size: file.size,
        content_type: file.content_type.clone(),
        sha256: file.sha256.clone(),
        room_id: file.room.map(|room| room.to_string()),
        uploaded_by: Some(user(&file.uploader)),
        created_at_ms: file.created_at_ms,
        deleted: false,
        safe_inline: file.safe_inline,
    }
}

pub fn user(user: &User) -> UserRef {
    UserRef { id: user.id.to_string(), username: user.username.clone() }
}
