//! The user or the server key that each request of the contract names, one line per request. A service receives the
//! message with [`verified`](crate::verified), which needs such a line.

use confab_proto::auth::v1 as auth;
use confab_proto::auth::v1::{Actor, UserRef};
use confab_proto::file::v1 as file;
use confab_proto::file::v1::reader::Reader::{Caller, Link, Moderator, PictureOf};
use confab_proto::message::v1 as message;
use confab_proto::room::v1 as room;
use confab_proto::server_key::Scope::{self, Audit, Keys, Messages, Rooms, Tokens, Users};

use crate::claim::{ForCaller, Named};

/// A request, the scopes of which a server key needs one, and the named user or key.
macro_rules! named {
    ($($request:ty, [$($scope:expr),*], |$message:ident| $named:expr;)*) => {$(
        impl ForCaller for $request {
            const SCOPES: &'static [Scope] = &[$($scope),*];

            fn named(&mut self) -> Named<'_> {
                let $message = self;
                $named
            }
        }
    )*};
}

named! {
    room::CreateRoomRequest, [Rooms], |it| user(&mut it.caller);
    room::ListRoomsRequest, [Rooms], |it| user(&mut it.caller);
    room::ListOwnRoomsRequest, [Rooms], |it| user(&mut it.caller);
    room::GetRoomRequest, [Rooms, Messages], |it| member(&mut it.caller, it.moderator);
    room::UpdateRoomRequest, [Rooms], |it| member(&mut it.caller, it.moderator);
    room::DeleteRoomRequest, [Rooms], |it| member(&mut it.caller, it.moderator);
    room::ListMembersRequest, [Rooms, Messages], |it| member(&mut it.caller, it.moderator);
    room::SetMemberRequest, [Rooms], |it| member(&mut it.caller, it.moderator);
    room::RemoveMemberRequest, [Rooms], |it| member(&mut it.caller, it.moderator);
    room::FilterAcquaintancesRequest, [Users], |it| Named::UserId(&it.user_id);

    file::upload_request::Begin, [Messages], |it| user(&mut it.caller);
    file::GetFileRequest, [Messages], |it| reader(&mut it.reader);
    file::DownloadRequest, [Messages], |it| reader(&mut it.reader);
    file::ListFilesRequest, [Messages], |it| reader(&mut it.reader);
    file::SignLinkRequest, [Messages], |it| reader(&mut it.reader);
    file::DeleteFileRequest, [Messages], |it| member(&mut it.caller, it.moderator);

    message::ReadEventsRequest, [Messages], |it| reading(&it.reading);
    message::ListChangesRequest, [Messages], |it| reading(&it.reading);
    message::ListVersionsRequest, [Messages], |it| reading(&it.reading);
    message::ListPinsRequest, [Messages], |it| reading(&it.reading);
    message::ListReactionsRequest, [Messages], |it| reading(&it.reading);
    message::ListOwnReactionsRequest, [Messages], |it| reading(&it.reading);
    message::ListReceiptsRequest, [Messages], |it| reading(&it.reading);
    message::ListMarkersRequest, [Rooms, Messages], |it| Named::UserId(&it.user_id);
    message::SetNotifyRequest, [Messages], |it| Named::UserId(&it.user_id);
    message::SearchRequest, [Messages], |it| if it.moderator { Named::AnyKey } else { Named::UserId(&it.reader) };

    auth::LogoutRequest, [], |it| Named::SignIn { user_id: &it.user_id, session_id: &it.session_id };
    auth::ListSessionsRequest, [], |it| Named::UserId(&it.user_id);
    auth::EndSessionRequest, [], |it| Named::UserId(&it.user_id);
    auth::EndSessionsRequest, [Users], |it| it.actor.as_ref().map_or(Named::UserId(&it.user_id), key);
    auth::ChangePasswordRequest, [], |it| Named::SignIn { user_id: &it.user_id, session_id: &it.session_id };
    auth::UpdateProfileRequest, [], |it| Named::UserId(&it.user_id);
    auth::DeleteAccountRequest, [], |it| Named::UserId(&it.user_id);
    auth::SuspendUserRequest, [Users], |it| actor(&it.actor);
    auth::RestoreUserRequest, [Users], |it| actor(&it.actor);
    auth::DeleteUserRequest, [Users], |it| actor(&it.actor);
    auth::CreateInviteRequest, [Users], |it| actor(&it.actor);
    auth::PutUserRequest, [Users], |it| actor(&it.actor);
    auth::IssueTokenRequest, [Tokens], |it| actor(&it.actor);
    auth::CreateKeyRequest, [Keys], |it| actor(&it.actor);
    auth::ListKeysRequest, [Keys], |_it| Named::AnyKey;
    auth::DeleteKeyRequest, [Keys], |it| actor(&it.actor);
    auth::RecordActRequest, [Users, Tokens, Keys, Audit, Rooms, Messages], |it| actor(&it.actor);
    auth::ListAuditRequest, [Audit], |_it| Named::AnyKey;
}

fn user(caller: &mut Option<UserRef>) -> Named<'_> {
    caller.as_mut().map_or(Named::None, Named::User)
}

/// The caller of a request that a server key can also make without a user.
fn member(caller: &mut Option<UserRef>, is_moderator: bool) -> Named<'_> {
    match (caller, is_moderator) {
        (Some(key), true) => Named::Moderator(key),
        (Some(user), false) => Named::User(user),
        (None, true) => Named::AnyKey,
        (None, false) => Named::None,
    }
}

fn reader(reader: &mut Option<file::Reader>) -> Named<'_> {
    match reader.as_mut().and_then(|reader| reader.reader.as_mut()) {
        Some(Caller(user)) => Named::User(user),
        Some(Moderator(key)) => Named::Moderator(key),
        // A link has its own signature. All callers may read a user's picture.
        Some(Link(_) | PictureOf(_)) | None => Named::None,
    }
}

fn reading(reading: &Option<message::Reading>) -> Named<'_> {
    match reading {
        Some(reading) if reading.moderator => Named::AnyKey,
        Some(reading) if !reading.reader.is_empty() => Named::UserId(&reading.reader),
        _ => Named::None,
    }
}

fn actor(actor: &Option<Actor>) -> Named<'_> {
    actor.as_ref().map_or(Named::AnyKey, key)
}

fn key(actor: &Actor) -> Named<'_> {
    Named::Key(&actor.key_id)
}
