//! The metrics that programs expose on `/metrics`, and those that docs/metrics.md documents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// A metric: all series with one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metric {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    pub help: String,
    /// The labels of all its series, except `le`.
    pub labels: BTreeSet<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Exposition {
    pub metrics: BTreeMap<String, Metric>,
    lines: BTreeMap<String, f64>,
}

impl Exposition {
    /// Scrapes an admin port.
    ///
    /// # Errors
    /// When it does not answer in the text format.
    pub async fn scrape(port: u16) -> anyhow::Result<Self> {
        let answer = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await?;
        let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        ensure!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
        Self::parse(&answer.text().await?)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut exposition = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                exposition.metrics.entry(name.to_owned()).or_default().help = help.to_owned();
            } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                exposition.metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
            } else {
                exposition.line(line).with_context(|| format!("not in the text format: {line}"))?;
            }
        }
        Ok(exposition)
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let is_histogram = |base: &str| self.metrics.get(base).is_some_and(|metric| metric.kind == "histogram");
        let base = histogram_of(name, is_histogram).unwrap_or(name);
        let metric = self.metrics.get_mut(base)?;
        metric.labels.extend(keys(labels).into_iter().filter(|label| *label != "le").map(str::to_owned));
        self.lines.insert(series.to_owned(), value.parse().ok()?);
        Some(())
    }

    /// Returns the value of a series; labels may be in any order.
    pub fn value(&self, series: &str) -> Option<f64> {
        let sorted = |series: &str| {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').split(',').map(str::to_owned).collect::<BTreeSet<_>>();
            (name.to_owned(), labels)
        };
        let wanted = sorted(series);
        self.lines.iter().find(|(line, _)| sorted(line) == wanted).map(|(_, value)| *value)
    }

    /// Returns whether a text occurs in any line.
    pub fn mentions(&self, text: &str) -> bool {
        self.lines.keys().any(|line| line.contains(text))
    }

    /// Returns the value of a label in the first line that has it.
    pub fn label(&self, name: &str, label: &str) -> Option<&str> {
        let line = self.lines.keys().find(|line| line.starts_with(name))?;
        line.split_once(&format!("{label}=\""))?.1.split('"').next()
    }
}

/// Returns the histogram that a series with this name belongs to, if any.
pub fn histogram_of(name: &str, is_histogram: impl Fn(&str) -> bool) -> Option<&str> {
    ["_bucket", "_sum", "_count"]
        .into_iter()
        .filter_map(|suffix| name.strip_suffix(suffix))
        .find(|base| is_histogram(base))
}

/// Returns the keys of labels, or of a selector's matchers, up to the closing brace.
pub fn keys(labels: &str) -> Vec<&str> {
    let mut keys = Vec::new();
    let mut rest = labels;
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (key, behind) = rest.split_at(end);
        // A value may contain any character except a quote.
        let mut quoted = behind.splitn(3, '"');
        let (true, Some(_), Some(_), Some(after)) = (end > 0, quoted.next(), quoted.next(), quoted.next()) else {
            return keys;
        };
        keys.push(key);
        rest = after;
    }
}

/// A row of docs/metrics.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub metric: Metric,
    /// The programs that expose it.
    pub programs: BTreeSet<String>,
}

/// Reads the table of docs/metrics.md, by name.
///
/// # Errors
/// When it cannot be read, or has a duplicate name.
pub fn documented() -> anyhow::Result<BTreeMap<String, Row>> {
    let text = std::fs::read_to_string(root().join("docs/metrics.md")).context("docs/metrics.md")?;
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>();
        let cells = <[String; 5]>::try_from(cells);
        let [name, kind, labels, programs, help] =
            cells.ok().with_context(|| format!("a row must have five cells: {line}"))?;
        let listed = |cell: &str| {
            cell.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect::<BTreeSet<_>>()
        };
        let programs = match programs.as_str() {
            "every" => ["gateway", "auth", "room", "message", "file"].map(str::to_owned).into(),
            some => listed(some),
        };
        let row = Row { metric: Metric { kind, help, labels: listed(&labels) }, programs };
        ensure!(rows.insert(name.clone(), row).is_none(), "{name} stands twice");
    }
    Ok(rows)
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_format_is_parsed() {
        let text = "# HELP a What a is\n# TYPE a histogram\na_bucket{x=\"1,}\",le=\"+Inf\"} 2\na_sum{x=\"1\"} 0.5\n\n# TYPE b_count counter\nb_count 3\n";
        let exposition = Exposition::parse(text).unwrap();
        let a = Metric { kind: "histogram".into(), help: "What a is".into(), labels: ["x".into()].into() };
        assert_eq!(exposition.metrics["a"], a);
        assert_eq!(exposition.metrics["b_count"].kind, "counter");
        assert_eq!(
            (exposition.value("b_count"), exposition.value("a_sum{x=\"1\"}"), exposition.value("c")),
            (Some(3.0), Some(0.5), None)
        );
        assert_eq!(exposition.label("a", "x"), Some("1,}"));
        assert!(Exposition::parse("c 1\n").is_err(), "without a type");
        assert_eq!(keys("job!~\"confab.*\", event!=\"a,b}\"}[5m]) / d{e=\"f\"}"), ["job", "event"]);
    }
}
