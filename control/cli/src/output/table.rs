//! Aligned columns: numbers to the right, words to the left, two spaces between.

/// A table under construction.
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column heads; units belong in them.
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with as many cells as there are heads.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.head.len(), "a row has a cell for each head");
        self.rows.push(cells);
    }

    /// Prints it; a sentence where it has no rows.
    pub(crate) fn print(&self, empty: &str) {
        if self.rows.is_empty() {
            super::say!("{empty}");
        } else {
            super::print(format_args!("{}", self.text()));
        }
    }

    fn text(&self) -> String {
        let column = |index: usize| self.rows.iter().filter_map(move |row| row.get(index));
        let widths: Vec<usize> = (0..self.head.len())
            .map(|index| {
                column(index)
                    .map(|cell| cell.chars().count())
                    .chain([self.head[index].len()])
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let numbers: Vec<bool> =
            (0..self.head.len()).map(|index| column(index).all(|cell| is_number(cell))).collect();
        let head: Vec<String> = self.head.iter().map(ToString::to_string).collect();
        let mut text = String::new();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, &width), &number) in row.iter().zip(&widths).zip(&numbers) {
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                let (before, after) = if number { (padding.as_str(), "") } else { ("", padding.as_str()) };
                line.extend([before, cell, after, "  "]);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn is_number(cell: &str) -> bool {
    cell == "-" || cell.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_stand_right() {
        let mut table = Table::new(&["REASON", "PACKETS"]);
        table.row(vec!["bad_icv".to_owned(), "7".to_owned()]);
        table.row(vec!["replayed".to_owned(), "12345".to_owned()]);
        assert_eq!(table.text(), "REASON    PACKETS\nbad_icv         7\nreplayed    12345\n");
    }
}
