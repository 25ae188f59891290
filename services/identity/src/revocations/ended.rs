//! The revoked tokens, as plain data.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use confab_common::tables;
use confab_proto::auth::v1::{Revocation, RevocationKind};
use uuid::Uuid;

use crate::sign_in::SignIn;

/// How long a revocation is kept after its tokens' expiry, in ms: the leeway for clocks accepts tokens a few seconds
/// longer.
const REMEMBER_MS: i64 = 60_000;

/// Why a token is revoked, which is also the code of `sessionEnded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its session was revoked.
    LoggedOut,
    /// Tokens of its user were revoked.
    Revoked,
}

impl Cause {
    pub fn code(self) -> &'static str {
        match self {
            Self::LoggedOut => "logged_out",
            Self::Revoked => "revoked",
        }
    }
}

/// Why all tokens of a user are rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    Suspended,
    Deleted,
}

/// The tokens that a new revocation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// Those of a session.
    Session(Uuid),
    /// Some of those of a user; [`Ended::cause`] decides.
    User(Uuid),
}

/// The effect of an entry of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The entry revokes tokens that were valid.
    News(Revoked),
    /// The entry revokes no further token.
    Known,
    /// A service of the previous version has returned the entry without its user. Another replica must return it.
    Incomplete,
    Malformed,
}

/// All revoked tokens. Entries may arrive in any order, so the highest number about a user counts.
#[derive(Default)]
pub struct Ended {
    /// The expiry of each revoked session's last token, in ms since the Unix epoch.
    sessions: HashMap<Uuid, i64>,
    /// Users whose earlier tokens are revoked.
    cuts: HashMap<Uuid, Cut>,
    /// Users who are, or were, suspended or deleted.
    blocks: HashMap<Uuid, BlockEntry>,
}

struct Cut {
    number: u64,
    /// In seconds since the Unix epoch.
    not_before: i64,
    /// The session whose tokens stay valid.
    except: Option<Uuid>,
    expires_at_ms: i64,
}

struct BlockEntry {
    number: u64,
    /// `None` after the end of a suspension.
    block: Option<Block>,
    expires_at_ms: i64,
}

impl Ended {
    /// Returns why a token of this user is revoked, or `None` when it is not.
    pub fn cause(&self, user_id: Uuid, sign_in: SignIn) -> Option<Cause> {
        if self.sessions.contains_key(&sign_in.session_id) {
            return Some(Cause::LoggedOut);
        }
        let is_cut = |cut: &Cut| sign_in.issued_at < cut.not_before && cut.except != Some(sign_in.session_id);
        let is_revoked = self.block(user_id).is_some() || self.cuts.get(&user_id).is_some_and(is_cut);
        is_revoked.then_some(Cause::Revoked)
    }

    /// Returns why all tokens of this user are rejected, or `None` when they are not.
    pub fn block(&self, user_id: Uuid) -> Option<Block> {
        self.blocks.get(&user_id)?.block
    }

    /// Adds an entry of the list.
    pub fn take(&mut self, revocation: &Revocation) -> Taken {
        match revocation.kind() {
            RevocationKind::Unspecified => match revocation.session_id.parse::<Uuid>() {
                Ok(id) if id.get_version_num() == 8 => Taken::Incomplete,
                Ok(id) => self.end_session(id, revocation.expires_at_ms),
                Err(_) => Taken::Malformed,
            },
            kind => match revocation.user_id.parse() {
                Ok(user_id) => self.of_user(user_id, kind, revocation),
                Err(_) => Taken::Malformed,
            },
        }
    }

    /// Adds the revocation of a session, whose last token expires at this time in ms since the Unix epoch.
    pub fn end_session(&mut self, session_id: Uuid, expires_at_ms: i64) -> Taken {
        match self.sessions.entry(session_id) {
            Entry::Vacant(entry) => {
                entry.insert(expires_at_ms);
                Taken::News(Revoked::Session(session_id))
            }
            // The tokens of a session expire at different times.
            Entry::Occupied(mut entry) => {
                *entry.get_mut() = expires_at_ms.max(*entry.get());
                Taken::Known
            }
        }
    }

    fn of_user(&mut self, user_id: Uuid, kind: RevocationKind, revocation: &Revocation) -> Taken {
        let Revocation { number, not_before, expires_at_ms, deleted, .. } = *revocation;
        if kind == RevocationKind::NotBefore {
            if self.cuts.get(&user_id).is_some_and(|cut| cut.number >= number) {
                return Taken::Known;
            }
            let except = revocation.except_session_id.parse().ok();
            self.cuts.insert(user_id, Cut { number, not_before, except, expires_at_ms });
            return Taken::News(Revoked::User(user_id));
        }
        if let Some(known) = self.blocks.get_mut(&user_id).filter(|block| block.number >= number) {
            // A replica of the previous version does not say that the account is deleted.
            if deleted && known.number == number && known.block.is_some() {
                known.block = Some(Block::Deleted);
            }
            return Taken::Known;
        }
        let cause = if deleted { Block::Deleted } else { Block::Suspended };
        let block = Some(cause).filter(|_| kind == RevocationKind::Blocked);
        self.blocks.insert(user_id, BlockEntry { number, block, expires_at_ms });
        if block.is_some() { Taken::News(Revoked::User(user_id)) } else { Taken::Known }
    }

    /// Forgets the numbers, because auth assigns them again after a restore. What is revoked stays so until an entry of
    /// the restored list replaces it.
    pub fn renumber(&mut self) {
        self.cuts.values_mut().for_each(|cut| cut.number = 0);
        self.blocks.values_mut().for_each(|block| block.number = 0);
    }

    /// Removes the revocations of tokens that have expired. Blocks stay.
    pub fn purge(&mut self, now_ms: i64) {
        let lasts = |expires_at_ms: i64| expires_at_ms.saturating_add(REMEMBER_MS) > now_ms;
        self.sessions.retain(|_, expires_at_ms| lasts(*expires_at_ms));
        tables::shrink(&mut self.sessions);
        self.cuts.retain(|_, cut| lasts(cut.expires_at_ms));
        tables::shrink(&mut self.cuts);
        self.blocks.retain(|_, entry| entry.block.is_some() || lasts(entry.expires_at_ms));
        tables::shrink(&mut self.blocks);
    }

    /// The number of revoked sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// The number of users whose earlier tokens are revoked.
    pub fn cuts(&self) -> usize {
        self.cuts.len()
    }

    /// The number of users whose tokens are all revoked.
    pub fn blocked(&self) -> usize {
        self.blocks.values().filter(|entry| entry.block.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: Uuid = Uuid::from_u128(1);
    const EVE: Uuid = Uuid::from_u128(2);

    fn entry(number: u64, kind: RevocationKind) -> Revocation {
        let user_id = ADA.to_string();
        Revocation { number, kind: kind.into(), user_id, expires_at_ms: 5000, ..Revocation::default() }
    }

    fn cut(number: u64, not_before: i64, except: Option<Uuid>) -> Revocation {
        let except_session_id = except.map(|id| id.to_string()).unwrap_or_default();
        Revocation { not_before, except_session_id, ..entry(number, RevocationKind::NotBefore) }
    }

    fn sign_in(session: u128, issued_at: i64) -> SignIn {
        SignIn { session_id: Uuid::from_u128(session), issued_at, expires_at: i64::MAX }
    }

    #[test]
    fn a_cut_ends_earlier_tokens_except_those_of_one_session() {
        let mut ended = Ended::default();
        assert_eq!(ended.take(&cut(3, 100, Some(Uuid::from_u128(7)))), Taken::News(Revoked::User(ADA)));
        assert_eq!(ended.take(&cut(3, 100, None)), Taken::Known);
        assert_eq!(ended.cause(ADA, sign_in(8, 99)), Some(Cause::Revoked));
        assert_eq!(ended.cause(ADA, sign_in(8, 100)), None, "issued in the second of the cut");
        assert_eq!(ended.cause(ADA, sign_in(7, 1)), None, "the session that stays");
        assert_eq!(ended.cause(EVE, sign_in(8, 1)), None, "of another user");
        assert_eq!(ended.take(&cut(2, 500, None)), Taken::Known, "an earlier entry that arrives late");
        assert_eq!(ended.cause(ADA, sign_in(8, 100)), None);
        assert_eq!(ended.take(&cut(4, 200, None)), Taken::News(Revoked::User(ADA)));
        assert_eq!(ended.cause(ADA, sign_in(7, 199)), Some(Cause::Revoked));
    }

    #[test]
    fn a_block_lasts_until_it_is_ended() {
        let mut ended = Ended::default();
        assert_eq!(ended.take(&entry(5, RevocationKind::Unblocked)), Taken::Known);
        assert_eq!(ended.take(&entry(4, RevocationKind::Blocked)), Taken::Known, "it was ended before it arrived");
        assert_eq!(ended.cause(ADA, sign_in(1, i64::MAX)), None);
        assert_eq!(ended.take(&entry(6, RevocationKind::Blocked)), Taken::News(Revoked::User(ADA)));
        assert_eq!(ended.cause(ADA, sign_in(1, i64::MAX)), Some(Cause::Revoked), "whatever the time of issue");
        ended.purge(i64::MAX);
        assert_eq!((ended.cause(ADA, sign_in(1, 0)), ended.blocked()), (Some(Cause::Revoked), 1));
        assert_eq!(ended.take(&entry(7, RevocationKind::Unblocked)), Taken::Known);
        assert_eq!(ended.cause(ADA, sign_in(1, 0)), None);
    }

    #[test]
    fn a_block_has_a_reason() {
        let mut ended = Ended::default();
        assert_eq!(ended.block(ADA), None);
        ended.take(&entry(1, RevocationKind::Blocked));
        assert_eq!(ended.block(ADA), Some(Block::Suspended));
        ended.take(&entry(2, RevocationKind::Unblocked));
        assert_eq!(ended.block(ADA), None);
        ended.take(&Revocation { deleted: true, ..entry(3, RevocationKind::Blocked) });
        assert_eq!((ended.block(ADA), ended.block(EVE)), (Some(Block::Deleted), None));
        ended.take(&Revocation { user_id: EVE.to_string(), ..entry(4, RevocationKind::Blocked) });
        let complete = Revocation { user_id: EVE.to_string(), deleted: true, ..entry(4, RevocationKind::Blocked) };
        assert_eq!((ended.take(&complete), ended.block(EVE)), (Taken::Known, Some(Block::Deleted)));
    }

    #[test]
    fn a_session_ends_by_itself() {
        let mut ended = Ended::default();
        let session = |id: Uuid| Revocation { session_id: id.to_string(), ..Revocation::default() };
        let id = Uuid::from_u128(9);
        assert_eq!(ended.take(&session(id)), Taken::News(Revoked::Session(id)));
        assert_eq!(ended.take(&session(id)), Taken::Known);
        assert_eq!(ended.cause(EVE, sign_in(9, i64::MAX)), Some(Cause::LoggedOut));
        // As a replica of the previous version returns an entry about a user.
        let marker = uuid::Builder::from_custom_bytes([7; 16]).into_uuid();
        assert_eq!(ended.take(&session(marker)), Taken::Incomplete);
        for bad in ["", "s1"] {
            assert_eq!(ended.take(&Revocation { session_id: bad.into(), ..Revocation::default() }), Taken::Malformed);
            let of_user = Revocation { user_id: bad.into(), ..entry(1, RevocationKind::Blocked) };
            assert_eq!(ended.take(&of_user), Taken::Malformed);
        }
        assert_eq!((ended.sessions(), ended.cuts(), ended.blocked()), (1, 0, 0));
    }

    #[test]
    fn after_a_restore_lower_numbers_count() {
        let mut ended = Ended::default();
        ended.take(&entry(9, RevocationKind::Blocked));
        ended.take(&cut(8, 100, None));
        ended.renumber();
        assert_eq!(ended.cause(ADA, sign_in(1, 99)), Some(Cause::Revoked));
        assert_eq!(ended.take(&entry(2, RevocationKind::Unblocked)), Taken::Known);
        assert_eq!((ended.cause(ADA, sign_in(1, 100)), ended.cause(ADA, sign_in(1, 99))), (None, Some(Cause::Revoked)));
        assert_eq!(ended.take(&cut(3, 50, None)), Taken::News(Revoked::User(ADA)));
        assert_eq!(ended.cause(ADA, sign_in(1, 99)), None);
    }

    #[test]
    fn expired_revocations_are_purged() {
        let mut ended = Ended::default();
        ended.end_session(Uuid::from_u128(9), 5000);
        ended.take(&cut(1, 100, None));
        ended.take(&entry(2, RevocationKind::Unblocked));
        ended.purge(5000 + REMEMBER_MS - 1);
        assert_eq!((ended.sessions(), ended.cuts(), ended.blocks.len()), (1, 1, 1));
        ended.purge(5000 + REMEMBER_MS);
        assert_eq!((ended.sessions(), ended.cuts(), ended.blocks.len()), (0, 0, 0));
    }
}
