//! A change of a message that a client requests, over REST or a socket.

use confab_common::{Code, Error, Result, text};
use confab_proto::auth::v1::UserRef;
use confab_proto::limits::{MAX_APP_DATA, MAX_CONTENT, MAX_REACTION};
use confab_proto::message::v1::{self as message, Kind, NewEvent, Op};
use uuid::Uuid;

use crate::new_message::check_client_message_id;

/// A change of a message. The message service decides whether its sender may make it.
#[derive(Debug, Clone)]
pub struct NewChange {
    pub room: Uuid,
    /// The `seq` of the message.
    pub target: u64,
    pub op: Op,
    /// The new text, for an edit that changes it; otherwise empty.
    pub content: String,
    /// Whether an edit keeps the text.
    pub keeps_text: bool,
    /// The new data of the app, for an edit that changes it.
    pub data: Option<String>,
    /// The id that the message must have.
    pub target_id: Option<String>,
    /// The message must not have been edited or deleted after this `seq`.
    pub unchanged_since: Option<u64>,
    pub client_message_id: Option<String>,
    /// The name of a reaction, and whether it is set or ends.
    pub reaction: Option<(String, bool)>,
}

impl NewChange {
    /// A change without conditions.
    pub fn new(room: Uuid, target: u64, op: Op) -> Self {
        Self {
            room,
            target,
            op,
            content: String::new(),
            keeps_text: false,
            data: None,
            target_id: None,
            unchanged_since: None,
            client_message_id: None,
            reaction: None,
        }
    }

    /// A reaction that is set or ends. It is a state: a client that repeats it sets it again.
    pub fn react(room: Uuid, target: u64, name: String, on: bool) -> Self {
        Self { reaction: Some((name, on)), ..Self::new(room, target, Op::React) }
    }

    /// An edit of the text, of the app's data, or of both.
    ///
    /// # Errors
    /// `invalid_request` without either.
    pub fn edit(room: Uuid, target: u64, content: Option<String>, data: Option<String>) -> Result<Self> {
        if content.is_none() && data.is_none() {
            return Err(Error::field("content", "must be given, or data"));
        }
        let keeps_text = content.is_none();
        Ok(Self { content: content.unwrap_or_default(), keeps_text, data, ..Self::new(room, target, Op::Edit) })
    }

    /// The event to append. Its id is minted here, so that the append can be repeated safely. `moderator`: the sender
    /// is a server key without a user.
    ///
    /// # Errors
    /// `invalid_request` with the name of the field; `too_large` when the text is over its limit.
    pub fn into_event(self, sender: UserRef, moderator: bool) -> Result<NewEvent> {
        if self.target == 0 {
            return Err(Error::field("seq", "must be at least 1"));
        }
        if self.content.len() > MAX_CONTENT {
            return Err(Error::new(Code::TooLarge, format!("content must be at most {MAX_CONTENT} bytes")));
        }
        text::no_nul("content", &self.content)?;
        if let Some(data) = &self.data {
            text::json_object("data", data, MAX_APP_DATA)?;
        }
        let target_id = self.target_id.map(|id| text::id("id", &id)).transpose()?;
        if let Some(id) = &self.client_message_id {
            check_client_message_id(id)?;
        }
        if let Some((name, _)) = &self.reaction {
            text::reaction("name", name, MAX_REACTION)?;
        }
        let (name, on) = self.reaction.unwrap_or_default();
        // Numbers above the database's largest integer belong to no message either.
        let most = |seq: u64| seq.min(i64::MAX as u64);
        let change = message::NewChange {
            target: most(self.target),
            op: self.op.into(),
            target_id: target_id.map(|id| id.to_string()).unwrap_or_default(),
            unchanged_since: self.unchanged_since.map(most),
            moderator,
            name,
            on,
            data: self.data,
            keep_content: self.keeps_text,
        };
        Ok(NewEvent {
            id: Uuid::now_v7().to_string(),
            room_id: self.room.to_string(),
            kind: Kind::Change.into(),
            sender: Some(sender),
            client_message_id: self.client_message_id,
            content: self.content,
            change: Some(change),
            ..NewEvent::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Uuid = Uuid::from_u128(7);

    fn edit() -> NewChange {
        NewChange::edit(ROOM, 5, Some("tea".into()), None).unwrap()
    }

    fn event(change: NewChange) -> Result<NewEvent> {
        change.into_event(UserRef { id: "u".into(), username: "ada".into() }, false)
    }

    #[test]
    fn a_change_names_its_message_and_its_conditions() {
        let id = Uuid::from_u128(9).to_string();
        let conditional = NewChange { target_id: Some(id.to_uppercase()), unchanged_since: Some(u64::MAX), ..edit() };
        let event = event(conditional).unwrap();
        assert_eq!((event.kind(), &*event.content, &*event.room_id), (Kind::Change, "tea", &*ROOM.to_string()));
        let unchanged_since = Some(i64::MAX as u64);
        let change = message::NewChange {
            target: 5,
            op: Op::Edit.into(),
            target_id: id,
            unchanged_since,
            ..message::NewChange::default()
        };
        assert_eq!(event.change, Some(change));
    }

    #[test]
    fn an_invalid_field_is_named() {
        let field = |change| event(change).unwrap_err().fields[0].field.clone();
        assert_eq!(field(NewChange { target: 0, ..edit() }), "seq");
        assert_eq!(field(NewChange { content: "a\0".into(), ..edit() }), "content");
        assert_eq!(field(NewChange { target_id: Some("x".into()), ..edit() }), "id");
        assert_eq!(field(NewChange { client_message_id: Some(String::new()), ..edit() }), "clientMessageId");
        assert_eq!(NewChange::edit(ROOM, 5, None, None).unwrap_err().fields[0].field, "content");
        assert_eq!(field(NewChange { data: Some("[]".into()), ..edit() }), "data");
        let long = event(NewChange { content: "x".repeat(MAX_CONTENT + 1), ..edit() });
        assert_eq!(long.unwrap_err().code, Code::TooLarge);
        // A message with files may lose its text.
        assert!(event(NewChange { content: String::new(), ..edit() }).is_ok());
    }
}
