//! Tests that `docs/CONFORMANCE.md` and `SECURITY.md` name files and tests that exist.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use rserpool_proto::testing::proportions;
use rserpool_tests::mutants;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Collects the text of all Rust files below `folder`, by the stem of the file name, or by the name
/// of the folder for `mod.rs`.
fn collect(folder: &Path, texts: &mut HashMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, texts);
            }
        } else if let Some(stem) = name.strip_suffix(".rs") {
            let folder = folder.file_name().unwrap().to_str().unwrap();
            let stem = if stem == "mod" { folder } else { stem };
            texts.entry(stem.to_owned()).or_default().push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

/// Returns the text of all Rust files, see [`collect`].
fn texts(root: &Path) -> HashMap<String, String> {
    let mut texts = HashMap::new();
    collect(root, &mut texts);
    texts
}

/// Returns whether there is a function with a name such as `stem::function`.
fn has_function(texts: &HashMap<String, String>, name: &str) -> bool {
    name.split_once("::").is_some_and(|(stem, function)| {
        texts.get(stem).is_some_and(|text| text.contains(&format!("fn {function}(")))
    })
}

/// Returns the parts of a text that are between backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Returns the faults of a table row with six columns; `None` if the line is no such row.
fn faults(line: &str, root: &Path, texts: &HashMap<String, String>) -> Option<Vec<String>> {
    let cells: Vec<_> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
    let section = cells[0];
    if !section.starts_with(|c: char| c.is_ascii_digit()) && section != "Abstract" {
        return None;
    }
    let [_, _, _, _, place, tests] = cells[..] else {
        return Some(vec![format!("{} columns", cells.len())]);
    };
    let mut faults = Vec::new();
    for path in quoted(place) {
        if !root.join(path).exists() {
            faults.push(format!("there is no {path}"));
        }
    }
    if quoted(tests).is_empty() && tests != "none" {
        faults.push(format!("no test in {tests:?}"));
    }
    for test in quoted(tests) {
        let exists = match test.strip_prefix("mutant/") {
            Some(name) => mutants::all().any(|mutant| mutant.name == name),
            None if test.starts_with("interop/") => root.join("tests").join(test).exists(),
            None => has_function(texts, test),
        };
        if !exists {
            faults.push(format!("there is no test {test}"));
        }
    }
    Some(faults)
}

#[test]
fn all_that_it_names_exists() {
    let root = root();
    let texts = texts(&root);
    let document = fs::read_to_string(root.join("docs/CONFORMANCE.md")).unwrap();
    let mut rows = 0;
    let mut all = Vec::new();
    for (number, line) in (1..).zip(document.lines()) {
        if let Some(faults) = faults(line, &root, &texts) {
            rows += 1;
            all.extend(faults.into_iter().map(|fault| format!("line {number}: {fault}")));
        }
    }
    assert!(rows > 300, "{rows} rows");
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn each_fault_is_named_once_and_fits_the_code() {
    let names: Vec<_> = mutants::all().map(|mutant| mutant.name).collect();
    let mut different = names.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), names.len());
    for mutant in mutants::all() {
        let text = fs::read_to_string(root().join(&mutant.file)).unwrap();
        assert!(mutant.apply(&text).is_some(), "{}: {}", mutant.name, mutant.file);
    }
    let patches = fs::read_dir(root().join("tests/mutants")).unwrap();
    let patches = patches.map(|entry| entry.unwrap().path());
    for patch in patches.filter(|path| path.extension().is_some_and(|it| it == "patch")) {
        let mut git = std::process::Command::new("git");
        let git = git.current_dir(root()).args(["apply", "--check"]).arg(&patch);
        assert!(git.status().unwrap().success(), "{}", patch.display());
    }
}

/// Returns the number of MUST requirements that are met, the number of these for which a mutant is
/// named, and the lines that name neither a mutant nor a reason for having none.
fn musts(document: &str) -> (usize, usize, Vec<&str>) {
    let (mut all, mut with, mut untested) = (0, 0, Vec::new());
    for line in document.lines() {
        let cells: Vec<_> = line.strip_prefix("| ").unwrap_or_default().split(" | ").collect();
        let [_, level, _, does, _, tests] = cells[..] else { continue };
        let met = !["**Deviates", "**Not done", "Not ours"].iter().any(|it| does.starts_with(it));
        if ["MUST", "SHALL"].iter().any(|word| level.starts_with(word)) && met {
            all += 1;
            if tests.contains("`mutant/") {
                with += 1;
            } else if !tests.contains("; no mutant: ") {
                untested.push(line);
            }
        }
    }
    (all, with, untested)
}

#[test]
fn it_says_how_many_requirements_withstand_a_fault_and_why_others_do_not() {
    let document = fs::read_to_string(root().join("docs/CONFORMANCE.md")).unwrap();
    let (all, with, untested) = musts(&document);
    let sentence =
        format!("Of {all} requirements that are MUST or SHALL and met, {with} withstand a fault");
    let words = document.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(&sentence), "{sentence}");
    assert!(untested.is_empty(), "{}", untested.join("\n"));
    let row = "| 3.1 | MUST | a | b | `Cargo.toml` | `some::test` |";
    assert_eq!(musts(row).2, [row]);
}

/// Returns the counts of the rows of one RFC, in the order of the summary table: all, met,
/// deviating, not done, not ours, without a test, and without a test although met or deviating.
fn count(rows: &[&str]) -> [usize; 7] {
    let mut counts = [rows.len(), 0, 0, 0, 0, 0, 0];
    for row in rows {
        let cells: Vec<_> = row.split(" | ").collect();
        let kinds = ["**Deviates", "**Not done", "Not ours"];
        let kind = kinds.iter().position(|kind| cells[3].starts_with(kind)).map_or(1, |it| it + 2);
        counts[kind] += 1;
        if cells[5] == "none |" {
            counts[5] += 1;
            counts[6] += usize::from(kind <= 2);
        }
    }
    counts
}

#[test]
fn the_summary_is_right() {
    let document = fs::read_to_string(root().join("docs/CONFORMANCE.md")).unwrap();
    let mut total = [0; 7];
    let line = |name: &str, counts: [usize; 7]| {
        let counts = counts.map(|count| count.to_string()).join(" | ");
        format!("| {name} | {counts} |")
    };
    for part in document.split("\n## ").skip(1) {
        let name = part.split(':').next().unwrap();
        let is_row = |line: &&str| {
            let rest = line.strip_prefix("| ").unwrap_or_default();
            rest.starts_with("Abstract") || rest.starts_with(|c: char| c.is_ascii_digit())
        };
        let counts = count(&part.lines().filter(is_row).collect::<Vec<_>>());
        assert!(document.contains(&line(name, counts)), "{}", line(name, counts));
        for (sum, count) in total.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    assert!(document.contains(&line("all", total)), "{}", line("all", total));
}

#[test]
fn what_does_not_exist_is_noticed() {
    let root = root();
    let texts = HashMap::from([("some".to_owned(), "fn test() {}".to_owned())]);
    let check = |line| faults(line, &root, &texts).map(|faults| faults.len());
    assert_eq!(check("| 3.1 | MUST | a | b | `Cargo.toml` | `some::test` |"), Some(0));
    assert_eq!(check("| 3.1 | MUST | a | b | `Cargo.toml` | none |"), Some(0));
    assert_eq!(check("| 3.1 | MUST | a | b | `Cargo.toml` | `interop/pools` |"), Some(0));
    assert_eq!(check("| 3.1 | MUST | a | b | `nowhere` | `some::other` |"), Some(2));
    assert_eq!(check("| 3.1 | MUST | a | b | `Cargo.toml` | soon |"), Some(1));
    assert_eq!(check("| 3.1 | MUST | a | b | `some::test` |"), Some(1));
    assert_eq!(check("| RFC 5352 | 162 | 108 | 28 | 24 | 2 | 50 | 26 |"), None);
}

/// Tests that each promise in `SECURITY.md` names a test that exists.
#[test]
fn each_promise_names_a_test_that_exists() {
    let root = root();
    let texts = texts(&root);
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let promises = text.split("## What is promised").nth(1).unwrap();
    let promises = promises.split("## Limits").next().unwrap();
    let rows = promises.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut count = 0;
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let mut named = 0;
        for test in quoted(tests) {
            if let Some((stem, rest)) = test.split_once("::") {
                let last = rest.rsplit("::").next().unwrap();
                let text = texts.get(stem).unwrap_or_else(|| panic!("no file {stem}"));
                let found = ["fn", "mod"].iter().any(|what| {
                    [format!("{what} {last}("), format!("{what} {last} {{")]
                        .iter()
                        .any(|it| text.contains(it))
                });
                assert!(found, "there is no {test}");
                named += 1;
            } else if root.join("fuzz/fuzz_targets").join(format!("{test}.rs")).exists() {
                named += 1;
            }
        }
        assert!(named > 0, "no test: {row}");
        count += 1;
    }
    assert!(count >= 10);
}

/// Tests that each threat in `docs/SECURITY-ANALYSIS.md` names tests and faults, and that these exist.
#[test]
fn each_threat_names_tests_and_faults_that_exist() {
    let root = root();
    let texts = texts(&root);
    let text = fs::read_to_string(root.join("docs/SECURITY-ANALYSIS.md")).unwrap();
    let threats: Vec<_> = text.split("\n## 2.").skip(1).collect();
    assert!(threats.len() >= 10, "{} threats", threats.len());
    for threat in threats {
        let tests = threat.split("**Tests.**").nth(1).unwrap_or_default();
        let (tests, faults) = tests.split_once("**Faults.**").unwrap_or_default();
        let (tests, faults) = (quoted(tests), quoted(faults));
        assert!(!tests.is_empty() && !faults.is_empty(), "no test or fault: {threat}");
        for fault in faults {
            assert!(mutants::all().any(|mutant| mutant.name == fault), "there is no {fault}");
        }
        for test in tests {
            assert!(has_function(&texts, test), "there is no {test}");
        }
    }
}

#[test]
fn the_table_of_proportions_is_what_is_measured() {
    let document = include_str!("../../docs/CONFORMANCE.md");
    assert!(
        document.contains(&proportions::table()),
        "put in the output of `cargo run --release -p rserpool-tests --bin proportions`"
    );
}
