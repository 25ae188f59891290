//! The payload of a message that a client sends, over REST or a socket.

use confab_common::{Code, Error, Result, text};
use confab_identity::tokens::Identity;
use confab_proto::limits::{MAX_APP_DATA, MAX_CLIENT_MESSAGE_ID, MAX_CONTENT, MAX_FILES};
use confab_proto::message::v1::{Kind, NewEvent};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

/// A message to send. Fields that the server assigns are ignored.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewMessage {
    /// The room that receives the message.
    #[schema(format = "uuid")]
    pub room_id: String,
    /// 1 to 16,384 bytes of UTF-8. May be empty when `fileIds` names at least one file.
    #[schema(max_length = 16_384)]
    pub content: String,
    /// An id that the client chooses for the message, 1 to 128 bytes. A second request with the same id in the same
    /// room returns the first message and sends nothing.
    #[schema(min_length = 1, max_length = 128)]
    pub client_message_id: Option<String>,
    /// At most 10 files to attach. A file without a room is moved to this room.
    #[schema(max_items = 10)]
    pub file_ids: Option<Vec<String>>,
    /// Data of the app with the message: a JSON object of at most 4,096 bytes and 64 levels, which is kept as it was
    /// sent.
    #[schema(value_type = Option<Object>)]
    pub data: Option<Box<RawValue>>,
}

impl NewMessage {
    /// The room, and the event to append to its log. The event's id is minted here, so that the append can be repeated
    /// safely.
    ///
    /// # Errors
    /// `invalid_request` with the name of the field; `too_large` when the content is over its limit.
    pub fn into_event(self, sender: &Identity) -> Result<(Uuid, NewEvent)> {
        let room_id = text::id("roomId", &self.room_id)?;
        let file_ids = file_ids(self.file_ids.unwrap_or_default())?;
        if self.content.is_empty() && file_ids.is_empty() {
            return Err(Error::field("content", "must not be empty"));
        }
        if self.content.len() > MAX_CONTENT {
            return Err(Error::new(Code::TooLarge, format!("content must be at most {MAX_CONTENT} bytes")));
        }
        text::no_nul("content", &self.content)?;
        if let Some(id) = &self.client_message_id {
            check_client_message_id(id)?;
        }
        let message_data = self.data.map(|data| Box::<str>::from(data).into_string()).unwrap_or_default();
        if !message_data.is_empty() {
            text::json_object("data", &message_data, MAX_APP_DATA)?;
        }
        let event = NewEvent {
            id: Uuid::now_v7().to_string(),
            room_id: room_id.to_string(),
            kind: Kind::Message.into(),
            sender: Some(sender.user.clone()),
            client_message_id: self.client_message_id,
            content: self.content,
            file_ids,
            message_data,
            ..NewEvent::default()
        };
        Ok((room_id, event))
    }
}

/// Checks a `clientMessageId`.
///
/// # Errors
/// `invalid_request` with the name of the field.
pub fn check_client_message_id(id: &str) -> Result<()> {
    text::no_nul("clientMessageId", id)?;
    if !(1..=MAX_CLIENT_MESSAGE_ID).contains(&id.len()) {
        return Err(Error::field("clientMessageId", format!("must be 1 to {MAX_CLIENT_MESSAGE_ID} bytes")));
    }
    Ok(())
}

/// Normalises the file ids to one spelling.
fn file_ids(given: Vec<String>) -> Result<Vec<String>> {
    if given.len() > MAX_FILES {
        return Err(Error::field("fileIds", format!("must be at most {MAX_FILES}")));
    }
    let mut ids = Vec::with_capacity(given.len());
    for (index, id) in given.iter().enumerate() {
        let field = format!("fileIds[{index}]");
        let id = text::id(&field, id)?.to_string();
        if ids.contains(&id) {
            return Err(Error::field(&field, "must be named once"));
        }
        ids.push(id);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests;
