//! NumPy archives: zip files with one .npy member per array.

use std::fs::File as OsFile;
use std::io::{BufReader, Read};
use std::path::Path;

use ndarray::ArrayD;
use zip::ZipArchive;

use super::elements::MAX_DEFLATE_RATIO;
use super::npy::Header;
use super::{File, Kind, Variable};

/// An .npz archive.
pub(super) struct NpzFile {
    archive: ZipArchive<BufReader<OsFile>>,
    variables: Vec<Variable>,
    /// Index of each variable's member in the archive.
    members: Vec<usize>,
}

impl NpzFile {
    pub fn open(path: &Path) -> Result<Self, String> {
        let file = OsFile::open(path).map_err(|error| error.to_string())?;
        let archive = ZipArchive::new(BufReader::new(file))
            .map_err(|error| format!("truncated, or not an archive of numpy.savez ({error})"))?;
        let mut file = Self { archive, variables: Vec::new(), members: Vec::new() };
        for member in 0..file.archive.len() {
            let (name, kind) = file.read(member, |name, header, _, _| {
                Ok((name.strip_suffix(".npy").unwrap_or(name).to_string(), header.kind()))
            })?;
            file.variables.push(Variable { name, kind });
            file.members.push(member);
        }
        Ok(file)
    }

    /// Reads the header of a member, and calls `read` with its name, the header, the data and the size of the data in bytes.
    fn read<T>(
        &mut self,
        member: usize,
        read: impl FnOnce(&str, &Header, &mut dyn Read, u64) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut member = self.archive.by_index(member).map_err(|error| format!("damaged archive: {error}"))?;
        let name = member.name().to_string();
        let declared = member.size();
        if declared / MAX_DEFLATE_RATIO > member.compressed_size() {
            return Err(format!("damaged: {name} declares {declared} bytes"));
        }
        let header = Header::read(&mut member).map_err(|error| format!("{name}: {error}"))?;
        let bytes = declared.saturating_sub(header.len);
        read(&name, &header, &mut member, bytes).map_err(|error| format!("{name}: {error}"))
    }

    /// Reads the data of a variable, and then the rest of the member, so that its checksum is compared.
    fn read_data<T>(
        &mut self,
        index: usize,
        read: impl FnOnce(&Header, &mut dyn Read, u64) -> Result<T, String>,
    ) -> Result<T, String> {
        self.read(self.members[index], |_, header, mut input, bytes| {
            let values = read(header, &mut input, bytes)?;
            std::io::copy(&mut input, &mut std::io::sink()).map_err(|error| format!("damaged: {error}"))?;
            Ok(values)
        })
    }
}

impl File for NpzFile {
    fn variables(&self) -> &[Variable] {
        &self.variables
    }

    fn numbers(&mut self, index: usize) -> Result<ArrayD<f32>, String> {
        self.read_data(index, |header, mut input, bytes| header.read_numbers(&mut input, bytes))
    }

    fn texts(&mut self, index: usize) -> Result<Vec<String>, String> {
        debug_assert!(matches!(self.variables[index].kind, Kind::Texts(_)));
        self.read_data(index, |header, mut input, bytes| header.read_texts(&mut input, bytes))
    }
}
