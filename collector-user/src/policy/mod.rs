//! What units may do: policies, and what they are compiled to.
//!
//! - [`rule`]: what a policy says, and whose flows it is about; [`protocol`]: names of protocols and of ICMP messages.
//! - [`networks`]: networks that have a name.
//! - [`verdict`]: what is said of a flow; [`search`]: how it is found in a list of rules, plainly.
//! - [`compile`]: a list of rules as classes of remote addresses and of services, with a verdict for each pair, which finds
//!   the same in three look-ups; [`explosion`]: why it may not.
//! - [`verdicts`]: the numbers by which the programs know verdicts; `select`: which rules are about a unit;
//!   [`sets`]: which compiled list each unit has, as units come and go and policies are loaded anew.
//! - [`lockout`]: whether policies would cut off who writes them.
//!
//! Whatever the rules say, some traffic is not subject to them; the programs pass it before they look anything up: IPv6's
//! neighbour discovery and multicast listener discovery (RFC 4890, sections 4.3 and 4.4, without which there is no IPv6
//! at all), IGMP, and ICMP errors that belong to a flow which they know.

mod classes;
pub mod compile;
pub mod explosion;
mod loaded;
pub mod lockout;
pub mod networks;
pub mod protocol;
mod remotes;
pub mod rule;
pub mod search;
mod select;
mod services;
mod set;
pub mod sets;
pub mod verdict;
pub mod verdicts;
