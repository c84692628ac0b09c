//! What is shown of a configuration, and the example: every key, and right.

use super::{error, parse, policies};
use crate::config::{Config, EXAMPLE};

#[test]
fn what_is_shown_is_the_same_configuration() {
    let full = "iface = [\"eth*\"]\nduration = \"90s\"\nflow-interval = \"1.5s\"\nmark-mask = 0\n\
                log-format = \"json\"\nattach = \"tcx\"\ntransport = \"perf\"\nsocket = \"none\"\n\
                [limits]\nflows = 64\n[[output]]\ntype = \"log\"\nto = \"journal\"\nevents = [\"ping\"]\n\
                [[output]]\ntype = \"text\"\nto = \"a\\\"b\"\nname = \"two words\"\n\
                [[trace]]\npu = \"c\"\ndirection = \"out\"\nfor = \"1m\"\nsample = 9\n[[trace]]\npu = \"all\"\n\
                [[pu]]\nid = \"a\\tb\"\ncidr = [\"10.0.0.0/8\"]\ntags = [\"k=v\"]\n\
                [[pu]]\nid = \"c\"\nnamespace = \"/n\"\ninterface = [\"x\"]\nside = \"behind\"\n";
    let full = &format!("enforce = true\n{full}{}", policies::ALL);
    for text in ["", full, EXAMPLE] {
        let config = parse(text).unwrap();
        let shown = config.to_toml();
        assert_eq!(parse(&shown).unwrap_or_else(|error| panic!("{error} in {shown}")), config);
        // Nothing is left to a default; the duration has none.
        for key in keys("") {
            let is_empty = match key.as_str() {
                "pu" => config.pu.is_empty(),
                "network" => config.network.is_empty(),
                "policy" => config.policy.is_empty(),
                _ => false,
            };
            assert!(shown.contains(&key) || is_empty, "{key} in {shown}");
        }
    }
    assert!(parse("").unwrap().to_toml().contains("mark-mask = 0xfffc0000\n"));
}

#[test]
fn the_example_has_every_key_and_is_right_with_and_without_its_comments() {
    assert_eq!(parse(EXAMPLE).unwrap(), Config::default());
    // Prose has a blank behind its `#`. The one key that excludes others stays out.
    let uncommented: Vec<_> = EXAMPLE
        .lines()
        .filter(|line| *line != "#output = \"json\"")
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
            _ => line,
        })
        .collect();
    let text = uncommented.join("\n");
    let config = parse(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
    assert_eq!((config.outputs.len(), config.pu.len(), config.trace.len()), (3, 1, 1));
    assert_eq!((config.network.len(), config.policy.len()), (1, 2));
    let mut sections: Vec<(&str, Vec<&str>)> = vec![("", Vec::new())];
    for line in uncommented {
        match line.strip_prefix('[') {
            Some(head) => sections.push((head.trim_matches(['[', ']']), Vec::new())),
            None => sections.last_mut().unwrap().1.extend(line.split_once(" = ").map(|(key, _)| key)),
        }
    }
    let of = |section: &str| -> Vec<&str> {
        let same = sections.iter().filter(|(name, _)| *name == section);
        same.flat_map(|(_, keys)| keys.iter().copied()).collect()
    };
    for (section, head) in [
        ("", ""),
        ("limits", "[limits]"),
        ("output", "[[output]]\ntype = \"log\""),
        ("pu", "[[pu]]\nid = \"a\""),
        ("trace", "[[trace]]\npu = \"host\""),
        ("policy", "[[policy]]\nid = \"a\""),
    ] {
        let keys = keys(head);
        assert!(keys.len() >= 3, "{keys:?}");
        for key in keys {
            let is_section = sections.iter().any(|(name, _)| *name == key);
            assert!(of(section).contains(&key.as_str()) || is_section, "{key} of [{section}]");
        }
    }
}

/// The keys of a table, as the reader itself lists them; `head` opens the table.
fn keys(head: &str) -> Vec<String> {
    let message = error(&format!("{head}\nnonsense = 1")).0;
    let (_, list) = message.split_once("expected one of ").unwrap();
    let all: Vec<String> = list.split(", ").map(|key| key.trim_matches(['`', '\n']).to_owned()).collect();
    // Not the older spellings.
    all.iter().filter(|key| !all.contains(&key.replace('_', "-")) || !key.contains('_')).cloned().collect()
}
