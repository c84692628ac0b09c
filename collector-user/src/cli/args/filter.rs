//! A filter expression, as an argument.

use std::ffi::OsStr;

use clap::{
    Arg, Command, Error,
    builder::{StringValueParser, TypedValueParser},
    error::ErrorKind,
};

use crate::{error::with_causes, host::pcap::Filter};

/// Compiles it. What is wrong with it is said in one sentence, which has the expression once: clap's own has all of it before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expression;

impl TypedValueParser for Expression {
    type Value = Filter;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Filter, Error> {
        let expression = StringValueParser::new().parse_ref(command, arg, value)?;
        Filter::compile(&expression).map_err(|error| {
            let said = format!("--filter: {}\n", with_causes(&error));
            Error::raw(ErrorKind::ValueValidation, said).with_cmd(command)
        })
    }
}
