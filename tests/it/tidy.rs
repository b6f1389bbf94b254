//! The house rules that a compiler does not know.
//!
//! The sources are read as tokens, so that comments and texts count for nothing and macros do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Files that may say `unsafe`, and why.
const UNSAFE: [&str; 3] = [
    // `Component::deserialize`, of code from our own compiler or with our MAC.
    "host/engine/code.rs",
    // The driver is asked how much memory its GPU has, which wgpu does not tell.
    "host/gpu/memory.rs",
    // A global allocator.
    "guests/worker/src/allocator.rs",
];

/// A file beyond this asks to be two.
const LINES: usize = 600;
/// The same for workers, which are read as examples.
const WORKER_LINES: usize = 400;

/// One file of sources.
struct Source {
    /// From the repository's root: `host/engine/cache.rs`.
    path: String,
    text: String,
}

#[test]
fn a_module_uses_only_those_above_it() {
    assert_clean(order(&host()));
}

#[test]
fn every_file_of_the_host_is_named_by_a_module_list() {
    assert_clean(unnamed(&host()));
}

#[test]
fn only_three_files_are_unsafe() {
    let mut sources = host();
    sources.extend(sources_of("guests"));
    assert_clean(unsafe_code(&sources));
}

#[test]
fn the_host_has_no_panics_of_its_own() {
    assert_clean(panics(&host()));
}

#[test]
fn no_file_is_too_long() {
    let mut sources = host();
    sources.extend(sources_of("tests"));
    sources.extend(sources_of("guests"));
    assert_clean(long(&sources));
}

/// Each rule finds its planted violation: a rule that finds nothing anywhere holds nothing.
#[test]
fn each_rule_finds_what_it_forbids() {
    let list = ("host/lib.rs", "mod error; mod engine; mod api; mod cli;");
    let found = |rule: fn(&[Source]) -> Vec<String>, path: &str, text: &str| {
        rule(&[list, (path, text)].map(|(path, text)| Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }))
        .len()
    };
    // Upwards, in every way to say it.
    assert_eq!(
        found(order, "host/engine.rs", "use crate::api::Settings;"),
        1
    );
    assert_eq!(
        found(order, "host/engine.rs", "use crate::{error::Code, api};"),
        1
    );
    assert_eq!(
        found(order, "host/engine.rs", "fn f() { log!(crate::api::x()) }"),
        1
    );
    assert_eq!(found(order, "host/engine.rs", "use super::api;"), 1);
    assert_eq!(
        found(order, "host/engine/cache.rs", "use super::super::api;"),
        1
    );
    assert_eq!(found(order, "host/engine/cache.rs", "use super::api;"), 0);
    assert_eq!(
        found(
            order,
            "host/engine.rs",
            "use crate::error::Code; // crate::api"
        ),
        0
    );
    assert_eq!(
        found(
            order,
            "host/engine.rs",
            "#[cfg(test)] mod tests { use crate::api; }"
        ),
        0
    );

    assert_eq!(
        found(unnamed, "host/engine.rs", ""),
        3,
        "error, api and cli have no file"
    );
    assert_eq!(found(unnamed, "host/stray.rs", ""), 5);
    assert_eq!(found(unnamed, "host/engine/stray.rs", ""), 5);

    assert_eq!(
        found(unsafe_code, "host/api.rs", "fn f() { unsafe { g() } }"),
        1
    );
    assert_eq!(
        found(
            unsafe_code,
            "host/engine/code.rs",
            "fn f() { unsafe { g() } }"
        ),
        0
    );
    assert_eq!(
        found(
            unsafe_code,
            "host/api.rs",
            "fn f() { g(\"unsafe\") } // unsafe"
        ),
        0
    );

    assert_eq!(found(panics, "host/api.rs", "fn f() { g().unwrap() }"), 1);
    assert_eq!(
        found(panics, "host/api.rs", "fn f() { h!(g().expect(\"x\")) }"),
        1
    );
    assert_eq!(found(panics, "host/api.rs", "fn f() { panic!() }"), 1);
    assert_eq!(
        found(panics, "host/api.rs", "fn f() { g().unwrap_or_default() }"),
        0
    );
    assert_eq!(
        found(
            panics,
            "host/api.rs",
            "#[cfg(test)] mod tests { fn f() { g().unwrap() } }"
        ),
        0
    );
    assert_eq!(
        found(panics, "host/api/tests.rs", "fn f() { g().unwrap() }"),
        0
    );

    assert_eq!(found(long, "host/api.rs", &"\n".repeat(LINES + 1)), 1);
    assert_eq!(found(long, "host/api.rs", &"\n".repeat(LINES)), 0);
    let worker = "guests/hello-world/src/lib.rs";
    assert_eq!(found(long, worker, &"\n".repeat(WORKER_LINES + 1)), 1);
    assert_eq!(found(long, worker, &"\n".repeat(WORKER_LINES)), 0);
}

fn assert_clean(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// Uses of modules that `lib.rs` lists below the user's own.
fn order(sources: &[Source]) -> Vec<String> {
    let modules = modules_of(sources, "host/lib.rs");
    let place = |name: &str| modules.iter().position(|module| module == name);
    let mut violations = Vec::new();
    for source in sources {
        let parts = module_path(&source.path);
        // `main.rs` and `lib.rs` stand outside of the list.
        let Some(own) = parts.first().and_then(|first| place(first)) else {
            continue;
        };
        for used in roots(without_tests(tokens(source)), parts.len()) {
            if place(&used).is_some_and(|used| used > own) {
                let own = &modules[own];
                violations.push(format!(
                    "{}: {own} uses {used}, which stands below it in lib.rs",
                    source.path
                ));
            }
        }
    }
    violations
}

/// Files that no module list names, and names without a file.
fn unnamed(sources: &[Source]) -> Vec<String> {
    let mut named = BTreeSet::new();
    for source in sources {
        let folder = match source.path.as_str() {
            // Cargo's manifest names these two.
            root @ ("host/lib.rs" | "host/main.rs") => {
                named.insert(root.to_owned());
                "host"
            }
            path => path.trim_end_matches(".rs"),
        };
        for module in modules_of(sources, &source.path) {
            named.insert(format!("{folder}/{module}.rs"));
        }
    }
    let files = sources.iter().map(|source| source.path.clone()).collect();
    named
        .symmetric_difference(&files)
        .map(|path| format!("{path} is a file or in a module list, and not both"))
        .collect()
}

fn unsafe_code(sources: &[Source]) -> Vec<String> {
    mentions(sources, |source, _, word, _| {
        word == "unsafe" && !UNSAFE.contains(&source.path.as_str())
    })
}

fn panics(sources: &[Source]) -> Vec<String> {
    mentions(sources, |source, before, word, after| {
        let method = before == "." && matches!(word, "unwrap" | "expect");
        let last_resort =
            after == "!" && matches!(word, "panic" | "todo" | "unimplemented" | "unreachable");
        (method || last_resort) && !source.path.ends_with("/tests.rs")
    })
}

fn long(sources: &[Source]) -> Vec<String> {
    let most = |path: &str| match path.starts_with("guests/") {
        true => WORKER_LINES,
        false => LINES,
    };
    let lines = sources
        .iter()
        .map(|source| (&source.path, source.text.lines().count()));
    lines
        .filter(|(path, lines)| *lines > most(path))
        .map(|(path, lines)| format!("{path} has {lines} lines; {} is the most", most(path)))
        .collect()
}

/// Where a word stands that a rule forbids, tests left out. The rule sees the tokens around it.
fn mentions(
    sources: &[Source],
    forbidden: impl Fn(&Source, &str, &str, &str) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let mut words = Vec::new();
        flatten(without_tests(tokens(source)), &mut words);
        for (at, word) in words.iter().enumerate() {
            let near =
                |at: Option<usize>| at.and_then(|at| words.get(at)).map_or("", String::as_str);
            if forbidden(
                source,
                near(at.checked_sub(1)),
                word,
                near(at.checked_add(1)),
            ) {
                found.push(format!("{}: `{word}`", source.path));
            }
        }
    }
    found
}

fn flatten(tokens: Vec<TokenTree>, words: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                words.push("(".to_owned());
                flatten(without_tests(group.stream()), words);
                words.push(")".to_owned());
            }
            token => words.push(token.to_string()),
        }
    }
}

/// The modules that paths from the crate's root begin with: behind `crate::`, and behind as many
/// `super::` as the module lies deep.
fn roots(tokens: Vec<TokenTree>, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut supers = 0;
    let mut at_root = false;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(word) if word == "crate" => at_root = true,
            TokenTree::Ident(word) if word == "super" => {
                supers += 1;
                at_root = supers == depth;
            }
            TokenTree::Ident(word) if at_root => {
                found.push(word.to_string());
                (at_root, supers) = (false, 0);
            }
            TokenTree::Punct(colon) if colon.as_char() == ':' => {}
            TokenTree::Group(group) if at_root && is_colon(tokens.get(at.wrapping_sub(1))) => {
                // `crate::{a, b::c}`: what follows each comma.
                let mut first = true;
                for token in group.stream() {
                    match token {
                        TokenTree::Ident(word) if first => {
                            found.push(word.to_string());
                            first = false;
                        }
                        TokenTree::Punct(comma) if comma.as_char() == ',' => first = true,
                        _ => {}
                    }
                }
                (at_root, supers) = (false, 0);
            }
            TokenTree::Group(group) => {
                found.extend(roots(without_tests(group.stream()), depth));
                (at_root, supers) = (false, 0);
            }
            _ => (at_root, supers) = (false, 0),
        }
    }
    found
}

fn is_colon(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Punct(colon)) if colon.as_char() == ':')
}

/// The names behind `mod` that stand for files, those of tests too.
fn modules_of(sources: &[Source], path: &str) -> Vec<String> {
    let Some(source) = sources.iter().find(|source| source.path == path) else {
        return Vec::new();
    };
    let tokens: Vec<TokenTree> = tokens(source).into_iter().collect();
    tokens
        .windows(3)
        .filter_map(|window| match window {
            [
                TokenTree::Ident(word),
                TokenTree::Ident(name),
                TokenTree::Punct(end),
            ] if word == "mod" && end.as_char() == ';' => Some(name.to_string()),
            _ => None,
        })
        .collect()
}

/// Leaves out what stands behind `#[cfg(test)]`: up to a brace or a semicolon.
fn without_tests(tokens: TokenStream) -> Vec<TokenTree> {
    let mut kept = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let attribute = matches!(&token, TokenTree::Punct(hash) if hash.as_char() == '#')
            && matches!(tokens.peek(), Some(TokenTree::Group(group))
                if group.stream().to_string().replace(' ', "") == "cfg(test)");
        if !attribute {
            kept.push(token);
            continue;
        }
        for token in tokens.by_ref() {
            match token {
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break,
                TokenTree::Punct(end) if end.as_char() == ';' => break,
                _ => {}
            }
        }
    }
    kept
}

fn tokens(source: &Source) -> TokenStream {
    source
        .text
        .parse()
        .unwrap_or_else(|error| panic!("{}: {error}", source.path))
}

/// `host/engine/cache.rs` is the module `engine`, `cache`.
fn module_path(path: &str) -> Vec<&str> {
    let inner = path.trim_start_matches("host/").trim_end_matches(".rs");
    inner.split('/').collect()
}

fn host() -> Vec<Source> {
    sources_of("host")
}

fn sources_of(folder: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    gather(&root().join(folder), &mut sources);
    assert!(!sources.is_empty(), "{folder} has no sources");
    sources
}

fn gather(folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            // Compiled guests, where someone set no target directory.
            if !path.ends_with("target") {
                gather(&path, sources);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(root())
                .expect("within the repository")
                .display()
                .to_string();
            let text = fs::read_to_string(&path).expect("a source");
            sources.push(Source { path: name, text });
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
