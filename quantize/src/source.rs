//! A Hugging Face checkpoint on disk: which tensors it has, and their bytes.
//!
//! Nothing is held but the headers: [`Checkpoint::read`] reads one tensor into the caller's buffer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata};

use crate::error::ConvertError;
use crate::limits::{self, MAX_HEADER, MAX_INDEX, MAX_NAME, MAX_SHARDS, MAX_TEXT, cause, told};

/// How a tensor's numbers are stored in the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceDtype {
    /// IEEE binary32
    F32,
    /// IEEE binary16
    F16,
    /// The upper half of a binary32
    Bf16,
}

impl SourceDtype {
    /// Bytes of one number.
    pub const fn width(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The dtype of this safetensors name, if it is one of the three.
    pub fn from_safetensors(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }
}

/// A tensor of the checkpoint, not read yet.
#[derive(Clone, Debug)]
pub struct SourceTensor {
    /// Name in the checkpoint.
    pub name: String,
    /// As the header says; may be one that is not supported.
    pub dtype: Dtype,
    /// As the header says.
    pub shape: Vec<usize>,
    /// Index into the checkpoint's files.
    file: usize,
    /// First byte from the start of the file.
    offset: u64,
    /// Number of bytes.
    len: usize,
}

impl SourceTensor {
    /// Number of bytes.
    pub fn byte_len(&self) -> usize {
        self.len
    }
}

/// A checkpoint: its folder, its weight files, the tensors in them.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where `config.json` is.
    pub folder: PathBuf,
    files: Vec<(PathBuf, File)>,
    /// Every tensor of every file, sorted by name.
    pub tensors: Vec<SourceTensor>,
}

impl Checkpoint {
    /// Reads the headers of a checkpoint: a folder, or one `.safetensors` file.
    ///
    /// # Errors
    /// If there is none, if it is pickled, or if a file breaks a rule of safetensors.
    pub fn open(source: &Path) -> Result<Self, ConvertError> {
        let folder = checkpoint_folder(source)?;
        let is_folder = folder == source;
        let mut checkpoint = Self { folder, files: vec![], tensors: vec![] };
        if is_folder {
            checkpoint.add_folder()?;
        } else {
            checkpoint.add_file(source.into())?;
        }
        checkpoint.tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(checkpoint)
    }

    fn add_folder(&mut self) -> Result<(), ConvertError> {
        let single = self.folder.join("model.safetensors");
        if single.exists() {
            return self.add_file(single);
        }
        let index = self.folder.join("model.safetensors.index.json");
        if index.exists() {
            return self.add_shards(&index);
        }
        for pickled in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
            let path = self.folder.join(pickled);
            if path.exists() {
                return Err(ConvertError::Pickled { path });
            }
        }
        Err(ConvertError::NoWeights { folder: self.folder.clone() })
    }

    fn add_shards(&mut self, index: &Path) -> Result<(), ConvertError> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let Index { weight_map } = parse_json(index, MAX_INDEX)?;
        let mut by_shard: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, shard) in &weight_map {
            by_shard.entry(shard).or_default().push(tensor);
        }
        // The index is not trusted to name files outside the folder.
        let plain = |name: &str| {
            (1..=MAX_NAME).contains(&name.len())
                && !name.contains(['/', '\\', '\0'])
                && !matches!(name, "." | "..")
        };
        if let Some(name) = by_shard.keys().find(|name| !plain(name)) {
            return Err(ConvertError::ShardName { path: index.into(), name: told(name) });
        }
        if by_shard.len() > MAX_SHARDS {
            let cause =
                format!("it names {} shards, at most {MAX_SHARDS} are read", by_shard.len());
            return Err(ConvertError::Json { path: index.into(), cause });
        }
        for (shard, mapped) in by_shard {
            let first = self.tensors.len();
            self.add_file(self.folder.join(shard))?;
            let disagree =
                |cause| ConvertError::Index { path: index.into(), shard: shard.into(), cause };
            let mut found: Vec<&str> =
                self.tensors[first..].iter().map(|t| t.name.as_str()).collect();
            found.sort_unstable();
            if let Some(name) = mapped.iter().find(|name| found.binary_search(name).is_err()) {
                return Err(disagree(format!("it has no tensor {}", told(name))));
            }
            for name in found {
                match weight_map.get(name) {
                    Some(listed) if listed == shard => {}
                    Some(other) => {
                        return Err(disagree(format!("tensor {name} is listed for {other}")));
                    }
                    None => return Err(disagree(format!("tensor {name} is not listed"))),
                }
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: PathBuf) -> Result<(), ConvertError> {
        let mut file = open_regular(&path)?;
        let (header_end, metadata) = read_header(&path, &mut file)?;
        let tensors = metadata.tensors();
        limits::check_tensors(self.tensors.len(), &tensors)
            .map_err(|cause| ConvertError::Safetensors { path: path.clone(), cause })?;
        for (name, info) in tensors {
            let (start, end) = info.data_offsets;
            self.tensors.push(SourceTensor {
                name,
                dtype: info.dtype,
                shape: info.shape.clone(),
                file: self.files.len(),
                offset: header_end + start as u64,
                len: end - start,
            });
        }
        self.files.push((path, file));
        Ok(())
    }

    /// The file that a tensor is in.
    pub fn path_of(&self, tensor: &SourceTensor) -> &Path {
        &self.files[tensor.file].0
    }

    /// The weight files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// Reads a tensor's bytes, or a part of them, into `buffer`, replacing what was there.
    pub fn read(
        &mut self,
        tensor: &SourceTensor,
        part: std::ops::Range<usize>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), ConvertError> {
        assert!(part.start <= part.end && part.end <= tensor.len);
        let (path, file) = &mut self.files[tensor.file];
        buffer.resize(part.len(), 0);
        file.seek(SeekFrom::Start(tensor.offset + part.start as u64))
            .and_then(|_| file.read_exact(buffer))
            .map_err(ConvertError::io("read", &*path))
    }
}

/// The folder that a file is in.
pub fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => ".".into(),
        Some(parent) => parent.into(),
        None => ".".into(),
    }
}

/// Where the JSON files of a checkpoint are: `source` itself, or the folder of the weight file.
///
/// # Errors
/// If there is nothing, or a pickled file.
pub fn checkpoint_folder(source: &Path) -> Result<PathBuf, ConvertError> {
    let kind = std::fs::metadata(source).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ConvertError::NotFound { path: source.into() },
        _ => ConvertError::Io { action: "read", path: source.into(), source: error },
    })?;
    if kind.is_dir() {
        return Ok(source.into());
    }
    refuse_pickled(source)?;
    Ok(folder_of(source))
}

fn refuse_pickled(path: &Path) -> Result<(), ConvertError> {
    let pickled = ["bin", "pt", "pth", "ckpt", "pkl"];
    if path.extension().is_some_and(|e| pickled.iter().any(|p| e.eq_ignore_ascii_case(p))) {
        return Err(ConvertError::Pickled { path: path.into() });
    }
    Ok(())
}

/// Reads a safetensors header; gives where the tensor data begins, and the tensors, whose
/// ranges are proven to tile the file without gap, overlap or tail.
fn read_header(path: &Path, file: &mut File) -> Result<(u64, Metadata), ConvertError> {
    let invalid = |cause: String| ConvertError::Safetensors { path: path.into(), cause };
    let file_len = file.metadata().map_err(ConvertError::io("read", path))?.len();
    if usize::try_from(file_len).is_err() {
        let bits = usize::BITS;
        return Err(ConvertError::io("read", path)(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "it has {file_len} bytes, too many for a {bits}-bit program; convert it on a 64-bit system"
            ),
        )));
    }
    let mut len = [0; 8];
    if file_len < 8 {
        return Err(invalid(format!("it has only {file_len} bytes")));
    }
    file.read_exact(&mut len).map_err(ConvertError::io("read", path))?;
    let len = u64::from_le_bytes(len);
    // Both asked before allocating: the number is whatever the file says.
    if len > MAX_HEADER {
        return Err(invalid(format!("its header has {len} bytes, at most {MAX_HEADER} are read")));
    }
    if len > file_len - 8 {
        return Err(ConvertError::Length { path: path.into(), expected: 8 + len, found: file_len });
    }
    let mut header = vec![0; len as usize];
    file.read_exact(&mut header).map_err(ConvertError::io("read", path))?;
    let json = |error: serde_json::Error| invalid(one_line(&error.to_string()));
    let metadata: Metadata = serde_json::from_slice(&header).map_err(json)?;
    // Read into a map they would be one, and readers take this one or that.
    let _: limits::DistinctNames = serde_json::from_slice(&header).map_err(json)?;
    let expected = (8 + len).checked_add(metadata.data_len() as u64);
    if expected != Some(file_len) {
        let expected = expected.unwrap_or(u64::MAX);
        return Err(ConvertError::Length { path: path.into(), expected, found: file_len });
    }
    Ok((8 + len, metadata))
}

/// Opens a file. What it is gets asked before, since opening a FIFO waits for a writer.
fn open_regular(path: &Path) -> Result<File, ConvertError> {
    let kind = std::fs::metadata(path).map_err(ConvertError::io("open", path))?;
    if !kind.is_file() {
        return Err(ConvertError::NotAFile { path: path.into() });
    }
    File::open(path).map_err(ConvertError::io("open", path))
}

/// Messages of other crates may have several lines, and repeat what they were given.
pub(crate) fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // Where in the file it is stands at the end.
    match line.rfind(" at line ") {
        Some(at) => cause(&line[..at]) + &line[at..],
        None => cause(&line),
    }
}

/// Reads a text to calibrate or compare with, from a pipe as well. A few broken characters in a large
/// text do not matter.
///
/// # Errors
/// If it cannot be read, or does not end where a text ends at the latest.
pub fn read_sample(path: &Path) -> Result<String, ConvertError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_TEXT + 1).read_to_end(&mut bytes))
        .map_err(ConvertError::io("read", path))?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(ConvertError::LongText { path: path.into(), max: MAX_TEXT });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads a text file of at most `max` bytes.
pub(crate) fn read_text(path: &Path, max: u64) -> Result<String, ConvertError> {
    let file = open_regular(path)?;
    let len = file.metadata().map_err(ConvertError::io("read", path))?.len();
    let json = |cause: String| ConvertError::Json { path: path.into(), cause };
    if len > max {
        return Err(json(format!("it has {len} bytes, at most {max} are read")));
    }
    let mut bytes = Vec::with_capacity(len as usize);
    file.take(max).read_to_end(&mut bytes).map_err(ConvertError::io("read", path))?;
    String::from_utf8(bytes).map_err(|_| json("it is not UTF-8".into()))
}

/// Reads a JSON file of at most `max` bytes.
pub(crate) fn parse_json<T>(path: &Path, max: u64) -> Result<T, ConvertError>
where
    T: serde::de::DeserializeOwned,
{
    parse_text(path, &read_text(path, max)?)
}

/// Parses the text of a JSON file.
pub(crate) fn parse_text<'t, T: serde::Deserialize<'t>>(
    path: &Path,
    text: &'t str,
) -> Result<T, ConvertError> {
    serde_json::from_str(text).map_err(|error| ConvertError::Json {
        path: path.into(),
        cause: one_line(&error.to_string()),
    })
}
