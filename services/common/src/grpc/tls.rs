//! TLS between programs: each program proves its role with a certificate, and verifies the roles of its peers.

mod connector;
mod identity;
mod verify;

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::MAX_CONNECTION_AGE;
use super::names::PeerNames;
use super::peer::Peer;
use super::role::Role;
use crate::config::{CallsConfig, TlsFiles};
use crate::metrics::tls_days_left;

pub(super) use connector::Connector;

use identity::{Contents, Identity};

/// How often the files are compared with those in use.
const REREAD_EVERY: Duration = Duration::from_secs(5);
/// How often the validity of the own certificate is checked.
const REPORT_EVERY: Duration = Duration::from_secs(3600);
/// Validity of the own certificate, in days, below which the program logs a warning.
const WARN_DAYS: u64 = 7;

/// The identity of a program, and how it verifies others.
pub(super) struct Tls {
    files: TlsFiles,
    names: PeerNames,
    /// The role of this program; `None` for the embedded program.
    program: Option<Role>,
    // Locked to copy or replace them, never across an await.
    current: Mutex<Arc<Identity>>,
    /// The digest of the files as they were last read; `None`: a file could not be read.
    seen: Mutex<Option<[u8; 32]>>,
}

impl Tls {
    /// Reads the files in the settings; `None` without such settings.
    ///
    /// # Errors
    /// When the settings or the files cannot be used.
    pub fn open(config: &CallsConfig, program: Option<Role>) -> anyhow::Result<Option<Arc<Self>>> {
        let Some(files) = config.files()? else { return Ok(None) };
        let names = config.peers.clone().unwrap_or_default();
        let contents = Contents::read(&files)?;
        let identity = Identity::parse(&contents, &files, &names)?;
        identity.check_role(program)?;
        let (current, seen) = (Mutex::new(Arc::new(identity)), Mutex::new(Some(contents.digest())));
        Ok(Some(Arc::new(Self { files, names, program, current, seen })))
    }

    /// Accepts a connection. The peer has proved that its certificate is from a trusted authority. Also returns for how
    /// long that certificate stays valid, if that is less than the maximum age of a connection.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Peer, Option<Duration>)> {
        let identity = self.current();
        let stream = TlsAcceptor::from(identity.server.clone()).accept(stream).await?;
        let (socket, session) = stream.get_ref();
        let chain = session.peer_certificates().unwrap_or_default();
        let peer = Peer::with(chain.first().map(|certificate| identity.roles_of(certificate)).unwrap_or_default());
        let time_left = identity.time_left(chain, MAX_CONNECTION_AGE);
        if peer.is_stranger() {
            let address = socket.peer_addr().map(|address| address.to_string()).unwrap_or_default();
            tracing::warn!(%address, "a caller's certificate has no role, so its calls are rejected (CONFAB_PEERS)");
        }
        Ok((stream, peer, time_left))
    }

    fn current(&self) -> Arc<Identity> {
        self.current.lock().clone()
    }

    /// Uses the files for new connections if they have changed. While they are broken, the previous content stays in
    /// use. Returns whether they have changed.
    fn reread(&self) -> bool {
        let read = Contents::read(&self.files).map(|contents| (contents.digest(), contents));
        let now = read.as_ref().ok().map(|(digest, _)| *digest);
        if std::mem::replace(&mut *self.seen.lock(), now) == now {
            return false;
        }
        let used = read.and_then(|(_, contents)| {
            let identity = Identity::parse(&contents, &self.files, &self.names)?;
            identity.check_role(self.program)?;
            *self.current.lock() = Arc::new(identity);
            Ok(())
        });
        match used {
            Ok(()) => tracing::info!("the certificate has changed; new connections use it"),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the previous certificate stays in use"),
        }
        true
    }

    fn report_validity(&self) {
        let days = self.current().days_left();
        tls_days_left().set(days.map_or(-1.0, |days| days as f64));
        match days {
            Some(days) if days >= WARN_DAYS => {}
            Some(days) => {
                tracing::warn!("the certificate in CONFAB_TLS_CERT_FILE expires in {days} days");
            }
            None => tracing::warn!(
                "other programs reject the certificate in CONFAB_TLS_CERT_FILE: it has expired, or no authority in \
                 CONFAB_TLS_CA_FILE has issued it"
            ),
        }
    }
}

/// Watches the files until the identity is dropped.
pub(super) async fn keep_current(tls: Weak<Tls>) {
    let mut reported = None::<Instant>;
    while let Some(tls) = tls.upgrade() {
        let is_due = reported.is_none_or(|reported| reported.elapsed() >= REPORT_EVERY);
        let reading = tokio::task::spawn_blocking(move || {
            let changed = tls.reread();
            if changed || is_due {
                tls.report_validity();
            }
        });
        if reading.await.is_ok() && is_due {
            reported = Some(Instant::now());
        }
        sleep(REREAD_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Authority;

    fn open(config: &CallsConfig, program: Option<Role>) -> Result<Arc<Tls>, String> {
        Tls::open(config, program).map(|tls| tls.expect("files are set")).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn changed_files_are_used_unless_broken() {
        let (authority, other) = (Authority::new(), Authority::new());
        let config = authority.calls("DNS:room.confab");
        let (certificate, key) = (config.tls_cert_file.clone().unwrap(), config.tls_key_file.clone().unwrap());
        let tls = open(&config, Some(Role::Room)).unwrap();
        let before = tls.current();
        assert!(!tls.reread(), "the files are unchanged");

        let (wrong_role, wrong_key) = authority.issue("DNS:file.confab");
        let (new_certificate, new_key) = other.issue("DNS:room.confab");
        for (source, target) in [(&new_key, &key), (&wrong_role, &certificate), (&wrong_key, &key)] {
            std::fs::copy(source, target).unwrap();
            assert!(tls.reread() && !tls.reread(), "a change is used or logged once");
            assert!(Arc::ptr_eq(&before, &tls.current()), "files that do not fit are not used");
        }
        std::fs::remove_file(&certificate).unwrap();
        assert!(tls.reread() && !tls.reread());
        std::fs::copy(&new_certificate, &certificate).unwrap();
        std::fs::copy(&new_key, &key).unwrap();
        assert!(tls.reread() && !Arc::ptr_eq(&before, &tls.current()));
    }

    #[test]
    fn errors_name_the_setting() {
        let authority = Authority::new();
        let config = authority.calls("DNS:room.confab");
        let error = open(&config, Some(Role::Auth)).err().unwrap();
        assert!(error.contains("CONFAB_TLS_CERT_FILE must have the role auth; its roles are: room"), "{error}");
        assert!(open(&config, None).is_ok());
        let stranger = authority.calls("DNS:tea.example");
        assert!(open(&stranger, None).err().unwrap().contains("must have a role; its roles are: none"));
        let named = CallsConfig { peers: PeerNames::parse("auth=tea.example").ok(), ..stranger.clone() };
        assert!(open(&named, Some(Role::Auth)).is_ok());
        let (certificate, key) = (config.tls_cert_file.clone(), config.tls_key_file.clone());
        for (changed, why) in [
            (CallsConfig { tls_cert_file: key.clone(), ..config.clone() }, "CONFAB_TLS_CERT_FILE: "),
            (CallsConfig { tls_key_file: certificate, ..config.clone() }, "CONFAB_TLS_KEY_FILE: "),
            (CallsConfig { tls_ca_file: key, ..config.clone() }, "CONFAB_TLS_CA_FILE: "),
            (CallsConfig { tls_key_file: stranger.tls_key_file, ..config.clone() }, "do not belong together"),
            (
                CallsConfig { tls_key_file: Some("/nowhere".into()), ..config },
                "CONFAB_TLS_KEY_FILE: cannot read /nowhere",
            ),
        ] {
            let error = open(&changed, None).err().unwrap();
            assert!(error.contains(why) && !error.contains("BEGIN"), "{error}");
        }
    }

    #[test]
    fn validity_is_that_of_the_certificate() {
        let (authority, other) = (Authority::new(), Authority::new());
        let days = |config: &CallsConfig| open(config, None).unwrap().current().days_left();
        let mut config = authority.calls("DNS:room.confab");
        assert!([Some(1), Some(2)].contains(&days(&config)), "{:?}", days(&config));
        let (certificate, key) = authority.issue_for("DNS:room.confab", 900);
        (config.tls_cert_file, config.tls_key_file) = (Some(certificate), Some(key));
        assert_eq!(days(&config), Some(365));
        config.tls_ca_file = Some(other.certificate());
        assert_eq!(days(&config), None);
    }
}
