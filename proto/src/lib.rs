//! The gRPC contract between the gateway, the services and whoever else calls them, generated from `confab/*/v1/*.proto`,
//! and the facts that every party to the log must know alike: a room's partition, a channel's name, an event's bounds.

pub mod channel;
pub mod limits;
pub mod partition;

/// The whole contract as a serialised `FileDescriptorSet`, comments included, for server reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("confab");

/// Accounts, tokens and their revocation.
pub mod auth {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("confab.auth.v1");
    }
}

/// Rooms and what one may do in them.
pub mod room {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("confab.room.v1");
    }
}

/// The log of events.
pub mod message {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("confab.message.v1");
    }
}

/// Files and their bytes.
pub mod file {
    /// Version 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("confab.file.v1");
    }
}
