//! Where the file of a clip is: on disk, on a server, or in a tar archive on either.

use std::path::PathBuf;
use std::sync::Arc;

use super::archive;
use super::input::Input;
#[cfg(not(feature = "remote"))]
use crate::error::Error;
use crate::error::Result;
use crate::manifest::Clip;
use crate::read_at::{LocalFile, ReadAt, Section};
use crate::remote::RemoteUrl;

/// Where the file of a clip is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A path.
    Path(PathBuf),
    /// A URL.
    Url(RemoteUrl),
    /// A file of a tar archive.
    Member {
        /// The archive, which is no member itself.
        archive: Box<Location>,
        /// The name of the file in the archive.
        name: String,
    },
}

impl Location {
    /// Returns the location of a clip. A path or URL with a component `NAME.tar`, which is not its last one and not a directory, names a
    /// file of this archive.
    pub fn of(clip: &Clip) -> Self {
        match &clip.url {
            Some(url) => match url.archive() {
                Some((archive, name)) => Self::Member { archive: Box::new(Self::Url(archive)), name },
                None => Self::Url(url.clone()),
            },
            None => match clip.archive() {
                Some((archive, name)) => Self::Member { archive: Box::new(Self::Path(archive)), name },
                None => Self::Path(clip.file.clone()),
            },
        }
    }

    /// Returns the path or URL for messages, without the signature of a URL.
    pub fn display_path(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Url(url) => url.public().into(),
            Self::Member { archive, name } => archive.display_path().join(name),
        }
    }

    /// Opens the file.
    ///
    /// # Errors
    /// Returns an error that names the file if it cannot be opened, or the archive does not contain it.
    pub(super) fn open(&self) -> Result<Arc<Input>> {
        Ok(match self {
            Self::Path(path) => Input::at(path),
            Self::Url(url) => {
                let (file, version) = open_url(url)?;
                Input::of(&self.display_path(), file, version)
            }
            Self::Member { archive, name } => {
                let path = archive.display_path();
                let (file, version): (Arc<dyn ReadAt>, _) = match &**archive {
                    Self::Url(url) => open_url(url)?,
                    _ => (Arc::new(LocalFile::open(&path)?), String::new()),
                };
                let (start, len) = archive::find(&path, &version, &file, name)?;
                Input::of(&path.join(name), Arc::new(Section { file, start, len }), version)
            }
        })
    }
}

#[cfg(feature = "remote")]
fn open_url(url: &RemoteUrl) -> Result<(Arc<dyn ReadAt>, String)> {
    let file = crate::remote::RemoteFile::open(url)?;
    let version = file.version().to_owned();
    Ok((Arc::new(file), version))
}

#[cfg(not(feature = "remote"))]
fn open_url(url: &RemoteUrl) -> Result<(Arc<dyn ReadAt>, String)> {
    let message = "this build does not read remote files: build it with the feature `remote`".into();
    Err(Error::Media { path: url.public().into(), message })
}
