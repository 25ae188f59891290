//! Reads of reactions.

use std::collections::BTreeMap;

use confab_common::{Error, Result, cursor, text};

use super::changes::at_least_one;
use super::rooms::page_limit;
use super::{Reading, Service};
use crate::store::{ReactionEntry, ReactionPlace};

/// Maximum messages in one call: those of a join.
const MAX_MESSAGES: usize = 400;

impl Service {
    /// Returns a page of the reactions to a message, and the cursor of the next page, if there is one.
    ///
    /// # Errors
    /// `invalid_request` for a malformed id or cursor or a limit of 0 or above 200; `not_found` for an unknown message
    /// and for a room that is not open or hidden from the reader; when the database fails.
    pub async fn reactions(
        &self,
        reading: Reading<'_>,
        seq: u64,
        name: &str,
        limit: u32,
        after: &str,
    ) -> Result<(Vec<ReactionEntry>, Option<String>)> {
        let (room, readers) = self.reading(&reading)?;
        let limit = page_limit(at_least_one(limit)?, 0)?.events;
        let after = if after.is_empty() { ReactionPlace::default() } else { place(after)? };
        let name = Some(name.to_owned()).filter(|name| !name.is_empty());
        let (list, access) =
            self.store.reacting().reactions(room, seq, name, after, limit + 1, readers.clone()).await?;
        self.check_access(&readers, &access)?;
        if !list.exists {
            return Err(Error::not_found("message"));
        }
        let mut reactions = list.reactions;
        let more = reactions.len() > limit as usize;
        reactions.truncate(limit as usize);
        let last = reactions.last().filter(|_| more);
        let next = last.map(|last| cursor::encode(&(last.at_ms, last.user.0, &last.name)));
        Ok((reactions, next))
    }

    /// Returns the names with which the reader has reacted to messages, by their `seq`.
    ///
    /// # Errors
    /// `invalid_request` for a malformed id, no reader, or more than 400 messages; `not_found` for a room that is not
    /// open or hidden from the reader; when the database fails.
    pub async fn own_reactions(&self, reading: Reading<'_>, seqs: Vec<u64>) -> Result<BTreeMap<u64, Vec<String>>> {
        if seqs.len() > MAX_MESSAGES {
            return Err(Error::field("seqs", format!("must be at most {MAX_MESSAGES}")));
        }
        let (room, readers) = self.reading(&reading)?;
        let user = text::id("reader", reading.reader)?;
        let (names, access) = self.store.reacting().own_reactions(room, user, seqs).await?;
        self.check_access(&readers, &access)?;
        let mut own = BTreeMap::<_, Vec<_>>::new();
        names.into_iter().for_each(|(seq, name)| own.entry(seq).or_default().push(name));
        Ok(own)
    }
}

fn place(cursor: &str) -> Result<ReactionPlace> {
    let (at_ms, user, name): (_, _, String) = cursor::decode(cursor)?;
    text::no_nul("cursor", &name)?;
    Ok(ReactionPlace { at_ms, user, name })
}

#[cfg(test)]
mod tests;
