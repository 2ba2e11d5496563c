//! `keys` of `tw.serve{}`: the API keys of clients.
//!
//! No error shows `keys`, an entry of it or a `hash`: people put the key itself there by mistake.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroU64};

use mlua::{Lua, Value};
use tightwad_core::{KeyHash, KeyName, KeySpec, Right, parse_date};

use crate::keys::{Fields, Schema, describe_type, nearest};
use crate::table_error::TableError;

pub(crate) const KEY: Schema = Schema {
    name: "a key",
    keys: &["hash", "rights", "models", "requests_per_minute", "tokens_per_day", "expires"],
};

/// The maximum of `requests_per_minute`. The limit needs at least a part of a millisecond per request.
const MAX_REQUESTS_PER_MINUTE: u32 = 100_000;

/// Reads `keys`: a table of keys by name. `models` are the served names.
pub(crate) fn client_keys(
    lua: &Lua,
    value: Value,
    models: &[(String, Value)],
) -> Result<Vec<KeySpec>, TableError> {
    let table = match value {
        Value::Nil => return Ok(Vec::new()),
        Value::Table(table) => table,
        other => {
            let found = describe_type(&other);
            return Err(format!("'keys' in tw.serve must be a table of keys by name, not {found}").into());
        }
    };
    let mut keys: Vec<KeySpec> = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (name, value) = pair?;
        keys.push(key(lua, &key_name(&name)?, &value, models)?);
    }
    if keys.is_empty() {
        return Err("'keys' in tw.serve is empty; add a key, or remove 'keys'".to_owned().into());
    }
    keys.sort_by(|a, b| a.name.cmp(&b.name));
    for (index, key) in keys.iter().enumerate() {
        if let Some(other) = keys[..index].iter().find(|other| other.hash == key.hash) {
            let (one, other) = (&other.name, &key.name);
            return Err(format!("the keys '{one}' and '{other}' have the same hash").into());
        }
    }
    Ok(keys)
}

fn key_name(name: &Value) -> Result<KeyName, TableError> {
    let Value::String(name) = name else {
        return Err("'keys' in tw.serve has names as keys, as in { alice = { hash = ... } }"
            .to_owned()
            .into());
    };
    name.to_string_lossy()
        .parse()
        .map_err(|error| TableError::Refused(format!("'keys' in tw.serve: {error}")))
}

fn key(lua: &Lua, name: &KeyName, value: &Value, served: &[(String, Value)]) -> Result<KeySpec, TableError> {
    let Value::Table(table) = value else {
        let found = describe_type(value);
        return Err(format!("the key '{name}' must be a table, as in {{ hash = ... }}, not {found}").into());
    };
    let named = |error| match error {
        TableError::Lua(error) => TableError::Lua(error),
        error => TableError::Refused(format!("key '{name}': {error}")),
    };
    let read = || {
        let fields = Fields::new(lua, table, &KEY)?;
        Ok(KeySpec {
            name: name.clone(),
            hash: hash(&fields)?,
            rights: rights(&fields)?,
            models: models(&fields, served)?,
            requests_per_minute: requests_per_minute(&fields)?,
            tokens_per_day: tokens_per_day(&fields)?,
            expires: expires(&fields)?,
        })
    };
    read().map_err(named)
}

fn hash(fields: &Fields<'_>) -> Result<KeyHash, TableError> {
    match fields.value("hash")? {
        Value::Nil => Err("'hash' is missing; `tightwad key new` prints it".to_owned().into()),
        Value::String(text) => {
            let hash = text.to_string_lossy().parse();
            hash.map_err(|error| TableError::Refused(format!("'hash': {error}")))
        }
        other => Err(format!("'hash' must be a string, not {}", describe_type(&other)).into()),
    }
}

fn rights(fields: &Fields<'_>) -> Result<BTreeSet<Right>, TableError> {
    let Some(names) = names(fields, "rights")? else { return Ok([Right::Chat].into()) };
    let right = |name: &String| {
        let found = Right::ALL.into_iter().find(|right| right.name() == name);
        found.ok_or_else(|| TableError::Refused(unknown("right", name, &Right::ALL.map(Right::name))))
    };
    names.iter().map(right).collect()
}

fn models(fields: &Fields<'_>, served: &[(String, Value)]) -> Result<Option<BTreeSet<String>>, TableError> {
    let Some(names) = names(fields, "models")? else { return Ok(None) };
    let known: Vec<&str> = served.iter().map(|(name, _)| name.as_str()).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(unknown("model", name, &known).into());
    }
    Ok(Some(names.into_iter().collect()))
}

/// Reads a list of names that is not empty.
fn names(fields: &Fields<'_>, key: &str) -> Result<Option<Vec<String>>, TableError> {
    let expected = "a list of strings with at least one entry";
    let names: Option<Vec<String>> = fields.optional(key, expected)?;
    match names {
        Some(names) if names.is_empty() => Err(format!("'{key}' must be {expected}").into()),
        names => Ok(names),
    }
}

fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("there is no {kind} '{name}'; did you mean '{near}'?"),
        None => format!("there is no {kind} '{name}'; there are {}", known.join(", ")),
    }
}

fn requests_per_minute(fields: &Fields<'_>) -> Result<Option<NonZeroU32>, TableError> {
    let Some(number) = fields.optional::<u32>("requests_per_minute", "a whole number")? else {
        return Ok(None);
    };
    let limit = NonZeroU32::new(number).filter(|limit| limit.get() <= MAX_REQUESTS_PER_MINUTE);
    let message = || format!("'requests_per_minute' must be from 1 to {MAX_REQUESTS_PER_MINUTE}");
    limit.map(Some).ok_or_else(|| message().into())
}

fn tokens_per_day(fields: &Fields<'_>) -> Result<Option<NonZeroU64>, TableError> {
    let Some(number) = fields.optional::<u64>("tokens_per_day", "a whole number")? else { return Ok(None) };
    let limit = NonZeroU64::new(number);
    limit.map(Some).ok_or_else(|| "'tokens_per_day' must be at least 1".to_owned().into())
}

fn expires(fields: &Fields<'_>) -> Result<Option<time::Date>, TableError> {
    let Some(text) = fields.optional::<String>("expires", "a string, as in \"2027-01-31\"")? else {
        return Ok(None);
    };
    let message = || format!("'expires' must be a day, as in \"2027-01-31\", not '{text}'");
    parse_date(&text).map(Some).ok_or_else(|| message().into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::fake_factory::FakeFactory;
    use crate::loader::{Script, load_text};

    /// Loads a script that serves `small` and `big`. The Lua expression `keys` is on line 4.
    async fn load(keys: &str) -> Result<Script, String> {
        let text = format!(
            "local tw = require \"tightwad\"\nlocal m = tw.model{{ path = \"m.gguf\" }}\nlocal h = \"sha256:\" .. (\"0f\"):rep(32)\n\
             local s = tw.serve{{ models = {{ small = m, big = m }}, keys = {keys} }}\nreturn s"
        );
        let script = load_text("s.lua", text.into_bytes(), Path::new("."), Arc::new(FakeFactory), &[]).await;
        script.map_err(|error| error.to_string())
    }

    /// Checks the errors of values of `keys`.
    async fn check_errors(cases: &[(&str, &str)]) {
        for (keys, expected) in cases {
            let error = load(keys).await.err();
            assert_eq!(error.as_deref(), Some(format!("s.lua:4: {expected}").as_str()), "{keys}");
        }
    }

    #[tokio::test]
    async fn key_has_rights_and_limits() {
        let keys = r#"{
            bob = { hash = "sha256:" .. ("1a"):rep(32), rights = { "chat", "manage", "observe" } },
            alice = { hash = h, models = { "small" }, requests_per_minute = 60, tokens_per_day = 200000, expires = "2027-01-31" },
        }"#;
        let keys = load(keys).await.unwrap().credentials.keys;
        let alice = KeySpec {
            name: "alice".parse().unwrap(),
            hash: KeyHash::new([15; 32]),
            rights: [Right::Chat].into(),
            models: Some(["small".to_owned()].into()),
            requests_per_minute: NonZeroU32::new(60),
            tokens_per_day: NonZeroU64::new(200_000),
            expires: parse_date("2027-01-31"),
        };
        let bob = KeySpec {
            name: "bob".parse().unwrap(),
            hash: KeyHash::new([26; 32]),
            rights: Right::ALL.into(),
            models: None,
            requests_per_minute: None,
            tokens_per_day: None,
            expires: None,
        };
        assert_eq!(keys, [alice, bob]);
        assert_eq!(load("nil").await.unwrap().credentials.keys, []);
    }

    #[tokio::test]
    async fn key_errors_have_users_line() {
        check_errors(&[
            ("{}", "'keys' in tw.serve is empty; add a key, or remove 'keys'"),
            ("5", "'keys' in tw.serve must be a table of keys by name, not a number"),
            ("{ { hash = h } }", "'keys' in tw.serve has names as keys, as in { alice = { hash = ... } }"),
            (
                "{ ['a b'] = { hash = h } }",
                "'keys' in tw.serve: the name of a key has 1 to 64 letters, digits, '-', '_' or '.'",
            ),
            ("{ a = { hash = h }, b = { hash = h } }", "the keys 'a' and 'b' have the same hash"),
        ])
        .await;
    }

    #[tokio::test]
    async fn field_errors_name_key_and_nearest_value() {
        check_errors(&[
            ("{ a = {} }", "key 'a': 'hash' is missing; `tightwad key new` prints it"),
            (
                "{ a = { hash = h, right = {} } }",
                "key 'a': unknown key 'right' in a key; did you mean 'rights'?",
            ),
            (
                "{ a = { hash = h, rights = {} } }",
                "key 'a': 'rights' must be a list of strings with at least one entry",
            ),
            (
                "{ a = { hash = h, rights = { 'chats' } } }",
                "key 'a': there is no right 'chats'; did you mean 'chat'?",
            ),
            (
                "{ a = { hash = h, rights = { 'everything' } } }",
                "key 'a': there is no right 'everything'; there are chat, manage, observe",
            ),
            (
                "{ a = { hash = h, models = { 'smal' } } }",
                "key 'a': there is no model 'smal'; did you mean 'small'?",
            ),
            (
                "{ a = { hash = h, requests_per_minute = 0 } }",
                "key 'a': 'requests_per_minute' must be from 1 to 100000",
            ),
            ("{ a = { hash = h, tokens_per_day = 0 } }", "key 'a': 'tokens_per_day' must be at least 1"),
            (
                "{ a = { hash = h, expires = '2027-02-30' } }",
                "key 'a': 'expires' must be a day, as in \"2027-01-31\", not '2027-02-30'",
            ),
        ])
        .await;
    }

    #[tokio::test]
    async fn key_errors_hide_key() {
        for keys in [
            "'tw-5ecret'",
            "{ 'tw-5ecret' }",
            "{ a = 'tw-5ecret' }",
            "{ a = { hash = 'tw-5ecret' } }",
            "{ a = { hash = 'sha256:tw-5ecret' } }",
            "{ a = { hash = { 'tw-5ecret' } } }",
            "{ a = { hash = h, key = 'tw-5ecret' } }",
            "{ a = { 'tw-5ecret' } }",
        ] {
            let error = load(keys).await.err().unwrap();
            assert!(error.starts_with("s.lua:4: ") && !error.contains("5ecret"), "{error}");
        }
    }
}
