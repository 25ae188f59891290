//! Tells a user which reactions are the user's own. Events and shared pages have only the numbers of reactions, which are
//! the same for all receivers.

use std::collections::BTreeMap;

use confab_common::{Result, grpc};
use confab_identity::credential::Credential;
use confab_proto::message::v1::{Event, ListOwnReactionsRequest, Reading};
use uuid::Uuid;

use crate::clients::Clients;

/// The most messages in one call.
const MAX_MESSAGES: usize = 400;

/// Returns the names with which a user has reacted to these messages of a room, by their `seq`. Messages without
/// reactions need not be among them: no message, no call.
///
/// # Errors
/// When the message service does not answer, or the user may not read the room.
pub async fn read(
    clients: &Clients,
    room: Uuid,
    (user, credential): (Uuid, &Credential),
    seqs: Vec<u64>,
) -> Result<BTreeMap<u64, Vec<String>>> {
    let mut own = BTreeMap::new();
    for seqs in seqs.chunks(MAX_MESSAGES) {
        let reading = Reading { room_id: room.to_string(), reader: user.to_string(), moderator: false };
        let list = ListOwnReactionsRequest { reading: Some(reading), seqs: seqs.to_vec() };
        let list = credential.attach(grpc::request(list, clients.read));
        let answer = clients.message.clone().list_own_reactions(list).await?.into_inner();
        own.extend(answer.messages.into_iter().map(|message| (message.seq, message.names)));
    }
    Ok(own)
}

/// Marks the user's own reactions in messages of a room. For a reader without a user, none is own.
///
/// # Errors
/// As [`read`].
pub async fn mark(
    clients: &Clients,
    room: Uuid,
    user: Option<(Uuid, &Credential)>,
    messages: &mut [Event],
) -> Result<()> {
    let of = |event: &Event| event.state.as_ref().is_some_and(|state| !state.reactions.is_empty());
    let seqs = messages.iter().filter(|message| of(message)).map(|message| message.seq).collect::<Vec<_>>();
    let own = match user {
        Some(user) if !seqs.is_empty() => read(clients, room, user, seqs).await?,
        _ => BTreeMap::new(),
    };
    for message in messages {
        let names = own.get(&message.seq);
        for reaction in message.state.iter_mut().flat_map(|state| &mut state.reactions) {
            reaction.mine = Some(names.is_some_and(|names| names.contains(&reaction.name)));
        }
    }
    Ok(())
}
