use confab_common::Code;
use confab_common::process::Process;
use confab_proto::auth::v1::{Actor, IssueTokenRequest, LogoutRequest, SuspendUserRequest, UpdateProfileRequest};
use confab_proto::room::v1::{GetRoomRequest, ListRoomsRequest};
use confab_proto::server_key::Scopes;

use super::*;
use crate::config::CallersConfig;
use crate::credential::Credential;
use crate::testing::{auth, callers, claims, identity, signed};

const KEY: Uuid = Uuid::from_u128(5);

/// The claim of a call by a program with this role, to a service that requires tokens.
fn claim(verified: Option<Verified>, role: Role) -> Claim {
    Claim { callers: Some(callers(auth())), verified: verified.map(Arc::new), peer: Peer::with(role) }
}

fn of_user() -> Claim {
    claim(Some(Verified::User(identity())), Role::Gateway)
}

fn of_key(scopes: &[Scope], user: Option<UserRef>) -> Claim {
    let scopes = scopes.iter().copied().collect::<Scopes>();
    claim(Some(Verified::Key { id: KEY, scopes, user }), Role::Gateway)
}

fn user(id: u128, username: &str) -> Option<UserRef> {
    Some(UserRef { id: Uuid::from_u128(id).to_string(), username: username.into() })
}

fn get(caller: Option<UserRef>, moderator: bool) -> GetRoomRequest {
    GetRoomRequest { caller, moderator, ..GetRoomRequest::default() }
}

fn code<T: ForCaller>(claim: &Claim, mut message: T) -> Option<Code> {
    claim.check(&mut message).err().map(|error| error.code)
}

const FORBIDDEN: Option<Code> = Some(Code::Forbidden);

#[tokio::test]
async fn a_token_proves_its_user_only() {
    let claim = of_user();
    assert_eq!(code(&claim, get(user(7, "zoë"), false)), None);
    assert_eq!(code(&claim, get(user(8, "eve"), false)), FORBIDDEN);
    assert_eq!(code(&claim, get(user(7, "zoë"), true)), FORBIDDEN, "a user is no moderator");
    assert_eq!(code(&claim, get(None, true)), FORBIDDEN);
    assert_eq!(code(&claim, get(None, false)), None, "an anonymous call claims nothing");
    for (user_id, expected) in [(7, None), (8, FORBIDDEN)] {
        let user_id = Uuid::from_u128(user_id).to_string();
        assert_eq!(code(&claim, UpdateProfileRequest { user_id, ..<_>::default() }), expected);
    }
    for (session, expected) in [(identity().session_id, None), (Uuid::nil(), FORBIDDEN)] {
        let (user_id, session_id) = (identity().user.id, session.to_string());
        assert_eq!(code(&claim, LogoutRequest { user_id, session_id, ..<_>::default() }), expected);
    }
}

#[tokio::test]
async fn the_name_is_that_of_the_token() {
    let mut message = get(user(7, "admin"), false);
    of_user().check(&mut message).unwrap();
    assert_eq!(message.caller, user(7, "zoë"));
    let mut message = get(user(5, "admin"), true);
    of_key(&[Scope::Rooms], None).check(&mut message).unwrap();
    assert_eq!(message.caller.unwrap().username, SYSTEM);
}

#[tokio::test]
async fn a_key_needs_the_scope_of_the_call() {
    let rooms = of_key(&[Scope::Rooms], None);
    assert_eq!(code(&rooms, get(user(5, ""), true)), None);
    assert_eq!(code(&rooms, get(user(6, ""), true)), FORBIDDEN, "another key");
    assert_eq!(code(&rooms, get(user(7, ""), false)), FORBIDDEN, "a key alone is no user");
    assert_eq!(code(&of_key(&[Scope::Users], None), get(user(5, ""), true)), FORBIDDEN);
    let acting = of_key(&[Scope::Messages], user(7, "zoë"));
    assert_eq!([7, 8].map(|id| code(&acting, get(user(id, ""), false))), [None, FORBIDDEN]);
    assert_eq!(code(&acting, ListRoomsRequest { caller: user(7, ""), ..<_>::default() }), FORBIDDEN);
    let issue = |key: Uuid| IssueTokenRequest {
        actor: Some(Actor { key_id: key.to_string(), ..Actor::default() }),
        ..IssueTokenRequest::default()
    };
    let tokens = of_key(&[Scope::Tokens], None);
    assert_eq!([KEY, Uuid::nil()].map(|key| code(&tokens, issue(key))), [None, FORBIDDEN]);
    assert_eq!(code(&rooms, issue(KEY)), FORBIDDEN);
    assert_eq!(code(&of_user(), issue(identity().user_id)), FORBIDDEN);
}

#[tokio::test]
async fn gateways_need_a_credential_and_services_do_not() {
    let without = claim(None, Role::Gateway);
    let unauthorized = Some(Code::Unauthorized);
    assert_eq!(code(&without, get(user(7, "zoë"), false)), unauthorized);
    assert_eq!(code(&without, get(None, true)), unauthorized);
    assert_eq!(code(&without, SuspendUserRequest::default()), unauthorized);
    assert_eq!(code(&without, get(None, false)), None, "anonymous");
    assert_eq!(code(&claim(None, Role::File), get(user(7, "zoë"), false)), None);
    // A server that is not guarded, and one that does not require tokens.
    assert_eq!(code(&Claim::default(), get(user(7, "zoë"), false)), None);
}

#[tokio::test]
async fn gateways_of_the_previous_release_need_no_credential_until_the_setting_requires_it() {
    let lenient = Callers::start(&CallersConfig::default(), Role::Room, auth(), None, &Process::new()).unwrap();
    let without = Claim { callers: Some(lenient.clone()), verified: None, peer: Peer::with(Role::Gateway) };
    assert_eq!(code(&without, get(user(7, "zoë"), false)), None);
    // A credential is checked in any case.
    let with = Claim { verified: Some(Arc::new(Verified::User(identity()))), ..without };
    assert_eq!([7, 8].map(|id| code(&with, get(user(id, ""), false))), [None, FORBIDDEN]);
}

#[tokio::test]
async fn ids_may_be_spelled_differently() {
    let token = signed(1, &claims(serde_json::json!({})));
    let callers = callers(auth());
    let claim = crate::testing::claim(&callers, &Credential::of_token(&token)).await;
    let id = identity().user_id.simple().to_string().to_uppercase();
    assert_eq!(code(&claim, get(Some(UserRef { id, username: String::new() }), false)), None);
}
