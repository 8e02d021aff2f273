//! Clips on web servers, in object stores and in tar archives.

mod server;

use std::fs;
use std::process::{Command, Output, Stdio};

use super::Workspace;
use crate::support::{assert_code, fixture, printed, run_python, send_signal};
use server::{ACCESS_KEY, SECRET_KEY, Server};

/// Prints the version and a hash of the rows of each clip, and the failures.
const CLIPS: &str = "
import h5py, sys, hashlib
with h5py.File(sys.argv[1]) as store:
    clips, rows = store['clips'], store['features'][:]
    versions = clips['version'].asstr()[:] if 'version' in clips else [''] * len(clips['id'])
    for id, path, offset, length, version in zip(clips['id'].asstr()[:], clips['path'].asstr()[:], clips['offset'], clips['length'], versions):
        print(id, path, hashlib.sha256(rows[offset:offset + length].tobytes()).hexdigest()[:16], version)
    for id, error in zip(store['failures/id'].asstr()[:], store['failures/error'].asstr()[:]):
        print('failed', id, error)
";

/// A workspace whose clips are listed as id and path, after a local clip, with a cache of its own.
fn workspace(clips: &[(&str, String)]) -> Workspace {
    let workspace = Workspace::new(0);
    let rows: String = clips.iter().map(|(id, path)| format!("{id},{path},a\n")).collect();
    fs::write(workspace.path("manifest.csv"), format!("id,path,label\nlocal,video.mp4,a\n{rows}")).unwrap();
    workspace
}

fn command(workspace: &Workspace, out: &str) -> Command {
    let mut command = workspace.command(out);
    command.env("KINOPROBE_REMOTE_CACHE", workspace.path("cache")).env("KINOPROBE_REMOTE_RETRIES", "3");
    // Tests never leave this machine.
    for variable in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(variable);
    }
    command
}

fn extract(workspace: &Workspace, out: &str) -> Output {
    command(workspace, out).output().unwrap()
}

/// Returns the lines of [`CLIPS`] after that of the local clip.
fn clips(workspace: &Workspace, out: &str) -> Vec<String> {
    run_python(CLIPS, &[&workspace.path(out)]).lines().skip(1).map(str::to_owned).collect()
}

/// Returns the hash of the rows of the test video.
fn expected_rows() -> String {
    let local = workspace(&[("same", "video.mp4".into())]);
    assert_code(&extract(&local, "tiny.h5"), 0);
    let lines = clips(&local, "tiny.h5");
    assert!(lines[0].starts_with("same video.mp4 "), "a store of local files has no versions: {lines:?}");
    lines[0].split(' ').nth(2).unwrap().to_owned()
}

/// Returns a tar archive.
fn archive(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn video() -> Vec<u8> {
    fs::read(fixture("media/plain.mp4")).unwrap()
}

#[test]
fn faults_of_servers_fail_at_most_their_clips() {
    let server = Server::start([("video.mp4", video()), ("empty.mp4", vec![]), ("text.mp4", b"no video".repeat(9))]);
    let faults = ["plain", "whole", "reset", "broken", "busy", "unversioned", "private"];
    let signed = |fault: &&str| if **fault == *"private" { "?id=7&sig=s3cr3t" } else { "" };
    let mut listed: Vec<(&str, String)> =
        faults.iter().map(|fault| (*fault, server.url(&format!("{fault}/video.mp4{}", signed(fault))))).collect();
    let failures = [
        ("missing", "plain/none.mp4", "no such file on the server"),
        ("empty", "plain/empty.mp4", "the file is empty"),
        ("text", "plain/text.mp4", "no video stream that can be decoded"),
        ("down", "down/video.mp4", "500 Internal Server Error: internal error"),
        ("denied", "denied/video.mp4?token=s3cr3t", "the server denies access: check the credentials"),
        ("short", "short/video.mp4", ""),
    ];
    listed.extend(failures.iter().map(|(id, path, _)| (*id, server.url(path))));
    // No server listens on port 1.
    listed.push(("refused", "http://127.0.0.1:1/video.mp4?key=s3cr3t".into()));
    let workspace = workspace(&listed);
    let output = extract(&workspace, "tiny.h5");
    assert_code(&output, 3);
    let rows = expected_rows();
    let lines = clips(&workspace, "tiny.h5");
    for fault in faults {
        let line = lines.iter().find(|line| line.starts_with(&format!("{fault} "))).expect(fault);
        assert!(line.contains(&rows), "{line}");
        let version = line.rsplit(' ').next().unwrap();
        match fault {
            "whole" => assert_eq!(version.len(), "sha256:".len() + 64, "{line}"),
            "broken" | "unversioned" => assert_eq!(version, "", "{line}"),
            _ => assert!(version.starts_with('"') && version.len() == 10, "{line}"),
        }
    }
    for (id, path, message) in failures {
        let line = lines.iter().find(|line| line.starts_with(&format!("failed {id} "))).expect(id);
        let url = server.url(path.split('?').next().unwrap());
        assert!(line.contains(&format!("{url}: ")) && line.contains(message), "{line}");
    }
    assert!(lines.iter().any(|line| line.starts_with("failed refused ") && line.contains("refused")), "{lines:?}");
    assert_eq!(lines.len(), faults.len() + failures.len() + 1);
    // Signatures are neither stored nor printed.
    let text = format!("{}{}", lines.concat(), printed(&output));
    assert!(!text.contains("s3cr3t") && text.contains("private/video.mp4?id=7"), "{text}");
    let bytes = fs::read(workspace.path("tiny.h5")).unwrap();
    assert!(!bytes.windows(6).any(|part| part == b"s3cr3t"));
}

/// libav reads lists of other files, such as playlists. A server must not make it read local files or other servers.
#[test]
fn remote_files_cannot_refer_to_other_files() {
    let local = fixture("media/plain.mp4").display().to_string();
    let other = Server::start([("video.mp4", video())]);
    let url = other.url("plain/video.mp4");
    let playlist = |target: &str| format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n");
    let concat = |target: &str| format!("ffconcat version 1.0\nfile '{target}'\n");
    let server = Server::start([
        ("local.m3u8", playlist(&format!("file://{local}")).into_bytes()),
        ("remote.m3u8", playlist(&url).into_bytes()),
        ("local.ffconcat", concat(&local).into_bytes()),
        ("remote.ffconcat", concat(&url).into_bytes()),
    ]);
    let names = ["local.m3u8", "remote.m3u8", "local.ffconcat", "remote.ffconcat"];
    let listed: Vec<(&str, String)> = names.iter().map(|name| (*name, server.url(&format!("plain/{name}")))).collect();
    let workspace = workspace(&listed);
    extract(&workspace, "tiny.h5");
    let lines = clips(&workspace, "tiny.h5");
    assert_eq!(lines.iter().filter(|line| line.starts_with("failed ")).count(), names.len(), "{lines:?}");
    assert_eq!(other.requests("").len(), 0);
}

#[test]
fn files_that_change_are_not_mixed() {
    let server = Server::start([("long.tar", archive(&[("zeros", vec![0; 1 << 20]), ("video.mp4", video())]))]);
    let workspace = workspace(&[("changing", server.url("changing/long.tar/video.mp4"))]);
    assert_code(&extract(&workspace, "tiny.h5"), 3);
    let lines = clips(&workspace, "tiny.h5");
    assert!(lines[0].ends_with("long.tar: the file changed while it was being read: run again"), "{lines:?}");
}

#[test]
fn blocks_are_read_once_and_the_cache_is_bounded() {
    let server = Server::start([("video.mp4", video())]);
    let workspace = workspace(&[("one", server.url("plain/video.mp4"))]);
    assert_code(&extract(&workspace, "a.h5"), 0);
    let sent = |from: usize| server.requests("video")[from..].iter().map(|request| request.sent).sum::<usize>();
    let (requests, bytes) = (server.requests("video").len(), sent(0));
    assert!(bytes <= video().len() + (256 << 10), "{bytes} of {}", video().len());
    // Another program reads the rest from the cache: only the version is asked for.
    assert_code(&extract(&workspace, "b.h5"), 0);
    assert_eq!(server.requests("video").len(), requests + 1);
    assert_eq!(clips(&workspace, "a.h5"), clips(&workspace, "b.h5"));
    // A file that does not fit, of a server that sends whole files only.
    let large = self::workspace(&[("one", server.url("whole/video.mp4"))]);
    let output = command(&large, "a.h5").env("KINOPROBE_REMOTE_CACHE_GB", "0.000001").output().unwrap();
    assert_code(&output, 3);
    let text = clips(&large, "a.h5").concat();
    assert!(text.contains("does not send parts") && text.contains("KINOPROBE_REMOTE_CACHE_GB"), "{text}");
    assert_eq!(fs::read_dir(large.path("cache")).unwrap().count(), 0);
    let output = command(&large, "b.h5").env("KINOPROBE_REMOTE_CACHE_GB", "many").output().unwrap();
    assert_code(&output, 1);
    assert!(!large.path("b.h5").exists());
    assert!(printed(&output).contains("KINOPROBE_REMOTE_CACHE_GB must be a number >= 0, not `many`"));
}

#[test]
fn a_request_without_answer_is_interrupted() {
    let server = Server::start([("video.mp4", video())]);
    let workspace = workspace(&[("one", server.url("hang/video.mp4"))]);
    let process = command(&workspace, "tiny.h5").stderr(Stdio::piped()).spawn().unwrap();
    while server.requests("hang").is_empty() {
        std::thread::yield_now();
    }
    send_signal(&process, "-INT");
    assert_code(&process.wait_with_output().unwrap(), 130);
    // The clip was not recorded as failed: the next run extracts it.
    assert_code(&extract(&workspace, "tiny.h5"), 0);
    assert!(clips(&workspace, "tiny.h5")[0].contains(&expected_rows()));
}

#[test]
fn objects_are_read_with_signed_requests() {
    let server = Server::start([("a dir/video+1.mp4", video()), ("a%20dir/video%2B1.mp4", video())]);
    let workspace = workspace(&[("one", "s3://bucket/a dir/video+1.mp4".into())]);
    let with_keys = |key: &str, out: &str| {
        let mut command = command(&workspace, out);
        command.env("AWS_ENDPOINT_URL", server.url("").trim_end_matches('/')).env("AWS_ALLOW_HTTP", "true");
        command.env("AWS_REGION", "eu-central-1").env("AWS_ACCESS_KEY_ID", ACCESS_KEY);
        command.env("AWS_SECRET_ACCESS_KEY", key).output().unwrap()
    };
    assert_code(&with_keys(SECRET_KEY, "a.h5"), 0);
    let lines = clips(&workspace, "a.h5");
    assert!(
        lines[0].contains(&expected_rows()) && lines[0].starts_with("one s3://bucket/a dir/video+1.mp4 "),
        "{lines:?}"
    );
    let output = with_keys("another-secret", "b.h5");
    assert_code(&output, 3);
    let text = format!("{}{}", clips(&workspace, "b.h5").concat(), printed(&output));
    assert!(text.contains("s3://bucket/a dir/video+1.mp4: the server denies access"), "{text}");
    assert!(!text.contains("another-secret"), "{text}");
}

#[test]
fn files_in_archives_are_read_in_place() {
    let long = format!("{}/video.mp4", "directory/".repeat(20));
    let archive = archive(&[("one.mp4", video()), ("one.cls", b"3".to_vec()), (&long, video()), ("none.mp4", vec![])]);
    let server = Server::start([("shard.tar", archive.clone())]);
    // The server sees only the archive.
    let remote = server.url("plain/shard.tar/one.mp4");
    let workspace = workspace(&[
        ("here", "shard.tar/one.mp4".into()),
        ("deep", format!("shard.tar/{long}")),
        ("remote", remote),
        ("absent", "shard.tar/two.mp4".into()),
        ("empty", "shard.tar/none.mp4".into()),
        ("text", "shard.tar/one.cls".into()),
        ("cut", "cut.tar/one.mp4".into()),
        ("packed", "packed.tar/one.mp4".into()),
    ]);
    fs::write(workspace.path("shard.tar"), &archive).unwrap();
    fs::write(workspace.path("cut.tar"), &archive[..archive.len() / 3]).unwrap();
    fs::write(workspace.path("packed.tar"), b"\x1f\x8b\x08\x00").unwrap();
    assert_code(&extract(&workspace, "tiny.h5"), 3);
    let (rows, lines) = (expected_rows(), clips(&workspace, "tiny.h5"));
    assert!(lines[..3].iter().all(|line| line.contains(&rows)), "{lines:?}");
    let failures = lines[3..].join("\n");
    for message in [
        "two.mp4: the archive",
        "has no such file",
        "none.mp4: the file is empty",
        "one.cls: no video stream",
        "cut.tar: the archive is truncated",
        "packed.tar: the archive is compressed: decompress it with gunzip",
    ] {
        assert!(failures.contains(message), "{message}: {failures}");
    }
}

#[test]
fn archives_are_manifests() {
    let workspace = workspace(&[]);
    let shard = archive(&[
        ("a.mp4", video()),
        ("a.cls", b"0".to_vec()),
        ("b.mp4", video()),
        ("b.cls", b"1".to_vec()),
        ("c.mp4", b"damaged".to_vec()),
        ("c.cls", b"1".to_vec()),
    ]);
    fs::create_dir(workspace.path("shards")).unwrap();
    for name in ["train-0.tar", "val-0.tar"] {
        fs::write(workspace.path("shards").join(name), &shard).unwrap();
    }
    // The manifest of the workspace is replaced by the directory.
    fs::remove_file(workspace.path("manifest.csv")).unwrap();
    std::os::unix::fs::symlink(workspace.path("shards"), workspace.path("manifest.csv")).unwrap();
    assert_code(&extract(&workspace, "tiny.h5"), 3);
    let (rows, lines) = (expected_rows(), run_python(CLIPS, &[&workspace.path("tiny.h5")]));
    for (line, id) in lines.lines().zip(["train-0.tar/a", "train-0.tar/b", "val-0.tar/a", "val-0.tar/b"]) {
        assert!(line.starts_with(&format!("{id} {id}.mp4 {rows}")), "{lines}");
    }
    assert!(lines.contains("failed train-0.tar/c") && lines.contains("failed val-0.tar/c"), "{lines}");
    let mut classify = Command::new(env!("CARGO_BIN_EXE_kinoprobe-classify"));
    classify.args(["--classifier", "logistic", "--features"]).arg(workspace.path("tiny.h5"));
    let output = classify
        .arg("--manifest")
        .arg(workspace.path("shards"))
        .arg("--out")
        .arg(workspace.path("run"))
        .output()
        .unwrap();
    assert_code(&output, 0);
    let predictions = fs::read_to_string(workspace.path("run/predictions.csv")).unwrap();
    assert!(predictions.contains("val-0.tar/a,val,0,") && predictions.contains("val-0.tar/b,val,1,"), "{predictions}");
}

#[test]
fn urls_that_cannot_be_read_are_refused_with_their_lines() {
    let workspace = workspace(&[
        ("a", "ftp://host/a.mp4".into()),
        ("b", "https://user:s3cr3t@host/b.mp4".into()),
        ("c", "gs://bucket".into()),
    ]);
    let output = extract(&workspace, "tiny.h5");
    assert_code(&output, 1);
    let text = printed(&output);
    for message in [
        "line 3: URLs with ftp:// cannot be read; expected http, https, s3, gs, az",
        "line 4: a URL must not contain a user name or password",
        "line 5: gs://bucket does not name a file",
    ] {
        assert!(text.contains(message), "{message}: {text}");
    }
    assert!(!text.contains("s3cr3t"), "{text}");
}
