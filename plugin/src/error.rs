//! Everything that can end a command, and how it ends.

use std::{io, process::ExitCode};

use crate::{
    client::{ConnectError, RequestError},
    exit,
    images::InvalidImages,
    printer::Printer,
    wait,
};

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Images(#[from] InvalidImages),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("failed to apply prefetch {namespace}/{name}: {message}")]
    FieldConflict {
        namespace: String,
        name: String,
        message: String,
    },
    #[error("prefetch {} not found in namespace {namespace}", quoted(.names))]
    NoSuchPrefetch {
        namespace: String,
        names: Vec<String>,
        near: Vec<String>,
    },
    #[error(transparent)]
    Wait(#[from] wait::Error),
    #[error("failed to write the output: {0}")]
    Output(#[from] io::Error),
    #[error("failed to start: {0}")]
    Runtime(io::Error),
    #[error("failed to write an object as text: {0}")]
    Format(String),
}

impl Error {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Images(error) => error.hint(),
            Self::Connect(error) => error.hint(),
            Self::Request(error) => error.hint(),
            Self::FieldConflict { .. } => Some(
                "somebody else manages these fields: change them there, or make a Prefetch of your own with another --name"
                    .to_owned(),
            ),
            Self::NoSuchPrefetch { near, namespace, .. } if near.is_empty() => Some(format!(
                "`kubectl coral status -n {namespace}` lists those that are there, -A those of all namespaces"
            )),
            Self::NoSuchPrefetch { near, .. } => Some(format!("did you mean {}?", near.join(" or "))),
            Self::Wait(error) => error.hint(),
            Self::Output(_) | Self::Runtime(_) | Self::Format(_) => None,
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Images(_) => exit::USAGE,
            Self::Wait(error) => error.exit_code(),
            // The reader has what it wanted: `kubectl coral status | head -1`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::SUCCESS,
            _ => exit::ERROR,
        }
    }

    /// Says what happened and what to do, and gives the exit code.
    pub(crate) fn report(&self, printer: &Printer) -> ExitCode {
        let code = self.exit_code();
        if code != exit::SUCCESS {
            printer.note(format_args!("error: {self}"));
            if let Some(hint) = self.hint() {
                printer.hint(hint);
            }
        }
        ExitCode::from(code)
    }
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    names.join(", ")
}
