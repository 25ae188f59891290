use axum::body::to_bytes;
use confab_common::testing::cluster_key;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// The proxying side of the node at `own`, and the node at `other` as its target.
async fn between(own: SocketAddr, other: SocketAddr) -> (Cluster, (NodeId, SocketAddr)) {
    let key = cluster_key("a key");
    let targets = [own, other].map(|address| address.to_string()).to_vec();
    let config = ClusterConfig {
        targets,
        own,
        node_key: key.node,
        signing_key: key.forward,
        answers_within: Duration::from_secs(10),
    };
    let cluster = Cluster::start(config);
    let node = *cluster.nodes.ids_of(other).issued();
    (cluster, (node, other))
}

/// Reads the head of the next request; empty when the connection ends before it.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_request_is_never_sent_twice() {
    let owner = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (cluster, to) = between("127.0.0.1:1".parse().unwrap(), owner.local_addr().unwrap()).await;
    let owner = tokio::spawn(async move {
        let (mut stream, _) = owner.accept().await.unwrap();
        assert!(head(&mut stream).await.starts_with("POST /socket.io/?sid=x&forward=2 HTTP/1.1\r\n"));
        stream.write_all(b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        // The connection ends before the second request is answered.
        assert!(head(&mut stream).await.starts_with("POST /socket.io/?sid=y&forward=2 HTTP/1.1\r\n"));
        drop(stream);
        // The third request is the next one to arrive.
        let (mut stream, _) = owner.accept().await.unwrap();
        assert!(head(&mut stream).await.starts_with("POST /socket.io/?sid=z&forward=2 HTTP/1.1\r\n"));
    });
    let send = async |sid: &str| {
        let request = cluster.request(to, Method::POST, &format!("/socket.io/?sid={sid}"), Bytes::new()).unwrap();
        cluster.send(request).await
    };
    let (answer, _) = send("x").await.unwrap();
    assert!(answer.headers().get("set-cookie").is_none());
    assert_eq!(to_bytes(answer.into_body(), 10).await.unwrap(), "ok");
    assert!(send("y").await.is_none());
    assert!(send("z").await.is_none());
    owner.await.unwrap();
}
