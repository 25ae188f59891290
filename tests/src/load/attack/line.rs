//! A WebSocket with a chosen source address.

use std::collections::HashMap;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::wire::{Frame, Packet, push_frame, upgrade};
use super::net::{Route, position};
use crate::raw::connect;

#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    /// Bytes read but not used yet.
    bytes: Vec<u8>,
    /// Bytes to write.
    out: Vec<u8>,
    emits: u64,
    acks: HashMap<u64, Value>,
    connected: bool,
    /// Events received.
    pub events: u64,
}

impl Line {
    /// Opens a session.
    ///
    /// # Errors
    /// When it is rejected.
    pub async fn open(route: Route, window: Option<u32>) -> anyhow::Result<Self> {
        let stream = route.open(window).await?;
        let mut line = Self {
            stream,
            bytes: Vec::new(),
            out: Vec::new(),
            emits: 0,
            acks: HashMap::new(),
            connected: false,
            events: 0,
        };
        line.stream.write_all(upgrade(&route.to.to_string()).as_bytes()).await?;
        loop {
            if let Some(end) = position(&line.bytes, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&line.bytes[..end]).into_owned();
                ensure!(head.starts_with("HTTP/1.1 101"), "no WebSocket: {head}");
                line.bytes.drain(..end + 4);
                return Ok(line);
            }
            line.read().await?;
        }
    }

    /// Opens a session and connects with a token.
    ///
    /// # Errors
    /// When either is rejected.
    pub async fn connect(route: Route, window: Option<u32>, token: &str) -> anyhow::Result<Self> {
        let mut line = Self::open(route, window).await?;
        line.send(connect(token).as_bytes()).await?;
        while !line.connected {
            line.receive().await?;
        }
        Ok(line)
    }

    /// Sends an Engine.IO packet.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn send(&mut self, packet: &[u8]) -> anyhow::Result<()> {
        push_frame(&mut self.out, 1, packet);
        self.flush().await
    }

    /// Sends the same Engine.IO packet `times` times in one write.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn send_often(&mut self, packet: &[u8], times: usize) -> anyhow::Result<()> {
        (0..times).for_each(|_| push_frame(&mut self.out, 1, packet));
        self.flush().await
    }

    /// Sends an event, and returns the number of its acknowledgement.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn emit_later(&mut self, name: &str, argument: &Value) -> anyhow::Result<u64> {
        self.emits += 1;
        let packet = format!("42{}{}", self.emits, json!([name, argument]));
        self.send(packet.as_bytes()).await?;
        Ok(self.emits)
    }

    /// Sends an event and waits for its acknowledgement.
    ///
    /// # Errors
    /// When the connection ends first.
    pub async fn emit(&mut self, name: &str, argument: &Value) -> anyhow::Result<Value> {
        let number = self.emit_later(name, argument).await?;
        loop {
            if let Some(ack) = self.acks.remove(&number) {
                return Ok(ack);
            }
            self.receive().await?;
        }
    }

    /// Sends an event that must succeed.
    ///
    /// # Errors
    /// When it is rejected, or the connection ends first.
    pub async fn must(&mut self, name: &str, argument: &Value) -> anyhow::Result<Value> {
        let ack = self.emit(name, argument).await?;
        ensure!(ack["ok"] == true, "{name}: {ack}");
        Ok(ack)
    }

    /// Waits until bytes arrive and processes them; answers pings. May be dropped at any time.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn receive(&mut self) -> anyhow::Result<()> {
        self.flush().await?;
        self.read().await?;
        let mut at = 0;
        while let Some(frame) = Frame::parse(&self.bytes, at)? {
            at = frame.payload.end;
            let payload = &self.bytes[frame.payload.clone()];
            match (frame.opcode, Packet::parse(payload)) {
                (8, _) => bail!("closed by the server"),
                (9, _) => push_frame(&mut self.out, 10, payload),
                (1, Packet::Ping) => push_frame(&mut self.out, 1, b"3"),
                (1, Packet::Connected) => self.connected = true,
                (1, Packet::Event(_)) => self.events += 1,
                (1, Packet::Ack(number, answer)) => {
                    let mut answer = serde_json::from_slice::<Value>(answer).context("an acknowledgement")?;
                    self.acks.insert(number, answer[0].take());
                }
                (1, Packet::End(text)) => bail!("ended by the server: {}", String::from_utf8_lossy(text)),
                _ => {}
            }
        }
        self.bytes.drain(..at);
        self.flush().await
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        match self.stream.read_buf(&mut self.bytes).await? {
            0 => bail!("closed by the server"),
            _ => Ok(()),
        }
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        while !self.out.is_empty() {
            let written = self.stream.write(&self.out).await?;
            self.out.drain(..written);
        }
        Ok(())
    }
}
