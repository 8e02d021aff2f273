//! Decoding: comparison with OpenCV-Python and Pillow on real files, and errors of invalid files.

use std::path::{Path, PathBuf};

use kinoprobe::Result;
use kinoprobe::manifest::Clip;
use kinoprobe::media::{self, BgrImage, Decoded, Frame, FrameSink, ItemSink, Sampling, Transform, Window};
use kinoprobe::models::Card;
use kinoprobe::models::input::InputSpec;
use sha2::{Digest, Sha256};

const ALL: Sampling = Sampling::Even { frames: usize::MAX };

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/media").join(name)
}

fn clip(file: impl Into<PathBuf>) -> Clip {
    let file = file.into();
    let path = file.display().to_string();
    Clip { id: path.clone(), path, file, ..Clip::default() }
}

fn input(card: &str) -> InputSpec {
    Card::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models"), card).unwrap().input
}

/// A sink that keeps all frames.
#[derive(Default)]
struct Collector {
    passes: usize,
    wanted: Vec<usize>,
    frames: Vec<(usize, usize, usize, Vec<u8>)>,
}

impl FrameSink for Collector {
    fn begin(&mut self, _windows: &[Window], wanted: &[usize]) -> Result<()> {
        self.passes += 1;
        self.wanted = wanted.to_vec();
        self.frames.clear();
        Ok(())
    }

    fn frame(&mut self, position: usize, frame: &Frame<'_>) -> Result<()> {
        assert_eq!(position, self.frames.len(), "positions come in order");
        assert_eq!(frame.index, self.wanted[position]);
        let image = frame.image();
        self.frames.push((frame.index, image.height, image.width, image.data.to_vec()));
        Ok(())
    }
}

fn decode(clip: &Clip, sampling: Sampling) -> Result<(Decoded, Collector)> {
    let mut collector = Collector::default();
    let decoded = media::decode(clip, &sampling, &mut collector)?;
    Ok((decoded, collector))
}

fn decode_error(clip: &Clip) -> String {
    let error = decode(clip, Sampling::Even { frames: 4 }).err().expect("decoding fails").to_string();
    let name = clip.file.file_name().unwrap().to_string_lossy().into_owned();
    assert!(error.contains(&name), "the error names the file: {error}");
    error
}

#[test]
fn frames_equal_opencv_python() {
    let golden: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(fixture("clips.json")).unwrap()).unwrap();
    for (name, expected) in golden["clips"].as_object().unwrap() {
        let (decoded, seen) = decode(&clip(fixture(name)), ALL).unwrap();
        let frames = expected["frames"].as_u64().unwrap() as usize;
        if name == "truncated.mp4" {
            // The number of frames of the last, incomplete group of pictures depends on the version of libav.
            assert!((frames - 4..=frames + 4).contains(&seen.frames.len()), "{name}: {}", seen.frames.len());
            assert!(decoded.warnings[0].contains("packets cannot be decoded"), "{:?}", decoded.warnings);
        } else {
            assert_eq!(decoded.warnings, [""; 0], "{name}");
            assert_eq!(seen.frames.len(), frames, "{name}");
        }
        assert_eq!(decoded.timeline.frame_count, seen.frames.len(), "{name}");
        let (_, height, width, _) = &seen.frames[0];
        assert_eq!(serde_json::json!([height, width]), expected["size"], "{name}");
        let data = |index: &str| &seen.frames[index.parse::<usize>().unwrap()].3;
        for (index, hash) in expected["sha256"].as_object().into_iter().flatten() {
            assert_eq!(format!("{:x}", Sha256::digest(data(index))), hash.as_str().unwrap(), "{name} frame {index}");
        }
        // Rounding of MPEG-4's inverse transform depends on the version of libav: compare every 15th row and every 20th pixel
        // with a tolerance.
        for (index, samples) in expected["samples"].as_object().into_iter().flatten() {
            let samples: Vec<u8> = serde_json::from_value(samples.clone()).unwrap();
            let rows = data(index).chunks_exact(3 * width).step_by(15);
            let actual: Vec<u8> = rows.flat_map(|row| row.chunks_exact(3).step_by(20).flatten()).copied().collect();
            assert_eq!(actual.len(), samples.len());
            assert!(actual.iter().zip(&samples).all(|(a, b)| a.abs_diff(*b) <= 3), "{name} frame {index}");
        }
    }
}

#[test]
fn rotation_metadata_is_applied_in_the_right_direction() {
    let first = |name: &str| decode(&clip(fixture(name)), Sampling::Even { frames: 1 }).unwrap().1.frames.remove(0);
    let (_, height, width, plain) = first("ten.mp4");
    // ffprobe prints rotation=90: the frame is displayed rotated by 90° counterclockwise.
    let (_, rotated_height, rotated_width, rotated) = first("turned_90.mp4");
    assert_eq!((rotated_height, rotated_width), (width, height));
    for (y, x) in [(0, 0), (5, 70), (100, 3), (119, 159)] {
        let (to_y, to_x) = (width - 1 - x, y);
        let (from, to) = (3 * (y * width + x), 3 * (to_y * rotated_width + to_x));
        assert_eq!(plain[from..from + 3], rotated[to..to + 3], "pixel {y}, {x}");
    }
}

#[test]
fn sampling_uses_the_actual_frame_count() {
    let (decoded, seen) = decode(&clip(fixture("plain.mp4")), Sampling::Even { frames: 4 }).unwrap();
    assert_eq!((seen.passes, decoded.timeline.frame_count), (1, 100));
    assert_eq!(seen.wanted, [12, 37, 62, 87]);
    let (decoded, seen) = decode(&clip(fixture("edit_list.mp4")), Sampling::Even { frames: 4 }).unwrap();
    assert_eq!((seen.passes, decoded.timeline.frame_count), (1, 24));
    assert_eq!(seen.wanted, [3, 9, 15, 21]);
    assert_eq!(seen.frames.len(), 4);
}

#[test]
fn a_variable_rate_is_sampled_by_timestamps() {
    let (decoded, seen) =
        decode(&clip(fixture("vfr.mp4")), Sampling::Windows { length: 8, rate: 5.0, count: 1 }).unwrap();
    let times = decoded.timeline.timestamps.as_ref().expect("the rate is variable");
    assert_eq!((times.len(), seen.passes), (30, 1));
    // Twenty frames at 25 per second, then every third.
    for (index, time) in times.iter().enumerate() {
        let expected = if index < 20 { index as f64 } else { 21.0 + 3.0 * (index - 20) as f64 } / 25.0;
        assert!((time - expected).abs() < 0.002, "frame {index} at {time}");
    }
    // At 0.0, 0.2, …, 1.4 s. At 0.8 s frame 19 is displayed, since frame 20 appears at 0.84 s.
    assert_eq!(decoded.windows[0].indices, [0, 5, 10, 15, 19, 21, 23, 24]);
}

#[test]
fn rounded_timestamps_are_a_constant_rate() {
    for name in ["short.mkv", "vp9.webm", "odd.mp4", "mpeg4.avi", "mjpeg.avi"] {
        let (decoded, _) = decode(&clip(fixture(name)), ALL).unwrap();
        assert_eq!(decoded.timeline.timestamps, None, "{name}");
        let fps = if name == "odd.mp4" { 30000.0 / 1001.0 } else { 25.0 };
        assert!((decoded.timeline.fps - fps).abs() < 0.01, "{name}: {}", decoded.timeline.fps);
    }
}

#[test]
fn a_short_clip_is_padded() {
    let (decoded, seen) =
        decode(&clip(fixture("ten.mp4")), Sampling::Windows { length: 16, rate: 25.0, count: 5 }).unwrap();
    assert_eq!(decoded.windows.len(), 1);
    assert!(decoded.windows[0].padded);
    assert_eq!(decoded.windows[0].indices[8..], [8, 9, 9, 9, 9, 9, 9, 9]);
    assert_eq!(seen.frames.len(), 10);
}

#[test]
fn start_and_end_select_a_part_of_a_video() {
    let (_, full) = decode(&clip(fixture("plain.mp4")), ALL).unwrap();
    let part = Clip { start: Some(1.0), end: Some(2.0), ..clip(fixture("plain.mp4")) };
    let (decoded, seen) = decode(&part, Sampling::Even { frames: 5 }).unwrap();
    assert_eq!((decoded.timeline.frame_count, decoded.timeline.first_frame), (25, 25));
    assert_eq!(seen.wanted, [2, 7, 12, 17, 22]);
    assert_eq!(decoded.timeline.seconds(2), 27.0 / 25.0);
    for (index, _, _, data) in &seen.frames {
        assert!(*data == full.frames[25 + index].3, "frame {index}");
    }
    let late = Clip { start: Some(7.0), ..clip(fixture("plain.mp4")) };
    assert!(decode_error(&late).contains("the video ends at 4.00 s"), "{}", decode_error(&late));
    let backwards = Clip { start: Some(2.0), end: Some(2.0), ..clip(fixture("plain.mp4")) };
    assert!(decode_error(&backwards).contains("start 2 s is not before end 2 s"));
    let image = Clip { start: Some(1.0), ..clip(fixture("gray.png")) };
    assert!(decode_error(&image).contains("images have no timestamps"));
}

#[test]
fn invalid_files_are_rejected_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(directory.path().join(name), bytes).unwrap();
        clip(directory.path().join(name))
    };
    assert!(decode_error(&clip(directory.path().join("missing.mp4"))).contains("no such file"));
    assert!(decode_error(&write("empty.mp4", b"")).contains("empty"));
    assert!(decode_error(&write("text.mp4", b"not a video at all\n")).contains("no video stream"));
    assert!(decode_error(&clip(fixture("audio_only.mp4"))).contains("no video stream"));
    let noise: Vec<u8> = (0..20_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert!(decode_error(&write("noise.avi", &noise)).contains("no video stream"));
    // The header without frames.
    let plain = std::fs::read(fixture("short.mkv")).unwrap();
    assert!(decode_error(&write("head.mkv", &plain[..700])).contains("head.mkv"));
    assert!(decode_error(&write("broken.png", b"\x89PNG\r\n\x1a\nbroken")).contains("not an image"));
    assert!(decode_error(&write("text.jpg", b"text")).contains("not an image"));
    let frames = directory.path().join("frames");
    std::fs::create_dir(&frames).unwrap();
    assert!(decode_error(&clip(&frames)).contains("no frames"));
    std::fs::write(frames.join("shot_1.png"), b"text").unwrap();
    let error = decode(&clip(&frames), ALL).err().unwrap().to_string();
    assert!(error.contains("shot_1.png: not an image"), "{error}");
}

#[test]
fn a_directory_is_read_in_natural_order() {
    let directory = tempfile::tempdir().unwrap();
    for (name, from) in [("shot_10.png", "pixel.png"), ("shot_2.png", "alpha.png"), ("shot_1.png", "gray.png")] {
        std::fs::copy(fixture(from), directory.path().join(name)).unwrap();
    }
    std::fs::write(directory.path().join("notes.txt"), "no frame").unwrap();
    let (decoded, seen) = decode(&clip(directory.path()), ALL).unwrap();
    assert_eq!((decoded.timeline.frame_count, decoded.timeline.fps), (3, 0.0));
    let widths: Vec<usize> = seen.frames.iter().map(|(_, _, width, _)| *width).collect();
    assert_eq!(widths, [16, 16, 1]);
    assert_eq!(seen.frames[0].3, decode(&clip(fixture("gray.png")), ALL).unwrap().1.frames[0].3);
    // Windows consist of consecutive frames, which are resized to the same size.
    let mut items = ItemSink::new(&input("r2plus1d_18"));
    let sampling = Sampling::Windows { length: 16, rate: 15.0, count: 2 };
    let decoded = media::decode(&clip(directory.path()), &sampling, &mut items).unwrap();
    assert_eq!(decoded.windows[0].indices[..4], [0, 1, 2, 2]);
    assert_eq!(items.take().len(), 3 * 16 * 112 * 112);
}

#[test]
fn items_contain_the_transformed_frames_of_each_window() {
    let input = input("r2plus1d_18");
    let sampling = Sampling::Windows { length: 16, rate: 15.0, count: 4 };
    let mut sink = ItemSink::new(&input);
    let decoded = media::decode(&clip(fixture("plain.mp4")), &sampling, &mut sink).unwrap();
    let items = sink.take();
    assert_eq!(decoded.windows.len(), 4);
    assert_eq!(items.len(), 4 * input.item_len());
    let (_, seen) = decode(&clip(fixture("plain.mp4")), ALL).unwrap();
    let mut transform = Transform::new(&input);
    let plane = 112 * 112;
    for (item, window) in items.chunks_exact(input.item_len()).zip(&decoded.windows) {
        for (slot, &index) in window.indices.iter().enumerate() {
            let (_, height, width, data) = &seen.frames[index];
            let mut expected = vec![0; 3 * plane];
            transform.write_planes(BgrImage::new(*height, *width, data), &mut expected, plane);
            for channel in 0..3 {
                let actual = &item[(channel * 16 + slot) * plane..][..plane];
                assert!(actual == &expected[channel * plane..][..plane], "frame {index}, channel {channel}");
            }
        }
    }
    let error = media::decode(&clip(fixture("plain.mp4")), &Sampling::Even { frames: 2 }, &mut sink).unwrap_err();
    assert!(error.to_string().contains("the network expects 16"), "{error}");
}

/// Compares the mean of each quadrant and channel (red, green, blue). JPEG and 16-color palettes are not exact.
#[test]
fn unusual_images_match_pillow() {
    let expected = std::fs::read_to_string(fixture("pictures/pictures.json")).unwrap();
    let expected: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&expected).unwrap();
    assert_eq!(expected.len(), 11);
    for (name, expected) in expected {
        let bytes = std::fs::read(fixture("pictures").join(&name)).unwrap();
        let mut seen = Collector::default();
        media::decode_image(Path::new(&name), &bytes, &mut seen).unwrap();
        let (_, height, width, data) = &seen.frames[0];
        let size = (*height as u64, *width as u64);
        assert_eq!(size, (expected["height"].as_u64().unwrap(), expected["width"].as_u64().unwrap()), "{name}");
        for (quadrant, expected) in expected["quarters"].as_array().unwrap().iter().enumerate() {
            let (top, left) = (quadrant / 2 * (height / 2), quadrant % 2 * (width / 2));
            for channel in 0..3 {
                let rows = (top..top + height / 2).flat_map(|y| (left..left + width / 2).map(move |x| y * width + x));
                let sum: f64 = rows.map(|at| f64::from(data[3 * at + 2 - channel])).sum();
                let mean = sum / (height / 2 * (width / 2)) as f64;
                let reference = expected[channel].as_f64().unwrap();
                assert!(
                    (mean - reference).abs() < 2.0,
                    "{name}, quadrant {quadrant}, channel {channel}: {mean}, {reference}"
                );
            }
        }
    }
}

#[test]
fn jpegs_equal_opencv_python() {
    let golden = std::fs::read_to_string(fixture("jpegs.json")).unwrap();
    let golden: std::collections::BTreeMap<String, String> = serde_json::from_str(&golden).unwrap();
    assert_eq!(golden.len(), 5);
    for (name, expected) in golden {
        let (_, seen) = decode(&clip(fixture(&name)), ALL).unwrap();
        assert_eq!(format!("{:x}", Sha256::digest(&seen.frames[0].3)), expected, "{name}");
    }
}

#[test]
fn files_and_in_memory_images_decode_identically() {
    for name in ["alpha.png", "sixteen.png", "pictures/turned_6.jpg", "pictures/palette.png"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let mut seen = Collector::default();
        media::decode_image(Path::new(name), &bytes, &mut seen).unwrap();
        assert_eq!(seen.frames, decode(&clip(fixture(name)), ALL).unwrap().1.frames, "{name}");
    }
}

#[test]
fn truncated_images_are_rejected() {
    for name in
        ["pictures/turned_3.jpg", "pictures/deflate.tiff", "pictures/alpha.webp", "gray.png", "pictures/animated.gif"]
    {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let truncated = &bytes[..bytes.len() / 2];
        let error = media::decode_image(Path::new(name), truncated, &mut Collector::default()).unwrap_err().to_string();
        assert!(error.starts_with(name), "{error}");
    }
}

#[test]
fn the_frame_size_may_change() {
    let (decoded, seen) = decode(&clip(fixture("sizes.h264")), ALL).unwrap();
    let sizes: Vec<_> = seen.frames.iter().map(|(_, height, width, _)| (*height, *width)).collect();
    assert_eq!(decoded.timeline.frame_count, 20);
    assert_eq!(sizes, [[(48, 64); 10], [(64, 48); 10]].concat());
}

#[test]
fn decoder_does_not_access_the_network() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let address = listener.local_addr().unwrap();
    let list = format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://{address}/a.ts\n#EXT-X-ENDLIST\n");
    std::fs::write(directory.path().join("list.m3u8"), list).unwrap();
    decode_error(&clip(directory.path().join("list.m3u8")));
    let error = listener.accept().expect_err("no connection").kind();
    assert_eq!(error, std::io::ErrorKind::WouldBlock);
}

#[test]
fn container_info_has_duration_and_size() {
    let info = media::container_info(&media::Location::Path(fixture("plain.mp4"))).unwrap();
    assert!((info.seconds - 4.0).abs() < 0.05 && info.pixels == 320 * 240, "{info:?}");
    assert!(media::container_info(&media::Location::Path(fixture("audio_only.mp4"))).is_err());
}
