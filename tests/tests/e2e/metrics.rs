//! `/metrics`: the exposed metrics match docs/metrics.md, and events are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use confab_tests::api::{Api, unique};
use confab_tests::embedded::Embedded;
use confab_tests::exposition::{Exposition, documented};
use confab_tests::plan::Role;
use confab_tests::raw::{Client, WebSocket};
use confab_tests::wait::eventually;
use reqwest::Method;
use serde_json::json;

use crate::world;

const STEP_LIMIT: Duration = Duration::from_secs(10);

/// Uses every feature once, at one gateway.
async fn conversation(api: &Api) -> anyhow::Result<()> {
    let account = api.signup().await?;
    let room = api.room(&account).await?;
    let mut socket = WebSocket::connect(&api.url, &account.token).await?;
    let ack = socket.emit("joinRoom", json!(room)).await?;
    anyhow::ensure!(ack["ok"] == true, "{ack}");
    socket.emit("message", json!({"roomId": room, "content": "hello"})).await?;
    api.call(Method::PATCH, &format!("/api/rooms/{room}"), Some(&account), Some(json!({"name": unique("renamed")})))
        .await?
        .expect(200)?;
    let file = api.share(&account, Some(&room), "note.txt", b"some bytes").await?;
    api.get(file["url"].as_str().unwrap_or_default(), &account).await?;
    let attached = api.share(&account, None, "note.txt", b"some bytes").await?;
    let message = json!({"roomId": room, "content": "hello", "fileIds": [attached["id"]]});
    api.post("/api/messages", &account, message).await?.expect(201)?;
    // The auth service removes a deleted user from rooms.
    let password = json!({"password": confab_tests::api::PASSWORD});
    api.call(Method::DELETE, "/api/auth/me", Some(&api.signup().await?), Some(password)).await?.expect(204)?;
    api.call(Method::from_bytes(b"BREW")?, &format!("/{}", unique("nowhere")), None, None).await?.expect(404)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exposed_metrics_are_documented() {
    let cluster = world::cluster().await;
    for gateway in world::gateways(cluster) {
        conversation(&gateway).await.unwrap();
    }
    let embedded = world::embedded().await;
    conversation(&Api::new(embedded.url())).await.unwrap();

    for n in 1..=cluster.plan.gateways {
        let port = cluster.plan.admin_port((Role::Gateway, n));
        let receives = async || {
            (Exposition::scrape(port).await.ok()?.value("confab_bus_listeners{state=\"up\"}")? == 4.0).then_some(())
        };
        eventually("a gateway is connected to the bus", STEP_LIMIT, receives).await.unwrap();
    }
    let removes = async || {
        for n in 1..=cluster.plan.replicas {
            let exposition = Exposition::scrape(cluster.plan.admin_port((Role::Auth, n))).await.ok()?;
            if exposition.metrics.contains_key("confab_rpc_client_seconds") {
                return Some(());
            }
        }
        None
    };
    eventually("the auth service calls the room service", STEP_LIMIT, removes).await.unwrap();
    let mut ports = cluster
        .plan
        .members()
        .into_iter()
        .filter(|(role, _)| role.is_ours())
        .map(|member| cluster.plan.admin_port(member))
        .collect::<Vec<_>>();
    ports.push(embedded.admin_port());
    let mut exposed = BTreeMap::<String, BTreeSet<String>>::new();
    let rows = documented().unwrap();
    for port in ports {
        let exposition = Exposition::scrape(port).await.unwrap();
        let program =
            exposition.label("confab_build_info", "program").unwrap().trim_start_matches("confab-").to_owned();
        for (name, metric) in &exposition.metrics {
            let row =
                rows.get(name).unwrap_or_else(|| panic!("{name} of {program} is not in docs/metrics.md: {metric:?}"));
            assert_eq!((&metric.kind, &metric.help), (&row.metric.kind, &row.metric.help), "{name} of {program}");
            assert!(metric.labels.is_subset(&row.metric.labels), "{name} of {program} has {:?}", metric.labels);
            exposed.entry(format!("{program} {name}")).or_default().extend(metric.labels.iter().cloned());
        }
        let invented = exposition.mentions("nowhere") || exposition.mentions("BREW");
        assert!(!invented, "an invented method name became a label");
    }
    for (name, row) in &rows {
        for program in &row.programs {
            let labels = exposed.get(&format!("{program} {name}"));
            assert_eq!(labels, Some(&row.metric.labels), "docs/metrics.md says that {program} exposes {name}");
        }
    }
    let undocumented = exposed.keys().filter(|key| {
        let (program, name) = key.split_once(' ').unwrap();
        program != "confab" && !rows[name].programs.contains(program)
    });
    assert_eq!(undocumented.collect::<Vec<_>>(), [""; 0], "docs/metrics.md does not name the program");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_counted() {
    let server = Embedded::start(&[("CONFAB_MAX_ROOMS_PER_SOCKET", "1")]).await.unwrap();
    let api = Api::new(server.url());
    let account = api.signup().await.unwrap();
    let (room, other) = (api.room(&account).await.unwrap(), api.room(&account).await.unwrap());
    let mut first = WebSocket::connect(&api.url, &account.token).await.unwrap();
    let mut second = WebSocket::connect(&api.url, &account.token).await.unwrap();
    for socket in [&mut first, &mut second] {
        assert_eq!(socket.emit("joinRoom", json!(room)).await.unwrap()["ok"], true);
    }
    assert_eq!(first.emit("joinRoom", json!(other)).await.unwrap()["error"]["code"], "rate_limited");
    assert_eq!(first.emit("message", json!({"roomId": room, "content": "one"})).await.unwrap()["ok"], true);
    api.get("/api/rooms/none", &account).await.unwrap().expect(404).unwrap();
    api.call(Method::from_bytes(b"BREW").unwrap(), "/nowhere", None, None).await.unwrap().expect(404).unwrap();
    api.share(&account, None, "note.txt", b"some bytes").await.unwrap();
    for socket in [&mut first, &mut second] {
        assert_eq!(socket.event("message").await.unwrap()["content"], "one");
    }

    let seen = Exposition::scrape(server.admin_port()).await.unwrap();
    for (series, value) in [
        ("confab_sessions{transport=\"websocket\"}", 2.0),
        ("confab_sessions{transport=\"polling\"}", 0.0),
        ("confab_connects_total{outcome=\"accepted\"}", 2.0),
        ("confab_event_seconds_count{event=\"joinRoom\",outcome=\"ok\"}", 2.0),
        ("confab_event_seconds_count{event=\"joinRoom\",outcome=\"refused\"}", 1.0),
        ("confab_event_seconds_count{event=\"message\",outcome=\"ok\"}", 1.0),
        ("confab_limits_total{limit=\"rooms_per_socket\"}", 1.0),
        ("confab_deliveries_total", 2.0),
        ("confab_message_appended_total", 1.0),
        ("confab_message_append_seconds_bucket{le=\"+Inf\"}", 1.0),
        ("confab_message_append_rows_bucket{le=\"1\"}", 1.0),
        ("confab_message_queue_seconds_count", 1.0),
        ("confab_bus_listeners{state=\"up\"}", 5.0),
        ("confab_file_uploads", 0.0),
        ("confab_file_upload_bytes_total", 10.0),
        ("confab_file_upload_seconds_count{outcome=\"ok\"}", 1.0),
        ("confab_http_request_seconds_count{route=\"/api/rooms/{roomId}\",method=\"GET\",status=\"4xx\"}", 1.0),
        ("confab_http_request_seconds_count{route=\"unknown\",method=\"other\",status=\"4xx\"}", 1.0),
        (
            "confab_rpc_client_seconds_count{service=\"confab.room.v1.RoomService\",method=\"CreateRoom\",code=\"OK\"}",
            2.0,
        ),
        ("confab_ready", 1.0),
    ] {
        assert_eq!(seen.value(series), Some(value), "{series}");
    }
    // The hint of the message, and perhaps the announcement that its author has read it.
    assert!(seen.value("confab_bus_heard_total").is_some_and(|count| count >= 1.0));
    assert!(seen.value("process_resident_memory_bytes").is_some_and(|bytes| bytes > 1e6));
    assert!(seen.value("process_open_fds").is_some_and(|open| open > 5.0));
    let young = async || {
        let seen = Exposition::scrape(server.admin_port()).await.ok()?;
        seen.value("confab_revocations_age_seconds").filter(|age| *age < 5.0)
    };
    eventually("revocations are polled", STEP_LIMIT, young).await.unwrap();

    api.call(Method::POST, "/api/auth/logout", Some(&account), None).await.unwrap().expect(200).unwrap();
    drop((first, second));
    let over = async || {
        let seen = Exposition::scrape(server.admin_port()).await.ok()?;
        let left = seen.value("confab_sessions{transport=\"websocket\"}")?;
        (left == 0.0 && seen.value("confab_revocations") == Some(1.0)).then_some(())
    };
    eventually("the sockets are closed and the logout has arrived", STEP_LIMIT, over).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_bus_shows_in_the_metrics() {
    // No program listens there.
    let server =
        Embedded::start(&[("CONFAB_BUS", "redis://127.0.0.1:1"), ("CONFAB_INSECURE_BUS", "true")]).await.unwrap();
    let api = Api::new(server.url());
    let account = api.signup().await.unwrap();
    let room = api.room(&account).await.unwrap();
    api.post("/api/messages", &account, json!({"roomId": room, "content": "late"})).await.unwrap().expect(201).unwrap();
    let dropped = async || {
        let seen = Exposition::scrape(server.admin_port()).await.ok()?;
        assert_eq!(seen.value("confab_bus_listeners{state=\"down\"}"), Some(5.0));
        assert_eq!(seen.value("confab_bus_listeners{state=\"up\"}"), Some(0.0));
        (seen.value("confab_bus_dropped_total{reason=\"bus_down\"}")? > 0.0).then_some(())
    };
    eventually("dropped publications are counted", STEP_LIMIT, dropped).await.unwrap();
}
