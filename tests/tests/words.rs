//! Words that the project's texts do not use. `CONTRIBUTING.md`, section "Language", shows better ones.

use std::fs;
use std::path::Path;

/// The refused words and phrases, in lower case. They stand for a noun, or describe a program as if it were a person.
const WORDS: [&str; 17] = [
    "nobody",
    "somebody",
    "someone",
    "whoever",
    "whom",
    "who asks",
    "is told",
    "are told",
    "was told",
    "were told",
    "be told",
    "what it is told",
    "so long as",
    "so many",
    "so much",
    "hears",
    "heard",
];

/// Names that contain one of the words and cannot change: a published metric, and an account of the operating system.
const FIXED_NAMES: [&str; 3] = ["confab_bus_heard_total", r#""-u", "nobody""#, r#"find("nobody")"#];

/// This file contains all of the words.
const THIS_FILE: &str = "tests/tests/words.rs";

const ROOT_FILES: [&str; 6] =
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "Makefile"];
const DIRECTORIES: [&str; 7] = ["docs", "gateway", "services", "proto", "tests", "scripts", "deploy"];
const API_DOCUMENTS: [&str; 3] = ["docs/openapi.json", "docs/asyncapi.json", "docs/postman_collection.json"];
/// Directories of builds and of packages from registries.
const FOREIGN: [&str; 4] = ["target", "node_modules", "__pycache__", "venv"];

#[test]
fn texts_contain_no_refused_word() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut paths = ROOT_FILES.map(String::from).to_vec();
    for directory in DIRECTORIES {
        checked_files(&root, directory, &mut paths);
    }
    assert!(paths.len() > 300, "found only {} files", paths.len());
    let found = paths.iter().flat_map(|path| {
        // A file of `scripts` may hold bytes that are not text.
        let text = String::from_utf8_lossy(&fs::read(root.join(path)).expect(path)).into_owned();
        let text = if path == "CONTRIBUTING.md" { without_word_list(&text) } else { text };
        findings(&text).into_iter().map(|(line, word)| format!("{path}:{line}: {word}")).collect::<Vec<_>>()
    });
    let found = found.collect::<Vec<_>>();
    assert!(found.is_empty(), "{} refused words:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_refused_word_is_found() {
    assert_eq!(findings("fn nobody_is_refused() {}"), [(1, "nobody")]);
    assert_eq!(findings("{\"description\": \"Which room?\\nSomebody's.\"}"), [(1, "somebody")]);
    assert_eq!(findings("// The time at which a gateway is\n// told: the caller\n"), [(1, "is told")]);
    assert_eq!(findings("a\nb\nit does what it is told"), [(3, "what it is told"), (3, "is told")]);
    assert_eq!(findings("hears, HEARD"), [(1, "hears"), (1, "heard")]);
}

#[test]
fn parts_of_words_and_fixed_names_are_not_found() {
    for word in ["hears", "heard", "whom"] {
        assert!(findings(&format!("s{word}, {word}ing, un{word}")).is_empty());
    }
    for text in ["shear", "so, as long as many clients wait", "is untold", "rate(confab_bus_heard_total[5m])"] {
        assert!(findings(text).is_empty(), "{text}");
    }
    assert_eq!(findings("rate(confab_bus_heard_total[5m]) # heard"), [(1, "heard")]);
}

#[test]
fn only_the_word_list_of_contributing_is_skipped() {
    let text = "nobody\n* No pronoun: not whoever\n\n| not | but |\n|---|---|\n| someone | a user |\n\nwhom\n| whom |";
    assert_eq!(findings(&without_word_list(text)), [(1, "nobody"), (8, "whom"), (9, "whom")]);
}

#[test]
fn kinds_of_files_are_selected() {
    for path in [
        "docs/realtime.md",
        "docs/openapi.json",
        "gateway/socketio/src/lib.rs",
        "proto/confab/auth/v1/auth.proto",
        "tests/tests/walls.rs",
        "scripts/helm.py",
        "deploy/nginx/nginx.conf",
        "deploy/helm/confab/templates/_pods.tpl",
    ] {
        assert!(is_checked(path), "{path}");
    }
    for path in ["docs/examples/talk.mjs", "docs/other.json", "gateway/Cargo.toml", "scripts/buf/index.js", THIS_FILE] {
        assert!(!is_checked(path), "{path}");
    }
}

/// The lines and words that `WORDS` refuses in a text, in the order of the text. Every character that is neither a
/// letter nor a digit separates words: `_`, the end of a line, the marks of comments.
fn findings(text: &str) -> Vec<(usize, &'static str)> {
    let mut words = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = FIXED_NAMES.iter().fold(line.replace("\\n", " "), |line, name| line.replace(*name, " "));
        let line = line.to_lowercase();
        let of_line = line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        words.extend(of_line.map(|word| (at + 1, word.to_owned())));
    }
    let mut found = Vec::new();
    for (at, (line, _)) in words.iter().enumerate() {
        let stands_here = |phrase: &&str| {
            let mut rest = words[at..].iter();
            phrase.split(' ').all(|part| rest.next().is_some_and(|(_, word)| word == part))
        };
        found.extend(WORDS.into_iter().filter(stands_here).map(|phrase| (*line, phrase)));
    }
    found
}

/// `CONTRIBUTING.md` with empty lines in place of its list of refused words.
fn without_word_list(text: &str) -> String {
    let mut in_table = false;
    let lines = text.lines().map(|line| {
        in_table = line == "| not | but |" || in_table && line.starts_with('|');
        if in_table || line.starts_with("* No pronoun") { "" } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Adds the checked files below a directory, as paths from the root of the project.
fn checked_files(root: &Path, directory: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(directory)).expect("a directory of texts") {
        let entry = entry.expect("its entry");
        let name = entry.file_name().into_string().expect("a name in UTF-8");
        let path = format!("{directory}/{name}");
        if entry.file_type().expect("its type").is_dir() {
            if !name.starts_with('.') && !FOREIGN.contains(&&*name) {
                checked_files(root, &path, found);
            }
        } else if is_checked(&path) {
            found.push(path);
        }
    }
}

fn is_checked(path: &str) -> bool {
    let (directory, name) = path.rsplit_once('/').unwrap_or_default();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    match path.split('/').next().unwrap_or_default() {
        "docs" => API_DOCUMENTS.contains(&path) || directory == "docs" && extension == "md",
        "scripts" => directory == "scripts",
        "deploy" => ["yaml", "yml", "tpl", "txt", "conf"].contains(&extension),
        _ => ["rs", "proto"].contains(&extension) && path != THIS_FILE,
    }
}
