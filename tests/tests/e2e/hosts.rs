//! Allowed hosts: a page whose own name resolves to the server's address receives nothing.

use confab_tests::api::Answer;
use confab_tests::embedded::Embedded;
use reqwest::{Client, RequestBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HANDSHAKE: &str = "/socket.io/?EIO=4&transport=polling";

async fn send(request: RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    Answer::new(answer.status().as_u16(), answer.headers().clone(), answer.bytes().await.unwrap().to_vec())
}

/// Sends a request as a page at `http://HOST` does.
async fn call(server: &Embedded, path: &str, host: &str) -> Answer {
    let request = Client::new().get(format!("{}{path}", server.url()));
    send(request.header("host", host).header("origin", format!("http://{host}"))).await
}

/// Returns the status of an unmodified request.
async fn raw(server: &Embedded, request: &str) -> u16 {
    let mut stream = TcpStream::connect(server.url().strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

fn is_refused(answer: &Answer, what: &str) {
    assert_eq!((answer.status, answer.code()), (400, "invalid_request"), "{what}: {}", answer.body);
    assert!(answer.body["detail"].as_str().unwrap().contains("CONFAB_PUBLIC_HOSTS"), "{what}: {}", answer.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_host_is_rejected_on_loopback() {
    let server = Embedded::start(&[]).await.unwrap();
    for host in ["evil.example", "evil.example:8080", "localhost.evil.example", "192.168.1.5", "0.0.0.0:1"] {
        for path in [HANDSHAKE, "/.well-known/jwks.json", "/api/rooms", "/docs/", "/nowhere"] {
            is_refused(&call(&server, path, host).await, &format!("{host} {path}"));
        }
        let signup = Client::new().post(format!("{}/api/auth/signup", server.url()));
        is_refused(&send(signup.header("host", host).body("{}")).await, host);
    }
    for host in ["localhost", "LOCALHOST:1234", "app.localhost", "127.0.0.1:80", "127.8.9.10", "[::1]:8080"] {
        for path in [HANDSHAKE, "/.well-known/jwks.json"] {
            assert_eq!(call(&server, path, host).await.status, 200, "{host} {path}");
        }
    }
    for (request, status) in [
        ("GET http://evil.example/.well-known/jwks.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        ("GET http://localhost/.well-known/jwks.json HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 200),
        ("GET /.well-known/jwks.json HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        ("GET /.well-known/jwks.json HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        ("GET /.well-known/jwks.json HTTP/1.0\r\n\r\n", 200),
    ] {
        assert_eq!(raw(&server, request).await, status, "{request}");
    }
    let log = std::fs::read_to_string(&server.daemon().log).unwrap();
    assert_eq!(log.matches("not in CONFAB_PUBLIC_HOSTS").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listed_hosts_are_accepted_and_their_pages_may_connect() {
    let server = Embedded::start(&[("CONFAB_PUBLIC_HOSTS", "chat.example, admin.example:8443")]).await.unwrap();
    for host in ["chat.example", "Chat.Example:1", "admin.example:8443"] {
        for path in [HANDSHAKE, "/.well-known/jwks.json"] {
            assert_eq!(call(&server, path, host).await.status, 200, "{host} {path}");
        }
    }
    for host in ["evil.example", "admin.example", "x.chat.example"] {
        is_refused(&call(&server, HANDSHAKE, host).await, host);
    }
    // A page of another host may not connect, although that host is listed as well.
    let other = Client::new().get(format!("{}{HANDSHAKE}", server.url())).header("host", "chat.example");
    assert_eq!(send(other.header("origin", "http://admin.example:8443")).await.status, 403);
}
