//! The table of figures: medians of the rounds, and gates that are met or not.
//!
//! It knows how figures are written, not how they come about.

use std::fmt::Write;

/// Which side of a gate is good.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Gate {
    AtLeast(f64),
    AtMost(f64),
}

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) what: &'static str,
    /// None if it could not be measured.
    pub(super) value: Option<f64>,
    pub(super) gate: Gate,
    pub(super) aim: Option<f64>,
    pub(super) unit: &'static str,
}

/// Returns the one in the middle.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len().checked_sub(1)? / 2;
    values.get(middle).copied()
}

impl Row {
    fn verdict(&self) -> &'static str {
        let passes = |bound: Option<f64>| {
            let value = self.value?;
            Some(match self.gate {
                Gate::AtLeast(_) => value >= bound?,
                Gate::AtMost(_) => value <= bound?,
            })
        };
        let (Gate::AtLeast(gate) | Gate::AtMost(gate)) = self.gate;
        match (passes(Some(gate)), passes(self.aim)) {
            (None, _) => "not measured",
            (Some(false), _) => "NOT MET",
            (Some(true), Some(true)) => "met, and the aim",
            (Some(true), _) => "met",
        }
    }
}

/// Returns a table of gates.
pub(super) fn gates(rows: &[Row]) -> String {
    let mut text = String::from("| figure | measured | gate | aim | |\n|---|---|---|---|---|\n");
    for row in rows {
        let (sign, gate) = match row.gate {
            Gate::AtLeast(gate) => ('≥', gate),
            Gate::AtMost(gate) => ('≤', gate),
        };
        let value = row.value.map_or("—".to_owned(), number);
        let aim = row.aim.map_or("—".to_owned(), number);
        let unit = row.unit;
        // Writing to a String cannot fail.
        writeln!(
            text,
            "| {} | {value}{unit} | {sign} {}{unit} | {aim}{unit} | {} |",
            row.what,
            number(gate),
            row.verdict()
        )
        .ok();
    }
    text
}

/// Writes a number with as many places as it deserves.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size > 0.0 && size < 0.01 => format!("{value:.4}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_met_on_its_good_side_only() {
        let row = |value, gate, aim| Row {
            what: "x",
            value,
            gate,
            aim,
            unit: " ×",
        };
        for (row, verdict) in [
            (row(Some(1.0), Gate::AtLeast(1.0), Some(1.5)), "met"),
            (
                row(Some(2.0), Gate::AtLeast(1.0), Some(1.5)),
                "met, and the aim",
            ),
            (row(Some(0.9), Gate::AtLeast(1.0), Some(1.5)), "NOT MET"),
            (row(Some(0.9), Gate::AtMost(1.0), Some(0.5)), "met"),
            (row(Some(1.1), Gate::AtMost(1.0), None), "NOT MET"),
            (row(None, Gate::AtMost(1.0), None), "not measured"),
        ] {
            assert_eq!(row.verdict(), verdict, "{row:?}");
        }
        let text = gates(&[row(Some(1.25), Gate::AtLeast(1.0), Some(1.5))]);
        assert!(
            text.ends_with("| x | 1.25 × | ≥ 1.00 × | 1.50 × | met |\n"),
            "{text}"
        );
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.0));
        assert_eq!(median(Vec::new()), None);
    }
}
