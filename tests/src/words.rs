//! Statistics of the first words of comments, which show whether summaries stand alone.
//!
//! A summary is the first line of a block of `///` or `//!` lines. Two kinds of first words are counted:
//! question words (How, What, Where, Which, Whether, Who), which make a summary a fragment, and verbs in
//! the third person. A verb is a capitalized word that ends in "s" and is not among `NOUNS`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Words that make a summary a fragment of a sentence.
const QUESTIONS: &[&str] = &["How", "What", "Where", "Which", "Whether", "Who"];

/// Words that end in "s", begin summaries, and are not verbs.
const NOUNS: &str = "Address Addresses Announcements Arguments Associations Buffers Business Bytes \
    Clocks Commands Computations Connections Cookies Counters Differences Directions Distances Elements \
    Events Hosts Implementations Its Items Kinds Limits Lists Members Messages Milliseconds \
    Notifications Numbers Operations Options Packets Pages Pairs Parameters Partitions Parts Pass \
    Policies Pools Process Properties Registrars Registrations Renewals Resolutions Rounds Rules Scopes \
    Seconds Servers Services Sessions Settings Sockets Sources Statistics Subscribers Subscriptions \
    Tests This Timers Times Transports";

/// A block of comment lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// Path of the file, from the root of the repository.
    pub file: PathBuf,
    /// Number of its first line, counted from 1.
    pub line: usize,
    /// The text without the comment markers, with the line of code that follows.
    pub text: String,
}

/// Counters of summaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Words {
    /// All summaries.
    pub summaries: usize,
    /// Summaries that begin with a question word.
    pub questions: usize,
    /// Summaries that begin with a verb in the third person.
    pub verbs: usize,
}

impl Words {
    /// Counts the first words of `comments`.
    #[must_use]
    pub fn count(comments: &[Comment]) -> Self {
        let mut words = Self { summaries: comments.len(), ..Self::default() };
        for comment in comments {
            let first = comment.text.split_whitespace().next().unwrap_or_default();
            words.questions += usize::from(QUESTIONS.contains(&first));
            words.verbs += usize::from(is_verb(first));
        }
        words
    }

    /// Returns the percentage of summaries that begin with a question word.
    #[must_use]
    pub fn question_percentage(&self) -> f64 {
        100.0 * self.questions as f64 / self.summaries as f64
    }

    /// Returns the percentage of summaries that begin with a verb.
    #[must_use]
    pub fn verb_percentage(&self) -> f64 {
        100.0 * self.verbs as f64 / self.summaries as f64
    }
}

fn is_verb(word: &str) -> bool {
    word.starts_with(char::is_uppercase)
        && word.len() > 2
        && word.ends_with('s')
        && word.chars().all(char::is_alphabetic)
        && !NOUNS.split_whitespace().any(|noun| noun == word)
}

/// Reads the documentation comments of all crates below `root`.
///
/// # Errors
///
/// Returns an error if a file cannot be read.
pub fn comments(root: &Path) -> io::Result<Vec<Comment>> {
    let mut comments = Vec::new();
    for path in sources(root)? {
        let file = path.strip_prefix(root).unwrap_or(&path);
        comments.extend(blocks(file, &fs::read_to_string(&path)?));
    }
    comments.sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
    Ok(comments)
}

/// Returns the source files of all crates below `root`, in no particular order.
///
/// # Errors
///
/// Returns an error if a folder cannot be read.
pub fn sources(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    let mut folders: Vec<_> = fs::read_dir(root)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("Cargo.toml").exists())
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(path);
            }
        }
    }
    Ok(sources)
}

fn blocks(file: &Path, source: &str) -> Vec<Comment> {
    let mut blocks: Vec<Comment> = Vec::new();
    let mut inside = false;
    for (number, line) in (1..).zip(source.lines()) {
        let line = line.trim_start();
        let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        match (comment, blocks.last_mut()) {
            (Some(text), Some(block)) if inside => {
                block.text.push('\n');
                block.text.push_str(text.trim());
            }
            (Some(text), _) if !text.trim().is_empty() => {
                let text = text.trim().to_owned();
                blocks.push(Comment { file: file.to_owned(), line: number, text });
                inside = true;
            }
            (None, Some(block)) if inside => {
                block.text.push_str("\n    ");
                block.text.push_str(line);
                inside = false;
            }
            _ => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_of_blocks_are_counted() {
        let source =
            "//! What it does.\n//! Returns.\n\n/// Returns one.\nfn one() {}\n// Which?\n";
        let comments = blocks(Path::new("it.rs"), source);
        assert_eq!(comments.len(), 2);
        assert_eq!(
            (comments[1].line, comments[1].text.as_str()),
            (4, "Returns one.\n    fn one() {}")
        );
        let words = Words::count(&comments);
        assert_eq!(words, Words { summaries: 2, questions: 1, verbs: 1 });
    }
}
