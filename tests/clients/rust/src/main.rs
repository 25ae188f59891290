//! Stock rust_socketio clients, driven by one JSON command per line on standard input. Each event of a client is
//! reported as one JSON line on standard output. The program ends when its input ends.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::FutureExt;
use rust_socketio::asynchronous::{Client, ClientBuilder};
use rust_socketio::{Event, Payload, TransportType};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

/// How long the client waits for an acknowledgement; a later one is ignored.
const ACK_LIMIT: Duration = Duration::from_secs(30);

fn report(report: Value) {
    println!("{report}");
}

fn arguments(payload: Payload) -> Value {
    match payload {
        Payload::Text(values) => Value::Array(values),
        Payload::Binary(bytes) => json!([{"base64": BASE64_STANDARD.encode(bytes)}]),
        #[allow(deprecated)]
        Payload::String(text) => json!([text]),
    }
}

/// The client can send either JSON values or bytes.
fn payload(arguments: &Value) -> Payload {
    let values = arguments.as_array().cloned().unwrap_or_default();
    let bytes = match values.as_slice() {
        [Value::Object(only)] if only.len() == 1 => only.get("base64").and_then(Value::as_str),
        _ => None,
    };
    match bytes {
        Some(text) => Payload::from(BASE64_STANDARD.decode(text).unwrap_or_default()),
        None => Payload::from(values),
    }
}

fn transport(options: &Value) -> TransportType {
    let names = options["transports"].as_array().map(|names| names.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    match names.unwrap_or_default().as_slice() {
        ["polling"] => TransportType::Polling,
        ["websocket"] => TransportType::Websocket,
        ["polling", "websocket"] => TransportType::WebsocketUpgrade,
        _ => TransportType::Any,
    }
}

async fn connect(id: String, command: &Value) -> Result<Client, rust_socketio::Error> {
    let options = &command["options"];
    let mut builder = ClientBuilder::new(command["url"].as_str().unwrap_or_default())
        .transport_type(transport(options))
        .reconnect(options["reconnection"].as_bool().unwrap_or(true))
        .reconnect_on_disconnect(false);
    if options["auth"].is_object() {
        builder = builder.auth(options["auth"].clone());
    }
    let of = |kind: &'static str| {
        let id = id.clone();
        move |data: Payload, _: Client| {
            report(json!({"id": id, "kind": kind, "data": {"message": arguments(data)[0]}}));
            async {}.boxed()
        }
    };
    let any = id.clone();
    builder
        .on(Event::Connect, of("connect"))
        .on(Event::Close, of("disconnect"))
        .on(Event::Error, of("error"))
        .on_any(move |event, data, _| {
            report(json!({"id": any, "kind": "event", "event": event.as_str(), "args": arguments(data)}));
            async {}.boxed()
        })
        .connect()
        .await
}

async fn emit(client: &Client, id: &str, command: &Value) -> Result<(), rust_socketio::Error> {
    let event = command["event"].as_str().unwrap_or_default();
    let data = payload(&command["args"]);
    if !command["ack"].as_bool().unwrap_or_default() {
        return client.emit(event, data).await;
    }
    let (id, number) = (id.to_owned(), command["ref"].clone());
    let acknowledged = move |answer: Payload, _: Client| {
        // The client wraps the arguments of an acknowledgement in an array.
        let values = arguments(answer)[0].clone();
        report(json!({"id": id, "kind": "ack", "ref": number, "args": values}));
        async {}.boxed()
    };
    client.emit_with_ack(event, data, ACK_LIMIT, acknowledged).await
}

/// Executes the commands of one client, one after another.
async fn work(id: String, mut commands: mpsc::UnboundedReceiver<Value>) {
    let mut client: Option<Client> = None;
    while let Some(command) = commands.recv().await {
        let done = match (command["op"].as_str().unwrap_or_default(), &client) {
            ("connect", _) => match connect(id.clone(), &command).await {
                Ok(connected) => {
                    client = Some(connected);
                    Ok(())
                }
                Err(error) => {
                    report(json!({"id": id, "kind": "connect_error", "data": {"message": error.to_string()}}));
                    Ok(())
                }
            },
            ("emit", Some(client)) => emit(client, &id, &command).await,
            ("disconnect", Some(client)) => client.disconnect().await,
            (other, _) => {
                report(json!({"kind": "crash", "data": format!("this client cannot execute {other} now")}));
                Ok(())
            }
        };
        if let Err(error) = done {
            report(json!({"id": id, "kind": "error", "data": {"message": error.to_string()}}));
        }
    }
}

#[tokio::main]
async fn main() {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut clients = HashMap::<String, mpsc::UnboundedSender<Value>>::new();
    while let Ok(Some(line)) = lines.next_line().await {
        let command: Value = serde_json::from_str(&line).expect("a command in JSON");
        let id = command["id"].as_str().unwrap_or_default().to_owned();
        let commands = clients.entry(id.clone()).or_insert_with(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            tokio::spawn(work(id, receiver));
            sender
        });
        let _ = commands.send(command);
    }
    // Exits immediately: the driving process is gone, and an orderly exit would report every open connection.
    std::process::exit(0);
}
