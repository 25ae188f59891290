//! Uploads by libraries of other languages, as their users write them: each batch is one child process.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::api::{Account, Api};
use crate::stock::clients;

/// Time limit for a batch.
const BATCH_LIMIT: Duration = Duration::from_secs(60);

/// A program that uploads.
#[derive(Debug, Clone, Copy)]
pub enum Program {
    /// `upload.mjs`: axios and fetch.
    JavaScript,
    /// `upload.py`: aiohttp.
    Python,
}

/// A file to upload.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The library, and how it is used; the programs list the values.
    pub by: &'a str,
    pub name: &'a str,
    /// Its type as the client claims.
    pub content_type: &'a str,
    pub bytes: &'a [u8],
}

impl Program {
    /// Uploads files to a room; returns `{status, body}` of each.
    ///
    /// # Errors
    /// When the program fails.
    pub async fn upload(self, api: &Api, who: &Account, room: &str, files: &[Given<'_>]) -> anyhow::Result<Vec<Value>> {
        let mut command = match self {
            Self::JavaScript => Command::new("node"),
            Self::Python => Command::new(clients().join("python/.venv/bin/python")),
        };
        command.arg(match self {
            Self::JavaScript => clients().join("js/upload.mjs"),
            Self::Python => clients().join("python/upload.py"),
        });
        let files = files
            .iter()
            .map(|file| json!({"by": file.by, "name": file.name, "type": file.content_type, "base64": BASE64_STANDARD.encode(file.bytes)}));
        let asked = json!({"url": api.url, "token": who.token, "roomId": room, "files": files.collect::<Vec<_>>()});
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run the clients; scripts/ensure-clients.sh installs them")?;
        let mut input = process.stdin.take().context("its input")?;
        input.write_all(asked.to_string().as_bytes()).await?;
        drop(input);
        let output = timeout(BATCH_LIMIT, process.wait_with_output()).await.context("the uploads do not end")??;
        ensure!(output.status.success(), "{self:?} fails: {}", output.status);
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
