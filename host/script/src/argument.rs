//! Arguments of scripts: declarations, values from the command line, and their errors.

use std::fmt;

use mlua::{IntoLua, Lua, LuaString, Value};

use crate::keys::nearest;

/// The type of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArgumentType {
    /// Any text.
    String,
    /// A path; a relative one starts at the script's folder.
    Path,
    /// Texts, separated by commas.
    List,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// A finite number.
    Number,
}

impl ArgumentType {
    /// The types by their names in scripts.
    pub(crate) const NAMES: [(&'static str, Self); 6] = [
        ("string", Self::String),
        ("path", Self::Path),
        ("list", Self::List),
        ("boolean", Self::Boolean),
        ("integer", Self::Integer),
        ("number", Self::Number),
    ];

    /// The name in scripts.
    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// The description in errors.
    pub(crate) fn expected(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Path => "a path",
            Self::List => "a list of strings",
            Self::Boolean => "true or false",
            Self::Integer => "a whole number",
            Self::Number => "a number",
        }
    }

    /// Stands for a value in `--set NAME=VALUE`.
    fn placeholder(self) -> &'static str {
        match self {
            Self::String => "VALUE",
            Self::Path => "PATH",
            Self::List => "VALUE,VALUE,...",
            Self::Boolean => "true|false",
            Self::Integer | Self::Number => "NUMBER",
        }
    }

    /// The value of a text from the command line.
    fn parse(self, text: &str) -> Option<ArgumentValue> {
        match self {
            Self::String => Some(ArgumentValue::Text(text.to_owned())),
            Self::Path => (!text.is_empty()).then(|| ArgumentValue::Text(text.to_owned())),
            Self::List => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Some(ArgumentValue::List(parts.map(str::to_owned).collect()))
            }
            Self::Boolean => text.parse().ok().map(ArgumentValue::Boolean),
            Self::Integer => text.parse().ok().map(ArgumentValue::Integer),
            Self::Number => {
                text.parse().ok().filter(|number: &f64| number.is_finite()).map(ArgumentValue::Number)
            }
        }
    }

    /// The value of a Lua value in a declaration.
    pub(crate) fn read(self, value: &Value) -> Option<ArgumentValue> {
        match (self, value) {
            (Self::String, Value::String(text)) => Some(ArgumentValue::Text(text.to_string_lossy())),
            (Self::Path, Value::String(text)) => self.parse(&text.to_string_lossy()),
            (Self::List, Value::Table(list)) => {
                let values: mlua::Result<Vec<Value>> = list.sequence_values().collect();
                let text = |value: &Value| value.as_string().map(LuaString::to_string_lossy);
                Some(ArgumentValue::List(values.ok()?.iter().map(text).collect::<Option<_>>()?))
            }
            (Self::Boolean, Value::Boolean(flag)) => Some(ArgumentValue::Boolean(*flag)),
            (Self::Integer, Value::Integer(number)) => Some(ArgumentValue::Integer(*number)),
            (Self::Number, Value::Integer(number)) => Some(ArgumentValue::Number(*number as f64)),
            (Self::Number, Value::Number(number)) if number.is_finite() => {
                Some(ArgumentValue::Number(*number))
            }
            _ => None,
        }
    }
}

/// A value of an argument.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ArgumentValue {
    /// A string or a path.
    Text(String),
    /// Texts.
    List(Vec<String>),
    /// A truth value.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A finite number.
    Number(f64),
}

impl fmt::Display for ArgumentValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::List(texts) => f.write_str(&texts.join(",")),
            Self::Boolean(flag) => flag.fmt(f),
            Self::Integer(number) => number.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl IntoLua for ArgumentValue {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        match self {
            Self::Text(text) => text.into_lua(lua),
            Self::List(texts) => texts.into_lua(lua),
            Self::Boolean(flag) => flag.into_lua(lua),
            Self::Integer(number) => number.into_lua(lua),
            Self::Number(number) => number.into_lua(lua),
        }
    }
}

/// The command line does not fit the declared arguments.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgumentError {
    /// The script does not declare this argument.
    #[error("unknown argument '{name}'; {hint}")]
    Undeclared { name: String, hint: String },
    /// A required argument is missing.
    #[error("the argument '{name}' is missing. Give it with --set {name}={placeholder}.{help}")]
    Missing { name: String, placeholder: &'static str, help: String },
    /// A value has the wrong type.
    #[error("the argument '{name}' must be {expected}, not '{value}'")]
    WrongType { name: String, expected: &'static str, value: String },
    /// A value is not permitted.
    #[error("the argument '{name}' must be one of {permitted}, not '{value}'")]
    NotPermitted { name: String, permitted: String, value: String },
}

impl ArgumentError {
    /// The error about `name` in a script with these arguments.
    pub(crate) fn undeclared(name: &str, declared: &[Argument]) -> Self {
        let names: Vec<&str> = declared.iter().map(|argument| argument.name.as_str()).collect();
        let hint = match nearest(name, &names) {
            Some(near) => format!("did you mean '{near}'?"),
            None if names.is_empty() => "the script declares none with tw.arg".to_owned(),
            None => format!("the script has {}", names.join(", ")),
        };
        Self::Undeclared { name: name.to_owned(), hint }
    }
}

/// The declaration of one argument of a script.
#[derive(Debug, Clone, PartialEq)]
pub struct Argument {
    pub(crate) name: String,
    pub(crate) kind: ArgumentType,
    pub(crate) default: Option<ArgumentValue>,
    pub(crate) required: bool,
    /// The permitted values; empty: all values of the type.
    pub(crate) one_of: Vec<ArgumentValue>,
    pub(crate) help: String,
}

impl Argument {
    /// The value for the script. `text` comes from the command line.
    pub(crate) fn value(&self, text: Option<&str>) -> Result<Option<ArgumentValue>, ArgumentError> {
        let name = self.name.clone();
        let Some(text) = text else {
            if self.required {
                let placeholder = self.kind.placeholder();
                let help = if self.help.is_empty() { String::new() } else { format!(" {}", self.help) };
                return Err(ArgumentError::Missing { name, placeholder, help });
            }
            let empty = (self.kind == ArgumentType::List).then(|| ArgumentValue::List(Vec::new()));
            return Ok(self.default.clone().or(empty));
        };
        let Some(value) = self.kind.parse(text) else {
            let (expected, value) = (self.kind.expected(), text.to_owned());
            return Err(ArgumentError::WrongType { name, expected, value });
        };
        match self.not_permitted(&value) {
            None => Ok(Some(value)),
            Some(value) => Err(ArgumentError::NotPermitted { name, permitted: self.permitted(), value }),
        }
    }

    /// The value, or the first element of a list, that is not permitted.
    pub(crate) fn not_permitted(&self, value: &ArgumentValue) -> Option<String> {
        if self.one_of.is_empty() {
            return None;
        }
        let elements = match value {
            ArgumentValue::List(texts) => texts.iter().cloned().map(ArgumentValue::Text).collect(),
            other => vec![other.clone()],
        };
        elements.iter().find(|element| !self.one_of.contains(element)).map(ToString::to_string)
    }

    /// The permitted values for a message.
    pub(crate) fn permitted(&self) -> String {
        self.one_of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The cells of the table: name, type, default and help.
    fn cells(&self) -> [String; 4] {
        let default = match &self.default {
            Some(default) => default.to_string(),
            None if self.required => "required".to_owned(),
            None => "-".to_owned(),
        };
        let choices =
            if self.one_of.is_empty() { String::new() } else { format!(" One of: {}.", self.permitted()) };
        let help = format!("{}{choices}", self.help).trim().to_owned();
        [self.name.clone(), self.kind.name().to_owned(), default, help]
    }
}

/// A table of arguments with their names, types, defaults and help, one per line.
#[must_use]
pub fn argument_table(arguments: &[Argument]) -> String {
    let mut rows = vec![["NAME", "TYPE", "DEFAULT", "HELP"].map(str::to_owned)];
    rows.extend(arguments.iter().map(Argument::cells));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let [name_width, type_width, default_width] = [width(0), width(1), width(2)];
    let line = |row: &[String; 4]| {
        let [name, kind, default, help] = row;
        let line = format!("{name:name_width$}  {kind:type_width$}  {default:default_width$}  {help}");
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(kind: ArgumentType) -> Argument {
        Argument {
            name: "x".to_owned(),
            kind,
            default: None,
            required: false,
            one_of: Vec::new(),
            help: "The value of x.".to_owned(),
        }
    }

    fn text(text: &str) -> ArgumentValue {
        ArgumentValue::Text(text.to_owned())
    }

    fn list(texts: &[&str]) -> ArgumentValue {
        ArgumentValue::List(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn value_has_declared_type() {
        for (kind, given, value) in [
            (ArgumentType::String, "", text("")),
            (ArgumentType::Path, "a/b.gguf", text("a/b.gguf")),
            (ArgumentType::List, "a, b,,c", list(&["a", "b", "c"])),
            (ArgumentType::List, "", list(&[])),
            (ArgumentType::Boolean, "false", ArgumentValue::Boolean(false)),
            (ArgumentType::Integer, "-3", ArgumentValue::Integer(-3)),
            (ArgumentType::Number, "1e3", ArgumentValue::Number(1000.0)),
        ] {
            assert_eq!(argument(kind).value(Some(given)), Ok(Some(value)), "{kind:?} {given}");
        }
    }

    #[test]
    fn value_of_wrong_type_is_refused() {
        for (kind, given, expected) in [
            (ArgumentType::Path, "", "the argument 'x' must be a path, not ''"),
            (ArgumentType::Boolean, "maybe", "the argument 'x' must be true or false, not 'maybe'"),
            (ArgumentType::Integer, "1.5", "the argument 'x' must be a whole number, not '1.5'"),
            (ArgumentType::Number, "inf", "the argument 'x' must be a number, not 'inf'"),
        ] {
            assert_eq!(argument(kind).value(Some(given)).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn missing_value_is_default_empty_list_or_error() {
        assert_eq!(argument(ArgumentType::String).value(None), Ok(None));
        assert_eq!(argument(ArgumentType::List).value(None), Ok(Some(list(&[]))));
        let default = Argument { default: Some(text("d")), ..argument(ArgumentType::String) };
        assert_eq!(default.value(None), Ok(Some(text("d"))));
        let required = Argument { required: true, ..argument(ArgumentType::Path) };
        assert_eq!(
            required.value(None).unwrap_err().to_string(),
            "the argument 'x' is missing. Give it with --set x=PATH. The value of x."
        );
    }

    #[test]
    fn value_outside_one_of_is_refused() {
        let one_of = vec![text("a"), text("b")];
        let choice = Argument { one_of: one_of.clone(), ..argument(ArgumentType::String) };
        assert_eq!(choice.value(Some("b")), Ok(Some(text("b"))));
        let expected = "the argument 'x' must be one of a, b, not 'c'";
        assert_eq!(choice.value(Some("c")).unwrap_err().to_string(), expected);
        let choices = Argument { one_of, ..argument(ArgumentType::List) };
        assert_eq!(choices.value(Some("b,a")), Ok(Some(list(&["b", "a"]))));
        assert_eq!(choices.value(Some("a,c")).unwrap_err().to_string(), expected);
    }

    #[test]
    fn undeclared_argument_error_names_nearest() {
        let declared = [Argument { name: "drafters".to_owned(), ..argument(ArgumentType::List) }];
        let error = |name: &str, declared: &[Argument]| ArgumentError::undeclared(name, declared).to_string();
        assert_eq!(error("drafter", &declared), "unknown argument 'drafter'; did you mean 'drafters'?");
        assert_eq!(error("model", &declared), "unknown argument 'model'; the script has drafters");
        assert_eq!(error("model", &[]), "unknown argument 'model'; the script declares none with tw.arg");
    }

    #[test]
    fn table_shows_name_type_default_and_help() {
        let rule = Argument {
            name: "rule".to_owned(),
            default: Some(text("strict")),
            one_of: vec![text("strict"), text("hedge")],
            help: "The rule.".to_owned(),
            ..argument(ArgumentType::String)
        };
        let required = Argument { required: true, ..argument(ArgumentType::List) };
        let slots =
            Argument { name: "slots".to_owned(), help: String::new(), ..argument(ArgumentType::Integer) };
        assert_eq!(
            argument_table(&[required, rule, slots]),
            "NAME   TYPE     DEFAULT   HELP\n\
             x      list     required  The value of x.\n\
             rule   string   strict    The rule. One of: strict, hedge.\n\
             slots  integer  -\n"
        );
    }
}
