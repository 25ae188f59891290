//! Users of the app's own issuers.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use confab_common::clock::now_ms;
use confab_common::testing::directory;
use confab_common::{Code, Error};
use confab_proto::auth::v1::*;
use futures::future::join_all;
use support::*;
use uuid::Uuid;

const ISSUER: &str = "https://id.example.com/";
const PICTURE: &str = "https://cdn.example.com/ada.png";

/// The id of a user of the issuer.
fn id_of(subject: &str) -> String {
    confab_common::issuers::user_id(ISSUER, subject).to_string()
}

async fn ensure(client: &mut Client, subject: &str, name: &str, picture: &str) -> Result<User, Error> {
    let (user_id, issuer) = (id_of(subject), ISSUER.into());
    let request = EnsureUserRequest { user_id, issuer, name: name.into(), picture: picture.into() };
    Ok(client.ensure_user(call(request)).await?.into_inner())
}

async fn name_of(client: &mut Client, subject: &str, name: &str) -> String {
    ensure(client, subject, name, "").await.unwrap().username
}

/// Lets an hour pass since the last change of claims.
fn an_hour_later(data_dir: &Path) {
    let database = rusqlite::Connection::open(data_dir.join("auth.db")).unwrap();
    let earlier = "UPDATE users SET claimed_at_ms = claimed_at_ms - 3600000 WHERE issuer IS NOT NULL";
    assert!(database.execute(earlier, []).unwrap() > 0);
}

#[tokio::test]
async fn the_first_token_creates_the_account() {
    let (mut client, _process) = start(directory(), bus()).await;
    let before = now_ms();
    let ada = ensure(&mut client, "user_123", "Ada Lovelace", PICTURE).await.unwrap();
    assert_eq!(ada.id, "90b98074-64ad-5519-b800-eedf19d458d9");
    assert_eq!((&*ada.username, &*ada.display_name), ("ada_lovelace", "Ada Lovelace"));
    assert_eq!((&*ada.avatar_url, &*ada.avatar_file_id, ada.state()), (PICTURE, "", AccountState::Active));
    assert!((before..=now_ms()).contains(&ada.created_at_ms));
    assert_eq!(ensure(&mut client, "user_123", "Ada Lovelace", PICTURE).await.unwrap(), ada);
    for found in [(ada.id.clone(), String::new()), (String::new(), "Ada_Lovelace".into())] {
        let (id, username) = found;
        assert_eq!(client.get_user(call(GetUserRequest { id, username })).await.unwrap().into_inner(), ada);
    }
    let nameless = ensure(&mut client, "user_124", "", "http://cdn.example.com/ada.png").await.unwrap();
    assert_eq!((&*nameless.username, &*nameless.display_name, &*nameless.avatar_url), ("user", "", ""));
}

#[tokio::test]
async fn concurrent_tokens_create_one_account() {
    let (client, _process) = start(directory(), bus()).await;
    let calls = (0..100).map(|n| {
        let mut client = client.clone();
        // Two users with one name.
        async move { ensure(&mut client, ["a", "b"][n % 2], "Ada", "").await.unwrap() }
    });
    let users = join_all(calls).await;
    assert!(users.iter().enumerate().all(|(n, user)| *user == users[n % 2]));
    let mut names = [&*users[0].username, &*users[1].username];
    names.sort_unstable();
    assert!(names[0] == "ada" && names[1].starts_with("ada-") && names[1].len() == 8, "{names:?}");
}

#[tokio::test]
async fn a_name_that_is_taken_is_followed_by_the_id() {
    let (mut client, _process) = start(directory(), bus()).await;
    signup(&mut client, "", "Ace", "correct horse").await.unwrap();
    assert_eq!(name_of(&mut client, "user_123", "Асе").await, "асе-sc4y", "it looks like the name of an account");
    assert_eq!(name_of(&mut client, "user_123", "Another").await, "асе-sc4y", "the name stays");
    assert!(name_of(&mut client, "admin", "Admin").await.starts_with("admin-"), "it is reserved");
    assert_eq!(name_of(&mut client, "a", "Ada").await, "ada");
    let second = name_of(&mut client, "b", "Ada").await;
    assert!(second.starts_with("ada-") && second.len() == 8, "{second}");
    for name in [&*second, "ADA"] {
        let refused = signup(&mut client, "", name, "correct horse").await.unwrap_err().code;
        assert_eq!(refused, Code::UsernameTaken, "{name}: accounts cannot take the name of such a user");
    }
}

#[tokio::test]
async fn with_both_names_taken_more_of_the_id_follows() {
    let (mut client, _process) = start(directory(), bus()).await;
    for name in ["ada", "ada-sc4y"] {
        signup(&mut client, "", name, "correct horse").await.unwrap();
    }
    assert_eq!(name_of(&mut client, "user_123", "Ada").await, "ada-sc4ya5de");
}

#[tokio::test]
async fn claims_change_what_clients_show_at_most_hourly() {
    let data_dir = directory();
    let (mut client, _process) = start(data_dir.clone(), bus()).await;
    let first = ensure(&mut client, "user_123", "Ada", PICTURE).await.unwrap();
    assert_eq!(ensure(&mut client, "user_123", "Ada Lovelace", "").await.unwrap(), first, "too early");
    an_hour_later(&data_dir);
    let changed = ensure(&mut client, "user_123", "Ada Lovelace", "").await.unwrap();
    let expected = User { display_name: "Ada Lovelace".into(), ..first.clone() };
    assert_eq!(changed, expected, "the username stays, and so does the picture that the token does not name");
    assert_eq!(ensure(&mut client, "user_123", "Ada", "").await.unwrap(), expected, "too early again");

    // What the user chooses takes precedence.
    let (user_id, file) = (first.id.clone(), Uuid::now_v7().to_string());
    let update = |name: &str, file: &str| UpdateProfileRequest {
        user_id: user_id.clone(),
        display_name: Some(name.into()),
        avatar_file_id: Some(file.into()),
        data: None,
    };
    let chosen = client.update_profile(call(update("A. L.", &file))).await.unwrap().into_inner();
    assert_eq!((&*chosen.display_name, &chosen.avatar_file_id, &*chosen.avatar_url), ("A. L.", &file, ""));
    an_hour_later(&data_dir);
    assert_eq!(ensure(&mut client, "user_123", "Countess", PICTURE).await.unwrap(), chosen);
    let cleared = client.update_profile(call(update("", ""))).await.unwrap().into_inner();
    assert_eq!((&*cleared.display_name, &*cleared.avatar_url), ("Countess", PICTURE));
}

#[tokio::test]
async fn a_user_of_an_issuer_has_no_password() {
    let (mut client, _process) = start(directory(), bus()).await;
    let ada = ensure(&mut client, "user_123", "Ada", "").await.unwrap();
    let unknown = login(&mut client, "unknown", "correct horse").await.unwrap_err();
    for password in ["", "correct horse", "ada"] {
        let refused = login(&mut client, "ada", password).await.unwrap_err();
        assert_eq!((refused.code, &refused.detail), (Code::InvalidCredentials, &unknown.detail));
    }
    let change = ChangePasswordRequest {
        user_id: ada.id.clone(),
        session_id: Uuid::now_v7().to_string(),
        current_password: "correct horse".into(),
        new_password: "staple battery horse".into(),
        client_address: String::new(),
    };
    let delete = DeleteAccountRequest {
        user_id: ada.id.clone(),
        password: "correct horse".into(),
        client_address: String::new(),
    };
    let changed = client.change_password(call(change)).await.err().map(Error::from);
    let deleted = client.delete_account(call(delete)).await.err().map(Error::from);
    for refused in [changed.unwrap(), deleted.unwrap()] {
        assert_eq!(refused.code, Code::Forbidden);
        assert!(refused.detail.contains("no password"), "{refused}");
    }
    let taken = signup(&mut client, &ada.id, "ada", "correct horse").await.unwrap_err();
    assert_eq!((taken.code, &*taken.fields[0].field), (Code::InvalidRequest, "userId"));
}

#[tokio::test]
async fn invalid_requests_create_nothing() {
    let (mut client, _process) = start(directory(), bus()).await;
    let request = |user_id: &str, issuer: &str| EnsureUserRequest {
        user_id: user_id.into(),
        issuer: issuer.into(),
        ..EnsureUserRequest::default()
    };
    let id = id_of("user_123");
    for (request, field) in [
        (request("", ISSUER), "userId"),
        (request("x", ISSUER), "userId"),
        (request(&Uuid::now_v7().to_string(), ISSUER), "userId"),
        (request(&id, ""), "issuer"),
        (request(&id, "a\0b"), "issuer"),
        (request(&id, &"x".repeat(2049)), "issuer"),
    ] {
        let error = Error::from(client.ensure_user(call(request)).await.unwrap_err());
        assert_eq!((error.code, &*error.fields[0].field), (Code::InvalidRequest, field));
    }
    client.ensure_user(call(request(&id, ISSUER))).await.unwrap();
    let other = Error::from(client.ensure_user(call(request(&id, "other"))).await.unwrap_err());
    assert_eq!(other.code, Code::Conflict);
    // Any text is a claim.
    let long = "x\0\u{202E}".repeat(100_000);
    let user = ensure(&mut client, "user_124", &long, &long).await.unwrap();
    assert_eq!((user.username.len(), user.display_name.len(), &*user.avatar_url), (27, 80, ""));
}

#[tokio::test]
async fn suspension_and_deletion_apply_to_users_of_issuers() {
    let (mut client, _process) = start(directory(), bus()).await;
    let ada = ensure(&mut client, "user_123", "Ada", PICTURE).await.unwrap();
    let user_id = ada.id.clone();
    client.suspend_user(call(SuspendUserRequest { user_id: user_id.clone(), actor: None })).await.unwrap();
    assert_eq!(ensure(&mut client, "user_123", "Ada", "").await.unwrap().state(), AccountState::Suspended);
    client.restore_user(call(RestoreUserRequest { user_id: user_id.clone(), actor: None })).await.unwrap();
    assert_eq!(ensure(&mut client, "user_123", "Ada", "").await.unwrap(), ada);
    client.delete_user(call(DeleteUserRequest { user_id: user_id.clone(), actor: None })).await.unwrap();
    let left = ensure(&mut client, "user_123", "Ada", PICTURE).await.unwrap();
    assert_eq!((left.state(), &*left.username), (AccountState::Deleted, "deleted"));
    assert_eq!((&*left.display_name, &*left.avatar_url), ("", ""));
    let kinds = revocations(&mut client).await.iter().map(Revocation::kind).collect::<Vec<_>>();
    assert_eq!(kinds, [RevocationKind::Blocked]);
}
