//! The rule that buys the simulator, the fuzzers and both runtimes: `wire`, `policy`,
//! `handlespace` and `protocol` do no I/O, read no clock and draw no unseeded randomness, and
//! each depends only on those before it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom to the top; the first four are without I/O.
const LAYERS: [&str; 5] = ["wire", "policy", "handlespace", "protocol", "driver"];

/// What no file of the first four layers may contain, comments apart.
const FORBIDDEN: [&str; 23] = [
    "async",
    "await",
    "Instant::now",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "socket2",
    "libc",
    "tokio",
    "smol",
    "futures",
    "std::thread",
    "std::fs",
    "std::io",
    "std::env",
    "thread_rng",
    "rand::rng",
    "OsRng",
    "SysRng",
    "crate::transport",
    "crate::runtime",
    "crate::cookie",
];

/// The code of a file without its line comments.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether `word` stands in `code` by itself and not as a part of a longer name.
fn contains_word(code: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        let after = code[start + word.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

/// What breaks the rule in a file of layer `layer`.
fn violations(layer: usize, text: &str) -> Vec<String> {
    let code = code(text);
    let above = LAYERS[layer + 1..].iter().map(|layer| format!("crate::{layer}"));
    FORBIDDEN
        .iter()
        .map(ToString::to_string)
        .chain(above)
        .filter(|word| contains_word(&code, word))
        .collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

#[test]
fn the_lower_layers_do_no_io_and_know_nothing_of_the_upper_ones() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rserpool/src");
    let mut found = Vec::new();
    for (layer, name) in LAYERS.iter().enumerate().take(4) {
        let files = sources(&root.join(name));
        assert!(!files.is_empty(), "{name} has moved");
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for word in violations(layer, &text) {
                found.push(format!("{}: {word}", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "not for these layers:\n{}", found.join("\n"));
}

#[test]
fn the_rule_notices_what_it_is_there_for() {
    let noticed = |layer, text| !violations(layer, text).is_empty();
    assert!(noticed(0, "let now = Instant::now();"));
    assert!(noticed(3, "pub async fn send() {}"));
    assert!(noticed(1, "use crate::handlespace::Handlespace;"));
    assert!(noticed(2, "use crate::protocol;"));
    assert!(!noticed(3, "use crate::handlespace::Handlespace; // no async here"));
    assert!(!noticed(0, "let asynchronous = 1;"));
}
