//! The events and acknowledgements in `docs/asyncapi.json`: those in the tests are checked against the document.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use anyhow::Context;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::schema::Schemas;

/// How the document refers to the OpenAPI document, and where that is after both are merged.
const HTTP: (&str, &str) = ("./openapi.json#/", "#/http/");

static EVENTS: LazyLock<Events> = LazyLock::new(Events::of_the_repository);

/// The document, and its messages that were seen.
pub struct Events {
    document: Value,
    schemas: Schemas,
    seen: Mutex<BTreeSet<String>>,
}

/// Checks an event of the server against the document.
///
/// # Errors
/// When the event contradicts the document.
pub fn event(name: &str, payload: &Value) -> anyhow::Result<()> {
    if !super::is_tested() {
        return Ok(());
    }
    EVENTS.judge("send", name, payload).with_context(|| format!("the event {name}: {payload}"))
}

/// Checks the acknowledgement of an event against the document.
///
/// # Errors
/// When the acknowledgement contradicts the document.
pub fn answer(asked: &str, payload: &Value) -> anyhow::Result<()> {
    // The Python client itself returns this when it has no connection.
    if !super::is_tested() || payload["error"]["code"] == "disconnected" {
        return Ok(());
    }
    EVENTS.judge("receive", asked, payload).with_context(|| format!("the answer to {asked}: {payload}"))
}

/// Returns the messages of the document, and those that were seen; a rejecting acknowledgement counts as a separate
/// message.
pub fn all_and_seen() -> (BTreeSet<String>, BTreeSet<String>) {
    let messages =
        EVENTS.document["components"]["messages"].as_object().into_iter().flatten().map(|(key, _)| key.clone());
    let seen = EVENTS.seen.lock().clone();
    (messages.collect(), seen)
}

impl Events {
    fn of_the_repository() -> Self {
        let parse = |text: &str| serde_json::from_str::<Value>(text).expect("a document is JSON");
        let http = include_str!("../../../docs/openapi.json").replace("\"#/", &format!("\"{}", HTTP.1));
        let mut document = parse(&include_str!("../../../docs/asyncapi.json").replace(HTTP.0, HTTP.1));
        document["http"] = parse(&http);
        Self { document, schemas: Schemas::default(), seen: Mutex::default() }
    }

    /// Checks an event that the server sends, or the acknowledgement of an event that it receives.
    fn judge(&self, action: &str, name: &str, payload: &Value) -> anyhow::Result<()> {
        let is_it = |operation: &&Value| {
            operation["action"] == action && self.message(&operation["messages"][0])["name"] == name
        };
        let operation = self.document["operations"].as_object().and_then(|operations| operations.values().find(is_it));
        let (key, schema) = match operation {
            Some(operation) => {
                let message =
                    if action == "send" { &operation["messages"][0] } else { &operation["reply"]["messages"][0] };
                let key = message["$ref"]
                    .as_str()
                    .and_then(|path| path.rsplit('/').next())
                    .context("a message has a name")?;
                (key, &self.message(message)["payload"])
            }
            // The server rejects unknown events.
            None if action == "receive" => ("refusal", &json!({"$ref": "#/components/schemas/Refusal"})),
            None => anyhow::bail!("the document has no such event"),
        };
        self.schemas.check(&self.document, schema, payload)?;
        self.seen.lock().insert(key.to_owned());
        Ok(())
    }

    /// Returns a message that a channel refers to.
    fn message<'a>(&'a self, reference: &'a Value) -> &'a Value {
        super::schema::resolve(&self.document, super::schema::resolve(&self.document, reference))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_matches_its_schema() {
        let messages = EVENTS.document["components"]["messages"].as_object().unwrap();
        for (key, message) in messages {
            let examples = message["examples"].as_array().unwrap();
            assert!(!examples.is_empty(), "{key}");
            for example in examples {
                EVENTS
                    .schemas
                    .check(&EVENTS.document, &message["payload"], &example["payload"])
                    .unwrap_or_else(|error| panic!("{key}: {error}"));
            }
        }
    }

    #[test]
    fn undocumented_messages_are_errors() {
        event("sessionEnded", &json!({"code": "logged_out"})).unwrap();
        event("sessionEnded", &json!({"code": "bored"})).unwrap_err();
        event("sessionEnded", &json!({"code": "logged_out", "why": "x"})).unwrap_err();
        event("somethingElse", &json!({})).unwrap_err();
        answer("leaveRoom", &json!({"ok": true})).unwrap();
        answer("leaveRoom", &json!({"ok": true, "room": null})).unwrap_err();
        answer("message", &json!({"ok": true})).unwrap_err();
        let refusal = json!({"ok": false, "error": {"code": "not_found", "status": 404, "detail": "no such event"}});
        answer("no such event", &refusal).unwrap();
        answer("no such event", &json!({"ok": true})).unwrap_err();
    }
}
