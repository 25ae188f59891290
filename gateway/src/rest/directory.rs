//! The directory of users: finding users, and their profiles.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use confab_common::{Code, Error, Result, text};
use confab_proto::auth::v1::{AccountState, GetUserRequest, GetUsersRequest, SearchUsersRequest, User};
use confab_proto::room::v1::FilterAcquaintancesRequest;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Deadline;
use super::extract::{Actor, Params, Turns, needs_user};
use super::openapi::problems::{ByKey, Called, Unauthorized};
use super::openapi::{examples, params};
use super::users::UserPath;
use crate::App;
use crate::config::UserDirectory;
use crate::limits::{Act, RequestLimits};
use crate::problem::Problem;
use crate::views::{Page, ProfileJson};

/// Most ids in one request.
const MAX_IDS: usize = 100;
/// How many users the auth service finds at once for a reader who may not see all of them.
const CANDIDATES: u32 = 200;
/// Most calls of the auth service for one page. A page that is not full then ends with a cursor.
const ROUNDS: usize = 5;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(show))
}

/// Find users
///
/// With `q`, lists the users whose username or display name begins with this text, in the order of these names. A page
/// may have fewer users than `limit`, also none, although another page follows: read on until `nextCursor` is null. With
/// `ids`, returns these users in one page, in the order of the ids; ids of other users are left out. Suspended and
/// deleted users are not found. If the server has the setting `CONFAB_USER_DIRECTORY=shared`, users find themselves and
/// the users who are members of a room of which they are members, too.
#[utoipa::path(
    get,
    path = "/api/users",
    operation_id = "list_users",
    tag = "Users",
    params(params::UserSearch, params::UserIds, params::Limit, params::Cursor),
    responses(
        (status = 200, description = "A page of users", body = Page<ProfileJson>, example = json!(examples::profiles())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn list(
    State(app): State<Arc<App>>,
    actor: Actor,
    limits: RequestLimits,
    params: Params,
    turns: Turns,
) -> Result<Response, Problem> {
    let deadline = Deadline::of(&app);
    let wanted = Wanted::of(&params)?;
    charge(&limits, &actor).await?;
    let _turn = turns.next().await?;
    let directory = Directory { app: &app, deadline: &deadline, actor: &actor };
    let (users, next_cursor) = match wanted {
        Wanted::Ids(ids) => (directory.with_ids(ids).await?, None),
        Wanted::Search { query, limit, cursor } => directory.search(query, limit, cursor).await?,
    };
    let items = users.iter().map(ProfileJson::from).collect();
    Ok(Answer(Page { items, next_cursor }).into_response())
}

/// Show a user
///
/// Returns the profile of a user. The response is 404 for an unknown, suspended or deleted user, and for a user that the
/// caller does not find because of `CONFAB_USER_DIRECTORY=shared`.
#[utoipa::path(
    get,
    path = "/api/users/{userId}",
    operation_id = "show_user",
    tag = "Users",
    params(params::User),
    responses(
        (status = 200, description = "The user", body = ProfileJson, example = json!(examples::profile())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn show(
    State(app): State<Arc<App>>,
    actor: Actor,
    limits: RequestLimits,
    path: UserPath,
) -> Result<Response, Problem> {
    let deadline = Deadline::of(&app);
    let ask = match path {
        UserPath::Me => actor.user().map(|me| by_id(me.user.id.clone())).ok_or_else(needs_user).map(Some)?,
        UserPath::Id(id) => Some(by_id(id.to_string())),
        UserPath::Name(username) => Some(GetUserRequest { username, ..GetUserRequest::default() }),
        UserPath::Unknown => None,
    };
    charge(&limits, &actor).await?;
    let user = Directory { app: &app, deadline: &deadline, actor: &actor }.find(ask).await?;
    let user = user.ok_or_else(|| Error::not_found("user"))?;
    Ok(Answer(ProfileJson::from(&user)).into_response())
}

/// Counts a look-up of users by a user. Server keys without a user are not limited.
///
/// # Errors
/// `rate_limited` when the user has looked up too many.
async fn charge(limits: &RequestLimits, actor: &Actor) -> Result<()> {
    match actor.user() {
        Some(user) => limits.check(Act::UserDirectory, user.user_id).await,
        None => Ok(()),
    }
}

fn by_id(id: String) -> GetUserRequest {
    GetUserRequest { id, ..GetUserRequest::default() }
}

/// The users in a request for a list.
enum Wanted<'a> {
    Ids(Vec<String>),
    Search { query: &'a str, limit: u32, cursor: String },
}

impl<'a> Wanted<'a> {
    fn of(params: &'a Params) -> Result<Self> {
        match (params.text("ids"), params.text("q")) {
            (Some(ids), None) => ids_in(ids).map(Self::Ids),
            (None, Some(query)) => Ok(Self::Search { query, limit: params.limit()?, cursor: params.cursor()? }),
            (Some(_), Some(_)) => Err(Error::field("ids", "cannot be combined with q")),
            (None, None) => Err(Error::field("q", "must be given, unless ids is given")),
        }
    }
}

/// The ids in the parameter `ids`.
fn ids_in(list: &str) -> Result<Vec<String>> {
    let wrong = || Error::field("ids", format!("must be 1 to {MAX_IDS} ids of users, separated by commas"));
    let ids = list.split(',').take(MAX_IDS + 1).map(|id| text::id("ids", id).map(|id| id.to_string()));
    let ids = ids.collect::<Result<Vec<_>>>().map_err(|_| wrong())?;
    if ids.len() > MAX_IDS { Err(wrong()) } else { Ok(ids) }
}

/// The users that the actor finds.
struct Directory<'a> {
    app: &'a App,
    deadline: &'a Deadline,
    actor: &'a Actor,
}

impl Directory<'_> {
    /// The user whose directory is limited to the users of common rooms; `None` if the actor finds all users.
    fn limited_to(&self) -> Option<&str> {
        let user = self.actor.user().filter(|_| self.app.directory == UserDirectory::Shared);
        user.map(|user| user.user.id.as_str())
    }

    /// One active user. Makes the same calls for a hidden user as for an unknown one.
    async fn find(&self, ask: Option<GetUserRequest>) -> Result<Option<User>> {
        let found = match ask {
            Some(ask) => self.app.clients.auth.clone().get_user(self.deadline.reading(ask)).await.map_err(Error::from),
            None => Err(Error::not_found("user")),
        };
        let found = match found {
            Ok(user) => Some(user.into_inner()),
            Err(error) if error.code == Code::NotFound => None,
            Err(error) => return Err(error),
        };
        let is_active = |user: &User| matches!(user.state(), AccountState::Active | AccountState::Unspecified);
        let found = found.filter(is_active);
        let asked = found.as_ref().map(|user| user.id.clone());
        let asked = asked.or_else(|| self.limited_to().map(str::to_owned));
        let visible = self.visible(asked.into_iter().collect()).await?;
        Ok(found.filter(|user| visible.contains(&user.id)))
    }

    /// The active users with these ids, in this order.
    async fn with_ids(&self, ids: Vec<String>) -> Result<Vec<User>> {
        let get = self.deadline.reading(GetUsersRequest { ids: ids.clone() });
        let get = async { Ok::<_, Error>(self.app.clients.auth.clone().get_users(get).await?.into_inner().users) };
        let (mut users, visible) = tokio::try_join!(get, self.visible(ids))?;
        users.retain(|user| visible.contains(&user.id));
        Ok(users)
    }

    /// A page of the active users with a name that begins with a text, and the cursor of the next page.
    async fn search(&self, query: &str, limit: u32, mut cursor: String) -> Result<(Vec<User>, Option<String>)> {
        let most = if self.limited_to().is_some() { CANDIDATES } else { limit };
        let mut users = Vec::new();
        for _ in 0..ROUNDS {
            let search = SearchUsersRequest { query: query.to_owned(), limit: most, cursor: cursor.clone() };
            let search = self.deadline.reading(search);
            let page = self.app.clients.auth.clone().search_users(search).await?.into_inner();
            let found = page.users.into_iter().filter_map(|found| Some((found.user?, found.cursor)));
            let found = found.collect::<Vec<_>>();
            let visible = self.visible(found.iter().map(|(user, _)| user.id.clone()).collect()).await?;
            for (user, after) in found {
                if !visible.contains(&user.id) {
                    continue;
                }
                if users.len() == limit as usize {
                    // The page is full, and another visible user follows.
                    return Ok((users, Some(cursor)));
                }
                users.push(user);
                cursor = after;
            }
            cursor = page.next_cursor;
            if cursor.is_empty() || users.len() == limit as usize {
                break;
            }
        }
        Ok((users, Some(cursor).filter(|cursor| !cursor.is_empty())))
    }

    /// Those of these users that the actor may find, if they exist.
    async fn visible(&self, ids: Vec<String>) -> Result<HashSet<String>> {
        let Some(me) = self.limited_to().filter(|_| !ids.is_empty()) else { return Ok(ids.into_iter().collect()) };
        let filter = FilterAcquaintancesRequest { user_id: me.to_owned(), other_ids: ids };
        let filter = self.actor.credential().attach(self.deadline.reading(filter));
        let shared = self.app.clients.room.clone().filter_acquaintances(filter).await?.into_inner().other_ids;
        Ok(shared.into_iter().chain([me.to_owned()]).collect())
    }
}

#[cfg(test)]
mod tests;
