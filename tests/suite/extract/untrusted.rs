//! Inputs of unknown origin; SECURITY.md lists what kinoprobe guarantees about them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Workspace;
use crate::support::{assert_code, printed, run_python};

/// Prints the names of the members of all archives in a directory, and the ids in their descriptions.
const MEMBERS: &str = "
import json, pathlib, sys, tarfile
for path in sorted(pathlib.Path(sys.argv[1]).glob('*.tar')):
    with tarfile.open(path) as archive:
        for member in archive:
            print(member.name, json.load(archive.extractfile(member))['id'] if member.name.endswith('.json') else '')
";

/// Returns the files below a directory, relative to it, in order.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(next) = directories.pop() {
        for path in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path)
            } else {
                files.push(path.strip_prefix(directory).unwrap().into())
            }
        }
    }
    files.sort();
    files
}

/// Ids are names in tables, never parts of the paths that are written.
#[test]
fn ids_do_not_select_files() {
    let workspace = Workspace::new(1);
    let ids = ["../../escape", "/tmp/kinoprobe-absolute", "..", "a/b"];
    let lines: String = ids.iter().map(|id| format!("{id},video.mp4,a\n")).collect();
    fs::create_dir(workspace.path("work")).unwrap();
    fs::write(workspace.path("manifest.csv"), format!("id,path,label\n{lines}")).unwrap();
    assert_code(&workspace.command("work/tiny.h5").output().unwrap(), 0);
    for format in ["webdataset", "npy", "csv", "parquet"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-inspect"));
        command.arg(workspace.path("work/tiny.h5")).args(["--export", format, "--out"]);
        assert_code(&command.arg(workspace.path("work").join(format)).output().unwrap(), 0);
    }
    let outside = |path: &Path| !path.starts_with("work");
    let files: Vec<_> = files_below(workspace.directory.path()).into_iter().filter(|path| outside(path)).collect();
    assert_eq!(files, [Path::new("manifest.csv"), Path::new("video.mp4")]);
    assert!(!Path::new("/tmp/kinoprobe-absolute").exists());
    let members = run_python(MEMBERS, &[&workspace.path("work/webdataset")]);
    for (index, id) in ids.iter().enumerate() {
        assert!(members.contains(&format!("{index:09}.json {id}\n")), "{members}");
    }
}

/// Playlists and scripts would make other files part of a clip.
#[test]
fn a_clip_cannot_refer_to_other_files() {
    let workspace = Workspace::new(1);
    let video = workspace.path("video.mp4").display().to_string();
    let hls = |file: &str| format!("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2.0,\n{file}\n#EXT-X-ENDLIST\n");
    let session = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n";
    let playlists = [
        ("hls.mp4", hls(&video)),
        ("remote.m3u8", hls("http://127.0.0.1:1/a.ts")),
        ("concat.mp4", "ffconcat version 1.0\nfile video.mp4\n".into()),
        ("absolute.mkv", format!("ffconcat version 1.0\nfile {video}\n")),
        ("session.sdp", session.into()),
    ];
    let mut manifest = String::from("id,path,label\nvideo,video.mp4,a\n");
    for (name, text) in &playlists {
        fs::write(workspace.path(name), text).unwrap();
        manifest += &format!("{name},{name},a\n");
    }
    fs::write(workspace.path("manifest.csv"), manifest).unwrap();
    let output = workspace.command("tiny.h5").output().unwrap();
    assert_code(&output, 3);
    for (name, _) in &playlists {
        assert!(printed(&output).contains(&format!("clip {name} failed")), "{}", printed(&output));
    }
}
