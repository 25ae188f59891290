//! Records what server keys do outside of the auth service, before it is done.

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use confab_common::clock::now_ms;
use confab_common::grpc::{Call, Transport, request};
use confab_common::{Error, Result};
use confab_identity::credential::Credential;
use confab_proto::auth::v1::auth_service_client::AuthServiceClient;
use confab_proto::auth::v1::{Actor, RecordActRequest};
use moka::future::Cache;
use serde_json::Value;
use uuid::Uuid;

const RECORD: Call = Call::within(Duration::from_secs(2)).attempt(Duration::from_millis(500));
/// How often the acts of a key on behalf of a user are recorded: once in each hour.
const HOUR_MS: i64 = 3_600_000;
/// Most characters of a text in the details of an entry.
const MAX_TEXT: usize = 100;
/// Most pairs of a key and a user that this gateway remembers as recorded.
const CAPACITY: u64 = 100_000;

/// A server key that acts.
pub struct By<'a> {
    pub actor: Actor,
    pub credential: &'a Credential,
}

/// The audit.
pub struct Audit {
    auth: AuthServiceClient<Transport>,
    /// The hour of the newest entry about a key and a user.
    recorded: Cache<(Uuid, Uuid), i64>,
}

impl Audit {
    pub fn new(auth: AuthServiceClient<Transport>) -> Self {
        Self { auth, recorded: Cache::new(CAPACITY) }
    }

    /// Records an act that a key is about to do. `details` is an object, or null for none.
    ///
    /// # Errors
    /// `unavailable` when the act is not recorded; then it must not be done.
    pub async fn record(&self, by: By<'_>, act: &str, object: Uuid, details: &Value) -> Result<()> {
        self.write(Uuid::now_v7(), by, act, object, shortened(details)).await
    }

    /// Records that a key acts on behalf of a user, once an hour over all gateways.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub async fn record_acting(&self, key: Uuid, user: Uuid, by: By<'_>) -> Result<()> {
        self.record_acting_in(now_ms().max(0) / HOUR_MS, key, user, by).await
    }

    async fn record_acting_in(&self, hour: i64, key: Uuid, user: Uuid, by: By<'_>) -> Result<()> {
        if self.recorded.get(&(key, user)).await == Some(hour) {
            return Ok(());
        }
        self.write(acting_id(key, user, hour), by, "act_as", user, String::new()).await?;
        self.recorded.insert((key, user), hour).await;
        Ok(())
    }

    async fn write(&self, id: Uuid, by: By<'_>, act: &str, object: Uuid, details: String) -> Result<()> {
        let (id, act, object) = (id.to_string(), act.to_owned(), object.to_string());
        let record = RecordActRequest { id, actor: Some(by.actor), act, object, details };
        let record = by.credential.attach(request(record, RECORD));
        let recorded = self.auth.clone().record_act(record).await.map_err(Error::from);
        // Whether or not the entry is there, nothing else was done.
        recorded.map(drop).map_err(|error| Error::unavailable("the audit").because(error))
    }
}

/// The text of details: only the fields with a value, and texts in full up to [`MAX_TEXT`] characters.
fn shortened(details: &Value) -> String {
    let Some(fields) = details.as_object() else { return String::new() };
    let short = |value: &Value| match value.as_str() {
        Some(text) if text.chars().count() > MAX_TEXT => {
            format!("{}…", text.chars().take(MAX_TEXT).collect::<String>()).into()
        }
        _ => value.clone(),
    };
    let given = fields.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), short(value)));
    Value::Object(given.collect()).to_string()
}

/// The id of the entry about a key, a user and an hour: all gateways create the same one, so it is recorded once.
fn acting_id(key: Uuid, user: Uuid, hour: i64) -> Uuid {
    let mut hash = Context::new(&SHA256);
    [key.as_bytes(), user.as_bytes(), &hour.to_be_bytes()[..]].iter().for_each(|part| hash.update(part));
    let mut rest = [0; 10];
    rest.copy_from_slice(&hash.finish().as_ref()[..10]);
    uuid::Builder::from_unix_timestamp_millis((hour * HOUR_MS) as u64, &rest).into_uuid()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use confab_common::Code;
    use parking_lot::Mutex;
    use prost::Message;
    use serde_json::json;

    use super::*;
    use crate::testing::fake;

    /// An audit whose service stores the entries, or is unavailable.
    fn audit(is_up: bool) -> (Audit, Arc<Mutex<Vec<RecordActRequest>>>) {
        let entries = Arc::<Mutex<Vec<_>>>::default();
        let stored = entries.clone();
        let service = fake(move |_, body| {
            let entry = RecordActRequest::decode(body).unwrap();
            if !is_up {
                return Err(Error::unavailable("the database"));
            }
            stored.lock().push(entry);
            Ok(Vec::new())
        });
        (Audit::new(AuthServiceClient::new(service)), entries)
    }

    fn by(credential: &Credential) -> By<'_> {
        By { actor: Actor { key_id: Uuid::from_u128(1).to_string(), request_id: "r1".into() }, credential }
    }

    #[tokio::test]
    async fn acting_is_recorded_once_an_hour() {
        let (audit, entries) = audit(true);
        let [key, ada, eve] = [1, 2, 3].map(Uuid::from_u128);
        for (hour, user) in [(500_000, ada), (500_000, ada), (500_000, eve), (500_000, ada), (500_001, ada)] {
            audit.record_acting_in(hour, key, user, by(&Credential::default())).await.unwrap();
        }
        let users = entries.lock().iter().map(|entry| entry.object.clone()).collect::<Vec<_>>();
        assert_eq!(users, [ada, eve, ada].map(|user| user.to_string()));
        assert_eq!(entries.lock()[0].act, "act_as");
    }

    #[test]
    fn details_are_short() {
        let details = json!({"name": "Tea", "description": "é".repeat(101), "visibility": null});
        assert_eq!(shortened(&details), format!(r#"{{"description":"{}…","name":"Tea"}}"#, "é".repeat(100)));
        assert_eq!((shortened(&Value::Null), shortened(&json!({}))), (String::new(), "{}".into()));
    }

    #[test]
    fn all_gateways_create_the_same_id() {
        let [key, ada, eve] = [1, 2, 3].map(Uuid::from_u128);
        let id = acting_id(key, ada, 500_000);
        assert_eq!((id, id.get_version_num()), (acting_id(key, ada, 500_000), 7));
        for other in [acting_id(key, eve, 500_000), acting_id(eve, ada, 500_000), acting_id(key, ada, 500_001)] {
            assert_ne!(id, other);
        }
    }

    #[tokio::test]
    async fn an_act_that_is_not_recorded_fails() {
        let (audit, _) = audit(false);
        let credential = Credential::default();
        let refused = audit.record(by(&credential), "room.delete", Uuid::nil(), &Value::Null).await.unwrap_err();
        assert_eq!((refused.code, &*refused.detail), (Code::Unavailable, "the audit is unavailable; try again"));
        for _ in 0..2 {
            let refused = audit.record_acting(Uuid::nil(), Uuid::nil(), by(&credential)).await.unwrap_err();
            assert_eq!(refused.code, Code::Unavailable, "a failure is not remembered as recorded");
        }
    }
}
