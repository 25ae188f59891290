//! Converts gRPC requests to domain calls, and results back to gRPC.

use confab_common::{Error, text};
use confab_proto::auth::v1;
use confab_proto::auth::v1::auth_service_server::AuthService;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::client::Client;
use crate::service::{Accounts, Change, Claims, Signup};
use crate::store::Revocation;

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
        let v1::SignupRequest { user_id, username, password, client_address, user_agent, refresh, invite_code } =
            request.into_inner();
        let id = optional_id("userId", &user_id)?;
        let client = Client::parse(&client_address, &user_agent)?;
        let signup = Signup { id, username, password, invite_code, refresh, client };
        Ok(Response::new(self.0.signup(signup).await?.into()))
    }

    async fn login(&self, request: Request<v1::LoginRequest>) -> Answer<v1::Session> {
        let v1::LoginRequest { username, password, client_address, user_agent, refresh } = request.into_inner();
        let client = Client::parse(&client_address, &user_agent)?;
        Ok(Response::new(self.0.login(&username, password, refresh, &client).await?.into()))
    }

    async fn refresh(&self, request: Request<v1::RefreshRequest>) -> Answer<v1::Session> {
        let v1::RefreshRequest { refresh_token, client_address, user_agent } = request.into_inner();
        let client = Client::parse(&client_address, &user_agent)?;
        Ok(Response::new(self.0.refresh(&refresh_token, &client).await?.into()))
    }

    async fn logout(&self, request: Request<v1::LogoutRequest>) -> Answer<v1::LogoutResponse> {
        let v1::LogoutRequest { session_id, user_id, expires_at_ms } = request.into_inner();
        let (session_id, user_id) = (text::id("sessionId", &session_id)?, text::id("userId", &user_id)?);
        self.0.logout(session_id, user_id, expires_at_ms).await?;
        Ok(Response::new(v1::LogoutResponse {}))
    }

    async fn list_sessions(&self, request: Request<v1::ListSessionsRequest>) -> Answer<v1::ListSessionsResponse> {
        let user_id = text::id("userId", &request.into_inner().user_id)?;
        let sessions = self.0.sessions(user_id).await?.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListSessionsResponse { sessions }))
    }

    async fn end_session(&self, request: Request<v1::EndSessionRequest>) -> Answer<v1::Revocations> {
        let v1::EndSessionRequest { user_id, session_id } = request.into_inner();
        let user_id = text::id("userId", &user_id)?;
        // A malformed id belongs to no session.
        let session_id = text::id("sessionId", &session_id).map_err(|_| Error::not_found("session"))?;
        Ok(added([self.0.end_session(user_id, session_id).await?]))
    }

    async fn end_sessions(&self, request: Request<v1::EndSessionsRequest>) -> Answer<v1::Revocations> {
        let v1::EndSessionsRequest { user_id, except_session_id } = request.into_inner();
        let except = optional_id("exceptSessionId", &except_session_id)?;
        let ended = self.0.end_sessions(user(&user_id)?, except).await?;
        Ok(added(ended))
    }

    async fn change_password(&self, request: Request<v1::ChangePasswordRequest>) -> Answer<v1::Revocations> {
        let v1::ChangePasswordRequest { user_id, session_id, current_password, new_password, client_address } =
            request.into_inner();
        let (user_id, session_id) = (user(&user_id)?, text::id("sessionId", &session_id)?);
        let address = Client::parse(&client_address, "")?.address;
        let ended = self.0.change_password(user_id, session_id, current_password, new_password, address).await?;
        Ok(added(ended))
    }

    async fn reset_password(&self, request: Request<v1::ResetPasswordRequest>) -> Answer<v1::ResetPasswordResponse> {
        let v1::ResetPasswordRequest { token, new_password, client_address } = request.into_inner();
        let address = Client::parse(&client_address, "")?.address;
        self.0.reset_password(&token, new_password, address).await?;
        Ok(Response::new(v1::ResetPasswordResponse {}))
    }

    async fn update_profile(&self, request: Request<v1::UpdateProfileRequest>) -> Answer<v1::User> {
        let v1::UpdateProfileRequest { user_id, display_name, avatar_file_id, data } = request.into_inner();
        let change = Change { display_name, avatar_file_id, data };
        Ok(Response::new(self.0.update_profile(user(&user_id)?, change).await?.into()))
    }

    async fn delete_account(&self, request: Request<v1::DeleteAccountRequest>) -> Answer<v1::Revocations> {
        let v1::DeleteAccountRequest { user_id, password, client_address } = request.into_inner();
        let address = Client::parse(&client_address, "")?.address;
        let ended = self.0.delete_own(user(&user_id)?, password, address).await?;
        Ok(added(ended))
    }

    async fn suspend_user(&self, request: Request<v1::SuspendUserRequest>) -> Answer<v1::Revocations> {
        let ended = self.0.suspend(user(&request.into_inner().user_id)?).await?;
        Ok(added(ended))
    }

    async fn restore_user(&self, request: Request<v1::RestoreUserRequest>) -> Answer<v1::Revocations> {
        Ok(added(self.0.restore(user(&request.into_inner().user_id)?).await?))
    }

    async fn delete_user(&self, request: Request<v1::DeleteUserRequest>) -> Answer<v1::Revocations> {
        let ended = self.0.delete(user(&request.into_inner().user_id)?).await?;
        Ok(added(ended))
    }

    async fn create_invite(&self, request: Request<v1::CreateInviteRequest>) -> Answer<v1::CreateInviteResponse> {
        let v1::CreateInviteRequest { uses, expires_at_ms } = request.into_inner();
        let invite = self.0.create_invite(uses, expires_at_ms).await?;
        Ok(Response::new(v1::CreateInviteResponse { code: invite.code, expires_at_ms: invite.expires_at_ms }))
    }

    async fn ensure_user(&self, request: Request<v1::EnsureUserRequest>) -> Answer<v1::User> {
        let v1::EnsureUserRequest { user_id, issuer, name, picture } = request.into_inner();
        let ensured = self.0.ensure(text::id("userId", &user_id)?, Claims { issuer, name, picture }).await?;
        Ok(Response::new(ensured.into()))
    }

    async fn get_user(&self, request: Request<v1::GetUserRequest>) -> Answer<v1::User> {
        let v1::GetUserRequest { id, username } = request.into_inner();
        let found = match (id.as_str(), username.as_str()) {
            (id, "") => self.0.user(user(id)?).await?,
            ("", username) => self.0.user_named(username).await?,
            _ => return Err(Error::field("username", "cannot go together with id").into()),
        };
        Ok(Response::new(found.into()))
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

/// Parses the id of a user. A malformed id belongs to no user.
fn user(id: &str) -> Result<Uuid, Error> {
    text::id("userId", id).map_err(|_| Error::not_found("user"))
}

fn optional_id(field: &str, id: &str) -> Result<Option<Uuid>, Error> {
    if id.is_empty() { Ok(None) } else { text::id(field, id).map(Some) }
}

fn added(revocations: impl IntoIterator<Item = Revocation>) -> Response<v1::Revocations> {
    Response::new(v1::Revocations { revocations: revocations.into_iter().map(Into::into).collect() })
}
