//! The shared part of the eBPF crate (its library) uses nothing that exists in the kernel only.

use std::path::Path;

use proc_macro2::TokenStream;

use super::{
    sources, tokens,
    violation::{Fault, Violation},
};
use crate::error::Error;

/// Crates whose calls are kernel helpers.
const KERNEL_ONLY: [&str; 5] =
    ["aya_ebpf", "aya_ebpf_bindings", "aya_ebpf_cty", "aya_ebpf_macros", "aya_log_ebpf"];

/// Checks every file below `src` but those of its programs.
pub(super) fn check(src: &Path) -> Result<Vec<Violation>, Error> {
    let mut violations = Vec::new();
    for file in sources::files(src)? {
        let text = sources::read(&file)?;
        let impure = impure(&text).map_err(|cause| Error::Source {
            path: file.clone(),
            line: cause.span().start().line,
            cause: cause.to_string(),
        })?;
        let violation = |(name, line)| Violation { file: file.clone(), line, fault: Fault::Impure { name } };
        violations.extend(impure.into_iter().map(violation));
    }
    Ok(violations)
}

/// Looking at names alone is enough: none of these crates can be used without its name.
fn impure(text: &str) -> Result<Vec<(String, usize)>, proc_macro2::LexError> {
    let stream: TokenStream = text.parse()?;
    let names = tokens::idents(stream);
    Ok(names.into_iter().filter(|(name, _)| KERNEL_ONLY.contains(&name.as_str())).collect())
}

#[cfg(test)]
mod tests {
    use super::impure;

    #[test]
    fn kernel_crates_are_found_wherever_they_stand() {
        let source = "use core::fmt;\nfn f() { m!(aya_ebpf::helpers::now()) }\nuse aya_log_ebpf::info;";
        let found = impure(source).unwrap();
        assert_eq!(found, [("aya_ebpf".to_owned(), 2), ("aya_log_ebpf".to_owned(), 3)]);
    }

    #[test]
    fn words_are_not_uses() {
        assert_eq!(impure("//! Not aya_ebpf.\n/* aya_ebpf */ const A: &str = \"aya_ebpf\";").unwrap(), []);
    }
}
