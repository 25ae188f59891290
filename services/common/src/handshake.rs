//! Explains why TLS with a store failed, and what the operator must change.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::{CertificateError, Error as TlsError};

/// How an explanation names a server.
pub(crate) struct Server {
    pub name: &'static str,
    /// What to change if the server does not accept TLS.
    pub plain: &'static str,
}

pub(crate) const POSTGRES: Server = Server {
    name: "Postgres",
    plain: "set `ssl = on` in Postgres, or write sslmode=disable into the URL if the network is trusted",
};

pub(crate) const REDIS: Server = Server {
    name: "Redis",
    plain: "the port in the URL must be the `tls-port` of Redis; a URL without TLS begins with redis://",
};

/// Why a handshake failed.
enum Fault<'a> {
    Tls(&'a TlsError),
    /// The server closed the connection in the middle of the handshake.
    Ended,
}

/// Returns the explanation of an error that TLS caused, anywhere in its chain of causes.
pub(crate) fn explain(error: &(dyn Error + 'static), server: &Server) -> Option<String> {
    Some(match find(error)? {
        Fault::Tls(fault) => describe(fault, server),
        Fault::Ended => no_tls(server),
    })
}

/// Returns whether the program rejected the certificate of the server. Another attempt would end in the same way.
pub(crate) fn is_rejected(error: &(dyn Error + 'static)) -> bool {
    matches!(find(error), Some(Fault::Tls(TlsError::InvalidCertificate(_))))
}

fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<Fault<'a>> {
    if let Some(fault) = error.downcast_ref() {
        return Some(Fault::Tls(fault));
    }
    // The client of Redis shares its causes. The source of an error in an `Arc` is that of the shared error.
    if let Some(shared) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        return find(&**shared);
    }
    if let Some(failure) = error.downcast_ref::<io::Error>() {
        // The text of `tokio-rustls`.
        if failure.kind() == io::ErrorKind::UnexpectedEof && failure.to_string() == "tls handshake eof" {
            return Some(Fault::Ended);
        }
        if let Some(cause) = failure.get_ref() {
            return find(cause);
        }
    }
    find(error.source()?)
}

/// Returns the explanation for a server that does not accept TLS.
pub(crate) fn no_tls(Server { name, plain }: &Server) -> String {
    format!("{name} does not answer with TLS: {plain}")
}

fn describe(fault: &TlsError, server: &Server) -> String {
    let name = server.name;
    match fault {
        TlsError::InvalidCertificate(fault) => of_certificate(fault, name),
        TlsError::InvalidMessage(_) => no_tls(server),
        TlsError::AlertReceived(alert) => format!(
            "{name} ends the TLS handshake with the alert {alert:?}: if it requires a certificate of its clients, name \
             one in the options `sslcert` and `sslkey` of the URL"
        ),
        other => format!("TLS with {name} fails: {other}"),
    }
}

fn of_certificate(fault: &CertificateError, name: &str) -> String {
    match fault {
        // An authority of the same name with another key leads to a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "the certificate of {name} is from an authority that this program does not trust: name the file of the \
             authority in CONFAB_CA_FILE, or in the option `sslrootcert` of the URL"
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
            "the certificate of {name} is for another host ({fault}): the host in the URL must be a name in the \
             certificate"
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("the certificate of {name} has expired ({fault}): renew it")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the certificate of {name} is not valid yet ({fault}): compare the clocks of both machines")
        }
        other => format!("the certificate of {name} cannot be used: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, InvalidMessage};

    use super::*;

    #[test]
    fn explanations_say_what_to_change() {
        for (fault, advice) in [
            (CertificateError::UnknownIssuer.into(), "name the file of the authority in CONFAB_CA_FILE"),
            (CertificateError::BadSignature.into(), "name the file of the authority in CONFAB_CA_FILE"),
            (CertificateError::NotValidForName.into(), "the host in the URL must be a name in the certificate"),
            (CertificateError::Expired.into(), "has expired (Expired): renew it"),
            (CertificateError::NotValidYet.into(), "compare the clocks"),
            (TlsError::AlertReceived(AlertDescription::CertificateRequired), "`sslcert` and `sslkey`"),
            (TlsError::InvalidMessage(InvalidMessage::InvalidContentType), "a URL without TLS begins with redis://"),
        ] {
            let error = io::Error::new(io::ErrorKind::InvalidData, fault);
            let explained = explain(&error, &REDIS).unwrap();
            assert!(explained.contains(advice), "{explained}");
            let shared: Arc<dyn Error + Send + Sync> = Arc::new(error);
            assert_eq!(explain(&shared, &REDIS).unwrap(), explained);
            assert_eq!(is_rejected(&shared), explained.contains("certificate of Redis"));
        }
        let ended = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
        assert!(explain(&ended, &POSTGRES).unwrap().contains("set `ssl = on` in Postgres") && !is_rejected(&ended));
    }

    #[test]
    fn other_errors_have_no_explanation() {
        for error in [io::ErrorKind::ConnectionRefused.into(), io::Error::other("x"), io::Error::from_raw_os_error(104)]
        {
            assert_eq!(explain(&error, &POSTGRES), None);
        }
    }
}
