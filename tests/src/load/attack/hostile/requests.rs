//! Requests that cost the server more than their sender.

use std::sync::Arc;

use anyhow::ensure;
use serde_json::json;
use tokio::task::JoinSet;

use super::super::net::Http;
use super::super::stage::Stage;
use super::{Field, again};
use crate::api::unique;

/// Connections that log in.
const LOGINS: usize = 800;
/// Connections that search, and rooms that are searched.
const SEARCHES: usize = 64;
const ROOMS: usize = 100_000;
/// Connections that create the rooms in advance.
const MAKERS: usize = 32;
/// Connections that request the documentation.
const DOCS: usize = 4;

/// Logins to an existing account with a wrong password.
pub fn logins(field: &Arc<Field>, tasks: &mut JoinSet<()>) {
    let body = json!({"username": field.account.username, "password": "not my own password"}).to_string();
    many(LOGINS, field, tasks, "wrong logins", async move |field: &Field, http: &mut Http| {
        let answer = http.post("/api/auth/login", "Content-Type: application/json\r\n", body.as_bytes()).await?;
        if answer.status != 401 {
            field.tally.count("logins not judged", 1);
        }
        Ok(())
    });
}

/// Searches without matches, which take the longest.
pub fn searches(field: &Arc<Field>, tasks: &mut JoinSet<()>) {
    many(SEARCHES, field, tasks, "searches", async |field: &Field, http: &mut Http| {
        let answer = http.get(&format!("GET /api/rooms?q={}", unique("zz")), &bearer(field)).await?;
        if answer.status != 200 {
            field.tally.count("searches refused", 1);
        }
        Ok(())
    });
}

/// HEAD of the largest file of the documentation.
pub fn docs(field: &Arc<Field>, tasks: &mut JoinSet<()>) {
    many(DOCS, field, tasks, "HEADs", async |_: &Field, http: &mut Http| {
        http.get("HEAD /docs/swagger-ui-bundle.js", "").await.map(drop)
    });
}

/// Repeats an act on this number of connections.
fn many(
    count: usize,
    field: &Arc<Field>,
    tasks: &mut JoinSet<()>,
    what: &'static str,
    act: impl AsyncFnMut(&Field, &mut Http) -> anyhow::Result<()> + Clone + 'static,
) {
    for _ in 0..count {
        tasks.spawn_local(again(field.clone(), what, act.clone()));
    }
}

/// Creates the rooms that are searched, with several accounts.
pub async fn make_rooms(stage: &Stage) -> anyhow::Result<()> {
    super::super::say(&format!("Creating {ROOMS} rooms…"));
    let mut makers = JoinSet::new();
    for maker in 0..MAKERS {
        let (route, account) = (stage.people.route, &stage.people.accounts[maker % stage.people.accounts.len()]);
        let headers = format!("Authorization: Bearer {}\r\nContent-Type: application/json\r\n", account.token);
        makers.spawn(async move {
            let mut http = route.http().await?;
            for _ in 0..ROOMS / MAKERS {
                let body = json!({"name": unique("a room among many")}).to_string();
                let answer = http.post("/api/rooms", &headers, body.as_bytes()).await?;
                ensure!(answer.status == 201, "{} {}", answer.status, answer.text());
            }
            anyhow::Ok(())
        });
    }
    while let Some(made) = makers.join_next().await {
        made??;
    }
    Ok(())
}

fn bearer(field: &Field) -> String {
    format!("Authorization: Bearer {}\r\n", field.account.token)
}
