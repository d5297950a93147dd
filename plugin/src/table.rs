//! Tables as kubectl prints them: no lines, left aligned, three spaces between columns.

use comfy_table::{Cell, Color, ContentArrangement};

/// Spaces between two columns.
const GAP: usize = 3;

/// What a text means, for terminals with colours.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Busy,
    Bad,
}

/// A text in a table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) tone: Tone,
}

impl<S: Into<String>> From<S> for Text {
    fn from(text: S) -> Self {
        Self {
            text: text.into(),
            tone: Tone::Plain,
        }
    }
}

/// A table of texts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<Text>>,
}

impl Table {
    /// A table with these column names.
    pub(crate) fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Self {
            header: header.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Columns of a terminal that it takes.
    pub(crate) fn width(&self) -> usize {
        let of_column = |index: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(index));
            let texts = cells.map(|cell| cell.text.as_str());
            texts
                .chain([self.header[index].as_str()])
                .map(|text| text.chars().count())
                .max()
                .unwrap_or_default()
        };
        let columns: usize = (0..self.header.len()).map(of_column).sum();
        columns + GAP * self.header.len().saturating_sub(1)
    }

    /// The table as lines.
    pub(crate) fn render(&self, headers: bool, colour: bool) -> String {
        let mut table = comfy_table::Table::new();
        table
            .load_style(comfy_table::presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .force_no_tty();
        table.style_text_only();
        if colour {
            table.enforce_styling();
        }
        if headers {
            table.set_header(&self.header);
        }
        for row in &self.rows {
            table.add_row(row.iter().map(|text| cell(text, colour)).collect::<Vec<_>>());
        }
        let gap = u16::try_from(GAP).unwrap_or_default();
        for column in table.column_iter_mut() {
            column.set_padding((0, gap));
        }
        table.trim_fmt()
    }
}

fn cell(text: &Text, colour: bool) -> Cell {
    let cell = Cell::new(&text.text);
    match text.tone {
        Tone::Good if colour => cell.fg(Color::DarkGreen),
        Tone::Busy if colour => cell.fg(Color::DarkYellow),
        Tone::Bad if colour => cell.fg(Color::DarkRed),
        _ => cell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["NODE", "nginx:1.29"]);
        let bad = Text {
            text: "failed".into(),
            tone: Tone::Bad,
        };
        table.rows.push(vec!["node-1".into(), "present".into()]);
        table.rows.push(vec!["a-longer-name".into(), bad]);
        table
    }

    #[test]
    fn columns_are_left_aligned_without_lines_or_trailing_blanks() {
        let text = table().render(true, false);
        assert_eq!(
            text,
            "NODE            nginx:1.29\nnode-1          present\na-longer-name   failed"
        );
        assert_eq!(table().width(), "NODE            nginx:1.29".len());
    }

    #[test]
    fn headers_can_be_left_out() {
        assert_eq!(
            table().render(false, false),
            "node-1          present\na-longer-name   failed"
        );
    }

    #[test]
    fn colours_appear_only_where_they_are_allowed() {
        assert!(!table().render(true, false).contains('\u{1b}'));
        assert!(table().render(true, true).contains("\u{1b}["));
    }
}
