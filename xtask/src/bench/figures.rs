//! Figures: medians, spreads, and whether a target is met.

use std::borrow::Cow;

use serde_json::{Value, json};

/// Several measurements of one thing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    pub(super) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// The one in the middle, or the mean of the two in the middle; 0 where nothing was measured.
    pub(super) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match (sorted.len() / 2, sorted.len() % 2) {
            (0, 0) => 0.0,
            (half, 0) => f64::midpoint(sorted[half - 1], sorted[half]),
            (half, _) => sorted[half],
        }
    }

    /// All of them, divided by the same.
    pub(super) fn over(&self, divisor: f64) -> Self {
        Self(self.0.iter().map(|sample| sample / divisor).collect())
    }

    pub(super) fn least(&self) -> f64 {
        self.0.iter().copied().reduce(f64::min).unwrap_or_default()
    }

    pub(super) fn most(&self) -> f64 {
        self.0.iter().copied().reduce(f64::max).unwrap_or_default()
    }
}

impl From<f64> for Samples {
    fn from(sample: f64) -> Self {
        Self(vec![sample])
    }
}

/// One line of the result.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub(super) name: Cow<'static, str>,
    pub(super) unit: &'static str,
    pub(super) samples: Samples,
    /// What is wanted; none for a figure that only explains others.
    pub(super) target: Option<Target>,
}

/// What a median is to keep to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_met(self, median: f64) -> bool {
        match self {
            Self::AtMost(most) => median <= most,
            Self::AtLeast(least) => median >= least,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {most}"),
            Self::AtLeast(least) => format!("≥ {least}"),
        }
    }
}

impl Figure {
    pub(super) fn new(name: impl Into<Cow<'static, str>>, unit: &'static str, samples: impl Into<Samples>) -> Self {
        Self {
            name: name.into(),
            unit,
            samples: samples.into(),
            target: None,
        }
    }

    pub(super) fn at_most(mut self, target: f64) -> Self {
        self.target = Some(Target::AtMost(target));
        self
    }

    pub(super) fn at_least(mut self, target: f64) -> Self {
        self.target = Some(Target::AtLeast(target));
        self
    }

    /// Whether the median keeps to the target.
    pub(super) fn is_met(&self) -> Option<bool> {
        self.target.map(|target| target.is_met(self.samples.median()))
    }

    fn row(&self) -> String {
        let samples = &self.samples;
        let spread = if samples.0.len() > 1 {
            format!("{} … {}", short(samples.least()), short(samples.most()))
        } else {
            String::new()
        };
        let (target, verdict) = match (self.target, self.is_met()) {
            (Some(target), Some(true)) => (target.text(), "met"),
            (Some(target), _) => (target.text(), "MISSED"),
            _ => (String::new(), ""),
        };
        let value = format!("{} {}", short(samples.median()), self.unit);
        format!("{:<44} {value:>14}  {spread:<19} {target:<8} {verdict}", self.name)
            .trim_end()
            .to_owned()
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "unit": self.unit,
            "median": self.samples.median(),
            "least": self.samples.least(),
            "most": self.samples.most(),
            "samples": self.samples.0,
            "target": self.target.map(Target::text),
            "met": self.is_met(),
        })
    }
}

/// Three digits that count.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

/// All figures as a table.
pub(super) fn table(figures: &[Figure]) -> String {
    let head = format!(
        "{:<44} {:>14}  {:<19} {:<8} RESULT",
        "FIGURE", "MEDIAN", "SPREAD", "TARGET"
    );
    let rows = figures.iter().map(Figure::row);
    std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n")
}

/// All figures for programs.
pub(super) fn to_json(machine: &Value, figures: &[Figure]) -> Value {
    let figures: Vec<Value> = figures.iter().map(Figure::json).collect();
    json!({"machine": machine, "figures": figures})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        Samples(values.to_vec())
    }

    #[test]
    fn the_median_is_in_the_middle() {
        for (values, median) in [
            (&[][..], 0.0),
            (&[3.0], 3.0),
            (&[3.0, 1.0], 2.0),
            (&[9.0, 1.0, 2.0], 2.0),
            (&[4.0, 1.0, 2.0, 3.0], 2.5),
        ] {
            assert!((samples(values).median() - median).abs() < 1e-9, "{values:?}");
        }
    }

    #[test]
    fn targets_are_about_the_median() {
        let figure = Figure::new("ratio", "×", samples(&[1.0, 1.04, 3.0])).at_most(1.05);
        assert_eq!(figure.is_met(), Some(true));
        assert!(figure.row().contains("1.000 … 3.000") && figure.row().ends_with("met"));
        assert!(figure.clone().at_most(1.03).row().ends_with("MISSED"));
        assert!(figure.clone().at_least(1.04).row().ends_with("≥ 1.04   met"));
        assert!(figure.clone().at_least(1.05).row().ends_with("MISSED"));
        assert_eq!(Figure::new("time", "s", 1.0).is_met(), None);
    }
}
