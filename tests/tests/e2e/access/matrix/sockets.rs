//! The rows of socket events.

use std::sync::Arc;

use anyhow::{Context, ensure};
use confab_tests::raw::{Client, WebSocket, binary};
use serde_json::{Value, json};

use super::callers::CALLERS;
use super::objects::{Needs, Objects};
use super::operations::CONNECT;
use super::stage::{Stage, code, without};
use super::table::{Kind, Row};

/// The events that change a message, which no other cell uses then.
const CHANGES: [&str; 4] = ["edit", "remove", "pin", "react"];
/// The number of an acknowledgement that the client asks for by itself.
const NUMBER: u64 = 7;

/// One cell of the table.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The name of the event, and its payload.
    event: String,
    payload: Option<String>,
    /// The number of the row.
    row: usize,
    kind: Kind,
    column: usize,
    expected: u16,
}

/// Returns the name of the event in a row, and its payload.
pub fn event(request: &str) -> (&str, Option<&str>) {
    request.split_once(' ').map_or((request, None), |(event, payload)| (event, Some(payload)))
}

impl Cell {
    /// Returns the cells of the rows for the columns of the stage.
    ///
    /// # Errors
    /// When a cell is no status.
    pub fn of(rows: &[Row], stage: &Stage) -> anyhow::Result<Vec<Self>> {
        let mut cells = Vec::new();
        for (row, at) in rows.iter().zip(0..) {
            let (event, payload) = event(&row.request);
            for line in &row.lines {
                for (column, expected) in line.cells.iter().enumerate().filter(|(column, _)| stage.has(*column)) {
                    cells.push(Self {
                        event: event.to_owned(),
                        payload: payload.map(str::to_owned),
                        row: at,
                        kind: line.kind,
                        column,
                        expected: expected.parse().with_context(|| row.request.clone())?,
                    });
                }
            }
        }
        Ok(cells)
    }

    /// Connects, sends the event and compares the acknowledgement.
    ///
    /// # Errors
    /// When the answer is another one.
    pub async fn test(self, stage: Arc<Stage>) -> anyhow::Result<()> {
        let label = format!("{} ({}) by {}", self.event, self.kind.name(), CALLERS[self.column].0);
        self.tested(&stage).await.context(label)
    }

    async fn tested(&self, stage: &Stage) -> anyhow::Result<()> {
        let ((prepares, answers), caller) = (stage.ends(self.row), CALLERS[self.column].1);
        let by = stage.people.sent(caller);
        let account = caller.part().map(|part| stage.people.of(part));
        let request = self.payload.as_deref().unwrap_or_default();
        let changes = self.expected == 200 && CHANGES.contains(&&*self.event);
        let needs = Needs { request, kind: self.kind, column: self.column, changes, account };
        let objects = Objects::of(stage, prepares, &needs).await.context("preparing the event")?;
        let headers = by.user.map(|user| ("Confab-User", user));
        let mut socket = WebSocket::open_with(&answers.url, headers.as_slice()).await?;
        let auth = by.token.map_or_else(|| json!({}), |token| json!({"token": token}));
        if socket.enter_with(&auth).await.is_err() {
            let refused = socket.refused().await?;
            let expected = json!({"code": code(self.expected), "status": self.expected});
            ensure!(refused["data"] == expected, "expected {}, got connect_error {refused}", self.expected);
            return Ok(());
        }
        if self.event == CONNECT {
            ensure!(self.expected == 200, "expected {}, but the socket connects", self.expected);
            return Ok(());
        }
        let ack = self.emit(&mut socket, &objects).await?;
        self.judge(&ack)?;
        let is_hidden = self.kind == Kind::Private && self.expected == 404 && caller.is_outside();
        if let Some(unknown) = objects.unknown().filter(|_| is_hidden) {
            let other = self.emit(&mut socket, &unknown).await?;
            let (hidden, unknown) =
                (without(&ack.to_string(), &objects.ids()), without(&other.to_string(), &unknown.ids()));
            ensure!(hidden == unknown, "answered {hidden}, for an unknown room {unknown}");
        }
        Ok(())
    }

    async fn emit(&self, socket: &mut WebSocket, objects: &Objects) -> anyhow::Result<Value> {
        let payload = objects.fill(self.payload.as_deref().context("an event has a payload")?);
        if !payload.contains("_placeholder") {
            return socket.emit(&self.event, serde_json::from_str(&payload)?).await;
        }
        // An event with one attachment, which is the next packet.
        socket.send(&format!("451-{NUMBER}[{},{payload}]", json!(self.event))).await?;
        socket.write(&binary(b"attachment")).await?;
        socket.ack(NUMBER).await
    }

    fn judge(&self, ack: &Value) -> anyhow::Result<()> {
        let status = if ack["ok"] == true { Some(200) } else { ack["error"]["status"].as_u64() };
        ensure!(status == Some(self.expected.into()), "expected {}, got {ack}", self.expected);
        ensure!(self.expected == 200 || ack["error"]["code"] == code(self.expected), "another code: {ack}");
        Ok(())
    }
}

#[test]
fn events_have_payloads() {
    assert_eq!(event("CONNECT"), ("CONNECT", None));
    assert_eq!(event(r#"message {"a": "b c"}"#), ("message", Some(r#"{"a": "b c"}"#)));
}
