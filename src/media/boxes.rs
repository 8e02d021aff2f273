//! The top-level boxes of MP4 and QuickTime files (ISO/IEC 14496-12, 4.2).

use std::ops::Range;

use crate::read_at::ReadAt;

/// Maximum number of boxes; files have a few.
const MAX_BOXES: usize = 64;

/// Returns the content of the media data boxes of a file whose movie box describes all packets: only they are in these ranges. `None` if
/// the file has another format, is fragmented or damaged, or cannot be read.
pub(super) fn media_data(file: &dyn ReadAt) -> Option<Vec<Range<u64>>> {
    let (mut position, mut ranges, mut has_movie) = (0, Vec::new(), false);
    for _ in 0..MAX_BOXES {
        if position == file.len() {
            return (has_movie && !ranges.is_empty()).then_some(ranges);
        }
        let header = file.read_vec(position, 16).ok()?;
        let length = u64::from(u32::from_be_bytes(*header.first_chunk()?));
        let (start, length) = match length {
            // The box extends to the end of the file.
            0 => (8, file.len() - position),
            1 => (16, u64::from_be_bytes(header.get(8..16)?.try_into().ok()?)),
            length => (8, length),
        };
        let end = position.checked_add(length).filter(|&end| length >= start && end <= file.len())?;
        match header.get(4..8)? {
            b"mdat" => ranges.push(position + start..end),
            b"moov" => has_movie = true,
            b"moof" => return None,
            b"ftyp" | b"free" | b"skip" | b"wide" | b"pnot" | b"udta" | b"uuid" | b"meta" | b"pdin" | b"sidx" => {}
            _ => return None,
        }
        position = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;

    struct Bytes(Vec<u8>);

    impl ReadAt for Bytes {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
            let rest = &self.0[(offset as usize).min(self.0.len())..];
            let read = rest.len().min(buffer.len());
            buffer[..read].copy_from_slice(&rest[..read]);
            Ok(read)
        }
    }

    fn of(boxes: &[(&[u8; 4], usize)]) -> Vec<u8> {
        let one = |&(name, content): &(&[u8; 4], usize)| {
            [(8 + content as u32).to_be_bytes().as_slice(), name, &vec![7; content]].concat()
        };
        boxes.iter().flat_map(one).collect()
    }

    #[test]
    fn media_data_is_between_the_headers() {
        let ranges = |bytes: Vec<u8>| -> Option<Vec<(u64, u64)>> {
            Some(media_data(&Bytes(bytes))?.iter().map(|range| (range.start, range.end)).collect())
        };
        assert_eq!(ranges(of(&[(b"ftyp", 12), (b"moov", 5), (b"mdat", 100)])), Some(vec![(41, 141)]));
        assert_eq!(
            ranges(of(&[(b"mdat", 10), (b"free", 0), (b"mdat", 3), (b"moov", 5)])),
            Some(vec![(8, 18), (34, 37)])
        );
        let mut long = of(&[(b"moov", 0)]);
        long.extend([&1_u32.to_be_bytes(), b"mdat".as_slice(), &20_u64.to_be_bytes(), &[0; 4]].concat());
        assert_eq!(ranges(long), Some(vec![(24, 28)]));
        let mut open = of(&[(b"moov", 0), (b"mdat", 9)]);
        open[8..12].fill(0);
        assert_eq!(ranges(open), Some(vec![(16, 25)]));
    }

    #[test]
    fn other_files_have_no_media_data() {
        let moov = (b"moov", 5);
        for boxes in [&[moov, (b"moof", 4), (b"mdat", 4)], &[moov, (b"\x1a\x45\xdf\xa3", 4), (b"mdat", 4)]] {
            assert_eq!(media_data(&Bytes(of(boxes))), None);
        }
        let whole = of(&[moov, (b"mdat", 9)]);
        for len in [0, 4, 20, whole.len() - 1] {
            assert_eq!(media_data(&Bytes(whole[..len].to_vec())), None, "{len}");
        }
        assert_eq!(media_data(&Bytes(of(&[(b"mdat", 9)]))), None);
    }
}
