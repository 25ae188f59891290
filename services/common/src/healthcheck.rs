//! The `healthcheck` subcommand of every program. It requests `/readyz` from the program with the same settings in the
//! same container, whose image contains no other HTTP client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub const NAME: &str = "healthcheck";

/// Time limit for the answer.
const ANSWER_LIMIT: Duration = Duration::from_millis(1500);
/// Bytes of an answer that are read.
const MAX_ANSWER: u64 = 4096;

pub fn command() -> clap::Command {
    clap::Command::new(NAME).about("Request /readyz of the running program and exit with 0 (ready) or 1 (not ready)")
}

/// Requests `/readyz` from the program with this admin port.
///
/// # Errors
/// The reason why the program is not ready.
pub async fn check(admin: SocketAddr) -> anyhow::Result<()> {
    let admin = connectable(admin);
    let answer = timeout(ANSWER_LIMIT, readyz(admin))
        .await
        .with_context(|| format!("no answer from {admin} in {ANSWER_LIMIT:?}"))?;
    let answer = answer.with_context(|| format!("cannot connect to {admin}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        Some("503") => bail!("{}", body.trim_end()),
        _ => bail!("the server at {admin} is not a Confab program"),
    }
}

/// Uses HTTP/1.0, so that the end of the connection ends the answer.
async fn readyz(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Replaces the unspecified address by loopback.
fn connectable(mut admin: SocketAddr) -> SocketAddr {
    if admin.ip().is_unspecified() {
        admin.set_ip(if admin.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) });
    }
    admin
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Runs the check against a server with this answer; `None` keeps the connection open without an answer.
    async fn checked(answer: Option<&'static str>) -> Result<(), String> {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 24];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"GET /readyz HTTP/1.0\r\n\r\n");
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                None => std::future::pending().await,
            }
        });
        let said = check(address).await.map_err(|error| format!("{error:#}"));
        server.abort();
        said
    }

    #[tokio::test]
    async fn reason_is_reported() {
        assert_eq!(checked(Some("HTTP/1.0 200 OK\r\n\r\nready\n")).await, Ok(()));
        let waits = "HTTP/1.0 503 Service Unavailable\r\n\r\nnot ready: waiting for the log\n";
        assert_eq!(checked(Some(waits)).await.unwrap_err(), "not ready: waiting for the log");
        for stranger in ["", "SSH-2.0-x\r\n", "HTTP/1.0 404 Not Found\r\n\r\n"] {
            assert!(checked(Some(stranger)).await.unwrap_err().ends_with("is not a Confab program"), "{stranger}");
        }
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(check(unused).await.unwrap_err().to_string().starts_with("cannot connect to 127.0.0.1:"));
    }

    #[tokio::test]
    async fn wait_for_an_answer_is_bounded() {
        let said = timeout(Duration::from_secs(15), checked(None)).await.expect("the check must end");
        assert!(said.unwrap_err().starts_with("no answer from 127.0.0.1:"));
    }

    #[test]
    fn unspecified_addresses_become_loopback() {
        for (listens, checked) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.1.2.3:1", "10.1.2.3:1")] {
            assert_eq!(connectable(listens.parse().unwrap()), checked.parse().unwrap());
        }
    }
}
