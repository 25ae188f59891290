//! Server keys, which an operator creates with a program on the server.

use std::time::Duration;

use crate::api::Account;
use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::embedded::Embedded;
use crate::plan::Role;

/// All scopes.
pub const ALL: &str = "users,tokens,keys,audit,rooms,messages";

/// Time limit for a graceful shutdown.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// Creates a key of a cluster with these scopes, separated by commas.
///
/// # Errors
/// When the program fails.
pub async fn of_cluster(cluster: &Cluster, scopes: &str) -> anyhow::Result<Account> {
    create(&cluster.daemon((Role::Auth, 1))?, scopes).await
}

/// Creates a key of an embedded server, which is stopped meanwhile.
///
/// # Errors
/// When the server does not stop or start, or the program fails.
pub async fn of_embedded(server: &Embedded, scopes: &str) -> anyhow::Result<Account> {
    server.daemon().leave(SHUTDOWN_LIMIT).await?;
    let key = create(server.daemon(), scopes).await?;
    server.up().await?;
    Ok(key)
}

async fn create(daemon: &Daemon, scopes: &str) -> anyhow::Result<Account> {
    let printed = daemon.output(&["key", "create", "--scopes", scopes, "--name", "test"]).await?;
    Ok(holder(printed.trim()))
}

/// Returns the key in the form of an account, to be sent as its token.
pub fn holder(key: &str) -> Account {
    Account { id: String::new(), username: "system".into(), token: key.into() }
}
