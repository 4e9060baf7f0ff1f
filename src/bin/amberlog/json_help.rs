//! Help of `--json`: what each verb prints.

use clap::{Arg, ArgAction, Command};

/// Verbs, with what they print as JSON.
const PRINTED: [(&str, &str); 21] = [
    ("import", "one object with every file; with --jsonl one object per file"),
    ("record", "one object with the stream, and the numbers of its lines and commits"),
    ("ls", "one object per stream; {\"next\":CURSOR} on standard error if a page follows"),
    ("cat", "one object per event"),
    ("info", "one object with the facts"),
    ("fork", "one object with the fork, and the position of the commit"),
    ("rewind", "one object with the stream, and the position of the commit"),
    ("trim", "one object with the stream, and the position of the commit"),
    ("name", "one object with the stream, and the position of the commit"),
    ("label", "one object with the stream and its labels, or the position of the commit"),
    ("data", "one object with the stream and its data, or the position of the commit"),
    ("archive", "one object with the streams, and the number that failed"),
    ("unarchive", "one object with the streams, and the number that failed"),
    ("rm", "one object with the streams, and the number that failed"),
    ("export", "with --output, one object with the numbers; the export itself is JSON Lines"),
    ("retain", "one object with what was trimmed and deleted"),
    ("compact", "one object with the bytes and files that were given back"),
    ("verify", "one object with the findings"),
    ("repair", "one object with what was done"),
    ("backup", "one object with the numbers of segments and bytes"),
    ("dump", "one object per record"),
];

/// Describes `--json` in the help of each verb.
pub(crate) fn described(command: Command) -> Command {
    PRINTED.iter().fold(command, |command, (verb, printed)| {
        let help = format!("Print JSON: {printed}");
        let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help(help);
        command.mut_subcommand(verb, |verb| verb.arg(json.global(true)))
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::CommandLine;

    #[test]
    fn every_verb_says_what_it_prints_as_json() {
        let command = CommandLine::command();
        let verbs: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
        assert_eq!(verbs.len(), PRINTED.len(), "{verbs:?}");
        let mut command = described(command);
        command.build();
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let json: Vec<_> = verb.get_arguments().filter(|arg| arg.get_id() == "json").collect();
            let help = json[0].get_help().expect("a help").to_string();
            let named = PRINTED.iter().find(|(name, _)| *name == verb.get_name());
            assert_eq!((json.len(), help), (1, format!("Print JSON: {}", named.expect("named").1)));
        }
    }
}
