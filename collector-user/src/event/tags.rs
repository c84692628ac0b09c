//! Tags of processing units, and maps of texts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Text;

/// A map of texts, ordered by key.
pub type ExtendedMap = BTreeMap<String, String>;

/// Tags of the form `key=value`, in the order in which they were given; duplicates are allowed. An array in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TagStore {
    tags: Vec<Text>,
}

impl TagStore {
    /// No tags.
    pub const fn new() -> Self {
        Self { tags: Vec::new() }
    }

    /// Appends `key=value`.
    pub fn append_key_value(&mut self, key: &str, value: &str) {
        self.tags.push(format!("{key}={value}").into());
    }

    /// The value of the first tag with this key. A tag without `=` has none; a value may hold further ones.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs().find(|(found, _)| *found == key).map(|(_, value)| value)
    }

    /// Adds those of `other`'s tags whose key is not here yet, and says how many these were. Tags without `=` are left
    /// out.
    pub fn merge(&mut self, other: &Self) -> usize {
        let before = self.tags.len();
        for (tag, (key, _)) in other.tags.iter().filter_map(|tag| Some((tag, tag.split_once('=')?))) {
            if self.get(key).is_none() {
                self.tags.push(Text::clone(tag));
            }
        }
        self.tags.len() - before
    }

    /// The tags as they were given.
    pub fn as_slice(&self) -> &[Text] {
        &self.tags
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tags.iter().filter_map(|tag| tag.split_once('='))
    }
}

impl<T: Into<Text>> FromIterator<T> for TagStore {
    fn from_iter<I: IntoIterator<Item = T>>(tags: I) -> Self {
        Self { tags: tags.into_iter().map(Into::into).collect() }
    }
}

impl From<&ExtendedMap> for TagStore {
    /// A tag for each entry, in the order of the keys.
    fn from(map: &ExtendedMap) -> Self {
        map.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }
}

impl std::fmt::Display for TagStore {
    /// The tags, joined by one blank.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, tag) in self.tags.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(tag)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ExtendedMap, TagStore};

    fn store() -> TagStore {
        ["a=1", "b=2=3", "a=4", "lonely"].into_iter().collect()
    }

    #[test]
    fn order_and_duplicates_are_kept() {
        let store = store();
        assert_eq!(serde_json::to_string(&store).unwrap(), r#"["a=1","b=2=3","a=4","lonely"]"#);
        assert_eq!(serde_json::from_str::<TagStore>(r#"["a=1","b=2=3","a=4","lonely"]"#).unwrap(), store);
        assert_eq!(store.to_string(), "a=1 b=2=3 a=4 lonely");
        assert!(!store.is_empty() && TagStore::new().is_empty());
    }

    #[test]
    fn the_first_match_wins_and_splits_at_the_first_sign() {
        let store = store();
        assert_eq!(store.get("a"), Some("1"));
        assert_eq!(store.get("b"), Some("2=3"));
        assert_eq!(store.get("lonely"), None);
    }

    #[test]
    fn a_merge_adds_missing_keys_only() {
        let mut store = store();
        let other = ["a=9", "c=5", "c=6", "alone"].into_iter().collect();
        assert_eq!(store.merge(&other), 1);
        assert_eq!(store.get("c"), Some("5"));
        store.append_key_value("d", "7");
        assert_eq!(store.as_slice().last().map(AsRef::as_ref), Some("d=7"));
    }

    #[test]
    fn a_map_becomes_tags() {
        let map =
            ExtendedMap::from([("b", "2=3"), ("a", "1")].map(|(key, value)| (key.into(), value.into())));
        assert_eq!(TagStore::from(&map).to_string(), "a=1 b=2=3");
    }
}
