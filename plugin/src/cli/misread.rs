//! `mirror` has verbs and, where there is none, images: what is neither, and what is both.

use std::ffi::OsString;

use clap::{
    ArgMatches, Command, CommandFactory as _, FromArgMatches as _,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};

use super::Cli;
use crate::near;

/// The command that takes images where another has verbs only.
const MIRROR: &str = "mirror";
/// What no verb has, and most images do.
const OF_IMAGES: [char; 4] = ['/', ':', '@', '.'];

/// Reads a command line, with the program as its first word.
pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut command = Cli::command();
    match command.try_get_matches_from_mut(&arguments) {
        Ok(matches) => match mixed(&mut command, &matches) {
            Some(error) => Err(error),
            None => Cli::from_arg_matches(&matches),
        },
        Err(error) if error.use_stderr() => Err(misspelt(&mut command, &arguments).unwrap_or(error)),
        Err(help) => Err(help),
    }
}

/// The complaint about a verb with what belongs to images in front of it.
fn mixed(command: &mut Command, matches: &ArgMatches) -> Option<clap::Error> {
    let matches = matches.subcommand_matches(MIRROR)?;
    let verb = matches.subcommand_name()?;
    let mirror = command.find_subcommand_mut(MIRROR)?;
    let is_given = |argument: &&clap::Arg| {
        let id = argument.get_id().as_str();
        !argument.is_global_set()
            && matches.try_contains_id(id).is_ok()
            && matches.value_source(id) == Some(ValueSource::CommandLine)
    };
    let given = mirror.get_arguments().find(is_given)?.to_string();
    let message = format!("the verb '{verb}' cannot be used with '{given}' in front of it");
    Some(mirror.error(ErrorKind::ArgumentConflict, message))
}

/// The complaint about a word that was probably meant as a verb: a command line that is wrong anyway is not about an image of that name.
fn misspelt(command: &mut Command, arguments: &[OsString]) -> Option<clap::Error> {
    let matches = command
        .clone()
        .ignore_errors(true)
        .try_get_matches_from(arguments)
        .ok()?;
    let matches = matches.subcommand_matches(MIRROR)?;
    if matches.subcommand_name().is_some() || matches.contains_id("to") {
        return None;
    }
    let word: &String = matches.get_many("mirrored")?.next()?;
    if word.contains(OF_IMAGES) {
        return None;
    }
    let mirror = command.find_subcommand_mut(MIRROR)?;
    let verbs = mirror.get_subcommands().map(Command::get_name);
    let near: Vec<String> = near::nearest(word, verbs).into_iter().map(str::to_owned).collect();
    if near.is_empty() {
        return None;
    }
    let usage = mirror.render_usage();
    let mut error = clap::Error::new(ErrorKind::InvalidSubcommand).with_cmd(mirror);
    error.insert(ContextKind::InvalidSubcommand, ContextValue::String(word.clone()));
    error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(near));
    error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    Some(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(words: &str) -> Option<String> {
        let words = ["kubectl-coral", MIRROR].into_iter().chain(words.split_whitespace());
        read(words.map(OsString::from)).err().map(|error| error.to_string())
    }

    #[test]
    fn a_verb_that_is_misspelt_is_told() {
        for (words, verb) in [
            ("statsu", "status"),
            ("-n shop statsu", "status"),
            ("statsu --failed -o wide", "status"),
            ("chekc nginx:1.29", "check"),
            ("cpoy nginx:1.29 r.lan/", "copy"),
            ("cg --dry-run", "gc"),
        ] {
            let said = refusal(words).unwrap();
            assert!(said.contains("unrecognized subcommand"), "{words}: {said}");
            assert!(said.contains(&format!("'{verb}'")), "{words}: {said}");
            assert!(said.contains("Usage: kubectl coral mirror"), "{words}: {said}");
        }
    }

    #[test]
    fn images_are_no_verbs() {
        for words in ["nginx", "status:v1", "r.lan/status", "quite-another"] {
            let said = refusal(words).unwrap();
            assert!(said.contains("--to <"), "{words}: {said}");
        }
        for words in ["gcc --to r.lan", "--to r.lan -- status", "copycat --to r.lan/m"] {
            assert_eq!(refusal(words), None, "{words}");
        }
    }

    #[test]
    fn flags_of_all_commands_may_stand_in_front_of_a_verb() {
        for words in [
            "-n shop status",
            "--context dev check nginx",
            "--kubeconfig f gc --dry-run",
            "status -n shop",
        ] {
            assert_eq!(refusal(words), None, "{words}");
        }
        for (words, given) in [("--to r.lan status", "--to"), ("--discover -n shop gc", "--discover")] {
            let said = refusal(words).unwrap();
            assert!(said.contains(given), "{words}: {said}");
        }
    }
}
