//! Tests that the summaries of comments stand alone: see CONTRIBUTING.md.

use std::path::Path;

use rserpool_tests::words::{self, Words};

#[test]
fn summaries_begin_with_a_noun_or_a_verb() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let words = Words::count(&words::comments(&root).expect("the sources are there"));
    assert!(words.summaries > 2000, "{words:?}");
    assert!(words.question_percentage() <= 2.0, "{words:?}");
    assert!(words.verb_percentage() >= 6.0, "{words:?}");
}
