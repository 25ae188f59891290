//! Sessions, refresh tokens, passwords and the end of an account, seen from another gateway.

use std::collections::HashSet;
use std::time::Duration;

use confab_tests::api::PASSWORD;
use confab_tests::embedded::Embedded;
use confab_tests::wait::eventually;

use super::*;

everywhere!(
    sessions_are_listed_and_ended,
    a_new_password_ends_all_other_sessions,
    all_sessions_end_together,
    a_refresh_token_has_one_successor,
    a_reused_refresh_token_ends_the_session,
    a_socket_renews_its_token,
    a_deleted_account_leaves_everything,
    data_of_a_profile_is_kept_as_it_is_sent,
);

async fn data_of_a_profile_is_kept_as_it_is_sent(scene: Scene) {
    let text = r#"{"b":1.0, "a":1E2,"a":12345678901234567890123,"c":"\u00e9"}"#;
    let request = scene.one.request(Method::PATCH, "/api/auth/me").bearer_auth(&scene.owner.token);
    let request = request.header("content-type", "application/json").body(format!(r#"{{"data":{text}}}"#));
    let changed = scene.one.send(request).await.unwrap();
    let read = scene.other.get("/api/auth/me", &scene.owner).await.unwrap();
    for answer in [changed, read] {
        let body = String::from_utf8(answer.bytes).unwrap();
        assert!(answer.status == 200 && body.contains(&format!("\"data\":{text},")), "{body}");
    }
}

/// Logs in again; the body may ask for a refresh token.
async fn login(api: &Api, account: &Account, more: Value) -> Value {
    let mut body = json!({"username": account.username, "password": PASSWORD});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    api.call(Method::POST, "/api/auth/login", None, Some(body)).await.unwrap().expect(200).unwrap()
}

async fn refresh(api: &Api, token: &Value) -> Answer {
    api.call(Method::POST, "/api/auth/refresh", None, Some(json!({"refreshToken": token}))).await.unwrap()
}

/// Waits until a gateway rejects the token.
async fn rejected(api: &Api, account: &Account) {
    let is_rejected = async || (api.get("/api/auth/me", account).await.ok()?.status == 401).then_some(());
    eventually("the token is rejected", Duration::from_secs(5), is_rejected).await.unwrap();
}

async fn sessions_are_listed_and_ended(scene: Scene) {
    let owner = &scene.owner;
    let other = Account::of(&login(&scene.one, owner, json!({})).await).unwrap();
    let listed = async |who: &Account| {
        let listed = scene.other.get("/api/auth/sessions", who).await.unwrap().expect(200).unwrap();
        listed["items"].as_array().unwrap().clone()
    };
    let sessions = listed(&other).await;
    assert_eq!(sessions.len(), 2);
    assert_eq!(sessions.iter().filter(|session| session["current"] == true).count(), 1);
    assert!(sessions.iter().all(|session| session["address"] == "127.0.0.0/24"), "{sessions:?}");
    let foreign = listed(&scene.stranger).await[0]["id"].as_str().unwrap().to_owned();
    for id in [&*foreign, "nonsense"] {
        let answer = scene.one.call(Method::DELETE, &format!("/api/auth/sessions/{id}"), Some(owner), None).await;
        fails(&answer.unwrap(), 404, "not_found");
    }
    let mut socket = WebSocket::connect(&scene.other.url, &other.token).await.unwrap();
    let theirs = sessions.iter().find(|session| session["current"] == true).unwrap()["id"].as_str().unwrap();
    let path = format!("/api/auth/sessions/{theirs}");
    assert_eq!(scene.one.call(Method::DELETE, &path, Some(owner), None).await.unwrap().status, 204);
    assert_eq!(socket.event("sessionEnded").await.unwrap()["code"], "logged_out");
    rejected(&scene.other, &other).await;
    assert_eq!(listed(owner).await.len(), 1);
}

async fn a_new_password_ends_all_other_sessions(scene: Scene) {
    let owner = &scene.owner;
    let other = Account::of(&login(&scene.one, owner, json!({})).await).unwrap();
    let mut theirs = WebSocket::connect(&scene.other.url, &other.token).await.unwrap();
    let mut own = WebSocket::connect(&scene.other.url, &owner.token).await.unwrap();
    let change = async |current: &str| {
        let body = json!({"currentPassword": current, "newPassword": "staple battery horse"});
        scene.one.call(Method::PUT, "/api/auth/password", Some(owner), Some(body)).await.unwrap()
    };
    fails(&change("a wrong password").await, 403, "forbidden");
    assert_eq!(change(PASSWORD).await.status, 204);
    theirs.event("sessionEnded").await.unwrap();
    rejected(&scene.other, &other).await;
    // The session that changed the password stays.
    assert_eq!(own.emit("joinRoom", json!(scene.room)).await.unwrap()["ok"], true);
    let old = json!({"username": owner.username, "password": PASSWORD});
    let answer = scene.other.call(Method::POST, "/api/auth/login", None, Some(old)).await.unwrap();
    fails(&answer, 401, "invalid_credentials");
    let new = json!({"username": owner.username, "password": "staple battery horse"});
    scene.other.call(Method::POST, "/api/auth/login", None, Some(new)).await.unwrap().expect(200).unwrap();
}

async fn all_sessions_end_together(scene: Scene) {
    let owner = &scene.owner;
    let other = Account::of(&login(&scene.one, owner, json!({})).await).unwrap();
    let path = "/api/auth/logout-all";
    assert_eq!(scene.one.call(Method::POST, path, Some(owner), None).await.unwrap().status, 204);
    rejected(&scene.other, &other).await;
    assert_eq!(scene.other.get("/api/auth/me", owner).await.unwrap().status, 200);
    let current = Some(json!({"current": true}));
    assert_eq!(scene.one.call(Method::POST, path, Some(owner), current).await.unwrap().status, 204);
    rejected(&scene.other, owner).await;
    // A login right afterwards works everywhere.
    let again = Account::of(&login(&scene.one, owner, json!({})).await).unwrap();
    assert_eq!(scene.other.get("/api/auth/me", &again).await.unwrap().status, 200);
}

async fn a_refresh_token_has_one_successor(scene: Scene) {
    let first = login(&scene.one, &scene.owner, json!({"refresh": true})).await;
    assert!(first["refreshExpiresAt"].is_string(), "{first}");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (api, token) = ([&scene.one, &scene.other][n % 2].clone(), first["refreshToken"].clone());
        tasks.spawn(async move { refresh(&api, &token).await.expect(200).unwrap() });
    }
    let answers = tasks.join_all().await;
    let successors = answers.iter().map(|answer| answer["refreshToken"].as_str().unwrap()).collect::<HashSet<_>>();
    assert_eq!(successors.len(), 1);
    // All of them are one session.
    let renewed = Account::of(&answers[0]).unwrap();
    let sessions = scene.other.get("/api/auth/sessions", &renewed).await.unwrap().expect(200).unwrap();
    assert_eq!(sessions["items"].as_array().unwrap().len(), 2, "the signup and this login");
    // Neither token is taken for the other.
    fails(&refresh(&scene.one, &json!(renewed.token)).await, 401, "unauthorized");
    let bearer = Account { token: first["refreshToken"].as_str().unwrap().into(), ..renewed.clone() };
    fails(&scene.one.get("/api/auth/me", &bearer).await.unwrap(), 401, "unauthorized");
}

async fn a_reused_refresh_token_ends_the_session(scene: Scene) {
    let first = login(&scene.one, &scene.owner, json!({"refresh": true})).await;
    let second = refresh(&scene.one, &first["refreshToken"]).await.expect(200).unwrap();
    let third = refresh(&scene.other, &second["refreshToken"]).await.expect(200).unwrap();
    let account = Account::of(&third).unwrap();
    // A client may repeat a request for 10 s; after that, a second client must have the token.
    let reused = async || (refresh(&scene.one, &first["refreshToken"]).await.status == 401).then_some(());
    eventually("the reuse is noticed", Duration::from_secs(20), reused).await.unwrap();
    rejected(&scene.other, &account).await;
    fails(&refresh(&scene.one, &third["refreshToken"]).await, 401, "unauthorized");
}

async fn a_socket_renews_its_token(scene: Scene) {
    let first = login(&scene.one, &scene.owner, json!({})).await;
    let second = login(&scene.one, &scene.owner, json!({})).await;
    let mut socket = WebSocket::connect(&scene.other.url, first["token"].as_str().unwrap()).await.unwrap();
    assert_eq!(socket.emit("joinRoom", json!(scene.room)).await.unwrap()["ok"], true);
    for (token, code) in [(json!(scene.guest.token), "forbidden"), (json!("nonsense"), "unauthorized")] {
        let ack = socket.emit("auth", json!({"token": token})).await.unwrap();
        assert_eq!(ack["error"]["code"], code, "{ack}");
    }
    let ack = socket.emit("auth", json!({"token": second["token"]})).await.unwrap();
    assert_eq!(ack, json!({"ok": true, "expiresAt": second["expiresAt"]}));
    // The end of the first token no longer concerns the socket; that of the second one does.
    let (first, second) = (Account::of(&first).unwrap(), Account::of(&second).unwrap());
    scene.one.post("/api/auth/logout", &first, Value::Null).await.unwrap().expect(200).unwrap();
    rejected(&scene.other, &first).await;
    assert_eq!(scene.post(&scene.owner, "still here").await.status, 201);
    assert_eq!(socket.event("message").await.unwrap()["content"], "still here");
    scene.one.post("/api/auth/logout", &second, Value::Null).await.unwrap().expect(200).unwrap();
    assert_eq!(socket.event("sessionEnded").await.unwrap()["code"], "logged_out");
}

async fn a_deleted_account_leaves_everything(scene: Scene) {
    let (mut witness, _) = scene.joined(&scene.guest, json!({})).await;
    let mut socket = WebSocket::connect(&scene.other.url, &scene.owner.token).await.unwrap();
    let delete = async |password: &str| {
        let body = Some(json!({"password": password}));
        scene.one.call(Method::DELETE, "/api/auth/me", Some(&scene.owner), body).await.unwrap()
    };
    fails(&delete("a wrong password").await, 403, "forbidden");
    assert_eq!(delete(PASSWORD).await.status, 204);
    socket.event("sessionEnded").await.unwrap();
    rejected(&scene.other, &scene.owner).await;
    let credentials = json!({"username": scene.owner.username, "password": PASSWORD});
    let answer = scene.other.call(Method::POST, "/api/auth/login", None, Some(credentials.clone())).await.unwrap();
    fails(&answer, 401, "invalid_credentials");
    let answer = scene.other.call(Method::POST, "/api/auth/signup", None, Some(credentials)).await.unwrap();
    fails(&answer, 409, "username_taken");
    // The room passes to its other member.
    let left = witness.event("memberLeft").await.unwrap();
    assert_eq!((&left["data"]["user"]["id"], &left["data"]["role"]), (&json!(scene.owner.id), &json!("owner")));
    let room = scene.other.get(&scene.path(""), &scene.guest).await.unwrap().expect(200).unwrap();
    assert_eq!(room["role"], "owner");
}

#[tokio::test]
async fn signup_is_a_setting() {
    let server = Embedded::start(&[("CONFAB_SIGNUP", "off")]).await.unwrap();
    let body = json!({"username": "ada", "password": PASSWORD, "inviteCode": "x"});
    let answer = Api::new(server.url()).call(Method::POST, "/api/auth/signup", None, Some(body)).await.unwrap();
    fails(&answer, 403, "forbidden");
}
