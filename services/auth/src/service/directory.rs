//! Finding users by their ids and by the beginning of their names.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use confab_common::{Error, Result, text};
use uuid::Uuid;

use super::profiles::MAX_DISPLAY_NAME;
use super::{Accounts, within_bounds};
use crate::store::{Match, MatchPosition, ShownName, Store, User};
use crate::username;

/// Maximum number of users in one request.
const MAX_IDS: usize = 200;
/// Maximum number of users in one page.
const MAX_PAGE: u32 = 200;
/// Allowed lengths of the text of a search, in characters. No name is longer.
const QUERY: RangeInclusive<usize> = 2..=MAX_DISPLAY_NAME;
/// Maximum accounts that one statement gives shown names.
const RENEW_BATCH: u32 = 500;

/// A page of a search.
pub struct FoundUsers {
    /// Each with the cursor that continues after it.
    pub users: Vec<(User, String)>,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<String>,
}

impl Accounts {
    /// Returns the active accounts with these ids, each once and in this order.
    ///
    /// # Errors
    /// `invalid_request` for more than 200 ids.
    pub async fn users(&self, ids: Vec<Uuid>) -> Result<Vec<User>> {
        if ids.len() > MAX_IDS {
            return Err(Error::field("ids", format!("must be at most {MAX_IDS} ids")));
        }
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let users = self.store.active_users(ids.clone()).await?;
        let mut users = users.into_iter().map(|user| (user.id, user)).collect::<HashMap<_, _>>();
        Ok(ids.iter().filter_map(|id| users.remove(id)).collect())
    }

    /// Returns a page of the active accounts whose username or shown name begins with a text. A user with two such
    /// names is listed by the username alone, so a page may have fewer users than the limit.
    ///
    /// # Errors
    /// `invalid_request`.
    pub async fn search_users(&self, query: &str, limit: u32, page: &str) -> Result<FoundUsers> {
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Error::field("limit", format!("must be from 1 to {MAX_PAGE}")));
        }
        let prefix = searched(query)?;
        let after = match page {
            "" => MatchPosition { name: prefix.clone(), id: Uuid::nil() },
            page => self.cursors.open(&prefix, page)?,
        };
        let Some(end) = end_of(&prefix) else { return Ok(FoundUsers { users: Vec::new(), next: None }) };
        let mut matches = self.store.matches(after, end, limit + 1).await?;
        let more = matches.len() > limit as usize;
        matches.truncate(limit as usize);
        let cursor = |found: &Match| self.cursors.seal(&prefix, &found.position());
        let next = matches.last().filter(|_| more).map(cursor).transpose()?;
        let is_listed = |found: &Match| found.by_username || !found.user.username_folded.starts_with(&prefix);
        let user = |found: Match| {
            let cursor = cursor(&found)?;
            Ok((found.user, cursor))
        };
        let users = matches.into_iter().filter(is_listed).map(user).collect::<Result<_>>()?;
        Ok(FoundUsers { users, next })
    }
}

/// Stores the shown names of accounts that a program of the version before has changed, and returns their number.
///
/// # Errors
/// Errors of the store.
pub async fn renew_names(store: &dyn Store) -> Result<u64> {
    let (mut renewed, mut after) = (0, Uuid::nil());
    loop {
        let accounts = store.outdated_names(after, RENEW_BATCH).await?;
        let Some((last, _)) = accounts.last() else { return Ok(renewed) };
        after = *last;
        let shown = |(id, name): (Uuid, Option<String>)| {
            let folded = name.as_deref().map(username::folded);
            (id, ShownName { name, folded })
        };
        renewed += store.renew_names(accounts.into_iter().map(shown).collect()).await?;
    }
}

/// Returns the form in which names are compared with the text of a search.
fn searched(query: &str) -> Result<String> {
    within_bounds(&[("q", query)])?;
    text::no_nul("q", query)?;
    if !QUERY.contains(&username::length(query)) {
        return Err(Error::field("q", format!("must be {} to {} characters", QUERY.start(), QUERY.end())));
    }
    Ok(username::folded(query))
}

/// Returns the first text, in the order of bytes, above all texts with a beginning; `None` if there is no such text.
fn end_of(prefix: &str) -> Option<String> {
    let (at, next) = prefix.char_indices().rev().find_map(|(at, last)| Some((at, (last..=char::MAX).nth(1)?)))?;
    Some(format!("{}{next}", &prefix[..at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_searches_are_bounded_and_folded() {
        for (query, folded) in [
            ("AD", "ad"),
            (" Zoe\u{308} ", "zoë"),
            ("STRASSE", "strasse"),
            ("Straße", "strasse"),
            ("ＡＤＡ", "ada"),
            ("%_", "%_"),
            ("\\'", "\\'"),
            ("Ada L", "ada l"),
            (&"x".repeat(80), &"x".repeat(80)),
        ] {
            assert_eq!(searched(query).unwrap(), folded, "{query}");
        }
        for bad in ["", "a", " a ", "e\u{301}", "a\0b", &"x".repeat(81), &"é".repeat(81), &"x ".repeat(600)] {
            assert_eq!(searched(bad).unwrap_err().fields[0].field, "q", "{bad:?}");
        }
    }

    #[test]
    fn the_end_is_above_all_texts_with_the_beginning() {
        for (prefix, end) in [
            ("ab", Some("ac")),
            ("a\u{7f}", Some("a\u{80}")),
            ("a\u{d7ff}", Some("a\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}\u{10ffff}", None),
        ] {
            assert_eq!(end_of(prefix).as_deref(), end);
            if let Some(end) = end {
                assert!(prefix < end && &*format!("{prefix}\u{10ffff}z") < end);
            }
        }
    }
}
