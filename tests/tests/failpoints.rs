//! Failpoints exist in programs that were built with them, and leave no trace in others.

use std::path::{Path, PathBuf};

use confab_tests::programs;

/// Texts in a program with failpoints: the route, and a failpoint of the gateway and of the message service.
const TRACES: &[&str] = &["/failpoints/", "drop-hints", "publish-before-commit"];
const PROGRAMS: &[&str] = &["confab", "confab-gateway", "confab-auth", "confab-room", "confab-message", "confab-file"];

fn traces(program: &Path) -> Vec<&'static str> {
    let bytes = std::fs::read(program)
        .unwrap_or_else(|error| panic!("{}: {error}; scripts/build-failpoints.sh builds it", program.display()));
    let holds = |trace: &&&str| bytes.windows(trace.len()).any(|window| window == trace.as_bytes());
    TRACES.iter().filter(holds).copied().collect()
}

#[test]
fn ordinary_programs_have_no_failpoints() {
    let built = programs();
    let release = built.parent().map(|target| target.join("release"));
    let directories = [Some(built), release].into_iter().flatten().collect::<Vec<PathBuf>>();
    for directory in &directories {
        for program in PROGRAMS.iter().map(|name| directory.join(name)).filter(|program| program.exists()) {
            assert_eq!(traces(&program), [] as [&str; 0], "{}", program.display());
        }
    }
    assert!(directories[0].join("confab-message").exists());
}

#[test]
fn programs_built_with_failpoints_have_them() {
    let directory = programs().join("failpoints");
    assert_eq!(traces(&directory.join("confab-gateway")), ["/failpoints/", "drop-hints"]);
    assert_eq!(traces(&directory.join("confab-message")), ["/failpoints/", "publish-before-commit"]);
}
