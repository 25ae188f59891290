mod accepted;

use super::*;
use crate::testing::{eventually, fake};
use confab_proto::auth::v1::User;
use futures::future::join_all;
use prost::Message;
use tokio::time::advance;

/// An auth service: the requests that it has received, and the state of each user or an error.
struct Auth {
    received: Mutex<Vec<EnsureUserRequest>>,
    answer: Mutex<Result<AccountState>>,
}

impl Auth {
    fn answers(&self, answer: Result<AccountState>) {
        *self.answer.lock() = answer;
    }

    fn calls(&self) -> usize {
        self.received.lock().len()
    }
}

fn users() -> (Arc<Auth>, Users) {
    let auth = Arc::new(Auth { received: Mutex::default(), answer: Mutex::new(Ok(AccountState::Active)) });
    let answering = auth.clone();
    let users = Users::new(AuthServiceClient::new(fake(move |_, body| {
        let asked = EnsureUserRequest::decode(body).unwrap();
        let id = asked.user_id.clone();
        answering.received.lock().push(asked);
        let state = answering.answer.lock().clone()?.into();
        Ok(User { id, username: "ada".into(), state, ..User::default() }.encode_to_vec())
    })));
    (auth, users)
}

fn token(user: u128, name: &str) -> ForeignToken {
    ForeignToken {
        issuer: "https://id.example.com/".into(),
        user_id: Uuid::from_u128(user),
        name: Some(name.into()),
        picture: None,
        issued_at: 0,
        expires_at: i64::MAX,
        revocation_id: Uuid::from_u128(user + 1000),
    }
}

async fn code(users: &Users, token: &ForeignToken) -> Option<Code> {
    users.of(token).await.err().map(|error| error.code)
}

fn away() -> Result<AccountState> {
    Err(Error::unavailable("the database"))
}

#[tokio::test]
async fn concurrent_requests_of_a_user_share_one_call() {
    let (auth, users) = users();
    let (one, other) = (token(1, "Ada"), token(2, "Ada"));
    let known = join_all((0..100).map(|_| users.of(&one))).await;
    let expected = UserRef { id: one.user_id.to_string(), username: "ada".into() };
    assert!(known.into_iter().all(|user| user.unwrap() == expected));
    let asked = EnsureUserRequest {
        user_id: expected.id,
        issuer: "https://id.example.com/".into(),
        name: "Ada".into(),
        picture: String::new(),
    };
    assert_eq!(*auth.received.lock(), [asked]);
    assert_eq!((code(&users, &other).await, auth.calls()), (None, 2));
}

#[tokio::test]
async fn a_service_creates_no_account() {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let answering = asked.clone();
    let users = Users::in_service(AuthServiceClient::new(fake(move |method, body| {
        answering.lock().push(method.to_owned());
        let id = GetUserRequest::decode(body).unwrap().id;
        if id == Uuid::from_u128(1).to_string() {
            Ok(User { id, username: "ada".into(), ..User::default() }.encode_to_vec())
        } else {
            Err(Error::not_found("user"))
        }
    })));
    assert_eq!(users.of(&token(1, "Eve")).await.unwrap().username, "ada");
    assert_eq!(code(&users, &token(2, "Eve")).await, Some(Code::Unauthorized));
    assert_eq!(*asked.lock(), ["GetUser", "GetUser"]);
}

#[tokio::test(start_paused = true)]
async fn claims_are_sent_again_after_an_hour() {
    let (auth, users) = users();
    users.of(&token(1, "Ada")).await.unwrap();
    advance(RENEW_EVERY - Duration::from_secs(1)).await;
    users.of(&token(1, "Ada L.")).await.unwrap();
    assert_eq!(auth.calls(), 1);
    for hour in 2..4 {
        advance(RENEW_EVERY).await;
        for _ in 0..10 {
            users.of(&token(1, "Ada L.")).await.unwrap();
        }
        eventually(|| auth.calls() == hour).await;
        assert_eq!(auth.received.lock()[hour - 1].name, "Ada L.");
    }
}

#[tokio::test(start_paused = true)]
async fn known_users_do_not_need_the_auth_service_for_a_day() {
    let (auth, users) = users();
    let (known, unknown) = (token(1, "Ada"), token(2, "Eve"));
    assert_eq!(code(&users, &known).await, None);
    auth.answers(away());
    assert_eq!(code(&users, &unknown).await, Some(Code::Unavailable));
    assert_eq!(auth.calls(), 2);
    advance(RENEW_EVERY).await;
    for attempt in 3..6 {
        for _ in 0..10 {
            assert_eq!(code(&users, &known).await, None);
        }
        eventually(|| auth.calls() == attempt).await;
        advance(RENEW_AGAIN).await;
    }
    advance(KEEP - RENEW_EVERY * 2).await;
    assert_eq!(code(&users, &known).await, None);
    advance(RENEW_EVERY * 2).await;
    assert_eq!(code(&users, &known).await, Some(Code::Unavailable));
    auth.answers(Ok(AccountState::Unspecified));
    assert_eq!((code(&users, &known).await, code(&users, &unknown).await), (None, None));
}

#[tokio::test(start_paused = true)]
async fn suspended_and_deleted_users_are_rejected() {
    let (auth, users) = users();
    for state in [AccountState::Suspended, AccountState::Deleted] {
        auth.answers(Ok(state));
        assert_eq!(code(&users, &token(1, "Ada")).await, Some(Code::Unauthorized));
        auth.answers(Ok(AccountState::Active));
        assert_eq!(code(&users, &token(1, "Ada")).await, None);
        // A renewal notices it, too.
        auth.answers(Ok(state));
        advance(RENEW_EVERY).await;
        let calls = auth.calls();
        assert_eq!(code(&users, &token(1, "Ada")).await, None);
        eventually(|| auth.calls() > calls && !users.known.contains_key(&Uuid::from_u128(1))).await;
    }
}

#[tokio::test]
async fn only_faults_of_this_gateway_are_internal() {
    let (auth, users) = users();
    for (answer, expected) in [
        (Code::Unavailable, Code::Unavailable),
        (Code::Timeout, Code::Unavailable),
        // The answer of an auth service of the previous version to an unknown method.
        (Code::MethodNotAllowed, Code::Unavailable),
        (Code::InvalidRequest, Code::Internal),
        (Code::Conflict, Code::Internal),
    ] {
        auth.answers(Err(Error::new(answer, "not now")));
        assert_eq!(code(&users, &token(1, "Ada")).await, Some(expected), "{answer:?}");
    }
}
