//! A model file with its header, or all parts of a split model.
//!
//! Invariant: every part is a GGUF of a known version, as long as its header says.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use tightwad_gguf::{GgufError, Header, TensorInfo};

use crate::error::LoadError;

/// Bytes of the buffer for a header.
const BUFFER_BYTES: usize = 1 << 16;

/// A file, or one part of a split model.
#[derive(Debug)]
pub(crate) struct Part {
    pub path: PathBuf,
    /// Length of the file, in bytes.
    pub bytes: u64,
    pub header: Header,
}

/// All parts of a model, the first one first.
#[derive(Debug)]
pub(crate) struct ModelFile {
    pub parts: Vec<Part>,
}

impl ModelFile {
    /// Reads the headers of the model at `path`.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if a part is missing, incomplete, or not a GGUF file.
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        let first = Part::open(path)?;
        let count = first.split_number("split.count").unwrap_or(1);
        if count <= 1 {
            first.check_end()?;
            return Ok(Self { parts: vec![first] });
        }
        first.check_end()?;
        let names = PartNames::of(&first, count)?;
        let mut parts = vec![first];
        for number in 1..count {
            let part_path = names.path(number);
            if !part_path.exists() {
                let reason = format!("the part {} is missing beside it", part_path.display());
                return Err(split(path, format!("{reason}. Fetch all {count} parts into one folder")));
            }
            let part = Part::open(&part_path)?;
            if part.split_number("split.no") != Some(number) {
                return Err(split(
                    &part_path,
                    format!("its header does not say that it is part {}", number + 1),
                ));
            }
            part.check_end()?;
            parts.push(part);
        }
        let model = Self { parts };
        let (found, expected) =
            (model.tensors().count() as u64, model.header().number("split.tensors.count"));
        if expected.is_some_and(|expected| expected != found) {
            let reason = format!("the parts have {found} tensors of {}", expected.unwrap_or_default());
            return Err(split(path, format!("{reason}: they belong to different models")));
        }
        Ok(model)
    }

    /// The path of the first part.
    pub(crate) fn path(&self) -> &Path {
        &self.parts[0].path
    }

    /// The header of the first part, which has the metadata of the model.
    pub(crate) fn header(&self) -> &Header {
        &self.parts[0].header
    }

    /// The tensors of all parts.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.parts.iter().flat_map(|part| &part.header.tensors)
    }

    /// The length of all parts, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

impl Part {
    fn open(path: &Path) -> Result<Self, LoadError> {
        let unreadable = |error: std::io::Error| unreadable(path, &error);
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(LoadError::NotGguf { path: path.to_owned(), reason: "it is not a file".to_owned() });
        }
        let bytes = metadata.len();
        let header = match Header::read(BufReader::with_capacity(BUFFER_BYTES, &file), bytes) {
            Ok(Some(header)) => header,
            Ok(None) => return Err(not_gguf(path, &file, bytes)),
            Err(error) => return Err(header_error(path, bytes, &error)),
        };
        let expected = header.file_length().map_err(|error| header_error(path, bytes, &error))?;
        if bytes < expected {
            return Err(LoadError::Incomplete { path: path.to_owned(), bytes, expected: Some(expected) });
        }
        Ok(Self { path: path.to_owned(), bytes, header })
    }

    fn split_number(&self, key: &str) -> Option<u64> {
        self.header.number(key)
    }

    /// Refuses a file with a second model behind the first one. Other bytes at the end do no harm.
    fn check_end(&self) -> Result<(), LoadError> {
        let length = self.header.file_length().unwrap_or(self.bytes);
        let next = length.next_multiple_of(self.header.alignment);
        let mut signature = [0; 4];
        let mut file = File::open(&self.path).map_err(|error| unreadable(&self.path, &error))?;
        for place in [length, next] {
            let read = file.seek(SeekFrom::Start(place)).and_then(|_| file.read_exact(&mut signature));
            if read.is_ok() && &signature == b"GGUF" {
                let reason = "several parts were joined byte by byte. Use the parts as separate files, or join them \
                              with `llama-gguf-split --merge`";
                return Err(split(&self.path, reason.to_owned()));
            }
        }
        Ok(())
    }
}

/// The names of a split model's parts: `PREFIX-00001-of-00003.gguf`.
struct PartNames {
    prefix: String,
    folder: PathBuf,
    count: u64,
}

impl PartNames {
    /// The names beside `part`. Fails unless `part` is the first one, under its own name.
    fn of(part: &Part, count: u64) -> Result<Self, LoadError> {
        let number = part.split_number("split.no").unwrap_or(0);
        let name = part.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ending = |number: u64| format!("-{:05}-of-{count:05}.gguf", number + 1);
        let folder = part.path.parent().unwrap_or(Path::new("")).to_owned();
        let names = name.strip_suffix(&ending(number)).map(|prefix| Self {
            prefix: prefix.to_owned(),
            folder,
            count,
        });
        let place = format!("part {} of {count}", number + 1);
        match names {
            Some(names) if number == 0 => Ok(names),
            Some(names) => {
                let first = names.path(0);
                Err(split(&part.path, format!("it is {place}. Load the first part, {}", first.display())))
            }
            None if number == 0 => {
                let reason = format!("it is {place}, and its name must end with {}", ending(0));
                Err(split(&part.path, format!("{reason}. Give the parts their names back")))
            }
            None => Err(split(&part.path, format!("it is {place}. Load the first part"))),
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{}-{:05}-of-{:05}.gguf", self.prefix, number + 1, self.count))
    }
}

pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> LoadError {
    LoadError::Unreadable { path: path.to_owned(), reason: error.to_string() }
}

fn split(path: &Path, reason: String) -> LoadError {
    LoadError::Split { path: path.to_owned(), reason }
}

fn header_error(path: &Path, bytes: u64, error: &GgufError) -> LoadError {
    match error {
        GgufError::Read(error) => unreadable(path, error),
        GgufError::Truncated => LoadError::Incomplete { path: path.to_owned(), bytes, expected: None },
        other => LoadError::Malformed { path: path.to_owned(), reason: other.to_string() },
    }
}

/// Beginnings of files that people take for models, and what they are.
const OTHER_FORMATS: [(&[u8], &str); 8] = [
    (b"version https://git-lfs", "it is a pointer of Git LFS. Fetch the file itself with `git lfs pull`"),
    (b"PK\x03\x04", "it is a zip archive, such as a PyTorch model. Convert the model to GGUF"),
    (b"<", "it is a web page. Use the address of the file itself"),
    (b"tjgg", "it has an old format of llama.cpp (GGJT). Convert the model to GGUF"),
    (b"lmgg", "it has an old format of llama.cpp (GGML). Convert the model to GGUF"),
    (b"fmgg", "it has an old format of llama.cpp (GGMF). Convert the model to GGUF"),
    (b"GGUF\0\0", "it is a GGUF for big-endian machines"),
    (b"GGUF", "this version of GGUF is not supported. Convert the model again"),
];

/// The error for a file without the signature of a known GGUF.
fn not_gguf(path: &Path, mut file: &File, bytes: u64) -> LoadError {
    let mut start = Vec::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(64).read_to_end(&mut start));
    if let Err(error) = read {
        return unreadable(path, &error);
    }
    let other = OTHER_FORMATS.iter().find(|(signature, _)| start.starts_with(signature));
    let reason = match other {
        _ if bytes == 0 => "it is empty",
        _ if start.get(8) == Some(&b'{') => "it has the format safetensors. Convert the model to GGUF",
        // An unfinished download can begin with zeros.
        _ if bytes < 24 && b"GGUF".starts_with(&start[..start.len().min(4)]) => {
            return LoadError::Incomplete { path: path.to_owned(), bytes, expected: None };
        }
        Some((_, reason)) => reason,
        None => "it does not begin with GGUF",
    };
    LoadError::NotGguf { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use llama_cpp_sys_2 as sys;
    use tightwad_gguf::TensorType;

    #[test]
    fn tensor_types_are_those_of_ggml() {
        for kind in 0..sys::GGML_TYPE_COUNT {
            // SAFETY: the functions read a table at an index below its length.
            let (values, bytes) = unsafe { (sys::ggml_blck_size(kind), sys::ggml_type_size(kind)) };
            let block = (values > 0).then_some((values as u64, bytes as u64));
            assert_eq!(TensorType(kind).block(), block, "type {kind}");
        }
        assert_eq!(TensorType(sys::GGML_TYPE_COUNT).block(), None);
    }
}
