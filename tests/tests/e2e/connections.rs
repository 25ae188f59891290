//! Connections are bounded by the descriptor limit, and a client's connections count against that client.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use confab_tests::api::{Account, Api};
use confab_tests::embedded::Embedded;
use confab_tests::raw::WebSocket;
use confab_tests::wait::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Descriptors of the whole process: half of them are for connections.
const DESCRIPTORS: u64 = 256;
const PLACES: usize = 128;

async fn connect(from: u8, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, from], 0).into())?;
    Ok(socket.connect(to).await?)
}

/// Opens connections with an unfinished request head.
async fn half_heads(count: usize, from: u8, to: SocketAddr) -> Vec<TcpStream> {
    let mut halves = Vec::new();
    for _ in 0..count {
        let mut half = connect(from, to).await.unwrap();
        // The server may already have refused the connection.
        let _ = half.write_all(b"GET / HT").await;
        halves.push(half);
    }
    halves
}

/// Returns the response to a request from that address.
async fn ask(from: u8, to: SocketAddr) -> anyhow::Result<String> {
    let mut stream = connect(from, to).await?;
    stream.write_all(b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn sockets(count: usize, url: &str, account: &Account) -> Vec<WebSocket> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(WebSocket::connect(url, &account.token).await.unwrap());
    }
    sockets
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn program_works_while_all_connections_are_taken() {
    let confab = Embedded::start_with(Some(DESCRIPTORS), &[]).await.unwrap();
    let log = || fs::read_to_string(&confab.daemon().log).unwrap();
    assert!(
        log().contains("the descriptor limit, not CONFAB_MAX_CONNECTIONS, limits the number of connections"),
        "{}",
        log()
    );
    let api = Api::new(confab.url());
    let [to, admin] =
        [confab.admin_port() - 1, confab.admin_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let (account, other) = (api.signup().await.unwrap(), api.signup().await.unwrap());
    let room = api.room(&account).await.unwrap();
    let many = PLACES / 4;
    let _sockets = [sockets(many, &api.url, &account).await, sockets(many - 8, &api.url, &other).await];
    let _halves = [half_heads(300, 2, to).await, half_heads(300, 1, admin).await];
    for path in ["livez", "readyz", "metrics"] {
        let answer = reqwest::get(format!("http://127.0.0.1:{}/{path}", confab.admin_port())).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    for n in 0..20 {
        // A new connection may be refused, because this address has many.
        let share = async || api.share(&account, Some(&room), &format!("{n}.txt"), b"some bytes").await.ok();
        let file = eventually("a file is shared", Duration::from_secs(30), share).await.unwrap();
        let read = async || api.get(file["url"].as_str().unwrap(), &account).await.ok();
        let bytes = eventually("the file is downloaded", Duration::from_secs(30), read).await.unwrap();
        assert_eq!((bytes.status, &bytes.bytes[..]), (200, &b"some bytes"[..]));
    }
    // A client from another address is admitted, at the latest when a half head has timed out.
    let let_in = async || ask(3, to).await.ok().filter(|answer| answer.starts_with("HTTP/1.1 200")).map(drop);
    eventually("a client from another address is admitted", Duration::from_secs(30), let_in).await.unwrap();
    let log = log();
    let faults =
        log.lines().filter(|line| line.contains("internal") || line.contains("os error 24")).collect::<Vec<_>>();
    assert!(faults.is_empty(), "{faults:?}");
}
