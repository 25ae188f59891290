//! Checks that the sender of each message and of each change, and each reader of a page, is the user of a valid credential. Batches name
//! credentials by their digests, so that a known credential costs a look-up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use confab_common::{Code, Error, Result};
use confab_identity::callers::{Callers, Verified, foreign, missing};
use confab_identity::claim::{Claim, Named};
use confab_identity::credential::{Digest, credential_of};
use confab_proto::message::v1 as pb;
use confab_proto::server_key::Scope;
use futures::future::join_all;

use crate::service::MAX_READERS;

/// A server key needs this scope.
const SCOPES: &[Scope] = &[Scope::Messages];
/// To read the head of a room without its events, one of these suffices.
const HEAD_SCOPES: &[Scope] = &[Scope::Rooms, Scope::Messages];

/// An event to append, or the error to answer. `None`: the credential is not known, so nothing is known about the sender.
pub type Admission = Option<Result<pb::NewEvent>>;

/// The credentials of one request, each looked up once.
struct Credentials {
    callers: Callers,
    /// `None`: not known.
    found: HashMap<Digest, Option<Result<Arc<Verified>>>>,
}

impl Credentials {
    /// Verifies the given credentials.
    async fn verify(callers: &Callers, given: &[pb::Credential]) -> Result<Self> {
        let verified = join_all(given.iter().map(async |given| {
            let credential = credential_of(given)?;
            let verified = callers.verify(&credential).await;
            let name = credential.digest().ok_or_else(missing)?;
            Ok::<_, Error>((name, verified.and_then(|verified| verified.ok_or_else(missing))))
        }))
        .await;
        let verified = verified.into_iter().collect::<Result<Vec<_>>>()?;
        let found = verified.into_iter().map(|(name, verified)| (name, Some(verified))).collect();
        Ok(Self { callers: callers.clone(), found })
    }

    /// Looks these credentials up, all at once: each one of a server key may need an answer of auth.
    async fn look_up(&mut self, names: HashSet<Digest>) {
        let callers = &self.callers;
        let absent = names.into_iter().filter(|name| !self.found.contains_key(name));
        let known = join_all(absent.map(async |name| (name, callers.known(&name).await))).await;
        self.found.extend(known);
    }

    /// The user or key of a credential that was looked up; `None` if it is not known.
    fn get(&self, name: &[u8]) -> Option<Result<Arc<Verified>>> {
        match Digest::try_from(name) {
            Ok(name) => self.found.get(&name).cloned().flatten(),
            Err(_) => Some(Err(Error::field("credential", "must be 16 bytes"))),
        }
    }
}

/// Checks the senders of messages. After an event whose credential is not known, all later events of the room are not
/// admitted either: the caller sends them again, and they must not overtake that event.
///
/// # Errors
/// `invalid_request` for more credentials than events; `unauthorized` for a malformed one; `unavailable` while this
/// replica cannot verify tokens, so that the caller asks another one.
pub async fn admit(claim: &Claim, events: Vec<pb::NewEvent>, given: &[pb::Credential]) -> Result<Vec<Admission>> {
    if given.len() > events.len() {
        return Err(Error::field("credentials", "must not be more than events"));
    }
    let Some(callers) = claim.callers() else {
        return Ok(events.into_iter().map(|event| Some(Ok(event))).collect());
    };
    let mut credentials = Credentials::verify(callers, given).await?;
    credentials.look_up(events.iter().filter_map(|event| Digest::try_from(&*event.credential).ok()).collect()).await;
    let mut waiting = HashSet::new();
    let mut admitted = Vec::with_capacity(events.len());
    for event in events {
        let room = event.room_id.to_ascii_lowercase();
        let admission = if waiting.contains(&room) { None } else { check_sender(claim, &credentials, event) };
        match &admission {
            None => _ = waiting.insert(room),
            Some(Err(error)) if error.code == Code::Unavailable && !callers.is_ready() => {
                return Err(error.clone());
            }
            Some(_) => {}
        }
        admitted.push(admission);
    }
    let unknown = admitted.iter().filter(|admission| admission.is_none()).count();
    confab_identity::count_unknown(unknown);
    Ok(admitted)
}

fn check_sender(claim: &Claim, credentials: &Credentials, mut event: pb::NewEvent) -> Admission {
    let is_moderator = event.change.as_ref().is_some_and(|change| change.moderator);
    match event.kind() {
        pb::Kind::Change if is_moderator => {
            let key = event.sender.as_mut().map_or(Named::AnyKey, Named::Moderator);
            return Some(claim.check_named(key, SCOPES).map(|()| event));
        }
        pb::Kind::Message | pb::Kind::Change => {}
        // The other kinds are appended by services, which have checked the user.
        _ => return Some(Ok(event)),
    }
    let name = std::mem::take(&mut event.credential);
    let Some(sender) = event.sender.as_mut() else { return Some(Ok(event)) };
    let checked = if name.is_empty() {
        claim.check_named(Named::User(sender), SCOPES)
    } else {
        match credentials.get(&name) {
            None => return None,
            Some(verified) => verified.and_then(|verified| proves(&verified, Named::User(sender), SCOPES)),
        }
    };
    Some(checked.map(|()| event))
}

/// The readers of a page.
pub struct Readers {
    /// Those who may read, if the room allows it.
    pub admitted: Vec<String>,
    /// Those whose credentials are not valid.
    pub refused: Vec<String>,
}

/// Checks the readers of a page; `None` if a credential is not known.
///
/// # Errors
/// `invalid_request` if not every reader has a credential; `unauthorized` or `forbidden` if none has a valid one.
pub async fn readers(claim: &Claim, request: &pb::ListEventsRequest) -> Result<Option<Readers>> {
    let pb::ListEventsRequest { readers, reader_credentials: names, credentials: given, moderator, .. } = request;
    let all = || Readers { admitted: readers.clone(), refused: Vec::new() };
    let Some(callers) = claim.callers() else { return Ok(Some(all())) };
    let scopes = if request.limit == 0 { HEAD_SCOPES } else { SCOPES };
    if *moderator {
        claim.check_named(Named::AnyKey, scopes)?;
        return Ok(Some(all()));
    }
    if names.is_empty() {
        readers.iter().try_for_each(|reader| claim.check_named(Named::UserId(reader), scopes))?;
        return Ok(Some(all()));
    }
    if names.len() != readers.len() || given.len() > readers.len() {
        return Err(Error::field("readerCredentials", "must be as many as readers"));
    }
    if readers.len() > MAX_READERS {
        return Err(Error::field("readers", format!("must be at most {MAX_READERS}")));
    }
    let mut credentials = Credentials::verify(callers, given).await?;
    credentials.look_up(names.iter().filter_map(|name| Digest::try_from(&**name).ok()).collect()).await;
    let mut checked = Readers { admitted: Vec::new(), refused: Vec::new() };
    let mut reason = None;
    for (reader, name) in readers.iter().zip(names) {
        let Some(verified) = credentials.get(name) else {
            confab_identity::count_unknown(1);
            return Ok(None);
        };
        match verified.and_then(|verified| proves(&verified, Named::UserId(reader), scopes)) {
            Ok(()) => checked.admitted.push(reader.clone()),
            Err(error) if matches!(error.code, Code::Unauthorized | Code::Forbidden) => {
                checked.refused.push(reader.clone());
                reason.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    match reason {
        Some(error) if checked.admitted.is_empty() => Err(error),
        _ => Ok(Some(checked)),
    }
}

fn proves(verified: &Verified, named: Named<'_>, scopes: &[Scope]) -> Result<()> {
    if verified.proves(named, scopes) { Ok(()) } else { Err(foreign()) }
}

#[cfg(test)]
mod tests;
