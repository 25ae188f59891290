//! A session over HTTP long-polling only.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Client, Http, Inbox, PACKET_LIMIT, connect};
use crate::api::Answer;

/// Separates the packets of a payload.
const SEPARATOR: char = '\u{1e}';

pub struct Polling {
    http: reqwest::Client,
    base: String,
    inbox: Inbox,
    /// The first packet's data.
    pub open: Value,
    /// Maximum packets in one payload so far.
    pub largest_payload: usize,
    /// How many pings have arrived.
    pub pings: usize,
}

impl Polling {
    /// Opens a session and reads its first packet.
    ///
    /// # Errors
    /// When it is rejected.
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(PACKET_LIMIT).build()?;
        let base = format!("{url}/socket.io/?EIO=4&transport=polling");
        let body = http.get(&base).send().await?.error_for_status()?.text().await?;
        let open =
            body.strip_prefix('0').and_then(|packet| packet.split(SEPARATOR).next()).context("an open packet")?;
        let open: Value = serde_json::from_str(open)?;
        let base = format!("{base}&sid={}", open["sid"].as_str().context("a session id")?);
        Ok(Self { http, base, inbox: Inbox::default(), open, largest_payload: 0, pings: 0 })
    }

    /// Opens a session and connects with a token.
    ///
    /// # Errors
    /// When either is rejected.
    pub async fn connect(url: &str, token: &str) -> anyhow::Result<Self> {
        let mut client = Self::open(url).await?;
        client.send_all(&[connect(token)]).await?;
        client.until("CONNECT is answered", |inbox| inbox.connected.take()).await?;
        Ok(client)
    }

    /// The secret id of the session.
    pub fn sid(&self) -> &str {
        self.open["sid"].as_str().unwrap_or_default()
    }

    /// Returns a request builder for this session.
    pub fn request(&self, method: reqwest::Method) -> reqwest::RequestBuilder {
        self.http.request(method, &self.base)
    }

    /// Sends a GET; returns status and body.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self) -> anyhow::Result<(u16, String)> {
        let answer = self.request(reqwest::Method::GET).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Sends a POST; returns status and body.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post(&self, body: impl Into<Vec<u8>>) -> anyhow::Result<(u16, Value)> {
        let answer = self.request(reqwest::Method::POST).body(body.into()).send().await?;
        let (status, body) = (answer.status().as_u16(), answer.text().await?);
        Ok((status, serde_json::from_str(&body).unwrap_or(json!(body))))
    }

    /// Sends a POST through the server at `url`, in this many chunks with this pause after each.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post_slowly(&self, url: &str, body: &str, pieces: usize, pause: Duration) -> anyhow::Result<Answer> {
        let line = format!("POST /socket.io/?EIO=4&transport=polling&sid={}", self.sid());
        let mut post = Http::begin(url, &line, &format!("Content-Length: {}\r\n", body.len())).await?;
        for piece in body.as_bytes().chunks(body.len().div_ceil(pieces)) {
            post.write(piece).await?;
            sleep(pause).await;
        }
        post.answer().await
    }

    /// Polls until a payload contains a text, without answering pings; returns that payload.
    ///
    /// # Errors
    /// When the session ends.
    pub async fn get_until(&self, text: &str) -> anyhow::Result<String> {
        loop {
            let (status, payload) = self.get().await?;
            ensure!(status == 200, "refused: {status} {payload}");
            if payload.contains(text) {
                return Ok(payload);
            }
        }
    }

    /// Polls once and answers pings; returns the packets.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn poll(&mut self) -> anyhow::Result<Vec<String>> {
        let (status, body) = self.get().await?;
        ensure!(status == 200, "refused: {status} {body}");
        let packets = body.split(SEPARATOR).map(String::from).collect::<Vec<_>>();
        self.largest_payload = self.largest_payload.max(packets.len());
        for packet in &packets {
            match packet.as_str() {
                "1" => bail!("closed"),
                "2" => {
                    self.pings += 1;
                    self.send_all(&["3".into()]).await?;
                }
                packet => _ = self.inbox.take(packet)?,
            }
        }
        Ok(packets)
    }

    /// Emits an event with one binary attachment, in one payload, and waits for its acknowledgement.
    ///
    /// # Errors
    /// When no acknowledgement arrives.
    pub async fn emit_binary(&mut self, event: &str, data: &[u8]) -> anyhow::Result<Value> {
        let name = serde_json::from_str::<Value>(event).ok().and_then(|event| event[0].as_str().map(str::to_owned));
        let number = self.inbox.next_ack(&name.unwrap_or_default());
        self.send_all(&[format!("451-{number}{event}"), format!("b{}", STANDARD.encode(data))]).await?;
        self.ack(number).await
    }
}

impl Client for Polling {
    fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    async fn send_all(&mut self, packets: &[String]) -> anyhow::Result<()> {
        let answer = self.post(packets.join(&SEPARATOR.to_string())).await?;
        ensure!(answer == (200, json!("ok")), "refused: {answer:?}");
        Ok(())
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        self.poll().await.map(drop)
    }
}
