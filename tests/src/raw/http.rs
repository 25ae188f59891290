//! An HTTP/1.1 request that no library would send.

use anyhow::Context;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PACKET_LIMIT;
use crate::api::Answer;
use crate::contract;

/// One request on its own connection.
pub struct Http {
    stream: TcpStream,
    url: String,
    /// Its method and path.
    line: String,
}

impl Http {
    /// Sends the head of a request: its first line without the version, and header lines, each ending in CR LF.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn begin(url: &str, line: &str, headers: &str) -> anyhow::Result<Self> {
        let host = url.strip_prefix("http://").context("an http URL")?;
        let mut stream = timeout(PACKET_LIMIT, TcpStream::connect(host)).await??;
        stream.set_nodelay(true)?;
        let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await?;
        Ok(Self { stream, url: url.to_owned(), line: line.to_owned() })
    }

    /// Sends bytes of the body unmodified.
    ///
    /// # Errors
    /// When the connection has ended, or accepts no bytes within the time limit.
    pub async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(timeout(PACKET_LIMIT, self.stream.write_all(bytes)).await.context("the server does not read")??)
    }

    /// Ends the request's direction of the connection.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn finish(&mut self) -> anyhow::Result<()> {
        Ok(self.stream.shutdown().await?)
    }

    /// Waits, without a time limit, until the server begins to respond or ends the connection.
    ///
    /// # Errors
    /// When the connection is reset.
    pub async fn answered(&self) -> anyhow::Result<()> {
        self.stream.peek(&mut [0]).await?;
        Ok(())
    }

    /// Reads the response, up to the end of the connection.
    ///
    /// # Errors
    /// When there is no response, or the connection is reset before its end.
    ///
    /// # Panics
    /// When the response contradicts the server's OpenAPI document.
    pub async fn answer(mut self) -> anyhow::Result<Answer> {
        let mut answer = Vec::new();
        timeout(PACKET_LIMIT, self.stream.read_to_end(&mut answer)).await.context("no answer")??;
        let split = answer.windows(4).position(|window| window == b"\r\n\r\n").context("an answer has a head")?;
        let head = std::str::from_utf8(&answer[..split])?;
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        let mut headers = HeaderMap::new();
        for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(": ")) {
            headers.append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        let answer = Answer::new(status, headers, answer[split + 4..].to_vec());
        let (method, path) = self.line.split_once(' ').context("a method and a path")?;
        contract::check(&self.url, method, path.split('?').next().unwrap_or(path), &answer).await?;
        Ok(answer)
    }
}
