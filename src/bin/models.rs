//! kinoprobe-models
use kinoprobe::models::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let card = Card::load(std::path::Path::new("models"), &a[1]).unwrap();
    let t = std::time::Instant::now();
    let arch = card.architecture.unwrap();
    let bytes = if a[2] == "seeded" {
        onnx::write(&card, arch, onnx::Weights::Seeded(0)).unwrap()
    } else {
        let c = checkpoint::Checkpoint::open(std::path::Path::new(&a[2])).unwrap();
        onnx::write(&card, arch, onnx::Weights::Checkpoint(&c)).unwrap()
    };
    std::fs::write(&a[3], bytes).unwrap();
    eprintln!("{:?}", t.elapsed());
}
