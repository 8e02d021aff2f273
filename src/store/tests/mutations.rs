//! Journals that are truncated, mutated or have bit errors.

use ndarray::Array2;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::store::byte_mutation::ByteMutation;

/// Length and checksum of a record around a body.
fn record(body: &[u8]) -> Vec<u8> {
    let (length, checksum) = ((body.len() as u64).to_le_bytes(), crc32fast::hash(body).to_le_bytes());
    [&length[..], body, &checksum].concat()
}

/// A change to the bytes of a journal.
#[derive(Debug, Clone)]
enum Mutation {
    Bytes(ByteMutation),
    /// Overwrites the length of the body or of the JSON of a record.
    SetRecordLength(Index, bool, u64),
    /// Flips a bit of the body of a record, and corrects the checksum.
    FlipBitInRecord(Index, Index, u8),
    /// Replaces a body, with a correct checksum.
    ReplaceRecord(Index, Vec<u8>),
    /// Swaps two records.
    SwapRecords(Index, Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<Index>;
    let length = prop_oneof![
        Just(u64::MAX),
        Just(u64::MAX - 11),
        Just(1 << 36),
        Just((1 << 36) + 1),
        Just(u64::from(u32::MAX)),
        0..4096u64,
        any::<u64>(),
    ];
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        5 => ByteMutation::any(length.clone()).prop_map(Mutation::Bytes),
        1 => (index(), any::<bool>(), length).prop_map(|(at, json, length)| Mutation::SetRecordLength(at, json, length)),
        1 => (index(), index(), 0..8u8).prop_map(|(record, at, bit)| Mutation::FlipBitInRecord(record, at, bit)),
        1 => (index(), bytes()).prop_map(|(at, bytes)| Mutation::ReplaceRecord(at, bytes)),
        1 => (index(), index()).prop_map(|(a, b)| Mutation::SwapRecords(a, b)),
    ]
}

/// The magic bytes, and the bodies of the records as far as they are complete.
fn split_records(bytes: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (magic, mut rest) = bytes.split_at(bytes.len().min(8));
    let mut bodies = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<8>() {
        let Some((body, after)) = after.split_at_checked(u64::from_le_bytes(*length) as usize) else { break };
        let Some(after) = after.get(4..) else { break };
        bodies.push(body.to_vec());
        rest = after;
    }
    (magic.to_vec(), bodies)
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let (magic, mut bodies) = split_records(bytes);
    let rebuild = |bodies: &[Vec<u8>]| [magic.clone(), bodies.iter().flat_map(|body| record(body)).collect()].concat();
    match mutation {
        Mutation::Bytes(mutation) => mutation.apply(bytes),
        _ if bodies.is_empty() => {}
        Mutation::SetRecordLength(at, json, length) => {
            let at = at.index(bodies.len());
            let start = 8 + bodies[..at].iter().map(|body| body.len() + 12).sum::<usize>();
            if *json && bodies[at].len() >= 4 {
                bodies[at][..4].copy_from_slice(&length.to_le_bytes()[..4]);
                *bytes = rebuild(&bodies);
            } else {
                bytes[start..start + 8].copy_from_slice(&length.to_le_bytes());
            }
        }
        Mutation::FlipBitInRecord(at, position, bit) => {
            let at = at.index(bodies.len());
            if !bodies[at].is_empty() {
                let position = position.index(bodies[at].len());
                bodies[at][position] ^= 1 << bit;
                *bytes = rebuild(&bodies);
            }
        }
        Mutation::ReplaceRecord(at, body) => {
            let at = at.index(bodies.len());
            bodies[at] = body.clone();
            *bytes = rebuild(&bodies);
        }
        Mutation::SwapRecords(a, b) => {
            let (a, b) = (a.index(bodies.len()), b.index(bodies.len()));
            bodies.swap(a, b);
            *bytes = rebuild(&bodies);
        }
    }
}

/// Opens a mutated journal, reads all its clips and appends one.
fn read_mutated(payload: Payload, clips: &[ClipRows], mutations: &[Mutation]) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.h5");
    let mut journal = Journal::open(&path, payload, &provenance()).unwrap();
    for clip in clips {
        journal.push(clip).unwrap();
    }
    journal
        .push_failure(Failure {
            id: "c".into(),
            stage: "decode".into(),
            error: "no video".into(),
            ..Failure::default()
        })
        .unwrap();
    journal.checkpoint(0.5).unwrap();
    drop(journal);
    let file = Journal::path_for(&path);
    let mut bytes = std::fs::read(&file).unwrap();
    for mutation in mutations {
        mutate(&mut bytes, mutation);
    }
    std::fs::write(&file, bytes).unwrap();
    // Damage is an error or shortens the journal. A journal that opens can be continued.
    if let Ok(mut journal) = Journal::open(&path, payload, &provenance()) {
        for clip in clips {
            if journal.contains(&clip.key()) {
                let _ = journal.read(&clip.key());
            }
        }
        journal.push(&clips[0]).unwrap();
        journal.checkpoint(0.0).unwrap();
        assert_eq!(journal.read(&clips[0].key()).unwrap(), clips[0]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// No mutation of a journal makes the reader panic or lose later records.
    #[test]
    fn mutated_journals_do_not_panic(mutations in prop::collection::vec(mutation(), 1..4), features in any::<bool>()) {
        if features {
            let values = |i| Values::Features(Array2::from_elem((2, 4), i as f32));
            let clips: Vec<ClipRows> = (0..3).map(|i| clip(&i.to_string(), values(i))).collect();
            read_mutated(Payload::Features { dim: 4 }, &clips, &mutations);
        } else {
            let clips: Vec<ClipRows> = (0..3).map(|i| clip(&i.to_string(), descriptors(i, &[2, 0, 3]))).collect();
            read_mutated(Payload::Descriptors { dim: 3 }, &clips, &mutations);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A truncated journal has all clips whose records are complete, and can be continued.
    #[test]
    fn truncation_loses_only_the_last_record(counts in prop::collection::vec(prop::collection::vec(0u32..5, 1..4), 1..6), cut in 0.0..1.0f64) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sift.h5");
        let payload = Payload::Descriptors { dim: 3 };
        let clips: Vec<ClipRows> = counts.iter().enumerate().map(|(i, c)| clip(&i.to_string(), descriptors(i, c))).collect();
        let mut ends = Vec::new();
        let mut journal = Journal::open(&path, payload, &provenance()).unwrap();
        for clip in &clips {
            journal.push(clip).unwrap();
            journal.checkpoint(0.5).unwrap();
            ends.push(std::fs::metadata(Journal::path_for(&path)).unwrap().len());
        }
        drop(journal);
        let size = *ends.last().unwrap();
        let kept = (size as f64 * cut) as u64;
        std::fs::File::options().write(true).open(Journal::path_for(&path)).unwrap().set_len(kept).unwrap();
        let mut journal = Journal::open(&path, payload, &provenance()).unwrap();
        for (clip, end) in clips.iter().zip(&ends) {
            if *end <= kept {
                prop_assert!(journal.contains(&clip.key()));
            }
            if !journal.contains(&clip.key()) {
                journal.push(clip).unwrap();
            }
            prop_assert_eq!(&journal.read(&clip.key()).unwrap(), clip);
        }
    }

    /// After a bit error, the journal returns no clip that differs from the original.
    #[test]
    fn bit_errors_are_detected(at in 8usize..2000, flip in 1u8..) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cnn.h5");
        let payload = Payload::Features { dim: 4 };
        let clips: Vec<ClipRows> = (0..4).map(|i| clip(&i.to_string(), Values::Features(Array2::from_elem((2, 4), i as f32)))).collect();
        let mut journal = Journal::open(&path, payload, &provenance()).unwrap();
        for clip in &clips { journal.push(clip).unwrap(); }
        journal.checkpoint(0.0).unwrap();
        drop(journal);
        let file = Journal::path_for(&path);
        let mut bytes = std::fs::read(&file).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        std::fs::write(&file, bytes).unwrap();
        if let Ok(mut journal) = Journal::open(&path, payload, &provenance()) {
            for clip in &clips {
                if journal.contains(&clip.key()) {
                    prop_assert_eq!(&journal.read(&clip.key()).unwrap(), clip);
                }
            }
        }
    }
}
