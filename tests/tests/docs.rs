//! The documents of the project: every link within the project resolves, the README links to every document in docs/,
//! and inline code can be copied.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The documents outside docs/.
const OTHERS: [&str; 6] =
    ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "gateway/socketio/README.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The documents by path, without code blocks.
fn documents() -> BTreeMap<PathBuf, String> {
    let docs =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| PathBuf::from("docs").join(entry.unwrap().file_name()));
    let documents =
        docs.chain(OTHERS.map(PathBuf::from)).filter(|path| path.extension().is_some_and(|end| end == "md"));
    documents.map(|path| (path.clone(), prose(&fs::read_to_string(root().join(path)).unwrap()))).collect()
}

/// Returns a document without its code blocks.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the targets of a document's links, except external ones.
fn links(prose: &str) -> Vec<&str> {
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

/// Returns the anchors of a document's headings.
fn anchors(prose: &str) -> BTreeSet<String> {
    let headings = prose
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    headings.map(|heading| heading.chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

/// Returns the path, from the root, of a link's target.
fn target(document: &Path, link: &str) -> PathBuf {
    let mut path = document.parent().unwrap_or(Path::new("")).to_path_buf();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => _ = path.pop(),
            part => path.push(part),
        }
    }
    path
}

/// Returns the broken links of a document.
fn broken(documents: &BTreeMap<PathBuf, String>, document: &Path, prose: &str) -> Vec<String> {
    let leads = |link: &str| {
        let (file, heading) = link.split_once('#').unwrap_or((link, ""));
        let target = if file.is_empty() { document.to_path_buf() } else { target(document, file) };
        let exists = root().join(&target).exists();
        exists && (heading.is_empty() || documents.get(&target).is_some_and(|prose| anchors(prose).contains(heading)))
    };
    links(prose).into_iter().filter(|link| !leads(link)).map(|link| format!("{}: {link}", document.display())).collect()
}

#[test]
fn every_link_resolves() {
    let documents = documents();
    let broken = documents.iter().flat_map(|(document, prose)| broken(&documents, document, prose)).collect::<Vec<_>>();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_document_is_linked_from_the_readme() {
    let documents = documents();
    let linked = links(&documents[Path::new("README.md")]).into_iter().map(PathBuf::from).collect::<BTreeSet<_>>();
    let lonely =
        documents.keys().filter(|path| path.starts_with("docs") && !linked.contains(*path)).collect::<Vec<_>>();
    assert!(lonely.is_empty(), "README.md links to none of {lonely:?}");
}

/// Returns the lines in which inline code begins or ends that is continued on another line.
fn broken_code(prose: &str) -> Vec<&str> {
    prose.lines().filter(|line| line.matches('`').count() % 2 == 1).collect()
}

#[test]
fn no_inline_code_is_broken_across_lines() {
    for (document, prose) in documents() {
        assert_eq!(broken_code(&prose), [""; 0], "{}", document.display());
    }
    assert_eq!(broken_code("`a` and `b\nc`\n`d`"), ["`a` and `b", "c`"]);
}

/// Returns the shell lines that use a variable which they set themselves: the shell expands the variable before it is
/// set.
fn early_uses(text: &str) -> Vec<&str> {
    let uses_own = |line: &&str| {
        let words = line.split(' ').filter_map(|word| word.split_once('='));
        line.starts_with("export ")
            && words.clone().any(|(name, _)| words.clone().any(|(_, value)| value.contains(&format!("${name}"))))
    };
    text.lines().filter(uses_own).collect()
}

#[test]
fn no_command_uses_what_it_sets() {
    for document in documents().keys() {
        assert_eq!(early_uses(&fs::read_to_string(root().join(document)).unwrap()), [""; 0], "{}", document.display());
    }
    assert_eq!(early_uses("export A=1\nexport B=$A C=$A\nexport D=1 E=x$D"), ["export D=1 E=x$D"]);
}

#[test]
fn a_broken_link_is_found() {
    let mut documents = documents();
    let text = "# Top & tail\n[a](docs/none.md) [b](README.md#nowhere) [c](#top--tail) [d](https://example.org)\n```\n[e](none)\n```\n[f](docs/)";
    documents.insert("README.md".into(), prose(text));
    let readme = Path::new("README.md");
    assert_eq!(
        broken(&documents, readme, &documents[readme]),
        ["README.md: docs/none.md", "README.md: README.md#nowhere"]
    );
    assert_eq!(target(Path::new("docs/a.md"), "../tests/b.rs"), Path::new("tests/b.rs"));
}
