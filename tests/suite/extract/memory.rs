//! Memory of extraction from huge images.

use std::fs;
use std::path::Path;
use std::process::Command;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder as _};

use super::Workspace;
use crate::support::{peak_memory, printed, root, run_python};

/// Extracts SIFT descriptors of `clips` clips that are one image, and returns the peak memory in MiB.
fn peak_of_sift(workspace: &Workspace, clips: usize, flags: &[&str]) -> u64 {
    let rows: String = (0..clips).map(|i| format!("{i},image.png,a\n")).collect();
    fs::write(workspace.path("manifest.csv"), format!("id,path,label\n{rows}")).unwrap();
    let (manifest, recipe) = (workspace.path("manifest.csv"), root().join("pipelines/sift.toml"));
    let out = workspace.path(&format!("{clips}.h5"));
    let flag = Path::new;
    let mut arguments = vec![flag("--method"), flag("sift"), flag("--recipe"), &recipe];
    arguments.extend([flag("--manifest"), &manifest, flag("--out"), &out, flag("--quiet")]);
    arguments.extend(flags.iter().map(Path::new));
    peak_memory(env!("CARGO_BIN_EXE_kinoprobe-extract"), &arguments)
}

#[test]
fn huge_images_are_scaled_down_and_share_a_budget() {
    let workspace = Workspace::new(0);
    let (width, height) = (6000, 4000);
    let pixels: Vec<u8> =
        (0..width * height).flat_map(|i| [((i % width / 31 * 37) ^ (i / width / 29 * 61)) as u8; 3]).collect();
    let file = fs::File::create(workspace.path("image.png")).unwrap();
    let encoder = PngEncoder::new_with_quality(file, CompressionType::Fast, FilterType::NoFilter);
    encoder.write_image(&pixels, width as u32, height as u32, ExtendedColorType::Rgb8).unwrap();

    let peak = peak_of_sift(&workspace, 1, &["--workers", "1"]);
    assert!(peak < 700, "{peak} MiB");
    let scales = run_python(
        "import h5py, sys; print(h5py.File(sys.argv[1])['rows/scale'][:].tolist())",
        &[&workspace.path("1.h5")],
    );
    assert_eq!(scales.trim(), "[0.32]");
    let mut inspect = Command::new(env!("CARGO_BIN_EXE_kinoprobe-inspect"));
    let output = inspect.arg(workspace.path("1.h5")).output().unwrap();
    let expected = "rows of frames that were scaled down: 1 of 1, smallest scale 0.320";
    assert!(printed(&output).contains(expected), "{}", printed(&output));
    // One after the other: each needs more than half of the budget.
    let peak = peak_of_sift(&workspace, 4, &["--workers", "4", "--memory", "1G"]);
    assert!(peak < 1000, "{peak} MiB");
    // More than the budget.
    let peak = peak_of_sift(&workspace, 2, &["--workers", "2", "--memory", "1"]);
    assert!(peak < 1000, "{peak} MiB");
}
