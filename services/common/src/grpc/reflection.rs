//! gRPC server reflection: whether tools may list a service's methods.

use std::convert::Infallible;

use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::Service;

/// The reflection setting of every program that serves gRPC
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Reflection {
    /// Whether tools may list the methods (gRPC server reflection)
    #[arg(long, env = "CONFAB_GRPC_REFLECTION", default_value_t = false, action = clap::ArgAction::Set, value_name = "true|false")]
    pub grpc_reflection: bool,
}

impl Reflection {
    /// Returns the routes of a service and, if enabled, of reflection for the service and the health protocol.
    /// `descriptors` is the contract, a serialised `FileDescriptorSet`; reflection does not list other services in it.
    ///
    /// # Errors
    /// When `descriptors` is malformed.
    pub fn routes<S>(self, server: S, descriptors: &'static [u8]) -> anyhow::Result<Routes>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
    {
        let routes = Routes::new(server);
        if !self.grpc_reflection {
            return Ok(routes);
        }
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(S::NAME)
            .with_service_name("grpc.health.v1.Health")
            .build_v1()?;
        Ok(routes.add_service(reflection))
    }
}
