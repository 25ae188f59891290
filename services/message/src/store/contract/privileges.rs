//! What the role of the service may do with the tables of the log, after each way in which a database comes into being.

use refinery::Target;

use super::changes::{append_one, change, edit};
use super::files::{file, shared};
use super::*;
use crate::store::postgres::migrations;

/// The release before this migration restricts nothing.
const BEFORE: i32 = 5;

/// A database whose owner migrates, and a role of the service with the default privileges of `deploy/postgres/roles.sql`.
struct Roles {
    owner: Secret,
    service: Secret,
    name: String,
    client: tokio_postgres::Client,
}

impl Roles {
    async fn new() -> Self {
        let owner = testing::database().await;
        let client = connect(&owner).await;
        let (server, database) = owner.expose().rsplit_once('/').unwrap();
        let (_, address) = server.rsplit_once('@').unwrap_or(server.split_once("//").unwrap());
        // Roles belong to the whole server, so the name must be unique.
        let name = database.to_owned();
        let service = Secret::from(format!("postgres://{name}:hunter2@{address}/{database}"));
        let grants = format!(
            "CREATE ROLE {name} LOGIN PASSWORD 'hunter2'; CREATE SCHEMA message; GRANT USAGE ON SCHEMA message TO {name};
             ALTER DEFAULT PRIVILEGES IN SCHEMA message GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {name}"
        );
        client.batch_execute(&grants).await.unwrap();
        Self { owner, service, name, client }
    }

    async fn migrate(&self) {
        Postgres::open(&self.owner, &PostgresConfig { postgres_connections: 4, ..PostgresConfig::default() })
            .await
            .unwrap();
    }

    /// Returns the privileges of the service on the tables and functions of the log.
    async fn held(&self) -> Vec<String> {
        let held = "SELECT c.relname || ' ' || string_agg(a.privilege_type, ',' ORDER BY a.privilege_type)
            FROM pg_class c, aclexplode(c.relacl) a
            WHERE c.relnamespace = 'message'::regnamespace AND a.grantee = $1::text::regrole GROUP BY c.relname
            UNION ALL SELECT p.proname || ' EXECUTE' FROM pg_proc p, aclexplode(p.proacl) a
            WHERE p.pronamespace = 'message'::regnamespace AND a.grantee = $1::text::regrole ORDER BY 1";
        self.client.query(held, &[&self.name]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    async fn are_restricted(&self) {
        let expected = [
            "change_runs INSERT,SELECT,UPDATE",
            "deleted_files INSERT,SELECT",
            "erase EXECUTE",
            "events INSERT,SELECT",
            "file_uses DELETE,INSERT,SELECT",
            "files_to_drop DELETE,INSERT,SELECT",
            "log INSERT,SELECT,UPDATE",
            "message_edits INSERT,SELECT",
            "message_state INSERT,SELECT,UPDATE",
            "needed_privileges SELECT",
            "partitions INSERT,SELECT,UPDATE",
            "reactions DELETE,INSERT,SELECT",
            "refinery_schema_history SELECT",
            "room_heads INSERT,SELECT,UPDATE",
            "room_members DELETE,INSERT,SELECT,UPDATE",
            "search DELETE,INSERT,SELECT,UPDATE",
            "search_closed DELETE,INSERT,SELECT,UPDATE",
            "search_progress INSERT,SELECT,UPDATE",
        ];
        assert_eq!(self.held().await, expected);
        let public = "SELECT count(*) FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
            WHERE p.pronamespace = 'message'::regnamespace AND a.grantee = 0
                AND (p.prosecdef OR p.proname = 'restrict_privileges')";
        assert_eq!(self.client.query_one(public, &[]).await.unwrap().get::<_, i64>(0), 0);
    }

    /// Runs a statement as the service; returns the database's error message.
    async fn refusal(&self, statement: &str) -> String {
        let refused = connect(&self.service).await.batch_execute(statement).await;
        refused.expect_err(statement).as_db_error().unwrap().message().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_upgraded_and_restored_databases_have_the_same_privileges() {
    let new = Roles::new().await;
    new.migrate().await;
    new.are_restricted().await;

    let mut upgraded = Roles::new().await;
    upgraded.client.batch_execute("SET search_path = message").await.unwrap();
    let former = migrations::runner().set_target(Target::Version(BEFORE));
    former.run_async(&mut upgraded.client).await.unwrap();
    assert!(upgraded.held().await.contains(&"events DELETE,INSERT,SELECT,UPDATE".to_owned()));
    upgraded.migrate().await;
    upgraded.are_restricted().await;

    // A restore without privileges: the default privileges of the new database have granted all again.
    let regranted = format!("GRANT ALL ON ALL TABLES IN SCHEMA message TO {}", new.name);
    new.client.batch_execute(&regranted).await.unwrap();
    new.migrate().await;
    new.are_restricted().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_only_read_may_not_erase() {
    let roles = Roles::new().await;
    let reader = format!("{}_reader", roles.name);
    let grants = format!(
        "CREATE ROLE {reader}; ALTER DEFAULT PRIVILEGES IN SCHEMA message GRANT SELECT, TRUNCATE ON TABLES TO {reader}"
    );
    roles.client.batch_execute(&grants).await.unwrap();
    roles.migrate().await;
    let held = "SELECT has_table_privilege($1::name, 'message.events', 'SELECT'), has_table_privilege($1::name, 'message.events', 'TRUNCATE'),
        has_function_privilege($1::name, 'message.erase(integer, uuid, bigint[])', 'EXECUTE')";
    let row = roles.client.query_one(held, &[&reader]).await.unwrap();
    assert_eq!([row.get::<_, bool>(0), row.get(1), row.get(2)], [true, false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn service_appends_reads_and_erases_and_can_do_nothing_else() {
    let roles = Roles::new().await;
    roles.migrate().await;
    let config = PostgresConfig {
        migrate: confab_common::config::Migrate::Off,
        postgres_connections: 4,
        ..PostgresConfig::default()
    };
    let store = Postgres::open(&roles.service, &config).await.unwrap();
    store.open_log(PARTITIONS).await.unwrap();
    store.renew_epoch().await.unwrap();
    let room = rooms_in(1).next().unwrap();
    append_new(&store, &[new_message(room, Some("a"), "a secret")]).await;
    store.forget_files((1, room), vec![Uuid::now_v7()]).await.unwrap();
    for statement in [
        "UPDATE message.events SET body = '{}'",
        "DELETE FROM message.events",
        "TRUNCATE message.events",
        "SELECT 1 FROM message.events FOR UPDATE",
        "DELETE FROM message.partitions",
        "DELETE FROM message.log",
        "DELETE FROM message.room_heads",
        "DELETE FROM message.deleted_files",
        "DELETE FROM message.message_state",
        "UPDATE message.message_edits SET seq = 0",
        "DELETE FROM message.message_edits",
        "DELETE FROM message.change_runs",
        "UPDATE message.reactions SET at = 0",
        "UPDATE message.file_uses SET seq = 0",
        "UPDATE message.files_to_drop SET room_id = file_id",
        "UPDATE message.refinery_schema_history SET version = 0",
        "CREATE TABLE message.mine (n integer)",
        "CREATE FUNCTION message.mine() RETURNS void LANGUAGE sql AS ''",
        "CREATE TRIGGER mine BEFORE INSERT ON message.events EXECUTE FUNCTION message.keep_events()",
        "SELECT message.restrict_privileges()",
    ] {
        let refused = roles.refusal(statement).await;
        assert!(refused.starts_with("permission denied"), "{statement}: {refused}");
    }
    for statement in ["DROP FUNCTION message.erase", "ALTER TABLE message.events DISABLE TRIGGER events_keep_rows"] {
        let refused = roles.refusal(statement).await;
        assert!(refused.starts_with("must be owner"), "{statement}: {refused}");
    }
    let client = connect(&roles.service).await;
    let shadow = "CREATE TEMP TABLE events (LIKE message.events); SET search_path = pg_temp, message";
    // The test's database allows temporary tables; that of roles.sql does not.
    client.batch_execute(shadow).await.unwrap();
    let erased = client.query_one("SELECT message.erase(1, $1, ARRAY[1]::bigint[])", &[&room]).await.unwrap();
    assert_eq!(erased.get::<_, i64>(0), 1);
    let event = history(&store, room).await.remove(0);
    assert_eq!((event.data.body.sender_username.as_str(), event.data.body.content.as_str()), ("ada", ""));

    let message = append_new(&store, &[new_message(room, None, "another secret")]).await.remove(0);
    for data in [edit(&message, "a third secret"), change(&message, message.data.sender, Op::Delete)] {
        assert!(matches!(append_one(&store, data).await, Outcome::Appended(_)));
    }
    assert_eq!(store.erase_deleted(10, 10).await.unwrap(), Erased { events: 2, more: false });

    let shared = append_new(&store, &[shared(room, &[file("dropped")])]).await.remove(0);
    append_one(&store, change(&shared, shared.data.sender, Op::Delete)).await;
    let judged = store.judge_files(10).await.unwrap();
    assert_eq!(judged.to_drop, [((1, room), shared.data.body.files[0].id)]);
    store.files_dropped(judged.to_drop).await.unwrap();
    assert_eq!(store.judge_files(10).await.unwrap(), Judged::default());

    let body = Body { sender_username: "ada".into(), event: "roomDeleted".into(), ..Body::default() };
    let closing = EventData { kind: Kind::System, body, closes_room: true, ..new_message(room, None, "") };
    append_new(&store, &[closing]).await;
    assert!(store.room_heads(vec![(1, room)]).await.unwrap().heads[0].closed);
    let refused = roles.refusal("DELETE FROM message.events").await;
    assert!(refused.starts_with("permission denied"), "{refused}");
}
