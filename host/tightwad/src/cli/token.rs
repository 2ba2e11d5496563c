//! Tokens on the command line and in the environment.

use std::ffi::OsStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};
use tightwad_core::{InvalidToken, Token};

/// Parses a token. Unlike clap's parsers, this parser never repeats the value in an error.
#[derive(Clone)]
pub(crate) struct TokenParser;

impl TypedValueParser for TokenParser {
    type Value = Token;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Token, Error> {
        let token = value.to_str().ok_or(InvalidToken::Characters).and_then(Token::new);
        token.map_err(|error| {
            let long = arg.and_then(Arg::get_long).unwrap_or("token");
            let variable = arg.and_then(Arg::get_env).map(|name| format!(" or {}", name.to_string_lossy()));
            let message = format!("--{long}{}: {error}\n", variable.unwrap_or_default());
            Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}
