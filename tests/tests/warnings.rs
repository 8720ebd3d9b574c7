//! Tests that the guide explains each warning of the log.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use rserpool_tests::words::sources;

/// The files with macros that take the text of a warning from their caller.
const WITHOUT_TEXTS: [&str; 1] = ["rserpool/src/log.rs"];

/// Returns the texts in quotation marks in the arguments that begin at `source`.
fn texts(source: &str) -> Vec<&str> {
    let (mut depth, mut texts, mut rest) = (1, Vec::new(), source);
    while depth > 0
        && let Some(place) = rest.find(['"', '(', ')'])
    {
        let (found, after) = (rest.as_bytes()[place], &rest[place + 1..]);
        match found {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {
                let end = after.find('"').unwrap();
                texts.push(&after[..end]);
                rest = &after[end + 1..];
                continue;
            }
        }
        rest = after;
    }
    texts
}

#[test]
fn each_warning_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let guide = fs::read_to_string(root.join("rserpool/src/guide/warnings.md")).unwrap();
    let (mut checked, mut missing) = (0, Vec::new());
    for file in sources(&root).unwrap() {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap();
        let published = ["rserpool/src", "rserpool-proto/src", "rserpool-cli/src"];
        if !published.iter().any(|folder| name.starts_with(folder)) || WITHOUT_TEXTS.contains(&name)
        {
            continue;
        }
        let source = fs::read_to_string(&file).unwrap();
        let source = source.split("#[cfg(test)]\nmod tests").next().unwrap();
        let mut found: Vec<&str> = Vec::new();
        for start in ["warn_limited!(", "tracing::warn!(", " warn!("] {
            for (place, _) in source.match_indices(start) {
                found.extend(texts(&source[place + start.len()..]).last());
            }
        }
        // Kinds that are chosen first and logged later.
        for start in ["\"limit of ", "\"denied by the access rules: "] {
            for (place, _) in source.match_indices(start) {
                found.extend(source[place + 1..].split('"').next());
            }
        }
        for text in found {
            let text = text.split(": {").next().unwrap_or(text);
            if text.contains('{') {
                continue;
            }
            checked += 1;
            if !guide.contains(&format!("`{text}`")) {
                missing.push(format!("{name}: {text}"));
            }
        }
    }
    assert!(checked > 60, "only {checked} were found");
    assert!(missing.is_empty(), "{missing:#?}");
}
