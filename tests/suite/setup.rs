//! The scripts in setup/ that prepare a machine with a GPU, on directories with the files of other machines.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::{assert_code, printed, root};

/// The files of a machine, and stand-ins for the programs that the scripts call.
struct Machine(TempDir);

impl Machine {
    /// A machine with these files. The dynamic linker knows `libcuda.so.1` if it is among them.
    fn new(files: &[(&str, &str)]) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            let path = machine.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let libcuda = files.iter().any(|(path, _)| path.ends_with("libcuda.so.1"));
        let libcuda = if libcuda { "libcuda.so.1 (libc6,x86-64) => /lib/libcuda.so.1" } else { "" };
        // More output than a pipe holds.
        machine.program("ldconfig", &format!("echo '{libcuda}'; yes libc.so.6 | head -20000"));
        machine.program("nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9");
        machine
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.0.path().join("bin").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn command(&self, script: &Path) -> Command {
        let mut command = Command::new(script);
        let path = format!("{}:{}", self.0.path().join("bin").display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("KINOPROBE_TEST_ROOT", self.0.path()).env_remove("LD_LIBRARY_PATH");
        command
    }

    fn check_gpu(&self) -> Output {
        self.command(&root().join("setup/gpu.sh")).arg("cuda").output().unwrap()
    }
}

/// Makes the architecture x86-64, for which libraries are pinned.
fn on_x86_64(machine: Machine) -> Machine {
    machine.program("uname", "echo x86_64");
    machine
}

const OLD: &str = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n";
const NEW: &str =
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder@U22)\n";
const PROC: &str = "proc/driver/nvidia/version";
const LIBCUDA: (&str, &str) = ("usr/lib/libcuda.so.1", "");

#[test]
fn drivers_for_cuda_13_are_accepted() {
    for files in [
        &[("dev/nvidia0", ""), (PROC, NEW), LIBCUDA][..],
        &[("dev/nvidia3", ""), ("sys/module/nvidia/version", "590.44.01\n"), LIBCUDA],
        // The version is unknown.
        &[("dev/nvidia0", ""), LIBCUDA],
    ] {
        let output = on_x86_64(Machine::new(files)).check_gpu();
        assert_code(&output, 0);
        assert_eq!(printed(&output), "");
    }
    let machine = on_x86_64(Machine::new(&[("dev/dxg", ""), LIBCUDA]));
    machine.program("nvidia-smi", "echo 581.15; echo 581.15");
    assert_code(&machine.check_gpu(), 0);
    // A library that only LD_LIBRARY_PATH names.
    let machine = on_x86_64(Machine::new(&[("dev/nvidia0", ""), (PROC, NEW), ("own/libcuda.so.1", "")]));
    machine.program("ldconfig", "echo libc.so.6");
    let mut command = machine.command(&root().join("setup/gpu.sh"));
    let output = command.env("LD_LIBRARY_PATH", format!("/nowhere:{}/own", machine.0.path().display())).output();
    assert_code(&output.unwrap(), 0);
}

#[test]
fn what_is_missing_for_cuda_is_named_with_the_remedy() {
    let vendor = "sys/bus/pci/devices/0000:01:00.0/vendor";
    type Files<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Files, &[&str]); 9] = [
        (&[], &["needs an NVIDIA GPU with its driver, 580 or newer: this machine has none"]),
        (&[(vendor, "0x8086\n")], &["this machine has none"]),
        (&[(vendor, "0x10de\n")], &["has an NVIDIA GPU, but no driver is loaded", "ubuntu-drivers install nvidia:580"]),
        (&[(vendor, "0x10de\n"), ("sys/module/nouveau/initstate", "live")], &["nouveau, which does not support CUDA"]),
        (&[(vendor, "0x10de\n"), (PROC, NEW)], &["driver 580.65.06 is loaded", "no /dev/nvidia0", "--gpus all"]),
        (
            &[("dev/nvidia0", ""), (PROC, OLD), LIBCUDA],
            &["needs the NVIDIA driver 580 or newer, for CUDA 13: this machine has driver 535.183.01; install it"],
        ),
        (&[("dev/nvidia0", ""), ("sys/module/nvidia/version", "570.86.15\n"), LIBCUDA], &["has driver 570.86.15"]),
        (
            &[("dev/nvidia0", ""), (PROC, NEW)],
            &["libcuda.so.1, a library of the NVIDIA driver 580.65.06", "libnvidia-compute-580"],
        ),
        (&[("dev/dxg", ""), LIBCUDA], &["nvidia-smi finds none from WSL"]),
    ];
    for (files, parts) in cases {
        let output = on_x86_64(Machine::new(files)).check_gpu();
        assert_code(&output, 1);
        let message = printed(&output);
        for part in [parts, &["setup: DEVICE=cuda needs ", "; omit DEVICE to use the CPU\n"]].concat() {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let machine = Machine::new(&[("dev/nvidia0", ""), (PROC, NEW), LIBCUDA]);
    machine.program("uname", "echo aarch64");
    let output = machine.check_gpu();
    assert_code(&output, 1);
    let message = printed(&output);
    assert!(message.contains("needs an x86-64 processor: no libraries for CUDA are pinned for aarch64"), "{message}");
}

#[test]
fn cuda_is_downloaded_only_if_the_machine_lacks_it() {
    let machine = on_x86_64(Machine::new(&[("libraries/empty.c", "")]));
    let project = machine.0.path().join("project/setup");
    fs::create_dir_all(&project).unwrap();
    for file in fs::read_dir(root().join("setup")).unwrap().map(|file| file.unwrap()) {
        fs::copy(file.path(), project.join(file.file_name())).unwrap();
    }
    machine.program("python3", "if [ \"$2\" = pip ]; then echo downloads >&2; exit 7; fi; exec \"$PYTHON3\" \"$@\"");
    let python = Command::new("sh").args(["-c", "command -v python3"]).output().unwrap();
    let libraries = machine.0.path().join("libraries");
    let run = || {
        let mut command = machine.command(&project.join("runtime.sh"));
        command.env("PYTHON3", String::from_utf8_lossy(&python.stdout).trim()).env("LD_LIBRARY_PATH", &libraries);
        command.arg("cuda-libraries").output().unwrap()
    };
    let names = ["libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudnn.so.9"];
    for name in names {
        let output = run();
        assert_code(&output, 7);
        assert!(printed(&output).contains("setup: downloading nvidia-cublas=="), "{}", printed(&output));
        let source = libraries.join("empty.c");
        let output = Command::new("cc").args(["-shared", "-o"]).arg(libraries.join(name)).arg(source).output();
        assert_code(&output.unwrap(), 0);
    }
    let output = run();
    assert_code(&output, 0);
    assert_eq!(printed(&output), "");
}
