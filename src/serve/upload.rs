//! From the bytes of a request to pictures and videos: named, sniffed, within limits, decoded.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::multipart::{Field, MultipartError};
use axum::http::StatusCode;
use tempfile::NamedTempFile;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Limits;
use super::refusal::Refusal;
use crate::extract::shots::unlisted;
use crate::manifest::Clip;
use crate::media::{self, ItemSink, Sampling};
use crate::memory;
use crate::models::card::Input;

/// How long a client may send nothing.
const STALL: Duration = Duration::from_secs(15);
/// How long a file may take.
const WHOLE: Duration = Duration::from_secs(120);
/// Bytes that a file's format is told by.
const HEAD: usize = 4096;
/// Mebibytes of pictures, as files, that are held at once.
const HELD: usize = 512;
/// Videos that are taken in and decoded at once.
const VIDEOS: usize = 2;
/// Characters of a name that are kept.
const NAME_LENGTH: usize = 120;

const PICTURES: [&str; 6] = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff"];
const VIDEO_TYPES: [&str; 8] = [
    "video/mp4",
    "video/x-m4v",
    "video/quicktime",
    "video/webm",
    "video/x-matroska",
    "video/x-msvideo",
    "video/mpeg",
    "video/x-flv",
];

/// A file of a request, as it was sent.
pub struct Upload {
    /// The client's name for it, without folders.
    pub name: String,
    content: Content,
    /// Given back when the upload is decoded.
    _held: Vec<OwnedSemaphorePermit>,
}

enum Content {
    Picture(Vec<u8>),
    Video(NamedTempFile),
}

/// A decoded upload: items for the network.
pub enum Decoded {
    /// One item.
    Picture(Vec<f32>),
    /// Items one after another, and the seconds at which each is shown.
    Video {
        /// Seconds from the beginning, ascending.
        seconds: Vec<f64>,
        /// As many items.
        items: Vec<f32>,
    },
}

/// What takes uploads in.
pub struct Reception {
    limits: Limits,
    input: Input,
    /// Mebibytes.
    held: Arc<Semaphore>,
    videos: Arc<Semaphore>,
    decoders: Arc<Semaphore>,
    /// Sinks keep their buffers: used again.
    sinks: Mutex<Vec<ItemSink>>,
}

impl Reception {
    /// For items of `input`.
    pub fn new(input: Input, limits: Limits) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            limits,
            input,
            held: Arc::new(Semaphore::new(HELD)),
            videos: Arc::new(Semaphore::new(VIDEOS)),
            decoders: Arc::new(Semaphore::new(cores)),
            sinks: Mutex::new(Vec::new()),
        }
    }

    /// Reads a file of a request.
    ///
    /// # Errors
    /// Empty (422), neither picture nor video (415), beyond a limit (413), the client stalls (408), too much at once (503).
    pub async fn receive(&self, field: Field<'_>, room: &mut Room) -> Result<Upload, Refusal> {
        match timeout(WHOLE, self.read(field, room)).await {
            Ok(upload) => upload,
            Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the upload takes too long")),
        }
    }

    async fn read(&self, mut field: Field<'_>, room: &mut Room) -> Result<Upload, Refusal> {
        let name = plain_name(field.file_name());
        let mut head = Vec::new();
        while head.len() < HEAD
            && let Some(chunk) = room.chunk(&mut field).await?
        {
            head.extend_from_slice(&chunk);
        }
        let (content, held) = match sniffed(&head) {
            _ if head.is_empty() => {
                return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{name} is empty")));
            }
            Some(Kind::Picture) => self.picture(&name, head, field, room).await?,
            Some(Kind::Video) => self.video(head, field, room).await?,
            None => {
                let sentence = format!(
                    "{name} is neither a picture (JPEG, PNG, WebP, GIF, BMP, TIFF) nor a video (MP4, MOV, WebM, MKV, AVI, \
                     MPEG, FLV), whatever its name says"
                );
                return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence));
            }
        };
        Ok(Upload { name, content, _held: held })
    }

    async fn picture(
        &self,
        name: &str,
        head: Vec<u8>,
        mut field: Field<'_>,
        room: &mut Room,
    ) -> Result<(Content, Vec<OwnedSemaphorePermit>), Refusal> {
        let most = self.limits.picture_megabytes << 20;
        let mut bytes = head;
        let mut permits = vec![self.hold()?];
        while let Some(chunk) = room.chunk(&mut field).await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > most {
                let sentence =
                    format!("{name} has more than {} MB: send a smaller picture", self.limits.picture_megabytes);
                return Err(Refusal::too_large(sentence));
            }
            while permits.len() << 20 < bytes.len() {
                permits.push(self.hold()?);
            }
        }
        Ok((Content::Picture(bytes), permits))
    }

    /// A mebibyte of memory.
    fn hold(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let permit = self.held.clone().try_acquire_owned();
        permit.map_err(|_| Refusal::busy("the server holds as many files as it can"))
    }

    async fn video(
        &self,
        head: Vec<u8>,
        mut field: Field<'_>,
        room: &mut Room,
    ) -> Result<(Content, Vec<OwnedSemaphorePermit>), Refusal> {
        let permit = self.videos.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Refusal::busy("the server is at work on other videos"))?;
        let mut file = tempfile::Builder::new().prefix("kinoprobe-").tempfile().map_err(|e| Refusal::failed(&e))?;
        // The request's limit bounds the file.
        file.write_all(&head).map_err(|e| Refusal::failed(&e))?;
        while let Some(chunk) = room.chunk(&mut field).await? {
            file.write_all(&chunk).map_err(|e| Refusal::failed(&e))?;
        }
        Ok((Content::Video(file), vec![permit]))
    }

    /// Decodes an upload on one of a few threads.
    ///
    /// # Errors
    /// Damaged (422), beyond a limit (413).
    pub async fn decode(self: &Arc<Self>, upload: Upload) -> Result<(String, Decoded), Refusal> {
        let permit = self.decoders.clone().acquire_owned().await.expect("it is never closed");
        let this = self.clone();
        let decoding = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let sink = this.sinks.lock().expect("no thread panics with it").pop();
            let mut sink = sink.unwrap_or_else(|| ItemSink::new(&this.input));
            let decoded = match &upload.content {
                Content::Picture(bytes) => this.decode_picture(&upload.name, bytes, &mut sink),
                Content::Video(file) => {
                    let decoded = this.decode_video(&upload.name, file.path(), &mut sink);
                    memory::give_back(); // a decoder takes much, in small pieces
                    decoded
                }
            }?;
            this.sinks.lock().expect("no thread panics with it").push(sink);
            Ok((upload.name, decoded))
        });
        decoding.await.map_err(|error| Refusal::failed(&error))?
    }

    fn decode_picture(&self, name: &str, bytes: &[u8], sink: &mut ItemSink) -> Result<Decoded, Refusal> {
        let Some((width, height)) = media::image_size(bytes) else {
            let sentence = format!("{name} cannot be decoded: its header is damaged");
            return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, sentence));
        };
        self.check_pixels(name, width.saturating_mul(height))?;
        // As a name in errors, not as a path: nothing is opened.
        media::decode_image(Path::new(name), bytes, sink).map_err(|error| Refusal::undecodable(name, error))?;
        Ok(Decoded::Picture(sink.take()))
    }

    fn decode_video(&self, name: &str, path: &Path, sink: &mut ItemSink) -> Result<Decoded, Refusal> {
        let undecodable = |error| Refusal::undecodable(name, error);
        let most = self.limits.seconds as f64;
        let claims = media::container_info(path).map_err(undecodable)?;
        self.check_pixels(name, claims.pixels)?;
        let too_long = || Refusal::too_large(format!("{name} is longer than {most} seconds: cut it shorter"));
        if claims.seconds > most + 1.0 {
            return Err(too_long());
        }
        // Containers lie: beyond the limit nothing is decoded, whatever they claim.
        let clip = Clip { end: Some(most + 1.0), ..unlisted(path) };
        let sampling = Sampling::Windows { length: 1, rate: 1.0, count: self.limits.frames };
        let decoded = media::decode(&clip, &sampling, sink).map_err(undecodable)?;
        if decoded.timeline.duration() > most + 0.5 {
            return Err(too_long());
        }
        let seconds = decoded.windows.iter().map(|window| decoded.timeline.seconds(window.indices[0])).collect();
        Ok(Decoded::Video { seconds, items: sink.take() })
    }

    fn check_pixels(&self, name: &str, pixels: u64) -> Result<(), Refusal> {
        let most = self.limits.megapixels;
        if pixels > most * 1_000_000 {
            let sentence = format!("{name} claims {pixels} pixels: at most {most} million are decoded");
            return Err(Refusal::too_large(sentence));
        }
        Ok(())
    }
}

/// Bytes that a request may still send.
pub struct Room(usize);

impl Room {
    /// For a request as large as the limits allow.
    pub fn new(limits: &Limits) -> Self {
        Self(limits.request_megabytes << 20)
    }

    /// The next bytes of a file.
    async fn chunk(&mut self, field: &mut Field<'_>) -> Result<Option<Bytes>, Refusal> {
        let chunk = patiently(field.chunk()).await?.map_err(unreadable)?;
        let length = chunk.as_ref().map_or(0, Bytes::len);
        self.0 = self
            .0
            .checked_sub(length)
            .ok_or_else(|| Refusal::too_large("the request is too large: send fewer or smaller files"))?;
        Ok(chunk)
    }
}

/// A request whose parts cannot be read.
pub fn unreadable(_: MultipartError) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "the request is no whole multipart/form-data")
}

/// Waits for something of a request, as long as a client may be silent.
///
/// # Errors
/// 408.
pub async fn patiently<T>(future: impl Future<Output = T>) -> Result<T, Refusal> {
    let sentence = || format!("nothing came for {} seconds", STALL.as_secs());
    timeout(STALL, future).await.map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, sentence()))
}

enum Kind {
    Picture,
    Video,
}

/// What a file is by its first bytes.
fn sniffed(head: &[u8]) -> Option<Kind> {
    let kind = infer::get(head)?.mime_type();
    if PICTURES.contains(&kind) {
        Some(Kind::Picture)
    } else if VIDEO_TYPES.contains(&kind) {
        Some(Kind::Video)
    } else {
        None
    }
}

/// A client's name for a file, without folders and control characters.
fn plain_name(name: Option<&str>) -> String {
    let name = name.unwrap_or_default().rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).take(NAME_LENGTH).collect();
    if name.is_empty() { "file".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_folders() {
        assert_eq!(plain_name(Some("C:\\posters\\a b.png")), "a b.png");
        assert_eq!(plain_name(Some("../../etc/passwd")), "passwd");
        assert_eq!(plain_name(Some("a\nb")), "ab");
        assert_eq!(plain_name(Some("x/")), "file");
        assert_eq!(plain_name(None), "file");
    }

    #[test]
    fn formats_are_told_by_content() {
        let read = |name: &str| std::fs::read(format!("{}/fixtures/media/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for name in ["gray.png", "pixel.png", "sixteen.png"] {
            assert!(matches!(sniffed(&read(name)), Some(Kind::Picture)), "{name}");
        }
        for name in ["plain.mp4", "short.mkv", "vp9.webm", "mjpeg.avi", "mpeg4.avi", "audio_only.mp4"] {
            assert!(matches!(sniffed(&read(name)), Some(Kind::Video)), "{name}");
        }
        assert!(sniffed(b"#EXTM3U\nfile:///etc/passwd").is_none());
        assert!(sniffed(b"<svg xmlns='http://www.w3.org/2000/svg'/>").is_none());
        assert!(sniffed(b"just text").is_none());
    }
}
