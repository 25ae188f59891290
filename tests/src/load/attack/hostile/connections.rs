//! Attacks with the maximum number of idle connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::line::Line;
use super::super::stage::FEW_DESCRIPTORS;
use super::{Field, RETRY_PAUSE};

/// 1.5 times the server's descriptors.
const CONNECTIONS: u64 = FEW_DESCRIPTORS * 3 / 2;
/// Pause between the first attempts.
const CONNECT_INTERVAL: Duration = Duration::from_millis(2);

/// Connections that send nothing; every second one sends half of a head.
pub fn idle(field: &Arc<Field>, tasks: &mut JoinSet<()>) {
    many(field, tasks, "connections", RETRY_PAUSE, async |field, number| {
        let mut stream = field.route.open(None).await?;
        field.tally.count("connections", 1);
        if number % 2 == 0 {
            stream.write_all(b"GET /api/rooms HTTP/1.1\r\nHost: x\r\n").await?;
        }
        // Until the server closes the connection.
        while stream.read(&mut [0; 512]).await? > 0 {}
        Ok(())
    });
}

/// WebSockets of one account that answer pings.
pub fn sockets(field: &Arc<Field>, tasks: &mut JoinSet<()>) {
    many(field, tasks, "sockets", 5 * RETRY_PAUSE, async |field, _| {
        let mut line = Line::connect(field.route, None, &field.account.token).await?;
        field.tally.count("sockets", 1);
        loop {
            line.receive().await?;
        }
    });
}

/// Keeps this number of connections open; one that ends is reopened after a pause.
fn many(
    field: &Arc<Field>,
    tasks: &mut JoinSet<()>,
    what: &'static str,
    pause: Duration,
    hold: impl AsyncFn(&Field, u64) -> anyhow::Result<()> + Copy + 'static,
) {
    for number in 0..CONNECTIONS {
        let field = field.clone();
        tasks.spawn_local(async move {
            sleep(CONNECT_INTERVAL * number as u32).await;
            loop {
                if let Err(error) = hold(&field, number).await {
                    field.tally.failed(what, &format!("{error:#}"));
                }
                sleep(pause).await;
            }
        });
    }
}
