//! What a command line that is being typed asks for.

use clap::{Arg, ArgAction, Command};

/// A command line up to the word that is being typed.
#[derive(Debug)]
pub(super) struct Question<'a> {
    /// The verb, or the program where there is none yet.
    pub(super) command: &'a Command,
    pub(super) wanted: Wanted<'a>,
    /// What was typed of it.
    pub(super) word: &'a str,
    given: Vec<(&'a Arg, &'a str)>,
}

/// What the word that is being typed can be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    Verb,
    Flag,
    /// A value of a flag, or an argument in its place.
    Value(&'a Arg),
    Nothing,
}

impl<'a> Question<'a> {
    /// Reads the words with a command that was built, so that its verbs have the flags of all.
    pub(super) fn read(root: &'a Command, words: &'a [String]) -> Self {
        let (word, before) = words.split_last().map_or(("", words), |(word, before)| (word, before));
        let mut line = Line {
            command: root,
            given: Vec::new(),
            pending: None,
            positionals: 0,
            only_arguments: false,
        };
        for word in before {
            line.take(word);
        }
        let (wanted, word) = line.wanted(word);
        Self {
            command: line.command,
            wanted,
            word,
            given: line.given,
        }
    }

    /// The values that an argument has so far, lists taken apart.
    pub(super) fn values(&self, id: &str) -> Vec<&'a str> {
        let given = self.given.iter().filter(|(argument, _)| argument.get_id() == id);
        given
            .flat_map(|(argument, value)| match argument.get_value_delimiter() {
                Some(delimiter) => value.split(delimiter).collect(),
                None => vec![*value],
            })
            .collect()
    }

    /// Whether a flag is there.
    pub(super) fn has(&self, id: &str) -> bool {
        self.given.iter().any(|(argument, _)| argument.get_id() == id)
    }

    /// Whether a flag is there and may not come again.
    pub(super) fn is_settled(&self, flag: &Arg) -> bool {
        self.has(flag.get_id().as_str()) && !matches!(flag.get_action(), ArgAction::Append | ArgAction::Count)
    }
}

/// The words so far.
struct Line<'a> {
    command: &'a Command,
    given: Vec<(&'a Arg, &'a str)>,
    /// The flag whose value comes next.
    pending: Option<&'a Arg>,
    positionals: usize,
    /// After `--`.
    only_arguments: bool,
}

impl<'a> Line<'a> {
    fn take(&mut self, word: &'a str) {
        if let Some(flag) = self.pending.take() {
            self.given.push((flag, word));
        } else if word == "--" && !self.only_arguments {
            self.only_arguments = true;
        } else if let Some(flag) = self.flag_text(word) {
            self.take_flag(flag);
        } else if let Some(verb) = self.command.find_subcommand(word) {
            self.command = verb;
        } else {
            if let Some(argument) = self.positional() {
                self.given.push((argument, word));
            }
            self.positionals += 1;
        }
    }

    /// The word without its first dash, if it is a flag.
    fn flag_text(&self, word: &'a str) -> Option<&'a str> {
        word.strip_prefix('-')
            .filter(|rest| !rest.is_empty() && !self.only_arguments)
    }

    fn take_flag(&mut self, text: &'a str) {
        if let Some(long) = text.strip_prefix('-') {
            let (name, value) = long
                .split_once('=')
                .map_or((long, None), |(name, value)| (name, Some(value)));
            match (self.long(name), value) {
                (Some(flag), None) if takes_next_word(flag) => self.pending = Some(flag),
                (Some(flag), value) => self.given.push((flag, value.unwrap_or_default())),
                (None, _) => {}
            }
            return;
        }
        // `-Ao json` is -A and -o json; `-nshop` is -n shop.
        for (at, letter) in text.char_indices() {
            let Some(flag) = self.short(letter) else { return };
            let rest = &text[at + letter.len_utf8()..];
            if !takes_next_word(flag) {
                self.given.push((flag, ""));
            } else if rest.is_empty() {
                self.pending = Some(flag);
            } else {
                self.given.push((flag, rest.strip_prefix('=').unwrap_or(rest)));
                return;
            }
        }
    }

    fn wanted(&self, word: &'a str) -> (Wanted<'a>, &'a str) {
        if let Some(flag) = self.pending {
            return (Wanted::Value(flag), word);
        }
        if word.starts_with('-') && !self.only_arguments {
            return match word.strip_prefix("--").and_then(|long| long.split_once('=')) {
                // Shells complete what stands behind the equals sign by itself.
                Some((name, value)) => (self.long(name).map_or(Wanted::Nothing, Wanted::Value), value),
                None => (Wanted::Flag, word),
            };
        }
        if self.command.has_subcommands() && self.positionals == 0 {
            return (Wanted::Verb, word);
        }
        // A first word that is no verb has a second one only where the command has arguments beside its verbs.
        (self.positional().map_or(Wanted::Nothing, Wanted::Value), word)
    }

    fn long(&self, name: &str) -> Option<&'a Arg> {
        self.command.get_arguments().find(|flag| {
            flag.get_long() == Some(name) || flag.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
        })
    }

    fn short(&self, letter: char) -> Option<&'a Arg> {
        self.command
            .get_arguments()
            .find(|flag| flag.get_short() == Some(letter))
    }

    /// The argument whose place comes next; the last one may have many.
    fn positional(&self) -> Option<&'a Arg> {
        let mut places = self.command.get_positionals();
        let last = self.command.get_positionals().last()?;
        let is_list = matches!(last.get_action(), ArgAction::Append);
        places.nth(self.positionals).or_else(|| is_list.then_some(last))
    }
}

/// Whether the value of a flag is the word behind it.
fn takes_next_word(flag: &Arg) -> bool {
    flag.get_action().takes_values() && !flag.is_require_equals_set()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a command line wants, and its word.
    fn wanted(words: &[&str]) -> (String, String) {
        let mut root = crate::command();
        root.build();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let question = Question::read(&root, &words);
        let wanted = match question.wanted {
            Wanted::Verb => "verb".to_owned(),
            Wanted::Flag => "flag".to_owned(),
            Wanted::Value(argument) => format!("{} {}", question.command.get_name(), argument.get_id()),
            Wanted::Nothing => "nothing".to_owned(),
        };
        (wanted, question.word.to_owned())
    }

    #[test]
    fn words_before_decide_what_comes_next() {
        let cases: &[(&[&str], &str, &str)] = &[
            (&[], "verb", ""),
            (&["sta"], "verb", "sta"),
            (&["--context", "dev", "sta"], "verb", "sta"),
            (&["--context", "d"], "kubectl-coral context", "d"),
            (&["status", ""], "status names", ""),
            (&["status", "web", ""], "status names", ""),
            (&["status", "-n"], "flag", "-n"),
            (&["status", "-n", ""], "status namespace", ""),
            (&["status", "-nshop", ""], "status names", ""),
            (&["status", "-Ao", ""], "status output", ""),
            (&["status", "-Aw", ""], "status names", ""),
            (&["status", "--node=n", ""], "status names", ""),
            (&["status", "--node=n"], "status nodes", "n"),
            (&["status", "--nothing=n"], "nothing", "n"),
            (&["status", "--nothing", ""], "status names", ""),
            (&["status", "--", "-n"], "status names", "-n"),
            (&["status", "--watch", ""], "status names", ""),
            (&["prefetch", "--nodes-with", ""], "prefetch node_selector", ""),
            // Its value stands behind an equals sign, or nowhere.
            (&["inject", "--pull-policy", ""], "inject workloads", ""),
            (&["completion", "bash", ""], "nothing", ""),
            (&["stats", ""], "nothing", ""),
        ];
        for (words, expected, word) in cases {
            assert_eq!(wanted(words), ((*expected).to_owned(), (*word).to_owned()), "{words:?}");
        }
    }

    #[test]
    fn values_so_far_are_known() {
        let mut root = crate::command();
        root.build();
        let words = ["-n", "shop", "status", "web", "--node", "a,b", "--node=c", "-A", ""].map(str::to_owned);
        let question = Question::read(&root, &words);
        assert_eq!(question.values("namespace"), ["shop"]);
        assert_eq!(question.values("names"), ["web"]);
        assert_eq!(question.values("nodes"), ["a", "b", "c"]);
        assert!(question.has("all_namespaces") && !question.has("watch"));
    }
}
