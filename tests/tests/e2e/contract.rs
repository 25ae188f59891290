//! The document at `/openapi.json` is complete, equals the one in `docs`, and each of its operations behaves as
//! documented. Every other test checks that no response contradicts it, see `confab_tests::contract`.

use std::collections::BTreeSet;

use anyhow::ensure;
use confab_tests::api::{Account, Api, PASSWORD};
use confab_tests::contract;
use confab_tests::embedded::Embedded;
use confab_tests::server_keys;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world;

const COMMITTED: &str = include_str!("../../../docs/openapi.json");

fn document() -> Value {
    serde_json::from_str(COMMITTED).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_serves_the_committed_document() {
    let mut servers = world::gateways(world::cluster().await);
    servers.push(Api::new(world::embedded().await.url()));
    for server in servers {
        let served = reqwest::get(format!("{}/openapi.json", server.url)).await.unwrap().text().await.unwrap();
        assert!(
            served == COMMITTED,
            "docs/openapi.json differs from the document that {} serves; `make api-docs` renews it",
            server.url
        );
    }
}

#[test]
fn document_is_complete() {
    let document = document();
    let mut names = BTreeSet::new();
    for (method, path, operation) in contract::operations(&document) {
        let at = format!("{method} {path}");
        assert!(
            operation["summary"].is_string() && operation["security"].is_array() && operation["tags"][0].is_string(),
            "{at}"
        );
        assert!(
            names.insert(operation["operationId"].as_str().unwrap().to_owned()),
            "{at}: a name that another operation has"
        );
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            // Swagger UI sends every example, so optional values have none.
            let has_example = !parameter["example"].is_null();
            assert!(
                parameter["description"].is_string() && has_example == (parameter["required"] == true),
                "{at}: {parameter}"
            );
        }
        for (kind, media) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
            has_example(&document, &at, kind, media);
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            let response = response["$ref"].as_str().map_or(response, |target| document.pointer(&target[1..]).unwrap());
            let at = format!("{at} {status}");
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{at}");
            let failure = status.as_str() >= "400";
            assert_eq!(response["content"]["application/problem+json"].is_object(), failure, "{at}");
            for (kind, media) in response["content"].as_object().into_iter().flatten() {
                has_example(&document, &at, kind, media);
            }
        }
    }
    assert!(names.len() > 15, "{names:?}");
}

/// Checks that there is an example, and that it is valid.
#[track_caller]
fn has_example(document: &Value, at: &str, kind: &str, media: &Value) {
    let named =
        media["examples"].as_object().into_iter().flat_map(|named| named.values().map(|example| &example["value"]));
    let examples = named.chain(media.get("example")).collect::<Vec<_>>();
    assert!(!examples.is_empty(), "{at}: no example as {kind}");
    let schema = contract::closed(document, &media["schema"]);
    let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&schema).unwrap();
    for example in examples {
        let faults = validator.iter_errors(example).map(|fault| fault.to_string()).collect::<Vec<_>>();
        assert!(faults.is_empty(), "{at}: {faults:?}: {example}");
    }
}

/// Uses a separate server, so that other tests' responses do not count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_succeeds_with_every_documented_status() {
    let server = Embedded::start(&[]).await.unwrap();
    let key = server_keys::of_embedded(&server, server_keys::ALL).await.unwrap();
    let api = Api::new(server.url());
    everything(&api).await.unwrap();
    administration(&api, &key).await.unwrap();
    let seen = contract::seen(&api.url).await.unwrap();
    let success = |status: &&String| status.as_str() < "400";
    let declared = contract::operations(&document()).into_iter().flat_map(|(_, _, operation)| {
        let statuses = operation["responses"].as_object().unwrap().keys().filter(success).cloned().collect::<Vec<_>>();
        statuses
            .into_iter()
            .map(move |status| (operation["operationId"].as_str().unwrap().to_owned(), status.parse().unwrap()))
    });
    let missing = declared.filter(|answer| !seen.contains(answer) && answer.0 != "reset_password").collect::<Vec<_>>();
    assert!(missing.is_empty(), "not seen: {missing:?}");
}

async fn everything(api: &Api) -> anyhow::Result<()> {
    let ada = api.signup().await?;
    let login = json!({"username": ada.username, "password": "correct horse battery"});
    let again = Account::of(&api.call(Method::POST, "/api/auth/login", None, Some(login)).await?.expect(200)?)?;
    api.get("/api/auth/me", &ada).await?.expect(200)?;
    api.call(Method::GET, "/.well-known/jwks.json", None, None).await?.expect(200)?;
    account(api).await?;

    let room = api.room(&ada).await?;
    let path = format!("/api/rooms/{room}");
    api.get("/api/rooms", &ada).await?.expect(200)?;
    let change = json!({"description": "Green and black"});
    api.call(Method::PATCH, &path, Some(&ada), Some(change)).await?.expect(200)?;

    let bob = api.signup().await?;
    let member = format!("{path}/members/{}", bob.id);
    for status in [201, 200] {
        api.call(Method::PUT, &member, Some(&ada), None).await?.expect(status)?;
    }
    api.get(&format!("{path}/members"), &ada).await?.expect(200)?;
    api.get(&format!("/api/users?ids={},{}", ada.id, bob.id), &ada).await?.expect(200)?;
    api.get(&format!("/api/users/{}", bob.id), &ada).await?.expect(200)?;
    api.call(Method::DELETE, &member, Some(&ada), None).await?.expect(204)?;

    let message = json!({"roomId": room, "content": "Milk first?", "clientMessageId": "a"});
    for status in [201, 200] {
        api.post("/api/messages", &ada, message.clone()).await?.expect(status)?;
    }
    let message = json!({"content": "Milk last?", "clientMessageId": "c"});
    let mut seq = 0;
    for status in [201, 200] {
        let sent = api.post(&format!("{path}/messages"), &ada, message.clone()).await?.expect(status)?;
        seq = sent["seq"].as_u64().unwrap_or_default();
    }
    messages(api, &ada, &path, seq).await?;
    for status in [201, 200] {
        let form = confab_tests::form::Form::new().field("roomId", &room).field("clientMessageId", "b").file(
            "a.txt",
            "text/plain",
            b"hello\n",
        );
        api.upload(&ada, form).await?.expect(status)?;
    }
    let files = api.get(&format!("/api/files?roomId={room}"), &ada).await?.expect(200)?;
    let url = files["items"][0]["url"].as_str().unwrap_or_default();
    for (method, header, value, status) in [
        (Method::GET, "accept", "*/*".to_owned(), 200),
        (Method::GET, "range", "bytes=0-2".to_owned(), 206),
        (Method::GET, "if-none-match", "*".to_owned(), 304),
        (Method::HEAD, "accept", "*/*".to_owned(), 200),
        (Method::HEAD, "if-none-match", "*".to_owned(), 304),
    ] {
        api.send(api.request(method, url).bearer_auth(&ada.token).header(header, value)).await?.expect(status)?;
    }
    api.get(&format!("{url}/link"), &ada).await?.expect(200)?;
    api.call(Method::DELETE, url, Some(&ada), None).await?.expect(204)?;
    // A deleted file, a message and a room event are among these.
    api.get(&path, &ada).await?.expect(200)?;
    api.get(&format!("/api/messages/{room}"), &ada).await?.expect(200)?;
    api.call(Method::DELETE, &path, Some(&ada), None).await?.expect(204)?;
    api.get("/api/auth/logout", &ada).await?.expect(200)?;
    api.post("/api/auth/logout", &again, Value::Null).await?.expect(200)?;
    Ok(())
}

/// Every operation on one message.
async fn messages(api: &Api, ada: &Account, room: &str, seq: u64) -> anyhow::Result<()> {
    let path = format!("{room}/messages/{seq}");
    api.call(Method::PATCH, &path, Some(ada), Some(json!({"content": "Milk last."}))).await?.expect(200)?;
    api.call(Method::PUT, &format!("{path}/pin"), Some(ada), None).await?.expect(200)?;
    api.get("/api/search?q=milk", ada).await?.expect(200)?;
    api.call(Method::PUT, &format!("{path}/reactions/tea"), Some(ada), None).await?.expect(200)?;
    api.get(&format!("{path}/reactions"), ada).await?.expect(200)?;
    api.call(Method::DELETE, &format!("{path}/reactions/tea"), Some(ada), None).await?.expect(200)?;
    for read in [&path, &format!("{path}/versions"), &format!("{room}/pins"), &format!("{room}/changes?after=0")] {
        api.get(read, ada).await?.expect(200)?;
    }
    api.get("/api/unread", ada).await?.expect(200)?;
    api.call(Method::PUT, &format!("{room}/read"), Some(ada), Some(json!({"seq": seq}))).await?.expect(200)?;
    api.get(&format!("{room}/reads"), ada).await?.expect(200)?;
    api.call(Method::PUT, &format!("{room}/notify"), Some(ada), Some(json!({"level": "all"}))).await?.expect(204)?;
    api.call(Method::DELETE, &format!("{path}/pin"), Some(ada), None).await?.expect(200)?;
    api.call(Method::DELETE, &path, Some(ada), None).await?.expect(200)?;
    for query in ["", "?events=true", "?around=1"] {
        api.get(&format!("{room}/messages{query}"), ada).await?.expect(200)?;
    }
    Ok(())
}

/// Every operation of administration, and a picture.
async fn administration(api: &Api, key: &Account) -> anyhow::Result<()> {
    let created = api.post("/api/admin/keys", key, json!({"scopes": ["rooms"]})).await?.expect(201)?;
    api.get("/api/admin/keys", key).await?.expect(200)?;
    let path = format!("/api/admin/keys/{}", created["id"].as_str().unwrap_or_default());
    api.call(Method::DELETE, &path, Some(key), None).await?.expect(204)?;
    api.post("/api/admin/invites", key, json!({"uses": 2})).await?.expect(201)?;
    let id = uuid::Uuid::now_v7().to_string();
    let path = format!("/api/admin/users/{id}");
    for status in [201, 200] {
        let user = json!({"username": "dora", "displayName": "Dora", "data": {"plan": "free"}});
        api.call(Method::PUT, &path, Some(key), Some(user)).await?.expect(status)?;
    }
    let issued = api.post("/api/admin/tokens", key, json!({"userId": id, "ttl": 60})).await?.expect(200)?;
    let dora = Account::of(&issued)?;
    let form = confab_tests::form::Form::new().file("a.png", "image/png", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR");
    let file = api.upload(&dora, form).await?.expect(201)?["id"].clone();
    let profile = json!({"avatarFileId": file});
    let account = api.call(Method::PATCH, "/api/auth/me", Some(&dora), Some(profile)).await?.expect(200)?;
    let picture = account["avatarUrl"].as_str().unwrap_or_default();
    ensure!(api.call(Method::GET, picture, None, None).await?.status == 200, "a picture");
    api.send(api.request(Method::GET, picture).header("if-none-match", "*")).await?.expect(304)?;
    for act in ["suspend", "restore", "end-sessions"] {
        api.call(Method::POST, &format!("{path}/{act}"), Some(key), None).await?.expect(204)?;
    }
    api.call(Method::DELETE, &path, Some(key), None).await?.expect(204)?;
    api.get("/api/admin/audit?limit=5", key).await?.expect(200)?;
    Ok(())
}

/// Every operation on accounts and sessions that succeeds, on an account of its own. The token of `reset_password` comes
/// from an operator's program, which a running embedded server keeps from its database.
async fn account(api: &Api) -> anyhow::Result<()> {
    let carol = api.signup().await?;
    let mut login = json!({"username": carol.username, "password": PASSWORD, "refresh": true});
    let post = async |path: &str, body: &Value| api.call(Method::POST, path, None, Some(body.clone())).await;
    let first = post("/api/auth/login", &login).await?.expect(200)?;
    let refresh = json!({"refreshToken": first["refreshToken"]});
    let second = Account::of(&post("/api/auth/refresh", &refresh).await?.expect(200)?)?;
    let sessions = api.get("/api/auth/sessions", &carol).await?.expect(200)?;
    let items = sessions["items"].as_array().into_iter().flatten();
    let other = items.filter(|session| session["current"] == false).find_map(|session| session["id"].as_str());
    let path = format!("/api/auth/sessions/{}", other.unwrap_or_default());
    api.call(Method::DELETE, &path, Some(&carol), None).await?.expect(204)?;
    ensure!(api.get("/api/auth/me", &second).await?.status == 401, "an ended session");
    let profile = json!({"displayName": "Carol", "data": {"theme": "dark"}});
    api.call(Method::PATCH, "/api/auth/me", Some(&carol), Some(profile)).await?.expect(200)?;
    let change = json!({"currentPassword": PASSWORD, "newPassword": "staple battery horse"});
    api.call(Method::PUT, "/api/auth/password", Some(&carol), Some(change)).await?.expect(204)?;
    login["password"] = json!("staple battery horse");
    let carol = Account::of(&post("/api/auth/login", &login).await?.expect(200)?)?;
    api.call(Method::POST, "/api/auth/logout-all", Some(&carol), None).await?.expect(204)?;
    let confirmation = json!({"password": "staple battery horse"});
    api.call(Method::DELETE, "/api/auth/me", Some(&carol), Some(confirmation)).await?.expect(204)?;
    Ok(())
}
