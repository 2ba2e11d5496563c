//! Import cycles: sets of files of one crate that import each other, also through re-exports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use syn::visit::{self, Visit};
use syn::{Attribute, File, ItemMod, ItemUse, UseTree, Visibility};

/// Path of a module in its crate. The root's path is empty.
type ModulePath = Vec<String>;

/// The imports and re-exports of one file.
#[derive(Default)]
struct Module {
    file: PathBuf,
    /// Absolute paths of imported items.
    imports: BTreeSet<ModulePath>,
    /// Re-exported items by name.
    exports: BTreeMap<String, ModulePath>,
}

/// The import cycles of the crate with its sources in `folder`, each as a sorted list of files.
pub(crate) fn cycles(folder: &Path, files: &[PathBuf]) -> Result<Vec<Vec<PathBuf>>> {
    let module_files: BTreeMap<ModulePath, PathBuf> =
        files.iter().filter_map(|file| Some((module_path(folder, file)?, file.clone()))).collect();
    let mut modules = BTreeMap::new();
    for (module_path, file) in &module_files {
        let text = fs::read_to_string(file)?;
        let parsed = syn::parse_file(&text).with_context(|| format!("cannot parse {}", file.display()))?;
        modules.insert(module_path.clone(), read_module(module_path, file, &parsed, &module_files));
    }
    Ok(components(&edges(&modules)).into_iter().map(|cycle| cycle_files(&cycle, &modules)).collect())
}

fn cycle_files(cycle: &[ModulePath], modules: &BTreeMap<ModulePath, Module>) -> Vec<PathBuf> {
    cycle
        .iter()
        .filter_map(|module_path| modules.get(module_path))
        .map(|module| module.file.clone())
        .collect()
}

/// The module path of a file. `None` for `main.rs`, which is another crate.
fn module_path(folder: &Path, file: &Path) -> Option<ModulePath> {
    let inside = file.strip_prefix(folder).ok()?.with_extension("");
    let mut module_path: ModulePath = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    match module_path.last().map(String::as_str) {
        Some("main") if module_path.len() == 1 => return None,
        Some("lib" | "mod") => drop(module_path.pop()),
        _ => {}
    }
    Some(module_path)
}

/// Collects the imports of one file.
struct Reader<'a> {
    module_files: &'a BTreeMap<ModulePath, PathBuf>,
    /// The current module: the file, or an inline module in it.
    current: ModulePath,
    file_depth: usize,
    module: Module,
    /// Imported modules by name.
    aliases: BTreeMap<String, ModulePath>,
    expressions: Vec<(ModulePath, Vec<String>)>,
}

fn read_module(
    module_path: &ModulePath,
    file: &Path,
    parsed: &File,
    module_files: &BTreeMap<ModulePath, PathBuf>,
) -> Module {
    let module = Module { file: file.to_owned(), ..Module::default() };
    let (current, file_depth, aliases, expressions) =
        (module_path.clone(), module_path.len(), BTreeMap::new(), Vec::new());
    let mut reader = Reader { module_files, current, file_depth, module, aliases, expressions };
    reader.visit_file(parsed);
    for (current, path) in std::mem::take(&mut reader.expressions) {
        let absolute = reader.absolute(&current, &path).or_else(|| {
            let module = reader.aliases.get(path.first()?)?;
            Some([module.as_slice(), &path[1..]].concat())
        });
        reader.module.imports.extend(absolute);
    }
    reader.module
}

impl Reader<'_> {
    /// Resolves `path` in the module `current` to a path from the crate's root. `None`: the path leads to another crate.
    fn absolute(&self, current: &[String], path: &[String]) -> Option<ModulePath> {
        let first = path.first()?;
        match first.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([current, &path[1..]].concat()),
            "super" => {
                let level_count = path.iter().take_while(|part| *part == "super").count();
                Some([&current[..current.len().checked_sub(level_count)?], &path[level_count..]].concat())
            }
            _ => {
                let child = [current, std::slice::from_ref(first)].concat();
                self.module_files.contains_key(&child).then(|| [current, path].concat())
            }
        }
    }

    /// Adds the leaves of a `use` tree.
    fn add(&mut self, tree: &UseTree, before: &[String], public: bool) {
        let (name, alias) = match tree {
            UseTree::Path(path) => {
                return self.add(&path.tree, &joined(before, &path.ident.to_string()), public);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|item| self.add(item, before, public));
            }
            UseTree::Glob(_) => return,
            UseTree::Name(name) => (name.ident.to_string(), name.ident.to_string()),
            UseTree::Rename(rename) => (rename.ident.to_string(), rename.rename.to_string()),
        };
        let path = if name == "self" { before.to_vec() } else { joined(before, &name) };
        let alias = if alias == "self" { before.last().cloned().unwrap_or_default() } else { alias };
        let Some(absolute) = self.absolute(&self.current, &path) else { return };
        if self.module_files.contains_key(&absolute) {
            self.aliases.insert(alias.clone(), absolute.clone());
        }
        if public && self.current.len() == self.file_depth {
            self.module.exports.insert(alias, absolute.clone());
        }
        self.module.imports.insert(absolute);
    }
}

fn joined(before: &[String], name: &str) -> Vec<String> {
    [before, &[name.to_owned()]].concat()
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.content.is_some() && !is_test(&item.attrs) {
            self.current.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.current.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_test(&item.attrs) {
            self.add(&item.tree, &[], !matches!(item.vis, Visibility::Inherited));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let parts = path.segments.iter().map(|part| part.ident.to_string()).collect();
            self.expressions.push((self.current.clone(), parts));
        }
        visit::visit_path(self, path);
    }
}

/// For each module, the modules that define its imports.
fn edges(modules: &BTreeMap<ModulePath, Module>) -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
    let targets_of = |(module_path, module): (&ModulePath, &Module)| {
        let targets = module.imports.iter().filter_map(|import| definer(import, modules, 0));
        (module_path.clone(), targets.filter(|target| target != module_path).collect())
    };
    modules.iter().map(targets_of).collect()
}

/// Follows re-exports to the module that defines the item `path`. `None` if `path` is a module.
fn definer(path: &[String], modules: &BTreeMap<ModulePath, Module>, depth: usize) -> Option<ModulePath> {
    let length = (0..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]))?;
    let exported = |module: &[String], name: &String| modules.get(module)?.exports.get(name);
    if length == path.len() {
        // A path to a module is not an item, unless the parent re-exports a function of the same name.
        let (name, parent) = path.split_last()?;
        let target = exported(parent, name).filter(|target| target.as_slice() != path && depth < 8)?;
        return definer(target, modules, depth + 1);
    }
    match exported(&path[..length], &path[length]) {
        Some(target) if depth < 8 => {
            definer(&[target.as_slice(), &path[length + 1..]].concat(), modules, depth + 1)
        }
        _ => Some(path[..length].to_vec()),
    }
}

/// The strongly connected components with two or more modules.
fn components(edges: &BTreeMap<ModulePath, BTreeSet<ModulePath>>) -> Vec<Vec<ModulePath>> {
    let reachable_modules: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> =
        edges.keys().map(|module_path| (module_path, reachable(module_path, edges))).collect();
    let mut cycles: Vec<Vec<ModulePath>> = Vec::new();
    for (module_path, reachable) in &reachable_modules {
        let reaches_back = |other: &&&ModulePath| {
            reachable_modules.get(**other).is_some_and(|from| from.contains(*module_path))
        };
        let cycle: Vec<ModulePath> =
            reachable.iter().filter(reaches_back).map(|other| (*other).clone()).collect();
        if cycle.len() > 1 && !cycles.contains(&cycle) {
            cycles.push(cycle);
        }
    }
    cycles
}

fn reachable<'a>(
    from: &'a ModulePath,
    edges: &'a BTreeMap<ModulePath, BTreeSet<ModulePath>>,
) -> BTreeSet<&'a ModulePath> {
    let mut reached = BTreeSet::new();
    let mut pending = vec![from];
    while let Some(module_path) = pending.pop() {
        for next in edges.get(module_path).into_iter().flatten() {
            if reached.insert(next) {
                pending.push(next);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = files.iter().map(|(name, _)| folder.path().join(name)).collect();
        for (path, (_, text)) in paths.iter().zip(files) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let name = |path: PathBuf| path.strip_prefix(folder.path()).unwrap().display().to_string();
        let found = cycles(folder.path(), &paths).unwrap();
        found.into_iter().map(|cycle| cycle.into_iter().map(name).collect()).collect()
    }

    #[test]
    fn files_that_import_each_other_are_a_cycle() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B; fn f() -> crate::a::A { todo!() }"),
            ("c.rs", "use crate::{a::A, b::B};"),
        ];
        assert_eq!(cycles_of(&files), [["a.rs", "b.rs"]]);
    }

    #[test]
    fn re_export_does_not_hide_a_cycle() {
        let files = [
            ("lib.rs", "mod x; mod z;"),
            ("x/mod.rs", "mod y; pub use y::Y;"),
            ("x/y.rs", "use crate::z::Z; pub struct Y;"),
            ("z.rs", "use crate::x::Y; pub struct Z;"),
        ];
        assert_eq!(cycles_of(&files), [["x/y.rs", "z.rs"]]);
        let child = [
            ("lib.rs", "mod x;"),
            ("x/mod.rs", "mod y; use y::Y; pub const N: u8 = 1;"),
            ("x/y.rs", "use super::N; pub struct Y;"),
        ];
        assert_eq!(cycles_of(&child), [["x/mod.rs", "x/y.rs"]]);
    }

    #[test]
    fn imports_of_modules_count_and_imports_of_tests_do_not() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b; pub fn f() { b::g() }"),
            ("b.rs", "use crate::a; pub fn g() { a::f() }"),
        ];
        assert_eq!(cycles_of(&files), [["a.rs", "b.rs"]]);
        let tested = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }"),
        ];
        assert!(cycles_of(&tested).is_empty());
    }
}
