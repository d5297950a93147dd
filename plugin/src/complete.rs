//! What may come next on a command line: kubectl's own completion of plugins.
//!
//! ```text
//!   kubectl __complete coral status w ──runs──► kubectl_complete-coral status w
//!                                                    │
//!       clap's tree ──► question ──► kind ──► names of the cluster ──► answer
//!                       (pure)      (pure)      (2 s at most)        value TAB description, …, :directive
//! ```
//!
//! Nobody wants to read an error while typing: whatever fails, fewer words are offered, and nothing is said.

mod answer;
mod kind;
mod names;
mod question;

use std::{ffi::OsString, path::Path, time::Duration};

use clap::Command;

use self::{
    answer::{Answer, Candidate},
    kind::Kind,
    question::{Question, Wanted},
};
use crate::{cli::ClusterArgs, human, manifests, workload::KINDS};

/// The file that kubectl looks for on the PATH. The program under this name completes.
const FILE_NAME: &str = "kubectl_complete-coral";
/// The first word of a command line that asks for completion. Cobra's programs have the same.
const VERB: &str = "__complete";
/// How long all requests for one key press may take together.
const PATIENCE: Duration = Duration::from_secs(2);

/// The words to complete, if that is what the process was started for. The last one is being typed, and may be empty.
pub(crate) fn asked(mut arguments: impl Iterator<Item = OsString>) -> Option<Vec<String>> {
    let program = arguments.next()?;
    let mut arguments = arguments.map(|word| word.to_string_lossy().into_owned()).peekable();
    let is_completer = Path::new(&program).file_stem().is_some_and(|stem| stem == FILE_NAME);
    if is_completer || arguments.next_if(|word| word == VERB).is_some() {
        return Some(arguments.collect());
    }
    None
}

/// The lines for kubectl.
pub(crate) fn answer(mut root: Command, words: &[String]) -> String {
    root.build();
    let question = Question::read(&root, words);
    let answer = match question.wanted {
        Wanted::Verb => verbs(question.command),
        Wanted::Flag => flags(&question),
        Wanted::Value(argument) => values(&question, argument),
        Wanted::Nothing => Answer::default(),
    };
    answer.starting_with(question.word).to_string()
}

fn verbs(command: &Command) -> Answer {
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    Answer::of(
        verbs.map(|verb| Candidate::described(verb.get_name(), verb.get_about().map(ToString::to_string).as_deref())),
    )
}

fn flags(question: &Question<'_>) -> Answer {
    let offered = question
        .command
        .get_arguments()
        .filter(|flag| !flag.is_hide_set() && !question.is_settled(flag));
    Answer::of(offered.filter_map(|flag| {
        let help = flag.get_help().map(ToString::to_string);
        Some(Candidate::described(
            &format!("--{}", flag.get_long()?),
            help.as_deref(),
        ))
    }))
}

fn values(question: &Question<'_>, argument: &clap::Arg) -> Answer {
    let possible: Vec<_> = argument.get_possible_values();
    if argument.get_action().takes_values() && !possible.is_empty() {
        let shown = possible.iter().filter(|value| !value.is_hide_set());
        return Answer::of(shown.map(|value| {
            let help = value.get_help().map(ToString::to_string);
            Candidate::described(value.get_name(), help.as_deref())
        }));
    }
    match kind::of(question.command.get_name(), argument.get_id().as_str()) {
        None => Answer::default(),
        Some(Kind::File) => Answer::files(),
        Some(Kind::Workload) if !question.word.contains('/') => Answer::unfinished(
            KINDS
                .iter()
                .map(|kind| Candidate::plain(format!("{}/", kind.name.to_lowercase()))),
        ),
        Some(Kind::Component) => {
            let components = manifests::components().into_iter();
            Answer::of(components.map(|name| Candidate::plain(name.to_owned())))
        }
        Some(kind) => {
            // What stands before the name being typed is part of the same word: `deploy/we`, `node-1,no`. Images have slashes of
            // their own.
            let separators: &[char] = match kind {
                Kind::Image | Kind::PrefetchedImage | Kind::MirroredImage => &[],
                _ => &[',', '/'],
            };
            let start = question.word.rfind(separators).map_or(0, |at| at + 1);
            let (kept, name) = question.word.split_at(start);
            let earlier = question.values(argument.get_id().as_str());
            let found = names::find(kind, question, kept, name);
            Answer::of(
                found
                    .into_iter()
                    .filter(|name| !earlier.contains(&name.as_str()) && !kept.split(',').any(|other| other == name))
                    .map(|name| Candidate::plain(format!("{kept}{name}"))),
            )
        }
    }
}

/// The cluster that the words so far name, with less patience than a command has.
fn cluster(question: &Question<'_>) -> ClusterArgs {
    let value = |id| question.values(id).last().map(|value| (*value).to_owned());
    let asked = value("request_timeout").and_then(|text| human::parse_duration(&text).ok());
    ClusterArgs {
        namespace: value("namespace"),
        context: value("context"),
        kubeconfig: value("kubeconfig").map(Into::into),
        cluster: value("cluster"),
        user: value("user"),
        impersonate: value("impersonate"),
        impersonate_groups: question
            .values("impersonate_groups")
            .into_iter()
            .map(str::to_owned)
            .collect(),
        request_timeout: asked
            .filter(|timeout| !timeout.is_zero())
            .map_or(PATIENCE, |timeout| timeout.min(PATIENCE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        answer(crate::command(), &words).lines().map(str::to_owned).collect()
    }

    /// Without descriptions and the directive.
    fn offered(words: &[&str]) -> Vec<String> {
        let lines = complete(words);
        let (_, values) = lines.split_last().unwrap();
        let value = |line: &String| line.split('\t').next().unwrap().to_owned();
        values.iter().map(value).collect()
    }

    #[test]
    fn the_name_of_the_program_or_the_first_word_asks() {
        let asked = |words: &[&str]| asked(words.iter().map(OsString::from));
        assert_eq!(
            asked(&["/usr/bin/kubectl_complete-coral", "status", ""]),
            Some(vec!["status".to_owned(), String::new()])
        );
        assert_eq!(asked(&["kubectl_complete-coral.exe", "a"]), Some(vec!["a".to_owned()]));
        assert_eq!(asked(&["kubectl-coral", "__complete", "a"]), Some(vec!["a".to_owned()]));
        assert_eq!(asked(&["kubectl-coral", "status", "__complete"]), None);
        assert_eq!(asked(&["kubectl-coral"]), None);
    }

    #[test]
    fn verbs_come_with_what_they_do_and_no_file_names() {
        let lines = complete(&["pre"]);
        assert_eq!(lines, ["prefetch\tHave images on nodes before anyone needs them", ":4"]);
        assert!(offered(&[""]).contains(&"status".to_owned()));
        assert_eq!(offered(&["-n", "shop", "stat"]), ["status"]);
        assert_eq!(offered(&["help", "stat"]), ["status"]);
        assert_eq!(complete(&["nothing", ""]), [":4"]);
    }

    #[test]
    fn flags_of_the_verb_and_of_kubectl_are_offered_once() {
        assert_eq!(offered(&["status", "--no-h"]), ["--no-headers"]);
        assert_eq!(offered(&["status", "--context"]), ["--context"]);
        assert_eq!(offered(&["status", "--no-headers", "--no-h"]), [""; 0]);
        // It may be repeated.
        assert_eq!(offered(&["status", "--image", "a", "--im"]), ["--image"]);
        assert!(offered(&["status", "-"]).contains(&"--watch".to_owned()));
        assert_eq!(offered(&["status", "--", "--no-h"]), [""; 0]);
    }

    #[test]
    fn choices_are_those_of_the_flag() {
        assert_eq!(
            offered(&["status", "-o", ""]),
            ["json", "name", "table", "wide", "yaml"]
        );
        assert_eq!(offered(&["status", "--output=j"]), ["json"]);
        assert_eq!(offered(&["prefetch", "--dry-run", "c"]), ["client"]);
        assert_eq!(offered(&["inject", "--pull-policy=if"]), [""; 0]);
        assert_eq!(offered(&["completion", "z"]), ["zsh"]);
    }

    #[test]
    fn types_of_workloads_wait_for_their_names() {
        assert_eq!(complete(&["inject", "dep"]), ["deployment/", ":6"]);
        assert_eq!(complete(&["prefetch", "--from", "stateful"]), ["statefulset/", ":6"]);
    }

    #[test]
    fn files_are_the_shell_s_business() {
        assert_eq!(complete(&["prefetch", "-f", "man"]), [":0"]);
        assert_eq!(complete(&["status", "--kubeconfig", ""]), [":0"]);
        assert_eq!(complete(&["prefetch", "--timeout", ""]), [":4"]);
    }
}
