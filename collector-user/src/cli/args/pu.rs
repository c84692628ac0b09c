//! What `collector pu` is told.

use clap::{Args, Subcommand};

use crate::config::{Output, Socket};

/// What follows the options in its help.
const HELP: &str = "\
Only root, or whoever the collector belongs to, may ask. What was counted is counted up to the moment of the answer.
Exit codes: 0 done, 1 no collector that answers, or no such unit, 2 bad usage.";

/// What follows the options in the help of `collector status`.
pub(super) const STATUS_HELP: &str = "\
Only root, or whoever the collector belongs to, may ask. What was counted is counted up to the moment of the answer.
What its outputs have lost is not in the answer: `run` tells it at its end.
Exit codes: 0 done, 1 no collector that answers, 2 bad usage.";

/// What can be asked about processing units.
#[derive(Debug, Subcommand)]
pub enum PuCommand {
    /// Lists them, with packets since the collector started: RX received, TX sent, DROPPED those that somebody may miss.
    #[command(after_help = HELP)]
    List {
        /// List those, too, that have ended and are not forgotten.
        #[arg(long)]
        all: bool,
        /// How it is asked and answered.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Says all that is known of one, and its counters that are not zero.
    #[command(after_help = HELP)]
    Show {
        /// Its id, or so much of its begin that no other unit's id has it.
        #[arg(value_name = "ID")]
        id: String,
        /// How it is asked and answered.
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// Where a question goes, and in which form the answer is printed.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// As text, for people, or as json, for programs: one object, or an array of them where units are listed.
    #[arg(long, value_name = "FORM", value_enum, default_value_t, hide_possible_values = true)]
    pub output: Output,

    /// Ask the collector at this socket. [default: /run/collector/INODE.sock, INODE being the inode number of the network
    /// namespace]
    #[arg(long, value_name = "PATH", value_parser = a_place)]
    pub socket: Option<Socket>,
}

/// A place that somebody can be asked at.
fn a_place(text: &str) -> Result<Socket, String> {
    match text.parse() {
        Ok(Socket::None) => {
            Err("at no socket nobody answers: expected a path, or ./none for one of that name".to_owned())
        }
        Ok(socket) => Ok(socket),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::PuCommand;
    use crate::{
        cli::args::{Cli, Command},
        config::{Output, Socket},
    };

    fn parse(line: &str) -> Result<PuCommand, clap::Error> {
        let words = ["collector", "pu"].into_iter().chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| {
            let Command::Pu(command) = cli.command else { panic!("{line} is another verb") };
            command
        })
    }

    #[test]
    fn questions() {
        let PuCommand::List { all, ask } = parse("list --all --output json --socket ./none").unwrap() else {
            panic!("it lists")
        };
        assert_eq!((all, ask.output, ask.socket), (true, Output::Json, Some(Socket::At("./none".into()))));
        let PuCommand::Show { id, ask } = parse("show web").unwrap() else { panic!("it shows") };
        assert_eq!((&*id, ask.output, ask.socket), ("web", Output::Text, None));
    }

    #[test]
    fn bad_usage_ends_with_2_and_says_why() {
        for (line, want) in [
            ("", "Usage"),
            ("show", "<ID>"),
            ("list web", "unexpected argument"),
            ("list --socket none", "at no socket nobody answers"),
            ("list --output xml", "invalid value 'xml'"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(want), "{line}: {error}");
        }
    }
}
