//! A table that prints to the terminal, to Markdown and to HTML.

use std::fmt::Write;

use super::{markdown, svg};

/// A table of texts. The first `left` columns are aligned to the left, the others to the right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// One heading a column.
    pub header: Vec<String>,
    /// Leading columns that are text rather than numbers.
    pub left: usize,
    /// As many cells a row as the header has.
    pub rows: Vec<Vec<String>>,
    /// The row that stands out, if any.
    pub best: Option<usize>,
}

impl Table {
    /// An empty table.
    pub fn new(header: &[&str], left: usize) -> Self {
        Self { header: header.iter().map(|name| name.to_string()).collect(), left, rows: Vec::new(), best: None }
    }

    /// Leaves out the columns in which no row says anything.
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

    /// For the terminal: columns padded with blanks, the standing-out row marked `*`.
    pub fn text(&self) -> String {
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| &row[column]).chain([&self.header[column]]);
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &[String], mark: char| {
            let mut line = String::from(mark);
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

    /// For Markdown, the standing-out row bold.
    pub fn markdown(&self) -> String {
        let cells = |row: &[String], wrap: &str| {
            let cells: Vec<String> = row.iter().map(|cell| format!("{wrap}{}{wrap}", markdown::escape(cell))).collect();
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

    /// For HTML, the standing-out row of class `best`.
    pub fn html(&self) -> String {
        let mut text = String::from("<div class=\"scroll\"><table><thead><tr>");
        let class = |column: usize| if column < self.left { "" } else { " class=\"n\"" };
        for (column, name) in self.header.iter().enumerate() {
            let _ = write!(text, "<th{}>{}</th>", class(column), svg::escape(name));
        }
        text.push_str("</tr></thead><tbody>\n");
        for (i, row) in self.rows.iter().enumerate() {
            text.push_str(if self.best == Some(i) { "<tr class=\"best\">" } else { "<tr>" });
            for (column, cell) in row.iter().enumerate() {
                let _ = write!(text, "<td{}>{}</td>", class(column), svg::escape(cell));
            }
            text.push_str("</tr>\n");
        }
        text + "</tbody></table></div>\n"
    }

    /// As CSV records, the header first.
    pub fn records(&self) -> impl Iterator<Item = Vec<String>> + '_ {
        std::iter::once(&self.header).chain(&self.rows).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_table_prints_three_ways() {
        let mut table = Table::new(&["name", "nothing", "clips"], 1);
        table.rows.push(vec!["a|b".into(), "–".into(), "7".into()]);
        table.rows.push(vec!["<c>".into(), String::new(), "1500".into()]);
        table.best = Some(1);
        let table = table.without_empty_columns();
        assert_eq!(table.text(), "  name  clips\n  ────  ─────\n  a|b       7\n* <c>    1500\n");
        assert_eq!(table.markdown(), "| name | clips |\n|-|-:|\n| a\\|b | 7 |\n| **&lt;c&gt;** | **1500** |\n");
        assert!(table.html().contains("<tr class=\"best\"><td>&lt;c&gt;</td><td class=\"n\">1500</td></tr>"));
    }
}
