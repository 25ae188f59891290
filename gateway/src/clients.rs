//! The gateway's gRPC clients of the services.

use std::time::Duration;

use confab_common::grpc::{Call, MAX_MESSAGE, Services, Transport};
use confab_identity::deleted::DeletedUsers;
use confab_proto::auth::v1::auth_service_client::AuthServiceClient;
use confab_proto::file::v1::file_service_client::FileServiceClient;
use confab_proto::message::v1::message_service_client::MessageServiceClient;
use confab_proto::room::v1::room_service_client::RoomServiceClient;

/// One client for each service, in this process or another. Cheap to clone.
#[derive(Clone)]
pub struct Clients {
    pub auth: AuthServiceClient<Transport>,
    pub room: RoomServiceClient<Transport>,
    pub message: MessageServiceClient<Transport>,
    pub file: FileServiceClient<Transport>,
    /// Options of an ordinary call: it is answered within the request timeout; after 1 s without an answer it is
    /// repeated to another replica.
    pub call: Call,
    /// Options of a read-only call.
    pub read: Call,
    /// The users whose names must be hidden in answers.
    pub deleted: DeletedUsers,
}

impl Clients {
    /// Clients of these services. Their calls fail after `request_timeout`.
    pub fn new(services: Services, request_timeout: Duration) -> Self {
        let call = Call::within(request_timeout).attempt(Duration::from_secs(1));
        Self {
            auth: AuthServiceClient::new(services.auth)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            room: RoomServiceClient::new(services.room)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            message: MessageServiceClient::new(services.message)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            file: FileServiceClient::new(services.file)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            call,
            read: call.reading(),
            deleted: DeletedUsers::default(),
        }
    }
}
