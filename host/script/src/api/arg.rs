//! `tw.arg{}`.
//!
//! Invariant: the arguments are known before the host makes anything for the script. So tw.arg is called at most once,
//! and before the other functions of `tw`.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use mlua::{Lua, Table, Value};

use crate::argument::{Argument, ArgumentError, ArgumentType, ArgumentValue};
use crate::keys::{Fields, Schema, describe, nearest};
use crate::table_error::TableError;

const FUNCTION: &str = "tw.arg";

pub(crate) const ARGUMENT: Schema =
    Schema { name: FUNCTION, keys: &["type", "default", "required", "one_of", "help"] };

/// The place for the declared arguments, for a host that only lists them.
pub(crate) type Listing = Arc<OnceLock<Vec<Argument>>>;

/// The arguments of one Lua state.
pub(crate) struct Arguments {
    /// Names and texts from the command line. A later text replaces an earlier one of the same name.
    texts: Vec<(String, String)>,
    /// `Some`: the host lists the arguments. The script stops at its first function of `tw`.
    listing: Option<Listing>,
    stage: Cell<Stage>,
}

/// The progress of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The script has called no function of `tw`.
    Started,
    /// The script has called tw.arg.
    Declared,
    /// The script has called another function before tw.arg, and can declare no arguments.
    Closed,
}

impl Arguments {
    pub(crate) fn new(texts: &[(String, String)], listing: Option<Listing>) -> Self {
        Self { texts: texts.to_vec(), listing, stage: Cell::new(Stage::Started) }
    }

    /// Declares the arguments of `table` and returns their values by name.
    pub(crate) fn declare(&self, lua: &Lua, table: &Table) -> Result<Table, TableError> {
        match self.stage.get() {
            Stage::Started => {}
            Stage::Declared => {
                return Err(refusal("tw.arg can be called once; declare all arguments in one table"));
            }
            Stage::Closed => {
                return Err(refusal("tw.arg must be called before the other functions of tw"));
            }
        }
        let declared = read_declarations(lua, table)?;
        if let Some(listing) = &self.listing {
            let _ = listing.set(declared);
            return Err(listing_error());
        }
        let values = self.values(lua, &declared)?;
        self.stage.set(Stage::Declared);
        Ok(values)
    }

    /// Runs before each other function of `tw`. Without tw.arg, a script accepts no arguments.
    pub(crate) fn close(&self) -> Result<(), TableError> {
        if let Some(listing) = &self.listing {
            listing.get_or_init(Vec::new);
            return Err(listing_error());
        }
        if self.stage.get() == Stage::Started {
            if let Some((name, _)) = self.texts.first() {
                return Err(value_error(ArgumentError::undeclared(name, &[])));
            }
            self.stage.set(Stage::Closed);
        }
        Ok(())
    }

    fn values(&self, lua: &Lua, declared: &[Argument]) -> Result<Table, TableError> {
        for (name, _) in &self.texts {
            if declared.iter().all(|argument| argument.name != *name) {
                return Err(value_error(ArgumentError::undeclared(name, declared)));
            }
        }
        let values = lua.create_table()?;
        for argument in declared {
            let text = self.texts.iter().rfind(|(name, _)| *name == argument.name);
            let value = argument.value(text.map(|(_, text)| text.as_str())).map_err(value_error)?;
            values.raw_set(argument.name.as_str(), value)?;
        }
        Ok(values)
    }
}

fn refusal(message: &str) -> TableError {
    TableError::Refused(message.to_owned())
}

fn value_error(error: ArgumentError) -> TableError {
    TableError::Refused(error.to_string())
}

/// The error that ends a script when the host only lists its arguments. The host does not show this error.
fn listing_error() -> TableError {
    refusal("the host lists the arguments only")
}

/// Reads all declarations: required arguments first, each group in the order of the names.
fn read_declarations(lua: &Lua, table: &Table) -> Result<Vec<Argument>, TableError> {
    let mut declared = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (Value::String(name), Value::Table(fields)) = pair? else {
            return Err(refusal("tw.arg takes tables by name, as in { model = { type = \"path\" } }"));
        };
        let name = name.to_string_lossy();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(TableError::Refused(format!(
                "'{name}' in tw.arg is not a name of an argument; use letters, digits and '_'"
            )));
        }
        let argument = read_declaration(lua, &name, &fields)
            .map_err(|error| TableError::Refused(format!("argument '{name}': {error}")))?;
        declared.push(argument);
    }
    declared.sort_by(|a: &Argument, b| b.required.cmp(&a.required).then_with(|| a.name.cmp(&b.name)));
    Ok(declared)
}

/// Reads one declaration.
fn read_declaration(lua: &Lua, name: &str, table: &Table) -> Result<Argument, TableError> {
    let fields = Fields::new(lua, table, &ARGUMENT)?;
    let kind = argument_type(&fields)?;
    let mut argument = Argument {
        name: name.to_owned(),
        kind,
        default: None,
        required: fields.flag("required")?,
        one_of: one_of(&fields, kind)?,
        help: fields.optional("help", "a string")?.unwrap_or_default(),
    };
    let Some(default) = fields.optional::<Value>("default", "a string or a number")? else {
        return Ok(argument);
    };
    if argument.required {
        return Err(refusal("a required argument has no 'default'"));
    }
    let Some(value) = kind.read(&default) else {
        let (expected, found) = (kind.expected(), describe(&default));
        return Err(TableError::Refused(format!("'default' in {FUNCTION} must be {expected}, not {found}")));
    };
    if let Some(other) = argument.not_permitted(&value) {
        let permitted = argument.permitted();
        return Err(TableError::Refused(format!(
            "'default' in {FUNCTION} must be one of {permitted}, not '{other}'"
        )));
    }
    argument.default = Some(value);
    Ok(argument)
}

fn argument_type(fields: &Fields<'_>) -> Result<ArgumentType, TableError> {
    let names = ArgumentType::NAMES.map(|(name, _)| name);
    let type_name: String = fields.required("type", &format!("a string, one of {}", names.join(", ")))?;
    let argument_type = ArgumentType::NAMES.iter().find(|(name, _)| *name == type_name);
    argument_type.map(|(_, kind)| *kind).ok_or_else(|| {
        let hint = nearest(&type_name, &names).map_or_else(
            || format!("it can be {}", names.join(", ")),
            |near| format!("did you mean '{near}'?"),
        );
        TableError::Refused(format!("'type' in {FUNCTION} cannot be '{type_name}'; {hint}"))
    })
}

/// Reads the permitted values. For a list they are the permitted elements.
fn one_of(fields: &Fields<'_>, kind: ArgumentType) -> Result<Vec<ArgumentValue>, TableError> {
    let Some(values) = fields.optional::<Table>("one_of", "a list of values")? else { return Ok(Vec::new()) };
    let element = match kind {
        ArgumentType::List => ArgumentType::String,
        ArgumentType::Boolean => return Err(refusal("'one_of' in tw.arg is not for the type 'boolean'")),
        other => other,
    };
    let mut permitted = Vec::new();
    for value in values.sequence_values::<Value>() {
        let value = value?;
        let Some(read) = element.read(&value) else {
            let (expected, found) = (element.expected(), describe(&value));
            return Err(TableError::Refused(format!(
                "each value of 'one_of' in {FUNCTION} must be {expected}, not {found}"
            )));
        };
        permitted.push(read);
    }
    if permitted.is_empty() {
        return Err(refusal("'one_of' in tw.arg is empty"));
    }
    Ok(permitted)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fake_factory::FakeFactory;
    use crate::loader::{declared_arguments, load_text};

    const END: &str = "return tw.serve{ models = { m = tw.model{ path = 'm' } } }";

    /// Loads a script with arguments `NAME=VALUE`, separated by spaces. Returns its error, or an empty string.
    async fn load(script: &str, arguments: &str) -> String {
        let arguments: Vec<(String, String)> = arguments
            .split_whitespace()
            .filter_map(|argument| argument.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let text = format!("local tw = require 'tightwad'\n{script}\n{END}").into_bytes();
        let loaded = load_text("s.lua", text, Path::new("."), Arc::new(FakeFactory), &arguments).await;
        loaded.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[tokio::test]
    async fn values_are_typed() {
        let script = r#"
local args = tw.arg {
  text = { type = "string" }, file = { type = "path", default = "m.gguf" }, many = { type = "list" },
  flag = { type = "boolean", default = true }, count = { type = "integer" }, share = { type = "number", default = 1 },
  none = { type = "list" }, absent = { type = "integer" },
}
assert(args.text == "7" and args.file == "m.gguf" and args.flag == false and args.absent == nil)
assert(#args.many == 2 and args.many[2] == "b" and #args.none == 0)
assert(math.type(args.count) == "integer" and args.count == 3)
assert(math.type(args.share) == "float" and args.share == 0.5)"#;
        assert_eq!(load(script, "text=7 many=a,b flag=false count=2 count=3 share=0.5").await, "");
    }

    #[tokio::test]
    async fn wrong_values_are_refused_at_the_scripts_line() {
        let script = r#"tw.arg { rule = { type = "string", one_of = { "a", "b" } }, model = { type = "path", required = true, help = "The file." } }"#;
        for (arguments, expected) in [
            ("", "the argument 'model' is missing. Give it with --set model=PATH. The file."),
            ("modle=x", "unknown argument 'modle'; did you mean 'model'?"),
            ("model=x slots=3", "unknown argument 'slots'; the script has model, rule"),
            ("model=x rule=c", "the argument 'rule' must be one of a, b, not 'c'"),
        ] {
            assert_eq!(load(script, arguments).await, format!("s.lua:2: {expected}"), "{arguments}");
        }
    }

    #[tokio::test]
    async fn script_without_arg_refuses_arguments_before_it_loads_models() {
        let expected = "s.lua:2: unknown argument 'a'; the script declares none with tw.arg";
        assert_eq!(load("tw.model { path = 'gone.gguf' }", "a=b").await, expected);
    }

    #[tokio::test]
    async fn arg_is_called_once_and_first() {
        let twice = "tw.arg {}\ntw.arg {}";
        assert_eq!(
            load(twice, "").await,
            "s.lua:3: tw.arg can be called once; declare all arguments in one table"
        );
        let late = "tw.lookup {}\ntw.arg {}";
        assert_eq!(load(late, "").await, "s.lua:3: tw.arg must be called before the other functions of tw");
    }

    /// Checks the errors of declarations in the table of tw.arg.
    async fn check_declarations(cases: &[(&str, &str)]) {
        for (declaration, expected) in cases {
            let error = load(&format!("tw.arg {{ {declaration} }}"), "").await;
            assert_eq!(error, format!("s.lua:2: {expected}"), "{declaration}");
        }
    }

    #[tokio::test]
    async fn wrong_declarations_are_refused() {
        check_declarations(&[
            ("'x'", "tw.arg takes tables by name, as in { model = { type = \"path\" } }"),
            ("['a=b'] = {}", "'a=b' in tw.arg is not a name of an argument; use letters, digits and '_'"),
            (
                "x = {}",
                "argument 'x': tw.arg needs 'type': a string, one of string, path, list, boolean, integer, number",
            ),
            (
                "x = { type = 'strnig' }",
                "argument 'x': 'type' in tw.arg cannot be 'strnig'; did you mean 'string'?",
            ),
            (
                "x = { type = 'path', defalt = 1 }",
                "argument 'x': unknown key 'defalt' in tw.arg; did you mean 'default'?",
            ),
        ])
        .await;
    }

    #[tokio::test]
    async fn wrong_defaults_are_refused() {
        check_declarations(&[
            (
                "x = { type = 'integer', default = '1' }",
                "argument 'x': 'default' in tw.arg must be a whole number, not the string '1'",
            ),
            (
                "x = { type = 'list', default = { 1 } }",
                "argument 'x': 'default' in tw.arg must be a list of strings, not a table",
            ),
            (
                "x = { type = 'path', required = true, default = 'a' }",
                "argument 'x': a required argument has no 'default'",
            ),
            (
                "x = { type = 'string', one_of = { 'a' }, default = 'b' }",
                "argument 'x': 'default' in tw.arg must be one of a, not 'b'",
            ),
        ])
        .await;
    }

    #[tokio::test]
    async fn wrong_permitted_values_are_refused() {
        check_declarations(&[
            (
                "x = { type = 'boolean', one_of = { true } }",
                "argument 'x': 'one_of' in tw.arg is not for the type 'boolean'",
            ),
            (
                "x = { type = 'integer', one_of = { 'a' } }",
                "argument 'x': each value of 'one_of' in tw.arg must be a whole number, not the string 'a'",
            ),
            ("x = { type = 'integer', one_of = {} }", "argument 'x': 'one_of' in tw.arg is empty"),
        ])
        .await;
    }

    #[tokio::test]
    async fn arguments_are_listed_without_loading_models() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.lua");
        let names = async |text: &str| {
            std::fs::write(&path, format!("local tw = require 'tightwad'\n{text}")).unwrap();
            let listed = declared_arguments(&path).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(listed.into_iter().map(|argument| argument.name).collect::<Vec<_>>())
        };
        let declares =
            "tw.arg { b = { type = 'path' }, a = { type = 'path' }, c = { type = 'list', required = true } }";
        assert_eq!(names(&format!("{declares}\nwhile true do end")).await.unwrap(), ["c", "a", "b"]);
        // A script that catches the error stops at its next function.
        let caught = format!("pcall(function() {declares} end)\nlocal m = tw.model {{ path = 'm' }}");
        assert_eq!(names(&caught).await.unwrap(), ["c", "a", "b"]);
        assert!(names("local m = tw.model { path = 'm' }").await.unwrap().is_empty());
        assert!(names("error('no luck', 0)").await.unwrap_err().contains("no luck"));
    }
}
