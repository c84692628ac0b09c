//! Users who were seen: each is told once, and then once in ten minutes as long as their flows are.
//!
//! A user is told for each unit and its namespace, for that is what the claims say. They are:
//!
//! | claim | is |
//! |---|---|
//! | `uid=` | the id as the host has it (in the initial user namespace): of root in a container with users of its own it is not 0 |
//! | `user=` | the name that this id has in the host's user database, not in a container's; the number where it has none |
//! | `unit=` | the processing unit whose flow it is: a service, a container, `host` |
//!
//! There is no command among them. A packet does not say who made it: the programs run where the network stack does, mostly
//! in the name of whoever was interrupted, and a socket may be several processes'. What could be had would be right most
//! of the time, and nobody could tell when it is not.

use std::{collections::HashMap, mem};

use crate::event::{EndPoint, FlowRecord, Text, UserRecord};

/// Between two records of one user, in nanoseconds: the original's.
const WINDOW_NS: u64 = 600_000_000_000;

/// Users that are remembered at most.
const MOST: usize = 4096;

/// The users who were told.
#[derive(Debug)]
pub struct Users {
    told: HashMap<Key, Told>,
    most: usize,
    evicted: u64,
}

impl Default for Users {
    fn default() -> Self {
        Self { told: HashMap::new(), most: MOST, evicted: 0 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    uid: u32,
    unit: Text,
    namespace: Text,
}

#[derive(Debug)]
struct Told {
    /// What the collector has filled in.
    id: Text,
    name: Text,
    /// When, on the boot clock in nanoseconds.
    at: u64,
}

impl Users {
    /// The user with this id owns the socket at the local end of a flow, which is the source where `is_source` says so: puts
    /// that into the flow's record. Where it is time to tell of the user, `collect` gets a record, and fills in its id.
    ///
    /// `name` is what the user database says; `now` is on the boot clock in nanoseconds.
    pub fn sign(
        &mut self,
        record: &mut FlowRecord,
        is_source: bool,
        (uid, name): (u32, Option<&Text>),
        now: u64,
        collect: impl FnOnce(&mut UserRecord),
    ) {
        let key = Key { uid, unit: record.context_id.clone(), namespace: record.namespace.clone() };
        let is_new = self.told.get(&key).is_none_or(|told| {
            now.saturating_sub(told.at) >= WINDOW_NS
                || name.map_or_else(|| *told.name != *uid.to_string(), |name| told.name != *name)
        });
        if is_new {
            let name = name.cloned().unwrap_or_else(|| uid.to_string().into());
            let mut user = UserRecord {
                id: "".into(),
                namespace: key.namespace.clone(),
                claims: [format!("uid={uid}"), format!("user={name}"), format!("unit={}", key.unit)]
                    .map(Text::from)
                    .into(),
            };
            collect(&mut user);
            self.remember(key.clone(), Told { id: user.id, name, at: now }, now);
        }
        let end = if is_source { &mut record.source } else { &mut record.destination };
        if let (Some(told), Some(end)) = (self.told.get(&key), end) {
            let EndPoint { user_id, user, .. } = end;
            (*user_id, *user) = (told.id.clone(), told.name.clone());
        }
    }

    /// Users that were forgotten though their ten minutes were not over: they are told again when they are seen again.
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    fn remember(&mut self, key: Key, told: Told, now: u64) {
        if self.told.len() >= self.most && !self.told.contains_key(&key) {
            self.told.retain(|_, told| now.saturating_sub(told.at) < WINDOW_NS);
        }
        if self.told.len() >= self.most && !self.told.contains_key(&key) {
            // An eighth at once, so that not each newcomer looks at all of them.
            let mut times: Vec<u64> = self.told.values().map(|told| told.at).collect();
            let place = times.len() / 8;
            let (_, oldest, _) = times.select_nth_unstable(place);
            let (oldest, before) = (*oldest, self.told.len());
            let all = mem::take(&mut self.told);
            // Many may be of one time.
            let mut left = place + 1;
            let mut goes = |told: &Told| {
                let goes = told.at <= oldest && left > 0;
                left -= usize::from(goes);
                goes
            };
            self.told = all.into_iter().filter(|(_, told)| !goes(told)).collect();
            self.evicted += (before - self.told.len()) as u64;
        }
        self.told.insert(key, told);
    }
}

#[cfg(test)]
mod tests {
    use super::{Users, WINDOW_NS};
    use crate::event::{EndPoint, FlowRecord, Text, UserRecord, hash};

    fn flow(unit: &str, namespace: &str) -> FlowRecord {
        FlowRecord {
            context_id: unit.into(),
            namespace: namespace.into(),
            source: Some(EndPoint::default()),
            destination: Some(EndPoint::default()),
            ..FlowRecord::default()
        }
    }

    /// The record that was told, if one was, and the flow's.
    fn sign(
        users: &mut Users,
        mut flow: FlowRecord,
        user: (u32, Option<&str>),
        now: u64,
    ) -> (Option<UserRecord>, FlowRecord) {
        let name = user.1.map(Text::from);
        let mut told = None;
        users.sign(&mut flow, false, (user.0, name.as_ref()), now, |record| {
            assert_eq!(*record.id, *"", "the collector fills it in");
            hash::stats_user_hash(record);
            told = Some(record.clone());
        });
        (told, flow)
    }

    #[test]
    fn once_for_each_user_unit_and_namespace_in_ten_minutes() {
        let mut users = Users::default();
        let (told, signed) = sign(&mut users, flow("web", "/prod"), (33, Some("www-data")), 5);
        let told = told.unwrap();
        let claims: Vec<&str> = told.claims.iter().map(|claim| &**claim).collect();
        assert_eq!((&*told.namespace, claims), ("/prod", vec!["uid=33", "unit=web", "user=www-data"]));
        let [source, destination] = [signed.source, signed.destination].map(Option::unwrap);
        assert_eq!((&*source.user_id, &*source.user), ("", ""));
        assert_eq!((&*destination.user_id, &*destination.user), (&*told.id, "www-data"));
        let again = |users: &mut Users, now| sign(users, flow("web", "/prod"), (33, Some("www-data")), now);
        let (none, signed) = again(&mut users, 4 + WINDOW_NS);
        assert_eq!((none, signed.destination.unwrap().user_id), (None, told.id.clone()));
        for (unit, namespace, uid) in [("db", "/prod", 33), ("web", "/test", 33), ("web", "/prod", 34)] {
            let (other, _) = sign(&mut users, flow(unit, namespace), (uid, Some("www-data")), 5);
            assert_ne!(other.unwrap().id, told.id);
        }
        assert_eq!(again(&mut users, 5 + WINDOW_NS).0, Some(told));
    }

    #[test]
    fn who_has_no_name_is_a_number_until_there_is_one() {
        let mut users = Users::default();
        let (told, signed) = sign(&mut users, flow("host", ""), (1000, None), 5);
        assert!(told.unwrap().claims.contains(&"user=1000".into()));
        assert_eq!(&*signed.destination.unwrap().user, "1000");
        assert_eq!(sign(&mut users, flow("host", ""), (1000, None), 6).0, None);
        let (told, signed) = sign(&mut users, flow("host", ""), (1000, Some("alice")), 7);
        assert!(told.unwrap().claims.contains(&"user=alice".into()));
        assert_eq!(&*signed.destination.unwrap().user, "alice");
    }

    #[test]
    fn more_than_there_is_room_for_are_forgotten_and_counted() {
        let mut users = Users { most: 16, ..Users::default() };
        for uid in 0..16 {
            assert!(sign(&mut users, flow("host", ""), (uid, None), uid.into()).0.is_some());
        }
        assert_eq!(users.evicted(), 0);
        assert!(sign(&mut users, flow("host", ""), (16, None), 16).0.is_some());
        assert_eq!((users.evicted(), users.told.len()), (3, 14));
        assert!(sign(&mut users, flow("host", ""), (0, None), 17).0.is_some(), "it is told again");
        assert!(sign(&mut users, flow("host", ""), (16, None), 17).0.is_none());
        // Those whose time is over go uncounted.
        for uid in 100..200 {
            let (told, _) = sign(&mut users, flow("host", ""), (uid, None), u64::from(uid) * WINDOW_NS);
            assert!(told.is_some());
        }
        assert_eq!(users.evicted(), 3);
    }
}
