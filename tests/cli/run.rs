use crate::process::{TempFile, Wire, json, mechanism, sh};

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn ctrl_c_ends_it_cleanly() {
    let wire = Wire::new();
    let running = wire.start(&["--output", "json", "--iface", &wire.interface]);
    assert_eq!(
        running.attached.trim_end(),
        format!("attached to {} (uplink) by {}", wire.interface, mechanism())
    );
    wire.ping(20);
    running.signal("INT");
    let (code, lines, errors) = running.end();
    assert_eq!((code, errors.trim_end()), (Some(0), "nothing is missing"));

    let events: Vec<_> = lines.iter().map(|line| json(line)).collect();
    let flow = events.iter().find(|event| event["type"] == "flow" && event["record"]["l4_protocol"] == 1);
    let flow = &flow.expect("the last records come when it ends")["record"];
    assert_eq!((&flow["packets"], &flow["bytes"]), (&20.into(), &(20 * 98).into()));
    assert_eq!((&flow["reply_packets"], &flow["count"]), (&20.into(), &1.into()));
    assert_eq!((&flow["initiator_by"], &flow["source"]["ip"]), (&"icmp request".into(), &"10.88.0.2".into()));
    assert_eq!((&flow["context_id"], &flow["destination"]["type"]), (&"host".into(), &"pu".into()));

    let last = events.last().expect("there is a last line");
    assert_eq!(last["type"], "status");
    let ledger = &last["record"]["ledger"];
    let unparsed: u64 =
        ledger["unparsed"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(ledger["seen"].as_u64().unwrap(), ledger["flows"].as_u64().unwrap() + unparsed);
    assert_eq!(ledger["delivered"]["json"], lines.len() as u64 - 1, "every line but the status itself");
    assert_eq!(wire.filters(), "");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn its_time_ends_it_and_text_is_for_people() {
    let wire = Wire::new();
    let running = wire.start(&["--duration", "1s", "--flow-interval", "100ms"]);
    wire.ping(3);
    let (code, lines, _) = running.end();
    assert_eq!(code, Some(0));
    let flow = lines.iter().find(|line| line.contains("icmp")).expect("a line for the flow");
    assert!(flow.contains("10.88.0.2") && flow.contains("10.88.0.1") && !flow.contains('\u{1b}'), "{flow}");
    assert!(lines.last().is_some_and(|line| line.starts_with("ledger: ")), "{lines:?}");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_signal_ends_it_while_it_loads() {
    let wire = Wire::new();
    // Seconds of the kernel's time: the signal comes long before.
    let large = TempFile::new("[limits]\nflows = 2_000_000\n");
    let running =
        wire.launch_talkative(&["--output", "json", "--config", large.path()], "loading the programs");
    running.signal("TERM");
    let (code, lines, errors) = running.end();
    assert_eq!(code, Some(0), "{errors}");
    assert!(!errors.contains("attached to "), "{errors}");
    let [status] = lines.as_slice() else { panic!("only the status: {lines:?}") };
    assert_eq!(
        (&json(status)["type"], &json(status)["record"]["ledger"]["seen"]),
        (&"status".into(), &0.into())
    );
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_closed_output_is_a_clean_end() {
    let wire = Wire::new();
    let mut running = wire.start(&["--output", "json", "--flow-interval", "50ms"]);
    drop(running.out.take());
    wire.ping(3);
    let (code, _, errors) = running.end();
    assert_eq!(code, Some(0), "{errors}");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_declared_unit_has_its_name_in_every_record() {
    let wire = Wire::new();
    let file = TempFile::new(
        "[[pu]]\nid = \"web\"\nnamespace = \"/prod\"\ntags = [\"app=web\"]\ncidr = [\"10.88.0.1/32\"]\n",
    );
    let running = wire.start(&["--output", "json", "--config", file.path()]);
    wire.ping(5);
    running.signal("TERM");
    let (code, lines, errors) = running.end();
    assert_eq!(code, Some(0), "{errors}");
    let events: Vec<_> = lines.iter().map(|line| json(line)).collect();
    let flow = events.iter().find(|event| event["type"] == "flow").expect("a flow");
    assert_eq!(
        (&flow["record"]["context_id"], &flow["record"]["namespace"]),
        (&"web".into(), &"/prod".into())
    );
    assert_eq!(flow["record"]["attributed_by"], "declared");
    let counters =
        events.iter().find(|event| event["type"] == "counter" && event["record"]["context_id"] == "web");
    let counters = counters.expect("a counter report")["record"]["counters"].clone();
    assert_eq!(counters[0], serde_json::json!({"name": "rx_packets", "value": 5}));
    assert_eq!(counters[3], serde_json::json!({"name": "tx_bytes", "value": 490}));
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn an_interface_that_comes_later_is_attached() {
    let wire = Wire::new();
    let mut running = wire.start_talkative(&["--output", "json", "--iface", "late*"]);
    assert_eq!(running.attached.trim_end(), "attached to nothing yet: no interface matches");
    let Wire { near, far, .. } = &wire;
    sh(&format!(
        "ip link add late0 netns {near} type veth peer name l1 netns {far}
         ip -n {near} addr add 10.89.0.1/24 dev late0; ip -n {far} addr add 10.89.0.2/24 dev l1
         ip -n {near} link set late0 up; ip -n {far} link set l1 up"
    ));
    // It says so after it has attached.
    running.wait_to_say("late0 is uplink");
    sh(&format!("ip netns exec {far} ping -q -c 10 -i 0.01 -W 5 10.89.0.1"));
    running.signal("INT");
    let (code, lines, errors) = running.end();
    assert_eq!(code, Some(0), "{errors}");
    let late: u64 = lines
        .iter()
        .map(|line| json(line))
        .filter(|event| event["type"] == "flow" && event["record"]["interface"] == "late0")
        .filter_map(|event| event["record"]["packets"].as_u64())
        .sum();
    assert_eq!(late, 10, "{lines:?}");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn outputs_of_a_file_go_on_when_one_fails() {
    let wire = Wire::new();
    let text = TempFile::new("");
    let file = TempFile::new(&format!(
        "[[output]]\ntype = \"json\"\n[[output]]\ntype = \"text\"\nto = \"{}\"\nevents = [\"flow\"]\n\
         [[output]]\ntype = \"json\"\nto = \"/dev/full\"\nname = \"full\"\n",
        text.path()
    ));
    let running = wire.start(&["--config", file.path(), "--flow-interval", "100ms"]);
    wire.ping(20);
    running.signal("INT");
    let (code, lines, errors) = running.end();
    assert_eq!(code, Some(1), "the record of one output is not complete");
    assert!(errors.contains("error: the full output cannot be written to: No space left"), "{errors}");
    let status = json(lines.last().expect("there is a last line"));
    let ledger = &status["record"]["ledger"];
    assert_eq!((&ledger["delivered"]["full"], &ledger["sink_failed"]["json"]), (&0.into(), &0.into()));
    assert_eq!(ledger["delivered"]["json"], ledger["sink_failed"]["full"]);
    let text = std::fs::read_to_string(&text.0).expect("it is there");
    assert!(text.contains("icmp") && !text.contains("counters"), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("ledger: ")), "{text}");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn the_log_is_json_where_it_is_asked_for() {
    let wire = Wire::new();
    let running = wire.start(&["--log-format", "json", "--output", "json"]);
    running.signal("INT");
    let first = json(&running.attached)["message"].clone();
    let (code, _, errors) = running.end();
    let messages: Vec<_> = errors.lines().map(|line| json(line)["message"].clone()).collect();
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(first, format!("attached to {} (uplink) by {}", wire.interface, mechanism()));
    assert_eq!(messages, ["nothing is missing"]);
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn many_interfaces_are_attached_one_after_another() {
    let wire = Wire::new();
    let Wire { near, far, .. } = &wire;
    sh(&format!(
        "for i in $(seq 60); do ip link add q$i netns {near} type veth peer name r$i netns {far}; done"
    ));
    let running = wire.start(&["--output", "json", "--duration", "8s"]);
    wire.ping(20);
    let (code, lines, errors) = running.end();
    assert_eq!(code, Some(0), "{errors}");
    let status = json(lines.last().expect("there is a last line"))["record"].clone();
    let interfaces = status["interfaces"].as_array().expect("a list");
    let attached = interfaces.iter().filter(|interface| interface["mechanism"] == mechanism()).count();
    assert_eq!(attached, 61, "{errors}");
    assert_eq!(status["ledger"]["gaps"], 0);
    let packets: u64 = lines
        .iter()
        .map(|line| json(line))
        .filter(|event| event["type"] == "flow" && event["record"]["l4_protocol"] == 1)
        .filter_map(|event| event["record"]["packets"].as_u64())
        .sum();
    assert_eq!(packets, 20, "the first interface counts while the others are attached");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_reader_that_is_gone_at_the_start_is_no_error_and_nothing_to_warn_of() {
    let wire = Wire::new();
    // A unit is told of before anything is attached; that finds nobody, and ends what is under way.
    let config = TempFile::new("[[pu]]\nid = \"web\"\ncidr = [\"10.9.0.0/16\"]\n");
    for _ in 0..5 {
        let (reader, writer) = std::io::pipe().expect("there are pipes");
        drop(reader);
        let mut command = wire.collector(&["--output", "json", "--config", config.path()]);
        let output = command.stdout(writer).output().expect("the collector starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(!said.contains("WARN"), "{said}");
    }
}
