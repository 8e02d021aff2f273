//! Properties of packets that follow from the headers of their frames, without decoding.

use std::borrow::Cow;

use ffmpeg_next::codec::Id;

use super::libav::ffi_wrappers::is_intra_only;

/// The smallest packet of MPEG-4 that certainly contains a coded frame. Encoders write smaller ones for repeated frames, which
/// decoders do not return.
const MIN_MPEG4_PACKET: usize = 16;

/// Properties of a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PacketHeader {
    /// `true` if a decoder can start at this packet, and then decodes this frame and all frames that are displayed after it
    /// exactly.
    pub(super) access_point: bool,
    /// Checksum of the packet's parameter sets, which apply to later packets, too.
    pub(super) parameter_sets: Option<u32>,
    /// `true` if the frame is only a reference for other frames and not displayed.
    pub(super) hidden: bool,
    /// `true` if the frame is marked as a non-reference frame: no other frame needs it, except those of higher temporal sub-layers.
    pub(super) non_reference: bool,
    /// `true` if the frame belongs to a higher temporal sub-layer. Frames of lower layers may be referenced by it even if they are
    /// marked as non-reference frames.
    pub(super) sub_layer: bool,
}

/// Syntax of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// H.264 (ITU-T H.264, 7.3.1), with the NAL units' length field in bytes, or start codes.
    H264(Option<usize>),
    /// HEVC (ITU-T H.265, 7.3.1), as H.264.
    Hevc(Option<usize>),
    /// MPEG-1 and MPEG-2 video (ISO/IEC 13818-2).
    Mpeg12,
    /// MPEG-4 part 2 (ISO/IEC 14496-2).
    Mpeg4,
    /// VP8 (RFC 6386, 9.1).
    Vp8,
    /// VP9 (VP9 bitstream specification, 6.2 and annex B).
    Vp9,
    /// AV1. Keyframes of containers are random access points.
    Av1,
    /// A codec whose frames are independent.
    Intra,
}

impl Syntax {
    /// Returns the syntax of a codec, or `None` if its random access points are unknown.
    pub(super) fn new(codec: Id, configuration: &[u8]) -> Option<Self> {
        // The configuration records of ISO/IEC 14496-15 start with their version, those with start codes with 0.
        let length = |at: usize| match configuration.first() {
            Some(1) => configuration.get(at).map(|byte| usize::from(byte & 3) + 1),
            _ => None,
        };
        Some(match codec {
            Id::H264 => Self::H264(length(4)),
            Id::HEVC => Self::Hevc(length(21)),
            Id::MPEG1VIDEO | Id::MPEG2VIDEO => Self::Mpeg12,
            Id::MPEG4 => Self::Mpeg4,
            Id::VP8 => Self::Vp8,
            Id::VP9 => Self::Vp9,
            Id::AV1 => Self::Av1,
            _ if is_intra_only(codec) => Self::Intra,
            _ => return None,
        })
    }

    /// Reads the header of a packet; `key` is the container's mark of keyframes. Returns `None` if it is invalid.
    pub(super) fn header(self, data: &[u8], key: bool) -> Option<PacketHeader> {
        let first = *data.first()?;
        let header = PacketHeader { access_point: key, ..PacketHeader::default() };
        Some(match self {
            Self::H264(length) => h264(data, length, key)?,
            Self::Hevc(length) => hevc(data, length, key)?,
            // The sequence header resets the quantization matrices.
            Self::Mpeg12 => PacketHeader { access_point: key && data.starts_with(&[0, 0, 1, 0xb3]), ..header },
            Self::Mpeg4 if data.len() < MIN_MPEG4_PACKET => return None,
            Self::Mpeg4 | Self::Av1 => header,
            Self::Vp8 => PacketHeader { hidden: first & 0x10 == 0, ..header },
            Self::Vp9 => PacketHeader { hidden: is_hidden_vp9(data)?, ..header },
            Self::Intra => PacketHeader { access_point: true, ..header },
        })
    }
}

fn h264(data: &[u8], length: Option<usize>, key: bool) -> Option<PacketHeader> {
    let (mut recovery, mut parameter_sets) = (false, None);
    for nal in NalUnits::new(data, length) {
        match nal.first()? & 0x1f {
            5 => return Some(PacketHeader { access_point: key, parameter_sets, ..PacketHeader::default() }),
            // Data partitions are an obsolete feature for lossy transmission.
            2..=4 => return None,
            1 => {
                let access_point = key && recovery;
                // `nal_ref_idc` is 0.
                let non_reference = nal.first()? >> 5 & 3 == 0;
                return Some(PacketHeader { access_point, parameter_sets, non_reference, ..PacketHeader::default() });
            }
            6 => recovery |= has_exact_recovery_point(nal),
            7 | 8 | 13 | 15 => add_parameter_set(&mut parameter_sets, nal),
            _ => {}
        }
    }
    None
}

fn hevc(data: &[u8], length: Option<usize>, key: bool) -> Option<PacketHeader> {
    let mut parameter_sets = None;
    for nal in NalUnits::new(data, length) {
        let &[first, second] = nal.first_chunk()?;
        match first >> 1 & 0x3f {
            kind @ 0..32 => {
                let is_random_access = (16..24).contains(&kind);
                // The temporal id is 1 for the lowest layer.
                let sub_layer = second & 7 > 1;
                let access_point = key && is_random_access;
                // The even types below 16 are sub-layer non-reference pictures.
                let non_reference = kind < 16 && kind % 2 == 0;
                return Some(PacketHeader { access_point, parameter_sets, hidden: false, non_reference, sub_layer });
            }
            32..=34 => add_parameter_set(&mut parameter_sets, nal),
            _ => {}
        }
    }
    None
}

/// Adds a NAL unit to the checksum of a packet's parameter sets.
fn add_parameter_set(checksum: &mut Option<u32>, nal: &[u8]) {
    let mut hasher = crc32fast::Hasher::new_with_initial(checksum.unwrap_or(0));
    hasher.update(nal);
    *checksum = Some(hasher.finalize());
}

/// Returns `true` if an SEI message says that decoding can start at this frame: a recovery point (ITU-T H.264, D.1.8) with
/// `recovery_frame_cnt` 0 and `exact_match_flag` 1.
fn has_exact_recovery_point(nal: &[u8]) -> bool {
    let payload = unescape(&nal[1..]);
    let mut rest = payload.as_ref();
    while let Some((kind, size)) = sei_number(&mut rest).zip(sei_number(&mut rest)) {
        if kind == 6 {
            // The Exp-Golomb code of 0 is the bit 1.
            return rest.first().is_some_and(|byte| byte & 0xc0 == 0xc0);
        }
        let Some(next) = rest.get(size..) else { break };
        rest = next;
    }
    false
}

/// Reads a type or size of an SEI message: the sum of bytes up to the first one that is not 255.
fn sei_number(rest: &mut &[u8]) -> Option<usize> {
    let mut sum = 0;
    loop {
        let byte = *rest.split_off_first()?;
        sum += usize::from(byte);
        if byte != 255 {
            return Some(sum);
        }
    }
}

/// Removes the bytes that prevent start codes: 00 00 03 is 00 00.
fn unescape(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.windows(3).any(|window| window == [0, 0, 3]) {
        return bytes.into();
    }
    let mut zeros = 0;
    let keep = |&byte: &u8| {
        let escape = zeros >= 2 && byte == 3;
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        !escape
    };
    bytes.iter().copied().filter(keep).collect()
}

/// Returns `true` if a packet of VP9 has no displayed frame, or `None` if it is invalid.
fn is_hidden_vp9(data: &[u8]) -> Option<bool> {
    let (first, last) = (*data.first()?, *data.last()?);
    // A superframe, whose index is at its end, contains the hidden frames and a displayed one.
    if last >> 5 == 0b110 {
        return Some(false);
    }
    if first >> 6 != 0b10 {
        return None;
    }
    // The profile's low bit, high bit and, in profile 3, a reserved bit; show_existing_frame; frame_type; show_frame.
    let shift = usize::from(first >> 4 & 0b11 == 0b11);
    let bit = |position: usize| first >> (7 - position - shift) & 1 == 1;
    Some(!bit(4) && !bit(6))
}

/// The NAL units of a packet.
struct NalUnits<'a> {
    rest: &'a [u8],
    /// Bytes of the length field, or `None` if units are separated by start codes.
    length: Option<usize>,
}

impl<'a> NalUnits<'a> {
    fn new(data: &'a [u8], length: Option<usize>) -> Self {
        Self { rest: data, length }
    }
}

impl<'a> Iterator for NalUnits<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let unit = match self.length {
            Some(length) => {
                let (field, rest) = self.rest.split_at_checked(length)?;
                let size = field.iter().fold(0, |size, &byte| size << 8 | usize::from(byte));
                let (unit, rest) = rest.split_at_checked(size)?;
                self.rest = rest;
                unit
            }
            None => {
                let start = memchr::memmem::find(self.rest, &[0, 0, 1])? + 3;
                self.rest = &self.rest[start..];
                let end = memchr::memmem::find(self.rest, &[0, 0, 1]).unwrap_or(self.rest.len());
                let (unit, rest) = self.rest.split_at(end);
                self.rest = rest;
                // A start code may have four bytes.
                &unit[..unit.len() - unit.iter().rev().take_while(|&&byte| byte == 0).count()]
            }
        };
        Some(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDR: &[u8] = &[0x65, 0x88];
    const NON_IDR: &[u8] = &[0x41, 0x9a];
    const EXACT_RECOVERY: &[u8] = &[0x06, 6, 1, 0xc4, 0x80];

    fn start_codes(units: &[&[u8]]) -> Vec<u8> {
        units.iter().flat_map(|unit| [&[0, 0, 1], *unit].concat()).collect()
    }

    fn lengths(units: &[&[u8]]) -> Vec<u8> {
        units.iter().flat_map(|unit| [&(unit.len() as u32).to_be_bytes(), *unit].concat()).collect()
    }

    #[test]
    fn finds_access_points_of_h264() {
        // A message of type 5 whose content has an escaped byte precedes the recovery point.
        let second_message = [&[0x06, 5, 4, 1, 0, 0, 3, 1][..], &[6, 1, 0xc4, 0x80]].concat();
        let gradual = [0x06, 6, 1, 0b0111_0000, 0x80];
        let inexact = [0x06, 6, 1, 0b1000_0000, 0x80];
        let cases: [(&[&[u8]], bool, bool); 8] = [
            (&[IDR], true, false),
            (&[&[9, 0x10], &[0x67, 1], &[0x68, 1], IDR], true, true),
            (&[NON_IDR], false, false),
            (&[EXACT_RECOVERY, NON_IDR], true, false),
            (&[&second_message, NON_IDR], true, false),
            (&[&gradual, NON_IDR], false, false),
            (&[&inexact, NON_IDR], false, false),
            (&[&[0x68, 1], NON_IDR], false, true),
        ];
        for (units, access_point, parameter_sets) in cases {
            let header = |syntax: Syntax, data: &[u8], key| syntax.header(data, key).unwrap();
            let with_start_codes = header(Syntax::H264(None), &start_codes(units), true);
            assert_eq!(header(Syntax::H264(Some(4)), &lengths(units), true), with_start_codes, "{units:?}");
            assert_eq!(with_start_codes.access_point, access_point, "{units:?}");
            assert_eq!(with_start_codes.parameter_sets.is_some(), parameter_sets, "{units:?}");
            assert!(!header(Syntax::H264(None), &start_codes(units), false).access_point, "{units:?}");
            assert!(!with_start_codes.non_reference, "{units:?}");
        }
        assert!(Syntax::H264(None).header(&start_codes(&[&[0x01, 0x9a]]), false).unwrap().non_reference);
        let parameter_sets =
            |set: &[u8]| Syntax::H264(None).header(&start_codes(&[&[0x67, 1], set, IDR]), true).unwrap().parameter_sets;
        assert_eq!(parameter_sets(&[0x68, 1]), parameter_sets(&[0x68, 1]));
        assert_ne!(parameter_sets(&[0x68, 1]), parameter_sets(&[0x68, 2]));
        assert_eq!(Syntax::H264(Some(4)).header(&[0, 0, 0, 9, 0x65], true), None);
        assert_eq!(Syntax::H264(None).header(&[0x65, 0x88], true), None);
    }

    #[test]
    fn finds_access_points_and_layers_of_hevc() {
        let unit = |kind: u8, temporal_id: u8| [kind << 1, temporal_id + 1, 0x80];
        let cases = [(19, true), (20, true), (21, true), (16, true), (1, false), (0, false), (8, false)];
        for (kind, access_point) in cases {
            let non_reference = kind == 0 || kind == 8;
            let expected = PacketHeader { access_point, non_reference, ..PacketHeader::default() };
            assert_eq!(Syntax::Hevc(None).header(&start_codes(&[&unit(kind, 0)]), true), Some(expected), "{kind}");
            let units = [unit(32, 0), unit(33, 0), unit(34, 0), unit(kind, 1)];
            let data = lengths(&units.each_ref().map(<[u8; 3]>::as_slice));
            let header = Syntax::Hevc(Some(4)).header(&data, true).unwrap();
            assert!(header.parameter_sets.is_some() && header.sub_layer, "{kind}");
            assert_eq!(header.access_point, access_point, "{kind}");
        }
    }

    #[test]
    fn finds_hidden_frames() {
        let hidden = |syntax: Syntax, data: &[u8]| syntax.header(data, false).map(|header| header.hidden);
        assert_eq!(hidden(Syntax::Vp8, &[0b0001_0001, 0]), Some(false));
        assert_eq!(hidden(Syntax::Vp8, &[0b0000_0001, 0]), Some(true));
        // Marker, profile, show_existing_frame, frame_type, show_frame, error_resilient_mode.
        assert_eq!(hidden(Syntax::Vp9, &[0b1000_0110, 0]), Some(false));
        assert_eq!(hidden(Syntax::Vp9, &[0b1000_0100, 0]), Some(true));
        assert_eq!(hidden(Syntax::Vp9, &[0b1000_1000, 0]), Some(false));
        assert_eq!(hidden(Syntax::Vp9, &[0b1011_0010, 0b0000_0000]), Some(true));
        assert_eq!(hidden(Syntax::Vp9, &[0b1011_0011, 0b0000_0000]), Some(false));
        assert_eq!(hidden(Syntax::Vp9, &[0b1000_0100, 0b1100_0001]), Some(false));
        assert_eq!(hidden(Syntax::Vp9, &[0, 0]), None);
    }

    #[test]
    fn requires_sequence_headers_of_mpeg2_and_coded_frames_of_mpeg4() {
        let access_point =
            |syntax: Syntax, data: &[u8], key| syntax.header(data, key).map(|header| header.access_point);
        assert_eq!(access_point(Syntax::Mpeg12, &[0, 0, 1, 0xb3, 0], true), Some(true));
        assert_eq!(access_point(Syntax::Mpeg12, &[0, 0, 1, 0, 0], true), Some(false));
        assert_eq!(access_point(Syntax::Mpeg4, &[0; 20], true), Some(true));
        assert_eq!(access_point(Syntax::Mpeg4, &[0, 0, 1, 0xb6, 0x10, 0, 0], false), None);
        assert_eq!(access_point(Syntax::Intra, &[0], false), Some(true));
        assert_eq!(access_point(Syntax::Av1, &[], true), None);
    }
}
