//! Manual pages of `kubectl coral`, one for each verb.

use anyhow::Context as _;
use clap::Command;
use clap_mangen::Man;

use crate::pages::below;

/// Folder of the manual pages, in that of all pages.
const FOLDER: &str = "man";

/// The pages, with their paths.
pub(crate) fn pages() -> anyhow::Result<Vec<(String, String)>> {
    let mut root = kubectl_coral::command().disable_help_subcommand(true);
    root.build();
    [&root].into_iter().chain(below(&root)).map(page).collect()
}

fn page(command: &Command) -> anyhow::Result<(String, String)> {
    // No version and no date: a page changes when what it says changes.
    let command = command.clone().mut_args(|flag| flag.hide_short_help(false));
    let page = Man::new(command).source("Coral").manual("kubectl coral");
    let path = format!("{FOLDER}/{}", page.get_filename());
    let mut text = Vec::new();
    page.render(&mut text)
        .with_context(|| format!("failed to write {path}"))?;
    let text = String::from_utf8(text).with_context(|| format!("{path} is not in UTF-8"))?;
    Ok((path, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_has_a_page_that_names_its_flags() {
        let pages = pages().unwrap();
        let page = |name: &str| {
            let path = format!("{FOLDER}/{name}.1");
            let found = pages.iter().find(|(found, _)| *found == path);
            found.map(|(_, text)| text.replace("\\-", "-")).unwrap()
        };
        assert!(page("kubectl-coral").contains("kubectl-coral-status(1)"));
        assert!(page("kubectl-coral-prefetch").contains("--node-selector"));
        // What the short help leaves out is told here.
        assert!(page("kubectl-coral-status").contains("User to impersonate"));
    }
}
