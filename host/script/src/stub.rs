//! Compares the type stub `scripts/types/tightwad.lua` with the keys that the host accepts.

use std::collections::{BTreeMap, BTreeSet};

use mlua::{IntoLua, Lua, Table};
use tightwad_core::{FinishReason, Outcome, Report, Usage};
use tightwad_net::DiscoveredNode;

use crate::api::nodes::NodeTable;
use crate::api::{FUNCTIONS, arg, client_keys, gate, pooling, serve, table};
use crate::changes::CHANGES;
use crate::keys::Schema;
use crate::loader;
use crate::request::Answer;
use crate::source::Purpose;

const STUB: &str = include_str!("../../../scripts/types/tightwad.lua");

/// Tables that are not the options of a function, by their classes in the stub.
const TABLES: [(&str, &Schema); 6] = [
    ("tightwad.Argument", &arg::ARGUMENT),
    ("tightwad.Changes", &CHANGES),
    ("tightwad.Key", &client_keys::KEY),
    ("tightwad.ReviewCache", &gate::REVIEW_CACHE),
    ("tightwad.Tls", &serve::TLS),
    ("tightwad.Worker", &pooling::WORKER),
];

/// The classes of the stub with their fields, and the functions of `tw` with the types of their parameters.
#[derive(Default)]
struct Stub {
    fields: BTreeMap<String, BTreeSet<String>>,
    exact: BTreeSet<String>,
    functions: BTreeMap<String, String>,
}

fn parse() -> Stub {
    let mut stub = Stub::default();
    let (mut class, mut parameter) = (String::new(), String::new());
    for line in STUB.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["---@class", "(exact)", name, ..] => {
                class = (*name).to_owned();
                stub.exact.insert(class.clone());
                stub.fields.entry(class.clone()).or_default();
            }
            ["---@class", name, ..] => class = (*name).to_owned(),
            ["---@field", name, _, _, ..] => {
                let name = name.trim_end_matches('?').to_owned();
                stub.fields.entry(class.clone()).or_default().insert(name);
            }
            ["---@field", ..] => panic!("a field has no description: {line}"),
            ["---@param", _, kind, ..] => parameter = (*kind).to_owned(),
            ["function", signature, ..] if signature.starts_with("tw.") => {
                let name = signature.split('(').next().unwrap_or_default();
                stub.functions.insert(name.to_owned(), std::mem::take(&mut parameter));
            }
            _ => {}
        }
    }
    stub
}

fn keys(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn table_keys(table: &Table) -> BTreeSet<String> {
    table.pairs::<String, mlua::Value>().map(|pair| pair.unwrap().0).collect()
}

#[test]
fn stub_has_the_keys_of_every_function() {
    let stub = parse();
    for schema in FUNCTIONS {
        let class = &stub.functions[schema.name];
        assert_eq!(stub.fields[class], keys(schema.keys), "{}: {class}", schema.name);
        assert!(stub.exact.contains(class), "{class} is not exact");
    }
    for (class, schema) in TABLES {
        assert_eq!(stub.fields[class], keys(schema.keys), "{class}");
        assert!(stub.exact.contains(class), "{class} is not exact");
    }
}

#[test]
fn stub_has_every_function_of_the_module() {
    let stub = parse();
    let lua = Lua::new();
    let factory = Purpose::Serve(std::sync::Arc::new(crate::fake_factory::FakeFactory));
    let source = std::sync::Arc::new(loader::source("s.lua", Vec::new(), factory, &[]));
    let tw = table::table(&lua, &source).unwrap();
    let mut expected: BTreeSet<String> =
        stub.functions.keys().map(|name| name.trim_start_matches("tw.").to_owned()).collect();
    expected.extend(stub.fields["tightwad"].iter().cloned());
    assert_eq!(table_keys(&tw), expected);
    let mut listed = keys(&FUNCTIONS.map(|schema| schema.name));
    listed.insert("tw.arg".to_owned());
    assert_eq!(stub.functions.keys().cloned().collect::<BTreeSet<_>>(), listed);
    let log: Table = tw.get("log").unwrap();
    assert_eq!(table_keys(&log), stub.fields["tightwad.Log"]);
}

#[test]
fn stub_has_the_fields_of_every_result() {
    let stub = parse();
    let lua = Lua::new();
    let outcome =
        Outcome { finish_reason: FinishReason::Stop, usage: Usage::default(), report: Report::default() };
    let answer = Answer { text: String::new(), outcome }.into_lua(&lua).unwrap();
    assert_eq!(table_keys(answer.as_table().unwrap()), stub.fields["tightwad.Answer"]);
    let node = DiscoveredNode {
        name: String::new(),
        url: String::new(),
        version: String::new(),
        models: Vec::new(),
    };
    let node = NodeTable(node).into_lua(&lua).unwrap();
    assert_eq!(table_keys(node.as_table().unwrap()), stub.fields["tightwad.DiscoveredNode"]);
}
