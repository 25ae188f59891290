//! A proxy in front of a server that can fall silent: connections stay open and new connections are accepted, but no
//! byte is forwarded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::Secret;

/// A proxy for one server on this machine.
pub struct SilentProxy {
    url: Secret,
    accepted: Arc<AtomicU64>,
    /// No byte is forwarded on connections with lower numbers.
    silent: watch::Sender<u64>,
}

impl SilentProxy {
    /// Starts a proxy for the server at a URL with an explicit port.
    ///
    /// # Panics
    /// When the URL has no port, or no port is free.
    pub async fn to(url: &Secret) -> Self {
        let (scheme, rest) = url.expose().split_once("://").expect("a URL");
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (user, server) = host.rsplit_once('@').map_or(("", host), |(user, server)| (user, server));
        let server = server.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("its number");
        let at = if user.is_empty() { "" } else { "@" };
        let url = Secret::from(format!("{scheme}://{user}{at}{own}{path}"));
        let (accepted, (silent, carries)) = (Arc::<AtomicU64>::default(), watch::channel(0));
        let count = accepted.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(connect(client, server.clone(), number, carries.clone()));
            }
        });
        Self { url, accepted, silent }
    }

    /// Returns the server's URL through this proxy.
    pub fn url(&self) -> Secret {
        self.url.clone()
    }

    /// Stops forwarding on all connections.
    pub fn silence(&self) {
        self.silent.send_replace(u64::MAX);
    }

    /// Stops forwarding on the existing connections, as when another server has taken over the address.
    pub fn silence_old(&self) {
        self.silent.send_replace(self.accepted.load(Ordering::SeqCst));
    }

    /// Forwards all bytes again, including the bytes held back.
    pub fn resume(&self) {
        self.silent.send_replace(0);
    }
}

async fn connect(client: TcpStream, server: String, number: u64, mut silent: watch::Receiver<u64>) {
    let _ = silent.wait_for(|silent| number >= *silent).await;
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::join!(
        forward(from_client, to_server, number, silent.clone()),
        forward(from_server, to_client, number, silent)
    );
}

async fn forward(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    number: u64,
    mut silent: watch::Receiver<u64>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if silent.wait_for(|silent| number >= *silent).await.is_err() || to.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
    }
}
