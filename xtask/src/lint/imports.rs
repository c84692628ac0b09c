//! The uses of one source file, each resolved to a module at the crate root and held against the order.

use std::path::Path;

use proc_macro2::Span;
use syn::{
    Attribute, File, ItemExternCrate, ItemMod, ItemUse, Macro, Meta, UseTree, Visibility,
    ext::IdentExt as _,
    visit::{self, Visit},
};

use super::{
    order, tokens,
    violation::{Fault, Violation},
};

/// A module as its parent declares it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Module {
    /// Names from the crate root, which itself is empty.
    pub(super) path: Vec<String>,
    /// Whether it, or a module around it, is compiled for tests only.
    pub(super) is_test: bool,
}

/// What a file breaks, and the modules that lie in further files (with the line that declares each).
#[derive(Default)]
pub(super) struct Findings {
    pub(super) violations: Vec<Violation>,
    pub(super) children: Vec<(Module, usize)>,
}

/// Checks the parsed source of `module`.
pub(super) fn check(file: &Path, module: &Module, source: &File) -> Findings {
    let mut visitor = Imports { file, module: module.clone(), findings: Findings::default() };
    visitor.visit_file(source);
    visitor.findings
}

struct Imports<'a> {
    file: &'a Path,
    module: Module,
    findings: Findings,
}

impl Imports<'_> {
    fn report(&mut self, line: usize, fault: Fault) {
        self.findings.violations.push(Violation { file: self.file.to_path_buf(), line, fault });
    }

    /// Follows a path that starts at the crate, at this module, or above it, and checks where it leads.
    fn path(&mut self, segments: &[String], line: usize) {
        let Some((anchor, mut rest)) = segments.split_first() else { return };
        let mut target = match anchor.as_str() {
            "crate" | "collector_user" => Vec::new(),
            "self" => self.module.path.clone(),
            "super" => {
                rest = segments;
                self.module.path.clone()
            }
            // Other crates, and names that are in scope: those were checked where they came in.
            _ => return,
        };
        while let Some(("super", after)) = rest.split_first().map(|(first, after)| (first.as_str(), after)) {
            if target.pop().is_none() {
                return self.report(line, Fault::BeyondRoot);
            }
            rest = after;
        }
        target.extend(rest.iter().filter(|segment| *segment != "self").cloned());
        self.target(target.first().map(String::as_str), line);
    }

    fn target(&mut self, used: Option<&str>, line: usize) {
        let Some(used) = used else { return self.report(line, Fault::RootAlias) };
        // The root declares modules; there is nothing before it.
        let Some(module) = self.module.path.first().filter(|module| *module != used) else { return };
        if !order::is_known(used) {
            self.report(line, Fault::NotAModule { name: used.to_owned() });
        } else if !order::may_use(module, used) {
            let fault = Fault::Forward { module: module.clone(), used: used.to_owned() };
            self.report(line, fault);
        }
    }

    fn glob(&mut self, prefix: &[String], line: usize) {
        let is_parent_of_tests = self.module.is_test && prefix == ["super"];
        if !is_parent_of_tests {
            self.report(line, Fault::Glob { path: prefix.join("::") });
        }
    }

    /// Walks a use-tree; `prefix` is what stands before this part of it.
    fn tree(&mut self, prefix: &mut Vec<String>, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.unraw().to_string());
                self.tree(prefix, &path.tree);
                prefix.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(prefix, item)),
            UseTree::Name(name) => self.leaf(prefix, &name.ident),
            UseTree::Rename(rename) => self.leaf(prefix, &rename.ident),
            UseTree::Glob(glob) => self.glob(prefix, line(glob.star_token.spans[0])),
        }
    }

    fn leaf(&mut self, prefix: &[String], ident: &syn::Ident) {
        let segments: Vec<_> = prefix.iter().cloned().chain([ident.unraw().to_string()]).collect();
        self.path(&segments, line(ident.span()));
    }

    fn attributes(&mut self, attributes: &[Attribute]) {
        for attribute in attributes {
            self.visit_attribute(attribute);
        }
    }

    fn token_paths(&mut self, paths: Vec<tokens::TokenPath>) {
        for path in paths {
            if path.is_glob {
                self.glob(&path.segments, path.line);
            } else {
                self.path(&path.segments, path.line);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Imports<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let name = item.ident.unraw().to_string();
        let at = line(item.ident.span());
        let is_test = self.module.is_test || item.attrs.iter().any(is_for_tests);
        let is_root = self.module.path.is_empty();
        // Tests of the root itself may stand in it: they hide nothing from anyone.
        if is_root && !order::is_known(&name) && !(is_test && item.content.is_some()) {
            self.report(at, Fault::UnknownModule { name: name.clone() });
        }
        if item.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
            self.report(at, Fault::PathAttribute { name: name.clone() });
        }
        self.attributes(&item.attrs);
        let mut inner = self.module.clone();
        inner.path.push(name);
        inner.is_test = is_test;
        let Some((_, items)) = &item.content else {
            self.findings.children.push((inner, at));
            return;
        };
        let outer = std::mem::replace(&mut self.module, inner);
        for item in items {
            self.visit_item(item);
        }
        self.module = outer;
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if self.module.path.is_empty() && !matches!(item.vis, Visibility::Inherited) {
            self.report(line(item.use_token.span), Fault::Reexport);
        }
        self.attributes(&item.attrs);
        self.tree(&mut Vec::new(), &item.tree);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast ItemExternCrate) {
        if item.ident == "self" || item.ident == "collector_user" {
            self.report(line(item.ident.span()), Fault::RootAlias);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|part| part.ident.unraw().to_string()).collect();
        // Alone, `self` is a value and `crate` or `super` a visibility.
        if let Some(first) = path.segments.first().filter(|_| segments.len() > 1) {
            self.path(&segments, line(first.ident.span()));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, makro: &'ast Macro) {
        self.visit_path(&makro.path);
        self.token_paths(tokens::paths(makro.tokens.clone()));
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        // A link in documentation uses nothing.
        if attribute.path().is_ident("doc") {
            return;
        }
        if let Meta::List(list) = &attribute.meta {
            self.token_paths(tokens::paths(list.tokens.clone()));
            self.token_paths(tokens::paths_in_strings(list.tokens.clone()));
        }
        visit::visit_attribute(self, attribute);
    }
}

fn line(span: Span) -> usize {
    span.start().line
}

/// `#[cfg(test)]`, `#[cfg(all(test, ...))]`; a `not` in it is taken for the opposite.
fn is_for_tests(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else { return false };
    let names = tokens::idents(list.tokens.clone());
    let has = |word| names.iter().any(|(name, _)| name == word);
    list.path.is_ident("cfg") && has("test") && !has("not")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Module, check};

    /// The faults of `source` as the text of a file of `module` (`""` is the root), each with its line.
    fn faults(module: &str, source: &str) -> Vec<String> {
        let path = module.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let source = syn::parse_file(source).unwrap();
        let findings = check(Path::new("f"), &Module { path, is_test: false }, &source);
        findings
            .violations
            .iter()
            .map(|violation| format!("{}: {:?}", violation.line, violation.fault))
            .collect()
    }

    fn forward(line: usize, module: &str, used: &str) -> String {
        format!("{line}: Forward {{ module: {module:?}, used: {used:?} }}")
    }

    #[test]
    fn a_legal_file_passes() {
        let source = "
            //! See [`crate::daemon`].
            use std::{fmt, io};
            use crate::{clock::Clock, drain::decode, event::{Flow, self}, kernel::{self, Object}};
            use super::ring;
            use self::inner::Thing;
            pub(crate) use tokio::sync::mpsc;
            mod child;
            mod inner { pub(in crate::drain) struct Thing; }
            /// Like [`crate::cli`], not a use.
            #[serde(with = \"crate::clock::text\")]
            struct A { b: crate::host::Link }
            impl A {
                fn f(&self) -> crate::error::Error {
                    println!(\"crate::cli {}\", crate::ledger::read(self.b));
                }
            }
            #[cfg(test)]
            mod tests { use super::*; #[test] fn t() { super::super::ring::x(); } }
        ";
        assert_eq!(faults("drain::tables", source), [] as [&str; 0]);
    }

    #[test]
    fn a_legal_root_passes() {
        let source =
            "//! Rooms.\npub mod event;\npub mod clock;\nmod cli;\n#[cfg(test)]\nmod tests { use super::*; }";
        assert_eq!(faults("", source), [] as [&str; 0]);
    }

    #[test]
    fn a_later_module_is_refused_in_a_use() {
        assert_eq!(faults("kernel", "use crate::drain::Ring;"), [forward(1, "kernel", "drain")]);
        assert_eq!(faults("kernel", "use crate::{event,\n daemon as d};"), [forward(2, "kernel", "daemon")]);
        assert_eq!(faults("kernel", "use collector_user::cli;"), [forward(1, "kernel", "cli")]);
        assert_eq!(faults("kernel", "fn f() { use crate::sink::Text; }"), [forward(1, "kernel", "sink")]);
    }

    #[test]
    fn a_later_module_is_refused_in_a_path() {
        assert_eq!(faults("host", "fn f() {\n crate::pu::find() }"), [forward(2, "host", "pu")]);
        assert_eq!(faults("host", "struct A(Vec<crate::pu::Id>);"), [forward(1, "host", "pu")]);
        assert_eq!(faults("host", "impl crate::sink::Sink for A {}"), [forward(1, "host", "sink")]);
        assert_eq!(faults("host", "fn f() { crate::sink::say!() }"), [forward(1, "host", "sink")]);
    }

    #[test]
    fn super_is_followed_to_its_module() {
        assert_eq!(faults("host::links", "use super::super::daemon;"), [forward(1, "host", "daemon")]);
        assert_eq!(faults("host", "use super::daemon::Run;"), [forward(1, "host", "daemon")]);
        assert_eq!(faults("host", "fn f() { self::super::daemon::f() }"), [forward(1, "host", "daemon")]);
        assert_eq!(faults("host", "mod a { use super::super::cli; }"), [forward(1, "host", "cli")]);
        assert_eq!(faults("host::links", "use super::users;"), [] as [&str; 0]);
        assert_eq!(faults("host", "use super::super::x;"), ["1: BeyondRoot"]);
    }

    #[test]
    fn tests_obey_too() {
        let source = "#[cfg(test)]\nmod tests {\n use crate::daemon::run;\n}";
        assert_eq!(faults("drain", source), [forward(3, "drain", "daemon")]);
    }

    #[test]
    fn macro_arguments_are_searched() {
        assert_eq!(faults("drain", "fn f() { assert!(g(crate::cli::go())) }"), [forward(1, "drain", "cli")]);
        assert_eq!(
            faults("drain", "macro_rules! m { () => {\n $crate::sink::f() } }"),
            [forward(2, "drain", "sink")]
        );
        assert_eq!(faults("drain", "m! { use super::{event, pu::Id}; }"), [forward(1, "drain", "pu")]);
    }

    #[test]
    fn attributes_are_searched() {
        let source = "#[serde(with = \"crate::config::text\")]\nstruct A;";
        assert_eq!(faults("drain", source), [forward(1, "drain", "config")]);
        assert_eq!(faults("drain", "#[x(crate::config::f)]\nstruct A;"), [forward(1, "drain", "config")]);
    }

    #[test]
    fn globs_are_refused() {
        assert_eq!(faults("drain", "use crate::event::*;"), ["1: Glob { path: \"crate::event\" }"]);
        assert_eq!(faults("drain", "use super::*;"), ["1: Glob { path: \"super\" }"]);
        assert_eq!(faults("drain", "use std::{io, fmt::*};"), ["1: Glob { path: \"std::fmt\" }"]);
        assert_eq!(
            faults("drain", "#[cfg(test)] mod tests { use crate::event::*; }"),
            ["1: Glob { path: \"crate::event\" }"]
        );
    }

    #[test]
    fn the_root_declares_known_modules_and_exports_nothing() {
        assert_eq!(faults("", "mod util;"), ["1: UnknownModule { name: \"util\" }"]);
        assert_eq!(faults("", "mod event;\npub use event::Flow;"), ["2: Reexport"]);
        assert_eq!(faults("", "pub(crate) use crate::event::Flow;"), ["1: Reexport"]);
        assert_eq!(faults("drain", "use crate::Flow;"), ["1: NotAModule { name: \"Flow\" }"]);
    }

    #[test]
    fn the_root_has_one_name() {
        assert_eq!(faults("drain", "use crate as root;"), ["1: RootAlias"]);
        assert_eq!(faults("drain", "use crate::{self as root};"), ["1: RootAlias"]);
        assert_eq!(faults("drain", "use super as root;"), ["1: RootAlias"]);
        assert_eq!(faults("", "extern crate self as root;"), ["1: RootAlias"]);
        assert_eq!(faults("drain::ring", "use super as drain;"), [] as [&str; 0]);
    }

    #[test]
    fn a_module_lies_in_the_file_of_its_name() {
        assert_eq!(faults("drain", "#[path = \"../cli.rs\"]\nmod a;"), ["2: PathAttribute { name: \"a\" }"]);
    }
}
