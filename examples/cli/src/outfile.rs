//! Files that commands write: whole, or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use tempfile::NamedTempFile;

#[derive(Debug)]
enum Target {
    /// A regular file, which gets its name when it is complete.
    Named(BufWriter<NamedTempFile>),
    /// A device or a pipe, which must not be replaced.
    InPlace(BufWriter<File>),
}

/// A file that is being written. Without [`OutFile::finish`] nothing of it is left.
#[derive(Debug)]
pub struct OutFile {
    path: PathBuf,
    target: Target,
}

impl OutFile {
    /// Begins a file.
    pub fn create(path: &Path) -> Result<Self> {
        Self::open(path)
            .map(|target| Self { path: path.into(), target })
            .map_err(|error| write_error(path, &error))
    }

    fn open(path: &Path) -> io::Result<Target> {
        match std::fs::metadata(path) {
            Ok(kind) if !kind.is_file() => {
                let file = OpenOptions::new().write(true).open(path)?;
                return Ok(Target::InPlace(BufWriter::new(file)));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A name that no file can have: the temporary one would not tell.
            Err(error) => return Err(error),
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        builder.prefix(".pocketgpt-").suffix(".tmp");
        // Temporary files are private otherwise; the umask still applies.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder.unwrap_or(Path::new(".")))?;
        Ok(Target::Named(BufWriter::new(file)))
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.target {
            Target::Named(file) => file.write_all(bytes),
            Target::InPlace(file) => file.write_all(bytes),
        };
        written.map_err(|error| write_error(&self.path, &error))
    }

    /// Ends the file and gives it its name.
    pub fn finish(self) -> Result<()> {
        let Self { path, target } = self;
        let finish = || match target {
            Target::InPlace(mut file) => file.flush(),
            Target::Named(file) => {
                file.into_inner().map_err(io::IntoInnerError::into_error)?.persist(&path)?;
                Ok(())
            }
        };
        finish().map_err(|error| write_error(&path, &error))
    }
}

/// Whether a file can be written here, found out before the work whose result it takes. Nothing is
/// left, also when the work is interrupted.
pub fn check(path: &Path) -> Result<()> {
    // What is no regular file must not be opened twice: who reads a pipe would see an end.
    if std::fs::metadata(path).is_ok_and(|kind| !kind.is_file() && !kind.is_dir()) {
        return Ok(());
    }
    OutFile::create(path).map(drop)
}

/// The same for what comes from a model, which it must not replace.
pub fn check_beside(path: &Path, model: Option<&Path>) -> Result<()> {
    if model.is_some_and(|model| is_same_file(path, model)) {
        bail!("{}: the model is there; choose another name", path.display());
    }
    check(path)
}

/// Whether two paths lead to one file.
fn is_same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    real(a).is_some_and(|a| real(b) == Some(a))
}

/// Why a file cannot be written, and what to do.
fn write_error(path: &Path, error: &io::Error) -> anyhow::Error {
    let (name, kind) = (path.display(), error.kind());
    match kind {
        io::ErrorKind::NotFound => anyhow!("{name}: there is no such folder; create it first"),
        io::ErrorKind::IsADirectory => anyhow!("{name}: this is a folder; give the name of a file"),
        io::ErrorKind::StorageFull => anyhow!("{name}: the disk is full; make room"),
        _ => anyhow!("{name}: cannot be written, {kind}; choose another place"),
    }
}
