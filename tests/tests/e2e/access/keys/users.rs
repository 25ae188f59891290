//! Users that a server key manages, deleted authors, pictures and invites.

use confab_tests::api::PASSWORD;
use confab_tests::form::Form;
use confab_tests::server_keys;

use super::*;

with_a_key!(
    users_are_created_and_get_tokens,
    users_are_suspended_restored_and_deleted,
    a_deleted_author_has_no_name,
    a_picture_is_readable_without_a_token,
);

async fn users_are_created_and_get_tokens(keyed: Keyed) {
    let (id, name) = (uuid::Uuid::new_v4().to_string(), unique("app"));
    let path = format!("/api/admin/users/{id}");
    let put = async |body: Value| keyed.admin(Method::PUT, &path, Some(body)).await;
    let created = put(json!({"username": name, "data": {"plan": "free"}})).await.expect(201).unwrap();
    assert_eq!((&created["id"], &created["data"]), (&json!(id), &json!({"plan": "free"})));
    let changed = put(json!({"username": name, "displayName": "App User"})).await.expect(200).unwrap();
    assert_eq!((&changed["displayName"], &changed["data"]), (&json!("App User"), &json!({"plan": "free"})));
    fails(&put(json!({"username": keyed.scene.owner.username})).await, 409, "username_taken");
    fails(&put(json!({"username": "system"})).await, 400, "invalid_request");
    let login = Some(json!({"username": name, "password": PASSWORD}));
    let answer = keyed.scene.one.call(Method::POST, "/api/auth/login", None, login).await.unwrap();
    fails(&answer, 401, "invalid_credentials");
    let issue = async |body: Value| keyed.admin(Method::POST, "/api/admin/tokens", Some(body)).await;
    let issued = issue(json!({"userId": id, "ttl": 3600})).await.expect(200).unwrap();
    assert_eq!((&issued["tokenType"], &issued["user"]["username"]), (&json!("Bearer"), &json!(name)));
    assert!(issued.get("refreshToken").is_none());
    let account = Account::of(&issued).unwrap();
    let me = keyed.scene.other.get("/api/auth/me", &account).await.unwrap().expect(200).unwrap();
    assert_eq!(me["displayName"], "App User");
    let mut socket = WebSocket::connect(&keyed.scene.other.url, &account.token).await.unwrap();
    let room = keyed.scene.one.room(&account).await.unwrap();
    assert_eq!(socket.emit("joinRoom", json!(room)).await.unwrap()["ok"], true);
    fails(&issue(json!({"userId": uuid::Uuid::now_v7()})).await, 404, "not_found");
    fails(&issue(json!({"userId": id, "ttl": 86_401})).await, 400, "invalid_request");
    assert_eq!(keyed.admin(Method::POST, &format!("{path}/end-sessions"), None).await.status, 204);
    socket.event("sessionEnded").await.unwrap();
    assert_eq!(keyed.audit(&id).await, ["user.end_sessions", "token.create", "user.change", "user.create"]);
}

async fn users_are_suspended_restored_and_deleted(keyed: Keyed) {
    let guest = &keyed.scene.guest;
    let path = format!("/api/admin/users/{}", guest.id);
    let act = async |act: &str| keyed.admin(Method::POST, &format!("{path}/{act}"), None).await.status;
    let (_, key) = keyed.create(&["rooms"]).await;
    let acting = async || keyed.call(&key, Some(&guest.id), Method::GET, &keyed.scene.path(""), None).await;
    assert_eq!(acting().await.status, 200);
    let mut socket = WebSocket::connect(&keyed.scene.other.url, &guest.token).await.unwrap();
    assert_eq!([act("suspend").await, act("suspend").await], [204, 204]);
    socket.event("sessionEnded").await.unwrap();
    let rejected = async || (keyed.scene.other.get("/api/auth/me", guest).await.ok()?.status == 401).then_some(());
    eventually("the token is rejected", SOON, rejected).await.unwrap();
    let forbidden = async || (acting().await.status == 403).then_some(());
    eventually("the key cannot act as the user", SOON, forbidden).await.unwrap();
    fails(&acting().await, 403, "forbidden");
    let token = json!({"userId": guest.id});
    fails(&keyed.admin(Method::POST, "/api/admin/tokens", Some(token.clone())).await, 403, "forbidden");
    assert_eq!(act("restore").await, 204);
    let restored = async || (acting().await.status == 200).then_some(());
    eventually("the key can act as the user again", SOON, restored).await.unwrap();
    assert_eq!(keyed.admin(Method::DELETE, &path, None).await.status, 204);
    let gone = async || (acting().await.status == 404).then_some(());
    eventually("the user is gone", SOON, gone).await.unwrap();
    fails(&keyed.admin(Method::POST, "/api/admin/tokens", Some(token)).await, 404, "not_found");
    fails(&keyed.admin(Method::PUT, &path, Some(json!({"username": unique("app")}))).await, 409, "conflict");
    assert_eq!(act("restore").await, 409);
    let entries = keyed.entries(&guest.id).await;
    let acts = entries.iter().map(|entry| entry["act"].as_str().unwrap());
    let acts = acts.filter(|act| *act != "act_as").collect::<Vec<_>>();
    assert_eq!(acts, ["user.delete", "user.restore", "user.suspend"], "what changes nothing is not recorded");
}

async fn a_deleted_author_has_no_name(keyed: Keyed) {
    let Scene { one, other, owner, guest, .. } = &keyed.scene;
    let room = one.room(owner).await.unwrap();
    let post = json!({"roomId": room, "content": "mine"});
    one.post("/api/messages", owner, post).await.unwrap().expect(201).unwrap();
    one.share(owner, Some(&room), "a.txt", b"text").await.unwrap();
    let member = format!("/api/rooms/{room}/members/{}", guest.id);
    assert_eq!(one.call(Method::PUT, &member, Some(owner), None).await.unwrap().status, 201);
    assert_eq!(keyed.admin(Method::DELETE, &format!("/api/admin/users/{}", owner.id), None).await.status, 204);
    let deleted = json!({"id": owner.id, "username": "deleted"});
    let path = format!("/api/rooms/{room}");
    let hidden = async || {
        let shown = other.get(&path, guest).await.ok()?.expect(200).ok()?;
        (shown["createdBy"] == deleted).then_some(shown)
    };
    let shown = eventually("the name is hidden", SOON, hidden).await.unwrap();
    let text = shown.to_string();
    assert!(!text.contains(&owner.username), "{text}");
    let history = other.history(&room, guest, 200).await.unwrap();
    let mine = history.iter().find(|item| item["content"] == "mine").unwrap();
    let file = history.iter().find(|item| item["type"] == "file").unwrap();
    assert_eq!((&mine["sender"], &file["files"][0]["uploadedBy"]), (&deleted, &deleted));
    let mut socket = WebSocket::connect(&other.url, &guest.token).await.unwrap();
    let ack = socket.emit("joinRoom", json!({"roomId": room, "last": 50})).await.unwrap();
    assert_eq!((&ack["ok"], &ack["room"]["createdBy"]), (&json!(true), &deleted));
    let files = other.get(&format!("/api/files?roomId={room}"), guest).await.unwrap().expect(200).unwrap();
    assert_eq!(files["items"][0]["uploadedBy"], deleted);
    for answer in [json!(history), ack, files] {
        assert!(!answer.to_string().contains(&owner.username), "{answer}");
    }
}

async fn a_picture_is_readable_without_a_token(keyed: Keyed) {
    let Scene { one, other, owner, guest, room, .. } = &keyed.scene;
    let png =
        [b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89".to_vec(), vec![0; 64]]
            .concat();
    let upload = async |room: Option<&str>, kind: &str, bytes: &[u8]| {
        let form = room.map_or(Form::new(), |room| Form::new().field("roomId", room));
        let uploaded = one.upload(owner, form.file("a.png", kind, bytes)).await.unwrap().expect(201).unwrap();
        uploaded["id"].as_str().unwrap().to_owned()
    };
    let choose = async |who: &Account, file: &str| {
        one.call(Method::PATCH, "/api/auth/me", Some(who), Some(json!({"avatarFileId": file}))).await.unwrap()
    };
    let picture = upload(None, "image/png", &png).await;
    let url = format!("/api/avatars/{picture}");
    let show = async || other.call(Method::GET, &url, None, None).await.unwrap();
    fails(&show().await, 404, "not_found");
    assert_eq!(choose(owner, &picture).await.expect(200).unwrap()["avatarUrl"], json!(url));
    let shown = show().await;
    assert_eq!((shown.status, &shown.bytes), (200, &png));
    for (name, value) in [
        ("content-type", "image/png"),
        ("cache-control", "public, max-age=3600, immutable"),
        ("cross-origin-resource-policy", "cross-origin"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox; default-src 'none'"),
    ] {
        assert_eq!(shown.header(name), value);
    }
    let large = [png.clone(), vec![0; 1024 * 1024]].concat();
    for (who, file) in [
        (guest, picture.clone()),
        (owner, upload(None, "text/plain", b"text").await),
        (owner, upload(None, "image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg'/>").await),
        (owner, upload(None, "image/png", &large).await),
        (owner, upload(Some(room), "image/png", &png).await),
        (owner, uuid::Uuid::now_v7().to_string()),
    ] {
        let answer = choose(who, &file).await;
        fails(&answer, 400, "invalid_request");
        assert_eq!(answer.body["errors"][0]["field"], "avatarFileId");
    }
    let cleared = Some(json!({"avatarFileId": null}));
    one.call(Method::PATCH, "/api/auth/me", Some(owner), cleared).await.unwrap().expect(200).unwrap();
    fails(&show().await, 404, "not_found");
}

#[tokio::test]
async fn an_invite_admits_one_account() {
    let server = Embedded::start(&[("CONFAB_SIGNUP", "invite")]).await.unwrap();
    let key = server_keys::of_embedded(&server, "users").await.unwrap();
    let api = Api::new(server.url());
    let create = async |body: Value| api.post("/api/admin/invites", &key, body).await.unwrap();
    fails(&create(json!({"uses": 0})).await, 400, "invalid_request");
    let invite = create(json!({})).await.expect(201).unwrap();
    let signup = async |name: &str| {
        let body = json!({"username": name, "password": PASSWORD, "inviteCode": invite["code"]});
        api.call(Method::POST, "/api/auth/signup", None, Some(body)).await.unwrap()
    };
    assert_eq!(signup("ada").await.status, 201);
    fails(&signup("eve").await, 403, "forbidden");
}
