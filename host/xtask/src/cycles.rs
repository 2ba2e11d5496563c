//! Import cycles: sets of files of one crate that import each other, also through re-exports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use syn::visit::{self, Visit};
use syn::{Attribute, File, ItemMod, ItemUse, UseTree, Visibility};

/// A module's place in its crate; the crate's root is empty.
type Place = Vec<String>;

/// What a file says about imports.
#[derive(Default)]
struct Module {
    file: PathBuf,
    /// Absolute paths of what is named in it.
    imports: BTreeSet<Place>,
    /// What it re-exports, by name.
    exports: BTreeMap<String, Place>,
}

/// The cycles of the crate whose sources are in `folder`, each as the files in it, sorted.
pub(crate) fn cycles(folder: &Path, files: &[PathBuf]) -> Result<Vec<Vec<PathBuf>>> {
    let places: BTreeMap<Place, PathBuf> =
        files.iter().filter_map(|file| Some((place(folder, file)?, file.clone()))).collect();
    let mut modules = BTreeMap::new();
    for (place, file) in &places {
        let text = fs::read_to_string(file)?;
        let parsed = syn::parse_file(&text).with_context(|| format!("cannot parse {}", file.display()))?;
        modules.insert(place.clone(), read(place, file, &parsed, &places));
    }
    Ok(components(&edges(&modules)).into_iter().map(|cycle| shown(&cycle, &modules)).collect())
}

fn shown(cycle: &[Place], modules: &BTreeMap<Place, Module>) -> Vec<PathBuf> {
    cycle.iter().filter_map(|place| modules.get(place)).map(|module| module.file.clone()).collect()
}

/// The module that a file is; `None` for `main.rs`, which is a crate of its own.
fn place(folder: &Path, file: &Path) -> Option<Place> {
    let inside = file.strip_prefix(folder).ok()?.with_extension("");
    let mut place: Place = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    match place.last().map(String::as_str) {
        Some("main") if place.len() == 1 => return None,
        Some("lib" | "mod") => drop(place.pop()),
        _ => {}
    }
    Some(place)
}

/// Collects the imports of one file.
struct Reader<'a> {
    places: &'a BTreeMap<Place, PathBuf>,
    /// The module that is being read, inline modules included.
    base: Place,
    own: usize,
    module: Module,
    /// Names of modules that were imported.
    aliases: BTreeMap<String, Place>,
    paths: Vec<(Place, Vec<String>)>,
}

fn read(place: &Place, file: &Path, parsed: &File, places: &BTreeMap<Place, PathBuf>) -> Module {
    let module = Module { file: file.to_owned(), ..Module::default() };
    let (base, own, aliases, paths) = (place.clone(), place.len(), BTreeMap::new(), Vec::new());
    let mut reader = Reader { places, base, own, module, aliases, paths };
    reader.visit_file(parsed);
    for (base, path) in std::mem::take(&mut reader.paths) {
        let absolute = reader.absolute(&base, &path).or_else(|| {
            let module = reader.aliases.get(path.first()?)?;
            Some([module.as_slice(), &path[1..]].concat())
        });
        reader.module.imports.extend(absolute);
    }
    reader.module
}

impl Reader<'_> {
    /// `path`, as module `base` writes it, from the crate's root; `None`: it leads out of the crate.
    fn absolute(&self, base: &[String], path: &[String]) -> Option<Place> {
        let first = path.first()?;
        match first.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([base, &path[1..]].concat()),
            "super" => {
                let up = path.iter().take_while(|part| *part == "super").count();
                Some([&base[..base.len().checked_sub(up)?], &path[up..]].concat())
            }
            _ => {
                let child = [base, std::slice::from_ref(first)].concat();
                self.places.contains_key(&child).then(|| [base, path].concat())
            }
        }
    }

    /// Adds the leaves of a `use` tree.
    fn add(&mut self, tree: &UseTree, before: &[String], public: bool) {
        let (name, alias) = match tree {
            UseTree::Path(path) => {
                return self.add(&path.tree, &with(before, &path.ident.to_string()), public);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|item| self.add(item, before, public));
            }
            UseTree::Glob(_) => return,
            UseTree::Name(name) => (name.ident.to_string(), name.ident.to_string()),
            UseTree::Rename(rename) => (rename.ident.to_string(), rename.rename.to_string()),
        };
        let path = if name == "self" { before.to_vec() } else { with(before, &name) };
        let alias = if alias == "self" { before.last().cloned().unwrap_or_default() } else { alias };
        let Some(absolute) = self.absolute(&self.base, &path) else { return };
        if self.places.contains_key(&absolute) {
            self.aliases.insert(alias.clone(), absolute.clone());
        }
        if public && self.base.len() == self.own {
            self.module.exports.insert(alias, absolute.clone());
        }
        self.module.imports.insert(absolute);
    }
}

fn with(before: &[String], name: &str) -> Vec<String> {
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
            self.base.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.base.pop();
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
            self.paths.push((self.base.clone(), parts));
        }
        visit::visit_path(self, path);
    }
}

/// Which module imports items of which other ones.
fn edges(modules: &BTreeMap<Place, Module>) -> BTreeMap<Place, BTreeSet<Place>> {
    let of = |(place, module): (&Place, &Module)| {
        let targets = module.imports.iter().filter_map(|import| definer(import, modules, 0));
        (place.clone(), targets.filter(|target| target != place).collect())
    };
    modules.iter().map(of).collect()
}

/// The module that defines what `path` names, behind re-exports; `None` for a module itself.
fn definer(path: &[String], modules: &BTreeMap<Place, Module>, depth: usize) -> Option<Place> {
    let at = (0..=path.len()).rev().find(|at| modules.contains_key(&path[..*at]))?;
    let exported = |module: &[String], name: &String| modules.get(module)?.exports.get(name);
    if at == path.len() {
        // A module, unless a function of the same name is re-exported beside it.
        let (name, parent) = path.split_last()?;
        let target = exported(parent, name).filter(|target| target.as_slice() != path && depth < 8)?;
        return definer(target, modules, depth + 1);
    }
    match exported(&path[..at], &path[at]) {
        Some(target) if depth < 8 => {
            definer(&[target.as_slice(), &path[at + 1..]].concat(), modules, depth + 1)
        }
        _ => Some(path[..at].to_vec()),
    }
}

/// The sets of two and more modules that reach each other.
fn components(edges: &BTreeMap<Place, BTreeSet<Place>>) -> Vec<Vec<Place>> {
    let reached: BTreeMap<&Place, BTreeSet<&Place>> =
        edges.keys().map(|place| (place, reachable(place, edges))).collect();
    let mut found: Vec<Vec<Place>> = Vec::new();
    for (place, others) in &reached {
        let back = |other: &&&Place| reached.get(**other).is_some_and(|from| from.contains(*place));
        let cycle: Vec<Place> = others.iter().filter(back).map(|other| (*other).clone()).collect();
        if cycle.len() > 1 && !found.contains(&cycle) {
            found.push(cycle);
        }
    }
    found
}

fn reachable<'a>(from: &'a Place, edges: &'a BTreeMap<Place, BTreeSet<Place>>) -> BTreeSet<&'a Place> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(place) = open.pop() {
        for next in edges.get(place).into_iter().flatten() {
            if found.insert(next) {
                open.push(next);
            }
        }
    }
    found
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
    fn a_facade_hides_no_cycle() {
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
    fn modules_that_are_imported_by_name_count_and_tests_do_not() {
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
