//! `collector schema`.

use std::process::Command;

use collector_user::sink::json;
use serde_json::Value;

use crate::process::{COLLECTOR, output};

#[test]
fn the_schema_is_printed() {
    let output = output(&["schema"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let printed: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(printed, json::schema());
}

#[test]
fn a_reader_that_is_gone_is_no_error() {
    let (reader, writer) = std::io::pipe().expect("there are pipes");
    drop(reader);
    let output = Command::new(COLLECTOR).arg("schema").stdout(writer).output().expect("the collector starts");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
