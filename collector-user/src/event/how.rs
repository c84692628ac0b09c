//! How a flow record knows what it says: the words of its extra fields.

use super::vocabulary::vocabulary;

vocabulary! {
    /// How it is known which end of a flow is its initiator.
    InitiatorBy {
        /// Nobody has said.
        Unknown = "",
        /// By a TCP SYN, or by the answer to one.
        Syn = "syn",
        /// By a socket that listens: its end is the server.
        Listener = "listener",
        /// By an ICMP request, or by the answer to one.
        IcmpRequest = "icmp request",
        /// By a port that is registered for a service.
        PortRegistry = "port registry",
        /// By the sender of the first packet that was seen, when nothing better is known.
        FirstPacket = "first packet",
    }
}

vocabulary! {
    /// The tunnel that a flow is inside of.
    Tunnel {
        /// It is inside of none, or of none that was looked into.
        None = "",
        /// VXLAN (RFC 7348).
        Vxlan = "vxlan",
        /// GENEVE (RFC 8926).
        Geneve = "geneve",
        /// GRE (RFC 2784).
        Gre = "gre",
        /// IPv4 in IP.
        Ipip = "ipip",
        /// IPv6 in IP.
        Sit = "sit",
    }
}

vocabulary! {
    /// How a flow's processing unit was found.
    AttributedBy {
        /// By nothing: it is what remains.
        None = "none",
        /// By a matcher of the configuration.
        Declared = "declared",
        /// By a socket of this host's: that it is one, the control group that it was made in, or its user.
        Socket = "socket",
        /// By the host-side end of a container's interface.
        Veth = "veth",
        /// By an address of the unit's.
        Address = "address",
        /// By the interface that it came in by before it left here: the host forwards it.
        Route = "route",
        /// By nothing: it came to an address of this host's where no socket waits for it, and nobody answered.
        Unanswered = "unanswered",
    }
}

vocabulary! {
    /// How a flow ended.
    Ended {
        /// It has not.
        Live = "",
        /// TCP: both ends closed it.
        Fin = "fin",
        /// TCP: one end reset it; [`ResetBy`] says which.
        Reset = "reset",
        /// Nothing was heard of it for too long.
        Timeout = "timeout",
        /// TCP: the first packet was answered by a reset.
        Refused = "refused",
        /// TCP: the first packet was never answered.
        Unanswered = "unanswered",
    }
}

vocabulary! {
    /// Which end reset a flow.
    ResetBy {
        /// Neither.
        Nobody = "",
        /// The initiator.
        Source = "source",
        /// The other end.
        Destination = "destination",
    }
}

#[cfg(test)]
mod tests {
    use super::{AttributedBy, Ended, InitiatorBy, ResetBy};

    #[test]
    fn the_word_is_the_json() {
        assert_eq!(serde_json::to_string(&Ended::Live).unwrap(), r#""""#);
        assert_eq!(serde_json::to_string(&InitiatorBy::FirstPacket).unwrap(), r#""first packet""#);
        assert_eq!(serde_json::from_str::<AttributedBy>(r#""veth""#).unwrap(), AttributedBy::Veth);
        assert_eq!(serde_json::from_str::<ResetBy>(r#""source""#).unwrap(), ResetBy::Source);
        assert!(serde_json::from_str::<ResetBy>(r#""else""#).is_err());
        assert_eq!(format!("{:>6}", Ended::Fin), "   fin");
    }

    #[test]
    fn defaults_say_nothing() {
        assert_eq!(InitiatorBy::default().text(), "");
        assert_eq!(AttributedBy::default().text(), "none");
        assert_eq!(Ended::default().text(), "");
        assert_eq!(ResetBy::default().text(), "");
    }
}
