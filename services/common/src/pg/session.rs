//! Opens sessions. Their settings are SET, because PgBouncer accepts no `options` at the start of a connection.

use deadpool_postgres::{ConfigConnectImpl, Connect};
use futures::future::{BoxFuture, FutureExt};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The settings of every session, unless the URL's `options` override them. Sequential and bitmap scans are off:
/// Postgres keeps a plan made for a small table until the table is analysed, even after the table has grown large.
const SETTINGS: [(&str, &str); 7] = [
    ("statement_timeout", "3s"),
    ("lock_timeout", "2s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("default_transaction_isolation", "read committed"),
    ("jit", "off"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
];

/// Opens sessions for one schema.
pub(super) struct Sessions {
    connect: ConfigConnectImpl<MakeRustlsConnect>,
    set: String,
}

impl Sessions {
    pub fn new(tls: MakeRustlsConnect, schema: &str, options: &str) -> Self {
        let settings = SETTINGS.iter().filter(|(name, _)| !options.contains(name));
        let set = settings.map(|(name, value)| format!("; SET {name} = '{value}'")).collect::<String>();
        Self { connect: ConfigConnectImpl { tls }, set: format!("SET search_path = {schema}{set}") }
    }
}

impl Connect for Sessions {
    fn connect(&self, config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        let config = config.clone();
        async move {
            let (client, task) = self.connect.connect(&config).await?;
            client.batch_execute(&self.set).await?;
            Ok((client, task))
        }
        .boxed()
    }
}
