//! Issuers: HTTP servers that publish key sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::fixtures::{Signer, set};

#[derive(Clone)]
pub enum Answer {
    Body(String),
    Status(StatusCode),
    /// To a path of the same server that publishes the keys.
    Redirect,
    /// None.
    Silence,
    /// The head and the first byte, and nothing more.
    FirstByte,
}

pub struct Server {
    pub issuer: String,
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    answer: Mutex<Answer>,
    /// The keys at the target of redirects.
    moved: String,
    requests: AtomicUsize,
    followed: AtomicUsize,
}

impl Server {
    /// Starts an issuer with this name and these keys, by their ids.
    pub async fn start(issuer: &str, keys: &[(&str, &Signer)]) -> Self {
        let keys = keys.iter().map(|(id, signer)| signer.jwk(id)).collect::<Vec<_>>();
        let shared = Arc::new(Shared {
            answer: Mutex::new(Answer::Body(set(&keys))),
            moved: set(&keys),
            requests: AtomicUsize::new(0),
            followed: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let router = Router::new().route("/jwks", get(answer)).route("/moved", get(moved)).with_state(shared.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        Self { issuer: issuer.to_owned(), address, shared }
    }

    /// The entry of this issuer for these algorithms.
    pub fn entry(&self, algorithms: &[&str]) -> Value {
        json!({
            "issuer": self.issuer,
            "audience": ["chat", "mobile"],
            "jwksUrl": format!("http://{}/jwks", self.address),
            "algorithms": algorithms,
            "nameClaim": "name",
            "pictureClaim": "picture",
        })
    }

    pub fn publish(&self, keys: &[(&str, &Signer)]) {
        let keys = keys.iter().map(|(id, signer)| signer.jwk(id)).collect::<Vec<_>>();
        self.answer(Answer::Body(set(&keys)));
    }

    pub fn answer(&self, answer: Answer) {
        *self.shared.answer.lock() = answer;
    }

    /// How often the keys were requested.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How often the target of redirects was requested.
    pub fn followed(&self) -> usize {
        self.shared.followed.load(Ordering::Relaxed)
    }
}

async fn answer(State(shared): State<Arc<Shared>>) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let answer = shared.answer.lock().clone();
    match answer {
        Answer::Body(body) => body.into_response(),
        Answer::Status(status) => status.into_response(),
        Answer::Redirect => (StatusCode::FOUND, [(LOCATION, "/moved")]).into_response(),
        Answer::Silence => std::future::pending().await,
        Answer::FirstByte => {
            let first = stream::iter([Ok::<_, std::io::Error>("{")]);
            Body::from_stream(first.chain(stream::pending())).into_response()
        }
    }
}

async fn moved(State(shared): State<Arc<Shared>>) -> String {
    shared.followed.fetch_add(1, Ordering::Relaxed);
    shared.moved.clone()
}
