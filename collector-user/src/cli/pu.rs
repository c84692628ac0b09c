//! `collector pu`: what a running collector knows of its processing units.

mod text;

use std::{io, process::ExitCode};

use super::{
    args::{AskArgs, PuCommand},
    ask::{self, AskError},
    say::Voice,
    stdout,
};
use crate::{
    config::{LogFormat, Output},
    event::UnitStatus,
};

/// Why nothing is told of units.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum Failure {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("there is no processing unit {id:?}: `collector pu list --all` has those that there are")]
    Unknown { id: String },
    #[error("{id:?} is the begin of several processing units' ids: {}", several(ids))]
    Ambiguous { id: String, ids: Vec<String> },
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
}

/// Ids that are named where several are meant.
const NAMED: usize = 5;

fn several(ids: &[String]) -> String {
    let named: Vec<_> = ids.iter().take(NAMED).map(|id| format!("{id:?}")).collect();
    let rest = ids.len().saturating_sub(NAMED);
    let rest = if rest == 0 { String::new() } else { format!(", and {rest} more") };
    named.join(", ") + &rest
}

/// Asks what is wanted, and prints the answer; the exit code is the process's.
pub(super) fn run(command: &PuCommand) -> ExitCode {
    let told = match command {
        PuCommand::List { all, ask } => list(*all, ask),
        PuCommand::Show { id, ask } => show(id, ask),
    };
    match told.and_then(|text| stdout::print(&text).map_err(Failure::Stdout)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            Voice::new(LogFormat::Text).error(&failure);
            ExitCode::FAILURE
        }
    }
}

fn list(all: bool, ask: &AskArgs) -> Result<String, Failure> {
    let mut units = ask::units(ask.socket.as_ref())?;
    units.retain(|unit| all || unit.ended.is_none());
    Ok(match ask.output {
        Output::Text => text::table(&units),
        Output::Json => json(&units),
    })
}

fn show(id: &str, ask: &AskArgs) -> Result<String, Failure> {
    let units = ask::units(ask.socket.as_ref())?;
    let unit = find(&units, id)?;
    Ok(match ask.output {
        Output::Text => text::whole(unit),
        Output::Json => json(unit),
    })
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    // Text, numbers and times always have a form.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// The unit that is meant: one of that id rather than one whose id begins so, and one that lives rather than one that has
/// ended; of several that have ended under one id, the last.
fn find<'a>(units: &'a [UnitStatus], id: &str) -> Result<&'a UnitStatus, Failure> {
    let is_it = |unit: &&UnitStatus| &*unit.context_id == id;
    let last = |unit: &&UnitStatus| unit.ended;
    let of_that_id = units.iter().find(|unit| is_it(unit) && unit.ended.is_none());
    if let Some(unit) = of_that_id.or_else(|| units.iter().filter(is_it).max_by_key(last)) {
        return Ok(unit);
    }
    let begin: Vec<_> = units.iter().filter(|unit| unit.context_id.starts_with(id)).collect();
    let living: Vec<_> = begin.iter().copied().filter(|unit| unit.ended.is_none()).collect();
    let meant = if living.is_empty() { begin } else { living };
    match meant.as_slice() {
        [] => Err(Failure::Unknown { id: id.to_owned() }),
        [unit] => Ok(unit),
        [first, rest @ ..] if rest.iter().all(|unit| unit.context_id == first.context_id) => {
            Ok(rest.iter().copied().max_by_key(last).filter(|unit| unit.ended > first.ended).unwrap_or(first))
        }
        _ => {
            let ids = meant.iter().map(|unit| unit.context_id.to_string()).collect();
            Err(Failure::Ambiguous { id: id.to_owned(), ids })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::find;
    use crate::event::{Time, UnitStatus};

    fn unit(id: &str, index: u16, ended: Option<i64>) -> UnitStatus {
        UnitStatus {
            context_id: id.into(),
            index,
            ended: ended.map(Time::from_unix_nanos),
            ..UnitStatus::default()
        }
    }

    #[test]
    fn a_begin_serves_where_it_is_one_units_alone() {
        let units = [
            unit("web", 1, None),
            unit("web-2", 2, None),
            unit("aa01", 3, Some(1)),
            unit("aa02", 4, None),
            unit("bb", 5, Some(9)),
            unit("bb", 6, Some(7)),
            unit("cc", 7, Some(7)),
            unit("cc", 8, None),
            unit("", 9, None),
        ];
        let of = |id: &str| find(&units, id).map(|unit| unit.index).map_err(|failure| failure.to_string());
        assert_eq!([of("web"), of("web-"), of("")], [Ok(1), Ok(2), Ok(9)]);
        assert_eq!([of("aa"), of("aa01")], [Ok(4), Ok(3)], "who lives is meant first");
        assert_eq!([of("bb"), of("b"), of("cc"), of("c")], [Ok(5), Ok(5), Ok(8), Ok(8)]);
        assert_eq!(
            of("we"),
            Err("\"we\" is the begin of several processing units' ids: \"web\", \"web-2\"".to_owned())
        );
        assert_eq!(
            of("x\u{1b}"),
            Err("there is no processing unit \"x\\u{1b}\": `collector pu list --all` has those that there are".to_owned())
        );
    }

    #[test]
    fn of_many_that_are_meant_some_are_named() {
        let units: Vec<_> = (0..9).map(|unit_number| unit(&format!("u{unit_number}"), 1, None)).collect();
        let failure = find(&units, "u").unwrap_err().to_string();
        assert!(failure.ends_with("ids: \"u0\", \"u1\", \"u2\", \"u3\", \"u4\", and 4 more"), "{failure}");
    }
}
