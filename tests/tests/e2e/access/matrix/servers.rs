//! The servers of the matrix, with an issuer and a server key. They are started once for all its tests.

use confab_tests::api::Account;
use confab_tests::cluster::Cluster;
use confab_tests::embedded::Embedded;
use confab_tests::issuer::{Issuer, Key};
use confab_tests::plan::Role;
use confab_tests::server_keys;
use serde_json::json;
use tokio::sync::OnceCell;

/// A server with two ends, which may be the same.
pub struct Servers {
    pub urls: [String; 2],
    pub issuer: Issuer,
    /// A server key with all scopes.
    pub key: Account,
    /// Whether anonymous callers may read.
    pub is_open: bool,
    program: Program,
}

/// The programs, which run until this is dropped.
enum Program {
    Embedded { _server: Box<Embedded> },
    Cluster(Box<Cluster>),
}

impl Servers {
    pub async fn embedded() -> &'static Self {
        static SHARED: OnceCell<Servers> = OnceCell::const_new();
        SHARED.get_or_init(async || Self::start_embedded(false).await.expect("confab starts")).await
    }

    /// An embedded server at which anonymous callers may read.
    pub async fn open() -> &'static Self {
        static SHARED: OnceCell<Servers> = OnceCell::const_new();
        SHARED.get_or_init(async || Self::start_embedded(true).await.expect("confab starts")).await
    }

    pub async fn cluster() -> &'static Self {
        static SHARED: OnceCell<Servers> = OnceCell::const_new();
        SHARED.get_or_init(async || Self::start_cluster().await.expect("the cluster starts")).await
    }

    async fn start_embedded(is_open: bool) -> anyhow::Result<Self> {
        let issuer = issuer()?;
        let (issuers, open) = (json!([issuer.entry()]).to_string(), is_open.to_string());
        let settings = [&settings(&issuers)[..], &[("CONFAB_ANONYMOUS_READ", &*open)]].concat();
        let server = Embedded::start(&settings).await?;
        let key = server_keys::of_embedded(&server, server_keys::ALL).await?;
        let urls = [server.url(), server.url()];
        Ok(Self { urls, issuer, key, is_open, program: Program::Embedded { _server: Box::new(server) } })
    }

    async fn start_cluster() -> anyhow::Result<Self> {
        let issuer = issuer()?;
        let issuers = json!([issuer.entry()]).to_string();
        let cluster = Cluster::scratch(2, 1, &settings(&issuers)).await?;
        let key = server_keys::of_cluster(&cluster, server_keys::ALL).await?;
        let urls = [1, 2].map(|n| cluster.plan.url((Role::Gateway, n)));
        Ok(Self { urls, issuer, key, is_open: false, program: Program::Cluster(Box::new(cluster)) })
    }

    /// The cluster.
    ///
    /// # Panics
    /// When the server is embedded.
    pub fn programs(&self) -> &Cluster {
        match &self.program {
            Program::Cluster(cluster) => cluster,
            Program::Embedded { .. } => panic!("an embedded server has no services of its own"),
        }
    }
}

/// The settings of all servers.
fn settings(issuers: &str) -> [(&'static str, &str); 8] {
    [
        ("CONFAB_ISSUERS", issuers),
        ("CONFAB_LIMIT_FILE_LINK", "0"),
        // The owner creates hundreds of rooms, and adds the target to each.
        ("CONFAB_MAX_ROOMS_PER_USER", "0"),
        ("CONFAB_LIMIT_CREATE_ROOM", "0"),
        ("CONFAB_LIMIT_CHANGE_ROOM", "0"),
        ("CONFAB_LIMIT_USER_DIRECTORY", "0"),
        ("CONFAB_LIMIT_WRONG_TOKEN", "0"),
        ("CONFAB_USER_DIRECTORY", "shared"),
    ]
}

fn issuer() -> anyhow::Result<Issuer> {
    Issuer::start("https://matrix.example/", Key::new("k")?)
}
