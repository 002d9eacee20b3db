//! Types from files: descriptor sets as they are, `.proto` files and folders of them compiled here. No protoc is needed.
//!
//! What a `.proto` imports is looked for in the folders of `-I`, and then among the files that this program brings along:
//! protobuf's own, and `kopuro/options/v1/options.proto` with what else stands beside it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use prost_reflect::DescriptorPool;
use protox::file::{ChainFileResolver, DescriptorSetFileResolver, GoogleFileResolver, IncludeFileResolver};

use super::report::Finding;
use crate::proto::DESCRIPTORS;
use crate::schema::set::{self, MAX_BYTES, MAX_FILES};

/// Where types come from.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Source {
    /// A descriptor set (.binpb), .proto files, or folders of them
    #[arg(value_name = "SET", required = true)]
    pub(super) sets: Vec<PathBuf>,
    /// Where .proto files and their imports lie; without it, a folder that is given, and for a file the folder that its
    /// package says
    #[arg(short = 'I', long = "include", value_name = "FOLDER")]
    pub(super) includes: Vec<PathBuf>,
}

/// A set that could be read.
#[derive(Debug)]
pub(super) struct Types {
    pub(super) bytes: Bytes,
    pub(super) pool: DescriptorPool,
}

/// The types, or what is wrong with them. An error is a file that cannot be read at all.
pub(super) fn read(source: &Source) -> anyhow::Result<Result<Types, Vec<Finding>>> {
    let mut protos = BTreeSet::new();
    let mut includes = source.includes.clone();
    let mut set = Vec::new();
    for path in &source.sets {
        let metadata = fs::metadata(path).with_context(|| path.display().to_string())?;
        if metadata.is_dir() {
            let before = protos.len();
            collect(path, &mut protos, 0)?;
            if protos.len() == before {
                bail!("{}: there is no .proto file in it", path.display());
            }
            includes.push(path.clone());
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            if source.includes.is_empty() {
                includes.push(root_of(path)?);
            }
            protos.insert(path.clone());
        } else {
            // A set is a repeated field: two sets, one behind the other, are the set of both.
            set.extend(bounded(path)?);
        }
    }
    if !protos.is_empty() {
        match compile(&protos, &includes) {
            Ok(compiled) => set.extend(compiled),
            Err(error) => return Ok(Err(vec![Finding::at_source("PROTO", &words(&error))])),
        }
    }
    Ok(match set::read(&set) {
        Ok(pool) => Ok(Types { bytes: set.into(), pool }),
        Err(faults) => Err(faults.iter().map(|fault| Finding::of_set(fault.rule(), fault.to_string())).collect()),
    })
}

/// The compiler's words, with its place in the source. It knows no editions and says so only in the parser's terms.
fn words(error: &protox::Error) -> String {
    let said = format!("{error:?}");
    if error.is_parse() && said.ends_with("but found 'edition'") {
        return format!(
            "{said}: editions are not understood here in .proto files: give the descriptor set that protoc or buf makes, or write syntax = \"proto3\" or \"proto2\""
        );
    }
    said
}

/// A set by itself, as a directory names it.
pub(super) fn read_set(bytes: &[u8], name: &str) -> anyhow::Result<DescriptorPool> {
    set::read(bytes).map_err(|faults| anyhow::anyhow!("{name}: {}", set::words(&faults)))
}

/// A file's bytes, one more than are taken at most.
pub(super) fn bounded(path: &Path) -> anyhow::Result<Vec<u8>> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    read().with_context(|| path.display().to_string())
}

fn collect(folder: &Path, protos: &mut BTreeSet<PathBuf>, depth: usize) -> anyhow::Result<()> {
    // Links may make circles.
    if depth > 32 {
        bail!("{}: folders are nested too deep", folder.display());
    }
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        if path.is_dir() {
            collect(&path, protos, depth + 1)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            protos.insert(path);
            if protos.len() > MAX_FILES {
                bail!("{}: more than {MAX_FILES} .proto files", folder.display());
            }
        }
    }
    Ok(())
}

/// The folder from which a file's name is `its/package/file.proto`, and else the file's own.
fn root_of(path: &Path) -> anyhow::Result<PathBuf> {
    let text = String::from_utf8_lossy(&bounded(path)?).into_owned();
    let package = text.lines().find_map(|line| line.trim().strip_prefix("package ")?.split(';').next());
    let own = path.parent().unwrap_or_else(|| Path::new(""));
    let mut root = own;
    for part in package.unwrap_or_default().trim().rsplit('.').filter(|part| !part.is_empty()) {
        if root.file_name().is_none_or(|name| name != part) {
            return Ok(here(own));
        }
        root = root.parent().unwrap_or_else(|| Path::new(""));
    }
    Ok(here(root))
}

fn here(folder: &Path) -> PathBuf {
    if folder == Path::new("") { ".".into() } else { folder.into() }
}

fn compile(protos: &BTreeSet<PathBuf>, includes: &[PathBuf]) -> Result<Vec<u8>, protox::Error> {
    let mut resolver = ChainFileResolver::new();
    includes.iter().for_each(|include| resolver.add(IncludeFileResolver::new(include.clone())));
    resolver.add(GoogleFileResolver::new());
    resolver.add(DescriptorSetFileResolver::decode(DESCRIPTORS).map_err(protox::Error::new)?);
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true).open_files(protos)?;
    Ok(compiler.encode_file_descriptor_set())
}
