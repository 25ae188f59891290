//! A server's `/openapi.json`: every REST response in the tests is checked against the document.

pub mod events;
mod schema;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use anyhow::{Context, bail, ensure};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::OnceCell;

use crate::api::Answer;
use schema::Schemas;

pub use schema::closed;

/// The methods of a path item.
pub const METHODS: [&str; 6] = ["get", "head", "post", "put", "patch", "delete"];

/// An operation and the status of one of its responses.
pub type Seen = (String, u16);

/// A document, and the responses that each server has given.
pub struct Contract {
    document: Value,
    schemas: Schemas,
    seen: Mutex<BTreeSet<(String, Seen)>>,
}

/// Returns whether this process is a test, not a program that measures.
fn is_tested() -> bool {
    static TESTED: OnceLock<bool> = OnceLock::new();
    *TESTED.get_or_init(|| {
        std::env::current_exe().is_ok_and(|own| own.parent().is_some_and(|directory| directory.ends_with("deps")))
    })
}

/// Returns the document of the servers in these tests; all servers are from the same build.
///
/// # Errors
/// When the first server does not return it.
async fn contract(url: &str) -> anyhow::Result<&'static Contract> {
    static CONTRACT: OnceCell<Contract> = OnceCell::const_new();
    let fetch = async || {
        Ok(Contract::new(reqwest::get(format!("{url}/openapi.json")).await?.error_for_status()?.json().await?))
    };
    CONTRACT.get_or_try_init(fetch).await
}

/// Checks a response against the document.
///
/// # Errors
/// When there is no document.
///
/// # Panics
/// When the response contradicts the document.
pub async fn check(url: &str, method: &str, path: &str, answer: &Answer) -> anyhow::Result<()> {
    let contract = contract(url).await.context("no /openapi.json")?;
    match contract.judge(method, path, answer) {
        Ok(Some(seen)) => _ = contract.seen.lock().insert((url.to_owned(), seen)),
        Ok(None) => {}
        Err(error) => panic!(
            "{method} {path} answered {}, which contradicts the document: {error:#}\n{}",
            answer.status, answer.body
        ),
    }
    Ok(())
}

/// Returns the responses that a server has given.
///
/// # Errors
/// When there is no document.
pub async fn seen(url: &str) -> anyhow::Result<BTreeSet<Seen>> {
    let seen = contract(url).await?.seen.lock().clone();
    Ok(seen.into_iter().filter(|(at, _)| at == url).map(|(_, seen)| seen).collect())
}

impl Contract {
    pub fn new(document: Value) -> Self {
        Self { schemas: Schemas::default(), seen: Mutex::default(), document }
    }

    /// Checks a response. Returns the operation that answered, if the document has it.
    ///
    /// # Errors
    /// When the response contradicts the document.
    pub fn judge(&self, method: &str, path: &str, answer: &Answer) -> anyhow::Result<Option<Seen>> {
        let beside = path.starts_with("/socket.io/") || path == "/openapi.json" || path.starts_with("/docs");
        if beside || method == "OPTIONS" || is_balancers_own(answer) {
            return Ok(None);
        }
        let Some(item) = self.item(path) else {
            ensure!((answer.status, answer.code()) == (404, "not_found"), "there is no such path");
            return Ok(None);
        };
        // A GET route also serves HEAD.
        let method = method.to_lowercase();
        let operation = item.get(&method).or_else(|| item.get("get").filter(|_| method == "head"));
        let Some(operation) = operation else {
            ensure!((answer.status, answer.code()) == (405, "method_not_allowed"), "there is no such method");
            return Ok(None);
        };
        let name = operation["operationId"].as_str().context("an operation has a name")?;
        let response =
            operation["responses"].get(answer.status.to_string()).context("the document has no such status")?;
        let response = schema::resolve(&self.document, response);
        // A request that another limit has rejected has no state of a rate limit.
        for header in keys(&response["headers"]).into_iter().filter(|header| !header.starts_with("RateLimit")) {
            ensure!(answer.headers.contains_key(header), "the header {header} is missing");
        }
        if method == "head" {
            ensure!(answer.bytes.is_empty(), "with a body");
        } else {
            self.judge_body(response, answer)?;
        }
        Ok(Some((name.to_owned(), answer.status)))
    }

    fn judge_body(&self, response: &Value, answer: &Answer) -> anyhow::Result<()> {
        let kind = answer.header("content-type").split(';').next().unwrap_or_default();
        let Some(content) = response.get("content") else {
            ensure!(answer.bytes.is_empty(), "with a body");
            return Ok(());
        };
        let Some(media) = content.get(kind).or_else(|| content.get("*/*")) else { bail!("as {kind:?}") };
        if !kind.ends_with("json") || content.get("*/*").is_some() {
            return Ok(());
        }
        let codes = keys(&media["examples"]);
        ensure!(codes.is_empty() || codes.contains(&answer.code()), "the code is not one of {codes:?}");
        self.schemas.check(&self.document, &media["schema"], &answer.body)
    }

    /// Returns the path item for a path; an item without parameters takes precedence.
    fn item(&self, path: &str) -> Option<&Map<String, Value>> {
        let paths = self.document["paths"].as_object()?;
        let found =
            paths.get(path).or_else(|| paths.iter().find(|(template, _)| fits(template, path)).map(|(_, item)| item));
        found.and_then(Value::as_object)
    }
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/').collect::<Vec<_>>(), path.split('/').collect::<Vec<_>>());
    let one = |(template, part): (&&str, &&str)| template == part || (template.starts_with('{') && !part.is_empty());
    template.len() == path.len() && template.iter().zip(&path).all(one)
}

/// Returns whether the response is nginx's own, sent when no gateway is reachable.
fn is_balancers_own(answer: &Answer) -> bool {
    answer.header("server").starts_with("nginx")
        && answer.header("content-type").starts_with("text/html")
        && answer.status >= 500
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// Returns the operations of a document: method, path and description.
pub fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let operations = paths
        .flat_map(|(path, item)| METHODS.iter().filter_map(move |method| Some((method, path, item.get(*method)?))));
    operations.map(|(method, path, operation)| (method.to_string(), path.clone(), operation.clone())).collect()
}

#[cfg(test)]
mod tests;
