//! Unmodified Socket.IO clients as child processes: `socket.io-client` in Node and `python-socketio`, many sockets in
//! each; in Rust `rust_socketio`.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use crate::contract::events as contract;

/// Time limit for a client to connect, and for a server to acknowledge.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A process with stock clients of one language; clones share it.
#[derive(Clone)]
pub struct Stock(Arc<Inner>);

struct Inner {
    commands: mpsc::UnboundedSender<Value>,
    sockets: Mutex<HashMap<String, Arc<Record>>>,
    acks: Mutex<HashMap<u64, oneshot::Sender<Vec<Value>>>>,
    /// The names of events whose acknowledgement is pending.
    asked: Mutex<HashMap<u64, String>>,
    next: AtomicU64,
    /// The server is Confab: events and acknowledgements are judged by its documents.
    is_confab: AtomicBool,
    _process: Child,
}

/// The reports of one socket.
#[derive(Default)]
struct Record {
    /// Shared with readers, so that they need not lock it.
    reports: Mutex<Arc<Vec<Report>>>,
    news: Notify,
}

/// A report of a client.
#[derive(Debug, Clone)]
pub enum Report {
    /// An event from the server, with its arguments.
    Event(String, Vec<Value>),
    /// The acknowledgement of [`Socket::emit_noted`], with its arguments.
    Ack(u64, Vec<Value>),
    /// Any other report: `connect`, `connect_error`, `disconnect`, `upgrade`, `reconnect`, with its details.
    State(String, Value),
}

/// The transports of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transports {
    /// The default of stock clients: long-polling, then the upgrade to WebSocket.
    Upgrade,
    /// WebSocket only.
    WebSocket,
    /// Long-polling only.
    Polling,
}

/// Encodes bytes in an argument of an event: a `Buffer` in JavaScript, `bytes` in Python.
pub fn bytes(data: &[u8]) -> Value {
    json!({"base64": BASE64_STANDARD.encode(data)})
}

/// Like [`bytes`], as another of JavaScript's types: `Blob`, `File`, `Uint8Array`.
pub fn bytes_as(kind: &str, data: &[u8]) -> Value {
    json!({"base64": BASE64_STANDARD.encode(data), "as": kind})
}

impl Stock {
    /// Starts a process with JavaScript clients.
    ///
    /// # Errors
    /// When Node does not start.
    pub fn javascript() -> anyhow::Result<Self> {
        let directory = clients().join("js");
        Self::start(Command::new("node").arg("client.mjs").current_dir(directory))
    }

    /// Starts a process with JavaScript clients of the browser build, which can send types that only browsers have;
    /// over WebSocket only.
    ///
    /// # Errors
    /// When Node does not start.
    pub fn browser() -> anyhow::Result<Self> {
        let directory = clients().join("js");
        Self::start(Command::new("node").args(["client.mjs", "browser"]).current_dir(directory))
    }

    /// Starts a process with Python clients.
    ///
    /// # Errors
    /// When Python does not start.
    pub fn python() -> anyhow::Result<Self> {
        let directory = clients().join("python");
        Self::start(Command::new(directory.join(".venv/bin/python")).arg("client.py").current_dir(directory))
    }

    /// Starts a process with Rust clients.
    ///
    /// # Errors
    /// When it is not built.
    pub fn rust() -> anyhow::Result<Self> {
        Self::start(&mut Command::new(clients().join("../../target/stock-client/debug/stock-client")))
    }

    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().context(
            "cannot run the stock clients; scripts/ensure-clients.sh and ensure-rust-client.sh install them",
        )?;
        let mut input = process.stdin.take().context("its input")?;
        let output = BufReader::new(process.stdout.take().context("its output")?);
        let (commands, mut queue) = mpsc::unbounded_channel::<Value>();
        tokio::spawn(async move {
            while let Some(command) = queue.recv().await {
                if input.write_all(format!("{command}\n").as_bytes()).await.is_err() {
                    break;
                }
            }
        });
        let (sockets, acks, asked) = Default::default();
        let (next, is_confab) = (AtomicU64::new(0), AtomicBool::new(true));
        let inner = Arc::new(Inner { commands, sockets, acks, asked, next, is_confab, _process: process });
        let weak = Arc::downgrade(&inner);
        tokio::spawn(async move {
            let mut lines = output.lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Some(inner) = weak.upgrade() else { break };
                inner.report(&line);
            }
        });
        Ok(Self(inner))
    }

    /// The same clients for a server other than Confab, which has its own documents.
    #[must_use]
    pub fn of_another_server(self) -> Self {
        self.0.is_confab.store(false, Ordering::Relaxed);
        self
    }

    /// Begins to connect a client with the given options of `io(url, options)`.
    pub fn open(&self, url: &str, options: Value) -> Socket {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed).to_string();
        let record = Arc::<Record>::default();
        lock(&self.0.sockets).insert(id.clone(), record.clone());
        let socket = Socket { stock: self.clone(), id, record };
        socket.command(json!({"op": "connect", "url": url, "options": options}));
        socket
    }

    /// Connects a client with a token, and waits until it is connected.
    ///
    /// # Errors
    /// When it is not connected in time.
    pub async fn connect(&self, url: &str, token: &str, transports: Transports) -> anyhow::Result<Socket> {
        let transports = match transports {
            Transports::Upgrade => json!(["polling", "websocket"]),
            Transports::WebSocket => json!(["websocket"]),
            Transports::Polling => json!(["polling"]),
        };
        let socket = self.open(url, json!({"auth": {"token": token}, "transports": transports}));
        socket.state("connect").await?;
        Ok(socket)
    }
}

impl Inner {
    /// Exits the test run, because no caller of this function can fail.
    fn as_documented(&self, judge: impl FnOnce() -> anyhow::Result<()>) {
        if self.is_confab.load(Ordering::Relaxed)
            && let Err(error) = judge()
        {
            eprintln!("contradicts docs/asyncapi.json: {error:#}");
            std::process::exit(1);
        }
    }

    fn report(&self, line: &str) {
        let Ok(mut report) = serde_json::from_str::<Value>(line) else {
            eprintln!("stock client: {line}");
            return;
        };
        let kind = report["kind"].as_str().unwrap_or_default().to_string();
        let mut arguments = || match report["args"].take() {
            Value::Array(values) => values,
            _ => Vec::new(),
        };
        let (id, entry) = match kind.as_str() {
            "crash" => return eprintln!("a stock client crashed: {}", report["data"]),
            "ack" => {
                let arguments = arguments();
                let number = report["ref"].as_u64().unwrap_or_default();
                if let Some(asked) = lock(&self.asked).remove(&number) {
                    self.as_documented(|| contract::answer(&asked, arguments.first().unwrap_or(&Value::Null)));
                }
                if let Some(waiting) = lock(&self.acks).remove(&number) {
                    let _ = waiting.send(arguments);
                    return;
                }
                (&report["id"], Report::Ack(number, arguments))
            }
            "event" => {
                let arguments = arguments();
                let name = report["event"].as_str().unwrap_or_default().to_owned();
                self.as_documented(|| contract::event(&name, arguments.first().unwrap_or(&Value::Null)));
                (&report["id"], Report::Event(name, arguments))
            }
            _ => (&report["id"], Report::State(kind, report["data"].clone())),
        };
        if let Some(record) = id.as_str().and_then(|id| lock(&self.sockets).get(id).cloned()) {
            Arc::make_mut(&mut lock(&record.reports)).push(entry);
            record.news.notify_waiters();
        }
    }
}

pub struct Socket {
    stock: Stock,
    id: String,
    record: Arc<Record>,
}

impl Socket {
    /// Emits with a callback, and waits for the acknowledgement's first argument.
    ///
    /// # Errors
    /// When no acknowledgement arrives in time.
    pub async fn emit(&self, event: &str, argument: Value) -> anyhow::Result<Value> {
        let mut answer = self.emit_later(event, vec![argument]).await?;
        if answer.is_empty() {
            bail!("{event} was acknowledged without an argument");
        }
        Ok(answer.swap_remove(0))
    }

    /// Emits at once, with any arguments and a callback; the acknowledgement can be awaited later.
    pub fn emit_later(
        &self,
        event: &str,
        arguments: Vec<Value>,
    ) -> impl Future<Output = anyhow::Result<Vec<Value>>> + use<> {
        let number = self.stock.0.next.fetch_add(1, Ordering::Relaxed);
        let (waiting, answer) = oneshot::channel();
        lock(&self.stock.0.acks).insert(number, waiting);
        lock(&self.stock.0.asked).insert(number, event.to_owned());
        self.command(json!({"op": "emit", "ref": number, "event": event, "args": arguments, "ack": true}));
        let event = event.to_string();
        async move {
            let answer =
                timeout(ANSWER_LIMIT, answer).await.with_context(|| format!("{event} was not acknowledged"))?;
            answer.context("the stock client has ended")
        }
    }

    /// Emits with a callback whose acknowledgement is reported under the returned number, in order among the events.
    pub fn emit_noted(&self, event: &str, arguments: Vec<Value>) -> u64 {
        let number = self.stock.0.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.stock.0.asked).insert(number, event.to_owned());
        self.command(json!({"op": "emit", "ref": number, "event": event, "args": arguments, "ack": true}));
        number
    }

    /// Emits without a callback.
    pub fn tell(&self, event: &str, arguments: Vec<Value>) {
        self.command(json!({"op": "emit", "ref": 0, "event": event, "args": arguments, "ack": false}));
    }

    /// Returns all reports so far.
    pub fn reports(&self) -> Arc<Vec<Report>> {
        lock(&self.record.reports).clone()
    }

    /// Waits for reports and takes them all, so that no other reader sees them.
    pub async fn next_reports(&self) -> Vec<Report> {
        loop {
            let mut news = std::pin::pin!(self.record.news.notified());
            news.as_mut().enable();
            let reports = std::mem::take(&mut *lock(&self.record.reports));
            if !reports.is_empty() {
                return Arc::unwrap_or_clone(reports);
            }
            news.await;
        }
    }

    /// Returns the first argument of every event with this name so far, in order of arrival.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let of_name = |report: &Report| match report {
            Report::Event(event, arguments) if event == name => Some(arguments.first().cloned().unwrap_or(Value::Null)),
            _ => None,
        };
        self.reports().iter().filter_map(of_name).collect()
    }

    /// Waits until the reports satisfy a condition.
    ///
    /// # Errors
    /// When they do not in time; the message contains `what`, and the last reports.
    pub async fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&[Report]) -> Option<T>,
    ) -> anyhow::Result<T> {
        let met = async {
            loop {
                // Subscribed before the check, so that no report is missed between the check and the wait.
                let mut news = std::pin::pin!(self.record.news.notified());
                news.as_mut().enable();
                if let Some(value) = condition(&self.reports()) {
                    return value;
                }
                news.await;
            }
        };
        timeout(limit, met).await.map_err(|_| {
            let reports = self.reports();
            anyhow::anyhow!(
                "not within {limit:?}: {what}; last reports: {:?}",
                &reports[reports.len().saturating_sub(5)..]
            )
        })
    }

    /// Waits for a report such as `connect`, `connect_error`, `disconnect` or `upgrade`; returns its details.
    ///
    /// # Errors
    /// When it does not arrive in time.
    pub async fn state(&self, kind: &str) -> anyhow::Result<Value> {
        self.states(kind, 1).await
    }

    /// Waits until `count` such reports have arrived; returns the details of the last.
    ///
    /// # Errors
    /// When they do not arrive in time.
    pub async fn states(&self, kind: &str, count: usize) -> anyhow::Result<Value> {
        let of_kind = |report: &Report| match report {
            Report::State(name, details) if name == kind => Some(details.clone()),
            _ => None,
        };
        self.until(&format!("{kind}, {count} times"), ANSWER_LIMIT, |reports| {
            reports.iter().filter_map(of_kind).nth(count - 1)
        })
        .await
    }

    /// Connects again, after it has disconnected permanently or with reconnection disabled.
    pub fn reconnect(&self) {
        self.command(json!({"op": "reconnect"}));
    }

    /// Disconnects permanently.
    pub fn disconnect(&self) {
        self.command(json!({"op": "disconnect"}));
    }

    /// Breaks the transport; the client reconnects on its own.
    pub fn cut(&self) {
        self.command(json!({"op": "cut"}));
    }

    fn command(&self, mut command: Value) {
        command["id"] = json!(self.id);
        let _ = self.stock.0.commands.send(command);
    }
}

/// Returns the directory of the clients.
pub fn clients() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}
