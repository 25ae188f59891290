use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

/// Connects and sends this part of a request.
async fn sent(address: std::net::SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

async fn serving() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Router::new().route("/livez", get(|| async { "alive\n" }))));
    address
}

#[tokio::test]
async fn slow_clients_do_not_lock_probes_out() {
    let address = serving().await;
    let mut halves = Vec::new();
    for _ in 0..300 {
        halves.push(sent(address, "GET /livez HT").await);
        let mut answer = String::new();
        let mut probe = sent(address, "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        probe.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("alive\n"), "{answer}");
    }
    for mut half in halves.drain(..300 - MAX_CONNECTIONS) {
        assert!(matches!(half.read(&mut [0]).await, Ok(0) | Err(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_head_has_a_time_limit() {
    let mut half = sent(serving().await, "GET /livez HT").await;
    let ended = timeout(HEAD_LIMIT * 2, half.read(&mut [0])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)));
}
