//! The files of a library, found the way the compiler finds them: from the `mod` items of its root.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    imports::{self, Module},
    violation::{Fault, Violation},
};
use crate::error::Error;

/// Checks the library below `src`; its programs (`src/bin`) are another crate and see only what is public.
pub(super) fn check(src: &Path) -> Result<Vec<Violation>, Error> {
    let mut violations = Vec::new();
    let mut seen = vec![src.join("lib.rs")];
    let mut waiting = vec![(src.join("lib.rs"), Module::default())];
    while let Some((file, module)) = waiting.pop() {
        let text = read(&file)?;
        let source = syn::parse_file(&text).map_err(|cause| Error::Source {
            path: file.clone(),
            line: cause.span().start().line,
            cause: cause.to_string(),
        })?;
        let findings = imports::check(&file, &module, &source);
        violations.extend(findings.violations);
        for (child, line) in findings.children {
            if let Some(path) = locate(src, &child) {
                seen.push(path.clone());
                waiting.push((path, child));
            } else {
                let name = child.path.join("::");
                violations.push(Violation { file: file.clone(), line, fault: Fault::NoFile { name } });
            }
        }
    }
    let unseen = files(src)?.into_iter().filter(|file| !seen.contains(file));
    violations.extend(unseen.map(|file| Violation { file, line: 1, fault: Fault::Undeclared }));
    Ok(violations)
}

/// Every Rust file below `folder` but those of `bin`, in order of name.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let fail = |cause| Error::File { act: "list", path: folder.to_path_buf(), cause };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.is_dir() && !path.ends_with("src/bin") {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Reads one source file.
pub(super) fn read(file: &Path) -> Result<String, Error> {
    fs::read_to_string(file).map_err(|cause| Error::File { act: "read", path: file.to_path_buf(), cause })
}

fn locate(src: &Path, module: &Module) -> Option<PathBuf> {
    let base = module.path.iter().fold(src.to_path_buf(), |path, name| path.join(name));
    [base.with_extension("rs"), base.join("mod.rs")].into_iter().find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::check;

    /// A source folder that is gone when the test ends.
    struct Folder(PathBuf);

    impl Folder {
        fn with(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            let folder = Self(root);
            for (file, text) in files {
                let path = folder.0.join("src").join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            folder
        }

        fn faults(&self) -> Vec<String> {
            let src = self.0.join("src");
            let mut violations = check(&src).unwrap();
            for violation in &mut violations {
                violation.relative_to(&src);
            }
            violations.iter().map(|v| format!("{}:{} {:?}", v.file.display(), v.line, v.fault)).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn modules_are_followed_into_their_files() {
        let folder = Folder::with(
            "follow",
            &[
                ("lib.rs", "mod drain;\nmod event;"),
                ("event.rs", ""),
                ("drain/mod.rs", "mod ring;\n#[cfg(test)]\nmod tests;"),
                ("drain/ring.rs", "\nuse crate::daemon;"),
                ("drain/tests.rs", "use super::*;"),
                ("bin/collector.rs", "use collector_user::cli;"),
            ],
        );
        assert_eq!(folder.faults(), ["drain/ring.rs:2 Forward { module: \"drain\", used: \"daemon\" }"]);
    }

    #[test]
    fn files_and_declarations_match() {
        let folder = Folder::with("match", &[("lib.rs", "mod event;"), ("lost.rs", "")]);
        assert_eq!(folder.faults(), ["lib.rs:1 NoFile { name: \"event\" }", "lost.rs:1 Undeclared"]);
    }
}
