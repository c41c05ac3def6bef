//! What the tasks print: lines, tables and the verdict of a check.
//!
//! Owns [`Verdict`], [`line()`] and [`table`]. Must not know what is being checked.

use std::fmt::Write as _;
use std::io::{self, Write as _};

/// How a check ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is well; the text says what was looked at.
    Passed(String),
    /// Nothing was checked; the text says why.
    Skipped(String),
    /// One entry for each thing that is wrong: where, what, and what to do.
    Failed(Vec<String>),
}

impl Verdict {
    /// Failed when there are problems, else passed with a note.
    pub fn from_problems(problems: Vec<String>, note: impl Into<String>) -> Self {
        if problems.is_empty() { Self::Passed(note.into()) } else { Self::Failed(problems) }
    }
}

/// Prints one line on standard output.
pub fn line(text: impl AsRef<str>) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", text.as_ref())
}

/// Rows with their columns aligned; the first row is the header.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|c| rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing into a String cannot fail.
            let _ = write!(text, "{cell:<width$}  ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
        if i == 0 {
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            out.push_str(&rule.join("  "));
            out.push('\n');
        }
    }
    out
}

/// One row of a table.
pub fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_their_widest_cell() {
        let text = table(&[row(["a", "why"]), row(["long", "x"])]);
        assert_eq!(text, "a     why\n----  ---\nlong  x\n");
    }

    #[test]
    fn problems_make_a_failure() {
        assert_eq!(Verdict::from_problems(vec![], "3 files"), Verdict::Passed("3 files".into()));
        assert_eq!(Verdict::from_problems(vec!["x".into()], "3"), Verdict::Failed(vec!["x".into()]));
    }
}
