//! A session over WebSocket only, down to its frames.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use procfs::net::{TcpNetEntry, TcpState};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::frames::text;
use super::{Client, Inbox, PACKET_LIMIT, connect};

/// The headers of a correct upgrade.
const UPGRADE: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A connection from the server's point of view: its own address and the client's. Clients of different servers may
/// have the same port.
pub type Ends = (SocketAddr, SocketAddr);

/// The status and the body of a rejected upgrade.
#[derive(Debug)]
pub struct Refused(pub u16, pub Value);

pub struct WebSocket {
    input: BufReader<OwnedReadHalf>,
    output: OwnedWriteHalf,
    inbox: Inbox,
    /// The first packet's data.
    pub open: Value,
    /// Whether the client answers pings.
    pub pongs: bool,
    /// How many pings have arrived.
    pub pings: usize,
    /// How many pongs of the WebSocket protocol have arrived.
    pub protocol_pongs: usize,
}

impl WebSocket {
    /// Opens a session and reads its first packet.
    ///
    /// # Errors
    /// When it is rejected.
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        Self::open_with(url, &[]).await
    }

    /// Like [`open`](Self::open), with additional headers.
    ///
    /// # Errors
    /// When it is rejected.
    pub async fn open_with(url: &str, headers: &[(&str, &str)]) -> anyhow::Result<Self> {
        let upgraded = Self::upgrade(url, "EIO=4&transport=websocket", &[UPGRADE, headers].concat(), None).await?;
        let mut socket = upgraded.map_err(|Refused(status, body)| anyhow::anyhow!("refused: {status} {body}"))?;
        socket.read_open().await?;
        Ok(socket)
    }

    /// Opens a session with a receive window of `window` bytes.
    ///
    /// # Errors
    /// When it is rejected.
    pub async fn open_narrow(url: &str, window: u32) -> anyhow::Result<Self> {
        let upgraded = Self::upgrade(url, "EIO=4&transport=websocket", UPGRADE, Some(window)).await?;
        let mut socket = upgraded.map_err(|Refused(status, body)| anyhow::anyhow!("refused: {status} {body}"))?;
        socket.read_open().await?;
        Ok(socket)
    }

    /// Opens a session and connects with a token.
    ///
    /// # Errors
    /// When either is rejected.
    pub async fn connect(url: &str, token: &str) -> anyhow::Result<Self> {
        let mut socket = Self::open(url).await?;
        socket.enter(token).await?;
        Ok(socket)
    }

    /// Upgrades a polling session, up to `2probe`; the caller sends `5`.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn probe(url: &str, sid: &str) -> anyhow::Result<Result<Self, Refused>> {
        Self::upgrade(url, &format!("EIO=4&transport=websocket&sid={sid}"), UPGRADE, None).await
    }

    /// Requests an upgrade with the correct headers.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn attempt(url: &str, query: &str, headers: &[(&str, &str)]) -> anyhow::Result<Result<Self, Refused>> {
        Self::upgrade(url, query, &[UPGRADE, headers].concat(), None).await
    }

    /// Requests an upgrade with these headers only.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn attempt_bare(
        url: &str,
        query: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Result<Self, Refused>> {
        Self::upgrade(url, query, headers, None).await
    }

    async fn upgrade(
        url: &str,
        query: &str,
        headers: &[(&str, &str)],
        window: Option<u32>,
    ) -> anyhow::Result<Result<Self, Refused>> {
        let host = url.strip_prefix("http://").context("an http URL")?;
        let socket = TcpSocket::new_v4()?;
        if let Some(window) = window {
            socket.set_recv_buffer_size(window)?;
        }
        let stream = timeout(PACKET_LIMIT, socket.connect(host.parse()?)).await??;
        stream.set_nodelay(true)?;
        let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>();
        let request = format!("GET /socket.io/?{query} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
        timeout(PACKET_LIMIT, Self::shake_hands(stream, request)).await?
    }

    async fn shake_hands(stream: TcpStream, request: String) -> anyhow::Result<Result<Self, Refused>> {
        let (input, mut output) = stream.into_split();
        let mut input = BufReader::new(input);
        output.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(input.read_u8().await?);
        }
        let head = String::from_utf8(head)?.to_ascii_lowercase();
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        if status != 101 {
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(Ok(0), str::parse)?;
            let mut body = vec![0; length];
            input.read_exact(&mut body).await?;
            return Ok(Err(Refused(status, serde_json::from_slice(&body).unwrap_or(Value::Null))));
        }
        // The answer to the one key that this client sends, by RFC 6455 section 1.3.
        ensure!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "not a valid upgrade: {head}");
        let inbox = Inbox::default();
        Ok(Ok(Self { input, output, inbox, open: Value::Null, pongs: true, pings: 0, protocol_pongs: 0 }))
    }

    async fn read_open(&mut self) -> anyhow::Result<()> {
        let packet = self.receive().await?;
        let open = packet.strip_prefix('0').with_context(|| format!("not an open packet: {packet}"))?;
        self.open = serde_json::from_str(open)?;
        Ok(())
    }

    /// Sends CONNECT; returns the answer.
    ///
    /// # Errors
    /// When it is rejected.
    pub async fn enter(&mut self, token: &str) -> anyhow::Result<Value> {
        self.send(&connect(token)).await?;
        self.entered().await
    }

    /// Sends CONNECT with any authentication data.
    ///
    /// # Errors
    /// When it is rejected.
    pub async fn enter_with(&mut self, auth: &Value) -> anyhow::Result<Value> {
        self.send(&format!("40{auth}")).await?;
        self.entered().await
    }

    /// Waits for the answer to CONNECT.
    ///
    /// # Errors
    /// When it is rejected.
    pub async fn entered(&mut self) -> anyhow::Result<Value> {
        self.until("CONNECT is answered", |inbox| match &mut inbox.refused {
            Some(refused) => Some(Err(anyhow::anyhow!("refused: {refused}"))),
            None => inbox.connected.take().map(Ok),
        })
        .await?
    }

    /// Waits for the data of CONNECT_ERROR.
    ///
    /// # Errors
    /// When it does not arrive.
    pub async fn refused(&mut self) -> anyhow::Result<Value> {
        self.until("CONNECT is refused", |inbox| inbox.refused.take()).await
    }

    /// Sends an Engine.IO packet.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn send(&mut self, packet: &str) -> anyhow::Result<()> {
        self.write(&text(packet)).await
    }

    /// Sends bytes unmodified in one write.
    ///
    /// # Errors
    /// When the connection has ended, or accepts no bytes within the time limit.
    pub async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(timeout(PACKET_LIMIT, self.output.write_all(bytes)).await.context("the server does not read")??)
    }

    /// Waits for DISCONNECT.
    ///
    /// # Errors
    /// When it does not arrive.
    pub async fn disconnected(&mut self) -> anyhow::Result<()> {
        self.until("DISCONNECT", |inbox| inbox.disconnected.then_some(())).await
    }

    /// Returns how many bytes the server's system buffers for this client.
    ///
    /// # Errors
    /// When the server has closed the connection, even if this client has not read that far.
    pub fn unread(&self) -> anyhow::Result<u32> {
        let ends = self.ends()?;
        let mut open =
            established()?.filter(|connection| (connection.local_address, connection.remote_address) == ends);
        Ok(open.next().context("the connection is closed")?.tx_queue)
    }

    /// Identifies this connection.
    ///
    /// # Errors
    /// When it is broken.
    pub fn ends(&self) -> std::io::Result<Ends> {
        Ok((self.output.peer_addr()?, self.output.local_addr()?))
    }

    /// Returns the connections that their servers have not closed. Reading the system's table is slow.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn open_connections() -> anyhow::Result<HashSet<Ends>> {
        Ok(established()?.map(|connection| (connection.local_address, connection.remote_address)).collect())
    }

    /// Waits for the next packet, except pings.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn receive(&mut self) -> anyhow::Result<String> {
        timeout(PACKET_LIMIT, self.packet()).await.context("nothing comes")?
    }

    /// Waits for any frame, also a ping; a message is stored in the inbox.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn listen(&mut self) -> anyhow::Result<()> {
        match self.frame().await? {
            Some(packet) => self.inbox.take(&packet).map(drop),
            None => Ok(()),
        }
    }

    async fn packet(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(packet) = self.frame().await? {
                return Ok(packet);
            }
        }
    }

    /// Reads the next frame and returns its packet; `None` for a ping or pong.
    async fn frame(&mut self) -> anyhow::Result<Option<String>> {
        let (first, payload) = self.read_frame().await.context("the connection broke")?;
        match first {
            0x81 if payload == b"2" => {
                self.pings += 1;
                if self.pongs {
                    self.write(&text("3")).await?;
                }
            }
            0x81 => return Ok(Some(String::from_utf8(payload)?)),
            0x8a => self.protocol_pongs += 1,
            0x88 => bail!("closed with {:?}", code(&payload)),
            _ => bail!("unexpected frame: {first:#x}"),
        }
        Ok(None)
    }

    async fn read_frame(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let first = self.input.read_u8().await?;
        let length = match self.input.read_u8().await? {
            126 => u64::from(self.input.read_u16().await?),
            127 => self.input.read_u64().await?,
            length => u64::from(length),
        };
        let mut payload = vec![0; length as usize];
        self.input.read_exact(&mut payload).await?;
        Ok((first, payload))
    }

    /// Reads to the end; returns the close code, if there was one. Earlier packets are kept.
    ///
    /// # Errors
    /// When the end does not arrive within `limit`.
    pub async fn closed(&mut self, limit: Duration) -> anyhow::Result<Option<u16>> {
        let end = async {
            loop {
                match self.read_frame().await {
                    Err(_) => return None,
                    Ok((0x88, payload)) => return code(&payload),
                    Ok((_, payload)) => {
                        if payload == b"2" && self.pongs {
                            let _ = self.write(&text("3")).await;
                        }
                        let _ = self.inbox.take(&String::from_utf8_lossy(&payload));
                    }
                }
            }
        };
        timeout(limit, end).await.with_context(|| format!("not closed within {limit:?}"))
    }
}

impl Client for WebSocket {
    fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    async fn send_all(&mut self, packets: &[String]) -> anyhow::Result<()> {
        self.write(&packets.iter().flat_map(|packet| text(packet)).collect::<Vec<_>>()).await
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        let packet = self.packet().await?;
        self.inbox.take(&packet).map(drop)
    }
}

fn code(payload: &[u8]) -> Option<u16> {
    payload.first_chunk().map(|code| u16::from_be_bytes(*code))
}

/// Yields this machine's connections that neither end has closed.
fn established() -> anyhow::Result<impl Iterator<Item = TcpNetEntry>> {
    Ok(procfs::net::tcp()?.into_iter().filter(|connection| connection.state == TcpState::Established))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::eventually;
    use tokio::net::TcpListener;

    async fn from(port: u16, listener: &TcpListener) -> (WebSocket, TcpStream) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(([127, 0, 0, 1], port).into()).unwrap();
        let stream = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        let (input, output) = stream.into_split();
        let (input, inbox) = (BufReader::new(input), Inbox::default());
        let client = WebSocket { input, output, inbox, open: Value::Null, pongs: true, pings: 0, protocol_pongs: 0 };
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn clients_with_the_same_port_are_distinguished() {
        let [one, two] =
            [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let (first, server) = from(0, &one).await;
        let (second, other) = from(first.ends().unwrap().1.port(), &two).await;
        let open = WebSocket::open_connections().unwrap();
        assert!(open.contains(&first.ends().unwrap()) && open.contains(&second.ends().unwrap()));
        drop(server);
        // A child that another test starts at this moment has a copy of the connection until it executes its program.
        eventually("the end", PACKET_LIMIT, async || first.unread().err()).await.unwrap();
        assert_eq!(second.unread().unwrap(), 0);
        drop(other);
        eventually("the end", PACKET_LIMIT, async || second.unread().err()).await.unwrap();
    }
}
