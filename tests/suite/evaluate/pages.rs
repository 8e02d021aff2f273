//! report.html of a run and of a comparison: thumbnails, likely label errors, nearest training clips.

use std::fs;
use std::path::Path;

use super::{compare, kinoprobe, stores};
use crate::support::{assert_code, fixture, printed};

/// Gives the clips of [`stores`] media files: a gradient each, a video for one of them; `test01` is broken and `test04` is missing. Ids
/// stay, and one label becomes `a<b>`.
fn add_media(at: &Path) {
    for entry in fs::read_dir(at.join("clips")).unwrap() {
        let path = entry.unwrap().path();
        let number = path.file_stem().unwrap().to_string_lossy().bytes().fold(0, u8::wrapping_add);
        let pixels: Vec<u8> = (0..60 * 200).flat_map(|i| [(i % 200) as u8, (i / 50) as u8, number]).collect();
        fs::write(path.with_extension("ppm"), [b"P6 200 60 255\n", &pixels[..]].concat()).unwrap();
        fs::remove_file(path).unwrap();
    }
    fs::copy(fixture("media/ten.mp4"), at.join("clips/test00.mp4")).unwrap();
    fs::write(at.join("clips/test01.ppm"), "P6 200 60 255\n").unwrap();
    fs::remove_file(at.join("clips/test04.ppm")).unwrap();
    let manifest = fs::read_to_string(at.join("clips.csv")).unwrap();
    let manifest =
        manifest.replace(".mp4", ".ppm").replace("clips/test00.ppm", "clips/test00.mp4").replace(",dog,", ",a<b>,");
    fs::write(at.join("clips.csv"), manifest).unwrap();
}

fn classify(at: &Path, method: &str, out: &str, flags: &[&str]) {
    let store = format!("{method}.h5");
    let recipe = format!("{method}.toml");
    let arguments = ["--features", &store, "--manifest", "clips.csv", "--recipe", &recipe, "--out", out];
    let arguments = [&arguments[..], &["--classifier", "logistic"], flags].concat();
    let output = kinoprobe(env!("CARGO_BIN_EXE_kinoprobe-classify"), at, &arguments);
    assert_code(&output, 0);
    assert!(printed(&output).contains("REPORT.md and report.html"), "{}", printed(&output));
}

fn page(path: &Path) -> String {
    let page = fs::read_to_string(path).unwrap();
    let sources = page.matches("src=").count();
    assert_eq!(page.matches("src=\"data:image/jpeg;base64,").count(), sources, "nothing is loaded");
    for external in ["href=", "url(", "<script", "@import", "a<b>"] {
        assert!(!page.contains(external), "{external}");
    }
    page
}

/// Returns the groups of a section.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page.split(&format!("<h3>{heading}</h3>")).nth(1).unwrap_or_else(|| panic!("no {heading}"));
    start.split("<h3>").next().unwrap().split("<h2>").next().unwrap()
}

#[test]
fn pages_show_the_clips_behind_the_results() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    add_media(at);
    classify(at, "weak", "runs/weak", &[]);
    let weak = page(&at.join("runs/weak/report.html"));
    for part in ["UNTRAINED", "weak · logistic", "a&lt;b&gt;", "Metrics of each class", "<svg", "constant"] {
        assert!(weak.contains(part), "no {part}");
    }
    let uris: Vec<usize> = weak.split("src=\"").skip(1).map(|rest| rest.split('"').next().unwrap().len()).collect();
    assert!(uris.len() > 10 && uris.len() <= 120, "{} thumbnails", uris.len());
    assert!(uris.iter().all(|&length| length < 8000), "{uris:?}");
    assert!(weak.len() < 2 << 20, "{} bytes", weak.len());

    let confusions = section(&weak, "Clips of each confusion, test");
    assert!(confusions.contains("cat → cat: ") && confusions.contains("a&lt;b&gt; → "), "{confusions}");
    for row in confusions.split("class=\"group\"").skip(1) {
        let clips = row.matches("<figure").count();
        let count: usize = row.split(": ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert_eq!(clips, count.min(3), "{row}");
    }
    // Every third clip is a cat: 0, 3, … Their thumbnails are those of the files, and the video has one too.
    let all = section(&weak, "Worst errors and their nearest training clips, test");
    for row in all.split("class=\"group\"").skip(1) {
        assert_eq!(row.matches("<figure").count(), 4, "the error and three neighbors: {row}");
        assert_eq!(row.matches("(cosine ").count(), 3, "{row}");
        assert_eq!(row.matches("title=\"train").count(), 3, "{row}");
    }
    assert_eq!(fs::read_to_string(at.join("runs/weak/REPORT.md")).unwrap().matches("Likely label errors").count(), 2);
    let listed = fs::read_to_string(at.join("runs/weak/label_errors_test.csv")).unwrap();
    assert!(listed.starts_with("clip,given label,suggested label,score of given,score of suggested\ntest"), "{listed}");
    let errors = section(&weak, "Likely label errors, test");
    let first = listed.lines().nth(1).unwrap().split(',').next().unwrap();
    assert!(errors.contains(&format!("<figcaption>{first}<br>")) && errors.contains("rather"), "{errors}");

    // More clips per confusion than there are: every test clip is shown, the broken and the missing one by name.
    classify(at, "strong", "runs/strong", &["--thumbnails", "100"]);
    let strong = page(&at.join("runs/strong/report.html"));
    let confusions = section(&strong, "Clips of each confusion, test");
    assert_eq!(confusions.matches("<figure").count(), 45);
    let missing: Vec<&str> = confusions.split("class=\"missing\"").skip(1).collect();
    assert_eq!(missing.len(), 2, "{confusions}");
    for id in ["test01", "test04"] {
        let placeholder = missing.iter().find(|rest| rest.contains(&format!(">{id}</div>"))).unwrap();
        assert!(placeholder.contains(&format!("clips/{id}.ppm")), "the reason names the file: {placeholder}");
    }
    assert!(confusions.contains("alt=\"test00\""), "the video");

    let output = compare(at, &["runs", "--no-early-fusion", "--thumbnails", "2", "--out", "compare"]);
    assert_code(&output, 0);
    let compared = page(&at.join("compare/report.html"));
    assert!(compared.contains("<h2>Clips of ") && section(&compared, "Clips of each confusion, test").contains("src="));

    // No clip is decoded; the page lists ids.
    classify(at, "weak", "runs/weak", &["--thumbnails", "0"]);
    let weak = page(&at.join("runs/weak/report.html"));
    assert!(!weak.contains("src=") && !weak.contains("Clips of each confusion") && weak.contains("(cosine "));
}

#[test]
fn pages_of_evaluations_and_wrong_flags() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stores(at);
    add_media(at);
    classify(at, "strong", "runs/strong", &["--thumbnails", "0"]);
    let model = ["--model", "runs/strong", "--features", "strong.h5", "--manifest", "clips.csv", "--thumbnails", "1"];
    let evaluated = super::evaluate(at, &[&model[..], &["--out", "evaluated"]].concat());
    assert_code(&evaluated, 0);
    let evaluated = page(&at.join("evaluated/report.html"));
    assert!(
        section(&evaluated, "Clips of each confusion, test").contains("src=")
            && evaluated.contains("<h2>All clips</h2>")
    );
    assert!(!evaluated.contains("Likely label errors, train"), "the model was trained on these clips");

    fs::write(at.join("p.csv"), "id,label,predicted\n1,<i>cat</i>,dog\n2,dog,dog\n3,<i>cat</i>,dog\n").unwrap();
    assert_code(&super::evaluate(at, &["--predictions", "p.csv", "--out", "plain"]), 0);
    let plain = page(&at.join("plain/report.html"));
    assert!(plain.contains("&lt;i&gt;cat&lt;/i&gt;") && !plain.contains("<i>"));
    let flagged = super::evaluate(at, &["--predictions", "p.csv", "--out", "plain", "--thumbnails", "2"]);
    assert_code(&flagged, 1);
    assert!(printed(&flagged).contains("--thumbnails applies to --model"), "{}", printed(&flagged));
}
