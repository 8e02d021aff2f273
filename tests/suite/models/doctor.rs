//! `kinoprobe-models doctor`.

use std::path::Path;

use super::*;

fn doctor(arguments: &[&str], environment: &[(&str, &Path)]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kinoprobe-models"));
    for name in ["KINOPROBE_RUNTIME", "KINOPROBE_SIMD", "CUDA_VISIBLE_DEVICES"] {
        command.env_remove(name);
    }
    let output = command.arg("doctor").args(arguments).envs(environment.iter().copied()).output().unwrap();
    (output.status.code(), printed(&output))
}

/// The state and the description of a device.
#[track_caller]
fn state<'a>(text: &'a str, device: &str) -> (&'a str, &'a str) {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{device} ")));
    let line = line.unwrap_or_else(|| panic!("no {device} in {text}")).trim_start();
    line.split_once(' ').map(|(state, text)| (state, text.trim_start())).unwrap()
}

#[test]
fn every_device_of_the_machine_runs_a_network() {
    let (code, text) = doctor(&[], &[]);
    for device in ["native", "cpu", "openvino"] {
        let (state, description) = state(&text, device);
        assert_eq!(state, if device == "openvino" && cfg!(not(target_arch = "x86_64")) { "-" } else { "ok" }, "{text}");
        assert!(state == "-" || description.contains(": load ") && description.contains(" ms, run "), "{text}");
    }
    assert!(state(&text, "native").1.starts_with("native-"), "{text}");
    // Libraries with their versions.
    assert!(text.contains("/libonnxruntime.so.1.31.1 (1.31.1)\n"), "{text}");
    for name in ["system", "processor", "memory", "gpu", "variables"] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{text}");
    }
    if !Path::new("/dev/nvidia0").exists() {
        assert_eq!(code, Some(0), "{text}");
        assert_eq!((state(&text, "cuda").0, state(&text, "tensorrt").0), ("-", "-"), "{text}");
    }
}

#[test]
fn a_requested_device_must_work() {
    if !Path::new("/dev/nvidia0").exists() {
        let (code, text) = doctor(&["--device", "cuda"], &[]);
        assert_eq!((code, state(&text, "cuda").0), (Some(1), "FAILED"), "{text}");
        assert!(text.contains("`make setup DEVICE=cuda` says what is missing"), "{text}");
        assert!(text.ends_with("models: doctor: failed: cuda\n") && !text.contains("\nnative"), "{text}");
    }
    let (code, text) = doctor(&["--device", "native"], &[("KINOPROBE_SIMD", Path::new("avx1024"))]);
    assert_eq!((code, state(&text, "native").0), (Some(1), "FAILED"), "{text}");
    assert!(text.contains("variables  KINOPROBE_SIMD=avx1024"), "{text}");
    assert!(text.contains("KINOPROBE_SIMD=avx1024: unknown instruction set, use one of scalar"), "{text}");
    let (code, text) = doctor(&["--device", "abacus"], &[]);
    assert_eq!(code, Some(2), "{text}");
}

#[test]
fn directories_without_working_libraries_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = [("KINOPROBE_RUNTIME", directory.path())];
    let (code, text) = doctor(&["--device", "native"], &runtime);
    assert_eq!((code, state(&text, "native").0), (Some(1), "ok"), "{text}");
    assert!(text.contains("it has no libonnxruntime.so and no libopenvino_c.so; unset it"), "{text}");
    for name in ["libonnxruntime.so", "libopenvino_c.so"] {
        std::fs::write(directory.path().join(name), "no library").unwrap();
    }
    for (device, name) in [("cpu", "libonnxruntime.so"), ("openvino", "libopenvino_c.so")] {
        let (code, text) = doctor(&["--device", device], &runtime);
        assert_eq!((code, state(&text, device).0), (Some(1), "FAILED"), "{text}");
        assert!(state(&text, device).1.contains(name), "{text}");
    }
    // A library that ends the process is a failure of its device only.
    let source = directory.path().join("crash.c");
    let crash = "#include <stdlib.h>\n__attribute__((constructor)) static void crash(void) { abort(); }\n";
    std::fs::write(&source, crash).unwrap();
    let library = directory.path().join("libonnxruntime.so");
    std::fs::remove_file(directory.path().join("libopenvino_c.so")).unwrap();
    let output = std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).output();
    assert_code(&output.unwrap(), 0);
    let (code, text) = doctor(&[], &runtime);
    assert_eq!((code, state(&text, "native").0), (Some(1), "ok"), "{text}");
    assert_eq!(state(&text, "cpu"), ("FAILED", "its process crashed with SIGABRT"), "{text}");
}
