//! `rserpool completions` and `rserpool manual`: what packages install beside the command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

/// Print the completions of the command for a shell
#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell
    shell: Shell,
}

pub(crate) fn completions(arguments: &CompletionsArguments) -> ExitCode {
    let mut command = crate::Arguments::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(arguments.shell, &mut command, name, &mut std::io::stdout());
    ExitCode::SUCCESS
}

/// Write the manual pages of all commands
#[derive(Debug, Args)]
pub(crate) struct ManualArguments {
    /// Folder for the pages
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

pub(crate) fn manual(arguments: &ManualArguments) -> anyhow::Result<ExitCode> {
    let folder = &arguments.folder;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut command = crate::Arguments::command();
    command.build();
    write_page(&command, command.get_name(), folder)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of a command, and those of its subcommands.
fn write_page(command: &Command, name: &str, folder: &Path) -> anyhow::Result<()> {
    let mut page = Vec::new();
    // The name has to live as long as the program: there are some dozen.
    let title: &'static str = Box::leak(name.to_owned().into_boxed_str());
    clap_mangen::Man::new(command.clone().name(title)).render(&mut page)?;
    let file = folder.join(format!("{name}.1"));
    fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))?;
    for below in command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help")
    {
        write_page(below, &format!("{name}-{}", below.get_name()), folder)?;
    }
    Ok(())
}
