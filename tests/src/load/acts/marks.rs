//! Many users mark messages of one room as read.

use std::time::Instant;

use reqwest::Method;
use serde_json::json;

use super::super::figures::Figures;
use super::{Mark, Stage, each, send};
use crate::api::Account;
use crate::plan::Role;

/// How often each user marks.
const ROUNDS: u64 = 5;

pub async fn run(stage: &Stage, readers: usize, figures: &mut Figures) -> anyhow::Result<Vec<Mark>> {
    let api = stage.api(1);
    let users = stage.users(readers, "reader").await?;
    let owner = api.signup().await?;
    let room = api.room(&owner).await?;
    let path = format!("/api/rooms/{room}");
    let entering = {
        let (api, path) = (api.clone(), path.clone());
        move |user: Account| {
            let (api, path) = (api.clone(), format!("{path}/members/me"));
            async move { api.call(Method::PUT, &path, Some(&user), Some(json!({}))).await?.expect(201) }
        }
    };
    each(users.clone(), entering).await?;
    let mut last = 0;
    for n in 0..ROUNDS {
        last = send(&api, &owner, &room, format!("message {n}")).await?;
    }
    let series =
        r#"confab_rpc_server_seconds_count{service="confab.message.v1.MessageService",method="MarkRead",code="OK"}"#;
    let before = stage.metric((Role::Message, 1), series).await?;
    let marks =
        (0..ROUNDS).flat_map(|n| users.iter().cloned().map(move |user| (user, last - ROUNDS + 1 + n))).collect();
    let marking = {
        let (api, path) = (api.clone(), format!("{path}/read"));
        move |(user, seq): (Account, u64)| {
            let (api, path) = (api.clone(), path.clone());
            async move { api.call(Method::PUT, &path, Some(&user), Some(json!({"seq": seq}))).await?.expect(200) }
        }
    };
    let begun = Instant::now();
    let times = each(marks, marking).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let calls = stage.metric((Role::Message, 1), series).await? - before;
    anyhow::ensure!(calls > 0.0, "no call of MarkRead is counted");
    figures.add("marks a second", "/s", (readers as u64 * ROUNDS) as f64 / seconds);
    figures.add("marks: one request, p99", "ms", times.percentile(99.0));
    figures.add("marks: statements a second", "/s", calls / seconds);
    Ok(vec![Mark { name: "statements a second for marks", value: calls / seconds, most: 2.0 }])
}
