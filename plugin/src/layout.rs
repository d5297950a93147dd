//! How nodes × images are shown, so that it stays legible: with few images or many, few nodes or thousands, wide terminals or narrow.
//!
//! The first that fits the terminal is taken:
//! 1. a row for each node, a column for each image, with names as long as they can be;
//! 2. a row for each image, a column for each node;
//! 3. a row for each image, with its nodes counted.

use std::collections::BTreeSet;

use crate::{
    human,
    matrix::{Cell, CellState, Column, Matrix, Row, Summary, short_digest},
    table::{Table, Text, Tone},
};

/// Columns that people read across, where no terminal sets a limit.
const MOST_COLUMNS: usize = 12;
/// Rows above which a terminal shows nodes that are alike as one.
const MOST_ROWS: usize = 40;

/// What the table is for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    /// Columns of the terminal; `None` for a file or a pipe, where nothing is left out or put together.
    pub(crate) width: Option<usize>,
    /// With sizes, digests and runtimes.
    pub(crate) wide: bool,
}

/// The table of a matrix that has at least one node.
pub(crate) fn table(matrix: &Matrix, wanted: Wanted) -> Table {
    let fits = |table: &Table| match wanted.width {
        Some(width) => table.width() <= width,
        None => table.header.len() <= MOST_COLUMNS + 3,
    };
    if wanted.width.is_some() || matrix.columns().len() <= MOST_COLUMNS {
        for shortening in Shortening::ALL {
            for detail in [Detail::Rate, Detail::State] {
                let by_node = by_node(matrix, shortening, detail, wanted);
                if let Some(table) = by_node.filter(|table| fits(table)) {
                    return table;
                }
            }
        }
    }
    if matrix.rows().len() <= MOST_COLUMNS {
        for shortening in Shortening::ALL {
            for short_hosts in [false, true] {
                let by_image = by_image(matrix, shortening, short_hosts, wanted);
                if let Some(table) = by_image.filter(|table| fits(table)) {
                    return table;
                }
            }
        }
    }
    let summaries = matrix.summaries();
    let candidates = Shortening::ALL.map(|shortening| counts(matrix.columns(), &summaries, shortening, wanted.wide));
    let [longest, .., shortest] = &candidates;
    let fitting = candidates.iter().flatten().find(|table| fits(table));
    let chosen = wanted.width.and(fitting.or(shortest.as_ref()));
    chosen.or(longest.as_ref()).cloned().unwrap_or_default()
}

/// A row for each image with its nodes counted, as the Prefetches themselves say it, for people who may not read the nodes.
pub(crate) fn counts_of(columns: &[Column], summaries: &[Summary]) -> Table {
    counts(columns, summaries, Shortening::None, false).unwrap_or_default()
}

/// What is left out of the name of an image.
#[derive(Clone, Copy, Debug)]
enum Shortening {
    None,
    Registry,
    Path,
}

impl Shortening {
    const ALL: [Self; 3] = [Self::None, Self::Registry, Self::Path];

    fn name(self, column: &Column) -> String {
        let Some(reference) = &column.reference else {
            return column.text.clone();
        };
        let without_registry = |name: String| {
            let prefix = format!("{}/", reference.registry());
            name.strip_prefix(&prefix).map(str::to_owned).unwrap_or(name)
        };
        match self {
            Self::None => abbreviated(column),
            Self::Registry => without_registry(abbreviated(column)),
            Self::Path => column.short(),
        }
    }

    /// The names of all columns, unless two become the same.
    fn names(self, columns: &[Column]) -> Option<Vec<String>> {
        let names: Vec<String> = columns.iter().map(|column| self.name(column)).collect();
        let distinct: BTreeSet<&String> = names.iter().collect();
        (distinct.len() == names.len()).then_some(names)
    }
}

/// The familiar name, in which a digest takes the place of the tag and is short.
fn abbreviated(column: &Column) -> String {
    let familiar = column.familiar();
    match familiar.split_once('@') {
        Some((name, digest)) => {
            let tag = column.reference.as_ref().and_then(|reference| reference.tag());
            let name = tag
                .and_then(|tag| name.strip_suffix(tag)?.strip_suffix(':'))
                .unwrap_or(name);
            format!("{name}@{}", short_digest(digest))
        }
        None => familiar,
    }
}

/// How much a cell says about a pull.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Detail {
    /// `pulling 45% 12 MB/s`
    Rate,
    /// `pulling 45%`
    State,
    /// `pulling`, so that nodes that differ in nothing else are alike.
    Word,
}

fn by_node(matrix: &Matrix, shortening: Shortening, detail: Detail, wanted: Wanted) -> Option<Table> {
    let names = shortening.names(matrix.columns())?;
    let mut header = vec!["NODE".to_owned()];
    if wanted.wide {
        header.extend(["RUNTIME".to_owned(), "FREE".to_owned()]);
    }
    header.extend(names);
    let rows = |detail| -> Vec<(String, Vec<Text>)> {
        let columns = 0..matrix.columns().len();
        let rows = matrix.rows().iter();
        rows.map(|(node, row)| {
            let mut cells = if wanted.wide { about(row) } else { Vec::new() };
            cells.extend(
                columns
                    .clone()
                    .map(|column| text(row.cell(column), detail, wanted.wide)),
            );
            (node.clone(), cells)
        })
        .collect()
    };
    let mut table = Table::new(header);
    table.rows = if wanted.width.is_some() && matrix.rows().len() > MOST_ROWS {
        limited(merged(rows(Detail::Word)))
    } else {
        rows(detail)
            .into_iter()
            .map(|(node, cells)| prepend(node, cells))
            .collect()
    };
    Some(table)
}

fn by_image(matrix: &Matrix, shortening: Shortening, short_hosts: bool, wanted: Wanted) -> Option<Table> {
    let names = shortening.names(matrix.columns())?;
    let mut nodes: Vec<String> = matrix.rows().keys().cloned().collect();
    if short_hosts {
        nodes = human::without_domain(&nodes);
    }
    let mut table = Table::new(["IMAGE".to_owned()].into_iter().chain(nodes));
    for (column, name) in names.into_iter().enumerate() {
        let cells = matrix
            .rows()
            .values()
            .map(|row| text(row.cell(column), Detail::State, wanted.wide));
        table.rows.push(prepend(name, cells.collect()));
    }
    Some(table)
}

fn counts(columns: &[Column], summaries: &[Summary], shortening: Shortening, wide: bool) -> Option<Table> {
    let mut table = Table::new(["IMAGE", "NODES", "PRESENT", "PULLING", "FAILED", "SIZE"]);
    if wide {
        table.header.push("DIGEST".to_owned());
    }
    for (name, summary) in shortening.names(columns)?.into_iter().zip(summaries) {
        let toned = |number: usize, tone| Text {
            text: human::count(number),
            tone: if number > 0 { tone } else { Tone::Plain },
        };
        let mut row = vec![
            name.into(),
            human::count(summary.nodes).into(),
            human::count(summary.present).into(),
            toned(summary.pulling, Tone::Busy),
            toned(summary.failed, Tone::Bad),
            summary.size.map_or_else(|| "-".to_owned(), human::bytes).into(),
        ];
        if wide {
            let digests: Vec<String> = summary.digests.iter().map(|digest| short_digest(digest)).collect();
            row.push(if digests.is_empty() {
                "-".into()
            } else {
                human::some_of(&digests, 2).into()
            });
        }
        table.rows.push(row);
    }
    Some(table)
}

/// What `wide` says about a node.
fn about(row: &Row) -> Vec<Text> {
    vec![
        row.runtime.clone().unwrap_or_else(|| "-".to_owned()).into(),
        row.free_bytes.map_or_else(|| "-".to_owned(), human::bytes).into(),
    ]
}

fn text(cell: Option<&Cell>, detail: Detail, wide: bool) -> Text {
    let Some(cell) = cell else {
        return "-".into();
    };
    let mut text = cell.state.as_str().to_owned();
    let mut add = |part: &str| {
        text.push(' ');
        text.push_str(part);
    };
    if let Some(failure) = &cell.failure {
        if cell.has_failed_refresh() {
            add(&format!("(refresh: {})", failure.reason));
        } else {
            add(failure.reason.as_str());
        }
    }
    if let Some(transfer) = cell.transfer.filter(|_| detail != Detail::Word) {
        match transfer.percent() {
            Some(percent) => add(&format!("{percent}%")),
            None => add(&human::bytes(transfer.done)),
        }
        if let Some(rate) = transfer.rate.filter(|_| detail == Detail::Rate) {
            add(&format!("{}/s", human::bytes(rate)));
        }
    }
    if let (Some(time), None, false) = (cell.pulling_for, cell.transfer, detail == Detail::Word) {
        add(&human::duration(time));
    }
    if wide {
        if let Some(size) = cell.size {
            add(&human::bytes(size));
        }
        if let Some(digest) = &cell.digest {
            add(&short_digest(digest));
        }
        if cell.priority != 0 {
            add(&format!("priority {}", cell.priority));
        }
    }
    let tone = match cell.state {
        CellState::Present if cell.has_failed_refresh() => Tone::Busy,
        CellState::Present => Tone::Good,
        CellState::Pulling | CellState::Retrying => Tone::Busy,
        CellState::Failed => Tone::Bad,
        CellState::Waiting | CellState::Held => Tone::Plain,
    };
    Text { text, tone }
}

fn prepend(first: impl Into<Text>, mut rest: Vec<Text>) -> Vec<Text> {
    rest.insert(0, first.into());
    rest
}

/// Nodes with the same cells as one row: its first node, all of its nodes counted, and the cells.
fn merged(rows: Vec<(String, Vec<Text>)>) -> Vec<(String, usize, Vec<Text>)> {
    let mut groups: Vec<(String, usize, Vec<Text>)> = Vec::new();
    for (node, cells) in rows {
        match groups.iter_mut().find(|(_, _, other)| *other == cells) {
            Some((_, count, _)) => *count += 1,
            None => groups.push((node, 1, cells)),
        }
    }
    groups
}

/// The rows to show: those with trouble first, and the rest counted where there are too many.
fn limited(mut groups: Vec<(String, usize, Vec<Text>)>) -> Vec<Vec<Text>> {
    groups.sort_by_key(|(_, _, cells)| cells.iter().map(|cell| urgency(cell.tone)).min());
    let left_out: usize = groups.iter().skip(MOST_ROWS).map(|(_, count, _)| count).sum();
    let columns = groups.first().map_or(0, |(_, _, cells)| cells.len());
    let mut rows: Vec<Vec<Text>> = groups
        .into_iter()
        .take(MOST_ROWS)
        .map(|(node, count, cells)| match count {
            1 => prepend(node, cells),
            _ => prepend(format!("{node} (+{} like it)", human::count(count - 1)), cells),
        })
        .collect();
    if left_out > 0 {
        let label = format!("({} not shown)", human::counted(left_out, "node"));
        rows.push(prepend(label, vec![Text::default(); columns]));
    }
    rows
}

const fn urgency(tone: Tone) -> u8 {
    match tone {
        Tone::Bad => 0,
        Tone::Busy => 1,
        Tone::Plain => 2,
        Tone::Good => 3,
    }
}

#[cfg(test)]
mod tests;
