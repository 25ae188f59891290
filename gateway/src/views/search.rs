//! Messages that a search has found.

use confab_common::Error;
use confab_proto::message::v1::SearchResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::message::MessageJson;
use super::page::Time;

/// A page of messages that a search has found.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FoundMessages<'a> {
    /// The newest message first. A page may have fewer items than `limit`, also none, although another page follows.
    items: Vec<FoundJson<'a>>,
    /// The `cursor` of the next page; null on the last page.
    #[schema(required)]
    next_cursor: Option<String>,
    /// All messages that were sent before this time can be found. Newer messages may not be in the index yet.
    up_to: Time,
}

/// A message that a search has found.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = FoundMessage)]
struct FoundJson<'a> {
    message: MessageJson<'a>,
    /// Where `content` has the words of the search: the first character and the one after the last, counted in Unicode
    /// scalar values from 0. In ascending order, at most 100.
    #[schema(max_items = 100)]
    highlights: Vec<[u32; 2]>,
}

impl<'a> TryFrom<&'a SearchResponse> for FoundMessages<'a> {
    type Error = Error;

    fn try_from(found: &'a SearchResponse) -> Result<Self, Error> {
        let items = found.items.iter().map(|item| {
            let message = item.message.as_ref().ok_or_else(|| Error::internal("a found message is missing"))?;
            let highlights = item.highlights.iter().map(|highlight| [highlight.start, highlight.end]).collect();
            Ok(FoundJson { message: message.into(), highlights })
        });
        let next_cursor = Some(&found.next_cursor).filter(|cursor| !cursor.is_empty()).cloned();
        Ok(Self { items: items.collect::<Result<_, Error>>()?, next_cursor, up_to: Time(found.up_to_ms) })
    }
}
