//! The walls inside crates: which files may import what. `deny.toml` enforces those between crates.

use std::fs;
use std::path::{Path, PathBuf};

/// A kind of file, given by a prefix of its path, and the names that no `use` in it may contain. `*` is one directory.
struct Wall {
    files: &'static str,
    forbidden: &'static [&'static str],
}

const WALLS: &[Wall] = &[
    Wall {
        files: "services/*/src/grpc",
        forbidden: &["tokio_postgres", "deadpool_postgres", "rusqlite", "redis", "aws_sdk_s3"],
    },
    // `v1` is the name of every generated module.
    Wall {
        files: "services/*/src/service",
        forbidden: &["tonic", "v1", "axum", "tokio_postgres", "deadpool_postgres", "rusqlite", "aws_sdk_s3"],
    },
    Wall { files: "services/*/src/store", forbidden: &["tonic", "v1", "redis", "aws_sdk_s3"] },
    Wall {
        files: "services/file/src/object",
        forbidden: &["tonic", "v1", "tokio_postgres", "deadpool_postgres", "rusqlite"],
    },
    Wall { files: "services/common/src", forbidden: &["confab_proto"] },
    Wall {
        files: "services/identity/src",
        forbidden: &["axum", "tokio_postgres", "deadpool_postgres", "rusqlite", "redis", "aws_sdk_s3"],
    },
    Wall { files: "gateway/socketio", forbidden: &["confab_proto", "confab_gateway", "tonic", "prost"] },
    // The protocol does no I/O and calls no other part.
    Wall {
        files: "gateway/socketio/src/protocol",
        forbidden: &["axum", "tokio", "outbox", "session", "server", "application"],
    },
    Wall { files: "gateway/socketio/src/session", forbidden: &["server", "application", "cluster", "handshake"] },
    Wall { files: "gateway/src/rest", forbidden: &["redis", "hub", "chat"] },
    Wall { files: "gateway/src/chat/lanes", forbidden: &["context", "client", "outbox", "axum"] },
    Wall { files: "gateway/src/chat/client", forbidden: &["context", "Chat", "Server"] },
    Wall { files: "gateway/src/rooms/hub", forbidden: &["redis", "axum", "tokio", "futures"] },
    Wall { files: "gateway/src/rooms", forbidden: &["axum", "chat", "rest"] },
    Wall { files: "gateway/src/views", forbidden: &["axum", "rest", "chat", "rooms"] },
    Wall {
        files: "gateway/src",
        forbidden: &[
            "tokio_postgres",
            "deadpool_postgres",
            "rusqlite",
            "pg",
            "sqlite",
            "aws_sdk_s3",
            "confab_auth",
            "confab_room",
            "confab_message",
            "confab_file",
        ],
    },
];

#[test]
fn files_import_only_allowed_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for directory in ["services", "gateway"] {
        rust_files(&root.join(directory), &mut files);
    }
    assert!(files.len() > 30, "found only {} files", files.len());
    let broken = files.iter().flat_map(|file| {
        let text = fs::read_to_string(file).unwrap();
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap();
        violations(path, &text)
    });
    let broken = broken.collect::<Vec<_>>();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn violation_is_detected() {
    let found = violations(
        "services/room/src/service.rs",
        "use std::fmt;\nuse confab_proto::{\n    room::v1::Room,\n};\nuse tonic::Status;\n",
    );
    assert_eq!(found, ["services/room/src/service.rs imports v1", "services/room/src/service.rs imports tonic"]);
    assert_eq!(violations("gateway/src/rest/rooms.rs", "    pub use crate::rooms::hub::Hub;").len(), 1);
    assert_eq!(violations("services/file/src/service/upload.rs", "use aws_sdk_s3::Client;").len(), 1);
    assert_eq!(violations("services/room/src/grpc.rs", "use tonic::Status; // not redis\nlet redis = 1;"), [""; 0]);
    assert_eq!(
        violations(
            "services/room/src/store/sqlite.rs",
            "use rusqlite::Row;\n#[cfg(test)]\nmod tests { use tonic::Code; }"
        ),
        [""; 0]
    );
}

fn violations(path: &str, text: &str) -> Vec<String> {
    let walls = WALLS.iter().filter(|wall| stands_before(wall.files, path));
    let names = imported(text);
    let found = walls.flat_map(|wall| names.iter().filter(|name| wall.forbidden.contains(name)));
    found.map(|name| format!("{path} imports {name}")).collect()
}

fn stands_before(files: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    let mut pattern = files.split('/').peekable();
    while let Some(part) = pattern.next() {
        let Some(actual) = parts.next() else { return false };
        let last_of_file = pattern.peek().is_none() && (actual == part || actual.strip_suffix(".rs") == Some(part));
        if !(part == "*" || actual == part || last_of_file) {
            return false;
        }
    }
    true
}

/// Every name in the `use` statements of a file and in the paths within its code, without its tests.
fn imported(text: &str) -> Vec<&str> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let mut names = Vec::new();
    let mut within = false;
    for line in code.lines() {
        let line = line.split("//").next().unwrap_or(line).trim_start();
        within =
            within || line.starts_with("use ") || line.starts_with("pub use ") || line.starts_with("pub(crate) use ");
        if within {
            let statement = line.split_once(';').map_or(line, |(statement, _)| statement);
            names.extend(statement.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty()));
            within = !line.contains(';');
        } else {
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
            names.extend(
                words
                    .filter(|word| word.contains("::"))
                    .flat_map(|path| path.split("::"))
                    .filter(|name| !name.is_empty()),
            );
        }
    }
    names
}

/// The words of chat, which name nothing in the Socket.IO server.
const CHAT: [&str; 6] = ["room", "message", "user", "token", "partition", "seq"];
/// Names of other crates that contain one of them.
const FOREIGN: [&str; 7] =
    ["Message", "MessageTooLong", "max_message_size", "SeqAccess", "visit_seq", "deserialize_seq", "SeqCst"];

#[test]
fn the_socketio_server_knows_no_chat_noun() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/socketio");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    assert!(files.len() > 30, "found only {} files", files.len());
    let found = files.iter().flat_map(|file| {
        let text = fs::read_to_string(file).unwrap();
        chat_nouns(&text).into_iter().map(|name| format!("{}: {name}", file.display())).collect::<Vec<_>>()
    });
    assert_eq!(found.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_chat_noun_is_found() {
    let text = "let by_user = 1; // a room\nstruct MessageLog;\nlet text = \"the user's token\";\nfn consequence(seqs: u8) -> Message {}";
    assert_eq!(chat_nouns(text), ["by_user", "MessageLog", "seqs"]);
}

/// The identifiers of a file that contain a word of chat, outside comments and texts.
fn chat_nouns(text: &str) -> Vec<String> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or(line)).collect::<Vec<_>>().join("\n");
    // Raw texts first: they hold quotes.
    let plain = code
        .split("r#\"")
        .enumerate()
        .map(|(at, part)| if at == 0 { part } else { part.split_once("\"#").map_or("", |(_, rest)| rest) });
    let plain = plain.collect::<Vec<_>>().join(" ").replace("'\"'", "").replace("\\\"", "");
    let outside = plain.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let names = outside.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !FOREIGN.contains(name));
    names
        .filter(|name| words(name).iter().any(|word| CHAT.contains(&word.trim_end_matches('s'))))
        .map(str::to_owned)
        .collect()
}

/// The words of an identifier, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_uppercase() && words.last().is_some_and(|word| word.ends_with(char::is_lowercase)) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c != '_') {
            word.extend(c.to_lowercase());
        }
    }
    words
}

/// The source files below a directory, without test files.
fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("its entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}
