//! Checks that the sender of each message and of each change, and each reader of a page, is the user of a valid credential. Batches name
//! credentials by their digests, so that a known credential costs a look-up.

use std::collections::{HashMap, HashSet};

use confab_common::{Code, Error, Result};
use confab_identity::callers::{Found, Verified, foreign};
use confab_identity::claim::{Claim, Named};
use confab_identity::credential::Digest;
use confab_proto::message::v1 as pb;
use confab_proto::server_key::Scope;

use crate::service::{MAX_MARKS, MAX_READERS};

/// A server key needs this scope.
const SCOPES: &[Scope] = &[Scope::Messages];
/// To read the head of a room without its events, one of these suffices.
const HEAD_SCOPES: &[Scope] = &[Scope::Rooms, Scope::Messages];

/// An event to append, or the error to answer. `None`: the credential is not known, or that of an earlier event in the
/// room, so the caller sends the event again.
pub type Admission = Option<Result<pb::NewEvent>>;

/// The credentials of one request, each looked up once.
struct Credentials(HashMap<Digest, Found>);

impl Credentials {
    /// The user or key of a credential that was looked up; `None` if it is not known.
    fn get(&self, name: &[u8]) -> Option<Result<&Verified>> {
        match Digest::try_from(name) {
            Ok(name) => Some(self.0.get(&name)?.as_ref()?.as_deref().map_err(Error::clone)),
            Err(_) => Some(Err(Error::field("credential", "must be 16 bytes"))),
        }
    }
}

/// The events of a request that must not be appended now, because they would overtake an earlier one.
#[derive(Default)]
struct Waiting {
    /// Rooms with an event whose credential is not known.
    rooms: HashSet<String>,
    /// Rooms and senders with an event that was rejected with `unavailable`. Other senders in the room go on: an
    /// attacker must not stop a room with a credential that cannot be verified.
    lines: HashSet<(String, String)>,
}

impl Waiting {
    /// Whether an earlier event of the sender in the room was rejected.
    fn has_line(&self, event: &pb::NewEvent) -> bool {
        !self.lines.is_empty() && self.lines.contains(&line(event))
    }

    /// Whether the credential of an earlier event in the room is not known.
    fn has_room(&self, event: &pb::NewEvent) -> bool {
        !self.rooms.is_empty() && self.rooms.contains(&room(event))
    }
}

fn room(event: &pb::NewEvent) -> String {
    event.room_id.to_ascii_lowercase()
}

/// The room and the sender of an event.
fn line(event: &pb::NewEvent) -> (String, String) {
    let sender = event.sender.as_ref().map_or_else(String::new, |sender| sender.id.to_ascii_lowercase());
    (room(event), sender)
}

fn unavailable() -> Error {
    Error::unavailable("the verification of an earlier message's credential")
}

/// Checks the senders of messages. After an event whose credential is not known, all later events of the room are not
/// admitted either: the caller sends them again, and they must not overtake that event. After an event whose credential
/// cannot be verified within 400 ms, this applies to the later events of its sender in the room.
///
/// # Errors
/// `invalid_request` for more credentials than events; `unavailable` while this replica cannot verify tokens, so that the
/// caller asks another one.
pub async fn admit(claim: &Claim, events: Vec<pb::NewEvent>, given: &[pb::Credential]) -> Result<Vec<Admission>> {
    if given.len() > events.len() {
        return Err(Error::field("credentials", "must not be more than events"));
    }
    let Some(callers) = claim.callers() else {
        return Ok(events.into_iter().map(|event| Some(Ok(event))).collect());
    };
    let names = events.iter().filter_map(|event| Digest::try_from(&*event.credential).ok()).collect();
    let credentials = Credentials(callers.find_all(given, names).await);
    let (mut waiting, mut unknown) = (Waiting::default(), 0);
    let mut admitted = Vec::with_capacity(events.len());
    for mut event in events {
        let checked = if waiting.has_line(&event) {
            Some(Err(unavailable()))
        } else if waiting.has_room(&event) {
            None
        } else {
            let checked = check_sender(claim, &credentials, &mut event);
            match &checked {
                None => {
                    unknown += 1;
                    waiting.rooms.insert(room(&event));
                }
                Some(Err(error)) if error.code == Code::Unavailable && !callers.is_ready() => {
                    return Err(error.clone());
                }
                Some(Err(error)) if error.code == Code::Unavailable => _ = waiting.lines.insert(line(&event)),
                Some(_) => {}
            }
            checked
        };
        admitted.push(checked.map(|checked| checked.map(|()| event)));
    }
    confab_identity::count_unknown(unknown);
    Ok(admitted)
}

/// Checks the sender of an event; `None` if its credential is not known.
fn check_sender(claim: &Claim, credentials: &Credentials, event: &mut pb::NewEvent) -> Option<Result<()>> {
    let is_moderator = event.change.as_ref().is_some_and(|change| change.moderator);
    match event.kind() {
        pb::Kind::Change if is_moderator => {
            let key = event.sender.as_mut().map_or(Named::AnyKey, Named::Moderator);
            return Some(claim.check_named(key, SCOPES));
        }
        pb::Kind::Message | pb::Kind::Change => {}
        // The other kinds are appended by services, which have checked the user.
        _ => return Some(Ok(())),
    }
    let name = std::mem::take(&mut event.credential);
    let Some(sender) = event.sender.as_mut() else { return Some(Ok(())) };
    if name.is_empty() {
        return Some(claim.check_named(Named::User(sender), SCOPES));
    }
    Some(credentials.get(&name)?.and_then(|verified| proves(verified, Named::User(sender), SCOPES)))
}

/// Checks the users of marks. `None` for a mark whose credential is not known, so that the caller sends it again.
///
/// # Errors
/// `too_large` for more than 1024 marks; `invalid_request` for more credentials than marks; `unavailable` while this
/// replica cannot verify tokens, so that the caller asks another one.
pub async fn markers(claim: &Claim, marks: &[pb::Mark], given: &[pb::Credential]) -> Result<Vec<Option<Result<()>>>> {
    if marks.len() > MAX_MARKS {
        return Err(Error::new(Code::TooLarge, format!("at most {MAX_MARKS} marks at once")));
    }
    if given.len() > marks.len() {
        return Err(Error::field("credentials", "must not be more than marks"));
    }
    let Some(callers) = claim.callers() else { return Ok(marks.iter().map(|_| Some(Ok(()))).collect()) };
    let names = marks.iter().filter_map(|mark| Digest::try_from(&*mark.credential).ok()).collect();
    let credentials = Credentials(callers.find_all(given, names).await);
    let mut unknown = 0;
    let mut checked = Vec::with_capacity(marks.len());
    for mark in marks {
        let user = Named::UserId(&mark.user_id);
        let outcome = if mark.credential.is_empty() {
            Some(claim.check_named(user, SCOPES))
        } else {
            credentials.get(&mark.credential).map(|verified| verified.and_then(|by| proves(by, user, SCOPES)))
        };
        if let Some(Err(error)) = &outcome
            && error.code == Code::Unavailable
            && !callers.is_ready()
        {
            return Err(error.clone());
        }
        unknown += usize::from(outcome.is_none());
        checked.push(outcome);
    }
    confab_identity::count_unknown(unknown);
    Ok(checked)
}

/// The readers of a page.
pub enum Readers {
    Checked {
        /// Those who may read, if the room allows it.
        admitted: Vec<String>,
        /// Those whose credentials are not valid.
        refused: Vec<String>,
    },
    /// The caller repeats the request with the credentials, and without these readers, whose credentials cannot be
    /// verified within 400 ms.
    Unknown { unverified: Vec<String> },
}

/// Checks the readers of a page.
///
/// # Errors
/// `invalid_request` if not every reader has a credential; `unauthorized` or `forbidden` if none has a valid one;
/// `unavailable` while this replica cannot verify tokens, so that the caller asks another one.
pub async fn readers(claim: &Claim, request: &pb::ListEventsRequest) -> Result<Readers> {
    let pb::ListEventsRequest { readers, reader_credentials: names, credentials: given, moderator, .. } = request;
    let all = || Readers::Checked { admitted: readers.clone(), refused: Vec::new() };
    let Some(callers) = claim.callers() else { return Ok(all()) };
    let scopes = if request.limit == 0 { HEAD_SCOPES } else { SCOPES };
    if *moderator {
        claim.check_named(Named::AnyKey, scopes)?;
        return Ok(all());
    }
    if names.is_empty() {
        readers.iter().try_for_each(|reader| claim.check_named(Named::UserId(reader), scopes))?;
        return Ok(all());
    }
    if names.len() != readers.len() || given.len() > readers.len() {
        return Err(Error::field("readerCredentials", "must be as many as readers"));
    }
    if readers.len() > MAX_READERS {
        return Err(Error::field("readers", format!("must be at most {MAX_READERS}")));
    }
    let digests = names.iter().filter_map(|name| Digest::try_from(&**name).ok()).collect();
    let credentials = Credentials(callers.find_all(given, digests).await);
    let (mut admitted, mut refused, mut unverified) = (Vec::new(), Vec::new(), Vec::new());
    let (mut is_unknown, mut reason) = (false, None);
    for (reader, name) in readers.iter().zip(names) {
        let Some(verified) = credentials.get(name) else {
            is_unknown = true;
            continue;
        };
        match verified.and_then(|verified| proves(verified, Named::UserId(reader), scopes)) {
            Ok(()) => admitted.push(reader.clone()),
            Err(error) => match error.code {
                Code::Unauthorized | Code::Forbidden => {
                    refused.push(reader.clone());
                    reason.get_or_insert(error);
                }
                Code::Unavailable if callers.is_ready() => unverified.push(reader.clone()),
                _ => return Err(error),
            },
        }
    }
    confab_identity::count_unknown(usize::from(is_unknown));
    match reason {
        _ if is_unknown || !unverified.is_empty() => Ok(Readers::Unknown { unverified }),
        Some(reason) if admitted.is_empty() => Err(reason),
        _ => Ok(Readers::Checked { admitted, refused }),
    }
}

fn proves(verified: &Verified, named: Named<'_>, scopes: &[Scope]) -> Result<()> {
    if verified.proves(named, scopes) { Ok(()) } else { Err(foreign()) }
}

#[cfg(test)]
mod tests;
