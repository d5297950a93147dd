//! What clap knows, as Markdown.

use std::fmt::Write as _;

use clap::Arg;

/// Paragraphs. Those whose lines are all indented are set as they are.
pub(crate) fn prose(text: &str) -> String {
    let mut page = String::new();
    for paragraph in text.trim_end().split("\n\n") {
        let is_set = paragraph.lines().all(|line| line.starts_with("  "));
        if is_set {
            page.push_str(&fence("text", paragraph));
        } else {
            let _ = writeln!(page, "{}\n", escape(paragraph.trim()));
        }
    }
    page
}

/// Lines that are set as they are.
pub(crate) fn fence(language: &str, text: &str) -> String {
    let lines: Vec<&str> = text.trim_matches('\n').lines().collect();
    let indents = lines.iter().filter(|line| !line.is_empty());
    let indent = indents
        .map(|line| line.len() - line.trim_start().len())
        .min()
        .unwrap_or_default();
    let lines: Vec<&str> = lines
        .iter()
        .map(|line| line.get(indent..).unwrap_or_default())
        .collect();
    format!("```{language}\n{}\n```\n\n", lines.join("\n"))
}

/// A table. Cells are Markdown already.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut page = String::new();
    let _ = writeln!(page, "| {} |", head.join(" | "));
    let _ = writeln!(page, "|{}", "---|".repeat(N));
    for row in rows {
        let cells = row.each_ref().map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(page, "| {} |", cells.join(" | "));
    }
    page.push('\n');
    page
}

/// `-o`, `--output FORMAT`, or the name of an argument in its place.
pub(crate) fn spelling(argument: &Arg) -> String {
    let value = value_name(argument);
    if argument.is_positional() {
        return format!("`{value}`");
    }
    let short = argument.get_short().map(|letter| format!("`-{letter}`"));
    let long = argument.get_long().map(|name| match value.as_str() {
        "" => format!("`--{name}`"),
        value if argument.is_require_equals_set() => format!("`--{name}[={value}]`"),
        value => format!("`--{name} {value}`"),
    });
    let spellings: Vec<String> = [short, long].into_iter().flatten().collect();
    spellings.join(", ")
}

fn value_name(argument: &Arg) -> String {
    if !argument.get_action().takes_values() {
        return String::new();
    }
    let names = argument.get_value_names().unwrap_or_default();
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// What an argument means, on one line, with what it may be.
pub(crate) fn meaning(argument: &Arg) -> String {
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let mut text = escape(&help.map(ToString::to_string).unwrap_or_default()).replace('\n', " ");
    let values = argument.get_possible_values();
    if argument.get_action().takes_values() && !values.is_empty() && !is_switch(argument) {
        let names: Vec<String> = values
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        let _ = write!(text, " ({})", names.join(", "));
    }
    text
}

/// Whether it is true or false.
fn is_switch(argument: &Arg) -> bool {
    let values = argument.get_possible_values();
    values.iter().all(|value| ["true", "false"].contains(&value.get_name()))
}

/// What an argument is where nobody says it; empty where that goes without saying.
pub(crate) fn default(argument: &Arg) -> String {
    if !argument.get_action().takes_values() {
        return String::new();
    }
    let values = argument.get_default_values().iter();
    let values: Vec<String> = values.map(|value| format!("`{}`", value.to_string_lossy())).collect();
    values.join(", ")
}

/// Text with nothing in it that Markdown would take for its own, but for what stands in backticks.
fn escape(text: &str) -> String {
    let mut is_code = false;
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '`' => is_code = !is_code,
            '<' if !is_code => {
                escaped.push_str("&lt;");
                continue;
            }
            '*' | '_' | '[' | ']' if !is_code => escaped.push('\\'),
            _ => {}
        }
        escaped.push(letter);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_what_it_is() {
        assert_eq!(escape("a <b> *c* `<d>` e_f"), "a &lt;b> \\*c\\* `<d>` e\\_f");
        assert_eq!(
            prose("One\ntwo.\n\n  a   b\n    c"),
            "One\ntwo.\n\n```text\na   b\n  c\n```\n\n"
        );
        assert_eq!(
            table(["a", "b"], &[["x|y".to_owned(), String::new()]]),
            "| a | b |\n|---|---|\n| x\\|y |  |\n\n"
        );
    }

    #[test]
    fn flags_are_spelled_as_they_are_typed() {
        let flag = Arg::new("output").short('o').long("output").value_name("FORMAT");
        assert_eq!(spelling(&flag), "`-o`, `--output FORMAT`");
        let flag = Arg::new("policy")
            .long("policy")
            .value_name("POLICY")
            .num_args(0..=1)
            .require_equals(true);
        assert_eq!(spelling(&flag), "`--policy[=POLICY]`");
        assert_eq!(spelling(&Arg::new("image").value_name("IMAGE")), "`IMAGE`");
        let choice = Arg::new("x")
            .long("x")
            .help("Which")
            .value_parser(["a", "b"])
            .default_value("a");
        assert_eq!(
            (meaning(&choice), default(&choice)),
            ("Which (`a`, `b`)".to_owned(), "`a`".to_owned())
        );
    }
}
