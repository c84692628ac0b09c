use std::process::Command;

use crate::process::{COLLECTOR, TempFile, json, output};

/// Exit code, standard output, standard error.
fn collector(args: &[&str]) -> (Option<i32>, String, String) {
    let output = output(args);
    let text = |octets| String::from_utf8(octets).expect("it is text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_good_file_is_0_and_a_summary() {
    let file = TempFile::new("[[output]]\ntype = \"log\"\n[[pu]]\nid = \"web\"\ninterface = [\"x\"]\n");
    let (code, said, errors) = collector(&["config", "check", file.path()]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let want = format!("{}: good; outputs: log to stderr; processing units declared: 1\n", file.path());
    assert_eq!(said, want);
}

#[test]
fn a_wrong_file_is_2_with_the_place_and_what_was_expected() {
    let file = TempFile::new("forwarded = true\n[[output]]\ntype = \"json\"\n[[output]]\ntype = \"text\"\n");
    let (code, said, errors) = collector(&["config", "check", file.path()]);
    assert_eq!((code, said.as_str()), (Some(2), ""));
    let want = format!("error: {}:5:8: output: two outputs go to stdout, the first in line 3: ", file.path());
    assert!(errors.starts_with(&want), "{errors}");
    // `run` says the same.
    assert_eq!(collector(&["run", "--config", file.path()]), (code, said, errors));
}

#[test]
fn an_interface_that_run_would_miss_is_missed_by_check_too() {
    let file = TempFile::new("iface = [\"lo\", \"nosuch*\", \"nosuch0\"]\n");
    let (code, _, errors) = collector(&["config", "check", file.path()]);
    assert_eq!(code, Some(2));
    assert!(errors.contains(&format!("{}: iface: there is no interface nosuch0", file.path())), "{errors}");
    assert_eq!(errors.matches("there is no interface").count(), 1, "{errors}");
}

#[test]
fn what_is_shown_and_the_example_are_files_that_check_takes() {
    let file = TempFile::new("queue = 5\n[[pu]]\nid = \"web\"\ncidr = [\"fd77:0::/64\"]\n");
    let (code, shown, _) = collector(&["config", "show", "--config", file.path()]);
    assert_eq!(code, Some(0));
    for want in ["queue = 5", "cidr = [\"fd77::/64\"]", "counter-interval = \"30s\"", "to = \"stdout\""] {
        assert!(shown.contains(want), "{want} in {shown}");
    }
    for args in [["config", "show"], ["config", "example"]] {
        let (code, text, _) = collector(&args);
        assert_eq!(code, Some(0));
        assert_eq!(collector(&["config", "check", TempFile::new(&text).path()]).0, Some(0), "{text}");
    }
    let shown_again = collector(&["config", "show", "--config", TempFile::new(&shown).path()]).1;
    let body = |text: &str| text.split_once('\n').map(|(_, body)| body.to_owned());
    assert_eq!(body(&shown_again), body(&shown));
}

#[test]
fn the_log_can_be_json() {
    for (args, code) in [
        (&["run", "--log-format", "json", "--iface", "nosuch0"][..], 2),
        (&["run", "--log-format", "json", "--config", "/nonexistent"], 2),
    ] {
        let (told, said, errors) = collector(args);
        assert_eq!((told, said.as_str()), (Some(code), ""));
        let line = json(&errors);
        assert_eq!((&line["level"], &line["target"]), (&"ERROR".into(), &"collector".into()));
        assert!(line["message"].as_str().is_some_and(|text| text.contains("no")), "{line}");
    }
    let file = TempFile::new("log-format = \"json\"\niface = [\"nosuch0\"]\n");
    assert!(json(&collector(&["run", "--config", file.path()]).2).is_object());
}

#[test]
fn an_output_that_cannot_be_opened_is_1_before_anything_is_attached() {
    let file = TempFile::new("[[output]]\ntype = \"json\"\nto = \"/nonexistent/f\"\n");
    let (code, _, errors) = collector(&["run", "--config", file.path()]);
    assert_eq!(code, Some(1));
    let want = "error: the json output cannot write to /nonexistent/f: the folder must be there";
    assert!(errors.starts_with(want) && errors.contains("(os error 2)"), "{errors}");
}

#[test]
fn an_output_to_the_file_of_standard_error_is_2() {
    let target = TempFile::new("");
    let file = TempFile::new(&format!("[[output]]\ntype = \"json\"\nto = \"{}\"\n", target.path()));
    let errors = std::fs::File::options().append(true).open(target.path()).expect("it was made");
    let status = Command::new(COLLECTOR)
        .args(["run", "--config", file.path()])
        .stderr(errors)
        .status()
        .expect("the collector starts");
    assert_eq!(status.code(), Some(2));
    let said = std::fs::read_to_string(target.path()).expect("it is text");
    assert!(said.contains("that is standard error, where the log is written"), "{said}");
}

#[test]
fn one_place_by_two_names_is_2_before_anything_is_attached() {
    let target = TempFile::new("");
    let name = target.0.file_name().and_then(|name| name.to_str()).expect("a plain name");
    for (first, second) in [("stdout", "/dev/stdout"), (name, &format!("./{name}"))] {
        let table = |to| format!("[[output]]\ntype = \"json\"\nto = \"{to}\"\n");
        let file = TempFile::new(&(table(first) + &table(second)));
        let output = Command::new(COLLECTOR)
            .args(["run", "--config", file.path()])
            .current_dir(std::env::temp_dir())
            .output()
            .expect("the collector starts");
        let errors = String::from_utf8(output.stderr).expect("it is text");
        let want = format!(
            "error: the json-2 output cannot write to {second}: that is {first}, where the json output writes: "
        );
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.starts_with(&want), "{errors}");
    }
}
