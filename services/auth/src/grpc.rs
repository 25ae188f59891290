//! Converts gRPC requests to domain calls, and results back to gRPC.

use confab_common::grpc::operation;
use confab_common::{Error, text};
use confab_identity::verified;
use confab_proto::auth::v1;
use confab_proto::auth::v1::auth_service_server::AuthService;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::client::Client;
use crate::service::{Accounts, Change, Claims, NewKey, Signup};
use crate::store::{Actor, Revocation, ServerKey};

/// Maximum length of the id of an HTTP request, in bytes.
const MAX_REQUEST_ID: usize = 128;

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
        let v1::LogoutRequest { session_id, user_id, expires_at_ms } = verified(request)?;
        let (session_id, user_id) = (text::id("sessionId", &session_id)?, text::id("userId", &user_id)?);
        self.0.logout(session_id, user_id, expires_at_ms).await?;
        Ok(Response::new(v1::LogoutResponse {}))
    }

    async fn list_sessions(&self, request: Request<v1::ListSessionsRequest>) -> Answer<v1::ListSessionsResponse> {
        let user_id = text::id("userId", &verified(request)?.user_id)?;
        let sessions = self.0.sessions(user_id).await?.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListSessionsResponse { sessions }))
    }

    async fn end_session(&self, request: Request<v1::EndSessionRequest>) -> Answer<v1::Revocations> {
        let v1::EndSessionRequest { user_id, session_id } = verified(request)?;
        let user_id = text::id("userId", &user_id)?;
        // A malformed id belongs to no session.
        let session_id = text::id("sessionId", &session_id).map_err(|_| Error::not_found("session"))?;
        Ok(added([self.0.end_session(user_id, session_id).await?]))
    }

    async fn end_sessions(&self, request: Request<v1::EndSessionsRequest>) -> Answer<v1::Revocations> {
        let v1::EndSessionsRequest { user_id, except_session_id, actor } = verified(request)?;
        let except = optional_id("exceptSessionId", &except_session_id)?;
        let ended = self.0.end_sessions(user(&user_id)?, except, optional_actor(actor)?).await?;
        Ok(added(ended))
    }

    async fn change_password(&self, request: Request<v1::ChangePasswordRequest>) -> Answer<v1::Revocations> {
        let operation = operation(&request);
        let v1::ChangePasswordRequest { user_id, session_id, current_password, new_password, client_address } =
            verified(request)?;
        let (user_id, session_id) = (user(&user_id)?, text::id("sessionId", &session_id)?);
        let address = Client::parse(&client_address, "")?.address;
        let (current, new) = (current_password, new_password);
        let ended = self.0.change_password(user_id, session_id, current, new, address, operation).await?;
        Ok(added(ended))
    }

    async fn reset_password(&self, request: Request<v1::ResetPasswordRequest>) -> Answer<v1::ResetPasswordResponse> {
        let v1::ResetPasswordRequest { token, new_password, client_address } = request.into_inner();
        let address = Client::parse(&client_address, "")?.address;
        self.0.reset_password(&token, new_password, address).await?;
        Ok(Response::new(v1::ResetPasswordResponse {}))
    }

    async fn update_profile(&self, request: Request<v1::UpdateProfileRequest>) -> Answer<v1::User> {
        let v1::UpdateProfileRequest { user_id, display_name, avatar_file_id, data } = verified(request)?;
        let change = Change { display_name, avatar_file_id, data };
        Ok(Response::new(self.0.update_profile(user(&user_id)?, change).await?.into()))
    }

    async fn delete_account(&self, request: Request<v1::DeleteAccountRequest>) -> Answer<v1::Revocations> {
        let operation = operation(&request);
        let v1::DeleteAccountRequest { user_id, password, client_address } = verified(request)?;
        let address = Client::parse(&client_address, "")?.address;
        let ended = self.0.delete_own(user(&user_id)?, password, address, operation).await?;
        Ok(added(ended))
    }

    async fn suspend_user(&self, request: Request<v1::SuspendUserRequest>) -> Answer<v1::Revocations> {
        let v1::SuspendUserRequest { user_id, actor } = verified(request)?;
        let ended = self.0.suspend(user(&user_id)?, optional_actor(actor)?).await?;
        Ok(added(ended))
    }

    async fn restore_user(&self, request: Request<v1::RestoreUserRequest>) -> Answer<v1::Revocations> {
        let v1::RestoreUserRequest { user_id, actor } = verified(request)?;
        Ok(added(self.0.restore(user(&user_id)?, optional_actor(actor)?).await?))
    }

    async fn delete_user(&self, request: Request<v1::DeleteUserRequest>) -> Answer<v1::Revocations> {
        let v1::DeleteUserRequest { user_id, actor } = verified(request)?;
        let ended = self.0.delete(user(&user_id)?, optional_actor(actor)?).await?;
        Ok(added(ended))
    }

    async fn create_invite(&self, request: Request<v1::CreateInviteRequest>) -> Answer<v1::CreateInviteResponse> {
        let v1::CreateInviteRequest { uses, expires_at_ms, actor } = verified(request)?;
        let invite = self.0.create_invite(uses, expires_at_ms, optional_actor(actor)?).await?;
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

    async fn get_users(&self, request: Request<v1::GetUsersRequest>) -> Answer<v1::GetUsersResponse> {
        let ids = request.into_inner().ids;
        let ids = ids.iter().map(|id| text::id("ids", id)).collect::<Result<Vec<_>, Error>>()?;
        let users = self.0.users(ids).await?.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::GetUsersResponse { users }))
    }

    async fn search_users(&self, request: Request<v1::SearchUsersRequest>) -> Answer<v1::SearchUsersResponse> {
        let v1::SearchUsersRequest { query, limit, cursor } = request.into_inner();
        Ok(Response::new(self.0.search_users(&query, limit, &cursor).await?.into()))
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

    async fn get_avatar(&self, request: Request<v1::GetAvatarRequest>) -> Answer<v1::User> {
        // A malformed id belongs to no picture.
        let file_id = text::id("fileId", &request.into_inner().file_id).map_err(|_| Error::not_found("picture"))?;
        Ok(Response::new(self.0.avatar_owner(file_id).await?.into()))
    }

    async fn put_user(&self, request: Request<v1::PutUserRequest>) -> Answer<v1::PutUserResponse> {
        let v1::PutUserRequest { user_id, username, display_name, data, actor: by } = verified(request)?;
        let change = Change { display_name, avatar_file_id: None, data };
        let (user, created) = self.0.put_user(text::id("userId", &user_id)?, &username, change, actor(by)?).await?;
        Ok(Response::new(v1::PutUserResponse { user: Some(user.into()), created }))
    }

    async fn issue_token(&self, request: Request<v1::IssueTokenRequest>) -> Answer<v1::Session> {
        let v1::IssueTokenRequest { user_id, ttl_s, actor: by } = verified(request)?;
        Ok(Response::new(self.0.issue_token(user(&user_id)?, ttl_s, actor(by)?).await?.into()))
    }

    async fn create_key(&self, request: Request<v1::CreateKeyRequest>) -> Answer<v1::CreateKeyResponse> {
        let v1::CreateKeyRequest { scopes, name, actor: by } = verified(request)?;
        let NewKey { key, details } = self.0.create_key(&scopes, &name, actor(by)?).await?;
        let details = Some(v1::ServerKey { sha256: Vec::new(), ..details.into() });
        Ok(Response::new(v1::CreateKeyResponse { key: key.expose().to_owned(), details }))
    }

    async fn list_keys(&self, request: Request<v1::ListKeysRequest>) -> Answer<v1::ListKeysResponse> {
        let v1::ListKeysRequest {} = verified(request)?;
        let shown = |key: ServerKey| v1::ServerKey { sha256: Vec::new(), ..key.into() };
        Ok(Response::new(v1::ListKeysResponse { keys: self.0.keys().await?.into_iter().map(shown).collect() }))
    }

    async fn get_key(&self, request: Request<v1::GetKeyRequest>) -> Answer<v1::ServerKey> {
        Ok(Response::new(self.0.key(key(&request.into_inner().id)?).await?.into()))
    }

    async fn delete_key(&self, request: Request<v1::DeleteKeyRequest>) -> Answer<v1::DeleteKeyResponse> {
        let operation = operation(&request);
        let v1::DeleteKeyRequest { id, actor: by } = verified(request)?;
        self.0.delete_key(key(&id)?, actor(by)?, operation).await?;
        Ok(Response::new(v1::DeleteKeyResponse {}))
    }

    async fn record_act(&self, request: Request<v1::RecordActRequest>) -> Answer<v1::RecordActResponse> {
        let v1::RecordActRequest { id, actor: by, act, object, details } = verified(request)?;
        self.0.record(text::id("id", &id)?, actor(by)?, act, object, details).await?;
        Ok(Response::new(v1::RecordActResponse {}))
    }

    async fn list_audit(&self, request: Request<v1::ListAuditRequest>) -> Answer<v1::ListAuditResponse> {
        let v1::ListAuditRequest { limit, cursor } = verified(request)?;
        let page = self.0.audit(limit, &cursor).await?;
        let entries = page.entries.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListAuditResponse { entries, next_cursor: page.next.unwrap_or_default() }))
    }
}

/// Parses the id of a user. A malformed id belongs to no user.
fn user(id: &str) -> Result<Uuid, Error> {
    text::id("userId", id).map_err(|_| Error::not_found("user"))
}

/// Parses the id of a key. A malformed id belongs to no key.
fn key(id: &str) -> Result<Uuid, Error> {
    text::id("id", id).map_err(|_| Error::not_found("key"))
}

fn actor(actor: Option<v1::Actor>) -> Result<Actor, Error> {
    optional_actor(actor)?.ok_or_else(|| Error::field("actor", "must be given"))
}

fn optional_actor(actor: Option<v1::Actor>) -> Result<Option<Actor>, Error> {
    let Some(v1::Actor { key_id, request_id }) = actor else { return Ok(None) };
    text::no_nul("actor.requestId", &request_id)?;
    if request_id.len() > MAX_REQUEST_ID {
        return Err(Error::field("actor.requestId", format!("must be at most {MAX_REQUEST_ID} bytes")));
    }
    Ok(Some(Actor { key_id: Some(text::id("actor.keyId", &key_id)?), request_id }))
}

fn optional_id(field: &str, id: &str) -> Result<Option<Uuid>, Error> {
    if id.is_empty() { Ok(None) } else { text::id(field, id).map(Some) }
}

fn added(revocations: impl IntoIterator<Item = Revocation>) -> Response<v1::Revocations> {
    Response::new(v1::Revocations { revocations: revocations.into_iter().map(Into::into).collect() })
}
