//! Extractors of the actor.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use confab_common::{Code, Error, Result};
use confab_identity::tokens::{Identity, bearer, is_bearer};
use confab_proto::server_key::PREFIX;

use super::actor::{Actor, CONFAB_USER, Key, unauthorized};
use super::server_key::actor_of_key;
use crate::App;
use crate::edge;
use crate::problem::Problem;

impl FromRequestParts<Arc<App>> for Actor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        identify(parts, app).await?.ok_or_else(|| Problem(unauthorized("a bearer token is needed")))
    }
}

/// The authenticated user. Anonymous requests are rejected with `unauthorized`, server keys without a user with
/// `invalid_request`.
pub(in crate::rest) struct Caller(pub Identity);

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        Ok(Self(Actor::from_request_parts(parts, app).await?.into_user()?))
    }
}

/// The actor of a read. `None` is an anonymous caller, if the setting allows anonymous reads. An invalid token is
/// rejected in any case.
pub(in crate::rest) struct Reader(pub Option<Actor>);

impl FromRequestParts<Arc<App>> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        match identify(parts, app).await? {
            None if !app.config.anonymous_read => Err(Problem(unauthorized("a bearer token is needed"))),
            actor => Ok(Self(actor)),
        }
    }
}

/// A server key on a route of administration. Users are rejected with `forbidden`, also those on whose behalf a key
/// acts.
pub(in crate::rest) struct Admin(pub Key);

impl FromRequestParts<Arc<App>> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        match identify(parts, app).await? {
            Some(Actor::Key(key)) => Ok(Self(key)),
            Some(_) => Err(Problem(Error::new(Code::Forbidden, "only server keys without Confab-User may do this"))),
            None => Err(Problem(unauthorized("a server key is needed"))),
        }
    }
}

pub(in crate::rest) async fn identify(parts: &mut Parts, app: &Arc<App>) -> Result<Option<Actor>> {
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let Some(header) = headers.next() else { return Ok(None) };
    let token = bearer(header)
        .filter(|_| headers.next().is_none())
        .ok_or_else(|| unauthorized("Authorization must be one bearer token"))?;
    if is_bearer(token.as_bytes()) {
        return Err(unauthorized("Authorization contains Bearer twice; send the token without the prefix"));
    }
    let actor = if token.starts_with(PREFIX) {
        let key = token.to_owned();
        actor_of_key(parts, app, &key).await?
    } else {
        let identity = app.tokens.verify(token).await?;
        if parts.headers.contains_key(CONFAB_USER) {
            return Err(Error::field(CONFAB_USER, "can be sent only with a server key"));
        }
        Actor::User(identity)
    };
    if let Some(context) = parts.extensions.get::<edge::Context>() {
        context.called_by(actor.id());
    }
    Ok(Some(actor))
}
