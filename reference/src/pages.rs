//! Reference pages: `kubectl coral`, a page for each verb, and what the servers can be told.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory};

use crate::markdown::{default, fence, meaning, prose, spelling, table};

const HEADER: &str = "<!-- Written by `cargo xtask generate` from the command line itself. Change that. -->\n\n";
/// Heading of flags that have none.
const OPTIONS: &str = "Options";

/// The pages, with their names.
pub(crate) fn pages() -> Vec<(String, String)> {
    let mut root = kubectl_coral::command().disable_help_subcommand(true);
    root.build();
    let servers = [
        server::<coral_agent::Args>(),
        server::<coral_agent::relay::RelayArgs>(),
        server::<coral_agent::restart::RestartArgs>(),
        server::<coral_controller::Args>(),
        server::<coral_mirror::Args>(),
        server::<coral_webhook::Args>(),
    ];
    let mut pages = vec![("README.md".to_owned(), index(&root, &servers))];
    pages.extend(below(&root).into_iter().map(|verb| (file(verb), verb_page(verb))));
    pages.extend(servers.iter().map(|server| (file(server), server_page(server))));
    pages
        .into_iter()
        .map(|(name, text)| (name, format!("{HEADER}{}\n", text.trim_end())))
        .collect()
}

fn server<C: CommandFactory>() -> Command {
    let mut command = C::command();
    command.build();
    command
}

/// The verbs of a command.
fn verbs(command: &Command) -> impl Iterator<Item = &Command> {
    let verbs = command.get_subcommands();
    verbs.filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
}

/// The verbs of a command, and theirs.
pub(crate) fn below(command: &Command) -> Vec<&Command> {
    verbs(command)
        .flat_map(|verb| [vec![verb], below(verb)].concat())
        .collect()
}

/// A table of links to the pages of verbs.
fn links(command: &Command) -> String {
    let rows: Vec<[String; 2]> = verbs(command)
        .map(|verb| [format!("[`{}`]({})", verb.get_name(), file(verb)), about(verb)])
        .collect();
    table(["verb", "does"], &rows)
}

fn file(command: &Command) -> String {
    format!(
        "{}.md",
        command.get_display_name().unwrap_or_else(|| command.get_name())
    )
}

fn index(root: &Command, servers: &[Command]) -> String {
    let mut page = String::from("# Reference\n\n## kubectl coral\n\n");
    page.push_str(&links(root));
    page.push_str("The same is in [manual pages](man/), and in `kubectl coral VERB --help`.\n\n");
    let shared: Vec<&Arg> = root.get_arguments().filter(|flag| flag.is_global_set()).collect();
    page.push_str("### Cluster options\n\nEvery verb has them, as kubectl has.\n\n");
    page.push_str(&flags(&shared));
    if let Some(text) = root.get_after_help() {
        page.push_str("### Exit codes\n\n");
        let text = text.to_string();
        page.push_str(&fence("text", text.strip_prefix("Exit codes:").unwrap_or(&text)));
    }
    page.push_str("## The parts in the cluster\n\n");
    let rows: Vec<[String; 2]> = servers
        .iter()
        .map(|server| [format!("[`{}`]({})", server.get_name(), file(server)), about(server)])
        .collect();
    page.push_str(&table(["program", "does"], &rows));
    page
}

fn verb_page(verb: &Command) -> String {
    let mut page = format!("# {}\n\n", verb.get_bin_name().unwrap_or_else(|| verb.get_name()));
    let text = verb.get_long_about().or_else(|| verb.get_about());
    page.push_str(&prose(&text.map(ToString::to_string).unwrap_or_default()));
    let usage = verb.clone().render_usage().to_string();
    page.push_str(&fence("text", usage.trim_start_matches("Usage:").trim()));
    if let Some(text) = verb.get_after_help() {
        let text = text.to_string();
        match text.strip_prefix("Examples:\n") {
            Some(examples) => {
                page.push_str("## Examples\n\n");
                page.push_str(&fence("sh", examples));
            }
            None => page.push_str(&fence("text", &text)),
        }
    }
    if verb.has_subcommands() {
        page.push_str("## Verbs\n\n");
        page.push_str(&links(verb));
    }
    let places: Vec<&Arg> = verb.get_positionals().collect();
    if !places.is_empty() {
        page.push_str("## Arguments\n\n");
        let rows: Vec<[String; 2]> = places.iter().map(|place| [spelling(place), meaning(place)]).collect();
        page.push_str(&table(["argument", "means"], &rows));
    }
    for (heading, shown) in groups(verb) {
        let _ = writeln!(page, "## {heading}\n");
        page.push_str(&flags(&shown));
    }
    page.push_str("The [cluster options](README.md#cluster-options) are those of every verb.\n");
    page
}

fn server_page(server: &Command) -> String {
    let mut page = format!(
        "# {}\n\n{}.\n\n",
        server.get_name(),
        about(server).trim_end_matches('.')
    );
    page.push_str("A flag wins over its environment variable.\n\n");
    for (heading, shown) in groups(server) {
        let _ = writeln!(page, "## {heading}\n");
        let rows: Vec<[String; 4]> = shown
            .iter()
            .map(|flag| {
                let variable = flag.get_env().map(|name| format!("`{}`", name.to_string_lossy()));
                [
                    spelling(flag),
                    variable.unwrap_or_default(),
                    default(flag),
                    meaning(flag),
                ]
            })
            .collect();
        page.push_str(&table(["flag", "environment", "default", "means"], &rows));
    }
    page
}

/// The flags under their headings, in the order of the help.
fn groups(command: &Command) -> Vec<(String, Vec<&Arg>)> {
    let mut groups: Vec<(String, Vec<&Arg>)> = Vec::new();
    let shown = command.get_arguments().filter(|argument| {
        let is_own = !["help", "version"].contains(&argument.get_id().as_str());
        is_own && !argument.is_positional() && !argument.is_global_set() && !argument.is_hide_set()
    });
    for flag in shown {
        let heading = flag.get_help_heading().unwrap_or(OPTIONS);
        match groups.iter_mut().find(|(known, _)| known == heading) {
            Some((_, flags)) => flags.push(flag),
            None => groups.push((heading.to_owned(), vec![flag])),
        }
    }
    groups
}

fn flags(flags: &[&Arg]) -> String {
    let rows: Vec<[String; 3]> = flags
        .iter()
        .map(|flag| [spelling(flag), default(flag), meaning(flag)])
        .collect();
    table(["flag", "default", "means"], &rows)
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(name: &str) -> String {
        let found = pages().into_iter().find(|(found, _)| found == name);
        found.map(|(_, text)| text).unwrap()
    }

    #[test]
    fn a_verb_has_its_flags_and_links_to_those_of_all() {
        let page = page("kubectl-coral-status.md");
        assert!(page.contains("\n# kubectl coral status\n"), "{page}");
        assert!(page.contains("| `-o`, `--output FORMAT` | `table` |"), "{page}");
        assert!(!page.contains("--kubeconfig"), "{page}");
        assert!(page.contains("README.md#cluster-options"), "{page}");
    }

    #[test]
    fn verbs_of_verbs_have_pages_of_their_own() {
        let mut root = Command::new("coral")
            .bin_name("kubectl coral")
            .subcommand(Command::new("mirror").subcommand(Command::new("gc").about("Clean")));
        root.build();
        let names: Vec<String> = below(&root).into_iter().map(file).collect();
        assert_eq!(names, ["coral-mirror.md", "coral-mirror-gc.md"]);
        let page = verb_page(below(&root)[0]);
        assert!(page.starts_with("# kubectl coral mirror\n"), "{page}");
        assert!(page.contains("| [`gc`](coral-mirror-gc.md) | Clean |"), "{page}");
    }

    #[test]
    fn a_server_has_the_variables_of_its_flags() {
        let page = page("coral-agent.md");
        assert!(page.contains("| `CORAL_MAX_PARALLEL_PULLS` | `4` |"), "{page}");
    }

    #[test]
    fn links_lead_somewhere() {
        let pages = pages();
        let (_, index) = &pages[0];
        let links = index.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for link in links.filter(|link| *link != "man/") {
            assert!(pages.iter().any(|(known, _)| known == link), "{link}");
        }
    }
}
