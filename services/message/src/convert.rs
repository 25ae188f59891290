//! Converts between gRPC and domain types, for answers and hints.

use confab_common::{Error, Result, text};
use confab_proto::auth::v1::UserRef;
use confab_proto::file::v1 as file_pb;
use confab_proto::message::v1 as pb;
use confab_proto::room::v1 as room_pb;
use uuid::Uuid;

use crate::store::{
    AccessChange, Change, Event, File, Kind, LastTimes, Level, Marked, Marker, Member, Notify, Op, Reacted, Reaction,
    ReactionEntry, Receipt, Role, RoomHead, State, Version,
};

/// Converts an event to its public form.
pub fn event(event: &Event) -> pb::Event {
    let data = &*event.data;
    pb::Event {
        partition: data.partition,
        position: event.position,
        id: data.id.to_string(),
        room_id: data.room.to_string(),
        seq: event.seq,
        kind: kind_of(event).into(),
        sender: Some(UserRef { id: data.sender.to_string(), username: data.body.sender_username.clone() }),
        client_message_id: data.client_message_id().map(str::to_owned),
        // The text of an edit is that of its message, unless later changes have replaced it.
        content: if data.kind == Kind::Change { String::new() } else { data.body.content.clone() },
        event: data.body.event.clone(),
        data: if data.kind == Kind::System { data.body.data.clone() } else { String::new() },
        message_data: if data.kind == Kind::Message { data.body.data.clone() } else { String::new() },
        created_at_ms: event.created_at_ms,
        files: data.body.files.iter().map(|it| file(it, data.room)).collect(),
        traceparent: String::new(),
        access: data.body.access.as_ref().map(access),
        change: data.change.map(|change| {
            let message = event.message.as_deref().map(self::event).map(Box::new);
            let reactions = data.body.reacted.iter().map(reacted).collect();
            let after = data.body.reactions.iter().filter(|_| message.is_none()).map(reaction).collect();
            Box::new(pb::Change { target: change.target, op: op(change.op).into(), message, reactions, after })
        }),
        state: event.state.as_deref().map(state),
        ordinal: event.ordinal,
    }
}

fn kind_of(event: &Event) -> pb::Kind {
    match event.data.kind {
        Kind::Message => pb::Kind::Message,
        Kind::File => pb::Kind::File,
        Kind::System => pb::Kind::System,
        Kind::Change => pb::Kind::Change,
    }
}

fn op(op: Op) -> pb::Op {
    match op {
        Op::Edit => pb::Op::Edit,
        Op::Delete => pb::Op::Delete,
        Op::Pin => pb::Op::Pin,
        Op::Unpin => pb::Op::Unpin,
        Op::React => pb::Op::React,
    }
}

fn reacted(reacted: &Reacted) -> pb::ReactionChange {
    let user = UserRef { id: reacted.user.to_string(), username: reacted.username.clone() };
    pb::ReactionChange { user: Some(user), name: reacted.name.clone(), on: reacted.on }
}

fn reaction(reaction: &Reaction) -> pb::Reaction {
    pb::Reaction { name: reaction.name.clone(), count: reaction.count, mine: None }
}

pub fn reaction_entry(entry: ReactionEntry) -> pb::ReactionEntry {
    let (id, username) = entry.user;
    pb::ReactionEntry { user: Some(UserRef { id: id.to_string(), username }), name: entry.name, at_ms: entry.at_ms }
}

/// Converts the event of a reaction, or its message if it changes nothing, for its sender: only the present reactions
/// of the message, because the events of many senders are one.
pub fn answered(event: &Event) -> pb::Event {
    let slim = |event: &Event| {
        let (room_id, id) = (event.data.room.to_string(), event.data.id.to_string());
        pb::Event { room_id, id, seq: event.seq, kind: kind_of(event).into(), ..pb::Event::default() }
    };
    let of_message = |message: &Event| {
        let mut state = message.state.as_deref().map(state);
        for reaction in state.iter_mut().flat_map(|state| &mut state.reactions) {
            reaction.mine = Some(event.own.contains(&reaction.name));
        }
        pb::Event { state, ..slim(message) }
    };
    match (event.data.change, event.message.as_deref()) {
        (Some(change), Some(message)) => {
            let message = Some(Box::new(of_message(message)));
            let change = pb::Change {
                target: change.target,
                op: op(change.op).into(),
                message,
                reactions: Vec::new(),
                after: Vec::new(),
            };
            pb::Event { change: Some(Box::new(change)), ..slim(event) }
        }
        _ => of_message(event),
    }
}

fn state(state: &State) -> pb::State {
    pb::State {
        revision: state.revision,
        edited_at_ms: state.edited_at_ms,
        deleted_by: state.deleted_by.clone().map(|(id, username)| UserRef { id: id.to_string(), username }),
        pinned: state.pinned,
        reactions: state.reactions.iter().map(reaction).collect(),
    }
}

pub fn version(version: Version) -> pb::Version {
    let (id, username) = version.by;
    let by = Some(UserRef { id: id.to_string(), username });
    pb::Version { revision: version.revision, content: version.content, at_ms: version.at_ms, by }
}

/// Converts a change of a message from its form in a request.
///
/// # Errors
/// `invalid_request` without a target or an operation, or for a malformed id.
pub fn new_change(change: &pb::NewChange) -> Result<Change> {
    let op = match change.op() {
        pb::Op::Unspecified => return Err(Error::field("change.op", "must be given")),
        pb::Op::Edit => Op::Edit,
        pb::Op::Delete => Op::Delete,
        pb::Op::Pin => Op::Pin,
        pb::Op::Unpin => Op::Unpin,
        pb::Op::React => Op::React,
    };
    if change.target == 0 {
        return Err(Error::field("change.target", "must be given"));
    }
    let target_id = if change.target_id.is_empty() { None } else { Some(text::id("id", &change.target_id)?) };
    let (unchanged_since, moderator, keeps_text) = (change.unchanged_since, change.moderator, change.keep_content);
    Ok(Change { target: change.target, op, target_id, unchanged_since, moderator, keeps_text })
}

fn access(change: &AccessChange) -> pb::AccessChange {
    let visibility = if change.private { room_pb::Visibility::Private } else { room_pb::Visibility::Public };
    let member = |member: &Member| {
        let role = match member.role {
            Role::Member => room_pb::Role::Member,
            Role::Admin => room_pb::Role::Admin,
            Role::Owner => room_pb::Role::Owner,
        };
        pb::RoomMember { user_id: member.user.to_string(), role: role.into() }
    };
    pb::AccessChange {
        members: change.members.iter().map(member).collect(),
        removed: change.removed.iter().map(Uuid::to_string).collect(),
        visibility: visibility.into(),
        changes_visibility: change.changes_visibility,
    }
}

/// Converts a change from the room service's form.
///
/// # Errors
/// `invalid_request` for a malformed id, a member without a role, or an unspecified visibility.
pub fn access_change(change: &pb::AccessChange) -> Result<AccessChange> {
    let visibility = change.visibility();
    if visibility == room_pb::Visibility::Unspecified {
        return Err(Error::field("access.visibility", "must be given"));
    }
    Ok(AccessChange {
        members: members("access.members", &change.members)?,
        removed: change.removed.iter().map(|user| text::id("access.removed", user)).collect::<Result<_>>()?,
        private: visibility == room_pb::Visibility::Private,
        changes_visibility: change.changes_visibility,
    })
}

/// Converts members from the room service's form.
///
/// # Errors
/// `invalid_request` for a malformed id or a member without a role.
pub fn members(field: &str, members: &[pb::RoomMember]) -> Result<Vec<Member>> {
    let member = |member: &pb::RoomMember| {
        let role = match member.role() {
            room_pb::Role::Member => Role::Member,
            room_pb::Role::Admin => Role::Admin,
            room_pb::Role::Owner => Role::Owner,
            room_pb::Role::Unspecified => return Err(Error::field(field, "must have a role")),
        };
        Ok(Member { user: text::id(field, &member.user_id)?, role })
    };
    members.iter().map(member).collect()
}

/// Converts a file of that room to its public form; a deleted file has only its name.
fn file(file: &File, room: Uuid) -> file_pb::File {
    let named =
        file_pb::File { id: file.id.to_string(), name: file.name.clone(), deleted: file.deleted, ..Default::default() };
    if file.deleted {
        return named;
    }
    file_pb::File {
        size: file.size,
        content_type: file.content_type.clone(),
        sha256: file.sha256.clone(),
        room_id: Some(room.to_string()),
        uploaded_by: Some(UserRef { id: file.uploader.to_string(), username: file.uploader_username.clone() }),
        created_at_ms: file.created_at_ms,
        safe_inline: file.safe_inline,
        ..named
    }
}

/// Converts a file of that room from the file service's form.
///
/// # Errors
/// `invalid_request` when the file is incomplete or belongs to another room.
pub fn new_file(file: file_pb::File, room_id: &str) -> Result<File> {
    if !file.room_id.is_some_and(|of| of.eq_ignore_ascii_case(room_id)) {
        return Err(Error::field("files", "must be of the event's room"));
    }
    let uploader = file.uploaded_by.ok_or_else(|| Error::field("files", "must have an uploader"))?;
    Ok(File {
        id: text::id("files", &file.id)?,
        name: file.name,
        size: file.size,
        content_type: file.content_type,
        sha256: file.sha256,
        uploader: text::id("files", &uploader.id)?,
        uploader_username: uploader.username,
        created_at_ms: file.created_at_ms,
        safe_inline: file.safe_inline,
        deleted: false,
    })
}

pub fn room_head((head, times): (RoomHead, LastTimes)) -> pb::RoomHead {
    let RoomHead { room, seq, closed, messages } = head;
    let (last_event_at_ms, last_event_until_ms) = (times.newest, times.until);
    pb::RoomHead { room_id: room.to_string(), seq, closed, last_event_at_ms, last_event_until_ms, messages }
}

pub fn marked(marked: Marked) -> pb::Marked {
    let Marked { seq, at_ms, unread, moved, has_receipts, passed } = marked;
    pb::Marked { seq, at_ms, unread, moved, has_receipts, passed }
}

pub fn marker(marker: Marker) -> pb::Marker {
    let Marker { room, seq, unread, head, last_message_at_ms, notify } = marker;
    let level = match notify.level {
        Level::All => pb::Level::All,
        Level::Mentions => pb::Level::Mentions,
        Level::Nothing => pb::Level::None,
    };
    let notify = Some(pb::Notify { level: level.into(), until_ms: notify.until_ms });
    pb::Marker { room_id: room.to_string(), read_seq: seq, unread, last_seq: head, last_message_at_ms, notify }
}

pub fn receipt(receipt: Receipt) -> pb::Receipt {
    pb::Receipt { user_id: receipt.user.to_string(), seq: receipt.seq, at_ms: receipt.at_ms }
}

/// Converts notifications from their form in a request.
///
/// # Errors
/// `invalid_request` without a level.
pub fn notify(notify: pb::Notify) -> Result<Notify> {
    let level = match notify.level() {
        pb::Level::Unspecified => return Err(Error::field("notify.level", "must be given")),
        pb::Level::All => Level::All,
        pb::Level::Mentions => Level::Mentions,
        pb::Level::None => Level::Nothing,
    };
    Ok(Notify { level, until_ms: notify.until_ms })
}

/// Converts the kind of an event in a request; `None` if this version does not have the kind.
pub fn kind(kind: i32) -> Option<Kind> {
    match pb::Kind::try_from(kind).ok()? {
        pb::Kind::Unspecified => None,
        pb::Kind::Message => Some(Kind::Message),
        pb::Kind::File => Some(Kind::File),
        pb::Kind::System => Some(Kind::System),
        pb::Kind::Change => Some(Kind::Change),
    }
}
