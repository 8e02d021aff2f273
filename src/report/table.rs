//! Tables for the terminal, Markdown, HTML and CSV.

use maud::{Markup, html};

use super::escape::escape_markdown;

/// Number of characters above which a left-aligned cell of an HTML table wraps.
const MAX_LINE_CHARS: usize = 32;

/// A table of strings. The first `left` columns are left-aligned, the others right-aligned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Column headers.
    pub header: Vec<String>,
    /// Number of leading left-aligned columns.
    pub left: usize,
    /// Rows; each has as many cells as the header.
    pub rows: Vec<Vec<String>>,
    /// Index of the highlighted row, if any.
    pub best: Option<usize>,
}

impl Table {
    /// Returns a table without rows.
    pub fn new(header: &[&str], left: usize) -> Self {
        Self { header: header.iter().map(|name| name.to_string()).collect(), left, rows: Vec::new(), best: None }
    }

    /// Removes the columns whose cells are all empty or `–`.
    pub fn without_empty_columns(mut self) -> Self {
        let kept: Vec<usize> = (0..self.header.len())
            .filter(|&column| self.rows.iter().any(|row| !matches!(row[column].as_str(), "" | "–")))
            .collect();
        let keep = |row: &Vec<String>| kept.iter().map(|&column| row[column].clone()).collect();
        self.left = kept.iter().filter(|&&column| column < self.left).count();
        self.header = keep(&self.header);
        self.rows = self.rows.iter().map(keep).collect();
        self
    }

    /// Formats the table for the terminal; the highlighted row starts with `*`.
    pub fn text(&self) -> String {
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| &row[column]).chain([&self.header[column]]);
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &[String], marker: char| {
            let mut line = String::from(marker);
            for (column, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
                let cell: String = cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                let gap = " ".repeat(width - cell.chars().count());
                line.push_str(if column == 0 { " " } else { "  " });
                line.push_str(&if column < self.left { cell + &gap } else { gap + &cell });
            }
            line.trim_end().to_string() + "\n"
        };
        let mut text = line(&self.header, ' ');
        let ruled: Vec<String> = widths.iter().map(|&width| "─".repeat(width)).collect();
        text.push_str(&line(&ruled, ' '));
        for (i, row) in self.rows.iter().enumerate() {
            text.push_str(&line(row, if self.best == Some(i) { '*' } else { ' ' }));
        }
        text
    }

    /// Formats the table for Markdown; the highlighted row is bold.
    pub fn markdown(&self) -> String {
        let cells = |row: &[String], wrap: &str| {
            let cells: Vec<String> = row.iter().map(|cell| format!("{wrap}{}{wrap}", escape_markdown(cell))).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let mut text = cells(&self.header, "");
        let rule: Vec<&str> = (0..self.header.len()).map(|i| if i < self.left { "-" } else { "-:" }).collect();
        text.push_str(&format!("|{}|\n", rule.join("|")));
        for (i, row) in self.rows.iter().enumerate() {
            text.push_str(&cells(row, if self.best == Some(i) { "**" } else { "" }));
        }
        text
    }

    /// Returns the HTML class of a column: numbers are aligned to the right.
    fn alignment_class(&self, column: usize) -> Option<&'static str> {
        (column >= self.left).then_some("n")
    }

    /// Returns the HTML class of a cell: long text wraps.
    fn cell_class(&self, column: usize, cell: &str) -> Option<&'static str> {
        let is_long = cell.chars().count() > MAX_LINE_CHARS;
        self.alignment_class(column).or(is_long.then_some("long"))
    }

    /// Formats the table for HTML; the highlighted row has the class `best`.
    pub fn html(&self) -> Markup {
        html! {
            // Scrolls with the keyboard too.
            div.scroll tabindex="0" {
                table {
                    thead {
                        tr {
                            @for (column, name) in self.header.iter().enumerate() {
                                th class=[self.alignment_class(column)] { (name) }
                            }
                        }
                    }
                    tbody {
                        @for (i, row) in self.rows.iter().enumerate() {
                            tr class=[(self.best == Some(i)).then_some("best")] {
                                @for (column, cell) in row.iter().enumerate() {
                                    td class=[self.cell_class(column, cell)] { (cell) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// Returns the CSV records, header first.
    pub fn records(&self) -> impl Iterator<Item = Vec<String>> + '_ {
        std::iter::once(&self.header).chain(&self.rows).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_text_markdown_and_html() {
        let mut table = Table::new(&["name", "empty", "clips"], 1);
        table.rows.push(vec!["a|b".into(), "–".into(), "7".into()]);
        table.rows.push(vec!["<c>".into(), String::new(), "1500".into()]);
        table.best = Some(1);
        let table = table.without_empty_columns();
        assert_eq!(table.text(), "  name  clips\n  ────  ─────\n  a|b       7\n* <c>    1500\n");
        assert_eq!(table.markdown(), "| name | clips |\n|-|-:|\n| a\\|b | 7 |\n| **&lt;c&gt;** | **1500** |\n");
        assert!(
            table.html().into_string().contains("<tr class=\"best\"><td>&lt;c&gt;</td><td class=\"n\">1500</td></tr>")
        );
    }
}
