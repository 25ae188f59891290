//! Users who share a room.

use confab_common::{Error, Result};
use uuid::Uuid;

use super::Rooms;

/// Maximum number of users in one request.
const MAX_OTHERS: usize = 200;

impl Rooms {
    /// Returns those of `others` who are members of a room of which `user` is a member.
    ///
    /// # Errors
    /// `invalid_request` for more than 200 users.
    pub async fn acquaintances(&self, user: Uuid, mut others: Vec<Uuid>) -> Result<Vec<Uuid>> {
        if others.len() > MAX_OTHERS {
            return Err(Error::field("otherIds", format!("must be at most {MAX_OTHERS} ids")));
        }
        others.sort_unstable();
        others.dedup();
        if others.is_empty() { Ok(Vec::new()) } else { self.store.acquaintances(user, others).await }
    }
}
