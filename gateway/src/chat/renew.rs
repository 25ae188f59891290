//! `auth`: a connected client presents a new token before its present one expires.

use std::sync::{Arc, Weak};
use std::time::Duration;

use confab_common::{Code, Error, Result};
use confab_identity::tokens::Identity;
use serde::Serialize;
use tokio::time::sleep;

use super::client::Socket;
use super::context::Chat;
use crate::views::Time;

/// How often a task that watches an expiry checks whether another token has replaced the token.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// The acknowledgement of `auth`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Renewed {
    ok: bool,
    expires_at: Time,
}

/// Replaces the token of a socket. From then on, only the end of the new token counts.
///
/// # Errors
/// `unauthorized` for an invalid token; `forbidden` for the token of another user; `unavailable` when the token cannot
/// be verified now. In all these cases the present token stays.
pub async fn renew(chat: &Arc<Chat>, socket: &Arc<Socket>, token: &str) -> Result<Renewed> {
    let identity = socket.client.identity().ok_or_else(|| Error::new(Code::Unauthorized, "not connected"))?;
    let shown = chat.tokens.verify_to_stay(token).await?;
    if shown.user_id != identity.user_id {
        return Err(Error::new(Code::Forbidden, "the token belongs to another user"));
    }
    adopt(chat, socket, &shown);
    Ok(Renewed { ok: true, expires_at: Time(shown.expires_at.saturating_mul(1000)) })
}

/// Replaces the token of a socket by a verified one of the same user.
pub fn adopt(chat: &Arc<Chat>, socket: &Arc<Socket>, shown: &Identity) {
    if socket.client.credential.sign_in() == Some(shown.sign_in()) {
        return;
    }
    let needs_task = chat.sign_ins.renew(socket, shown);
    // Registered first and checked afterwards, so that either this check or the task that disconnects revoked sockets
    // notices a concurrent revocation.
    chat.end_if_revoked(socket);
    if needs_task {
        tokio::spawn(watch(chat.clone(), Arc::downgrade(socket)));
    }
}

/// Ends the session when its token expires: the server's timer is set to the expiry of the former token.
async fn watch(chat: Arc<Chat>, socket: Weak<Socket>) {
    loop {
        let Some(socket) = socket.upgrade().filter(|socket| !socket.is_closed()) else { return };
        let Some(left) = chat.end_if_expired(&socket) else { return };
        drop(socket);
        sleep(left.min(WATCH_INTERVAL)).await;
    }
}

#[cfg(test)]
mod tests;
