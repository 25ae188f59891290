//! Connections with a chosen source address, and the parts of HTTP/1.1 that the load needs. Contents are not checked:
//! the end-to-end tests do that.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Longest head of an answer, in bytes.
const MOST_HEAD: usize = 64 * 1024;

/// The server that a client connects to, and the client's source address.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The server.
    pub to: SocketAddr,
    /// The client.
    pub from: Ipv4Addr,
}

impl Route {
    /// Opens a connection. `window` limits how much the system buffers for a client that does not read.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn open(self, window: Option<u32>) -> anyhow::Result<TcpStream> {
        let socket = TcpSocket::new_v4().context("no more sockets (ulimit -n)")?;
        if let Some(window) = window {
            socket.set_recv_buffer_size(window)?;
        }
        socket.bind((self.from, 0).into()).context("no more ports")?;
        let stream = socket.connect(self.to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Opens a connection for requests.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn http(self) -> anyhow::Result<Http> {
        Ok(Http { stream: self.open(None).await?, host: self.to.to_string(), bytes: Vec::new() })
    }
}

/// A response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the body as text, shortened.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(200)]).into_owned()
    }

    /// Returns the response if it has this status.
    ///
    /// # Errors
    /// When it has another status.
    pub fn expect(self, status: u16) -> anyhow::Result<Self> {
        ensure!(self.status == status, "{} {}", self.status, self.text());
        Ok(self)
    }
}

/// A connection for consecutive requests.
#[derive(Debug)]
pub struct Http {
    stream: TcpStream,
    host: String,
    /// Bytes read but not used yet.
    bytes: Vec<u8>,
}

impl Http {
    /// Returns the head of a request. Each of `headers` ends in CR LF.
    pub fn head(&self, line: &str, headers: &str) -> String {
        format!("{line} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.host)
    }

    /// Returns the connection itself, for incomplete requests.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends a request without a body, and waits for the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&mut self, line: &str, headers: &str) -> anyhow::Result<Response> {
        let head = self.head(line, headers);
        self.stream.write_all(head.as_bytes()).await?;
        self.answer(line.starts_with("HEAD ")).await
    }

    /// Sends a request with a body, and waits for the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> anyhow::Result<Response> {
        let mut request =
            self.head(&format!("POST {path}"), &format!("{headers}Content-Length: {}\r\n", body.len())).into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).await?;
        self.answer(false).await
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// When the connection ends first.
    pub async fn answer(&mut self, is_headless: bool) -> anyhow::Result<Response> {
        let end = loop {
            if let Some(end) = position(&self.bytes, b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(self.bytes.len() < MOST_HEAD, "an endless head");
            self.read().await?;
        };
        let Head { status, body } = Head::parse(&self.bytes[..end])?;
        self.bytes.drain(..end);
        let length = match body {
            _ if is_headless || status == 204 || status == 304 => 0,
            Body::Length(length) => length,
            Body::Chunked => loop {
                match position(&self.bytes, b"0\r\n\r\n") {
                    Some(end) => break end + 5,
                    None => self.read().await?,
                }
            },
        };
        while self.bytes.len() < length {
            self.read().await?;
        }
        let rest = self.bytes.split_off(length);
        Ok(Response { status, body: std::mem::replace(&mut self.bytes, rest) })
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        match self.stream.read_buf(&mut self.bytes).await? {
            0 => bail!("closed by the server"),
            _ => Ok(()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    body: Body,
}

/// How the end of a body is determined.
#[derive(Debug, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked,
}

impl Head {
    fn parse(head: &[u8]) -> anyhow::Result<Self> {
        let head = std::str::from_utf8(head)?.to_ascii_lowercase();
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        let header =
            |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let body = match (header("content-length"), header("transfer-encoding")) {
            (Some(length), _) => Body::Length(length.parse()?),
            (None, Some("chunked")) => Body::Chunked,
            (None, _) => Body::Length(0),
        };
        Ok(Self { status, body })
    }
}

/// Opens a polling session. Returns the path of its requests.
///
/// # Errors
/// When it is rejected.
pub async fn open_session(http: &mut Http) -> anyhow::Result<String> {
    let path = "/socket.io/?EIO=4&transport=polling";
    let open = http.get(&format!("GET {path}"), "").await?.expect(200)?;
    let open: serde_json::Value = serde_json::from_slice(open.body.strip_prefix(b"0").context("an open packet")?)?;
    Ok(format!("{path}&sid={}", open["sid"].as_str().context("a session id")?))
}

/// Returns the position of `what`.
pub fn position(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let of = |text: &str| Head::parse(text.as_bytes());
        assert_eq!(
            of("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n").unwrap(),
            Head { status: 200, body: Body::Length(12) }
        );
        assert_eq!(
            of("HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap(),
            Head { status: 503, body: Body::Chunked }
        );
        assert_eq!(of("HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Head { status: 204, body: Body::Length(0) });
        assert!(of("nonsense\r\n\r\n").is_err() && of("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n").is_err());
    }

    #[tokio::test]
    async fn consecutive_answers_and_source_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let route = Route { to: listener.local_addr().unwrap(), from: Ipv4Addr::new(127, 0, 0, 9) };
        let server = async {
            let (mut stream, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip(), route.from);
            let both =
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone";
            stream.write_all(both.as_bytes()).await.unwrap();
            stream
        };
        let client = async {
            let mut http = route.http().await.unwrap();
            let first = http.get("GET /a", "").await.unwrap();
            let second = http.answer(false).await.unwrap();
            assert_eq!(
                (first.status, first.body, second.status, second.text()),
                (200, b"ok".to_vec(), 404, "gone".into())
            );
            assert!(second.expect(200).unwrap_err().to_string().starts_with("404 gone"));
        };
        let (_stream, ()) = tokio::join!(server, client);
    }
}
