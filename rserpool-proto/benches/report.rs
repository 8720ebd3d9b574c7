//! A plain-text table of medians, beside the harness's own report.

use std::collections::BTreeMap;
use std::time::Duration;

/// The results: nanoseconds for one operation by table, row and column.
#[derive(Default)]
pub struct Report {
    tables: BTreeMap<String, BTreeMap<String, BTreeMap<usize, Vec<f64>>>>,
}

impl Report {
    /// Adds a sample: `count` operations that took `took` in total.
    pub fn sample(&mut self, table: &str, row: &str, column: usize, took: Duration, count: u64) {
        let rows = self.tables.entry(table.to_owned()).or_default();
        let columns = rows.entry(row.to_owned()).or_default();
        columns.entry(column).or_default().push(took.as_nanos() as f64 / count as f64);
    }

    /// Prints the medians in millions of operations a second.
    pub fn print(&self) {
        println!("\nMedians, in millions of operations a second");
        for (table, rows) in &self.tables {
            let columns = rows.values().flat_map(BTreeMap::keys).copied();
            let columns: std::collections::BTreeSet<usize> = columns.collect();
            print!("\n{table:<44}");
            for column in &columns {
                print!("{column:>11}");
            }
            println!();
            for (row, cells) in rows {
                print!("  {row:<42}");
                for column in &columns {
                    match cells.get(column).map(|samples| median(samples)) {
                        Some(nanoseconds) => print!("{:>11.2}", 1000.0 / nanoseconds),
                        None => print!("{:>11}", "-"),
                    }
                }
                println!();
            }
        }
    }
}

/// The median of the later half, which is past the warm-up.
fn median(samples: &[f64]) -> f64 {
    let mut late = samples[samples.len() / 2..].to_vec();
    late.sort_by(f64::total_cmp);
    late[late.len() / 2]
}
