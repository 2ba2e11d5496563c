//! The Lua reference of the book, from the LuaCATS annotations of the type stub.
//! <https://luals.github.io/wiki/annotations/>

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};

/// A key of a class or a parameter of a function.
#[derive(Debug, PartialEq, Eq)]
struct Field {
    /// An optional key ends with a question mark.
    name: String,
    type_name: String,
    help: String,
}

#[derive(Debug, Default)]
struct Class {
    name: String,
    help: String,
    fields: Vec<Field>,
    methods: Vec<Function>,
}

#[derive(Debug, Default)]
struct Function {
    /// The call in the stub: `tw.model(spec)`, `Backend:generate(req, changes)`.
    signature: String,
    help: String,
    parameters: Vec<Field>,
    returns: Vec<Field>,
}

/// The annotations and help text before a statement.
#[derive(Debug, Default)]
struct Annotations {
    help: Vec<String>,
    class: Option<String>,
    fields: Vec<Field>,
    parameters: Vec<Field>,
    returns: Vec<Field>,
}

/// The page for the type stub `stub`.
///
/// # Errors
/// An annotation or a function of an unknown form.
pub(crate) fn page(stub: &str) -> Result<String> {
    let (classes, functions) = parse(stub)?;
    let mut page = String::from(
        "# Lua\n\n<!-- Generated from scripts/types/tightwad.lua by `cargo xtask book`. Do not edit. -->\n\n\
         `require \"tightwad\"` returns the table `tw`. A key with a question mark is optional. An unknown key is \
         an error.\n",
    );
    let mut specs = Vec::new();
    for function in &functions {
        write!(page, "\n## `{}`\n", function.signature)?;
        describe(&mut page, function)?;
        for parameter in &function.parameters {
            if let Some(class) = classes.iter().find(|class| class.name == parameter.type_name) {
                table(&mut page, "key", &class.fields)?;
                specs.push(&class.name);
            }
        }
    }
    for class in classes.iter().filter(|class| !specs.contains(&&class.name)) {
        write!(page, "\n## {}\n", class.name)?;
        if !class.help.is_empty() {
            write!(page, "\n{}\n", class.help)?;
        }
        table(&mut page, "field", &class.fields)?;
        for method in &class.methods {
            write!(page, "\n### `{}`\n", method.signature)?;
            describe(&mut page, method)?;
        }
    }
    Ok(page)
}

fn parse(stub: &str) -> Result<(Vec<Class>, Vec<Function>)> {
    let mut classes: Vec<Class> = Vec::new();
    let mut functions = Vec::new();
    // The class of each local variable, such as `Backend`.
    let mut variables: BTreeMap<String, usize> = BTreeMap::new();
    let mut pending = Annotations::default();
    for (number, line) in stub.lines().enumerate() {
        if let Some(comment) = line.strip_prefix("---") {
            annotate(&mut pending, comment).with_context(|| format!("line {}", number + 1))?;
            continue;
        }
        let annotations = std::mem::take(&mut pending);
        let statement = line.strip_prefix("function ");
        if let Some(name) = annotations.class {
            let variable = line.strip_prefix("local ").and_then(|rest| rest.split_whitespace().next());
            variables.extend(variable.map(|variable| (variable.to_owned(), classes.len())));
            let help = annotations.help.join(" ");
            classes.push(Class { name, help, fields: annotations.fields, methods: Vec::new() });
        } else if let Some(signature) = statement.and_then(|rest| rest.strip_suffix(" end")) {
            let function = Function {
                signature: signature.to_owned(),
                help: annotations.help.join(" "),
                parameters: annotations.parameters,
                returns: annotations.returns,
            };
            match signature.split_once(':') {
                Some((variable, _)) => {
                    let class = variables.get(variable);
                    let class = class.with_context(|| format!("line {}: no class {variable}", number + 1))?;
                    classes[*class].methods.push(function);
                }
                None => functions.push(function),
            }
        }
    }
    Ok((classes, functions))
}

/// Adds one comment line to `annotations`. `comment` is the line without its dashes.
fn annotate(annotations: &mut Annotations, comment: &str) -> Result<()> {
    let Some(tagged) = comment.strip_prefix('@') else {
        annotations.help.push(comment.trim().to_owned());
        return Ok(());
    };
    let (tag, rest) = tagged.split_once(' ').unwrap_or((tagged, ""));
    match tag {
        "meta" => {}
        "class" => annotations.class = Some(rest.trim_start_matches("(exact) ").trim().to_owned()),
        "field" => annotations.fields.push(field(rest)),
        "param" => annotations.parameters.push(field(rest)),
        "return" => {
            let (type_name, rest) = split_type(rest);
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            annotations.returns.push(Field {
                name: name.to_owned(),
                type_name: type_name.to_owned(),
                help: help.to_owned(),
            });
        }
        _ => bail!("unknown annotation '@{tag}'"),
    }
    Ok(())
}

/// Parses `name type help`.
fn field(text: &str) -> Field {
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (type_name, help) = split_type(rest);
    Field { name: name.to_owned(), type_name: type_name.to_owned(), help: help.to_owned() }
}

/// Splits a type from the text behind it. A type may have spaces inside brackets and after `,`, `:` and `|`.
fn split_type(text: &str) -> (&str, &str) {
    let mut depth = 0;
    let mut previous = ' ';
    for (offset, letter) in text.char_indices() {
        match letter {
            '(' | '{' | '[' | '<' => depth += 1,
            ')' | '}' | ']' | '>' => depth -= 1,
            ' ' if depth == 0 && !",:|".contains(previous) => {
                return (&text[..offset], text[offset..].trim());
            }
            _ => {}
        }
        previous = letter;
    }
    (text, "")
}

fn describe(page: &mut String, function: &Function) -> Result<()> {
    if !function.help.is_empty() {
        write!(page, "\n{}\n", function.help)?;
    }
    let lines: Vec<String> = function
        .parameters
        .iter()
        .map(|parameter| line(&parameter.name, parameter))
        .chain(function.returns.iter().map(|value| line(&format!("returns {}", value.name), value)))
        .collect();
    if !lines.is_empty() {
        write!(page, "\n{}\n", lines.join("\n"))?;
    }
    Ok(())
}

fn line(label: &str, field: &Field) -> String {
    let help = if field.help.is_empty() { String::new() } else { format!(": {}", field.help) };
    format!("- {} `{}`{help}", label.trim(), field.type_name)
}

fn table(page: &mut String, head: &str, fields: &[Field]) -> Result<()> {
    if fields.is_empty() {
        return Ok(());
    }
    write!(page, "\n| {head} | type | meaning |\n|---|---|---|\n")?;
    for Field { name, type_name, help } in fields {
        writeln!(page, "| `{name}` | `{}` | {} |", type_name.replace('|', "\\|"), help.replace('|', "\\|"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_lists_the_keys_of_its_table() {
        let stub = "---@meta tightwad\n\n---@class (exact) tightwad.Lookup\n\
                    ---@field name? string a name\n---@field rule? \"a\"|\"b\" default: \"a\"\n\n\
                    ---Proposes.\n---@param spec tightwad.Lookup\n---@return tightwad.Backend\n\
                    function tw.lookup(spec) end\n\n\
                    ---A backend.\n---@class tightwad.Backend\nlocal Backend = {}\n\n\
                    ---Answers.\n---@param req { a: string, b: integer } the request\n\
                    function Backend:generate(req) end\n";
        let page = page(stub).unwrap();
        assert!(page.contains(
            "## `tw.lookup(spec)`\n\nProposes.\n\n- spec `tightwad.Lookup`\n- returns `tightwad.Backend`\n\n\
             | key | type | meaning |\n|---|---|---|\n| `name?` | `string` | a name |\n\
             | `rule?` | `\"a\"\\|\"b\"` | default: \"a\" |\n"
        ));
        assert!(page.ends_with(
            "\n## tightwad.Backend\n\nA backend.\n\n### `Backend:generate(req)`\n\nAnswers.\n\n\
             - req `{ a: string, b: integer }`: the request\n"
        ));
    }

    #[test]
    fn an_unknown_annotation_is_an_error() {
        assert_eq!(format!("{:#}", page("---@typo x\n").unwrap_err()), "line 1: unknown annotation '@typo'");
    }
}
