//! A configuration that is read once more, by a thread that nobody shall keep waiting.

use collector_tests::{Result, command, scratch::Scratch};
use collector_user::config::{Config, ConfigError};

#[test]
fn what_is_no_file_is_not_waited_for() -> Result<()> {
    let scratch = Scratch::new()?;
    let pipe = scratch.join("pipe");
    command::run("mkfifo", &[&scratch.text("pipe")])?;
    // Nobody will ever write to it.
    assert_eq!(Config::read_again(&pipe)?, None);
    assert_eq!(Config::read_again(&scratch.join("."))?, None);
    scratch.write("file", "forwarded = true\n")?;
    assert_eq!(Config::read_again(&scratch.join("file"))?.as_deref(), Some("forwarded = true\n"));
    let missing = Config::read_again(&scratch.join("none"));
    assert!(missing.as_ref().is_err_and(ConfigError::is_missing), "{missing:?}");
    Ok(())
}
