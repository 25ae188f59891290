//! Verifies the credential of each call before the service receives it.

use std::convert::Infallible;
use std::task::{Context, Poll};

use confab_common::Result;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::{Service, ServiceExt};

use crate::callers::Callers;
use crate::claim::Claim;
use crate::credential::{ACTING_FOR, Credential, KEY, USER};

/// A server that receives each call with its verified [`Claim`]. A call whose credential is not valid fails, also if the
/// method needs none.
#[derive(Clone)]
pub struct Guarded<S> {
    server: S,
    callers: Callers,
}

impl<S> Guarded<S> {
    pub fn new(server: S, callers: Callers) -> Self {
        Self { server, callers }
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (server, callers) = (self.server.clone(), self.callers.clone());
        Box::pin(async move {
            match claim(callers, request.headers_mut()).await {
                Ok(claim) => {
                    request.extensions_mut().insert(claim);
                    server.oneshot(request).await
                }
                Err(error) => Ok(Status::from(error).into_http()),
            }
        })
    }
}

async fn claim(callers: Callers, headers: &mut HeaderMap) -> Result<Claim> {
    let credential = Credential::in_metadata(headers)?;
    // The service must not log or pass on what it does not need.
    [USER, KEY, ACTING_FOR].iter().for_each(|name| _ = headers.remove(*name));
    let verified = callers.verify(&credential).await?;
    Ok(Claim::new(callers, verified))
}

#[cfg(test)]
mod tests;
