//! Counts the first words of documentation comments, and shows a random sample of comments.
//!
//! `cargo run -p rserpool-tests --bin words -- --sample 100 --seed 7`

use std::io;
use std::path::Path;

use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rserpool_tests::words::{self, Words};

#[derive(Debug, Parser)]
struct Arguments {
    /// Number of comments to show
    #[arg(long, default_value_t = 0)]
    sample: usize,
    /// Seed of the sample
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let comments = words::comments(&root)?;
    let words = Words::count(&comments);
    println!(
        "{} summaries; begin with a question word: {} ({:.1} %), with a verb: {} ({:.1} %)",
        words.summaries,
        words.questions,
        words.question_percentage(),
        words.verbs,
        words.verb_percentage(),
    );
    let mut rng = StdRng::seed_from_u64(arguments.seed);
    for comment in comments.sample(&mut rng, arguments.sample) {
        println!("\n{}:{}\n{}", comment.file.display(), comment.line, comment.text);
    }
    Ok(())
}
