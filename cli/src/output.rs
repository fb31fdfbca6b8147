//! What goes to stdout: aligned tables and JSON, and nothing else.

use std::fmt;
use std::io::{self, ErrorKind, Write};

use anyhow::Context;
use serde::Serialize;

/// Writes `text` to stdout.
pub(crate) fn write(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot write to stdout")
}

/// Writes `value` to stdout as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    write(&text)
}

/// Whether the reader of our output went away, as `head` does; that is its choice and no failure.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// A table for people: columns as wide as their widest cell, two spaces apart, no lines.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table; a column whose title begins with `>` is flush right.
    pub(crate) fn new(head: &[&'static str]) -> Self {
        let right = head.iter().map(|title| title.starts_with('>')).collect();
        let head = head
            .iter()
            .map(|title| title.trim_start_matches('>'))
            .collect();
        Self {
            head,
            right,
            rows: Vec::new(),
        }
    }

    /// Adds a row, one cell a column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn width(&self, column: usize) -> usize {
        let cells = self
            .rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(String::as_str);
        let head = self.head.get(column).copied();
        cells
            .chain(head)
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| self.width(column))
            .collect();
        let head: Vec<String> = self.head.iter().map(|title| (*title).to_owned()).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let cells = row
                .iter()
                .zip(&widths)
                .zip(&self.right)
                .map(|((cell, width), right)| {
                    if *right {
                        format!("{cell:>width$}")
                    } else {
                        format!("{cell:width$}")
                    }
                });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["NAME", ">VRAM", "NOTE"]);
        table.row([
            "gpu0-quarter".to_owned(),
            "35 GiB".to_owned(),
            String::new(),
        ]);
        table.row(["a".to_owned(), "7 GiB".to_owned(), "é".to_owned()]);
        assert_eq!(
            table.to_string(),
            "NAME            VRAM  NOTE\ngpu0-quarter  35 GiB\na              7 GiB  é\n"
        );
    }

    #[test]
    fn a_closed_pipe_is_known_through_its_context() {
        let error = anyhow::Error::from(io::Error::from(ErrorKind::BrokenPipe)).context("writing");
        assert!(is_closed_pipe(&error));
        assert!(!is_closed_pipe(&anyhow::anyhow!("other")));
    }
}
