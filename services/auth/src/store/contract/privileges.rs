//! The role of the service writes and reads the audit. Only a function deletes old entries.

use confab_common::Secret;
use confab_common::clock::now_ms;
use confab_common::config::Migrate;

use super::audit::{DAY_MS, entry};
use super::upgrade::connect;
use super::*;

#[tokio::test]
async fn service_may_only_add_to_the_audit_and_purge_old_entries() {
    let owner = database().await;
    let (server, database) = owner.expose().rsplit_once('/').unwrap();
    let (_, address) = server.rsplit_once('@').unwrap_or(server.split_once("//").unwrap());
    // Roles belong to the whole server, so the name must be unique.
    let service = Secret::from(format!("postgres://{database}:hunter2@{address}/{database}"));
    let grants = format!(
        "CREATE ROLE {database} LOGIN PASSWORD 'hunter2'; CREATE SCHEMA auth; GRANT USAGE ON SCHEMA auth TO {database};
         ALTER DEFAULT PRIVILEGES IN SCHEMA auth GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {database}"
    );
    connect(&owner).await.batch_execute(&grants).await.unwrap();
    open(&StoreUrl::Postgres(owner.clone())).await;

    let postgres = PostgresConfig { migrate: Migrate::Off, postgres_connections: AT_ONCE, ..PostgresConfig::default() };
    let storage = StorageConfig { data_dir: "unused".into(), postgres };
    let store = super::super::open(&StoreUrl::Postgres(service.clone()), &storage).await.unwrap();
    let now = now_ms();
    let [old, young] = [now - 91 * DAY_MS, now].map(|at_ms| Entry { at_ms, ..entry("act") });
    for entry in [&old, &young] {
        store.record(entry.clone()).await.unwrap();
    }
    for statement in [
        "UPDATE audit SET act = 'other'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "ALTER TABLE audit DISABLE TRIGGER audit_keeps_rows",
        "DROP FUNCTION purge_audit",
        "UPDATE refinery_schema_history SET version = 0",
        "CREATE TABLE mine (n integer)",
    ] {
        let refused = connect(&service).await.batch_execute(statement).await.unwrap_err();
        let refused = refused.as_db_error().unwrap().message().to_owned();
        let is_expected = refused.starts_with("permission denied") || refused.starts_with("must be owner");
        assert!(is_expected, "{statement}: {refused}");
    }
    assert_eq!(store.purge_audit(now - 90 * DAY_MS, 10).await.unwrap(), 1);
    assert!(store.purge_audit(now + 1, 10).await.is_err(), "the young entry is protected");
    assert_eq!(store.audit(AuditPosition::TOP, 10).await.unwrap(), [young]);
    // Accounts change as before.
    let ada = create(&store, account("ada")).await.unwrap();
    store.suspend(ada.id, Some(entry("user.suspend"))).await.unwrap();
}
