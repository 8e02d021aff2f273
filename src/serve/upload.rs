//! Reads uploaded files, detects their format, enforces the limits and decodes images and videos into network inputs.

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
use super::api_error::ApiError;
use crate::extract::shots::unlisted;
use crate::manifest::Clip;
use crate::media::{self, ItemSink, Location, Sampling};
use crate::memory;
use crate::models::input::InputSpec;

/// Maximum time between two chunks of a request.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum time for the upload of a file.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Minimum number of leading bytes from which the format is detected, if the file is not shorter.
const DETECTION_BYTES: usize = 4096;
/// Maximum size of all encoded images in memory, in mebibytes.
pub const MAX_BUFFERED_MEBIBYTES: usize = 512;
/// Maximum number of videos uploaded or decoded at the same time.
const MAX_CONCURRENT_VIDEOS: usize = 2;
/// Maximum number of characters of a file name; longer names are truncated.
const MAX_NAME_CHARS: usize = 120;

/// MIME types of the supported image formats, as detected by `infer`.
const IMAGE_TYPES: [&str; 6] = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff"];
/// MIME types of the supported video formats, as detected by `infer`.
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

/// An uploaded file, still encoded.
pub struct Upload {
    /// File name sent by the client, [sanitized](sanitize_file_name).
    pub name: String,
    content: Content,
    /// Memory or video capacity; released when the upload is dropped, after it has been decoded.
    _permits: Vec<OwnedSemaphorePermit>,
}

enum Content {
    /// Bytes of the file.
    Image(Vec<u8>),
    /// A temporary copy of the file, since video decoders need to seek.
    Video(NamedTempFile),
}

/// A decoded upload: one network input (item) per image or video frame.
pub enum Decoded {
    /// The item.
    Image(Vec<u8>),
    /// Items of the sampled frames, at least one.
    Video {
        /// Presentation time of each frame from the start of the video, ascending.
        seconds: Vec<f64>,
        /// The items, concatenated.
        items: Vec<u8>,
    },
}

/// Reads and decodes the files of all requests.
pub struct UploadReader {
    limits: Limits,
    input: InputSpec,
    /// Memory for encoded images: one permit per mebibyte.
    image_memory_permits: Arc<Semaphore>,
    /// One permit per video that is uploaded or decoded.
    video_permits: Arc<Semaphore>,
    /// One permit per core.
    decoder_permits: Arc<Semaphore>,
    /// Idle sinks, reused because they keep their buffers allocated.
    sinks: Mutex<Vec<ItemSink>>,
}

impl UploadReader {
    /// Creates a reader that preprocesses images and frames as `input` specifies.
    pub fn new(input: InputSpec, limits: Limits) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            limits,
            input,
            image_memory_permits: Arc::new(Semaphore::new(MAX_BUFFERED_MEBIBYTES)),
            video_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_VIDEOS)),
            decoder_permits: Arc::new(Semaphore::new(cores)),
            sinks: Mutex::new(Vec::new()),
        }
    }

    /// Reads a file of a request and subtracts its size from the request's `budget`.
    ///
    /// # Errors
    /// Returns an error if the file is empty (422), is neither an image nor a video (415) or exceeds a limit (413), if
    /// the client stalls (408), or if the server is at capacity (503).
    pub async fn read(&self, field: Field<'_>, budget: &mut ByteBudget) -> Result<Upload, ApiError> {
        match timeout(UPLOAD_TIMEOUT, self.read_file(field, budget)).await {
            Ok(upload) => upload,
            Err(_) => {
                let message = format!("the upload took longer than {} seconds", UPLOAD_TIMEOUT.as_secs());
                Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message))
            }
        }
    }

    async fn read_file(&self, mut field: Field<'_>, budget: &mut ByteBudget) -> Result<Upload, ApiError> {
        let name = sanitize_file_name(field.file_name());
        let mut head = Vec::new();
        while head.len() < DETECTION_BYTES
            && let Some(chunk) = budget.next_chunk(&mut field).await?
        {
            head.extend_from_slice(&chunk);
        }
        if head.is_empty() {
            return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{name} is empty")));
        }
        let (content, permits) = match detect_media_kind(&head) {
            Some(MediaKind::Image) => self.read_image(&name, head, field, budget).await?,
            Some(MediaKind::Video) => self.read_video(head, field, budget).await?,
            None => {
                let message = format!(
                    "{name} is not a supported image (JPEG, PNG, WebP, GIF, BMP, TIFF) or video (MP4, MOV, WebM, MKV, AVI, \
                     MPEG, FLV); the format is detected from the content, not the file name"
                );
                return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
            }
        };
        Ok(Upload { name, content, _permits: permits })
    }

    /// Reads an image into memory. `head` holds the bytes read so far.
    async fn read_image(
        &self,
        name: &str,
        head: Vec<u8>,
        mut field: Field<'_>,
        budget: &mut ByteBudget,
    ) -> Result<(Content, Vec<OwnedSemaphorePermit>), ApiError> {
        let max_mebibytes = self.limits.image_megabytes;
        let mut bytes = head;
        let mut permits = vec![self.image_memory_permit()?];
        while let Some(chunk) = budget.next_chunk(&mut field).await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > max_mebibytes << 20 {
                return Err(ApiError::too_large(format!(
                    "{name} is larger than {max_mebibytes} MB: send a smaller image"
                )));
            }
            while permits.len() << 20 < bytes.len() {
                permits.push(self.image_memory_permit()?);
            }
        }
        Ok((Content::Image(bytes), permits))
    }

    /// Reserves a mebibyte for an encoded image.
    fn image_memory_permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let permit = self.image_memory_permits.clone().try_acquire_owned();
        permit.map_err(|_| ApiError::busy("the server has no memory available for another image"))
    }

    /// Reads a video to a temporary file. `head` holds the bytes read so far.
    async fn read_video(
        &self,
        head: Vec<u8>,
        mut field: Field<'_>,
        budget: &mut ByteBudget,
    ) -> Result<(Content, Vec<OwnedSemaphorePermit>), ApiError> {
        let permit = self.video_permits.clone().try_acquire_owned();
        let permit =
            permit.map_err(|_| ApiError::busy("the server is already processing the maximum number of videos"))?;
        let file = tempfile::Builder::new().prefix("kinoprobe-").tempfile();
        let mut file = file.map_err(|error| ApiError::internal(&error))?;
        // The size of the file is limited by the budget of the request.
        file.write_all(&head).map_err(|error| ApiError::internal(&error))?;
        while let Some(chunk) = budget.next_chunk(&mut field).await? {
            file.write_all(&chunk).map_err(|error| ApiError::internal(&error))?;
        }
        Ok((Content::Video(file), vec![permit]))
    }

    /// Decodes an upload on a blocking thread, at most one per core at a time. Returns the name of the file and its
    /// items.
    ///
    /// # Errors
    /// Returns an error if the file is damaged (422) or exceeds a limit (413).
    pub async fn decode(self: &Arc<Self>, upload: Upload) -> Result<(String, Decoded), ApiError> {
        let permit = self.decoder_permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        let this = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let idle = this.sinks.lock().expect("the lock is not held during a panic").pop();
            let mut sink = idle.unwrap_or_else(|| ItemSink::new(&this.input));
            let decoded = match &upload.content {
                Content::Image(bytes) => this.decode_image(&upload.name, bytes, &mut sink),
                Content::Video(file) => {
                    let decoded = this.decode_video(&upload.name, file.path(), &mut sink);
                    memory::trim_heap(); // video decoders make many small allocations
                    decoded
                }
            }?;
            this.sinks.lock().expect("the lock is not held during a panic").push(sink);
            Ok((upload.name, decoded))
        });
        task.await.map_err(|error| ApiError::internal(&error))?
    }

    fn decode_image(&self, name: &str, bytes: &[u8], sink: &mut ItemSink) -> Result<Decoded, ApiError> {
        let Some((width, height)) = media::image_size(bytes) else {
            let message = format!("{name} cannot be decoded: its header is damaged");
            return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message));
        };
        self.check_pixels(name, width.saturating_mul(height))?;
        // The path is used only in error messages; no file is opened.
        media::decode_image(Path::new(name), bytes, sink).map_err(|error| ApiError::undecodable(name, error))?;
        Ok(Decoded::Image(sink.take()))
    }

    fn decode_video(&self, name: &str, path: &Path, sink: &mut ItemSink) -> Result<Decoded, ApiError> {
        let undecodable = |error| ApiError::undecodable(name, error);
        let max_seconds = self.limits.seconds as f64;
        let too_long = || ApiError::too_large(format!("{name} is longer than {max_seconds} seconds: shorten it"));
        let info = media::container_info(&Location::Path(path.to_path_buf())).map_err(undecodable)?;
        self.check_pixels(name, info.pixels)?;
        if info.seconds > max_seconds + 1.0 {
            return Err(too_long());
        }
        // The duration in the container may be wrong, so decoding stops after the limit in any case.
        let clip = Clip { end: Some(max_seconds + 1.0), ..unlisted(path) };
        let sampling = Sampling::Windows { length: 1, rate: 1.0, count: self.limits.frames };
        let decoded = media::decode(&clip, &sampling, sink).map_err(undecodable)?;
        if decoded.timeline.duration() > max_seconds + 0.5 {
            return Err(too_long());
        }
        if decoded.windows.is_empty() {
            let message = format!("{name} cannot be decoded: it contains no frames");
            return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message));
        }
        let seconds = decoded.windows.iter().map(|window| decoded.timeline.seconds(window.indices[0])).collect();
        Ok(Decoded::Video { seconds, items: sink.take() })
    }

    /// Returns an error (413) if an image or frame has too many pixels.
    fn check_pixels(&self, name: &str, pixels: u64) -> Result<(), ApiError> {
        let megapixels = self.limits.megapixels;
        if pixels > megapixels.saturating_mul(1_000_000) {
            let message = format!("{name} has {pixels} pixels: the limit is {megapixels} million");
            return Err(ApiError::too_large(message));
        }
        Ok(())
    }
}

/// Number of bytes that a request may still send.
pub struct ByteBudget(usize);

impl ByteBudget {
    /// Creates the budget of a new request.
    pub fn new(limits: &Limits) -> Self {
        Self(limits.request_megabytes.saturating_mul(1 << 20))
    }

    /// Returns the next chunk of a file, or `None` at its end.
    async fn next_chunk(&mut self, field: &mut Field<'_>) -> Result<Option<Bytes>, ApiError> {
        let chunk = with_stall_timeout(field.chunk()).await?.map_err(invalid_multipart)?;
        let length = chunk.as_ref().map_or(0, Bytes::len);
        self.0 = self
            .0
            .checked_sub(length)
            .ok_or_else(|| ApiError::too_large("the request is too large: send fewer or smaller files"))?;
        Ok(chunk)
    }
}

/// Returns the error (400) for a malformed or truncated body.
pub fn invalid_multipart(_: MultipartError) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "the request body is not valid multipart/form-data")
}

/// Awaits a future that reads from a request.
///
/// # Errors
/// Returns an error (408) if `future` does not complete within the stall timeout.
pub async fn with_stall_timeout<T>(future: impl Future<Output = T>) -> Result<T, ApiError> {
    let message = || format!("no data received for {} seconds", STALL_TIMEOUT.as_secs());
    timeout(STALL_TIMEOUT, future).await.map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, message()))
}

enum MediaKind {
    Image,
    Video,
}

/// Detects the kind of a file from its first bytes. Returns `None` if the format is not supported.
fn detect_media_kind(head: &[u8]) -> Option<MediaKind> {
    let mime_type = infer::get(head)?.mime_type();
    if IMAGE_TYPES.contains(&mime_type) {
        Some(MediaKind::Image)
    } else if VIDEO_TYPES.contains(&mime_type) {
        Some(MediaKind::Video)
    } else {
        None
    }
}

/// Removes directories and control characters from a client's file name and truncates it. Returns `file` if the result is
/// empty.
fn sanitize_file_name(name: Option<&str>) -> String {
    let name = name.unwrap_or_default().rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect();
    if name.is_empty() { "file".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_sanitized() {
        assert_eq!(sanitize_file_name(Some("C:\\posters\\a b.png")), "a b.png");
        assert_eq!(sanitize_file_name(Some("../../etc/passwd")), "passwd");
        assert_eq!(sanitize_file_name(Some("a\nb")), "ab");
        assert_eq!(sanitize_file_name(Some("x/")), "file");
        assert_eq!(sanitize_file_name(None), "file");
    }

    #[test]
    fn formats_are_detected_from_content() {
        let read = |name: &str| std::fs::read(format!("{}/fixtures/media/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for name in ["gray.png", "pixel.png", "sixteen.png"] {
            assert!(matches!(detect_media_kind(&read(name)), Some(MediaKind::Image)), "{name}");
        }
        for name in ["plain.mp4", "short.mkv", "vp9.webm", "mjpeg.avi", "mpeg4.avi", "audio_only.mp4"] {
            assert!(matches!(detect_media_kind(&read(name)), Some(MediaKind::Video)), "{name}");
        }
        assert!(detect_media_kind(b"#EXTM3U\nfile:///etc/passwd").is_none());
        assert!(detect_media_kind(b"<svg xmlns='http://www.w3.org/2000/svg'/>").is_none());
        assert!(detect_media_kind(b"just text").is_none());
    }
}
