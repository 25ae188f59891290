//! Reads settings from flags, from `CONFAB_` variables, and from the files that `CONFAB_…_FILE` variables name.

use std::ffi::OsString;

use anyhow::{Context, bail};
use clap::error::{ContextKind, ContextValue};

use super::KNOWN;

/// Settings whose value may have several lines: keys in PEM, lists in JSON.
const LINES: &[&str] = &["ISSUERS", "SIGNING_KEY"];

/// Reads a program's settings. `--help`, `--version` and unknown flags end the process.
///
/// # Errors
/// An unknown `CONFAB_` variable, an unreadable file, a setting given twice, or a control character in a value.
pub fn read(command: clap::Command) -> anyhow::Result<clap::ArgMatches> {
    let set = variables(&command, std::env::vars_os())?;
    let arguments = arguments(&set, std::env::args_os().collect());
    command.args_override_self(true).try_get_matches_from(arguments).or_else(|error| {
        let _ = error.print();
        if let Some(variable) = culprit(&error, &set) {
            eprintln!("The value is that of {variable}.");
        }
        std::process::exit(error.exit_code())
    })
}

/// A setting of the program, from a variable or a file.
struct Set {
    variable: String,
    flag: String,
    value: String,
}

/// Collects the program's settings from the environment.
fn variables(
    command: &clap::Command,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> anyhow::Result<Vec<Set>> {
    let ours = environment.filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect::<Vec<_>>();
    let mut set = Vec::new();
    for (variable, value) in &ours {
        let Some(name) = variable.strip_prefix("CONFAB_") else { continue };
        let of_file = name.strip_suffix("_FILE").filter(|setting| KNOWN.contains(setting) && !KNOWN.contains(&name));
        let setting = match of_file {
            Some(setting) => setting,
            None if KNOWN.contains(&name) => name,
            None if is_service_link(name) => continue,
            None => bail!("unknown setting {variable}{}", hint(name)),
        };
        let env = format!("CONFAB_{setting}");
        let argument =
            command.get_arguments().find(|argument| argument.get_env().is_some_and(|own| own == env.as_str()));
        // A setting without a flag belongs to another program.
        let Some(flag) = argument.and_then(|argument| argument.get_long()) else { continue };
        let mut value = clean(variable, setting, value.to_str().with_context(|| format!("{variable} is not UTF-8"))?)?;
        let file;
        if of_file.is_some() {
            if ours.iter().any(|(other, _)| *other == env) {
                bail!("{env} and {variable} are both set; unset one of them");
            }
            file = std::fs::read_to_string(value).with_context(|| format!("{variable}: cannot read {value}"))?;
            value = clean(variable, setting, &file)?;
        }
        set.push(Set { variable: variable.clone(), flag: flag.into(), value: value.into() });
    }
    Ok(set)
}

/// Removes the line end and the spaces that editors, `echo` and mounted secrets add.
fn clean<'a>(variable: &str, setting: &str, text: &'a str) -> anyhow::Result<&'a str> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let wrong = |c: char| c.is_control() && !(LINES.contains(&setting) && matches!(c, '\r' | '\n' | '\t'));
    match text.chars().position(wrong) {
        Some(at) => bail!(
            "{variable} has a control character, such as a line end or a tab, at position {} of its value",
            at + 1
        ),
        None => Ok(text),
    }
}

/// Returns the program's arguments, preceded by the settings of the environment that the arguments do not set.
fn arguments(set: &[Set], mut arguments: Vec<OsString>) -> Vec<OsString> {
    let is_given = |flag: &str| {
        let given = arguments.iter().filter_map(|argument| argument.to_str()?.strip_prefix("--")?.strip_prefix(flag));
        given.into_iter().any(|rest| rest.is_empty() || rest.starts_with('='))
    };
    let set = set
        .iter()
        .filter(|set| !is_given(&set.flag))
        .map(|set| format!("--{}={}", set.flag, set.value).into())
        .collect::<Vec<_>>();
    // Inserted between the program's name and its flags, so that a subcommand stays last.
    let at = 1.min(arguments.len());
    arguments.splice(at..at, set);
    arguments
}

/// Returns the variable whose value is wrong.
fn culprit<'a>(error: &clap::Error, set: &'a [Set]) -> Option<&'a str> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return None };
    let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) else { return None };
    let flag = argument.split([' ', '=']).next()?.trim_start_matches("--");
    set.iter().find(|set| set.flag == flag && set.value.contains(value)).map(|set| set.variable.as_str())
}

/// Returns whether Kubernetes injects this variable for a Service whose name begins with `confab-`.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST") || name.ends_with("_PORT") || name.contains("_PORT_")
}

/// Returns advice for an unknown name. There is no advice if the nearest setting differs too much, or if the name is
/// `…_FILE` for a setting that does not exist.
fn hint(name: &str) -> String {
    let (setting, end) = name.strip_suffix("_FILE").map_or((name, ""), |setting| (setting, "_FILE"));
    match (nearest(setting), end) {
        ((nearest, distance), _) if 3 * distance <= setting.len() => format!("; did you mean CONFAB_{nearest}{end}?"),
        (_, "") => "; --help lists the program's settings".into(),
        _ => format!("; there is no setting CONFAB_{setting} that a file could contain"),
    }
}

/// Returns the known name nearest to `name` and the number of differing characters.
fn nearest(name: &str) -> (&'static str, usize) {
    let known = KNOWN.iter().map(|known| (*known, strsim::damerau_levenshtein(known, name)));
    known.min_by_key(|(_, distance)| *distance).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::Secret;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[arg(long, env = "CONFAB_BUS", default_value = "local:")]
        bus: Secret,
        #[arg(long, env = "CONFAB_SIGNING_KEY")]
        signing_key: Option<String>,
        #[arg(long, env = "CONFAB_ISSUERS")]
        issuers: Option<String>,
        #[arg(long, env = "CONFAB_ALLOWED_ORIGINS", value_delimiter = ',')]
        allowed_origins: Vec<String>,
        #[arg(long, env = "CONFAB_MAX_UPLOADS", default_value_t = 1)]
        max_uploads: usize,
    }

    fn with(environment: &[(&str, &str)]) -> anyhow::Result<Program> {
        parsed(environment, &[])
    }

    fn parsed(environment: &[(&str, &str)], flags: &[&str]) -> anyhow::Result<Program> {
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        let flags = ["program"].iter().chain(flags).map(OsString::from).collect();
        let set = variables(&Program::command(), environment)?;
        let given = Program::command().try_get_matches_from(arguments(&set, flags));
        let matches = given.map_err(|error| anyhow::anyhow!("{error}; {:?}", culprit(&error, &set)))?;
        Ok(Program::from_arg_matches(&matches)?)
    }

    /// A file with this content.
    fn file(content: &str) -> String {
        let path = crate::testing::directory().join("value");
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().into()
    }

    #[test]
    fn secrets_are_read_from_files_and_never_printed() {
        let file = file("redis://:hunter2@localhost\n");
        let by_file = [("CONFAB_BUS_FILE", &*file)];
        let (program, by_hand) = (with(&by_file).unwrap(), parsed(&by_file, &["--bus", "redis://other"]).unwrap());
        assert_eq!(program.bus.expose(), "redis://:hunter2@localhost");
        assert!(!format!("{program:?}").contains("hunter2"));
        assert_eq!(by_hand.bus.expose(), "redis://other");
        let twice = with(&[by_file[0], ("CONFAB_BUS", "local:")]).unwrap_err().to_string();
        assert_eq!(twice, "CONFAB_BUS and CONFAB_BUS_FILE are both set; unset one of them");
    }

    #[test]
    fn surrounding_whitespace_is_removed() {
        for around in ["redis://a\n", "redis://a\r\n", " redis://a\t", "\u{feff}redis://a", "\n\nredis://a \n"] {
            for program in [with(&[("CONFAB_BUS", around)]), with(&[("CONFAB_BUS_FILE", &(file(around) + "\n"))])] {
                assert_eq!(program.unwrap().bus.expose(), "redis://a", "{around:?}");
            }
        }
        assert_eq!(with(&[("CONFAB_MAX_UPLOADS", "7\n")]).unwrap().max_uploads, 7);
        let pem = "-----BEGIN\r\nkey\n-----END";
        assert_eq!(with(&[("CONFAB_SIGNING_KEY", &format!("{pem}\n"))]).unwrap().signing_key.unwrap(), pem);
        let list = "[\r\n\t{\"issuer\": \"a\"},\n\t{\"issuer\": \"b\"}\n]";
        assert_eq!(with(&[("CONFAB_ISSUERS_FILE", &file(&format!("{list}\n")))]).unwrap().issuers.unwrap(), list);
        assert_eq!(with(&[("CONFAB_BUS", "")]).unwrap().bus.expose(), "");
    }

    #[test]
    fn control_characters_are_rejected_naming_the_variable() {
        for bad in ["redis://a\nhunter2", "redis://\thunter2", "hunter2\u{7f}x", "hunter2\0x"] {
            for (variable, value) in [("CONFAB_BUS", bad), ("CONFAB_BUS_FILE", &file(bad))] {
                let error = with(&[(variable, value)]).unwrap_err().to_string();
                assert!(
                    error.starts_with(&format!("{variable} has a control character")) && !error.contains("hunter2"),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn flags_override_variables_and_errors_name_the_source() {
        let origins = [("CONFAB_ALLOWED_ORIGINS", "https://a, https://b")];
        assert_eq!(with(&origins).unwrap().allowed_origins, ["https://a", " https://b"]);
        assert_eq!(parsed(&origins, &["--allowed-origins=https://c"]).unwrap().allowed_origins, ["https://c"]);
        let error = |flags: &[&str]| parsed(&[("CONFAB_MAX_UPLOADS", "many")], flags).unwrap_err().to_string();
        assert!(error(&[]).ends_with("Some(\"CONFAB_MAX_UPLOADS\")"), "{}", error(&[]));
        assert!(error(&["--max-uploads=few"]).ends_with("None"), "{}", error(&["--max-uploads=few"]));
        assert_eq!(parsed(&[("CONFAB_MAX_UPLOADS", "many")], &["--max-uploads", "2"]).unwrap().max_uploads, 2);
    }

    #[test]
    fn unknown_variables_are_rejected_with_a_suggestion() {
        let error = with(&[("CONFAB_LISTENN", "x")]).unwrap_err().to_string();
        assert!(error.contains("CONFAB_LISTENN") && error.ends_with("CONFAB_LISTEN?"), "{error}");
        let far = with(&[("CONFAB_NOPE", "x")]).unwrap_err().to_string();
        assert_eq!(far, "unknown setting CONFAB_NOPE; --help lists the program's settings");
        for (file, hint) in [
            ("CONFAB_SIGNNG_KEY_FILE", "did you mean CONFAB_SIGNING_KEY_FILE?"),
            ("CONFAB_MAX_FILESIZE", "did you mean CONFAB_MAX_FILE_SIZE?"),
            ("CONFAB_FOO_FILE", "there is no setting CONFAB_FOO that a file could contain"),
            ("CONFAB_NO_SUCH_FILE", "there is no setting CONFAB_NO_SUCH that a file could contain"),
        ] {
            let error = with(&[(file, "x")]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("unknown setting {file}; ")) && error.ends_with(hint), "{error}");
        }
        assert!(
            with(&[
                ("CONFAB_GATEWAY_SERVICE_HOST", "10.0.0.1"),
                ("CONFAB_GATEWAY_PORT_80_TCP", "tcp://"),
                ("CONFAB_TOKEN_TTL", "1h")
            ])
            .is_ok()
        );
    }
}
