//! Where a running collector can be asked.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Where a running collector can be asked about its processing units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Socket {
    /// Where whoever asks in the same network namespace looks for it.
    #[default]
    Usual,
    /// Nowhere.
    None,
    /// At this path.
    At(PathBuf),
}

/// Text that is no place of a socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is no place of a socket: expected a path of at most {} octets, or none for no socket",
    Socket::MOST_OCTETS
)]
pub struct SocketError {
    /// What was given.
    given: String,
}

impl Socket {
    /// The longest path. The kernel's structure has room for 107 octets (unix(7)), of which some are for the name that a
    /// socket has until it serves.
    pub const MOST_OCTETS: usize = 96;

    /// The path, where one was given.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::At(path) => Some(path),
            Self::Usual | Self::None => None,
        }
    }
}

impl FromStr for Socket {
    type Err = SocketError;

    fn from_str(text: &str) -> Result<Self, SocketError> {
        match text {
            "none" => Ok(Self::None),
            _ if text.is_empty() || text.len() > Self::MOST_OCTETS || text.contains('\0') => {
                Err(SocketError { given: text.to_owned() })
            }
            path => Ok(Self::At(path.into())),
        }
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usual => f.pad("/run/collector/INODE.sock"),
            Self::None => f.pad("none"),
            Self::At(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Socket;

    #[test]
    fn a_path_or_none() {
        assert_eq!("none".parse(), Ok(Socket::None));
        assert_eq!("./none".parse(), Ok(Socket::At("./none".into())));
        let longest = "/".repeat(Socket::MOST_OCTETS);
        assert_eq!(longest.parse::<Socket>().unwrap().to_string(), longest);
        for text in ["", "a\0b", &(longest + "/")] {
            let error = text.parse::<Socket>().unwrap_err().to_string();
            assert!(
                error.contains("is no place of a socket: expected a path of at most 96 octets"),
                "{error}"
            );
        }
    }
}
