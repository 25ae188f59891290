//! What the cells of one test share: the ends of the server, the accounts, and rooms that no request changes.

use std::sync::Arc;

use anyhow::Context;
use confab_tests::api::{Account, Answer, Api, PASSWORD, unique};
use confab_tests::issuer::Issuer;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;

use super::callers::{CALLERS, Caller, OPEN, Part};
use super::people::{People, foreign, text};
use super::servers::Servers;
use super::table::Kind;

/// Cells that are tested at the same time.
const CONCURRENT: usize = 8;

pub struct Stage {
    ends: [Api; 2],
    pub issuer: &'static Issuer,
    pub people: People,
    is_open: bool,
    /// Two rooms for each column.
    places: Vec<OnceCell<Place>>,
}

/// A room in which a caller has its role, with files.
#[derive(Debug, Clone)]
pub struct Place {
    pub room: String,
    pub name: String,
    /// The target's file.
    pub file: String,
    /// The caller's own file; the target's file for a caller that cannot upload one.
    pub mine: String,
    /// The number of the target's message.
    pub seq: u64,
    /// That of the caller's own message; of the target's message for a caller that cannot send one.
    pub own_seq: u64,
}

impl Stage {
    pub async fn at(servers: &'static Servers) -> anyhow::Result<Arc<Self>> {
        let ends = servers.urls.clone().map(Api::new);
        let people = People::at(&ends[0], &ends[1], servers).await?;
        let places = (0..2 * CALLERS.len()).map(|_| OnceCell::new()).collect();
        Ok(Arc::new(Self { ends, issuer: &servers.issuer, people, is_open: servers.is_open, places }))
    }

    /// Returns the end that prepares a request, and the end that answers it. They change their places from row to row.
    pub fn ends(&self, row: usize) -> (&Api, &Api) {
        (&self.ends[row % 2], &self.ends[1 - row % 2])
    }

    /// Returns whether this server is the one for the column.
    pub fn has(&self, column: usize) -> bool {
        self.is_open == (CALLERS[column].0 == OPEN)
    }

    /// Returns the room of a caller that no request changes.
    pub async fn place(&self, api: &Api, kind: Kind, column: usize) -> anyhow::Result<&Place> {
        let at = 2 * column + usize::from(kind == Kind::Public);
        self.places[at].get_or_try_init(|| self.new_place(api, kind, CALLERS[column].1)).await
    }

    /// Creates a room for one request.
    pub async fn new_place(&self, api: &Api, kind: Kind, caller: Caller) -> anyhow::Result<Place> {
        let (people, name) = (&self.people, unique("matrix"));
        let owner = people.of(Part::Owner);
        let new = json!({"name": name, "visibility": kind.visibility()});
        let room = text(&api.post("/api/rooms", owner, new).await?.expect(201)?["id"])?;
        let member = |account: &Account| format!("/api/rooms/{room}/members/{}", account.id);
        api.call(Method::PUT, &member(&people.target), Some(owner), None).await?.expect(201)?;
        let part = caller.part();
        if let Some((part, role)) = part.and_then(|part| Some((part, part.role()?))) {
            let role = Some(json!({"role": role}));
            api.call(Method::PUT, &member(people.of(part)), Some(owner), role).await?.expect(201)?;
        }
        let file = text(&api.share(&people.target, Some(&room), "file.txt", b"file").await?["id"])?;
        let seq = said(api, &people.target, &room).await?;
        // A removed member has uploaded the file, and sent the message, before.
        let may_upload = part.is_some_and(|part| kind == Kind::Public || part.role().is_some() || part == Part::Owner);
        let (mine, own_seq) = match people.live(caller).filter(|_| may_upload) {
            Some(account) => {
                let mine = text(&api.share(account, Some(&room), "mine.txt", b"mine").await?["id"])?;
                (mine, said(api, account, &room).await?)
            }
            None => (file.clone(), seq),
        };
        if part == Some(Part::Removed) {
            let removed = member(people.of(Part::Removed));
            api.call(Method::DELETE, &removed, Some(owner), None).await?.expect(204)?;
        }
        Ok(Place { room, name, file, mine, seq, own_seq })
    }

    /// Returns a new account of the same kind as the caller's.
    pub async fn new_account(&self, api: &Api, part: Part) -> anyhow::Result<Account> {
        match part {
            Part::Suspended => Ok(self.people.of(part).clone()),
            Part::Foreign | Part::ForeignMember => Ok(foreign(self.issuer)),
            _ => api.signup().await,
        }
    }

    /// Opens another session of the account and returns its token.
    pub async fn login(&self, api: &Api, account: &Account) -> anyhow::Result<Account> {
        let body = json!({"username": account.username, "password": PASSWORD});
        Account::of(&api.enter("/api/auth/login", body).await?.expect(200)?)
    }
}

/// Sends a message and returns its number.
async fn said(api: &Api, account: &Account, room: &str) -> anyhow::Result<u64> {
    let sent = api.post("/api/messages", account, json!({"roomId": room, "content": "hello"})).await?.expect(201)?;
    sent["seq"].as_u64().context("a message has a number")
}

/// Tests cells concurrently. Returns what they find wrong.
pub async fn all<F>(cells: Vec<F>) -> Vec<String>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(CONCURRENT));
    let mut tasks = JoinSet::new();
    for cell in cells {
        let permits = permits.clone();
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            cell.await
        });
    }
    let mut wrong = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        wrong.extend(ended.map_err(anyhow::Error::from).flatten().err().map(|error| format!("{error:#}")));
    }
    wrong.sort();
    wrong
}

/// The code of an error with this status.
pub fn code(status: u16) -> &'static str {
    match status {
        400 => "invalid_request",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        409 => "conflict",
        _ => "no such error in the table",
    }
}

/// Returns what a client can tell apart in an answer. Ids that the client has sent do not count.
pub fn shown(answer: &Answer, sent: &[String]) -> (u16, Vec<(String, String)>, String) {
    // The caller's own limits count down.
    let ignored = ["date", "x-request-id", "ratelimit"];
    let headers = answer.headers.iter().filter(|(name, _)| !ignored.contains(&name.as_str()));
    let headers =
        headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let mut body = answer.body.clone();
    if let Some(id) = body.get_mut("requestId") {
        *id = Value::Null;
    }
    (answer.status, headers.collect(), without(&body.to_string(), sent))
}

/// Replaces the ids that a client has sent.
pub fn without(text: &str, sent: &[String]) -> String {
    sent.iter().fold(text.to_owned(), |text, id| text.replace(id, "ID"))
}
