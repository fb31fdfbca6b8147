//! PTX text: which entries and variables a module declares.
//!
//! Only directives are read. A module needs `.version` and `.target`, as the PTX ISA says; a target that is newer
//! than the GPU, or a version that is newer than the driver, is refused as the driver's compiler would.

use vgpu_cuda_sys::cuda::*;

use crate::error::{Cu, Fail, ensure_or, fail};
use crate::image::{Entry, Global, Image, Target};

/// The comment that says how long a kernel takes.
const DURATION: &str = "sim-gpu: duration_ns=";

/// Reads a module.
pub(crate) fn read(source: &str, target: Target) -> Cu<Image> {
    let marked = keep_durations(source);
    check_header(&marked, target)?;
    let mut image = Image::default();
    let mut parts = marked.split(".entry");
    let head = parts.next().unwrap_or_default();
    let common = duration(head);
    image.globals = globals(head);
    for part in parts {
        let mut entry = entry(part)?;
        entry.duration = duration(part).or(common);
        image.entries.push(entry);
        image.globals.extend(globals(after_body(part)));
    }
    Ok(image)
}

/// The text without comments, but for those that say how long a kernel takes: these become `@duration=<n>;`.
fn keep_durations(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find('/') {
        let (before, comment) = rest.split_at(start);
        text.push_str(before);
        let end = if comment.starts_with("//") {
            comment.find('\n').unwrap_or(comment.len())
        } else if comment.starts_with("/*") {
            comment.find("*/").map_or(comment.len(), |end| end + 2)
        } else {
            text.push('/');
            1
        };
        if let Some((_, value)) = comment[..end].split_once(DURATION) {
            let digits: String = value
                .trim()
                .chars()
                .take_while(char::is_ascii_digit)
                .collect();
            text.push_str(&format!("@duration={digits};"));
        }
        rest = &comment[end..];
    }
    text.push_str(rest);
    text
}

fn duration(part: &str) -> Option<u64> {
    let (_, value) = part.split_once("@duration=")?;
    value.split(';').next()?.parse().ok()
}

/// The word after a directive.
fn word_after<'text>(text: &'text str, directive: &str) -> Option<&'text str> {
    text.split_once(directive)?.1.split_whitespace().next()
}

fn check_header(text: &str, target: Target) -> Cu {
    let version = word_after(text, ".version").and_then(|version| version.split_once('.'));
    let number = |text: &str| {
        text.trim_end_matches(|c: char| !c.is_ascii_digit())
            .parse::<u32>()
            .ok()
    };
    let version = version.and_then(|(major, minor)| Some(number(major)? * 10 + number(minor)?));
    let version = version.ok_or(Fail(CUDA_ERROR_INVALID_PTX))?;
    // PTX 9.x came with CUDA 13.x; 8.8 was the last of CUDA 12.
    let newest = match target.cuda / 1000 {
        12 => 88,
        major => (major.saturating_sub(4)) * 10 + target.cuda % 1000 / 10,
    };
    ensure_or(version <= newest, CUDA_ERROR_UNSUPPORTED_PTX_VERSION)?;
    let name = word_after(text, ".target").and_then(|target| target.strip_prefix("sm_"));
    let digits = name.map(|name| {
        name.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
    });
    let capability = digits.and_then(|digits| digits.parse::<u32>().ok());
    let capability = capability.ok_or(Fail(CUDA_ERROR_INVALID_PTX))?;
    ensure_or(
        capability <= target.capability,
        CUDA_ERROR_NO_BINARY_FOR_GPU,
    )
}

/// An entry from the text after its directive.
fn entry(text: &str) -> Cu<Entry> {
    let text = text.trim_start();
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, '(' | '{' | ';' | '.'));
    let name = &text[..end.unwrap_or(text.len())];
    if name.is_empty() {
        return fail(CUDA_ERROR_INVALID_PTX);
    }
    let body = text.find('{').ok_or(Fail(CUDA_ERROR_INVALID_PTX))?;
    let head = &text[..body];
    let list = head
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'));
    let threads = word_list(head, ".reqntid").or_else(|| word_list(head, ".maxntid"));
    Ok(Entry {
        name: name.to_owned(),
        params: list.map_or_else(Vec::new, |(list, _)| parameters(list)),
        duration: None,
        max_threads: threads.map(|dims| dims.iter().product()),
        shared: declared(
            &text[body..text.find('}').unwrap_or(text.len()).max(body)],
            ".shared",
        )
        .iter()
        .map(|variable| variable.size as u32)
        .sum(),
    })
}

/// The comma-separated numbers after a directive.
fn word_list(text: &str, directive: &str) -> Option<Vec<u32>> {
    let rest = text.split_once(directive)?.1;
    let end = rest.find('.').unwrap_or(rest.len());
    Some(
        rest[..end]
            .split(',')
            .filter_map(|number| number.trim().parse().ok())
            .collect(),
    )
}

fn parameters(list: &str) -> Vec<(usize, usize)> {
    let mut offset = 0_usize;
    let declared = list
        .split(',')
        .filter(|parameter| parameter.contains(".param"));
    declared
        .map(|parameter| {
            let (element, count, align) = measure(parameter);
            offset = offset.next_multiple_of(align.max(1));
            let place = (offset, element * count);
            offset += element * count;
            place
        })
        .collect()
}

/// Element size, count and alignment of one declaration.
fn measure(text: &str) -> (usize, usize, usize) {
    let mut element = 0;
    let mut align = 0;
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        if word == ".align" {
            align = words
                .next()
                .and_then(|value| value.parse().ok())
                .unwrap_or(0);
        } else if let Some(kind) = word.strip_prefix('.') {
            let bits: String = kind.chars().skip_while(|c| !c.is_ascii_digit()).collect();
            if kind.starts_with(['b', 'u', 's', 'f']) && bits.chars().all(|c| c.is_ascii_digit()) {
                element = bits.parse::<usize>().map_or(element, |bits| bits / 8);
            }
        }
    }
    let dimensions = text
        .split('[')
        .skip(1)
        .filter_map(|part| part.split_once(']'));
    let count = dimensions
        .filter_map(|(number, _)| number.trim().parse::<usize>().ok())
        .product();
    (element, count, if align == 0 { element } else { align })
}

fn globals(text: &str) -> Vec<Global> {
    let mut found = declared(text, ".global");
    found.extend(declared(text, ".const"));
    found
}

/// Variables declared in a state space, but for `.extern` ones.
fn declared(text: &str, space: &str) -> Vec<Global> {
    let statements = text.split([';', '{', '}']);
    let ours = statements.filter(|statement| {
        let words: Vec<&str> = statement.split_whitespace().collect();
        let at = words.iter().position(|word| *word == space);
        // What stands further left may be a directive that ends without a semicolon.
        at.is_some_and(|at| at == 0 || words[at - 1] != ".extern")
    });
    ours.filter_map(|statement| {
        let declaration = statement.split('=').next()?;
        let (element, count, _) = measure(declaration);
        let name = declaration.split('[').next()?.split_whitespace().last()?;
        let managed = declaration.contains(".managed");
        Some(Global {
            name: name.to_owned(),
            size: (element * count) as u64,
            managed,
        })
    })
    .collect()
}

/// What follows the body of an entry.
fn after_body(part: &str) -> &str {
    let mut depth = 0_i32;
    for (index, byte) in part.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return &part[index + 1..],
            b'}' => depth -= 1,
            _ => {}
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &str = "// generated\n.version 8.0\n.target sm_80\n.address_size 64\n\
        .visible .global .align 4 .b8 table[64];\n.global .u64 counter = 1;\n.extern .global .u32 other;\n\
        .visible .entry add(\n .param .u64 add_a,\n .param .align 16 .b8 add_b[20],\n .param .f32 add_c\n)\n\
        .maxntid 128, 2, 1\n{\n // sim-gpu: duration_ns=5000\n .shared .align 4 .b8 tile[1024];\n ret;\n}\n\
        .const .align 4 .f32 late[2];\n.entry plain() { /* sim-gpu: duration_ns=7 */ ret; }\n.entry bare { ret; }";

    fn target() -> Target {
        Target {
            capability: 90,
            cuda: 13000,
        }
    }

    #[test]
    fn entries_parameters_and_durations_are_read() {
        let image = read(MODULE, target()).unwrap();
        let names: Vec<&str> = image
            .entries
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        assert_eq!(names, ["add", "plain", "bare"]);
        let add = &image.entries[0];
        assert_eq!(add.params, [(0, 8), (16, 20), (36, 4)]);
        assert_eq!(
            (add.max_threads, add.shared, add.duration),
            (Some(256), 1024, Some(5000))
        );
        assert_eq!(
            (image.entries[1].duration, image.entries[2].duration),
            (Some(7), None)
        );
    }

    #[test]
    fn variables_are_read_but_not_external_ones() {
        let image = read(MODULE, target()).unwrap();
        let found: Vec<(&str, u64)> = image
            .globals
            .iter()
            .map(|g| (g.name.as_str(), g.size))
            .collect();
        assert_eq!(found, [("table", 64), ("counter", 8), ("late", 8)]);
    }

    #[test]
    fn what_the_driver_cannot_compile_is_refused() {
        let refused = |text: &str| read(text, target()).unwrap_err().0;
        assert_eq!(refused("hello"), CUDA_ERROR_INVALID_PTX);
        assert_eq!(
            refused(".version 9.1\n.target sm_90\n"),
            CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        );
        assert_eq!(
            refused(".version 8.0\n.target sm_100\n"),
            CUDA_ERROR_NO_BINARY_FOR_GPU
        );
    }
}
