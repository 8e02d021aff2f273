//! Readers return errors and never panic on malformed input.

use proptest::prelude::*;

use super::directory;
use crate::manifest::Manifest;
use crate::manifest::import::{Format, ImportOptions, LabelFilter, import};

/// A change of a byte string. Positions are taken modulo the length.
#[derive(Debug, Clone)]
enum Mutation {
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Replace(usize, u8),
    /// Copies a range to another position.
    Copy(usize, usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    // Bytes that are significant in CSV, JSON, Python lists and UTF-8, and arbitrary ones.
    let byte = || prop_oneof![prop::sample::select(b",;\t|\"'\\\r\n[]{}: 0\xff\xc3\xef\x00".to_vec()), any::<u8>()];
    let position = 0usize..2000;
    prop_oneof![
        (position.clone(), prop::collection::vec(byte(), 1..4)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (position.clone(), 1usize..30).prop_map(|(at, count)| Mutation::Remove(at, count)),
        (position.clone(), byte()).prop_map(|(at, byte)| Mutation::Replace(at, byte)),
        (position.clone(), 1usize..40, position).prop_map(|(from, count, to)| Mutation::Copy(from, count, to)),
    ]
}

fn mutate(text: &str, mutations: &[Mutation]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for mutation in mutations {
        let position = |position: usize| position % (bytes.len() + 1);
        let range = |start: usize, count: usize| start..(start + count).min(bytes.len());
        match mutation {
            Mutation::Insert(at, inserted) => {
                let at = position(*at);
                bytes.splice(at..at, inserted.iter().copied());
            }
            Mutation::Remove(at, count) => {
                let range = range(position(*at), *count);
                bytes.drain(range);
            }
            Mutation::Replace(at, byte) => {
                let at = position(*at);
                if let Some(old) = bytes.get_mut(at) {
                    *old = *byte;
                }
            }
            Mutation::Copy(from, count, to) => {
                let (copied, to) = (bytes[range(position(*from), *count)].to_vec(), position(*to));
                bytes.splice(to..to, copied);
            }
        }
    }
    bytes
}

const MANIFESTS: [(&str, &str); 5] = [
    ("m.csv", "id,path,label,split,group,start,end,year\n1,a.mp4,x,train,g,0.5,2,1997\n2,b.mp4,\"y, z\",val,,,,\n"),
    ("m.csv", "id;path;labels\n1;a.mp4;Drama|War\n2;b.mp4;War\n"),
    ("m.csv", "Id,Category\n1,7\n2,0\na,7\n"),
    ("train.csv", "Id\na\nb.mp4\n"),
    ("m.txt", "# clips\na.mp4\n\nb.mp4\nframes\n"),
];

const LISTS: [(&str, Format, &str); 5] = [
    ("meta/tt1.json", Format::Movienet, r#"{"title": "A (1997)", "year": 1997, "genres": ["Drama", "War"]}"#),
    (
        "train_test_split_dict.json",
        Format::Trailers85,
        "{\"train\": {\"a\": [\"crime\"], \"b\": [\"é\", \"x\"]},\n \"test\": {\"frames\": []}}",
    ),
    ("mtgc.csv", Format::Trailers12k, "id,action,sci-fi,title,split0\na,1,0,A,0\nb,0,1,B,1\n"),
    ("posters.csv", Format::Posters, "Id,Genre,Action,N/A\na,\"['Action', \"\"O'é\\'s\"\"]\",1,0\nb,['N/A'],0,1\n"),
    ("table.csv", Format::Csv, "path,labels,split,year\na.mp4,x|y,train,1997.0\nb.mp4,x,val,\n"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn manifest_readers_do_not_panic(
        (name, text) in prop::sample::select(&MANIFESTS[..]),
        mutations in prop::collection::vec(mutation(), 1..6),
        whole_directory in any::<bool>(),
    ) {
        let directory = directory(&["a.mp4", "b.mp4", "frames/1.png"]);
        let file = directory.path().join(name);
        std::fs::write(&file, mutate(text, &mutations)).unwrap();
        let source = if whole_directory { directory.path() } else { &file };
        if let Ok(manifest) = Manifest::load(source, None) {
            manifest.write_csv(&directory.path().join("written.csv")).unwrap();
        }
    }

    #[test]
    fn import_readers_do_not_panic(
        (name, format, text) in prop::sample::select(&LISTS[..]),
        mutations in prop::collection::vec(mutation(), 1..6),
        all_labels in any::<bool>(),
    ) {
        let directory = directory(&["a.mp4", "b.mp4", "frames/1.png", "tt1.mp4"]);
        super::write(directory.path(), name, mutate(text, &mutations));
        let labels = if all_labels { LabelFilter::All } else { LabelFilter::Only(vec!["Action".into(), "x".into()]) };
        let options = ImportOptions { labels, ..ImportOptions::default() };
        if let Ok(imported) = import(format, directory.path(), &options) {
            imported.summary.to_string();
            imported.write_csv(&directory.path().join("written.csv")).unwrap();
        }
    }

    #[test]
    fn arbitrary_text_does_not_panic(text in "\\PC{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let directory = directory(&["a.mp4"]);
        for content in [text.as_bytes(), &bytes] {
            for name in ["m.csv", "m.txt"] {
                std::fs::write(directory.path().join(name), content).unwrap();
                let _ = Manifest::load(&directory.path().join(name), None);
            }
        }
    }
}
