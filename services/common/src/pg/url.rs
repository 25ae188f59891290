//! The options of a `postgres://` URL. libpq accepts more options than the driver does, and providers' URLs contain
//! them. Options are forwarded to the driver, translated, ignored where Confab behaves that way anyway, or rejected by
//! name.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{SslMode, SslNegotiation};

use super::tls::{TLS12, TLS13, Tls, Verify};
use crate::trust::Authorities;

/// Options that the driver supports.
const DRIVERS: &[&str] = &[
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "sslnegotiation",
    "tcp_user_timeout",
    "user",
];

/// Options without an effect here, with the values for which that is true; an empty list means every value.
const WITHOUT_EFFECT: &[(&str, &[&str])] = &[
    ("client_encoding", &["utf8", "utf-8", "unicode", "auto"]),
    ("fallback_application_name", &[]),
    ("gssdelegation", &["0"]),
    ("gssencmode", &["disable", "prefer"]),
    ("gsslib", &[]),
    ("krbsrvname", &[]),
    ("max_protocol_version", &["3.0", "3.2", "latest"]),
    ("min_protocol_version", &["3.0"]),
    ("requiressl", &["0"]),
    ("sslcertmode", &["disable", "allow"]),
    ("sslcompression", &["0", "1"]),
    ("sslsni", &["1"]),
    ("ssl_max_protocol_version", &["tlsv1.3"]),
    ("ssl_min_protocol_version", &["tlsv1", "tlsv1.1", "tlsv1.2"]),
];

const MALFORMED: &str =
    "its account, host or port is malformed; in a password, write @ as %40, / as %2F, ? as %3F, : as %3A and % as %25";

#[derive(Debug)]
pub(super) struct Target {
    pub config: Config,
    pub tls: Tls,
}

impl Target {
    /// Parses a URL and reads the files that it names.
    ///
    /// # Errors
    /// When the URL is malformed or has an unknown option. The message names the option, but quotes no value and no
    /// text that may be part of a password.
    pub fn parse(url: &str) -> Result<Self> {
        // Like the driver: the first `@` ends the account.
        let account = url.find('@').unwrap_or_default();
        let (place, options) =
            url[account..].split_once('?').map_or((url, ""), |(host, options)| (&url[..account + host.len()], options));
        ensure!(place.parse::<Config>().is_ok(), MALFORMED);
        let mut given = Given::default();
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').context("one of its options has no value")?;
            let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
            // After a second `@`, this may be the end of a password.
            ensure!(is_name && (DRIVERS.contains(&name) || !options.contains('@')), MALFORMED);
            let text = percent_decode_str(value)
                .decode_utf8()
                .ok()
                .with_context(|| format!("its option `{name}` is not UTF-8"))?;
            given.take(name, value, &text).with_context(|| format!("its option `{name}`"))?;
        }
        given.target(place)
    }
}

#[derive(Default)]
struct Given {
    drivers: Vec<String>,
    mode: Option<SslMode>,
    verify: Option<Verify>,
    tls: Tls,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Given {
    /// Stores an option, given its raw and its decoded value.
    fn take(&mut self, name: &str, raw: &str, text: &str) -> Result<()> {
        let lower = text.to_ascii_lowercase();
        match (name, text) {
            ("sslmode", "disable") => self.mode = Some(SslMode::Disable),
            ("sslmode", "prefer") => self.mode = Some(SslMode::Prefer),
            ("sslmode", "require" | "verify-full") | ("requiressl", "1") | ("ssl", "true") => {
                self.require(Verify::Name)
            }
            ("sslmode", "verify-ca") => self.require(Verify::Authority),
            ("sslmode", "allow") => {
                bail!("must not be allow, which prefers plain text: use verify-full, require, verify-ca or prefer")
            }
            ("sslmode", _) => bail!("must be disable, prefer, require, verify-ca or verify-full"),
            ("sslrootcert", "system") => self.tls.authorities = Some(Authorities::own().clone()),
            ("sslrootcert", file) => self.tls.authorities = Some(Authorities::in_file(file.as_ref())?),
            ("sslcert", file) => self.certificate = Some(file.into()),
            ("sslkey", file) => self.key = Some(file.into()),
            ("ssl_min_protocol_version", _) if lower == "tlsv1.3" => self.tls.versions = TLS13,
            ("ssl_max_protocol_version", _) if lower == "tlsv1.2" => self.tls.versions = TLS12,
            ("target_session_attrs", "any") => self.drivers.push("target_session_attrs=any".into()),
            ("target_session_attrs", "read-write" | "primary") => {
                self.drivers.push("target_session_attrs=read-write".into())
            }
            ("target_session_attrs", _) => bail!("must be read-write, primary or any: Confab writes"),
            ("keepalives_count", _) => return self.forward("keepalives_retries", raw),
            ("passfile" | "service" | "servicefile", _) => {
                bail!(
                    "is not supported: put the password into the URL, and the URL into a file that CONFAB_…_STORE_FILE names"
                )
            }
            _ if DRIVERS.contains(&name) => return self.forward(name, raw),
            _ => match WITHOUT_EFFECT.iter().find(|(known, _)| *known == name) {
                Some((_, values)) if values.is_empty() || values.contains(&&*lower) => {}
                Some((_, values)) => bail!("has an unsupported value; supported are: {}", values.join(", ")),
                None => bail!("is not supported"),
            },
        }
        Ok(())
    }

    fn require(&mut self, verify: Verify) {
        (self.mode, self.verify) = (Some(SslMode::Require), Some(verify));
    }

    fn forward(&mut self, name: &str, raw: &str) -> Result<()> {
        let option = format!("{name}={raw}");
        ensure!(format!("postgres://@?{option}").parse::<Config>().is_ok(), "has an unsupported value");
        self.drivers.push(option);
        Ok(())
    }

    fn target(mut self, place: &str) -> Result<Target> {
        // Defaults come first, because the last occurrence of an option counts.
        self.drivers.insert(0, "target_session_attrs=read-write".into());
        let mut config = format!("{place}?{}", self.drivers.join("&")).parse::<Config>().ok().context(MALFORMED)?;
        // libpq takes an address as the name of a host without a name; TLS needs a name.
        if config.get_hosts().is_empty() {
            for address in config.get_hostaddrs().to_vec() {
                config.host(address.to_string());
            }
        }
        ensure!(!config.get_hosts().is_empty(), "it names no host");
        // A URL that names an authority wants a verified server, and plain text would be none.
        if self.mode.is_none() && self.tls.authorities.is_some() {
            self.require(Verify::Name);
        }
        let mode = self.mode.unwrap_or(SslMode::Prefer);
        let direct = config.get_ssl_negotiation() == SslNegotiation::Direct;
        ensure!(
            !direct || mode == SslMode::Require,
            "its option `sslnegotiation`: direct needs sslmode=verify-full, verify-ca or require"
        );
        config.ssl_mode(mode);
        // As in libpq, a root certificate makes the weaker modes verify.
        let weakest = if self.tls.authorities.is_some() { Verify::Authority } else { Verify::Nothing };
        self.tls.verify = self.verify.unwrap_or(weakest);
        self.tls.identity = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => bail!("its options `sslcert` and `sslkey` require each other"),
        };
        // Reads the files that the URL names.
        self.tls.config()?;
        Ok(Target { config, tls: self.tls })
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::{ChannelBinding, Host};

    use super::*;

    fn with(options: &str) -> Result<Target> {
        Target::parse(&format!("postgres://u:hunter2@h/d?{options}"))
    }

    fn refusal(url: &str) -> String {
        format!("{:#}", Target::parse(url).err().unwrap_or_else(|| panic!("{url} is accepted")))
    }

    #[test]
    fn tls_modes() {
        for (options, mode, verify) in [
            ("", SslMode::Prefer, Verify::Nothing),
            ("sslmode=prefer", SslMode::Prefer, Verify::Nothing),
            ("sslmode=disable", SslMode::Disable, Verify::Nothing),
            ("sslmode=require", SslMode::Require, Verify::Name),
            ("sslmode=verify-full", SslMode::Require, Verify::Name),
            ("sslmode=verify%2Dfull", SslMode::Require, Verify::Name),
            ("sslmode=verify-ca", SslMode::Require, Verify::Authority),
            ("sslmode=disable&sslmode=verify-full", SslMode::Require, Verify::Name),
            ("ssl=true", SslMode::Require, Verify::Name),
            ("requiressl=1", SslMode::Require, Verify::Name),
            ("sslrootcert=system", SslMode::Require, Verify::Name),
            ("sslrootcert=system&sslmode=prefer", SslMode::Prefer, Verify::Authority),
            ("sslrootcert=system&sslmode=disable", SslMode::Disable, Verify::Authority),
            ("sslmode=verify-full&sslrootcert=system", SslMode::Require, Verify::Name),
        ] {
            let target = with(options).unwrap();
            assert_eq!((target.config.get_ssl_mode(), target.tls.verify), (mode, verify), "{options}");
        }
        assert_eq!(with("ssl_min_protocol_version=TLSv1.3").unwrap().tls.versions, TLS13);
    }

    #[test]
    fn options_in_providers_urls_are_accepted() {
        let everything = WITHOUT_EFFECT.iter().flat_map(|(name, values)| {
            values
                .iter()
                .chain(if values.is_empty() { &["x"][..] } else { &[] })
                .map(move |value| format!("{name}={value}"))
        });
        let options = everything.collect::<Vec<_>>().join("&");
        let target =
            with(&format!("{options}&channel_binding=require&keepalives_count=3&client_encoding=UTF8")).unwrap();
        assert_eq!(
            (target.config.get_channel_binding(), target.config.get_keepalives_retries()),
            (ChannelBinding::Require, Some(3))
        );
        assert_eq!(target.config.get_password(), Some(&b"hunter2"[..]));
        let attributes = |options: &str| with(options).unwrap().config.get_target_session_attrs();
        assert_eq!(attributes(""), attributes("target_session_attrs=primary"));
        assert_ne!(attributes(""), attributes("target_session_attrs=any"));
    }

    #[test]
    fn every_address_form_is_accepted() {
        for (url, host) in [
            ("postgres://u@h:1/d", Host::Tcp("h".into())),
            ("postgresql://u:p%40%3F@[fd00::12]:5432/d", Host::Tcp("fd00::12".into())),
            ("postgres:///d?host=/run/postgresql", Host::Unix("/run/postgresql".into())),
            ("postgres://%2Frun%2Fpostgresql/d", Host::Unix("/run/postgresql".into())),
            ("postgres://u@/d?hostaddr=10.0.0.1", Host::Tcp("10.0.0.1".into())),
        ] {
            assert_eq!(Target::parse(url).unwrap().config.get_hosts(), [host], "{url}");
        }
        assert_eq!(Target::parse("postgres://a:1,b:2/d").unwrap().config.get_ports(), [1, 2]);
    }

    #[test]
    fn errors_name_the_option_but_not_its_value() {
        for (option, why) in [
            ("pool_max_conns=10", "its option `pool_max_conns`: is not supported"),
            ("pgbouncer=true", "its option `pgbouncer`: "),
            ("sslmode=hunter2", "its option `sslmode`: must be disable, prefer"),
            ("sslmode=allow", "its option `sslmode`: must not be allow"),
            ("sslmode=", "its option `sslmode`: "),
            ("gssencmode=require", "its option `gssencmode`: has an unsupported value"),
            ("channel_binding=hunter2", "its option `channel_binding`: has an unsupported value"),
            ("connect_timeout=hunter2", "its option `connect_timeout`: has an unsupported value"),
            ("client_encoding=latin1", "its option `client_encoding`: has an unsupported value"),
            ("target_session_attrs=standby", "its option `target_session_attrs`: must be read-write"),
            ("passfile=hunter2", "its option `passfile`: is not supported: put"),
            ("sslrootcert=/nowhere/ca.pem", "its option `sslrootcert`: cannot read /nowhere/ca.pem"),
            ("sslcert=/nowhere/a.pem", "its options `sslcert` and `sslkey` require each other"),
            ("sslcert=/nowhere/a.pem&sslkey=/nowhere/a.key", "its option `sslcert`: /nowhere/a.pem"),
            ("sslnegotiation=direct", "its option `sslnegotiation`: direct needs"),
            ("application_name=%FF", "its option `application_name` is not UTF-8"),
            ("hunter2", "one of its options has no value"),
        ] {
            let error = refusal(&format!("postgres://u:hunter2@h/d?{option}"));
            assert!(error.starts_with(why) && !error.contains("hunter2"), "{option}: {error}");
        }
    }

    #[test]
    fn password_parts_are_not_parsed_as_options() {
        for url in [
            "postgres://u:p@ss?hunter2=x@h/d",
            "postgres://u:p@ss/hunter2?hunter2=1&a=b@h/d",
            "postgres://u:p@s:hunter2@h/d",
            "postgres://u:hunter2",
            "postgres://u:p?hunter2=1",
            "postgres://[hunter2",
        ] {
            let error = refusal(url);
            assert!(error.contains("in a password, write @ as %40") && !error.contains("hunter2"), "{url}: {error}");
        }
        assert_eq!(refusal("postgres:///d"), "it names no host");
    }
}
