//! The senders and readers of a guarded service, from its callers' view.

use std::sync::Arc;

use confab_identity::credential::{Credential, UNKNOWN, message_credential};
use confab_identity::testing::{SlowKeys, auth, callers, claims, fake, jwks, server_key, signed, token_of};
use confab_proto::auth::v1::{Jwks, ListRevocationsRequest, ListRevocationsResponse, Revocation, UserRef};
use parking_lot::Mutex;
use prost::Message;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::testing::{Fixture, message, outcome};

const ADA: Uuid = Uuid::from_u128(1);
const EVE: Uuid = Uuid::from_u128(2);

fn credential(user: Uuid) -> Credential {
    Credential::of_token(&token_of(user))
}

/// A message of this user, with this credential.
fn from(user: Uuid, room: Uuid, content: &str, credential: &Credential) -> pb::NewEvent {
    let sender = Some(UserRef { id: user.to_string(), username: "made up".into() });
    let credential = credential.digest().map_or_else(Vec::new, Vec::from);
    pb::NewEvent { sender, credential, ..message(room, content) }
}

/// Appends events with these credentials. Returns the content of each event, or the code of its refusal.
async fn append(fixture: &Fixture, events: Vec<pb::NewEvent>, credentials: &[&Credential]) -> Vec<String> {
    for event in &events {
        let request = pb::OpenRoomRequest { room_id: event.room_id.clone(), ..Default::default() };
        fixture.client.clone().open_room(request).await.unwrap();
    }
    let credentials = credentials.iter().map(|credential| message_credential(credential)).collect();
    let request = pb::AppendRequest { events, credentials };
    let outcomes = fixture.client.clone().append(request).await.unwrap().into_inner().outcomes;
    let shown = |it| outcome(it).map_or_else(|(code, _)| code, |(event, _)| event.content);
    outcomes.into_iter().map(shown).collect()
}

async fn contents(fixture: &Fixture, room: Uuid) -> Vec<String> {
    let ada = credential(ADA);
    let list = pb::ListEventsRequest {
        room_id: room.to_string(),
        after: Some(0),
        limit: 200,
        readers: vec![ADA.to_string()],
        reader_credentials: vec![ada.digest().unwrap().to_vec()],
        credentials: vec![message_credential(&ada)],
        ..Default::default()
    };
    fixture.list(list).await.unwrap().events.into_iter().map(|event| event.content).collect()
}

#[tokio::test]
async fn later_events_of_a_room_wait_for_an_unknown_credential() {
    let fixture = Fixture::guarded(callers(auth())).await;
    let (ada, eve) = (credential(ADA), credential(EVE));
    let [room, other] = [(); 2].map(|()| Uuid::now_v7());
    assert_eq!(append(&fixture, vec![from(ADA, room, "first", &ada)], &[]).await, [UNKNOWN]);
    assert_eq!(append(&fixture, vec![from(ADA, room, "first", &ada)], &[&ada]).await, ["first"]);
    let events = || {
        vec![
            from(ADA, room, "1", &ada),
            from(EVE, room, "2", &eve),
            from(ADA, room, "3", &ada),
            from(ADA, other, "4", &ada),
            from(EVE, room, "5", &eve),
        ]
    };
    let batch = events();
    assert_eq!(append(&fixture, batch.clone(), &[]).await, ["1", UNKNOWN, UNKNOWN, "4", UNKNOWN]);
    let again = [1, 2, 4].map(|index| batch[index].clone()).to_vec();
    assert_eq!(append(&fixture, again, &[&eve]).await, ["2", "3", "5"]);
    assert_eq!(contents(&fixture, room).await, ["first", "1", "2", "3", "5"]);
    // From now on both are known.
    assert_eq!(append(&fixture, events(), &[]).await, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn the_sender_is_the_user_of_the_credential() {
    let fixture = Fixture::guarded(callers(auth())).await;
    let (room, ada, eve) = (Uuid::now_v7(), credential(ADA), credential(EVE));
    let forged = Credential::of_token(&signed(2, &claims(json!({"sub": ADA}))));
    let expired = Credential::of_token(&signed(1, &claims(json!({"sub": ADA, "exp": 1_000_000_000}))));
    let events = vec![
        from(ADA, room, "own", &ada),
        from(ADA, room, "of another user", &eve),
        from(ADA, room, "forged", &forged),
        from(ADA, room, "expired", &expired),
        from(ADA, room, "none", &Credential::default()),
        pb::NewEvent { credential: vec![1; 15], ..from(ADA, room, "malformed", &ada) },
    ];
    let refused = ["own", "forbidden", "unauthorized", "unauthorized", "unauthorized", "invalid_request"];
    assert_eq!(append(&fixture, events, &[&ada, &eve, &forged, &expired]).await, refused);
    let (mut client, readers) = (fixture.client.clone(), vec![ADA.to_string()]);
    let list = pb::ListEventsRequest { room_id: room.to_string(), limit: 10, readers, ..Default::default() };
    let listed = client.list_events(ada.attach(tonic::Request::new(list))).await.unwrap();
    let events = listed.into_inner().events;
    let names = events.iter().map(|event| (&*event.content, &*event.sender.as_ref().unwrap().username));
    assert_eq!(names.collect::<Vec<_>>(), [("own", "user-1")], "the name is that of the token");
}

#[tokio::test]
async fn nothing_is_appended_after_a_logout() {
    let revoked = Arc::<Mutex<Option<Revocation>>>::default();
    let answering = revoked.clone();
    let auth = fake(move |method, body| {
        if method == "GetJwks" {
            return Ok(Jwks { json: jwks(&[1]) }.encode_to_vec());
        }
        let after = ListRevocationsRequest::decode(body).unwrap().after;
        let all = answering.lock().clone();
        let revocations = all.iter().filter(|it| it.number > after).cloned().collect();
        Ok(ListRevocationsResponse { revocations, head: all.map_or(0, |it| it.number) }.encode_to_vec())
    });
    let fixture = Fixture::guarded(callers(auth)).await;
    let (room, ada) = (Uuid::now_v7(), credential(ADA));
    assert_eq!(append(&fixture, vec![from(ADA, room, "before", &ada)], &[&ada]).await, ["before"]);
    let session_id = confab_identity::testing::SESSION.to_string();
    *revoked.lock() = Some(Revocation { number: 1, session_id, expires_at_ms: i64::MAX, ..Revocation::default() });
    let rejected =
        async { while append(&fixture, vec![from(ADA, room, "after", &ada)], &[&ada]).await != ["unauthorized"] {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), rejected).await.unwrap();
}

#[tokio::test]
async fn a_replica_that_cannot_verify_tokens_fails_the_whole_call() {
    let fixture = Fixture::unready(callers(fake(|_, _| Err(Error::unavailable("the database"))))).await;
    let (room, ada) = (Uuid::now_v7(), credential(ADA));
    let request = |given: Vec<pb::Credential>| pb::AppendRequest {
        events: vec![from(ADA, room, "tea", &ada)],
        credentials: given,
    };
    let refused = fixture.client.clone().append(request(vec![message_credential(&ada)])).await.unwrap_err();
    assert_eq!(Error::from(refused).code, Code::Unavailable, "another replica may know the keys");
    let unknown = fixture.client.clone().append(request(Vec::new())).await.unwrap().into_inner().outcomes.remove(0);
    assert_eq!(outcome(unknown).unwrap_err().0, UNKNOWN);
}

#[tokio::test]
async fn other_programs_append_without_credentials() {
    let fixture = Fixture::guarded(callers(auth())).await;
    let room = Uuid::now_v7();
    let system = pb::NewEvent {
        kind: pb::Kind::System.into(),
        event: "roomUpdated".into(),
        data: "{}".into(),
        ..from(ADA, room, "", &Credential::default())
    };
    assert_eq!(append(&fixture, vec![system], &[]).await, [""]);
}

#[tokio::test]
async fn readers_need_credentials() {
    let fixture = Fixture::guarded(callers(auth())).await;
    let (room, ada, eve) = (Uuid::now_v7(), credential(ADA), credential(EVE));
    assert_eq!(append(&fixture, vec![from(ADA, room, "tea", &ada)], &[&ada]).await, ["tea"]);
    let list = |readers: &[Uuid], names: &[&Credential], given: &[&Credential]| pb::ListEventsRequest {
        room_id: room.to_string(),
        limit: 10,
        readers: readers.iter().map(Uuid::to_string).collect(),
        reader_credentials: names.iter().map(|name| name.digest().unwrap().to_vec()).collect(),
        credentials: given.iter().map(|given| message_credential(given)).collect(),
        ..Default::default()
    };
    let read = async |request| {
        let page = fixture.list(request).await.map_err(|error| error.code)?;
        Ok::<_, Code>((page.credentials_unknown, page.events.len(), page.refused_readers.len()))
    };
    assert_eq!(read(list(&[ADA], &[&ada], &[])).await, Ok((false, 1, 0)));
    assert_eq!(read(list(&[ADA, EVE], &[&ada, &eve], &[])).await, Ok((true, 0, 0)), "nothing is read");
    assert_eq!(read(list(&[ADA, EVE], &[&ada, &eve], &[&eve])).await, Ok((false, 1, 0)));
    assert_eq!(read(list(&[ADA, EVE], &[&ada, &ada], &[])).await, Ok((false, 1, 1)), "the other reader may read");
    assert_eq!(read(list(&[EVE], &[&ada], &[])).await, Err(Code::Forbidden));
    assert_eq!(read(list(&[ADA], &[], &[])).await, Err(Code::Unauthorized));
    assert_eq!(read(list(&[ADA], &[&ada, &eve], &[])).await, Err(Code::InvalidRequest));
    assert_eq!(read(list(&[], &[], &[])).await, Ok((false, 1, 0)), "an anonymous reader");
    let moderator = pb::ListEventsRequest { moderator: true, ..list(&[], &[], &[]) };
    assert_eq!(read(moderator).await, Err(Code::Unauthorized));
}

/// Repeats a request until it has this outcome.
async fn until<T: PartialEq + std::fmt::Debug>(expected: T, mut repeat: impl AsyncFnMut() -> T) {
    let mut last = None;
    let repeating = async {
        while last.as_ref() != Some(&expected) {
            last = Some(repeat().await);
            tokio::task::yield_now().await;
        }
    };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), repeating).await;
    assert!(ended.is_ok(), "{last:?}");
}

#[tokio::test]
async fn a_credential_that_cannot_be_verified_delays_only_its_own_events() {
    let keys = Arc::<SlowKeys>::default();
    let fixture = Fixture::guarded(callers(keys.transport())).await;
    let (ada, eve, slow) = (credential(ADA), credential(EVE), Credential::of_key(&server_key(), Some(EVE)));
    let [room, other] = [(); 2].map(|()| Uuid::now_v7());
    let events = vec![
        from(ADA, room, "1", &ada),
        from(EVE, room, "2", &slow),
        from(ADA, room, "3", &ada),
        from(EVE, room, "4", &eve),
        from(EVE, other, "5", &eve),
    ];
    let outcomes = append(&fixture, events.clone(), &[&ada, &slow, &eve]).await;
    assert_eq!(outcomes, ["1", "unavailable", "3", "unavailable", "5"], "an event waits for those of its sender");
    keys.release();
    let held = || [1, 3].map(|index| events[index].clone()).to_vec();
    until(vec!["2".to_owned(), "4".to_owned()], async || append(&fixture, held(), &[&slow]).await).await;
    assert_eq!(keys.lookups(), 1, "the repeat finds the outcome of the first verification");
    assert_eq!(contents(&fixture, room).await, ["1", "3", "2", "4"]);
}

#[tokio::test]
async fn a_malformed_credential_fails_its_own_events_only() {
    let fixture = Fixture::guarded(callers(auth())).await;
    let (room, ada) = (Uuid::now_v7(), credential(ADA));
    let malformed = pb::Credential { key: "no key".into(), ..pb::Credential::default() };
    let credential = confab_identity::credential::digest_of(&malformed).to_vec();
    let events = vec![pb::NewEvent { credential, ..from(ADA, room, "1", &ada) }, from(ADA, Uuid::now_v7(), "2", &ada)];
    let request = pb::AppendRequest { events, credentials: vec![malformed, message_credential(&ada)] };
    let outcomes = fixture.client.clone().append(request).await.unwrap().into_inner().outcomes;
    let codes = outcomes.into_iter().map(|it| outcome(it).map_or_else(|(code, _)| code, |(event, _)| event.content));
    assert_eq!(codes.collect::<Vec<_>>(), ["unauthorized", "not_found"]);
}

#[tokio::test]
async fn a_reader_whose_credential_cannot_be_verified_is_named() {
    let keys = Arc::<SlowKeys>::default();
    let fixture = Fixture::guarded(callers(keys.transport())).await;
    let (room, ada, slow) = (Uuid::now_v7(), credential(ADA), Credential::of_key(&server_key(), Some(EVE)));
    assert_eq!(append(&fixture, vec![from(ADA, room, "1", &ada)], &[&ada]).await, ["1"]);
    let read = async |readers: &[(Uuid, &Credential)]| {
        let names = readers.iter().map(|(_, credential)| credential.digest().unwrap().to_vec());
        let list = pb::ListEventsRequest {
            room_id: room.to_string(),
            limit: 10,
            readers: readers.iter().map(|(user, _)| user.to_string()).collect(),
            reader_credentials: names.collect(),
            credentials: readers.iter().map(|(_, credential)| message_credential(credential)).collect(),
            ..Default::default()
        };
        let page = fixture.list(list).await.unwrap();
        (page.credentials_unknown, page.refused_readers, page.events.len())
    };
    let both = [(ADA, &ada), (EVE, &slow)];
    assert_eq!(read(&both).await, (true, vec![EVE.to_string()], 0));
    assert_eq!(read(&both[1..]).await, (true, vec![EVE.to_string()], 0));
    assert_eq!(read(&both[..1]).await, (false, Vec::new(), 1));
    keys.release();
    until((false, Vec::new(), 1), async || read(&both).await).await;
    assert_eq!(keys.lookups(), 1);
}
