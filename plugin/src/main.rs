//! `kubectl-coral`, the command. The library beside it has the parts.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_coral::run()
}
