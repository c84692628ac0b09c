//! Which policies are about a unit, found without asking each.

use std::collections::HashMap;

use super::rule::{Policy, Subject};
use crate::event::Text;

/// Policies by what a unit must have for them: each by one thing only.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    by_id: HashMap<Text, Vec<u32>>,
    by_tag: HashMap<Text, Vec<u32>>,
    by_namespace: HashMap<Text, Vec<u32>>,
    /// Those with patterns for ids alone.
    others: Vec<u32>,
}

impl Selection {
    pub(super) fn of(policies: &[Policy]) -> Self {
        let mut all = Self::default();
        for (place, policy) in (0..).zip(policies) {
            let selector = &policy.selector;
            let ids: Option<Vec<&str>> = selector.units.iter().map(|glob| glob.literal()).collect();
            match (ids.filter(|ids| !ids.is_empty()), selector.tags.first(), &selector.namespace) {
                (Some(ids), ..) => {
                    for id in ids {
                        all.by_id.entry(id.into()).or_default().push(place);
                    }
                }
                (_, Some(tag), _) => all.by_tag.entry(Text::clone(tag)).or_default().push(place),
                (_, _, Some(namespace)) => {
                    all.by_namespace.entry(Text::clone(namespace)).or_default().push(place);
                }
                _ => all.others.push(place),
            }
        }
        all
    }

    /// The places of the policies that are about a unit, in ascending order.
    pub(super) fn about(&self, policies: &[Policy], unit: &Subject) -> Vec<u32> {
        let tags = unit.tags.as_slice().iter().filter_map(|tag| self.by_tag.get(tag));
        let of_unit = self.by_id.get(&unit.id).into_iter().chain(self.by_namespace.get(&unit.namespace));
        let candidates = of_unit.chain(tags).chain([&self.others]).flatten().copied();
        let selects =
            |place: &u32| policies.get(*place as usize).is_some_and(|policy| policy.selector.selects(unit));
        let mut about: Vec<u32> = candidates.filter(selects).collect();
        about.sort_unstable();
        about.dedup();
        about
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Selection;
    use crate::{
        event::TagStore,
        policy::rule::{Action, Observe, Policy, Remote, Rule, Selector, Service, Subject},
        pu::trace::Directions,
    };

    fn policy(units: &[&str], namespace: Option<&str>, tags: &[&str]) -> Policy {
        Policy {
            selector: Selector {
                units: units.iter().map(|glob| glob.parse().unwrap()).collect(),
                namespace: namespace.map(Into::into),
                tags: tags.iter().map(|tag| (*tag).into()).collect(),
            },
            directions: Directions::Both,
            rule: Arc::new(Rule {
                id: "p".into(),
                remote: Remote::default(),
                service: Service::default(),
                action: Action::Reject,
                log: false,
                observe: Observe::None,
            }),
        }
    }

    fn unit(index: u16, id: &str, namespace: &str, tags: &[&str]) -> Subject {
        let tags: TagStore = tags.iter().copied().collect();
        Subject { index, id: id.into(), namespace: namespace.into(), tags: Arc::new(tags) }
    }

    #[test]
    fn it_finds_whom_every_selector_selects() {
        let policies = [
            policy(&["web"], None, &[]),
            policy(&["*"], None, &[]),
            policy(&["web", "db"], Some("/prod"), &[]),
            policy(&["web", "d*"], None, &[]),
            policy(&[], Some("/prod"), &[]),
            policy(&[], None, &["app=web", "tier=front"]),
            policy(&["*"], Some("/prod"), &["app=web"]),
            policy(&["forwarded"], None, &[]),
            policy(&["host"], None, &[]),
        ];
        let selection = Selection::of(&policies);
        for (unit, expected) in [
            (unit(101, "web", "/prod", &["app=web", "app=web", "tier=front"]), vec![0, 1, 2, 3, 4, 5, 6]),
            (unit(102, "web", "", &["tier=front"]), vec![0, 1, 3]),
            (unit(103, "db", "/prod", &[]), vec![1, 2, 3, 4]),
            (unit(104, "c3", "/test", &["app=web"]), vec![1]),
            (unit(1, "host", "", &[]), vec![1, 8]),
            (unit(2, "forwarded", "", &[]), vec![7]),
            (unit(3, "unknown", "", &[]), vec![]),
        ] {
            assert_eq!(selection.about(&policies, &unit), expected, "{unit:?}");
            let by_each: Vec<u32> = (0..)
                .zip(&policies)
                .filter(|(_, policy)| policy.selector.selects(&unit))
                .map(|(place, _)| place)
                .collect();
            assert_eq!(by_each, expected, "{unit:?}");
        }
    }
}
