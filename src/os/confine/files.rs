//! Where a process may write: Landlock (landlock(7)), Linux 5.13 and later.

use std::path::PathBuf;

use landlock::{
    ABI, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    path_beneath_rules,
};
use tracing::debug;

/// Up to truncation (Linux 6.2); what came later is about devices and sockets.
const KNOWN: ABI = ABI::V3;

/// Reading and running stay as they are; writing, making and removing is left below `paths` alone, and removing of empty
/// directories below `parents`. A path that is not there is left out.
pub(super) fn write_only_below(
    paths: impl IntoIterator<Item = PathBuf>,
    parents: impl IntoIterator<Item = PathBuf>,
) -> Result<(), RulesetError> {
    let status = Ruleset::default()
        .handle_access(AccessFs::from_write(KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(paths, AccessFs::from_write(KNOWN)))?
        .add_rules(path_beneath_rules(parents, AccessFs::RemoveDir))?
        .restrict_self()?;
    if status.ruleset != RulesetStatus::FullyEnforced {
        debug!("Landlock of this kernel: {:?}", status.ruleset);
    }
    Ok(())
}
