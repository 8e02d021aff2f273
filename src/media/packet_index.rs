//! An index of the packets of a video: which packet contains which frame, and where decoding can start.

use ffmpeg_next::Packet;

use super::bitstream::{PacketHeader, Syntax};
use super::libav::Video;
use super::libav::ffi_wrappers::{changes_parameters, is_discarded};

/// Why a video is decoded completely, for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Untrusted(pub(super) &'static str);

/// A packet of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexedPacket {
    /// Presentation time in ticks.
    pub(super) time: i64,
    /// Decoding time in ticks, or the presentation time if it is unknown.
    pub(super) decoding_time: i64,
    /// Number of bytes.
    pub(super) size: usize,
    /// `true` if the decoder returns its frame: it is neither hidden nor before an edit list.
    displayed: bool,
    /// `true` if decoding can start at this packet.
    access_point: bool,
    /// `true` if no other frame needs this one.
    unreferenced: bool,
}

/// The packets of a video in the order of the file, which is the order of decoding.
#[derive(Debug)]
pub(super) struct PacketIndex {
    pub(super) packets: Vec<IndexedPacket>,
    /// The packet of each displayed frame, in the order of display.
    frames: Vec<usize>,
    /// Positions of the packets at which decoding can start; the first one is 0.
    access_points: Vec<usize>,
    /// `true` if frames that are marked as non-reference frames are not referenced.
    may_skip: bool,
    /// The syntax of the packets if their headers have not been read, so that what the container says is still to be verified.
    unverified: Option<Syntax>,
}

/// What to do with a packet whose frame is not wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unwanted {
    /// Decode it.
    Decode,
    /// Let the decoder find out if another frame needs it.
    DecodeIfReferenced,
    /// Do not send it to the decoder: no other frame needs it.
    Omit,
}

/// A section of packets that is decoded for some frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    /// The access point at which decoding starts.
    pub(super) first: usize,
    /// The last packet.
    pub(super) last: usize,
    /// Number of wanted frames in this section.
    pub(super) frames: usize,
}

impl PacketIndex {
    /// Reads all packets of a video, without decoding.
    ///
    /// # Errors
    /// Returns the reason why it is unknown which packets contain which frames.
    pub(super) fn read(video: &mut Video) -> Result<Self, Untrusted> {
        Self::read_by(video, |syntax, packet| syntax.header(packet.data()?, packet.is_key()))
    }

    /// Reads the times, sizes and keyframes of all packets of a video whose content is not read. [`PacketIndex::verify`] compares the
    /// packets with the index when they are decoded.
    ///
    /// # Errors
    /// Returns the reason why it is unknown which packets contain which frames.
    pub(super) fn read_without_content(video: &mut Video) -> Result<Self, Untrusted> {
        let header =
            |_, packet: &Packet| Some(PacketHeader { access_point: packet.is_key(), ..PacketHeader::default() });
        let index = Self::read_by(video, header)?;
        Ok(Self { may_skip: false, unverified: Syntax::new(video.codec(), video.configuration()), ..index })
    }

    /// Checks that a packet of an index without content is what the container says: a displayed frame, and an access point if decoding
    /// starts there.
    ///
    /// # Errors
    /// Returns the reason if it is not.
    pub(super) fn verify(&self, packet: &Packet, is_start: bool) -> Result<(), Untrusted> {
        let Some(syntax) = self.unverified else { return Ok(()) };
        match packet.data().and_then(|data| syntax.header(data, packet.is_key())) {
            Some(header) if !header.hidden && (header.access_point || !is_start) => Ok(()),
            _ => Err(Untrusted("a packet is not what the container says")),
        }
    }

    fn read_by(
        video: &mut Video,
        read_header: impl Fn(Syntax, &Packet) -> Option<PacketHeader>,
    ) -> Result<Self, Untrusted> {
        let Some(syntax) = Syntax::new(video.codec(), video.configuration()) else {
            return Err(Untrusted("the codec's random access points are unknown"));
        };
        if video.fields_may_be_packets() {
            return Err(Untrusted("fields of interlaced frames may be separate packets"));
        }
        let is_interlaced = video.is_interlaced();
        let mut packets = Vec::new();
        while let Some(packet) = video.read().map_err(|_| Untrusted("a packet cannot be read"))? {
            if packet.is_corrupt() {
                return Err(Untrusted("a packet is incomplete"));
            }
            if changes_parameters(&packet) {
                return Err(Untrusted("the codec's parameters change"));
            }
            let Some(time) = packet.pts() else { return Err(Untrusted("timestamps are missing")) };
            let Some(header) = read_header(syntax, &packet) else { return Err(Untrusted("a packet without a frame")) };
            let indexed = IndexedPacket {
                time,
                decoding_time: packet.dts().unwrap_or(time),
                size: packet.size(),
                displayed: !header.hidden && !is_discarded(&packet),
                access_point: header.access_point,
                // The other field of an interlaced frame may be a reference.
                unreferenced: header.non_reference && !is_interlaced,
            };
            packets.push((indexed, header));
        }
        Self::new(packets)
    }

    /// Creates an index of packets in the order of the file.
    fn new(packets: Vec<(IndexedPacket, PacketHeader)>) -> Result<Self, Untrusted> {
        let mut parameter_sets = packets.iter().filter_map(|(_, header)| header.parameter_sets);
        if let Some(first) = parameter_sets.next()
            && parameter_sets.any(|other| other != first)
        {
            return Err(Untrusted("the codec's parameters change"));
        }
        let may_skip = !packets.iter().any(|(_, header)| header.sub_layer);
        let packets: Vec<IndexedPacket> = packets.into_iter().map(|(packet, _)| packet).collect();
        let positions = |filter: fn(&IndexedPacket) -> bool| {
            packets.iter().enumerate().filter(move |(_, packet)| filter(packet)).map(|(position, _)| position)
        };
        let access_points: Vec<usize> = positions(|packet| packet.access_point).collect();
        let mut frames: Vec<usize> = positions(|packet| packet.displayed).collect();
        frames.sort_by_key(|&frame| packets[frame].time);
        let Some(&first) = frames.first() else { return Err(Untrusted("no frame is displayed")) };
        if access_points.first() != Some(&0) || packets[first].time < packets[0].time {
            return Err(Untrusted("the video does not start with a keyframe"));
        }
        if frames.windows(2).any(|pair| packets[pair[0]].time == packets[pair[1]].time) {
            return Err(Untrusted("timestamps repeat"));
        }
        Ok(Self { packets, frames, access_points, may_skip, unverified: None })
    }

    /// Returns the presentation time of each frame in ticks, ascending.
    pub(super) fn times(&self) -> impl Iterator<Item = i64> {
        self.frames.iter().map(|&packet| self.packets[packet].time)
    }

    /// Returns the presentation time of a frame in ticks.
    pub(super) fn time(&self, frame: usize) -> i64 {
        self.packets[self.frames[frame]].time
    }

    /// Returns how a packet is treated if its frame is not wanted.
    pub(super) fn unwanted(&self, packet: usize) -> Unwanted {
        match (self.may_skip, self.packets[packet].unreferenced) {
            (false, _) => Unwanted::Decode,
            (true, false) => Unwanted::DecodeIfReferenced,
            (true, true) => Unwanted::Omit,
        }
    }

    /// Returns the sections to decode for the frames `wanted`, in ascending order. Adjacent sections are joined.
    pub(super) fn sections(&self, wanted: &[usize]) -> Vec<Section> {
        self.sections_by(wanted, |section, first| first <= section.last + 1)
    }

    /// Returns the shortest sections to decode for the frames `wanted`. They may overlap if groups of frames are open.
    pub(super) fn shortest_sections(&self, wanted: &[usize]) -> Vec<Section> {
        self.sections_by(wanted, |section, first| first <= section.first)
    }

    /// Returns sections. `joins` decides if a frame that is decoded from a packet belongs to the section before it.
    fn sections_by(&self, wanted: &[usize], joins: impl Fn(&Section, usize) -> bool) -> Vec<Section> {
        let mut sections: Vec<Section> = Vec::new();
        for &frame in wanted {
            let packet = self.frames[frame];
            let first = self.access_point(packet);
            match sections.last_mut() {
                Some(section) if joins(section, first) => {
                    section.last = section.last.max(packet);
                    section.frames += 1;
                }
                _ => sections.push(Section { first, last: packet, frames: 1 }),
            }
        }
        sections
    }

    /// Returns the last access point from which a packet's frame is decoded exactly. Frames that are displayed before the frame
    /// of an access point but follow it in the file refer to frames before it.
    fn access_point(&self, packet: usize) -> usize {
        let count = self.access_points.partition_point(|&point| point <= packet);
        let candidates = self.access_points[..count].iter().rev().copied();
        let time = self.packets[packet].time;
        candidates.into_iter().find(|&point| self.packets[point].time <= time).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates an index from each packet's time and whether it is an access point.
    fn index(packets: &[(i64, bool)]) -> Result<PacketIndex, Untrusted> {
        let packet = |&(time, access_point): &(i64, bool)| {
            let packet = IndexedPacket {
                time,
                decoding_time: time,
                size: 100,
                displayed: true,
                access_point,
                unreferenced: false,
            };
            (packet, PacketHeader { access_point, ..PacketHeader::default() })
        };
        PacketIndex::new(packets.iter().map(packet).collect())
    }

    fn section(first: usize, last: usize, frames: usize) -> Section {
        Section { first, last, frames }
    }

    #[test]
    fn sections_start_at_the_access_point_of_their_first_frame() {
        // Two closed groups of I P B B, displayed as I B B P, and an open one whose B frames are displayed before its I frame.
        let times = [(0, true), (3, false), (1, false), (2, false), (4, true), (7, false), (5, false), (6, false)];
        let open = [(10, true), (8, false), (9, false), (13, false), (11, false), (12, false)];
        let index = index(&[&times[..], &open[..]].concat()).unwrap();
        assert_eq!(index.times().collect::<Vec<_>>(), (0..14).collect::<Vec<_>>());
        assert_eq!(index.sections(&[]), []);
        assert_eq!(index.sections(&[0]), [section(0, 0, 1)]);
        assert_eq!(index.sections(&[1]), [section(0, 2, 1)]);
        assert_eq!(index.sections(&[1, 3]), [section(0, 2, 2)]);
        assert_eq!(index.sections(&[0, 4]), [section(0, 0, 1), section(4, 4, 1)]);
        assert_eq!(index.sections(&[2, 6]), [section(0, 7, 2)]);
        // Leading frames need the previous group; trailing ones do not.
        assert_eq!(index.sections(&[9]), [section(4, 10, 1)]);
        assert_eq!(index.sections(&[10]), [section(8, 8, 1)]);
        assert_eq!(index.sections(&[12]), [section(8, 13, 1)]);
        let all: Vec<usize> = (0..14).collect();
        assert_eq!(index.sections(&all), [section(0, 13, 14)]);
        assert_eq!(index.shortest_sections(&all), [section(0, 3, 4), section(4, 10, 6), section(8, 13, 4)]);
    }

    #[test]
    fn streams_without_an_unambiguous_order_are_untrusted() {
        let reason = |packets: &[(i64, bool)]| index(packets).unwrap_err().0;
        assert_eq!(reason(&[]), "no frame is displayed");
        assert_eq!(reason(&[(0, false), (1, true)]), "the video does not start with a keyframe");
        assert_eq!(reason(&[(1, true), (0, false)]), "the video does not start with a keyframe");
        assert_eq!(reason(&[(0, true), (1, false), (1, false)]), "timestamps repeat");
    }

    #[test]
    fn parameter_sets_may_repeat_but_not_change() {
        let index = |parameter_sets: [Option<u32>; 3]| {
            let packet = |(time, parameter_sets): (i64, Option<u32>)| {
                let access_point = time == 0;
                let packet = IndexedPacket {
                    time,
                    decoding_time: time,
                    size: 1,
                    displayed: true,
                    access_point,
                    unreferenced: false,
                };
                (packet, PacketHeader { access_point, parameter_sets, ..PacketHeader::default() })
            };
            PacketIndex::new((0..).zip(parameter_sets).map(packet).collect())
        };
        assert!(index([Some(7), None, Some(7)]).is_ok());
        assert!(index([None, Some(7), None]).is_ok());
        assert_eq!(index([Some(7), None, Some(8)]).unwrap_err(), Untrusted("the codec's parameters change"));
    }
}
