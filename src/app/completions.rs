//! Completion scripts: clap's, and the names of profiles beside networks.

use clap_complete::Shell;

use crate::cli;

/// Lists the profiles, a name per line.
const NAMES: &str = "underpass profiles --names 2>/dev/null";

/// The script for a shell.
pub(super) fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::definition(), "underpass", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => bash(script),
        Shell::Zsh => zsh(&script),
        Shell::Fish => fish(script),
        _ => script,
    }
}

/// A function around clap's: it adds to what that one found, where a network or a profile may stand.
fn bash(script: String) -> String {
    let registered = script.replace(
        "complete -F _underpass ",
        "complete -F _underpass_and_profiles ",
    );
    registered
        + &format!(
            "\n_underpass_and_profiles() {{
    _underpass \"$@\"
    local cur=\"${{COMP_WORDS[COMP_CWORD]}}\" prev=\"${{COMP_WORDS[COMP_CWORD-1]}}\"
    if [[ \" ${{COMP_WORDS[*]:1:COMP_CWORD-1}} \" == *' up '* && $cur != -* && ($prev != -* || $prev == --profile) ]]; then
        COMPREPLY+=( $(compgen -W \"$({NAMES})\" -- \"$cur\") )
    fi
}}
"
        )
}

fn fish(script: String) -> String {
    script
        + &format!(
            "complete -c underpass -n \"__fish_seen_subcommand_from up\" -f -a \"({NAMES})\"
complete -c underpass -n \"__fish_seen_subcommand_from up\" -l profile -r -f -a \"({NAMES})\"
"
        )
}

/// Two of clap's lines end without an action, and get one.
fn zsh(script: &str) -> String {
    let is_profile =
        |line: &str| line.starts_with("'*::subnets -- ") || line.starts_with("'--profile=[");
    let mut edited = String::new();
    for line in script.lines() {
        match line.strip_suffix("' \\").filter(|_| is_profile(line)) {
            Some(start) => edited.push_str(&format!("{start}_underpass_profiles' \\\n")),
            None if line.starts_with("if [ \"$funcstack[1]\"") => edited.push_str(&format!(
                "(( $+functions[_underpass_profiles] )) ||
_underpass_profiles() {{
    compadd -- ${{(f)\"$({NAMES})\"}}
}}

{line}\n"
            )),
            None => edited.push_str(&format!("{line}\n")),
        }
    }
    edited
}
