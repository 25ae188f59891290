//! docs/settings.md, generated from the `--help` of the programs.

use clap::{Arg, Command, CommandFactory};
use confab_common::config::KNOWN;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md");
const HEAD: &str = "\
# Settings

A test generates this document from the programs' `--help`. To change a text, change it there, then run
`RENEW=1 cargo test --workspace settings`.

* Each setting is a variable and a `--flag`: `CONFAB_TOKEN_TTL` is `--token-ttl`. A flag takes precedence over a variable.
* `CONFAB_X_FILE` names a file that holds the value of `CONFAB_X`, such as a mounted secret. This works for every setting; those
  marked **secret** are never printed, and are better kept in a file.
* Spaces and line ends around the value of a variable or file are removed; control characters within it are an error.
* An unknown `CONFAB_` variable is an error. A setting of another program is not, so all programs can share one environment.
* Durations are whole numbers with a unit: `250ms`, `30s`, `5m`, `24h`. Sizes are in bytes.
* *services* are confab-auth, confab-room, confab-message and confab-file; *confab* is all of them and the gateway in one process.
* OpenTelemetry's own variables configure traces, see [tracing.md](tracing.md).
";
const SERVICES: [&str; 4] = ["auth", "room", "message", "file"];

struct Setting {
    program: String,
    theme: String,
    name: String,
    default: String,
    what: String,
    secret: bool,
}

impl Setting {
    fn of(program: &Command, arg: &Arg) -> Option<Self> {
        let help = arg.get_long_help().or_else(|| arg.get_help())?.to_string().replace('|', "\\|");
        // A computed default is a note at the end of the help text.
        let (what, computed) = match help.split_once(" [default: ") {
            Some((what, computed)) => (what.to_string(), computed.trim_end_matches(']').to_string()),
            None => (help, String::new()),
        };
        let defaults =
            arg.get_default_values().iter().map(|value| format!("`{}`", value.display())).collect::<Vec<_>>();
        Some(Self {
            program: program.get_name().trim_start_matches("confab-").to_string(),
            theme: arg.get_help_heading()?.to_string(),
            name: arg.get_env()?.to_str()?.to_string(),
            default: if defaults.is_empty() { computed } else { defaults.join(",") },
            what,
            secret: arg.is_hide_env_values_set(),
        })
    }
}

/// Returns the text that the programs share, or each program's text with the program's name.
fn joined<'a>(settings: &[&'a Setting], text: impl Fn(&'a Setting) -> &'a str) -> String {
    let mut texts: Vec<(&str, Vec<&str>)> = Vec::new();
    for setting in settings {
        match texts.iter_mut().find(|(known, _)| *known == text(setting)) {
            Some((_, programs)) => programs.push(&setting.program),
            None => texts.push((text(setting), vec![setting.program.as_str()])),
        }
    }
    match &texts[..] {
        [(text, _)] => text.to_string(),
        _ => {
            let of = |(text, programs): &(&str, Vec<&str>)| {
                format!("{}: {}", named(programs), if text.is_empty() { "none" } else { *text })
            };
            texts.iter().map(of).collect::<Vec<_>>().join("; ")
        }
    }
}

fn named(programs: &[&str]) -> String {
    let services = SERVICES.iter().all(|service| programs.contains(service));
    let others = programs.iter().filter(|program| !services || !SERVICES.contains(program)).copied();
    let named = others.chain(services.then_some("services")).collect::<Vec<_>>();
    if services && named.len() == 3 { "all".into() } else { named.join(", ") }
}

fn document() -> String {
    let programs = [
        crate::config::Program::command(),
        confab_gateway::Program::command(),
        confab_auth::Program::command(),
        confab_room::Program::command(),
        confab_message::Program::command(),
        confab_file::Program::command(),
    ];
    let settings =
        programs.iter().flat_map(|program| program.get_arguments().filter_map(move |arg| Setting::of(program, arg)));
    let settings = settings.collect::<Vec<_>>();
    let (mut themes, mut text) = (Vec::new(), HEAD.to_string());
    for theme in settings.iter().map(|setting| &setting.theme) {
        if !themes.contains(&theme) {
            themes.push(theme);
        }
    }
    for theme in themes {
        text += &format!("\n## {theme}\n\n| variable | default | of | what |\n|---|---|---|---|\n");
        let mut names = Vec::new();
        for setting in settings.iter().filter(|setting| &setting.theme == theme) {
            if names.contains(&&setting.name) {
                continue;
            }
            names.push(&setting.name);
            let same = settings.iter().filter(|other| other.name == setting.name).collect::<Vec<_>>();
            let programs = same.iter().map(|setting| setting.program.as_str()).collect::<Vec<_>>();
            let secret = if setting.secret { " **secret**" } else { "" };
            let (default, what) = (joined(&same, |setting| &setting.default), joined(&same, |setting| &setting.what));
            text += &format!("| `{}`{secret} | {default} | {} | {what} |\n", setting.name, named(&programs));
        }
    }
    text
}

#[test]
fn settings_document_matches_the_programs() {
    let document = document();
    let missing = KNOWN.iter().filter(|name| !document.contains(&format!("| `CONFAB_{name}`"))).collect::<Vec<_>>();
    assert!(missing.is_empty(), "settings without a heading in any program's --help: {missing:?}");
    if std::env::var_os("RENEW").is_some() {
        std::fs::write(FILE, &document).unwrap();
    }
    let kept = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        kept == document,
        "docs/settings.md differs from the programs' --help: RENEW=1 cargo test --workspace settings"
    );
}
