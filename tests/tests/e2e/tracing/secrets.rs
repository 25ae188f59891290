//! Logs and traces at any level contain no password, no token, no message and no user name.

use std::fs;

use confab_tests::api::{Account, Api, unique};
use confab_tests::collector::Collector;
use confab_tests::raw::{Client, Polling, WebSocket};
use reqwest::Method;
use serde_json::json;

use crate::world;

/// Runs a typical session at one server or the other; returns the texts that must not be visible.
async fn converse(one: &Api, other: &Api) -> anyhow::Result<Vec<String>> {
    let (username, password) = (unique("secret-name"), unique("pass-of-trees"));
    let [said, shown, named, held] = ["said-over-rest", "said-over-socket", "named-file", "held-in-it"].map(unique);
    let credentials = json!({"username": username, "password": password});
    one.call(Method::POST, "/api/auth/signup", None, Some(credentials.clone())).await?.expect(201)?;
    let wrong = json!({"username": username, "password": format!("{password}?")});
    one.call(Method::POST, "/api/auth/login", None, Some(wrong)).await?.expect(401)?;
    let account =
        Account::of(&other.call(Method::POST, "/api/auth/login", None, Some(credentials)).await?.expect(200)?)?;
    let room = one.room(&account).await?;
    let mut socket = WebSocket::connect(&one.url, &account.token).await?;
    let mut polling = Polling::connect(&other.url, &account.token).await?;
    for joined in [
        socket.emit("joinRoom", json!(room)).await?,
        polling.emit("joinRoom", json!({"roomId": room, "last": 10})).await?,
    ] {
        anyhow::ensure!(joined["ok"] == true, "{joined}");
    }
    one.post("/api/messages", &account, json!({"roomId": room, "content": said})).await?.expect(201)?;
    let sent = socket.emit("message", json!({"roomId": room, "content": shown})).await?;
    anyhow::ensure!(sent["ok"] == true, "{sent}");
    polling.event("message").await?;
    let file = one.share(&account, Some(&room), &format!("{named}.txt"), held.as_bytes()).await?;
    let path = format!("/api/files/{}", file["id"].as_str().unwrap_or_default());
    one.get(&path, &account).await?.expect(200)?;
    let link = one.get(&format!("{path}/link"), &account).await?.expect(200)?;
    let link = link["url"].as_str().unwrap_or_default();
    other.send(other.request(Method::GET, link)).await?.expect(200)?;
    let signed = link.split_once("signature=").map(|(_, signature)| signature.to_owned()).unwrap_or_default();
    anyhow::ensure!(!other.history(&room, &account, 10).await?.is_empty(), "no history");
    other.post("/api/auth/logout", &account, json!({})).await?;
    let signature = account.token.rsplit('.').next().unwrap_or_default().to_owned();
    Ok(vec![username, password, said, shown, named, held, signature, signed])
}

async fn is_seen_nowhere(secrets: &[String], collector: &Collector, logs: &[String]) {
    // The collector has received the last request.
    let last = collector
        .until("the last span", |spans| spans.iter().any(|span| span.name == "POST /api/auth/logout").then_some(()));
    last.await.unwrap();
    let seen = logs.iter().flat_map(|log| log.lines().map(str::to_owned).collect::<Vec<_>>()).chain([collector.text()]);
    let seen = seen.collect::<Vec<_>>();
    assert!(seen.len() > 100, "only {} lines are logged", seen.len());
    for secret in secrets {
        assert!(secret.len() > 10, "{secret:?} is too short to be unique");
        let encodings = [secret.clone(), format!("{:?}", secret.as_bytes()), hex(secret)];
        for secret in &encodings {
            let found =
                seen.iter().find(|line| line.contains(secret)).map(|line| line.chars().take(2000).collect::<String>());
            assert_eq!(found, None, "{secret}");
        }
    }
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    let (collector, server) = super::embedded(&super::TALKATIVE).await.unwrap();
    let api = Api::new(server.url());
    let secrets = converse(&api, &api).await.unwrap();
    is_seen_nowhere(&secrets, &collector, &[fs::read_to_string(&server.daemon().log).unwrap()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_cluster() {
    let (collector, cluster) = super::cluster().await;
    let [one, other] = <[_; 2]>::try_from(world::gateways(cluster)).unwrap();
    let mut secrets = converse(&one, &other).await.unwrap();
    for key in ["cluster-key", "postgres-password", "s3-secret-access-key"] {
        secrets.push(fs::read_to_string(cluster.plan.secrets().join(key)).unwrap().trim().into());
    }
    let members = cluster.plan.members().into_iter().filter(|(role, _)| role.is_ours());
    let logs =
        members.map(|member| fs::read_to_string(cluster.daemon(member).unwrap().log).unwrap()).collect::<Vec<_>>();
    assert_eq!(logs.len(), 6);
    is_seen_nowhere(&secrets, collector, &logs).await;
}
