//! The gRPC contract of the services, generated from `confab/*/v1/*.proto`, and the rules that all programs must share:
//! a room's partition, the names of channels, the limits of an event, the form of server keys.

pub mod channel;
pub mod limits;
pub mod partition;
pub mod server_key;

/// The complete contract as a serialised `FileDescriptorSet`, including comments, for server reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("confab");

/// Accounts, tokens and the revocation of tokens.
pub mod auth {
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("confab.auth.v1");
    }
}

/// Rooms, and users' permissions in them.
pub mod room {
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("confab.room.v1");
    }
}

/// The log of events.
pub mod message {
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("confab.message.v1");
    }
}

/// Files and their content.
pub mod file {
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("confab.file.v1");
    }
}
