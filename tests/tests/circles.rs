//! No circular dependencies of files: no two files of a crate need each other, directly or through others. A file and
//! the files below it count as one unit, whose interface is the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The path of a module within its crate; empty for the crate's root.
type Module = Vec<String>;
type Graph = BTreeMap<Module, BTreeSet<Module>>;

const CRATES: [&str; 10] = [
    "gateway",
    "gateway/socketio",
    "proto",
    "services/all",
    "services/auth",
    "services/common",
    "services/file",
    "services/identity",
    "services/message",
    "services/room",
];

#[test]
fn no_circle_of_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let of_crate = |name: &&str| {
        let mut texts = BTreeMap::new();
        read(&root.join(name).join("src"), &mut Vec::new(), &mut texts);
        assert!(texts.len() > 2, "{name} has files");
        circles(&graph(&texts))
            .into_iter()
            .map(move |circle| format!("{name}: {}", circle.join(", ")))
            .collect::<Vec<_>>()
    };
    assert_eq!(CRATES.iter().flat_map(of_crate).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_circle_is_found() {
    let crate_of = |files: &[(&str, &str)]| {
        let texts = files.iter().map(|(path, text)| {
            (path.split('/').filter(|part| !part.is_empty()).map(String::from).collect(), (*text).into())
        });
        circles(&graph(&texts.collect()))
    };
    let through_a_face = [
        ("", "mod a;\nmod b;"),
        ("a", "mod inner;\npub use inner::Thing;"),
        ("a/inner", "use super::Other;\nuse crate::b::{self, c::Deep};"),
        ("b", "fn f() { crate::a::Thing::new(); } // use crate::x;"),
    ];
    assert_eq!(crate_of(&through_a_face), [["a/inner", "b"]]);
    let none = [
        ("", "pub mod a;\nmod b;\nuse a::A;"),
        ("a", "use crate::b::B;\n#[cfg(test)]\nmod tests {\n    use crate::c::C;\n}"),
        ("b", "struct B;"),
        ("c", "use super::a;"),
    ];
    assert_eq!(crate_of(&none), [[""; 0]; 0]);
}

/// Reads the modules below a directory, without tests.
fn read(directory: &Path, module: &mut Module, texts: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("its entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name in UTF-8").to_owned();
        if name == "tests" {
            continue;
        }
        module.push(name.clone());
        if path.is_dir() {
            read(&path, module, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let is_root = module.len() == 1 && ["lib", "main"].contains(&&*name);
            let text = fs::read_to_string(&path).expect("its text");
            texts.entry(if is_root { Vec::new() } else { module.clone() }).or_default().push_str(&text);
        }
        module.pop();
    }
}

/// Returns which module needs which.
fn graph(texts: &BTreeMap<Module, String>) -> Graph {
    let mut needs = BTreeMap::<&Module, Vec<(Module, String)>>::new();
    // A re-exported name belongs to another module.
    let mut passed_on = BTreeMap::<(Module, String), Module>::new();
    for (module, text) in texts {
        for (path, is_public) in paths(text) {
            let Some((target, name)) = resolve(&path, module, texts).filter(|(target, _)| target != module) else {
                continue;
            };
            if is_public && target.starts_with(module) {
                passed_on.insert((module.clone(), name), target);
            } else {
                needs.entry(module).or_default().push((target, name));
            }
        }
    }
    let arrows = |module: &Module| {
        let targets = needs
            .get(module)
            .into_iter()
            .flatten()
            .map(|(target, name)| passed_on.get(&(target.clone(), name.clone())).unwrap_or(target));
        targets.filter(|target| !target.starts_with(module) && !module.starts_with(target)).cloned().collect()
    };
    texts.keys().map(|module| (module.clone(), arrows(module))).collect()
}

/// Returns the groups of modules that need each other.
fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let reachable = |from: &Module| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = next.pop() {
            next.extend(
                graph
                    .get(&module)
                    .into_iter()
                    .flatten()
                    .filter(|target| reached.insert((*target).clone()))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
        }
        reached
    };
    let reached = graph.keys().map(|module| (module, reachable(module))).collect::<BTreeMap<_, _>>();
    let circle = |module: &&Module| {
        let both =
            reached[*module].iter().filter(|other| reached.get(other).is_some_and(|back| back.contains(*module)));
        both.map(|module| module.join("/")).collect::<Vec<_>>()
    };
    let circles =
        graph.keys().map(|module| circle(&module)).filter(|circle| !circle.is_empty()).collect::<BTreeSet<_>>();
    circles.into_iter().collect()
}

/// Returns the module that a path leads to, and the name that it has there.
fn resolve(path: &[String], module: &Module, texts: &BTreeMap<Module, String>) -> Option<(Module, String)> {
    let (mut base, mut rest) = (module.clone(), path);
    match path.first()?.as_str() {
        "crate" => (base, rest) = (Vec::new(), &path[1..]),
        "self" => rest = &path[1..],
        "super" => {
            while let Some((_, after)) = rest.split_first().filter(|(first, _)| *first == "super") {
                base.pop();
                rest = after;
            }
        }
        first => {
            base.push(first.to_owned());
            // A name of the module's own, or of another crate.
            texts.get(&base)?;
            base.pop();
        }
    }
    let full = [base, rest.to_vec()].concat();
    let length = (0..=full.len()).rev().find(|length| texts.contains_key(&full[..*length]))?;
    Some((full[..length].to_vec(), full.get(length).cloned().unwrap_or_default()))
}

/// Returns every path in a file without its tests, and whether it is re-exported.
fn paths(text: &str) -> Vec<(Vec<String>, bool)> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let code = code.lines().map(|line| line.split("//").next().unwrap_or(line)).collect::<Vec<_>>().join("\n");
    let (mut found, mut body, mut rest) = (Vec::new(), String::new(), code.as_str());
    while let Some((line, after)) = rest.split_once('\n').or_else(|| (!rest.is_empty()).then_some((rest, ""))) {
        let statement = line.trim_start();
        let (is_public, bare) = match statement.strip_prefix("pub") {
            Some(public) => (true, public.trim_start_matches("(crate)").trim_start_matches("(super)").trim_start()),
            None => (false, statement),
        };
        if let Some(tree) = bare.strip_prefix("use ") {
            // A `use` may continue on several lines.
            let tree = &rest[line.len() - tree.len()..];
            let (tree, after) = tree.split_once(';').unwrap_or((tree, ""));
            found.extend(expand(tree).into_iter().map(|path| (path, is_public)));
            rest = after;
            continue;
        }
        body.push_str(line);
        body.push('\n');
        rest = after;
    }
    let words = body.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
    let inline = words.filter(|word| word.contains("::") && word.starts_with(|c: char| c.is_lowercase()));
    found.extend(
        inline.map(|word| (word.split("::").filter(|part| !part.is_empty()).map(String::from).collect(), false)),
    );
    found
}

/// Returns the paths of a `use` tree.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some((prefix, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        return vec![path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()];
    };
    let prefix =
        prefix.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let (mut depth, mut items, mut item) = (0, Vec::new(), String::new());
    for c in group.strip_suffix('}').unwrap_or(group).chars() {
        match c {
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            c => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                item.push(c);
            }
        }
    }
    items.push(item);
    let items = items.iter().filter(|item| !item.trim().is_empty());
    items.flat_map(|item| expand(item)).map(|path| [prefix.clone(), path].concat()).collect()
}
