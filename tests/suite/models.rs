//! Weights of networks: downloads from a local server, conversion, verification, and error messages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use kinoprobe::models::checkpoint::Checkpoint;
use kinoprobe::models::nets::Architecture;
use kinoprobe::models::parameters::{MemoryTensors, ParameterSource};
use kinoprobe::models::seeded::{self, SeededParameters};
use kinoprobe::models::{Card, fetch, onnx};
use safetensors::tensor::{Dtype, TensorView};

use super::support::{assert_code, fixture, printed, root};

#[cfg(feature = "onnx")]
mod doctor;
#[cfg(feature = "onnx")]
mod parity;
mod server;

use server::{Behavior, Server};

/// Runs `kinoprobe-models` on a directory of cards, without the proxy of the environment.
fn models(directory: &Path, arguments: &[&str]) -> Output {
    models_in(directory, arguments, &[])
}

fn models_in(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kinoprobe-models"));
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY", "SSL_CERT_FILE"] {
        command.env_remove(name);
    }
    command.args(arguments).arg("--models").arg(directory).arg("--quiet").envs(environment.iter().copied());
    command.output().unwrap()
}

/// Writes a card whose weights are on a server: a checkpoint if there is an architecture, else an ONNX file.
fn write_card(directory: &Path, name: &str, url: &str, sha256: &str, architecture: Option<&str>) {
    let architecture = architecture.map_or(String::new(), |a| format!("architecture = \"{a}\"\n"));
    let card = std::fs::read_to_string(root().join("models/r2plus1d_18.toml")).unwrap();
    let input = &card[card.find("[input]").unwrap()..];
    let origin = format!("[[origin]]\nkind = \"url\"\nurl = \"{url}\"\nsha256 = \"{sha256}\"\n");
    let seeded = if architecture.is_empty() { "" } else { "[[origin]]\nkind = \"seeded\"\nseed = 3\n" };
    let text = format!("name = \"{name}\"\n{architecture}license = \"MIT\"\n{origin}{seeded}{input}");
    std::fs::write(directory.join(format!("{name}.toml")), text).unwrap();
}

/// Bytes of a fictitious file of weights.
fn content() -> Vec<u8> {
    seeded::integers("content", 0, 200_000).into_iter().map(|u| u as u8).collect()
}

/// Creates a directory with a card `net` whose weights are on a server.
fn directory_and_server(behavior: Behavior) -> (tempfile::TempDir, Server, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let bytes = content();
    let server = Server::start(bytes.clone(), behavior);
    write_card(directory.path(), "net", &server.url("net.onnx"), &fetch::sha256(&bytes), None);
    (directory, server, bytes)
}

fn downloaded(directory: &Path) -> PathBuf {
    directory.join("downloads/net.onnx")
}

#[test]
fn weights_are_fetched_once_and_verified() {
    let (directory, server, bytes) = directory_and_server(Behavior::Plain);
    let output = models(directory.path(), &["fetch", "net"]);
    assert_code(&output, 0);
    assert!(printed(&output).contains(&fetch::sha256(&bytes)), "{}", printed(&output));
    assert_eq!(std::fs::read(downloaded(directory.path())).unwrap(), bytes);
    assert_eq!(std::fs::read_dir(directory.path().join("downloads")).unwrap().count(), 1, "no temporary files remain");

    assert_code(&models(directory.path(), &["fetch", "net"]), 0);
    assert_eq!(server.requests().len(), 1, "existing files are not downloaded again");
    assert_code(&models(directory.path(), &["verify", "net"]), 0);

    std::fs::write(downloaded(directory.path()), b"other content").unwrap();
    for command in ["verify", "fetch"] {
        let output = models(directory.path(), &[command, "net"]);
        assert_code(&output, 1);
        assert!(printed(&output).contains("net.onnx") && printed(&output).contains("SHA-256"), "{}", printed(&output));
    }
    assert_eq!(std::fs::read(downloaded(directory.path())).unwrap(), b"other content", "files are not deleted");
}

/// The cards of a container image are in a directory that cannot be written to.
#[test]
fn downloads_go_to_the_directory_of_the_environment() {
    let (directory, _server, bytes) = directory_and_server(Behavior::Plain);
    let cache = directory.path().join("cache");
    let environment = [("KINOPROBE_CACHE", cache.to_str().unwrap())];
    for command in ["fetch", "verify"] {
        assert_code(&models_in(directory.path(), &[command, "net"], &environment), 0);
    }
    assert_eq!(std::fs::read(downloaded(&cache)).unwrap(), bytes);
    assert!(!directory.path().join("downloads").exists());
    assert_code(&models(directory.path(), &["verify", "net"]), 1);
}

#[test]
fn several_processes_fetch_weights_once() {
    let (directory, server, bytes) = directory_and_server(Behavior::Plain);
    let outputs: Vec<Output> = std::thread::scope(|scope| {
        let start = || scope.spawn(|| models(directory.path(), &["fetch", "net"]));
        let processes: Vec<_> = (0..4).map(|_| start()).collect();
        processes.into_iter().map(|process| process.join().unwrap()).collect()
    });
    outputs.iter().for_each(|output| assert_code(output, 0));
    assert_eq!(server.requests().len(), 1);
    assert_eq!(std::fs::read(downloaded(directory.path())).unwrap(), bytes);
    assert_eq!(std::fs::read_dir(directory.path().join("downloads")).unwrap().count(), 1, "no temporary files remain");
}

#[test]
fn broken_transfers_are_resumed() {
    let (directory, server, bytes) = directory_and_server(Behavior::BreaksOnce);
    assert_code(&models(directory.path(), &["fetch", "net"]), 0);
    assert_eq!(std::fs::read(downloaded(directory.path())).unwrap(), bytes);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[1].contains("range: bytes=") && requests[1].contains("if-range: \"one\""), "{}", requests[1]);
}

#[test]
fn partial_downloads_of_earlier_runs_are_resumed() {
    let (directory, server, bytes) = directory_and_server(Behavior::Plain);
    std::fs::create_dir(directory.path().join("downloads")).unwrap();
    std::fs::write(directory.path().join("downloads/net.onnx.part"), &bytes[..1234]).unwrap();
    std::fs::write(directory.path().join("downloads/net.onnx.part.version"), "\"one\"").unwrap();
    assert_code(&models(directory.path(), &["fetch", "net"]), 0);
    assert!(server.requests()[0].contains("range: bytes=1234-"));
    assert_eq!(std::fs::read(downloaded(directory.path())).unwrap(), bytes);
}

#[test]
fn partial_downloads_of_other_versions_are_discarded() {
    for (behavior, version) in [
        (Behavior::Plain, Some("\"another\"")), // the server sends the full file, because the version differs
        (Behavior::Plain, None),                // the hash of the joined parts differs
        (Behavior::IgnoresRange, Some("\"one\"")),
    ] {
        let (directory, _server, bytes) = directory_and_server(behavior);
        std::fs::create_dir(directory.path().join("downloads")).unwrap();
        std::fs::write(directory.path().join("downloads/net.onnx.part"), [7; 1000]).unwrap();
        if let Some(version) = version {
            std::fs::write(directory.path().join("downloads/net.onnx.part.version"), version).unwrap();
        }
        assert_code(&models(directory.path(), &["fetch", "net"]), 0);
        assert_eq!(std::fs::read(downloaded(directory.path())).unwrap(), bytes, "{behavior:?} {version:?}");
    }
}

#[test]
fn complete_partial_downloads_are_accepted() {
    let (directory, _server, bytes) = directory_and_server(Behavior::Plain);
    std::fs::create_dir(directory.path().join("downloads")).unwrap();
    std::fs::write(directory.path().join("downloads/net.onnx.part"), &bytes).unwrap();
    assert_code(&models(directory.path(), &["fetch", "net"]), 0);
    assert_eq!(std::fs::read(downloaded(directory.path())).unwrap(), bytes);
}

#[test]
fn files_with_a_wrong_hash_are_renamed_and_rejected() {
    let (directory, server, bytes) = directory_and_server(Behavior::Plain);
    write_card(directory.path(), "net", &server.url("net.onnx"), &"0".repeat(64), None);
    let output = models(directory.path(), &["fetch", "net"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("net.onnx.rejected"), "{}", printed(&output));
    assert!(!downloaded(directory.path()).exists());
    assert_eq!(std::fs::read(directory.path().join("downloads/net.onnx.rejected")).unwrap(), bytes);
}

#[test]
fn fetch_errors_name_the_file_and_the_alternatives() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(content(), Behavior::Missing);
    write_card(directory.path(), "net", &server.url("gone.pth"), &"0".repeat(64), Some("r2plus1d_18"));
    write_card(directory.path(), "far", "http://127.0.0.1:1/far.pth", &"0".repeat(64), Some("r2plus1d_18"));
    for (name, file, cause) in [("net", "downloads/gone.pth", "404"), ("far", "downloads/far.pth", "127.0.0.1:1")] {
        let output = models(directory.path(), &["fetch", name]);
        assert_code(&output, 1);
        for word in [file, cause, "--weights seeded"] {
            assert!(printed(&output).contains(word), "{word}: {}", printed(&output));
        }
    }
    let output = models(directory.path(), &["fetch", "net", "--weights", "registry"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("available: published, seeded"), "{}", printed(&output));
    let output = models(directory.path(), &["fetch", "nett"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("known: far, net"), "{}", printed(&output));
}

#[test]
fn proxies_of_the_environment_are_used_except_for_no_proxy_hosts() {
    let (directory, server, bytes) = directory_and_server(Behavior::Plain);
    write_card(directory.path(), "net", "http://weights.invalid/net.onnx", &fetch::sha256(&bytes), None);
    let proxy = server.url("");
    let environment = [("http_proxy", proxy.as_str()), ("no_proxy", "invalid")];
    assert_code(&models_in(directory.path(), &["fetch", "net"], &environment), 1);
    assert!(server.requests().is_empty());
    assert_code(&models_in(directory.path(), &["fetch", "net"], &environment[..1]), 0);
    assert!(server.requests()[0].starts_with("connect weights.invalid:80"), "{:?}", server.requests());
    assert_eq!(std::fs::read(downloaded(directory.path())).unwrap(), bytes);
}

#[test]
fn downloaded_checkpoints_of_both_formats_are_compared_with_the_network() {
    for name in ["plain-zip.pth", "plain-legacy.pth"] {
        let directory = tempfile::tempdir().unwrap();
        let bytes = std::fs::read(fixture("checkpoints").join(name)).unwrap();
        let server = Server::start(bytes.clone(), Behavior::Plain);
        write_card(directory.path(), "net", &server.url(name), &fetch::sha256(&bytes), Some("r2plus1d_18"));
        let output = models(directory.path(), &["fetch", "net"]);
        assert_code(&output, 1);
        for word in [name, "missing: stem.0.weight", "unexpected: bf16", "parameter"] {
            assert!(printed(&output).contains(word), "{word}: {}", printed(&output));
        }
    }
}

/// Name → shape and little-endian bytes.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// Writes the seeded weights of EfficientNet-Lite2 as a checkpoint, after `change`.
fn write_checkpoint(path: &Path, change: impl FnOnce(&mut Tensors)) {
    let card = Card::load(&root().join("models"), "efficientnet_lite2").unwrap();
    let parameters = Architecture::EfficientNetLite2.parameters(&card.input);
    let source = SeededParameters { architecture: Architecture::EfficientNetLite2, seed: 0 };
    let mut tensors: Tensors = parameters
        .into_iter()
        .map(|p| {
            let bytes = source.values(&p).into_iter().flat_map(f32::to_le_bytes).collect();
            (p.name, (p.shape, bytes))
        })
        .collect();
    change(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// The bytes of the network's ONNX file with seeded weights.
fn write_seeded(card: &Card, architecture: Architecture) -> Vec<u8> {
    onnx::write(card, architecture, &SeededParameters { architecture, seed: 0 }).unwrap()
}

#[test]
fn checkpoints_convert_to_the_same_bytes_as_the_weights_in_them() {
    let directory = tempfile::tempdir().unwrap();
    let (checkpoint, out) = (directory.path().join("net.safetensors"), directory.path().join("net.onnx"));
    // The classifier, batch counters and the prefix of a wrapper are ignored.
    write_checkpoint(&checkpoint, |tensors| {
        tensors.insert("_fc.weight".into(), (vec![2, 1280], vec![0; 2 * 1280 * 4]));
        tensors.insert("_bn0.num_batches_tracked".into(), (vec![], vec![0; 4]));
        *tensors = std::mem::take(tensors).into_iter().map(|(name, t)| (format!("module.{name}"), t)).collect();
    });
    let paths = [checkpoint.to_str().unwrap(), out.to_str().unwrap()];
    let output =
        models(&root().join("models"), &["convert", paths[0], "--card", "efficientnet_lite2", "--out", paths[1]]);
    assert_code(&output, 0);
    let card = Card::load(&root().join("models"), "efficientnet_lite2").unwrap();
    let seeded = write_seeded(&card, Architecture::EfficientNetLite2);
    assert!(std::fs::read(&out).unwrap() == seeded);
    // A module of a larger model.
    write_checkpoint(&checkpoint, |tensors| {
        *tensors = std::mem::take(tensors).into_iter().map(|(name, t)| (format!("model.backbone.{name}"), t)).collect();
        tensors.insert("model.head.weight".into(), (vec![2, 1280], vec![0; 2 * 1280 * 4]));
    });
    std::fs::remove_file(&out).unwrap();
    assert_code(
        &models(&root().join("models"), &["convert", paths[0], "--card", "efficientnet_lite2", "--out", paths[1]]),
        0,
    );
    assert!(std::fs::read(&out).unwrap() == seeded);
}

#[test]
fn tensors_in_memory_export_to_the_same_bytes_as_the_checkpoint() {
    let architecture = Architecture::EfficientNetLite2;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("net.safetensors");
    write_checkpoint(&path, |_| {});
    let checkpoint = Checkpoint::open(&path).unwrap();
    let card = Card::load(&root().join("models"), architecture.name()).unwrap();
    let mut tensors = MemoryTensors::default();
    for parameter in architecture.parameters(&card.input) {
        tensors.insert(&parameter.name, &parameter.shape, checkpoint.read(&parameter).unwrap()).unwrap();
    }
    let from_file = onnx::write(&card, architecture, &checkpoint).unwrap();
    assert!(onnx::write(&card, architecture, &tensors).unwrap() == from_file);

    tensors.insert("_bn0.weight", &[2], vec![1.0; 2]).unwrap();
    let error = onnx::write(&card, architecture, &tensors).unwrap_err().to_string();
    assert!(error.contains("wrong shape: _bn0.weight is [2], expected [32]"), "{error}");
    assert!(tensors.insert("_bn0.weight", &[3], vec![1.0; 2]).is_err());
}

#[test]
fn missing_unexpected_and_misshapen_tensors_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let (checkpoint, out) = (directory.path().join("net.safetensors"), directory.path().join("net.onnx"));
    type Change = fn(&mut Tensors);
    let cases: [(Change, &str); 3] = [
        (|t| drop(t.remove("_blocks.4._bn1.running_var")), "missing: _blocks.4._bn1.running_var"),
        (|t| drop(t.insert("_blocks.99.weight".into(), (vec![1], vec![0; 4]))), "unexpected: _blocks.99.weight"),
        (
            |t| t.get_mut("_conv_head.weight").unwrap().0 = vec![352, 1280, 1, 1],
            "wrong shape: _conv_head.weight is [352, 1280, 1, 1], expected [1280, 352, 1, 1]",
        ),
    ];
    for (change, message) in cases {
        write_checkpoint(&checkpoint, change);
        let paths = [checkpoint.to_str().unwrap(), out.to_str().unwrap()];
        let arguments = ["convert", paths[0], "--card", "efficientnet_lite2", "--out", paths[1]];
        let output = models(&root().join("models"), &arguments);
        assert_code(&output, 1);
        assert!(printed(&output).contains(message), "{}", printed(&output));
        assert!(!out.exists());
    }
}

#[test]
fn seeded_weights_are_prepared_labeled_and_verified() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(root().join("models/efficientnet_lite2.toml"), directory.path().join("efficientnet_lite2.toml"))
        .unwrap();
    let output = models(directory.path(), &["verify", "efficientnet_lite2"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("kinoprobe-models fetch"), "{}", printed(&output));
    let output = models(directory.path(), &["fetch", "efficientnet_lite2", "--weights", "seeded"]);
    assert_code(&output, 0);
    assert!(printed(&output).contains("UNTRAINED"), "{}", printed(&output));
    let table = printed(&models(directory.path(), &["list"]));
    assert!(table.contains("registry, seeded") && table.contains("seeded (ONNX)"), "{table}");
    assert_code(&models(directory.path(), &["verify", "efficientnet_lite2"]), 0);

    let onnx = directory.path().join("efficientnet_lite2-seeded-0-v2.onnx");
    let mut bytes = std::fs::read(&onnx).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&onnx, bytes).unwrap();
    let output = models(directory.path(), &["verify", "efficientnet_lite2"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("FAILED") && printed(&output).contains("seeded-0"), "{}", printed(&output));
}

#[test]
fn custom_onnx_files_need_only_a_card() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("mine.onnx"), b"any network").unwrap();
    let card = "name = \"mine\"\nlicense = \"MIT\"\n[[origin]]\nkind = \"file\"\npath = \"mine.onnx\"\n\
        [input]\nname = \"pixels\"\nlayout = \"frames\"\nsize = [64, 64]\nresize = { size = [64, 64] }\n\
        interpolation = \"bilinear\"\nantialias = false\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n\
        [output]\nname = \"features\"\ndim = 10\n";
    std::fs::write(directory.path().join("mine.toml"), card).unwrap();
    let output = models(directory.path(), &["fetch", "mine"]);
    assert_code(&output, 0);
    assert!(printed(&output).contains(&fetch::sha256(b"any network")), "{}", printed(&output));

    for (from, to, word) in [
        ("antialias", "antialiass", "antialiass"),
        ("std = [1, 1, 1]", "std = [1, 0, 1]", "positive"),
        ("size = [64, 64]\nresize", "size = [65, 64]\nresize", "smaller than the crop"),
        ("name = \"mine\"", "name = \"yours\"", "yours"),
        ("kind = \"file\"\npath = \"mine.onnx\"", "kind = \"seeded\"\nseed = 1", "architecture"),
    ] {
        std::fs::write(directory.path().join("mine.toml"), card.replacen(from, to, 1)).unwrap();
        let output = models(directory.path(), &["fetch", "mine"]);
        assert_code(&output, 1);
        assert!(printed(&output).contains(word) && printed(&output).contains("mine.toml"), "{}", printed(&output));
    }
}

#[test]
fn every_architecture_has_a_card_with_trained_and_seeded_weights() {
    let directory = root().join("models");
    let cards: Vec<Card> =
        Card::names(&directory).unwrap().iter().map(|n| Card::load(&directory, n).unwrap()).collect();
    for architecture in Architecture::ALL {
        let card = cards.iter().find(|c| c.architecture == Some(architecture));
        let card = card.unwrap_or_else(|| panic!("{} has no card", architecture.name()));
        assert_eq!(card.output.dim, architecture.dim());
        // The small network has no published weights: it is trained from scratch.
        let trained = architecture != Architecture::R2Plus1DTiny;
        assert!(card.seed().is_some() && (card.origins.len() > 1) == trained, "{}", card.name);
        let parameters = architecture.parameters(&card.input);
        let names: std::collections::BTreeSet<_> = parameters.iter().map(|p| &p.name).collect();
        assert_eq!(names.len(), parameters.len(), "{}: duplicate parameter", card.name);
        assert!(parameters.iter().all(|p| !architecture.is_unused(&p.name)), "{}", card.name);
    }
}

#[test]
fn seeded_networks_are_bit_identical_on_every_machine() {
    let text = std::fs::read_to_string(fixture("networks/seeded.json")).unwrap();
    let expected: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
    for architecture in Architecture::ALL {
        let card = Card::load(&root().join("models"), architecture.name()).unwrap();
        let bytes = write_seeded(&card, architecture);
        assert_eq!(expected.get(&card.name), Some(&fetch::sha256(&bytes)), "{}", card.name);
    }
}

/// Splits a row of a table into its cells.
#[cfg(feature = "onnx")]
fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[cfg(feature = "onnx")]
#[test]
fn profiles_list_the_layers_and_the_worst_ones() {
    let directory = tempfile::tempdir().unwrap();
    for card in ["r2plus1d_tiny.toml", "transnet_v2.toml"] {
        std::fs::copy(root().join("models").join(card), directory.path().join(card)).unwrap();
    }
    let scalar = [("KINOPROBE_SIMD", "scalar")];
    let arguments = ["profile", "r2plus1d_tiny", "--weights", "seeded", "--runs", "1"];
    let output = models_in(directory.path(), &arguments, &scalar);
    assert_code(&output, 0);
    let text = String::from_utf8(output.stdout).unwrap();
    let sections: Vec<Vec<&str>> = text.split("\n\n").map(|section| section.lines().collect()).collect();
    let [head, layers, total, title, worst] = &sections[..] else { panic!("{text}") };
    assert!(head[0].starts_with("r2plus1d_tiny in f32 on native-scalar, threads: 1, runs: 1, peak: "), "{text}");
    assert_eq!(cells(layers[0]), ["KERNEL", "NODE", "OUTPUT", "TIME ms", "SHARE", "GFLOP/s", "PEAK"]);
    let rows: Vec<Vec<&str>> = layers[2..].iter().map(|line| cells(line)).collect();
    assert_eq!(rows[0][..3], ["to channels last", "input", "8x48x48x3"]);
    assert_eq!(rows[1][..3], ["im2col 7x7 stride 2, relu", "v1", "8x24x24x11"]);
    assert_eq!(rows.last().unwrap()[..3], ["global average pool", "embedding.pooled", "128"]);
    // Layers without multiply-accumulates have a time, but no throughput.
    assert!(rows.iter().all(|row| (row[5] == "–") == (row[6] == "–")) && rows[0][5] == "–" && rows[1][5] != "–");
    let shares = rows.iter().map(|row| row[4].strip_suffix(" %").unwrap().parse::<f64>().unwrap());
    // Rounded to 0.1 %.
    assert!((shares.sum::<f64>() - 100.0).abs() <= 0.05 * rows.len() as f64, "{text}");
    assert!(total[0].starts_with("total ") && total[0].contains("ms, 0.237 GFLOP, "), "{text}");
    assert_eq!(title, &["Most time lost against the peak:"]);
    let lost: Vec<f64> = worst[2..].iter().map(|line| cells(line)[2].parse().unwrap()).collect();
    assert!(lost.len() == 3 && lost.is_sorted_by(|a, b| a >= b), "{text}");
    for line in &worst[2..] {
        assert!(rows.iter().any(|row| row[..2] == cells(line)[..2]), "{line}: {text}");
    }

    for (name, words) in [
        ("r2plus1d", ["no such model card", "known: r2plus1d_tiny, transnet_v2"]),
        ("transnet_v2", ["device native cannot run", "only networks on this device can be profiled"]),
    ] {
        let output = models_in(directory.path(), &["profile", name, "--weights", "seeded"], &scalar);
        assert_code(&output, 1);
        assert!(words.iter().all(|word| printed(&output).contains(word)), "{}", printed(&output));
    }
    for (flag, value) in [("--runs", "0"), ("--threads", "0"), ("--device", "cuda")] {
        assert_code(&models(directory.path(), &["profile", "r2plus1d_tiny", flag, value]), 2);
    }
}
