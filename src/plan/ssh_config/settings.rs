//! Options as texts: what `ssh -G` prints, or what was found in files.

/// Options that add up over all places that set them; of the others the first value counts (ssh_config(5)).
const ADDING_UP: [&str; 8] = [
    "certificatefile",
    "dynamicforward",
    "identityfile",
    "localforward",
    "permitremoteopen",
    "remoteforward",
    "sendenv",
    "setenv",
];

/// Options in their order: key in small letters, value as printed. A key may stand more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(Vec<(String, String)>);

impl Settings {
    /// Reads the output of `ssh -G` (readconf.c `dump_client_config`): a line for each value, the key up to the first
    /// blank. A value may hold blanks and quotes. A line that is empty is no option.
    pub fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        for line in text.lines() {
            let line = line.trim_end_matches('\r');
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            if !key.is_empty() {
                settings.push(key, value);
            }
        }
        settings
    }

    /// Adds a value behind what is there.
    pub fn push(&mut self, key: &str, value: impl Into<String>) {
        self.0.push((key.to_ascii_lowercase(), value.into()));
    }

    /// Adds what `other`, which comes later in ssh's order, has to say.
    pub fn fill_up(&mut self, other: Self) {
        let set: Vec<String> = self.keys().map(str::to_owned).collect();
        let said = |key: &String| set.contains(key) && !ADDING_UP.contains(&key.as_str());
        self.0
            .extend(other.0.into_iter().filter(|(key, _)| !said(key)));
    }

    /// The first value of `key`, which is in small letters.
    pub fn first(&self, key: &str) -> Option<&str> {
        self.all(key).next()
    }

    /// All values of `key`, which is in small letters.
    pub fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    /// Every key once, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let is_first = |index: usize, key: &str| !self.0[..index].iter().any(|(k, _)| k == key);
        self.0
            .iter()
            .enumerate()
            .filter(move |(index, (key, _))| is_first(*index, key))
            .map(|(_, (key, _))| key.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_output_of_ssh() {
        let settings = Settings::parse(
            "user me\r\nidentityfile ~/a b\nidentityfile none\nproxycommand nc -X \"a  b\" %h\n\ncanonicaldomains\n",
        );
        assert_eq!(settings.first("user"), Some("me"));
        assert_eq!(
            settings.all("identityfile").collect::<Vec<_>>(),
            ["~/a b", "none"]
        );
        assert_eq!(settings.first("proxycommand"), Some("nc -X \"a  b\" %h"));
        assert_eq!(settings.first("canonicaldomains"), Some(""));
        assert_eq!(settings.first("port"), None);
        assert_eq!(
            settings.keys().collect::<Vec<_>>(),
            ["user", "identityfile", "proxycommand", "canonicaldomains"]
        );
    }

    #[test]
    fn the_first_value_counts_but_keys_add_up() {
        let mut settings = Settings::parse("user a\nidentityfile /1");
        settings.fill_up(Settings::parse("user b\nidentityfile /2\nport 7"));
        assert_eq!(
            settings,
            Settings::parse("user a\nidentityfile /1\nidentityfile /2\nport 7")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let settings = Settings::parse(&String::from_utf8_lossy(&bytes));
            for key in settings.keys() {
                prop_assert!(settings.first(key).is_some());
            }
        }
    }
}
