//! The hand-written half of the table: `class name [=> module::body]`, one line a function.
//!
//! Facts: DESIGN D3. The class says what kind of call it is; a body says that the limiter hooks it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Every class a function can have; the order is the order in the documentation.
pub(crate) const CLASSES: [(&str, &str); 9] = [
    ("alloc", "takes device memory"),
    ("free", "gives device memory back"),
    ("import", "brings in memory that somebody else owns"),
    ("launch", "occupies the GPU"),
    (
        "info",
        "shows capacity, use or processes, or finds entry points",
    ),
    ("context", "creates, destroys or finds contexts and devices"),
    (
        "module",
        "loads code, which takes memory that the driver accounts by itself",
    ),
    ("set", "would change the node for everybody: refused"),
    ("pass", "none of these: straight to the driver"),
];

/// One line of an `.entries` file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) class: String,
    /// `module::function` below the limiter's hooks, where it is hooked.
    pub(crate) body: Option<String>,
}

/// Reads an `.entries` file into name -> entry.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<String, Entry>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut entries = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let place = format!("{}:{number}", path.display());
        let (name, entry) = parse(line).with_context(|| place.clone())?;
        if entries.insert(name.clone(), entry).is_some() {
            bail!("{place}: {name} is classified twice");
        }
    }
    Ok(entries)
}

fn parse(line: &str) -> Result<(String, Entry)> {
    let (head, body) = match line.split_once("=>") {
        Some((head, body)) => (head.trim(), Some(body.trim().to_owned())),
        None => (line, None),
    };
    let mut words = head.split_whitespace();
    let (Some(class), Some(name), None) = (words.next(), words.next(), words.next()) else {
        bail!("{line:?} is not `class name [=> module::body]`");
    };
    if !CLASSES.iter().any(|(known, _)| *known == class) {
        let known: Vec<_> = CLASSES.iter().map(|(name, _)| *name).collect();
        bail!(
            "unknown class {class:?}; the classes are {}",
            known.join(", ")
        );
    }
    Ok((
        name.to_owned(),
        Entry {
            class: class.to_owned(),
            body,
        },
    ))
}

/// Fails unless the headers and the entries name exactly the same functions.
pub(crate) fn check_complete<'a>(
    path: &Path,
    entries: &BTreeMap<String, Entry>,
    functions: impl Iterator<Item = &'a str>,
) -> Result<()> {
    let functions: std::collections::BTreeSet<_> = functions.collect();
    let missing: Vec<_> = functions
        .iter()
        .filter(|name| !entries.contains_key(**name))
        .collect();
    let unknown: Vec<_> = entries
        .keys()
        .filter(|name| !functions.contains(name.as_str()))
        .collect();
    if !missing.is_empty() || !unknown.is_empty() {
        bail!(
            "{}: not classified: {missing:?}; classified but not in the header: {unknown:?}",
            path.display()
        );
    }
    Ok(())
}
