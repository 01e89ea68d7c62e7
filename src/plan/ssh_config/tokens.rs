//! The tokens of ssh_config(5), section TOKENS, which `ssh -G` leaves in some values: `%h`, `%r`, `${HOME}`.

use sha1::{Digest, Sha1};
use thiserror::Error;

/// What HostName knows.
pub(super) const HOST_NAME: &str = "h";
/// What ProxyJump and ProxyCommand know (`%k` in code only, sshconnect.c `expand_proxy_command`).
pub(super) const PROXY: &str = "hknpr";
/// What paths know: CertificateFile, IdentityAgent, IdentityFile, UserKnownHostsFile.
pub(super) const PATH: &str = "CdhijkLlnpru";

/// Why a value cannot be expanded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum TokenError {
    #[error("%{0} means nothing here")]
    Unknown(char),
    #[error("it ends in a lone %")]
    Lone,
    #[error("${{{0}}} is not set in the environment")]
    NotSet(String),
    #[error("${{ has no closing brace")]
    Open,
}

/// What the tokens stand for.
#[derive(Clone, Debug)]
pub(super) struct Tokens<'a> {
    /// `%h`: the host's name after HostName.
    pub(super) host: &'a str,
    /// `%n`: the host's name as typed.
    pub(super) alias: &'a str,
    /// `%k`: HostKeyAlias, else the name as typed.
    pub(super) key_alias: &'a str,
    /// `%p`.
    pub(super) port: u16,
    /// `%r`: the login name on the server.
    pub(super) user: &'a str,
    /// `%j`: ProxyJump, or nothing.
    pub(super) jump: &'a str,
    /// `%u`: the login name here.
    pub(super) local_user: &'a str,
    /// `%i`: its number.
    pub(super) uid: u32,
    /// `%d`: its home.
    pub(super) home: &'a str,
    /// `%l`: the name of this host; up to the first dot it is `%L`.
    pub(super) local_host: &'a str,
    /// For `${NAME}`; [`PATH`] values only know it.
    pub(super) variable: fn(&str) -> Option<String>,
}

impl Tokens<'_> {
    /// `text` with the tokens in `known` and `%%` replaced; what was put in is not looked at again.
    pub(super) fn expand(&self, text: &str, known: &str) -> Result<String, TokenError> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(['%', '$']) {
            let (plain, token) = rest.split_at(at);
            expanded.push_str(plain);
            rest = match token.strip_prefix("${") {
                Some(name) if known == PATH => self.named(name, &mut expanded)?,
                _ => match token.strip_prefix('%') {
                    Some(token) => self.percent(token, known, &mut expanded)?,
                    None => {
                        expanded.push('$');
                        &token[1..]
                    }
                },
            };
        }
        Ok(expanded + rest)
    }

    /// Puts in what `${` stands for; the text after `}`.
    fn named<'t>(&self, text: &'t str, expanded: &mut String) -> Result<&'t str, TokenError> {
        let (name, rest) = text.split_once('}').ok_or(TokenError::Open)?;
        let value = (self.variable)(name).ok_or_else(|| TokenError::NotSet(name.to_owned()))?;
        expanded.push_str(&value);
        Ok(rest)
    }

    /// Puts in what `%` stands for; the text after its letter.
    fn percent<'t>(
        &self,
        text: &'t str,
        known: &str,
        expanded: &mut String,
    ) -> Result<&'t str, TokenError> {
        let mut rest = text.chars();
        let letter = rest.next().ok_or(TokenError::Lone)?;
        if letter == '%' {
            expanded.push('%');
        } else if known.contains(letter) {
            expanded.push_str(&self.value(letter)?);
        } else {
            return Err(TokenError::Unknown(letter));
        }
        Ok(rest.as_str())
    }

    fn value(&self, letter: char) -> Result<String, TokenError> {
        let text = match letter {
            'h' => self.host,
            'n' => self.alias,
            'k' => self.key_alias,
            'r' => self.user,
            'j' => self.jump,
            'u' => self.local_user,
            'd' => self.home,
            'l' => self.local_host,
            'L' => self.local_host.split('.').next().unwrap_or_default(),
            'p' => return Ok(self.port.to_string()),
            'i' => return Ok(self.uid.to_string()),
            'C' => return Ok(self.connection_hash()),
            other => return Err(TokenError::Unknown(other)),
        };
        Ok(text.to_owned())
    }

    /// ssh.c `ssh_connection_hash`: SHA-1 over `%l%h%p%r%j` in hexadecimal. ssh before 9.6 leaves out `%j`, which is
    /// empty but behind a jump host.
    fn connection_hash(&self) -> String {
        let mut hash = Sha1::new();
        hash.update(self.local_host);
        hash.update(self.host);
        hash.update(self.port.to_string());
        hash.update(self.user);
        hash.update(self.jump);
        let bytes = hash.finalize();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKENS: Tokens<'_> = Tokens {
        host: "prod.example.com",
        alias: "prod",
        key_alias: "key-alias",
        port: 2222,
        user: "deploy",
        jump: "gw",
        local_user: "me",
        uid: 1000,
        home: "/home/me",
        local_host: "laptop.lan",
        variable: |name| (name == "HOME").then(|| "/h%h".to_owned()),
    };

    #[test]
    fn the_table_of_the_manual() {
        for (token, value) in [
            ("%%", "%"),
            ("%d", "/home/me"),
            ("%h", "prod.example.com"),
            ("%i", "1000"),
            ("%j", "gw"),
            ("%k", "key-alias"),
            ("%L", "laptop"),
            ("%l", "laptop.lan"),
            ("%n", "prod"),
            ("%p", "2222"),
            ("%r", "deploy"),
            ("%u", "me"),
            ("${HOME}/x", "/h%h/x"),
            ("$HOME", "$HOME"),
            ("a b\"%r@%n\"%%h", "a b\"deploy@prod\"%h"),
        ] {
            assert_eq!(TOKENS.expand(token, PATH).as_deref(), Ok(value), "{token}");
        }
    }

    #[test]
    fn the_hash_is_that_of_ssh() {
        // printf 'laptop.lanprod.example.com2222deploygw' | sha1sum
        assert_eq!(
            TOKENS.expand("%C", PATH).unwrap(),
            "82572d49dc54a18fd455ba001478ec3571c84e68"
        );
    }

    #[test]
    fn an_option_knows_its_own_tokens_only() {
        assert_eq!(
            TOKENS.expand("nc %h %p ${HOME} %%", PROXY).unwrap(),
            "nc prod.example.com 2222 ${HOME} %"
        );
        assert_eq!(TOKENS.expand("%u", PROXY), Err(TokenError::Unknown('u')));
        assert_eq!(
            TOKENS.expand("%n", HOST_NAME),
            Err(TokenError::Unknown('n'))
        );
        assert_eq!(TOKENS.expand("%H", PATH), Err(TokenError::Unknown('H')));
        assert_eq!(TOKENS.expand("50%", PATH), Err(TokenError::Lone));
        assert_eq!(TOKENS.expand("${HOME", PATH), Err(TokenError::Open));
        let unset = TOKENS.expand("${X}", PATH);
        assert_eq!(unset, Err(TokenError::NotSet("X".into())));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*", token in "[%${}a-zA-Z]{0,12}") {
            for known in [HOST_NAME, PROXY, PATH] {
                let _ = TOKENS.expand(&text, known);
                let _ = TOKENS.expand(&token, known);
            }
        }
    }
}
