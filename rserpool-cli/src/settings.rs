//! Settings of commands from a file and from the environment, below those of the command line.
//!
//! The keys of the file are the names of the options. So a setting from a file or from the
//! environment becomes an option, unless the command line has it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Command};
use toml::de::{DeTable, DeValue};

/// Name of the option for the file. Commands that have it have settings.
const FILE_OPTION: &str = "config";

/// Options that are not settings: what they do concerns one call of the command.
const NOT_SETTINGS: [&str; 6] = [FILE_OPTION, "json", "until-eof", "verbose", "help", "version"];

/// Prefix of the variables: `RSERPOOL_PEER` is the option `--peer`.
pub(crate) const PREFIX: &str = "RSERPOOL_";

/// Adds to the arguments of the program what the file of `--config` and the environment set.
/// Arguments that are not valid, or of a command without settings, are returned as they are.
///
/// # Errors
///
/// Returns an error if the file cannot be read, has an unknown key, or a value that the option does
/// not take; or if a variable has such a value.
pub(crate) fn complete(
    program: &Command,
    mut arguments: Vec<OsString>,
) -> anyhow::Result<Vec<OsString>> {
    // What an option needs may be in the file.
    let matches = match program.clone().try_get_matches_from(&arguments) {
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            program.clone().ignore_errors(true).try_get_matches_from(&arguments)
        }
        matches => matches,
    };
    let Ok(matches) = matches else { return Ok(arguments) };
    let Some((name, given)) = matches.subcommand() else { return Ok(arguments) };
    let Some(command) = program.find_subcommand(name) else { return Ok(arguments) };
    if !command.get_arguments().any(|option| option.get_long() == Some(FILE_OPTION)) {
        return Ok(arguments);
    }
    let variables = from_environment(command, |name| std::env::var_os(name))?;
    let file = given.get_one::<PathBuf>(FILE_OPTION);
    let from_file = file.map(|file| from_file(command, file)).transpose()?.unwrap_or_default();
    let below =
        from_file.into_iter().filter(|(name, _)| variables.iter().all(|(it, _)| it != name));
    let (mut options, mut values, mut rest) = (Vec::new(), BTreeMap::new(), Vec::new());
    for (name, set) in below.chain(variables.clone()) {
        let Some(option) = settings(command).find(|option| key_of(option) == name) else {
            continue;
        };
        let is_given = |option: &Arg| {
            given.value_source(option.get_id().as_str()) == Some(ValueSource::CommandLine)
        };
        let conflicts = |one: &Arg, other: &Arg| {
            command.get_arg_conflicts_with(one).iter().any(|it| it.get_id() == other.get_id())
        };
        let gives_way =
            |other: &Arg| is_given(other) && (conflicts(option, other) || conflicts(other, option));
        if is_given(option) || command.get_arguments().any(gives_way) {
            continue;
        }
        match option.get_index() {
            None => options.extend(set),
            Some(_) if option.is_last_set() => rest = set,
            Some(index) => drop(values.insert(index, set)),
        }
    }
    // The values come behind those of the command line, and the last ones behind two dashes.
    let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    arguments.splice(end..end, values.into_values().flatten());
    if !rest.is_empty() {
        arguments.push("--".into());
        arguments.extend(rest);
    }
    let place = arguments.iter().position(|argument| argument == name).unwrap_or_default() + 1;
    arguments.splice(place..place, options);
    Ok(arguments)
}

/// Returns the name of a setting: that of its option, or of its value where it has no option.
fn key_of(option: &Arg) -> &str {
    option.get_long().unwrap_or(option.get_id().as_str())
}

/// An option's name, and the arguments that set it.
type Setting = (String, Vec<OsString>);

/// Returns the options of a command that are settings.
fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|option| {
        // As a flag, --check only checks the settings.
        let is_check = key_of(option) == "check" && is_flag(option);
        !NOT_SETTINGS.contains(&key_of(option)) && !is_check
    })
}

fn is_flag(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::SetTrue)
}

fn takes_several(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Append)
}

/// Returns an option as an argument, after checking that the command takes it.
fn argument(command: &Command, name: &str, value: Option<&str>) -> Result<OsString, String> {
    let argument: OsString = match value {
        Some(value) => format!("--{name}={value}").into(),
        None => format!("--{name}").into(),
    };
    match command
        .clone()
        .try_get_matches_from([OsString::from(command.get_name()), argument.clone()])
    {
        Ok(_) => Ok(argument),
        // Options that need others are checked when all are known.
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => Ok(argument),
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            Err(first.trim_start_matches("error: ").to_owned())
        }
    }
}

fn from_environment(
    command: &Command,
    variable: impl Fn(&str) -> Option<OsString>,
) -> anyhow::Result<Vec<Setting>> {
    let mut found = Vec::new();
    for option in settings(command) {
        let Some(name) = option.get_long() else { continue };
        let key = format!("{PREFIX}{}", name.to_uppercase().replace('-', "_"));
        let Some(value) = variable(&key) else { continue };
        let value = value.to_str().with_context(|| format!("{key} is not text"))?;
        let values = match value {
            "true" if is_flag(option) => vec![None],
            "false" if is_flag(option) => Vec::new(),
            _ if is_flag(option) => bail!("{key}: write true or false"),
            value if takes_several(option) => {
                // Other values may have commas themselves.
                let names = option.get_value_names().unwrap_or_default();
                let is_list = names.iter().any(|name| ["ADDR", "RANGE"].contains(&name.as_str()));
                let items = value.split(|it| it == '\n' || (it == ',' && is_list));
                items.map(str::trim).filter(|item| !item.is_empty()).map(Some).collect()
            }
            value => vec![Some(value)],
        };
        let arguments = values.into_iter().map(|value| argument(command, name, value));
        let arguments: Result<_, _> = arguments.collect();
        found
            .push((name.to_owned(), arguments.map_err(|error| anyhow::anyhow!("{key}: {error}"))?));
    }
    Ok(found)
}

fn from_file(command: &Command, file: &Path) -> anyhow::Result<Vec<Setting>> {
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("--{FILE_OPTION} {shown}"))?;
    let at = |span: Range<usize>| {
        let before = text.get(..span.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("{shown}:{line}:{column}")
    };
    let table = DeTable::parse(&text).map_err(|error| {
        anyhow::anyhow!("{}: {}", at(error.span().unwrap_or_default()), error.message())
    })?;
    let mut found = Vec::new();
    for (key, value) in table.into_inner() {
        let name = key.get_ref().to_string();
        let Some(option) = settings(command).find(|option| key_of(option) == name) else {
            bail!(
                "{}: there is no setting {name:?}; the settings are the options of `rserpool {}`",
                at(key.span()),
                command.get_name()
            )
        };
        let several = match value.get_ref() {
            DeValue::Array(items) if takes_several(option) => {
                items.iter().map(|item| (item.get_ref(), item.span())).collect()
            }
            single => vec![(single, value.span())],
        };
        let mut arguments = Vec::new();
        for (value, span) in several {
            let text = match value {
                DeValue::Boolean(true) if is_flag(option) => None,
                DeValue::Boolean(false) if is_flag(option) => continue,
                _ if is_flag(option) => bail!("{}: write true or false", at(span)),
                DeValue::String(text) => Some(text.to_string()),
                DeValue::Integer(number) => {
                    let value = i64::from_str_radix(number.as_str(), number.radix());
                    Some(value.map_or_else(|_| number.as_str().to_owned(), |it| it.to_string()))
                }
                DeValue::Float(number) => Some(number.as_str().to_owned()),
                DeValue::Array(_) => bail!("{}: {name} takes one value", at(span)),
                _ => bail!("{}: write a text or a number", at(span)),
            };
            if let Some(text) = &text
                && option.is_positional()
            {
                if text.starts_with('-') && !option.is_last_set() {
                    bail!("{}: {name} cannot begin with -", at(span));
                }
                arguments.push(text.into());
                continue;
            }
            let argument = argument(command, &name, text.as_deref());
            arguments.push(argument.map_err(|error| anyhow::anyhow!("{}: {error}", at(span)))?);
        }
        found.push((name, arguments));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const COMMAND: &str = "registrar";

    fn program() -> Command {
        let mut program = crate::Arguments::command();
        program.build();
        program
    }

    /// Returns what a file adds to the arguments, or the error.
    fn completed(text: &str, more: &[&str]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("registrar.toml");
        fs::write(&file, text).expect("a file");
        let mut arguments: Vec<OsString> = vec!["rserpool".into(), COMMAND.into()];
        arguments.extend(["--config".into(), file.clone().into_os_string()]);
        arguments.extend(more.iter().map(OsString::from));
        let count = arguments.len();
        let shown = file.display().to_string();
        let completed = complete(&program(), arguments).map_err(|error| format!("{error:#}"));
        let all = completed.map_err(|error| error.replace(&shown, "FILE"))?;
        let added = all.len() - count;
        let texts = all.into_iter().skip(2).take(added);
        Ok(texts.map(|text| text.into_string().expect("text")).collect())
    }

    #[test]
    fn settings_of_a_file_become_options() {
        let text = "# mine\nasap = \"192.0.2.1\"\nno-announce = true\nmax-resolutions = 1_000\n\
                    keep-alive-interval = 0.5\npeer = [\"192.0.2.2\", \"192.0.2.3:9901\"]\n";
        let mut options = completed(text, &[]).unwrap();
        options.sort();
        assert_eq!(
            options,
            [
                "--asap=192.0.2.1",
                "--keep-alive-interval=0.5",
                "--max-resolutions=1000",
                "--no-announce",
                "--peer=192.0.2.2",
                "--peer=192.0.2.3:9901",
            ]
        );
        let numbers = completed("identifier = 0x1234\nitems = 0b11\n", &[]).unwrap();
        assert_eq!(numbers, ["--identifier=4660", "--items=3"]);
        // The command line has precedence.
        let options = completed(text, &["--peer", "192.0.2.9", "--max-resolutions", "7"]).unwrap();
        assert_eq!(options.len(), 3, "{options:?}");
        assert_eq!(completed("no-announce = false", &[]).unwrap().len(), 0);
    }

    #[test]
    fn mistakes_in_a_file_are_named_with_their_place() {
        for (text, expected) in [
            ("max-resolution = 1", "FILE:1:1: there is no setting \"max-resolution\""),
            ("json = true", "FILE:1:1: there is no setting \"json\""),
            ("\n  max-resolutions = \"x\"", "FILE:2:21: invalid value 'x'"),
            ("no-announce = 1", "FILE:1:15: write true or false"),
            ("max-resolutions = [1, 2]", "FILE:1:19: max-resolutions takes one value"),
            ("max-resolutions = -1", "FILE:1:19: invalid value '-1'"),
            ("peer = [\"192.0.2.1\", \"?\"]", "FILE:1:22: invalid value '?'"),
            ("[registrar]\nasap = 1", "FILE:1:2: there is no setting \"registrar\""),
            ("asap = ", "FILE:1:"),
            ("asap = \"192.0.2.1\"\nasap = \"192.0.2.1\"", "FILE:2:1: duplicate key"),
        ] {
            let error = completed(text, &[]).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn variables_are_between_the_file_and_the_command_line() {
        let program = program();
        let command = program.find_subcommand(COMMAND).expect("the command");
        let set = |name: &'static str, value: &'static str| {
            from_environment(command, move |key| (key == name).then(|| value.into()))
        };
        let peers = set("RSERPOOL_PEER", "192.0.2.2, 192.0.2.3").unwrap();
        assert_eq!(
            peers,
            [("peer".to_owned(), vec!["--peer=192.0.2.2".into(), "--peer=192.0.2.3".into()])]
        );
        assert_eq!(set("RSERPOOL_NO_ANNOUNCE", "true").unwrap()[0].1, ["--no-announce"]);
        assert!(set("RSERPOOL_JSON", "true").unwrap().is_empty());
        // Turned off, whatever the file says.
        assert_eq!(set("RSERPOOL_NO_ANNOUNCE", "false").unwrap()[0].1.len(), 0);
        let policies = "7=order:max(load, 3)\n8=weight:load";
        let policies = set("RSERPOOL_DEFINE_POLICY", policies).unwrap().remove(0).1;
        assert_eq!(
            policies,
            ["--define-policy=7=order:max(load, 3)", "--define-policy=8=weight:load"]
        );
        assert_eq!(set("RSERPOOL_PEER", "").unwrap()[0].1.len(), 0);
        let error = set("RSERPOOL_MAX_RESOLUTIONS", "many").unwrap_err().to_string();
        assert!(error.starts_with("RSERPOOL_MAX_RESOLUTIONS: invalid value 'many'"), "{error}");
    }

    /// The example has all settings. Each is valid with the value that it has there, except that files
    /// are missing.
    #[test]
    fn the_example_is_complete() {
        let example = include_str!("../registrar.toml");
        let program = program();
        let command = program.find_subcommand(COMMAND).expect("the command");
        let mut text = String::new();
        for option in settings(command) {
            let name = option.get_long().expect("a long name");
            let setting = format!("#{name} = ");
            let line = example.lines().find(|line| line.starts_with(&setting));
            let line = line.unwrap_or_else(|| panic!("there is no {setting}"));
            text.push_str(line.trim_start_matches('#'));
            text.push('\n');
        }
        let count = example.lines().filter(|line| {
            line.strip_prefix('#')
                .is_some_and(|rest| rest.starts_with(|it: char| it.is_ascii_lowercase()))
        });
        assert_eq!(count.count(), text.lines().count(), "a setting that does not exist");
        completed(&text, &[]).unwrap();
        assert_eq!(completed(example, &[]).unwrap().len(), 0);
    }
}
