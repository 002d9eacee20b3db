//! Compiles everything under `proto/` with protox (no protoc needed) into tonic clients and servers, and keeps the
//! descriptor set: the gateway's own reflection and the example services' directory entries are made from it.

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files = Vec::new();
    collect(Path::new("proto"), &mut files)?;
    files.sort();

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // As protox encodes them: prost's own types would lose the annotations.
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let mut descriptors = compiler.file_descriptor_set();
    // Only options: what is annotated with them generates nothing that needs them.
    descriptors.file.retain(|file| !matches!(file.package(), "buf.validate" | "google.api" | "kopuro.options.v1"));
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
