//! `kubectl coral completion`

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::Shell;

use crate::{cli::Cli, error::Error, exit, printer::Printer};

/// What lets kubectl, which completes for every shell, ask this command.
const KUBECTL: &str = "\
#!/bin/sh
# Completion of `kubectl coral`. This is the file kubectl_complete-coral of a folder of your PATH, and it is executable.
exec kubectl-coral __complete \"$@\"";

/// Print a script that completes this command in a shell
#[derive(Args, Debug)]
#[command(
    long_about = "\
Print a script that completes this command in a shell.

In a shell that completes kubectl, kubectl completes its plugins, too: words, flags, and names from the cluster. For that \
it looks for the program kubectl_complete-coral on the PATH, which is what this prints. On Windows, a copy of \
kubectl-coral.exe with the name kubectl_complete-coral.exe does the same.

The scripts for shells are for kubectl-coral, with a dash, and know no names.",
    after_help = "\
Examples:
  # beside kubectl-coral
  dir=$(dirname \"$(command -v kubectl-coral)\")
  kubectl coral completion > \"$dir/kubectl_complete-coral\"
  chmod +x \"$dir/kubectl_complete-coral\"

  # in ~/.bashrc, for kubectl-coral
  source <(kubectl-coral completion bash)"
)]
pub(crate) struct CompletionArgs {
    /// What completes
    #[arg(value_enum, value_name = "SHELL", default_value = "kubectl")]
    by: Completer,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Completer {
    Kubectl,
    Bash,
    Elvish,
    Fish,
    #[value(name = "powershell")]
    PowerShell,
    Zsh,
}

impl CompletionArgs {
    /// Prints the script.
    pub(crate) fn run(self, printer: &Printer) -> Result<u8, Error> {
        let Self { by } = self;
        let shell = match by {
            Completer::Kubectl => {
                printer.data(KUBECTL)?;
                return Ok(exit::SUCCESS);
            }
            Completer::Bash => Shell::Bash,
            Completer::Elvish => Shell::Elvish,
            Completer::Fish => Shell::Fish,
            Completer::PowerShell => Shell::PowerShell,
            Completer::Zsh => Shell::Zsh,
        };
        let mut script = Vec::new();
        // The shell completes the file that it runs, and that has a dash.
        let mut command = Cli::command().bin_name("kubectl-coral");
        clap_complete::generate(shell, &mut command, "kubectl-coral", &mut script);
        printer.data(String::from_utf8_lossy(&script))?;
        Ok(exit::SUCCESS)
    }
}
