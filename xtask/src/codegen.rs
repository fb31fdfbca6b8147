//! `xtask codegen`: headers + `.entries` -> `limiter/cuda-sys/src/generated/` and `docs/entry-points.md`.
//!
//! Facts: `cuda.h` and `cudaTypedefs.h` come from the wheel `nvidia-cuda-runtime`, `nvml.h` from `nvidia-nvml-dev`;
//! neither is committed, and their comments are never copied. Must never write half a file: everything is
//! generated in memory first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{FnArg, ForeignItem, ForeignItemFn, Item, ReturnType, Type};

use crate::docs;
use crate::entries::{self, Entry};

const CRATE: &str = "limiter/cuda-sys";

/// Regenerate the types and the table of entry points.
#[derive(Args)]
pub(crate) struct Codegen {
    /// Change nothing; fail when what is committed differs from what would be written.
    #[arg(long)]
    check: bool,
    /// Folder that holds `cuda.h`, `cudaTypedefs.h` and `nvml.h` (repeatable).
    #[arg(
        long,
        env = "VGPU_HEADERS",
        value_delimiter = ':',
        default_value = "target/tools/venv"
    )]
    headers: Vec<PathBuf>,
}

/// One C API: a header, its entries and the names of what is generated from them.
struct Api {
    name: &'static str,
    header: &'static str,
    prologue: &'static str,
    prefix: &'static str,
    entries: &'static str,
}

const APIS: [Api; 2] = [
    Api {
        name: "cuda",
        header: "cuda.h",
        prologue: "#define __CUDA_API_VERSION_INTERNAL\n",
        prefix: "cu",
        entries: "cuda.entries",
    },
    Api {
        name: "nvml",
        header: "nvml.h",
        prologue: "#define NVML_NO_UNVERSIONED_FUNC_DEFS\n",
        prefix: "nvml",
        entries: "nvml.entries",
    },
];

/// One function of the header, joined with its entry.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) entry: Entry,
    pub(crate) signature: TokenStream,
}

impl Codegen {
    pub(crate) fn run(&self) -> Result<()> {
        let mut files = BTreeMap::new();
        let mut tables = Vec::new();
        for api in &APIS {
            let path = self.find(api.header)?;
            let parsed = parse_header(api, &path)?;
            let entries_path = Path::new(CRATE).join(api.entries);
            let entries = entries::read(&entries_path)?;
            let names = parsed.functions.iter().map(|f| f.name.as_str());
            entries::check_complete(&entries_path, &entries, names)?;
            let rows = join(parsed.functions, &entries);
            let origin = origin(api.header, &path)?;
            let generated = Path::new(CRATE).join("src/generated");
            files.insert(
                generated.join(format!("{}_types.rs", api.name)),
                format(&origin, &parsed.types)?,
            );
            files.insert(
                generated.join(format!("{}_table.rs", api.name)),
                format!("{origin}{}", table(api, &rows)),
            );
            tables.push((api.name, rows));
        }
        let typedefs = self.find("cudaTypedefs.h")?;
        let (_, cuda) = tables.first().context("the first table is cuda.h's")?;
        let versions = versions(&typedefs, cuda)?;
        let origin = origin("cudaTypedefs.h", &typedefs)?;
        files.insert(
            Path::new(CRATE).join("src/generated/versions.rs"),
            format(&origin, &versions)?,
        );
        files.insert(PathBuf::from("docs/entry-points.md"), docs::render(&tables));
        self.settle(&files)
    }

    /// Finds a header by name below the given folders.
    fn find(&self, name: &str) -> Result<PathBuf> {
        let mut folders = self.headers.clone();
        while let Some(folder) = folders.pop() {
            let Ok(items) = std::fs::read_dir(&folder) else {
                continue;
            };
            for item in items.flatten() {
                let path = item.path();
                if item.file_name() == name {
                    return Ok(path);
                }
                if item.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path);
                }
            }
        }
        bail!(
            "{name} is not below {:?}; run tests/setup.sh, or name its folder with --headers",
            self.headers
        )
    }

    fn settle(&self, files: &BTreeMap<PathBuf, String>) -> Result<()> {
        let mut differing = Vec::new();
        for (path, text) in files {
            if std::fs::read_to_string(path).is_ok_and(|old| old == *text) {
                continue;
            }
            differing.push(path.display().to_string());
            if !self.check {
                std::fs::create_dir_all(path.parent().context("a file has a folder")?)?;
                std::fs::write(path, text)
                    .with_context(|| format!("writing {}", path.display()))?;
            }
        }
        ensure!(
            !self.check || differing.is_empty(),
            "differs from what codegen writes: {}; run `make codegen`",
            differing.join(", ")
        );
        Ok(())
    }
}

struct Function {
    name: String,
    signature: TokenStream,
}

struct Parsed {
    types: TokenStream,
    functions: Vec<Function>,
}

fn parse_header(api: &Api, path: &Path) -> Result<Parsed> {
    let folder = path.parent().context("a header has a folder")?;
    let bindings = bindgen::Builder::default()
        .header_contents(
            "all.h",
            &format!("{}#include <{}>\n", api.prologue, api.header),
        )
        .clang_args([
            "-I",
            &folder.to_string_lossy(),
            "-isystem",
            &compiler_headers()?,
        ])
        .allowlist_file(format!(".*/{}", api.header.replace('.', "\\.")))
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .generate_comments(false)
        .derive_debug(false)
        .ctypes_prefix("::core::ffi")
        .use_core()
        .formatter(bindgen::Formatter::None)
        .generate()
        .with_context(|| format!("reading {}", path.display()))?
        .to_string();
    let file = syn::parse_file(&bindings).context("parsing what bindgen wrote")?;
    let (mut types, mut functions) = (TokenStream::new(), BTreeMap::new());
    for item in file.items {
        let Item::ForeignMod(block) = item else {
            item.to_tokens(&mut types);
            continue;
        };
        for item in block.items {
            let ForeignItem::Fn(function) = item else {
                continue;
            };
            let name = function.sig.ident.to_string();
            if name.starts_with(api.prefix) {
                let signature = signature(&function);
                functions.insert(name.clone(), Function { name, signature });
            }
        }
    }
    Ok(Parsed {
        types,
        functions: functions.into_values().collect(),
    })
}

/// libclang from a wheel brings no `stddef.h`; the C compiler that links Rust programs has one.
fn compiler_headers() -> Result<String> {
    let output = Command::new("cc")
        .arg("-print-file-name=include")
        .output()
        .context("running cc")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// `(name: Type, ..) -> Type` with pointers as `In`/`Out` wrappers.
fn signature(function: &ForeignItemFn) -> TokenStream {
    let arguments = function
        .sig
        .inputs
        .iter()
        .filter_map(|argument| match argument {
            FnArg::Typed(argument) => {
                let (name, ty) = (&argument.pat, wrapped(&argument.ty));
                Some(quote!(#name: #ty))
            }
            FnArg::Receiver(_) => None,
        });
    let result = match &function.sig.output {
        ReturnType::Type(_, ty) => ty.to_token_stream(),
        ReturnType::Default => quote!(()),
    };
    quote!((#(#arguments),*) -> #result)
}

fn wrapped(ty: &Type) -> TokenStream {
    let Type::Ptr(pointer) = ty else {
        return ty.to_token_stream();
    };
    let (target, text) = (&pointer.elem, pointer.to_token_stream().to_string());
    if text.starts_with("* const") {
        quote!(In<#target>)
    } else {
        quote!(Out<#target>)
    }
}

fn join(functions: Vec<Function>, entries: &BTreeMap<String, Entry>) -> Vec<Row> {
    functions
        .into_iter()
        .filter_map(|Function { name, signature }| {
            let entry = entries.get(&name)?.clone();
            Some(Row {
                name,
                entry,
                signature,
            })
        })
        .collect()
}

/// The table macro, one row a line; rustfmt leaves the inside of macros alone, so it is laid out here.
fn table(api: &Api, rows: &[Row]) -> String {
    let (name, header, count) = (api.name, api.header, rows.len());
    let mut text = format!(
        "/// Calls `$callback!` with one row for each of the {count} public functions of `{header}`.\n\
         #[macro_export]\nmacro_rules! {name}_table {{\n    ($callback:ident) => {{\n        $callback! {{\n"
    );
    for (slot, row) in rows.iter().enumerate() {
        let (class, name) = (&row.entry.class, &row.name);
        let body = row.entry.body.as_deref().unwrap_or_default();
        let signature = spaced(&row.signature.to_string());
        text.push_str(&format!(
            "            {{ {slot} {class} {name} [{body}] {signature} }}\n"
        ));
    }
    let constant = name.to_uppercase();
    text.push_str(&format!(
        "        }}\n    }};\n}}\n\n/// Public functions of `{header}`: the number of rows, and of slots.\n\
         pub const {constant}_COUNT: usize = {count};\n"
    ));
    text
}

/// Takes out the spaces that printing a token stream puts around punctuation, and the path of the C types
/// (the macro's user imports `core::ffi::*`).
fn spaced(tokens: &str) -> String {
    let pairs = [
        (":: core :: ffi :: ", ""),
        (" < ", "<"),
        (" >", ">"),
        (" ,", ","),
        (" : ", ": "),
        ("* const ", "*const "),
        ("* mut ", "*mut "),
    ];
    pairs
        .iter()
        .fold(tokens.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Pairs the versions that `cudaTypedefs.h` names with the exports, both in ascending order.
fn versions(path: &Path, rows: &[Row]) -> Result<TokenStream> {
    let text = std::fs::read_to_string(path)?;
    let mut since: BTreeMap<(String, String), Vec<u32>> = BTreeMap::new();
    for piece in text.split("*PFN_").skip(1) {
        let name = piece.split(')').next().unwrap_or_default();
        let (base, version) =
            split_version(name).with_context(|| format!("no version in PFN_{name}"))?;
        let versions = since.entry(base).or_default();
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    let mut exports: BTreeMap<(String, String), Vec<(u32, &str)>> = BTreeMap::new();
    for row in rows {
        let (base, version) =
            split_version(&row.name).unwrap_or_else(|| (split_stream(&row.name), 1));
        exports.entry(base).or_default().push((version, &row.name));
    }
    let mut lines = Vec::new();
    for (base, mut exports) in exports {
        let mut versions = since.remove(&base).unwrap_or_default();
        exports.sort_unstable();
        versions.sort_unstable();
        ensure!(
            versions.len() == exports.len(),
            "{base:?}: exports {exports:?}, typedefs {versions:?}"
        );
        for (version, (_, export)) in versions.into_iter().zip(exports) {
            let (name, per_thread) = (&base.0, !base.1.is_empty());
            let version = proc_macro2::Literal::u32_unsuffixed(version);
            lines.push(quote!(version(#name, #version, #per_thread, #export)));
        }
    }
    Ok(quote! {
        use crate::{Version, version};
        /// Every entry point by the name and version that `cuGetProcAddress` knows it under, sorted by name.
        pub const CUDA_VERSIONS: &[Version] = &[#(#lines),*];
    })
}

fn split_stream(name: &str) -> (String, String) {
    for suffix in ["_ptsz", "_ptds"] {
        if let Some(base) = name.strip_suffix(suffix) {
            return (base.to_owned(), suffix.to_owned());
        }
    }
    (name.to_owned(), String::new())
}

/// `cuFoo_v2_ptsz` -> `(("cuFoo", "_ptsz"), 2)`.
fn split_version(name: &str) -> Option<((String, String), u32)> {
    let (rest, suffix) = split_stream(name);
    let (base, version) = rest.rsplit_once("_v")?;
    Some(((base.to_owned(), suffix), version.parse().ok()?))
}

/// The header line of a generated file: which input it was made from.
fn origin(header: &str, path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path)?;
    let version = ["#define CUDA_VERSION ", "#define NVML_API_VERSION "]
        .iter()
        .find_map(|key| text.split_once(key))
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .map(|version| format!(" (version {version})"))
        .unwrap_or_default();
    Ok(format!(
        "// Generated by `make codegen` from {header}{version}; do not edit.\n\n"
    ))
}

fn format(origin: &str, tokens: &TokenStream) -> Result<String> {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--config", "max_width=200"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("running rustfmt")?;
    let mut input = child.stdin.take().context("rustfmt reads")?;
    let text = tokens.to_string();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut input, text.as_bytes()));
    let output = child.wait_with_output()?;
    writer
        .join()
        .map_err(|_| anyhow::anyhow!("writing to rustfmt panicked"))??;
    ensure!(output.status.success(), "rustfmt refused what codegen made");
    Ok(format!("{origin}{}", String::from_utf8(output.stdout)?))
}
