//! Settings: `CONFAB_…` variables, each also a `--flag`, each also readable from the file named by `CONFAB_…_FILE`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};

/// Every setting of any Confab program, without its `CONFAB_` prefix. One list, so that all replicas of a cluster can
/// share one environment and a typing error is still found.
pub const KNOWN: &[&str] = &[
    "ACCEPT_DRAIN",
    "ADMIN_LISTEN",
    "ALLOWED_ORIGINS",
    "ANONYMOUS_READ",
    "AUTH_STORE",
    "AUTH_URL",
    "BUS",
    "CLUSTER_KEY",
    "CONNECT_TIMEOUT",
    "DATA_DIR",
    "DRAIN",
    "FILE_STORE",
    "FILE_URL",
    "FORWARD_ADDRESS",
    "FORWARD_LISTEN",
    "GATEWAY_URL",
    "GRPC_REFLECTION",
    "IDLE_TIMEOUT",
    "INSECURE_BUS",
    "LINK_TTL",
    "LISTEN",
    "LOG",
    "LOG_FORMAT",
    "MAX_CONNECTIONS",
    "MAX_DOWNLOADS",
    "MAX_EVENTS_PER_SECOND",
    "MAX_FILE_SIZE",
    "MAX_OUTBOX_BYTES",
    "MAX_PACKET",
    "MAX_PENDING_SESSIONS",
    "MAX_ROOMS_PER_SOCKET",
    "MAX_SOCKETS_PER_USER",
    "MAX_UPLOADS",
    "MEDIA_LINK_TTL",
    "MESSAGE_STORE",
    "MESSAGE_URL",
    "MIGRATE",
    "OBJECTS",
    "ORPHAN_AGE",
    "PARTITIONS",
    "PING_INTERVAL",
    "PING_TIMEOUT",
    "POSTGRES_CONNECTIONS",
    "PUBLIC_HOSTS",
    "REQUEST_TIMEOUT",
    "ROOM_STORE",
    "ROOM_URL",
    "S3_ACCESS_KEY_ID",
    "S3_ENDPOINT",
    "S3_REGION",
    "S3_SECRET_ACCESS_KEY",
    "SIGNING_KEY",
    "SWEEP_EVERY",
    "TOKEN_TTL",
    "TRUSTED_PROXIES",
    "TRUST_TRACEPARENT",
    "UPLOAD_MEMORY",
];

/// A setting that must not be printed: keys, and URLs that may contain a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, which must not be printed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(value: T) -> Self {
        Self(value.into())
    }
}

/// Settings of every program.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Every program")]
pub struct CommonConfig {
    /// Address to serve on
    #[arg(long, env = "CONFAB_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Address of /livez, /readyz and /metrics
    #[arg(long, env = "CONFAB_ADMIN_LISTEN", default_value = "127.0.0.1:9464", value_name = "ADDRESS")]
    pub admin_listen: SocketAddr,
    /// What to log: a level, or directives such as `info,confab_gateway=debug`
    #[arg(long, env = "CONFAB_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// `text` for people, `json` for machines
    #[arg(long, env = "CONFAB_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Longest duration of a shutdown after SIGTERM, in which requests are finished and sockets moved
    #[arg(long, env = "CONFAB_DRAIN", default_value = "30s", value_name = "DURATION", value_parser = duration)]
    pub drain: Duration,
    /// How long to keep accepting after SIGTERM, until the load balancer has noticed
    #[arg(long, env = "CONFAB_ACCEPT_DRAIN", default_value = "0s", value_name = "DURATION", value_parser = duration)]
    pub accept_drain: Duration,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Whether a program changes its database schema when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Migrate {
    /// Apply missing migrations, under a lock.
    Auto,
    /// Wait until another process has applied them.
    Off,
}

/// Parses a duration such as `250ms`, `30s`, `5m`, `24h`.
///
/// # Errors
/// When the text is not a duration; the message shows the format.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("must be a number with a unit: 250ms, 30s, 5m, 24h".into()),
    };
    u64::from_str(number)
        .ok()
        .and_then(|n| n.checked_mul(milliseconds))
        .map(Duration::from_millis)
        .ok_or_else(|| "must be a whole number with a unit: 250ms, 30s, 5m, 24h".into())
}

/// Parses a count that is not 0.
///
/// # Errors
/// When the text is not such a count.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "must be a whole number from 1 on".into())
}

/// Parses a duration that is not 0, in the format of [`duration`].
///
/// # Errors
/// When the text is not such a duration.
pub fn some_time(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|time| if time.is_zero() { Err("must not be zero".into()) } else { Ok(time) })
}

/// Reads a program's settings from flags, `CONFAB_` variables and the files that `CONFAB_…_FILE` variables name.
/// `--help`, `--version` and wrong flags end the process, as usual.
///
/// # Errors
/// An unknown `CONFAB_` variable, a file that cannot be read, a setting given twice.
pub fn read(command: clap::Command) -> anyhow::Result<clap::ArgMatches> {
    let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let arguments = arguments(&command, std::env::args_os().collect(), environment)?;
    Ok(overridable(command).get_matches_from(arguments))
}

/// Lets a later flag override an earlier one: values from files are passed first.
fn overridable(command: clap::Command) -> clap::Command {
    command.args_override_self(true)
}

/// The program's arguments, preceded by those from files.
fn arguments(
    command: &clap::Command,
    mut arguments: Vec<OsString>,
    environment: impl Iterator<Item = (String, String)>,
) -> anyhow::Result<Vec<OsString>> {
    let mut from_files = Vec::new();
    for (variable, value) in environment {
        let Some(name) = variable.strip_prefix("CONFAB_") else { continue };
        if KNOWN.contains(&name) || is_service_link(name) {
            continue;
        }
        let Some(setting) = name.strip_suffix("_FILE").filter(|setting| KNOWN.contains(setting)) else {
            bail!("unknown setting {variable}{}", hint(name));
        };
        let env = format!("CONFAB_{setting}");
        let Some(flag) = command.get_arguments().find(|a| a.get_env().is_some_and(|e| e == env.as_str())).and_then(|a| a.get_long()) else {
            continue; // a setting of another program
        };
        if std::env::var_os(&env).is_some() {
            bail!("{env} and {variable} are both set; keep one");
        }
        let text = std::fs::read_to_string(&value).with_context(|| format!("{variable}: cannot read {value}"))?;
        from_files.push(OsString::from(format!("--{flag}={}", text.trim_end_matches(['\r', '\n']))));
    }
    // After the program's name and before the user's flags, so that a subcommand stays last.
    let at = 1.min(arguments.len());
    arguments.splice(at..at, from_files);
    Ok(arguments)
}

/// Variables that Kubernetes injects for a Service whose name begins with `confab-`.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST") || name.ends_with("_PORT") || name.contains("_PORT_")
}

/// Advice for an unknown name. Suggesting a setting's name for a file's name would be worse than no advice, and so
/// would a distant guess.
fn hint(name: &str) -> String {
    let (setting, end) = name.strip_suffix("_FILE").map_or((name, ""), |setting| (setting, "_FILE"));
    match (nearest(setting), end) {
        ((nearest, distance), _) if 3 * distance <= setting.len() => format!("; did you mean CONFAB_{nearest}{end}?"),
        (_, "") => "; --help lists all of a program's".into(),
        _ => format!("; there is no CONFAB_{setting} whose value could stand in a file"),
    }
}

/// The known name nearest to another, and the number of typing errors between them.
fn nearest(name: &str) -> (&'static str, usize) {
    let known = KNOWN.iter().map(|known| (*known, strsim::damerau_levenshtein(known, name)));
    known.min_by_key(|(_, distance)| *distance).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, FromArgMatches};

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[arg(long, env = "CONFAB_BUS", default_value = "local:")]
        bus: Secret,
    }

    fn with(environment: &[(&str, &str)]) -> anyhow::Result<Program> {
        told(environment, &[])
    }

    fn told(environment: &[(&str, &str)], flags: &[&str]) -> anyhow::Result<Program> {
        let environment = environment.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        let flags = ["program"].iter().chain(flags).map(OsString::from).collect();
        let arguments = arguments(&Program::command(), flags, environment)?;
        Ok(Program::from_arg_matches(&overridable(Program::command()).try_get_matches_from(arguments)?)?)
    }

    #[test]
    fn a_secret_can_stand_in_a_file_and_is_not_printed() {
        let file = std::env::temp_dir().join(format!("confab-config-{}", std::process::id()));
        std::fs::write(&file, "redis://:hunter2@localhost\n").unwrap();
        let by_file = [("CONFAB_BUS_FILE", file.to_str().unwrap())];
        let (program, by_hand) = (with(&by_file).unwrap(), told(&by_file, &["--bus", "redis://other"]).unwrap());
        std::fs::remove_file(&file).unwrap();
        assert_eq!(program.bus.expose(), "redis://:hunter2@localhost");
        assert!(!format!("{program:?}").contains("hunter2"));
        assert_eq!(by_hand.bus.expose(), "redis://other");
    }

    #[test]
    fn an_unknown_variable_is_an_error_that_names_the_nearest() {
        let error = with(&[("CONFAB_LISTENN", "x")]).unwrap_err().to_string();
        assert!(error.contains("CONFAB_LISTENN") && error.ends_with("CONFAB_LISTEN?"), "{error}");
        let far = with(&[("CONFAB_NOPE", "x")]).unwrap_err().to_string();
        assert_eq!(far, "unknown setting CONFAB_NOPE; --help lists all of a program's");
        for (file, hint) in [
            ("CONFAB_SIGNNG_KEY_FILE", "did you mean CONFAB_SIGNING_KEY_FILE?"),
            ("CONFAB_MAX_FILESIZE", "did you mean CONFAB_MAX_FILE_SIZE?"),
            ("CONFAB_FOO_FILE", "there is no CONFAB_FOO whose value could stand in a file"),
            ("CONFAB_NO_SUCH_FILE", "there is no CONFAB_NO_SUCH whose value could stand in a file"),
        ] {
            let error = with(&[(file, "x")]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("unknown setting {file}; ")) && error.ends_with(hint), "{error}");
        }
        assert!(
            with(&[("CONFAB_GATEWAY_SERVICE_HOST", "10.0.0.1"), ("CONFAB_GATEWAY_PORT_80_TCP", "tcp://"), ("CONFAB_TOKEN_TTL", "1h")])
                .is_ok()
        );
    }

    #[test]
    fn durations() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        for bad in ["", "5", "s", "-1s", "1.5s", "1d", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
