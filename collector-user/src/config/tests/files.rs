//! The file itself: there or not, text or not, with an end or not.

use std::path::Path;

use crate::config::{Config, ConfigError};

#[test]
fn a_file_is_read_and_one_that_is_not_there_is_named() {
    let missing = Path::new("/nonexistent/c.toml");
    let error = Config::load(missing).unwrap_err();
    assert_eq!(error.to_string(), "/nonexistent/c.toml: the configuration cannot be read");
    assert!(matches!(error, ConfigError::Read { .. }));
    let path = std::env::temp_dir().join(format!("collector-config-{}.toml", std::process::id()));
    std::fs::write(&path, "forwarded = true\n").unwrap();
    let config = Config::load(&path);
    std::fs::remove_file(&path).unwrap();
    assert!(config.unwrap().forwarded);
}

#[test]
fn a_file_without_an_end_is_not_read_for_ever() {
    let error = Config::load(Path::new("/dev/zero")).unwrap_err();
    assert!(matches!(error, ConfigError::TooLong { most: Config::MOST_OCTETS, .. }), "{error}");
}

#[test]
fn a_file_that_is_no_text_has_the_place_of_its_first_octet_that_is_none() {
    let path = std::env::temp_dir().join(format!("collector-utf8-{}.toml", std::process::id()));
    std::fs::write(&path, b"forwarded = true\n# \xc3\xa9\xff\n").unwrap();
    let error = Config::load(&path).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    let want =
        format!("{}:2:4: the octet 0xff is no UTF-8: expected the file in that encoding", path.display());
    assert_eq!(error.to_string(), want);
}
