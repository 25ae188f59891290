//! The whole trace of one message, from the gateway that receives it to both gateways that deliver it.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use confab_tests::api::Api;
use confab_tests::collector::{Span, paths};
use confab_tests::plan::Role;
use confab_tests::raw::{Client, WebSocket};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world;

/// The spans below a send.
const BELOW: [&str; 7] = [
    "",
    " > confab-gateway confab.message.v1.MessageService/Append",
    " > confab-gateway confab.message.v1.MessageService/Append > confab-message confab.message.v1.MessageService/Append",
    " > … > confab-message append",
    " > … > confab-message append > confab-message postgres append",
    " > … > confab-message append > confab-message publish",
    " > … > confab-message append > confab-message publish > confab-gateway fan out",
];

/// Returns the expected paths of a send's spans, below its first span.
fn expected(first: &str) -> HashSet<String> {
    let call = "confab-gateway confab.message.v1.MessageService/Append > confab-message confab.message.v1.MessageService/Append";
    BELOW.iter().map(|below| format!("{first}{}", below.replace('…', call))).collect()
}

/// Returns whether both gateways have delivered the message.
fn is_delivered(trace: &[Span]) -> bool {
    let gateways = trace.iter().filter(|span| span.name == "fan out").map(|span| span.instance.as_str());
    gateways.collect::<HashSet<_>>().len() == 2
}

/// Returns the span that another one links to, once it has arrived together with its statement.
fn lead(spans: &[Span], linked: &Span) -> Option<Span> {
    let lead = spans.iter().find(|lead| linked.links == [lead.id.as_str()])?;
    let wrote = |sql: &Span| sql.name == "postgres append" && sql.parent == lead.id;
    spans.iter().any(wrote).then(|| lead.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_is_traced_from_its_sender_to_both_gateways() {
    let (collector, cluster) = super::cluster().await;
    let [one, two] = <[_; 2]>::try_from(world::gateways(cluster)).unwrap();
    let account = one.signup().await.unwrap();
    let room = one.room(&account).await.unwrap();
    let mut sockets = Vec::new();
    for gateway in [&one, &two] {
        let mut socket = WebSocket::connect(&gateway.url, &account.token).await.unwrap();
        assert_eq!(socket.emit("joinRoom", json!(room)).await.unwrap()["ok"], true);
        sockets.push(socket);
    }
    let message = |content: &str| json!({"roomId": room, "content": content});

    // Over a socket: the trace begins at the gateway.
    assert_eq!(sockets[0].emit("message", message("by socket")).await.unwrap()["ok"], true);
    assert_eq!(sockets[1].event("message").await.unwrap()["content"], "by socket");
    let is_send = |span: &&Span| span.name == "message" && span.attributes.get("confab.room.id") == Some(&room);
    let whole = |spans: &[Span]| {
        let first = spans.iter().find(is_send)?;
        let trace = spans.iter().filter(|span| span.trace == first.trace).cloned().collect::<Vec<_>>();
        is_delivered(&trace).then(|| (first.clone(), trace))
    };
    let (first, _) = collector.until("the whole trace", whole).await.unwrap();
    let complete = |_: &[Span]| {
        let found = paths(&collector.trace(&first.trace)).into_iter().collect::<HashSet<_>>();
        (found == expected("confab-gateway message")).then_some(())
    };
    collector.until("every span in its place", complete).await.unwrap();
    assert_eq!(first.parent, "");

    // Over REST: a separate trace, linked to the client's, and named in the log.
    let request = one.request(Method::POST, "/api/messages").bearer_auth(&account.token).json(&message("by REST"));
    let request = request
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("x-request-id", "r-7");
    assert_eq!(one.send(request).await.unwrap().status, 201);
    let is_request = |span: &&Span| span.attributes.get("confab.request.id").is_some_and(|id| id == "r-7");
    let found = |spans: &[Span]| spans.iter().find(is_request).cloned();
    let first = collector.until("the request's span", found).await.unwrap();
    let trace = &*first.trace;
    collector.until("the request's trace", |_| is_delivered(&collector.trace(trace)).then_some(())).await.unwrap();
    assert_eq!((&*first.name, &*first.parent), ("POST /api/messages", ""));
    assert_eq!(first.links, ["b7ad6b7169203331"]);
    assert!(collector.trace("0af7651916cd43dd8448eb211c80319c").is_empty());
    let attributes_seen = ["http.request.method", "http.route", "http.response.status_code", "confab.request.id"]
        .map(|key| &*first.attributes[key]);
    assert_eq!(attributes_seen, ["POST", "/api/messages", "201", "r-7"]);
    let log = fs::read_to_string(cluster.daemon((Role::Gateway, 1)).unwrap().log).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect::<Vec<_>>();
    let line = lines.iter().find(|line| line["request_id"] == "r-7").unwrap();
    assert_eq!((&line["trace_id"], &line["span_id"]), (&json!(trace), &json!(first.id)));
    assert!(lines.iter().any(|line| line["message"] == "serving HTTP" && line.get("trace_id").is_none()));

    // Many messages in one batch: each has its own trace, and all traces but the batch's link to it.
    let burst = (0..40).map(|n| message(&n.to_string())).collect::<Vec<_>>();
    for number in sockets[0].emit_all("message", &burst).await.unwrap() {
        assert_eq!(sockets[0].ack(number).await.unwrap()["ok"], true);
    }
    let delivered = |spans: &[Span]| {
        let traces = spans.iter().filter(is_send).map(|span| span.trace.clone()).collect::<HashSet<_>>();
        (traces.len() == 41 && traces.iter().all(|trace| is_delivered(&collector.trace(trace)))).then_some(traces)
    };
    let traces = collector.until("all traces", delivered).await.unwrap();
    // The batch's trace ends after its messages are delivered, so its spans arrive later.
    let joined = |spans: &[Span]| {
        let appends =
            spans.iter().filter(|span| span.name == "append" && traces.contains(&span.trace)).collect::<Vec<_>>();
        let found = appends.iter().map(|span| &span.trace).collect::<HashSet<_>>();
        let linked = appends.iter().filter(|span| !span.links.is_empty());
        let leads = linked.map(|span| Some(((*span).clone(), lead(spans, span)?))).collect::<Option<Vec<_>>>()?;
        (found.len() == traces.len()).then_some(leads)
    };
    let joined = collector.until("the batches", joined).await.unwrap();
    assert!(!joined.is_empty(), "no messages were batched");
    for (span, lead) in joined {
        assert!(lead.name == "append" && lead.trace != span.trace && lead.links.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_trusted_traceparent_is_continued() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    // No trace that begins here is sampled, so the header decided about every visible one.
    let never = [("OTEL_TRACES_SAMPLER", "parentbased_always_off"), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    for trusted in [true, false] {
        let trust = ("CONFAB_TRUST_TRACEPARENT", if trusted { "true" } else { "false" });
        let (collector, server) = super::embedded(&[never[0], never[1], trust]).await.unwrap();
        let api = Api::new(server.url());
        let request = api.request(Method::GET, "/.well-known/jwks.json").header("traceparent", parent);
        assert_eq!(api.send(request).await.unwrap().status, 200);
        // Spans that were not exported by the end never will be.
        server.daemon().leave(Duration::from_secs(9)).await.unwrap();
        let parents = collector.spans().into_iter().map(|span| (span.trace, span.parent)).collect::<Vec<_>>();
        let continued = parents.contains(&("0af7651916cd43dd8448eb211c80319c".into(), "b7ad6b7169203331".into()));
        assert!(continued == trusted && parents.is_empty() != trusted, "{trusted}: {parents:?}");
    }
}
