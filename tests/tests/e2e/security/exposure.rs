//! What the public port of a gateway does not serve, and does not say.

use confab_tests::api::Api;
use confab_tests::embedded::Embedded;
use confab_tests::plan::Role;
use reqwest::Method;

use super::{fails, raw, status};
use crate::world;

/// Routes of the admin port, of the services, and of servers that attackers look for.
const NOT_SERVED: [&str; 14] = [
    "/metrics",
    "/readyz",
    "/failpoints/drop-hints",
    "/admin",
    "/debug/pprof/",
    "/actuator/health",
    "/server-status",
    "/.env",
    "/.git/config",
    "/api/internal",
    "/confab.auth.v1.AuthService/Login",
    "/confab.message.v1.MessageService/Append",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

#[tokio::test]
async fn the_public_port_serves_no_operational_route() {
    let embedded = world::embedded().await;
    let mut urls = vec![embedded.url()];
    let cluster = world::cluster().await;
    urls.extend([Role::Gateway, Role::Lb].map(|role| cluster.plan.url((role, 1))));
    for url in urls {
        let api = Api::new(url);
        for path in NOT_SERVED {
            for method in [Method::GET, Method::POST] {
                let request = api.request(method.clone(), path).header("content-type", "application/grpc");
                fails(&api.send(request).await.unwrap(), 404, "not_found");
            }
        }
    }
    // The admin port has them.
    let metrics = reqwest::get(format!("http://127.0.0.1:{}/metrics", embedded.admin_port())).await.unwrap();
    assert_eq!(metrics.status(), 200);
}

#[tokio::test]
async fn answers_do_not_name_the_software_and_trace_echoes_nothing() {
    let api = Api::new(world::embedded().await.url());
    for path in
        ["/", "/livez", "/api/rooms", "/nowhere", "/openapi.json", "/docs/", "/socket.io/?EIO=4&transport=polling"]
    {
        let answer = api.request(Method::GET, path).send().await.unwrap();
        for name in ["server", "x-powered-by", "via", "x-aspnet-version", "x-runtime"] {
            assert!(answer.headers().get(name).is_none(), "{path}: {name}");
        }
    }
    for (line, expected) in [("TRACE /api/rooms", 405), ("TRACE /nowhere", 404), ("CONNECT example.org:443", 400)] {
        let request =
            format!("{line} HTTP/1.1\r\nHost: localhost\r\nX-Secret: echoed-text\r\nConnection: close\r\n\r\n");
        let answer = raw(&api.url, request.as_bytes()).await;
        assert!(!answer.contains("echoed-text"), "{answer}");
        let rejected = status(&answer);
        assert!(
            rejected == expected || line.starts_with("CONNECT") && (400..500).contains(&rejected),
            "{line}: {answer}"
        );
    }
}

#[tokio::test]
async fn only_http_1_is_spoken_and_heads_are_bounded() {
    let server = Embedded::start(&[]).await.unwrap();
    // The preface of HTTP/2, an empty SETTINGS, and a stream that is reset at once, a thousand times.
    let mut rapid = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (1..2001u32).step_by(2) {
        rapid.extend([&b"\0\0\x01\x01\x05"[..], &stream.to_be_bytes(), b"\x82"].concat());
        rapid.extend([&b"\0\0\x04\x03\0"[..], &stream.to_be_bytes(), b"\0\0\0\x08"].concat());
    }
    let answer = raw(&server.url(), &rapid).await;
    assert!(answer.is_empty() || (400..506).contains(&status(&answer)), "{answer:?}");
    // An offer to continue with HTTP/2 is ignored.
    let upgrade = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings, close\r\n\
                   Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    let answer = raw(&server.url(), upgrade.as_bytes()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    for headers in [500, 10_000] {
        let request = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "a: b\r\n".repeat(headers));
        assert_eq!(status(&raw(&server.url(), request.as_bytes()).await), 431, "{headers} headers");
    }
    assert_eq!(reqwest::get(format!("{}/livez", server.url())).await.unwrap().status(), 200);
}
