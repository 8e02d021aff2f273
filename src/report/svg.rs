//! A minimal SVG writer for the plots.
//!
//! Plots are embedded in Markdown and HTML: CSS classes adapt them to light and dark color schemes, and they reference no fonts or
//! other external resources.

use std::fmt::Write;

/// Colors that color-blind readers can distinguish, on light and dark backgrounds.
///
/// Source: Okabe, Ito, "Color Universal Design" (2008), without black and yellow, which lack contrast on one of the
/// backgrounds.
pub const PALETTE: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c"];

/// Eleven evenly spaced stops of matplotlib's viridis.
const VIRIDIS: [[u8; 3]; 11] = [
    [68, 1, 84],
    [72, 36, 117],
    [65, 68, 135],
    [53, 95, 141],
    [42, 120, 142],
    [33, 145, 140],
    [34, 168, 132],
    [68, 191, 112],
    [122, 209, 81],
    [189, 223, 38],
    [253, 231, 37],
];

/// CSS classes: `.paper` background, `.ink` text, `.rule` lines, `.grid` grid lines, `.dim` secondary text.
const STYLE: &str = "<style>\
.kp text{font-family:system-ui,'DejaVu Sans',sans-serif}\
.kp .paper{fill:#ffffff}.kp .ink{fill:#1f2328}.kp .dim{fill:#5a6370}\
.kp .rule{stroke:#1f2328;fill:none}.kp .grid{stroke:#d5dae0;fill:none}\
@media (prefers-color-scheme:dark){\
.kp .paper{fill:#15191e}.kp .ink{fill:#e6e9ed}.kp .dim{fill:#9aa5b1}.kp .rule{stroke:#e6e9ed}.kp .grid{stroke:#343c46}}\
</style>";

/// Returns the viridis color of a value in [0, 1] and a text color with sufficient contrast.
pub fn viridis(value: f64) -> (String, &'static str) {
    let position = value.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
    let (low, high) = (VIRIDIS[position.floor() as usize], VIRIDIS[position.ceil() as usize]);
    let mix =
        |i: usize| (f64::from(low[i]) + (f64::from(high[i]) - f64::from(low[i])) * position.fract()).round() as u8;
    (format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2)), if value > 0.6 { "#10151a" } else { "#ffffff" })
}

/// Escapes text for XML content and attribute values; characters that XML forbids become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if (c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}');
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// Truncates text to at most `limit` characters, with an ellipsis.
pub fn truncate(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_string();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

/// Returns an upper bound of the width of text in pixels.
pub fn text_width(text: &str, size: f64) -> f64 {
    text.chars().map(|c| if c as u32 >= 0x1100 { 1.05 } else { 0.62 }).sum::<f64>() * size
}

/// Horizontal alignment of text relative to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Starts at the point.
    Start,
    /// Centered at the point.
    Middle,
    /// Ends at the point.
    End,
}

/// An SVG document under construction. Units are pixels; the origin is at the top left.
#[derive(Debug)]
pub struct Drawing {
    body: String,
    width: f64,
    height: f64,
    title: String,
}

impl Drawing {
    /// Returns an empty drawing; `title` is its text alternative.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        Self { body: String::new(), width, height, title: escape(title) }
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        self.body.write_fmt(element).expect("writing to a string cannot fail");
        self.body.push('\n');
    }

    /// Adds text of the class `ink` or `dim` and font size `size`, vertically centered on `y`, rotated clockwise about its point
    /// by `rotation` degrees.
    #[allow(clippy::too_many_arguments)]
    pub fn text(&mut self, x: f64, y: f64, size: f64, class: &str, anchor: Anchor, rotation: f64, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let transform =
            if rotation == 0.0 { String::new() } else { format!(" transform=\"rotate({rotation} {x:.1} {y:.1})\"") };
        // Some viewers do not support dominant-baseline, so `dy` centers the text.
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" dy=\"0.35em\" font-size=\"{size}\" class=\"{class}\" text-anchor=\"{anchor}\"{transform}>{}</text>",
            escape(text)
        ));
    }

    /// Adds text in a fixed color, centered on its point.
    pub fn label(&mut self, x: f64, y: f64, size: f64, fill: &str, text: &str) {
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" dy=\"0.35em\" font-size=\"{size}\" fill=\"{fill}\" text-anchor=\"middle\">{}</text>",
            escape(text)
        ));
    }

    /// Adds a filled rectangle with an optional tooltip (empty: none).
    pub fn rectangle(&mut self, x: f64, y: f64, width: f64, height: f64, fill: &str, tooltip: &str) {
        let tooltip = if tooltip.is_empty() { String::new() } else { format!("<title>{}</title>", escape(tooltip)) };
        self.push(format_args!(
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" fill=\"{fill}\">{tooltip}</rect>"
        ));
    }

    /// Adds a line of the class `rule` or `grid`. `dash` is an SVG stroke-dasharray; empty for a solid line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str, width: f64, dash: &str) {
        let dash = if dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dash}\"") };
        self.push(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" class=\"{class}\" stroke-width=\"{width}\"{dash}/>",
            from.0, from.1, to.0, to.1
        ));
    }

    /// Adds a polyline in a fixed color.
    pub fn polyline(&mut self, points: &[(f64, f64)], stroke: &str, dash: &str) {
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dash = if dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dash}\"") };
        self.push(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"2\" stroke-linejoin=\"round\"{dash}/>",
            path.join(" ")
        ));
    }

    /// Adds a marker `size` pixels total_width of the given shape: 0 disc, 1 triangle, 2 square, 3 cross, 4 ring.
    pub fn marker(&mut self, x: f64, y: f64, size: f64, shape: usize, color: &str, tooltip: &str) {
        let r = size / 2.0;
        let tooltip = if tooltip.is_empty() { String::new() } else { format!("<title>{}</title>", escape(tooltip)) };
        let filled = format!("fill=\"{color}\" fill-opacity=\"0.8\"");
        let drawn = format!("fill=\"none\" stroke=\"{color}\" stroke-width=\"1.8\"");
        match shape % 5 {
            0 => {
                self.push(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r:.1}\" {filled}>{tooltip}</circle>"))
            }
            1 => self.push(format_args!(
                "<path d=\"M{:.1} {:.1}l{size:.1} 0l{:.1} {:.1}z\" {filled}>{tooltip}</path>",
                x - r,
                y + r,
                -r,
                -size
            )),
            2 => self.push(format_args!(
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{size:.1}\" height=\"{size:.1}\" {filled}>{tooltip}</rect>",
                x - r,
                y - r
            )),
            3 => self.push(format_args!(
                "<path d=\"M{:.1} {:.1}l{size:.1} {size:.1}m0 {:.1}l{:.1} {size:.1}\" {drawn}>{tooltip}</path>",
                x - r,
                y - r,
                -size,
                -size
            )),
            _ => self.push(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r:.1}\" {drawn}>{tooltip}</circle>")),
        }
    }

    /// Returns the SVG document, which is also valid as an element of an HTML page.
    pub fn finish(self) -> String {
        let Self { body, width, height, title } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"kp\" role=\"img\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\">\n<title>{title}</title>{STYLE}\n\
             <rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n{body}</svg>\n"
        )
    }
}

/// Returns about `count` evenly spaced round values whose range contains `low` and `high`.
pub fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let span = (high - low).max(1e-12);
    let rough = span / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * power).find(|&s| s >= rough * 0.999).unwrap_or(rough);
    let first = (low / step).floor() as i64;
    let last = ((high / step).ceil() as i64).max(first + 1);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// Formats a tick value without trailing zeros.
pub fn format_tick(value: f64) -> String {
    if value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e6) {
        return format!("{value:.1e}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<b a='1' b=\"2\">&\u{1}"), "&lt;b a=&#39;1&#39; b=&quot;2&quot;&gt;&amp;\u{fffd}");
        let mut drawing = Drawing::new(10.0, 10.0, "</title><script>");
        drawing.text(0.0, 0.0, 12.0, "ink", Anchor::Start, 0.0, "<script>");
        assert!(!drawing.finish().contains("<script"));
    }

    #[test]
    fn ticks_are_round_and_cover_range() {
        assert_eq!(ticks(0.0, 1.0, 5), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(1.0, 37.0, 5).into_iter().map(format_tick).collect::<Vec<_>>(), ["0", "10", "20", "30", "40"]);
        assert!(ticks(3.0, 3.0, 4).len() >= 2);
        assert_eq!(format_tick(0.0001), "1.0e-4");
    }

    #[test]
    fn viridis_runs_from_purple_to_yellow() {
        assert_eq!(viridis(0.0), ("#440154".into(), "#ffffff"));
        assert_eq!(viridis(1.0).0, "#fde725");
    }

    #[test]
    fn long_labels_are_truncated() {
        assert_eq!(truncate("abcdef", 4), "abc…");
        assert_eq!(truncate("abcd", 4), "abcd");
    }
}
