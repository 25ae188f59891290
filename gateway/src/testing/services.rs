//! Scripted services for tests.

use bytes::Bytes;
use confab_common::{Code, Error};
use confab_identity::testing::jwks;
use confab_proto::auth::v1::*;
use confab_proto::room::v1::{
    CreateRoomRequest, GetRoomRequest, ListMembersRequest, ListMembersResponse, ListOwnRoomsRequest, ListRoomsResponse,
    Member, RemoveMemberRequest, RemoveMemberResponse, Role, Room, SetMemberRequest, SetMemberResponse,
    UpdateRoomRequest, Visibility,
};
use prost::Message;

pub use crate::testing::messages::{PRIVATE, message};
use crate::testing::{identity, keys};

/// The public room.
pub const ROOM: &str = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01";
/// The user `bob`.
pub const BOB: &str = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0b0b";

/// An auth service with the account `bob`.
pub fn auth(method: &str, body: Bytes) -> Result<Vec<u8>, Error> {
    if let Some(answer) = keys::answer(method, &body) {
        return answer;
    }
    let session = |id: String, username: String| {
        let user = Some(User { id, username, ..User::default() });
        Session { token: "t".into(), user, ..Session::default() }.encode_to_vec()
    };
    match method {
        "GetJwks" => Ok(Jwks { json: jwks(&[1]) }.encode_to_vec()),
        "ListRevocations" => Ok(ListRevocationsResponse::default().encode_to_vec()),
        "Signup" => {
            SignupRequest::decode(body).map(|signup| session(signup.user_id, signup.username)).map_err(Error::internal)
        }
        "Login" => Err(Error::new(Code::InvalidCredentials, "wrong user or password")),
        "Logout" => Ok(LogoutResponse {}.encode_to_vec()),
        "GetUser" if is_bob(&GetUserRequest::decode(body.clone()).unwrap()) => {
            Ok(User { id: BOB.into(), username: "bob".into(), ..User::default() }.encode_to_vec())
        }
        "Refresh" if RefreshRequest::decode(body.clone()).unwrap().refresh_token == "cfr_good" => {
            let (refresh_token, refresh_expires_at_ms) = ("cfr_next".into(), 1000);
            let user = Some(User { username: "zoë".into(), ..User::default() });
            Ok(Session { token: "t".into(), user, refresh_token, refresh_expires_at_ms, ..Session::default() }
                .encode_to_vec())
        }
        "Refresh" => Err(Error::new(Code::Unauthorized, "the refresh token is not valid")),
        "ListSessions" => {
            let session = |id: &str| SessionInfo { id: id.into(), ..SessionInfo::default() };
            let agent = SessionInfo { user_agent: "phone".into(), address: "203.0.113.0/24".into(), ..session(OTHER) };
            let sessions = vec![session(&crate::testing::SESSION.to_string()), agent];
            Ok(ListSessionsResponse { sessions }.encode_to_vec())
        }
        "EndSession" if EndSessionRequest::decode(body.clone()).unwrap().session_id == OTHER => {
            let session_id = OTHER.into();
            let revocation = Revocation { session_id, expires_at_ms: i64::MAX, ..Revocation::default() };
            Ok(Revocations { revocations: vec![revocation] }.encode_to_vec())
        }
        "EndSession" => Err(Error::not_found("session")),
        "EndSessions" => {
            let EndSessionsRequest { user_id, except_session_id, .. } = EndSessionsRequest::decode(body).unwrap();
            Ok(Revocations { revocations: vec![cut(user_id, except_session_id)] }.encode_to_vec())
        }
        "ChangePassword" => {
            let ChangePasswordRequest { user_id, session_id, current_password, .. } =
                ChangePasswordRequest::decode(body).unwrap();
            confirmed(&current_password)?;
            Ok(Revocations { revocations: vec![cut(user_id, session_id)] }.encode_to_vec())
        }
        "ResetPassword" => Err(Error::new(Code::Forbidden, "the token is not valid")),
        "DeleteAccount" => {
            let DeleteAccountRequest { user_id, password, .. } = DeleteAccountRequest::decode(body).unwrap();
            confirmed(&password)?;
            let (number, kind) = (2, RevocationKind::Blocked.into());
            let revocations = vec![Revocation { number, kind, user_id, ..Revocation::default() }];
            Ok(Revocations { revocations }.encode_to_vec())
        }
        "UpdateProfile" => {
            let UpdateProfileRequest { user_id: id, display_name, avatar_file_id, data } =
                UpdateProfileRequest::decode(body).unwrap();
            let [display_name, avatar_file_id, data] =
                [display_name, avatar_file_id, data].map(Option::unwrap_or_default);
            Ok(User { id, username: "zoë".into(), display_name, avatar_file_id, data, ..User::default() }
                .encode_to_vec())
        }
        _ => Err(Error::not_found("user")),
    }
}

/// The only other session of the account.
pub const OTHER: &str = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c0f";

/// The revocation of all present tokens of a user, except those of one session.
fn cut(user_id: String, except_session_id: String) -> Revocation {
    let (number, kind, not_before, expires_at_ms) = (1, RevocationKind::NotBefore.into(), i64::MAX, i64::MAX);
    Revocation { number, kind, user_id, not_before, except_session_id, expires_at_ms, ..Revocation::default() }
}

fn confirmed(password: &str) -> Result<(), Error> {
    if password == "correct horse" { Ok(()) } else { Err(Error::new(Code::Forbidden, "the password is wrong")) }
}

fn is_bob(asked: &GetUserRequest) -> bool {
    asked.id == BOB || asked.username == "bob"
}

/// A room service with the rooms [`ROOM`] and [`PRIVATE`].
pub fn room(method: &str, body: Bytes) -> Result<Vec<u8>, Error> {
    let room = |id: &str, name: String| Room { id: id.into(), name, ..Room::default() };
    match method {
        "CreateRoom" => {
            let create = CreateRoomRequest::decode(body).unwrap();
            let (visibility, role) = (create.visibility, Role::Owner.into());
            Ok(Room { visibility, role, ..room(&create.id, create.name) }.encode_to_vec())
        }
        "ListRooms" => {
            Ok(ListRoomsResponse { rooms: vec![room(ROOM, "Tea".into())], next_cursor: "next".into() }.encode_to_vec())
        }
        "ListOwnRooms" => {
            let own = ListOwnRoomsRequest::decode(body).unwrap();
            let name = format!("{} {}", own.caller.unwrap().username, own.query);
            let next_cursor = own.cursor;
            Ok(ListRoomsResponse { rooms: vec![room(ROOM, name)], next_cursor }.encode_to_vec())
        }
        "GetRoom" if GetRoomRequest::decode(body.clone()).unwrap().id == ROOM => {
            Ok(room(ROOM, "Tea".into()).encode_to_vec())
        }
        "GetRoom" if GetRoomRequest::decode(body.clone()).unwrap().id == PRIVATE => {
            Ok(Room { visibility: Visibility::Private.into(), ..room(PRIVATE, "Attic".into()) }.encode_to_vec())
        }
        "UpdateRoom" => {
            let update = UpdateRoomRequest::decode(body).unwrap();
            let visibility = update.visibility.unwrap_or_default();
            Ok(Room { visibility, ..room(ROOM, update.name.unwrap_or_default()) }.encode_to_vec())
        }
        "ListMembers" | "SetMember" | "RemoveMember" => members(method, body),
        "DeleteRoom" => Err(Error::new(Code::Forbidden, "only its owner may")),
        _ => Err(Error::not_found("room")),
    }
}

/// The members of [`ROOM`]: its owner `zoë`.
fn members(method: &str, body: Bytes) -> Result<Vec<u8>, Error> {
    let in_room = |room: &str| if room == ROOM { Ok(()) } else { Err(Error::new(Code::NotFound, "hidden")) };
    let member = |user: Option<UserRef>, role: Role| Member { user, role: role.into(), joined_at_ms: 0 };
    match method {
        "ListMembers" => {
            let list = ListMembersRequest::decode(body).unwrap();
            in_room(&list.room_id)?;
            let members = vec![member(Some(identity().user), Role::Owner)];
            let next_cursor = if list.limit == 1 { "next".into() } else { list.cursor };
            Ok(ListMembersResponse { members, next_cursor }.encode_to_vec())
        }
        "SetMember" => {
            let set = SetMemberRequest::decode(body).unwrap();
            in_room(&set.room_id)?;
            let (role, user) = (set.role(), set.user.ok_or_else(|| Error::not_found("user"))?);
            let is_owner = user == identity().user;
            if is_owner && !matches!(role, Role::Owner | Role::Unspecified) {
                return Err(Error::new(Code::Conflict, "the owner has another role"));
            }
            let role = if is_owner { Role::Owner } else { Role::try_from(set.role.max(1)).unwrap() };
            let member = Some(member(Some(user), role));
            Ok(SetMemberResponse { member, created: !is_owner }.encode_to_vec())
        }
        _ => {
            let remove = RemoveMemberRequest::decode(body).unwrap();
            in_room(&remove.room_id)?;
            match &*remove.user_id {
                BOB => Ok(RemoveMemberResponse {}.encode_to_vec()),
                id if id == identity().user.id => Err(Error::new(Code::Conflict, "the owner stays")),
                _ => Err(Error::not_found("member")),
            }
        }
    }
}
