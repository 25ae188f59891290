//! A pool whose server falls silent, rejects writes or ends sessions: no caller waits without limit, and no later
//! caller receives a faulty connection.

use std::time::{Duration, Instant};

use confab_common::config::Migrate;
use confab_common::pg::{Pool, PostgresConfig};
use confab_common::readiness::Readiness;
use confab_common::testing::{self, SilentProxy};
use confab_common::{Code, Error, Result};
use tokio::time::{sleep, timeout};

/// For errors that waiting does not resolve, but that may take a while to be reported.
const REPORT_LIMIT: Duration = Duration::from_secs(60);
/// For errors that might resolve.
const RETRY_LIMIT: Duration = Duration::from_secs(1);

async fn pool(connections: usize) -> (Pool, SilentProxy) {
    let proxy = SilentProxy::to(&testing::database().await).await;
    let config = PostgresConfig { postgres_connections: connections, ..PostgresConfig::default() };
    let pool = Pool::open(&proxy.url(), "silence", refinery::Runner::new(&[]), &config).await.expect("a pool");
    (pool, proxy)
}

#[tokio::test]
async fn program_starts_on_a_newer_schema() {
    let url = testing::database().await;
    let newer = refinery::Migration::unapplied("V1__t", "CREATE TABLE t (n integer)").expect("a migration");
    for migrate in [Migrate::Auto, Migrate::Off] {
        for migrations in [&[newer.clone()][..], &[]] {
            let config = PostgresConfig { migrate, postgres_connections: 1, ..PostgresConfig::default() };
            let pool = Pool::open(&url, "newer", refinery::Runner::new(migrations), &config).await.expect("a pool");
            pool.query("SELECT FROM t", &[]).await.expect("the newer one's table");
        }
    }
}

#[tokio::test]
async fn command_reports_why_the_server_rejects_it() {
    let url = testing::database().await;
    let (server, database) = url.expose().rsplit_once('/').expect("a URL that names a database");
    let (_, address) = server.rsplit_once('@').unwrap_or(server.split_once("//").expect("a URL"));
    let stranger = format!("postgres://stranger:hunter2@{address}/{database}");
    for (url, migrate, patience, why) in [
        (stranger, Migrate::Auto, REPORT_LIMIT, "stranger"),
        (format!("{server}/nowhere"), Migrate::Auto, REPORT_LIMIT, "database \"nowhere\" does not exist"),
        (url.expose().to_owned(), Migrate::Off, RETRY_LIMIT, "run the migrate subcommand"),
    ] {
        let config =
            PostgresConfig { migrate, postgres_connections: 1, patience: Some(patience), ..PostgresConfig::default() };
        let newest = refinery::Migration::unapplied("V1__t", "CREATE TABLE t (n integer)").expect("a migration");
        let url = url.into();
        let opened = Pool::open(&url, "once", refinery::Runner::new(&[newest]), &config);
        let error = timeout(Duration::from_secs(20), opened)
            .await
            .expect("must not wait")
            .err()
            .expect("a refusal")
            .to_string();
        assert!(error.contains(why) && !error.contains("hunter2"), "{why}: {error}");
    }
}

#[tokio::test]
async fn missing_schema_permission_is_reported() {
    let url = testing::database().await;
    let newest = [refinery::Migration::unapplied("V1__t", "CREATE TABLE t (n integer)").expect("a migration")];
    let config = PostgresConfig { postgres_connections: 1, patience: Some(REPORT_LIMIT), ..PostgresConfig::default() };
    let pool = Pool::open(&url, "private", refinery::Runner::new(&newest), &config).await.expect("a pool");
    // Roles belong to the whole server, so the name must be unique.
    let (server, database) = url.expose().rsplit_once('/').expect("a URL that names a database");
    let (_, address) = server.rsplit_once('@').unwrap_or(server.split_once("//").expect("a URL"));
    pool.execute(&format!("CREATE ROLE {database} LOGIN PASSWORD 'hunter2'"), &[]).await.expect("a role");
    let outsider = format!("postgres://{database}:hunter2@{address}/{database}").into();
    for (grant, patience, why) in [
        ("SELECT", RETRY_LIMIT, "not accessible for this user; run the migrate"),
        (&format!("GRANT USAGE ON SCHEMA private TO {database}"), REPORT_LIMIT, "permission denied"),
    ] {
        pool.execute(grant, &[]).await.expect("the right to look");
        let config = PostgresConfig { migrate: Migrate::Off, patience: Some(patience), ..config.clone() };
        let opened = Pool::open(&outsider, "private", refinery::Runner::new(&newest), &config);
        let error = timeout(Duration::from_secs(20), opened)
            .await
            .expect("must not wait")
            .err()
            .expect("a refusal")
            .to_string();
        assert!(error.contains(why) && !error.contains("hunter2"), "{why}: {error}");
    }
}

#[tokio::test]
async fn patience_ends() {
    let config = PostgresConfig { postgres_connections: 1, patience: Some(RETRY_LIMIT), ..PostgresConfig::default() };
    // The first port has no listener.
    let url = "postgres://127.0.0.1:1/confab".into();
    let opened = Pool::open(&url, "once", refinery::Runner::new(&[]), &config);
    let error = timeout(Duration::from_secs(20), opened)
        .await
        .expect("must end in time")
        .err()
        .expect("no server there")
        .to_string();
    assert!(error.contains("cannot use the once store"), "{error}");
}

/// Returns the id of the connection that answers, after `seconds`.
async fn ask(pool: &Pool, seconds: f64) -> Result<i32> {
    Ok(pool.query("SELECT pg_backend_pid() FROM pg_sleep($1)", &[&seconds]).await?[0].get(0))
}

/// Returns the id of the connection that answers at once, after waiting for a free one.
async fn ask_once_free(pool: &Pool) -> i32 {
    let asking = async {
        loop {
            match ask(pool, 0.0).await {
                Ok(answering) => return answering,
                Err(error) => assert_eq!(error.code, Code::Unavailable),
            }
        }
    };
    timeout(Duration::from_secs(30), asking).await.expect("a connection")
}

#[tokio::test]
async fn silent_server_causes_timeout_and_closes_connections() {
    let (pool, proxy) = pool(4).await;
    let open = futures::future::join_all((0..4).map(|_| ask(&pool, 0.2))).await;
    assert!(open.iter().all(Result::is_ok), "{open:?}");
    proxy.silence_old();
    let asked = Instant::now();
    let silent = timeout(Duration::from_secs(20), ask(&pool, 0.0)).await.expect("the wait must be bounded");
    assert_eq!(silent.expect_err("silence").code, Code::Timeout);
    assert!((Duration::from_secs(4)..Duration::from_secs(15)).contains(&asked.elapsed()), "{:?}", asked.elapsed());
    let asked = Instant::now();
    for _ in 0..4 {
        ask_once_free(&pool).await;
    }
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn statement_timeout_keeps_the_connection() {
    let (pool, _wire) = pool(1).await;
    let is_kept = async || {
        let first = ask_once_free(&pool).await;
        assert_eq!(ask(&pool, 60.0).await.expect_err("a statement of a minute").code, Code::Timeout);
        ask_once_free(&pool).await == first
    };
    // When the machine stands still the server may seem silent, but not in every attempt.
    assert!(is_kept().await || is_kept().await || is_kept().await);
}

#[tokio::test]
async fn abandoned_connection_is_reused_after_its_answer() {
    let (pool, proxy) = pool(1).await;
    let first = ask(&pool, 0.0).await.expect("an answer");
    // The query takes longer than that, unless the machine stands still meanwhile.
    while timeout(Duration::from_millis(50), ask(&pool, 1.0)).await.is_ok() {}
    assert_eq!(ask_once_free(&pool).await, first);

    proxy.silence_old();
    timeout(Duration::from_millis(50), ask(&pool, 0.0)).await.expect_err("silence");
    assert_ne!(ask_once_free(&pool).await, first);
}

#[tokio::test]
async fn abandoned_transaction_is_rolled_back() {
    let (pool, _wire) = pool(1).await;
    pool.execute("CREATE TABLE t (n integer)", &[]).await.expect("a table");
    let left = pool.run(async |client| {
        let transaction = client.transaction().await?;
        transaction.execute("INSERT INTO t VALUES (1)", &[]).await?;
        sleep(Duration::from_secs(60)).await;
        Ok::<_, Error>(transaction.commit().await?)
    });
    timeout(Duration::from_millis(500), left).await.expect_err("the caller must be dropped midway");
    assert_eq!(pool.query("SELECT count(*) FROM t", &[]).await.expect("an answer")[0].get::<_, i64>(0), 0);
}

/// Opens a pool of one connection that may lead to a server that rejects writes.
async fn pool_of_any() -> Pool {
    let url = format!("{}?target_session_attrs=any", testing::database().await.expose()).into();
    let config = PostgresConfig { postgres_connections: 1, ..PostgresConfig::default() };
    Pool::open(&url, "faults", refinery::Runner::new(&[]), &config).await.expect("a pool")
}

#[tokio::test]
async fn connection_is_not_reused_after_a_fatal_error() {
    let pool = pool_of_any().await;
    for (state, code, is_kept) in [
        ("25006", Code::Unavailable, false),
        ("55000", Code::Unavailable, false),
        ("40001", Code::Unavailable, false),
        ("26000", Code::Unavailable, false),
        ("0A000", Code::Unavailable, false),
        ("57P01", Code::Timeout, false),
        ("57P02", Code::Timeout, false),
        ("57P03", Code::Timeout, false),
        ("08006", Code::Timeout, false),
        ("57014", Code::Timeout, true),
        ("58030", Code::Timeout, true),
        ("40P01", Code::Unavailable, true),
        ("53200", Code::Unavailable, true),
        ("55P03", Code::Unavailable, true),
        ("23505", Code::Internal, true),
        ("22012", Code::Internal, true),
    ] {
        let before = ask(&pool, 0.0).await.expect("an answer");
        let fails = format!("DO $$ BEGIN RAISE EXCEPTION 'as it happens' USING ERRCODE = '{state}'; END $$");
        let error = pool.execute(&fails, &[]).await.expect_err(state);
        assert_eq!(error.code, code, "{state}");
        assert_eq!(ask(&pool, 0.0).await.expect("an answer") == before, is_kept, "{state}");
    }
}

#[tokio::test]
async fn read_only_session_is_discarded_after_one_error() {
    let pool = pool_of_any().await;
    pool.execute("CREATE TABLE t (n integer)", &[]).await.expect("a table");
    pool.execute("SET default_transaction_read_only = on", &[]).await.expect("a setting");
    assert_eq!(
        pool.execute("INSERT INTO t VALUES (1)", &[]).await.expect_err("the session must reject writes").code,
        Code::Unavailable
    );
    pool.execute("INSERT INTO t VALUES (1)", &[]).await.expect("another session");
}

#[tokio::test]
async fn read_only_server_is_abandoned_and_reported_in_readiness() {
    let (url, readiness) = (testing::database().await, Readiness::default());
    let (server, name) = url.expose().rsplit_once('/').expect("a URL that names a database");
    let config = PostgresConfig { postgres_connections: 4, readiness: readiness.clone(), ..PostgresConfig::default() };
    let pool = Pool::open(&url, "turns", refinery::Runner::new(&[]), &config).await.expect("a pool");
    pool.execute("CREATE TABLE t (n integer)", &[]).await.expect("a table");
    let (administrator, connection) = tokio_postgres::connect(server, tokio_postgres::NoTls).await.expect("the server");
    tokio::spawn(connection);
    let turn = async |setting: &str| {
        administrator
            .batch_execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = {setting}"))
            .await
            .expect("a setting");
    };
    // Makes each of the four open sessions look as if its server had become read-only.
    turn("on").await;
    let sessions =
        futures::future::join_all((0..4).map(|_| {
            pool.query("SELECT set_config('default_transaction_read_only', 'on', false), pg_sleep(0.2)", &[])
        }));
    assert!(sessions.await.iter().all(Result::is_ok));
    assert_eq!(
        pool.execute("INSERT INTO t VALUES (1)", &[]).await.expect_err("the session must reject writes").code,
        Code::Unavailable
    );
    assert_eq!(readiness.notes(), "; turns store: Postgres is read-only (a standby?)");
    assert_eq!(
        pool.query("SELECT 1", &[]).await.expect_err("reads that may be stale must be rejected too").code,
        Code::Unavailable
    );
    turn("off").await;
    let is_good_again = async {
        while pool.execute("INSERT INTO t VALUES (1)", &[]).await.is_err() || !readiness.notes().is_empty() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(REPORT_LIMIT, is_good_again).await.expect("writes");

    // A pool that opens meanwhile reports it, too.
    turn("on").await;
    let late = PostgresConfig { readiness: Readiness::default(), ..config };
    let (readiness, migrations, url) = (late.readiness.clone(), refinery::Runner::new(&[]), url.clone());
    let starting = tokio::spawn(async move { Pool::open(&url, "late", migrations, &late).await });
    let says_why = async {
        while readiness.notes() != "; late store: Postgres is read-only (a standby?)" {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(REPORT_LIMIT, says_why).await.expect("the reason");
    turn("off").await;
    timeout(REPORT_LIMIT, starting).await.expect("must end in time").expect("no panic").expect("a pool");
    assert_eq!(readiness.notes(), "");
}
