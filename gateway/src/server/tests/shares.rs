//! The share of one address in the connections.

use super::*;

/// A kept-alive connection from the address `from`, after one response; `None` when it was rejected.
pub(super) async fn comes_in(address: SocketAddr, from: [u8; 4], client: &str) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream
        .write_all(format!("GET / HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {client}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    if head.starts_with("HTTP/1.1 200") {
        return Some(stream);
    }
    assert!(
        head.starts_with("HTTP/1.1 503") && head.contains("retry-after: ") && head.contains("connection: close"),
        "{head}"
    );
    assert!(read_all(stream).await.contains(r#""code":"unavailable""#));
    None
}

#[tokio::test]
async fn one_address_can_take_four_fifths_of_the_connections() {
    let (address, ..) = serving(Router::new().route("/", get(|| async { "here" })), &["--max-connections", "8"]).await;
    let [first, second] = [[127, 0, 0, 1], [127, 0, 0, 2]];
    let mut held = Vec::new();
    for _ in 0..7 {
        held.push(comes_in(address, first, "198.51.100.1").await.unwrap());
    }
    // The server does not trust X-Forwarded-For of a client.
    assert!(comes_in(address, first, "198.51.100.2").await.is_none());
    let other = comes_in(address, second, "198.51.100.1").await.unwrap();
    held.truncate(3);
    let again = async { while comes_in(address, first, "198.51.100.1").await.is_none() {} };
    timeout(Duration::from_secs(10), again).await.unwrap();
    drop(other);
}

#[tokio::test]
async fn clients_behind_a_proxy_have_separate_shares() {
    let (waiting, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let (comes, end) = (waiting.clone(), go_on.clone());
    let slow = get(move || async move {
        comes.add_permits(1);
        end.notified().await;
    });
    let app = Router::new().route("/slow", slow).route("/", get(|| async { "here" }));
    let (address, ..) = serving(app, &["--max-connections", "16", "--trusted-proxies", "127.0.0.1"]).await;
    let mut held = Vec::new();
    for _ in 0..13 {
        held.push(sent(address, "GET /slow HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 198.51.100.1\r\n\r\n").await);
    }
    let _all = waiting.acquire_many(13).await.unwrap();
    assert!(comes_in(address, [127, 0, 0, 1], "198.51.100.1").await.is_none());
    assert!(comes_in(address, [127, 0, 0, 1], "198.51.100.2").await.is_some());
    // The shares are released with the responses, although the proxy keeps the connections.
    go_on.notify_waiters();
    for stream in &mut held {
        stream.read_u8().await.unwrap();
    }
    assert!(comes_in(address, [127, 0, 0, 1], "198.51.100.1").await.is_some());
}

#[tokio::test]
async fn the_share_behind_a_proxy_is_held_until_a_long_answer_is_read() {
    let long = get(|| async {
        Body::from_stream(repeat(Bytes::from_static(&[b'x'; 64 * 1024])).take(1024).map(io::Result::Ok))
    });
    let app = Router::new().route("/long", long).route("/", get(|| async { "here" }));
    let (address, ..) = serving(app, &["--max-connections", "16", "--trusted-proxies", "127.0.0.1"]).await;
    let mut held = Vec::new();
    for _ in 0..13 {
        let mut stream = sent(address, "GET /long HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 198.51.100.1\r\n\r\n").await;
        stream.read_u8().await.unwrap();
        held.push(stream);
    }
    assert!(comes_in(address, [127, 0, 0, 1], "198.51.100.1").await.is_none());
    assert!(comes_in(address, [127, 0, 0, 1], "198.51.100.2").await.is_some());
    held.truncate(3);
    let again = async { while comes_in(address, [127, 0, 0, 1], "198.51.100.1").await.is_none() {} };
    timeout(Duration::from_secs(10), again).await.unwrap();
}

#[tokio::test]
async fn a_proxied_connection_takes_two_permits() {
    let route = get(|axum::Extension(permit): axum::Extension<ConnectionPermit>| async move {
        let others = [(); 3].map(|()| permit.another());
        others.iter().flatten().count().to_string()
    });
    let (address, ..) = serving(Router::new().route("/", route), &["--max-connections", "3"]).await;
    let answer = read_all(sent(address, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await).await;
    // The connection itself has one permit, and the next accept may have taken another.
    assert!(answer.ends_with("\r\n\r\n1") || answer.ends_with("\r\n\r\n2"), "{answer}");
}
