//! Aligned columns with headings.

/// A table to be filled row by row.
pub struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Table {
        Table {
            headings: headings.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row with as many cells as there are headings.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text, two spaces between columns, no space at the end of a line.
    pub fn text(&self, color: bool) -> String {
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|i| {
                let cells = self.rows.iter().filter_map(|r| r.get(i));
                let longest = cells.map(|c| width(c)).max().unwrap_or(0);
                longest.max(width(&self.headings[i]))
            })
            .collect();
        let mut out = String::new();
        let headings: Vec<String> = self.headings.iter().map(|h| h.to_uppercase()).collect();
        let (bold, off) = if color {
            ("\x1b[1m", "\x1b[0m")
        } else {
            ("", "")
        };
        out.push_str(&format!("{bold}{}{off}\n", line(&headings, &widths, false)));
        for row in &self.rows {
            out.push_str(&line(row, &widths, color));
            out.push('\n');
        }
        out
    }
}

/// Characters that the terminal shows; wide ones (CJK, emoji) count two.
fn width(text: &str) -> usize {
    text.chars()
        .map(|c| match u32::from(c) {
            0x0300..=0x036f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
            0x1100..=0x115f
            | 0x2e80..=0xa4cf
            | 0xac00..=0xd7a3
            | 0xf900..=0xfaff
            | 0xfe30..=0xfe6f
            | 0xff00..=0xff60
            | 0x1f300..=0x1faff => 2,
            _ => 1,
        })
        .sum()
}

fn line(cells: &[String], widths: &[usize], color: bool) -> String {
    let mut out = String::new();
    for (i, cell) in cells.iter().enumerate() {
        let pad = widths.get(i).map_or(0, |w| w.saturating_sub(width(cell)));
        match tint(cell).filter(|_| color) {
            Some(code) => out.push_str(&format!("\x1b[{code}m{cell}\x1b[0m")),
            None => out.push_str(cell),
        }
        if i + 1 < cells.len() {
            out.extend(std::iter::repeat_n(' ', pad + 2));
        }
    }
    out.trim_end().to_owned()
}

/// Colours for words that mean the same for every kind.
fn tint(cell: &str) -> Option<&'static str> {
    match cell {
        "running" | "ready" | "succeeded" | "active" | "online" | "healthy" | "true" => Some("32"),
        "failed" | "error" | "crashed" | "degraded" | "unreachable" => Some("31"),
        "pending" | "waiting" | "starting" | "stopping" | "deleting" | "paused" | "importing"
        | "creating" | "unknown" => Some("33"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn aligned() {
        let mut t = Table::new(["name", "state", "memory"]);
        t.row(vec!["web1".into(), "running".into(), "1GiB".into()]);
        t.row(vec!["数据库".into(), "stopped".into(), String::new()]);
        expect![[r#"
            NAME    STATE    MEMORY
            web1    running  1GiB
            数据库  stopped
        "#]]
        .assert_eq(&t.text(false));
        assert!(t.text(true).contains("\x1b[32mrunning\x1b[0m  1GiB"));
    }
}
