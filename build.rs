//! Tells the linker where programs find libtorch at run time, if the feature `train` is enabled.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_TRAIN").is_none() {
        return;
    }
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    // The first path remains correct if the checkout is moved together with its target directory.
    let checkout = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let libtorch = env::var("LIBTORCH").unwrap_or_else(|_| format!("{checkout}/third_party/libtorch"));
    for directory in ["$ORIGIN/../../third_party/libtorch/lib", &format!("{libtorch}/lib")] {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{directory}");
    }
}
