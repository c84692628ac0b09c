//! The order of what CPUs tell, each by a buffer of its own: that a flow ended, on one, comes after that it began, on
//! another.
//!
//! A packet that ends a flow is seen after the one that began it was, and told with a later time. What is told of the time
//! before a reading began is there when it is read, whatever the order of the buffers, but for what a CPU is about to write
//! that was held up between its clock and its buffer; what is later waits for the next.

use super::decode::FlowNews;

/// Until when the news of a ring are in order: all of them, as they come.
pub const ALL: u64 = u64::MAX;

/// News that wait for those before them.
#[derive(Debug, Default)]
pub struct Order {
    waiting: Vec<FlowNews>,
}

impl Order {
    /// Adds what was read; what one CPU tells is in the order of its times.
    pub fn add(&mut self, news: FlowNews) {
        self.waiting.push(news);
    }

    /// Takes out those up to a boot time, in order.
    pub fn until(&mut self, boot_ns: u64) -> Vec<FlowNews> {
        if boot_ns == ALL {
            return std::mem::take(&mut self.waiting);
        }
        self.waiting.sort_by_key(|news| news.boot_ns);
        let count = self.waiting.partition_point(|news| news.boot_ns <= boot_ns);
        let later = self.waiting.split_off(count);
        std::mem::replace(&mut self.waiting, later)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::{ALL, Order};
    use crate::drain::{decode::FlowNews, flow::FlowId};

    fn news(boot_ns: u64, kind: u8) -> FlowNews {
        let address = Ipv4Addr::LOCALHOST.into();
        let id = FlowId {
            local: address,
            remote: address,
            local_port: 1,
            remote_port: 2,
            boundary: 3,
            protocol: 6,
            ports: 0,
        };
        FlowNews { id, boot_ns, pu: 1, interface: 1, kind, how: 0, host_pu: 0, user: None }
    }

    fn add(order: &mut Order, all: &[(u64, u8)]) {
        for (boot_ns, kind) in all {
            order.add(news(*boot_ns, *kind));
        }
    }

    fn until(order: &mut Order, boot_ns: u64) -> Vec<(u64, u8)> {
        order.until(boot_ns).iter().map(|news| (news.boot_ns, news.kind)).collect()
    }

    #[test]
    fn what_came_to_several_buffers_is_in_the_order_of_its_times() {
        let mut order = Order::default();
        // One CPU, then another.
        add(&mut order, &[(5, 2), (7, 1), (7, 2), (3, 1), (6, 1), (9, 2)]);
        assert_eq!(until(&mut order, 7), [(3, 1), (5, 2), (6, 1), (7, 1), (7, 2)]);
        // What began before the end that waits is read later.
        add(&mut order, &[(8, 1)]);
        assert_eq!(until(&mut order, 7), []);
        assert_eq!(until(&mut order, 20), [(8, 1), (9, 2)]);
        assert_eq!(until(&mut order, 20), []);
    }

    #[test]
    fn what_comes_by_one_ring_stays_as_it_came() {
        let mut order = Order::default();
        add(&mut order, &[(5, 2), (3, 1)]);
        assert_eq!(until(&mut order, ALL), [(5, 2), (3, 1)]);
    }
}
