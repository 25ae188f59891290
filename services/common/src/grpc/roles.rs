//! Which programs may make which calls.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tonic::Status;

use super::peer::Peer;
use super::role::Role::{self, Auth, File, Gateway, Message, Room};
use crate::error::{Code, Error};
use crate::metrics::REFUSED_PEERS;

/// The programs that verify tokens and server keys. Auth calls itself.
const VERIFIERS: &[Role] = &[Gateway, Auth, Room, Message, File];

/// Every method of the contract, in alphabetical order, with the roles that may call it. A method without a row cannot
/// be called; a test in `services/all` compares the rows with the contract.
pub const CALLERS: &[(&str, &[Role])] = &[
    ("/confab.auth.v1.AuthService/ChangePassword", &[Gateway]),
    ("/confab.auth.v1.AuthService/CreateInvite", &[Gateway]),
    ("/confab.auth.v1.AuthService/CreateKey", &[Gateway]),
    ("/confab.auth.v1.AuthService/DeleteAccount", &[Gateway]),
    ("/confab.auth.v1.AuthService/DeleteKey", &[Gateway]),
    ("/confab.auth.v1.AuthService/DeleteUser", &[Gateway]),
    ("/confab.auth.v1.AuthService/EndSession", &[Gateway]),
    ("/confab.auth.v1.AuthService/EndSessions", &[Gateway]),
    ("/confab.auth.v1.AuthService/EnsureUser", &[Gateway]),
    ("/confab.auth.v1.AuthService/GetAvatar", &[Gateway]),
    ("/confab.auth.v1.AuthService/GetJwks", VERIFIERS),
    ("/confab.auth.v1.AuthService/GetKey", VERIFIERS),
    ("/confab.auth.v1.AuthService/GetUser", VERIFIERS),
    ("/confab.auth.v1.AuthService/GetUsers", &[Gateway]),
    ("/confab.auth.v1.AuthService/IssueToken", &[Gateway]),
    ("/confab.auth.v1.AuthService/ListAudit", &[Gateway]),
    ("/confab.auth.v1.AuthService/ListKeys", &[Gateway]),
    ("/confab.auth.v1.AuthService/ListRevocations", VERIFIERS),
    ("/confab.auth.v1.AuthService/ListSessions", &[Gateway]),
    ("/confab.auth.v1.AuthService/Login", &[Gateway]),
    ("/confab.auth.v1.AuthService/Logout", &[Gateway]),
    ("/confab.auth.v1.AuthService/PutUser", &[Gateway]),
    ("/confab.auth.v1.AuthService/RecordAct", &[Gateway]),
    ("/confab.auth.v1.AuthService/Refresh", &[Gateway]),
    ("/confab.auth.v1.AuthService/ResetPassword", &[Gateway]),
    ("/confab.auth.v1.AuthService/RestoreUser", &[Gateway]),
    ("/confab.auth.v1.AuthService/SearchUsers", &[Gateway]),
    ("/confab.auth.v1.AuthService/Signup", &[Gateway]),
    ("/confab.auth.v1.AuthService/SuspendUser", &[Gateway]),
    ("/confab.auth.v1.AuthService/UpdateProfile", &[Gateway]),
    ("/confab.file.v1.FileService/AttachFiles", &[Message]),
    ("/confab.file.v1.FileService/DeleteFile", &[Gateway]),
    ("/confab.file.v1.FileService/Download", &[Gateway]),
    ("/confab.file.v1.FileService/DropFiles", &[Message]),
    ("/confab.file.v1.FileService/GetFile", &[Gateway]),
    ("/confab.file.v1.FileService/ListFiles", &[Gateway]),
    ("/confab.file.v1.FileService/SignLink", &[Gateway]),
    ("/confab.file.v1.FileService/Upload", &[Gateway]),
    // The message service itself checks which kinds of events a caller may append.
    ("/confab.message.v1.MessageService/Append", &[Gateway, Room, File]),
    ("/confab.message.v1.MessageService/ForgetFiles", &[File]),
    ("/confab.message.v1.MessageService/GetHeads", &[Gateway]),
    ("/confab.message.v1.MessageService/GetRoomHeads", &[Gateway, Room, File]),
    ("/confab.message.v1.MessageService/ListChanges", &[Gateway]),
    ("/confab.message.v1.MessageService/ListEvents", &[Gateway]),
    ("/confab.message.v1.MessageService/ListMarkers", &[Gateway]),
    ("/confab.message.v1.MessageService/ListOwnReactions", &[Gateway]),
    ("/confab.message.v1.MessageService/ListPins", &[Gateway]),
    ("/confab.message.v1.MessageService/ListReactions", &[Gateway]),
    ("/confab.message.v1.MessageService/ListReceipts", &[Gateway]),
    ("/confab.message.v1.MessageService/ListVersions", &[Gateway]),
    ("/confab.message.v1.MessageService/MarkRead", &[Gateway]),
    ("/confab.message.v1.MessageService/OpenRoom", &[Room]),
    ("/confab.message.v1.MessageService/ReadEvents", &[Gateway]),
    ("/confab.message.v1.MessageService/ReadLog", &[Gateway]),
    ("/confab.message.v1.MessageService/RoomsOpened", &[Room]),
    ("/confab.message.v1.MessageService/Search", &[Gateway]),
    ("/confab.message.v1.MessageService/SetNotify", &[Gateway]),
    ("/confab.room.v1.RoomService/CheckAccess", &[Gateway, Message, File]),
    ("/confab.room.v1.RoomService/CheckRooms", &[File]),
    ("/confab.room.v1.RoomService/CreateRoom", &[Gateway]),
    ("/confab.room.v1.RoomService/DeleteRoom", &[Gateway]),
    ("/confab.room.v1.RoomService/FilterAcquaintances", &[Gateway]),
    ("/confab.room.v1.RoomService/GetRoom", &[Gateway]),
    ("/confab.room.v1.RoomService/ListMembers", &[Gateway]),
    ("/confab.room.v1.RoomService/ListOwnRooms", &[Gateway]),
    ("/confab.room.v1.RoomService/ListRooms", &[Gateway]),
    ("/confab.room.v1.RoomService/RemoveMember", &[Gateway]),
    ("/confab.room.v1.RoomService/RemoveUser", &[Auth]),
    ("/confab.room.v1.RoomService/SetMember", &[Gateway]),
    ("/confab.room.v1.RoomService/UpdateRoom", &[Gateway]),
];

/// Checks whether a caller may call the method at this path. Services outside the contract, such as reflection, accept
/// every caller with a role.
///
/// # Errors
/// PERMISSION_DENIED when the caller has none of the roles, UNIMPLEMENTED when the method is unknown.
pub(super) fn check(path: &str, peer: Peer) -> Result<(), Status> {
    match CALLERS.binary_search_by_key(&path, |row| row.0) {
        Ok(at) if CALLERS[at].1.iter().any(|role| peer.is(*role)) => Ok(()),
        Ok(_) => {
            REFUSED_PEERS.hit("role");
            Err(Error::new(Code::Forbidden, "the calling program has no role that may call this method").into())
        }
        // Callers of a newer release recognise a missing method by this code.
        Err(_) if path.starts_with("/confab.") || peer.is_stranger() => Err(Status::unimplemented("unknown method")),
        Err(_) => Ok(()),
    }
}

/// Rejects calls that their caller may not make.
pub(super) async fn enforce(request: Request, next: Next) -> Response {
    let peer = request.extensions().get().copied().unwrap_or_default();
    match check(request.uri().path(), peer) {
        Ok(()) => next.run(request).await,
        Err(status) => status.into_http(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::Roles;

    #[test]
    fn rows_are_sorted() {
        assert!(CALLERS.is_sorted_by(|a, b| a.0 < b.0), "the search needs the alphabetical order, without duplicates");
    }

    #[test]
    fn calls_need_a_role() {
        let may = |path: &str, peer: Peer| check(path, peer).map_err(|status| status.code());
        let append = "/confab.message.v1.MessageService/Append";
        let forget = "/confab.message.v1.MessageService/ForgetFiles";
        for role in Role::ALL {
            let peer = Peer::with(role);
            let (appends, forgets) = ([Gateway, Room, File].contains(&role), role == File);
            assert_eq!(may(append, peer).is_ok(), appends, "{role:?}");
            assert_eq!(may(forget, peer).is_ok(), forgets, "{role:?}");
            assert_eq!(may("/confab.message.v1.MessageService/Unknown", peer), Err(tonic::Code::Unimplemented));
            assert_eq!(may("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", peer), Ok(()));
        }
        assert_eq!(may(append, Peer::with(Roles::NONE)), Err(tonic::Code::PermissionDenied));
        assert_eq!(may(append, Peer::any()), Ok(()));
        assert_eq!(may("/other.Service/Call", Peer::default()), Err(tonic::Code::Unimplemented));
    }
}
