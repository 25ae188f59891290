//! Every test that docs/security-tests.md names as the proof of a promise exists.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::fs;
use std::path::Path;

const DOCUMENT: &str = "docs/security-tests.md";

/// The rows of the tables: the promise, and its proofs as a file and the name of a test.
fn rows(document: &str) -> Vec<(&str, Vec<(&str, &str)>)> {
    let lines = document.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.rsplit_once(" | "));
    let rows = lines.filter(|row| *row != ("promise", "proof"));
    rows.map(|(promise, proofs)| (promise, proofs.split('`').filter_map(|proof| proof.split_once("::")).collect()))
        .collect()
}

/// Whether a file contains a test with this name: a function with the attribute, or one that a macro such as
/// `everywhere!` makes a test.
fn has_test(text: &str, name: &str) -> bool {
    let lines = text.lines().collect::<Vec<_>>();
    let begins = |line: &&str| line.contains(&format!("fn {name}("));
    let is_test = |attribute: &str| attribute.starts_with("#[test]") || attribute.starts_with("#[tokio::test");
    let Some(at) = lines.iter().position(begins) else { return false };
    let mut attributes = lines[..at].iter().rev().map(|line| line.trim()).take_while(|line| line.starts_with("#["));
    attributes.any(is_test) || listed(text).any(|listed| listed == name)
}

/// The names in the invocations of macros that stand at the beginning of a line.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |name: &str| name.chars().all(|c| c == '_' || c.is_ascii_lowercase());
    let invocations = text.match_indices(['(', '[']).filter_map(move |(at, _)| {
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let begins = text[line..at].strip_suffix('!').is_some_and(is_name);
        begins.then(|| text[at + 1..].split([')', ']']).next().unwrap_or_default())
    });
    invocations.flat_map(|names| names.split(',')).map(str::trim)
}

#[test]
fn every_promise_has_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = fs::read_to_string(root.join(DOCUMENT)).unwrap();
    let rows = rows(&document);
    assert!(rows.len() > 50, "found only {} promises", rows.len());
    let mut wrong = Vec::new();
    for (promise, proofs) in &rows {
        if proofs.is_empty() {
            wrong.push(format!("without a proof: {promise}"));
        }
        for (file, name) in proofs {
            match fs::read_to_string(root.join(file)) {
                Ok(text) if has_test(&text, name) => {}
                Ok(_) => wrong.push(format!("{file} has no test {name}")),
                Err(error) => wrong.push(format!("{file}: {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_missing_test_is_found() {
    let text = "everywhere!(\n    one,\n    two,\n);\n\nasync fn one() {}\nasync fn two() {}\nfn helper() {}\n\n\
                #[tokio::test]\nasync fn three() {}\n    #[test]\n    fn four() { assert!(five()) }\nfn five() {}\n";
    for name in ["one", "two", "three", "four"] {
        assert!(has_test(text, name), "{name}");
    }
    for name in ["helper", "five", "six", "thre", "hree"] {
        assert!(!has_test(text, name), "{name}");
    }
    let rows = rows("| promise | proof |\n|---|---|\n| Tea \\| milk | `a/b.rs::c`, `d.rs::e` |\n| none | none yet |\n");
    assert_eq!(rows, [("Tea \\| milk", vec![("a/b.rs", "c"), ("d.rs", "e")]), ("none", vec![])]);
}
