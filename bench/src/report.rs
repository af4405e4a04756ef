//! Results as JSON for programs and as Markdown for people, made of the same figures.

use comfy_table::{ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::machine::Machine;

/// Everything that one run of the benchmark measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) sections: Vec<Section>,
}

/// What one benchmark measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) title: String,
    /// What was done, in sentences.
    pub(crate) about: Vec<String>,
    pub(crate) tables: Vec<Columns>,
    /// What was left out and why, what went wrong.
    pub(crate) notes: Vec<String>,
    /// The figures behind the tables, round by round.
    pub(crate) figures: Value,
}

/// A table as text.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Columns {
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Report {
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("# What was measured\n\n");
        text.push_str(&self.machine.markdown());
        for section in &self.sections {
            text.push_str(&section.markdown());
        }
        text
    }
}

impl Section {
    fn markdown(&self) -> String {
        let mut text = format!("\n## `{}`: {}\n\n", self.name, self.title);
        for sentence in &self.about {
            text.push_str(&format!("{sentence}\n"));
        }
        for table in &self.tables {
            text.push_str(&format!("\n{}\n", table.markdown()));
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            text.push_str(&format!("- {note}\n"));
        }
        text
    }
}

impl Columns {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { header: header.iter().map(|name| String::from(*name)).collect(), rows: Vec::new() }
    }

    fn markdown(&self) -> String {
        let mut table = Table::new();
        table
            .load_style(presets::ASCII_MARKDOWN)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(self.header.clone())
            .add_rows(self.rows.clone());
        table.trim_fmt()
    }
}

/// The middle one; of an even number the upper of the two.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The least and the greatest.
pub(crate) fn range(figures: impl IntoIterator<Item = f64>) -> (f64, f64) {
    figures.into_iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), figure| {
        (least.min(figure), most.max(figure))
    })
}

/// The nearest that a float can hold.
pub(crate) fn float(number: u64) -> f64 {
    let half = |number: u64| f64::from(u32::try_from(number).expect("32 bits"));
    half(number >> 32) * 4_294_967_296.0 + half(number & 0xffff_ffff)
}

/// A number that is easy to read: grouped digits when large, decimals when small.
pub(crate) fn show(number: f64) -> String {
    if !number.is_finite() {
        return String::from("-");
    }
    if number.abs() < 10.0 {
        return format!("{number:.2}");
    }
    if number.abs() < 100.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(show(1.234), "1.23");
        assert_eq!(show(12.34), "12.3");
        assert_eq!(show(1_234_567.8), "1 234 568");
        assert_eq!(show(999.9), "1 000");
        assert_eq!(show(f64::NAN), "-");
        assert_eq!(float((1 << 40) + 5), 1_099_511_627_781.0);
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(range([3.0, 1.0, 2.0]), (1.0, 3.0));
    }

    #[test]
    fn tables_are_markdown() {
        let mut table = Columns::new(&["A", "B"]);
        table.rows.push(vec![String::from("x"), String::from("1")]);
        let text = table.markdown();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines.iter().all(|line| line.starts_with('|') && line.ends_with('|')), "{text}");
    }
}
