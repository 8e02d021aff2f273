//! Functions and fields of libav that ffmpeg-next does not wrap.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::{ptr, slice};

use ffmpeg::ffi;
use ffmpeg::{Packet, Rational, Stream, codec, format, frame};
use ffmpeg_next as ffmpeg;

/// Returns libav's guess from the frame rates of the container and the codec.
pub(in crate::media) fn guess_frame_rate(file: &format::context::Input, stream: &Stream<'_>) -> Rational {
    // SAFETY: both are valid, and the stream belongs to the file. The function only reads.
    let rate =
        unsafe { ffi::av_guess_frame_rate(file.as_ptr().cast_mut(), stream.as_ptr().cast_mut(), ptr::null_mut()) };
    Rational::new(rate.num, rate.den)
}

/// Returns the start time of a file in seconds, the earliest of its streams, or `None` if unknown.
pub(in crate::media) fn start_seconds(file: &format::context::Input) -> Option<f64> {
    // SAFETY: the file is valid, and the field is an integer.
    let start = unsafe { (*file.as_ptr()).start_time };
    (start != ffi::AV_NOPTS_VALUE).then(|| start as f64 / f64::from(ffi::AV_TIME_BASE))
}

/// Returns the names of all demuxers of this build of libav except `excluded`, as a list of the option `format_whitelist`.
pub(in crate::media) fn demuxers_except(excluded: &[&str]) -> String {
    let mut names = Vec::new();
    let mut position = ptr::null_mut();
    // SAFETY: the function returns null or a static description, whose name is a string.
    while let Some(demuxer) = unsafe { ffi::av_demuxer_iterate(&mut position).as_ref() } {
        names.push(unsafe { CStr::from_ptr(demuxer.name) }.to_string_lossy());
    }
    names.retain(|name| !excluded.contains(&&**name));
    names.join(",")
}

/// Makes the demuxer skip all streams but one.
pub(in crate::media) fn discard_other_streams(file: &mut format::context::Input, stream: usize) {
    // SAFETY: the file is valid and has `nb_streams` streams. The field is a setting for the demuxer.
    unsafe {
        let file = &*file.as_mut_ptr();
        for other in (0..file.nb_streams as usize).filter(|&other| other != stream) {
            (**file.streams.add(other)).discard = ffi::AVDiscard::AVDISCARD_ALL;
        }
    }
}

/// Seeks to a keyframe at or before a time in ticks of the stream. Returns `false` if this is not possible.
pub(in crate::media) fn seek(file: &mut format::context::Input, stream: usize, time: i64) -> bool {
    let Ok(stream) = i32::try_from(stream) else { return false };
    // SAFETY: the file is valid; the function checks the stream.
    unsafe { ffi::av_seek_frame(file.as_mut_ptr(), stream, time, ffi::AVSEEK_FLAG_BACKWARD) >= 0 }
}

/// Returns the decoder's global headers; empty if there are none.
pub(in crate::media) fn extradata(decoder: &codec::decoder::Video) -> &[u8] {
    // SAFETY: the decoder is valid, and the pointer is null or points to this number of bytes, which the decoder owns.
    unsafe {
        let decoder = &*decoder.as_ptr();
        let len = usize::try_from(decoder.extradata_size).unwrap_or(0);
        if decoder.extradata.is_null() { &[] } else { slice::from_raw_parts(decoder.extradata, len) }
    }
}

/// Makes a decoder return frames without all of their references, marked as corrupt.
pub(in crate::media) fn output_corrupt_frames(decoder: &mut codec::decoder::Video) {
    // SAFETY: the decoder is valid, and the flag may be set at any time.
    unsafe { (*decoder.as_mut_ptr()).flags |= ffi::AV_CODEC_FLAG_OUTPUT_CORRUPT as i32 }
}

/// Returns `true` if frames of the stream consist of two fields.
pub(in crate::media) fn is_interlaced(stream: &Stream<'_>) -> bool {
    use ffi::AVFieldOrder::{AV_FIELD_PROGRESSIVE, AV_FIELD_UNKNOWN};
    // SAFETY: the stream and its parameters are valid, and the field is an integer.
    let order = unsafe { (*(*stream.as_ptr()).codecpar).field_order };
    !matches!(order, AV_FIELD_PROGRESSIVE | AV_FIELD_UNKNOWN)
}

/// Returns `true` if the stream is marked as progressive.
pub(in crate::media) fn is_progressive(stream: &Stream<'_>) -> bool {
    // SAFETY: the stream and its parameters are valid, and the field is an integer.
    unsafe { (*(*stream.as_ptr()).codecpar).field_order == ffi::AVFieldOrder::AV_FIELD_PROGRESSIVE }
}

/// Returns the transfer characteristics of a stream, as a code point of ITU-T H.273.
pub(in crate::media) fn transfer(stream: &Stream<'_>) -> i32 {
    // SAFETY: the stream and its parameters are valid, and the field is an integer.
    unsafe { (*(*stream.as_ptr()).codecpar).color_trc as i32 }
}

/// Returns `true` if each frame of the codec can be decoded by itself.
pub(in crate::media) fn is_intra_only(codec: codec::Id) -> bool {
    // SAFETY: the function returns null or a descriptor that is never freed.
    unsafe {
        let descriptor = ffi::avcodec_descriptor_get(codec.into());
        !descriptor.is_null() && (*descriptor).props & ffi::AV_CODEC_PROP_INTRA_ONLY != 0
    }
}

/// Returns `true` if the demuxer marked the packet as not displayed, because of an edit list.
pub(in crate::media) fn is_discarded(packet: &Packet) -> bool {
    use ffmpeg::packet::Ref as _;
    // SAFETY: the packet is valid, and the field is an integer.
    unsafe { (*packet.as_ptr()).flags & ffi::AV_PKT_FLAG_DISCARD != 0 }
}

/// Returns width and height of the coded frame, whose upper left part is displayed, if the buffers of the frame contain all
/// of it; otherwise the displayed size.
pub(in crate::media) fn coded_size(decoder: &codec::decoder::Video, frame: &frame::Video) -> (u32, u32) {
    let displayed = (frame.width(), frame.height());
    // SAFETY: the decoder is valid, and the fields are integers.
    let (width, height) = unsafe { ((*decoder.as_ptr()).coded_width, (*decoder.as_ptr()).coded_height) };
    let (Ok(coded_width), Ok(coded_height)) = (u32::try_from(width), u32::try_from(height)) else {
        return displayed;
    };
    // The decoder may be ahead of the frame, and the frame size may have changed.
    let current = (decoder.width(), decoder.height(), decoder.format()) == (displayed.0, displayed.1, frame.format());
    let larger = coded_width >= displayed.0 && coded_height >= displayed.1;
    if current && larger && has_size(frame, width, height) { (coded_width, coded_height) } else { displayed }
}

/// Returns `true` if the buffers of a frame are large enough for this size.
fn has_size(frame: &frame::Video, width: i32, height: i32) -> bool {
    let format = frame.format().into();
    // SAFETY: the frame and its buffers are valid. Addresses are compared but not dereferenced.
    unsafe {
        let raw = &*frame.as_ptr();
        let strides: [isize; 4] = std::array::from_fn(|plane| raw.linesize[plane] as isize);
        let mut sizes = [0; 4];
        let known = strides.iter().all(|&stride| stride >= 0)
            && ffi::av_image_fill_plane_sizes(sizes.as_mut_ptr(), format, height, strides.as_ptr()) >= 0;
        known
            && (0..4).filter(|&plane| sizes[plane] > 0).all(|plane| {
                let buffer = ffi::av_frame_get_plane_buffer(frame.as_ptr().cast_mut(), plane as i32);
                if buffer.is_null() {
                    return false;
                }
                let (first, start) = (raw.data[plane] as usize, (*buffer).data as usize);
                let fits = first >= start && first + sizes[plane] <= start + (*buffer).size as usize;
                fits && raw.linesize[plane] >= ffi::av_image_get_linesize(format, width, plane as i32)
            })
    }
}

/// Returns `true` if the packet has parameters that also apply to the packets after it.
pub(in crate::media) fn changes_parameters(packet: &Packet) -> bool {
    use ffmpeg::codec::packet::side_data::Type;
    packet.side_data().any(|data| matches!(data.kind(), Type::NewExtraData | Type::ParamChange | Type::Palette))
}
