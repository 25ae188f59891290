//! An HTTP client of the public API.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contract;

/// How long clients repeat a request while too many passwords wait to be hashed.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause before they repeat it.
const PAUSE: Duration = Duration::from_millis(200);
/// The password of every account created here.
pub const PASSWORD: &str = "correct horse battery";

/// A client of one server address.
#[derive(Debug, Clone)]
pub struct Api {
    pub url: String,
    http: reqwest::Client,
}

/// An account and its token.
#[derive(Debug, Clone)]
pub struct Account {
    pub id: String,
    pub username: String,
    pub token: String,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// The JSON body; null when the body is not JSON.
    pub body: Value,
    pub bytes: Vec<u8>,
}

/// Returns the expected answer to a repeat of the request whose answer was `first`.
pub fn repeated(first: &Value) -> Value {
    let mut again = first.clone();
    again["duplicate"] = true.into();
    again
}

impl Answer {
    /// Creates a response; its body may be JSON.
    pub fn new(status: u16, headers: HeaderMap, bytes: Vec<u8>) -> Self {
        Self { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null), bytes }
    }

    /// Returns the text of a header; empty when the header is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns the `code` of a documented failure.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Returns the body of a response that must have this status.
    ///
    /// # Errors
    /// When it has another status.
    pub fn expect(self, status: u16) -> anyhow::Result<Value> {
        ensure!(self.status == status, "expected {status}, got {} {}", self.status, self.body);
        Ok(self.body)
    }
}

impl Api {
    /// Creates a client of the server at `url`.
    ///
    /// # Panics
    /// When the client cannot be created.
    pub fn new(url: impl Into<String>) -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().expect("an HTTP client");
        Self { url: url.into(), http }
    }

    /// Returns a request builder, for cases that [`Api::call`] does not cover.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When there is no answer.
    ///
    /// # Panics
    /// When the response contradicts the server's OpenAPI document.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
        let (http, request) = request.build_split();
        let request = request?;
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = http.execute(request).await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let answer = Answer::new(status, headers, response.bytes().await?.to_vec());
        contract::check(&self.url, method.as_str(), &path, &answer).await?;
        Ok(answer)
    }

    /// Calls the API as an account, or anonymously.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        who: Option<&Account>,
        body: Option<Value>,
    ) -> anyhow::Result<Answer> {
        let mut request = self.request(method, path);
        if let Some(account) = who {
            request = request.bearer_auth(&account.token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.send(request).await
    }

    pub async fn get(&self, path: &str, who: &Account) -> anyhow::Result<Answer> {
        self.call(Method::GET, path, Some(who), None).await
    }

    pub async fn post(&self, path: &str, who: &Account, body: Value) -> anyhow::Result<Answer> {
        self.call(Method::POST, path, Some(who), Some(body)).await
    }

    /// Creates an account with a unique name.
    ///
    /// # Errors
    /// When signup is rejected.
    pub async fn signup(&self) -> anyhow::Result<Account> {
        let username = unique("user");
        let credentials = json!({"username": username, "password": PASSWORD});
        self.enter("/api/auth/signup", credentials).await?.expect(201).and_then(|body| Account::of(&body))
    }

    /// Signs up or logs in, with patience.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn enter(&self, path: &str, credentials: Value) -> anyhow::Result<Answer> {
        let patience = Patience::begin();
        loop {
            let answer = self.call(Method::POST, path, None, Some(credentials.clone())).await?;
            if !patience.again(&answer).await {
                return Ok(answer);
            }
        }
    }

    /// Creates a room with a unique name and returns its id.
    ///
    /// # Errors
    /// When the request is rejected.
    pub async fn room(&self, owner: &Account) -> anyhow::Result<String> {
        let room = self.post("/api/rooms", owner, json!({"name": unique("room")})).await?.expect(201)?;
        Ok(room["id"].as_str().context("a room has an id")?.into())
    }

    /// Returns the whole history of a room, oldest first, read in pages of `limit`.
    ///
    /// # Errors
    /// When a page is rejected.
    pub async fn history(&self, room: &str, reader: &Account, limit: u32) -> anyhow::Result<Vec<Value>> {
        self.pages(&format!("/api/messages/{room}?limit={limit}"), "after=0", reader).await
    }

    /// Returns the items of all pages of a list. `path` has the parameters of every page, `first` those of the first.
    ///
    /// # Errors
    /// When a page is rejected.
    pub async fn pages(&self, path: &str, first: &str, reader: &Account) -> anyhow::Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut parameters = first.to_owned();
        loop {
            let mut page = self.get(&format!("{path}&{parameters}"), reader).await?.expect(200)?;
            all.append(page["items"].as_array_mut().context("a page has items")?);
            match page["nextCursor"].as_str() {
                Some(cursor) => parameters = format!("cursor={cursor}"),
                None => return Ok(all),
            }
        }
    }
}

impl Account {
    /// Returns the account in the response of signup or login.
    ///
    /// # Errors
    /// When it is not such a response.
    pub fn of(body: &Value) -> anyhow::Result<Self> {
        let text = |value: &Value| value.as_str().map(String::from).with_context(|| format!("no account: {body}"));
        Ok(Self {
            id: text(&body["user"]["id"])?,
            username: text(&body["user"]["username"])?,
            token: text(&body["token"])?,
        })
    }
}

/// Until when a client repeats a request because too many passwords wait to be hashed. Such a request has done nothing.
pub struct Patience(Instant);

impl Patience {
    pub fn begin() -> Self {
        Self(Instant::now() + PATIENCE)
    }

    /// Returns whether to make the request again, after a pause.
    pub async fn again(&self, answer: &Answer) -> bool {
        let is_busy =
            answer.status == 503 && answer.body["detail"].as_str().is_some_and(|it| it.starts_with("password"));
        let again = is_busy && Instant::now() < self.0;
        if again {
            tokio::time::sleep(PAUSE).await;
        }
        again
    }
}

/// Returns a name that has not been used before.
pub fn unique(prefix: &str) -> String {
    let id = Uuid::new_v4().simple().to_string();
    format!("{prefix}-{}", &id[..16])
}
