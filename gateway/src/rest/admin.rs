//! Administration by the back end of an app, with a server key.

mod audit;
mod keys;
mod users;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::App;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().merge(keys::routes()).merge(users::routes()).merge(audit::routes())
}

#[cfg(test)]
mod tests;
