//! The module structure: ARCHITECTURE.md lists the modules in dependency order, and files do not import each other in
//! cycles.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Collects the Rust files below `dir`, except tests and programs.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if name != "tests" && name != "bin" {
                files(&path, found);
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// The module path of a file: `["models", "card"]` for src/models/card.rs.
fn module(file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(source()).unwrap().with_extension("");
    let mut parts: Vec<String> = relative.iter().map(|part| part.to_str().unwrap().to_string()).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
        parts.pop();
    }
    parts
}

/// The code of a file without comments and without its test module, which ends a file.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The absolute paths that `use` declarations and inline paths of `code` name, starting below the crate.
fn imports(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let parent = module[..module.len().saturating_sub(1)].to_vec();
    // Modules of a program name the library.
    for (keyword, base) in [("crate::", vec![]), ("kinoprobe::", vec![]), ("super::", parent)] {
        for (at, _) in code.match_indices(keyword) {
            let preceded = code[..at].chars().next_back();
            if preceded.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue; // `$crate::`-like paths and `super::super::`, which is expanded below
            }
            let mut rest = &code[at + keyword.len()..];
            let mut base = base.clone();
            while let Some(next) = rest.strip_prefix("super::") {
                base.pop();
                rest = next;
            }
            expand(rest, base, &mut paths);
        }
    }
    paths
}

/// Adds the paths of a use tree, such as `a::{b, c::d}`, that starts at `text`. Returns the text after it.
fn expand<'a>(text: &'a str, mut prefix: Vec<String>, paths: &mut Vec<Vec<String>>) -> &'a str {
    let mut text = text.trim_start();
    loop {
        if let Some(mut rest) = text.strip_prefix('{') {
            loop {
                rest = expand(rest, prefix.clone(), paths).trim_start();
                match rest.strip_prefix(',') {
                    Some(next) if !next.trim_start().starts_with('}') => rest = next,
                    Some(next) => return next.trim_start().strip_prefix('}').unwrap_or(""),
                    None => return rest.strip_prefix('}').unwrap_or(rest),
                }
            }
        }
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        if end > 0 && &text[..end] != "self" {
            prefix.push(text[..end].to_string());
        }
        match text[end..].strip_prefix("::") {
            Some(next) => text = next,
            None => {
                paths.push(prefix);
                let rest = text[end..].trim_start_matches('*').trim_start();
                // A renamed import: skip the new name.
                let Some(renamed) = rest.strip_prefix("as ") else { return rest };
                return renamed.trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            }
        }
    }
}

#[test]
fn use_trees_are_expanded() {
    let code = "use crate::a::{self, b, c::{d, e as f}, g::*};\nlet x = super::super::h::i();";
    let module = ["m", "n", "o"].map(String::from);
    let mut found: Vec<String> = imports(code, &module).iter().map(|path| path.join("::")).collect();
    found.sort();
    assert_eq!(found, ["a", "a::b", "a::c::d", "a::c::e", "a::g", "m::h::i"].map(String::from));
}

#[test]
fn modules_import_only_from_modules_above_them_in_architecture_md() {
    let text = fs::read_to_string(source().parent().unwrap().join("ARCHITECTURE.md")).unwrap();
    let table = text.split("| Module |").nth(1).expect("a table of modules").split("\n\n").next().unwrap();
    let order: Vec<&str> = table.lines().skip(2).map(|row| row.split('`').nth(1).expect("a module name")).collect();

    let mut found = Vec::new();
    files(&source(), &mut found);
    let existing: BTreeSet<String> = found.iter().filter_map(|file| module(file).first().cloned()).collect();
    assert_eq!(existing, order.iter().map(ToString::to_string).collect(), "modules of src and of the table");

    let rank = |name: &str| order.iter().position(|other| *other == name);
    let mut violations = BTreeSet::new();
    for file in &found {
        let module = module(file);
        let Some(own) = module.first() else { continue };
        for import in imports(&code(file), &module) {
            if let Some(target) = import.first().and_then(|target| rank(target)).filter(|t| Some(*t) > rank(own)) {
                violations.insert(format!("{} imports {}", file.display(), order[target]));
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn architecture_md_lists_the_files_with_unsafe_code() {
    let root = source().parent().unwrap().to_path_buf();
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let text = text.split("- `unsafe` is denied except").nth(1).unwrap().split("\n- ").next().unwrap();
    let listed: BTreeSet<&str> = text.split('`').filter(|part| part.starts_with("src/")).collect();
    let mut found = Vec::new();
    files(&source(), &mut found);
    let found: Vec<String> = found
        .iter()
        .filter(|file| fs::read_to_string(file).unwrap().contains("allow(unsafe_code)"))
        .map(|file| file.strip_prefix(&root).unwrap().to_str().unwrap().to_string())
        .collect();
    assert_eq!(listed, found.iter().map(String::as_str).collect());
}

#[test]
fn files_do_not_import_each_other_in_cycles() {
    let mut found = Vec::new();
    files(&source(), &mut found);
    let modules: BTreeSet<Vec<String>> = found.iter().map(|file| module(file)).filter(|m| !m.is_empty()).collect();
    let mut edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for file in &found {
        let from = module(file);
        for import in imports(&code(file), &from) {
            let target = (1..=import.len()).rev().map(|n| &import[..n]).find(|path| modules.contains(*path));
            // A parent re-exports its children, and children use the parent's types: not a cycle between files here.
            if let Some(to) = target.filter(|to| !from.starts_with(to) && !to.starts_with(&from)) {
                edges.entry(from.clone()).or_default().insert(to.to_vec());
            }
        }
    }
    // Remove modules that import nothing that is left or that nothing left imports, until only cycles remain.
    loop {
        let before: usize = edges.values().map(BTreeSet::len).sum();
        let importers: BTreeSet<Vec<String>> = edges.keys().cloned().collect();
        edges.values_mut().for_each(|targets| targets.retain(|target| importers.contains(target)));
        let imported: BTreeSet<Vec<String>> = edges.values().flatten().cloned().collect();
        edges.retain(|module, targets| !targets.is_empty() && imported.contains(module));
        if edges.values().map(BTreeSet::len).sum::<usize>() == before {
            break;
        }
    }
    let names = |path: &Vec<String>| path.join("::");
    let cycles: Vec<String> = edges
        .iter()
        .map(|(from, to)| format!("{} → {}", names(from), to.iter().map(names).collect::<Vec<_>>().join(", ")))
        .collect();
    assert!(cycles.is_empty(), "import cycles among: {cycles:#?}");
}
