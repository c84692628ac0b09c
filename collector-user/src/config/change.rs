//! What a new configuration would change, and what of that a running collector can take over.

use super::{Config, PuConfig};

/// The differences between two configurations, each in words that begin with its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that a running collector takes over.
    pub taken: Vec<String>,
    /// Those that hold from the start of a run to its end.
    pub fixed: Vec<String>,
}

impl Changes {
    /// Whether both say the same.
    pub const fn is_none(&self) -> bool {
        self.taken.is_empty() && self.fixed.is_empty()
    }
}

impl Config {
    /// What `new` has otherwise.
    pub fn changes(&self, new: &Self) -> Changes {
        // Each key has its place here: one that is new in the file has to be thought of.
        let Self {
            iface,
            discover,
            ignore,
            forwarded,
            tunnels,
            drops,
            aggregate,
            filter,
            outputs,
            attach,
            xdp,
            transport,
            duration,
            flow_interval,
            counter_interval,
            queue,
            mark_mask,
            log_format,
            socket,
            limits,
            snaplen,
            sample,
            trace,
            pu,
            policy,
            network,
            enforce,
            enforce_anyway,
        } = self;
        let fixed = [
            ("iface", *iface != new.iface),
            ("discover", *discover != new.discover),
            ("tunnels", *tunnels != new.tunnels),
            ("drops", *drops != new.drops),
            ("aggregate", *aggregate != new.aggregate),
            ("filter", filter.is_some() != new.filter.is_some()),
            ("output", *outputs != new.outputs),
            ("attach", *attach != new.attach),
            ("xdp", *xdp != new.xdp),
            ("transport", *transport != new.transport),
            ("duration", *duration != new.duration),
            ("queue", *queue != new.queue),
            ("mark-mask", *mark_mask != new.mark_mask),
            ("log-format", *log_format != new.log_format),
            ("socket", *socket != new.socket),
            ("limits", *limits != new.limits),
            ("snaplen", *snaplen != new.snaplen),
        ];
        let taken = [
            ("ignore", *ignore != new.ignore),
            // One for another.
            ("filter", filter.is_some() && new.filter.is_some() && *filter != new.filter),
            ("forwarded", *forwarded != new.forwarded),
            ("flow-interval", *flow_interval != new.flow_interval),
            ("counter-interval", *counter_interval != new.counter_interval),
            ("sample", *sample != new.sample),
            ("trace", *trace != new.trace),
            ("policy", *policy != new.policy),
            ("network", *network != new.network),
            ("enforce", *enforce != new.enforce || *enforce_anyway != new.enforce_anyway),
        ];
        let mut changes = Changes { taken: named(&taken), fixed: named(&fixed) };
        for unit in new.pu.iter().filter(|unit| of_id(pu, unit).is_none()) {
            changes.taken.push(format!("pu {} is new", unit.id));
        }
        for before in pu {
            match of_id(&new.pu, before) {
                Some(after) => changes.taken.extend(unit_changed(before, after)),
                None => changes.taken.push(format!("pu {} is gone", before.id)),
            }
        }
        changes
    }
}

/// What is otherwise of a unit, if anything is.
fn unit_changed(before: &PuConfig, after: &PuConfig) -> Option<String> {
    let PuConfig { id, namespace, tags, interface, side, cidr, cgroup, netns, port, uid } = before;
    let keys = named(&[
        ("namespace", *namespace != after.namespace),
        ("tags", *tags != after.tags),
        ("interface", *interface != after.interface),
        ("side", *side != after.side),
        ("cidr", *cidr != after.cidr),
        ("cgroup", *cgroup != after.cgroup),
        ("netns", *netns != after.netns),
        ("port", *port != after.port),
        ("uid", *uid != after.uid),
    ]);
    (!keys.is_empty()).then(|| format!("pu {id}: {}", keys.join(", ")))
}

fn of_id<'a>(units: &'a [PuConfig], other: &PuConfig) -> Option<&'a PuConfig> {
    units.iter().find(|unit| unit.id == other.id)
}

/// Those keys of which it is so.
fn named(keys: &[(&str, bool)]) -> Vec<String> {
    keys.iter().filter(|(_, is_so)| *is_so).map(|(key, _)| (*key).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, EXAMPLE, change::Changes};

    /// The changes from one file to another, as they are taken and as they are refused.
    fn changes(before: &str, after: &str) -> (Vec<String>, Vec<String>) {
        let [before, after] = [before, after].map(|text| Config::parse(text, Path::new("c.toml")).unwrap());
        let Changes { taken, fixed } = before.changes(&after);
        (taken, fixed)
    }

    #[test]
    fn a_configuration_is_no_change_of_itself() {
        for text in ["", EXAMPLE] {
            let config = Config::parse(text, Path::new("c.toml")).unwrap();
            assert!(config.changes(&config.clone()).is_none());
        }
    }

    #[test]
    fn what_a_running_collector_takes_over_is_told_from_what_it_cannot() {
        for (text, key) in [
            ("forwarded = true", "forwarded"),
            ("flow-interval = \"9s\"", "flow-interval"),
            ("counter-interval = \"9s\"", "counter-interval"),
            ("sample = 3", "sample"),
            ("[[trace]]\npu = \"host\"", "trace"),
            ("[[pu]]\nid = \"web\"\ncidr = [\"10.0.0.0/8\"]", "pu web is new"),
            ("[[pu]]\nid = \"web\"\nport = [80]\nuid = [7]", "pu web is new"),
            ("[[pu]]\nid = \"web\"\nnetns = [\"web\"]", "pu web is new"),
            ("ignore = [\"*.scope\"]", "ignore"),
            ("enforce = true", "enforce"),
            ("[[network]]\nid = \"office\"\ncidr = [\"192.0.2.0/24\"]", "network"),
            ("[[policy]]\nid = \"a\"\npu = [\"*\"]\ndirection = \"in\"\naction = \"reject\"", "policy"),
        ] {
            assert_eq!(changes("", text), (vec![key.to_owned()], vec![]), "{text}");
        }
        for (text, key) in [
            ("iface = [\"eth0\"]", "iface"),
            ("discover = \"off\"", "discover"),
            ("tunnels = \"inner\"", "tunnels"),
            ("drops = \"all\"", "drops"),
            ("aggregate = \"service\"", "aggregate"),
            ("attach = \"clsact\"", "attach"),
            ("xdp = \"auto\"", "xdp"),
            ("transport = \"ring\"", "transport"),
            ("duration = \"9s\"", "duration"),
            ("mark-mask = 0", "mark-mask"),
            ("log-format = \"json\"", "log-format"),
            ("socket = \"none\"", "socket"),
            ("snaplen = 9", "snaplen"),
            ("[limits]\nflows = 1024", "limits"),
            ("[[output]]\ntype = \"json\"", "output"),
        ] {
            assert_eq!(changes("", text), (vec![], vec![key.to_owned()]), "{text}");
        }
    }

    #[test]
    fn one_filter_is_taken_for_another_and_none_for_none() {
        let [ip, tcp] = ["filter = \"ip\"", "filter = \"tcp\""];
        assert_eq!(changes(ip, tcp), (vec!["filter".to_owned()], vec![]));
        assert_eq!(
            (changes("", ip).1, changes(ip, "").1),
            (vec!["filter".to_owned()], vec!["filter".to_owned()])
        );
    }

    #[test]
    fn units_are_compared_by_their_ids() {
        let web = "[[pu]]\nid = \"web\"\ncidr = [\"10.0.0.0/8\"]\n";
        let db = "[[pu]]\nid = \"db\"\ninterface = [\"v1\"]\n";
        assert_eq!(changes(&[web, db].concat(), &[db, web].concat()), (vec![], vec![]));
        assert_eq!(changes(&[web, db].concat(), db).0, ["pu web is gone"]);
        let tagged = format!("{web}tags = [\"a=b\"]\nnamespace = \"/p\"\ninterface = [\"v2\"]");
        assert_eq!(changes(web, &tagged).0, ["pu web: namespace, tags, interface"]);
        let by_cgroup = format!("{web}cgroup = [\"/web\"]");
        assert_eq!(changes(web, &by_cgroup), (vec!["pu web: cgroup".to_owned()], vec![]));
        assert_eq!(changes(&by_cgroup, ""), (vec!["pu web is gone".to_owned()], vec![]));
    }
}
