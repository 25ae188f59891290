//! The audit: the acts of server keys and of operators.

use confab_common::clock::now_ms;
use confab_common::{Error, Result, cursor, text};
use uuid::Uuid;

use super::Accounts;
use crate::store::{Actor, AuditPosition, Entry};

/// Maximum entries in one page.
const MAX_PAGE: u32 = 200;
/// Maximum length of the name of an act, in bytes.
const MAX_ACT: usize = 64;
/// Maximum length of the id of an object, in bytes.
const MAX_OBJECT: usize = 128;
/// Maximum length of details, in bytes.
const MAX_DETAILS: usize = 4096;

/// A page of the audit.
pub struct AuditPage {
    pub entries: Vec<Entry>,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<String>,
}

impl Accounts {
    /// Records an act that another service is going to do. A repeat with the same id records nothing.
    ///
    /// # Errors
    /// `invalid_request`.
    pub async fn record(&self, id: Uuid, actor: Actor, act: String, object: String, details: String) -> Result<()> {
        if act.is_empty() {
            return Err(Error::field("act", "must not be empty"));
        }
        for (field, value, max) in
            [("act", &act, MAX_ACT), ("object", &object, MAX_OBJECT), ("details", &details, MAX_DETAILS)]
        {
            text::no_nul(field, value)?;
            if value.len() > max {
                return Err(Error::field(field, format!("must be at most {max} bytes")));
            }
        }
        let is_object = |text: &str| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok();
        let details = Some(details).filter(|details| !details.is_empty());
        if details.as_deref().is_some_and(|details| !is_object(details)) {
            return Err(Error::field("details", "must be an object"));
        }
        self.store.record(Entry { id, at_ms: now_ms(), actor, act, object, details }).await
    }

    /// Lists the entries, the newest first.
    ///
    /// # Errors
    /// `invalid_request`.
    pub async fn audit(&self, limit: u32, page: &str) -> Result<AuditPage> {
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Error::field("limit", format!("must be from 1 to {MAX_PAGE}")));
        }
        let below = match page {
            "" => AuditPosition::TOP,
            page => {
                let (at_ms, id) = cursor::decode::<(i64, Uuid)>(page)?;
                AuditPosition { at_ms, id }
            }
        };
        let mut entries = self.store.audit(below, limit + 1).await?;
        let more = entries.len() > limit as usize;
        entries.truncate(limit as usize);
        let last = entries.last().filter(|_| more).map(AuditPosition::of);
        Ok(AuditPage { next: last.map(|at| cursor::encode(&(at.at_ms, at.id))), entries })
    }
}
