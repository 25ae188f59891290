//! Validates an event before it is queued.

use std::sync::Arc;
use std::time::Duration;

use confab_common::telemetry::trace::Span;
use confab_common::{Code, Error, Result, text};
use confab_proto::limits::{MAX_APP_DATA, MAX_CLIENT_MESSAGE_ID, MAX_CONTENT, MAX_FILES, MAX_REACTION};
use confab_proto::partition;
use tokio::time::Instant;
use uuid::Uuid;

use crate::lanes::Pending;
use crate::store::{AccessChange, Body, Change, EventData, File, Kind, Op, Reacted, client_id};

/// Longest data of a system event, in bytes (64 KiB).
const MAX_DATA: usize = 64 * 1024;
/// Most members that one event adds, and that it removes.
pub const MAX_CHANGED: usize = 1000;
/// Longest name from another service, in bytes: of a sender, an event or a file.
const MAX_NAME: usize = 256;
/// The names of all room events. Only [`ROOM_DELETED`] closes its room.
const ROOM_EVENTS: [&str; 4] = ["memberJoined", "memberLeft", "roomUpdated", ROOM_DELETED];
const ROOM_DELETED: &str = "roomDeleted";
/// Length of a SHA-256 in hexadecimal digits.
const SHA256: usize = 64;
/// The timeout of a caller that does not send a timeout.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(2500);
/// The longest timeout that a caller can send.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// An event as its sender sent it, not validated yet.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct NewEvent {
    pub id: String,
    pub room_id: String,
    pub kind: Option<Kind>,
    /// Id and name.
    pub sender: Option<(String, String)>,
    pub client_message_id: Option<String>,
    pub content: String,
    pub event: String,
    pub data: String,
    /// [`Kind::Message`]: ids of files to attach.
    pub file_ids: Vec<String>,
    /// [`Kind::File`]: the shared files.
    pub files: Vec<File>,
    pub closes_room: bool,
    /// [`Kind::System`]: the change of the room's visibility or members.
    pub access: Option<AccessChange>,
    /// [`Kind::Change`]: what to change.
    pub change: Option<Change>,
    /// [`Kind::Message`]: the app's data; empty without.
    pub message_data: String,
    /// [`Op::Edit`]: the new data of the app.
    pub new_data: Option<String>,
    /// [`Op::React`]: the name, and whether the reaction is set or ends.
    pub reaction: Option<(String, bool)>,
    /// The span that appends the event; empty for none.
    pub traceparent: String,
    /// How long the caller waits; zero for the default.
    pub timeout: Duration,
}

/// A valid event whose files are not attached yet.
#[derive(Debug)]
pub struct Checked {
    /// The event and its deadline.
    pub pending: Pending,
    /// Ids of the files to attach first.
    pub file_ids: Vec<Uuid>,
}

/// Validates an event that arrived at `arrived`.
///
/// # Errors
/// `invalid_request` for the first invalid field, `too_large` for too much content.
pub fn check(new: NewEvent, partitions: u32, arrived: Instant) -> Result<Checked> {
    let id = text::id("id", &new.id)?;
    let room = text::id("roomId", &new.room_id)?;
    let kind = new.kind.ok_or_else(|| Error::field("kind", "must be a known kind"))?;
    let (sender, sender_username) = new.sender.ok_or_else(|| Error::field("sender", "must be given"))?;
    let sender = text::id("sender", &sender)?;
    within("sender", &sender_username, 1, MAX_NAME)?;
    if let Some(chosen) = &new.client_message_id {
        within("clientMessageId", chosen, 1, MAX_CLIENT_MESSAGE_ID)?;
    }
    if new.content.len() > MAX_CONTENT {
        return Err(Error::new(Code::TooLarge, format!("content must be at most {MAX_CONTENT} bytes")));
    }
    let says_nothing_else = kind == Kind::Message && new.file_ids.is_empty();
    within("content", &new.content, usize::from(says_nothing_else), MAX_CONTENT)?;
    check_event(kind, &new.event, new.closes_room)?;
    if let Some(change) = &new.access {
        check_access(kind, change)?;
    }
    check_change(kind, new.change.as_ref(), &new.content)?;
    let reacts = new.change.is_some_and(|change| change.op == Op::React);
    check_reaction(reacts, new.change, new.reaction.as_ref(), new.client_message_id.as_deref())?;
    let reacted = new.reaction.filter(|_| reacts).map(|(name, on)| {
        let username = sender_username.clone();
        Reacted { user: sender, username, name, on }
    });
    within("data", &new.data, 0, MAX_DATA)?;
    let app_data = check_app_data(kind, new.change, &new.message_data, new.new_data.as_deref())?;
    count("fileIds", new.file_ids.len(), 0, if kind == Kind::Message { MAX_FILES } else { 0 })?;
    let file_ids = new.file_ids.iter().map(|id| text::id("fileIds", id)).collect::<Result<Vec<_>>>()?;
    distinct("fileIds", file_ids.iter().copied())?;
    count("files", new.files.len(), usize::from(kind == Kind::File), if kind == Kind::File { MAX_FILES } else { 0 })?;
    new.files.iter().try_for_each(check_file)?;
    distinct("files", new.files.iter().map(|file| file.id))?;
    let timeout = if new.timeout.is_zero() { DEFAULT_TIMEOUT } else { new.timeout.min(MAX_TIMEOUT) };
    let data = EventData {
        partition: partition::of_room(room, partitions),
        room,
        id,
        kind,
        sender,
        client_id: client_id(new.client_message_id.as_deref(), id),
        body: Body {
            sender_username,
            content: new.content,
            event: new.event,
            data: if kind == Kind::System { new.data } else { app_data.unwrap_or_default() },
            access: new.access,
            files: new.files,
            reacted: reacted.into_iter().collect(),
            reactions: Vec::new(),
        },
        change: new.change,
        closes_room: new.closes_room,
    };
    Ok(Checked {
        pending: Pending { data: Arc::new(data), deadline: arrived + timeout, span: Span::arrived(&new.traceparent) },
        file_ids,
    })
}

/// Checks that a room event has one of the known names, and that other events have no name and close no room.
fn check_event(kind: Kind, event: &str, closes_room: bool) -> Result<()> {
    let known = if kind == Kind::System { ROOM_EVENTS.contains(&event) } else { event.is_empty() };
    if !known {
        return Err(Error::field(
            "event",
            format!("must be one of {} in a system event, and empty in other events", ROOM_EVENTS.join(", ")),
        ));
    }
    if closes_room && event != ROOM_DELETED {
        return Err(Error::field("closesRoom", format!("must be false in all events except {ROOM_DELETED}")));
    }
    Ok(())
}

/// Checks that a change of a room's visibility or members comes with a room event, and is bounded.
fn check_access(kind: Kind, change: &AccessChange) -> Result<()> {
    if kind != Kind::System {
        return Err(Error::field("access", "must be absent in all events except system events"));
    }
    if change.members.len() > MAX_CHANGED || change.removed.len() > MAX_CHANGED {
        return Err(Error::field("access", format!("must change at most {MAX_CHANGED} members")));
    }
    Ok(())
}

/// Checks that exactly the events that change a message name the change, and that only an edit has a text.
fn check_change(kind: Kind, change: Option<&Change>, content: &str) -> Result<()> {
    match change {
        None if kind == Kind::Change => Err(Error::field("change", "must be given")),
        Some(_) if kind != Kind::Change => Err(Error::field("change", "must be absent in events of other kinds")),
        Some(change) if (change.op != Op::Edit || change.keeps_text) && !content.is_empty() => {
            Err(Error::field("content", "must be empty in changes except edits of the text"))
        }
        Some(change) if change.op != Op::Edit && change.keeps_text => {
            Err(Error::field("change.keepContent", "must be false in changes except edits"))
        }
        _ => Ok(()),
    }
}

/// Checks that only messages and edits have data of an app, and returns it. An edit has a text, data, or both.
fn check_app_data(
    kind: Kind,
    change: Option<Change>,
    of_message: &str,
    of_edit: Option<&str>,
) -> Result<Option<String>> {
    let edits = change.is_some_and(|change| change.op == Op::Edit);
    if (kind != Kind::Message && !of_message.is_empty()) || (!edits && of_edit.is_some()) {
        return Err(Error::field("data", "must be absent here"));
    }
    if change.is_some_and(|change| change.keeps_text) && of_edit.is_none() {
        return Err(Error::field("change.keepContent", "must go together with data"));
    }
    let given = of_edit.or((!of_message.is_empty()).then_some(of_message));
    given.map(|data| text::json_object("data", data, MAX_APP_DATA).map(|()| data.to_owned())).transpose()
}

/// Checks that exactly the reactions have a name. They are acts of a user, and have no client id, because a repeat sets
/// them again.
fn check_reaction(
    reacts: bool,
    change: Option<Change>,
    reaction: Option<&(String, bool)>,
    client_message_id: Option<&str>,
) -> Result<()> {
    let name = reaction.map_or("", |(name, _)| name);
    if !reacts {
        return if name.is_empty() { Ok(()) } else { Err(Error::field("change.name", "must be empty here")) };
    }
    text::reaction("name", name, MAX_REACTION)?;
    if client_message_id.is_some() {
        return Err(Error::field("clientMessageId", "must be absent in reactions"));
    }
    if change.is_some_and(|change| change.unchanged_since.is_some()) {
        return Err(Error::field("change.unchangedSince", "must be absent in reactions"));
    }
    if change.is_some_and(|change| change.moderator) {
        return Err(Error::new(Code::Forbidden, "only users react to messages"));
    }
    Ok(())
}

fn check_file(file: &File) -> Result<()> {
    within("files", &file.name, 1, MAX_NAME)?;
    within("files", &file.content_type, 1, MAX_NAME)?;
    within("files", &file.uploader_username, 1, MAX_NAME)?;
    if file.sha256.len() == SHA256 && file.sha256.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        Ok(())
    } else {
        Err(Error::field("files", "must have a SHA-256 in lower-case hexadecimal"))
    }
}

/// Checks that a text has `min` to `max` bytes and no NUL characters.
fn within(field: &str, value: &str, min: usize, max: usize) -> Result<()> {
    text::no_nul(field, value)?;
    match value.len() {
        0 if min > 0 => Err(Error::field(field, "must not be empty")),
        len if len > max => Err(Error::field(field, format!("must be at most {max} bytes"))),
        _ => Ok(()),
    }
}

/// Checks that a list has `min` to `max` items.
fn count(field: &str, len: usize, min: usize, max: usize) -> Result<()> {
    match len {
        0 if min > 0 => Err(Error::field(field, "must not be empty")),
        1.. if max == 0 => Err(Error::field(field, "must be absent here")),
        len if len > max => Err(Error::field(field, format!("must be at most {max}"))),
        _ => Ok(()),
    }
}

/// Checks that no id occurs twice.
fn distinct(field: &str, ids: impl Iterator<Item = Uuid> + Clone) -> Result<()> {
    if ids.clone().enumerate().any(|(n, id)| ids.clone().take(n).any(|earlier| earlier == id)) {
        Err(Error::field(field, "must contain each file only once"))
    } else {
        Ok(())
    }
}
