//! Users whose sockets a unit declares.

use std::{convert::Infallible, fmt, str::FromStr};

/// A user, by id or by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum User {
    /// The id as the host has it: in the initial user namespace.
    Id(u32),
    /// The name in the host's user database.
    Name(String),
}

impl User {
    /// The id, if `of_name` knows it.
    pub fn id(&self, of_name: impl Fn(&str) -> Option<u32>) -> Option<u32> {
        match self {
            Self::Id(id) => Some(*id),
            Self::Name(name) => of_name(name),
        }
    }
}

impl FromStr for User {
    type Err = Infallible;

    /// Digits are an id, as for `chown`.
    fn from_str(given: &str) -> Result<Self, Infallible> {
        let is_number = !given.is_empty() && given.bytes().all(|octet| octet.is_ascii_digit());
        let id = is_number.then(|| given.parse().ok()).flatten();
        Ok(id.map_or_else(|| Self::Name(given.to_owned()), Self::Id))
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => f.pad(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::User;

    #[test]
    fn digits_are_an_id_and_the_rest_is_a_name() {
        let user = |text: &str| text.parse::<User>().unwrap();
        assert_eq!([user("1000"), user("007")], [User::Id(1000), User::Id(7)]);
        for name in ["www-data", "", "-1", "4294967296"] {
            assert_eq!(user(name), User::Name(name.to_owned()));
        }
        let of_name = |name: &str| (name == "www-data").then_some(33);
        assert_eq!(
            [user("5"), user("www-data"), user("x")].map(|it| it.id(of_name)),
            [Some(5), Some(33), None]
        );
    }
}
