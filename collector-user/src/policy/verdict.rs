//! What the policies say of a flow.

use crate::event::{ActionType, Text};

/// The id that stands where no policy does.
pub const DEFAULT: &str = "default";

/// What is said of a flow, as its record has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// What is done: accept or reject, with encrypt and log where the rule asks for these.
    pub action: ActionType,
    /// The policy that says so; [`DEFAULT`] where none does.
    pub policy_id: Text,
    /// What a policy that only observes would have done; no bit where none did.
    pub observed_action: ActionType,
    /// That policy; empty where there is none.
    pub observed_policy_id: Text,
}

impl Verdict {
    /// Nothing is observed.
    pub(super) fn of(action: ActionType, policy_id: Text) -> Self {
        Self { action, policy_id, observed_action: ActionType::NONE, observed_policy_id: "".into() }
    }

    /// Where policies are about a unit, and none of them about the flow.
    pub fn rejected() -> Self {
        Self::of(ActionType::REJECT, DEFAULT.into())
    }
}

impl Default for Verdict {
    /// Where no policy is about the unit in this direction: what nobody has spoken of is let through.
    fn default() -> Self {
        Self::of(ActionType::ACCEPT, DEFAULT.into())
    }
}
