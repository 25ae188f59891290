//! Several installations with the same configured bucket: none removes another's acknowledged files.

use std::process::Command;
use std::time::Duration;

use confab_tests::api::{Account, Api, unique};
use confab_tests::embedded::Embedded;
use confab_tests::exposition::Exposition;
use confab_tests::wait::eventually;
use confab_tests::{programs, servers};
use serde_json::Value;

const STEP_LIMIT: Duration = Duration::from_secs(60);
const FOREIGN: &str = "confab_file_objects_foreign";

/// A database on the test run's Postgres server.
struct Database(String);

impl Database {
    fn new() -> Self {
        let name = unique("files").replace(|letter: char| !letter.is_ascii_alphanumeric(), "_").to_lowercase();
        sql("postgres", &format!("CREATE DATABASE {name}"));
        Self(name)
    }

    /// Returns a copy with the current contents of this database.
    fn restored(&self) -> Self {
        let copy = Self::new();
        let command = format!("pg_dump '{}' | psql --quiet --set=ON_ERROR_STOP=1 '{}'", self.url(), copy.url());
        shell(&command);
        copy
    }

    fn url(&self) -> String {
        url(&self.0)
    }
}

fn url(database: &str) -> String {
    let server = std::env::var("TEST_POSTGRES_URL").unwrap();
    format!("{}/{database}", server.rsplit_once('/').unwrap().0)
}

fn sql(database: &str, statement: &str) {
    shell(&format!("psql --quiet --set=ON_ERROR_STOP=1 --command=\"{statement}\" '{}'", url(database)));
}

fn shell(command: &str) {
    let path = format!("{}:{}", servers::postgres::programs().unwrap().display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh").args(["-euc", command]).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

fn bucket() -> String {
    unique("shared").replace(|letter: char| !letter.is_ascii_alphanumeric(), "-").to_lowercase()
}

/// Settings with all data in this database and object store; orphans are removed at once.
fn settings(database: &Database, objects: &str) -> Vec<(&'static str, String)> {
    let s3 = std::env::var("TEST_S3_URL").unwrap();
    let (account, host) = s3.strip_prefix("http://").unwrap().split_once('@').unwrap();
    let (key, secret) = account.split_once(':').unwrap();
    let stores = ["CONFAB_AUTH_STORE", "CONFAB_ROOM_STORE", "CONFAB_MESSAGE_STORE", "CONFAB_FILE_STORE"];
    let stores = stores.into_iter().map(|store| (store, database.url()));
    let rest = [
        ("CONFAB_OBJECTS", objects.to_owned()),
        ("CONFAB_S3_ENDPOINT", format!("http://{host}")),
        ("CONFAB_S3_ACCESS_KEY_ID", key.to_owned()),
        ("CONFAB_S3_SECRET_ACCESS_KEY", secret.to_owned()),
        ("CONFAB_SIGNING_KEY", "aW5zdGFsbGF0aW9ucyBhdCBvbmUgYnVja2V0IDEyMzQ=".to_owned()),
        ("CONFAB_POSTGRES_CONNECTIONS", "2".to_owned()),
        ("CONFAB_ORPHAN_AGE", "5s".to_owned()),
        ("CONFAB_SWEEP_EVERY", "500ms".to_owned()),
    ];
    stores.chain(rest).collect()
}

struct Installation {
    server: Embedded,
    settings: Vec<(&'static str, String)>,
    api: Api,
}

impl Installation {
    async fn start(database: &Database, objects: &str) -> Self {
        let settings = settings(database, objects);
        let given = settings.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>();
        let server = Embedded::start(&given).await.unwrap();
        let api = Api::new(server.url());
        Self { server, settings, api }
    }

    async fn measures(&self, series: &str) -> f64 {
        Exposition::scrape(self.server.admin_port()).await.unwrap().value(series).unwrap_or_default()
    }

    async fn until(&self, series: &str, value: f64) {
        let reached = async || (self.measures(series).await == value).then_some(());
        eventually(&format!("{series} is {value}"), STEP_LIMIT, reached).await.unwrap();
    }

    /// Waits for `count` sweeps that found another installation's store.
    async fn refused_sweeps(&self, count: usize) {
        let refused = async || {
            let log = std::fs::read_to_string(&self.server.daemon().log).unwrap_or_default();
            let mentions = log
                .lines()
                .filter(|line| line.contains("belong to another installation") && line.contains("claim-objects"));
            (mentions.count() >= count).then_some(())
        };
        eventually("sweeps are rejected", STEP_LIMIT, refused).await.unwrap();
    }

    async fn share(&self, who: &Account, text: &str) -> Value {
        self.api.share(who, None, "a.txt", text.as_bytes()).await.unwrap()
    }

    async fn has(&self, who: &Account, file: &Value, text: &str) {
        let answer = self.api.get(file["url"].as_str().unwrap(), who).await.unwrap();
        assert_eq!((answer.status, &answer.bytes[..]), (200, text.as_bytes()), "{}", answer.body);
    }

    async fn refuses_uploads(&self, who: &Account) {
        let refused = self.api.share(who, None, "b.txt", b"not here").await.unwrap_err().to_string();
        assert!(refused.contains("503"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_installation_must_claim_the_bucket() {
    let (database, place) = (Database::new(), format!("s3://{}", bucket()));
    let production = Installation::start(&database, &place).await;
    let ada = production.api.signup().await.unwrap();
    let (old, deleted) = (production.share(&ada, "old").await, production.share(&ada, "deleted elsewhere").await);
    let copy = database.restored();
    let young = production.share(&ada, "young").await;

    let staging = Installation::start(&copy, &place).await;
    let stranger = Installation::start(&Database::new(), &place).await;
    let bob = stranger.api.signup().await.unwrap();
    for (other, who) in [(&staging, &ada), (&stranger, &bob)] {
        other.until(FOREIGN, 1.0).await;
        other.refuses_uploads(who).await;
    }
    staging.has(&ada, &old, "old").await;
    let delete =
        staging.api.call(reqwest::Method::DELETE, deleted["url"].as_str().unwrap(), Some(&ada), None).await.unwrap();
    assert_eq!(delete.status, 204, "{}", delete.body);
    for other in [&staging, &stranger] {
        // Long enough for all files to be old.
        other.refused_sweeps(16).await;
    }
    for (file, text) in [(&old, "old"), (&deleted, "deleted elsewhere"), (&young, "young")] {
        production.has(&ada, file, text).await;
    }
    assert_eq!(production.measures(FOREIGN).await, 0.0);
    production.share(&ada, "still at work").await;

    // Production ends, and the former staging installation replaces it on purpose.
    production.server.daemon().stop(STEP_LIMIT).await.unwrap();
    let settings = staging.settings.iter().map(|(name, value)| (*name, value.as_str()));
    let mut claim = Command::new(programs().join("confab"));
    let claimed =
        claim.arg("claim-objects").current_dir(&staging.server.daemon().work).envs(settings).output().unwrap();
    assert!(claimed.status.success(), "{}", String::from_utf8_lossy(&claimed.stderr));
    let said = String::from_utf8(claimed.stdout).unwrap();
    assert!(said.contains("before: installation ") && said.contains("now: installation "), "{said}");
    staging.until(FOREIGN, 0.0).await;
    let new = staging.share(&ada, "new").await;
    staging.has(&ada, &new, "new").await;
    staging.has(&ada, &old, "old").await;
    production.server.up().await.unwrap();
    production.until(FOREIGN, 1.0).await;
    production.refuses_uploads(&ada).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefixes_of_one_bucket_are_separate_stores() {
    let name = bucket();
    let places = [format!("s3://{name}"), format!("s3://{name}/one"), format!("s3://{name}/one/files")];
    let mut installations = Vec::new();
    for place in &places {
        let database = Database::new();
        let installation = Installation::start(&database, place).await;
        let ada = installation.api.signup().await.unwrap();
        let kept = installation.share(&ada, place).await;
        let lost = installation.share(&ada, "lost").await;
        installations.push((database, installation, ada, kept, lost));
    }
    // Each sweep finds its own orphan, and none of the others'.
    for (database, _, _, _, lost) in &installations {
        sql(&database.0, &format!("DELETE FROM file.files WHERE id = '{}'", lost["id"].as_str().unwrap()));
    }
    for (_, installation, ..) in &installations {
        installation.until("confab_file_orphans_total{kind=\"object\"}", 1.0).await;
    }
    for ((_, installation, ada, kept, _), place) in installations.iter().zip(&places) {
        installation.has(ada, kept, place).await;
        assert_eq!(installation.measures("confab_file_orphans_total{kind=\"object\"}").await, 1.0);
        assert_eq!(installation.measures("confab_file_orphans_total{kind=\"file\"}").await, 0.0);
        assert_eq!(installation.measures(FOREIGN).await, 0.0);
    }
}
