//! The life of an account: signup modes, profiles, passwords, suspension and deletion.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use clap::Parser;
use confab_auth::{AuthConfig, Program, SignupMode};
use confab_common::clock::now_ms;
use confab_common::grpc::Services;
use confab_common::process::Process;
use confab_common::testing::directory;
use confab_common::{Code, Error};
use confab_proto::auth::v1::*;
use futures::future::join_all;
use support::*;
use tonic::{Response, Status};
use uuid::Uuid;

const PASSWORD: &str = "correct horse";

async fn invited(client: &mut Client, username: &str, invite_code: &str) -> Result<Session, Error> {
    let (username, password, invite_code) = (username.into(), PASSWORD.into(), invite_code.into());
    let request = SignupRequest { username, password, invite_code, ..SignupRequest::default() };
    Ok(client.signup(call(request)).await?.into_inner())
}

async fn code<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> Option<Code> {
    answer.await.err().map(|status| Error::from(status).code)
}

#[tokio::test]
async fn signup_can_be_off() {
    let config = AuthConfig { signup: SignupMode::Off, ..config() };
    let (mut client, _process) = start_with(&config, directory(), bus(), Services::none()).await;
    assert_eq!(invited(&mut client, "ada", "").await.unwrap_err().code, Code::Forbidden);
    assert_eq!(invited(&mut client, "a", "").await.unwrap_err().code, Code::InvalidRequest);
}

#[tokio::test]
async fn an_invite_creates_as_many_accounts_as_it_has_uses() {
    let config = AuthConfig { signup: SignupMode::Invite, ..config() };
    let (mut client, _process) = start_with(&config, directory(), bus(), Services::none()).await;
    for bad in ["", "x", "0000000-0000000-0000000-00000"] {
        assert_eq!(invited(&mut client, "ada", bad).await.unwrap_err().code, Code::Forbidden, "{bad}");
    }
    let create = |uses, expires_at_ms| call(CreateInviteRequest { uses, expires_at_ms, actor: None });
    for (uses, expires_at_ms) in [(0, 0), (1001, 0), (1, 1), (1, -1), (1, now_ms()), (1, i64::MAX)] {
        assert_eq!(code(client.create_invite(create(uses, expires_at_ms))).await, Some(Code::InvalidRequest));
    }
    let invite = client.create_invite(create(3, 0)).await.unwrap().into_inner();
    assert!((now_ms() + 6 * 86_400_000..now_ms() + 8 * 86_400_000).contains(&invite.expires_at_ms));
    invited(&mut client, "ada", &invite.code.to_lowercase()).await.unwrap();
    // A failed signup takes no use, and the name of an account is not disclosed without an invite.
    assert_eq!(invited(&mut client, "Ada", &invite.code).await.unwrap_err().code, Code::UsernameTaken);
    assert_eq!(invited(&mut client, "Ada", "").await.unwrap_err().code, Code::Forbidden);
    let attempts = (0..50).map(|n| {
        let (mut client, code) = (client.clone(), invite.code.clone());
        async move { invited(&mut client, &format!("user{n}"), &code).await.map_err(|error| error.code) }
    });
    let outcomes = join_all(attempts).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2);
    // The queue for hashes may reject some of 50 concurrent signups.
    let refused = |code: Code| matches!(code, Code::Forbidden | Code::Unavailable);
    assert!(outcomes.into_iter().filter_map(Result::err).all(refused));
    assert_eq!(invited(&mut client, "eve", &invite.code).await.unwrap_err().code, Code::Forbidden);
}

#[tokio::test]
async fn a_profile_is_changed() {
    let (mut client, _process) = start(directory(), bus()).await;
    let user = signup(&mut client, "", "ada", PASSWORD).await.unwrap().user.unwrap();
    assert_eq!((user.state(), user.data.as_str(), user.display_name.as_str()), (AccountState::Active, "{}", ""));
    let file = Uuid::now_v7().to_string();
    let nothing = UpdateProfileRequest { user_id: user.id.clone(), ..UpdateProfileRequest::default() };
    let change = UpdateProfileRequest {
        display_name: Some(" Ada Lovelace ".into()),
        avatar_file_id: Some(file.clone()),
        data: Some("{\"theme\":\"dark\"}".into()),
        ..nothing.clone()
    };
    let changed = client.update_profile(call(change)).await.unwrap().into_inner();
    assert_eq!((changed.display_name.as_str(), &changed.avatar_file_id), ("Ada Lovelace", &file));
    assert_eq!(changed.data, "{\"theme\":\"dark\"}");
    assert_eq!(client.update_profile(call(nothing.clone())).await.unwrap().into_inner(), changed);
    assert_eq!(login(&mut client, "ada", PASSWORD).await.unwrap().user, Some(changed.clone()));
    let cleared = UpdateProfileRequest { display_name: Some(String::new()), ..nothing.clone() };
    let cleared = client.update_profile(call(cleared)).await.unwrap().into_inner();
    assert_eq!(cleared, User { display_name: String::new(), ..changed });
    let unknown = UpdateProfileRequest { user_id: Uuid::now_v7().to_string(), ..nothing };
    assert_eq!(code(client.update_profile(call(unknown))).await, Some(Code::NotFound));
}

#[tokio::test]
async fn a_password_change_ends_all_other_sessions() {
    let (mut client, _process) = start(directory(), bus()).await;
    let first = signup(&mut client, "", "ada", PASSWORD).await.unwrap();
    let current = login_refreshable(&mut client, "ada", PASSWORD).await.unwrap();
    let change = |current_password: &str, new_password: &str| {
        call(ChangePasswordRequest {
            user_id: user_id(&first),
            session_id: session_id(&current),
            current_password: current_password.into(),
            new_password: new_password.into(),
            client_address: String::new(),
        })
    };
    assert_eq!(code(client.change_password(change("wrong horse", "another horse"))).await, Some(Code::Forbidden));
    for bad in ["short", "ada", "password123"] {
        let error = Error::from(client.change_password(change(PASSWORD, bad)).await.unwrap_err());
        assert_eq!((error.code, error.fields[0].field.as_str()), (Code::InvalidRequest, "newPassword"), "{bad}");
    }
    assert_eq!(sessions(&mut client, &user_id(&first)).await.len(), 2);
    let ended = client.change_password(change(PASSWORD, "another horse")).await.unwrap().into_inner().revocations;
    assert_eq!(
        ended.iter().map(RevocationRef::of).collect::<Vec<_>>(),
        [(RevocationKind::Unspecified, session_id(&first)), (RevocationKind::NotBefore, user_id(&first)),]
    );
    assert_eq!(ended, revocations(&mut client).await);
    assert_eq!(sessions(&mut client, &user_id(&first)).await, [session_id(&current)]);
    refresh(&mut client, &current.refresh_token).await.unwrap();
    assert_eq!(login(&mut client, "ada", PASSWORD).await.unwrap_err().code, Code::InvalidCredentials);
    // In the same second as the change.
    let next = login(&mut client, "ada", "another horse").await.unwrap();
    assert!(claims(&next)["iat"].as_i64().unwrap() >= ended[1].not_before);
}

#[tokio::test]
async fn a_suspended_user_is_recognised_only_by_the_right_password() {
    let (mut client, _process) = start(directory(), bus()).await;
    let session = login_refreshable_after_signup(&mut client).await;
    let user_id = user_id(&session);
    let suspend = || call(SuspendUserRequest { user_id: user_id.clone(), actor: None });
    let ended = client.suspend_user(suspend()).await.unwrap().into_inner().revocations;
    assert_eq!(RevocationRef::of(ended.last().unwrap()), (RevocationKind::Blocked, user_id.clone()));
    assert!(client.suspend_user(suspend()).await.unwrap().into_inner().revocations.is_empty());
    assert_eq!(login(&mut client, "ada", PASSWORD).await.unwrap_err().code, Code::Forbidden);
    assert_eq!(login(&mut client, "ada", "wrong horse").await.unwrap_err().code, Code::InvalidCredentials);
    assert_eq!(refresh(&mut client, &session.refresh_token).await.unwrap_err().code, Code::Unauthorized);
    let by_id = call(GetUserRequest { id: user_id.clone(), username: String::new() });
    assert_eq!(client.get_user(by_id).await.unwrap().into_inner().state(), AccountState::Suspended);

    let restore = || call(RestoreUserRequest { user_id: user_id.clone(), actor: None });
    let restored = client.restore_user(restore()).await.unwrap().into_inner().revocations.remove(0);
    assert_eq!(RevocationRef::of(&restored), (RevocationKind::Unblocked, user_id.clone()));
    assert!(client.restore_user(restore()).await.unwrap().into_inner().revocations.is_empty());
    assert_eq!(refresh(&mut client, &session.refresh_token).await.unwrap_err().code, Code::Unauthorized);
    login(&mut client, "ada", PASSWORD).await.unwrap();
    let unknown = Uuid::now_v7().to_string();
    assert_eq!(
        code(client.suspend_user(call(SuspendUserRequest { user_id: unknown, actor: None }))).await,
        Some(Code::NotFound)
    );
}

#[tokio::test]
async fn former_names_and_those_of_deleted_accounts_stay_reserved() {
    const DAY_MS: i64 = 86_400_000;
    // Server keys create tokens of up to a day; a longer setting for other tokens prolongs the reservation.
    for (token_days, tokens_last_days) in [(0.5, 1), (3.0, 3)] {
        let data_dir = directory();
        let config = AuthConfig { token_ttl: Duration::from_secs_f64(token_days * 86_400.0), ..config() };
        let (mut client, _process) = start_with(&config, data_dir.clone(), bus(), Services::none()).await;
        let user_id = user_id(&signup(&mut client, "", "ada", PASSWORD).await.unwrap());
        let actor = Some(Actor { key_id: Uuid::now_v7().to_string(), request_id: "r1".into() });
        let rename = PutUserRequest { user_id: user_id.clone(), username: "zoe".into(), actor, ..Default::default() };
        let before = now_ms();
        client.put_user(call(rename)).await.unwrap();
        client.delete_user(call(DeleteUserRequest { user_id, actor: None })).await.unwrap();
        let after = now_ms();
        let database = rusqlite::Connection::open(data_dir.join("auth.db")).unwrap();
        let reserved = "SELECT free_name_at_ms FROM users WHERE username_folded = ?1";
        // A gateway may accept a token for up to a minute after its expiry.
        for (name, reserved_ms) in [("ada", tokens_last_days * DAY_MS + 60_000), ("zoe", 30 * DAY_MS)] {
            let free_at_ms = database.query_row(reserved, [name], |row| row.get::<_, i64>(0)).unwrap();
            let times = before + reserved_ms..=after + reserved_ms;
            assert!(times.contains(&free_at_ms), "{name}: {free_at_ms} is not within {times:?}");
        }
    }
}

async fn login_refreshable_after_signup(client: &mut Client) -> Session {
    signup(client, "", "ada", PASSWORD).await.unwrap();
    login_refreshable(client, "ada", PASSWORD).await.unwrap()
}

#[tokio::test]
async fn every_rejected_login_costs_a_hash() {
    let (mut client, _process) = start(directory(), bus()).await;
    let mut ids = Vec::new();
    for name in ["active", "suspended", "removed"] {
        ids.push(user_id(&signup(&mut client, "", name, PASSWORD).await.unwrap()));
    }
    client.suspend_user(call(SuspendUserRequest { user_id: ids[1].clone(), actor: None })).await.unwrap();
    client.delete_user(call(DeleteUserRequest { user_id: ids[2].clone(), actor: None })).await.unwrap();
    let mut least = Vec::new();
    for (name, password) in [
        ("active", "wrong horse"),
        ("suspended", PASSWORD),
        ("suspended", "wrong horse"),
        ("removed", PASSWORD),
        ("unknown", PASSWORD),
    ] {
        let mut took = Vec::new();
        for _ in 0..5 {
            let begun = Instant::now();
            login(&mut client, name, password).await.unwrap_err();
            took.push(begun.elapsed());
        }
        least.push(took.into_iter().min().unwrap());
    }
    // Without the hash, a rejection takes a hundredth of the time.
    let most = least.iter().max().unwrap();
    assert!(least.iter().all(|took| *took > *most / 5), "{least:?}");
}

#[tokio::test]
async fn an_operator_resets_a_password() {
    let data_dir = directory();
    let (mut client, process) = start(data_dir.clone(), bus()).await;
    signup(&mut client, "", "ada", PASSWORD).await.unwrap();
    drop(client);
    process.shutdown.cancel();
    let storage = storage(data_dir.clone());
    loop {
        match confab_auth::reset_password(&config(), &storage, "Ada").await {
            Ok(()) => break,
            Err(error) if error.to_string().contains("in use") => tokio::task::yield_now().await,
            Err(error) => panic!("{error:#}"),
        }
    }
    let unknown = confab_auth::reset_password(&config(), &storage, "eve").await.unwrap_err().to_string();
    assert!(unknown.contains("there is no user \"eve\""), "{unknown}");
    let elsewhere = support::storage(directory());
    let missing = confab_auth::reset_password(&config(), &elsewhere, "ada").await.unwrap_err().to_string();
    assert!(missing.contains("there are no accounts in"), "{missing}");
    let arguments = ["confab-auth", "reset-password", "eve", "--data-dir"];
    let program = Program::parse_from(arguments.into_iter().chain([data_dir.to_str().unwrap()]));
    assert!(confab_auth::run(program, Process::new()).await.is_err());

    // The printed token is known to the operator only; this one is stored in its place.
    let token = format!("cfp_{}", "A".repeat(43));
    let database = rusqlite::Connection::open(data_dir.join("auth.db")).unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    assert_eq!(database.execute("UPDATE password_resets SET token_sha256 = ?1", [hash.as_ref()]).unwrap(), 1);
    let (mut client, _process) = restart(data_dir, bus(), Services::none()).await;
    let session = login_refreshable(&mut client, "ada", PASSWORD).await.unwrap();
    let reset = |token: &str, new_password: &str| {
        let (token, new_password) = (token.into(), new_password.into());
        call(ResetPasswordRequest { token, new_password, client_address: String::new() })
    };
    for bad in ["", "x", &format!("cfp_{}", "B".repeat(43))] {
        assert_eq!(code(client.reset_password(reset(bad, "another horse"))).await, Some(Code::Forbidden), "{bad}");
    }
    let short = Error::from(client.reset_password(reset(&token, "short")).await.unwrap_err());
    assert_eq!((short.code, short.fields[0].field.as_str()), (Code::InvalidRequest, "newPassword"));
    let attempts = (0..4).map(|_| {
        let (mut client, request) = (client.clone(), reset(&token, "another horse"));
        async move { code(client.reset_password(request)).await }
    });
    let mut outcomes = join_all(attempts).await;
    outcomes.sort_by_key(Option::is_some);
    assert_eq!(outcomes, [None, Some(Code::Forbidden), Some(Code::Forbidden), Some(Code::Forbidden)]);
    assert_eq!(login(&mut client, "ada", PASSWORD).await.unwrap_err().code, Code::InvalidCredentials);
    assert_eq!(refresh(&mut client, &session.refresh_token).await.unwrap_err().code, Code::Unauthorized);
    login(&mut client, "ada", "another horse").await.unwrap();
}

#[tokio::test]
async fn a_database_of_the_previous_version_is_upgraded() {
    let data_dir = directory();
    let (mut client, process) = start(data_dir.clone(), bus()).await;
    signup(&mut client, "", "ada", PASSWORD).await.unwrap();
    drop(client);
    process.shutdown.cancel();
    // What the previous version leaves: its tables and columns, with the account.
    let database = rusqlite::Connection::open(data_dir.join("auth.db")).unwrap();
    database
        .execute_batch(
            "DROP TRIGGER revoked_session_ends; DROP TABLE sessions; DROP TABLE invites; DROP TABLE password_resets;
             DROP TABLE leaving; DROP TABLE server_keys; DROP TABLE audit; DROP INDEX users_by_avatar;
             DROP TABLE operations; DROP INDEX users_by_former_name; DROP INDEX users_with_outdated_name;
             DROP INDEX users_by_username; DROP INDEX users_by_shown_name; DROP INDEX users_by_free_name;
             DROP INDEX revocations_of_users;
             ALTER TABLE users DROP COLUMN name_of; ALTER TABLE users DROP COLUMN shown_name;
             ALTER TABLE users DROP COLUMN shown_folded; ALTER TABLE users DROP COLUMN state; ALTER TABLE users DROP COLUMN display_name;
             ALTER TABLE users DROP COLUMN avatar_file_id; ALTER TABLE users DROP COLUMN data;
             ALTER TABLE users DROP COLUMN tokens_from_s; ALTER TABLE users DROP COLUMN free_name_at_ms;
             ALTER TABLE users DROP COLUMN issuer; ALTER TABLE users DROP COLUMN claimed_name;
             ALTER TABLE users DROP COLUMN claimed_picture; ALTER TABLE users DROP COLUMN claimed_at_ms;
             ALTER TABLE revocations DROP COLUMN kind; ALTER TABLE revocations DROP COLUMN not_before_s;
             ALTER TABLE revocations DROP COLUMN except_session_id;
             DELETE FROM refinery_schema_history WHERE version > 2;",
        )
        .unwrap();
    drop(database);
    let (mut client, _process) = restart(data_dir, bus(), Services::none()).await;
    let session = login_refreshable(&mut client, "ada", PASSWORD).await.unwrap();
    assert_eq!(session.user.as_ref().unwrap().state(), AccountState::Active);
    refresh(&mut client, &session.refresh_token).await.unwrap();
    // A token of the previous version has no stored session: logout revokes it nevertheless.
    let (session_id, user_id) = (Uuid::now_v7().to_string(), user_id(&session));
    let expires_at_ms = now_ms() + Duration::from_secs(3600).as_millis() as i64;
    let logout = LogoutRequest { session_id: session_id.clone(), user_id, expires_at_ms };
    client.logout(call(logout)).await.unwrap();
    assert_eq!(revocations(&mut client).await[0].session_id, session_id);
}
