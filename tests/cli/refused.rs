use std::{os::unix::process::CommandExt as _, process::Command};

use crate::process::{COLLECTOR, TempFile, Wire, output, sh};

fn refused(args: &[&str]) -> (Option<i32>, String) {
    let output = output(args);
    assert!(output.stdout.is_empty(), "errors go to standard error");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn bad_usage_is_2() {
    let (code, said) = refused(&["run", "--outptu", "json"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("--outptu"), "{said}");
    let (code, said) = refused(&["run", "--flow-interval", "5"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("10s") || said.contains("unit"), "says what a length of time looks like: {said}");
}

/// Before any privilege is asked for.
#[test]
#[cfg(not(target_feature = "crt-static"))]
fn a_wrong_filter_is_2_in_the_words_of_libpcap() {
    let (code, said) = refused(&["run", "--filter", "tcp port"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("\"tcp port\" is no filter (pcap-filter(7)): "), "{said}");
    assert!(said.contains("syntax error") && said.matches("tcp port").count() == 1, "{said}");
    let file = TempFile::new("forwarded = true\nfilter = \"port 99999\"\n");
    for args in [["run", "--config"], ["config", "check"]] {
        let (code, said) = refused(&[args[0], args[1], file.path()]);
        assert_eq!(code, Some(2));
        assert!(
            said.contains(&format!("{}:2:10: filter: \"port 99999\" is no filter", file.path())),
            "{said}"
        );
    }
}

/// A guest has no libpcap.
#[test]
#[cfg(target_feature = "crt-static")]
fn without_libpcap_a_filter_is_2_and_the_package_is_named() {
    let (code, said) = refused(&["run", "--filter", "tcp port 443"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("install it (Debian: libpcap0.8)"), "{said}");
}

#[test]
fn help_is_an_output() {
    let output = output(&["run", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for option in [
        "--config",
        "--iface",
        "--forwarded",
        "--filter",
        "--output",
        "--duration",
        "--flow-interval",
        "--counter-interval",
    ] {
        assert!(text.contains(option), "{option} in {text}");
    }
}

#[test]
fn a_wrong_configuration_is_2_with_its_place() {
    let file = TempFile::new("[[pu]]\nid = \"web\"\ncolour = \"red\"\n");
    let (code, said) = refused(&["run", "--config", file.path()]);
    assert_eq!(code, Some(2));
    assert!(said.contains(&format!("{}:3:1", file.path())), "{said}");
    assert!(
        said.contains("colour") && said.contains("interface"),
        "names the key and what was expected: {said}"
    );
}

#[test]
fn a_configuration_that_is_not_there_is_2() {
    let (code, said) = refused(&["run", "--config", "/nonexistent/collector.toml"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("/nonexistent/collector.toml"), "{said}");
}

#[test]
fn an_interface_that_does_not_exist_is_2() {
    let (code, said) = refused(&["run", "--iface", "nosuch0"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("there is no interface nosuch0"), "{said}");
}

#[test]
fn packets_of_a_unit_that_does_not_exist_are_2() {
    let (code, said) = refused(&["run", "--trace", "wbe:in:10s"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("no processing unit \"wbe\"") && said.contains("[[pu]]"), "{said}");
    let file = TempFile::new("[[trace]]\npu = \"wbe\"\n");
    let (code, said) = refused(&["run", "--config", file.path()]);
    assert_eq!(code, Some(2));
    assert!(said.contains(&format!("{}:2:6", file.path())) && said.contains("wbe"), "{said}");
}

#[test]
fn what_is_asked_for_and_cannot_be_is_2_and_told_why() {
    for (args, want) in [
        (&["capture", "-w", "-", "--count", "0"][..], "a capture of no packets writes nothing"),
        (&["run", "--trace", "host:sideways"], ":in, :out or :both"),
        (&["run", "--sample", "7"], "--sample says how single packets are reported, and none are"),
        (&["run", "--snaplen", "7", "--drops", "off"], "--snaplen says how single packets"),
    ] {
        let (code, said) = refused(args);
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(said.contains(want), "{args:?}: {said}");
    }
    let file = TempFile::absent("pcapng");
    let (code, said) = refused(&["capture", "-w", file.path(), "--pu", "wbe"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.starts_with("error: --pu: there is no processing unit \"wbe\": "), "{said}");
    assert!(!said.contains("trace") && !said.contains('*'), "{said}");
}

/// Before any privilege is asked for.
#[test]
fn a_capture_goes_nowhere_where_it_cannot_be_read() {
    let pipe = TempFile::absent("pipe");
    sh(&format!("mkfifo {}", pipe.path()));
    let (code, said) = refused(&["capture", "-w", pipe.path()]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("a named pipe must have a reader before"), "{said}");
    // Standard error is a pipe, and a file of words that stays.
    let (code, said) = refused(&["capture", "-w", "/dev/stderr"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("/dev/stderr: that is standard error, where the log is written"), "{said}");
    let log = TempFile::new("words\n");
    sh(&format!("{COLLECTOR} capture -w - >>{0} 2>&1; [ $? = 2 ]", log.path()));
    let words = std::fs::read_to_string(log.path()).expect("it is there");
    assert!(words.starts_with("words\nerror: cannot write to standard output: that is"), "{words}");
    sh(&format!("{COLLECTOR} capture -w {0} 2>>{0}; [ $? = 2 ]", log.path()));
    let words = std::fs::read_to_string(log.path()).expect("it is there");
    assert!(words.starts_with("words\nerror: ") && words.lines().count() == 3, "{words}");
}

#[test]
fn a_standard_output_that_is_closed_is_1_and_not_dev_null() {
    let sh = |line: &str| {
        let output = Command::new("sh").args(["-c", line, COLLECTOR]).output().expect("sh runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for closed in [">&-", "1</dev/null"] {
        let (code, said) = sh(&format!("exec $0 run --output json --iface nosuch0 {closed}"));
        assert_eq!(code, Some(1), "{said}");
        let want =
            "error: the json output cannot write to stdout: it is closed, or not open for writing: send";
        assert!(said.starts_with(want) && said.contains("Bad file descriptor"), "{said}");
        let (code, said) = sh(&format!("exec $0 schema {closed}"));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("cannot write the schema to standard output: Bad file descriptor"), "{said}");
    }
    // Who writes nothing there needs none.
    let file = TempFile::new("[[output]]\ntype = \"log\"\n");
    let (code, said) = sh(&format!("exec $0 run --config {} --iface nosuch0 >&-", file.path()));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("there is no interface nosuch0"), "{said}");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_missing_privilege_is_named() {
    // The binary lies in a folder that only this user may enter: become another user behind the exec.
    let wire = Wire::new();
    let output = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", wire.near))
        .args(["setpriv", "--bounding-set=-all", "--inh-caps=-all", COLLECTOR, "run"])
        .gid(0)
        .output()
        .expect("nsenter and setpriv run");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("CAP_BPF") && said.lines().count() == 1, "{said}");
    // A file that is there stays as it is.
    let file = TempFile::new("kept\n");
    let output = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", wire.near))
        .args(["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", COLLECTOR, "capture", "-w"])
        .arg(file.path())
        .output()
        .expect("nsenter and setpriv run");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("CAP_NET_ADMIN") && said.lines().count() == 1, "{said}");
    assert_eq!(std::fs::read_to_string(file.path()).expect("it is there"), "kept\n");
}
