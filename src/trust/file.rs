//! Files that must be whole or absent, and secret where they are secret.
//!
//! A file is written beside its place under another name, flushed to the disk, and then put in place in one step; the
//! folder is flushed too. After a crash there is the old file or the new one, never half of one. A secret is readable
//! by its owner alone from its first byte on.

use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Its owner only (0600).
    Secret,
    /// Everybody (0644).
    Public,
}

/// What becomes of a file that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and writing fails with [`io::ErrorKind::AlreadyExists`].
    Keep,
    /// It is replaced in one step.
    Replace,
}

/// Writes a file whole, or not at all. Its folder must exist.
pub fn write(path: &Path, content: &[u8], access: Access, existing: Existing) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut file = NamedTempFile::new_in(folder)?;
    if access == Access::Public {
        make_public(file.as_file())?;
    }
    file.write_all(content)?;
    file.as_file().sync_all()?;
    match existing {
        Existing::Keep => file.persist_noclobber(path)?,
        Existing::Replace => file.persist(path)?,
    };
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(unix)]
fn make_public(file: &std::fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_public(_: &std::fs::File) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keeps_secrets_and_what_exists() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, b"one", Access::Secret, Existing::Keep).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = write(&path, b"two", Access::Secret, Existing::Keep).unwrap_err();
        assert_eq!((refused.kind(), std::fs::read(&path).unwrap()), (io::ErrorKind::AlreadyExists, b"one".to_vec()));
        write(&path, b"two", Access::Public, Existing::Replace).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
