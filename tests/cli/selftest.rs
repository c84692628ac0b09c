//! `collector selftest`: known traffic, sent and counted on this kernel.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use crate::process::{COLLECTOR, output};

/// The network namespaces that processes of this machine are in.
fn namespaces() -> BTreeSet<String> {
    let arguments = ["--type", "net", "--noheadings", "--output", "NS"];
    let listed = Command::new("lsns").args(arguments).output().expect("lsns runs");
    String::from_utf8_lossy(&listed.stdout).lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn every_row_that_this_kernel_allows_is_exact() {
    let before = namespaces();
    let output = output(&["selftest", "--output", "json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let rows: Vec<Value> = serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .expect("a JSON object a row");
    let number = |row: &Value, name: &str| row[name].as_u64().expect("a number");
    let mut ran = 0;
    for row in &rows {
        if row.get("sent").is_some() {
            ran += 1;
            assert!(number(row, "sent") > 0, "{row}");
            assert_eq!(number(row, "counted"), number(row, "sent"), "{row}");
            assert_eq!(number(row, "lost"), 0, "{row}");
        } else {
            assert!(row["not_possible"].as_str().is_some_and(|what| !what.is_empty()), "{row}");
        }
    }
    assert!(ran >= 12, "{ran} of {} rows: {rows:#?}", rows.len());
    let left: Vec<_> = namespaces().difference(&before).cloned().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn without_the_privilege_it_says_so_and_tells_no_row() {
    let output = Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all", COLLECTOR, "selftest"])
        .output()
        .expect("setpriv runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("CAP_SYS_ADMIN") && said.lines().count() == 1, "{said}");
    assert!(output.stdout.is_empty(), "{output:?}");
}
