//! Converts gRPC requests to domain calls, and results back to gRPC.

use std::net::{IpAddr, Ipv4Addr};

use confab_common::{Error, text};
use confab_proto::auth::v1;
use confab_proto::auth::v1::auth_service_server::AuthService;
use tonic::{Request, Response, Status};

use crate::service::{Accounts, Session};
use crate::store::User;

type Answer<T> = Result<Response<T>, Status>;

pub struct Service(Accounts);

impl Service {
    pub(crate) fn new(accounts: Accounts) -> Self {
        Self(accounts)
    }
}

#[tonic::async_trait]
impl AuthService for Service {
    async fn signup(&self, request: Request<v1::SignupRequest>) -> Answer<v1::Session> {
        let v1::SignupRequest { user_id, username, password, client_address } = request.into_inner();
        let id = match user_id.as_str() {
            "" => None,
            id => Some(text::id("userId", id)?),
        };
        Ok(Response::new(self.0.signup(id, &username, password, address(&client_address)?).await?.into()))
    }

    async fn login(&self, request: Request<v1::LoginRequest>) -> Answer<v1::Session> {
        let v1::LoginRequest { username, password, client_address } = request.into_inner();
        Ok(Response::new(self.0.login(&username, password, address(&client_address)?).await?.into()))
    }

    async fn logout(&self, request: Request<v1::LogoutRequest>) -> Answer<v1::LogoutResponse> {
        let v1::LogoutRequest { session_id, user_id, expires_at_ms } = request.into_inner();
        let (session_id, user_id) = (text::id("sessionId", &session_id)?, text::id("userId", &user_id)?);
        self.0.logout(session_id, user_id, expires_at_ms).await?;
        Ok(Response::new(v1::LogoutResponse {}))
    }

    async fn get_user(&self, request: Request<v1::GetUserRequest>) -> Answer<v1::User> {
        // A malformed id belongs to no user.
        let id = text::id("id", &request.into_inner().id).map_err(|_| Error::not_found("user"))?;
        Ok(Response::new(self.0.user(id).await?.into()))
    }

    async fn get_jwks(&self, _: Request<v1::GetJwksRequest>) -> Answer<v1::Jwks> {
        Ok(Response::new(v1::Jwks { json: self.0.jwks().to_owned() }))
    }

    async fn list_revocations(
        &self,
        request: Request<v1::ListRevocationsRequest>,
    ) -> Answer<v1::ListRevocationsResponse> {
        let v1::ListRevocationsRequest { after, limit } = request.into_inner();
        let page = self.0.revocations(after, limit).await?;
        let revocations = page.items.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListRevocationsResponse { revocations, head: page.head }))
    }
}

/// Returns the client address in a request. All requests without an address share one.
fn address(text: &str) -> Result<IpAddr, Error> {
    match text {
        "" => Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        text => text.parse().map_err(|_| Error::field("clientAddress", "must be an IP address")),
    }
}

impl From<Session> for v1::Session {
    fn from(session: Session) -> Self {
        Self { token: session.token.text, expires_at_ms: session.token.expires_at_ms, user: Some(session.user.into()) }
    }
}

impl From<User> for v1::User {
    fn from(user: User) -> Self {
        Self { id: user.id.to_string(), username: user.username, created_at_ms: user.created_at_ms }
    }
}
