//! The faults that tests are to find: see `tests/data/mutants.txt`.

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// What it is called.
    pub name: String,
    /// Where it is put, from the root of the repository on.
    pub file: String,
    /// The test that finds it: one of `rserpool-proto/tests`, "lib", or "contract".
    pub test: String,
    old: String,
    new: String,
}

impl Mutant {
    /// A file with the fault in it. None where its place is not there, or not the only one.
    #[must_use]
    pub fn apply(&self, original: &str) -> Option<String> {
        (original.matches(&self.old).count() == 1)
            .then(|| original.replacen(&self.old, &self.new, 1))
    }
}

/// All of them.
///
/// # Panics
///
/// When the file is not as it says.
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
