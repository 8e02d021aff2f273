//! Keeps OpenCV and the codecs below it from writing to the terminal, where they would tear the progress bar.

use std::sync::Once;

/// OpenCV's FFmpeg backend takes libav's log level from here when its first capture is opened; there is no function.
const FFMPEG_LOG_LEVEL: &str = "OPENCV_FFMPEG_LOGLEVEL";

/// Silences libav. The first thing in `main` of a binary that decodes, before anything starts a thread. A level that
/// the user has set stands.
#[allow(unsafe_code)]
pub fn silence_codecs() {
    if std::env::var_os(FFMPEG_LOG_LEVEL).is_none() {
        // SAFETY: the environment may not be changed while another thread reads it; documented above: none runs yet.
        unsafe { std::env::set_var(FFMPEG_LOG_LEVEL, "-8") };
    }
}

/// Settings of OpenCV that hold for the process: no log, and no threads of its own, since clips are worked on in
/// parallel already.
pub(crate) fn prepare_opencv() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Neither can fail; if one did, the cost would be noise or speed.
        let _ = opencv::core::set_log_level(opencv::core::LogLevel::LOG_LEVEL_SILENT);
        let _ = opencv::core::set_num_threads(1);
    });
}
