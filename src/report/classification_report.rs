//! classification_report.txt: precision, recall, F1 and support of each class, and their averages.

use crate::evaluate::{PrecisionRecallF1, SplitMetrics};

/// Digits after the decimal point.
const DIGITS: usize = 4;

/// Formats the table as `sklearn.metrics.classification_report(digits=4)` does. Classes without clips show n/a if the task
/// excludes them from the averages.
pub fn text(measured: &SplitMetrics) -> String {
    let averages: Vec<(&str, PrecisionRecallF1)> = match measured {
        SplitMetrics::SingleLabel(m) => vec![("macro avg", m.macro_), ("weighted avg", m.weighted)],
        SplitMetrics::MultiLabel(m) => {
            let a = &m.averages;
            vec![
                ("micro avg", a.micro),
                ("macro avg", a.macro_),
                ("weighted avg", a.weighted),
                ("samples avg", a.samples),
            ]
        }
    };
    let classes = measured.classes();
    let support: u64 = classes.iter().map(|class| class.support).sum();
    let longest = classes.iter().map(|class| class.label.chars().count()).max().unwrap_or(0);
    let width = longest.max("weighted avg".len());
    let cell = |value: Option<f64>| value.map_or("n/a".into(), |value| format!("{value:.DIGITS$}"));
    let line = |name: &str, cells: [String; 3], support: &str| {
        let [precision, recall, f1] = cells;
        format!("{name:>width$}  {precision:>9} {recall:>9} {f1:>9} {support:>9}\n")
    };
    let mut text = line("", ["precision", "recall", "f1-score"].map(String::from), "support") + "\n";
    for class in &classes {
        text += &line(class.label, [class.precision, class.recall, class.f1].map(cell), &class.support.to_string());
    }
    text.push('\n');
    if let SplitMetrics::SingleLabel(m) = measured {
        text += &line("accuracy", [String::new(), String::new(), cell(Some(m.accuracy))], &support.to_string());
    }
    for (name, average) in averages {
        let cells = [average.precision, average.recall, average.f1].map(|value| cell(Some(value)));
        text += &line(name, cells, &support.to_string());
    }
    text
}
