//! How a verdict is found in a list of rules, plainly. The programs look it up instead, in what [`compile`](super::compile)
//! makes of the list; that both find the same is tested.

use super::{
    rule::{Action, Observe, Opened, Rule},
    verdict::Verdict,
};
use crate::event::ActionType;

/// What rules say of a flow: those of a unit in the flow's direction, in the order of the file.
///
/// The order of the search is the original's: reject rules that only observe (continue) set what is observed; then reject
/// rules; then accept rules that only observe, where nothing is observed yet; then accept rules; then rules that observe and
/// apply, which are what is done and what is observed; at last, reject by [`DEFAULT`](super::verdict::DEFAULT). Among rules of
/// one kind the first in the file is found, however long the prefixes are that it names. A flow is to be encrypted where any
/// accept rule that it matches asks for that, under the first one's id.
///
/// Without a rule, nobody has spoken of the unit in this direction: accepted.
pub fn search<'a, R>(rules: R, flow: &Opened) -> Verdict
where
    R: IntoIterator<Item = &'a Rule>,
    R::IntoIter: Clone,
{
    let rules = rules.into_iter();
    if rules.clone().next().is_none() {
        return Verdict::default();
    }
    let matching = rules.filter(|rule| rule.is_about(flow));
    let of = |observe: Observe, is_reject: bool| {
        matching
            .clone()
            .filter(move |rule| rule.observe == observe && matches!(rule.action, Action::Reject) == is_reject)
    };
    let done = |rule: &Rule| Verdict::of(rule.bits(), rule.id.clone());
    let observed = |verdict: Verdict, observed: Option<&Rule>| match observed {
        Some(rule) => {
            Verdict { observed_action: rule.bits(), observed_policy_id: rule.id.clone(), ..verdict }
        }
        None => verdict,
    };
    let report = of(Observe::Continue, true).next();
    if let Some(rule) = of(Observe::None, true).next() {
        return observed(done(rule), report);
    }
    let report = report.or_else(|| of(Observe::Continue, false).next());
    if let Some(rule) = of(Observe::None, false).next() {
        let is_encrypted =
            of(Observe::None, false).any(|rule| rule.action == Action::Accept { encrypt: true });
        let verdict = done(rule);
        let action = verdict.action;
        let action = if is_encrypted { action | ActionType::ENCRYPT } else { action };
        return observed(Verdict { action, ..verdict }, report);
    }
    if let Some(rule) = matching.clone().find(|rule| rule.observe == Observe::Apply) {
        return observed(done(rule), report.or(Some(rule)));
    }
    observed(Verdict::rejected(), report)
}

#[cfg(test)]
mod tests;
