//! Results: a name, a unit, and a value for each run.

use std::fmt::Write;

use serde_json::{Map, Value, json};

#[derive(Debug, Default)]
pub struct Figures {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    unit: &'static str,
    runs: Vec<f64>,
}

impl Figures {
    pub fn add(&mut self, name: impl Into<String>, unit: &'static str, value: f64) {
        let name = name.into();
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.runs.push(value),
            None => self.rows.push(Row { name, unit, runs: vec![value] }),
        }
    }

    /// Returns a table for people: the median, then each run. Processes without any use are omitted.
    pub fn table(&self) -> String {
        let rows =
            || self.rows.iter().filter(|row| row.unit.is_empty() || row.runs.iter().any(|value| value.abs() >= 0.005));
        let width = rows().map(|row| row.name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for row in rows() {
            let runs = row.runs.iter().map(|value| number(*value)).collect::<Vec<_>>().join("  ");
            let runs = if row.runs.len() > 1 { format!("   runs: {runs}") } else { String::new() };
            let _ = writeln!(text, "  {:<width$}  {:>10} {:<6}{runs}", row.name, number(median(&row.runs)), row.unit);
        }
        text
    }

    /// Returns the figures as JSON.
    pub fn json(&self) -> Value {
        let row =
            |row: &Row| (row.name.clone(), json!({"unit": row.unit, "median": median(&row.runs), "runs": row.runs}));
        Value::Object(self.rows.iter().map(row).collect::<Map<_, _>>())
    }
}

/// Returns the middle value; of an even number, the mean of the middle two.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => 0.0,
        (count, middle) if count % 2 == 1 => values[middle],
        (_, middle) => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// Formats a number with three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_table_and_json() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0]), median(&[])), (2.0, 2.5, 0.0));
        let mut figures = Figures::default();
        for run in [12.345, 1234.5, 1.0] {
            figures.add("deliveries", "/s", run);
        }
        figures.add("violations", "", 0.0);
        figures.add("cpu", "µs", 0.001);
        let table = figures.table();
        let rows = table.lines().map(str::split_whitespace).map(Iterator::collect::<Vec<_>>).collect::<Vec<_>>();
        assert_eq!(rows[0], ["deliveries", "12.3", "/s", "runs:", "12.3", "1234", "1"]);
        assert_eq!(rows[1..], [["violations", "0"]]);
        assert_eq!(
            figures.json()["deliveries"],
            json!({"unit": "/s", "median": 12.345, "runs": [12.345, 1234.5, 1.0]})
        );
    }
}
