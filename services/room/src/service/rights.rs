//! Who may change a room and its members. A caller without a role is not a member.

use confab_common::{Code, Error, Result};

use crate::store::Role;

/// Checks whether the caller may change or delete the room.
///
/// # Errors
/// `forbidden` for users other than the owner and admins, and for the visibility for users other than the owner.
pub fn may_change(caller: Option<Role>, visibility: bool) -> Result<()> {
    if visibility && caller != Some(Role::Owner) {
        return Err(Error::new(Code::Forbidden, "only the room's owner may change its visibility"));
    }
    if caller.is_some_and(Role::manages) { Ok(()) } else { Err(managers_only()) }
}

/// Returns the role that a user gets, or `None` if the user keeps the present role.
///
/// # Errors
/// `forbidden` when the caller may not do this; `conflict` when the owner would give up the room.
pub fn role_to_give(
    caller: Option<Role>,
    is_caller: bool,
    present: Option<Role>,
    wanted: Option<Role>,
) -> Result<Option<Role>> {
    match (caller, wanted) {
        // The caller joins, or is a member already.
        (_, None) if is_caller => {}
        // A repeat of a change whose answer was lost: the caller passed the room on, or resigned.
        (Some(Role::Admin), Some(Role::Owner)) if present == wanted => {}
        (Some(Role::Member), Some(Role::Member)) if is_caller => {}
        (Some(Role::Owner), Some(Role::Admin | Role::Member)) if is_caller => return Err(one_owner()),
        (Some(Role::Owner), _) => {}
        (Some(Role::Admin), Some(Role::Owner)) => {
            return Err(Error::new(Code::Forbidden, "only the owner may pass the room on"));
        }
        (Some(Role::Admin), Some(_)) if present == Some(Role::Owner) => {
            return Err(Error::new(Code::Forbidden, "admins may not change the owner's role"));
        }
        (Some(Role::Admin), _) => {}
        (Some(Role::Member) | None, _) => return Err(managers_only()),
    }
    Ok(match (present, wanted) {
        (Some(_), None) => None,
        (None, None) => Some(Role::Member),
        (present, wanted) => wanted.filter(|_| wanted != present),
    })
}

/// Returns the role that a user gets from a moderator, who is no member, or `None` if the user keeps the present role.
///
/// # Errors
/// `conflict` when the room would have no owner.
pub fn role_by_moderator(present: Option<Role>, wanted: Option<Role>) -> Result<Option<Role>> {
    match (present, wanted) {
        (Some(Role::Owner), Some(Role::Admin | Role::Member)) => Err(one_owner()),
        _ => role_to_give(Some(Role::Owner), false, present, wanted),
    }
}

/// Checks whether the caller may remove a user from the room.
///
/// # Errors
/// `forbidden` when the caller may not do this; `not_found` for a user who is not a member; `conflict` for the owner.
pub fn may_remove(caller: Option<Role>, is_caller: bool, present: Option<Role>) -> Result<()> {
    if !is_caller && !caller.is_some_and(Role::manages) {
        return Err(managers_only());
    }
    match present {
        None => Err(Error::not_found("member")),
        Some(Role::Owner) => Err(one_owner()),
        Some(Role::Admin | Role::Member) => Ok(()),
    }
}

fn managers_only() -> Error {
    Error::new(Code::Forbidden, "only the room's owner and admins may do this")
}

fn one_owner() -> Error {
    Error::new(Code::Conflict, "a room has exactly one owner: pass the room on first")
}

#[cfg(test)]
mod tests {
    use super::Role::{Admin, Member, Owner};
    use super::*;

    const CALLERS: [Option<Role>; 4] = [None, Some(Member), Some(Admin), Some(Owner)];

    /// The outcome for each wanted role: none, member, admin, owner.
    fn given(caller: Option<Role>, is_caller: bool, present: Option<Role>) -> [Result<Option<Role>, Code>; 4] {
        CALLERS.map(|wanted| role_to_give(caller, is_caller, present, wanted).map_err(|error| error.code))
    }

    #[test]
    fn users_join_without_a_role() {
        let forbidden = Err(Code::Forbidden);
        assert_eq!(given(None, true, None), [Ok(Some(Member)), forbidden, forbidden, forbidden]);
    }

    #[test]
    fn own_role() {
        let (forbidden, conflict, kept) = (Err(Code::Forbidden), Err(Code::Conflict), Ok(None));
        assert_eq!(given(Some(Member), true, Some(Member)), [kept, kept, forbidden, forbidden]);
        assert_eq!(given(Some(Admin), true, Some(Admin)), [kept, Ok(Some(Member)), kept, forbidden]);
        assert_eq!(given(Some(Owner), true, Some(Owner)), [kept, conflict, conflict, kept]);
    }

    #[test]
    fn role_of_another_user() {
        let (forbidden, kept) = (Err(Code::Forbidden), Ok(None));
        for present in CALLERS {
            assert_eq!(given(None, false, present), [forbidden; 4]);
            assert_eq!(given(Some(Member), false, present), [forbidden; 4]);
        }
        let all = [Ok(Some(Member)), Ok(Some(Member)), Ok(Some(Admin)), Ok(Some(Owner))];
        assert_eq!(given(Some(Owner), false, None), all);
        assert_eq!(given(Some(Owner), false, Some(Member)), [kept, kept, Ok(Some(Admin)), Ok(Some(Owner))]);
        assert_eq!(given(Some(Owner), false, Some(Admin)), [kept, Ok(Some(Member)), kept, Ok(Some(Owner))]);
        assert_eq!(given(Some(Admin), false, None), [Ok(Some(Member)), Ok(Some(Member)), Ok(Some(Admin)), forbidden]);
        assert_eq!(given(Some(Admin), false, Some(Member)), [kept, kept, Ok(Some(Admin)), forbidden]);
        assert_eq!(given(Some(Admin), false, Some(Admin)), [kept, Ok(Some(Member)), kept, forbidden]);
        assert_eq!(given(Some(Admin), false, Some(Owner)), [kept, forbidden, forbidden, kept]);
    }

    #[test]
    fn role_by_a_moderator() {
        let given =
            |present| CALLERS.map(|wanted| role_by_moderator(present, wanted).map_err(|error: Error| error.code));
        let (kept, conflict) = (Ok(None), Err(Code::Conflict));
        assert_eq!(given(None), [Ok(Some(Member)), Ok(Some(Member)), Ok(Some(Admin)), Ok(Some(Owner))]);
        assert_eq!(given(Some(Member)), [kept, kept, Ok(Some(Admin)), Ok(Some(Owner))]);
        assert_eq!(given(Some(Owner)), [kept, conflict, conflict, kept]);
    }

    #[test]
    fn removal() {
        let removed = |caller, is_caller, present| may_remove(caller, is_caller, present).map_err(|error| error.code);
        for (role, outcome) in [(Some(Member), Ok(())), (Some(Admin), Ok(())), (Some(Owner), Err(Code::Conflict))] {
            assert_eq!(removed(role, true, role), outcome);
            for caller in [Some(Admin), Some(Owner)] {
                assert_eq!(removed(caller, false, role), outcome);
            }
            for caller in [None, Some(Member)] {
                assert_eq!(removed(caller, false, role), Err(Code::Forbidden));
            }
        }
        for (caller, is_caller) in [(None, true), (Some(Admin), false), (Some(Owner), false)] {
            assert_eq!(removed(caller, is_caller, None), Err(Code::NotFound));
        }
        assert_eq!(removed(None, false, None), Err(Code::Forbidden), "membership stays secret");
    }

    #[test]
    fn changes_of_the_room() {
        let may = |caller, visibility| may_change(caller, visibility).is_ok();
        assert_eq!(CALLERS.map(|caller| may(caller, false)), [false, false, true, true]);
        assert_eq!(CALLERS.map(|caller| may(caller, true)), [false, false, false, true]);
    }
}
