//! The rows of the HTTP API.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use confab_tests::api::{Account, Answer, Api, Patience};
use confab_tests::form::{Form, content_type};
use reqwest::Method;
use serde_json::Value;

use super::callers::{CALLERS, Caller};
use super::objects::{Needs, Objects};
use super::people::Sent;
use super::stage::{Stage, code, shown};
use super::table::{Kind, Row};

/// The expected success of a list in which the room or the user is missing.
pub const MISSING: &str = "nil";

/// The searches in paths, and the part of which they find the id.
const SEARCHES: [(&str, &str); 3] = [("q={name}", "room"), ("ids={fellow}", "fellow"), ("q={nick}", "fellow")];

/// A request of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The whole text.
    pub text: String,
    /// Whether the caller has a new account.
    is_new: bool,
    method: Method,
    path: String,
    body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Body {
    Nothing,
    Json(String),
    /// A form with these fields and a file.
    Form(Vec<(String, String)>),
}

/// One cell of the table.
#[derive(Debug, Clone)]
pub struct Cell {
    pub request: Request,
    /// The number of the row.
    pub row: usize,
    pub kind: Kind,
    pub column: usize,
    pub expected: String,
}

impl Request {
    /// Parses a request.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let (is_new, rest) = text.strip_prefix("! ").map_or((false, text), |rest| (true, rest));
        let mut words = rest.splitn(3, ' ');
        let method = words.next().unwrap_or_default().parse::<Method>()?;
        let path = words.next().context("a request has a path")?.to_owned();
        ensure!(path.starts_with('/'), "a path begins with /");
        let body = match words.next() {
            None => Body::Nothing,
            Some(json) if json.starts_with('{') => {
                serde_json::from_str::<Value>(json)?;
                Body::Json(json.to_owned())
            }
            Some(form) => {
                let mut fields = form.split(' ');
                ensure!(fields.next() == Some("form"), "a body is JSON or a form");
                let field =
                    |field: &str| field.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
                Body::Form(fields.map(field).collect::<Option<_>>().context("a field has a value")?)
            }
        };
        Ok(Self { text: text.to_owned(), is_new, method, path, body })
    }

    /// Returns `METHOD /path?query`.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Returns whether a success changes the room, the file, or the account that the request is about.
    fn changes(&self) -> bool {
        let keeps = [Method::GET, Method::HEAD, Method::POST].contains(&self.method);
        !keeps || self.path.starts_with("/api/admin/")
    }

    async fn send(&self, api: &Api, by: &Sent<'_>, objects: &Objects) -> anyhow::Result<Answer> {
        let mut request = api.request(self.method.clone(), &objects.fill(&self.path));
        if let Some(token) = by.token {
            request = request.bearer_auth(token);
        }
        if let Some(user) = by.user {
            request = request.header("Confab-User", user);
        }
        let request = match &self.body {
            Body::Nothing => request,
            Body::Json(json) => request.header("content-type", "application/json").body(objects.fill(json)),
            Body::Form(fields) => {
                let add = |form: Form, (name, value): &(String, String)| form.field(name, &objects.fill(value));
                let form = fields.iter().fold(Form::new(), add).file("x.txt", "text/plain", b"x");
                request.header("content-type", content_type()).body(form.into_body())
            }
        };
        api.send(request).await
    }
}

impl Cell {
    /// Returns the cells of the rows for the columns of the stage.
    ///
    /// # Errors
    /// When a request is malformed.
    pub fn of(rows: &[Row], stage: &Stage) -> anyhow::Result<Vec<Self>> {
        let mut cells = Vec::new();
        for (row, at) in rows.iter().zip(0..) {
            let request = Request::parse(&row.request).with_context(|| row.request.clone())?;
            for line in &row.lines {
                let columns = line.cells.iter().enumerate().filter(|(column, _)| stage.has(*column));
                cells.extend(columns.map(|(column, expected)| Self {
                    request: request.clone(),
                    row: at,
                    kind: line.kind,
                    column,
                    expected: expected.clone(),
                }));
            }
        }
        Ok(cells)
    }

    /// Makes the request and compares the answer.
    ///
    /// # Errors
    /// When the answer is another one.
    pub async fn test(self, stage: Arc<Stage>) -> anyhow::Result<()> {
        let label = format!("{} ({}) by {}", self.request.text, self.kind.name(), CALLERS[self.column].0);
        self.tested(&stage).await.context(label)
    }

    async fn tested(&self, stage: &Stage) -> anyhow::Result<()> {
        let ((prepares, answers), caller) = (stage.ends(self.row), CALLERS[self.column].1);
        let account = self.account(stage, prepares, caller).await?;
        let succeeds = self.expected.starts_with('2');
        let changes = succeeds && self.request.changes();
        let needs = Needs {
            request: &self.request.text,
            kind: self.kind,
            column: self.column,
            changes,
            account: account.as_ref(),
        };
        let objects = Objects::of(stage, prepares, &needs).await.context("preparing the request")?;
        let mut by = stage.people.sent(caller);
        if let (Caller::User(_), Some(account)) = (caller, &account) {
            by.token = Some(&account.token);
        }
        let patience = Patience::begin();
        let answer = loop {
            let answer = self.request.send(answers, &by, &objects).await?;
            if !patience.again(&answer).await {
                break answer;
            }
        };
        self.judge(&answer, &objects)?;
        // A hidden room has the answer of an unknown one.
        let is_hidden = self.kind == Kind::Private && self.expected == "404" && caller.is_outside();
        if let Some(unknown) = objects.unknown().filter(|_| is_hidden) {
            let other = self.request.send(answers, &by, &unknown).await?;
            let (hidden, unknown) = (shown(&answer, &objects.ids()), shown(&other, &unknown.ids()));
            ensure!(hidden == unknown, "answered {hidden:?}, for an unknown room {unknown:?}");
        }
        Ok(())
    }

    /// Returns the account of the caller.
    async fn account(&self, stage: &Stage, api: &Api, caller: Caller) -> anyhow::Result<Option<Account>> {
        Ok(match caller {
            Caller::User(part) if self.request.is_new => Some(stage.new_account(api, part).await?),
            _ => caller.part().map(|part| stage.people.of(part).clone()),
        })
    }

    fn judge(&self, answer: &Answer, objects: &Objects) -> anyhow::Result<()> {
        let search = SEARCHES.iter().find(|(search, _)| self.request.path.contains(*search));
        let wanted = search.and_then(|(_, part)| objects.get(part)).map(Value::from);
        let found = wanted.map(|wanted| {
            let mut items = answer.body["items"].as_array().into_iter().flatten();
            items.any(|item| item["id"] == wanted)
        });
        if self.expected == MISSING {
            ensure!(
                answer.status == 200 && found == Some(false),
                "expected a list without it, got {}",
                described(answer)
            );
            return Ok(());
        }
        let status = self.expected.parse::<u16>().with_context(|| format!("{:?} is no answer", self.expected))?;
        ensure!(answer.status == status, "expected {status}, got {}", described(answer));
        if status < 400 {
            ensure!(found != Some(false), "it is not listed: {}", answer.body);
        } else if self.request.method != Method::HEAD {
            ensure!(answer.code() == code(status), "expected {}, got {}", code(status), described(answer));
            let field = &answer.body["errors"][0]["field"];
            if status == 400 && field != "Confab-User" {
                bail!("the request is invalid: {}", described(answer));
            }
        }
        Ok(())
    }
}

fn described(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.body)
}

#[test]
fn requests_are_parsed() {
    let request = Request::parse(r#"! PUT /api/x/{id}?y {"a": "{b}"}"#).unwrap();
    assert_eq!((request.is_new, &*request.line()), (true, "PUT /api/x/{id}?y"));
    assert_eq!(request.body, Body::Json(r#"{"a": "{b}"}"#.into()));
    let form = Request::parse("POST /api/x form a={b} c=d").unwrap();
    let fields = [("a", "{b}"), ("c", "d")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!((form.is_new, form.body), (false, Body::Form(fields.to_vec())));
    assert_eq!(Request::parse("GET /api/x").unwrap().body, Body::Nothing);
    for wrong in ["GET", "GET x", "GET /x y", "GET /x {", "POST /x form a"] {
        assert!(Request::parse(wrong).is_err(), "{wrong}");
    }
}
