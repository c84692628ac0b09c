//! Paths inside token streams: macro arguments and attributes, which the parser leaves unparsed.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path that begins at the crate, at the module, or above it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TokenPath {
    pub(super) segments: Vec<String>,
    pub(super) is_glob: bool,
    pub(super) line: usize,
}

/// All such paths in a stream; a brace group (`crate::{a, b}`) gives one path for each of its members.
pub(super) fn paths(stream: TokenStream) -> Vec<TokenPath> {
    let mut found = Vec::new();
    collect(stream, &mut found);
    found
}

/// The same in the text of a string literal, as in `#[serde(with = "crate::clock::text")]`.
pub(super) fn paths_in_strings(stream: TokenStream) -> Vec<TokenPath> {
    let mut found = Vec::new();
    for tree in stream {
        match tree {
            TokenTree::Group(group) => found.extend(paths_in_strings(group.stream())),
            TokenTree::Literal(literal) => {
                let line = literal.span().start().line;
                let text = literal.to_string();
                let inner = text.trim_start_matches('r').trim_matches(['#', '"']);
                if let Ok(stream) = inner.parse::<TokenStream>() {
                    found.extend(paths(stream).into_iter().map(|path| TokenPath { line, ..path }));
                }
            }
            _ => {}
        }
    }
    found
}

/// Every identifier of a stream with its line.
pub(super) fn idents(stream: TokenStream) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for tree in stream {
        match tree {
            TokenTree::Group(group) => found.extend(idents(group.stream())),
            TokenTree::Ident(ident) => found.push((ident.to_string(), ident.span().start().line)),
            _ => {}
        }
    }
    found
}

/// Whether a path with this first segment can lead to another module of the crate.
pub(super) fn is_anchor(segment: &str) -> bool {
    matches!(segment, "crate" | "self" | "super" | "collector_user")
}

fn collect(stream: TokenStream, found: &mut Vec<TokenPath>) {
    let trees: Vec<_> = stream.into_iter().collect();
    let mut rest = trees.as_slice();
    while let Some((tree, after)) = rest.split_first() {
        rest = after;
        match tree {
            TokenTree::Group(group) => collect(group.stream(), found),
            TokenTree::Ident(ident) if is_anchor(&ident.to_string()) => {
                let start = vec![ident.to_string()];
                rest = follow(start, ident.span().start().line, after, found);
            }
            _ => {}
        }
    }
}

/// Reads `:: ident :: ident ...` after the first segment; returns what comes after the path.
fn follow<'a>(
    mut segments: Vec<String>,
    line: usize,
    mut rest: &'a [TokenTree],
    found: &mut Vec<TokenPath>,
) -> &'a [TokenTree] {
    let mut is_glob = false;
    while let [TokenTree::Punct(first), TokenTree::Punct(second), next, after @ ..] = rest {
        if first.as_char() != ':' || second.as_char() != ':' {
            break;
        }
        match next {
            TokenTree::Ident(ident) => segments.push(ident.to_string()),
            TokenTree::Punct(star) if star.as_char() == '*' => is_glob = true,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                members(&segments, group.stream(), found);
                return after;
            }
            _ => break,
        }
        rest = after;
        if is_glob {
            break;
        }
    }
    if segments.len() > 1 || is_glob {
        found.push(TokenPath { segments, is_glob, line });
    }
    rest
}

fn members(prefix: &[String], group: TokenStream, found: &mut Vec<TokenPath>) {
    let trees: Vec<_> = group.into_iter().collect();
    let is_comma = |tree: &TokenTree| matches!(tree, TokenTree::Punct(punct) if punct.as_char() == ',');
    for member in trees.split(is_comma) {
        match member.split_first() {
            Some((TokenTree::Ident(ident), rest)) => {
                let segments = prefix.iter().cloned().chain([ident.to_string()]).collect();
                follow(segments, ident.span().start().line, rest, found);
            }
            Some((TokenTree::Punct(star), _)) if star.as_char() == '*' => {
                let line = star.span().start().line;
                found.push(TokenPath { segments: prefix.to_vec(), is_glob: true, line });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{paths, paths_in_strings};

    fn names(source: &str) -> Vec<String> {
        let show = |path: super::TokenPath| {
            format!("{}{}", path.segments.join("::"), if path.is_glob { "::*" } else { "" })
        };
        paths(source.parse().unwrap()).into_iter().map(show).collect()
    }

    #[test]
    fn paths_are_found_at_any_depth() {
        assert_eq!(
            names("a, [b(crate::drain::Ring)], super::super::x()"),
            ["crate::drain::Ring", "super::super::x"]
        );
        assert_eq!(names("self.field, pub(crate) fn f(&self)"), [] as [&str; 0]);
    }

    #[test]
    fn groups_and_globs_are_followed() {
        assert_eq!(
            names("use crate::{host::{Link, Role}, kernel, sink::*};"),
            ["crate::host::Link", "crate::host::Role", "crate::kernel", "crate::sink::*"]
        );
        assert_eq!(names("$crate::cli::go!()"), ["crate::cli::go"]);
    }

    #[test]
    fn strings_are_looked_into() {
        let found =
            paths_in_strings("serde(with = \"crate::clock::text\", rename = \"a b\")".parse().unwrap());
        assert_eq!(found.first().map(|path| path.segments.join("::")).as_deref(), Some("crate::clock::text"));
        assert_eq!(found.len(), 1);
    }
}
