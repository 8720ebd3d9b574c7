//! Deliberate faults (mutants) in the code, which the tests have to find: see
//! `tests/data/mutants.txt`.

/// A deliberate fault in the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// Name of the fault.
    pub name: String,
    /// Path of the file with the fault, from the root of the repository.
    pub file: String,
    /// The test that has to find it: one of `rserpool-proto/tests`, "lib", or "contract".
    pub test: String,
    old: String,
    new: String,
}

impl Mutant {
    /// Returns the package with the test that has to find the fault, and the arguments that select
    /// the test in it.
    #[must_use]
    pub fn test(&self) -> (&str, Vec<&str>) {
        let package = self.file.split('/').next().unwrap_or_default();
        match (self.test.as_str(), self.test.strip_prefix("tests/")) {
            ("lib", _) => (package, vec!["--lib"]),
            ("contract", _) => ("rserpool-tokio", vec!["--test", "contract"]),
            (_, Some(test)) => ("rserpool-tests", vec!["--test", test]),
            (test, None) => ("rserpool-proto", vec!["--test", test]),
        }
    }

    /// Returns the text `original` of the file with the fault in it; `None` if the code to be
    /// replaced does not occur there exactly once.
    #[must_use]
    pub fn apply(&self, original: &str) -> Option<String> {
        (original.matches(&self.old).count() == 1)
            .then(|| original.replacen(&self.old, &self.new, 1))
    }
}

/// Returns all faults.
///
/// # Panics
///
/// Panics if the file does not have the expected form.
pub fn all() -> impl Iterator<Item = Mutant> {
    let text = include_str!("../data/mutants.txt");
    text.split("\n=== ").skip(1).map(|entry| {
        let (head, change) = entry.split_once("\n--- old\n").expect("what it replaces");
        let (old, new) = change.split_once("\n--- new\n").expect("by what");
        let mut lines = head.lines();
        let mut line = || lines.next().expect("name, file and test").to_owned();
        let (name, file, test) = (line(), line(), line());
        let new = new.trim_end_matches('\n').to_owned();
        Mutant { name, file, test, old: old.to_owned(), new }
    })
}
