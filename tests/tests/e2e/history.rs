//! Ten thousand messages can be paged without a gap or a repeat while a client writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use confab_tests::api::{Account, Api};
use confab_tests::stock::{Socket, Stock, Transports};
use serde_json::{Value, json};

use crate::world;

const MESSAGES: usize = 10_000;
const WINDOW: usize = 200;
/// Enough to stay below the limit of events per second.
const SOCKETS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_exact_while_a_client_writes() {
    let url = world::cluster().await.plan.url((confab_tests::plan::Role::Lb, 1));
    let api = Api::new(&url);
    let account = api.signup().await.unwrap();
    let room = api.room(&account).await.unwrap();
    let stock = Stock::javascript().unwrap();
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        sockets.push(stock.connect(&url, &account.token, Transports::WebSocket).await.unwrap());
    }
    write(&sockets, &room, MESSAGES).await.unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (done, room) = (done.clone(), room.clone());
        async move {
            while !done.load(Ordering::Relaxed) {
                write(&sockets, &room, 20).await?;
            }
            anyhow::Ok(())
        }
    });
    forward(&api, &room, &account).await.unwrap();
    backward(&api, &room, &account).await.unwrap();
    done.store(true, Ordering::Relaxed);
    writer.await.unwrap().unwrap();
}

async fn write(sockets: &[Socket], room: &str, count: usize) -> anyhow::Result<()> {
    for begin in (0..count).step_by(WINDOW) {
        let sends = (begin..count.min(begin + WINDOW)).map(|n| {
            sockets[n % SOCKETS].emit_later("message", vec![json!({"roomId": room, "content": n.to_string()})])
        });
        for ack in sends.collect::<Vec<_>>() {
            let ack = ack.await?;
            anyhow::ensure!(ack[0]["ok"] == true, "{ack:?}");
        }
    }
    Ok(())
}

async fn forward(api: &Api, room: &str, account: &Account) -> anyhow::Result<()> {
    let mut path = format!("/api/messages/{room}?after=0&limit=200");
    let mut next = 1;
    while next <= MESSAGES {
        let page = api.get(&path, account).await?.expect(200)?;
        for message in items(&page)? {
            anyhow::ensure!(message["seq"] == next, "expected {next}, got {}", message["seq"]);
            next += 1;
        }
        path = format!(
            "/api/messages/{room}?limit=200&cursor={}",
            page["nextCursor"].as_str().context("more is to come")?
        );
    }
    Ok(())
}

async fn backward(api: &Api, room: &str, account: &Account) -> anyhow::Result<()> {
    let mut path = format!("/api/messages/{room}?limit=199");
    let mut before = None;
    loop {
        let page = api.get(&path, account).await?.expect(200)?;
        let seqs = items(&page)?.iter().filter_map(|message| message["seq"].as_u64()).collect::<Vec<_>>();
        let (first, last) = (*seqs.first().context("no page is empty")?, *seqs.last().context("no page is empty")?);
        anyhow::ensure!(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a page has a gap: {seqs:?}");
        anyhow::ensure!(before.is_none_or(|before| last + 1 == before), "between pages: {last} before {before:?}");
        before = Some(first);
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        path = format!("/api/messages/{room}?limit=199&cursor={cursor}");
    }
    anyhow::ensure!(before == Some(1), "the pages end at {before:?}");
    Ok(())
}

fn items(page: &Value) -> anyhow::Result<&Vec<Value>> {
    page["items"].as_array().context("a page has items")
}
