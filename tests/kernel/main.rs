//! Tests that need the kernel, in namespaces and on interfaces of their own.

#![expect(clippy::indexing_slicing, reason = "a test that looks where nothing is shall fail there")]

// The programs alone, on bytes: verdict, mark, counters, flow entry, or the reason why there is none.
mod programs;
// Generated frames: what the programs make of them is what the parser says in user space.
mod differential;
// How far the verifier has to look.
mod verified;
// Packet filters on bytes, and on frames whose tag lies beside them.
mod filter;
// Who a flow belongs to, by what the programs are told.
mod attribution;
// The same once an answer leaves, and by sockets of this host.
mod deciding;
// The same by the control groups of sockets.
mod socket_cgroup;
// The same of both ends of what loopback carries, and of the host's end of a container's flow.
mod both_ends;
// How many packets and octets of the wire a super-packet stands for.
mod segments;
// The same over wires, as the kernel cuts them.
mod superpackets;
// What policies say of a flow, on bytes: looked up, remembered, dropped, counted.
mod policy;
// What could go round them: packets that are not understood, answers that nobody asked for.
mod evading;
// The same over wires: what arrives, what is dropped, and what records say.
mod enforced;
// Single packets of the units that are traced: all of them, and nothing besides; or each loss by name.
mod traced;
// The same over wires, up to their reports.
mod redeclared;
mod refiltered;
mod regrouped;
mod reported;
// Packets whose policy asks for encryption.
mod encrypted;
// The transports: the same events and reports by each, and CPUs that come later.
mod transport;
// Fragments, and the flow of the one that shows ports.
mod fragments;
// Caches and tables: swaps, collisions, tables that are full, flows beyond the budget.
mod tables;
// More flows than anything has room for: nothing of the totals is lost, and all else by name.
mod overload;
// Beginnings and ends of connections in the ring.
mod connections;
// Datagrams and connections over a wire are reported exactly.
mod exact;
// Swaps of the epoch every few milliseconds under load on both CPUs.
mod swap;
// Records that nobody understands.
mod undecodable;
// Frames that mean nothing, and packets without a link layer.
mod meaningless;
// Counts near the ends of what their numbers hold, and collectors that start again.
mod wraps;
// Processing units at their boundaries, and their sums.
mod units;
// Translated addresses: masquerade, published ports, hairpins.
mod nat;
// Units that are found by themselves: containers, and services.
mod found;
mod services;
// The same with real engines: Docker and Podman.
mod engines;
// What stays on a bridge, and what it floods.
mod bridged;
// Routes that move flows between uplinks; declared ranges that are routed.
mod routed;
// What comes in for the host, and is whose answer leaves, or whose socket takes it, or nobody's.
mod undecided;
// Errors, and the flow that they are about.
mod quoted;
// A tunnel over the uplink.
mod overlay;
// What tunnels carry, as flows of its own.
mod inner;
// Packets that an ifb hands back.
mod mirrored;
// Own multicast that comes back.
mod multicast;
// Marks of others in our bits, and our bits beside theirs.
mod marks;
// Tagged frames.
mod vlan;
// Who owns the sockets behind flows.
mod users;
// Units that are declared by ports of the host, and by users.
mod matchers;
// A service manager's own programs, beside the collector.
mod firewalls;
// Loopback, when it is named.
mod loopback;
// Interfaces that come, change and go.
mod followed;
// Hundreds of interfaces that come and go at once.
mod burst;
// What an interface counts and no program sees.
mod unseen;
// Mechanisms of attachment, and what is left of them.
mod attach;
// What the programs do to the host: nothing that changes a packet, and nothing that the kernel complains of.
mod harm;
// Programs that somebody took off, and that cannot be attached anew.
mod bare;
// The program at XDP: what it counts, what it tells the one at TC, and what it leaves alone.
mod xdp;
// What the kernel drops, caused for real.
mod drops;
// Which of them are told one by one, and how much of each.
mod drop_reports;
// Cgroups that come, are peopled and go: each told once.
mod cgroups;
// The library's example: a collector of one's own gets real events.
mod library;

use collector_tests::books::assert_balanced;
