//! Real text in several languages and scripts, from Debian's `fortunes` packages.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

const DIRECTORY: &str = "/usr/share/games/fortunes";

/// Returns `count` lines, in turn from English, German, Russian and Chinese texts.
///
/// # Errors
/// When the packages are not installed.
pub fn lines(count: usize) -> anyhow::Result<Vec<String>> {
    let mut sources = Vec::new();
    for (language, path) in
        [("English", "cookie"), ("German", "de"), ("Russian", "ru"), ("Chinese", "chinese"), ("Chinese", "tang300")]
    {
        let path = Path::new(DIRECTORY).join(path);
        let lines = texts(&path)?;
        ensure!(!lines.is_empty(), "no {language} text in {}; scripts/ensure-packages.sh installs it", path.display());
        sources.push(lines);
    }
    let rounds = count.div_ceil(sources.len());
    let turn = |round: usize| sources.iter().map(move |lines| lines[round % lines.len()].clone());
    Ok((0..rounds).flat_map(turn).take(count).collect())
}

/// Returns the non-trivial lines of a file, or of every file below a directory.
fn texts(path: &Path) -> anyhow::Result<Vec<String>> {
    if !path.is_dir() {
        let bytes = fs::read(path)
            .with_context(|| format!("cannot read {}; is its fortunes package installed?", path.display()))?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        let says_something = |line: &&str| !line.trim().is_empty() && *line != "%" && !line.contains('\0');
        return Ok(text.lines().filter(says_something).map(String::from).collect());
    }
    let mut files = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    files.sort();
    let is_text = |file: &&std::path::PathBuf| {
        file.is_dir() || file.extension().is_none_or(|extension| extension != "dat" && extension != "u8")
    };
    let found = files.iter().filter(is_text).map(|file| texts(file)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(found.concat())
}
