//! `kubectl coral completion`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::{cli::Cli, error::Error, exit, printer::Printer};

/// Print a script that completes `kubectl-coral` in a shell
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  # in ~/.bashrc
  source <(kubectl-coral completion bash)")]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionArgs {
    /// Prints the script.
    pub(crate) fn run(self, printer: &Printer) -> Result<u8, Error> {
        let Self { shell } = self;
        let mut script = Vec::new();
        // The shell completes the file that it runs, and that has a dash.
        let mut command = Cli::command().bin_name("kubectl-coral");
        clap_complete::generate(shell, &mut command, "kubectl-coral", &mut script);
        printer.data(String::from_utf8_lossy(&script))?;
        Ok(exit::SUCCESS)
    }
}
