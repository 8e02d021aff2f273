//! Videos that tests generate.

use std::ops::Range;
use std::path::Path;

use ffmpeg_next as ffmpeg;

use ffmpeg::codec::{self, encoder};
use ffmpeg::format::{self, Pixel};
use ffmpeg::{ChannelLayout, Dictionary, Packet, Rational, color, frame};

/// A video to encode. The extension of its path selects the container.
pub(crate) struct TestVideo<'a> {
    pub(crate) codec: &'a str,
    pub(crate) format: Pixel,
    pub(crate) size: (u32, u32),
    pub(crate) matrix: color::Space,
    pub(crate) range: color::Range,
    pub(crate) transfer: color::TransferCharacteristic,
    /// Options of the encoder.
    pub(crate) options: &'a [(&'a str, &'a str)],
    /// Options of the container.
    pub(crate) container: &'a [(&'a str, &'a str)],
    /// Seconds per tick, as a fraction.
    pub(crate) time_base: (i32, i32),
    /// Presentation time of each frame in ticks.
    pub(crate) times: Vec<i64>,
    /// Draws a frame.
    pub(crate) draw: fn(usize, &mut frame::Video),
    /// Period of a silent audio track in milliseconds.
    pub(crate) audio: Option<Range<i64>>,
}

impl Default for TestVideo<'_> {
    /// One second of 64x48 H.264 without tags, 25 frames per second.
    fn default() -> Self {
        Self {
            codec: "libx264",
            format: Pixel::YUV420P,
            size: (64, 48),
            matrix: color::Space::Unspecified,
            range: color::Range::Unspecified,
            transfer: color::TransferCharacteristic::Unspecified,
            options: &[("crf", "20"), ("bf", "0")],
            container: &[],
            time_base: (1, 1000),
            times: (0..25).map(|i| 40 * i).collect(),
            draw: draw_index,
            audio: None,
        }
    }
}

/// Fills a frame with a luma that encodes its index: 16 + 4 · index, modulo 200, with neutral chroma.
fn draw_index(index: usize, frame: &mut frame::Video) {
    frame.data_mut(0).fill(16 + (4 * index % 200) as u8);
    frame.data_mut(1).fill(128);
    frame.data_mut(2).fill(128);
}

/// Draws noise, so that packets are large, around a luma that encodes the index.
pub(crate) fn draw_noise(index: usize, frame: &mut frame::Video) {
    let mut state = index as u32 + 1;
    for plane in 0..3 {
        for byte in frame.data_mut(plane) {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = 96 + (state >> 26) as u8;
        }
    }
}

/// Draws a bright rectangle that moves over a gradient with some noise, so that frames are predicted from each other.
pub(crate) fn draw_motion(index: usize, frame: &mut frame::Video) {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let (left, top) = (index * 3 % width, index % height);
    let stride = frame.stride(0);
    let mut state = index as u32 + 1;
    for (y, row) in frame.data_mut(0).chunks_exact_mut(stride).take(height).enumerate() {
        for (x, value) in row[..width].iter_mut().enumerate() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let inside = (left..left + 24).contains(&x) && (top..top + 16).contains(&y);
            *value = if inside { 200 } else { (40 + x + y) as u8 } + (state >> 29) as u8;
        }
    }
    frame.data_mut(1).fill(100 + (index % 50) as u8);
    frame.data_mut(2).fill(140);
}

/// Returns the index that [`draw_index`] encoded, from a gray value of a converted frame (modulo 50).
pub(crate) fn index_of_gray(gray: u8) -> usize {
    // The limited range expands by 255/219.
    (f64::from(gray) * 219.0 / 255.0 / 4.0).round() as usize
}

impl TestVideo<'_> {
    /// Encodes the video.
    pub(crate) fn write(&self, path: &Path) {
        super::libav::silence();
        let milliseconds = Rational::new(1, 1000);
        let time_base = Rational::from(self.time_base);
        let mut file = format::output(path).expect("the container is supported");
        let codec = encoder::find_by_name(self.codec).expect("libavcodec has the encoder");
        let mut context = codec::Context::new_with_codec(codec);
        context.set_threading(codec::threading::Config::count(1));
        let mut video = context.encoder().video().unwrap();
        video.set_width(self.size.0);
        video.set_height(self.size.1);
        video.set_format(self.format);
        video.set_time_base(time_base);
        video.set_colorspace(self.matrix);
        video.set_color_range(self.range);
        video.set_color_transfer_characteristic(self.transfer);
        if file.format().flags().contains(format::flag::Flags::GLOBAL_HEADER) {
            video.set_flags(codec::Flags::GLOBAL_HEADER);
        }
        let mut video = video.open_with(Dictionary::from_iter(self.options.iter().copied())).unwrap();
        file.add_stream_with(&video).unwrap().set_time_base(time_base);
        let mut audio = self.audio.as_ref().map(|_| {
            let codec = encoder::find_by_name("pcm_s16le").unwrap();
            let mut audio = codec::Context::new_with_codec(codec).encoder().audio().unwrap();
            audio.set_rate(1000);
            audio.set_format(format::Sample::I16(format::sample::Type::Packed));
            audio.set_channel_layout(ChannelLayout::MONO);
            audio.set_time_base(milliseconds);
            let audio = audio.open().unwrap();
            file.add_stream_with(&audio).unwrap().set_time_base(milliseconds);
            audio
        });
        file.write_header_with(Dictionary::from_iter(self.container.iter().copied())).unwrap();
        if let (Some(audio), Some(period)) = (&mut audio, &self.audio) {
            for start in period.clone().step_by(100) {
                let mut samples = frame::Audio::new(audio.format(), 100, ChannelLayout::MONO);
                samples.set_rate(1000);
                samples.data_mut(0).fill(0);
                samples.set_pts(Some(start));
                audio.send_frame(&samples).unwrap();
                write_packets(&mut file, 1, milliseconds, |packet| audio.receive_packet(packet).is_ok());
            }
        }
        for (index, &time) in self.times.iter().enumerate() {
            let mut frame = frame::Video::new(self.format, self.size.0, self.size.1);
            (self.draw)(index, &mut frame);
            frame.set_pts(Some(time));
            video.send_frame(&frame).unwrap();
            write_packets(&mut file, 0, time_base, |packet| video.receive_packet(packet).is_ok());
        }
        video.send_eof().unwrap();
        write_packets(&mut file, 0, time_base, |packet| video.receive_packet(packet).is_ok());
        file.write_trailer().unwrap();
    }
}

/// Writes the packets of an encoder.
fn write_packets(
    file: &mut format::context::Output,
    stream: usize,
    time_base: Rational,
    mut receive: impl FnMut(&mut Packet) -> bool,
) {
    let target = file.stream(stream).unwrap().time_base();
    let mut packet = Packet::empty();
    while receive(&mut packet) {
        packet.set_stream(stream);
        // Without a duration, the last frame of an MP4 file would not be displayed, and not be decoded.
        if packet.duration() == 0 {
            packet.set_duration(i64::from(time_base.denominator() / time_base.numerator() / 25));
        }
        packet.rescale_ts(time_base, target);
        packet.write_interleaved(file).unwrap();
    }
}
