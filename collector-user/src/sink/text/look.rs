//! What the reader's terminal can show.

use std::ffi::OsString;

use jiff::tz::TimeZone;

/// How text is to look.
#[derive(Clone, Debug)]
pub struct Look {
    /// Whether to colour.
    pub colour: bool,
    /// Whether to keep to ASCII.
    pub ascii: bool,
    /// In which zone times of day are shown.
    pub zone: TimeZone,
}

impl Look {
    /// Without colour, in ASCII, in UTC: what every reader can take.
    pub const fn plain() -> Self {
        Self { colour: false, ascii: true, zone: TimeZone::UTC }
    }

    /// What suits the environment, of which `variable` tells: colour on a terminal that is not dumb, unless `NO_COLOR`
    /// is set to anything; ASCII unless the locale of `LC_ALL`, `LC_CTYPE` or `LANG` (the first that is set) is a UTF-8
    /// one.
    pub fn choose(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>, zone: TimeZone) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let is_dumb = set("TERM").is_some_and(|value| value == "dumb");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
        let locale = locale.to_string_lossy().to_ascii_lowercase();
        Self {
            colour: is_terminal && !is_dumb && set("NO_COLOR").is_none(),
            ascii: !(locale.contains("utf-8") || locale.contains("utf8")),
            zone,
        }
    }

    /// The cell in this colour (an SGR parameter).
    pub(super) fn paint(&self, colour: &str, cell: &str) -> String {
        let mut painted = String::new();
        self.painted(&mut painted, colour, |line| line.push_str(cell));
        painted
    }

    /// Puts what `cell` writes at a line's end, in this colour (an SGR parameter).
    pub(super) fn painted(&self, line: &mut String, colour: &str, cell: impl FnOnce(&mut String)) {
        if !self.colour {
            return cell(line);
        }
        for part in ["\x1b[", colour, "m"] {
            line.push_str(part);
        }
        cell(line);
        line.push_str("\x1b[0m");
    }

    /// From client to server.
    pub(super) const fn forth(&self) -> &'static str {
        if self.ascii { "->" } else { "→" }
    }

    /// From server to client.
    pub(super) const fn back(&self) -> &'static str {
        if self.ascii { "<-" } else { "←" }
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::Look;

    fn choose(is_terminal: bool, variables: &[(&str, &str)]) -> (bool, bool) {
        let variable =
            |name: &str| variables.iter().find(|(found, _)| *found == name).map(|(_, value)| (*value).into());
        let look = Look::choose(is_terminal, variable, TimeZone::UTC);
        (look.colour, look.ascii)
    }

    #[test]
    fn colour_is_for_terminals_that_want_it() {
        assert_eq!(choose(true, &[("LANG", "C.UTF-8")]), (true, false));
        assert_eq!(choose(false, &[("LANG", "C.UTF-8")]), (false, false));
        assert_eq!(choose(true, &[("NO_COLOR", "1")]), (false, true));
        assert_eq!(choose(true, &[("NO_COLOR", "")]), (true, true));
        assert_eq!(choose(true, &[("TERM", "dumb")]), (false, true));
    }

    #[test]
    fn the_first_locale_that_is_set_decides() {
        assert_eq!(choose(true, &[("LC_ALL", ""), ("LC_CTYPE", "C"), ("LANG", "de_DE.UTF-8")]), (true, true));
        assert_eq!(choose(true, &[("LC_ALL", "de_DE.utf8"), ("LANG", "C")]), (true, false));
    }
}
