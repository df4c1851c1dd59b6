//! The `diptych` command: the words of the command line, and exit codes.
mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let result = cli::CommandLine::parse().run();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our results has seen enough.
        Err(error) if diptych::run::output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.report());
            ExitCode::from(error.exit_code())
        }
    }
}
