//! One measured number, what it is compared with, and what it must be.

use serde_json::json;

/// What a figure must be.
#[derive(Clone, Copy)]
pub enum Wanted {
    AtMost(f64),
    /// Only shown, as what others are compared with.
    Nothing,
}

/// One line of a benchmark.
pub struct Figure {
    pub bench: &'static str,
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// What it was measured beside.
    pub against: &'static str,
    pub wanted: Wanted,
}

impl Figure {
    /// Whether it is what it must be, when it must be anything.
    fn met(&self) -> Option<bool> {
        match self.wanted {
            Wanted::AtMost(most) => Some(self.value <= most),
            Wanted::Nothing => None,
        }
    }

    fn wanted(&self) -> String {
        match self.wanted {
            Wanted::AtMost(most) => format!("<= {most}"),
            Wanted::Nothing => String::new(),
        }
    }
}

/// Prints figures as a table, or one JSON object a line.
pub fn print(figures: &[Figure], as_json: bool) {
    for figure in figures {
        if as_json {
            let value = (figure.value * 1000.0).round() / 1000.0;
            let wanted = figure.wanted();
            let line = json!({"bench": figure.bench, "figure": figure.name, "value": value, "unit": figure.unit,
                "against": figure.against, "wanted": wanted, "met": figure.met()});
            println!("{line}");
        } else {
            let met = figure
                .met()
                .map_or("", |met| if met { "yes" } else { "NO" });
            println!(
                "{:<50} {:>9.2} {:<10} {:<9} {met}",
                figure.name,
                figure.value,
                figure.unit,
                figure.wanted()
            );
        }
    }
}

/// The middle one; of an even number, the mean of both.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[half],
        _ => (values[half - 1] + values[half]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn a_miss_is_called_a_miss() {
        let figure = |value| Figure {
            bench: "b",
            name: "f".into(),
            value,
            unit: "x",
            against: "a",
            wanted: Wanted::AtMost(1.15),
        };
        assert_eq!(
            (figure(1.1).met(), figure(1.2).met()),
            (Some(true), Some(false))
        );
    }
}
